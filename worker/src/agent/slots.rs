//! The slots of a machine, given to steps in the order in which they asked. Who waits for long is told its place.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

/// The patience of steps.
const PATIENCE: Duration = Duration::from_secs(3);

/// How many steps run at once, and who waits.
pub(super) struct Slots {
    worker: String,
    /// How long a step waits before it is told its place, and from then on between two looks whether it has changed.
    patience: Duration,
    free: Semaphore,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    next: u64,
    waiting: BTreeSet<u64>,
}

/// A step that waits, until this is dropped.
struct Waiting<'a> {
    slots: &'a Slots,
    number: u64,
}

impl Slots {
    /// So many, of the worker of this name.
    pub(super) fn new(worker: &str, slots: usize) -> Self {
        Self {
            worker: worker.to_owned(),
            patience: PATIENCE,
            free: Semaphore::new(slots),
            queue: Mutex::default(),
        }
    }

    /// A slot, given back when it is dropped. `tell` hears how many steps are before this one, in a line for
    /// its log, each time that this has changed while it waits for long.
    pub(super) async fn take<F: Future<Output = ()>>(
        &self,
        tell: impl Fn(String) -> F,
    ) -> SemaphorePermit<'_> {
        if let Ok(permit) = self.free.try_acquire() {
            return permit;
        }
        let waiting = self.wait();
        let mut turn = std::pin::pin!(self.free.acquire());
        let mut told = None;
        loop {
            tokio::select! {
                permit = &mut turn => return permit.expect("the slots are never closed"),
                () = tokio::time::sleep(self.patience) => {}
            }
            let before = waiting.before();
            if told != Some(before) {
                told = Some(before);
                // Its turn may come meanwhile; it is taken then.
                tell(place(&self.worker, before)).await;
            }
        }
    }

    fn wait(&self) -> Waiting<'_> {
        let mut queue = self.lock();
        let number = queue.next;
        queue.next += 1;
        queue.waiting.insert(number);
        Waiting {
            slots: self,
            number,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("nobody panics while holding it")
    }
}

impl Waiting<'_> {
    fn before(&self) -> usize {
        self.slots.lock().waiting.range(..self.number).count()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.slots.lock().waiting.remove(&self.number);
    }
}

/// What a step's log says of its place.
fn place(worker: &str, before: usize) -> String {
    match before {
        0 => format!("waiting for a slot on worker {worker}: it is the next one\n"),
        1 => format!("waiting for a slot on worker {worker}: 1 step is before it\n"),
        more => format!("waiting for a slot on worker {worker}: {more} steps are before it\n"),
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::{mpsc, oneshot};

    use super::*;

    fn unreachable() -> std::future::Ready<()> {
        unreachable!("there is a free one")
    }

    /// Takes a slot and holds it until it is told to go; says what it is told meanwhile.
    async fn step(slots: &Slots, says: &mpsc::UnboundedSender<String>, go: oneshot::Receiver<()>) {
        let tell = |line| {
            says.send(line).unwrap();
            std::future::ready(())
        };
        let _slot = slots.take(tell).await;
        says.send("runs".to_owned()).unwrap();
        go.await.unwrap();
    }

    #[tokio::test]
    async fn who_waits_is_told_its_place_whenever_it_changes() {
        let mut slots = Slots::new("vm", 1);
        slots.patience = Duration::from_millis(1);
        let (say_first, mut first) = mpsc::unbounded_channel();
        let (say_second, mut second) = mpsc::unbounded_channel();
        let (end_first, first_ends) = oneshot::channel();
        let (end_second, second_ends) = oneshot::channel();
        let running = slots.take(|_| unreachable()).await;
        let watch = async {
            assert_eq!(first.recv().await, Some(place("vm", 0)));
            assert_eq!(second.recv().await, Some(place("vm", 1)));
            drop(running);
            assert_eq!(first.recv().await.as_deref(), Some("runs"));
            assert_eq!(second.recv().await, Some(place("vm", 0)));
            end_first.send(()).unwrap();
            assert_eq!(second.recv().await.as_deref(), Some("runs"));
            end_second.send(()).unwrap();
        };
        tokio::join!(
            step(&slots, &say_first, first_ends),
            step(&slots, &say_second, second_ends),
            watch
        );
    }

    #[tokio::test]
    async fn who_gave_up_is_not_counted() {
        let slots = Slots::new("vm", 1);
        let _running = slots.take(|_| unreachable()).await;
        let (first, second) = (slots.wait(), slots.wait());
        assert_eq!(second.before(), 1);
        drop(first);
        assert_eq!(second.before(), 0);
    }

    #[test]
    fn a_place_in_words() {
        assert!(place("big", 0).contains("worker big: it is the next one"));
        assert!(place("big", 1).contains("1 step is before it"));
        assert!(place("big", 12).contains("12 steps are before it"));
    }
}
