//! Which platforms this machine can run, and how.
//!
//! A platform counts only after a program of it has run here: a few instructions in an ELF file, made in `elf.rs`, in an
//! otherwise empty root directory. Native platforms are those of the processor; the others run through QEMU's user mode
//! emulators, which the kernel starts by `binfmt_misc`:
//!
//! 1. by a registration that the machine has already, if it works in a root without the emulator (flag `F`);
//! 2. by one of the worker's own in a user namespace (Linux 6.7): steps of the platform then run in that namespace,
//!    which maps every id to itself, and the machine is left as it was;
//! 3. by registering with the machine, where that is allowed.
//!
//! What is not done here: choosing who runs a step, and labelling it as emulated.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use buildyard_model::Platform;

use crate::runner::{ContainerSpec, UserNamespace};

mod architecture;
mod elf;
mod host;
mod namespace;
mod native;
#[cfg(test)]
mod tests;
mod trial;

use architecture::{ARCHITECTURES, Architecture};

/// How to look for platforms.
#[derive(Debug, Clone, Default)]
pub struct EmulationConfig {
    /// Directories with QEMU's static emulators; without any, those of the `PATH` that the caller knows.
    pub search: Vec<PathBuf>,
    /// Whether emulators may be registered with the machine itself, for all its users.
    pub register_on_host: bool,
    /// Do not emulate at all.
    pub disabled: bool,
}

/// What this machine runs.
#[derive(Debug, Clone, Default)]
pub struct Platforms {
    /// By its processor, the usual one first.
    pub native: Vec<Platform>,
    /// By emulation.
    pub emulated: Vec<(Platform, Emulator)>,
    /// Why platforms for which there is an emulator cannot be run, for the worker's log.
    pub problems: Vec<String>,
}

impl Platforms {
    /// What is needed to run `platform`: `Some(None)` if nothing, `None` if it cannot be run.
    pub fn emulator(&self, platform: &Platform) -> Option<Option<&Emulator>> {
        if self.native.contains(platform) {
            return Some(None);
        }
        self.emulated
            .iter()
            .find(|(emulated, _)| emulated == platform)
            .map(|(_, emulator)| Some(emulator))
    }
}

impl Platforms {
    /// Leaves out what can only be run in a user namespace.
    pub(crate) fn without_user_namespaces(&mut self) {
        let before = self.emulated.len();
        self.emulated
            .retain(|(_, emulator)| emulator.kind != EmulatorKind::UserNamespace);
        if self.emulated.len() < before {
            let text = "emulators of the worker's own need steps in a user namespace, and these the program runc, which \
                        does not run here";
            self.problems.push(text.to_owned());
        }
    }
}

/// How a platform is emulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmulatorKind {
    /// By a registration that was there already.
    Registered,
    /// By the worker's own, in a user namespace.
    UserNamespace,
    /// By one that the worker made for the whole machine.
    HostRegistration,
}

/// Emulates one architecture.
#[derive(Debug, Clone)]
pub struct Emulator {
    /// How.
    pub kind: EmulatorKind,
    /// What to call it in logs and records: `qemu-aarch64`.
    pub name: &'static str,
    namespace: Option<UserNamespace>,
}

impl Emulator {
    /// Makes a container run with this emulator. The emulator itself needs nothing in the container's root: the kernel
    /// holds it open.
    pub fn apply(&self, spec: &mut ContainerSpec) {
        spec.user_namespace.clone_from(&self.namespace);
    }
}

/// Finds out what this machine runs. Starts short-lived programs; blocks for up to a few seconds.
pub fn probe(config: &EmulationConfig) -> Platforms {
    let mut platforms = Platforms::default();
    let mut foreign = Vec::new();
    let tried = trial::run_all(ARCHITECTURES, None);
    for (architecture, tried) in ARCHITECTURES.iter().zip(tried) {
        match tried {
            Ok(()) if native::is_native(architecture) => {
                platforms.native.extend(native::variants(architecture))
            }
            Ok(()) => add(&mut platforms, architecture, EmulatorKind::Registered, None),
            Err(_) => foreign.push(architecture),
        }
    }
    if config.disabled {
        platforms.emulated.clear();
        return platforms;
    }
    let found: Vec<(&Architecture, PathBuf)> = foreign
        .into_iter()
        .filter_map(|architecture| Some((architecture, find(architecture, &config.search)?)))
        .collect();
    let left = in_a_namespace(found, &mut platforms);
    if config.register_on_host {
        on_the_host(left, &mut platforms);
    } else {
        let words = "the worker may register it with the machine only where that is allowed (--allow-host-binfmt)";
        let problem = |(architecture, _): &(&Architecture, PathBuf)| {
            format!("{} is not used: {words}", architecture.emulator)
        };
        platforms.problems.extend(left.iter().map(problem));
    }
    platforms
}

fn add(
    platforms: &mut Platforms,
    architecture: &Architecture,
    kind: EmulatorKind,
    namespace: Option<&UserNamespace>,
) {
    let emulator = Emulator {
        kind,
        name: architecture.emulator,
        namespace: namespace.cloned(),
    };
    let names = architecture.platforms.iter();
    platforms.emulated.extend(
        names.map(|(name, variant)| (Platform::new("linux", name, variant), emulator.clone())),
    );
}

/// The static emulator of an architecture.
fn find(architecture: &Architecture, search: &[PathBuf]) -> Option<PathBuf> {
    let names = [
        format!("{}-static", architecture.emulator),
        architecture.emulator.to_owned(),
    ];
    let places = search
        .iter()
        .flat_map(|dir| names.iter().map(move |name| dir.join(name)));
    places.into_iter().find(|path| is_static(path))
}

/// Whether the file is a program that needs no libraries: with them it would look for them in the step's root.
fn is_static(path: &Path) -> bool {
    std::fs::File::open(path).is_ok_and(|mut file| elf::is_static(&mut file).unwrap_or(false))
}

/// Registers in a new user namespace. Returns the emulators with which that did not work.
fn in_a_namespace<'a>(
    found: Vec<(&'a Architecture, PathBuf)>,
    platforms: &mut Platforms,
) -> Vec<(&'a Architecture, PathBuf)> {
    if found.is_empty() {
        return found;
    }
    let lines: Vec<Vec<u8>> = found
        .iter()
        .map(|(architecture, path)| architecture.registration(path))
        .collect();
    let namespace = match namespace::create(&lines) {
        Ok(namespace) => namespace,
        Err(error) => {
            platforms.problems.push(format!(
                "registering emulators in a user namespace: {error}"
            ));
            return found;
        }
    };
    let architectures = found.iter().map(|(architecture, _)| *architecture);
    let tried = trial::run_all(architectures, Some(&namespace.user));
    let mut left = Vec::new();
    for ((architecture, path), tried) in found.into_iter().zip(tried) {
        match tried {
            Ok(()) => add(
                platforms,
                architecture,
                EmulatorKind::UserNamespace,
                Some(&namespace.user),
            ),
            Err(error) => {
                platforms
                    .problems
                    .push(format!("{} in a user namespace: {error}", path.display()));
                left.push((architecture, path));
            }
        }
    }
    left
}

fn on_the_host(found: Vec<(&Architecture, PathBuf)>, platforms: &mut Platforms) {
    for (architecture, path) in found {
        let tried =
            host::register(architecture, &path).and_then(|()| trial::run(architecture, None));
        match tried {
            Ok(()) => add(
                platforms,
                architecture,
                EmulatorKind::HostRegistration,
                None,
            ),
            Err(error) => platforms
                .problems
                .push(format!("registering {}: {error}", path.display())),
        }
    }
}

/// What [`native_program`] exits with.
pub(crate) const TRIAL_EXIT_CODE: i32 = trial::EXIT_CODE;

/// The smallest static program for this machine's own processor.
pub(crate) fn native_program() -> Option<Vec<u8>> {
    let mut all = ARCHITECTURES.iter();
    all.find(|architecture| native::is_native(architecture))
        .map(elf::program)
}

/// What keeps a user namespace and its registrations alive.
type Hold = Arc<dyn std::any::Any + Send + Sync>;
