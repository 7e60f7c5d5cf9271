//! Cache mounts (`RUN --mount=type=cache`): directories that outlive steps, by id.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use buildyard_llb::pb::CacheSharingOpt;
use buildyard_model::DigestHasher;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use crate::snapshots::{MountSource, MountSpec, Mounts};

/// The cache mounts of this machine.
pub(in crate::agent) struct Caches {
    dir: PathBuf,
    locks: Mutex<HashMap<String, Arc<RwLock<()>>>>,
}

/// A cache mount that a step uses; it is given back when this is dropped.
pub(in crate::agent) struct CacheUse {
    /// The directory.
    dir: PathBuf,
    _held: Held,
}

#[allow(dead_code, reason = "guards are held, not read")]
enum Held {
    Shared(OwnedRwLockReadGuard<()>),
    Alone(OwnedRwLockWriteGuard<()>),
}

impl Caches {
    pub(super) fn open(dir: PathBuf) -> io::Result<Self> {
        std::fs::create_dir_all(&dir)?;
        Ok(Self {
            dir,
            locks: Mutex::default(),
        })
    }

    /// Takes a cache mount. `locked` waits until nobody else has it; `private` gives one that nobody else has.
    pub(super) async fn take(
        &self,
        id: &str,
        platform: &str,
        sharing: CacheSharingOpt,
    ) -> io::Result<CacheUse> {
        let mut hasher = DigestHasher::new("cache mount");
        let name = hasher.field(id).field(platform).finish().hex()[..32].to_owned();
        match sharing {
            CacheSharingOpt::Shared => {
                let lock = self.lock(&name);
                self.hold(name, Held::Shared(lock.read_owned().await))
            }
            CacheSharingOpt::Locked => {
                let lock = self.lock(&name);
                self.hold(name, Held::Alone(lock.write_owned().await))
            }
            CacheSharingOpt::Private => self.take_private(&name),
        }
    }

    /// The first of the directories `NAME`, `NAME-1`, … that nobody uses.
    fn take_private(&self, name: &str) -> io::Result<CacheUse> {
        for number in 0..1000 {
            let name = if number == 0 {
                name.to_owned()
            } else {
                format!("{name}-{number}")
            };
            if let Ok(guard) = self.lock(&name).try_write_owned() {
                return self.hold(name, Held::Alone(guard));
            }
        }
        Err(io::Error::other(
            "a thousand steps use private copies of this cache mount already",
        ))
    }

    fn hold(&self, name: String, held: Held) -> io::Result<CacheUse> {
        let dir = self.dir.join(name);
        std::fs::create_dir_all(dir.join("fs"))?;
        std::fs::create_dir_all(dir.join("work"))?;
        Ok(CacheUse { dir, _held: held })
    }

    fn lock(&self, name: &str) -> Arc<RwLock<()>> {
        self.locks
            .lock()
            .expect("nobody panics while holding it")
            .entry(name.to_owned())
            .or_default()
            .clone()
    }
}

impl CacheUse {
    /// How to mount it over its initial contents, if it has some.
    pub(super) fn mounts(&self, below: Option<&Mounts>) -> Mounts {
        let fs = self.dir.join("fs");
        let lowers = below.map(lower_directories).unwrap_or_default();
        let source = if lowers.is_empty() {
            MountSource::Bind {
                path: fs,
                read_only: false,
            }
        } else {
            MountSource::Overlay {
                lowers,
                upper: Some((fs, self.dir.join("work"))),
            }
        };
        match below {
            Some(below) => {
                let mut mounts = below.clone();
                mounts.specs = vec![MountSpec::new(source)];
                mounts
            }
            None => Mounts::unheld(vec![MountSpec::new(source)]),
        }
    }
}

/// The directories of a read-only chain, the top one first.
fn lower_directories(mounts: &Mounts) -> Vec<PathBuf> {
    match mounts.specs.first().map(|spec| &spec.source) {
        Some(MountSource::Bind { path, .. }) => vec![path.clone()],
        Some(MountSource::Overlay { lowers, .. }) => lowers.clone(),
        _ => Vec::new(),
    }
}
