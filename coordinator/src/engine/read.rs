//! Reading single files of results, for clients that look into them through the gateway.

use std::io::Read;
use std::sync::Arc;

use bollard_buildkit_proto::fsutil::types::Stat;
use buildyard_layer::{Entry, ExtentSource, FileReader, Follow, Kind, Toc, Tree, glob_match, path};
use buildyard_model::Chain;
use buildyard_session::go_mode;

use super::{Engine, internal};
use crate::backend::{Build, BuildError, ByteRange};
use crate::export::LayerBlobs;
use crate::layers::ExportLayers;

/// Most bytes of one read; messages are at most 16 MiB.
const MOST: u64 = 15 << 20;

impl Engine {
    pub(super) async fn read_path(
        &self,
        build: &Arc<Build>,
        chain: &Chain,
        file: &str,
        range: Option<ByteRange>,
    ) -> Result<Vec<u8>, BuildError> {
        let (tree, source) = self.look_into(build, chain).await?;
        let file = file.to_owned();
        let read = move || {
            let (entry, toc) = find(&tree, &file, Follow::All)?;
            let range = range.unwrap_or(ByteRange {
                offset: 0,
                length: 0,
            });
            let length = if range.length == 0 {
                MOST
            } else {
                range.length.min(MOST)
            };
            let mut reader = FileReader::of_entry(source.as_ref(), &toc, &entry)
                .ok_or_else(|| BuildError::failed(format!("read {file}: is a directory")))?;
            let mut bytes = Vec::new();
            std::io::copy(
                &mut reader.by_ref().take(range.offset),
                &mut std::io::sink(),
            )
            .map_err(internal)?;
            reader
                .take(length)
                .read_to_end(&mut bytes)
                .map_err(internal)?;
            Ok(bytes)
        };
        tokio::task::spawn_blocking(read)
            .await
            .expect("reading does not panic")
    }

    pub(super) async fn list_path(
        &self,
        build: &Arc<Build>,
        chain: &Chain,
        dir: &str,
        include: &str,
    ) -> Result<Vec<Stat>, BuildError> {
        let (tree, _) = self.look_into(build, chain).await?;
        let found = resolve(&tree, dir, Follow::All)?;
        let mut stats = Vec::new();
        for node in tree.children(&found) {
            let name = path::file_name(node.path);
            if include.is_empty() || glob_match(include.as_bytes(), name).unwrap_or(false) {
                stats.push(stat(node.entry, name));
            }
        }
        Ok(stats)
    }

    pub(super) async fn stat_path(
        &self,
        build: &Arc<Build>,
        chain: &Chain,
        file: &str,
    ) -> Result<Stat, BuildError> {
        let (tree, _) = self.look_into(build, chain).await?;
        let (entry, _) = find(&tree, file, Follow::Parents)?;
        Ok(stat(&entry, path::file_name(&path::clean(file.as_bytes()))))
    }

    async fn look_into(
        &self,
        build: &Arc<Build>,
        chain: &Chain,
    ) -> Result<(Tree, Arc<dyn ExtentSource>), BuildError> {
        let layers = ExportLayers::new(self.layers.clone(), self.state(build).origins());
        let (toc, _) = layers
            .tree(chain.layers())
            .await
            .map_err(|error| BuildError::failed(error.to_string()))?;
        Ok((Tree::merge(&[toc]), Arc::new(self.layers.flats().clone())))
    }
}

fn resolve(tree: &Tree, file: &str, follow: Follow) -> Result<Vec<u8>, BuildError> {
    let clean = path::clean(file.as_bytes());
    tree.resolve(&clean, follow)
        .map_err(|error| BuildError::not_found(format!("{file}: {error}")))
}

fn find(tree: &Tree, file: &str, follow: Follow) -> Result<(Entry, Toc), BuildError> {
    let found = resolve(tree, file, follow)?;
    let node = tree
        .get(&found)
        .ok_or_else(|| BuildError::not_found(format!("open {file}: no such file or directory")))?;
    let toc = Toc {
        flats: node.flats.to_vec(),
        ..Toc::default()
    };
    Ok((node.entry.clone(), toc))
}

fn stat(entry: &Entry, name: &[u8]) -> Stat {
    let (kind, size, link, major, minor) = match &entry.kind {
        Kind::File { size, .. } => (0, *size, Vec::new(), 0, 0),
        Kind::Symlink { target } => (go_mode::SYMLINK, target.len() as u64, target.clone(), 0, 0),
        Kind::CharDevice { major, minor } => (
            go_mode::DEVICE | go_mode::CHAR_DEVICE,
            0,
            Vec::new(),
            *major,
            *minor,
        ),
        Kind::BlockDevice { major, minor } => (go_mode::DEVICE, 0, Vec::new(), *major, *minor),
        Kind::Fifo => (go_mode::NAMED_PIPE, 0, Vec::new(), 0, 0),
        _ => (go_mode::DIR, 0, Vec::new(), 0, 0),
    };
    Stat {
        path: String::from_utf8_lossy(name).into_owned(),
        mode: kind | go_mode::from_unix(entry.mode),
        uid: entry.uid,
        gid: entry.gid,
        size: i64::try_from(size).unwrap_or(i64::MAX),
        mod_time: entry
            .mtime
            .seconds
            .saturating_mul(1_000_000_000)
            .saturating_add(i64::from(entry.mtime.nanos)),
        linkname: String::from_utf8_lossy(&link).into_owned(),
        devmajor: i64::from(major),
        devminor: i64::from(minor),
        xattrs: Default::default(),
    }
}
