//! Promise: of an image only what a step needs is fetched, once for all who need it, and layers side by side.

use buildyard_tests::{Buildx, Context, PLATFORMS, Registry, Serve, inspect_raw, push_base_image};
use serde_json::Value;

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

/// How often each of the image's layers was fetched: the one that all platforms share first.
fn fetched(registry: &Registry, base: &str) -> Vec<usize> {
    let index = inspect_raw(base);
    let mut digests: Vec<String> = Vec::new();
    for manifest in index["manifests"].as_array().expect("manifests") {
        let (name, _) = base.rsplit_once(':').expect("a tag");
        let manifest = inspect_raw(&format!("{name}@{}", text(&manifest["digest"])));
        for layer in manifest["layers"].as_array().expect("layers") {
            let digest = text(&layer["digest"]).to_owned();
            if !digests.contains(&digest) {
                digests.push(digest);
            }
        }
    }
    let count = |digest: &String| registry.requests(&["\"GET ", &format!("/blobs/{digest}")]);
    digests.iter().map(count).collect()
}

#[test]
fn a_layer_is_fetched_once_for_all_builds_and_platforms() {
    let registry = Registry::start();
    let base = push_base_image(&registry);
    let mut coordinator = Serve::coordinator().start();
    let _worker = Serve::worker(&coordinator.url(), "one").start();
    coordinator.wait_workers(true);
    let buildx = Buildx::new(&coordinator.endpoint());
    let context = |text: &str| {
        let run = format!("FROM {base}\nCOPY a.txt /\nRUN cat a.txt > b.txt\n");
        Context::new(&[("a.txt", text), ("Dockerfile", &run)])
    };
    let contexts = ["a", "b", "c"].map(context);
    let args = ["--platform", PLATFORMS];
    let builds = contexts
        .each_ref()
        .map(|context| buildx.start(context, &args));
    for build in builds {
        build.finish().succeeds();
    }
    assert_eq!(fetched(&registry, &base), [1, 1, 1]);
}

#[test]
fn what_no_step_reads_is_not_fetched() {
    let registry = Registry::start();
    let base = push_base_image(&registry);
    let farm = Serve::up().start();
    let buildx = Buildx::new(&farm.endpoint());
    let image = |tag: &str| format!("{}/app:{tag}", registry.host());
    let build = |dockerfile: &str, tag: &str| {
        let context = Context::new(&[("a.txt", "a\n"), ("Dockerfile", dockerfile)]);
        let name = image(tag);
        let args = ["--platform", PLATFORMS, "--push", "-t", &name];
        buildx.build(&context, &args).succeeds()
    };

    build(&format!("FROM {base}\nENV A=b\nCMD [\"sh\"]\n"), "settings");
    assert_eq!(fetched(&registry, &base), [0, 0, 0]);
    let linked = format!("FROM {base}\nCOPY --link a.txt /a.txt\n");
    build(&linked, "link");
    assert_eq!(fetched(&registry, &base), [0, 0, 0]);

    // A step of one platform reads the layers of that one.
    let context = Context::new(&[("Dockerfile", &format!("FROM {base}\nRUN true\n"))]);
    let platform = format!("linux/{}", buildyard_tests::native_architecture());
    buildx
        .build(&context, &["--platform", &platform])
        .succeeds();
    let counts = fetched(&registry, &base);
    assert_eq!((counts[0], counts[1] + counts[2]), (1, 1));
    buildx
        .build(&context, &["--platform", &platform])
        .succeeds();
    build(&linked, "again");
    assert_eq!(fetched(&registry, &base), counts);
}
