//! What the tests of this crate share: layers made of the machine's busybox, and a machine to run steps on.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use buildyard_layer::{Entry, Kind, Time, Toc};
use buildyard_model::{Digest, LayerId};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::network::StepNetwork;
use crate::runner::{
    ContainerSpec, Limits, OutputLimits, Process, Ran, Runner, RunnerChoice, RunnerError, Runners,
    Security, StepIo, Stream,
};
use crate::snapshots::{Directories, LayerContent, Snapshotter, UpperDir};

/// A data directory, a snapshotter and a runner in it.
pub(crate) struct Machine {
    pub(crate) dir: Dir,
    pub(crate) snapshots: Arc<Directories>,
    pub(crate) runner: Arc<Runners>,
}

/// Where a machine's data lies.
pub(crate) enum Dir {
    Temporary(tempfile::TempDir),
    Given(PathBuf),
}

impl Dir {
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Temporary(dir) => dir.path(),
            Self::Given(dir) => dir,
        }
    }
}

/// What a step printed and how it ended.
pub(crate) struct Said {
    pub(crate) ran: Ran,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// Must live as long as somebody looks at what the step wrote.
    pub(crate) upper: UpperDir,
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self::with(&RunnerChoice::Auto)
    }

    pub(crate) fn with(choice: &RunnerChoice) -> Self {
        Self::open(Dir::Temporary(tempfile::tempdir().unwrap()), choice)
    }

    /// One whose directory stays.
    pub(crate) fn at(dir: &Path, choice: &RunnerChoice) -> Self {
        Self::open(Dir::Given(dir.to_owned()), choice)
    }

    fn open(dir: Dir, choice: &RunnerChoice) -> Self {
        let snapshots = Directories::open(&dir.path().join("snapshots")).unwrap();
        let runner = Runners::open(choice, &dir.path().join("run")).unwrap();
        Self {
            dir,
            snapshots: Arc::new(snapshots),
            runner: Arc::new(runner),
        }
    }

    /// A layer that `make` fills; its TOC lists the directories that `make` made.
    pub(crate) fn layer(&self, name: &str, make: impl Fn(&Path) + Sync) -> LayerId {
        let id = LayerId(Digest::of(name));
        let scratch = tempfile::tempdir().unwrap();
        make(scratch.path());
        let toc = listed(scratch.path());
        let unpack = |dir: &Path| {
            make(dir);
            Ok(())
        };
        self.snapshots
            .ensure(
                &[id],
                &LayerContent {
                    toc: &Arc::new(toc),
                    below: &[],
                    unpack: &unpack,
                },
            )
            .unwrap();
        id
    }

    /// A layer with busybox, `sh` and an `/etc/passwd`.
    pub(crate) fn busybox(&self) -> LayerId {
        self.layer("busybox", |dir| {
            fill_with_busybox(dir, Path::new("/bin/busybox"))
        })
    }

    /// The specification of `sh -c script` on `chain`.
    pub(crate) fn spec(&self, chain: &[LayerId], upper: &UpperDir, script: &str) -> ContainerSpec {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        ContainerSpec {
            id: format!("test-{}-{number}", std::process::id()),
            root: self.snapshots.mounts(chain, Some(upper)).unwrap(),
            read_only_root: false,
            mounts: Vec::new(),
            process: Process {
                args: vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()],
                env: vec!["PATH=/bin".to_owned()],
                cwd: "/".to_owned(),
                ..Process::default()
            },
            hostname: "buildkitsandbox".to_owned(),
            hosts: "127.0.0.1\tlocalhost\n".to_owned(),
            resolv_conf: String::new(),
            network: StepNetwork::None,
            security: Security::Sandbox,
            limits: Limits::default(),
            user_namespace: None,
        }
    }

    /// Runs `script` on busybox after `change` has had its way with the specification.
    pub(crate) async fn run(
        &self,
        script: &str,
        change: impl FnOnce(&mut ContainerSpec),
    ) -> Result<Said, RunnerError> {
        let chain = [self.busybox()];
        let upper = self.snapshots.new_upper(&chain).unwrap();
        let mut spec = self.spec(&chain, &upper, script);
        change(&mut spec);
        let (ran, stdout, stderr) = self.run_spec(spec, CancellationToken::new()).await?;
        Ok(Said {
            ran,
            stdout,
            stderr,
            upper,
        })
    }

    /// Runs a specification and collects its output.
    pub(crate) async fn run_spec(
        &self,
        spec: ContainerSpec,
        cancel: CancellationToken,
    ) -> Result<(Ran, String, String), RunnerError> {
        let (output, mut chunks) = mpsc::channel(8);
        let io = StepIo {
            output,
            limits: OutputLimits::default(),
        };
        let collect = async {
            let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
            while let Some(chunk) = chunks.recv().await {
                let stream = if chunk.stream == Stream::Stdout {
                    &mut stdout
                } else {
                    &mut stderr
                };
                stream.extend_from_slice(&chunk.bytes);
            }
            (
                String::from_utf8_lossy(&stdout).into_owned(),
                String::from_utf8_lossy(&stderr).into_owned(),
            )
        };
        let (ran, (stdout, stderr)) = tokio::join!(self.runner.run(spec, io, cancel), collect);
        Ok((ran?, stdout, stderr))
    }
}

/// How long tests wait for what must come.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Waits until `condition` holds.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !condition() {
        assert!(begun.elapsed() < DEADLINE, "waited {DEADLINE:?} for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) fn fill_with_busybox(dir: &Path, busybox: &Path) {
    for name in ["bin", "etc", "tmp"] {
        fs::create_dir(dir.join(name)).unwrap();
    }
    fs::copy(busybox, dir.join("bin/busybox"))
        .unwrap_or_else(|error| panic!("{}: {error}", busybox.display()));
    symlink("busybox", dir.join("bin/sh")).unwrap();
    for applet in APPLETS {
        symlink("busybox", dir.join("bin").join(applet)).unwrap();
    }
    fs::write(
        dir.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nbob:x:1000:1001:Bob:/home/bob:/bin/sh\n",
    )
    .unwrap();
    fs::write(
        dir.join("etc/group"),
        "root:x:0:\nbobs:x:1001:\nwheel:x:10:bob\n",
    )
    .unwrap();
}

const APPLETS: [&str; 24] = [
    "cat", "chmod", "dd", "echo", "env", "grep", "head", "hostname", "id", "ip", "ls", "mkdir",
    "mknod", "mount", "nc", "ps", "pwd", "rm", "seq", "sleep", "stat", "touch", "uname", "wget",
];

/// The busybox of another architecture.
pub(crate) fn arm64_busybox() -> PathBuf {
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/peers/arm64/bin/busybox");
    let path = std::env::var_os("BUILDYARD_TEST_BUSYBOX_ARM64").map_or(fetched, PathBuf::from);
    assert!(
        path.is_file(),
        "the tests of emulation need a static busybox for arm64 (Debian's busybox-static): at {}, or where \
         BUILDYARD_TEST_BUSYBOX_ARM64 says",
        path.display()
    );
    path
}

/// A TOC with the directories of a tree and its root.
pub(crate) fn listed(root: &Path) -> Toc {
    use std::os::unix::ffi::OsStrExt;
    let mut toc = Toc {
        entries: vec![directory(b"")],
        ..Toc::default()
    };
    let mut pending = vec![root.to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                pending.push(entry.path());
                let path = entry.path();
                toc.entries.push(directory(
                    path.strip_prefix(root).unwrap().as_os_str().as_bytes(),
                ));
            }
        }
    }
    toc.entries.sort_by(|a, b| a.path.cmp(&b.path));
    toc
}

/// A TOC's entry of a directory.
pub(crate) fn directory(path: &[u8]) -> Entry {
    entry(path, Kind::Directory { opaque: false })
}

/// A TOC's entry of any kind.
pub(crate) fn entry(path: &[u8], kind: Kind) -> Entry {
    let (mode, mtime) = (0o755, Time::default());
    Entry {
        path: path.to_vec(),
        kind,
        mode,
        uid: 0,
        gid: 0,
        mtime,
        xattrs: std::collections::BTreeMap::new(),
    }
}
