//! The doing side of the farm: what a worker is made of.
//!
//! `snapshots` makes results ready to mount, `runner` runs one container, `exec` turns an LLB exec operation into such
//! a run, `network` and `emulation` say what this machine can offer to it.

pub mod agent;
pub mod emulation;
pub mod exec;
pub mod network;
pub mod runner;
pub mod snapshots;
#[cfg(test)]
mod testing;

/// Takes a worker's data directory for this process.
///
/// # Errors
/// Another process has it, or it cannot be locked.
pub fn lock(data: &std::path::Path) -> Result<buildyard_cas::DirGuard, buildyard_cas::LockError> {
    buildyard_cas::lock_data_dir(data, "worker")
}
