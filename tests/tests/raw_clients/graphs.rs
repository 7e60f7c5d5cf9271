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

/// A graph of every kind of operation that builds: its result is the base image with `/made`, which a program made of the
/// text, and `/kept`, which it saw and did not make.
pub(crate) fn good(base: &str, text: &str) -> pb::Definition {
    let machine = pb::Platform {
        os: "linux".to_owned(),
        architecture: buildyard_tests::native_architecture().to_owned(),
        ..pb::Platform::default()
    };
    let image = pb::Op {
        platform: Some(machine.clone()),
        ..source(&format!("docker-image://{base}"))
    };
    let of = |operation: &pb::Op| input(&operation.encode_to_vec(), 0);
    let kept = file("/kept", text);
    let both = merged(vec![of(&image), of(&kept)]);
    let script = "tr a-z A-Z < /kept > /made && rm /bin/cat";
    let program = pb::Op {
        platform: Some(machine),
        inputs: vec![of(&both)],
        ..shell(script)
    };
    let change = op(Kind::Diff(pb::DiffOp {
        lower: Some(pb::LowerDiffInput { input: 0 }),
        upper: Some(pb::UpperDiffInput { input: 1 }),
    }));
    let change = pb::Op {
        inputs: vec![of(&both), of(&program)],
        ..change
    };
    let result = merged(vec![of(&image), of(&kept), of(&change)]);
    let closing = pb::Op {
        inputs: vec![of(&result)],
        ..pb::Op::default()
    };
    let all = [image, kept, both, program, change, result, closing];
    encoded(all.iter().map(Message::encode_to_vec).collect())
}

/// A file on nothing.
fn file(path: &str, text: &str) -> pb::Op {
    let made = pb::FileActionMkFile {
        path: path.to_owned(),
        mode: 0o644,
        data: text.as_bytes().to_vec(),
        timestamp: -1,
        ..pb::FileActionMkFile::default()
    };
    op(Kind::File(pb::FileOp {
        actions: vec![pb::FileAction {
            input: -1,
            secondary_input: -1,
            output: 0,
            action: Some(pb::file_action::Action::Mkfile(made)),
        }],
    }))
}

fn merged(inputs: Vec<pb::Input>) -> pb::Op {
    let numbers = (0..).take(inputs.len());
    let numbers = numbers.map(|input| pb::MergeInput { input });
    pb::Op {
        inputs,
        ..op(Kind::Merge(pb::MergeOp {
            inputs: numbers.collect(),
        }))
    }
}

/// A script on input 0.
fn shell(script: &str) -> pb::Op {
    let args = ["/bin/sh", "-c", script].map(str::to_owned);
    program(&args, &[("/", 0, 0)])
}

/// A program whose mounts are (destination, input, output).
pub(crate) fn exec(mounts: &[(&str, i64, i64)]) -> pb::Op {
    program(&["true".to_owned()], mounts)
}

fn program(args: &[String], mounts: &[(&str, i64, i64)]) -> pb::Op {
    let mounts = mounts.iter().map(|(dest, input, output)| pb::Mount {
        dest: (*dest).to_owned(),
        input: *input,
        output: *output,
        ..pb::Mount::default()
    });
    op(Kind::Exec(pb::ExecOp {
        meta: Some(pb::Meta {
            args: args.to_vec(),
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
