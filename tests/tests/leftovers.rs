//! Promise: what a killed server leaves on the machine is gone once a server starts there again, and what a living one uses
//! is not touched.

use std::path::{Path, PathBuf};
use std::process::Command;

use buildyard_tests::{Farm, Mark, Serve, containers_of, network_of};

/// Whether the bridge and the table of rules are there.
fn is_there([bridge, table]: &[String; 2]) -> (bool, bool) {
    let tables = Command::new("nft").args(["list", "tables"]).output();
    let tables = String::from_utf8_lossy(&tables.expect("running nft").stdout).into_owned();
    let has_table = tables.lines().any(|line| line.ends_with(table.as_str()));
    let has_bridge = Path::new("/sys/class/net").join(bridge).exists();
    (has_bridge, has_table)
}

const BOTH: (bool, bool) = (true, true);
const NONE: (bool, bool) = (false, false);

/// The control groups of a container, one for each hierarchy of this machine.
fn control_groups(id: &str) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = std::fs::read_dir(root)
        .expect("the control groups")
        .flatten();
    let mut roots: Vec<PathBuf> = hierarchies.map(|entry| entry.path()).collect();
    roots.push(root.to_owned());
    let groups = roots
        .into_iter()
        .map(|root| root.join("buildyard").join(id));
    groups.filter(|group| group.exists()).collect()
}

fn mounts_below(data: &Path) -> Vec<String> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("the mounts");
    let below = data.display().to_string();
    let lines = mounts.lines().filter(|line| line.contains(&below));
    lines.map(str::to_owned).collect()
}

/// Kills the farm's server in the middle of a step. Returns the step, and the network of its worker.
fn kill_amid_a_step(farm: &mut Farm) -> (Mark, [String; 2]) {
    let held = Mark::new();
    let context = farm.context(&format!("FROM BASE\n{}\n", held.run_held("true")));
    let build = farm.buildx.start(&context, &[]);
    held.wait_runs(&[&farm.server], 1);
    let network = network_of(&farm.server.data().join("worker"));
    assert_eq!(is_there(&network), BOTH);
    farm.server.kill();
    build.finish().fails();
    (held, network)
}

#[test]
fn a_killed_servers_steps_end_with_it() {
    let mut farm = Farm::serving(&Serve::up().args(&["--runner", "native"]));
    let (held, _network) = kill_amid_a_step(&mut farm);
    held.wait_ended();
    let data = farm.server.data().join("worker");
    assert_eq!(mounts_below(&data), Vec::<String>::new());
}

#[test]
fn a_server_that_is_started_again_ends_what_its_killed_process_left() {
    let serve = Serve::up().args(&["--runner", "runc"]);
    let mut farm = Farm::serving(&serve);
    let (held, network) = kill_amid_a_step(&mut farm);
    assert!(held.is_running(), "a runtime program knows no owner");
    let data = farm.server.data().join("worker");
    let containers = containers_of(&data);
    assert_eq!(containers.len(), 1, "{containers:?}");
    assert!(!control_groups(&containers[0]).is_empty());

    farm.server = serve.start();

    held.wait_ended();
    assert_eq!(containers_of(&data), Vec::<String>::new());
    assert_eq!(control_groups(&containers[0]), Vec::<PathBuf>::new());
    assert_eq!(is_there(&network), BOTH);
    farm.build("FROM BASE\nRUN ip -4 -o address show eth0\n", &[])
        .succeeds();
    assert!(farm.server.stop().success());
    assert_eq!(is_there(&network), NONE);
    assert_eq!(mounts_below(&data), Vec::<String>::new());
}

#[test]
fn the_network_of_a_killed_server_is_removed_by_any_other_and_living_ones_stay() {
    let living = Farm::new();
    let of_living = network_of(&living.server.data().join("worker"));
    let mut killed = Farm::new();
    let (_held, of_killed) = kill_amid_a_step(&mut killed);
    assert_eq!(is_there(&of_living), BOTH);

    let other = Serve::up().start();

    let of_other = network_of(&other.data().join("worker"));
    assert_eq!((is_there(&of_other), is_there(&of_killed)), (BOTH, NONE));
    assert_eq!(is_there(&of_living), BOTH);
    living
        .build(
            "FROM BASE\nRUN ip -4 -o address show eth0 | grep 10.213\n",
            &[],
        )
        .succeeds();
}
