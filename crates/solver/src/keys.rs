//! Cache keys of steps whose inputs are known.

use buildyard_layer::{CopySource, SelectError, Selection, content_id};
use buildyard_llb::view::{View, views};
use buildyard_llb::{Step, pb};
use buildyard_model::{Chain, Digest, DigestHasher, StepKey};
use prost::Message;

use crate::{Tocs, TocsError, Trees};

/// Why a key cannot be computed.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// What the step asks of an input is not there: the user's to mend.
    #[error(transparent)]
    Select(#[from] SelectError),
    /// An input's table of contents cannot be had.
    #[error(transparent)]
    Tocs(#[from] TocsError),
}

impl KeyError {
    /// BuildKit's text for a step that asks for something its inputs do not have; what clients show and match on.
    pub fn missing_text(error: &SelectError, inputs: &[Chain]) -> String {
        let about = inputs
            .last()
            .map(|chain| chain.id().hex())
            .unwrap_or_default();
        format!(
            "failed to calculate checksum of ref {}: {error}",
            &about[..about.len().min(25)]
        )
    }
}

/// The key of a step with these inputs, in the order of the operation's inputs. `None` where a table of contents that the
/// key needs was never made.
///
/// # Errors
/// [`KeyError::Select`] if a path that the step needs does not exist, [`KeyError::Tocs`] if a layer cannot be read.
pub async fn key(
    step: &Step,
    inputs: &[Chain],
    trees: &Trees,
    tocs: &dyn Tocs,
) -> Result<Option<StepKey>, KeyError> {
    let mut ids = Vec::with_capacity(inputs.len());
    for (number, chain) in inputs.iter().enumerate() {
        let mut of_input = Vec::new();
        for view in views(&step.op, number) {
            match view_id(&view, chain, trees, tocs).await? {
                Some(id) => of_input.push(id),
                None => return Ok(None),
            }
        }
        ids.push(of_input);
    }
    Ok(Some(buildyard_llb::key::step_key(step, &ids)))
}

async fn view_id(
    view: &View,
    chain: &Chain,
    trees: &Trees,
    tocs: &dyn Tocs,
) -> Result<Option<Digest>, KeyError> {
    if *view == View::Chain {
        return Ok(Some(chain.id()));
    }
    let (chain_id, view_digest) = (chain.id(), digest(view));
    if let Some(id) = trees.known_id(chain_id, view_digest) {
        return Ok(Some(id));
    }
    let Some(tree) = trees.tree(chain, tocs).await? else {
        return Ok(None);
    };
    let view = view.clone();
    let id = tokio::task::spawn_blocking(move || match view {
        View::Chain => unreachable!("answered above"),
        View::Beneath(path) => content_id(&tree, &Selection::Beneath(path)),
        View::Copy(copy) => content_id(&tree, &Selection::Copy(copy_source(&copy))),
        View::Names => content_id(&tree, &Selection::Names),
    })
    .await
    .expect("hashing does not panic")?;
    trees.keep_id(chain_id, view_digest, id);
    Ok(Some(id))
}

/// The source side of a copy action.
pub fn copy_source(copy: &pb::FileActionCopy) -> CopySource {
    CopySource {
        src: copy.src.clone(),
        follow_symlink: copy.follow_symlink,
        allow_wildcard: copy.allow_wildcard,
        allow_empty_wildcard: copy.allow_empty_wildcard,
        include: copy.include_patterns.clone(),
        exclude: copy.exclude_patterns.clone(),
        required_paths: copy.required_paths.clone(),
    }
}

fn digest(view: &View) -> Digest {
    let mut hasher = DigestHasher::new("view");
    match view {
        View::Chain => hasher.field("chain"),
        View::Beneath(path) => hasher.field("beneath").field(path),
        View::Copy(copy) => hasher.field("copy").field(copy.encode_to_vec()),
        View::Names => hasher.field("names"),
    };
    hasher.finish()
}
