//! Promise: one `docker buildx build` for two platforms ends as one OCI index in a registry, and each platform's image runs.

use buildyard_tests::{
    Buildx, Context, Image, PLATFORMS, Registry, Serve, inspect_raw, push_base_image,
};
use serde_json::Value;

const ARCHITECTURES: [(&str, &str); 2] = [("amd64", "x86_64"), ("arm64", "aarch64")];

#[test]
fn an_index_is_pushed_and_each_image_runs() {
    let registry = Registry::start();
    let base = push_base_image(&registry);
    let farm = Serve::up().start();
    let context = Context::new(&[
        ("hello.txt", "hello\n"),
        (
            "Dockerfile",
            &format!(
                "FROM {base}\nRUN uname -m > /machine\nCOPY hello.txt /srv/\nRUN cat /srv/hello.txt /machine > /both\nCMD [\"cat\", \"/both\"]\n"
            ),
        ),
    ]);
    let name = format!("{}/app:1", registry.host());

    let buildx = Buildx::new(&farm.endpoint());
    buildx
        .build(&context, &["--platform", PLATFORMS, "-t", &name, "--push"])
        .succeeds();

    let index = inspect_raw(&name);
    assert_eq!(
        index["mediaType"],
        "application/vnd.oci.image.index.v1+json"
    );
    assert_eq!(platforms(&index), ["linux/amd64", "linux/arm64"]);
    for (architecture, machine) in ARCHITECTURES {
        let image = Image::pull(&name, architecture);
        assert_eq!(image.config["architecture"], architecture);
        assert_eq!(image.config["config"]["Cmd"][1], "/both");
        assert_eq!(image.text("both"), format!("hello\n{machine}\n"));
        let printed = image.run("bin/busybox", &["echo", "it runs"]);
        assert_eq!(printed, "it runs\n");
    }
}

#[test]
fn a_stage_on_the_build_platform_runs_once() {
    let registry = Registry::start();
    let base = push_base_image(&registry);
    let farm = Serve::up().start();
    let context = Context::new(&[(
        "Dockerfile",
        &format!(
            "FROM --platform=$BUILDPLATFORM {base} AS make\nRUN head -c 16 /dev/urandom | od -An -tx1 > /once\n\
             FROM {base}\nCOPY --from=make /once /once\n"
        ),
    )]);
    let name = format!("{}/cross:1", registry.host());

    let outcome = Buildx::new(&farm.endpoint())
        .build(&context, &["--platform", PLATFORMS, "-t", &name, "--push"])
        .succeeds();

    let once: Vec<String> = ARCHITECTURES
        .iter()
        .map(|(architecture, _)| Image::pull(&name, architecture).text("once"))
        .collect();
    assert_eq!(
        once[0], once[1],
        "random bytes are the same only if they were made once"
    );
    let runs = outcome.executed();
    let runs: Vec<_> = runs.iter().filter(|name| name.contains("RUN")).collect();
    assert_eq!(runs.len(), 1, "{runs:?}");
}

fn platforms(index: &Value) -> Vec<String> {
    let manifests = index["manifests"].as_array().expect("manifests");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let platform = |m: &Value| {
        format!(
            "{}/{}",
            text(&m["platform"]["os"]),
            text(&m["platform"]["architecture"])
        )
    };
    let mut platforms: Vec<String> = manifests.iter().map(platform).collect();
    platforms.sort();
    platforms
}
