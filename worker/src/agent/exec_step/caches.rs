//! Cache mounts (`RUN --mount=type=cache`): directories that outlive steps, by id.
//!
//! A step takes all of its cache mounts at once, in one order for all steps, *before* it takes a slot: so steps never wait for
//! one another in a circle, and one that waits keeps nobody from running.
//!
//! A cache mount with initial contents (`from=`, or an owner or mode) gets a copy of them when its directory is made; from
//! then on it is a plain directory, so steps may share it. Other initial contents are another cache mount, as in BuildKit. Other than
//! there, each platform has its own.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use buildyard_llb::pb;
use buildyard_llb::pb::CacheSharingOpt;
use buildyard_model::{Chain, DigestHasher, Platform};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use crate::snapshots::{MountSource, MountSpec, Mounts};

/// Puts a new cache mount's initial contents into its directory. Blocks.
pub(super) type Fill = Arc<dyn Fn(&Path) -> anyhow::Result<()> + Send + Sync>;

/// The cache mounts of this machine.
pub(in crate::agent) struct Caches {
    dir: PathBuf,
    locks: Mutex<HashMap<String, Arc<Lock>>>,
}

#[derive(Default)]
struct Lock {
    /// Held by the steps that use it.
    used: Arc<RwLock<()>>,
    /// Held while the directory is made.
    made: tokio::sync::Mutex<()>,
}

/// Cache mounts by name, and how they are to be shared.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted(BTreeMap<String, CacheSharingOpt>);

/// The cache mounts that a step uses, by name; they are given back when this is dropped.
#[derive(Default)]
pub(super) struct Taken(BTreeMap<String, CacheUse>);

/// A cache mount that a step uses.
pub(super) struct CacheUse {
    dir: PathBuf,
    lock: Arc<Lock>,
    _held: Held,
}

#[allow(dead_code, reason = "guards are held, not read")]
enum Held {
    Shared(OwnedRwLockReadGuard<()>),
    Alone(OwnedRwLockWriteGuard<()>),
}

/// The name of a cache mount on this machine.
pub(super) fn name(mount: &pb::Mount, inputs: &[Chain], platform: &Platform) -> String {
    let given = mount.cache_opt.as_ref().map_or("", |options| &options.id);
    let id = if given.is_empty() { &mount.dest } else { given };
    let mut hasher = DigestHasher::new("cache mount");
    hasher.field(id).field(platform.to_string());
    let contents = usize::try_from(mount.input).ok();
    if let Some(chain) = contents.and_then(|index| inputs.get(index)) {
        hasher.field(chain.id().hex());
    }
    hasher.finish().hex()[..32].to_owned()
}

impl Wanted {
    /// The cache mounts of an operation. One that it mounts twice is shared with nobody if either of the two says so.
    pub(super) fn of(exec: &pb::ExecOp, inputs: &[Chain], platform: &Platform) -> Self {
        let caches = exec
            .mounts
            .iter()
            .filter(|mount| mount.mount_type() == pb::MountType::Cache);
        let mut wanted = BTreeMap::new();
        for mount in caches {
            let sharing = mount
                .cache_opt
                .as_ref()
                .map_or(CacheSharingOpt::Shared, pb::CacheOpt::sharing);
            let kept = wanted
                .entry(name(mount, inputs, platform))
                .or_insert(sharing);
            if *kept == CacheSharingOpt::Shared {
                *kept = sharing;
            }
        }
        Self(wanted)
    }
}

impl Caches {
    /// Opens `dir`, which belongs to cache mounts alone.
    pub(super) fn open(dir: PathBuf) -> io::Result<Self> {
        std::fs::create_dir_all(&dir)?;
        Ok(Self {
            dir,
            locks: Mutex::default(),
        })
    }

    /// Takes cache mounts. `locked` waits until nobody else has it; `private` gives one that nobody else has.
    pub(super) async fn take(&self, wanted: Wanted) -> anyhow::Result<Taken> {
        let mut taken = BTreeMap::new();
        // In the order of their names, as everybody does.
        for (name, sharing) in wanted.0 {
            let cache = match sharing {
                CacheSharingOpt::Private => self.take_private(&name)?,
                CacheSharingOpt::Locked => {
                    let lock = self.lock(&name);
                    let held = Held::Alone(lock.used.clone().write_owned().await);
                    self.cache(&name, lock, held)
                }
                CacheSharingOpt::Shared => {
                    let lock = self.lock(&name);
                    let held = Held::Shared(lock.used.clone().read_owned().await);
                    self.cache(&name, lock, held)
                }
            };
            taken.insert(name, cache);
        }
        Ok(Taken(taken))
    }

    /// The first of the directories `NAME`, `NAME-1`, … that nobody uses.
    fn take_private(&self, name: &str) -> anyhow::Result<CacheUse> {
        for number in 0..1000 {
            let name = match number {
                0 => name.to_owned(),
                number => format!("{name}-{number}"),
            };
            let lock = self.lock(&name);
            if let Ok(alone) = lock.used.clone().try_write_owned() {
                return Ok(self.cache(&name, lock, Held::Alone(alone)));
            }
        }
        anyhow::bail!("a thousand steps use private copies of this cache mount already")
    }

    fn cache(&self, name: &str, lock: Arc<Lock>, held: Held) -> CacheUse {
        CacheUse {
            dir: self.dir.join(name),
            lock,
            _held: held,
        }
    }

    fn lock(&self, name: &str) -> Arc<Lock> {
        let mut locks = self.locks.lock().expect("nobody panics while holding it");
        // A guard outlives no use, so what only the table knows is free.
        locks.retain(|known, lock| known == name || Arc::strong_count(lock) > 1);
        locks.entry(name.to_owned()).or_default().clone()
    }
}

impl Taken {
    /// The cache mount of this name.
    pub(super) fn get(&self, name: &str) -> Option<&CacheUse> {
        self.0.get(name)
    }
}

impl CacheUse {
    /// Makes the directory where it is not there yet. It appears whole: filled under another name, then renamed.
    pub(super) async fn make(&self, fill: Option<Fill>) -> anyhow::Result<()> {
        let _alone = self.lock.made.lock().await;
        if self.dir.try_exists()? {
            return Ok(());
        }
        let (dir, making) = (self.dir.clone(), self.dir.with_extension("new"));
        let made = tokio::task::spawn_blocking(move || -> anyhow::Result<()> {
            if making.try_exists()? {
                std::fs::remove_dir_all(&making)?;
            }
            std::fs::create_dir(&making)?;
            if let Some(fill) = fill {
                fill(&making)?;
            }
            Ok(std::fs::rename(&making, &dir)?)
        });
        made.await.expect("filling does not panic")
    }

    /// How to mount it.
    pub(super) fn mounts(&self) -> Mounts {
        let source = MountSource::Bind {
            path: self.dir.clone(),
            read_only: false,
        };
        Mounts::unheld(vec![MountSpec::new(source)])
    }
}

#[cfg(test)]
mod tests;
