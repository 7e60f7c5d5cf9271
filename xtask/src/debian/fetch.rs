//! Unpacks packages into a folder: of another release, or of another architecture, without installing them.
//!
//! apt gets a configuration of its own in a temporary folder, so the machine's lists and settings stay as they are.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use super::sources::{self, Source};
use crate::command::{execute, output, say};

/// Which packages, and from where.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fetch<'a> {
    /// The suite whose source the machine has; its server and keys are used.
    pub(crate) known_suite: &'a str,
    /// The suite to take the packages from.
    pub(crate) suite: &'a str,
    /// Debian's name of the architecture; none: the machine's.
    pub(crate) architecture: Option<&'a str>,
    /// The packages' names.
    pub(crate) packages: &'a [&'a str],
    /// With all that they depend on; `packages` may be patterns then (apt-patterns(7)).
    pub(crate) dependencies: bool,
}

/// Unpacks them into `into`.
///
/// # Errors
/// The machine has no such source, or a package cannot be had.
pub(crate) fn fetch(wanted: &Fetch<'_>, into: &Path) -> anyhow::Result<()> {
    say(format_args!(
        "fetching {} of {} into {}",
        wanted.packages.join(", "),
        wanted.suite,
        into.display()
    ));
    let native;
    let architecture = match wanted.architecture {
        Some(name) => name,
        None => {
            native = output(Command::new("dpkg").arg("--print-architecture"))?;
            native.trim()
        }
    };
    let source = sources::of_suite(wanted.known_suite)?;
    let work = tempfile::tempdir().context("making a folder for apt")?;
    let apt = PrivateApt::new(work.path(), &source, wanted.suite, architecture)?;
    execute(apt.command().arg("update"))?;
    let debs = match wanted.dependencies {
        true => {
            let install = [
                "--yes",
                "--no-install-recommends",
                "--download-only",
                "install",
            ];
            execute(apt.command().args(install).args(wanted.packages))?;
            work.path().join("cache/archives")
        }
        false => {
            let debs = work.path().join("debs");
            let mut download = apt.command();
            download.arg("download").args(wanted.packages);
            execute(download.current_dir(&debs))?;
            debs
        }
    };
    unpack(&debs, into)
}

fn unpack(debs: &Path, into: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(into).with_context(|| format!("making {}", into.display()))?;
    let listed = fs::read_dir(debs).context("reading what apt downloaded")?;
    let files: Vec<_> = listed
        .map(|entry| Ok(entry?.path()))
        .filter(|file| file.as_ref().map_or(true, |file| is_package(file)))
        .collect::<std::io::Result<_>>()?;
    if files.is_empty() {
        bail!("apt downloaded nothing");
    }
    for file in files {
        execute(Command::new("dpkg").arg("-x").arg(file).arg(into))?;
    }
    Ok(())
}

/// apt keeps a lock and a folder beside them.
fn is_package(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "deb")
}

/// apt with lists, caches and sources of its own.
struct PrivateApt {
    config: PathBuf,
}

impl PrivateApt {
    fn new(work: &Path, source: &Source, suite: &str, architecture: &str) -> anyhow::Result<Self> {
        for dir in ["lists/partial", "cache/archives/partial", "debs"] {
            fs::create_dir_all(work.join(dir)).context("making folders for apt")?;
        }
        fs::set_permissions(work, fs::Permissions::from_mode(0o755))?;
        let signed_by = match &source.signed_by {
            Some(file) => format!(" signed-by={file}"),
            None => String::new(),
        };
        let line = format!(
            "deb [arch={architecture}{signed_by}] {} {suite} main universe\n",
            source.uri
        );
        // Debian has no part called universe, and apt only warns of an unknown one; Ubuntu keeps docker-buildx there.
        let line = if source.uri.contains("ubuntu") {
            line
        } else {
            line.replace(" universe", "")
        };
        fs::write(work.join("sources.list"), line).context("writing apt's sources")?;
        fs::write(work.join("status"), "").context("writing apt's status")?;
        let config = work.join("apt.conf");
        fs::write(&config, apt_config(work, architecture))
            .context("writing apt's configuration")?;
        Ok(Self { config })
    }

    fn command(&self) -> Command {
        let mut command = Command::new("apt-get");
        command.arg("--quiet=2").env("APT_CONFIG", &self.config);
        command
    }
}

/// apt.conf(5); read after the machine's own settings, so a proxy set there is used.
fn apt_config(work: &Path, architecture: &str) -> String {
    let work = work.display();
    format!(
        "Dir::Etc::sourcelist \"{work}/sources.list\";\n\
         Dir::Etc::sourceparts \"-\";\n\
         Dir::State::lists \"{work}/lists\";\n\
         Dir::State::status \"{work}/status\";\n\
         Dir::Cache \"{work}/cache\";\n\
         APT::Architecture \"{architecture}\";\n\
         #clear APT::Architectures;\n\
         APT::Architectures {{ \"{architecture}\"; }};\n\
         APT::Sandbox::User \"root\";\n\
         Acquire::Languages \"none\";\n\
         Acquire::Retries \"3\";\n"
    )
}
