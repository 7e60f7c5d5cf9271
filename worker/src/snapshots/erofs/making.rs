//! Making images: of one layer in the way of the step that needs it, of several merged ones beside the steps.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use buildyard_layer::erofs::{ErofsError, write_erofs};
use buildyard_layer::{FlatFiles, NamedRanges, Toc, UnpackError, ranges_of, verify};
use buildyard_model::LayerId;

use super::cover::{self, Names};
use super::images::Shelf;
use super::record::Record;
use crate::snapshots::home::Scratch;
use crate::snapshots::{SnapshotError, lock};

/// Chains that may wait to have their layers merged. One that finds no place comes again when its next group is complete.
const WAITING: usize = 16;

/// Writes images and puts them on the shelf.
pub(super) struct Maker {
    pub(super) shelf: Arc<Shelf>,
    pub(super) flats: FlatFiles,
    /// Merges that wait or failed: one that failed is not tried again and again.
    begun: Mutex<HashSet<String>>,
}

/// An image that is not available yet.
pub(super) struct Made {
    scratch: Scratch,
    pub(super) record: Record,
    pub(super) independent: bool,
}

impl Maker {
    pub(super) fn new(shelf: Arc<Shelf>, flats: FlatFiles) -> Self {
        Self {
            shelf,
            flats,
            begun: Mutex::default(),
        }
    }

    /// Writes the image of `layers` over `below`. Their bytes are here and right when this succeeds.
    pub(super) fn make(
        &self,
        layer: LayerId,
        layers: &[Arc<Toc>],
        below: &[Arc<Toc>],
    ) -> Result<Made, SnapshotError> {
        let refused = |error: ErofsError| SnapshotError::of_erofs(layer, error);
        let named: Vec<NamedRanges> = layers.iter().map(|toc| ranges_of(toc)).collect();
        for (toc, named) in layers.iter().zip(&named) {
            self.check_bytes(layer, toc, named)?;
        }
        let scratch = self.shelf.home.making();
        fs::create_dir(&scratch.0)
            .map_err(SnapshotError::io("creating the directory", &scratch.0))?;
        let files = ["image", "side"].map(|name| scratch.0.join(name));
        let image =
            write_erofs(layers, below, &self.flats, &files[0], &files[1]).map_err(refused)?;
        let independent = image.independent;
        let record = Record::of(layer, image, named, &self.flats);
        let gone = || unreadable(layer, io::ErrorKind::NotFound.into());
        let record = record.map_err(|error| unreadable(layer, error))?;
        let mut record = record.ok_or_else(gone)?;
        record.bytes = room(&files);
        record
            .write(&scratch.0)
            .map_err(SnapshotError::io("writing in", &scratch.0))?;
        Ok(Made {
            scratch,
            record,
            independent,
        })
    }

    /// Whether a layer's bytes are all here. Those that nobody vouches for, since they come from an earlier process or were changed
    /// by somebody, are read and held against the TOC: the kernel will not do that when a step reads them.
    fn check_bytes(
        &self,
        layer: LayerId,
        toc: &Toc,
        named: &NamedRanges,
    ) -> Result<(), SnapshotError> {
        let mut known = true;
        for (flat, ranges) in named.iter().filter(|(_, ranges)| !ranges.is_empty()) {
            let failed = |error| unreadable(layer, error);
            if !self
                .flats
                .missing(*flat, ranges)
                .map_err(failed)?
                .is_empty()
            {
                let what = format!("parts of flat file {flat} are missing");
                return Err(failed(io::Error::new(io::ErrorKind::NotFound, what)));
            }
            let stamp = self.flats.stamp(*flat).map_err(failed)?;
            known &= stamp.is_some_and(|stamp| {
                self.flats.wrote(*flat, &stamp)
                    || lock(&self.shelf.images).vouch_for(*flat, &stamp, ranges)
            });
        }
        if known {
            return Ok(());
        }
        tracing::debug!(%layer, "checking bytes of an earlier process");
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let checked = verify(toc, &self.flats, threads);
        checked.map_err(|error| SnapshotError::Fill {
            layer,
            source: error.into(),
        })
    }

    /// Makes an image available, in the place of one whose flat files have gone.
    pub(super) fn publish(&self, made: Made, name: &str) -> Result<(), SnapshotError> {
        let mut images = lock(&self.shelf.images);
        let old = match images.remove(name) {
            Some(image) => Some((self.shelf.home.take_away(name)?, image)),
            None => None,
        };
        self.shelf.home.keep(&made.scratch, name)?;
        images.insert(name, made.record);
        drop(images);
        drop(old);
        Ok(())
    }

    /// Parts of a chain that are worth an image of their own and have none: complete groups. Each is named once.
    fn merges(&self, names: &Names<'_>, tocs: &[Arc<Toc>]) -> Vec<Merge> {
        let mut merges = Vec::new();
        for group in cover::groups(tocs.len()) {
            let range = cover::worth(group, |at| tocs[at].entries.len());
            if range.len() < 2 {
                continue;
            }
            let name = names.merged(range.clone());
            if lock(&self.shelf.images).contains(&name) || !lock(&self.begun).insert(name.clone()) {
                continue;
            }
            merges.push(Merge {
                name,
                layer: names.layer(range.end - 1),
                tocs: tocs[..range.end].to_vec(),
                from: range.start,
            });
        }
        merges
    }

    /// What fails is left: a chain can be shown without.
    fn merge(&self, merge: &Merge) {
        let (below, layers) = merge.tocs.split_at(merge.from);
        let made = self.make(merge.layer, layers, below);
        match made.and_then(|made| self.publish(made, &merge.name)) {
            Ok(()) => {
                lock(&self.begun).remove(&merge.name);
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "layers could not be merged into one image");
            }
        }
    }
}

/// Layers to be merged.
struct Merge {
    name: String,
    /// The top one.
    layer: LayerId,
    /// The chain up to it; those below `from` are not part of the image.
    tocs: Vec<Arc<Toc>>,
    from: usize,
}

/// What the merging thread is asked for.
type Order = Box<dyn FnOnce() + Send>;

/// The thread that merges layers beside the steps.
pub(super) struct Merger {
    maker: Arc<Maker>,
    orders: Option<SyncSender<Order>>,
    thread: Option<JoinHandle<()>>,
}

impl Merger {
    pub(super) fn start(maker: Arc<Maker>) -> io::Result<Self> {
        let (orders, received) = sync_channel::<Order>(WAITING);
        let thread = thread::Builder::new()
            .name("erofs-merges".to_owned())
            .spawn(move || received.into_iter().for_each(|order| order()))?;
        Ok(Self {
            maker,
            orders: Some(orders),
            thread: Some(thread),
        })
    }

    /// Has the complete groups of a chain merged some time.
    pub(super) fn merge(&self, chain: &[LayerId], tocs: impl FnOnce() -> Vec<Arc<Toc>>) {
        if !cover::ends_a_group(chain.len()) {
            return;
        }
        let merges = Arc::new(self.maker.merges(&Names::of(chain), &tocs()));
        if merges.is_empty() {
            return;
        }
        let (maker, ordered) = (self.maker.clone(), merges.clone());
        let order = move || ordered.iter().for_each(|merge| maker.merge(merge));
        let sent = self.orders.as_ref().map(|to| to.try_send(Box::new(order)));
        if sent.is_none_or(|sent| sent.is_err()) {
            let mut begun = lock(&self.maker.begun);
            for merge in merges.iter() {
                begun.remove(&merge.name);
            }
        }
    }

    /// Waits until everything is merged.
    #[cfg(test)]
    pub(super) fn settle(&self) {
        let (done, answer) = sync_channel(1);
        let orders = self.orders.as_ref().unwrap();
        orders
            .send(Box::new(move || done.send(()).unwrap()))
            .unwrap();
        answer.recv().unwrap();
    }
}

impl Drop for Merger {
    fn drop(&mut self) {
        // Without a sender the thread ends.
        self.orders.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The room that an image's files take.
fn room(files: &[PathBuf]) -> u64 {
    let sizes = files.iter().filter_map(|file| fs::metadata(file).ok());
    sizes.map(|file| file.blocks() * 512).sum()
}

fn unreadable(layer: LayerId, source: io::Error) -> SnapshotError {
    let source = UnpackError::Read {
        path: String::from("(a file of the layer)"),
        source,
    };
    SnapshotError::Fill {
        layer,
        source: source.into(),
    }
}
