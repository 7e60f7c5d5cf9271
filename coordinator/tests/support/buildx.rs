//! The real `docker buildx`, in a home of its own.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::{Child, Command};

/// No build of these tests takes longer.
const DEADLINE: Duration = Duration::from_secs(60);

/// A client with one builder: the endpoint under test.
pub(crate) struct Buildx {
    home: TempDir,
}

impl Buildx {
    /// Makes `address` the builder.
    pub(crate) async fn new(address: &str) -> Self {
        let buildx = Self {
            home: TempDir::new().expect("a temporary directory"),
        };
        let created = buildx
            .run(&[
                "create", "--driver", "remote", "--name", "farm", "--use", address,
            ])
            .await;
        assert!(created.status.success(), "{}", text(&created));
        buildx
    }

    /// Runs it to its end.
    pub(crate) async fn run(&self, args: &[&str]) -> Output {
        let child = self.spawn(args);
        let output = tokio::time::timeout(DEADLINE, child.wait_with_output()).await;
        output
            .unwrap_or_else(|_| panic!("buildx {args:?} took more than {DEADLINE:?}"))
            .expect("buildx runs")
    }

    /// Starts it.
    pub(crate) fn spawn(&self, args: &[&str]) -> Child {
        Command::new(program())
            .args(args)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.home.path())
            .env("BUILDX_CONFIG", self.home.path().join("buildx"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("buildx starts")
    }
}

/// Everything it printed.
pub(crate) fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// A context of these files.
pub(crate) fn context(files: &[(&str, &str)]) -> TempDir {
    let dir = TempDir::new().expect("a temporary directory");
    for (path, content) in files {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().expect("inside the context")).expect("a directory");
        std::fs::write(path, content).expect("a file");
    }
    dir
}

fn program() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace");
    let default = workspace.join("target/peers/usr/libexec/docker/cli-plugins/docker-buildx");
    let path = std::env::var_os("BUILDYARD_TEST_BUILDX").map_or(default, PathBuf::from);
    assert!(
        path.exists(),
        "docker-buildx is not at {}: run `cargo xtask peers`, or set BUILDYARD_TEST_BUILDX to one",
        path.display()
    );
    path
}
