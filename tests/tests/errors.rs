//! Promise: what goes wrong is said clearly, to the client that asked, and the farm goes on.

use buildyard_tests::{Context, Farm, Serve, native_architecture};

/// Builds a Dockerfile that must fail, and asserts that the client is told all of `texts`.
#[track_caller]
fn fails(farm: &Farm, dockerfile: &str, args: &[&str], texts: &[&str]) {
    let context = Context::new(&[
        ("there.txt", "x"),
        ("ignored.txt", "x"),
        (".dockerignore", "ignored.txt\n"),
    ]);
    let outcome = farm.build_in(&context, dockerfile, args).fails();
    texts
        .iter()
        .fold(outcome, |outcome, text| outcome.says(text));
}

#[test]
fn a_failing_command_shows_its_line_and_code() {
    let farm = Farm::new();
    fails(
        &farm,
        "FROM BASE\nRUN echo before\nRUN echo the last words >&2; exit 42\n",
        &[],
        &[
            "exit code: 42",
            "the last words",
            "Dockerfile:3",
            ">>> RUN echo the last words",
        ],
    );
}

#[test]
fn mistakes_in_a_dockerfile_are_pointed_at() {
    let farm = Farm::new();
    fails(
        &farm,
        "FROM BASE\nRUM true\n",
        &[],
        &["Dockerfile:2", "RUM", "RUN"],
    );
    fails(
        &farm,
        "FROM BASE\nCOPY --form=x a b\n",
        &[],
        &["Dockerfile:2", "--form", "from"],
    );
    fails(
        &farm,
        "FROM BASE AS a\nCOPY --from=b /x /x\n",
        &["--target", "nowhere"],
        &["nowhere"],
    );
    fails(
        &farm,
        "FROM scratch\nCOPY missing.txt /\n",
        &[],
        &["missing.txt", "Dockerfile:2"],
    );
    fails(
        &farm,
        "FROM scratch\nCOPY ignored.txt /\n",
        &[],
        &["ignored.txt", ".dockerignore"],
    );
}

#[test]
fn a_wildcard_that_is_none_is_pointed_at() {
    let farm = Farm::new();
    for instruction in [
        "COPY miss[ /",
        "ADD [a- /x/",
        "COPY --from=BASE /bin/[ /",
        "COPY --exclude=[ . /",
    ] {
        let dockerfile = format!("FROM BASE\n{instruction}\n");
        let shown = farm.dockerfile(instruction);
        let said = [
            "Dockerfile:2",
            &format!(">>> {shown}"),
            "syntax error in pattern",
        ];
        fails(&farm, &dockerfile, &[], &said);
    }
}

#[test]
fn an_ignore_file_that_cannot_be_used_is_named() {
    let farm = Farm::new();
    let context = Context::new(&[(".dockerignore", "ok\nbad[\n")]);
    farm.build_in(&context, "FROM scratch\nCOPY . /\n", &[])
        .fails()
        .says(".dockerignore")
        .says("bad[");
}

#[test]
fn an_image_that_cannot_be_had_is_named_with_the_reason() {
    let mut farm = Farm::new();
    let check = |farm: &Farm, dockerfile: &str, args: &[&str], texts: &[&str]| {
        fails(
            farm,
            dockerfile,
            args,
            &[texts, &["Dockerfile:1", ">>> FROM"]].concat(),
        );
    };
    let missing = ["no/such:1: not found"];
    check(&farm, "FROM REGISTRY/no/such:1\n", &[], &missing);
    let other_platform = [
        "base/busybox:latest: no match for platform linux/s390x in manifest: not found",
        "the image has linux/amd64, linux/arm64",
    ];
    check(
        &farm,
        "FROM BASE\nRUN true\n",
        &["--platform", "linux/s390x"],
        &other_platform,
    );
    farm.registry.stop();
    let host = farm.registry.host();
    let down = [
        "other/image:1: the registry",
        &format!("{host} cannot be reached"),
        "is it running",
    ];
    check(&farm, "FROM REGISTRY/other/image:1\n", &[], &down);
}

#[test]
fn a_platform_that_nobody_runs_is_refused_with_what_the_farm_can_do() {
    let mut farm = Farm::serving(&Serve::coordinator());
    let native = format!("linux/{}", native_architecture());
    let _worker = Serve::worker(&farm.server.url(), "w1")
        .args(&["--platforms", &native])
        .start();
    farm.server.wait_workers(true);
    let foreign = match native.as_str() {
        "linux/amd64" => "linux/arm64",
        _ => "linux/amd64",
    };
    farm.build("FROM BASE\nRUN true\n", &["--platform", foreign])
        .fails()
        .says(foreign)
        .says(&native);
}
