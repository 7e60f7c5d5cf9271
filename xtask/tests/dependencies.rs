//! What may depend on what: the arrows between our crates, and the licences and bans of `deny.toml` for all others.
//!
//! Reads `cargo metadata`; builds nothing. Where cargo-deny is installed, `cargo xtask check` runs it as well.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, PackageId};
use spdx::{Expression, LicenseReq, ParseMode};

/// What each crate of ours may use of ours. The pure ones come first, then the seams, the two halves of the farm, the binary.
const ARROWS: [(&str, &[&str]); 14] = [
    ("model", &[]),
    ("llb", &["model"]),
    ("scheduler", &["model"]),
    ("image", &["model"]),
    ("dockerfile", &["model", "llb", "image"]),
    ("layer", &["model"]),
    ("cas", &["model"]),
    ("store", &["model"]),
    ("registry", &["model", "image"]),
    ("session", &["model", "layer"]),
    ("solver", &["model", "llb", "image", "layer", "registry"]),
    ("proto", &["model"]),
    (
        "coordinator",
        &[
            "model",
            "llb",
            "scheduler",
            "image",
            "dockerfile",
            "layer",
            "cas",
            "store",
            "registry",
            "session",
            "solver",
            "proto",
        ],
    ),
    (
        "worker",
        &[
            "model", "llb", "image", "layer", "cas", "registry", "solver", "proto",
        ],
    ),
];

/// Crates that are functions of values.
const PURE: [&str; 5] = ["model", "llb", "scheduler", "image", "dockerfile"];

/// What a pure crate has no business with: runtimes, sockets, files, databases, clocks.
const IMPURE: [&str; 12] = [
    "tokio",
    "tonic",
    "hyper",
    "axum",
    "reqwest",
    "sqlx",
    "rustix",
    "libc",
    "tempfile",
    "rand",
    "oci-client",
    "tracing",
];

fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        .other_options(["--locked".into()])
        .exec()
        .expect("cargo metadata")
}

/// The packages that each package is built with, without what only tests and build scripts use.
struct Graph<'a> {
    names: BTreeMap<&'a PackageId, &'a str>,
    edges: BTreeMap<&'a PackageId, Vec<&'a PackageId>>,
}

impl<'a> Graph<'a> {
    fn of(metadata: &'a Metadata) -> Self {
        let nodes = &metadata.resolve.as_ref().expect("a resolved graph").nodes;
        let normal = |node: &'a cargo_metadata::Node| {
            let built_with = |dep: &&cargo_metadata::NodeDep| {
                dep.dep_kinds
                    .iter()
                    .any(|kind| kind.kind == DependencyKind::Normal)
            };
            node.deps
                .iter()
                .filter(built_with)
                .map(|dep| &dep.pkg)
                .collect()
        };
        Self {
            names: metadata
                .packages
                .iter()
                .map(|p| (&p.id, p.name.as_str()))
                .collect(),
            edges: nodes.iter().map(|node| (&node.id, normal(node))).collect(),
        }
    }

    fn id(&self, name: &str) -> &'a PackageId {
        let found = self.names.iter().find(|(_, of)| **of == name);
        found.unwrap_or_else(|| panic!("no package {name}")).0
    }

    fn direct(&self, name: &str) -> BTreeSet<&'a str> {
        self.edges[self.id(name)]
            .iter()
            .map(|id| self.names[id])
            .collect()
    }

    fn reachable(&self, name: &str) -> BTreeSet<&'a str> {
        let mut seen = BTreeSet::new();
        let mut pending = vec![self.id(name)];
        while let Some(id) = pending.pop() {
            if seen.insert(id) {
                pending.extend(&self.edges[id]);
            }
        }
        seen.into_iter().map(|id| self.names[id]).collect()
    }
}

fn ours(short: &str) -> String {
    format!("buildyard-{short}")
}

#[test]
fn arrows_run_one_way() {
    let metadata = metadata();
    let graph = Graph::of(&metadata);
    for (crate_, allowed) in ARROWS {
        let allowed: BTreeSet<String> = allowed.iter().map(|short| ours(short)).collect();
        let used = graph.direct(&ours(crate_));
        let outside: Vec<_> = used
            .iter()
            .filter(|name| name.starts_with("buildyard") && !allowed.contains(**name))
            .collect();
        assert!(
            outside.is_empty(),
            "{crate_} must not depend on {outside:?}"
        );
    }
}

#[test]
fn every_crate_has_its_place() {
    let metadata = metadata();
    let placed: BTreeSet<String> = ARROWS.iter().map(|(short, _)| ours(short)).collect();
    let tools = ["buildyard", "buildyard-bench", "buildyard-tests", "xtask"].map(String::from);
    let known: BTreeSet<String> = placed.into_iter().chain(tools).collect();
    let members: BTreeSet<String> = metadata
        .workspace_packages()
        .iter()
        .map(|package| package.name.to_string())
        .collect();
    assert_eq!(members, known, "a new crate gets a line in ARROWS");
}

#[test]
fn coordinator_and_worker_do_not_know_each_other() {
    let metadata = metadata();
    let graph = Graph::of(&metadata);
    assert!(
        !graph
            .reachable(&ours("coordinator"))
            .contains("buildyard-worker")
    );
    assert!(
        !graph
            .reachable(&ours("worker"))
            .contains("buildyard-coordinator")
    );
    let cli = graph.direct("buildyard");
    assert!(cli.contains("buildyard-coordinator") && cli.contains("buildyard-worker"));
}

#[test]
fn pure_crates_reach_no_machine() {
    let metadata = metadata();
    let graph = Graph::of(&metadata);
    for crate_ in PURE {
        // Directly only: sha2 asks libc about the processor, and BuildKit's messages come in a crate that has its services too.
        let direct = graph.direct(&ours(crate_));
        let found: Vec<_> = IMPURE
            .iter()
            .filter(|name| direct.contains(**name))
            .collect();
        assert!(found.is_empty(), "{crate_} depends on {found:?}");
    }
    for crate_ in ["model", "scheduler", "image"] {
        let reached = graph.reachable(&ours(crate_));
        assert!(!reached.contains("tokio"), "{crate_} reaches a runtime");
    }
}

/// The parts of `deny.toml` that are held here.
struct Policy {
    licences: Vec<LicenseReq>,
    banned: BTreeSet<String>,
}

impl Policy {
    fn read() -> Self {
        let text = include_str!("../../deny.toml");
        let table: toml::Table = text.parse().expect("deny.toml");
        let allowed = table["licenses"]["allow"].as_array().expect("licences");
        let banned = table["bans"]["deny"].as_array().expect("bans");
        let text = |value: &toml::Value| value.as_str().expect("a text").to_owned();
        Self {
            licences: allowed
                .iter()
                .flat_map(|licence| requirements(&text(licence)))
                .collect(),
            banned: banned.iter().map(|entry| text(&entry["crate"])).collect(),
        }
    }
}

fn expression(text: &str) -> Expression {
    Expression::parse_mode(text, ParseMode::LAX).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn requirements(text: &str) -> Vec<LicenseReq> {
    let expression = expression(text);
    expression
        .requirements()
        .map(|one| one.req.clone())
        .collect()
}

#[test]
fn licences_are_allowed_and_nothing_is_banned() {
    let metadata = metadata();
    let policy = Policy::read();
    for package in &metadata.packages {
        let name = package.name.as_str();
        assert!(
            !policy.banned.contains(name),
            "{name} is banned by deny.toml"
        );
        let licence = package.license.as_deref();
        let licence = licence.unwrap_or_else(|| panic!("{name} names no licence"));
        assert!(
            expression(licence).evaluate(|needed| policy.licences.contains(needed)),
            "{name} is under {licence}, which deny.toml does not allow"
        );
    }
}
