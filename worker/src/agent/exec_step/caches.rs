//! Cache mounts (`RUN --mount=type=cache`): directories that outlive steps, by id.
//!
//! A cache mount with initial contents (`from=`) gets a copy of them when its directory is made; from then on it is a plain
//! directory, so steps may share it.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use buildyard_llb::pb::CacheSharingOpt;
use buildyard_model::DigestHasher;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use crate::snapshots::{MountSource, MountSpec, Mounts};

/// Puts a new cache mount's initial contents into its directory. Blocks.
pub(super) type Fill = Arc<dyn Fn(&Path) -> anyhow::Result<()> + Send + Sync>;

/// The cache mounts of this machine.
pub(in crate::agent) struct Caches {
    dir: PathBuf,
    locks: Mutex<HashMap<String, Arc<RwLock<()>>>>,
}

/// A cache mount that a step uses; it is given back when this is dropped.
pub(in crate::agent) struct CacheUse {
    dir: PathBuf,
    _held: Held,
}

#[allow(dead_code, reason = "guards are held, not read")]
enum Held {
    Shared(OwnedRwLockReadGuard<()>),
    Alone(OwnedRwLockWriteGuard<()>),
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

    /// Takes a cache mount. `locked` waits until nobody else has it; `private` gives one that nobody else has. A new one is
    /// filled first.
    pub(super) async fn take(
        &self,
        id: &str,
        platform: &str,
        sharing: CacheSharingOpt,
        fill: Option<Fill>,
    ) -> anyhow::Result<CacheUse> {
        let mut hasher = DigestHasher::new("cache mount");
        let name = hasher.field(id).field(platform).finish().hex()[..32].to_owned();
        match sharing {
            CacheSharingOpt::Private => self.take_private(&name, fill).await,
            CacheSharingOpt::Locked => {
                let alone = self.lock(&name).write_owned().await;
                self.hold(&name, Held::Alone(alone), fill).await
            }
            CacheSharingOpt::Shared => {
                let lock = self.lock(&name);
                // Only the first one needs it alone, to make it.
                let shared = if self.dir.join(&name).try_exists()? {
                    lock.read_owned().await
                } else {
                    let alone = lock.write_owned().await;
                    self.make(&name, fill).await?;
                    alone.downgrade()
                };
                self.hold(&name, Held::Shared(shared), None).await
            }
        }
    }

    /// The first of the directories `NAME`, `NAME-1`, … that nobody uses.
    async fn take_private(&self, name: &str, fill: Option<Fill>) -> anyhow::Result<CacheUse> {
        for number in 0..1000 {
            let name = match number {
                0 => name.to_owned(),
                number => format!("{name}-{number}"),
            };
            if let Ok(alone) = self.lock(&name).try_write_owned() {
                return self.hold(&name, Held::Alone(alone), fill).await;
            }
        }
        anyhow::bail!("a thousand steps use private copies of this cache mount already")
    }

    async fn hold(&self, name: &str, held: Held, fill: Option<Fill>) -> anyhow::Result<CacheUse> {
        if matches!(held, Held::Alone(_)) {
            self.make(name, fill).await?;
        }
        Ok(CacheUse {
            dir: self.dir.join(name),
            _held: held,
        })
    }

    /// Makes the directory where it is not there yet. It appears whole: filled under another name, then renamed. The caller
    /// has it alone.
    async fn make(&self, name: &str, fill: Option<Fill>) -> anyhow::Result<()> {
        let dir = self.dir.join(name);
        if dir.try_exists()? {
            return Ok(());
        }
        let making = self.dir.join(format!("{name}.new"));
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

    fn lock(&self, name: &str) -> Arc<RwLock<()>> {
        let mut locks = self.locks.lock().expect("nobody panics while holding it");
        locks.retain(|known, lock| known == name || Arc::strong_count(lock) > 1);
        locks.entry(name.to_owned()).or_default().clone()
    }
}

impl CacheUse {
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
mod tests {
    use super::*;

    fn caches() -> (tempfile::TempDir, Caches) {
        let dir = tempfile::tempdir().unwrap();
        let caches = Caches::open(dir.path().join("caches")).unwrap();
        (dir, caches)
    }

    #[tokio::test]
    async fn a_cache_is_filled_once_and_kept() {
        let (_dir, caches) = caches();
        let fill: Fill = Arc::new(|dir| Ok(std::fs::write(dir.join("a"), "first")?));
        let first = caches
            .take(
                "id",
                "linux/amd64",
                CacheSharingOpt::Shared,
                Some(fill.clone()),
            )
            .await
            .unwrap();
        std::fs::write(first.dir.join("a"), "changed").unwrap();
        let second = caches
            .take("id", "linux/amd64", CacheSharingOpt::Shared, Some(fill))
            .await
            .unwrap();
        assert_eq!(
            std::fs::read_to_string(second.dir.join("a")).unwrap(),
            "changed"
        );
        let other = caches
            .take("id", "linux/arm64", CacheSharingOpt::Shared, None)
            .await
            .unwrap();
        assert_ne!(other.dir, first.dir);
    }

    #[tokio::test]
    async fn private_ones_are_apart_and_locked_ones_wait() {
        let (_dir, caches) = caches();
        let take = |sharing| caches.take("id", "p", sharing, None);
        let first = take(CacheSharingOpt::Private).await.unwrap();
        let second = take(CacheSharingOpt::Private).await.unwrap();
        assert_ne!(first.dir, second.dir);
        let waiting = take(CacheSharingOpt::Locked);
        tokio::pin!(waiting);
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        drop(first);
        waiting.await.unwrap();
    }

    #[tokio::test]
    async fn a_failed_filling_leaves_nothing() {
        let (_dir, caches) = caches();
        let fails: Fill = Arc::new(|_| anyhow::bail!("no"));
        assert!(
            caches
                .take("id", "p", CacheSharingOpt::Locked, Some(fails))
                .await
                .is_err()
        );
        let fill: Fill = Arc::new(|dir| Ok(std::fs::write(dir.join("a"), "x")?));
        let cache = caches
            .take("id", "p", CacheSharingOpt::Locked, Some(fill))
            .await
            .unwrap();
        assert!(cache.dir.join("a").exists());
    }
}
