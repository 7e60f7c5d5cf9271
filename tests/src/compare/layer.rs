//! The entries of a layer's tar, and what is left when layers lie on each other.

use std::collections::BTreeMap;
use std::io::Read;

use sha2::{Digest, Sha256};
use tar::{Archive, Entry, EntryType};

/// Contents up to this size are shown, of longer ones the digest.
const SHOWN: usize = 400;

/// One entry of a layer.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// Type, mode, owner, time, attributes and content, as text.
    pub(super) text: String,
    /// The path that a hard link is another name of.
    pub(super) hard_link: Option<String>,
    pub(super) folder: bool,
    /// A folder's time: what changes its entries changes it too, so it is told apart from the rest.
    pub(super) time: Option<String>,
}

/// The entries of a layer, by their paths without a leading slash. Times from `now` (seconds since 1970) on are not told apart.
pub(super) fn entries(layer: &[u8], now: u64) -> Vec<(String, Node)> {
    let mut archive = Archive::new(layer);
    let entries = archive.entries().expect("a layer is a tar archive");
    entries
        .map(|entry| node(&mut entry.expect("an entry of a layer"), now))
        .collect()
}

fn node(entry: &mut Entry<'_, &[u8]>, now: u64) -> (String, Node) {
    let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
    let path = path.trim_start_matches("./").trim_matches('/').to_owned();
    let kind = entry.header().entry_type();
    let target = entry
        .link_name_bytes()
        .map(|name| String::from_utf8_lossy(&name).into_owned());
    let extensions = extensions(entry);
    let mut content = Vec::new();
    entry
        .read_to_end(&mut content)
        .expect("the content of an entry");
    let header = entry.header();
    let mode = header.mode().expect("a mode") & 0o7777;
    let owner = (
        header.uid().expect("an owner"),
        header.gid().expect("a group"),
    );
    let what = match kind {
        EntryType::Directory => "folder".to_owned(),
        EntryType::Symlink => format!("link to {:?}", target.as_deref().unwrap_or_default()),
        EntryType::Link => format!("hard link to {:?}", target.as_deref().unwrap_or_default()),
        EntryType::Fifo => "fifo".to_owned(),
        EntryType::Char | EntryType::Block => format!(
            "{kind:?} device {}:{}",
            header.device_major().ok().flatten().unwrap_or_default(),
            header.device_minor().ok().flatten().unwrap_or_default()
        ),
        _ => format!("file of {} {}", content.len(), shown(&content)),
    };
    let time = match extensions.get("mtime").cloned() {
        Some(time) => time,
        None => header.mtime().expect("a time").to_string(),
    };
    let seconds: f64 = time.parse().expect("a time is a number");
    let time = if seconds < now as f64 {
        time
    } else {
        "now".to_owned()
    };
    let attributes: Vec<String> = extensions
        .iter()
        .filter_map(|(key, value)| {
            Some(format!(" {}={value:?}", key.strip_prefix("SCHILY.xattr.")?))
        })
        .collect();
    let folder = kind == EntryType::Directory;
    let shown = if folder {
        String::new()
    } else {
        format!("{time} ")
    };
    let text = format!(
        "{mode:04o} {}:{} {shown}{what}{}",
        owner.0,
        owner.1,
        attributes.concat()
    );
    let node = Node {
        text,
        hard_link: target
            .filter(|_| kind == EntryType::Link)
            .map(|t| t.trim_start_matches('/').to_owned()),
        folder,
        time: folder.then_some(time),
    };
    (path, node)
}

fn extensions(entry: &mut Entry<'_, &[u8]>) -> BTreeMap<String, String> {
    let Some(list) = entry.pax_extensions().expect("extended headers") else {
        return BTreeMap::new();
    };
    let pair = |extension: tar::PaxExtension<'_>| {
        let key = extension.key().expect("a name").to_owned();
        (
            key,
            String::from_utf8_lossy(extension.value_bytes()).into_owned(),
        )
    };
    list.map(|extension| pair(extension.expect("an extended header")))
        .collect()
}

fn shown(content: &[u8]) -> String {
    match std::str::from_utf8(content) {
        Ok(text) if text.len() <= SHOWN => format!("{text:?}"),
        _ => hex::encode(&Sha256::digest(content)[..8]),
    }
}

/// Puts a layer on what is below it.
pub(super) fn apply(below: &mut BTreeMap<String, Node>, layer: &[(String, Node)]) {
    // What a whiteout removes is what lower layers have, wherever it stands in its own layer.
    for (path, _) in layer {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let within = |name: &str| {
            if folder.is_empty() {
                name.to_owned()
            } else {
                format!("{folder}/{name}")
            }
        };
        if name == ".wh..wh..opq" {
            remove(below, folder, false);
        } else if let Some(gone) = name.strip_prefix(".wh.") {
            remove(below, &within(gone), true);
        }
    }
    for (path, node) in layer {
        if path
            .rsplit('/')
            .next()
            .is_some_and(|name| name.starts_with(".wh."))
        {
            continue;
        }
        if !node.folder {
            remove(below, path, true);
        }
        let mut node = node.clone();
        if let Some(target) = &node.hard_link {
            let of = below
                .get(target)
                .unwrap_or_else(|| panic!("{path} is a hard link to {target}, which is not there"));
            node.text = of.text.clone();
            node.hard_link = Some(of.hard_link.clone().unwrap_or_else(|| target.clone()));
        }
        below.insert(path.clone(), node);
    }
}

fn remove(tree: &mut BTreeMap<String, Node>, path: &str, itself: bool) {
    let inside = if path.is_empty() {
        String::new()
    } else {
        format!("{path}/")
    };
    tree.retain(|known, _| !known.starts_with(&inside) && (known != path || !itself));
}
