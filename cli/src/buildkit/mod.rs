//! The client side of BuildKit's protocol: a session in which *this* process is the server, a solve, its status.
//!
//! Wire formats: BuildKit's `api/services/control/control.proto` and `session/*`; fsutil's `types/wire.proto`.
//! Nothing is shown from here; see [`crate::progress`].

mod auth;
mod details;
pub mod export;
pub mod filesync;
mod health;
mod secrets;
mod session;
mod solve;
mod token;
mod tunnel;
mod wire;

pub use auth::Credentials;
pub use details::{ErrorDetails, SourceRange, SourceSnippet};
pub use secrets::SecretStore;
pub use session::{Services, Session, new_id};
pub use solve::{BuildError, Job, Observer, Solved, solve};
pub use tunnel::{Tunnel, tunnel};
pub use wire::{Packet, Stat};

/// The largest message that either side accepts, as BuildKit's.
pub const MAX_MESSAGE: usize = 16 << 20;
