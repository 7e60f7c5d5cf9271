//! Sending results to the client (`FileSend.DiffCopy`).
//!
//! One method, two languages: a client that wants a file (`type=tar`, `oci`, `docker`) reads plain chunks of bytes, one
//! that wants a directory (`type=local`) speaks the file protocol, with the coordinator as the sender. Which one
//! the client expects follows from the exporter's type; the exporter's number tells the client which of its outputs
//! is meant.

mod dir;
mod feed;
mod stream;
#[cfg(test)]
mod tests;

pub use dir::{DirEntry, DirKind, DirSource};
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};

pub(crate) const DIFF_COPY: &str = "/moby.filesync.v1.FileSend/DiffCopy";

/// The headers that name the output and carry what the exporter has to say.
fn headers<'a>(
    exporter: usize,
    attrs: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> MetadataMap {
    let mut headers = MetadataMap::new();
    headers.insert(
        "buildkit-attachable-exporter-id",
        AsciiMetadataValue::from(exporter),
    );
    for (key, value) in attrs {
        // Keys and values that are no header text have no way to the client here; the build's response has them all.
        let key = AsciiMetadataKey::from_bytes(format!("exporter-md-{key}").as_bytes());
        if let (Ok(key), Ok(value)) = (key, AsciiMetadataValue::try_from(value)) {
            headers.insert(key, value);
        }
    }
    headers
}
