//! The worker as the coordinator knows it: attached over one connection, evaluating jobs, running the steps it claims.
//!
//! ```text
//!   attach ── orders ──► jobs ──► steps: key ─► claim ─► run (file step | exec) ─► complete
//!      ▲                             │
//!      └────────── events ◄──────────┘
//! ```
//!
//! A worker decides nothing: what to evaluate comes with a job, whether to run a step with a claim. A broken connection
//! stops no step; a worker that comes back shows its claims and goes on unless they were given away.

mod attach;
mod board;
mod cache;
mod config;
mod exec_step;
mod failure;
mod file_step;
mod job;
mod layers;
mod link;
mod machine;
mod register;
mod registry_auth;
mod running;
mod slots;
mod spec;
mod step;
mod step_flats;
mod upload;

pub use attach::run;
pub use config::{Offered, WorkerConfig};
