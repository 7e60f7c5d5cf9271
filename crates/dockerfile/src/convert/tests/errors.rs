use super::*;

fn check(text: &str, lines: Option<(u32, u32)>, message: &str) {
    let error = case(text).error();
    assert_eq!(error.to_string(), message, "{text}");
    assert_eq!(
        error.lines.map(|lines| (lines.start, lines.end)),
        lines,
        "{text}"
    );
}

#[test]
fn stages_that_do_not_fit_are_refused() {
    check(
        "FROM a AS one\nCOPY --from=two a b\nFROM a AS two\nFROM one",
        Some((2, 2)),
        "cannot copy from stage \"two\", it needs to be defined before current stage \"one\"",
    );
    check(
        "FROM a AS one\nCOPY --from=two a b\nFROM b AS two\nCOPY --from=one a b",
        Some((2, 2)),
        "circular dependency detected on stage: one",
    );
    check(
        "FROM a AS one\nRUN \\\n --mount=from=one,target=/x y",
        Some((2, 3)),
        "circular dependency detected on stage: one",
    );
    check(
        "FROM a\nCOPY --from=7 a b",
        Some((2, 2)),
        "invalid stage index 7",
    );
    let error = case("FROM a AS builder\nFROM a")
        .attrs(&[("target", "bulder")])
        .error();
    assert_eq!(
        error.to_string(),
        "target stage \"bulder\" could not be found (did you mean builder?)"
    );
    assert_eq!(error.lines, None);
}

#[test]
fn the_first_of_two_stages_is_not_built_when_nobody_needs_it() {
    let names = case("FROM a AS one\nCOPY --from=two a b\nFROM c AS two").names();
    assert_eq!(names.len(), 1);
}

#[test]
fn malformed_patterns_are_named_with_their_line() {
    for (text, source) in [("COPY miss[ /", "miss["), ("COPY [\"a\" \"b\"]", "[a")] {
        check(
            &format!("FROM a\n{text}"),
            Some((2, 2)),
            &format!("invalid source {source:?}: syntax error in pattern"),
        );
    }
}

#[test]
fn bases_that_do_not_exist_are_refused() {
    check(
        "FROM $NONE",
        Some((1, 1)),
        "base name ($NONE) should not be blank",
    );
    check(
        "FROM scratch\nFROM Alpine",
        Some((2, 2)),
        "failed to parse stage name \"Alpine\": invalid reference format: repository name (library/Alpine) must be lowercase",
    );
    check(
        "FROM a:b:c",
        Some((1, 1)),
        "failed to parse stage name \"a:b:c\": invalid reference format",
    );
    check(
        "FROM --platform=$BUILDPLATFROM a",
        Some((1, 1)),
        "empty platform value from expression $BUILDPLATFROM (did you mean BUILDPLATFORM?)",
    );
    assert!(
        case("FROM --platform=a/b/c/d x")
            .error()
            .to_string()
            .starts_with("failed to parse platform a/b/c/d: ")
    );
    check(
        "FROM a AS one\nRUN --mount=from=two,target=/t x\nFROM a AS two\nFROM one",
        Some((2, 2)),
        "cannot mount from stage \"two\", it needs to be defined before current stage \"one\"",
    );
}

#[test]
fn what_is_not_done_yet_is_refused_by_name() {
    check(
        "FROM a\nADD https://example.com/x /",
        Some((2, 2)),
        "ADD of a URL is not supported yet",
    );
    check(
        "FROM a\nADD https://example.com/x.git#v1 /",
        Some((2, 2)),
        "ADD of a Git repository is not supported yet",
    );
    check(
        "FROM a\nADD git@host:x/y.git /",
        Some((2, 2)),
        "ADD of a Git repository is not supported yet",
    );
    check(
        "FROM a\nRUN --mount=type=ssh x",
        Some((2, 2)),
        "RUN --mount=type=ssh is not supported yet",
    );
    check(
        "FROM a\nCOPY https://example.com/x /",
        Some((2, 2)),
        "source can't be a URL for COPY",
    );
}

#[test]
fn wrong_values_are_refused() {
    let check =
        |line: &str, message: &str| check(&format!("FROM a\n{line}"), Some((2, 2)), message);
    check(
        "RUN --mount=typ=cache x",
        "unexpected key 'typ' in 'typ=cache' (did you mean type?)",
    );
    check(
        "RUN --mount=type=cahce,target=/x x",
        "unsupported mount type \"cahce\" (did you mean cache?)",
    );
    check(
        "RUN --mount=type=cache,sharing=lock,target=/x x",
        "unsupported sharing value \"lock\" (did you mean locked?)",
    );
    check(
        "RUN --mount=target x",
        "invalid field 'target' must be a key=value pair",
    );
    check("RUN --mount=target=/ x", "invalid mount target \"/\"");
    check(
        "RUN --mount=target=/x,mode=1 x",
        "mode not allowed for \"bind\" type mounts",
    );
    check(
        "RUN --mount=target=/x,size=1 x",
        "unexpected key 'size' for mount type 'bind'",
    );
    check(
        "RUN --mount=target=/x --mount=target=/x/ x",
        "two mounts have the target \"/x\"",
    );
    check(
        "RUN --mount=type=secret x",
        "invalid secret mount. one of source, target required",
    );
    check(
        "RUN --mount=type=secret,id=a,src=b x",
        "both source and id can't be set",
    );
    check("EXPOSE 80/http", "invalid proto: http");
    check("STOPSIGNAL SIGNOT", "invalid signal: SIGNOT");
    check(
        "COPY --chmod=888 a b",
        "invalid chmod parameter: '888'. it should be octal string and between 0 and 07777",
    );
    check(
        "ADD --checksum=sha256:x a b",
        "checksum requires HTTP(S) or Git sources",
    );
    check(
        "VOLUME $NONE",
        "VOLUME specified can not be an empty string",
    );
    check(
        "ENV A=${",
        "failed to process \"${\": syntax error: missing '}'",
    );
    check(
        "WORKDIR ${NONE:?set it}",
        "failed to process \"${NONE:?set it}\": NONE: set it",
    );
}

#[test]
fn triggers_that_cannot_run_are_refused() {
    let text = "FROM scratch\nFROM a";
    let error = case(text)
        .image("docker.io/library/a:latest", |config| {
            config.on_build = Some(vec!["FROM x".into()])
        })
        .error();
    assert_eq!(
        error.to_string(),
        "ONBUILD trigger \"FROM x\" cannot be used: the instruction isn't allowed here"
    );
    assert_eq!(error.lines, Some(Lines::one(2)));
}
