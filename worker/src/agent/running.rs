//! The claimed steps that this worker is running. They belong to the farm, not to the job that started them: they end when
//! they are done or when the coordinator says that nobody wants them any more.

use std::collections::HashMap;
use std::sync::Mutex;

use buildyard_proto::v1::HeldClaim;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Claims under way and the way to stop each.
#[derive(Default)]
pub(crate) struct Running {
    claims: Mutex<HashMap<ClaimId, (HeldClaim, CancellationToken)>>,
    tasks: TaskTracker,
}

type ClaimId = (String, String, String, u64);

fn id(claim: &HeldClaim) -> ClaimId {
    (
        claim.key.clone(),
        claim.scope.clone(),
        claim.only_build.clone(),
        claim.generation,
    )
}

impl Running {
    /// Runs `work` as a task of its own, which goes on when the caller stops waiting for it.
    pub(crate) fn start<T, F>(
        self: &std::sync::Arc<Self>,
        claim: &HeldClaim,
        work: impl FnOnce(CancellationToken) -> F,
    ) -> tokio::task::JoinHandle<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let stop = CancellationToken::new();
        self.lock().insert(id(claim), (claim.clone(), stop.clone()));
        let work = work(stop);
        let guard = Ended {
            running: self.clone(),
            claim: id(claim),
        };
        self.tasks.spawn(async move {
            let _guard = guard;
            work.await
        })
    }

    /// Claims under way, as heartbeats show them.
    pub(crate) fn claims(&self) -> Vec<HeldClaim> {
        self.lock()
            .values()
            .map(|(claim, _)| claim.clone())
            .collect()
    }

    /// Stops one step; it reports its end as usual. Returns whether it is under way here.
    pub(crate) fn stop(&self, claim: &HeldClaim) -> bool {
        let running = self.lock();
        let found = running.get(&id(claim));
        if let Some((_, stop)) = found {
            stop.cancel();
        }
        found.is_some()
    }

    /// Runs something that leads to a step, as a task of its own too: an answer to a claim is never lost half way.
    pub(crate) fn prepare<T, F>(&self, work: F) -> tokio::task::JoinHandle<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        self.tasks.spawn(work)
    }

    /// Whether no step is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.lock().is_empty()
    }

    /// Stops all steps.
    pub(crate) fn stop_all(&self) {
        for (_, stop) in self.lock().values() {
            stop.cancel();
        }
    }

    /// Waits until no step is under way.
    pub(crate) async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        self.tasks.reopen();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ClaimId, (HeldClaim, CancellationToken)>> {
        self.claims
            .lock()
            .expect("nobody panics while holding the list")
    }
}

struct Ended {
    running: std::sync::Arc<Running>,
    claim: ClaimId,
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.running.lock().remove(&self.claim);
    }
}
