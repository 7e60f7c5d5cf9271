//! The bench itself: one small workload on a debug build of ours, with all that a run makes and removes.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use buildyard_bench::report::Report;
use buildyard_tests::Scratch;

#[test]
fn a_cached_push_is_measured_and_nothing_stays_behind() {
    let scratch = Scratch::new();
    let temporary = scratch.path().join("tmp");
    std::fs::create_dir(&temporary).expect("made");
    let json: PathBuf = scratch.path().join("figures.json");
    let args = ["--alone", "--debug-build", "--only", "W1", "--repeat", "2"];
    let output = Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(args)
        .args(["--scale", "0.1", "--json"])
        .arg(&json)
        .env("TMPDIR", &temporary)
        .stdin(Stdio::null())
        .output()
        .expect("running the bench");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    assert!(
        text.contains("| W1 fully cached two-platform push |"),
        "{text}"
    );
    assert!(text.contains("say nothing about its speed"), "{text}");

    let report = Report::read(&json).expect("the figures");
    let row = &report.rows[0];
    assert_eq!((row.ours.samples.len(), &row.ours.error), (2, &None));
    assert!(row.reference.samples.is_empty());
    assert!(row.ours.value().is_some_and(|seconds| seconds > 0.0));

    let left: Vec<_> = std::fs::read_dir(&temporary).expect("read").collect();
    assert!(left.is_empty(), "{left:?}");
}
