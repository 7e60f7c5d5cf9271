//! The layers on this machine: their tables of contents, and their bytes when a step needs them.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use buildyard_image::Descriptor;
use buildyard_layer::{FlatFiles, NamedRanges, Toc, open_piece};
use buildyard_model::{Digest, FlatId, LayerId};
use buildyard_proto::v1 as proto;
use buildyard_registry::{Reference, Registry, RegistryConfig};
use buildyard_solver::{RecentTocs, Tocs, TocsError, pull};
use tonic::Code;

use super::link::Link;
use super::registry_auth::JobAuth;

/// Bytes that are written at once; each write waits for the disk.
const BATCH: usize = 16 << 20;

/// The layers on this machine.
pub(super) struct Layers {
    link: Link,
    flats: FlatFiles,
    shared: bool,
    registry: RegistryConfig,
    memory: RecentTocs<LayerId>,
    busy: Mutex<HashMap<LayerId, Arc<tokio::sync::Mutex<()>>>>,
}

impl Layers {
    /// Layers over these flat files; `shared` if they are the coordinator's own.
    pub(super) fn new(
        link: Link,
        flats: FlatFiles,
        shared: bool,
        registry: RegistryConfig,
    ) -> Self {
        Self {
            link,
            flats,
            shared,
            registry,
            memory: RecentTocs::default(),
            busy: Mutex::default(),
        }
    }

    /// The flat files.
    pub(super) fn flats(&self) -> &FlatFiles {
        &self.flats
    }

    /// Whether the flat files are the coordinator's own.
    pub(super) fn are_shared(&self) -> bool {
        self.shared
    }

    /// Remembers a layer that a step made here.
    pub(super) fn remember(&self, id: LayerId, toc: Arc<Toc>) {
        self.memory.put(id, toc);
    }

    /// A layer's table of contents. One of an image is pulled if nobody has read it yet.
    pub(super) async fn toc(&self, job: &str, id: LayerId) -> Result<Arc<Toc>, TocsError> {
        if let Some(toc) = self.memory.get(&id) {
            return Ok(toc.clone());
        }
        let alone = self.lock_of(id);
        let _alone = alone.lock().await;
        if let Some(toc) = self.memory.get(&id) {
            return Ok(toc.clone());
        }
        let info = self.look_up(job, id).await?;
        let toc = if info.toc.is_empty() {
            self.pull(job, id, &info).await?
        } else {
            let bytes = info.toc.clone();
            let decoded = tokio::task::spawn_blocking(move || Toc::decode_shared(&bytes))
                .await
                .expect("decoding does not panic");
            decoded.map_err(|error| lost(id, error))?
        };
        self.remember(id, toc.clone());
        Ok(toc)
    }

    /// A layer with all its bytes on this machine.
    pub(super) async fn present(&self, job: &str, id: LayerId) -> Result<Arc<Toc>, TocsError> {
        let toc = self.toc(job, id).await?;
        if self.missing(id, &toc)?.is_empty() {
            return Ok(toc);
        }
        let alone = self.lock_of(id);
        let _alone = alone.lock().await;
        let missing = self.missing(id, &toc)?;
        if missing.is_empty() {
            return Ok(toc);
        }
        let info = self.look_up(job, id).await?;
        if info.pulled.is_some() {
            return self.pull(job, id, &info).await;
        }
        let toc = self.renewed(id, toc, &info)?;
        for (flat, ranges) in self.missing(id, &toc)? {
            let fetched = if self.shared {
                Err(lost(id, "its flat file is missing"))
            } else {
                self.fetch(id, flat, &ranges).await
            };
            match fetched {
                Err(TocsError::Lost { .. }) if self.pull_origin(job, flat).await? => {}
                fetched => fetched?,
            }
        }
        Ok(toc)
    }

    /// The table of contents that the farm has by now: the layer may have been made again, its bytes elsewhere.
    fn renewed(
        &self,
        id: LayerId,
        toc: Arc<Toc>,
        info: &proto::LayerInfo,
    ) -> Result<Arc<Toc>, TocsError> {
        if info.toc.is_empty() {
            return Ok(toc);
        }
        let renewed = Toc::decode_shared(&info.toc).map_err(|error| lost(id, error))?;
        if renewed.flats == toc.flats {
            return Ok(toc);
        }
        self.remember(id, renewed.clone());
        Ok(renewed)
    }

    /// Pulls the image's layer that a flat file is of, if it is one's: files copied out of an image point into it.
    async fn pull_origin(&self, job: &str, flat: FlatId) -> Result<bool, TocsError> {
        let origin = LayerId(Digest::from_bytes(*flat.as_bytes()));
        match self.look_up(job, origin).await {
            Ok(info) if info.pulled.is_some() => {
                self.pull(job, origin, &info).await?;
                Ok(true)
            }
            Ok(_) | Err(TocsError::Lost { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Throws damaged bytes of a layer away where they can be had again: from the farm, or from the image's registry.
    /// Returns whether they can.
    pub(super) fn discard(&self, id: LayerId, toc: &Toc) -> std::io::Result<bool> {
        let of_image = toc.flats.iter().all(|flat| *flat == FlatId::from(id.0));
        if self.shared && !of_image {
            return Ok(false);
        }
        for flat in &toc.flats {
            self.flats.remove(*flat)?;
        }
        Ok(true)
    }

    fn missing(&self, id: LayerId, toc: &Toc) -> Result<NamedRanges, TocsError> {
        self.flats
            .missing_of(toc)
            .map_err(|error| failed(id, error))
    }

    async fn look_up(&self, job: &str, id: LayerId) -> Result<proto::LayerInfo, TocsError> {
        let request = proto::GetLayersRequest {
            layers: vec![id.to_string()],
            job: job.to_owned(),
        };
        let reply = self.link.call(|mut client| {
            let request = request.clone();
            async move { client.get_layers(request).await }
        });
        let reply = reply
            .await
            .map_err(|status| failed(id, std::io::Error::other(status.message().to_owned())))?;
        match reply.layers.into_iter().next() {
            Some(info) if info.known && (!info.toc.is_empty() || info.pulled.is_some()) => Ok(info),
            _ => Err(lost(id, "the farm has no record of it")),
        }
    }

    /// Pulls an image's layer, and tells the coordinator what is in it.
    async fn pull(
        &self,
        job: &str,
        id: LayerId,
        info: &proto::LayerInfo,
    ) -> Result<Arc<Toc>, TocsError> {
        let pulled = info
            .pulled
            .as_ref()
            .ok_or_else(|| lost(id, "it was never read and is no image's layer"))?;
        let blob = pulled.digest.parse().map_err(|error| failed(id, error))?;
        let descriptor = Descriptor::new(&pulled.media_type, blob, pulled.size);
        let auth = JobAuth {
            link: self.link.clone(),
            job: job.to_owned(),
        };
        let registry = Registry::new(self.registry.clone(), Arc::new(auth));
        // The place seen last comes first, and its error counts: the others may be of other images.
        let mut failure = None;
        for source in &pulled.sources {
            let Ok(reference) = format!("{source}@{blob}").parse::<Reference>() else {
                continue;
            };
            match pull::pull(&registry, &reference, &descriptor, id.0, &self.flats).await {
                Ok(toc) => {
                    let toc = Arc::new(toc);
                    self.tell(job, id, blob, &toc).await;
                    self.remember(id, toc.clone());
                    return Ok(toc);
                }
                Err(error) => failure = failure.or(Some(failed(id, error))),
            }
        }
        Err(failure.unwrap_or_else(|| lost(id, "no registry is known to have it")))
    }

    async fn tell(&self, job: &str, id: LayerId, blob: Digest, toc: &Arc<Toc>) {
        let request = proto::PutPulledLayerRequest {
            job: job.to_owned(),
            id: id.to_string(),
            toc: toc.encode_shared().into(),
            blob: blob.to_string(),
        };
        let told = self.link.call(|mut client| {
            let request = request.clone();
            async move { client.put_pulled_layer(request).await }
        });
        if let Err(status) = told.await {
            tracing::warn!(layer = %id, %status, "the coordinator did not take a pulled layer's table of contents");
        }
    }

    /// Fetches ranges of a flat file from the shared store.
    async fn fetch(
        &self,
        id: LayerId,
        flat: FlatId,
        ranges: &[Range<u64>],
    ) -> Result<(), TocsError> {
        let request = proto::ReadFlatRequest {
            flat: flat.to_string(),
            ranges: ranges
                .iter()
                .flat_map(|range| [range.start, range.end - range.start])
                .collect(),
            layer: id.to_string(),
        };
        let broken = |status: tonic::Status| match status.code() {
            Code::NotFound | Code::DeadlineExceeded => lost(id, status.message().to_owned()),
            _ => failed(id, std::io::Error::other(status.message().to_owned())),
        };
        let stream = self.link.call(|mut client| {
            let request = request.clone();
            async move { client.read_flat(request).await }
        });
        let mut stream = stream.await.map_err(broken)?;
        let mut batch: Vec<(u64, Vec<u8>)> = Vec::new();
        let mut bytes = 0;
        while let Some(chunk) = stream.message().await.map_err(broken)? {
            let data = open_piece(&chunk.data).map_err(|error| failed(id, error))?;
            bytes += data.len();
            batch.push((chunk.offset, data));
            if bytes >= BATCH {
                self.write(id, flat, std::mem::take(&mut batch)).await?;
                bytes = 0;
            }
        }
        self.write(id, flat, batch).await
    }

    async fn write(
        &self,
        id: LayerId,
        flat: FlatId,
        batch: Vec<(u64, Vec<u8>)>,
    ) -> Result<(), TocsError> {
        let flats = self.flats.clone();
        let written = tokio::task::spawn_blocking(move || {
            let ranges: Vec<(u64, &[u8])> = batch
                .iter()
                .map(|(at, data)| (*at, data.as_slice()))
                .collect();
            flats.write_ranges(flat, &ranges)
        });
        written
            .await
            .expect("writing does not panic")
            .map_err(|error| failed(id, error))
    }

    fn lock_of(&self, id: LayerId) -> Arc<tokio::sync::Mutex<()>> {
        let mut busy = self.busy.lock().expect("nobody panics while holding it");
        busy.retain(|_, lock| Arc::strong_count(lock) > 1);
        busy.entry(id).or_default().clone()
    }
}

fn lost(layer: LayerId, reason: impl ToString) -> TocsError {
    TocsError::Lost {
        layer,
        reason: reason.to_string(),
    }
}

fn failed(layer: LayerId, error: impl std::error::Error + Send + Sync + 'static) -> TocsError {
    TocsError::Failed {
        layer,
        source: Box::new(error),
    }
}

/// The layers as one job's steps see them: its client's credentials are used for pulling.
pub(super) struct JobTocs<'a> {
    pub(super) layers: &'a Layers,
    pub(super) job: &'a str,
}

#[async_trait]
impl Tocs for JobTocs<'_> {
    async fn toc(&self, layer: LayerId) -> Result<Option<Arc<Toc>>, TocsError> {
        self.layers.toc(self.job, layer).await.map(Some)
    }
}
