//! Evaluating graphs: sources first, then the walk against the cache, then jobs for what is missing; again, until nothing is.
//!
//! Level-triggered: after whatever happened (a worker was lost, a layer turned out to be gone) what is missing is found
//! out anew from what is known, and only that is planned.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use buildyard_llb::{Graph, Input, Limits, Target, pb};
use buildyard_model::{Chain, JobId, StepDigest, WorkerId};
use futures::stream::{FuturesUnordered, StreamExt};
use tonic::Code;

use super::locations::Locations;
use super::state::BuildState;
use super::{Engine, entitlements};
use crate::backend::{Build, BuildError};
use crate::progress::VertexInfo;

/// How often the rest of a build is planned anew after losses before it is given up.
const PLANS: usize = 50;

/// One evaluation under way.
pub(super) struct Evaluation<'a> {
    pub(super) engine: &'a Engine,
    pub(super) build: &'a Arc<Build>,
    pub(super) state: &'a Arc<BuildState>,
    pub(super) graph: Graph,
    pub(super) targets: Vec<Target>,
    pub(super) locations: Locations,
    /// Results by the step's number.
    pub(super) known: HashMap<usize, Vec<Chain>>,
    /// Steps that a job is evaluating.
    pub(super) in_jobs: HashMap<JobId, HashSet<usize>>,
    /// How often a worker could not do its part.
    pub(super) failures: usize,
    /// Which workers that was.
    pub(super) failed_on: Vec<WorkerId>,
    /// How often a layer was lost.
    pub(super) losses: usize,
    /// Where the jobs are.
    pub(super) workers: HashMap<JobId, WorkerId>,
    /// How often missing steps were planned.
    pub(super) plans: usize,
}

/// Whatever ends an evaluation, its jobs end with it.
impl Drop for Evaluation<'_> {
    fn drop(&mut self) {
        self.cancel_jobs("the build has ended");
    }
}

impl Engine {
    /// Evaluates the definitions together and returns what each yields.
    ///
    /// # Errors
    /// The first failure, with the step and its place in the source. Nothing of the build runs on after it, except what
    /// other builds wait for.
    pub(super) async fn evaluate_all(
        &self,
        build: &Arc<Build>,
        state: &Arc<BuildState>,
        definitions: &[&pb::Definition],
    ) -> Result<Vec<Chain>, BuildError> {
        let (graph, targets) = Graph::load(definitions, Limits::default())
            .map_err(|error| BuildError::invalid(format!("the definition was refused: {error}")))?;
        let locations = Locations::of(definitions);
        entitlements::check(&graph, &build.request.entitlements)
            .map_err(|error| locations.place(error))?;
        let mut evaluation = Evaluation {
            engine: self,
            build,
            state,
            locations,
            known: HashMap::new(),
            in_jobs: HashMap::new(),
            failures: 0,
            losses: 0,
            failed_on: Vec::new(),
            workers: HashMap::new(),
            plans: 0,
            graph,
            targets,
        };
        let outcome = evaluation.run().await;
        evaluation.cancel_jobs(if outcome.is_ok() {
            "the build is done"
        } else {
            "the build failed"
        });
        outcome.map_err(|error| evaluation.locations.place(error))
    }
}

impl Evaluation<'_> {
    async fn run(&mut self) -> Result<Vec<Chain>, BuildError> {
        self.declare();
        super::wildcards::check(&self.graph)?;
        self.recall();
        loop {
            self.sources().await?;
            self.walk().await?;
            let missing = self.missing();
            if missing.is_empty() {
                return self.results();
            }
            self.run_jobs(missing).await?;
        }
    }

    /// Counts a plan.
    ///
    /// # Errors
    /// There were too many.
    pub(super) fn plan(&mut self) -> Result<(), BuildError> {
        self.plans += 1;
        if self.plans <= PLANS {
            return Ok(());
        }
        Err(BuildError::new(
            Code::Unavailable,
            format!(
                "the build was planned {PLANS} times, and each time a worker or a layer was lost; see the workers' logs"
            ),
        ))
    }

    /// Shows all steps.
    fn declare(&self) {
        for step in self.graph.steps() {
            let info = VertexInfo {
                inputs: step
                    .inputs
                    .iter()
                    .map(|input| self.graph.step(input.step).digest.0)
                    .collect(),
                name: step.name.text.clone(),
                group: step.name.progress_group.clone(),
            };
            self.build.progress.declare(step.digest.0, info);
        }
    }

    /// What this build has found out before.
    fn recall(&mut self) {
        for (number, step) in self.graph.steps().iter().enumerate() {
            if let Some(chains) = self.state.result(&step.digest) {
                self.known.insert(number, chains);
            }
        }
    }

    /// Takes in all sources that are needed and not known, side by side.
    pub(super) async fn sources(&mut self) -> Result<(), BuildError> {
        let sources: Vec<usize> = self
            .needed()
            .into_iter()
            .filter(|&n| self.graph.step(n).is_source())
            .collect();
        let (engine, build, state, graph) = (self.engine, self.build, self.state, &self.graph);
        let mut running: FuturesUnordered<_> = sources
            .into_iter()
            .map(|number| async move {
                let step = graph.step(number);
                engine
                    .source(build, state, step)
                    .await
                    .map(|chain| (number, step.digest, chain))
            })
            .collect();
        let mut found = Vec::new();
        while let Some(outcome) = running.next().await {
            found.push(outcome?);
        }
        drop(running);
        for (number, digest, chain) in found {
            self.learn(number, digest, vec![chain]);
        }
        Ok(())
    }

    /// The chains behind a step's inputs, if all are known.
    pub(super) fn inputs(&self, number: usize) -> Option<Vec<Chain>> {
        let inputs = &self.graph.step(number).inputs;
        inputs.iter().map(|input| self.chain(input)).collect()
    }

    fn chain(&self, input: &Input) -> Option<Chain> {
        self.known
            .get(&input.step)
            .map(|chains| chains.get(input.output).cloned().unwrap_or_default())
    }

    /// What must be known to know the targets, and is not.
    pub(super) fn needed(&self) -> Vec<usize> {
        self.graph
            .needed(&self.targets, |number| self.known.contains_key(&number))
    }

    pub(super) fn learn(&mut self, number: usize, digest: StepDigest, chains: Vec<Chain>) {
        self.state.holds(&chains);
        self.state.remember(digest, chains.clone());
        self.known.insert(number, chains);
    }

    pub(super) fn is_in_job(&self, number: usize) -> bool {
        self.in_jobs.values().any(|steps| steps.contains(&number))
    }

    /// Steps to be planned: needed, not known, in no job.
    pub(super) fn missing(&self) -> Vec<usize> {
        let mut missing = self.needed();
        missing.retain(|&number| !self.is_in_job(number));
        missing
    }

    fn results(&self) -> Result<Vec<Chain>, BuildError> {
        let chain = |target: &Target| match target {
            None => Ok(Chain::scratch()),
            Some(input) => self.chain(input).ok_or_else(|| {
                BuildError::new(
                    Code::Internal,
                    "a result is missing after its steps are done",
                )
            }),
        };
        self.targets.iter().map(chain).collect()
    }
}
