//! Reading a layer of an image from its registry: one streaming pass that checks the blob's digest, unpacks the encoding,
//! keeps the tar as a flat file, makes the table of contents and checks the diff id.

use std::io;

use buildyard_image::Descriptor;
use buildyard_layer::{
    Compression, DigestReader, FlatFiles, IngestError, Limits, Toc, decompressor, read_tar,
};
use buildyard_model::Digest;
use buildyard_registry::{Reference, Registry, RegistryError};
use tokio_util::io::{StreamReader, SyncIoBridge};

/// How far a compressed layer may expand: beyond that it is taken for a bomb. gzip itself ends at about 1030.
const EXPANSION: u64 = 1100;
/// Small layers may expand further than the factor allows.
const SMALL: u64 = 64 << 20;

/// Why a layer could not be pulled.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The registry did not give it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Its encoding is none that can be read.
    #[error("layer {blob} has the media type {media_type:?}, which cannot be read")]
    MediaType {
        /// The blob.
        blob: Digest,
        /// Its type.
        media_type: String,
    },
    /// Reading the stream failed, or what came was not what its digest says.
    #[error("reading layer {blob}")]
    Read {
        /// The blob.
        blob: Digest,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is no sound layer.
    #[error("layer {blob} cannot be used")]
    Ingest {
        /// The blob.
        blob: Digest,
        /// Why.
        #[source]
        source: IngestError,
    },
    /// The image's configuration promises another layer.
    #[error(
        "layer {blob} does not match its image: its diff id is {found}, the image's configuration says {expected}"
    )]
    DiffId {
        /// The blob.
        blob: Digest,
        /// What its tar has.
        found: Digest,
        /// What the configuration says.
        expected: Digest,
    },
}

/// Whose fault it is that a layer could not be pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The image is unsound, not there or not to be had with these credentials: of no use to try again, here or elsewhere.
    Image,
    /// The registry does not answer as it should for now.
    Registry,
    /// Something on this machine.
    Machine,
}

impl PullError {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        if let Some(error) = self.registry_error() {
            return match error.is_transient() {
                true => Fault::Registry,
                false => Fault::Image,
            };
        }
        match self {
            Self::MediaType { .. } | Self::DiffId { .. } => Fault::Image,
            Self::Ingest { source, .. }
                if !matches!(source, IngestError::Read(_) | IngestError::Write(_)) =>
            {
                Fault::Image
            }
            _ => Fault::Machine,
        }
    }

    /// For people: what the registry said names the blob and its place; else this error with its cause.
    pub fn full_text(&self) -> String {
        if let Some(error) = self.registry_error() {
            return format!("pulling a layer: {error}");
        }
        let cause = std::error::Error::source(self);
        let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
        format!("{self}{cause}")
    }

    /// The registry's error, also where it broke the stream that was being read.
    fn registry_error(&self) -> Option<&RegistryError> {
        let broken = match self {
            Self::Registry(error) => return Some(error),
            Self::Read { source, .. }
            | Self::Ingest {
                source: IngestError::Read(source),
                ..
            } => source,
            _ => return None,
        };
        broken.get_ref()?.downcast_ref()
    }
}

/// Pulls one layer of the image at `reference` into `flats`. Its flat file has the diff id's name.
///
/// # Errors
/// [`PullError`]; nothing of the layer is kept then.
pub async fn pull(
    registry: &Registry,
    reference: &Reference,
    descriptor: &Descriptor,
    diff_id: Digest,
    flats: &FlatFiles,
) -> Result<Toc, PullError> {
    let blob = descriptor.digest;
    let media_type = &descriptor.media_type;
    let compression =
        Compression::of_media_type(media_type).ok_or_else(|| PullError::MediaType {
            blob,
            media_type: media_type.clone(),
        })?;
    let stream = registry.fetch_blob(reference, descriptor).await?;
    let reader = SyncIoBridge::new(StreamReader::new(stream));
    let flats = flats.clone();
    let limits = Limits {
        bytes: Limits::default()
            .bytes
            .min(descriptor.size.saturating_mul(EXPANSION).max(SMALL)),
        ..Limits::default()
    };
    tokio::task::spawn_blocking(move || read(reader, compression, blob, diff_id, &flats, &limits))
        .await
        .expect("reading a layer does not panic")
}

fn read(
    reader: impl io::Read + Send,
    compression: Compression,
    blob: Digest,
    diff_id: Digest,
    flats: &FlatFiles,
    limits: &Limits,
) -> Result<Toc, PullError> {
    let failed = |source| PullError::Read { blob, source };
    let mut hashed = DigestReader::new(reader);
    let plain = decompressor(&mut hashed, compression).map_err(failed)?;
    let ingested =
        read_tar(plain, flats, limits).map_err(|source| PullError::Ingest { blob, source })?;
    let checked = hashed.finish().map_err(failed).and_then(|(found, _)| {
        if found == blob {
            return Ok(());
        }
        Err(failed(io::Error::other(format!(
            "its bytes have the digest {found}"
        ))))
    });
    let checked = checked.and_then(|()| {
        if ingested.diff_id == diff_id {
            return Ok(());
        }
        Err(PullError::DiffId {
            blob,
            found: ingested.diff_id,
            expected: diff_id,
        })
    });
    if let Err(error) = checked {
        let _ = flats.remove(ingested.flat);
        return Err(error);
    }
    Ok(ingested.toc)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(error: PullError, fault: Fault, text: &str) {
        assert_eq!(error.fault(), fault, "{error:?}");
        let full = error.full_text();
        assert!(full.contains(text), "{text:?} in {full:?}");
    }

    #[test]
    fn each_fault_is_told_apart() {
        let blob = Digest::of("blob");
        let broken = || RegistryError::Interrupted {
            what: "r:5/base@sha256:b".to_owned(),
            cause: "it ended early after 5 of 9 bytes".to_owned(),
        };
        let said = "r:5/base@sha256:b: the connection broke: it ended early after 5 of 9 bytes";
        check(PullError::Registry(broken()), Fault::Registry, said);
        let source = io::Error::other(broken());
        check(PullError::Read { blob, source }, Fault::Registry, said);
        let source = IngestError::Read(io::Error::other(broken()));
        check(PullError::Ingest { blob, source }, Fault::Registry, said);
        let damaged = RegistryError::Damaged {
            what: "r:5/base@sha256:b".to_owned(),
            cause: "the registry has only 5 of its 9 bytes".to_owned(),
        };
        let source = IngestError::Read(io::Error::other(damaged));
        let said = "r:5/base@sha256:b is damaged: the registry has only 5 of its 9 bytes";
        check(PullError::Ingest { blob, source }, Fault::Image, said);
        let source = IngestError::Malformed("no header".to_owned());
        check(
            PullError::Ingest { blob, source },
            Fault::Image,
            "no header",
        );
        let source = IngestError::Write(io::Error::other("no space left"));
        check(
            PullError::Ingest { blob, source },
            Fault::Machine,
            "bytes on this machine",
        );
        let (found, expected) = (blob, Digest::of("other"));
        let lie = PullError::DiffId {
            blob,
            found,
            expected,
        };
        check(lie, Fault::Image, "does not match its image");
    }
}
