//! The demo: a registry, a farm in one process, and the real `docker buildx` building `examples/hello` for two platforms.
//!
//! Started by `cargo xtask demo`, which installs and builds what this needs. Everything listens on loopback, keeps its
//! files in temporary folders, and is gone at the end.

use std::path::Path;

use buildyard_tests::{
    Buildx, Image, PLATFORMS, Registry, Serve, Server, inspect_raw, push_base_image,
};

fn main() {
    say("A registry with a base image for two platforms, and a farm: `buildyard up`");
    let registry = Registry::start();
    let base = push_base_image(&registry);
    let farm = Serve::up().start();
    println!("registry {}\nfarm     {}", registry.host(), farm.endpoint());
    println!("{}", farm.cli(&["workers"]));

    let buildx = Buildx::new(&farm.endpoint());
    let name = format!("{}/hello:1", registry.host());
    say(&format!(
        "docker buildx build --platform {PLATFORMS} -t {name} --push examples/hello"
    ));
    build(&buildx, &base, &name);

    say("The index in the registry, as skopeo reads it");
    println!("{:#}", inspect_raw(&name));

    say("The image of each platform, fetched by skopeo, unpacked by umoci, run on this machine");
    for architecture in ["amd64", "arm64"] {
        let image = Image::pull(&name, architecture);
        let page = image.root().join("www/index.html").display().to_string();
        println!(
            "linux/{architecture}:\n{}",
            image.run("bin/busybox", &["cat", &page])
        );
    }

    say("Where each step ran: `buildyard builds show`");
    println!("{}", farm.cli(&["builds", "show", &last_build(&farm)]));

    let again = format!("{}/somewhere/else:2", registry.host());
    say(&format!(
        "The same build again, pushed as {again}: nothing is run"
    ));
    build(&buildx, &base, &again);
    println!("{}", farm.cli(&["builds"]));

    say("What you saw");
    println!(
        "One endpoint took a build for two platforms from an unmodified client. The stage on $BUILDPLATFORM ran once for\n\
         both. Steps of the machine's own platform ran natively, the others under QEMU and labelled so. The second build\n\
         was answered from the cache. Your own farm: `buildyard up --data DIR`, then\n\
         `docker buildx create --name buildyard --driver remote tcp://127.0.0.1:8372`. Everything of the demo is gone now."
    );
}

fn say(text: &str) {
    println!("\n=== {text}\n");
}

fn build(buildx: &Buildx, base: &str, name: &str) {
    let context = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/hello");
    let context = context.display().to_string();
    let base = format!("BASE={base}");
    let words = [
        "build",
        "--progress",
        "plain",
        "--platform",
        PLATFORMS,
        "--build-arg",
        &base,
        "-t",
        name,
        "--push",
        &context,
    ];
    print!("{}", buildx.run(&words).succeeds().stderr);
}

/// The id of the newest build that has steps; buildx also makes one that only looks around.
fn last_build(farm: &Server) -> String {
    let list = farm.cli(&["builds", "--format", "json"]);
    let list: serde_json::Value = serde_json::from_str(&list).expect("builds in JSON");
    let newest = &list[0]["id"];
    newest.as_str().expect("a build's id").to_owned()
}
