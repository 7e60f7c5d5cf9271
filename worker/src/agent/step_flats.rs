//! The flat files that one step makes: nothing is written on once the step is stopped, and what does not become part of a
//! recorded layer is gone again at once.

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use buildyard_layer::{FlatFiles, Room};
use buildyard_model::FlatId;
use tokio_util::sync::CancellationToken;

/// This machine's flat files, as one step sees them.
pub(super) struct StepFlats {
    flats: FlatFiles,
    watch: Arc<Watch>,
}

/// Passes on what writers ask, and notes what they make.
#[derive(Debug)]
struct Watch {
    room: Option<Arc<dyn Room>>,
    made: Mutex<Vec<FlatId>>,
    stop: CancellationToken,
}

impl StepFlats {
    /// The flat files for a step that `stop` stops.
    pub(super) fn new(flats: &FlatFiles, stop: &CancellationToken) -> Self {
        let watch = Arc::new(Watch {
            room: flats.room(),
            made: Mutex::default(),
            stop: stop.clone(),
        });
        Self {
            flats: flats.within(watch.clone()),
            watch,
        }
    }

    /// To read and to write them.
    pub(super) fn files(&self) -> &FlatFiles {
        &self.flats
    }

    /// Waits until what the step made is on the disk: before that, no layer that names it may be recorded.
    ///
    /// # Errors
    /// The disk's.
    pub(super) async fn sync(&self) -> io::Result<()> {
        let (flats, made) = (self.flats.clone(), self.watch.made().clone());
        if made.is_empty() {
            return Ok(());
        }
        let synced = tokio::task::spawn_blocking(move || {
            made.into_iter().try_for_each(|flat| flats.sync(flat))
        });
        synced.await.expect("syncing does not panic")
    }

    /// The step is over, and only what it made of `recorded` is of use to anybody: the rest is removed.
    pub(super) async fn keep_only(self, recorded: HashSet<FlatId>) {
        let mut useless = std::mem::take(&mut *self.watch.made());
        useless.retain(|flat| !recorded.contains(flat));
        if useless.is_empty() {
            return;
        }
        let removed = tokio::task::spawn_blocking(move || {
            let mut flats = useless.into_iter();
            flats.try_for_each(|flat| self.flats.remove(flat))
        });
        if let Err(error) = removed.await.expect("removing does not panic") {
            tracing::warn!(%error, "flat files of a step that came to nothing stay until room is made");
        }
    }
}

impl Watch {
    fn made(&self) -> MutexGuard<'_, Vec<FlatId>> {
        self.made.lock().expect("nobody panics while holding it")
    }
}

impl Room for Watch {
    fn claim(&self, bytes: u64) -> io::Result<()> {
        if self.stop.is_cancelled() {
            return Err(io::Error::other("the step was stopped"));
        }
        self.room.as_ref().map_or(Ok(()), |room| room.claim(bytes))
    }

    fn give_back(&self, bytes: u64) {
        if let Some(room) = &self.room {
            room.give_back(bytes);
        }
    }

    fn kept(&self, flat: FlatId) {
        self.made().push(flat);
        if let Some(room) = &self.room {
            room.kept(flat);
        }
    }

    fn removed(&self, flat: FlatId, bytes: u64) {
        if let Some(room) = &self.room {
            room.removed(flat, bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use buildyard_layer::random_flat_id;

    use super::*;

    fn write(flats: &FlatFiles) -> io::Result<FlatId> {
        let id = random_flat_id();
        let writer = flats.writer()?;
        writer.append_file(&mut &b"some bytes"[..])?;
        writer.commit(id)?;
        Ok(id)
    }

    #[tokio::test]
    async fn what_is_not_recorded_goes_and_what_was_there_before_stays() {
        let dir = tempfile::tempdir().unwrap();
        let flats = FlatFiles::new(dir.path()).unwrap();
        let before = write(&flats).unwrap();
        let step = StepFlats::new(&flats, &CancellationToken::new());
        let [kept, useless] = [(), ()].map(|()| write(step.files()).unwrap());
        step.keep_only([kept].into()).await;
        let is_there = |id| flats.has(id).unwrap();
        assert!(is_there(before) && is_there(kept) && !is_there(useless));
    }

    #[tokio::test]
    async fn a_stopped_step_writes_no_more_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let flats = FlatFiles::new(dir.path()).unwrap();
        let stop = CancellationToken::new();
        let step = StepFlats::new(&flats, &stop);
        write(step.files()).unwrap();
        let writer = step.files().writer().unwrap();
        writer.append_file(&mut &b"some bytes"[..]).unwrap();
        stop.cancel();
        writer.append_file(&mut &b"more bytes"[..]).unwrap_err();
        drop(writer);
        step.keep_only(HashSet::new()).await;
        assert_eq!(flats.list().unwrap(), []);
        assert_eq!(flats.unfinished().unwrap(), 0);
    }
}
