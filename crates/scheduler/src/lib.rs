//! Who runs what: a pure function of the farm's state, one event, and the time.
//!
//! ```text
//!   decide(&mut state, event, now) -> [decisions]
//! ```
//!
//! The rules, in this order:
//! 1. A job runs on a worker that has its platform natively. Under emulation it runs only where the farm knows no native
//!    worker for it; if it knows one that is away ([`Config::away_grace`]) or busy ([`Config::busy_grace`]), only after
//!    waiting that long for it. A job without a platform runs anywhere, or on the coordinator when nobody is connected.
//!    A job with steps on their machine's network runs only where that is allowed.
//! 2. A worker never has more jobs than its slots times [`Config::jobs_per_slot`]. A job heavier than any free place keeps one worker for itself until it
//!    fits, so lighter ones cannot push it aside for ever.
//! 3. Builds take turns: the one that was served last comes last.
//! 4. Among workers that would do: one that has not given the job back, then one that has the networks its steps expect,
//!    then one with a free slot, then the one that holds most of the bytes it reads ([`Job::inputs`]), then the one with
//!    most free slots, then the one with fewest jobs per slot.
//! 5. The jobs of a lost worker come first in the queue again; after [`Config::max_losses`] a job is refused.
//! 6. A job that nobody can run is refused at once; where those who could are merely away, after
//!    [`Config::away_grace`].
//!
//! Messages may be late, doubled or about things that are gone: they change nothing.
//!
//! The scheduler knows no steps, no claims and no cache (a job is what is left after the cache walk), sends nothing and
//! reads no clock. [`State::next_wake`] says when the next [`Event::Tick`] would change something.

mod config;
mod event;
mod messages;
mod place;
mod queue;
mod state;
#[cfg(test)]
mod tests;
mod worker;

pub use config::Config;
pub use event::{
    Decision, Event, HeldChange, Input, Job, Networks, Refusal, Waiting, WantedNetworks, WorkerInfo,
};
pub use state::State;

use std::time::Instant;

/// Takes in one event and says what follows from it. `now` never goes back.
///
/// Every decision has been noted in the state: carry it out, and report what came of it as events.
pub fn decide(state: &mut State, event: Event, now: Instant) -> Vec<Decision> {
    let mut decisions = Vec::new();
    state.take_in(event, now, &mut decisions);
    state.assign(now, &mut decisions);
    state.tell_waiting(now, &mut decisions);
    decisions
}
