//! Where steps stand in their source files, for errors.

use std::collections::HashMap;

use buildyard_llb::pb;
use buildyard_model::StepDigest;

use crate::backend::{BuildError, SourceLocation};

/// Places by step.
#[derive(Default)]
pub(super) struct Locations(HashMap<StepDigest, Vec<SourceLocation>>);

impl Locations {
    /// The places that the definitions name.
    pub(super) fn of(definitions: &[&pb::Definition]) -> Self {
        let mut places: HashMap<StepDigest, Vec<SourceLocation>> = HashMap::new();
        for source in definitions
            .iter()
            .filter_map(|definition| definition.source.as_ref())
        {
            for (digest, locations) in &source.locations {
                let Ok(digest) = digest.parse() else { continue };
                let found = locations.locations.iter().filter_map(|location| {
                    let index = usize::try_from(location.source_index).ok()?;
                    let info = source.infos.get(index)?.clone();
                    Some(SourceLocation {
                        info,
                        ranges: location.ranges.clone(),
                    })
                });
                places.entry(digest).or_insert_with(|| found.collect());
            }
        }
        Self(places)
    }

    /// Adds the place of an error's step, where it has none yet.
    pub(super) fn place(&self, mut error: BuildError) -> BuildError {
        if error.sources.is_empty()
            && let Some(places) = error.vertex.and_then(|step| self.0.get(&step))
        {
            error.sources = places.clone();
        }
        error
    }
}
