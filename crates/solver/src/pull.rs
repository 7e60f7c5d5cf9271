//! Reading a layer of an image from its registry: one streaming pass that checks the blob's digest, unpacks the encoding,
//! keeps the tar as a flat file, makes the table of contents and checks the diff id.

use std::io;

use buildyard_image::Descriptor;
use buildyard_layer::{
    Compression, DigestReader, FlatFiles, IngestError, Limits, Toc, decompressor, read_tar,
};
use buildyard_model::Digest;
use buildyard_registry::{Reference, Registry, RegistryError};
use futures::TryStreamExt;
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

impl PullError {
    /// Whether the image itself is unsound, so that it is of no use to try again, here or elsewhere.
    pub fn is_images_fault(&self) -> bool {
        match self {
            Self::MediaType { .. } | Self::DiffId { .. } => true,
            Self::Ingest { source, .. } => {
                !matches!(source, IngestError::Read(_) | IngestError::Write(_))
            }
            Self::Registry(_) | Self::Read { .. } => false,
        }
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
    let reader = SyncIoBridge::new(StreamReader::new(stream.map_err(io::Error::other)));
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
