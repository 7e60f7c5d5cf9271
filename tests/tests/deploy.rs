//! Promise: what `deploy/` has works as it stands: systemd takes the units, and what they and the compose file start runs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use buildyard_tests::{Scratch, Serve, buildyard, free_port};
use serde_json::Value;

const INSTALLED: &str = "/usr/local/bin/buildyard";

fn deploy(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy")
        .join(file)
}

fn read(file: &str) -> String {
    let path = deploy(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn systemd_accepts_the_units() {
    let folder = Scratch::new();
    for name in ["buildyard-coordinator.service", "buildyard-worker.service"] {
        let unit = read(&format!("systemd/{name}"));
        assert!(unit.contains(INSTALLED));
        let here = buildyard().display().to_string();
        let path = folder.path().join(name);
        std::fs::write(&path, unit.replace(INSTALLED, &here)).expect("writing a unit");
        let output = Command::new("systemd-analyze")
            .args(["verify", "--man=no"])
            .arg(&path)
            .output()
            .expect("running systemd-analyze");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && !said.contains(name),
            "{name}: {said}"
        );
    }
}

/// The words that a unit starts, without the program, as systemd makes them (systemd.service(5), "Command lines"): `${X}`
/// is one word or a part of one, `$X` is split at spaces.
fn exec_start(unit: &str, changed: &BTreeMap<&str, String>) -> Vec<String> {
    let values = |key: &str| {
        let lines = unit.lines().filter_map(move |line| line.split_once('='));
        lines
            .filter(move |(name, _)| *name == key)
            .map(|(_, value)| value.to_owned())
            .collect::<Vec<_>>()
    };
    let mut variables: BTreeMap<String, String> = values("Environment")
        .iter()
        .filter_map(|value| value.trim_matches('"').split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    variables.extend(
        changed
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone())),
    );
    let line = values("ExecStart").pop().expect("ExecStart");
    let mut words = line.split_whitespace();
    assert_eq!(words.next(), Some(INSTALLED));
    let expand = |word: &str| -> Vec<String> {
        if let Some(name) = word
            .strip_prefix("${")
            .and_then(|rest| rest.strip_suffix('}'))
        {
            vec![variables[name].clone()]
        } else if let Some(name) = word.strip_prefix('$') {
            variables[name]
                .split_whitespace()
                .map(str::to_owned)
                .collect()
        } else {
            vec![word.to_owned()]
        }
    };
    words.flat_map(expand).collect()
}

#[test]
fn what_the_units_start_is_a_farm() {
    let port = free_port();
    let (of_coordinator, of_worker) = (Arc::new(Scratch::new()), Arc::new(Scratch::new()));
    let state = |data: &Scratch| data.path().join("state").display().to_string();
    let arguments = format!("--listen 127.0.0.1:{port}");
    let changed = BTreeMap::from([
        ("STATE_DIRECTORY", state(&of_coordinator)),
        ("BUILDYARD_COORDINATOR_ARGS", arguments),
    ]);
    let words = exec_start(&read("systemd/buildyard-coordinator.service"), &changed);
    let mut coordinator = Serve::words(&words, Some(port), of_coordinator).start();

    let changed = BTreeMap::from([
        ("STATE_DIRECTORY", state(&of_worker)),
        ("BUILDYARD_JOIN", coordinator.url()),
    ]);
    let words = exec_start(&read("systemd/buildyard-worker.service"), &changed);
    let mut worker = Serve::words(&words, None, of_worker).start();
    coordinator.wait_workers(true);

    assert!(worker.stop().success(), "{}", worker.log());
    assert!(coordinator.stop().success(), "{}", coordinator.log());
}

#[test]
fn what_the_compose_file_starts_is_a_farm() {
    let compose: Value =
        serde_saphyr::from_str(&read("compose.yaml")).expect("compose.yaml is YAML");
    let services = compose["services"].as_object().expect("services");
    let volumes = compose["volumes"].as_object().expect("volumes");
    let port = free_port();
    let start = |name: &str, port_of: Option<u16>| {
        let service = &services[name];
        let volume = service["volumes"][0].as_str().expect("a volume");
        let (volume, inside) = volume.split_once(':').expect("a volume and its place");
        assert!(volumes.contains_key(volume));
        let data = Arc::new(Scratch::new());
        let outside = data.path().join("data").display().to_string();
        let words = service["command"].as_array().expect("a command");
        let words: Vec<String> = words
            .iter()
            .map(|word| word.as_str().expect("a word"))
            .map(|word| match word {
                "0.0.0.0:8372" => format!("127.0.0.1:{port}"),
                "http://coordinator:8372" => format!("http://127.0.0.1:{port}"),
                word if word == inside => outside.clone(),
                word => word.to_owned(),
            })
            .collect();
        Serve::words(&words, port_of, data).start()
    };
    let mut coordinator = start("coordinator", Some(port));
    let _worker = start("worker", None);
    coordinator.wait_workers(true);
    assert_eq!(services["worker"]["privileged"], true);
    assert_eq!(services["coordinator"]["ports"][0], "127.0.0.1:8372:8372");
    assert!(deploy("Dockerfile").is_file());
}
