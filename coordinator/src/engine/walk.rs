//! The walk against the cache: each step whose inputs are known gets its key, and the keys are looked up.
//!
//! A step's key needs the results before it, so a chain would ask the store once per step. Instead the keys that the steps
//! had last time are looked up ahead, all at once ([`super::foretold`]). Each key is computed all the same, and an answer
//! counts only for the key that the step really has; keys that nobody foretold are looked up together, level by level. So a
//! cached build asks the store for results once and for their layers once, whatever its shape.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use buildyard_model::{Chain, LayerId, StepKey};
use buildyard_store::StepResult;

use super::evaluate::Evaluation;
use super::{Engine, internal};
use crate::backend::BuildError;
use crate::farm::chains_of;
use crate::keeper::Hold;

impl Evaluation<'_> {
    /// Looks every step whose inputs are known up in the cache, inputs first.
    pub(super) async fn walk(&mut self) -> Result<(), BuildError> {
        let mut needed = self.needed();
        needed.retain(|&n| !self.graph.step(n).is_source() && !self.is_in_job(n));
        let mut answers = Answers::new(self.engine);
        answers.ask(self.foretold(&needed)).await?;
        let users = self.users(&needed);
        let mut ready: BTreeSet<usize> = needed
            .into_iter()
            .filter(|&number| self.has_inputs(number))
            .collect();
        let mut hits = Vec::new();
        while !ready.is_empty() {
            let mut asked = Vec::new();
            while let Some(number) = ready.pop_first() {
                let Some(key) = self.key(number).await? else {
                    continue;
                };
                match answers.known.get(&key) {
                    Some(Some(chains)) => {
                        self.hit(number, chains.clone());
                        hits.push(number);
                        let users = users.get(&number).into_iter().flatten();
                        ready.extend(users.filter(|&&user| self.has_inputs(user)));
                    }
                    Some(None) => {}
                    None => asked.push((number, key)),
                }
            }
            answers.ask(asked.iter().map(|(_, key)| *key)).await?;
            ready.extend(asked.into_iter().map(|(number, _)| number));
        }
        let chains = hits.iter().flat_map(|number| &self.known[number]);
        self.state.holds(chains);
        Ok(())
    }

    /// The keys that these steps had last time.
    fn foretold(&self, needed: &[usize]) -> Vec<StepKey> {
        let digests = needed.iter().map(|&number| self.graph.step(number).digest);
        self.engine.foretold.of(digests)
    }

    /// Which of the needed steps take which step's result.
    fn users(&self, needed: &[usize]) -> HashMap<usize, Vec<usize>> {
        let mut users: HashMap<usize, Vec<usize>> = HashMap::new();
        for &number in needed {
            for input in &self.graph.step(number).inputs {
                users.entry(input.step).or_default().push(number);
            }
        }
        users
    }

    fn has_inputs(&self, number: usize) -> bool {
        let mut inputs = self.graph.step(number).inputs.iter();
        inputs.all(|input| self.known.contains_key(&input.step))
    }

    /// The key to look a step up by; `None` where there is nothing to look up.
    async fn key(&self, number: usize) -> Result<Option<StepKey>, BuildError> {
        let step = self.graph.step(number);
        let Some(inputs) = self.inputs(number) else {
            return Ok(None);
        };
        let (trees, tocs) = (&self.engine.trees, self.engine.tocs.as_ref());
        match buildyard_solver::key(step, &inputs, trees, tocs).await {
            Ok(Some(key)) if !step.ignore_cache => {
                self.engine.foretold.note(step.digest, key);
                Ok(Some(key))
            }
            Ok(_) => Ok(None),
            Err(error) => Err(self.key_error(number, &inputs, error).await),
        }
    }

    fn hit(&mut self, number: usize, chains: Vec<Chain>) {
        let digest = self.graph.step(number).digest;
        self.build.progress.cached(digest.0, SystemTime::now());
        self.state.remember(digest, chains.clone());
        self.known.insert(number, chains);
    }
}

/// What the store has for keys, with layers that can be had. They are held as long as this lives: who uses a result holds
/// its layers before that.
struct Answers<'a> {
    engine: &'a Engine,
    known: HashMap<StepKey, Option<Vec<Chain>>>,
    hold: Hold,
    /// Layers that were looked for and are there.
    layers: HashSet<LayerId>,
}

impl<'a> Answers<'a> {
    fn new(engine: &'a Engine) -> Self {
        Self {
            engine,
            known: HashMap::new(),
            hold: engine.keeper.needs().hold(),
            layers: HashSet::new(),
        }
    }

    /// Asks for all these keys together. A result whose layers are gone is forgotten, and no answer.
    async fn ask(&mut self, keys: impl IntoIterator<Item = StepKey>) -> Result<(), BuildError> {
        let keys: Vec<StepKey> = keys.into_iter().collect();
        if keys.is_empty() {
            return Ok(());
        }
        let (store, scope) = (&self.engine.store, &self.engine.scope);
        let found = store.lookup(&keys, scope, super::now()).await;
        let found = found.map_err(internal)?;
        let gone = self.gone(found.iter().flatten()).await?;
        for (key, result) in keys.into_iter().zip(found) {
            let chains = result.map(|result| chains_of(&result));
            let lost = chains.iter().flatten().flat_map(Chain::layers);
            let is_lost = !gone.is_empty() && lost.into_iter().any(|layer| gone.contains(layer));
            if is_lost {
                store.forget(key, scope).await.map_err(internal)?;
            }
            self.known.insert(key, chains.filter(|_| !is_lost));
        }
        Ok(())
    }

    /// The layers of these results that cannot be had, or are being removed.
    async fn gone(
        &mut self,
        results: impl Iterator<Item = &Arc<StepResult>>,
    ) -> Result<HashSet<LayerId>, BuildError> {
        let mut layers: HashSet<LayerId> = HashSet::new();
        for chain in results.flat_map(|result| result.outputs.iter().flatten()) {
            layers.extend(chain.layers());
        }
        layers.retain(|layer| !self.layers.contains(layer));
        let mut going = HashSet::new();
        if !self.hold.layers(layers.iter().copied()) {
            going = layers.iter().copied().collect();
            going.retain(|&layer| !self.hold.layers([layer]));
        }
        layers.retain(|layer| !going.contains(layer));
        let layers: Vec<LayerId> = layers.into_iter().collect();
        let mut gone = self.engine.layers.gone(&layers).await.map_err(internal)?;
        self.layers
            .extend(layers.into_iter().filter(|layer| !gone.contains(layer)));
        gone.extend(going);
        Ok(gone)
    }
}

#[cfg(test)]
mod tests;
