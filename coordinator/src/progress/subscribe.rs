//! Watching a build.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bollard_buildkit_proto::moby::buildkit::v1::StatusResponse;
use futures::Stream;

use super::Progress;
use super::state::Seen;

/// Changes within this time go out together.
const BATCH: Duration = Duration::from_millis(60);

impl Progress {
    /// Everything so far, then everything new, until the build is over. What the subscriber doesn't take in time is
    /// not queued: it gets the newest state when it asks again.
    pub fn subscribe(self: &Arc<Self>) -> impl Stream<Item = StatusResponse> + Send + use<> {
        let progress = self.clone();
        let changed = progress.changed.subscribe();
        let start = (progress, changed, Seen::default(), VecDeque::new());
        futures::stream::unfold(
            start,
            |(progress, mut changed, mut seen, mut ready)| async move {
                loop {
                    if let Some(message) = ready.pop_front() {
                        return Some((message, (progress, changed, seen, ready)));
                    }
                    changed.mark_unchanged();
                    let finished = {
                        let mut state = progress.lock();
                        ready.extend(state.since(&mut seen));
                        state.finished()
                    };
                    if ready.is_empty() {
                        if finished {
                            return None;
                        }
                        // The sender lives in `progress`, which is held here.
                        let _ = changed.changed().await;
                        progress
                            .over
                            .run_until_cancelled(tokio::time::sleep(BATCH))
                            .await;
                    }
                }
            },
        )
    }
}
