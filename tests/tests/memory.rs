//! Promise: a farm's memory does not grow with what it builds: contexts, layers and exports stream.

use std::fs;
use std::io::Read;

use buildyard_tests::{Buildx, Context, Registry, Serve, Server, push_base_image};

/// What goes through the farm, in bytes: more than a farm may take in all.
const SIZE: u64 = 160 << 20;
/// How much more than before a farm may take meanwhile: buffers and threads of a machine with many processors, not data.
const MORE: u64 = 128 << 20;

/// Resident memory of the server's process in bytes: now, and at most since the last call.
fn resident(server: &mut Server) -> (u64, u64) {
    let pid = server.process().pid();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a running server");
    let value = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kilobytes.expect("the kernel says it in kB") << 10
    };
    let found = (value("VmRSS:"), value("VmHWM:"));
    // 5: forget the peak (proc_pid_clear_refs(5)).
    fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("forgetting the peak");
    found
}

/// Does something, and checks how much memory the server took for it.
fn lean(server: &mut Server, what: &str, act: impl FnOnce()) {
    let (before, _) = resident(server);
    act();
    let (_, peak) = resident(server);
    let more = peak.saturating_sub(before);
    eprintln!("{what}: {} MiB more than {} MiB", more >> 20, before >> 20);
    assert!(more < MORE, "{what} took {} MiB of memory", more >> 20);
}

/// Writes a file that no encoding makes smaller.
fn random(path: &std::path::Path) {
    let mut source = fs::File::open("/dev/urandom")
        .expect("random bytes")
        .take(SIZE);
    let mut file = fs::File::create(path).expect("a file");
    std::io::copy(&mut source, &mut file).expect("written");
}

#[test]
fn contexts_layers_and_exports_stream() {
    let registry = Registry::start();
    let base = push_base_image(&registry);
    let mut farm = Serve::up().start();
    let buildx = Buildx::new(&farm.endpoint());
    let dockerfile = format!("FROM {base}\nCOPY big /copied\nRUN cat /copied > /made\n");
    let context = Context::new(&[("Dockerfile", &dockerfile)]);
    random(&context.path().join("big"));
    let name = format!("{}/big:1", registry.host());

    lean(
        &mut farm,
        "taking a context over and running a step on it",
        || {
            buildx.build(&context, &[]).succeeds();
        },
    );
    lean(&mut farm, "compressing and pushing layers", || {
        buildx.build(&context, &["--push", "-t", &name]).succeeds();
    });
    let archive = context.path().join("image.tar").display().to_string();
    lean(&mut farm, "an image as an archive", || {
        let output = format!("type=oci,dest={archive}");
        buildx.build(&context, &["--output", &output]).succeeds();
    });
    let folder = context.path().join("out").display().to_string();
    lean(&mut farm, "files", || {
        let output = format!("type=local,dest={folder}");
        buildx.build(&context, &["--output", &output]).succeeds();
    });

    // Another farm, which has nothing of it.
    let mut other = Serve::up().start();
    let buildx = Buildx::new(&other.endpoint());
    let dockerfile = format!("FROM {name}\nRUN cat /made > /again\n");
    let context = Context::new(&[("Dockerfile", &dockerfile)]);
    lean(&mut other, "pulling and running a step", || {
        buildx.build(&context, &[]).succeeds();
    });
}
