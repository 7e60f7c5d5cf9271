//! The builds that are going on, and those that have just ended.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use buildyard_model::BuildId;
use tokio::sync::Notify;
use tonic::Code;

use super::running::Running;
use crate::backend::{Build, BuildError};

/// A client asks for the status beside its solve; it may come late.
const KEEP_ENDED: Duration = Duration::from_secs(30);
const MOST_ENDED: usize = 64;
/// Builds at once. More is a mistake or an attack; a farm queues jobs, not clients.
const MOST_RUNNING: usize = 2_000;

/// Builds by id.
#[derive(Default)]
pub(crate) struct Builds {
    state: Mutex<State>,
    arrived: Notify,
}

#[derive(Default)]
struct State {
    running: HashMap<BuildId, Arc<Running>>,
    ended: Vec<(Instant, Arc<Running>)>,
    closed: bool,
}

impl Builds {
    /// Takes a build in.
    pub(crate) fn insert(&self, running: Arc<Running>) -> Result<(), BuildError> {
        let id = running.build.id.clone();
        {
            let mut state = self.state();
            state.forget_old();
            if state.closed {
                return Err(shutting_down());
            }
            if state.running.len() >= MOST_RUNNING {
                let message =
                    format!("{MOST_RUNNING} builds are going on already; try again later");
                return Err(BuildError::new(Code::ResourceExhausted, message));
            }
            if state.find(&id).is_some() {
                return Err(BuildError::new(
                    Code::AlreadyExists,
                    format!("a build {id} exists already"),
                ));
            }
            state.running.insert(id, running);
        }
        self.arrived.notify_waiters();
        Ok(())
    }

    /// The build has ended; late subscribers still find it for a while.
    pub(crate) fn end(&self, id: &BuildId) {
        let mut state = self.state();
        if let Some(running) = state.running.remove(id) {
            running.clear();
            state.ended.push((Instant::now(), running));
            state.forget_old();
        }
    }

    /// The build of this id, waiting up to `timeout` for it: clients make their calls at once, in any order.
    pub(crate) async fn get(
        &self,
        id: &str,
        timeout: Duration,
    ) -> Result<Arc<Running>, BuildError> {
        let id = BuildId::new(id);
        let found = async {
            loop {
                let mut arrived = std::pin::pin!(self.arrived.notified());
                arrived.as_mut().enable();
                {
                    let state = self.state();
                    match state.find(&id) {
                        Some(running) => return Ok(running),
                        None if state.closed => return Err(shutting_down()),
                        None => {}
                    }
                }
                arrived.await;
            }
        };
        let found = tokio::time::timeout(timeout, found).await;
        found.unwrap_or_else(|_| Err(BuildError::not_found(format!("no such job {id}"))))
    }

    /// Those that are going on.
    pub(crate) fn running(&self) -> Vec<Arc<Build>> {
        self.state()
            .running
            .values()
            .map(|running| running.build.clone())
            .collect()
    }

    /// Takes nothing in any more; who waits for a build that is yet to come is told so.
    pub(crate) fn close(&self) {
        self.state().closed = true;
        self.arrived.notify_waiters();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn shutting_down() -> BuildError {
    BuildError::new(
        Code::Unavailable,
        "this builder is shutting down and takes no new builds",
    )
}

impl State {
    fn find(&self, id: &BuildId) -> Option<Arc<Running>> {
        let ended = || {
            self.ended
                .iter()
                .map(|(_, running)| running)
                .find(|running| running.build.id == *id)
        };
        self.running.get(id).or_else(ended).cloned()
    }

    fn forget_old(&mut self) {
        self.ended.retain(|(at, _)| at.elapsed() < KEEP_ENDED);
        let excess = self.ended.len().saturating_sub(MOST_ENDED);
        self.ended.drain(..excess);
    }
}
