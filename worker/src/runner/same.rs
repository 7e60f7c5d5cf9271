//! A step sees the same, and is refused the same, whoever runs it.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use super::probe;
use super::*;
use crate::snapshots::{MountSource, MountSpec, Mounts, Snapshotter};
use crate::testing::Machine;

type Change = fn(&mut ContainerSpec);

/// What the probe sees in a container of one runner, one line each.
async fn seen(choice: &RunnerChoice, change: Change) -> Vec<String> {
    let machine = Machine::with(choice);
    let chain = [machine.busybox()];
    let upper = machine.snapshots.new_upper(&chain).unwrap();
    let mut spec = machine.spec(&chain, &upper, "");
    spec.process.args = vec!["/probe".to_owned(), probe::COMMAND.to_owned()];
    spec.mounts = libraries();
    change(&mut spec);
    let id = spec.id.clone();
    let said = machine.run_spec(spec, Default::default()).await.unwrap();
    let (ran, stdout, stderr) = said;
    assert_eq!(
        (ran.exit, stderr.as_str()),
        (Exit::Code(0), ""),
        "{choice:?}"
    );
    let dir = machine.dir.path().to_str().unwrap().to_owned();
    let lines = stdout
        .lines()
        .map(|line| line.replace(&id, "ID").replace(&dir, "DIR"));
    lines.collect()
}

/// This program, and what it needs of the machine.
fn libraries() -> Vec<ContainerMount> {
    let bind = |path: &Path| {
        MountSpec::new(MountSource::Bind {
            path: path.to_owned(),
            read_only: true,
        })
    };
    let mount = |destination: &str, source: PathBuf| ContainerMount {
        destination: destination.to_owned(),
        source: ContainerSource::Snapshot {
            mounts: Mounts::unheld(vec![bind(&source)]),
            selector: String::new(),
        },
        read_only: true,
    };
    let dirs = ["/lib", "/lib64"].into_iter();
    let mut mounts: Vec<ContainerMount> = dirs
        .filter_map(|dir| Some(mount(dir, std::fs::canonicalize(dir).ok()?)))
        .collect();
    mounts.push(ContainerMount {
        destination: "/probe".to_owned(),
        source: ContainerSource::Directory(std::env::current_exe().unwrap()),
        read_only: true,
    });
    mounts
}

/// Compares what the two runners show.
async fn check(change: Change) -> Vec<String> {
    let oci = seen(&RunnerChoice::Program("runc".to_owned()), change).await;
    // Where the groups are read-only, so is the directory of their names: `runc` leaves that one writable.
    let shown_read_only = oci
        .iter()
        .any(|line| line.starts_with("mount: ") && line.contains(" /sys/fs/cgroup/memory ro,"));
    let oci: Vec<String> = oci
        .into_iter()
        .map(|line| match shown_read_only {
            true => line.replace(" /sys/fs/cgroup rw,", " /sys/fs/cgroup ro,"),
            false => line,
        })
        .collect();
    let native = seen(&RunnerChoice::Native, change).await;
    let missing: Vec<&String> = oci.iter().filter(|line| !native.contains(line)).collect();
    let more: Vec<&String> = native.iter().filter(|line| !oci.contains(line)).collect();
    assert!(
        missing.is_empty() && more.is_empty(),
        "only with runc: {missing:#?}\nonly with native: {more:#?}"
    );
    native
}

#[tokio::test]
async fn a_plain_step() {
    let native = check(|_| {}).await;
    refused(&native);
}

#[tokio::test]
async fn a_step_of_another_user_with_everything_set() {
    let native = check(|spec| {
        spec.process.user = User {
            uid: 1000,
            gid: 1001,
            additional_gids: vec![10, 1001, 4],
        };
        spec.process.cwd = "/deep/er".to_owned();
        spec.process.env = ["PATH=/bin", "A=1", "B=2", "A=3", "EMPTY="]
            .map(str::to_owned)
            .to_vec();
        spec.process.rlimits = vec![
            Rlimit {
                name: "nofile".to_owned(),
                soft: 100,
                hard: 200,
            },
            Rlimit {
                name: "core".to_owned(),
                soft: 0,
                hard: 0,
            },
        ];
        spec.hostname = "somewhere".to_owned();
        spec.limits = Limits {
            memory: Some(512 << 20),
            pids: Some(100),
            cpu_quota: Some(100_000),
            cpus: Some("0".to_owned()),
            oom_score_adj: Some(100),
        };
    })
    .await;
    refused(&native);
}

#[tokio::test]
async fn a_step_on_a_read_only_root() {
    check(|spec| {
        spec.read_only_root = true;
        spec.mounts.push(ContainerMount {
            destination: "/tmp".to_owned(),
            source: ContainerSource::Tmpfs(None),
            read_only: false,
        });
    })
    .await;
}

#[tokio::test]
async fn a_step_on_the_machines_network() {
    check(|spec| spec.network = crate::network::StepNetwork::Host).await;
}

#[tokio::test]
async fn an_insecure_step() {
    check(|spec| spec.security = Security::Insecure).await;
}

/// How a step ends that runs `args` as `uid`: its exit, or the runner's words, and what it printed.
async fn end(machine: &Machine, args: &[&str], uid: u32) -> (Result<Exit, String>, String) {
    let chain = [machine.layer("programs", programs)];
    let upper = machine.snapshots.new_upper(&chain).unwrap();
    let mut spec = machine.spec(&chain, &upper, "");
    spec.process.args = args.iter().map(ToString::to_string).collect();
    spec.process.user.uid = uid;
    spec.process.env = vec!["PATH=/bin:relative::/etc".to_owned()];
    match machine.run_spec(spec, Default::default()).await {
        Ok((ran, _, stderr)) => (Ok(ran.exit), stderr),
        Err(error) => (Err(error.to_string()), String::new()),
    }
}

/// Files of all the kinds that a command can name.
fn programs(dir: &Path) {
    crate::testing::fill_with_busybox(dir, Path::new("/bin/busybox"));
    std::fs::create_dir(dir.join("relative")).unwrap();
    let files: [(&str, &str, u32); 8] = [
        ("garbage", "garbage", 0o755),
        ("empty", "", 0o755),
        ("script", "#!/no/interpreter\n", 0o755),
        ("good", "#!/bin/sh\nexit 7\n", 0o755),
        ("text", "text", 0o644),
        ("roots", "#!/bin/sh\n", 0o744),
        ("relative/near", "#!/bin/sh\n", 0o755),
        ("etc/far", "#!/bin/sh\nexit 8\n", 0o755),
    ];
    for (name, text, mode) in files {
        std::fs::write(dir.join(name), text).unwrap();
        std::fs::set_permissions(dir.join(name), Permissions::from_mode(mode)).unwrap();
    }
    std::os::unix::fs::symlink("loop", dir.join("loop")).unwrap();
}

#[tokio::test]
async fn commands_that_cannot_start() {
    let oci = Machine::with(&RunnerChoice::Program("runc".to_owned()));
    let native = Machine::with(&RunnerChoice::Native);
    let commands: [&[&str]; 16] = [
        &["/good"],
        &["far"],
        &["/no/such"],
        &["nowhere"],
        &[""],
        &["/etc"],
        &["bin"],
        &["/text"],
        &["text"],
        &["/garbage"],
        &["/empty"],
        &["/script"],
        &["/loop"],
        &["/good/more"],
        &["near"],
        &["./good"],
    ];
    for args in commands {
        assert_eq!(
            end(&native, args, 0).await,
            end(&oci, args, 0).await,
            "{args:?}"
        );
    }
    for args in [&["/roots"], &["/text"], &["far"]] {
        let (native, oci) = (end(&native, args, 1000).await, end(&oci, args, 1000).await);
        assert_eq!(native, oci, "{args:?} of another user");
    }
    let (exit, _) = end(&native, &["/no/such"], 0).await;
    let words = exit.unwrap_err();
    assert!(
        words.contains("exec: \"/no/such\": stat /no/such: no such file or directory"),
        "{words}"
    );
}

#[tokio::test]
async fn a_step_that_gets_hold_of_the_helpers_program_cannot_write_to_it() {
    let lines = seen(&RunnerChoice::Native, |spec| {
        spec.process.args[0] = "/proc/self/exe".to_owned()
    })
    .await;
    assert!(lines.contains(&"program file is read-only: Ok(true)".to_owned()));
    refused(&lines);
}

/// What must not work in any sandboxed step, whatever both runners think.
fn refused(lines: &[String]) {
    let results: BTreeMap<&str, &str> = lines
        .iter()
        .filter_map(|line| line.split_once(": "))
        .collect();
    let refusals = ["EPERM", "ENOSYS", "EACCES", "EROFS", "error 2", "not there"];
    static ALLOWED: LazyLock<Vec<&str>> = LazyLock::new(|| {
        vec![
            "call name_to_handle_at",
            "call personality question",
            "call socket inet",
            "call socket packet",
            "call chroot",
            "call capset",
            "call kill another",
            "call ptrace another",
            "call ptrace first process",
        ]
    });
    let tried = results.iter().filter(|(name, _)| {
        let attempt = ["call ", "write ", "opening "]
            .iter()
            .any(|kind| name.starts_with(kind));
        attempt && !ALLOWED.contains(name) && **name != "opening null"
    });
    let mut count = 0;
    for (name, result) in tried {
        assert!(refusals.contains(result), "{name}: {result}");
        count += 1;
    }
    assert!(count > 50, "only {count} attempts were made");
    assert_eq!(
        results["call kill another"],
        format!("error {}", libc::ESRCH)
    );
}
