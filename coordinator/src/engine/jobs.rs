//! From missing steps to jobs, and what becomes of them.

use std::collections::HashSet;
use std::sync::Arc;

use buildyard_llb::cut::{Part, cut};
use buildyard_model::{Chain, JobId, LayerId, StepDigest};
use buildyard_proto::encode_result;
use buildyard_proto::v1::{self as proto, failure};
use futures::stream::{SelectAll, StreamExt};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Code;

use super::evaluate::Evaluation;
use super::host::BuildHost;
use super::{entitlements, internal, needs};
use crate::backend::BuildError;
use crate::farm::{JobEvent, JobRequest};

/// Jobs of one build that may fail, other than by the user's fault, before the build does.
const MOST_FAILURES: usize = 3;
/// Layers that may turn out to be lost in one build. Each is made again, so more than that are lost as soon as they are made.
const MOST_LOSSES: usize = 100;

type Events = SelectAll<futures::stream::BoxStream<'static, (JobId, JobEvent)>>;

impl Evaluation<'_> {
    /// Hands the missing steps to the farm, and returns when nothing of it is under way any more. Failures of workers are
    /// no errors here: what is still missing afterwards is planned anew by the caller.
    pub(super) async fn run_jobs(&mut self, missing: Vec<usize>) -> Result<(), BuildError> {
        let mut events = Events::new();
        self.submit(&missing, &mut events).await?;
        let cancel = self.build.cancel.clone();
        while !self.in_jobs.is_empty() {
            let next = tokio::select! {
                next = events.next() => next,
                () = cancel.cancelled() => return Err(BuildError::cancelled()),
            };
            let Some((job, event)) = next else { break };
            if self.handle(&job, event).await? {
                // Others go on; what the lost one leaves is planned at once.
                self.sources().await?;
                let missing = self.missing();
                self.submit(&missing, &mut events).await?;
            }
        }
        Ok(())
    }

    async fn submit(&mut self, missing: &[usize], events: &mut Events) -> Result<(), BuildError> {
        self.plan()?;
        for part in cut(&self.graph, missing) {
            let id = JobId::new(hex::encode(rand::random::<[u8; 8]>()));
            let request = self.request(&id, &part).await?;
            tracing::info!(
                build_id = %self.build.id, job = %id, platform = ?part.platform, steps = part.steps.len(),
                "a job is queued"
            );
            self.in_jobs
                .insert(id.clone(), part.steps.iter().copied().collect());
            let of_job = UnboundedReceiverStream::new(self.engine.farm.submit(request));
            events.push(of_job.map(move |event| (id.clone(), event)).boxed());
        }
        Ok(())
    }

    async fn request(&self, id: &JobId, part: &Part) -> Result<JobRequest, BuildError> {
        let inside: HashSet<usize> = part.steps.iter().copied().collect();
        let mut known: HashSet<usize> = HashSet::new();
        for &number in &part.steps {
            for input in &self.graph.step(number).inputs {
                if !inside.contains(&input.step) && self.known.contains_key(&input.step) {
                    known.insert(input.step);
                }
            }
        }
        let order = proto::StartJob {
            job: id.to_string(),
            build: self.build.id.to_string(),
            scope: self.engine.scope.to_string(),
            steps: part
                .steps
                .iter()
                .map(|&number| self.job_step(number))
                .collect(),
            known: known
                .into_iter()
                .map(|number| self.known_result(number))
                .collect(),
            allow_host_network: entitlements::host_network(&self.build.request.entitlements),
        };
        let layers = self.engine.store.layers(&needs::layers(&order)).await;
        let records: Vec<_> = layers.map_err(internal)?.into_iter().flatten().collect();
        Ok(JobRequest {
            id: id.clone(),
            build: self.build.id.clone(),
            scope: self.engine.scope.clone(),
            platform: part.platform.clone(),
            order,
            inputs: needs::inputs(&records),
            networks: needs::networks(&self.graph, &part.steps),
            avoid: self.failed_on.clone(),
            host: Arc::new(BuildHost {
                build: self.build.clone(),
                state: self.state.clone(),
                foretold: self.engine.foretold.clone(),
            }),
        })
    }

    fn job_step(&self, number: usize) -> proto::JobStep {
        let step = self.graph.step(number);
        proto::JobStep {
            digest: step.digest.to_string(),
            op: bytes::Bytes::copy_from_slice(&step.bytes),
            name: step.name.text.clone(),
            ignore_cache: step.ignore_cache,
            inputs: step
                .inputs
                .iter()
                .map(|input| proto::StepInput {
                    step: self.graph.step(input.step).digest.to_string(),
                    output: u32::try_from(input.output).unwrap_or(u32::MAX),
                })
                .collect(),
            outputs: u32::try_from(step.outputs).unwrap_or(u32::MAX),
            platform: step
                .platform
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
        }
    }

    fn known_result(&self, number: usize) -> proto::KnownResult {
        proto::KnownResult {
            step: self.graph.step(number).digest.to_string(),
            result: Some(encode_result(&self.known[&number])),
        }
    }

    /// Takes an event in. Returns whether something has to be planned anew at once.
    async fn handle(&mut self, job: &JobId, event: JobEvent) -> Result<bool, BuildError> {
        match event {
            JobEvent::Assigned { worker, emulated } => {
                tracing::info!(build_id = %self.build.id, job = %job, worker_id = %worker, emulated, "a job has a worker");
                self.workers.insert(job.clone(), worker);
                Ok(false)
            }
            JobEvent::Waiting { reason } => {
                self.say(job, &reason);
                Ok(false)
            }
            JobEvent::StepKnown { step, chains } => {
                self.step_known(job, step, chains);
                Ok(false)
            }
            JobEvent::Ended => {
                self.in_jobs.remove(job);
                Ok(false)
            }
            JobEvent::Failed(failure) => {
                let again = self.job_failed(job, failure).await?;
                self.in_jobs.remove(job);
                Ok(again)
            }
            JobEvent::Refused { reason } => Err(BuildError::new(Code::Unavailable, reason)),
            JobEvent::WorkerLost { worker, reason } => {
                self.say(job, &format!("worker {worker} is lost ({reason}); what it had not finished goes elsewhere"));
                self.in_jobs.remove(job);
                self.forget_lost_results().await?;
                Ok(true)
            }
            JobEvent::GivenBack { worker } => {
                self.say(
                    job,
                    &format!(
                        "worker {worker} is stopping; what it is not running already goes elsewhere"
                    ),
                );
                self.in_jobs.remove(job);
                Ok(true)
            }
        }
    }

    fn step_known(&mut self, job: &JobId, step: StepDigest, chains: Vec<Chain>) {
        let Some(number) = self.graph.find(&step) else {
            return;
        };
        self.learn(number, step, chains);
        let waits = |steps: &HashSet<usize>| {
            steps.iter().any(|&other| {
                self.graph
                    .step(other)
                    .inputs
                    .iter()
                    .any(|input| input.step == number)
            })
        };
        for (other, steps) in &self.in_jobs {
            if other != job && !steps.contains(&number) && waits(steps) {
                self.engine
                    .farm
                    .step_known(other, self.known_result(number));
            }
        }
    }

    async fn job_failed(
        &mut self,
        job: &JobId,
        failure: proto::Failure,
    ) -> Result<bool, BuildError> {
        let step = failure.step.parse::<StepDigest>().ok();
        let at_step = |error: BuildError| match step {
            Some(step) => error.at_step(step),
            None => error,
        };
        match failure.kind() {
            failure::Kind::Step => Err(at_step(BuildError::failed(failure.message))),
            failure::Kind::LostLayer => {
                self.losses += 1;
                if self.losses > MOST_LOSSES {
                    return Err(at_step(BuildError::new(Code::Internal, failure.message)));
                }
                if let Ok(layer) = failure.layer.parse() {
                    self.engine.layers.lost(layer).await.map_err(internal)?;
                }
                self.say(job, &format!("{}; it is made again", failure.message));
                self.forget_lost_results().await?;
                Ok(true)
            }
            failure::Kind::Cancelled => Ok(true),
            failure::Kind::Worker | failure::Kind::Unknown => {
                let what = format!("a worker could not do its part ({})", failure.message);
                let error = BuildError::new(Code::Internal, failure.message);
                self.try_again(job, &what, at_step(error))
            }
            failure::Kind::Registry => {
                let what = failure.message.clone();
                let error = BuildError::new(Code::Unavailable, failure.message);
                self.try_again(job, &what, at_step(error))
            }
        }
    }

    /// Has a failed job planned anew, preferably elsewhere, and says so; `error` once that was done often enough.
    fn try_again(
        &mut self,
        job: &JobId,
        what: &str,
        error: BuildError,
    ) -> Result<bool, BuildError> {
        self.failed_on.extend(self.workers.get(job).cloned());
        self.failures += 1;
        if self.failures >= MOST_FAILURES {
            return Err(error);
        }
        self.say(job, &format!("{what}; it is tried again"));
        Ok(true)
    }

    /// Results whose layers are gone are not known any more; a context among them is transferred again.
    async fn forget_lost_results(&mut self) -> Result<(), BuildError> {
        let chains = self.known.values().flatten();
        let layers: HashSet<LayerId> = chains.flat_map(Chain::layers).copied().collect();
        let layers: Vec<LayerId> = layers.into_iter().collect();
        let gone = self.engine.layers.gone(&layers).await.map_err(internal)?;
        let lost = |chains: &[Chain]| {
            let mut layers = chains.iter().flat_map(Chain::layers);
            layers.any(|layer| gone.contains(layer))
        };
        let (graph, state) = (&self.graph, self.state);
        self.known.retain(|&number, chains| {
            let lost = lost(chains);
            if lost {
                state.forget_result(&graph.step(number).digest);
            }
            !lost
        });
        Ok(())
    }

    /// Says something about a job in the build's log, at its first step that is not known.
    fn say(&self, job: &JobId, text: &str) {
        tracing::info!(build_id = %self.build.id, job = %job, text, "told the client");
        let steps = self.in_jobs.get(job);
        let first = steps.and_then(|steps| {
            steps
                .iter()
                .copied()
                .filter(|n| !self.known.contains_key(n))
                .min()
        });
        if let Some(number) = first {
            let line = format!("{text}\n");
            let step = self.graph.step(number).digest.0;
            self.build.progress.log(
                step,
                crate::progress::STDERR,
                line.as_bytes(),
                std::time::SystemTime::now(),
            );
        }
    }

    /// Tells the farm that the jobs still under way are not wanted any more.
    pub(super) fn cancel_jobs(&mut self, reason: &str) {
        for (job, _) in self.in_jobs.drain() {
            self.engine.farm.cancel(&job, reason);
        }
    }
}
