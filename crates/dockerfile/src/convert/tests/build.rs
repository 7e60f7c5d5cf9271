use super::*;

fn alpine() -> String {
    format!("FROM {}", pinned("docker.io/library/alpine:latest"))
}

fn check(text: &str, expected: &[&str]) {
    let alpine = alpine();
    let expected: Vec<_> = expected
        .iter()
        .map(|name| name.replace("FROM alpine", &alpine))
        .collect();
    let mut found = case(text).names();
    found.sort();
    let mut sorted = expected.clone();
    sorted.sort();
    assert_eq!(found, sorted, "{text}");
}

#[test]
fn steps_are_named_as_buildkit_names_them() {
    check("FROM alpine\nRUN a", &["[1/2] FROM alpine", "[2/2] RUN a"]);
    check(
        "FROM scratch\nCOPY a /",
        &["[internal] load build context", "[1/1] COPY a /"],
    );
    check(
        "FROM alpine AS b\nWORKDIR /w\nENV X=1\nRUN a\nFROM scratch\nCOPY --from=b /x /",
        &[
            "[b 1/3] FROM alpine",
            "[b 2/3] WORKDIR /w",
            "[b 3/3] RUN a",
            "[stage-1 1/1] COPY --from=b /x /",
        ],
    );
    check(
        "FROM alpine\nFROM alpine\nRUN a",
        &["[stage-1 1/2] FROM alpine", "[stage-1 2/2] RUN a"],
    );
    check(
        "FROM scratch\nCOPY --from=alpine /a /b",
        &["FROM alpine", "[stage-0 1/1] COPY --from=alpine /a /b"],
    );
    check(
        "from alpine\nrun a $PATH \"$PATH\" $NONE",
        &["[1/2] FROM alpine", "[2/2] RUN a /bin \"/bin\" $NONE"],
    );
    check(
        "FROM alpine\nRUN <<EOF\none\ntwo\nEOF",
        &["[1/2] FROM alpine", "[2/2] RUN <<EOF (one...)"],
    );
    check(
        "FROM alpine AS a\nRUN b",
        &["[1/2] FROM alpine", "[2/2] RUN b"],
    );
    check(
        "FROM alpine AS a\nRUN --mount=type=tmpfs,target=/t b",
        &[
            "[a 1/2] FROM alpine",
            "[a 2/2] RUN --mount=type=tmpfs,target=/t b",
        ],
    );
    check("FROM alpine\nWORKDIR /", &["[1/2] FROM alpine"]);
    check(
        "FROM alpine AS a\nFROM a\nRUN b",
        &["[a 1/1] FROM alpine", "[stage-1 1/1] RUN b"],
    );
}

#[test]
fn only_needed_stages_are_built() {
    let text = "FROM alpine AS a\nRUN a\nFROM missing AS b\nRUN b\nFROM a AS c\nRUN c\nFROM b";
    let names = |target: &str| case(text).attrs(&[("target", target)]).names().join("\n");
    assert!(names("C").contains("RUN a") && !names("c").contains("missing"));
    assert!(!names("a").contains("RUN c"));
    assert!(names("0").contains("RUN a"));
    assert!(names("").contains("RUN b"));
}

#[test]
fn platforms_share_what_they_have_in_common() {
    let text = "FROM --platform=$BUILDPLATFORM alpine AS tools\nRUN make tools\n\
                FROM --platform=$BUILDPLATFORM tools AS cross\nARG TARGETARCH\nRUN build $TARGETARCH\n\
                FROM alpine\nCOPY --from=tools /t /\nCOPY --from=cross /c /\nCOPY local /";
    let build = case(text)
        .attrs(&[("platform", "linux/amd64,linux/arm64")])
        .run();
    let [amd64, arm64] = &build.targets[..] else {
        panic!("two targets")
    };
    let shared: Vec<_> = amd64
        .definition
        .def
        .iter()
        .filter(|op| arm64.definition.def.contains(op))
        .collect();
    assert_eq!(shared.len(), 3, "base image, RUN make tools, context");
    let (first, second) = (names(amd64).join("\n"), names(arm64).join("\n"));
    assert!(
        first.contains("[linux/amd64 tools 2/2] RUN make tools"),
        "{first}"
    );
    assert!(
        second.contains("[linux/amd64 tools 2/2] RUN make tools"),
        "{second}"
    );
    assert!(
        second.contains("[linux/amd64->arm64 cross 1/1] RUN build arm64"),
        "{second}"
    );
    assert!(
        second.contains("[linux/arm64 stage-2 1/4] FROM"),
        "{second}"
    );
    assert_eq!(
        (
            arm64.config.architecture.as_str(),
            arm64.platform.to_string().as_str()
        ),
        ("arm64", "linux/arm64")
    );
    let file = parse(&Source {
        filename: "f",
        bytes: text.as_bytes(),
    })
    .expect("sound");
    let options = case(text)
        .attrs(&[("platform", "linux/amd64,linux/arm64")])
        .options;
    let Ok(Conversion::NeedsImages(requests)) = convert(&file, &options, &Images::new(), &[])
    else {
        panic!("it needs images")
    };
    let names: Vec<_> = requests
        .iter()
        .map(|request| request.name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "[linux/amd64 internal] load metadata for docker.io/library/alpine:latest",
            "[linux/arm64 internal] load metadata for docker.io/library/alpine:latest"
        ]
    );
}

#[test]
fn the_same_file_gives_the_same_bytes() {
    let text =
        "FROM alpine\nARG A=1\nRUN a\nCOPY --link a b /x/\nRUN --mount=type=cache,target=/c b";
    assert_eq!(case(text).run(), case(text).run());
}

#[test]
fn locations_point_to_the_file() {
    let target = case("FROM alpine\nRUN a \\\n  b\n").target();
    let source = target.definition.source.clone().expect("it has a source");
    assert_eq!(
        (
            source.infos[0].filename.as_str(),
            source.infos[0].language.as_str()
        ),
        ("Dockerfile", "Dockerfile")
    );
    let run = graph_digest(&target.definition, 1);
    let range = source.locations[&run].locations[0].ranges[0];
    assert_eq!(
        (range.start.map(|p| p.line), range.end.map(|p| p.line)),
        (Some(2), Some(3))
    );
}

fn graph_digest(definition: &pb::Definition, number: usize) -> String {
    Digest::of(&definition.def[number]).to_string()
}

#[test]
fn triggers_of_images_and_stages_run_first() {
    let onbuild = |config: &mut ContainerConfig| {
        config.on_build = Some(vec![
            "RUN first".into(),
            "COPY --from=busybox /a /b".into(),
            "ENV T=1".into(),
        ]);
    };
    let text = "FROM alpine\nRUN last";
    let names = case(text)
        .image("docker.io/library/alpine:latest", onbuild)
        .names()
        .join("\n");
    assert!(names.contains("[2/5] ONBUILD RUN first"), "{names}");
    assert!(
        names.contains("[3/5] ONBUILD COPY --from=busybox /a /b"),
        "{names}"
    );
    assert!(
        names.contains("[4/5] RUN last") && names.contains("busybox:latest@sha256"),
        "{names}"
    );
    let target = case(text)
        .image("docker.io/library/alpine:latest", onbuild)
        .target();
    assert_eq!(target.config.config.on_build, None);
    assert!(
        target
            .config
            .config
            .env
            .expect("set")
            .contains(&"T=1".to_owned())
    );

    let text = "FROM alpine AS a\nONBUILD RUN <<EOF\nx\nEOF\nFROM a\nRUN y\nFROM a AS unused";
    let names = case(text).attrs(&[("target", "1")]).names().join("\n");
    assert!(
        names.contains("[stage-1 1/2] ONBUILD RUN <<EOF (x)"),
        "{names}"
    );
    let target = case(text).attrs(&[("target", "a")]).target();
    assert_eq!(
        target.config.config.on_build,
        Some(vec!["RUN <<EOF\nx\nEOF".to_owned()])
    );
}

#[test]
fn the_context_lists_what_is_used() {
    let context =
        case("FROM scratch\nCOPY a ./b/ /\nADD c*.txt /\nCOPY --parents d/./e /").context();
    assert_eq!(context["local.followpaths"], r#"["a","b","c*.txt","d/e"]"#);
    assert_eq!(context["local.sharedkeyhint"], "context");
    let mut ignoring = case("FROM scratch\nCOPY . /\nCOPY a /");
    ignoring.ignore = vec!["*.o".to_owned(), "!x.o".to_owned()];
    let context = ignoring.context();
    assert_eq!(context.get("local.followpaths"), None);
    assert_eq!(context["local.excludepatterns"], r#"["*.o","!x.o"]"#);
    let mounted = case("FROM alpine\nRUN --mount=target=/m,source=src x").context();
    assert_eq!(mounted["local.followpaths"], r#"["src"]"#);
}

#[test]
fn no_cache_is_for_the_stages_named() {
    let text = "FROM alpine AS a\nRUN a\nFROM alpine\nCOPY --from=a /a /\nRUN b";
    let ignored = |value: &str| {
        let target = case(text).attrs(&[("no-cache", value)]).target();
        graph(&target)
            .steps()
            .iter()
            .filter(|step| step.ignore_cache)
            .count()
    };
    assert_eq!((ignored(""), ignored("A"), ignored("other")), (3, 1, 0));
}

#[test]
fn an_image_without_platform_keeps_its_base_s() {
    let text = "FROM --platform=linux/arm64 alpine";
    let implicit = case(text).target();
    assert_eq!(
        (
            implicit.platform.to_string().as_str(),
            implicit.config.architecture.as_str()
        ),
        ("linux/arm64", "arm64")
    );
    let explicit = case(text).attrs(&[("platform", "linux/amd64")]).target();
    assert_eq!(
        (
            explicit.platform.to_string().as_str(),
            explicit.config.architecture.as_str()
        ),
        ("linux/amd64", "amd64")
    );
}

#[test]
fn scratch_has_no_steps() {
    let target = case("FROM scratch\nLABEL a=b")
        .attrs(&[("label:c", "d")])
        .target();
    assert!(target.definition.def.is_empty());
    let labels = target.config.config.labels.expect("set");
    assert_eq!(
        labels.into_iter().collect::<Vec<_>>(),
        [("a".into(), "b".into()), ("c".into(), "d".into())]
    );
}

#[test]
fn growth_is_bounded() {
    let mut text = String::from("FROM scratch\nENV A=aaaaaaaaaaaaaaaa\n");
    text.extend((0..40).map(|_| "ENV A=$A$A\n"));
    assert!(matches!(
        case(&text).error().problem,
        Problem::Expansion { .. }
    ));
    let mut text = String::from("FROM scratch AS s0\nEXPOSE 1-65535\n");
    text.extend((1..100).map(|n| format!("FROM s{} AS s{n}\n", n - 1)));
    assert!(matches!(
        case(&text).error().problem,
        Problem::TooMuch { .. }
    ));
    let mut text = format!("FROM alpine\nENV A={}\n", "a".repeat(1 << 19));
    text.extend((0..200).map(|n| format!("RUN {n}\n")));
    assert!(matches!(
        case(&text).error().problem,
        Problem::TooMuch { .. }
    ));
}
