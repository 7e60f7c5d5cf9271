//! What a step sees of each of its inputs, which decides what its key must cover.
//!
//! Where the result contains the input whole (a root file system, a COPY's destination, a writable mount with an
//! output), the input's chain of layers stands for it. Where it does not (what COPY selects, a read-only mount, a mount
//! without output, the files that names are looked up in), only the paths seen count, without times.

use std::collections::HashSet;

use bollard_buildkit_proto::pb::{self, op::Op};
use buildyard_model::StepDigest;

use crate::graph::GraphError;

/// One way in which an operation looks at an input.
#[derive(Debug, Clone, PartialEq)]
pub enum View {
    /// All of it: it becomes part of the result.
    Chain,
    /// Everything beneath a path (a mount's selector; `/` for all).
    Beneath(String),
    /// What a copy selects.
    Copy(Box<pb::FileActionCopy>),
    /// `etc/passwd` and `etc/group`.
    Names,
}

/// The views of input number `input`, in the operation's order, none twice. Empty where the operation never uses it.
pub fn views(op: &pb::Op, input: usize) -> Vec<View> {
    let all = match &op.op {
        Some(Op::Exec(exec)) => exec
            .mounts
            .iter()
            .filter(|m| is(m.input, input))
            .map(mount_view)
            .collect(),
        Some(Op::File(file)) => file
            .actions
            .iter()
            .flat_map(|action| action_views(op, action, input))
            .collect(),
        Some(Op::Merge(_) | Op::Diff(_)) => vec![View::Chain],
        _ => Vec::new(),
    };
    let mut views: Vec<View> = Vec::new();
    for view in all {
        if !views.contains(&view) {
            views.push(view);
        }
    }
    views
}

fn is(index: i64, input: usize) -> bool {
    usize::try_from(index).is_ok_and(|index| index == input)
}

fn mount_view(mount: &pb::Mount) -> View {
    let kept = mount.output >= 0 && !mount.readonly;
    if mount.dest == "/" || kept {
        View::Chain
    } else {
        View::Beneath(mount.selector.clone())
    }
}

fn action_views(op: &pb::Op, action: &pb::FileAction, input: usize) -> Vec<View> {
    use pb::file_action::Action;
    let mut views = Vec::new();
    if is(action.input, input) {
        views.push(View::Chain);
    }
    let owner = match &action.action {
        Some(Action::Copy(copy)) => {
            if is(action.secondary_input, input) {
                views.push(View::Copy(Box::new(copy.clone())));
            }
            &copy.owner
        }
        Some(Action::Mkfile(mkfile)) => &mkfile.owner,
        Some(Action::Mkdir(mkdir)) => &mkdir.owner,
        Some(Action::Symlink(symlink)) => &symlink.owner,
        Some(Action::Rm(_)) | None => &None,
    };
    let by_name = |user: &Option<pb::UserOpt>| match user.as_ref().and_then(|u| u.user.as_ref()) {
        Some(pb::user_opt::User::ByName(named)) => is(named.input, input),
        _ => false,
    };
    if owner
        .as_ref()
        .is_some_and(|owner| by_name(&owner.user) || by_name(&owner.group))
        && input < op.inputs.len()
    {
        views.push(View::Names);
    }
    views
}

/// Checks an operation's numbers, and says how many results it yields.
pub(crate) fn check(digest: StepDigest, op: &pb::Op) -> Result<usize, GraphError> {
    let bad = |what, index| {
        Err(GraphError::BadIndex {
            digest,
            what,
            index,
        })
    };
    let unsupported = |what: &str| Err(GraphError::Unsupported(digest, what.to_owned()));
    let inputs = i64::try_from(op.inputs.len()).unwrap_or(i64::MAX);
    match &op.op {
        Some(Op::Source(source)) => {
            let known = ["docker-image://", "local://"]
                .iter()
                .any(|scheme| source.identifier.starts_with(scheme));
            if known {
                Ok(1)
            } else {
                unsupported(&format!(
                    "source {:?} is not supported yet",
                    source.identifier
                ))
            }
        }
        Some(Op::Exec(exec)) => {
            let mut outputs = 0;
            let mut used = HashSet::new();
            for mount in &exec.mounts {
                if mount.input >= inputs || mount.input < -1 {
                    return bad("input", mount.input);
                }
                if mount.output >= 1000 {
                    return bad("output", mount.output);
                }
                if mount.output >= 0 && !used.insert(mount.output) {
                    return unsupported(&format!("two mounts are output {}", mount.output));
                }
                outputs = outputs.max(mount.output + 1);
            }
            if !exec.mounts.iter().any(|mount| mount.dest == "/") {
                return unsupported("an exec operation has no mount for /");
            }
            Ok(usize::try_from(outputs).unwrap_or(0))
        }
        Some(Op::File(file)) => check_file(digest, file, inputs),
        Some(Op::Merge(merge)) => match merge
            .inputs
            .iter()
            .find(|i| i.input >= inputs || i.input < -1)
        {
            Some(input) => bad("input", input.input),
            None => Ok(1),
        },
        Some(Op::Diff(diff)) => {
            let lower = diff.lower.map_or(-1, |l| l.input);
            let upper = diff.upper.map_or(-1, |u| u.input);
            match [lower, upper].into_iter().find(|&i| i >= inputs || i < -1) {
                Some(index) => bad("input", index),
                None => Ok(1),
            }
        }
        Some(Op::Build(_)) => {
            unsupported("build operations (nested frontends) are not supported yet")
        }
        None => unsupported("the operation is empty or of a kind that is not known"),
    }
}

/// File actions form a list in which each may take an input of the operation or the result of an earlier action.
fn check_file(digest: StepDigest, file: &pb::FileOp, inputs: i64) -> Result<usize, GraphError> {
    let mut outputs = HashSet::new();
    for (number, action) in file.actions.iter().enumerate() {
        let earlier = inputs + i64::try_from(number).unwrap_or(i64::MAX);
        for index in [action.input, action.secondary_input] {
            if index >= earlier || index < -1 {
                return Err(GraphError::BadIndex {
                    digest,
                    what: "input",
                    index,
                });
            }
        }
        if action.output >= 1000 {
            return Err(GraphError::BadIndex {
                digest,
                what: "output",
                index: action.output,
            });
        }
        if action.action.is_none() {
            return Err(GraphError::Unsupported(
                digest,
                "a file action of a kind that is not known".to_owned(),
            ));
        }
        if action.output >= 0 && !outputs.insert(action.output) {
            let twice = format!("two file actions are output {}", action.output);
            return Err(GraphError::Unsupported(digest, twice));
        }
    }
    let count = i64::try_from(outputs.len()).unwrap_or(i64::MAX);
    match (0..count).find(|index| !outputs.contains(index)) {
        Some(index) => Err(GraphError::BadIndex {
            digest,
            what: "output",
            index,
        }),
        None => Ok(outputs.len()),
    }
}

/// What a step without a name of its own is called.
pub(crate) fn default_name(op: &pb::Op) -> String {
    use pb::file_action::Action;
    match &op.op {
        Some(Op::Source(source)) => source.identifier.clone(),
        Some(Op::Exec(exec)) => exec
            .meta
            .as_ref()
            .map(|m| m.args.join(" "))
            .unwrap_or_default(),
        Some(Op::File(file)) => {
            let names = file.actions.iter().map(|action| match &action.action {
                Some(Action::Copy(copy)) => format!("copy {} {}", copy.src, copy.dest),
                Some(Action::Mkfile(mkfile)) => format!("mkfile {}", mkfile.path),
                Some(Action::Mkdir(mkdir)) => format!("mkdir {}", mkdir.path),
                Some(Action::Rm(rm)) => format!("rm {}", rm.path),
                Some(Action::Symlink(link)) => {
                    format!("symlink {} -> {}", link.newpath, link.oldpath)
                }
                None => String::new(),
            });
            names.collect::<Vec<_>>().join(", ")
        }
        Some(Op::Merge(_)) => "merge".to_owned(),
        Some(Op::Diff(_)) => "diff".to_owned(),
        Some(Op::Build(_)) => "build".to_owned(),
        None => String::new(),
    }
}
