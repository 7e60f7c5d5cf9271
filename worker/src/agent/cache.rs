//! What this machine keeps for later, within its limit: unpacked layers, and flat files where they are its own.
//!
//! What is unused longest goes, never what a running step uses or an upload still reads ([`Using`]). One loop looks at the
//! disk, woken by whoever adds something, and at every tick. Cache mounts are not counted: steps fill them.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use buildyard_cas::{SizeLimit, disk_size, free_space};
use buildyard_layer::FlatFiles;
use buildyard_model::{FlatId, LayerId, Mark};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::snapshots::Snapshotter;

/// How long the loop rests at least between two looks, however many things come and go.
const LEAST_REST: Duration = Duration::from_millis(500);
/// How often the loop looks by itself.
const TICK: Duration = Duration::from_secs(15);
/// The loop rests at least so many times as long as it looked: a look costs as much as lies here.
const REST: u32 = 20;
/// So much of what lies here is reported, what was used last.
const REPORTED: usize = 1 << 14;
/// Bytes that should stay free on the disk, where that is at most a twentieth of it.
const SPARE: u64 = 2 << 30;

/// Something that takes room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Kept {
    Snapshot(LayerId),
    Flat(FlatId),
}

impl Kept {
    fn mark(self) -> Mark {
        match self {
            Self::Snapshot(layer) => layer.into(),
            Self::Flat(flat) => flat.into(),
        }
    }
}

/// Where the things lie that take room.
#[derive(Clone)]
pub(super) struct Stock {
    /// Unpacked layers, on a machine that executes.
    pub(super) snapshots: Option<Arc<dyn Snapshotter>>,
    /// The flat files, where they are the machine's own.
    pub(super) flats: Option<FlatFiles>,
}

/// The keeper of the machine's data directory.
pub(super) struct Cache {
    dir: PathBuf,
    stock: Stock,
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
    /// What was there when the disk was looked at last.
    present: Vec<Kept>,
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
    pub(super) fn new(dir: PathBuf, limit: SizeLimit, stock: Stock) -> std::io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            cap: limit.of(&dir)?,
            spare: SPARE.min(disk_size(&dir)? / 20),
            dir,
            stock,
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

    /// What lies here, as it was looked at last, by marks; where that is very much, what was used last.
    pub(super) fn present(&self) -> HashSet<Mark> {
        let state = self.lock();
        let mut present = state.present.clone();
        if present.len() > REPORTED {
            let used = |item: &Kept| state.used.get(item).copied().unwrap_or(0);
            present.sort_unstable_by_key(|item| std::cmp::Reverse(used(item)));
            present.truncate(REPORTED);
        }
        present.into_iter().map(Kept::mark).collect()
    }

    /// Keeps the directory within its limit until `cancel`.
    pub(super) async fn run(self: Arc<Self>, cancel: CancellationToken) {
        loop {
            tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep(TICK) => {}
                () = cancel.cancelled() => return,
            }
            let began = Instant::now();
            self.look().await;
            // Looking takes the longer the more there is, and steps wake the loop one by one: most of the time is theirs.
            let pause = (began.elapsed() * REST).clamp(LEAST_REST, TICK);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = cancel.cancelled() => return,
            }
        }
    }

    /// Looks what is there, and makes room where that is too much.
    pub(super) async fn look(&self) {
        if let Err(error) = self.make_room().await {
            tracing::error!(
                error = format!("{error:#}"),
                "the data directory could not be looked after"
            );
        }
    }

    async fn make_room(&self) -> anyhow::Result<()> {
        let stock = self.stock.clone();
        let items = tokio::task::spawn_blocking(move || stock.list())
            .await
            .expect("listing does not panic")?;
        self.lock().present = items.iter().map(|(item, _)| *item).collect();
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
            let stock = self.stock.clone();
            tokio::task::spawn_blocking(move || stock.remove(victim))
                .await
                .expect("removing does not panic")?;
            let mut state = self.lock();
            state.used.remove(&victim);
            state.present.retain(|item| *item != victim);
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

impl Stock {
    fn list(&self) -> std::io::Result<Vec<(Kept, u64)>> {
        let mut items: Vec<(Kept, u64)> = Vec::new();
        if let Some(snapshots) = &self.snapshots {
            let layers = snapshots.holds().into_iter();
            items.extend(layers.map(|(layer, bytes)| (Kept::Snapshot(layer), bytes)));
        }
        if let Some(flats) = &self.flats {
            let flats = flats.list()?.into_iter();
            items.extend(flats.map(|flat| (Kept::Flat(flat.id), flat.on_disk)));
        }
        Ok(items)
    }

    fn remove(&self, item: Kept) -> anyhow::Result<()> {
        match (item, &self.snapshots, &self.flats) {
            (Kept::Snapshot(layer), Some(snapshots), _) => {
                snapshots.remove(layer)?;
            }
            (Kept::Flat(flat), _, Some(flats)) => flats.remove(flat)?,
            _ => {}
        }
        Ok(())
    }
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
        let stock = Stock {
            snapshots: None,
            flats: None,
        };
        let cache = Cache::new(dir.path().to_owned(), SizeLimit::Bytes(1), stock).unwrap();
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
    #[tokio::test]
    async fn what_lies_here_is_reported_until_it_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let flats = FlatFiles::new(dir.path().join("flats")).unwrap();
        let flat = FlatId::from_bytes([7; 32]);
        flats.write_ranges(flat, &[(0, &[1; 512])]).unwrap();
        let stock = Stock {
            snapshots: None,
            flats: Some(flats),
        };
        let cache = Cache::new(dir.path().to_owned(), SizeLimit::Bytes(1), stock).unwrap();
        assert!(cache.present().is_empty(), "nobody has looked yet");
        cache.look().await;
        assert_eq!(cache.present(), HashSet::from([flat.into()]));
        let used = cache.using_flats([flat]).await;
        cache.look().await;
        assert_eq!(cache.present().len(), 1, "it is in use");
        drop(used);
        cache.look().await;
        assert!(cache.present().is_empty());
    }
}
