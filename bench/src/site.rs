//! What all workloads of a run share: the registry, the base images, a folder, both engines.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use buildyard_tests::{Registry, Scratch, peers, push_archives, push_base_image};

use crate::args::BenchArgs;
use crate::binfmt;
use crate::engine::{Engine, Side};
use crate::files::Text;

/// Factors for sizes and counts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale(pub(crate) f64);

impl Scale {
    /// A count of a workload, times the scale, but not less than `least`.
    pub(crate) fn of(self, full: usize, least: usize) -> usize {
        ((full as f64 * self.0).round() as usize).max(least.min(full))
    }
}

/// A run's shared parts.
#[derive(Debug)]
pub(crate) struct Site {
    /// The scale of this run.
    pub(crate) scale: Scale,
    /// A base image for two platforms: busybox.
    pub(crate) busybox: String,
    /// The engines that run all the time; the reference is not there when ours is measured alone.
    pub(crate) engines: Vec<Engine>,
    /// Why the reference cannot run steps of the other platform.
    pub(crate) no_emulator: Option<String>,
    registry: Registry,
    timeout: Duration,
    debian: OnceCell<String>,
    scratch: Scratch,
}

impl Site {
    /// Starts everything.
    pub(crate) fn start(args: &BenchArgs) -> Self {
        let timeout = Duration::from_secs(args.timeout);
        let registered = if args.alone {
            Ok(())
        } else {
            binfmt::register()
        };
        let registry = Registry::start();
        let busybox = push_base_image(&registry);
        let reference = (!args.alone).then(|| Engine::start(Side::Reference, timeout));
        let ours = Engine::start(Side::Ours, timeout).loading_into(reference.as_ref());
        Self {
            scale: Scale(args.scale),
            busybox,
            engines: reference.into_iter().chain([ours]).collect(),
            no_emulator: registered.err().map(|error| format!("{error:#}")),
            registry,
            timeout,
            debian: OnceCell::new(),
            scratch: Scratch::new(),
        }
    }

    /// Another engine, with nothing in it.
    pub(crate) fn fresh(&self, side: Side) -> Engine {
        Engine::start(side, self.timeout)
    }

    /// A name to push to, one for each engine: neither finds what the other has pushed.
    pub(crate) fn name(&self, side: Side, image: &str) -> String {
        format!("{}/{}/{image}:latest", self.registry.host(), side.name())
    }

    /// Pushes an image of tar archives for this machine's architecture.
    pub(crate) fn push(&self, name: &str, layers: Vec<Vec<u8>>) -> String {
        let architecture = buildyard_tests::native_architecture();
        push_archives(&self.registry, name, &[(architecture, layers)])
    }

    /// A base image with Debian's essential packages, for two platforms.
    ///
    /// # Errors
    /// They were not unpacked.
    pub(crate) fn debian(&self) -> anyhow::Result<&str> {
        if self.debian.get().is_none() {
            let images = ["amd64", "arm64"]
                .map(|architecture| Ok((architecture, vec![root_of(architecture)?])))
                .into_iter()
                .collect::<anyhow::Result<Vec<_>>>()?;
            let name = push_archives(&self.registry, "base/debian:latest", &images);
            self.debian.get_or_init(|| name);
        }
        self.debian.get().map(String::as_str).context("it was set")
    }

    /// A folder for a build, with its Dockerfile.
    pub(crate) fn project(&self, name: &str, dockerfile: &str) -> anyhow::Result<PathBuf> {
        let dir = self.scratch.path().join(name);
        std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        let file = dir.join("Dockerfile");
        std::fs::write(&file, dockerfile).with_context(|| format!("writing {}", file.display()))?;
        Ok(dir)
    }

    /// A path for what a build exports to the client.
    pub(crate) fn output(&self, name: &str) -> PathBuf {
        self.scratch.path().join(format!("{name}.out"))
    }
}

/// The archive of an architecture's unpacked packages.
fn root_of(architecture: &str) -> anyhow::Result<Vec<u8>> {
    let root = peers().join(format!("root-{architecture}"));
    ensure!(
        root.is_dir(),
        "there is no {}: `cargo xtask bench` unpacks it",
        root.display()
    );
    let output = Command::new("tar")
        .args(["--sort=name", "--numeric-owner", "--create", "--directory"])
        .args([root.as_os_str(), ".".as_ref()])
        .output()
        .context("running tar")?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("tar of {}: {}: {errors}", root.display(), output.status);
    }
    Ok(output.stdout)
}

/// Writes a file of `size` bytes of text.
pub(crate) fn write_text(file: &Path, seed: u64, size: usize) -> anyhow::Result<()> {
    std::fs::write(file, Text::new(seed).take(size))
        .with_context(|| format!("writing {}", file.display()))
}
