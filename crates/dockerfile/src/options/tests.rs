use super::*;

fn parse(attrs: &[(&str, &str)]) -> Result<Options, OptionsError> {
    let attrs = attrs
        .iter()
        .map(|&(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    Options::from_attrs(&attrs, &Platform::new("linux", "amd64", ""))
}

#[test]
fn what_buildx_sends_is_understood() {
    let options = parse(&[
        ("target", "app"),
        ("platform", "linux/amd64,linux/arm64/v8"),
        ("build-arg:A", "1"),
        ("build-arg:BUILDKIT_SANDBOX_HOSTNAME", "box"),
        ("hostname", "other"),
        ("label:l", "v"),
        ("no-cache", "a,B"),
        ("add-hosts", "DB=10.0.0.1,v6=::1"),
        ("image-resolve-mode", "pull"),
        ("force-network-mode", "none"),
        ("shm-size", "1024"),
        ("ulimit", "nofile=1:2,core=-1"),
        ("vcs:revision", "x"),
        ("frontend.caps", "moby.buildkit.frontend.inputs"),
        ("unknown-thing", "x"),
    ])
    .expect("all known");
    assert_eq!(
        options
            .platforms
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        ["linux/amd64", "linux/arm64"]
    );
    assert!(
        options.multi_platform && options.no_cache.includes("b") && !options.no_cache.includes("")
    );
    assert_eq!(
        (options.hostname.as_str(), options.build_args["A"].as_str()),
        ("box", "1")
    );
    assert_eq!(
        options.extra_hosts[1],
        pb::HostIp {
            host: "v6".into(),
            ip: "::1".into()
        }
    );
    assert_eq!(
        options.ulimits[0],
        pb::Ulimit {
            name: "nofile".into(),
            soft: 1,
            hard: 2
        }
    );
    assert_eq!(
        (options.network, options.resolve_mode),
        (pb::NetMode::None, ResolveMode::Pull)
    );
    assert_eq!(options.ignored, ["unknown-thing"]);
    assert!(
        parse(&[("no-cache", "")])
            .expect("known")
            .no_cache
            .includes("")
    );
}

#[test]
fn what_would_change_the_outcome_is_refused_by_name() {
    for (name, value) in [
        ("context:alpine", "docker-image://x"),
        ("context", "https://example.com/x.git"),
        ("attest:provenance", "mode=max"),
        ("requestid", "frontend.outline"),
        ("input:x", "y"),
        ("cgroup-parent", "/builds"),
    ] {
        let error = parse(&[(name, value)]).expect_err(name);
        assert!(
            matches!(&error, OptionsError::Unsupported { name: found, .. } if found == name),
            "{error}"
        );
    }
    assert!(
        parse(&[
            ("context", ""),
            ("attest:provenance", "disabled=true"),
            ("requestid", "")
        ])
        .is_ok()
    );
}

#[test]
fn what_is_refused_is_shown_without_passwords() {
    let check = |value: &str, expected: &str| {
        let error = parse(&[("context", value)]).expect_err(value).to_string();
        let what = "a build context that is no local directory";
        assert_eq!(
            error,
            format!("{what} (context={expected}) is not supported yet")
        );
    };
    check(
        "https://example.com/x.git#main",
        "https://example.com/x.git#main",
    );
    check("https://me:hush@example.com/x@y", "https://example.com/x@y");
    check(&"x".repeat(1000), &"x".repeat(200));
}

#[test]
fn wrong_values_are_refused() {
    for (name, value) in [
        ("platform", "linux/amd64,nonsense/a/b/c"),
        ("shm-size", "1g"),
        ("add-hosts", "a"),
        ("add-hosts", "a=b"),
        ("ulimit", "nofile=2:1"),
        ("ulimit", "x=1"),
        ("image-resolve-mode", "x"),
        ("force-network-mode", "bridge"),
        ("multi-platform", "x"),
        ("build-arg:SOURCE_DATE_EPOCH", "yesterday"),
    ] {
        let error = parse(&[(name, value)]).expect_err(name);
        assert!(
            matches!(error, OptionsError::Invalid { .. }),
            "{name}: {error}"
        );
    }
    assert!(
        parse(&[
            ("multi-platform", "0"),
            ("platform", "linux/amd64,linux/arm64")
        ])
        .is_err()
    );
}

#[test]
fn a_single_platform_can_be_an_index() {
    assert!(
        !parse(&[("platform", "linux/arm64")])
            .expect("known")
            .multi_platform
    );
    let options = parse(&[
        ("platform", "linux/arm64"),
        ("build-arg:BUILDKIT_MULTI_PLATFORM", "1"),
    ]);
    assert!(options.expect("known").multi_platform);
}
