//! What this machine keeps for later, within its limit: unpacked layers, and flat files where they are its own.
//!
//! What is unused longest goes, never what a running step uses or an upload still reads ([`Using`]). One loop looks at the
//! disk, woken by whoever adds something, and at every tick. Cache mounts are not counted: steps fill them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use buildyard_cas::{SizeLimit, disk_size, free_space};
use buildyard_layer::FlatFiles;
use buildyard_model::{FlatId, LayerId};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::snapshots::Snapshotter;

/// How often the loop looks by itself.
const TICK: Duration = Duration::from_secs(15);
/// Bytes that should stay free on the disk, where that is at most a twentieth of it.
const SPARE: u64 = 2 << 30;

/// Something that takes room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Kept {
    Snapshot(LayerId),
    Flat(FlatId),
}

/// The keeper of the machine's data directory.
pub(super) struct Cache {
    dir: PathBuf,
    cap: u64,
    spare: u64,
    state: Mutex<State>,
    /// Held while something is removed, so that nobody begins to use it meanwhile.
    gate: tokio::sync::Mutex<()>,
    wake: Notify,
}

#[derive(Default)]
struct State {
    clock: u64,
    used: HashMap<Kept, u64>,
    held: HashMap<Kept, usize>,
}

/// As long as this lives, what it was made for stays.
pub(super) struct Using {
    cache: Arc<Cache>,
    items: Vec<Kept>,
}

impl Cache {
    /// A keeper of `dir`.
    pub(super) fn new(dir: PathBuf, limit: SizeLimit) -> std::io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            cap: limit.of(&dir)?,
            spare: SPARE.min(disk_size(&dir)? / 20),
            dir,
            state: Mutex::default(),
            gate: tokio::sync::Mutex::default(),
            wake: Notify::new(),
        }))
    }

    /// Uses unpacked layers.
    pub(super) async fn using_layers(self: &Arc<Self>, layers: &[LayerId]) -> Using {
        self.using(layers.iter().copied().map(Kept::Snapshot)).await
    }

    /// Uses flat files.
    pub(super) async fn using_flats(
        self: &Arc<Self>,
        flats: impl IntoIterator<Item = FlatId>,
    ) -> Using {
        self.using(flats.into_iter().map(Kept::Flat)).await
    }

    async fn using(self: &Arc<Self>, items: impl Iterator<Item = Kept>) -> Using {
        let items: Vec<Kept> = items.collect();
        let _open = self.gate.lock().await;
        let mut state = self.lock();
        state.clock += 1;
        for item in &items {
            let now = state.clock;
            state.used.insert(*item, now);
            *state.held.entry(*item).or_default() += 1;
        }
        drop(state);
        Using {
            cache: self.clone(),
            items,
        }
    }

    /// Something was added.
    pub(super) fn grown(&self) {
        self.wake.notify_one();
    }

    /// Keeps the directory within its limit until `cancel`. `flats`: the machine's own, if it has any.
    pub(super) async fn run(
        self: Arc<Self>,
        snapshots: Option<Arc<dyn Snapshotter>>,
        flats: Option<FlatFiles>,
        cancel: CancellationToken,
    ) {
        loop {
            if let Err(error) = self.look(&snapshots, &flats).await {
                tracing::error!(
                    error = format!("{error:#}"),
                    "the data directory could not be looked after"
                );
            }
            tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep(TICK) => {}
                () = cancel.cancelled() => return,
            }
        }
    }

    async fn look(
        &self,
        snapshots: &Option<Arc<dyn Snapshotter>>,
        flats: &Option<FlatFiles>,
    ) -> anyhow::Result<()> {
        let (of_snapshots, of_flats) = (snapshots.clone(), flats.clone());
        let items = tokio::task::spawn_blocking(move || list(of_snapshots, of_flats))
            .await
            .expect("listing does not panic")?;
        let taken: u64 = items.iter().map(|(_, bytes)| bytes).sum();
        let short = self.spare.saturating_sub(free_space(&self.dir)?);
        let excess = taken.saturating_sub(self.cap).max(short);
        let victims = self.lock().choose(&items, excess);
        if victims.is_empty() {
            return Ok(());
        }
        tracing::info!(
            taken,
            limit = self.cap,
            items = victims.len(),
            "making room in the data directory"
        );
        for victim in victims {
            let _closed = self.gate.lock().await;
            if self.lock().held.contains_key(&victim) {
                continue;
            }
            let (snapshots, flats) = (snapshots.clone(), flats.clone());
            tokio::task::spawn_blocking(move || remove(victim, snapshots, flats))
                .await
                .expect("removing does not panic")?;
            self.lock().used.remove(&victim);
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding it")
    }
}

impl State {
    /// The least recently used items that free `excess` bytes, none that is held. What is seen for the first time has just
    /// come and stays for now.
    fn choose(&mut self, items: &[(Kept, u64)], excess: u64) -> Vec<Kept> {
        self.clock += 1;
        let now = self.clock;
        let mut order: Vec<(u64, Kept, u64)> = Vec::new();
        for (item, bytes) in items {
            let used = *self.used.entry(*item).or_insert(now);
            if used < now && !self.held.contains_key(item) {
                order.push((used, *item, *bytes));
            }
        }
        order.sort_unstable();
        let mut freed = 0;
        let enough = |(_, _, bytes): &(u64, Kept, u64)| {
            let go_on = freed < excess;
            freed += bytes;
            go_on
        };
        let victims = order.into_iter().take_while(enough);
        victims.map(|(_, item, _)| item).collect()
    }
}

impl Drop for Using {
    fn drop(&mut self) {
        let mut state = self.cache.lock();
        state.clock += 1;
        let now = state.clock;
        for item in &self.items {
            state.used.insert(*item, now);
            if let Some(count) = state.held.get_mut(item) {
                *count -= 1;
                if *count == 0 {
                    state.held.remove(item);
                }
            }
        }
        drop(state);
        self.cache.wake.notify_one();
    }
}

fn list(
    snapshots: Option<Arc<dyn Snapshotter>>,
    flats: Option<FlatFiles>,
) -> std::io::Result<Vec<(Kept, u64)>> {
    let holds = snapshots.map(|snapshots| snapshots.holds());
    let mut items: Vec<(Kept, u64)> = holds
        .unwrap_or_default()
        .into_iter()
        .map(|(layer, bytes)| (Kept::Snapshot(layer), bytes))
        .collect();
    if let Some(flats) = flats {
        let flats = flats.list()?.into_iter();
        items.extend(flats.map(|flat| (Kept::Flat(flat.id), flat.on_disk)));
    }
    Ok(items)
}

fn remove(
    item: Kept,
    snapshots: Option<Arc<dyn Snapshotter>>,
    flats: Option<FlatFiles>,
) -> anyhow::Result<()> {
    match item {
        Kept::Snapshot(layer) => {
            if let Some(snapshots) = snapshots {
                snapshots.remove(layer)?;
            }
        }
        Kept::Flat(flat) => {
            if let Some(flats) = flats {
                flats.remove(flat)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use buildyard_model::Digest;

    use super::*;

    fn layer(name: &str) -> LayerId {
        LayerId(Digest::of(name))
    }

    #[tokio::test]
    async fn the_least_recently_used_goes_and_nothing_that_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path().to_owned(), SizeLimit::Bytes(1)).unwrap();
        let items: Vec<(Kept, u64)> = ["a", "b", "c"]
            .map(|name| (Kept::Snapshot(layer(name)), 10))
            .to_vec();
        let choose = |excess| cache.lock().choose(&items, excess);
        assert!(choose(30).is_empty(), "what has just come stays for now");
        let held = cache.using_layers(&[layer("a")]).await;
        drop(cache.using_layers(&[layer("b")]).await);
        let [a, b, c] = [items[0].0, items[1].0, items[2].0];
        assert_eq!(choose(1), [c]);
        assert_eq!(choose(11), [c, b]);
        assert_eq!(choose(99), [c, b]);
        drop(held);
        assert_eq!(choose(99), [c, b, a]);
        assert!(choose(0).is_empty());
    }
}
