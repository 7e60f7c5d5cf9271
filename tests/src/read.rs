//! Reading images with programs that are not ours: skopeo fetches them, umoci unpacks them.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::{Scratch, emulator, native_architecture};

/// Runs skopeo.
///
/// # Panics
/// It fails.
#[track_caller]
pub(crate) fn skopeo(args: &[&str]) -> Vec<u8> {
    reader("skopeo", args)
}

#[track_caller]
fn reader(program: &str, args: &[&str]) -> Vec<u8> {
    let output = Command::new(program).args(args).output();
    let output = output.unwrap_or_else(|error| panic!("cannot run {program}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program} {args:?}: {}\n{errors}",
        output.status
    );
    output.stdout
}

/// The manifest or index that a registry has under a name.
///
/// # Panics
/// There is none.
#[track_caller]
pub fn inspect_raw(name: &str) -> Value {
    let name = format!("docker://{name}");
    let raw = skopeo(&["inspect", "--raw", "--tls-verify=false", &name]);
    serde_json::from_slice(&raw).expect("a manifest in JSON")
}

/// One platform's image, fetched and unpacked.
#[derive(Debug)]
pub struct Image {
    dir: Scratch,
    architecture: String,
    /// The image's configuration.
    pub config: Value,
}

impl Image {
    /// Fetches an image of linux from a registry.
    ///
    /// # Panics
    /// It is not there, or cannot be unpacked.
    #[track_caller]
    pub fn pull(name: &str, architecture: &str) -> Self {
        Self::read(&format!("docker://{name}"), architecture)
    }

    /// Fetches an image from any place that skopeo knows, e.g. `oci-archive:FILE`.
    ///
    /// # Panics
    /// It is not there, or cannot be unpacked.
    #[track_caller]
    pub fn read(from: &str, architecture: &str) -> Self {
        let dir = Scratch::new();
        let layout = dir.path().join("layout").display().to_string();
        let bundle = dir.path().join("bundle").display().to_string();
        let to = format!("oci:{layout}:image");
        let platform = ["--override-os", "linux", "--override-arch", architecture];
        let copy = ["copy", "--quiet", "--src-tls-verify=false", from, &to];
        skopeo(&[&platform[..], &copy[..]].concat());
        // Raw, since a parsed one has only what OCI knows: no health check, no shell.
        let config = skopeo(&["inspect", "--config", "--raw", &to]);
        reader(
            "umoci",
            &["unpack", "--image", &format!("{layout}:image"), &bundle],
        );
        Self {
            dir,
            architecture: architecture.to_owned(),
            config: serde_json::from_slice(&config).expect("a configuration in JSON"),
        }
    }

    /// The image's files.
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("bundle/rootfs")
    }

    /// The text of a file, given without its leading slash.
    ///
    /// # Panics
    /// There is no such file.
    #[track_caller]
    pub fn text(&self, path: &str) -> String {
        let file = self.root().join(path);
        std::fs::read_to_string(&file)
            .unwrap_or_else(|error| panic!("/{path} of the image: {error}"))
    }

    /// Runs a static program of the image on this machine, under the emulator if it is of the other architecture, and
    /// returns what it writes.
    ///
    /// # Panics
    /// It fails.
    #[track_caller]
    pub fn run(&self, program: &str, args: &[&str]) -> String {
        let file = self.root().join(program);
        let output = if self.architecture == native_architecture() {
            reader(&file.display().to_string(), args)
        } else {
            let file = file.display().to_string();
            reader(emulator(), &[&[file.as_str()], args].concat())
        };
        String::from_utf8_lossy(&output).into_owned()
    }

    /// Whether a path is there, itself, without following it.
    pub fn has(&self, path: &str) -> bool {
        exists(&self.root().join(path))
    }
}

fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
