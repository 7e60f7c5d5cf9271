//! Foreign programs on this machine.

use std::os::unix::fs::symlink;
use std::process::Command;

use super::*;
use crate::runner::{Exit, User};
use crate::snapshots::Snapshotter;
use crate::testing::{Machine, arm64_busybox, fill_with_busybox};

fn platforms() -> Platforms {
    probe(&EmulationConfig {
        search: vec!["/usr/bin".into()],
        ..EmulationConfig::default()
    })
}

fn names(platforms: &Platforms) -> (Vec<String>, Vec<String>) {
    let native = platforms.native.iter().map(ToString::to_string).collect();
    (
        native,
        platforms
            .emulated
            .iter()
            .map(|(platform, _)| platform.to_string())
            .collect(),
    )
}

#[test]
fn every_platform_that_is_named_has_run_a_program() {
    let platforms = platforms();
    let (native, emulated) = names(&platforms);
    assert!(
        native.contains(&Platform::native().to_string()),
        "{native:?}"
    );
    let expected = [
        "arm64", "arm/v7", "arm/v6", "riscv64", "ppc64le", "s390x", "mips64le", "loong64",
    ];
    let expected: Vec<String> = expected
        .iter()
        .map(|name| format!("linux/{name}"))
        .collect();
    let missing: Vec<_> = expected
        .iter()
        .filter(|name| !native.contains(name) && !emulated.contains(name))
        .collect();
    assert!(
        missing.is_empty(),
        "missing {missing:?}; {:?}",
        platforms.problems
    );
    assert_eq!(
        platforms
            .emulator(&Platform::native())
            .map(|emulator| emulator.is_some()),
        Some(false)
    );
    assert!(
        platforms
            .emulator(&Platform::new("linux", "sparc64", ""))
            .is_none()
    );
}

#[test]
fn without_emulators_there_are_only_native_platforms() {
    let platforms = probe(&EmulationConfig {
        disabled: true,
        ..EmulationConfig::default()
    });
    assert!(!platforms.native.is_empty());
    assert!(platforms.emulated.is_empty());
}

/// A folder in which `program` is the emulator of every architecture that does not run here without.
fn emulators(program: &Path) -> (tempfile::TempDir, Vec<&'static Architecture>) {
    let dir = tempfile::tempdir().unwrap();
    let foreign = ARCHITECTURES
        .iter()
        .filter(|architecture| trial::run(architecture, None).is_err());
    let foreign: Vec<_> = foreign.collect();
    for architecture in &foreign {
        symlink(program, dir.path().join(architecture.emulator)).unwrap();
    }
    (dir, foreign)
}

/// A program that ends as the trial's programs do, whatever it is given. Another process writes it: no other thread's
/// child can then hold it open for writing when the kernel opens it.
fn obliging_emulator(dir: &Path) -> PathBuf {
    let [bytes, program] = ["bytes", "program"].map(|name| dir.join(name));
    std::fs::write(&bytes, native_program().unwrap()).unwrap();
    let mut install = Command::new("install");
    install.args(["-m", "755"]).args([&bytes, &program]);
    assert!(install.status().unwrap().success());
    program
}

fn probe_with(search: &Path) -> Platforms {
    probe(&EmulationConfig {
        search: vec![search.to_owned()],
        ..EmulationConfig::default()
    })
}

#[test]
fn what_the_machine_has_registered_comes_first_and_then_a_namespace() {
    let place = tempfile::tempdir().unwrap();
    let (dir, foreign) = emulators(&obliging_emulator(place.path()));
    let platforms = probe_with(dir.path());
    assert_eq!(platforms.problems, Vec::<String>::new());
    for (platform, emulator) in &platforms.emulated {
        let is_foreign = foreign
            .iter()
            .any(|architecture| architecture.emulator == emulator.name);
        let (kind, in_namespace) = if is_foreign {
            (EmulatorKind::UserNamespace, true)
        } else {
            (EmulatorKind::Registered, false)
        };
        assert_eq!(emulator.kind, kind, "{platform}");
        assert_eq!(emulator.namespace.is_some(), in_namespace, "{platform}");
    }
    for architecture in foreign {
        for (name, variant) in architecture.platforms {
            let platform = Platform::new("linux", name, variant);
            assert!(platforms.emulator(&platform).is_some(), "{platform}");
        }
        // The machine itself is as it was.
        assert!(trial::run(architecture, None).is_err());
    }
}

#[test]
fn what_works_nowhere_else_is_not_registered_with_the_machine_unless_that_is_allowed() {
    // Started as an emulator it knows no such applet.
    let (dir, foreign) = emulators(Path::new("/bin/busybox"));
    let platforms = probe_with(dir.path());
    for architecture in foreign {
        let name = architecture.emulator;
        assert!(
            platforms
                .emulated
                .iter()
                .all(|(_, emulator)| emulator.name != name),
            "{name}"
        );
        let tried = format!("{} in a user namespace: ", dir.path().join(name).display());
        let advice = format!("{name} is not used: ");
        let says = |start: &str, text: &str| {
            let mut all = platforms.problems.iter();
            all.any(|problem| problem.starts_with(start) && problem.contains(text))
        };
        assert!(says(&tried, "ended with"), "{:?}", platforms.problems);
        assert!(
            says(&advice, "--allow-host-binfmt"),
            "{:?}",
            platforms.problems
        );
        assert!(trial::run(architecture, None).is_err());
    }
}

#[tokio::test]
async fn a_step_of_arm64_runs() {
    let platforms = platforms();
    let Some(Some(emulator)) = platforms.emulator(&Platform::new("linux", "arm64", "")) else {
        panic!("arm64 is not emulated here: {:?}", platforms.problems);
    };
    let machine = Machine::new();
    let busybox = arm64_busybox();
    let chain = [machine.layer("arm64", |dir| fill_with_busybox(dir, &busybox))];
    let upper = machine.snapshots.new_upper(&chain).unwrap();
    let script = "uname -m; id -u; echo $0; cat /proc/self/uid_map; echo x > /dev/null; grep -c . /etc/hosts; \
                  echo > /sys/kernel/profiling; echo $?; echo y > mine && stat -c %u:%g mine";
    let mut spec = machine.spec(&chain, &upper, script);
    spec.process.user = User {
        uid: 1000,
        gid: 1001,
        additional_gids: vec![1001],
    };
    spec.process.cwd = "/tmp/made".to_owned();
    emulator.apply(&mut spec);
    let (ran, stdout, stderr) = machine.run_spec(spec, Default::default()).await.unwrap();
    assert_eq!(ran.exit, Exit::Code(0), "{stdout}{stderr}");
    let expected = "aarch64\n1000\n/bin/sh\n         0          0 4294967295\n1\n1\n1000:1001\n";
    assert_eq!(stdout, expected, "{stderr}");
    assert_eq!(
        std::fs::read_to_string(upper.dir().join("tmp/made/mine")).unwrap(),
        "y\n"
    );
}
