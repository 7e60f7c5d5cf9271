//! What solving yields.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bollard_buildkit_proto::pb;

/// A result of a build, opaque but for the graph that makes it. Cheap to clone.
#[derive(Clone)]
pub struct Ref {
    definition: Arc<pb::Definition>,
    state: Arc<dyn Any + Send + Sync>,
}

impl Ref {
    /// A result that `definition` makes; `state` is what the engine keeps about it.
    pub fn new(definition: pb::Definition, state: impl Any + Send + Sync) -> Self {
        Self {
            definition: Arc::new(definition),
            state: Arc::new(state),
        }
    }

    /// The graph; clients build further on it. Without operations: `scratch`.
    pub fn definition(&self) -> &pb::Definition {
        &self.definition
    }

    /// Nothing is in it.
    pub fn is_scratch(&self) -> bool {
        self.definition.def.is_empty()
    }

    /// What the engine keeps, if it is a `T`.
    pub fn state<T: 'static>(&self) -> Option<&T> {
        self.state.downcast_ref()
    }

    /// An empty result.
    pub fn scratch() -> Self {
        Self::new(pb::Definition::default(), ())
    }
}

impl fmt::Debug for Ref {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ref({} operations)", self.definition.def.len())
    }
}

/// The results of a solve.
#[derive(Debug, Clone, Default)]
pub enum Refs {
    /// Nothing: `FROM scratch` alone.
    #[default]
    Empty,
    /// One.
    Single(Ref),
    /// One for each platform, by the name that `refs.platforms` of the metadata gives it (`linux/arm64`).
    PerPlatform(BTreeMap<String, Ref>),
}

/// Results and what is said about them.
#[derive(Debug, Clone, Default)]
pub struct Solved {
    /// The results.
    pub refs: Refs,
    /// `containerimage.config` (with `/linux/arm64` where there are several), `refs.platforms`, `frontend.*`,
    /// what `--call` prints (`result.json`, `result.txt` …).
    pub metadata: BTreeMap<String, Vec<u8>>,
}
