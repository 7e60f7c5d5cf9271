//! The client's side of a build, as the coordinator sees it.
//!
//! A BuildKit client opens one long stream, `Control.Session`, and serves gRPC on it: it is the *server* of that
//! inner connection. [`Sessions`] takes such streams in and keeps them by id; a [`Session`] asks the client for what
//! a build needs of it: files ([`Session::sync_dir`]), credentials and tokens ([`Session::fetch_token`]), secrets
//! ([`Session::secret`]), and a place for results ([`Session::send_stream`], [`Session::send_dir`]).
//!
//! Nothing here is stored: what a client hands out lives in the build that asked for it. The formats are BuildKit's
//! (`session/`, `session/filesync`, `session/auth`, `session/secrets`) and fsutil's (`types/wire.proto`).

mod auth;
mod error;
pub mod go_mode;
mod health;
mod metadata;
mod secrets;
mod send;
mod session;
mod sessions;
mod sync;
#[cfg(test)]
mod testing;
mod tunnel;
mod wire;

pub use auth::{Credentials, Token, TokenRequest};
pub use error::SessionError;
pub use send::{DirEntry, DirKind, DirSource};
pub use session::{Session, SessionInfo};
pub use sessions::{Attached, Sessions};
pub use sync::{Pack, PackError, SyncLimits, SyncProgress, SyncRequest, Synced};
