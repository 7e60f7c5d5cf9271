//! Making room: what is on the disk, what may go, and its removal.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use buildyard_cas::free_space;
use buildyard_layer::FlatUsage;
use buildyard_model::LayerId;
use buildyard_store::{Candidate, Item, ItemKind, Referrer, UnixMillis};
use futures::TryStreamExt;

use super::{FRESH, Full, GIVE_UP, Keeper, KeeperError, Noted, lock, now, plan};

/// How many items the keeper looks at, the least recently used ones.
const ITEMS: u32 = 500_000;

/// Something that was removed, or could be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// The thing, its size, and what it was for.
    pub candidate: Candidate,
}

impl Keeper {
    /// What lies on the disk.
    async fn on_disk(&self) -> Result<Vec<(Item, u64)>, KeeperError> {
        let flats = self.flats.clone();
        let flats: Vec<FlatUsage> = tokio::task::spawn_blocking(move || flats.list())
            .await
            .expect("listing does not panic")?;
        let mut items: Vec<(Item, u64)> = flats
            .into_iter()
            .map(|flat| (Item::flat(flat.id), flat.on_disk))
            .collect();
        let mut blobs = self.blobs.list();
        while let Some(blob) = blobs.try_next().await? {
            items.push((Item::blob(blob.digest), blob.size));
        }
        Ok(items)
    }

    /// Brings the records in line with the disk, while nobody writes.
    pub(super) async fn reconcile(&self) -> Result<(), KeeperError> {
        let items = self.on_disk().await?;
        let here: HashSet<&Item> = items.iter().map(|(item, _)| item).collect();
        // Known ones keep the time of their last use, new ones count as used long ago.
        self.store.record_usage(&items, UnixMillis(0)).await?;
        let known = self.store.oldest(ITEMS).await?;
        let gone: Vec<Item> = known
            .iter()
            .map(|candidate| candidate.item.clone())
            .filter(|item| !here.contains(item))
            .collect();
        self.store.remove_usage(&gone).await?;
        let taken = items.iter().map(|(_, bytes)| bytes).sum();
        self.taken.store(taken, Ordering::Relaxed);
        let nobodys: Vec<Candidate> = known
            .into_iter()
            .filter(|candidate| candidate.needed_by.is_empty() && here.contains(&candidate.item))
            .collect();
        if !nobodys.is_empty() {
            tracing::info!(items = nobodys.len(), "removing what nothing refers to");
            self.remove(nobodys).await?;
        }
        Ok(())
    }

    /// Looks at the disk and makes room where it has to be made.
    pub(super) async fn look(&self) -> Result<(), KeeperError> {
        self.flush().await?;
        let items = self.on_disk().await?;
        let unfinished = self.flats.unfinished()?;
        let taken: u64 = items.iter().map(|(_, bytes)| bytes).sum();
        self.taken.store(taken + unfinished, Ordering::Relaxed);
        self.sweep().await.map(drop)
    }

    /// Makes room for what was claimed.
    pub(super) async fn make_room(&self) -> Result<(), Full> {
        if let Err(error) = self.sweep().await {
            tracing::error!(error = %crate::causes::with_causes(&error), "no room could be made in the store");
        }
        match self.bounds.over_cap(self.taken()) {
            0 => Ok(()),
            _ => Err(self.full()),
        }
    }

    /// Removes what has to go.
    async fn sweep(&self) -> Result<(), KeeperError> {
        let free = free_space(&self.dir)?;
        let excess = self.bounds.excess(self.taken(), free);
        let gave_up = lock(&self.gave_up).is_some_and(|at| at.elapsed() < GIVE_UP);
        if excess == 0 || (gave_up && self.bounds.over_cap(self.taken()) == 0) {
            return Ok(());
        }
        let candidates = self.candidates().await?;
        let fresh = self.fresh_items();
        let wanted = excess.saturating_add(self.bounds.slack());
        let victims = plan::choose(&candidates, &self.needs.in_use(), &fresh, wanted);
        if victims.is_empty() {
            *lock(&self.gave_up) = Some(std::time::Instant::now());
        }
        let removed = self.remove(victims).await?;
        tracing::info!(
            excess,
            items = removed.len(),
            taken = self.taken(),
            limit = self.bounds.cap,
            "made room in the store"
        );
        Ok(())
    }

    /// Everything in the store, also what came this moment, the least recently used first, with what refers to it.
    pub async fn candidates(&self) -> Result<Vec<Candidate>, KeeperError> {
        self.flush().await?;
        let candidates = self.store.oldest(ITEMS).await?;
        let mut fresh = lock(&self.fresh);
        for candidate in candidates.iter().filter(|c| !c.needed_by.is_empty()) {
            fresh.remove(&candidate.item);
        }
        fresh.retain(|_, since| since.elapsed() < FRESH);
        Ok(candidates)
    }

    /// Whether a running build needs it, or its record is still to come.
    pub fn is_needed(&self, candidate: &Candidate) -> bool {
        let unrecorded =
            candidate.needed_by.is_empty() && lock(&self.fresh).contains_key(&candidate.item);
        unrecorded || buildyard_store::is_needed(candidate, &self.needs.in_use())
    }

    fn fresh_items(&self) -> HashSet<Item> {
        lock(&self.fresh).keys().cloned().collect()
    }

    /// Removes these, except what a running build has come to need: results first become misses, then the bytes go.
    /// Returns what went.
    ///
    /// # Errors
    /// Something could not be removed; what went before is gone.
    pub async fn remove(&self, victims: Vec<Candidate>) -> Result<Vec<Removed>, KeeperError> {
        let _alone = self.sweeping.lock().await;
        let going = self.needs.announce(victims);
        let outcome = self.remove_announced(going).await;
        self.needs.done();
        outcome
    }

    async fn remove_announced(&self, going: Vec<Candidate>) -> Result<Vec<Removed>, KeeperError> {
        let lost: HashSet<LayerId> = going
            .iter()
            .flat_map(|victim| &victim.needed_by)
            .filter_map(|referrer| match referrer {
                Referrer::Layer(layer) => Some(*layer),
                _ => None,
            })
            .collect();
        let lost: Vec<LayerId> = lost.into_iter().collect();
        let records = self.store.layers(&lost).await?;
        // A pulled layer can be fetched again: its record and what contains it stay.
        let made = records.into_iter().flatten().filter(|r| r.pulled.is_none());
        let made: Vec<LayerId> = made.map(|record| record.id).collect();
        self.store.remove_layers(&made).await?;
        let mut removed = Vec::with_capacity(going.len());
        for candidate in going {
            self.remove_bytes(&candidate.item).await?;
            self.store
                .remove_usage(std::slice::from_ref(&candidate.item))
                .await?;
            self.give_back_bytes(candidate.bytes);
            removed.push(Removed { candidate });
        }
        Ok(removed)
    }

    async fn remove_bytes(&self, item: &Item) -> Result<(), KeeperError> {
        match item.kind {
            ItemKind::Blob => {
                if let Ok(digest) = item.id.parse() {
                    self.blobs.delete(digest).await?;
                }
            }
            ItemKind::Flat => {
                if let Ok(flat) = item.id.parse() {
                    let flats = self.flats.clone();
                    tokio::task::spawn_blocking(move || flats.remove(flat))
                        .await
                        .expect("removing does not panic")?;
                }
            }
            // The coordinator has none.
            ItemKind::Snapshot => {}
        }
        Ok(())
    }

    /// Writes down what was noted since the last time.
    pub(super) async fn flush(&self) -> Result<(), KeeperError> {
        self.store.flush_uses().await?;
        let noted = std::mem::take(&mut *lock(&self.noted));
        let (mut stored, mut used) = (Vec::new(), Vec::new());
        for (item, Noted { stored: bytes }) in noted {
            match bytes {
                Some(bytes) => stored.push((item, bytes)),
                None => used.push(item),
            }
        }
        self.store.record_usage(&stored, now()).await?;
        self.store.touch(&used, now()).await?;
        Ok(())
    }
}
