use super::*;

/// History entries as `created_by`, with a `*` before those that have a layer.
fn history(target: &Target) -> Vec<String> {
    let entry = |entry: &buildyard_image::History| {
        assert_eq!(entry.comment, "buildkit.dockerfile.v0");
        format!(
            "{}{}",
            if entry.empty_layer { "" } else { "*" },
            entry.created_by
        )
    };
    target.config.history.iter().map(entry).collect()
}

fn check(text: &str, expected: &[&str]) {
    assert_eq!(history(&case(text).target()), expected, "{text}");
}

#[test]
fn entries_are_written_as_buildkit_writes_them() {
    check(
        "FROM a\nARG V=\"1 2\" W\nENV A=$V B='c'\nRUN x $A\nRUN [\"y\", \"z\"]",
        &[
            "ARG V=1 2 W",
            "ENV A=1 2 B=c",
            "*RUN |2 V=1 2 W= /bin/sh -c x $A # buildkit",
            "*RUN |2 V=1 2 W= y z # buildkit",
        ],
    );
    check(
        "FROM a\nCOPY --from=b --chown=1:2 --chmod=0644 x y z/\nADD t.tar .\nCOPY <<EOF /f\nx\nEOF",
        &[
            "*COPY --chown=1:2 --chmod=0644 x y z/ # buildkit",
            "*ADD t.tar . # buildkit",
            "*COPY <<EOF /f # buildkit",
        ],
    );
    check(
        "FROM a\nWORKDIR /\nWORKDIR x\nUSER u:g\nWORKDIR ../y",
        &["WORKDIR /", "*WORKDIR /x", "USER u:g", "*WORKDIR /y"],
    );
    check(
        "FROM a\nCMD x \"y\"\nENTRYPOINT [\"a\", \"b c\"]\nSHELL [\"/bin/bash\", \"-c\"]\nCMD z",
        &[
            "CMD [\"/bin/sh\" \"-c\" \"x \\\"y\\\"\"]",
            "ENTRYPOINT [\"a\" \"b c\"]",
            "SHELL [/bin/bash -c]",
            "CMD [\"/bin/bash\" \"-c\" \"z\"]",
        ],
    );
    check(
        "FROM a\nEXPOSE 80-82 53/udp\nVOLUME /a /b\nSTOPSIGNAL 9\nLABEL a=b \"c d\"=e\nMAINTAINER me",
        &[
            "EXPOSE [53/udp 80/tcp 81/tcp 82/tcp]",
            "VOLUME [/a /b]",
            "STOPSIGNAL 9",
            "LABEL a=b c d=e",
            "MAINTAINER me",
        ],
    );
    check(
        "FROM a\nHEALTHCHECK --interval=5m --retries=2 CMD x y\nONBUILD RUN z",
        &[r#"HEALTHCHECK &{["CMD-SHELL" "x y"] "5m0s" "0s" "0s" "0s" '\x02'}"#],
    );
    check(
        "FROM a\nRUN <<EOF\nx\nEOF",
        &["*RUN /bin/sh -c x\n # buildkit"],
    );
}

#[test]
fn the_base_s_history_comes_first() {
    let mut case = case("FROM a AS b\nENV X=1\nFROM b\nENV Y=2");
    let mut image = plain_image();
    image.history = vec![buildyard_image::History {
        created_by: "base".into(),
        ..Default::default()
    }];
    case.base
        .insert("docker.io/library/a:latest".to_owned(), image);
    let target = case.target();
    let lines: Vec<_> = target
        .config
        .history
        .iter()
        .map(|entry| entry.created_by.as_str())
        .collect();
    assert_eq!(lines, ["base", "ENV X=1", "ENV Y=2"]);
    assert!(target.config.rootfs.diff_ids.is_empty() && target.config.created.is_none());
}

#[test]
fn the_configuration_is_that_of_the_base_with_the_changes() {
    let base = |config: &mut ContainerConfig| {
        config.cmd = Some(vec!["base".into()]);
        config.entrypoint = Some(vec!["old".into()]);
        config.user = "base".into();
        config.working_dir = "/base".into();
    };
    let config = |text: &str| {
        case(&format!("FROM a\n{text}"))
            .image("docker.io/library/a:latest", base)
            .target()
            .config
            .config
    };
    let kept = config("WORKDIR sub\nEXPOSE 80\nSTOPSIGNAL SIGTERM\nVOLUME /v");
    assert_eq!(
        (kept.cmd, kept.working_dir.as_str()),
        (Some(vec!["base".to_owned()]), "/base/sub")
    );
    assert_eq!(
        (kept.user.as_str(), kept.stop_signal.as_str()),
        ("base", "SIGTERM")
    );
    assert!(
        kept.exposed_ports.expect("set").contains_key("80/tcp")
            && kept.volumes.expect("set").contains_key("/v")
    );
    let reset = config("ENTRYPOINT [\"new\"]");
    assert_eq!(
        (reset.cmd, reset.entrypoint),
        (None, Some(vec!["new".to_owned()]))
    );
    let both = config("CMD [\"mine\"]\nENTRYPOINT [\"new\"]");
    assert_eq!(
        (both.cmd, both.args_escaped),
        (Some(vec!["mine".to_owned()]), true)
    );
    assert_eq!(config("CMD []\nENTRYPOINT []").entrypoint, None);
    let env = config("ENV PATH=/x:$PATH A=1\nENV A=2").env.expect("set");
    assert_eq!(env, ["PATH=/x:/bin", "A=2"]);
}

#[test]
fn arguments_come_from_where_they_should() {
    let target =
        |text: &str, attrs: &[(&str, &str)]| history(&case(text).attrs(attrs).target()).join("; ");
    assert_eq!(
        target("ARG G=1\nFROM a\nARG G\nARG L=$G", &[]),
        "ARG G=1; ARG L=1"
    );
    assert_eq!(
        target(
            "ARG G=1\nFROM a\nARG G=2\nENV X=$G",
            &[("build-arg:G", "3")]
        ),
        "ARG G=3; ENV X=3"
    );
    assert_eq!(target("ARG G=1\nFROM a\nENV X=$G", &[]), "ENV X=");
    assert_eq!(
        target("FROM a\nARG N\nENV X=${N:-none}", &[]),
        "ARG N; ENV X=none"
    );
    assert_eq!(
        target(
            "FROM a\nARG TARGETARCH TARGETPLATFORM",
            &[("platform", "linux/arm/v7")]
        ),
        "ARG TARGETARCH=arm TARGETPLATFORM=linux/arm/v7"
    );
    assert_eq!(
        target("FROM a\nENV E=env\nARG E=arg\nENV X=$E", &[]),
        "ENV E=env; ARG E=arg; ENV X=arg"
    );
    assert_eq!(
        target("FROM a AS b\nARG A=1\nFROM b\nENV X=$A", &[]),
        "ARG A=1; ENV X=1"
    );
    assert_eq!(
        target("ARG T=a\nARG B=$T:1\nFROM $B\nARG B", &[]),
        "ARG B=a:1"
    );
    assert_eq!(
        target("FROM a AS x\nARG TARGETSTAGE", &[]),
        "ARG TARGETSTAGE=x"
    );
}

#[test]
fn an_epoch_dates_history_and_files() {
    let case = case("FROM a\nCOPY x /\nRUN y").attrs(&[("build-arg:SOURCE_DATE_EPOCH", "86400")]);
    let dates: Vec<_> = case
        .target()
        .config
        .history
        .into_iter()
        .map(|entry| entry.created)
        .collect();
    assert_eq!(dates, vec![Some("1970-01-02T00:00:00Z".to_owned()); 2]);
    assert_eq!(case.copies().1[0].timestamp, 86_400_000_000_000);
}
