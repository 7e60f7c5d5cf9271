//! Promise: bad input ends in a clear error, nothing is lost, and the farm goes on.

use std::io::Write;
use std::time::Duration;

use buildyard_tests::{Context, Farm, PLATFORMS, Serve, push_lying_image, wait_for};

const SOON: Duration = Duration::from_secs(60);

/// A tar of one member. The path goes in as it is, which the crate's own setter would refuse.
fn tar_of(path: &str, kind: tar::EntryType, link: &str, size: u64) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
    header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(size);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend([0; 1024]);
    bytes
}

#[test]
fn archives_that_reach_out_or_blow_up_are_refused() {
    use tar::EntryType;
    let farm = Farm::new();
    let check = |name: &str, bytes: &[u8], text: &str| {
        let context = Context::new(&[]);
        std::fs::write(context.path().join(name), bytes).expect("writing an archive");
        farm.build_in(&context, &format!("FROM scratch\nADD {name} /d/\n"), &[])
            .fails()
            .says(name)
            .says(text)
            .says(&format!(">>> ADD {name} /d/"));
    };
    let file = EntryType::Regular;
    check(
        "absolute.tar",
        &tar_of("/abs/evil", file, "", 0),
        "its path is absolute",
    );
    check(
        "up.tar",
        &tar_of("../../evil", file, "", 0),
        "leads outside",
    );
    check(
        "link.tar",
        &tar_of("l", EntryType::Link, "/etc/passwd", 0),
        "lies outside",
    );
    check(
        "device.tar",
        &tar_of("null", EntryType::Char, "", 0),
        "device node",
    );
    let huge = tar_of("zeros", file, "", 7 << 30);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&huge).expect("compressing into memory");
    let bomb = gzip.finish().expect("compressing into memory");
    check("bomb.tar.gz", &bomb, "1073741824 bytes");
    check("torn.tar.gz", &bomb[..bomb.len() - 12], "torn.tar.gz");
}

#[test]
fn an_image_that_lies_about_its_layer_is_refused_and_spoils_nothing() {
    let farm = Farm::new();
    let lying = push_lying_image(&farm.registry);
    farm.build(&format!("FROM {lying}\nRUN [\"/x\"]\n"), &[])
        .fails()
        .says("does not match its image")
        .does_not_say("it is tried again");
    // The base image has the layer that was promised.
    farm.build("FROM BASE\nRUN grep -q app /etc/passwd\n", &[])
        .succeeds();
}

#[test]
fn commands_that_flood_or_die_are_told() {
    let farm = Farm::new();
    let flood = "FROM BASE\nRUN yes 0123456789012345678901234567890123456789 | head -c 50000000; echo done > /end\n\
                 RUN test -f /end\n";
    let outcome = farm
        .build(flood, &[])
        .succeeds()
        .says("[output clipped, log limit");
    assert!(
        outcome.stderr.len() < 16 << 20,
        "{} bytes",
        outcome.stderr.len()
    );
    farm.build("FROM BASE\nRUN sh -c 'kill -9 $$'; exit $?\n", &[])
        .fails()
        .says("exit code: 137")
        .says("Dockerfile:2");
}

#[test]
fn a_step_that_needs_more_memory_than_it_may_says_so() {
    let farm = Farm::serving(&Serve::up().args(&["--step-memory", "64M"]));
    let killed =
        "cannot allocate memory: killed by the kernel because it needed more than the 64 MiB";
    for platform in PLATFORMS.split(',') {
        let dockerfile = "FROM BASE\nRUN dd if=/dev/zero of=/dev/null bs=300M count=1\n";
        farm.build(dockerfile, &["--platform", platform])
            .fails()
            .says(&format!("exit code: 137: {killed}"))
            .says("(--step-memory)")
            .says("Dockerfile:2")
            .says(">>> RUN dd");
    }
    // The shell lives on and has an exit code of its own.
    farm.build(
        "FROM BASE\nRUN dd if=/dev/zero of=/dev/null bs=300M count=1 || exit 3\n",
        &[],
    )
    .fails()
    .says(&format!("exit code: 3: {killed}"));
    farm.build("FROM BASE\nRUN dd if=/dev/zero of=/f bs=1M count=8\n", &[])
        .succeeds();
}

#[test]
fn mistakes_are_shown_with_line_and_caret() {
    let farm = Farm::new();
    let check = |dockerfile: &str, args: &[&str], texts: &[&str]| {
        let outcome = farm.build(dockerfile, args).fails();
        texts
            .iter()
            .fold(outcome, |outcome, text| outcome.says(text));
    };
    check(
        "FROM scratch\nCOPY --frm=x a b\n",
        &[],
        &[
            "on line 2: unknown flag: --frm (did you mean --from?)\nCOPY --frm=x a b\n     ^",
            ">>> COPY --frm=x",
        ],
    );
    check(
        "FROM scratch AS a\nCOPY --from=b /x /y\nFROM scratch AS b\nCOPY --from=a /x /y\n",
        &[],
        &[
            "circular dependency detected on stage: a",
            ">>> COPY --from=b",
        ],
    );
    check(
        "FROM scratch AS build\nCOPY file /\n",
        &["--target", "biuld"],
        &["did you mean build?"],
    );
    check(
        "FROM --platform=linux/a/b/c scratch\n",
        &[],
        &["Dockerfile:1", "linux/a/b/c"],
    );
    check(
        "# syntax=example.com/front:1\nFROM scratch\n",
        &[],
        &["example.com/front:1"],
    );
    check(
        "FROM scratch\nRUN --mount=type=ssh true\n",
        &[],
        &["type=ssh", "not supported yet"],
    );
    check(
        "FROM scratch\nADD https://example.com/x /\n",
        &[],
        &["URL", "not supported yet"],
    );
    check(
        "FROM REGISTRY/base/busybox:nope\n",
        &[],
        &[
            "failed to resolve source metadata for",
            "not found",
            ">>> FROM",
        ],
    );
    check(
        "FROM BASE\nRUN --network=host true\n",
        &[],
        &["--allow network.host", ">>> RUN"],
    );
    check(
        "FROM BASE\nRUN --mount=type=secret,id=s,required true\n",
        &[],
        &["secret s: not found", ">>> RUN"],
    );
    check(
        "FROM BASE\nCOPY ../../etc/passwd /\n",
        &[],
        &["\"/etc/passwd\": not found"],
    );
}

#[test]
fn links_out_of_the_context_stay_links() {
    let farm = Farm::new();
    let context = Context::new(&[]);
    std::os::unix::fs::symlink("/etc", context.path().join("out")).expect("a link");
    let build = |dockerfile: &str| farm.build_in(&context, dockerfile, &[]);
    build("FROM scratch\nCOPY out/passwd /\n")
        .fails()
        .says("passwd\": not found");
    build("FROM scratch\nCOPY out /d/\n")
        .fails()
        .says("\"/out\": not found");
    build("FROM BASE\nCOPY . /d/\nRUN test \"$(readlink /d/out)\" = /etc\n").succeeds();
}

#[test]
fn a_client_that_leaves_amid_its_context_takes_nothing_with_it() {
    let farm = Farm::new();
    let dockerfile = "FROM scratch\nCOPY . /\n";
    let context = farm.context(dockerfile);
    let big = std::fs::File::create(context.path().join("big")).expect("a file");
    big.set_len(64 << 30).expect("a sparse file");
    drop(big);
    let client = farm.buildx.start(&context, &[]);
    let unfinished = || {
        let folder = std::fs::read_dir(farm.server.data().join("flats/tmp")).expect("a folder");
        let files = folder.flatten().filter_map(|file| file.metadata().ok());
        files.map(|file| file.len()).sum::<u64>()
    };
    wait_for("bytes of the context", SOON, || {
        (unfinished() > 1 << 20).then_some(())
    });
    client.kill();
    wait_for("the build to be given up", SOON, || {
        let builds = farm.server.cli(&["builds"]);
        builds.contains("canceled").then_some(())
    });
    wait_for("the bytes to go", SOON, || {
        (unfinished() == 0).then_some(())
    });
    std::fs::remove_file(context.path().join("big")).expect("removing it");
    farm.build_in(&context, dockerfile, &[]).succeeds();
}
