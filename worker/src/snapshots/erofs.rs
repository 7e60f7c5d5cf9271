//! Layers as EROFS images over their flat files, under overlayfs. Nothing is unpacked: an image holds metadata only, and the
//! kernel reads files' bytes out of the flat files. Needs Linux 6.12 and a plain file system.
//!
//! ```text
//! DIR/images/NAME/image     a layer, or several merged ones; see `cover` for the names
//! DIR/images/NAME/side      bytes that could not stay where they are, if there are any
//! DIR/images/NAME/record    which flat files it needs, and what its root looks like
//! DIR/mounts/               where images are mounted, visible to one thread only
//! ```
//!
//! An image counts for its top layer. It can be mounted when all ranges of its flat files are on this machine; once it is mounted, the
//! kernel holds the files. Images stay mounted for a minute after their last use, because what was read through
//! them is cached with the mount.

mod cover;
mod mounter;
mod probe;
mod record;

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use buildyard_layer::erofs::{ErofsError, attributes_below, write_erofs};
use buildyard_layer::{FlatFiles, Toc, UnpackError};
use buildyard_model::LayerId;

use super::attributes::Attributes;
use super::gates::Gates;
use super::home::Home;
use super::{
    LayerContent, Lower, MountSource, MountSpec, Mounts, SnapshotError, Snapshotter, UpperDir, lock,
};
use cover::Names;
pub(crate) use mounter::ImageClone;
pub use mounter::MountedImage;
use mounter::Mounter;
pub use probe::{ErofsProbeError, probe_erofs};
use record::Record;

/// How long an image stays mounted after its last use.
const IDLE: Duration = Duration::from_secs(60);

/// The snapshotter of EROFS images.
pub struct ErofsSnapshots {
    home: Home,
    flats: FlatFiles,
    mounter: Arc<Mounter>,
    images: Mutex<HashMap<String, Image>>,
    filling: Gates,
    /// Held by who mounts images, so that none is mounted twice.
    mounting: Mutex<()>,
    /// Merges that were tried since the start; one that failed is not tried again and again.
    merged: Mutex<HashSet<String>>,
}

struct Image {
    record: Arc<Record>,
    /// Cloned into every [`Mounts`] that shows the image.
    mount: Option<Arc<MountedImage>>,
    used: Instant,
}

impl Image {
    fn is_used(&self) -> bool {
        let mount = self.mount.as_ref();
        mount.is_some_and(|mount| Arc::strong_count(mount) > 1)
    }
}

impl ErofsSnapshots {
    /// Opens `dir`, which belongs to this snapshotter alone; `flats` is where files' bytes are. Leftovers of an earlier process are
    /// removed.
    pub fn open(dir: &Path, flats: FlatFiles) -> Result<Self, SnapshotError> {
        let home = Home::open(dir, "images")?;
        let mounts = dir.join("mounts");
        fs::create_dir_all(&mounts)
            .map_err(SnapshotError::io("creating the directory", &mounts))?;
        let mounter = Mounter::start(&mounts)
            .map_err(SnapshotError::io("making a namespace for", &mounts))?;
        let mut images = HashMap::new();
        for name in home.names()? {
            match Record::read(&home.kept(&name)) {
                Some(record) => drop(images.insert(name, Image::unused(record))),
                None => drop(home.take_away(&name)?),
            }
        }
        Ok(Self {
            home,
            flats,
            mounter,
            images: Mutex::new(images),
            filling: Gates::default(),
            mounting: Mutex::default(),
            merged: Mutex::default(),
        })
    }

    /// The names of the images that show a chain, lowest first; the index of the lowest layer that none shows where there is one.
    fn cover(&self, chain: &[LayerId]) -> Result<Vec<String>, usize> {
        let names = Names::of(chain);
        let images = lock(&self.images);
        let usable = |name: &String| {
            let image = images.get(name);
            image.filter(|image| image.mount.is_some() || self.has_flats(&image.record))
        };
        let mut cover = Vec::new();
        let (mut at, mut below_is_plain) = (0, true);
        while at < chain.len() {
            let merged = names.parts(at).find_map(|part| {
                let name = names.merged(part.clone());
                usable(&name).map(|image| (name, image, part.end))
            });
            let free = || {
                let name = names.free(at);
                let image = usable(&name)?;
                let fits = below_is_plain || !image.record.has_plain_root();
                fits.then_some((name, image, at + 1))
            };
            let bound = || {
                let name = names.bound(at);
                usable(&name).map(|image| (name, image, at + 1))
            };
            let (name, image, end) = merged.or_else(free).or_else(bound).ok_or(at)?;
            below_is_plain = image.record.has_plain_root();
            cover.push(name);
            at = end;
        }
        Ok(cover)
    }

    fn has_flats(&self, record: &Record) -> bool {
        let missing = |(flat, ranges): &(_, Vec<_>)| self.flats.missing(*flat, ranges);
        record
            .flats
            .iter()
            .all(|flat| missing(flat).is_ok_and(|missing| missing.is_empty()))
    }

    fn fill(&self, chain: &[LayerId], content: &LayerContent<'_>) -> Result<(), SnapshotError> {
        let names = Names::of(chain);
        let at = chain.len() - 1;
        let below = content.below;
        let made = self.make(chain[at], std::slice::from_ref(content.toc), below)?;
        let over_plain = Attributes::of(&attributes_below(below, b"")) == Attributes::undescribed();
        let own_root = content
            .toc
            .entries
            .first()
            .is_some_and(|e| e.path.is_empty())
            && !made.record.has_plain_root();
        let free = made.independent && (over_plain || own_root);
        let name = if free {
            names.free(at)
        } else {
            names.bound(at)
        };
        self.publish(made, name)
    }

    /// Merges the groups of `chain` that are complete and not merged yet. What fails is left: a chain can be shown without.
    fn merge(&self, chain: &[LayerId], content: &LayerContent<'_>) {
        let names = Names::of(chain);
        let toc = |at: usize| content.below.get(at).unwrap_or(content.toc);
        for group in cover::groups(chain.len()) {
            let range = cover::worth(group, |at| toc(at).entries.len());
            let name = names.merged(range.clone());
            let known = lock(&self.images).contains_key(&name);
            if range.len() < 2 || known || !lock(&self.merged).insert(name.clone()) {
                continue;
            }
            let layers: Vec<Arc<Toc>> = range.clone().map(|at| toc(at).clone()).collect();
            let made = self.make(chain[range.end - 1], &layers, &content.below[..range.start]);
            if let Err(error) = made.and_then(|made| self.publish(made, name)) {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "layers could not be merged into one image");
            }
        }
    }

    /// Writes the image of `layers` over `below`.
    fn make(
        &self,
        layer: LayerId,
        layers: &[Arc<Toc>],
        below: &[Arc<Toc>],
    ) -> Result<Made, SnapshotError> {
        let refused = |error: ErofsError| SnapshotError::of_erofs(layer, error);
        for toc in layers {
            self.check_flats(layer, toc)?;
        }
        let scratch = self.home.making();
        fs::create_dir(&scratch.0)
            .map_err(SnapshotError::io("creating the directory", &scratch.0))?;
        let files = ["image", "side"].map(|name| scratch.0.join(name));
        let image =
            write_erofs(layers, below, &self.flats, &files[0], &files[1]).map_err(refused)?;
        let independent = image.independent;
        let tocs = layers.iter().map(AsRef::as_ref);
        let mut record = Record::of(layer, image, tocs);
        let sizes = files.iter().filter_map(|file| fs::metadata(file).ok());
        record.bytes = sizes.map(|file| file.blocks() * 512).sum();
        record
            .write(&scratch.0)
            .map_err(SnapshotError::io("writing in", &scratch.0))?;
        Ok(Made {
            scratch,
            record,
            independent,
        })
    }

    fn check_flats(&self, layer: LayerId, toc: &Toc) -> Result<(), SnapshotError> {
        let missing = match self.flats.missing_of(toc) {
            Ok(missing) if missing.is_empty() => return Ok(()),
            Ok(missing) => {
                let flats: Vec<String> = missing.iter().map(|(id, _)| id.to_string()).collect();
                let what = format!("parts of flat file {} are missing", flats.join(", "));
                io::Error::new(io::ErrorKind::NotFound, what)
            }
            Err(error) => error,
        };
        let source = UnpackError::Read {
            path: String::from("(a file of the layer)"),
            source: missing,
        };
        Err(SnapshotError::Fill {
            layer,
            source: source.into(),
        })
    }

    /// Makes an image available, in the place of one whose flat files have gone.
    fn publish(&self, made: Made, name: String) -> Result<(), SnapshotError> {
        let mut images = lock(&self.images);
        let _old = match images.remove(&name) {
            Some(_) => Some(self.home.take_away(&name)?),
            None => None,
        };
        self.home.keep(&made.scratch, &name)?;
        images.insert(name, Image::unused(made.record));
        Ok(())
    }

    /// An image's mount, made if there is none; `None` where the image or a flat file of it has gone.
    fn mounted(&self, name: &str) -> Result<Option<Arc<MountedImage>>, SnapshotError> {
        let _alone = lock(&self.mounting);
        let record = {
            let mut images = lock(&self.images);
            let Some(image) = images.get_mut(name) else {
                return Ok(None);
            };
            image.used = Instant::now();
            if let Some(mount) = &image.mount {
                return Ok(Some(mount.clone()));
            }
            image.record.clone()
        };
        let place = self.home.kept(name);
        let failed = |error| SnapshotError::io("mounting the image in", &place)(error);
        let Some(devices) = self.devices(&place, &record).map_err(failed)? else {
            return Ok(None);
        };
        let image = File::open(place.join("image")).map_err(failed)?;
        let mount = self.mounter.mount(&image, &devices).map_err(failed)?;
        if let Some(image) = lock(&self.images).get_mut(name) {
            image.mount = Some(mount.clone());
        }
        Ok(Some(mount))
    }

    /// What files' bytes are in; `None` where some are not on this machine.
    fn devices(&self, place: &Path, record: &Record) -> io::Result<Option<Vec<File>>> {
        let mut devices = Vec::with_capacity(record.flats.len() + 1);
        for (flat, ranges) in &record.flats {
            if !self.flats.missing(*flat, ranges)?.is_empty() {
                return Ok(None);
            }
            let whole = self.flats.open(*flat)?;
            match whole.map_or_else(|| File::open(self.flats.sparse_path(*flat)), Ok) {
                Ok(file) => devices.push(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        if record.side {
            devices.push(File::open(place.join("side"))?);
        }
        Ok(Some(devices))
    }

    /// Unmounts what nobody has used for a while.
    fn unmount_idle(&self) {
        let mut idle = Vec::new();
        for image in lock(&self.images).values_mut() {
            if !image.is_used() && image.used.elapsed() > IDLE {
                idle.extend(image.mount.take());
            }
        }
    }
}

impl Image {
    fn unused(record: Record) -> Self {
        Self {
            record: Arc::new(record),
            mount: None,
            used: Instant::now(),
        }
    }
}

/// An image that is not available yet.
struct Made {
    scratch: super::home::Scratch,
    record: Record,
    independent: bool,
}

impl Snapshotter for ErofsSnapshots {
    fn ensure(&self, chain: &[LayerId], content: &LayerContent<'_>) -> Result<(), SnapshotError> {
        let Some(&layer) = chain.last() else {
            return Ok(());
        };
        self.filling.alone(layer, || match self.cover(chain) {
            Ok(_) => Ok(()),
            Err(at) if at + 1 < chain.len() => Err(SnapshotError::Missing(chain[at])),
            Err(_) => {
                self.fill(chain, content)?;
                self.merge(chain, content);
                Ok(())
            }
        })
    }

    fn missing(&self, chain: &[LayerId]) -> Option<usize> {
        self.cover(chain).err()
    }

    fn new_upper(&self, chain: &[LayerId]) -> Result<UpperDir, SnapshotError> {
        let cover = self
            .cover(chain)
            .map_err(|at| SnapshotError::Missing(chain[at]))?;
        let top = cover.last().and_then(|name| {
            let images = lock(&self.images);
            images.get(name).map(|image| image.record.clone())
        });
        let attributes = top.map_or_else(Attributes::undescribed, |record| {
            Attributes::of(&record.root)
        });
        self.home.new_upper(&attributes)
    }

    fn mounts(&self, chain: &[LayerId], upper: Option<&UpperDir>) -> Result<Mounts, SnapshotError> {
        self.unmount_idle();
        let cover = self
            .cover(chain)
            .map_err(|at| SnapshotError::Missing(chain[at]))?;
        let mut images: Vec<Arc<MountedImage>> = Vec::with_capacity(cover.len());
        for name in cover.iter().rev() {
            let (layer, opaque_root) = match lock(&self.images).get(name) {
                Some(image) => (image.record.layer, image.record.opaque_root),
                None => (chain[chain.len() - 1], false),
            };
            let mount = self.mounted(name)?.ok_or(SnapshotError::Missing(layer))?;
            // A chain may have a layer twice, e.g. of two steps that changed nothing, which overlayfs refuses. The upper one hides
            // the whole of the lower one.
            if !images.contains(&mount) {
                images.push(mount);
            }
            if opaque_root {
                break;
            }
        }
        let upper = upper.map(|upper| (upper.dir(), upper.work()));
        let source = match (&images[..], upper) {
            ([], None) => MountSource::Bind {
                path: self.home.empty(),
                read_only: true,
            },
            ([], upper) => MountSource::Overlay {
                lowers: vec![Lower::Directory(self.home.empty())],
                upper,
            },
            ([image], None) => MountSource::Image(image.clone()),
            (_, upper) => MountSource::Overlay {
                lowers: images.into_iter().map(Lower::Image).collect(),
                upper,
            },
        };
        Ok(Mounts::unheld(vec![MountSpec::new(source)]))
    }

    fn remove(&self, layer: LayerId) -> Result<Option<u64>, SnapshotError> {
        let mut images = lock(&self.images);
        let of_layer = || {
            images
                .iter()
                .filter(|(_, image)| image.record.layer == layer)
        };
        if of_layer().any(|(_, image)| image.is_used()) {
            return Ok(None);
        }
        let names: Vec<String> = of_layer().map(|(name, _)| name.clone()).collect();
        let mut freed = None;
        let mut gone = Vec::new();
        for name in names {
            gone.push(self.home.take_away(&name)?);
            let image = images.remove(&name);
            *freed.get_or_insert(0) += image.as_ref().map_or(0, |image| image.record.bytes);
        }
        drop(images);
        drop(gone);
        Ok(freed)
    }

    fn holds(&self) -> Vec<(LayerId, u64)> {
        self.unmount_idle();
        let mut sums: HashMap<LayerId, u64> = HashMap::new();
        for image in lock(&self.images).values() {
            *sums.entry(image.record.layer).or_default() += image.record.bytes;
        }
        sums.into_iter().collect()
    }

    fn reads_flats(&self) -> bool {
        true
    }
}

impl SnapshotError {
    fn of_erofs(layer: LayerId, error: ErofsError) -> Self {
        match error {
            ErofsError::LinkTarget { target, .. } => Self::LinkTarget { layer, target },
            ErofsError::Read { path, source } => Self::Fill {
                layer,
                source: UnpackError::Read { path, source }.into(),
            },
            other => Self::Fill {
                layer,
                source: other.into(),
            },
        }
    }
}

#[cfg(test)]
mod tests;
