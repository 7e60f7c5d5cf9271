//! A private network between namespaces of the test's own.

use std::io::Write;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::netlink::Netlink;
use super::*;
use crate::emulation::{EmulationConfig, EmulatorKind, probe};
use crate::runner::Exit;
use crate::snapshots::Snapshotter;
use crate::testing::{DEADLINE, Machine, Said, arm64_busybox, fill_with_busybox};

/// A machine with a network namespace as its host's, and another one as the world outside, with a server on 192.0.2.10
/// that says whom it sees.
struct Bed {
    machine: Machine,
    host: std::fs::File,
    world: std::fs::File,
    network: Option<Arc<PrivateNetwork>>,
}

impl Bed {
    fn new() -> Self {
        let machine = Machine::new();
        let [host, world] = [(), ()].map(|()| namespace::create(None).unwrap().0);
        let wire = format!(
            "link set lo up\nlink add wan0 type veth peer name eth0 netns {}\naddress add 192.0.2.1/24 dev wan0\nlink set wan0 up\n",
            namespace::path(&world).display()
        );
        let far = "link set lo up\naddress add 192.0.2.10/24 dev eth0\nlink set eth0 up\n";
        tools::inside(&host, || ip(&wire)).unwrap();
        tools::inside(&world, || ip(far)).unwrap();
        let network = tools::inside(&host, || PrivateNetwork::open(machine.dir.path())).unwrap();
        Self {
            machine,
            host,
            world,
            network: Some(Arc::new(network)),
        }
    }

    fn private(&self) -> StepNetwork {
        StepNetwork::Private(self.network.clone().unwrap())
    }

    /// Serves `times` connections in the world outside: tells each where it comes from.
    fn serve(&self, times: usize) -> thread::JoinHandle<()> {
        let listener = tools::inside(&self.world, || {
            Ok(TcpListener::bind("192.0.2.10:80").unwrap())
        })
        .unwrap();
        thread::spawn(move || {
            for _ in 0..times {
                let (mut connection, from) = listener.accept().unwrap();
                writeln!(connection, "you are {}", from.ip()).unwrap();
            }
        })
    }

    fn links(&self) -> String {
        let names = |socket: &mut Netlink| {
            let links = socket.all(messages::links())?;
            let names = links.iter().filter_map(messages::name_and_index);
            Ok(names.map(|(name, _)| format!("{name} ")).collect())
        };
        tools::inside(&self.host, || {
            let socket = Netlink::open();
            socket
                .and_then(|mut socket| names(&mut socket))
                .map_err(NetworkError::io("listing links"))
        })
        .unwrap()
    }
}

/// Runs `ip` commands, one a line.
fn ip(lines: &str) -> Result<(), NetworkError> {
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(lines.as_bytes()).unwrap();
    drop(stdin);
    assert!(child.wait().unwrap().success(), "{lines}");
    Ok(())
}

const ASK: &str = "nc 192.0.2.10 80 < /dev/null; ip -4 -o address show eth0 | grep -c ' 10.213.'";

#[tokio::test(flavor = "multi_thread")]
async fn a_step_reaches_the_world_with_the_machines_address() {
    let mut bed = Bed::new();
    let server = bed.serve(2);
    for _ in 0..2 {
        let said: Said = bed
            .machine
            .run(ASK, |spec| spec.network = bed.private())
            .await
            .unwrap();
        assert_eq!(said.stdout, "you are 192.0.2.1\n1\n", "{}", said.stderr);
        assert_eq!(said.ran.exit, Exit::Code(0));
    }
    server.join().unwrap();
    assert!(bed.links().contains("by-"), "{}", bed.links());
    bed.network = None;
    assert!(
        !bed.links().contains("by-"),
        "the bridge is left: {}",
        bed.links()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emulated_step_reaches_it_too() {
    let bed = Bed::new();
    let platforms = probe(&EmulationConfig {
        search: vec!["/usr/bin".into()],
        ..EmulationConfig::default()
    });
    let arm64 = buildyard_model::Platform::new("linux", "arm64", "");
    let emulator = platforms
        .emulator(&arm64)
        .unwrap()
        .expect("arm64 is emulated here");
    assert_eq!(emulator.kind, EmulatorKind::UserNamespace);
    let busybox = arm64_busybox();
    let chain = [bed
        .machine
        .layer("arm64", |dir| fill_with_busybox(dir, &busybox))];
    let upper = bed.machine.snapshots.new_upper(&chain).unwrap();
    let mut spec = bed.machine.spec(&chain, &upper, ASK);
    spec.network = bed.private();
    emulator.apply(&mut spec);
    let server = bed.serve(1);
    let (ran, stdout, stderr) = bed
        .machine
        .run_spec(spec, Default::default())
        .await
        .unwrap();
    assert_eq!(stdout, "you are 192.0.2.1\n1\n", "{stderr}");
    assert_eq!(ran.exit, Exit::Code(0));
    server.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_do_not_reach_each_other() {
    let bed = Bed::new();
    let serve = bed.machine.run(
        "ip -4 -o address show eth0; nc -l -p 81 -w 8 < /dev/null",
        |spec| spec.network = bed.private(),
    );
    // The first addresses are those of the first steps and of the networks that are held ready: one of them serves.
    let subnet = "$(ip -4 -o address show eth0 | grep -o '10[.]213[.][0-9]*' | head -n 1)";
    let ask = format!(
        "sleep 1; for host in 2 3 4 5 6 7 8 9; do (nc -w 2 {subnet}.$host 81 < /dev/null && echo reached) & done; wait; echo done"
    );
    let ask = bed.machine.run(&ask, |spec| spec.network = bed.private());
    let (server, client) = tokio::join!(serve, ask);
    assert!(server.unwrap().stdout.contains("10.213."));
    assert_eq!(client.unwrap().stdout, "done\n");
}

#[test]
fn what_killed_workers_left_is_removed_by_the_next_and_nothing_else() {
    let mut bed = Bed::new();
    let open =
        |dir: &std::path::Path| tools::inside(&bed.host, || PrivateNetwork::open(dir)).unwrap();
    let others = tempfile::tempdir().unwrap();
    let tables = || {
        let list = || Ok(Command::new("nft").args(["list", "tables"]).output());
        let output = tools::inside(&bed.host, list).unwrap().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let count = || {
        let bridges = bed.links().matches("by-").count();
        (bridges, tables().matches("buildyard_net_").count())
    };
    // Somebody else's bridge, and the bed's own network, which lives.
    tools::inside(&bed.host, || ip("link add by-somebody type bridge\n")).unwrap();
    let before = bed.links();
    assert_eq!(count(), (2, 1), "{before}");
    // Another process on a directory of the same path, which is killed.
    open(bed.machine.dir.path()).abandon();
    assert_eq!(count(), (3, 2), "{}", bed.links());
    let next = open(others.path());
    assert_eq!(count(), (3, 2), "{}", bed.links());
    drop(next);
    assert_eq!(bed.links(), before);
    assert_eq!(count(), (2, 1));
    bed.network = None;
}

#[test]
fn networks_are_held_ready_once_a_step_has_asked() {
    let mut bed = Bed::new();
    // The peers of what is on the bridge: none before the first step.
    let devices = || bed.links().matches("bv").count();
    assert_eq!(devices(), 0);
    let first = bed.network.as_ref().unwrap().attach(None).unwrap();
    until("networks to be ready", || devices() == 5);
    let second = bed.network.as_ref().unwrap().attach(None).unwrap();
    assert_ne!(first.host, second.host);
    until("the one that was taken to be replaced", || devices() == 6);
    drop((first, second));
    bed.network = None;
    until("all of them to be gone", || !bed.links().contains("bv"));
}

fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !reached() {
        assert!(begun.elapsed() < DEADLINE, "waited {DEADLINE:?} for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
