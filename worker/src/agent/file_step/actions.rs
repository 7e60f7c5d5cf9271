//! Running the actions of a file operation, each on an input of the operation or on what an earlier action left.

use std::io::{self, Read};
use std::sync::Arc;

use buildyard_layer::fileop::{FileStep, MkfileAction, UnpackAction};
use buildyard_layer::{
    Draft, FileReader, FlatFiles, Kind, Limits, Node, Time, Tree, is_archive, read_archive,
};
use buildyard_llb::pb::{self, file_action::Action};
use buildyard_model::{Chain, FlatId};

use super::{FileStepError, Made, owners, prepare};

/// Largest `etc/passwd` or `etc/group` that is read.
const NAME_FILE: u64 = 1 << 20;

/// A layer in the making, and what it lies on.
#[derive(Clone)]
struct State<'t> {
    base: Chain,
    draft: Draft<'t>,
}

/// Runs all actions over the trees of the inputs.
pub(super) fn run(
    file: &pb::FileOp,
    trees: &[Arc<Tree>],
    inputs: &[Chain],
    flats: &FlatFiles,
    now: Time,
) -> Result<Made, FileStepError> {
    let contents = prepare::contents(file, flats)?;
    let empty = Tree::empty();
    let mut states: Vec<Option<State<'_>>> = Vec::new();
    let mut outputs: Vec<(usize, State<'_>)> = Vec::new();
    for (number, action) in file.actions.iter().enumerate() {
        let mut state = match place(action.input, inputs.len()) {
            Place::Nothing => State {
                base: Chain::scratch(),
                draft: Draft::new(&empty, now),
            },
            Place::Input(input) => State {
                base: inputs[input].clone(),
                draft: Draft::new(&trees[input], now),
            },
            Place::Action(earlier) => {
                let again = file.actions[number + 1..]
                    .iter()
                    .any(|later| uses(later, inputs.len(), earlier));
                let kept = states[earlier].as_ref();
                let missing = || {
                    FileStepError::Request("a file action uses a result that is gone".to_owned())
                };
                if again {
                    kept.ok_or_else(missing)?.clone()
                } else {
                    states[earlier].take().ok_or_else(missing)?
                }
            }
        };
        let secondary = match place(action.secondary_input, inputs.len()) {
            Place::Nothing => Source::Tree(&empty),
            Place::Input(input) => Source::Tree(trees[input].as_ref()),
            Place::Action(earlier) => {
                let earlier = states[earlier].as_ref();
                let earlier = earlier.ok_or_else(|| {
                    FileStepError::Request(
                        "a file action copies from a result that is gone".to_owned(),
                    )
                })?;
                Source::Made(Box::new(earlier.draft.snapshot()))
            }
        };
        one(
            action,
            &mut state.draft,
            secondary.tree(),
            trees,
            contents[number].clone(),
            flats,
        )?;
        if let Ok(output) = usize::try_from(action.output) {
            outputs.push((output, state.clone()));
        }
        states.push(Some(state));
    }
    Ok(finish(outputs))
}

enum Source<'t> {
    Tree(&'t Tree),
    Made(Box<Tree>),
}

impl Source<'_> {
    fn tree(&self) -> &Tree {
        match self {
            Self::Tree(tree) => tree,
            Self::Made(tree) => tree,
        }
    }
}

enum Place {
    Nothing,
    Input(usize),
    Action(usize),
}

fn place(index: i64, inputs: usize) -> Place {
    match usize::try_from(index) {
        Err(_) => Place::Nothing,
        Ok(index) if index < inputs => Place::Input(index),
        Ok(index) => Place::Action(index - inputs),
    }
}

fn uses(action: &pb::FileAction, inputs: usize, earlier: usize) -> bool {
    [action.input, action.secondary_input]
        .into_iter()
        .any(|index| matches!(place(index, inputs), Place::Action(number) if number == earlier))
}

fn finish(mut outputs: Vec<(usize, State<'_>)>) -> Made {
    outputs.sort_by_key(|(output, _)| *output);
    let mut made = Made {
        outputs: Vec::new(),
        layers: Vec::new(),
        emulator: String::new(),
    };
    for (output, state) in outputs {
        let toc = Arc::new(state.draft.finish());
        let id = toc.layer_id();
        made.outputs
            .resize(output.max(made.outputs.len()), Chain::scratch());
        made.outputs.push(state.base.with(id));
        made.layers.push((id, toc));
    }
    made
}

fn one(
    action: &pb::FileAction,
    draft: &mut Draft<'_>,
    source: &Tree,
    trees: &[Arc<Tree>],
    content: Option<buildyard_layer::fileop::Content>,
    flats: &FlatFiles,
) -> Result<(), FileStepError> {
    let read = &mut |node: &Node<'_>| read_small(flats, node);
    match &action.action {
        Some(Action::Copy(copy)) => {
            let chown = owners::owner(&copy.owner, trees, read)?;
            let step = prepare::copy(copy, chown)?;
            if !copy.attempt_unpack_docker_compatibility {
                return Ok(draft.step(&FileStep::Copy(source, step), read)?);
            }
            for found in draft.copy_matches(source, &step)? {
                let archive = source
                    .get(&found.path)
                    .and_then(|node| unpacked(&node, flats).transpose())
                    .transpose()?;
                match archive {
                    Some(archive) => {
                        let unpack = UnpackAction {
                            dest: step.dest.clone(),
                            chown: step.chown,
                            timestamp: step.timestamp,
                        };
                        draft.unpack(&archive, &unpack, read)?;
                    }
                    None => draft.copy_match(source, &step, &found, read)?,
                }
            }
            Ok(())
        }
        Some(Action::Mkfile(mkfile)) => {
            let owner = owners::owner(&mkfile.owner, trees, read)?;
            let content = content
                .ok_or_else(|| FileStepError::Request("a file without content".to_owned()))?;
            let step = MkfileAction {
                path: mkfile.path.clone(),
                mode: mkfile.mode.cast_unsigned() & 0o7777,
                content,
                small: (mkfile.data.len() as u64 <= NAME_FILE).then(|| mkfile.data.clone()),
                owner,
                timestamp: prepare::time(mkfile.timestamp),
            };
            Ok(draft.mkfile(&step)?)
        }
        Some(Action::Mkdir(mkdir)) => {
            let owner = owners::owner(&mkdir.owner, trees, read)?;
            Ok(draft.mkdir(&prepare::mkdir(mkdir, owner))?)
        }
        Some(Action::Symlink(link)) => {
            let owner = owners::owner(&link.owner, trees, read)?;
            Ok(draft.symlink(&prepare::symlink(link, owner))?)
        }
        Some(Action::Rm(rm)) => Ok(draft.rm(&prepare::rm(rm))?),
        None => Err(FileStepError::Request(
            "a file action of a kind that is not known".to_owned(),
        )),
    }
}

/// The tree of an archive; `None` for any other file.
fn unpacked(node: &Node<'_>, flats: &FlatFiles) -> Result<Option<Tree>, FileStepError> {
    let Kind::File { size, .. } = node.entry.kind else {
        return Ok(None);
    };
    let (ids, extents) = extents(node);
    if !is_archive(FileReader::new(flats, &ids, size, &extents)) {
        return Ok(None);
    }
    let archive = read_archive(
        FileReader::new(flats, &ids, size, &extents),
        flats,
        &unpack_limits(size),
    );
    let path = String::from_utf8_lossy(node.path).into_owned();
    let ingested = archive.map_err(|error| {
        FileStepError::Request(format!("unpacking {path}: {:#}", anyhow::Error::new(error)))
    })?;
    Ok(Some(Tree::merge(&[Arc::new(ingested.toc)])))
}

/// What an archive of `size` bytes may become when it is unpacked: a hundred times as much, and a gigabyte in any case.
/// A few kilobytes must not fill the worker's disk.
fn unpack_limits(size: u64) -> Limits {
    const ALWAYS: u64 = 1 << 30;
    const TIMES: u64 = 100;
    let limits = Limits::default();
    Limits {
        bytes: size.saturating_mul(TIMES).clamp(ALWAYS, limits.bytes),
        ..limits
    }
}

fn read_small(flats: &FlatFiles, node: &Node<'_>) -> io::Result<Vec<u8>> {
    let Kind::File { size, .. } = node.entry.kind else {
        return Ok(Vec::new());
    };
    let (ids, extents) = extents(node);
    let mut bytes = Vec::new();
    FileReader::new(flats, &ids, size, &extents)
        .take(NAME_FILE)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A node's extents, as indexes into their flat files.
fn extents(node: &Node<'_>) -> (Vec<FlatId>, Vec<buildyard_layer::Extent>) {
    let mut ids = Vec::new();
    let mut extents = Vec::new();
    for (flat, mut extent) in node.extents() {
        extent.flat = u32::try_from(ids.iter().position(|id| *id == flat).unwrap_or_else(|| {
            ids.push(flat);
            ids.len() - 1
        }))
        .expect("a file has few flat files");
        extents.push(extent);
    }
    (ids, extents)
}
