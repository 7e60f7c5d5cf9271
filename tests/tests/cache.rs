//! Promise: what was built once is not built again, needs no worker, and goes out to any registry.

use buildyard_tests::{Buildx, Context, Image, PLATFORMS, Registry, Serve, push_base_image};

fn context(base: &str) -> Context {
    Context::new(&[
        ("a.txt", "a\n"),
        (
            "Dockerfile",
            &format!(
                "FROM {base}\nWORKDIR /w\nRUN head -c 16 /dev/urandom | od -An -tx1 > made\nCOPY a.txt .\nRUN cat a.txt made > both\n"
            ),
        ),
    ])
}

#[test]
fn a_cached_build_needs_no_worker() {
    let registry = Registry::start();
    let base = push_base_image(&registry);
    let mut coordinator = Serve::coordinator().start();
    let mut worker = Serve::worker(&coordinator.url(), "w1").start();
    coordinator.wait_workers(true);
    let context = context(&base);
    let buildx = Buildx::new(&coordinator.endpoint());
    let first = format!("{}/app:1", registry.host());
    let args = ["--platform", PLATFORMS, "--push", "-t"];
    buildx
        .build(&context, &[&args[..], &[&first]].concat())
        .succeeds();

    worker.stop();
    coordinator.wait_workers(false);
    // What buildx asks before it builds: a farm does not lose a platform because a machine is away.
    let builder = buildx.run(&["inspect"]).succeeds().stdout;
    let platforms = builder.lines().find(|line| line.starts_with("Platforms:"));
    for platform in PLATFORMS.split(',') {
        assert!(
            platforms.is_some_and(|line| line.contains(platform)),
            "{builder}"
        );
    }
    let other = Registry::start();
    let second = format!("{}/elsewhere/app:2", other.host());
    let outcome = buildx
        .build(&context, &[&args[..], &[&second]].concat())
        .succeeds();

    assert_eq!(outcome.executed(), Vec::<&str>::new());
    for architecture in ["amd64", "arm64"] {
        let both = |name: &str| Image::pull(name, architecture).text("w/both");
        assert_eq!(both(&first), both(&second));
    }
}

#[test]
fn the_same_build_pushed_again_uploads_nothing() {
    let registry = Registry::start();
    let base = push_base_image(&registry);
    let farm = Serve::up().start();
    let context = context(&base);
    let buildx = Buildx::new(&farm.endpoint());
    let name = format!("{}/app:1", registry.host());
    let cached = ["--platform", PLATFORMS, "-o", "type=cacheonly"];
    buildx.build(&context, &cached).succeeds();
    // Layers are compressed for those who ask for it; nobody has.
    assert_eq!(farm.gzip_blobs(), 0);
    let args = ["--platform", PLATFORMS, "--push", "-t", &name];
    buildx.build(&context, &args).succeeds();
    assert!(farm.gzip_blobs() > 0);
    let uploads = || {
        registry.requests(&["\"PUT ", "/blobs/uploads/"])
            + registry.requests(&["\"POST ", "/blobs/uploads/"])
    };
    let before = uploads();
    assert!(before > 0);

    buildx.build(&context, &args).succeeds();

    assert_eq!(uploads(), before);
}
