//! Command lines and what they ask for.

use clap::Parser;

use super::*;
use crate::args::{Cli, Command};

fn parse(words: &[&str]) -> BuildArgs {
    let line = ["buildyard", "build"].iter().chain(words);
    match Cli::try_parse_from(line)
        .unwrap_or_else(|error| panic!("{words:?}: {error}"))
        .command
    {
        Command::Build(args) => *args,
        other => panic!("{other:?}"),
    }
}

fn env(name: &str) -> Option<String> {
    match name {
        "FROM_ENV" => Some("value".into()),
        "TOKEN" => Some("secret".into()),
        _ => None,
    }
}

fn request(words: &[&str]) -> BuildRequest {
    translate(&parse(words), &env).unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

fn refused(words: &[&str]) -> String {
    translate(&parse(words), &env)
        .expect_err("must be refused")
        .to_string()
}

#[test]
fn flags_become_attributes() {
    let check = |words: &[&str], key: &str, expected: Option<&str>| {
        let mut line = words.to_vec();
        line.push(".");
        assert_eq!(
            request(&line).attrs.get(key).map(String::as_str),
            expected,
            "{words:?}"
        );
    };
    check(&[], "filename", Some("Dockerfile"));
    check(&[], "platform", None);
    check(&["-f", "docker/Web"], "filename", Some("Web"));
    check(
        &[
            "--platform",
            "linux/x86_64,linux/arm64/v8",
            "--platform",
            "linux/amd64",
        ],
        "platform",
        Some("linux/amd64,linux/arm64"),
    );
    check(&["--build-arg", "A=b=c"], "build-arg:A", Some("b=c"));
    check(
        &["--build-arg", "FROM_ENV"],
        "build-arg:FROM_ENV",
        Some("value"),
    );
    check(&["--build-arg", "UNSET"], "build-arg:UNSET", None);
    check(&["--label", "a=b"], "label:a", Some("b"));
    check(&["--label", "a"], "label:a", Some(""));
    check(&["--target", "x"], "target", Some("x"));
    check(&["--no-cache"], "no-cache", Some(""));
    check(&["--no-cache-filter", "a,b"], "no-cache", Some("a,b"));
    check(&["--pull"], "image-resolve-mode", Some("pull"));
    check(
        &["--add-host", "a:1.2.3.4", "--add-host", "b=[::1]"],
        "add-hosts",
        Some("a=1.2.3.4,b=::1"),
    );
    check(&["--network", "none"], "force-network-mode", Some("none"));
    check(&["--network", "default"], "force-network-mode", None);
    check(&["--shm-size", "64m"], "shm-size", Some("67108864"));
    check(
        &["--ulimit", "nofile=1024:2048", "--ulimit", "core=0"],
        "ulimit",
        Some("nofile=1024:2048,core=0"),
    );
    check(
        &["--cgroup-parent", "x.slice"],
        "cgroup-parent",
        Some("x.slice"),
    );
}

#[test]
fn the_host_network_asks_for_its_entitlement() {
    assert_eq!(
        request(&["--network", "host", "."]).entitlements,
        ["network.host"]
    );
    assert_eq!(
        request(&["--allow", "network.host", "--network=host", "."]).entitlements,
        ["network.host"]
    );
    assert!(request(&["."]).entitlements.is_empty());
}

fn output(kind: &str, attrs: &[(&str, &str)], sink: Sink) -> Output {
    let attrs = attrs
        .iter()
        .map(|(k, v)| (k.to_string(), v.to_string()))
        .collect();
    Output {
        kind: kind.into(),
        attrs,
        sink,
    }
}

#[test]
fn outputs_have_types_attributes_and_sinks() {
    let check = |words: &[&str], expected: &[Output]| {
        let mut line = words.to_vec();
        line.push(".");
        assert_eq!(request(&line).outputs, expected, "{words:?}");
    };
    let name = ("name", "docker.io/library/app:latest");
    check(&[], &[]);
    check(
        &["-o", "out"],
        &[output("local", &[], Sink::Directory("out".into()))],
    );
    check(&["-o", "-"], &[output("tar", &[], Sink::Stdout)]);
    check(
        &["-o", "type=tar,dest=x.tar"],
        &[output("tar", &[], Sink::File("x.tar".into()))],
    );
    check(
        &["-o", "type=oci,dest=x", "-t", "app"],
        &[output("oci", &[name], Sink::File("x".into()))],
    );
    check(
        &["-o", "type=docker"],
        &[output("docker", &[], Sink::Engine)],
    );
    check(&["-o", "type=cacheonly"], &[]);
    check(
        &["-o", "type=registry", "-t", "app"],
        &[output("image", &[name, ("push", "true")], Sink::None)],
    );
    check(
        &["--push", "-t", "app"],
        &[output("image", &[name, ("push", "true")], Sink::None)],
    );
    check(
        &[
            "--push",
            "-o",
            "type=image,\"name=a.example/x,b.example/y\"",
        ],
        &[output(
            "image",
            &[("name", "a.example/x,b.example/y"), ("push", "true")],
            Sink::None,
        )],
    );
    check(
        &["--load", "-t", "app"],
        &[output("docker", &[name], Sink::Engine)],
    );
    check(
        &[
            "--push",
            "--annotation",
            "a=b",
            "--annotation",
            "index,manifest[linux/arm64]:c=d",
            "-t",
            "app",
        ],
        &[output(
            "image",
            &[
                name,
                ("push", "true"),
                ("annotation.a", "b"),
                ("annotation-index.c", "d"),
                ("annotation-manifest[linux/arm64].c", "d"),
            ],
            Sink::None,
        )],
    );
}

#[test]
fn secrets_come_from_files_or_the_environment() {
    let check = |value: &str, id: &str, source: SecretSource| {
        assert_eq!(
            request(&["--secret", value, "."]).secrets[id].source,
            source,
            "{value}"
        );
    };
    check("id=a,src=f", "a", SecretSource::File("f".into()));
    check("id=a,env=B", "a", SecretSource::Env("B".into()));
    check("id=a,type=env,src=B", "a", SecretSource::Env("B".into()));
    check("id=TOKEN", "TOKEN", SecretSource::Env("TOKEN".into()));
    check("id=npmrc", "npmrc", SecretSource::File("npmrc".into()));
    check(
        "type=file,id=a,source=f",
        "a",
        SecretSource::File("f".into()),
    );
}

#[test]
fn caches_are_passed_on() {
    let cache = request(&[
        "--cache-from",
        "r.example/c",
        "--cache-to",
        "type=gha,mode=max",
        ".",
    ])
    .cache;
    assert_eq!(
        (
            cache.imports[0].r#type.as_str(),
            cache.imports[0].attrs["ref"].as_str()
        ),
        ("registry", "r.example/c")
    );
    assert_eq!(
        (
            cache.exports[0].r#type.as_str(),
            cache.exports[0].attrs["mode"].as_str()
        ),
        ("gha", "max")
    );
}

#[test]
fn what_cannot_be_done_is_refused_by_name() {
    let check = |words: &[&str], part: &str| {
        let mut line = words.to_vec();
        line.push(".");
        let message = refused(&line);
        assert!(message.contains(part), "{words:?}: {message}");
    };
    check(&["--ssh", "default"], "--ssh is not supported");
    check(
        &["--build-context", "a=b"],
        "--build-context is not supported",
    );
    check(&["--provenance"], "use --provenance=false");
    check(&["--sbom=true"], "use --sbom=false");
    check(&["--attest", "type=sbom"], "disabled=true");
    check(&["--platform", "linux/am d64"], "--platform");
    check(&["--push"], "--tag");
    check(&["-o", "type=local"], "dest=DIR");
    check(&["-o", "type=nonsense"], "known: image");
    check(&["-o", "type=image,dest=x"], "leave dest out");
    check(&["-o", "type=oci", "-o", "-"], "standard output");
    check(&["-t", "UPPER"], "lowercase");
    check(&["--secret", "src=f"], "no id");
    check(&["--secret", "id=a,wrong=f"], "unknown key");
    check(
        &["--secret", "id=a,src=x", "--secret", "id=a,src=y"],
        "twice",
    );
    check(&["--add-host", "a:b"], "not an IP address");
    check(&["--ulimit", "nofile"], "NAME=SOFT");
    check(&["--shm-size", "big"], "size");
    check(&["--network", "bridge"], "default, none or host");
    check(&["--annotation", "a=b"], "image to annotate");
    check(&["--cache-to", "mode=max"], "no type");
}

#[test]
fn switched_off_attestations_are_accepted() {
    request(&[
        "--provenance=false",
        "--sbom=false",
        "--attest",
        "type=sbom,disabled=true",
        ".",
    ]);
}
