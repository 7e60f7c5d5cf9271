//! Nothing that the runners hold open on the machine leads a step out of its root, however it is named.
//!
//! A runner looks for the program, the working directory and the user's home in an image that it does not trust, in a process
//! that is not the step's command yet. Each path here goes through one of that process's descriptors
//! (`/proc/self/fd/7/../../…`) up to the machine's root, and from there down to a directory of the machine's that the test
//! made (CVE-2024-21626, CVE-2019-5736).

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::*;
use crate::snapshots::Snapshotter;
use crate::testing::Machine;

/// The descriptors that are tried: more than a runner has open.
const DESCRIPTORS: std::ops::RangeInclusive<u32> = 3..=40;

/// Each runner's machine, with a program and a user list outside of all images.
fn machines() -> [Machine; 2] {
    let choices = [
        RunnerChoice::Program("runc".to_owned()),
        RunnerChoice::Native,
    ];
    choices.map(|choice| {
        let machine = Machine::with(&choice);
        let dir = machine.dir.path();
        let program = dir.join("reached");
        fs::write(&program, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(dir.join("passwd"), "root:x:0:0::/reached:/bin/sh\n").unwrap();
        machine
    })
}

/// A path that leads to a directory of the machine's if the descriptor is one of the machine's.
fn way_out(descriptor: u32, to: &Path) -> String {
    let up = "/..".repeat(12);
    format!("/proc/self/fd/{descriptor}{up}{}", to.display())
}

/// Runs a step on a root to which `fill` adds files, and says how it ended and what it printed.
async fn end(
    machine: &Machine,
    fill: impl FnOnce(&Path),
    change: impl FnOnce(&mut ContainerSpec),
) -> (Result<Exit, RunnerError>, String) {
    let chain = [machine.busybox()];
    let upper = machine.snapshots.new_upper(&chain).unwrap();
    fill(&upper.dir());
    let mut spec = machine.spec(&chain, &upper, "echo $HOME");
    change(&mut spec);
    match machine.run_spec(spec, Default::default()).await {
        Ok((ran, stdout, _)) => (Ok(ran.exit), stdout),
        Err(error) => (Err(error), String::new()),
    }
}

/// Whether the runner found no program.
fn assert_not_found((end, stdout): (Result<Exit, RunnerError>, String), what: &str) {
    assert!(
        matches!(end, Err(RunnerError::Start(_))),
        "{what}: {end:?} {stdout}"
    );
}

#[tokio::test]
async fn a_programs_path_does_not_lead_out_of_the_root() {
    for machine in machines() {
        let dir = machine.dir.path();
        for descriptor in DESCRIPTORS {
            let path = format!("{}/reached", way_out(descriptor, dir));
            let ended = end(
                &machine,
                |_| {},
                |spec| spec.process.args = vec![path.clone()],
            );
            assert_not_found(ended.await, &path);
        }
    }
}

#[tokio::test]
async fn a_search_path_does_not_lead_out_of_the_root() {
    for machine in machines() {
        let dir = machine.dir.path();
        let places: Vec<String> = DESCRIPTORS
            .map(|descriptor| way_out(descriptor, dir))
            .collect();
        let path = format!("PATH={}", places.join(":"));
        let ended = end(
            &machine,
            |_| {},
            |spec| {
                spec.process.args = vec!["reached".to_owned()];
                spec.process.env = vec![path.clone()];
            },
        );
        assert_not_found(ended.await, &path);
    }
}

#[tokio::test]
async fn a_link_of_the_image_does_not_lead_out_of_the_root() {
    for machine in machines() {
        let dir = machine.dir.path();
        // A directory that is a link, and one that holds a link.
        let fill = |upper: &Path| {
            for descriptor in DESCRIPTORS {
                let out = way_out(descriptor, dir);
                symlink(&out, upper.join(format!("out{descriptor}"))).unwrap();
                let place = upper.join(format!("in{descriptor}"));
                fs::create_dir(&place).unwrap();
                symlink(format!("{out}/reached"), place.join("reached")).unwrap();
            }
        };
        let places = DESCRIPTORS.map(|descriptor| format!("/out{descriptor}:/in{descriptor}"));
        let path = format!("PATH={}", places.collect::<Vec<_>>().join(":"));
        let ended = end(&machine, fill, |spec| {
            spec.process.args = vec!["reached".to_owned()];
            spec.process.env = vec![path.clone()];
        });
        assert_not_found(ended.await, &path);
    }
}

#[tokio::test]
async fn a_user_list_of_the_machines_is_not_read() {
    for machine in machines() {
        let dir = machine.dir.path();
        for descriptor in DESCRIPTORS {
            let list = format!("{}/passwd", way_out(descriptor, dir));
            let fill = |upper: &Path| {
                fs::create_dir(upper.join("etc")).unwrap();
                symlink(&list, upper.join("etc/passwd")).unwrap();
            };
            let ended = end(&machine, fill, |_| {}).await;
            assert!(
                matches!(ended, (Ok(Exit::Code(0)), ref home) if home == "/\n"),
                "{list}: {ended:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_user_list_of_the_kernels_is_not_read() {
    let machine = Machine::with(&RunnerChoice::Native);
    let fill = |upper: &Path| {
        fs::create_dir(upper.join("etc")).unwrap();
        symlink("/proc/sys/kernel/hostname", upper.join("etc/passwd")).unwrap();
    };
    let ended = end(&machine, fill, |spec| {
        spec.hostname = "root:x:0:0::/reached:/bin/sh".to_owned();
    });
    let (end, home) = ended.await;
    assert_eq!((end.unwrap(), home.as_str()), (Exit::Code(0), "/\n"));
}

#[tokio::test]
async fn a_user_list_that_only_root_may_read_says_where_the_home_is() {
    for machine in machines() {
        let fill = |upper: &Path| {
            fs::create_dir(upper.join("etc")).unwrap();
            let list = upper.join("etc/passwd");
            fs::write(&list, "bob:x:1000:1001::/home/bob:/bin/sh\n").unwrap();
            fs::set_permissions(&list, fs::Permissions::from_mode(0o600)).unwrap();
        };
        let (end, home) = end(&machine, fill, |spec| spec.process.user.uid = 1000).await;
        assert_eq!(
            (end.unwrap(), home.as_str()),
            (Exit::Code(0), "/home/bob\n")
        );
    }
}
