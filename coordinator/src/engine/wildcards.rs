//! Wildcards that are none, found before anything is taken from the client: its own refusal names no line.

use buildyard_layer::{Patterns, glob_match};
use buildyard_llb::pb;
use buildyard_llb::pb::file_action::Action;
use buildyard_llb::{Graph, Step};

use crate::backend::BuildError;

/// Checks the patterns of every copy.
///
/// # Errors
/// The first pattern that is not well-formed, with its step.
pub(super) fn check(graph: &Graph) -> Result<(), BuildError> {
    graph.steps().iter().try_for_each(check_step)
}

fn check_step(step: &Step) -> Result<(), BuildError> {
    let Some(pb::op::Op::File(file)) = &step.op.op else {
        return Ok(());
    };
    let copies = file
        .actions
        .iter()
        .filter_map(|action| match &action.action {
            Some(Action::Copy(copy)) => Some(copy),
            _ => None,
        });
    for copy in copies {
        if copy.allow_wildcard && glob_match(copy.src.as_bytes(), b"").is_err() {
            return Err(bad(&copy.src).at_step(step.digest));
        }
        for pattern in copy.exclude_patterns.iter().chain(&copy.include_patterns) {
            if Patterns::new(std::slice::from_ref(pattern)).is_err() {
                return Err(bad(pattern).at_step(step.digest));
            }
        }
    }
    Ok(())
}

fn bad(pattern: &str) -> BuildError {
    BuildError::failed(format!(
        "{pattern:?}: syntax error in pattern; write \\ before a [ that is meant as itself"
    ))
}

#[cfg(test)]
mod tests {
    use buildyard_llb::Limits;
    use prost::Message;

    use super::*;

    fn copying(copy: pb::FileActionCopy) -> Result<(), String> {
        let action = pb::FileAction {
            input: -1,
            secondary_input: -1,
            output: 0,
            action: Some(Action::Copy(copy)),
        };
        let op = pb::Op {
            op: Some(pb::op::Op::File(pb::FileOp {
                actions: vec![action],
            })),
            ..pb::Op::default()
        };
        let bytes = op.encode_to_vec();
        let closing = pb::Op {
            inputs: vec![pb::Input {
                digest: buildyard_model::Digest::of(&bytes).to_string(),
                index: 0,
            }],
            ..pb::Op::default()
        };
        let definition = pb::Definition {
            def: vec![bytes, closing.encode_to_vec()],
            ..pb::Definition::default()
        };
        let (graph, _) = Graph::load(&[&definition], Limits::default()).unwrap();
        check(&graph).map_err(|error| error.message)
    }

    #[test]
    fn every_kind_of_pattern_is_checked() {
        let source = |src: &str, allow_wildcard| pb::FileActionCopy {
            src: src.to_owned(),
            allow_wildcard,
            ..pb::FileActionCopy::default()
        };
        assert_eq!(copying(source("/a[b-c]*", true)), Ok(()));
        assert!(
            copying(source("/miss[", true))
                .unwrap_err()
                .contains("\"/miss[\"")
        );
        assert_eq!(copying(source("/miss[", false)), Ok(()), "a name");
        let excluding = pb::FileActionCopy {
            exclude_patterns: vec!["a".to_owned(), "b[".to_owned()],
            ..source("/", true)
        };
        assert!(copying(excluding).unwrap_err().contains("\"b[\""));
    }
}
