//! The projects in `tests/dockerfiles`: each a context with its Dockerfile, as anybody may build it with `--build-arg BASE=IMAGE`.
//!
//! A project's arguments are in `projects.json`. What git does not keep (archives, times) a script beside the project,
//! `NAME.sh`, makes in a copy of the context. The word `BASE_IMAGE` in a Dockerfile stands where no variable may.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Scratch;
use crate::compare::Facts;

/// The time that every file of a context has: 2021-01-01.
const TIME: &str = "@1609459200";

/// One project.
#[derive(Debug, Clone)]
pub struct Project {
    /// Its folder's name; those that fail begin with `failing/`.
    pub name: String,
    args: Vec<String>,
}

impl Project {
    /// All that build, by name.
    pub fn good() -> Vec<Self> {
        Self::below("")
    }

    /// All that fail, by name.
    pub fn failing() -> Vec<Self> {
        Self::below("failing/")
    }

    fn below(prefix: &str) -> Vec<Self> {
        let args =
            fs::read_to_string(corpus().join("projects.json")).expect("reading projects.json");
        let mut args: BTreeMap<String, Vec<String>> =
            serde_json::from_str(&args).expect("arguments by project");
        let mut projects: Vec<Self> = fs::read_dir(corpus().join(prefix))
            .expect("reading the folder of the projects")
            .map(|entry| entry.expect("reading the folder of the projects"))
            .filter(|entry| entry.path().is_dir())
            .map(|entry| format!("{prefix}{}", entry.file_name().to_string_lossy()))
            .filter(|name| name != "failing")
            .map(|name| Self {
                args: args.remove(&name).unwrap_or_default(),
                name,
            })
            .collect();
        projects.sort_by(|a, b| a.name.cmp(&b.name));
        projects
    }

    /// The facts that the reference's image has, as they were recorded.
    ///
    /// # Panics
    /// They were not recorded.
    pub fn expected(&self) -> Facts {
        let text = fs::read_to_string(self.expectations());
        serde_json::from_str(&text.expect("reading what is expected")).expect("facts in JSON")
    }

    /// Writes down the facts that its image is to have: all but those about single layers and the times of folders.
    ///
    /// # Panics
    /// They cannot be written.
    pub fn record(&self, facts: &Facts) {
        let kept = facts.iter().filter(|(name, _)| is_recorded(name));
        let kept: BTreeMap<_, _> = kept.collect();
        let mut text = serde_json::to_string_pretty(&kept).expect("facts are text");
        text.push('\n');
        fs::write(self.expectations(), text).expect("writing what is expected");
    }

    /// How each of the failing ones ends with our engine, as it was recorded.
    ///
    /// # Panics
    /// It was not recorded.
    pub fn errors() -> BTreeMap<String, String> {
        let text = fs::read_to_string(errors()).expect("reading what fails how");
        serde_json::from_str(&text).expect("errors by project")
    }

    /// Writes down how failing ones end.
    ///
    /// # Panics
    /// It cannot be written.
    pub fn record_errors(ours: &BTreeMap<String, String>) {
        let mut all = match errors().is_file() {
            true => Self::errors(),
            false => BTreeMap::new(),
        };
        all.extend(ours.clone());
        let mut text = serde_json::to_string_pretty(&all).expect("errors are text");
        text.push('\n');
        fs::write(errors(), text).expect("writing what fails how");
    }

    fn expectations(&self) -> PathBuf {
        corpus().join(format!("{}.expected.json", self.name))
    }

    /// A copy of the context that is the same on every machine: modes, times, and what the script makes.
    ///
    /// # Panics
    /// It cannot be copied, or its script fails.
    pub fn checkout(&self, base: &str) -> Checkout {
        let dir = Scratch::new();
        let from = corpus().join(&self.name);
        run(Command::new("cp").arg("-rT").arg(&from).arg(dir.path()));
        let script = from.with_extension("sh");
        if script.is_file() {
            let mut shell = Command::new("sh");
            run(shell
                .args(["-eu", "-c", "umask 022; . \"$0\""])
                .arg(script)
                .current_dir(dir.path()));
        }
        settle(dir.path(), base);
        Checkout {
            dir,
            args: self.args.clone(),
        }
    }
}

/// A project's context, ready to be built.
#[derive(Debug)]
pub struct Checkout {
    dir: Scratch,
    args: Vec<String>,
}

impl Checkout {
    /// Where it is: buildx is to be run there.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The arguments of `buildx build` without those for the output and the platform.
    pub fn args(&self, base: &str) -> Vec<String> {
        let mut args = vec!["--build-arg".to_owned(), format!("BASE={base}")];
        args.extend(self.args.iter().cloned());
        args.push(".".to_owned());
        args
    }
}

/// The folder of the projects.
pub(crate) fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("dockerfiles")
}

fn errors() -> PathBuf {
    corpus().join("failing/errors.json")
}

/// Whether a fact is recorded: those about single layers and the times of folders are not.
pub fn is_recorded(fact: &str) -> bool {
    !fact.starts_with("layer ") && !fact.starts_with("time of ")
}

/// The last words of a failed build: the same on every run, whatever ids and ports it had.
pub fn last_words(stderr: &str, base: &str) -> String {
    let errors = stderr.lines().filter(|line| line.starts_with("ERROR: "));
    let text = errors.collect::<String>().replace(base, "BASE");
    let Some((before, rest)) = text.split_once(" of ref ") else {
        return text;
    };
    let end = rest.find(": ").unwrap_or(rest.len());
    format!("{before} of ref ID{}", &rest[end..])
}

/// Gives every file the modes that git knows and one time, and puts the base image's name in.
fn settle(dir: &Path, base: &str) {
    for entry in fs::read_dir(dir).expect("reading a context") {
        let path = entry.expect("reading a context").path();
        let meta = path.symlink_metadata().expect("reading a context");
        if meta.is_symlink() {
            continue;
        }
        if meta.is_dir() {
            settle(&path, base);
        } else if path.to_string_lossy().ends_with("Dockerfile") {
            let text = fs::read_to_string(&path).expect("reading a Dockerfile");
            fs::write(&path, text.replace("BASE_IMAGE", base)).expect("writing a Dockerfile");
        }
        let executable = meta.is_dir() || meta.permissions().mode() & 0o100 != 0;
        let mode = if executable { 0o755 } else { 0o644 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("setting a mode");
    }
    run(Command::new("find")
        .arg(dir)
        .args(["-exec", "touch", "-h", "-d", TIME, "{}", "+"]));
}

fn run(command: &mut Command) {
    let status = command.status().expect("running a program");
    assert!(status.success(), "{command:?}: {status}");
}
