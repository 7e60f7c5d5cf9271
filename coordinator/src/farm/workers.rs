//! The workers that are connected, and those that were a moment ago.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use buildyard_model::{Platform, WorkerId};
use buildyard_proto::v1::{self as proto, to_worker};
use buildyard_store::WorkerRecord;
use tokio::sync::mpsc;
use tonic::Status;

/// How many orders wait for a worker that does not read them.
const QUEUED_ORDERS: usize = 4096;

/// What a worker offers.
#[derive(Debug, Clone)]
pub struct Offer {
    /// Its name.
    pub id: WorkerId,
    /// What it runs natively.
    pub native: Vec<Platform>,
    /// What it runs under an emulator, and which.
    pub emulated: Vec<(Platform, String)>,
    /// How many steps at once.
    pub slots: u32,
    /// Its flat files are the coordinator's own.
    pub shares_flat_files: bool,
    /// Its program's version.
    pub version: String,
    /// `private`, `none`, `host`.
    pub networks: Vec<String>,
}

impl Offer {
    pub(super) fn decode(register: &proto::Register) -> Result<Self, Status> {
        if register.name.is_empty() || register.name.len() > 200 || register.session.len() < 16 {
            return Err(Status::invalid_argument(
                "a worker needs a name (1 to 200 bytes) and a session",
            ));
        }
        let mut offer = Self {
            id: WorkerId::new(&register.name),
            native: Vec::new(),
            emulated: Vec::new(),
            slots: register.slots.max(1),
            shares_flat_files: register.shares_flat_files,
            version: register.version.clone(),
            networks: register.networks.clone(),
        };
        for offered in &register.platforms {
            let platform: Platform = offered
                .platform
                .parse()
                .map_err(|error| Status::invalid_argument(format!("{error}")))?;
            if offered.emulated {
                offer.emulated.push((platform, offered.how.clone()));
            } else {
                offer.native.push(platform);
            }
        }
        Ok(offer)
    }

    /// What runs steps of `platform` here, if it is an emulator.
    pub fn emulator(&self, platform: &Platform) -> Option<&str> {
        self.emulated
            .iter()
            .find(|(emulated, _)| emulated == platform)
            .map(|(_, how)| how.as_str())
    }
}

struct Entry {
    offer: Offer,
    /// None for one that was here before this process started and has not come back yet.
    session: Option<String>,
    /// When it was heard from last.
    heard: Instant,
    /// Grows with each connection of any worker: tells a stale end of connection from the present one's.
    line: u64,
    orders: Option<mpsc::Sender<Result<proto::ToWorker, Status>>>,
    /// It has answered the order that this coordinator stops.
    heard_shutdown: bool,
    /// The scheduler knows of the connection.
    joined: bool,
}

/// A connection as it was registered.
pub(super) struct Line {
    pub(super) number: u64,
    pub(super) orders: mpsc::Receiver<Result<proto::ToWorker, Status>>,
    /// The worker's process is the one that was connected before.
    pub(super) resumed: bool,
    /// Another process was connected, or still counted, under the name.
    pub(super) replaced: bool,
}

/// All workers of this process's life that are not lost.
#[derive(Default)]
pub(super) struct Workers(Mutex<Table>);

#[derive(Default)]
struct Table {
    lines: u64,
    entries: HashMap<WorkerId, Entry>,
    /// Why the coordinator stops, once it does: the last order, also for those who come back meanwhile.
    shutdown: Option<String>,
    /// Nobody is taken in any more.
    closed: bool,
}

impl Workers {
    /// A worker from before this process's start is waited for.
    pub(super) fn expect(&self, record: &WorkerRecord) {
        let entry = Entry {
            offer: Offer {
                id: record.id.clone(),
                native: record.native.clone(),
                emulated: Vec::new(),
                slots: record.slots,
                shares_flat_files: false,
                version: String::new(),
                networks: Vec::new(),
            },
            session: None,
            heard: Instant::now(),
            line: 0,
            orders: None,
            heard_shutdown: false,
            joined: false,
        };
        self.lock().entries.insert(record.id.clone(), entry);
    }

    /// A worker registered on a new connection, at `arrived`. Where another process is connected under its name: `None`
    /// while it is not known whether that one is still there.
    ///
    /// # Errors
    /// The other one was heard from since, or the farm takes nobody in any more.
    pub(super) fn connect(
        &self,
        offer: Offer,
        session: &str,
        arrived: Instant,
    ) -> Result<Option<Line>, Status> {
        let (orders, receiver) = mpsc::channel(QUEUED_ORDERS);
        let mut table = self.lock();
        if table.closed {
            return Err(Status::unavailable(super::steps::STOPPING));
        }
        table.lines += 1;
        let number = table.lines;
        let before = table.entries.get(&offer.id);
        let resumed = before.is_some_and(|before| before.session.as_deref() == Some(session));
        let other = before.filter(|before| !resumed && before.orders.is_some());
        if let Some(other) = other {
            return if other.heard > arrived {
                Err(Status::already_exists(format!(
                    "a worker named {} is connected already; give this one another --name",
                    offer.id
                )))
            } else {
                Ok(None)
            };
        }
        let replaced = before.is_some_and(|before| before.session.is_some()) && !resumed;
        let entry = Entry {
            offer,
            session: Some(session.to_owned()),
            heard: Instant::now(),
            line: number,
            orders: Some(orders),
            heard_shutdown: false,
            joined: false,
        };
        table.entries.insert(entry.offer.id.clone(), entry);
        Ok(Some(Line {
            number,
            orders: receiver,
            resumed,
            replaced,
        }))
    }

    /// The scheduler was told of a connection: from now on the worker counts.
    pub(super) fn joined(&self, worker: &WorkerId, line: u64) {
        if let Some(entry) = self.lock().entries.get_mut(worker)
            && entry.line == line
        {
            entry.joined = true;
        }
    }

    /// Something came over a connection.
    pub(super) fn heard(&self, worker: &WorkerId, line: u64) {
        if let Some(entry) = self.lock().entries.get_mut(worker)
            && entry.line == line
        {
            entry.heard = Instant::now();
        }
    }

    /// Ends a worker's connection from this side.
    pub(super) fn cut(&self, worker: &WorkerId) {
        if let Some(entry) = self.lock().entries.get_mut(worker) {
            entry.orders = None;
        }
    }

    /// Ends all connections from this side, behind what was ordered, and takes no new ones in.
    pub(super) fn close(&self) {
        let mut table = self.lock();
        table.closed = true;
        for entry in table.entries.values_mut() {
            entry.orders = None;
        }
    }

    /// Tells all workers that the coordinator stops, behind everything else that they were ordered.
    pub(super) fn order_shutdown(&self, reason: &str) {
        self.lock().shutdown = Some(reason.to_owned());
        for offer in self.connected() {
            self.repeat_shutdown(&offer.id);
        }
    }

    /// Tells one that has come back meanwhile; nothing, where the coordinator does not stop.
    pub(super) fn repeat_shutdown(&self, worker: &WorkerId) {
        let reason = {
            let mut table = self.lock();
            let Some(reason) = table.shutdown.clone() else {
                return;
            };
            if let Some(entry) = table.entries.get_mut(worker) {
                entry.heard_shutdown = false;
            }
            reason
        };
        let order = proto::Shutdown { reason };
        self.order(worker, to_worker::Order::Shutdown(order));
    }

    /// A worker has obeyed everything that it was ordered over this connection before the order that the coordinator stops.
    pub(super) fn heard_shutdown(&self, worker: &WorkerId, line: u64) {
        if let Some(entry) = self.lock().entries.get_mut(worker)
            && entry.line == line
        {
            entry.heard_shutdown = true;
        }
    }

    /// Connected workers that have not yet answered the order that the coordinator stops.
    pub(super) fn unheard(&self) -> Vec<WorkerId> {
        let table = self.lock();
        let unheard = table
            .entries
            .iter()
            .filter(|(_, entry)| entry.orders.is_some() && !entry.heard_shutdown);
        unheard.map(|(worker, _)| worker.clone()).collect()
    }

    /// Whether a worker has a live connection.
    pub(super) fn is_connected(&self, worker: &WorkerId) -> bool {
        let table = self.lock();
        let entry = table.entries.get(worker);
        entry.is_some_and(|entry| entry.orders.is_some())
    }

    /// A connection ended. Returns whether it was the worker's present one.
    pub(super) fn disconnect(&self, worker: &WorkerId, line: u64) -> bool {
        let mut table = self.lock();
        match table.entries.get_mut(worker) {
            Some(entry) if entry.line == line => {
                entry.orders = None;
                true
            }
            _ => false,
        }
    }

    /// Forgets a worker whose connection is still the one that ended. Returns whether it was forgotten.
    pub(super) fn forget(&self, worker: &WorkerId, line: u64) -> bool {
        let mut table = self.lock();
        let gone = table
            .entries
            .get(worker)
            .is_some_and(|e| e.line == line && e.orders.is_none());
        if gone {
            table.entries.remove(worker);
        }
        gone
    }

    /// The worker that this session belongs to.
    pub(super) fn by_session(&self, session: &str) -> Option<Offer> {
        self.lock()
            .entries
            .values()
            .find(|entry| entry.session.as_deref() == Some(session))
            .map(|entry| entry.offer.clone())
    }

    /// Sends an order. Returns whether it could be sent. Where not, the connection is ended: the worker comes back and shows
    /// what it has, which tells what it missed.
    pub(super) fn order(&self, worker: &WorkerId, order: to_worker::Order) -> bool {
        let mut table = self.lock();
        let Some(entry) = table.entries.get_mut(worker) else {
            return false;
        };
        let Some(orders) = &entry.orders else {
            return false;
        };
        let sent = orders.try_send(Ok(proto::ToWorker { order: Some(order) }));
        if let Err(error) = &sent {
            tracing::warn!(worker_id = %worker, %error, "an order could not be sent to a worker; its connection is ended");
            entry.orders = None;
        }
        sent.is_ok()
    }

    /// Workers with a live connection, which get jobs.
    pub(super) fn connected(&self) -> Vec<Offer> {
        let table = self.lock();
        table
            .entries
            .values()
            .filter(|entry| entry.orders.is_some() && entry.joined)
            .map(|entry| entry.offer.clone())
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().expect("nobody panics while holding it")
    }
}
