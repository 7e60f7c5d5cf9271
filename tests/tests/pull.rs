//! Promise: of an image only what a step needs is fetched, once for all who need it, and layers side by side; a name is
//! asked for at every build.

use buildyard_tests::{
    Buildx, Context, Farm, Image, PLATFORMS, Registry, Serve, inspect_raw, native_architecture,
    push_base_image,
};
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
    let platform = format!("linux/{}", native_architecture());
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

/// Puts an image that says `word` where the tag `moving:1` points, and returns its name by digest.
fn move_tag(farm: &Farm, word: &str) -> String {
    let name = farm.name("moving:1");
    let context = farm.context(&format!("FROM BASE\nRUN echo {word} > /marker\n"));
    let about = context.path().join("about.json");
    let about_arg = about.display().to_string();
    let args = ["--push", "-t", &name, "--metadata-file", &about_arg];
    farm.buildx.build(&context, &args).succeeds();
    let about = std::fs::read(about).expect("what buildx says about the image");
    let about: Value = serde_json::from_slice(&about).expect("JSON");
    farm.name(&format!("moving@{}", text(&about["containerimage.digest"])))
}

/// Builds on an image and asserts what its marker says, and whether the one step was run.
#[track_caller]
fn expect_on(farm: &Farm, base: &str, args: &[&str], (word, runs): (&str, usize)) {
    let name = farm.name("app:1");
    let args = [&["--push", "-t", &name], args].concat();
    let dockerfile = format!("FROM {base}\nRUN cat /marker > /seen\n");
    let outcome = farm.build(&dockerfile, &args).succeeds();
    assert_eq!(outcome.executed().len(), runs, "{}", outcome.stderr);
    let seen = Image::pull(&name, native_architecture()).text("seen");
    assert_eq!(seen, format!("{word}\n"), "{}", outcome.stderr);
}

#[test]
fn a_moved_tag_is_seen_by_the_next_build_and_a_digest_stays() {
    let farm = Farm::new();
    let tag = farm.name("moving:1");
    let first = move_tag(&farm, "one");
    expect_on(&farm, &tag, &[], ("one", 1));
    expect_on(&farm, &tag, &["--pull"], ("one", 0));

    let second = move_tag(&farm, "two");
    assert_ne!(first, second);
    expect_on(&farm, &tag, &[], ("two", 1));
    expect_on(&farm, &tag, &[], ("two", 0));

    move_tag(&farm, "three");
    expect_on(&farm, &tag, &["--pull"], ("three", 1));

    // These were built before, under the tag.
    expect_on(&farm, &first, &[], ("one", 0));
    expect_on(&farm, &second, &["--pull"], ("two", 0));
}
