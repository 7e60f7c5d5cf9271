//! Layers unpacked into directories, shown by overlayfs. Works on every kernel and, with the right options, every file
//! system that can hold an overlay's upper directory.
//!
//! ```text
//! DIR/boot                  the boot under which the layers were unpacked
//! DIR/empty/                what the empty chain shows
//! DIR/layers/NAME/fs/       a layer; NAME is its id, or id.context where its form depends on what is below
//! DIR/layers/NAME/bytes     how much it occupies
//! DIR/making/N/             a layer that is being filled; becomes DIR/layers/NAME by rename
//! DIR/uppers/N/fs, work     what a running step changes
//! ```
//!
//! Nothing is synced to the disk: layers are a cache, and those unpacked before the machine last booted are dropped
//! when the worker starts.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use buildyard_model::{Chain, LayerId};

use super::attributes::Attributes;
use super::below::{self, Needs};
use super::{LayerContent, MountSource, MountSpec, Mounts, SnapshotError, Snapshotter, UpperDir};

/// The snapshotter of unpacked directories.
pub struct Directories {
    dir: PathBuf,
    next: AtomicU64,
    layers: Mutex<HashMap<String, Layer>>,
    /// One lock per layer that is being filled.
    filling: Mutex<HashMap<LayerId, Arc<Mutex<()>>>>,
}

struct Layer {
    id: LayerId,
    bytes: u64,
    /// Its root directory has the attributes of one that no layer describes.
    plain_root: bool,
    /// Cloned into every [`Mounts`] that shows the layer.
    hold: Arc<()>,
}

impl Directories {
    /// Opens `dir`, which belongs to this snapshotter alone. Leftovers of an earlier process are removed.
    pub fn open(dir: &Path) -> Result<Self, SnapshotError> {
        for name in ["making", "uppers"] {
            empty(&dir.join(name))?;
        }
        let boot = fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let boot_file = dir.join("boot");
        if fs::read(&boot_file).ok().as_deref() != Some(&boot[..]) {
            empty(&dir.join("layers"))?;
            fs::write(&boot_file, &boot).map_err(SnapshotError::io("writing", &boot_file))?;
        }
        for name in ["layers", "empty"] {
            let path = dir.join(name);
            fs::create_dir_all(&path)
                .map_err(SnapshotError::io("creating the directory", &path))?;
        }
        let dir = fs::canonicalize(dir).map_err(SnapshotError::io("finding", dir))?;
        let layers = read_layers(&dir.join("layers"))?;
        Ok(Self {
            dir,
            next: AtomicU64::new(0),
            layers: Mutex::new(layers),
            filling: Mutex::default(),
        })
    }

    /// The names under which the layers of `chain` are present, lowest first.
    fn names(&self, chain: &[LayerId]) -> Result<Vec<String>, SnapshotError> {
        let layers = lock(&self.layers);
        let mut names = Vec::with_capacity(chain.len());
        let mut below_is_plain = true;
        for (index, id) in chain.iter().enumerate() {
            let free = free_name(id);
            let (name, layer) = match layers.get(&free) {
                Some(layer) if below_is_plain || !layer.plain_root => (free, layer),
                _ => {
                    let bound = bound_name(&chain[..=index]);
                    let layer = layers.get(&bound).ok_or(SnapshotError::Missing(*id))?;
                    (bound, layer)
                }
            };
            below_is_plain = layer.plain_root;
            names.push(name);
        }
        Ok(names)
    }

    fn root(&self, name: &str) -> PathBuf {
        self.dir.join("layers").join(name).join("fs")
    }

    /// The roots of the layers of `chain`, the top one first.
    fn roots(&self, chain: &[LayerId]) -> Result<Vec<PathBuf>, SnapshotError> {
        Ok(self
            .names(chain)?
            .iter()
            .rev()
            .map(|name| self.root(name))
            .collect())
    }

    fn fresh(&self, kind: &str) -> PathBuf {
        self.dir
            .join(kind)
            .join(self.next.fetch_add(1, Ordering::Relaxed).to_string())
    }

    fn fill(
        &self,
        chain: &[LayerId],
        layer: LayerId,
        content: &LayerContent<'_>,
    ) -> Result<(), SnapshotError> {
        let lowers = self.roots(&chain[..chain.len() - 1])?;
        let home = Scratch(self.fresh("making"));
        let root = home.0.join("fs");
        fs::create_dir_all(&root).map_err(SnapshotError::io("creating the directory", &root))?;
        (content.unpack)(&root).map_err(|source| SnapshotError::Fill { layer, source })?;

        let needs = Needs::of(content.toc);
        for (path, target) in &needs.links {
            let made = below::link(&root, &lowers, path, target)
                .map_err(SnapshotError::io("linking in", &root))?;
            if !made {
                let target = String::from_utf8_lossy(target).into_owned();
                return Err(SnapshotError::LinkTarget { layer, target });
            }
        }
        below::complete_directories(&root, &lowers, &needs)
            .map_err(SnapshotError::io("setting attributes in", &root))?;
        let over_plain = lowers.first().map_or(Ok(true), |below| is_plain(below))?;
        let own_root = !needs.directories.contains(&Vec::new()) && !is_plain(&root)?;
        let free = needs.only_the_root() && (over_plain || own_root);
        let name = if free {
            free_name(&layer)
        } else {
            bound_name(chain)
        };
        self.publish(&home.0, name, layer)
    }

    fn publish(&self, home: &Path, name: String, id: LayerId) -> Result<(), SnapshotError> {
        let bytes = occupied(home).map_err(SnapshotError::io("measuring", home))?;
        let plain_root = is_plain(&home.join("fs"))?;
        let file = home.join("bytes");
        fs::write(&file, bytes.to_string()).map_err(SnapshotError::io("writing", &file))?;
        let place = self.dir.join("layers").join(&name);
        fs::rename(home, &place).map_err(SnapshotError::io("putting in place", &place))?;
        lock(&self.layers).insert(
            name,
            Layer {
                id,
                bytes,
                plain_root,
                hold: Arc::default(),
            },
        );
        Ok(())
    }
}

impl Snapshotter for Directories {
    fn ensure(&self, chain: &[LayerId], content: &LayerContent<'_>) -> Result<(), SnapshotError> {
        let Some(&layer) = chain.last() else {
            return Ok(());
        };
        if self.names(chain).is_ok() {
            return Ok(());
        }
        let gate = lock(&self.filling).entry(layer).or_default().clone();
        let result = {
            let _turn = lock(&gate);
            if self.names(chain).is_ok() {
                Ok(())
            } else {
                self.fill(chain, layer, content)
            }
        };
        drop(gate);
        let mut filling = lock(&self.filling);
        if filling
            .get(&layer)
            .is_some_and(|gate| Arc::strong_count(gate) == 1)
        {
            filling.remove(&layer);
        }
        result
    }

    fn has(&self, chain: &[LayerId]) -> bool {
        self.names(chain).is_ok()
    }

    fn new_upper(&self, chain: &[LayerId]) -> Result<UpperDir, SnapshotError> {
        let attributes = match self.roots(chain)?.first() {
            Some(root) => Attributes::read(root)
                .map_err(SnapshotError::io("reading the attributes of", root))?,
            None => Attributes::undescribed(),
        };
        let upper = UpperDir::create(self.fresh("uppers"))?;
        let dir = upper.dir();
        attributes
            .write(&dir)
            .map_err(SnapshotError::io("setting the attributes of", &dir))?;
        Ok(upper)
    }

    fn mounts(&self, chain: &[LayerId], upper: Option<&UpperDir>) -> Result<Mounts, SnapshotError> {
        let mut mounts = Mounts::unheld(Vec::new());
        let mut lowers = Vec::new();
        for (name, id) in self.names(chain)?.iter().zip(chain).rev() {
            let hold = lock(&self.layers).get(name).map(|layer| layer.hold.clone());
            mounts.holds.push(hold.ok_or(SnapshotError::Missing(*id))?);
            // A chain may have a layer twice, e.g. of two steps that changed nothing, which overlayfs refuses. The upper one hides
            // the whole of the lower one.
            let root = self.root(name);
            if !lowers.contains(&root) {
                lowers.push(root);
            }
        }
        if lowers.is_empty() {
            lowers.push(self.dir.join("empty"));
        }
        let source = match upper {
            Some(upper) => MountSource::Overlay {
                lowers,
                upper: Some((upper.dir(), upper.work())),
            },
            None if lowers.len() == 1 => MountSource::Bind {
                path: lowers.remove(0),
                read_only: true,
            },
            None => MountSource::Overlay {
                lowers,
                upper: None,
            },
        };
        mounts.specs.push(MountSpec::new(source));
        Ok(mounts)
    }

    fn remove(&self, layer: LayerId) -> Result<Option<u64>, SnapshotError> {
        let mut layers = lock(&self.layers);
        let forms = || layers.iter().filter(|(_, form)| form.id == layer);
        if forms().any(|(_, form)| Arc::strong_count(&form.hold) > 1) {
            return Ok(None);
        }
        let names: Vec<String> = forms().map(|(name, _)| name.clone()).collect();
        let mut freed = None;
        let mut gone = Vec::new();
        for name in names {
            let (place, away) = (self.dir.join("layers").join(&name), self.fresh("making"));
            fs::rename(&place, &away).map_err(SnapshotError::io("removing", &place))?;
            gone.push(Scratch(away));
            *freed.get_or_insert(0) += layers.remove(&name).map_or(0, |form| form.bytes);
        }
        drop(layers);
        drop(gone);
        Ok(freed)
    }

    fn holds(&self) -> Vec<(LayerId, u64)> {
        let mut sums: HashMap<LayerId, u64> = HashMap::new();
        for layer in lock(&self.layers).values() {
            *sums.entry(layer.id).or_default() += layer.bytes;
        }
        sums.into_iter().collect()
    }
}

/// The name of a layer whose form doesn't depend on the chain below it.
fn free_name(layer: &LayerId) -> String {
    layer.digest().hex()
}

/// The name of a layer as it is over the chain below it.
fn bound_name(chain: &[LayerId]) -> String {
    let layer = chain
        .last()
        .map(|layer| layer.digest().hex())
        .unwrap_or_default();
    let context = Chain(chain.to_vec()).id().hex();
    format!("{layer}.{}", &context[..16])
}

fn is_plain(root: &Path) -> Result<bool, SnapshotError> {
    let attributes =
        Attributes::read(root).map_err(SnapshotError::io("reading the attributes of", root))?;
    Ok(attributes == Attributes::undescribed())
}

/// A directory that is removed when it goes out of use, unless it was renamed away.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.0.display(), %error, "a directory was left behind");
            }
            _ => {}
        }
    }
}

/// Makes `dir` an empty directory.
fn empty(dir: &Path) -> Result<(), SnapshotError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(SnapshotError::io("clearing", dir)(error));
        }
        _ => {}
    }
    fs::create_dir_all(dir).map_err(SnapshotError::io("creating the directory", dir))
}

/// The layers that are in `dir`. What isn't one is left alone.
fn read_layers(dir: &Path) -> Result<HashMap<String, Layer>, SnapshotError> {
    let mut layers = HashMap::new();
    for entry in fs::read_dir(dir).map_err(SnapshotError::io("listing", dir))? {
        let entry = entry.map_err(SnapshotError::io("listing", dir))?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let hex = name.split('.').next().unwrap_or_default();
        let Ok(id) = format!("sha256:{hex}").parse::<LayerId>() else {
            continue;
        };
        let bytes = fs::read_to_string(entry.path().join("bytes"))
            .ok()
            .and_then(|text| text.parse().ok());
        if let Some(bytes) = bytes {
            let plain_root = is_plain(&entry.path().join("fs"))?;
            layers.insert(
                name,
                Layer {
                    id,
                    bytes,
                    plain_root,
                    hold: Arc::default(),
                },
            );
        }
    }
    Ok(layers)
}

/// The bytes that a tree occupies on the disk; a file with several names counts once.
fn occupied(tree: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    let mut seen = std::collections::HashSet::new();
    let mut pending = vec![tree.to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.nlink() == 1 || metadata.is_dir() || seen.insert(metadata.ino()) {
                bytes += metadata.blocks() * 512;
            }
            if metadata.is_dir() {
                pending.push(entry.path());
            }
        }
    }
    Ok(bytes)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What the locks guard is consistent at every point where something could panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshots::suite::snapshotter_suite;

    fn open(dir: &Path) -> Arc<dyn Snapshotter> {
        fs::create_dir_all(dir).unwrap();
        Arc::new(Directories::open(dir).unwrap())
    }

    snapshotter_suite!(open);

    #[test]
    fn layers_unpacked_before_the_last_boot_are_dropped() {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path()));
        let layer = dir.path().join("layers").join("0".repeat(64));
        fs::create_dir_all(layer.join("fs")).unwrap();
        fs::write(layer.join("bytes"), "5").unwrap();
        assert_eq!(open(dir.path()).holds().len(), 1);
        fs::write(dir.path().join("boot"), "another boot").unwrap();
        assert!(open(dir.path()).holds().is_empty());
        assert!(!layer.exists());
    }
}
