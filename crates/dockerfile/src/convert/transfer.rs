//! COPY and ADD.

use bollard_buildkit_proto::pb;
use buildyard_llb::build::{Node, Output};
use buildyard_model::Digest;

use super::action::{Actions, owner};
use super::chmod::{self, Mode};
use super::name::uppercase_keyword;
use super::path::{self, has_wildcards, normalize};
use super::run::inline_file;
use super::stage::Running;
use crate::error::Problem;
use crate::expand::Expander;
use crate::instruction::Copy;

/// A COPY or ADD with its variables expanded.
struct Transfer {
    sources: Vec<String>,
    /// Absolute; a slash at the end says that it is a directory.
    destination: String,
    written_destination: String,
    chown: Option<String>,
    chmod: Option<String>,
    mode: Option<Mode>,
    exclude: Vec<String>,
    unpack: bool,
    parents: bool,
    timestamp: i64,
}

pub(super) fn copy(
    running: &mut Running<'_, '_>,
    copy: &Copy,
    add: bool,
    original: &str,
) -> Result<(), Problem> {
    let transfer = expand(running, copy, add)?;
    check_sources(&transfer, copy, add)?;
    let from = source(running, copy, &transfer)?;
    let text = uppercase_keyword(
        &running
            .expand(original)
            .unwrap_or_else(|_| original.to_owned()),
    );
    let platform = running.platform();
    let name = running
        .stage
        .numbering
        .next(&text, Some(&platform), &running.stage.state.env);
    let mut actions = Actions::default();
    let linked = copy.link && copy.chmod.is_none();
    let base = running.stage.state.output.filter(|_| !linked);
    let owner_input = if base.is_some() { 0 } else { -1 };
    actions.base(base);
    for path in &transfer.sources {
        actions.copy(from, transfer.of_path(path, owner_input));
    }
    for heredoc in &copy.heredocs {
        let data = if heredoc.expand {
            expand_heredoc(running, &heredoc.text())?
        } else {
            heredoc.text()
        };
        let file = inline_file(running, &heredoc.name, 0o644, data)?;
        actions.copy(
            Some(file),
            transfer.of_heredoc(&normalize("/", &heredoc.name, false), owner_input),
        );
    }
    let output = if linked {
        link(running, actions, &name, &text)?
    } else {
        add_file(running, actions, &name, None)?
    };
    running.stage.state.output = Some(output);
    let created_by = history(&transfer, copy, add);
    running.history(created_by, false)
}

fn expand(running: &mut Running<'_, '_>, copy: &Copy, add: bool) -> Result<Transfer, Problem> {
    let mut optional = |text: &Option<String>| {
        let expanded = text.as_ref().map(|text| running.expand(text)).transpose()?;
        Ok(expanded.filter(|text| !text.is_empty()))
    };
    let (chown, chmod, checksum) = (
        optional(&copy.chown)?,
        optional(&copy.chmod)?,
        optional(&copy.checksum)?,
    );
    let sources: Vec<_> = copy
        .sources
        .iter()
        .map(|source| running.expand(source))
        .collect::<Result<_, _>>()?;
    if checksum.is_some() && !sources.iter().any(|source| path::is_remote(source)) {
        return Err(Problem::Invalid(
            "checksum requires HTTP(S) or Git sources".to_owned(),
        ));
    }
    let mode = chmod
        .as_deref()
        .map(chmod::parse)
        .transpose()
        .map_err(Problem::Invalid)?;
    let written_destination = running.expand(&copy.destination)?;
    let here = matches!(written_destination.as_str(), "" | ".");
    let destination = if here { "./" } else { &written_destination };
    Ok(Transfer {
        sources,
        destination: normalize(&running.stage.state.dir, destination, true),
        written_destination,
        chown,
        chmod,
        mode,
        exclude: copy.exclude.clone(),
        unpack: copy.unpack.unwrap_or(add),
        parents: copy.parents,
        timestamp: running.timestamp(),
    })
}

/// Refuses what is not copied yet or cannot be.
fn check_sources(transfer: &Transfer, copy: &Copy, add: bool) -> Result<(), Problem> {
    if let Some(source) = transfer
        .sources
        .iter()
        .find(|source| path::is_remote(source))
    {
        return Err(match (add, path::is_git(source)) {
            (false, true) => Problem::Invalid("source can't be a git ref for COPY".to_owned()),
            (false, false) => Problem::Invalid("source can't be a URL for COPY".to_owned()),
            (true, true) => Problem::Unsupported("ADD of a Git repository".to_owned()),
            (true, false) => Problem::Unsupported("ADD of a URL".to_owned()),
        });
    }
    let malformed = |source: &&String| path::is_malformed_pattern(source);
    if let Some(source) = transfer.sources.iter().find(malformed) {
        let problem = format!("invalid source {source:?}: syntax error in pattern");
        return Err(Problem::Invalid(problem));
    }
    if copy.heredocs.is_empty() && transfer.sources.is_empty() {
        return Err(Problem::Invalid("there is nothing to copy".to_owned()));
    }
    Ok(())
}

/// Where the files come from: another stage or the build context. `None` is an empty file system.
fn source(
    running: &mut Running<'_, '_>,
    copy: &Copy,
    transfer: &Transfer,
) -> Result<Option<Output>, Problem> {
    match running.sources.first().cloned().flatten() {
        Some(stage) if stage.done => return Ok(stage.output),
        Some(stage) => {
            let (from, current) = (stage.label, running.stage.label.clone());
            return Err(Problem::DefinedLater {
                what: "copy from",
                from,
                current,
            });
        }
        None if copy.from.is_some() => {
            return Err(Problem::Invalid("cannot copy from there".to_owned()));
        }
        None => {}
    }
    let mut context = None;
    for path in &transfer.sources {
        context = Some(running.work.use_context(path));
    }
    Ok(context)
}

/// The content of a heredoc that becomes a file: variables are expanded, quotes are left alone.
fn expand_heredoc(running: &mut Running<'_, '_>, text: &str) -> Result<String, Problem> {
    let how = Expander::new('\\').ignore_quotes();
    running
        .work
        .expand_with(how, text, &running.stage.state.env)
        .map(|found| found.text)
}

impl Transfer {
    fn message(&self, owner_input: i64) -> pb::FileActionCopy {
        let (mode, mode_str) = match &self.mode {
            None => (-1, String::new()),
            Some(Mode::Octal(mode)) => (*mode as i32, String::new()),
            Some(Mode::Symbolic(text)) => (-1, text.clone()),
        };
        pb::FileActionCopy {
            dest: self.destination.clone(),
            owner: self.chown.as_ref().map(|chown| owner(chown, owner_input)),
            mode,
            mode_str,
            create_dest_path: true,
            timestamp: self.timestamp,
            exclude_patterns: self.exclude.clone(),
            ..Default::default()
        }
    }

    /// The action for a path of the context or of another stage.
    fn of_path(&self, path: &str, owner_input: i64) -> pb::FileActionCopy {
        let mut action = pb::FileActionCopy {
            src: normalize("/", path, false),
            follow_symlink: true,
            dir_copy_contents: true,
            attempt_unpack_docker_compatibility: self.unpack,
            allow_wildcard: true,
            allow_empty_wildcard: true,
            ..self.message(owner_input)
        };
        if self.parents {
            // What stands before `/./` is not repeated at the destination.
            let (pivot, pattern) = path.split_once("/./").unwrap_or(("/", path));
            let pattern = normalize("/", pattern, false);
            action.src = normalize("/", pivot, false);
            if !has_wildcards(pivot) && !has_wildcards(&pattern) {
                action.required_paths = vec![normalize(
                    &action.src,
                    pattern.trim_start_matches('/'),
                    false,
                )];
            }
            action.include_patterns = vec![pattern.trim_start_matches('/').to_owned()];
        }
        action
    }

    fn of_heredoc(&self, path: &str, owner_input: i64) -> pb::FileActionCopy {
        pb::FileActionCopy {
            src: path.to_owned(),
            ..self.message(owner_input)
        }
    }
}

fn add_file(
    running: &mut Running<'_, '_>,
    actions: Actions,
    name: &str,
    group: Option<pb::ProgressGroup>,
) -> Result<Output, Problem> {
    let patterns = actions
        .actions
        .iter()
        .any(|(_, a)| !a.include_patterns.is_empty() || !a.exclude_patterns.is_empty());
    let symbolic = actions
        .actions
        .iter()
        .any(|(_, action)| !action.mode_str.is_empty());
    let size = name.len()
        + actions
            .actions
            .iter()
            .map(|(_, a)| 64 + a.src.len() + a.dest.len())
            .sum::<usize>();
    let (op, inputs) = actions.finish();
    let mut node = Node::new(pb::op::Op::File(op))
        .inputs(inputs)
        .name(name)
        .ignore_cache(running.stage.ignore_cache)
        .cap("file.base")
        .location(running.lines.to_pb());
    if patterns {
        node = node.cap("file.copy.includeexcludepatterns");
    }
    if symbolic {
        node = node.cap("file.copy.modestring");
    }
    if let Some(group) = group {
        node = node.progress_group(group);
    }
    running.work.add(node, size)
}

/// `--link`: the files on an empty file system, put on top of what there is. Both steps are shown as one.
fn link(
    running: &mut Running<'_, '_>,
    actions: Actions,
    name: &str,
    text: &str,
) -> Result<Output, Problem> {
    // The id only has to be the same for both and different from others.
    let id = Digest::of(format!(
        "link {name} {:?} {}",
        running.lines, running.target.platform
    ))
    .hex();
    let group = |weak| pb::ProgressGroup {
        id: id.clone(),
        name: name.to_owned(),
        weak,
    };
    let files = add_file(running, actions, name, Some(group(true)))?;
    let Some(base) = running.stage.state.output else {
        return Ok(files);
    };
    let platform = running.platform();
    let env = &running.stage.state.env;
    let merged = running
        .stage
        .numbering
        .again(&format!("LINK {text}"), Some(&platform), env);
    let inputs = (0..2).map(|input| pb::MergeInput { input }).collect();
    let node = Node::new(pb::op::Op::Merge(pb::MergeOp { inputs }))
        .inputs([base, files])
        .name(merged)
        .ignore_cache(running.stage.ignore_cache)
        .progress_group(group(false))
        .cap("mergeop")
        .location(running.lines.to_pb());
    running.work.add(node, 2 * name.len())
}

fn history(transfer: &Transfer, copy: &Copy, add: bool) -> String {
    let mut text = String::from(if add { "ADD" } else { "COPY" });
    if transfer.parents {
        text += " --parents";
    }
    if let Some(chown) = &transfer.chown {
        text += &format!(" --chown={chown}");
    }
    if let Some(chmod) = &transfer.chmod {
        text += &format!(" --chmod={chmod}");
    }
    for source in &transfer.sources {
        text += &format!(" {source}");
    }
    for heredoc in &copy.heredocs {
        text += &format!(" <<{}", heredoc.name);
    }
    text + &format!(" {} # buildkit", transfer.written_destination)
}
