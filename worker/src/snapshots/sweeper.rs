//! Removing what steps leave beside the steps: on a disk that others use too, each directory takes its time to go.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};

/// Directories that may wait to be removed. Whoever brings one more removes it himself.
const WAITING: usize = 64;

enum Order {
    Remove(PathBuf),
    /// Says when all that was brought before is gone.
    Settle(SyncSender<()>),
}

/// A thread that removes directories.
#[derive(Debug)]
pub(super) struct Sweeper {
    orders: Option<SyncSender<Order>>,
    thread: Option<JoinHandle<()>>,
}

impl Sweeper {
    pub(super) fn start() -> io::Result<Self> {
        let (orders, received) = sync_channel(WAITING);
        let thread = thread::Builder::new()
            .name("sweeper".to_owned())
            .spawn(move || {
                for order in received {
                    match order {
                        Order::Remove(dir) => remove(&dir),
                        Order::Settle(done) => drop(done.send(())),
                    }
                }
            })?;
        Ok(Self {
            orders: Some(orders),
            thread: Some(thread),
        })
    }

    /// Removes a directory soon. What cannot be removed is removed when the worker starts the next time.
    pub(super) fn sweep(&self, dir: PathBuf) {
        let Some(orders) = &self.orders else {
            return;
        };
        let sent = orders.try_send(Order::Remove(dir));
        if let Err(TrySendError::Full(order) | TrySendError::Disconnected(order)) = sent
            && let Order::Remove(dir) = order
        {
            remove(&dir);
        }
    }

    /// Waits until all that was brought so far is gone.
    pub(super) fn settle(&self) {
        let (done, answer) = sync_channel(1);
        let sent = self.orders.as_ref().map(|to| to.send(Order::Settle(done)));
        if sent.is_some_and(|sent| sent.is_ok()) {
            let _ = answer.recv();
        }
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        // Without a sender the thread ends once nothing waits any more.
        self.orders.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn remove(dir: &Path) {
    if let Err(error) = fs::remove_dir_all(dir) {
        tracing::warn!(path = %dir.display(), %error, "an upper directory was left behind");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_was_brought_is_gone_when_it_is_asked_to_be_and_when_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let sweeper = Sweeper::start().unwrap();
        for number in 0..3 * WAITING {
            let left = dir.path().join(number.to_string());
            fs::create_dir_all(left.join("deep")).unwrap();
            sweeper.sweep(left);
        }
        sweeper.settle();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        fs::create_dir(dir.path().join("last")).unwrap();
        sweeper.sweep(dir.path().join("last"));
        drop(sweeper);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
