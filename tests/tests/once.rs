//! Promise: a step that is asked for several times at once runs once: by two clients, by two platforms, by two places of a
//! Dockerfile that come to the same.

use buildyard_tests::{Buildx, Farm, Image, Mark, PLATFORMS, Serve, native_architecture};

#[test]
fn two_clients_share_a_running_step() {
    let (farm, held) = (Farm::new(), Mark::new());
    let context = farm.context(&format!(
        "FROM BASE\n{}\n",
        held.run_held("echo it > /made")
    ));
    let names = ["one:1", "two:1"].map(|name| farm.name(name));
    let clients = [0, 1].map(|_| Buildx::new(&farm.server.endpoint()));

    let mut first = clients[0].start(&context, &["--push", "-t", &names[0]]);
    first.wait_says(&held.said());
    let mut second = clients[1].start(&context, &["--push", "-t", &names[1]]);
    second.wait_says(&held.said());
    held.let_go(&farm.server);
    first.finish().succeeds();
    second.finish().succeeds();

    assert_eq!(held.runs(&[&farm.server]), 1);
    for name in &names {
        assert_eq!(
            Image::pull(name, native_architecture()).text("made"),
            "it\n"
        );
    }
}

#[test]
fn two_platforms_share_what_is_common_and_so_they_do_without_the_cache() {
    let farm = Farm::new();
    let (common, each) = (Mark::new(), Mark::new());
    let dockerfile = format!(
        "FROM --platform=$BUILDPLATFORM BASE AS made\n{}\nFROM BASE\nCOPY --from=made /made /\n{}\n",
        common.run("echo made > /made"),
        each.run("true")
    );
    let context = farm.context(&dockerfile);
    let runs = || (common.runs(&[&farm.server]), each.runs(&[&farm.server]));
    farm.buildx
        .build(&context, &["--platform", PLATFORMS])
        .succeeds();
    assert_eq!(runs(), (1, 2));
    farm.buildx
        .build(&context, &["--platform", PLATFORMS])
        .succeeds();
    assert_eq!(runs(), (1, 2));
    let anew = ["--no-cache", "--platform", PLATFORMS];
    farm.buildx.build(&context, &anew).succeeds();
    assert_eq!(runs(), (2, 4));
}

#[test]
fn two_places_that_come_to_the_same_share_a_step_and_so_they_do_without_the_cache() {
    let (farm, shared) = (Farm::new(), Mark::new());
    // The steps before it differ, and so do its digests; what it runs on is the same.
    let run = shared.run("echo made > /made");
    let dockerfile = format!(
        "FROM BASE AS left\nRUN echo same > /before\n{run}\nFROM BASE AS right\nRUN echo 'same' > /before\n{run}\n\
         FROM BASE\nCOPY --from=left /made /left\nCOPY --from=right /made /right\n"
    );
    let context = farm.context(&dockerfile);
    farm.buildx.build(&context, &[]).succeeds();
    assert_eq!(shared.runs(&[&farm.server]), 1);
    farm.buildx.build(&context, &["--no-cache"]).succeeds();
    assert_eq!(shared.runs(&[&farm.server]), 2);
}

#[test]
fn each_worker_runs_its_platform_and_what_is_common_runs_once() {
    let farm = Farm::serving(&Serve::coordinator());
    let one = farm.worker("one", "linux/amd64");
    let two = farm.worker("two", "linux/arm64");
    let (common, each) = (Mark::new(), Mark::new());
    let dockerfile = format!(
        "FROM --platform=$BUILDPLATFORM BASE AS made\n{}\nFROM BASE\nCOPY --from=made /made /made\n{}\n",
        common.run("uname -m > /made && head -c 300000 /dev/zero >> /made"),
        each.run("uname -m > /here && wc -c < /made > /size")
    );
    let context = farm.context(&dockerfile);
    let name = farm.name("split:1");
    let args = ["--platform", PLATFORMS, "--push", "-t", &name];
    farm.buildx.build(&context, &args).succeeds();
    assert_eq!(common.runs(&[&one, &two]), 1);
    assert_eq!((each.runs(&[&one]), each.runs(&[&two])), (1, 1));
    let native = std::env::consts::ARCH;
    for (architecture, machine) in [("amd64", "x86_64"), ("arm64", "aarch64")] {
        let image = Image::pull(&name, architecture);
        assert_eq!(image.text("here").trim(), machine);
        assert!(image.text("made").starts_with(native));
        let size = (300_000 + native.len() + 1).to_string();
        assert_eq!(image.text("size").trim(), size);
    }
}

#[test]
fn a_failure_is_everybodys_who_waits_and_nobodys_later() {
    let (farm, held) = (Farm::new(), Mark::new());
    let context = farm.context(&format!("FROM BASE\n{}\n", held.run_held("exit 7")));
    let other = Buildx::new(&farm.server.endpoint());
    let mut first = farm.buildx.start(&context, &[]);
    first.wait_says(&held.said());
    let mut second = other.start(&context, &[]);
    second.wait_says(&held.said());
    held.let_go(&farm.server);
    for client in [first, second] {
        client.finish().fails().says("exit code: 7");
    }
    assert_eq!(held.runs(&[&farm.server]), 1);
    farm.buildx
        .build(&context, &[])
        .fails()
        .says("exit code: 7");
    assert_eq!(held.runs(&[&farm.server]), 2);
}

#[test]
fn a_build_without_the_cache_replaces_what_is_in_it() {
    let farm = Farm::new();
    let context = farm.context("FROM BASE\nRUN head -c 16 /dev/urandom | od -An -tx1 > /made\n");
    let made = |tag: &str, more: &[&str]| {
        let name = farm.name(tag);
        let args = [&["--push", "-t", &name], more].concat();
        farm.buildx.build(&context, &args).succeeds();
        Image::pull(&name, native_architecture()).text("made")
    };
    let first = made("it:1", &[]);
    let anew = made("it:2", &["--no-cache"]);
    assert_ne!(first, anew);
    assert_eq!(made("it:3", &[]), anew);
}
