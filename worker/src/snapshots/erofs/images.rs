//! The images that there are, and what goes when a flat file goes.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use buildyard_layer::{FlatFiles, FlatWatcher, Stamp};
use buildyard_model::{FlatId, LayerId};

use super::mounter::MountedImage;
use super::record::Record;
use crate::snapshots::home::Home;
use crate::snapshots::lock;

/// How long an image's flat files are taken to be what they were when somebody looked. A chain of hundreds of layers would be
/// looked at once a step otherwise.
const SEEN: Duration = Duration::from_millis(100);

/// An image on the disk.
pub(super) struct Image {
    pub(super) record: Arc<Record>,
    /// Cloned into every [`Mounts`](crate::snapshots::Mounts) that shows the image.
    pub(super) mount: Option<Arc<MountedImage>>,
    pub(super) used: Instant,
    /// When its flat files were looked at, and found as they should be.
    pub(super) seen: Option<Instant>,
}

impl Image {
    pub(super) fn is_used(&self) -> bool {
        let mount = self.mount.as_ref();
        mount.is_some_and(|mount| Arc::strong_count(mount) > 1)
    }

    /// Whether all its flat files are still what they were when it was made.
    pub(super) fn is_whole(&mut self, flats: &FlatFiles) -> bool {
        if self.seen.is_some_and(|seen| seen.elapsed() < SEEN) {
            return true;
        }
        let whole = self.record.is_whole(flats);
        self.seen = whole.then(Instant::now);
        whole
    }
}

/// All images by name, and the names by flat file.
#[derive(Default)]
pub(super) struct Images {
    by_name: HashMap<Arc<str>, Image>,
    by_flat: HashMap<FlatId, HashSet<Arc<str>>>,
}

impl Images {
    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut Image> {
        self.by_name.get_mut(name)
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    pub(super) fn insert(&mut self, name: &str, record: Record) {
        let name: Arc<str> = name.into();
        for needed in &record.flats {
            let names = self.by_flat.entry(needed.flat).or_default();
            names.insert(name.clone());
        }
        let image = Image {
            record: Arc::new(record),
            mount: None,
            used: Instant::now(),
            seen: None,
        };
        self.by_name.insert(name, image);
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<Image> {
        let image = self.by_name.remove(name)?;
        for needed in &image.record.flats {
            if let Some(names) = self.by_flat.get_mut(&needed.flat) {
                names.remove(name);
                if names.is_empty() {
                    self.by_flat.remove(&needed.flat);
                }
            }
        }
        Some(image)
    }

    pub(super) fn all(&mut self) -> impl Iterator<Item = &mut Image> {
        self.by_name.values_mut()
    }

    /// The images that count for a layer.
    pub(super) fn of_layer(&self, layer: LayerId) -> impl Iterator<Item = (&Arc<str>, &Image)> {
        let images = self.by_name.iter();
        images.filter(move |(_, image)| image.record.layer == layer)
    }

    /// The images that need a flat file.
    pub(super) fn of_flat(&self, flat: FlatId) -> Vec<Arc<str>> {
        let names = self.by_flat.get(&flat).into_iter().flatten();
        names.cloned().collect()
    }

    /// Whether the bytes in `ranges` of the flat file that now has this stamp were checked when an image that is here was made.
    pub(super) fn vouch_for(&self, flat: FlatId, now: &Stamp, ranges: &[Range<u64>]) -> bool {
        let names = self.by_flat.get(&flat).into_iter().flatten();
        let images = names.filter_map(|name| self.by_name.get(name));
        let mut needed = images.filter_map(|image| image.record.needed(flat));
        needed.any(|needed| needed.vouches_for(now, ranges))
    }
}

/// The images and their directory.
pub(super) struct Shelf {
    pub(super) home: Home,
    pub(super) images: Mutex<Images>,
}

/// Without one of its flat files an image is of no use, and as long as it is mounted the file's bytes take room: both go. A step
/// that has it mounted keeps what it has.
impl FlatWatcher for Shelf {
    fn removed(&self, flat: FlatId) {
        let mut gone = Vec::new();
        let mut images = lock(&self.images);
        for name in images.of_flat(flat) {
            match self.home.take_away(&name) {
                Ok(files) => gone.push((files, images.remove(&name))),
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "an image without its flat file was left behind");
                }
            }
        }
        drop(images);
        drop(gone);
    }
}
