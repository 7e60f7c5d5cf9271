//! Graphs by hand, good and bad.

use bollard_buildkit_proto::pb;
use bollard_buildkit_proto::pb::op::Op as Kind;
use prost::Message;
use sha2::{Digest, Sha256};

/// A definition of these encoded operations.
pub(crate) fn encoded(operations: Vec<Vec<u8>>) -> pb::Definition {
    pb::Definition {
        def: operations,
        ..pb::Definition::default()
    }
}

/// A definition that yields output `index` of `operation`.
pub(crate) fn ending_with(operation: &pb::Op, index: i64) -> pb::Definition {
    let bytes = operation.encode_to_vec();
    let closing = pb::Op {
        inputs: vec![input(&bytes, index)],
        ..pb::Op::default()
    };
    encoded(vec![bytes, closing.encode_to_vec()])
}

/// The input that is output `index` of an encoded operation.
pub(crate) fn input(operation: &[u8], index: i64) -> pb::Input {
    pb::Input {
        digest: format!("sha256:{}", hex::encode(Sha256::digest(operation))),
        index,
    }
}

pub(crate) fn op(kind: Kind) -> pb::Op {
    pb::Op {
        op: Some(kind),
        ..pb::Op::default()
    }
}

pub(crate) fn source(identifier: &str) -> pb::Op {
    op(Kind::Source(pb::SourceOp {
        identifier: identifier.to_owned(),
        ..pb::SourceOp::default()
    }))
}

/// A program whose mounts are (destination, input, output).
pub(crate) fn exec(mounts: &[(&str, i64, i64)]) -> pb::Op {
    let mounts = mounts.iter().map(|(dest, input, output)| pb::Mount {
        dest: (*dest).to_owned(),
        input: *input,
        output: *output,
        ..pb::Mount::default()
    });
    op(Kind::Exec(pb::ExecOp {
        meta: Some(pb::Meta {
            args: vec!["true".to_owned()],
            cwd: "/".to_owned(),
            ..pb::Meta::default()
        }),
        mounts: mounts.collect(),
        ..pb::ExecOp::default()
    }))
}

/// Folders made one after the other, each action with an (input, output).
pub(crate) fn folders(actions: &[(i64, i64)]) -> pb::Op {
    let actions = actions
        .iter()
        .enumerate()
        .map(|(number, (input, output))| pb::FileAction {
            input: *input,
            secondary_input: -1,
            output: *output,
            action: Some(pb::file_action::Action::Mkdir(pb::FileActionMkDir {
                path: format!("/d{number}"),
                mode: 0o755,
                ..pb::FileActionMkDir::default()
            })),
        });
    op(Kind::File(pb::FileOp {
        actions: actions.collect(),
    }))
}
