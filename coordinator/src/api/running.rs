//! A build as the API keeps it: with what its client has solved through the gateway.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bollard_buildkit_proto::moby::buildkit::v1::frontend;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::result::Result as RefResult;
use bollard_buildkit_proto::pb;
use tokio::sync::watch;

use crate::backend::{Build, BuildError, Ref, Refs, Solved};

/// References that one build may hold. Each is one solve (times platforms) of its client.
const MOST_REFS: usize = 10_000;

/// A build and its gateway.
pub(crate) struct Running {
    pub(crate) build: Arc<Build>,
    /// Graphs that came with the request, for `Inputs`.
    pub(crate) inputs: HashMap<String, pb::Definition>,
    refs: Mutex<HashMap<String, Ref>>,
    returned: watch::Sender<Option<Result<Solved, BuildError>>>,
}

impl Running {
    pub(crate) fn new(build: Arc<Build>, inputs: HashMap<String, pb::Definition>) -> Self {
        Self {
            build,
            inputs,
            refs: Mutex::default(),
            returned: watch::Sender::new(None),
        }
    }

    /// The result that the client ends its build with.
    pub(crate) async fn returned(&self) -> Result<Solved, BuildError> {
        let mut returned = self.returned.subscribe();
        let value = returned.wait_for(Option::is_some).await;
        value
            .ok()
            .and_then(|value| value.clone())
            .unwrap_or_else(|| Err(BuildError::cancelled()))
    }

    /// `LLBBridge.Return`. Only the first counts.
    pub(crate) fn set_returned(
        &self,
        outcome: Result<Solved, BuildError>,
    ) -> Result<(), BuildError> {
        let mut outcome = Some(outcome);
        let first = self.returned.send_if_modified(|slot| {
            let first = slot.is_none();
            if first {
                *slot = outcome.take();
            }
            first
        });
        if first {
            Ok(())
        } else {
            Err(BuildError::invalid(
                "the build has returned its result already",
            ))
        }
    }

    /// Forgets what was solved; the build is over.
    pub(crate) fn clear(&self) {
        self.refs().clear();
    }

    /// The reference of this id.
    pub(crate) fn find(&self, id: &str) -> Result<Ref, BuildError> {
        let found = self.refs().get(id).cloned();
        found.ok_or_else(|| BuildError::not_found(format!("no such ref: {id}")))
    }

    /// Names every reference of a solve, and puts the result as the client asked for it.
    pub(crate) fn publish(
        &self,
        solved: Solved,
        array_refs: bool,
    ) -> Result<frontend::Result, BuildError> {
        let result = match solved.refs {
            Refs::Empty => single(String::new(), None, array_refs),
            Refs::Single(reference) => {
                let definition = reference.definition().clone();
                single(self.insert(reference)?, Some(definition), array_refs)
            }
            Refs::PerPlatform(refs) => self.publish_map(refs, array_refs)?,
        };
        Ok(frontend::Result {
            metadata: solved.metadata.into_iter().collect(),
            result: Some(result),
            ..Default::default()
        })
    }

    fn publish_map(
        &self,
        refs: BTreeMap<String, Ref>,
        array_refs: bool,
    ) -> Result<RefResult, BuildError> {
        let mut named = HashMap::new();
        for (platform, reference) in refs {
            let def = Some(reference.definition().clone());
            let id = if reference.is_scratch() {
                String::new()
            } else {
                self.insert(reference)?
            };
            named.insert(platform, frontend::Ref { id, def });
        }
        if array_refs {
            return Ok(RefResult::Refs(frontend::RefMap { refs: named }));
        }
        let refs = named
            .into_iter()
            .map(|(platform, reference)| (platform, reference.id))
            .collect();
        Ok(RefResult::RefsDeprecated(frontend::RefMapDeprecated {
            refs,
        }))
    }

    /// Reads a result that a client returns: references by the ids that [`Running::publish`] gave.
    pub(crate) fn resolve(&self, result: frontend::Result) -> Result<Solved, BuildError> {
        if !result.attestations.is_empty() {
            return Err(BuildError::invalid(
                "attestations of a client's frontend are not supported by this builder",
            ));
        }
        let refs = match result.result {
            None => Refs::Empty,
            Some(RefResult::RefDeprecated(id)) => self.resolve_single(&id)?,
            Some(RefResult::Ref(reference)) => self.resolve_single(&reference.id)?,
            Some(RefResult::RefsDeprecated(map)) => self.resolve_map(map.refs)?,
            Some(RefResult::Refs(map)) => self.resolve_map(
                map.refs
                    .into_iter()
                    .map(|(key, reference)| (key, reference.id))
                    .collect(),
            )?,
        };
        Ok(Solved {
            refs,
            metadata: result.metadata.into_iter().collect(),
        })
    }

    fn resolve_single(&self, id: &str) -> Result<Refs, BuildError> {
        Ok(if id.is_empty() {
            Refs::Empty
        } else {
            Refs::Single(self.find(id)?)
        })
    }

    fn resolve_map(&self, ids: HashMap<String, String>) -> Result<Refs, BuildError> {
        let find = |id: String| {
            if id.is_empty() {
                Ok(Ref::scratch())
            } else {
                self.find(&id)
            }
        };
        let refs = ids.into_iter().map(|(key, id)| Ok((key, find(id)?)));
        refs.collect::<Result<_, BuildError>>()
            .map(Refs::PerPlatform)
    }

    fn insert(&self, reference: Ref) -> Result<String, BuildError> {
        let mut refs = self.refs();
        if refs.len() >= MOST_REFS {
            let message = format!("one build may solve no more than {MOST_REFS} results");
            return Err(BuildError::new(tonic::Code::ResourceExhausted, message));
        }
        let id = hex::encode(rand::random::<[u8; 16]>());
        refs.insert(id.clone(), reference);
        Ok(id)
    }

    fn refs(&self) -> MutexGuard<'_, HashMap<String, Ref>> {
        self.refs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn single(id: String, def: Option<pb::Definition>, array_refs: bool) -> RefResult {
    if array_refs {
        RefResult::Ref(frontend::Ref { id, def })
    } else {
        RefResult::RefDeprecated(id)
    }
}
