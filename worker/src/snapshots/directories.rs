//! Layers unpacked into directories, shown by overlayfs. Works on every kernel and, with the right options, every file
//! system that can hold an overlay's upper directory.
//!
//! ```text
//! DIR/layers/NAME/fs/       a layer; NAME is its id, or id.context where its form depends on what is below
//! DIR/layers/NAME/bytes     how much it occupies
//! ```

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use buildyard_model::{Chain, LayerId};

use super::attributes::Attributes;
use super::below::{self, Needs};
use super::gates::Gates;
use super::home::{Home, Scratch};
use super::{
    LayerContent, Lower, MountSource, MountSpec, Mounts, SnapshotError, Snapshotter, UpperDir, lock,
};

/// The snapshotter of unpacked directories.
pub struct Directories {
    home: Home,
    layers: Mutex<HashMap<String, Layer>>,
    filling: Gates,
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
        let home = Home::open(dir, "layers")?;
        Ok(Self {
            layers: Mutex::new(read_layers(&home)?),
            home,
            filling: Gates::default(),
        })
    }

    /// The names under which the layers of `chain` are present, lowest first.
    fn names(&self, chain: &[LayerId]) -> Result<Vec<String>, (usize, LayerId)> {
        let layers = lock(&self.layers);
        let mut names = Vec::with_capacity(chain.len());
        let mut below_is_plain = true;
        for (index, id) in chain.iter().enumerate() {
            let free = free_name(id);
            let (name, layer) = match layers.get(&free) {
                Some(layer) if below_is_plain || !layer.plain_root => (free, layer),
                _ => {
                    let bound = bound_name(&chain[..=index]);
                    let layer = layers.get(&bound).ok_or((index, *id))?;
                    (bound, layer)
                }
            };
            below_is_plain = layer.plain_root;
            names.push(name);
        }
        Ok(names)
    }

    fn root(&self, name: &str) -> PathBuf {
        self.home.kept(name).join("fs")
    }

    /// The roots of the layers of `chain`, the top one first.
    fn roots(&self, chain: &[LayerId]) -> Result<Vec<PathBuf>, SnapshotError> {
        Ok(self
            .names(chain)
            .map_err(missing)?
            .iter()
            .rev()
            .map(|name| self.root(name))
            .collect())
    }

    fn fill(
        &self,
        chain: &[LayerId],
        layer: LayerId,
        content: &LayerContent<'_>,
    ) -> Result<(), SnapshotError> {
        let lowers = self.roots(&chain[..chain.len() - 1])?;
        let home = self.home.making();
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
        self.publish(&home, name, layer)
    }

    fn publish(&self, home: &Scratch, name: String, id: LayerId) -> Result<(), SnapshotError> {
        let bytes = occupied(&home.0).map_err(SnapshotError::io("measuring", &home.0))?;
        let plain_root = is_plain(&home.0.join("fs"))?;
        let file = home.0.join("bytes");
        fs::write(&file, bytes.to_string()).map_err(SnapshotError::io("writing", &file))?;
        self.home.keep(home, &name)?;
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
        self.filling.alone(layer, || match self.names(chain) {
            Ok(_) => Ok(()),
            Err(_) => self.fill(chain, layer, content),
        })
    }

    fn missing(&self, chain: &[LayerId]) -> Option<usize> {
        self.names(chain).err().map(|(at, _)| at)
    }

    fn new_upper(&self, chain: &[LayerId]) -> Result<UpperDir, SnapshotError> {
        let attributes = match self.roots(chain)?.first() {
            Some(root) => Attributes::read(root)
                .map_err(SnapshotError::io("reading the attributes of", root))?,
            None => Attributes::undescribed(),
        };
        self.home.new_upper(&attributes)
    }

    fn mounts(&self, chain: &[LayerId], upper: Option<&UpperDir>) -> Result<Mounts, SnapshotError> {
        let mut mounts = Mounts::unheld(Vec::new());
        let mut lowers = Vec::new();
        for (name, id) in self.names(chain).map_err(missing)?.iter().zip(chain).rev() {
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
            lowers.push(self.home.empty());
        }
        let source = match upper {
            Some(upper) => MountSource::Overlay {
                lowers: lowers.into_iter().map(Lower::Directory).collect(),
                upper: Some((upper.dir(), upper.work())),
            },
            None if lowers.len() == 1 => MountSource::Bind {
                path: lowers.remove(0),
                read_only: true,
            },
            None => MountSource::Overlay {
                lowers: lowers.into_iter().map(Lower::Directory).collect(),
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
            gone.push(self.home.take_away(&name)?);
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

    fn reads_flats(&self) -> bool {
        false
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
    let context = Chain::new(chain.to_vec()).id().hex();
    format!("{layer}.{}", &context[..16])
}

fn is_plain(root: &Path) -> Result<bool, SnapshotError> {
    let attributes =
        Attributes::read(root).map_err(SnapshotError::io("reading the attributes of", root))?;
    Ok(attributes == Attributes::undescribed())
}

/// The layers that are kept. What isn't one is left alone.
fn read_layers(home: &Home) -> Result<HashMap<String, Layer>, SnapshotError> {
    let mut layers = HashMap::new();
    for name in home.names()? {
        let hex = name.split('.').next().unwrap_or_default();
        let Ok(id) = format!("sha256:{hex}").parse::<LayerId>() else {
            continue;
        };
        let place = home.kept(&name);
        let bytes = fs::read_to_string(place.join("bytes"))
            .ok()
            .and_then(|text| text.parse().ok());
        if let Some(bytes) = bytes {
            let plain_root = is_plain(&place.join("fs"))?;
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

fn missing((_, layer): (usize, LayerId)) -> SnapshotError {
    SnapshotError::Missing(layer)
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

#[cfg(test)]
mod tests {
    use buildyard_layer::FlatFiles;

    use super::*;
    use crate::snapshots::suite::snapshotter_suite;

    fn open(dir: &Path, _flats: &FlatFiles) -> Arc<dyn Snapshotter> {
        fs::create_dir_all(dir).unwrap();
        Arc::new(Directories::open(dir).unwrap())
    }

    snapshotter_suite!(open);

    #[test]
    fn layers_unpacked_before_the_last_boot_are_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Directories::open(dir.path()).unwrap();
        drop(open());
        let layer = dir.path().join("layers").join("0".repeat(64));
        fs::create_dir_all(layer.join("fs")).unwrap();
        fs::write(layer.join("bytes"), "5").unwrap();
        assert_eq!(open().holds().len(), 1);
        fs::write(dir.path().join("boot"), "another boot").unwrap();
        assert!(open().holds().is_empty());
        assert!(!layer.exists());
    }
}
