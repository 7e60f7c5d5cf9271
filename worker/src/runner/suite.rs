//! What every runner does: real containers with the machine's own busybox.
//!
//! Each function is a test of each runner; `tests.rs` lists them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::snapshots::Snapshotter;
use crate::testing::{DEADLINE, Machine, Said, until};

/// So many seconds that nobody else sleeps for: how a test knows its own processes.
pub(super) fn mark() -> String {
    (10_000_000 + rand::random_range(0..1_000_000_000_u32)).to_string()
}

async fn run(choice: &RunnerChoice, script: &str) -> Said {
    Machine::with(choice).run(script, |_| {}).await.unwrap()
}

pub(super) async fn a_step_runs_and_what_it_wrote_is_in_its_upper_directory(choice: &RunnerChoice) {
    let machine = Machine::with(choice);
    let said = machine
        .run(
            "echo out; echo err >&2; echo new > /tmp/file; exit 3",
            |_| {},
        )
        .await
        .unwrap();
    assert_eq!(said.ran.exit, Exit::Code(3));
    assert_eq!(
        (said.stdout.as_str(), said.stderr.as_str()),
        ("out\n", "err\n")
    );
    assert_eq!(
        fs::read_to_string(said.upper.dir().join("tmp/file")).unwrap(),
        "new\n"
    );
    let tail = String::from_utf8(said.ran.tail).unwrap();
    assert!(tail.contains("out\n") && tail.contains("err\n"), "{tail}");
}

pub(super) async fn the_user_the_directory_and_the_environment_are_as_asked(choice: &RunnerChoice) {
    let machine = Machine::with(choice);
    let said = machine
        .run("id -u; id -g; id -G; pwd; stat -c %u:%g:%a /deep; echo $WORD; hostname; echo $HOME; echo \"[$(cat)]\"", |spec| {
            spec.process.user = User { uid: 1000, gid: 1001, additional_gids: vec![10, 1001] };
            spec.process.cwd = "/deep/er".to_owned();
            spec.process.env.push("WORD=a b".to_owned());
        })
        .await
        .unwrap();
    let expected =
        "1000\n1001\n1001 10\n/deep/er\n1000:1001:755\na b\nbuildkitsandbox\n/home/bob\n[]\n";
    assert_eq!(said.stdout, expected, "{}", said.stderr);
}

pub(super) async fn a_sandboxed_step_has_dockers_capabilities_and_no_more(choice: &RunnerChoice) {
    let said = run(
        choice,
        "grep -E '^Cap(Inh|Prm|Eff|Bnd|Amb)|^Seccomp:|^NoNewPrivs' /proc/self/status",
    )
    .await;
    let expected = "CapInh:\t0000000000000000\nCapPrm:\t00000000a80425fb\nCapEff:\t00000000a80425fb\n\
                    CapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\nNoNewPrivs:\t0\nSeccomp:\t2\n";
    assert_eq!(said.stdout, expected);
}

pub(super) async fn dangerous_parts_of_the_machine_are_out_of_reach(choice: &RunnerChoice) {
    let said = run(choice, "mount -t tmpfs x /tmp; echo mount $?; cat /proc/keys /proc/timer_list; echo masked $?; \
                    echo 1 > /proc/sys/kernel/panic; echo sysctl $?; touch /sys/x; echo sys $?; \
                    cd /sys/fs/cgroup; cd memory; mkdir x; echo cgroup $?; ls /sys/firmware; mknod /tmp/null c 1 3; echo mknod $?; \
                    cat /dev/vda > /dev/null; echo disk $?")
    .await;
    let expected = "mount 1\nmasked 0\nsysctl 1\nsys 1\ncgroup 1\nmknod 0\ndisk 1\n";
    assert_eq!(said.stdout, expected, "{}", said.stderr);
}

pub(super) async fn without_a_network_there_is_only_the_loopback(choice: &RunnerChoice) {
    let said = run(choice, "ip -o link | grep -v ' sit0\\| tunl0\\| ip6tnl0\\|ifb' | grep -c .; ip link show lo | head -n 1").await;
    assert!(said.stdout.starts_with("1\n"), "{}", said.stdout);
    assert!(said.stdout.contains("lo: <LOOPBACK,UP"), "{}", said.stdout);
}

pub(super) async fn files_for_names_are_mounted_and_leave_no_trace(choice: &RunnerChoice) {
    let machine = Machine::with(choice);
    let said = machine
        .run("cat /etc/hosts /etc/resolv.conf", |spec| {
            spec.resolv_conf = "nameserver 192.0.2.9\n".to_owned()
        })
        .await
        .unwrap();
    assert_eq!(said.stdout, "127.0.0.1\tlocalhost\nnameserver 192.0.2.9\n");
    let mut stubs = said.ran.stubs.clone();
    stubs.sort();
    assert_eq!(stubs, [b"etc/hosts".to_vec(), b"etc/resolv.conf".to_vec()]);
    assert_eq!(
        fs::read_dir(said.upper.dir().join("etc")).unwrap().count(),
        0
    );
}

pub(super) async fn secrets_and_memory_do_not_end_up_in_the_layer(choice: &RunnerChoice) {
    let machine = Machine::with(choice);
    let said = machine
        .run("cat /run/secrets/key; stat -c ' %a %u %g' /run/secrets/key; echo x > /scratch/y; mount | grep -c scratch; \
              echo data > /cache/file", |spec| {
            let secret = ContainerSource::Secret { contents: Bytes::from("s3cret"), mode: 0o440, uid: 7, gid: 8 };
            let cache = machine.dir.path().join("cache");
            fs::create_dir(&cache).unwrap();
            for (destination, source) in [
                ("/run/secrets/key", secret),
                ("/scratch", ContainerSource::Tmpfs(Some(1 << 20))),
                ("/cache", ContainerSource::Directory(cache)),
            ] {
                spec.mounts.push(ContainerMount { destination: destination.to_owned(), source, read_only: false });
            }
        })
        .await
        .unwrap();
    assert_eq!(said.stdout, "s3cret 440 7 8\n1\n", "{}", said.stderr);
    for path in ["run", "scratch", "cache"] {
        assert!(!said.upper.dir().join(path).exists(), "{path}");
    }
    assert_eq!(
        fs::read_to_string(machine.dir.path().join("cache/file")).unwrap(),
        "data\n"
    );
    assert!(
        !holds(machine.dir.path(), b"s3cret"),
        "the secret is on the disk"
    );
}

/// Whether a file of the tree holds the bytes.
fn holds(dir: &Path, needle: &[u8]) -> bool {
    fs::read_dir(dir).unwrap().any(|entry| {
        let entry = entry.unwrap();
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => holds(&entry.path(), needle),
            kind if kind.is_file() => fs::read(entry.path())
                .unwrap()
                .windows(needle.len())
                .any(|part| part == needle),
            _ => false,
        }
    })
}

pub(super) async fn a_selected_path_of_a_snapshot_can_be_mounted_and_does_not_lead_out(
    choice: &RunnerChoice,
) {
    let machine = Machine::with(choice);
    let layer = machine.layer("tree", |dir| {
        fs::create_dir_all(dir.join("a/b")).unwrap();
        fs::write(dir.join("a/b/file"), "content").unwrap();
        std::os::unix::fs::symlink("/a", dir.join("link")).unwrap();
    });
    let mount = |selector: &str| ContainerMount {
        destination: "/src".to_owned(),
        source: ContainerSource::Snapshot {
            mounts: machine.snapshots.mounts(&[layer], None).unwrap(),
            selector: selector.to_owned(),
        },
        read_only: true,
    };
    let said = machine
        .run("cat /src/file; touch /src/x; echo $?", |spec| {
            spec.mounts.push(mount("/link/b"))
        })
        .await
        .unwrap();
    assert_eq!(said.stdout, "content1\n", "{}", said.stderr);
    let file = machine
        .run("cat /src", |spec| spec.mounts.push(mount("a/b/file")))
        .await
        .unwrap();
    assert_eq!(file.stdout, "content");
    let missing = machine
        .run("true", |spec| spec.mounts.push(mount("/nothing")))
        .await
        .map(|said| said.ran);
    assert!(
        matches!(&missing, Err(RunnerError::Prepare { source, .. }) if source.to_string().contains("nothing")),
        "{missing:?}"
    );
}

pub(super) async fn a_program_that_is_not_there_is_named(choice: &RunnerChoice) {
    let machine = Machine::with(choice);
    let result = machine
        .run("", |spec| {
            spec.process.args = vec!["/no/such/program".to_owned()]
        })
        .await;
    let error = result.map(|said| said.ran).unwrap_err();
    assert!(error.to_string().contains("/no/such/program"), "{error}");
}

pub(super) async fn cancelling_kills_the_whole_tree_promptly(choice: &RunnerChoice) {
    let machine = Machine::with(choice);
    let chain = [machine.busybox()];
    let upper = machine.snapshots.new_upper(&chain).unwrap();
    let mark = mark();
    let script =
        format!("sleep {mark} & (sleep {mark} & sleep {mark}) & touch /tmp/up; sleep {mark}");
    let spec = machine.spec(&chain, &upper, &script);
    let cancel = CancellationToken::new();
    let sleepers = || processes(&format!("sleep\0{mark}\0"));
    let stop = async {
        until("the sleepers", || sleepers() == 4).await;
        cancel.cancel();
        Instant::now()
    };
    let (result, cancelled) = tokio::join!(machine.run_spec(spec, cancel.clone()), stop);
    assert_eq!(result.unwrap().0.exit, Exit::Cancelled);
    assert!(cancelled.elapsed() < DEADLINE, "{:?}", cancelled.elapsed());
    assert_eq!(sleepers(), 0);
    assert_nothing_left(&machine);
}

pub(super) async fn a_dropped_run_is_killed_too(choice: &RunnerChoice) {
    let machine = Machine::with(choice);
    let chain = [machine.busybox()];
    let upper = machine.snapshots.new_upper(&chain).unwrap();
    let mark = mark();
    let spec = machine.spec(&chain, &upper, &format!("sleep {mark}"));
    {
        let run = machine.run_spec(spec, CancellationToken::new());
        tokio::select! {
            _ = run => panic!("it must not end by itself"),
            () = until("the sleeper", || processes(&format!("sleep\0{mark}\0")) == 1) => {}
        }
    }
    machine.runner.close().await;
    assert_eq!(processes(&format!("sleep\0{mark}\0")), 0);
    assert_nothing_left(&machine);
}

/// How many processes have this command line.
pub(super) fn processes(line: &str) -> usize {
    let processes = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok());
    processes.filter(|found| found == line.as_bytes()).count()
}

/// The control groups of this process's containers.
fn groups() -> Vec<PathBuf> {
    let mark = format!("test-{}-", std::process::id());
    let hierarchies = fs::read_dir("/sys/fs/cgroup").unwrap();
    let containers = hierarchies
        .flat_map(|hierarchy| fs::read_dir(hierarchy.unwrap().path().join("buildyard")))
        .flatten()
        .map(|entry| entry.unwrap().path());
    containers
        .filter(|path| path.to_string_lossy().contains(&mark))
        .collect()
}

fn assert_nothing_left(machine: &Machine) {
    for dir in ["run/state", "run/steps", "run/native/steps"] {
        let left: Vec<_> = fs::read_dir(machine.dir.path().join(dir))
            .into_iter()
            .flatten()
            .collect();
        assert!(left.is_empty(), "{dir}: {left:?}");
    }
    assert_eq!(groups(), Vec::<PathBuf>::new(), "control groups are left");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(
        !mounts.contains(machine.dir.path().to_str().unwrap()),
        "{mounts}"
    );
}

pub(super) async fn being_killed_for_memory_is_said(choice: &RunnerChoice) {
    let machine = Machine::with(choice);
    let said = machine
        .run("dd if=/dev/zero of=/dev/null bs=256M count=1", |spec| {
            spec.limits.memory = Some(32 << 20)
        })
        .await
        .unwrap();
    assert_eq!(
        said.ran.exit,
        Exit::OutOfMemory { code: 137 },
        "{}",
        said.stderr
    );
}

pub(super) async fn long_output_is_clipped_and_the_step_goes_on(choice: &RunnerChoice) {
    let said = run(choice, "seq 1 600000; echo the end").await;
    assert_eq!(said.ran.exit, Exit::Code(0));
    assert!(
        said.stdout
            .contains("\n[output clipped, log limit 200KiB/s reached]\n")
    );
    assert!(said.stdout.len() < 3 << 20);
    assert!(said.ran.tail.ends_with(b"600000\nthe end\n"));
}

pub(super) async fn many_steps_run_at_once_and_leave_nothing(choice: &RunnerChoice) {
    let machine = Machine::with(choice);
    let steps = (0..6).map(|number| {
        machine.run("echo $N", move |spec| {
            spec.process.env.push(format!("N={number}"))
        })
    });
    let said = futures::future::join_all(steps).await;
    let words: Vec<String> = said.into_iter().map(|said| said.unwrap().stdout).collect();
    assert_eq!(
        words,
        (0..6)
            .map(|number| format!("{number}\n"))
            .collect::<Vec<_>>()
    );
    assert_nothing_left(&machine);
}
