//! `type=local` and `type=tar`.

use std::collections::BTreeMap;
use std::io::Read;

use buildyard_session::DirKind;

use crate::Bench;
use crate::layers::{Put, image};

/// Path and what is there, in short.
fn listed(bench: &Bench) -> BTreeMap<String, String> {
    let files = bench.client.files.lock().expect("no test panics with it");
    let shown = |kind: &DirKind, text: &String| match kind {
        DirKind::File(_) => text.clone(),
        DirKind::HardLink(target) => format!("= {}", String::from_utf8_lossy(target)),
        DirKind::Directory => "/".to_owned(),
        DirKind::Symlink(target) => format!("-> {}", String::from_utf8_lossy(target)),
        other => format!("{other:?}"),
    };
    files
        .iter()
        .map(|(path, (entry, text))| (path.clone(), shown(&entry.kind, text)))
        .collect()
}

fn expected(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(path, text)| (path.to_string(), text.to_string()))
        .collect()
}

fn layered(bench: &Bench, platform: &str) -> buildyard_coordinator::export::PlatformImage {
    let lower = bench.layers.add(&[
        Put::Directory("d"),
        Put::File("d/a", "old"),
        Put::File("d/gone", "x"),
        Put::File("deep/down/f", "f"),
    ]);
    let upper = bench.layers.add(&[
        Put::File("d/a", platform),
        Put::Link("d/b", "d/a"),
        Put::Symlink("s", "d/a"),
        Put::File("d/.wh.gone", ""),
    ]);
    image(platform, &[lower, upper])
}

#[tokio::test]
async fn one_platform_is_sent_as_it_is() {
    let bench = Bench::new();
    let images = [layered(&bench, "linux/amd64")];
    bench
        .export("local", &[], &images)
        .await
        .expect("it can be sent");
    let all = [
        ("d", "/"),
        ("d/a", "linux/amd64"),
        ("d/b", "= d/a"),
        ("deep", "/"),
        ("deep/down", "/"),
        ("deep/down/f", "f"),
        ("s", "-> d/a"),
    ];
    assert_eq!(listed(&bench), expected(&all));
    assert_eq!(
        *bench.shown.0.lock().expect("no test panics with it"),
        ["copying files"]
    );
}

#[tokio::test]
async fn several_platforms_have_directories_of_their_own() {
    let bench = Bench::new();
    let small = bench.layers.add(&[Put::File("a", "x")]);
    let images = [
        image("linux/arm/v7", &[small]),
        image("linux/amd64", &[small]),
        image("linux/s390x", &[]),
    ];
    bench
        .export("local", &[], &images)
        .await
        .expect("it can be sent");
    let all = [
        ("linux_amd64", "/"),
        ("linux_amd64/a", "x"),
        ("linux_arm_v7", "/"),
        ("linux_arm_v7/a", "x"),
        ("linux_s390x", "/"),
    ];
    assert_eq!(listed(&bench), expected(&all));
}

#[tokio::test]
async fn platforms_are_laid_over_each_other_where_that_loses_nothing() {
    let bench = Bench::new();
    let (one, two) = (
        bench.layers.add(&[Put::File("d/a", "1")]),
        bench.layers.add(&[Put::File("d/b", "2")]),
    );
    let unsplit = [("platform-split", "false")];
    let images = [image("linux/amd64", &[one]), image("linux/arm64", &[two])];
    bench
        .export("local", &unsplit, &images)
        .await
        .expect("it can be sent");
    assert_eq!(
        listed(&bench),
        expected(&[("d", "/"), ("d/a", "1"), ("d/b", "2")])
    );
    let images = [image("linux/amd64", &[one]), image("linux/arm64", &[one])];
    let error = bench
        .export("tar", &unsplit, &images)
        .await
        .map_err(|error| error.to_string());
    let text =
        "cannot overwrite d/a from linux/amd64 with linux/arm64 when split option is disabled";
    assert_eq!(error, Err(text.to_owned()));
}

#[tokio::test]
async fn a_tar_holds_the_same() {
    let bench = Bench::new();
    let images = [
        layered(&bench, "linux/amd64"),
        layered(&bench, "linux/arm64"),
    ];
    bench
        .export("tar", &[], &images)
        .await
        .expect("it can be sent");
    let bytes = std::mem::take(&mut *bench.client.stream.lock().expect("no test panics with it"));
    let mut members = BTreeMap::new();
    for member in tar::Archive::new(bytes.as_slice())
        .entries()
        .expect("the archive is sound")
    {
        let mut member = member.expect("the archive is sound");
        let path = member.path().expect("it has a path").display().to_string();
        let mut text = String::new();
        member
            .read_to_string(&mut text)
            .expect("the test's files are UTF-8");
        let link = member
            .link_name()
            .expect("it is sound")
            .map(|target| target.display().to_string());
        members.insert(path, link.unwrap_or(text));
    }
    assert_eq!(members["linux_amd64/d/a"], "linux/amd64");
    assert_eq!(members["linux_arm64/d/a"], "linux/arm64");
    assert_eq!(members["linux_arm64/d/b"], "linux_arm64/d/a");
    assert_eq!(members["linux_arm64/s"], "d/a");
    assert!(
        !members.keys().any(|path| path.contains("gone")),
        "{members:?}"
    );
    assert_eq!(members.len(), 16);
}

#[tokio::test]
async fn an_epoch_is_every_files_time() {
    let bench = Bench::new();
    let images = [layered(&bench, "linux/amd64")];
    bench
        .export("local", &[("source-date-epoch", "1234567890")], &images)
        .await
        .expect("it can be sent");
    let files = bench.client.files.lock().expect("no test panics with it");
    assert!(
        files
            .values()
            .all(|(entry, _)| entry.mtime.seconds == 1_234_567_890)
    );
    assert_eq!(files.len(), 7);
}
