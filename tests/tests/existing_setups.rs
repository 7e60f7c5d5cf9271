//! Promise: what existing setups send works unchanged, or is named.

use buildyard_tests::{Farm, Image, PLATFORMS, inspect_raw, native_architecture};
use serde_json::Value;

#[test]
fn flags_of_existing_setups_work_or_warn_once() {
    let farm = Farm::new();
    let plain = farm.context("FROM BASE\nRUN true\n");
    let build = |args: &[&str]| farm.buildx.build(&plain, args).succeeds();
    let served = "is served by the built-in Dockerfile frontend";
    let syntax = farm.context("# syntax=docker/dockerfile:1\nFROM BASE\nRUN true\n");
    let outcome = farm.buildx.build(&syntax, &[]).succeeds();
    assert_eq!(
        outcome.stderr.matches(served).count(),
        1,
        "{}",
        outcome.stderr
    );
    build(&["--build-arg", "BUILDKIT_SYNTAX=docker/dockerfile:1.7"]).says(served);
    build(&["--provenance=false", "--sbom=false"]);
    farm.buildx
        .build(&plain, &["--sbom=true"])
        .fails()
        .says("ttestations");
    let caches = [
        "--cache-from=type=registry,ref=r/x",
        "--cache-from=type=registry,ref=r/y",
        "--cache-to=type=inline",
        "--build-arg=BUILDKIT_INLINE_CACHE=1",
    ];
    build(&caches)
        .says("3 warnings found")
        .says("--cache-from type=registry")
        .says("--cache-to type=inline")
        .says("BUILDKIT_INLINE_CACHE");
    let ran = |args: &[&str]| build(args).executed().len();
    assert_eq!((ran(&[]), ran(&["--no-cache"])), (0, 1));
    assert_eq!(
        (
            ran(&["--pull"]),
            ran(&["--build-arg", "HTTP_PROXY=http://p:1"])
        ),
        (0, 0)
    );
    let hosts = farm.context("FROM BASE\nRUN grep -q '1.2.3.4.*example' /etc/hosts && test \"$HTTP_PROXY\" = http://p:1\n");
    let args = [
        "--add-host",
        "example:1.2.3.4",
        "--build-arg",
        "HTTP_PROXY=http://p:1",
        "--network",
        "none",
    ];
    farm.buildx.build(&hosts, &args).succeeds();
}

#[test]
fn results_go_to_several_places_and_leave_their_files() {
    let farm = Farm::new();
    let context = farm.context("FROM BASE\nCOPY file /\nRUN --mount=type=secret,id=s test \"$(wc -c < /run/secrets/s)\" = 4\n");
    context.write("secret", "hush");
    let (one, two) = (farm.name("one:a"), farm.name("two:b"));
    let home = farm.buildx.home();
    let path = |name: &str| home.join(name).display().to_string();
    let tar = format!("type=oci,dest={}", path("image.tar"));
    let image = format!("type=image,\"name={one},{two}\",push=true");
    let secret = format!("id=s,src={}", context.path().join("secret").display());
    let (metadata, id) = (path("metadata.json"), path("id"));
    let args = [
        "--platform",
        PLATFORMS,
        "-o",
        &tar,
        "-o",
        &image,
        "--label",
        "a=b",
        "--secret",
        &secret,
        "--metadata-file",
        &metadata,
        "--iidfile",
        &id,
    ];
    farm.buildx.build(&context, &args).succeeds();
    let metadata: Value =
        serde_json::from_slice(&std::fs::read(metadata).expect("written")).expect("JSON");
    let digest = metadata["containerimage.digest"]
        .as_str()
        .expect("a digest");
    assert_eq!(std::fs::read_to_string(id).expect("written"), digest);
    assert_eq!(inspect_raw(&one), inspect_raw(&two));
    let image = Image::pull(&format!("{}@{digest}", farm.name("one")), "arm64");
    assert_eq!(image.config["config"]["Labels"]["a"], "b");
    assert!(!image.config.to_string().contains("hush"));
    let archive = Image::read(&format!("oci-archive:{}", path("image.tar")), "amd64");
    assert_eq!(archive.text("file"), "x");
    // Docker's own archive, as --load sends it, on standard output.
    let context = context.arg();
    let output = farm.buildx.run(&[
        "build",
        "-q",
        "-o",
        "type=docker,dest=-",
        &context,
        "--secret",
        &secret,
    ]);
    assert!(output.succeeds().stdout.contains("manifest.json"));
}

#[test]
fn bake_reads_its_own_files_and_composes() {
    let farm = Farm::new();
    let folder = farm.buildx.home().join("project");
    std::fs::create_dir_all(&folder).expect("a folder");
    let write = |name: &str, text: &str| {
        let text = text.replace("REGISTRY", &farm.registry.host());
        std::fs::write(folder.join(name), text).expect("writing a file");
    };
    write(
        "Dockerfile",
        "FROM REGISTRY/base/busybox AS a\nARG V=1\nRUN echo $V > /v\nFROM a AS b\nCOPY file /\n",
    );
    write("file", "x");
    write(
        "docker-bake.hcl",
        "group \"default\" { targets = [\"a\", \"b\"] }\n\
         target \"a\" {\n context = \"project\"\n target = \"a\"\n args = { V = \"7\" }\n tags = [\"REGISTRY/bake/a\"]\n}\n\
         target \"b\" {\n inherits = [\"a\"]\n target = \"b\"\n tags = [\"REGISTRY/bake/b\"]\n platforms = [\"linux/amd64\", \"linux/arm64\"]\n}\n",
    );
    write(
        "compose.yaml",
        "services:\n  web:\n    image: REGISTRY/compose/web\n    build: {context: project, target: b, args: {V: \"3\"}}\n",
    );
    let bake = |file: &str| {
        let args = ["bake", "--progress", "plain", "-f", file, "--push"];
        farm.buildx.run(&args).succeeds();
    };
    bake("project/docker-bake.hcl");
    bake("project/compose.yaml");
    let value = |name: &str| Image::pull(&farm.name(name), native_architecture()).text("v");
    assert_eq!(
        (value("bake/a").as_str(), value("bake/b").as_str()),
        ("7\n", "7\n")
    );
    assert_eq!(value("compose/web"), "3\n");
}

#[test]
fn other_commands_of_buildx_get_an_answer() {
    let farm = Farm::new();
    let context = farm.context("FROM scratch\nCOPY file /\n");
    farm.buildx.build(&context, &[]).succeeds();
    let path = context.arg();
    let run = |args: &[&str]| farm.buildx.run(args);
    assert!(run(&["ls"]).succeeds().stdout.contains("running"));
    assert!(run(&["inspect"]).succeeds().stdout.contains("linux/arm64"));
    assert!(run(&["du"]).succeeds().stdout.contains("Total:"));
    run(&["prune", "-f"]).succeeds();
    run(&["build", "--progress", "rawjson", &path])
        .succeeds()
        .says("\"vertexes\"");
    let name = farm.name("quiet");
    let quiet = run(&["build", "-q", "-t", &name, "--push", &path]).succeeds();
    assert!(quiet.stdout.starts_with("sha256:"), "{}", quiet.stdout);
    for (args, text) in [
        (["build", "--call", "outline", &path], "frontend.outline"),
        (
            ["build", "--build-context", "x=docker-image://y", &path],
            "context:x",
        ),
        (
            [
                "build",
                "--progress",
                "plain",
                "https://me:hush@example.com/x.git",
            ],
            "https://example.com/x.git",
        ),
    ] {
        run(&args).fails().says(text).says("not supported yet");
    }
    assert_eq!(farm.server.status("/livez"), Some(200));
}
