//! Where the programs are. `cargo xtask setup` installs or unpacks all of them but our own.

use std::path::{Path, PathBuf};

fn workspace() -> &'static Path {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the tests lie in the workspace")
}

fn peer(variable: &str, unpacked: &str) -> PathBuf {
    let default = peers().join(unpacked);
    let path = std::env::var_os(variable).map_or(default, PathBuf::from);
    assert!(
        path.is_file(),
        "there is no {}: run `cargo xtask setup`, or say with {variable} where it is",
        path.display()
    );
    path
}

/// Our own binary, as cargo built it beside the tests.
///
/// # Panics
/// It was not built: `cargo build -p buildyard`, or a test run of the whole workspace, does.
pub fn buildyard() -> PathBuf {
    if let Some(path) = std::env::var_os("BUILDYARD_TEST_BINARY") {
        return path.into();
    }
    let test = std::env::current_exe().expect("the path of this test");
    let folder = test.parent().expect("a program lies in a folder");
    let inside = ["deps", "examples"]
        .iter()
        .any(|name| folder.ends_with(name));
    let profile = match inside {
        true => folder
            .parent()
            .expect("it lies in a folder of target/PROFILE"),
        false => folder,
    };
    let path = profile.join("buildyard");
    assert!(
        path.is_file(),
        "there is no {}: run `cargo build -p buildyard`",
        path.display()
    );
    path
}

/// The real `docker buildx`.
pub(crate) fn buildx() -> PathBuf {
    peer(
        "BUILDYARD_TEST_BUILDX",
        "usr/libexec/docker/cli-plugins/docker-buildx",
    )
}

/// The Docker engine that ours is compared with.
pub(crate) fn dockerd() -> PathBuf {
    peer("BUILDYARD_TEST_DOCKERD", "usr/sbin/dockerd")
}

/// Where packages lie that were unpacked, not installed.
pub fn peers() -> PathBuf {
    workspace().join("target/peers")
}

/// Where programs lie that were unpacked, not installed: dockerd's containerd.
pub(crate) fn unpacked() -> PathBuf {
    peers().join("usr/bin")
}

/// Debian's registry: installed, or unpacked.
pub(crate) fn docker_registry() -> PathBuf {
    let installed = Path::new("/usr/bin/docker-registry");
    if installed.is_file() {
        installed.to_owned()
    } else {
        peer("BUILDYARD_TEST_REGISTRY", "usr/bin/docker-registry")
    }
}

/// The static busybox of `amd64` or `arm64`.
pub fn busybox(architecture: &str) -> PathBuf {
    let variable = format!("BUILDYARD_TEST_BUSYBOX_{}", architecture.to_uppercase());
    peer(&variable, &format!("{architecture}/bin/busybox"))
}

/// This machine's architecture, by its name in platforms.
pub fn native_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => panic!("the tests know amd64 and arm64, this machine is {other}"),
    }
}

/// The emulator that runs programs of the *other* architecture.
pub fn emulator() -> &'static str {
    match native_architecture() {
        "amd64" => "/usr/bin/qemu-aarch64-static",
        _ => "/usr/bin/qemu-x86_64-static",
    }
}
