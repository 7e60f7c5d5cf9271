//! Promise: the demo that the README starts shows what it says.

use std::process::Command;

#[test]
fn the_demo_shows_an_index_and_a_cached_build() {
    let demo = buildyard_tests::buildyard()
        .with_file_name("examples")
        .join("demo");
    let output = Command::new(&demo).output().expect("running the demo");
    let shown = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{shown}\n{errors}");
    let (first, second) = shown
        .split_once("The same build again")
        .expect("two builds");
    for text in [
        "application/vnd.oci.image.index.v1+json",
        "This image is for linux/amd64; its steps ran on x86_64.",
        "This image is for linux/arm64; its steps ran on aarch64.",
        "emulated",
    ] {
        assert!(first.contains(text), "no {text:?} in {first}");
    }
    assert!(!first.contains("CACHED"));
    assert_eq!(second.matches(" CACHED\n").count(), 7, "{second}");
}
