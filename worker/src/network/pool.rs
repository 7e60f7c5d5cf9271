//! Networks that are ready before a step asks.
//!
//! Making one takes a few milliseconds, most of it the kernel's; a step that takes a ready one waits for nothing. Nothing is
//! made before the first step has asked, so a worker without work has none.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::NetworkError;
use super::maker::Maker;
use super::namespace::Link;

/// Ready networks, and the thread that makes them. Dropping it ends the thread.
#[derive(Debug)]
pub(super) struct Pool {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    maker: Arc<Maker>,
    /// How many are held ready.
    size: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The longest ready goes first.
    ready: VecDeque<Link>,
    /// A step has asked since the thread looked last.
    asked: bool,
    closed: bool,
}

impl Pool {
    /// A pool that holds `size` networks ready once one was asked for.
    pub(super) fn start(maker: Arc<Maker>, size: usize) -> Result<Self, NetworkError> {
        let shared = Arc::new(Shared {
            maker,
            size,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let filled = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("networks".to_owned())
            .spawn(move || filled.fill())
            .map_err(NetworkError::io("starting a thread that makes networks"))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// One that is ready, if any is; more are made.
    pub(super) fn take(&self) -> Option<Link> {
        let mut state = self.shared.lock();
        state.asked = true;
        self.shared.changed.notify_one();
        state.ready.pop_front()
    }
}

impl Shared {
    /// Makes networks as long as there are too few, then waits until the next is taken.
    fn fill(&self) {
        loop {
            {
                let state = self.lock();
                let idle = |state: &mut State| !state.closed && !state.asked;
                let mut state = self
                    .changed
                    .wait_while(state, idle)
                    .unwrap_or_else(PoisonError::into_inner);
                if state.closed {
                    return;
                }
                state.asked = false;
            }
            while self.wants_more() {
                match self.maker.make(None) {
                    Ok(link) => self.lock().ready.push_back(link),
                    // Who asks next makes one itself, and hears why it cannot be.
                    Err(error) => {
                        tracing::debug!(%error, "no network could be made ahead");
                        break;
                    }
                }
            }
        }
    }

    fn wants_more(&self) -> bool {
        let state = self.lock();
        !state.closed && state.ready.len() < self.size
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_one();
        if self
            .thread
            .take()
            .is_some_and(|thread| thread.join().is_err())
        {
            tracing::warn!("the thread that makes networks panicked");
        }
        self.shared.lock().ready.clear();
    }
}
