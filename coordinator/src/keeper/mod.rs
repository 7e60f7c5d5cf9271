//! The keeper of the shared store: how much of the disk it takes, and what goes when room is needed.
//!
//! Every write of a blob or of a flat file asks first ([`Keeper::blobs`], [`Keeper::flats`]), so the cap holds before a
//! write would pass it. What is unused longest goes, the cheapest to lose first ([`plan`]), never what a running build
//! holds ([`Needs`]). Where that is not enough, the write is refused and the build that wanted it ends with the reason.
//! One loop removes ([`Keeping::run`]); writers that need room wait for it. It looks again at every tick, so whatever was
//! missed costs a moment, not the disk.
//!
//! The database is not counted: it is bounded by [`Ages`] ([`housekeeping`]).

mod blobs;
mod housekeeping;
mod needs;
mod plan;
mod sweep;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use buildyard_cas::{BlobStore, CasError, SizeLimit, disk_size, free_space};
use buildyard_layer::{FlatFiles, Room};
use buildyard_model::FlatId;
use buildyard_store::{Item, Store, StoreError, UnixMillis};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

pub use housekeeping::Ages;
pub use needs::{Hold, Needs};
pub use sweep::Removed;

/// How often the keeper looks by itself.
const TICK: Duration = Duration::from_secs(20);
/// How often it puts the records in order.
const HOUSEKEEPING: Duration = Duration::from_secs(600);
/// How long a write without a record is taken for one whose record is still to come.
const FRESH: Duration = Duration::from_secs(3600);
/// Bytes that stay free on the disk, where that is at most a twentieth of it.
const SPARE: u64 = 2 << 30;
/// After it could free nothing for the sake of the spare bytes, the keeper does not try again for so long.
const GIVE_UP: Duration = Duration::from_secs(10);
/// Writers that may wait for room at once.
const WAITING: usize = 4096;

/// How the store is kept.
#[derive(Debug, Clone)]
pub struct KeeperConfig {
    /// Most that blobs and flat files may take.
    pub limit: SizeLimit,
    /// What is forgotten when.
    pub ages: Ages,
}

impl Default for KeeperConfig {
    fn default() -> Self {
        Self {
            limit: SizeLimit::Percent(50),
            ages: Ages::default(),
        }
    }
}

/// Why a write was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no space is left in the farm's store at {dir}: it may take {cap} bytes, and what is in it is needed by running \
     builds; raise --store-limit, or build less at once"
)]
pub struct Full {
    dir: String,
    cap: u64,
}

/// Why the store could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The records could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Blobs could not be listed or removed.
    #[error(transparent)]
    Blobs(#[from] CasError),
    /// Flat files could not be listed or removed.
    #[error("listing or removing flat files, or asking for the room on their disk")]
    Flats(#[from] io::Error),
}

/// A writer that waits for room.
type Ask = oneshot::Sender<Result<(), Full>>;

/// What was noted about an item since the last look.
#[derive(Debug, Clone, Copy)]
struct Noted {
    /// Its size, if it was written.
    stored: Option<u64>,
}

/// The keeper of one store.
#[derive(Debug)]
pub struct Keeper {
    store: Arc<dyn Store>,
    blobs: Arc<dyn BlobStore>,
    flats: FlatFiles,
    dir: PathBuf,
    bounds: plan::Bounds,
    ages: Ages,
    needs: Arc<Needs>,
    /// Bytes that are taken, or claimed by writers.
    taken: AtomicU64,
    noted: Mutex<HashMap<Item, Noted>>,
    /// What was removed by others since the last look.
    gone: Mutex<Vec<Item>>,
    /// What was written by this process and has no record yet, and when.
    fresh: Mutex<HashMap<Item, Instant>>,
    /// When the keeper last found nothing to free for the spare bytes.
    gave_up: Mutex<Option<Instant>>,
    /// One at a time removes things.
    sweeping: tokio::sync::Mutex<()>,
    asks: mpsc::Sender<Ask>,
}

/// The keeper's loop.
pub struct Keeping {
    keeper: Arc<Keeper>,
    asks: mpsc::Receiver<Ask>,
}

impl Keeper {
    /// A keeper of the store in `dir`. Brings the records in line with what lies there: what is gone is struck out, what
    /// nothing refers to is removed. Call it before anybody writes.
    ///
    /// # Errors
    /// Records or files cannot be read.
    pub async fn open(
        config: &KeeperConfig,
        dir: PathBuf,
        store: Arc<dyn Store>,
        blobs: Arc<dyn BlobStore>,
        flats: FlatFiles,
    ) -> Result<(Arc<Self>, Keeping), KeeperError> {
        let (asks, receiver) = mpsc::channel(WAITING);
        let bounds = plan::Bounds {
            cap: config.limit.of(&dir)?,
            spare: SPARE.min(disk_size(&dir)? / 20),
        };
        let keeper = Arc::new(Self {
            store,
            blobs,
            flats,
            dir,
            bounds,
            ages: config.ages.clone(),
            needs: Arc::default(),
            taken: AtomicU64::new(0),
            noted: Mutex::default(),
            gone: Mutex::default(),
            fresh: Mutex::default(),
            gave_up: Mutex::default(),
            sweeping: tokio::sync::Mutex::default(),
            asks,
        });
        keeper.reconcile().await?;
        tracing::info!(
            taken = keeper.taken(),
            limit = bounds.cap,
            "the store is open"
        );
        let keeping = Keeping {
            keeper: keeper.clone(),
            asks: receiver,
        };
        Ok((keeper, keeping))
    }

    /// The blobs, for everybody.
    pub fn blobs(self: &Arc<Self>) -> Arc<dyn BlobStore> {
        Arc::new(blobs::KeptBlobs(self.clone()))
    }

    /// The flat files, for everybody.
    pub fn flats(self: &Arc<Self>) -> FlatFiles {
        self.flats.within(self.clone())
    }

    /// What running builds hold.
    pub fn needs(&self) -> &Arc<Needs> {
        &self.needs
    }

    /// Where the store lies.
    pub fn dir(&self) -> &std::path::Path {
        &self.dir
    }

    /// Bytes that the store takes.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Bytes that it may take.
    pub fn limit(&self) -> u64 {
        self.bounds.cap
    }

    /// Takes `bytes` if they fit without anything having to go.
    fn claim_at_once(&self, bytes: u64) -> bool {
        let taken = self.taken.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if self.bounds.over_cap(taken) > 0 {
            return false;
        }
        let gave_up = *lock(&self.gave_up);
        gave_up.is_some_and(|at| at.elapsed() < GIVE_UP)
            || free_space(&self.dir)
                .is_ok_and(|free| free >= self.bounds.spare.saturating_add(bytes))
    }

    /// Claims room, waiting until there is some.
    async fn claim_bytes(&self, bytes: u64) -> Result<(), Full> {
        if self.claim_at_once(bytes) {
            return Ok(());
        }
        let (ask, answer) = oneshot::channel();
        let outcome = match self.asks.send(ask).await {
            Ok(()) => answer.await.unwrap_or(Ok(())),
            // The farm is ending: what it still writes is little.
            Err(_) => Ok(()),
        };
        outcome.inspect_err(|_| self.give_back_bytes(bytes))
    }

    fn give_back_bytes(&self, bytes: u64) {
        let less = |taken: u64| Some(taken.saturating_sub(bytes));
        let _ = self
            .taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    fn note_use(&self, item: Item) {
        lock(&self.noted)
            .entry(item)
            .or_insert(Noted { stored: None });
    }

    fn note_stored(&self, item: Item, bytes: u64) {
        lock(&self.fresh).insert(item.clone(), Instant::now());
        let stored = Some(bytes);
        lock(&self.noted).insert(item, Noted { stored });
    }

    fn full(&self) -> Full {
        Full {
            dir: self.dir.display().to_string(),
            cap: self.bounds.cap,
        }
    }
}

/// Flat files are written by threads that may wait.
impl Room for Keeper {
    fn claim(&self, bytes: u64) -> io::Result<()> {
        if self.claim_at_once(bytes) {
            return Ok(());
        }
        let (ask, answer) = oneshot::channel();
        let outcome = match self.asks.blocking_send(ask) {
            Ok(()) => answer.blocking_recv().unwrap_or(Ok(())),
            Err(_) => Ok(()),
        };
        outcome.map_err(|full| {
            self.give_back_bytes(bytes);
            io::Error::new(io::ErrorKind::StorageFull, full)
        })
    }

    fn give_back(&self, bytes: u64) {
        self.give_back_bytes(bytes);
    }

    fn kept(&self, flat: FlatId) {
        match self.flats.usage(flat) {
            Ok(Some(usage)) => self.note_stored(Item::flat(flat), usage.on_disk),
            Ok(None) => {}
            Err(error) => tracing::warn!(%flat, %error, "a flat file could not be measured"),
        }
    }

    fn removed(&self, flat: FlatId, bytes: u64) {
        let item = Item::flat(flat);
        lock(&self.fresh).remove(&item);
        lock(&self.noted).remove(&item);
        lock(&self.gone).push(item);
        self.give_back_bytes(bytes);
    }
}

impl Keeping {
    /// Keeps the store until `cancel`.
    pub async fn run(mut self, cancel: CancellationToken) {
        let keeper = self.keeper.clone();
        let mut tick = tokio::time::interval(TICK);
        let mut put_in_order: Option<Instant> = None;
        loop {
            let ask = tokio::select! {
                ask = self.asks.recv() => ask,
                _ = tick.tick() => None,
                () = cancel.cancelled() => break,
            };
            if let Some(ask) = ask {
                // Whoever asked may be gone; the room is there for others then.
                let _ = ask.send(keeper.make_room().await);
                continue;
            }
            if let Err(error) = keeper.look().await {
                tracing::error!(error = %crate::causes::with_causes(&error), "the store could not be looked after");
            }
            if put_in_order.is_none_or(|at| at.elapsed() > HOUSEKEEPING) {
                put_in_order = Some(Instant::now());
                if let Err(error) = keeper.put_records_in_order().await {
                    tracing::error!(error = %crate::causes::with_causes(&error), "old records could not be removed");
                }
            }
        }
        if let Err(error) = keeper.flush().await {
            tracing::error!(error = %crate::causes::with_causes(&error), "the last uses could not be written down");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics while holding it")
}

/// The one place where the keeper looks at the clock for what it stores.
fn now() -> UnixMillis {
    UnixMillis::from(SystemTime::now())
}
