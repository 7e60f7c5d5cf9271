//! Promise: however a worker makes layers ready for steps, a build gives the same image, bit for bit.

use std::time::Duration;

use buildyard_tests::{
    Buildx, Context, PLATFORMS, Registry, Serve, inspect_raw, push_base_image, wait_for,
};
use serde_json::Value;

/// The time of everything that steps make; the times of images follow it.
const MADE: &str = "1577836800";

/// Steps enough that layers are merged, each seeing what those before it left.
const SMALL_STEPS: usize = 16;

/// Lists what a file system must show alike everywhere. Sizes of directories, and blocks, are its own business.
const LOOK: &str = "stat -c '%n %F %f %u %g %Y' /d /d/*";

/// A step whose changes all get one time: its own words, then the paths that it changed.
fn run(words: &str, changed: &str) -> String {
    format!("RUN {words} && touch -h -d @{MADE} {changed} /\n")
}

fn dockerfile(base: &str) -> String {
    let mut text = format!("FROM {base} AS made\nCOPY points /\nCOPY tree /tree\n");
    text += &run(
        "mkdir /d && cp /tree/a /d/a && ln /d/a /d/b && ln -s a /d/c && chmod 4711 /d/a && mkfifo /d/p",
        "/d/a /d/b /d/c /d/p /d",
    );
    text += &run(
        "rm -r /tree/sub && mkdir /tree/sub && echo new > /tree/sub/new && ln /tree/b /tree/link",
        "/tree/sub/new /tree/sub /tree/b /tree/link /tree",
    );
    text += &run(
        "rm /etc/group && dd if=/dev/zero of=/sparse bs=1 count=1 seek=3000000",
        "/etc /sparse",
    );
    for step in 0..SMALL_STEPS {
        let words =
            format!("seen=$({LOOK} /tree) && (echo \"$seen\" && cat /d/a /tree/link) > /d/{step}");
        text += &run(&words, &format!("/d/{step} /d"));
    }
    text += "FROM made AS looked\n";
    text += &run(
        &format!("({LOOK} /tree && cat /d/[0-9]*) > /looked"),
        "/looked",
    );
    text += &format!("FROM {base}\nCOPY points /\nCOPY --from=made /d /d\n");
    text + &run(&format!("{LOOK} > /listing && test ! -e /tree"), "/listing")
}

/// Builds for two platforms, the last stage or this one, and returns the index that was pushed.
fn built(endpoint: &str, context: &Context, name: &str, stage: &[&str]) -> Value {
    let epoch = format!("SOURCE_DATE_EPOCH={MADE}");
    let args = [
        "--platform",
        PLATFORMS,
        "--build-arg",
        &epoch,
        "-t",
        name,
        "--push",
    ];
    let build = Buildx::new(endpoint).build(context, &[&args[..], stage].concat());
    build.succeeds();
    inspect_raw(name)
}

#[test]
fn every_snapshotter_gives_the_same_image() {
    let registry = Registry::start();
    let base = push_base_image(&registry);
    let context = Context::new(&[
        ("tree/a", "the first file\n"),
        ("tree/b", "the second file\n"),
        ("tree/sub/old", "removed\n"),
        ("left/out", "not copied\n"),
        // Mount points that a step's container would make otherwise, at its own time.
        ("points/dev/kept", ""),
        ("points/proc/kept", ""),
        ("points/sys/kept", ""),
        ("Dockerfile", &dockerfile(&base)),
    ]);
    let name = |tag: &str| format!("{}/app:{tag}", registry.host());

    // What a step sees of many layers, after all that the other stage's steps did.
    let looked = ["--target", "looked"];

    let farm = Serve::up().args(&["--snapshotter", "directories"]).start();
    let directories = built(&farm.endpoint(), &context, &name("directories"), &[]);
    let looked_at = built(&farm.endpoint(), &context, &name("looked"), &looked);
    drop(farm);
    let farm = Serve::up().args(&["--snapshotter", "erofs"]).start();
    let erofs = built(&farm.endpoint(), &context, &name("erofs"), &[]);
    assert_eq!(directories, erofs);
    // Layers are merged beside the steps; what comes then sees them merged.
    wait_for("layers to be merged", Duration::from_secs(60), || {
        let images = std::fs::read_dir(farm.data().join("worker/erofs/images")).expect("images");
        let mut names = images.filter_map(Result::ok).map(|image| image.file_name());
        names
            .any(|name| name.to_string_lossy().ends_with(".16"))
            .then_some(())
    });
    let merged = built(&farm.endpoint(), &context, &name("merged"), &looked);
    assert_eq!(looked_at, merged);
    drop(farm);

    // A worker of its own has only the ranges of flat files that its steps need.
    let coordinator = Serve::coordinator().start();
    let _worker = Serve::worker(&coordinator.url(), "apart")
        .args(&["--snapshotter", "erofs"])
        .start();
    wait_for("the worker", Duration::from_secs(60), || {
        let workers = coordinator.cli(&["workers"]);
        let mut lines = workers.lines();
        lines
            .any(|line| line.starts_with("apart") && line.contains("connected"))
            .then_some(())
    });
    let apart = built(&coordinator.endpoint(), &context, &name("apart"), &[]);
    assert_eq!(directories, apart);
}
