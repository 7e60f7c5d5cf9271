//! `cargo xtask setup`: the programs that the demo and the tests need, installed where they are missing.
//!
//! What runs on the machine anyway (a container runtime, emulators, readers of images) is installed by apt. What would
//! start a service or is too old in the release is unpacked into `target/peers/` and never installed.

use std::path::{Path, PathBuf};

use crate::command::{find, say};
use crate::debian::{Fetch, Os, fetch, install};

/// A program, and the package that has it.
const INSTALLED: [(&str, &str); 12] = [
    ("runc", "runc"),
    ("qemu-aarch64-static", "qemu-user-static"),
    ("busybox", "busybox-static"),
    ("skopeo", "skopeo"),
    ("umoci", "umoci"),
    ("ip", "iproute2"),
    ("iptables", "iptables"),
    ("nft", "nftables"),
    ("systemd-analyze", "systemd"),
    ("bzip2", "bzip2"),
    ("xz", "xz-utils"),
    ("zstd", "zstd"),
];

/// The packages of [`INSTALLED`].
pub(crate) fn packages() -> Vec<&'static str> {
    INSTALLED.map(|(_, package)| package).into()
}

/// Debian's testing suite; it has a docker-buildx that is new enough, which needs nothing but libc.
const TESTING: &str = "testing";

/// Where programs lie that are not installed.
pub(crate) fn peers(root: &Path) -> PathBuf {
    root.join("target/peers")
}

/// The real client of the demo and the tests.
pub(crate) fn buildx(root: &Path) -> PathBuf {
    peers(root).join("usr/libexec/docker/cli-plugins/docker-buildx")
}

/// The registry of the demo and the tests.
pub(crate) fn docker_registry(root: &Path) -> PathBuf {
    peers(root).join("usr/bin/docker-registry")
}

/// The static busybox of an architecture, by Debian's name of it.
pub(crate) fn busybox(root: &Path, architecture: &str) -> PathBuf {
    peers(root).join(architecture).join("bin/busybox")
}

/// Installs and unpacks what is missing; does nothing when all is there.
///
/// # Errors
/// Neither Debian nor Ubuntu, no right to install, or apt fails.
pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    let missing: Vec<&str> = INSTALLED
        .into_iter()
        .filter(|(program, _)| find(program).is_none())
        .map(|(_, package)| package)
        .collect();
    if !missing.is_empty() {
        say(format_args!("installing {}", missing.join(", ")));
        install(&missing)?;
    }
    unpack_missing(root)
}

/// Unpacks the engine that ours is compared with, and the containerd that it starts.
///
/// # Errors
/// Neither Debian nor Ubuntu, or apt fails.
pub(crate) fn unpack_reference(root: &Path) -> anyhow::Result<()> {
    let wanted = |suite, packages, file: &str| Missing {
        suite,
        architecture: None,
        packages,
        into: peers(root),
        file: peers(root).join(file),
    };
    wanted(Some(TESTING), &["docker.io"], "usr/sbin/dockerd").unpack()?;
    if find("containerd").is_none() {
        wanted(None, &["containerd"], "usr/bin/containerd").unpack()?;
    }
    Ok(())
}

/// Unpacks Debian's (or Ubuntu's) essential packages of both architectures, each into a root file system, `root-amd64` and
/// `root-arm64`: base images for the bench.
///
/// # Errors
/// Neither Debian nor Ubuntu, or apt fails.
pub(crate) fn unpack_roots(root: &Path) -> anyhow::Result<()> {
    for architecture in ["amd64", "arm64"] {
        let into = peers(root).join(format!("root-{architecture}"));
        if into.exists() {
            continue;
        }
        let os = Os::of_this_machine()?;
        let part = into.with_extension("part");
        let wanted = Fetch {
            known_suite: &os.codename,
            suite: &os.codename,
            architecture: Some(architecture),
            packages: &["?essential"],
            dependencies: true,
        };
        fetch(&wanted, &part)?;
        // Its presence says that it is whole.
        std::fs::rename(&part, &into)?;
    }
    Ok(())
}

fn unpack_missing(root: &Path) -> anyhow::Result<()> {
    let wanted = |suite, architecture, packages, into: PathBuf, file: PathBuf| Missing {
        suite,
        architecture,
        packages,
        into,
        file,
    };
    let peers = peers(root);
    let mut list = vec![
        wanted(
            None,
            None,
            &["docker-registry"],
            peers.clone(),
            docker_registry(root),
        ),
        wanted(
            Some(TESTING),
            None,
            &["docker-buildx"],
            peers.clone(),
            buildx(root),
        ),
    ];
    for architecture in ["amd64", "arm64"] {
        list.push(wanted(
            None,
            Some(architecture),
            &["busybox-static"],
            peers.join(architecture),
            busybox(root, architecture),
        ));
    }
    list.iter().try_for_each(Missing::unpack)
}

/// Packages to unpack unless a file of theirs is there.
struct Missing {
    /// Debian's suite; none: the machine's own. Ubuntu always takes its own, whose docker-buildx is new enough.
    suite: Option<&'static str>,
    architecture: Option<&'static str>,
    packages: &'static [&'static str],
    into: PathBuf,
    file: PathBuf,
}

impl Missing {
    fn unpack(&self) -> anyhow::Result<()> {
        if self.file.exists() {
            return Ok(());
        }
        let os = Os::of_this_machine()?;
        let suite = self.suite.filter(|_| os.id == "debian");
        let wanted = Fetch {
            known_suite: &os.codename,
            suite: suite.unwrap_or(&os.codename),
            architecture: self.architecture,
            packages: self.packages,
            dependencies: false,
        };
        fetch(&wanted, &self.into)?;
        anyhow::ensure!(
            self.file.exists(),
            "{} unpacked, but there is no {}",
            self.packages.join(", "),
            self.file.display()
        );
        Ok(())
    }
}
