//! An OCI image layout in a tar archive, as `--output type=oci` writes it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use flate2::read::MultiGzDecoder;
use serde_json::Value;

use crate::{Scratch, read};

/// The blobs of an archive.
#[derive(Debug)]
pub struct Layout {
    files: BTreeMap<String, Vec<u8>>,
}

/// One platform's image.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) config: Value,
    /// Uncompressed, lowest first.
    pub(super) layers: Vec<Vec<u8>>,
}

impl Layout {
    /// Reads an archive into memory.
    ///
    /// # Panics
    /// It is not a tar archive.
    #[track_caller]
    pub fn read(archive: &Path) -> Self {
        let file = File::open(archive).expect("opening the archive of an image");
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(file).entries().expect("a tar archive") {
            let mut entry = entry.expect("an entry of the archive");
            let path = entry.path().expect("a path").to_string_lossy().into_owned();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).expect("reading an entry");
            files.insert(path.trim_start_matches("./").to_owned(), bytes);
        }
        Self { files }
    }

    /// Fetches an image with all its platforms.
    ///
    /// # Panics
    /// It is not there.
    #[track_caller]
    pub fn pull(name: &str) -> Self {
        let scratch = Scratch::new();
        let archive = scratch.path().join("image.tar");
        let (from, to) = (
            format!("docker://{name}"),
            format!("oci-archive:{}", archive.display()),
        );
        read::skopeo(&[
            "copy",
            "--quiet",
            "--all",
            "--src-tls-verify=false",
            &from,
            &to,
        ]);
        Self::read(&archive)
    }

    /// The diff ids of an image's layers, lowest first.
    pub fn diff_ids(&self, architecture: &str) -> Vec<String> {
        let config = self.parts(architecture).config;
        let ids = config["rootfs"]["diff_ids"]
            .as_array()
            .into_iter()
            .flatten();
        ids.filter_map(Value::as_str).map(str::to_owned).collect()
    }

    fn blob(&self, descriptor: &Value) -> &[u8] {
        let digest = descriptor["digest"].as_str().expect("a digest");
        let path = format!("blobs/{}", digest.replace(':', "/"));
        self.files.get(&path).unwrap_or_else(|| panic!("no {path}"))
    }

    fn json(&self, descriptor: &Value) -> Value {
        serde_json::from_slice(self.blob(descriptor)).expect("JSON")
    }

    /// The image for linux on `architecture`.
    pub(super) fn parts(&self, architecture: &str) -> Parts {
        let index: Value =
            serde_json::from_slice(&self.files["index.json"]).expect("index.json in JSON");
        let manifest = self
            .manifest(&index, architecture)
            .expect("an image of the platform");
        // Writers in Go write an empty list as null.
        let layers = manifest["layers"].as_array().into_iter().flatten();
        Parts {
            config: self.json(&manifest["config"]),
            layers: layers.map(|layer| unpacked(self.blob(layer))).collect(),
        }
    }

    fn manifest(&self, index: &Value, architecture: &str) -> Option<Value> {
        let entries = index["manifests"].as_array()?;
        entries.iter().find_map(|entry| {
            let of = &entry["platform"]["architecture"];
            if of.is_string() && of != architecture {
                return None;
            }
            let content = self.json(entry);
            if content["manifests"].is_array() {
                return self.manifest(&content, architecture);
            }
            Some(content)
        })
    }
}

fn unpacked(blob: &[u8]) -> Vec<u8> {
    if !blob.starts_with(&[0x1f, 0x8b]) {
        return blob.to_vec();
    }
    let mut bytes = Vec::new();
    MultiGzDecoder::new(blob)
        .read_to_end(&mut bytes)
        .expect("a gzip stream");
    bytes
}
