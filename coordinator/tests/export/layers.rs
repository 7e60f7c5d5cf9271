//! Layers in memory, and a client that keeps what it is sent.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use buildyard_coordinator::export::{
    ClientSink, ExportError, ExportProgress, ImageLayer, LayerBlob, LayerBlobs, PlatformImage,
};
use buildyard_image::{Compression, CompressionKind, Descriptor, History, ImageConfig, MediaTypes};
use buildyard_layer::{Encoding, ExtentSource, FlatFiles, Limits, Toc, Tree, encode, read_tar};
use buildyard_model::{Digest, LayerId, Platform};
use buildyard_registry::{BlobStream, Reference, verified};
use buildyard_session::{DirEntry, DirKind, DirSource};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};

/// A member of a layer's tar.
pub(crate) enum Put<'a> {
    File(&'a str, &'a str),
    Directory(&'a str),
    Link(&'a str, &'a str),
    Symlink(&'a str, &'a str),
}

/// Layers, made of tars.
pub(crate) struct Layers {
    _directory: tempfile::TempDir,
    flats: Arc<FlatFiles>,
    layers: Mutex<HashMap<LayerId, Layer>>,
    blobs: Mutex<HashMap<Digest, Bytes>>,
}

#[derive(Clone)]
struct Layer {
    toc: Arc<Toc>,
    /// The blob that was pulled, and where.
    pulled: Option<(Descriptor, Reference)>,
}

impl Layers {
    pub(crate) fn new() -> Arc<Self> {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let flats = Arc::new(FlatFiles::new(directory.path()).expect("it is empty"));
        Arc::new(Self {
            _directory: directory,
            flats,
            layers: Mutex::default(),
            blobs: Mutex::default(),
        })
    }

    /// A layer of our own.
    pub(crate) fn add(&self, members: &[Put<'_>]) -> LayerId {
        let tar = tar_of(members);
        let read =
            read_tar(tar.as_slice(), &self.flats, &Limits::default()).expect("the tar is sound");
        let id = LayerId(read.diff_id);
        let layer = Layer {
            toc: Arc::new(read.toc),
            pulled: None,
        };
        self.layers
            .lock()
            .expect("no test panics with it")
            .insert(id, layer);
        id
    }

    /// The same layer as one that was pulled from `origin`, where its gzip form is put by `put`.
    pub(crate) fn pulled(
        &self,
        members: &[Put<'_>],
        origin: &Reference,
        put: impl FnOnce(Bytes),
    ) -> LayerId {
        let id = self.add(members);
        let mut layers = self.layers.lock().expect("no test panics with it");
        let layer = layers.get_mut(&id).expect("it was added");
        let (descriptor, bytes, _) = self.encoded(layer, Compression::default());
        put(bytes);
        layer.pulled = Some((descriptor, origin.clone()));
        id
    }

    /// Makes what is sent of this blob something else.
    pub(crate) fn damage(&self, blob: Digest) {
        self.blobs
            .lock()
            .expect("no test panics with it")
            .insert(blob, Bytes::from_static(b"damaged"));
    }

    fn encoded(&self, layer: &Layer, compression: Compression) -> (Descriptor, Bytes, Digest) {
        let encoding = match compression.kind {
            CompressionKind::Uncompressed => Encoding::Uncompressed,
            CompressionKind::Gzip => Encoding::GZIP,
            CompressionKind::Zstd => Encoding::ZSTD,
        };
        let mut bytes = Vec::new();
        let encoded =
            encode(&layer.toc, &*self.flats, encoding, 1, &mut bytes).expect("it can be encoded");
        let descriptor = Descriptor::new(
            MediaTypes::Oci.layer(compression.kind),
            encoded.digest,
            encoded.size,
        );
        (descriptor, bytes.into(), encoded.diff_id)
    }

    fn get(&self, layer: LayerId) -> Layer {
        self.layers.lock().expect("no test panics with it")[&layer].clone()
    }
}

#[async_trait]
impl LayerBlobs for Layers {
    async fn describe(
        &self,
        layer: LayerId,
        compression: Compression,
        force: bool,
    ) -> Result<LayerBlob, ExportError> {
        let found = self.get(layer);
        let (descriptor, bytes, diff_id) = self.encoded(&found, compression);
        let kept = found.pulled.filter(|_| !force);
        let (descriptor, origin) = match kept {
            Some((descriptor, origin)) => (descriptor, Some(origin)),
            None => (descriptor, None),
        };
        self.blobs
            .lock()
            .expect("no test panics with it")
            .entry(descriptor.digest)
            .or_insert(bytes);
        Ok(LayerBlob {
            layer,
            descriptor,
            diff_id,
            origin,
        })
    }

    async fn open(&self, blob: &LayerBlob) -> Result<BlobStream, ExportError> {
        let bytes =
            self.blobs.lock().expect("no test panics with it")[&blob.descriptor.digest].clone();
        let pieces: Vec<io::Result<Bytes>> = bytes
            .chunks(1000)
            .map(|piece| Ok(Bytes::copy_from_slice(piece)))
            .collect();
        let stream = futures::stream::iter(pieces).boxed();
        let what = format!("layer {}", blob.descriptor.digest);
        let (digest, size) = (blob.descriptor.digest, blob.descriptor.size);
        Ok(verified(stream, &what, digest, size))
    }

    async fn prove(&self, _: &LayerBlob) -> Result<(), ExportError> {
        Ok(())
    }

    async fn tree(
        &self,
        layers: &[LayerId],
    ) -> Result<(Arc<Toc>, Arc<dyn ExtentSource>), ExportError> {
        let tocs: Vec<Arc<Toc>> = layers.iter().map(|layer| self.get(*layer).toc).collect();
        Ok((Arc::new(Tree::merge(&tocs).to_toc()), self.flats.clone()))
    }
}

fn tar_of(members: &[Put<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for member in members {
        let mut header = tar::Header::new_ustar();
        header.set_mtime(1_700_000_000);
        header.set_mode(0o644);
        header.set_size(0);
        let added = match member {
            Put::File(path, text) => {
                header.set_size(text.len() as u64);
                builder.append_data(&mut header, path, text.as_bytes())
            }
            Put::Directory(path) => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_mode(0o755);
                builder.append_data(&mut header, path, io::empty())
            }
            Put::Link(path, target) => {
                header.set_entry_type(tar::EntryType::Link);
                builder.append_link(&mut header, path, target)
            }
            Put::Symlink(path, target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                builder.append_link(&mut header, path, target)
            }
        };
        added.expect("memory takes it");
    }
    builder.into_inner().expect("memory takes it")
}

/// An image of these layers; the first one comes from the base image.
pub(crate) fn image(platform: &str, layers: &[LayerId]) -> PlatformImage {
    let platform: Platform = platform
        .parse()
        .expect("the test's platforms are well formed");
    let entry = |text: &str, empty| History {
        created_by: text.to_owned(),
        comment: "buildkit.dockerfile.v0".to_owned(),
        empty_layer: empty,
        ..History::default()
    };
    let mut config = ImageConfig {
        architecture: platform.architecture.clone(),
        variant: platform.variant.clone(),
        os: platform.os.clone(),
        ..ImageConfig::default()
    };
    config.config.cmd = Some(vec!["/bin/sh".to_owned()]);
    config.history = layers.iter().map(|_| entry("RUN make", false)).collect();
    config.history.push(entry("CMD [\"/bin/sh\"]", true));
    let layers = layers.iter().enumerate().map(|(index, layer)| ImageLayer {
        layer: *layer,
        created: Some(format!("2026-01-0{}T00:00:00Z", index + 1)),
        description: "made".to_owned(),
    });
    PlatformImage {
        platform,
        config,
        layers: layers.collect(),
    }
}

/// A client that keeps what it is sent.
#[derive(Default)]
pub(crate) struct Client {
    pub(crate) stream: Mutex<Vec<u8>>,
    pub(crate) attrs: Mutex<BTreeMap<String, String>>,
    pub(crate) files: Mutex<BTreeMap<String, (DirEntry, String)>>,
}

#[async_trait]
impl ClientSink for Client {
    async fn send_stream(
        &self,
        attrs: &BTreeMap<String, String>,
        body: BlobStream,
    ) -> Result<u64, ExportError> {
        let parts: Result<Vec<Bytes>, io::Error> = body.try_collect().await;
        let bytes = parts
            .map_err(|error| ExportError::Client(error.to_string()))?
            .concat();
        let length = bytes.len() as u64;
        *self.stream.lock().expect("no test panics with it") = bytes;
        *self.attrs.lock().expect("no test panics with it") = attrs.clone();
        Ok(length)
    }

    async fn send_dir(&self, source: Arc<dyn DirSource>) -> Result<u64, ExportError> {
        let mut sent = 0;
        for number in 0..source.paths() {
            let entry = source.entry(number);
            let mut text = String::new();
            if let DirKind::File(size) = entry.kind {
                let mut reader = source.open(number).expect("it is listed");
                reader
                    .read_to_string(&mut text)
                    .expect("its bytes are there");
                assert_eq!(text.len() as u64, size);
                sent += size;
            }
            let path = String::from_utf8(entry.path.clone()).expect("the test's paths are UTF-8");
            self.files
                .lock()
                .expect("no test panics with it")
                .insert(path, (entry, text));
        }
        Ok(sent)
    }
}

/// Keeps what began and ended.
#[derive(Default)]
pub(crate) struct Shown(pub(crate) Mutex<Vec<String>>);

impl ExportProgress for Shown {
    fn begin(&self, part: &str) {
        self.0
            .lock()
            .expect("no test panics with it")
            .push(part.to_owned());
    }

    fn moved(&self, _part: &str, _current: u64, _total: u64) {}

    fn end(&self, part: &str) {
        assert!(
            self.0
                .lock()
                .expect("no test panics with it")
                .iter()
                .any(|begun| begun == part)
        );
    }
}
