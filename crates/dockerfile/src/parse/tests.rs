use proptest::prelude::*;

use super::*;
use crate::instruction::{Argument, Copy, MountFlag, Network, Pair, Run};

fn parse_text(text: &str) -> Result<Dockerfile, SyntaxError> {
    parse(&Source {
        filename: "Dockerfile",
        bytes: text.as_bytes(),
    })
}

/// The only instruction of a stage.
fn kind(instruction: &str) -> Kind {
    let file = parse_text(&format!("FROM a\n{instruction}")).expect(instruction);
    let [only] = &file.stages[0].instructions[..] else {
        panic!("one instruction: {instruction}")
    };
    only.kind.clone()
}

fn refused(instruction: &str) -> SyntaxError {
    parse_text(&format!("FROM a\n{instruction}")).expect_err(instruction)
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|&text| text.to_owned()).collect()
}

fn shell(text: &str) -> CommandLine {
    CommandLine::Shell(text.to_owned())
}

#[test]
fn stages_are_told_apart() {
    let file = parse_text(
        "ARG V=1 W\nFROM --platform=$P a:$V AS Build\nRUN x\nFROM build\nfrom scratch as y.z-1",
    )
    .expect("sound");
    let names: Vec<_> = file
        .stages
        .iter()
        .map(|stage| stage.name.as_deref())
        .collect();
    assert_eq!(names, [Some("build"), None, Some("y.z-1")]);
    let first = &file.stages[0];
    assert_eq!(
        (first.base.as_str(), first.platform.as_deref(), first.lines),
        ("a:$V", Some("$P"), Lines::one(2))
    );
    assert_eq!(first.original, "FROM --platform=$P a:$V AS Build");
    let arguments = [
        Argument {
            name: "V".into(),
            default: Some("1".into()),
        },
        Argument {
            name: "W".into(),
            default: None,
        },
    ];
    assert_eq!(file.globals[0].arguments, arguments);
}

#[test]
fn pairs_are_read() {
    let check = |text: &str, expected: &[(&str, &str)]| {
        let (Kind::Env(pairs) | Kind::Label(pairs)) = kind(text) else {
            panic!("{text}")
        };
        let expected: Vec<_> = expected
            .iter()
            .map(|&(n, v)| Pair {
                name: n.into(),
                value: v.into(),
            })
            .collect();
        assert_eq!(pairs, expected, "{text}");
    };
    check(
        "ENV A=b C=\"d e\" F=g\\ h",
        &[("A", "b"), ("C", "\"d e\""), ("F", "g\\ h")],
    );
    check("ENV A  b  c=d ", &[("A", "b  c=d")]);
    check("LABEL \"a b\"=c d=", &[("\"a b\"", "c"), ("d", "")]);
    check("ENV A=b \\\n  C=d", &[("A", "b"), ("C", "d")]);
    assert!(refused("ENV A").message.contains("must have two arguments"));
    assert!(refused("ENV").message.contains("at least one argument"));
    assert!(
        refused("ENV A=b C")
            .message
            .contains("can't find = in \"C\"")
    );
    assert!(
        refused("LABEL =b")
            .message
            .contains("names can not be blank")
    );
    assert!(refused("ARG =b").message.contains("names can not be blank"));
    assert!(refused("ARG").message.contains("at least one argument"));
}

#[test]
fn commands_are_read() {
    assert_eq!(kind("CMD echo a  b"), Kind::Cmd(shell("echo a  b")));
    assert_eq!(
        kind("CMD [\"a\", \"b\"]"),
        Kind::Cmd(CommandLine::Exec(strings(&["a", "b"])))
    );
    assert_eq!(
        kind("ENTRYPOINT []"),
        Kind::Entrypoint(CommandLine::Exec(Vec::new()))
    );
    assert_eq!(kind("CMD ['a']"), Kind::Cmd(shell("['a']")));
    assert_eq!(kind("SHELL [\"a\"]"), Kind::Shell(strings(&["a"])));
    assert!(refused("SHELL a").message.contains("JSON form"));
    assert!(refused("SHELL []").message.contains("at least one"));
    assert!(refused("CMD [1]").message.contains("strings only"));
    assert!(refused("RUN []").message.contains("at least one"));
    assert!(
        matches!(kind("RUN"), Kind::Run(run) if run.command == shell("")),
        "as BuildKit: the shell does nothing"
    );
}

#[test]
fn runs_are_read() {
    let Kind::Run(run) =
        kind("RUN --mount=type=cache,target=/c --mount=from=b,target=/b --network=none x --y")
    else {
        panic!("a RUN")
    };
    let mounts = vec![
        MountFlag {
            fields: strings(&["type=cache", "target=/c"]),
            from: None,
        },
        MountFlag {
            fields: strings(&["from=b", "target=/b"]),
            from: Some("b".into()),
        },
    ];
    assert_eq!(
        run,
        Run {
            command: shell("x --y"),
            heredocs: Vec::new(),
            mounts,
            network: Network::None
        }
    );
    assert!(
        refused("RUN --mount=from=$x,target=/ y")
            .message
            .contains("'from' doesn't support variable expansion")
    );
    assert!(
        refused("RUN --security=insecure x")
            .message
            .contains("--security=insecure is not supported")
    );
    assert!(
        refused("RUN --device=x y")
            .message
            .contains("--device is not supported yet")
    );
    assert_eq!(
        refused("RUN --network=hots x").suggestion.as_deref(),
        Some("host")
    );
    assert!(matches!(kind("RUN --security=sandbox x"), Kind::Run(_)));
}

#[test]
fn heredocs_are_read() {
    let file = parse_text("FROM a\nRUN <<EOF cat\nx\n\\\n# no comment\nEOF\nCOPY <<A <<-'B' /d/\na\nA\n\tb\n\tB\nRUN c").expect("sound");
    let [run, copy, last] = &file.stages[0].instructions[..] else {
        panic!("three")
    };
    assert_eq!(
        (run.lines, last.lines),
        (Lines { start: 2, end: 6 }, Lines::one(12))
    );
    let Kind::Run(run) = &run.kind else {
        panic!("a RUN")
    };
    assert_eq!(run.heredocs[0].content, "x\n\\\n# no comment\n");
    let Kind::Copy(Copy {
        heredocs,
        sources,
        destination,
        ..
    }) = &copy.kind
    else {
        panic!("a COPY")
    };
    assert!(sources.is_empty());
    assert_eq!(
        (destination.as_str(), heredocs[0].expand, heredocs[1].expand),
        ("/d/", true, false)
    );
    assert_eq!(heredocs[1].text(), "b\n");
    assert_eq!(
        refused("RUN <<EOF\nx").message,
        "unterminated heredoc \"EOF\""
    );
    assert!(
        refused("COPY a <<EOF\nEOF")
            .message
            .contains("heredoc as a destination")
    );
    assert!(
        matches!(kind("RUN [\"<<EOF\"]"), Kind::Run(Run { heredocs, .. }) if heredocs.is_empty())
    );
    assert!(matches!(kind("CMD <<EOF"), Kind::Cmd(_)));
}

#[test]
fn transfers_are_read() {
    let Kind::Copy(copy) = kind(
        "COPY --from=b --chown=1:2 --chmod=+x --link --parents --exclude=x --exclude=y a b c/",
    ) else {
        panic!("a COPY")
    };
    assert_eq!(copy.sources, ["a", "b"]);
    assert_eq!(
        (
            copy.from.as_deref(),
            copy.chown.as_deref(),
            copy.chmod.as_deref()
        ),
        (Some("b"), Some("1:2"), Some("+x"))
    );
    assert!(copy.link && copy.parents && copy.exclude == ["x", "y"]);
    let Kind::Add(add) = kind("ADD --unpack=false [\"a b\", \"c\"]") else {
        panic!("an ADD")
    };
    assert_eq!((add.sources, add.unpack), (strings(&["a b"]), Some(false)));
    assert!(refused("COPY a").message.contains("at least two arguments"));
    assert!(
        refused("COPY --from=$x a b")
            .message
            .contains("not supported for --from")
    );
    assert!(
        refused("ADD --parents a b")
            .message
            .contains("unknown flag: --parents")
    );
}

#[test]
fn other_instructions_are_read() {
    assert_eq!(
        kind("EXPOSE 80 1-2/udp"),
        Kind::Expose(strings(&["1-2/udp", "80"]))
    );
    assert_eq!(kind("VOLUME /a  /b"), Kind::Volume(strings(&["/a", "/b"])));
    assert_eq!(kind("VOLUME [\"/a b\"]"), Kind::Volume(strings(&["/a b"])));
    assert_eq!(kind("WORKDIR /a b"), Kind::Workdir("/a b".into()));
    assert_eq!(kind("uSeR x"), Kind::User("x".into()));
    assert_eq!(kind("STOPSIGNAL 9"), Kind::StopSignal("9".into()));
    assert_eq!(kind("MAINTAINER a <b>"), Kind::Maintainer("a <b>".into()));
    assert_eq!(kind("ONBUILD  COPY a b"), Kind::Onbuild("COPY a b".into()));
    assert_eq!(
        kind("ONBUILD RUN <<E\nx\nE"),
        Kind::Onbuild("RUN <<E\nx\nE".into())
    );
    assert!(
        refused("VOLUME [\"\"]")
            .message
            .contains("can not be an empty string")
    );
    assert!(refused("WORKDIR").message.contains("exactly one argument"));
    assert!(refused("USER --x y").message.contains("unknown flag: --x"));
    assert!(refused("ONBUILD").message.contains("at least one argument"));
    assert!(
        refused("ONBUILD ONBUILD RUN x")
            .message
            .contains("Chaining ONBUILD")
    );
    assert!(
        refused("ONBUILD from x")
            .message
            .contains("FROM isn't allowed")
    );
    assert!(
        refused("ONBUILD RUNN x")
            .message
            .contains("unknown instruction: RUNN")
    );
}

#[test]
fn healthchecks_are_read() {
    let text = "HEALTHCHECK --interval=5m --timeout=3s --start-period=1s --start-interval=500ms --retries=3 CMD curl x";
    let Kind::Healthcheck(check) = kind(text) else {
        panic!("a HEALTHCHECK")
    };
    assert_eq!(check.test, ["CMD-SHELL", "curl x"]);
    assert_eq!(
        (check.interval, check.timeout, check.retries),
        (300_000_000_000, 3_000_000_000, 3)
    );
    assert_eq!(
        (check.start_period, check.start_interval),
        (1_000_000_000, 500_000_000)
    );
    assert!(
        matches!(kind("HEALTHCHECK CMD [\"a\"]"), Kind::Healthcheck(check) if check.test == ["CMD", "a"])
    );
    assert!(matches!(kind("healthcheck none"), Kind::Healthcheck(check) if check.test == ["NONE"]));
    for (text, part) in [
        ("HEALTHCHECK", "at least one argument"),
        ("HEALTHCHECK NONE x", "takes no arguments"),
        ("HEALTHCHECK CMD", "Missing command"),
        ("HEALTHCHECK RUN x", "Unknown type \"RUN\""),
        (
            "HEALTHCHECK --interval=1us CMD x",
            "cannot be less than 1ms",
        ),
        ("HEALTHCHECK --interval=x CMD x", "is not a duration"),
        ("HEALTHCHECK --retries=-1 CMD x", "cannot be negative"),
    ] {
        assert!(refused(text).message.contains(part), "{text}");
    }
}

#[test]
fn errors_point_into_the_file() {
    let check = |text: &str, line, column, message: &str| {
        let error = parse_text(text).expect_err(text);
        assert_eq!(
            (error.line, error.column, error.to_string().as_str()),
            (line, column, message),
            "{text}"
        );
    };
    check(
        "FROM a\n  FORM b",
        2,
        3,
        "dockerfile parse error on line 2: unknown instruction: FORM (did you mean FROM?)",
    );
    check(
        "FROM a\nCOPY \\\n  --form=b c d",
        3,
        3,
        "dockerfile parse error on line 3: unknown flag: --form (did you mean --from?)",
    );
    check(
        "RUN x",
        1,
        1,
        "dockerfile parse error on line 1: no build stage in current context: only ARG can stand before FROM",
    );
    check(
        "FROM a b",
        1,
        1,
        "dockerfile parse error on line 1: FROM requires either one or three arguments",
    );
    check(
        "FROM a AS 1x",
        1,
        11,
        "dockerfile parse error on line 1: invalid name for build stage: \"1x\", name can't start with a number or contain symbols",
    );
    check(
        "",
        1,
        1,
        "dockerfile parse error on line 1: the Dockerfile cannot be empty",
    );
    check(
        "# only\n",
        1,
        1,
        "dockerfile parse error on line 1: file with no instructions",
    );
}

#[test]
fn a_caret_stands_under_the_mistake() {
    let check = |text: &str, expected: &str| {
        let error = parse_text(text).expect_err(text);
        assert_eq!(error.pointer(text.as_bytes()), expected, "{text}");
    };
    check("FROM a\n  FORM b", "  FORM b\n  ^");
    check("FROM a\nCOPY \\\n\t--form=b c d\r\n", "\t--form=b c d\n\t^");
    check("", "\n^");
    let long = format!("FROM a\nCOPY --link={} --form=b c d", "x".repeat(500));
    let error = parse_text(&long).expect_err("an unknown flag");
    let pointer = error.pointer(long.as_bytes());
    let (line, caret) = pointer.split_once('\n').expect("two lines");
    assert!(
        line.chars().count() <= 120 && caret.chars().count() <= 120,
        "{pointer}"
    );
    let error = parse_text("FROM a\nCOPY --grün=1 --form=b c d").expect_err("unknown");
    assert!(
        error
            .pointer("FROM a\nCOPY --grün=1".as_bytes())
            .starts_with("COPY --grün=1")
    );
}

#[test]
fn empty_continuations_are_warned_of_unless_skipped() {
    let warnings = |head: &str| {
        parse_text(&format!("{head}FROM a\nRUN a \\\n\n b"))
            .expect("sound")
            .warnings
    };
    let [warning] = &warnings("")[..] else {
        panic!("one warning")
    };
    assert_eq!(
        warning.short,
        "NoEmptyContinuation: Empty continuation line (line 4)"
    );
    assert!(warnings("# check=skip=NoEmptyContinuation,X;error=true\n").is_empty());
    assert!(warnings("# check=skip=all\n").is_empty());
    assert_eq!(warnings("# check=skip=Other\n").len(), 1);
}

#[test]
fn size_is_bounded() {
    assert!(parse_text(&format!("FROM a\n# {}", "x".repeat(limits::FILE_BYTES))).is_err());
    assert!(
        parse_text(&format!(
            "FROM a\n{}",
            "USER x\n".repeat(limits::INSTRUCTIONS)
        ))
        .is_err()
    );
    assert!(parse_text(&"FROM a\n".repeat(limits::STAGES + 1)).is_err());
}

#[test]
fn triggers_are_one_instruction() {
    assert!(parse_trigger("RUN <<E\nx\nE").is_ok());
    for text in [
        "",
        "RUN a\nRUN b",
        "FROM a",
        "ONBUILD RUN x",
        "# comment",
        "BANANA",
    ] {
        assert!(parse_trigger(text).is_err(), "{text}");
    }
}

/// Lines that look like a Dockerfile's.
fn lines() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "FROM a",
        "RUN ",
        "COPY --from=b ",
        "ENV A=",
        "ARG ",
        "ONBUILD ",
        "<<EOF",
        "EOF",
        "\\",
        "\n",
        " ",
        "# escape=`\n",
        "HEALTHCHECK ",
        "--interval=1s ",
        "CMD ",
        "[\"a\"",
        "]",
        "'",
        "\"",
        "$",
        "${",
        "}",
        "`",
        "\t",
        "=",
        "\u{feff}",
        "é",
        "--mount=",
        "type=cache",
        ",",
        "EXPOSE ",
        "LABEL ",
        "SHELL ",
    ]);
    prop::collection::vec(pieces, 0..30).prop_map(|pieces| pieces.concat())
}

fn holds_for(bytes: &[u8]) -> Result<(), TestCaseError> {
    let count = bytes.split(|&b| b == b'\n').count() as u32;
    match parse(&Source {
        filename: "f",
        bytes,
    }) {
        Ok(file) => {
            for stage in &file.stages {
                for lines in [stage.lines]
                    .into_iter()
                    .chain(stage.instructions.iter().map(|i| i.lines))
                {
                    prop_assert!(
                        1 <= lines.start && lines.start <= lines.end && lines.end <= count
                    );
                }
            }
        }
        Err(error) => {
            prop_assert!(1 <= error.line && error.line <= count, "{:?}", error);
            prop_assert!(
                error.lines.start <= error.lines.end && error.lines.end <= count,
                "{:?}",
                error
            );
            let line = bytes
                .split(|&b| b == b'\n')
                .nth(error.line as usize - 1)
                .unwrap_or_default();
            let width = String::from_utf8_lossy(line).chars().count() as u32;
            prop_assert!(
                1 <= error.column && error.column <= width + 1,
                "{:?}",
                error
            );
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        holds_for(&bytes)?;
    }

    #[test]
    fn anything_like_a_dockerfile_is_read_or_refused(text in lines()) {
        holds_for(text.as_bytes())?;
        let _ = crate::syntax_directive(text.as_bytes());
        let _ = crate::Dockerignore::parse(text.as_bytes());
    }
}
