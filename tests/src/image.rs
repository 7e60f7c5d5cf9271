//! A base image for two platforms, made of Debian's static busybox, since no image can be pulled in a test.
//!
//! Written by hand as an OCI image layout (image-spec v1.1) and pushed by skopeo, so neither our writer nor our pusher has
//! a part in it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{Registry, Scratch, busybox, native_architecture, read};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// A time that every file has: 2020-01-01.
const MADE: u64 = 1_577_836_800;

/// Pushes the image as `base/busybox:latest` and returns its name. It has `/bin/busybox`, a link in `/bin` for each of its
/// applets, `/etc/passwd` and `/etc/group` with `root`, `daemon` and `app` (1000), and `/tmp`, in two layers, of which the
/// first is the same for both platforms.
///
/// # Panics
/// It cannot be made or pushed.
pub fn push_base_image(registry: &Registry) -> String {
    push_base(registry, "base/busybox:latest", Compression::fast())
}

/// Pushes the base image with the same layers, but packed harder, and returns its name.
///
/// # Panics
/// It cannot be made or pushed.
pub fn push_repacked_image(registry: &Registry) -> String {
    push_base(registry, "repacked:latest", Compression::best())
}

fn push_base(registry: &Registry, name: &str, level: Compression) -> String {
    let scratch = Scratch::new();
    let mut layout = Layout::new(scratch.path());
    layout.level = level;
    let settings = layout.layer(&settings());
    let manifests: Vec<Value> = ["amd64", "arm64"]
        .iter()
        .map(|architecture| {
            let programs = layout.layer(&programs(architecture));
            layout.image(architecture, &[settings.clone(), programs])
        })
        .collect();
    layout.push(&manifests, registry, name)
}

/// Pushes an image whose only layer is not what its configuration says: it promises the base image's first layer. Returns
/// its name.
///
/// # Panics
/// It cannot be made or pushed.
pub fn push_lying_image(registry: &Registry) -> String {
    let scratch = Scratch::new();
    let mut layout = Layout::new(scratch.path());
    let promised = layout.layer(&settings());
    let passwd = Node::File(0o644, b"evil::0:0:evil:/:/bin/sh\n".to_vec());
    let layer = layout.layer(&vec![("etc/passwd".into(), passwd)]);
    let promise = layout.diff_ids[&promised["digest"].to_string()].clone();
    layout.diff_ids.insert(layer["digest"].to_string(), promise);
    let manifest = layout.image(native_architecture(), &[layer]);
    layout.push(&[manifest], registry, "lying:latest")
}

/// Pushes an image made of tar archives and returns its whole name. Each architecture has its archives, the lowest layer
/// first.
///
/// # Panics
/// It cannot be made or pushed.
pub fn push_archives(registry: &Registry, name: &str, images: &[(&str, Vec<Vec<u8>>)]) -> String {
    let scratch = Scratch::new();
    let mut layout = Layout::new(scratch.path());
    let manifests: Vec<Value> = images
        .iter()
        .map(|(architecture, archives)| {
            let layers: Vec<Value> = archives.iter().map(|tar| layout.archive(tar)).collect();
            layout.image(architecture, &layers)
        })
        .collect();
    layout.push(&manifests, registry, name)
}

/// What a layer consists of: its paths, in their order.
type Tree = Vec<(String, Node)>;

enum Node {
    Folder(u32),
    File(u32, Vec<u8>),
    Link(String),
}

fn settings() -> Tree {
    let file = |text: &str| Node::File(0o644, text.as_bytes().to_vec());
    let passwd = "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/:/bin/false\napp:x:1000:1000:App:/home/app:/bin/sh\n";
    let group = "root:x:0:\ndaemon:x:1:\napp:x:1000:\nwheel:x:10:app\n";
    vec![
        ("etc/".into(), Node::Folder(0o755)),
        ("etc/group".into(), file(group)),
        ("etc/passwd".into(), file(passwd)),
        ("root/".into(), Node::Folder(0o700)),
        ("tmp/".into(), Node::Folder(0o1777)),
    ]
}

fn programs(architecture: &str) -> Tree {
    let binary = fs::read(busybox(architecture)).expect("reading busybox");
    let mut tree = vec![
        ("bin/".into(), Node::Folder(0o755)),
        ("bin/busybox".into(), Node::File(0o755, binary)),
    ];
    let links = applets().into_iter().filter(|name| name != "busybox");
    tree.extend(links.map(|name| (format!("bin/{name}"), Node::Link("busybox".into()))));
    tree
}

/// The names that busybox answers to; the same for all architectures, as they are one version.
fn applets() -> Vec<String> {
    let mut list = Command::new(busybox(native_architecture()));
    let output = list.arg("--list").output().expect("running busybox");
    let text = String::from_utf8(output.stdout).expect("names of applets");
    text.lines().map(str::to_owned).collect()
}

/// An image layout being written.
struct Layout {
    dir: PathBuf,
    level: Compression,
    diff_ids: BTreeMap<String, String>,
}

impl Layout {
    fn new(dir: &Path) -> Self {
        fs::create_dir_all(dir.join("blobs/sha256")).expect("making the folder of the blobs");
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)
            .expect("writing the layout's version");
        Self {
            dir: dir.to_owned(),
            level: Compression::fast(),
            diff_ids: BTreeMap::new(),
        }
    }

    /// Writes a blob and returns its descriptor.
    fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = hex::encode(Sha256::digest(bytes));
        fs::write(self.dir.join("blobs/sha256").join(&digest), bytes).expect("writing a blob");
        json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len()})
    }

    fn json(&self, media_type: &str, value: &Value) -> Value {
        self.blob(media_type, value.to_string().as_bytes())
    }

    fn layer(&mut self, tree: &Tree) -> Value {
        self.archive(&tar_of(tree))
    }

    fn archive(&mut self, tar: &[u8]) -> Value {
        let mut gzip = GzEncoder::new(Vec::new(), self.level);
        gzip.write_all(tar).expect("compressing into memory");
        let descriptor = self.blob(LAYER, &gzip.finish().expect("compressing into memory"));
        let diff_id = format!("sha256:{}", hex::encode(Sha256::digest(tar)));
        self.diff_ids
            .insert(descriptor["digest"].to_string(), diff_id);
        descriptor
    }

    fn image(&self, architecture: &str, layers: &[Value]) -> Value {
        let diff_ids: Vec<&String> = layers
            .iter()
            .map(|layer| &self.diff_ids[&layer["digest"].to_string()])
            .collect();
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "created": "2020-01-01T00:00:00Z",
            "config": {"Env": ["PATH=/usr/local/bin:/usr/bin:/bin"], "Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": layers.iter().map(|_| json!({"created": "2020-01-01T00:00:00Z", "created_by": "test"})).collect::<Vec<_>>(),
        });
        let config = self.json(CONFIG, &config);
        let manifest =
            json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
        let mut descriptor = self.json(MANIFEST, &manifest);
        descriptor["platform"] = json!({"os": "linux", "architecture": architecture});
        descriptor
    }

    /// Sends all to a registry under `name`, and returns the whole name.
    fn push(&self, manifests: &[Value], registry: &Registry, name: &str) -> String {
        self.finish(manifests);
        let name = format!("{}/{name}", registry.host());
        let (from, to) = (
            format!("oci:{}:base", self.dir.display()),
            format!("docker://{name}"),
        );
        let mut args = vec!["copy", "--quiet", "--all", "--dest-tls-verify=false"];
        let credentials = registry.credentials();
        if let Some(credentials) = &credentials {
            args.extend(["--dest-creds", credentials]);
        }
        args.extend([from.as_str(), to.as_str()]);
        read::skopeo(&args);
        name
    }

    fn finish(&self, manifests: &[Value]) {
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
        let mut descriptor = self.json(INDEX, &index);
        descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": "base"});
        let top = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor]});
        fs::write(self.dir.join("index.json"), top.to_string())
            .expect("writing the layout's index");
    }
}

fn tar_of(tree: &Tree) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, node) in tree {
        let mut header = tar::Header::new_ustar();
        header.set_mtime(MADE);
        header.set_uid(0);
        header.set_gid(0);
        let content: &[u8] = match node {
            Node::Folder(mode) => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_mode(*mode);
                &[]
            }
            Node::File(mode, content) => {
                header.set_mode(*mode);
                content
            }
            Node::Link(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_mode(0o777);
                header.set_link_name(target).expect("a short target");
                &[]
            }
        };
        header.set_size(content.len() as u64);
        archive
            .append_data(&mut header, path, content)
            .expect("writing into memory");
    }
    archive.into_inner().expect("writing into memory")
}
