//! The facts of one image, and the differences between two.

use std::collections::BTreeMap;

use serde_json::Value;

use super::layer::{Node, apply, entries};
use super::layout::{Layout, Parts};

/// Names and what they have: `config Env`, `history 03`, `layer 02 etc/x`, `file etc/x`.
pub type Facts = BTreeMap<String, String>;

/// The facts of the image for `architecture`. The layers that the image has from `base` are told by their diff ids only, and
/// so are files that nothing has changed since. Times from `now` (seconds since 1970) on are all the same.
pub fn facts(layout: &Layout, architecture: &str, base: &[String], now: u64) -> Facts {
    let parts = layout.parts(architecture);
    let mut facts = settings(&parts.config);
    let ids: Vec<&str> = parts.config["rootfs"]["diff_ids"]
        .as_array()
        .map(|ids| ids.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    facts.insert("layers".into(), parts.layers.len().to_string());
    let common = ids
        .iter()
        .zip(base)
        .take_while(|(id, base)| *id == base)
        .count();
    files(&parts, common, now, &mut facts);
    facts
}

fn settings(config: &Value) -> Facts {
    let mut facts = Facts::new();
    for field in ["architecture", "variant", "os", "author"] {
        if let Some(value) = config[field].as_str() {
            facts.insert(field.into(), value.into());
        }
    }
    for (field, value) in config["config"].as_object().into_iter().flatten() {
        facts.insert(format!("config {field}"), value.to_string());
    }
    for (number, entry) in config["history"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
    {
        let mut entry = entry.clone();
        entry.as_object_mut().map(|fields| fields.remove("created"));
        facts.insert(format!("history {number:02}"), entry.to_string());
    }
    facts
}

fn files(parts: &Parts, common: usize, now: u64, facts: &mut Facts) {
    let mut tree = BTreeMap::new();
    let mut from_base = BTreeMap::new();
    for (number, layer) in parts.layers.iter().enumerate() {
        let layer = entries(layer, now);
        apply(&mut tree, &layer);
        if number < common {
            facts.insert(format!("layer {number:02}"), "of the base image".into());
            from_base = tree.clone();
            continue;
        }
        facts.insert(
            format!("layer {number:02}"),
            format!("{} entries", layer.len()),
        );
        for (path, node) in layer {
            if let Some(time) = node.time {
                facts.insert(format!("time of layer {number:02} {path}"), time);
            }
            facts.insert(format!("layer {number:02} {path}"), node.text);
        }
    }
    for (path, node) in &tree {
        let text = described(node);
        let before = from_base.get(path);
        if let Some(time) = &node.time
            && before.and_then(|node| node.time.as_ref()) != Some(time)
        {
            facts.insert(format!("time of {path}"), time.clone());
        }
        if from_base.get(path).map(described).as_ref() != Some(&text) {
            facts.insert(format!("file {path}"), text);
        }
    }
    for path in from_base.keys().filter(|path| !tree.contains_key(*path)) {
        facts.insert(format!("file {path}"), "removed".into());
    }
}

fn described(node: &Node) -> String {
    match &node.hard_link {
        Some(first) => format!("{} same as {first}", node.text),
        None => node.text.clone(),
    }
}

/// What two images do not have in common: the fact, what the first has, what the second has.
pub fn difference(first: &Facts, second: &Facts) -> Vec<(String, String, String)> {
    let names: std::collections::BTreeSet<&String> = first.keys().chain(second.keys()).collect();
    let of =
        |facts: &Facts, name: &String| facts.get(name).map_or("nothing".to_owned(), Clone::clone);
    names
        .into_iter()
        .filter(|name| first.get(*name) != second.get(*name))
        .map(|name| (name.clone(), of(first, name), of(second, name)))
        .collect()
}
