//! COPY and ADD.

use bollard_buildkit_proto::pb;
use buildyard_llb::build::{Node, Output};
use buildyard_model::Digest;

use super::chmod::{self, Mode};
use super::name::uppercase_keyword;
use super::run::inline_file;
use super::stage::Running;
use crate::error::Problem;
use crate::expand::Expander;
use crate::ignore::clean_path;
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
    if checksum.is_some() && !sources.iter().any(|source| is_remote(source)) {
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
    for source in transfer.sources.iter().filter(|source| is_remote(source)) {
        let git =
            !source.starts_with("http://") && !source.starts_with("https://") || is_git(source);
        return Err(match (add, git) {
            (false, true) => Problem::Invalid("source can't be a git ref for COPY".to_owned()),
            (false, false) => Problem::Invalid("source can't be a URL for COPY".to_owned()),
            (true, true) => Problem::Unsupported("ADD of a Git repository".to_owned()),
            (true, false) => Problem::Unsupported("ADD of a URL".to_owned()),
        });
    }
    if copy.heredocs.is_empty() && transfer.sources.is_empty() {
        return Err(Problem::Invalid("there is nothing to copy".to_owned()));
    }
    Ok(())
}

fn is_git(source: &str) -> bool {
    let path = source.split(['#', '?']).next().unwrap_or_default();
    path.ends_with(".git") || path.contains(".git/")
}

fn is_remote(source: &str) -> bool {
    let scp = |text: &str| {
        let (user, rest) = text.split_once('@')?;
        let (host, _) = rest.split_once(':')?;
        let word = |text: &str| {
            !text.is_empty()
                && text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        };
        (word(user) && word(host)).then_some(())
    };
    ["http://", "https://", "git://", "ssh://"]
        .iter()
        .any(|scheme| source.starts_with(scheme))
        || scp(source).is_some()
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

/// Actions of one operation; each works on the outcome of the one before.
#[derive(Default)]
struct Actions {
    inputs: Vec<Output>,
    has_base: bool,
    actions: Vec<(Option<usize>, pb::FileActionCopy)>,
}

impl Actions {
    fn base(&mut self, base: Option<Output>) {
        self.has_base = base.is_some();
        self.inputs.extend(base);
    }

    fn copy(&mut self, source: Option<Output>, action: pb::FileActionCopy) {
        let input =
            source.map(
                |source| match self.inputs.iter().position(|&input| input == source) {
                    Some(number) => number,
                    None => {
                        self.inputs.push(source);
                        self.inputs.len() - 1
                    }
                },
            );
        self.actions.push((input, action));
    }

    /// Numbers: an input, -1 for an empty file system, or, counted on from the inputs, the outcome of an action.
    fn finish(self) -> (pb::FileOp, Vec<Output>) {
        let (inputs, count) = (self.inputs.len(), self.actions.len());
        let number = |number: usize| number as i64;
        let actions = self
            .actions
            .into_iter()
            .enumerate()
            .map(|(at, (source, action))| pb::FileAction {
                input: match at {
                    0 => {
                        if self.has_base {
                            0
                        } else {
                            -1
                        }
                    }
                    _ => number(inputs + at - 1),
                },
                secondary_input: source.map_or(-1, number),
                output: if at + 1 == count { 0 } else { -1 },
                action: Some(pb::file_action::Action::Copy(action)),
            });
        (
            pb::FileOp {
                actions: actions.collect(),
            },
            self.inputs,
        )
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

/// `user[:group]`, each a number or a name; `root` is 0. Names are looked up in the file system of `input`.
pub(super) fn owner(text: &str, input: i64) -> pb::ChownOpt {
    let one = |name: &str| {
        let id = if name == "root" {
            Some(0)
        } else {
            name.parse::<i32>().ok()
        };
        let user = match id {
            Some(id) => pb::user_opt::User::ById(id as u32),
            None if name.is_empty() => pb::user_opt::User::ById(0),
            None => pb::user_opt::User::ByName(pb::NamedUserOpt {
                name: name.to_owned(),
                input,
            }),
        };
        pb::UserOpt { user: Some(user) }
    };
    let (user, group) = text
        .split_once(':')
        .map_or((text, None), |(user, group)| (user, Some(group)));
    pb::ChownOpt {
        user: Some(one(user)),
        group: group.map(one),
    }
}

/// An absolute path without `.` and `..`, relative ones taken from `parent`. `keep_slash` keeps what says "a directory" at
/// the end: `/` and `/.`.
pub(super) fn normalize(parent: &str, path: &str, keep_slash: bool) -> String {
    let joined = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("{parent}/{path}")
    };
    let mut clean = clean_path(&format!("/{}", joined.trim_start_matches('/')));
    if keep_slash && clean != "/" {
        if path.ends_with('/') {
            clean.push('/');
        } else if path.ends_with("/.") {
            clean.push_str("/.");
        }
    }
    clean
}

fn has_wildcards(path: &str) -> bool {
    let mut chars = path.chars();
    while let Some(c) = chars.next() {
        match c {
            '*' | '?' | '[' => return true,
            '\\' => drop(chars.next()),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_made_absolute() {
        let check = |parent, path, keep, expected| {
            assert_eq!(
                normalize(parent, path, keep),
                expected,
                "{parent:?} {path:?}"
            );
        };
        check("/", "a/", false, "/a");
        check("/", ".", false, "/");
        check("/", "../a", false, "/a");
        check("/w", "", false, "/w");
        check("/w", "a", true, "/w/a");
        check("/w", "./", true, "/w/");
        check("/w", "/x/", true, "/x/");
        check("/w", "/x/.", true, "/x/.");
        check("/w", "/", true, "/");
        check("/w", "../..", true, "/");
        check("/w", "//x", true, "/x");
    }

    #[test]
    fn remote_sources_are_told_from_paths() {
        for source in [
            "http://a",
            "https://a/b.git",
            "git://a",
            "ssh://git@a/b",
            "git@host:a/b.git",
        ] {
            assert!(is_remote(source), "{source}");
        }
        for source in ["a", "a@b", "./a@b:c/d", "github.com/a/b", "http:/a"] {
            assert!(!is_remote(source), "{source}");
        }
    }

    #[test]
    fn owners_are_numbers_or_names() {
        use pb::user_opt::User::{ById, ByName};
        let check = |text: &str, user: pb::user_opt::User, group: Option<pb::user_opt::User>| {
            let found = owner(text, 3);
            assert_eq!(found.user.and_then(|user| user.user), Some(user), "{text}");
            assert_eq!(found.group.and_then(|group| group.user), group, "{text}");
        };
        let name = |name: &str| {
            ByName(pb::NamedUserOpt {
                name: name.to_owned(),
                input: 3,
            })
        };
        check("1000", ById(1000), None);
        check("1:2", ById(1), Some(ById(2)));
        check("root:www", ById(0), Some(name("www")));
        check("app", name("app"), None);
    }
}
