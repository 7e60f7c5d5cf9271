//! LLB's file actions as the actions of the layer crate.

use buildyard_layer::fileop::{
    Content, CopyAction, MkdirAction, ModeChange, Owner, RmAction, SymlinkAction,
};
use buildyard_layer::{FlatFiles, Time, random_flat_id};
use buildyard_llb::pb::{self, file_action::Action};
use buildyard_model::FlatId;
use buildyard_solver::copy_source;

use super::FileStepError;

/// Nanoseconds since the epoch; -1 is none.
pub(super) fn time(timestamp: i64) -> Option<Time> {
    (timestamp != -1).then(|| Time {
        seconds: timestamp.div_euclid(1_000_000_000),
        nanos: u32::try_from(timestamp.rem_euclid(1_000_000_000)).unwrap_or(0),
    })
}

pub(super) fn copy(
    copy: &pb::FileActionCopy,
    chown: Option<Owner>,
) -> Result<CopyAction, FileStepError> {
    let mode = match (copy.mode_str.as_str(), copy.mode) {
        ("", -1) => None,
        ("", mode) => Some(format!("{mode:o}")),
        (text, _) => Some(text.to_owned()),
    };
    let mode = mode.map(|text| ModeChange::parse(&text)).transpose();
    Ok(CopyAction {
        source: copy_source(copy),
        dest: copy.dest.clone(),
        chown,
        mode: mode.map_err(|error| FileStepError::Request(error.to_string()))?,
        dir_copy_contents: copy.dir_copy_contents,
        create_dest_path: copy.create_dest_path,
        timestamp: time(copy.timestamp),
        always_replace: copy.always_replace_existing_dest_paths,
    })
}

pub(super) fn mkdir(mkdir: &pb::FileActionMkDir, owner: Option<Owner>) -> MkdirAction {
    MkdirAction {
        path: mkdir.path.clone(),
        mode: mkdir.mode.cast_unsigned() & 0o7777,
        make_parents: mkdir.make_parents,
        owner,
        timestamp: time(mkdir.timestamp),
    }
}

pub(super) fn rm(rm: &pb::FileActionRm) -> RmAction {
    RmAction {
        path: rm.path.clone(),
        allow_not_found: rm.allow_not_found,
        allow_wildcard: rm.allow_wildcard,
    }
}

pub(super) fn symlink(link: &pb::FileActionSymlink, owner: Option<Owner>) -> SymlinkAction {
    SymlinkAction {
        oldpath: link.oldpath.clone(),
        newpath: link.newpath.clone(),
        owner,
        timestamp: time(link.timestamp),
    }
}

/// Writes the contents of all mkfile actions into one flat file. The list has one place per action.
pub(super) fn contents(
    file: &pb::FileOp,
    flats: &FlatFiles,
) -> Result<Vec<Option<Content>>, FileStepError> {
    let failed = |error| FileStepError::Machine("writing a file of the step".to_owned(), error);
    let makes = |action: &pb::FileAction| matches!(action.action, Some(Action::Mkfile(_)));
    if !file.actions.iter().any(makes) {
        return Ok(vec![None; file.actions.len()]);
    }
    let writer = flats.writer().map_err(failed)?;
    let id: FlatId = random_flat_id();
    let mut contents = Vec::with_capacity(file.actions.len());
    for action in &file.actions {
        contents.push(match &action.action {
            Some(Action::Mkfile(mkfile)) => {
                let appended = writer
                    .append_file(&mut mkfile.data.as_slice())
                    .map_err(failed)?;
                Some(Content {
                    size: appended.size,
                    digest: appended.content,
                    extents: appended.extents,
                    flats: vec![id],
                })
            }
            _ => None,
        });
    }
    writer.commit_unsynced(id).map_err(failed)?;
    Ok(contents)
}
