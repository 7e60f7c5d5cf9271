//! Layers as EROFS images over their flat files, under overlayfs. Nothing is unpacked: an image holds metadata only, and the
//! kernel reads files' bytes out of the flat files. Needs Linux 6.12 and a plain file system.
//!
//! ```text
//! DIR/images/NAME/image     a layer, or several merged ones; see `cover` for the names
//! DIR/images/NAME/side      bytes that could not stay where they are, if there are any
//! DIR/images/NAME/record    which flat files it needs, and what its root looks like
//! DIR/mounts/               where images are mounted, visible to two threads only
//! ```
//!
//! An image counts for its top layer. It is made when all ranges of its flat files are on this machine and their bytes are known to be
//! right ([`making`]), and serves as long as those files are what they were then ([`record`]): a file that was removed, cut off or
//! written to makes the layer one that is missing. Images stay mounted for a minute after their last use, because what was read through
//! them is cached with the mount; when a flat file is removed, its images go at once ([`images`]).

mod cover;
mod images;
mod making;
mod mounter;
mod probe;
mod record;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use buildyard_layer::erofs::{ErofsError, attributes_below};
use buildyard_layer::{FlatFiles, FlatWatcher, Toc, UnpackError};
use buildyard_model::LayerId;

use super::attributes::Attributes;
use super::gates::Gates;
use super::home::Home;
use super::{
    LayerContent, Lower, MountSource, MountSpec, Mounts, SnapshotError, Snapshotter, UpperDir, lock,
};
use cover::Names;
use images::{Image, Images, Shelf};
use making::{Maker, Merger};
pub(crate) use mounter::ImageClone;
pub use mounter::MountedImage;
use mounter::Mounter;
pub use probe::{ErofsProbeError, probe_erofs};
use record::Record;

/// How long an image stays mounted after its last use.
const IDLE: Duration = Duration::from_secs(60);

/// The snapshotter of EROFS images.
pub struct ErofsSnapshots {
    maker: Arc<Maker>,
    merger: Merger,
    mounter: Arc<Mounter>,
    filling: Gates,
    /// Held by who mounts images, so that none is mounted twice.
    mounting: Mutex<()>,
}

/// An image that shows a part of a chain.
struct Part {
    name: String,
    record: Arc<Record>,
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
        let mut images = Images::default();
        for name in home.names()? {
            match Record::read(&home.kept(&name)) {
                Some(record) => images.insert(&name, record),
                None => drop(home.take_away(&name)?),
            }
        }
        let shelf = Arc::new(Shelf {
            home,
            images: Mutex::new(images),
        });
        let watcher: Weak<Shelf> = Arc::downgrade(&shelf);
        flats.watch(watcher as Weak<dyn FlatWatcher>);
        let maker = Arc::new(Maker::new(shelf, flats));
        let merger = Merger::start(maker.clone())
            .map_err(SnapshotError::io("starting a thread for", dir))?;
        Ok(Self {
            maker,
            merger,
            mounter,
            filling: Gates::default(),
            mounting: Mutex::default(),
        })
    }

    fn home(&self) -> &Home {
        &self.maker.shelf.home
    }

    fn images(&self) -> std::sync::MutexGuard<'_, Images> {
        lock(&self.maker.shelf.images)
    }

    /// The images that show a chain, lowest first; the index of the lowest layer that none shows where there is one.
    fn cover(&self, chain: &[LayerId]) -> Result<Vec<Part>, usize> {
        let names = Names::of(chain);
        let mut images = self.images();
        let mut usable = |name: String| {
            let image = images.get_mut(&name)?;
            let whole = image.is_whole(&self.maker.flats);
            let record = image.record.clone();
            whole.then_some(Part { name, record })
        };
        let mut cover = Vec::new();
        let (mut at, mut below_is_plain) = (0, true);
        while at < chain.len() {
            let mut merged = names.parts(at).filter_map(|part| {
                let found = usable(names.merged(part.clone()));
                found.map(|found| (found, part.end))
            });
            let found = merged.next();
            drop(merged);
            let found = found.or_else(|| {
                let free = usable(names.free(at));
                let fits = |part: &Part| below_is_plain || !part.record.has_plain_root();
                let single = free.filter(fits).or_else(|| usable(names.bound(at)));
                single.map(|part| (part, at + 1))
            });
            let (part, end) = found.ok_or(at)?;
            below_is_plain = part.record.has_plain_root();
            cover.push(part);
            at = end;
        }
        Ok(cover)
    }

    /// The images that show a chain, all of which is present.
    fn covered(&self, chain: &[LayerId]) -> Result<Vec<Part>, SnapshotError> {
        self.cover(chain)
            .map_err(|at| SnapshotError::Missing(chain[at]))
    }

    fn fill(&self, chain: &[LayerId], content: &LayerContent<'_>) -> Result<(), SnapshotError> {
        let names = Names::of(chain);
        let at = chain.len() - 1;
        let below = content.below;
        let layers = std::slice::from_ref(content.toc);
        let made = self.maker.make(chain[at], layers, below)?;
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
        self.maker.publish(made, &name)
    }

    /// An image's mount, made if there is none; `None` where the image or a flat file of it has gone.
    fn mounted(&self, part: &Part) -> Result<Option<Arc<MountedImage>>, SnapshotError> {
        if let Some(mount) = self.mount_of(part) {
            return Ok(Some(mount));
        }
        let _alone = lock(&self.mounting);
        if let Some(mount) = self.mount_of(part) {
            return Ok(Some(mount));
        }
        let place = self.home().kept(&part.name);
        let failed = |error| SnapshotError::io("mounting the image in", &place)(error);
        let Some(files) = self.files(&place, &part.record).map_err(failed)? else {
            return Ok(None);
        };
        let mount = self.mounter.mount(&files.0, &files.1).map_err(failed)?;
        if let Some(image) = self.images().get_mut(&part.name)
            && Arc::ptr_eq(&image.record, &part.record)
        {
            image.mount = Some(mount.clone());
        }
        Ok(Some(mount))
    }

    /// The mount that an image has, which counts as used now.
    fn mount_of(&self, part: &Part) -> Option<Arc<MountedImage>> {
        let mut images = self.images();
        let image = images.get_mut(&part.name)?;
        image.used = Instant::now();
        image.mount.clone()
    }

    /// An image, and what its files' bytes are in; `None` where it or a part of that is not on this machine any more.
    fn files(&self, place: &Path, record: &Record) -> io::Result<Option<(File, Vec<File>)>> {
        let own = |name: &str| match File::open(place.join(name)) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
        let Some(image) = own("image")? else {
            return Ok(None);
        };
        let mut devices = Vec::with_capacity(record.flats.len() + 1);
        for needed in &record.flats {
            let Some(file) = needed.open(&self.maker.flats)? else {
                return Ok(None);
            };
            devices.push(file);
        }
        if record.side {
            let Some(side) = own("side")? else {
                return Ok(None);
            };
            devices.push(side);
        }
        Ok(Some((image, devices)))
    }

    /// Unmounts what nobody has used for a while.
    fn unmount_idle(&self) {
        let (mut idle, now) = (Vec::new(), Instant::now());
        for image in self.images().all() {
            if now.saturating_duration_since(image.used) > IDLE && !image.is_used() {
                idle.extend(image.mount.take());
            }
        }
    }
}

impl Snapshotter for ErofsSnapshots {
    fn ensure(&self, chain: &[LayerId], content: &LayerContent<'_>) -> Result<(), SnapshotError> {
        let Some(&layer) = chain.last() else {
            return Ok(());
        };
        self.filling.alone(layer, || match self.cover(chain) {
            Ok(_) => Ok(()),
            Err(at) if at + 1 < chain.len() => Err(SnapshotError::Missing(chain[at])),
            Err(_) => self.fill(chain, content),
        })?;
        let tocs = || {
            let below: &[Arc<Toc>] = content.below;
            below.iter().chain([content.toc]).cloned().collect()
        };
        self.merger.merge(chain, tocs);
        Ok(())
    }

    fn missing(&self, chain: &[LayerId]) -> Option<usize> {
        self.cover(chain).err()
    }

    fn new_upper(&self, chain: &[LayerId]) -> Result<UpperDir, SnapshotError> {
        let cover = self.covered(chain)?;
        let attributes = cover.last().map_or_else(Attributes::undescribed, |top| {
            Attributes::of(&top.record.root)
        });
        self.home().new_upper(&attributes)
    }

    fn mounts(&self, chain: &[LayerId], upper: Option<&UpperDir>) -> Result<Mounts, SnapshotError> {
        let cover = self.covered(chain)?;
        let mut images: Vec<Arc<MountedImage>> = Vec::with_capacity(cover.len());
        for part in cover.iter().rev() {
            let mount = self.mounted(part)?;
            let mount = mount.ok_or(SnapshotError::Missing(part.record.layer))?;
            // A chain may have a layer twice, e.g. of two steps that changed nothing, which overlayfs refuses. The upper one hides
            // the whole of the lower one.
            if !images.contains(&mount) {
                images.push(mount);
            }
            if part.record.opaque_root {
                break;
            }
        }
        let empty = self.home().empty();
        let upper = upper.map(|upper| (upper.dir(), upper.work()));
        let source = match (&images[..], upper) {
            ([], None) => MountSource::Bind {
                path: empty,
                read_only: true,
            },
            ([], upper) => MountSource::Overlay {
                lowers: vec![Lower::Directory(empty)],
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
        let mut images = self.images();
        if images.of_layer(layer).any(|(_, image)| image.is_used()) {
            return Ok(None);
        }
        let names: Vec<Arc<str>> = images.of_layer(layer).map(|of| of.0.clone()).collect();
        let mut freed = None;
        let mut gone = Vec::new();
        for name in names {
            let files = self.home().take_away(&name)?;
            let image: Option<Image> = images.remove(&name);
            *freed.get_or_insert(0) += image.as_ref().map_or(0, |image| image.record.bytes);
            gone.push((files, image));
        }
        drop(images);
        drop(gone);
        Ok(freed)
    }

    fn holds(&self) -> Vec<(LayerId, u64)> {
        self.unmount_idle();
        let mut sums: HashMap<LayerId, u64> = HashMap::new();
        for image in self.images().all() {
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
