//! Promise: a result goes where `-o` says: a folder, an archive of files, an archive of an image.

use std::fs;

use buildyard_tests::{
    Buildx, Context, Image, PLATFORMS, Registry, Scratch, Serve, push_base_image,
};

struct Farm {
    _registry: Registry,
    _server: buildyard_tests::Server,
    buildx: Buildx,
    context: Context,
    out: Scratch,
}

impl Farm {
    fn new() -> Self {
        let registry = Registry::start();
        let base = push_base_image(&registry);
        let server = Serve::up().start();
        let dockerfile = format!(
            "FROM {base} AS make\nRUN uname -m > /machine && mkdir /d && ln -s ../machine /d/link && chmod 751 /d\n\
             FROM scratch AS files\nCOPY --from=make /machine /d /out/\nFROM make AS image\n"
        );
        Self {
            buildx: Buildx::new(&server.endpoint()),
            context: Context::new(&[("Dockerfile", &dockerfile)]),
            out: Scratch::new(),
            _registry: registry,
            _server: server,
        }
    }

    fn export(&self, target: &str, platforms: &str, kind: &str, name: &str) -> std::path::PathBuf {
        let dest = self.out.path().join(name);
        let output = format!("type={kind},dest={}", dest.display());
        let args = ["--target", target, "--platform", platforms, "-o", &output];
        self.buildx.build(&self.context, &args).succeeds();
        dest
    }
}

#[test]
fn files_come_as_a_folder_or_a_tar() {
    let farm = Farm::new();
    let one = farm.export("files", "linux/arm64", "local", "one");
    let read = |path: &str| fs::read_to_string(one.join(path)).expect("an exported file");
    assert_eq!(read("out/machine"), "aarch64\n");
    let link = fs::read_link(one.join("out/link")).expect("an exported link");
    assert_eq!(link.to_str(), Some("../machine"));

    let two = farm.export("files", PLATFORMS, "local", "two");
    for (folder, machine) in [("linux_amd64", "x86_64\n"), ("linux_arm64", "aarch64\n")] {
        let file = two.join(folder).join("out/machine");
        assert_eq!(fs::read_to_string(file).expect("an exported file"), machine);
    }

    let tar = farm.export("files", PLATFORMS, "tar", "files.tar");
    let bytes = fs::File::open(tar).expect("an exported tar");
    let mut archive = tar::Archive::new(bytes);
    let paths: Vec<String> = archive
        .entries()
        .expect("entries")
        .map(|entry| {
            entry
                .expect("an entry")
                .path()
                .expect("a path")
                .display()
                .to_string()
        })
        .collect();
    for path in [
        "linux_amd64/out/machine",
        "linux_arm64/out/machine",
        "linux_arm64/out/link",
    ] {
        assert!(paths.iter().any(|p| p == path), "{path} in {paths:?}");
    }
}

#[test]
fn images_come_as_archives() {
    let farm = Farm::new();
    let oci = farm.export("image", PLATFORMS, "oci", "image.tar");
    for (architecture, machine) in [("amd64", "x86_64\n"), ("arm64", "aarch64\n")] {
        let image = Image::read(&format!("oci-archive:{}", oci.display()), architecture);
        assert_eq!(image.text("machine"), machine);
    }

    let docker = farm.export("image", "linux/arm64", "docker", "docker.tar");
    let image = Image::read(&format!("docker-archive:{}", docker.display()), "arm64");
    assert_eq!(image.config["architecture"], "arm64");
    assert_eq!(image.text("machine"), "aarch64\n");
}
