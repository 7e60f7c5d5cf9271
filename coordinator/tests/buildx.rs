//! What a user of `docker buildx` sees: the real client against the API, with a scripted engine behind it.

mod support;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::time::Duration;

use support::buildx::{Buildx, context, text};
use support::endpoint::Endpoint;

const FILES: &[(&str, &str)] = &[
    ("Dockerfile", "PRINT hello from the step\nCACHED thing\n"),
    ("src/main.rs", "fn main() {}"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_build_reaches_the_engine_with_its_attributes_and_context() {
    let endpoint = Endpoint::tcp().await;
    let buildx = Buildx::new(&endpoint.address).await;
    let dir = context(FILES);
    std::fs::write(dir.path().join("ignored"), "x").unwrap();
    let path = dir.path().to_str().unwrap();
    let args = [
        "build",
        "--progress",
        "plain",
        "--build-arg",
        "A=b",
        "--label",
        "l=v",
        "--target",
        "t",
        path,
    ];
    let output = buildx.run(&args).await;
    let printed = text(&output);
    assert!(output.status.success(), "{printed}");
    let seen = endpoint.engine.seen.lock().unwrap().clone();
    assert_eq!(seen.frontend, "dockerfile.v0");
    for (key, value) in [
        ("build-arg:A", "b"),
        ("label:l", "v"),
        ("target", "t"),
        ("filename", "Dockerfile"),
    ] {
        assert_eq!(
            seen.attrs.get(key).map(String::as_str),
            Some(value),
            "{key} of {:?}",
            seen.attrs
        );
    }
    assert_eq!(seen.context, ["Dockerfile", "src", "src/main.rs"]);
    for line in [
        "[internal] load build definition from Dockerfile",
        "hello from the step",
        "[2/9] CACHED thing",
        " CACHED",
    ] {
        assert!(printed.contains(line), "{line:?} in {printed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_serves_too_and_only_changed_files_travel() {
    let home = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::unix(home.path()).await;
    let buildx = Buildx::new(&endpoint.address).await;
    let dir = context(FILES);
    let path = dir.path().to_str().unwrap();
    for _ in 0..2 {
        let output = buildx.run(&["build", "--progress", "plain", path]).await;
        assert!(output.status.success(), "{}", text(&output));
    }
    std::fs::write(dir.path().join("src/main.rs"), "fn main() { /* longer */ }").unwrap();
    let output = buildx.run(&["build", "--progress", "plain", path]).await;
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(
        endpoint.engine.seen.lock().unwrap().travelled,
        [1, 2, 0, 0, 0, 1]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_shows_its_lines_of_the_dockerfile() {
    let endpoint = Endpoint::tcp().await;
    let buildx = Buildx::new(&endpoint.address).await;
    let dir = context(&[("Dockerfile", "PRINT fine\n\nFAIL exit 1\nPRINT never\n")]);
    let output = buildx
        .run(&["build", "--progress", "plain", dir.path().to_str().unwrap()])
        .await;
    let printed = text(&output);
    assert_eq!(output.status.code(), Some(1), "{printed}");
    for line in [
        "Dockerfile:3",
        "   3 | >>> FAIL exit 1",
        "about to fail",
        r#"process "/bin/sh -c exit 1" did not complete successfully: exit code: 1"#,
    ] {
        assert!(printed.contains(line), "{line:?} in {printed}");
    }
    assert!(!printed.contains("] PRINT never"), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_cancels_the_build() {
    let endpoint = Endpoint::tcp().await;
    let buildx = Buildx::new(&endpoint.address).await;
    let dir = context(&[("Dockerfile", "WAIT for it\n")]);
    let child = buildx.spawn(&["build", "--progress", "plain", dir.path().to_str().unwrap()]);
    let started = endpoint.engine.running.notified();
    tokio::time::timeout(Duration::from_secs(60), started)
        .await
        .expect("the step starts");
    assert_eq!(endpoint.api.builds().len(), 1);
    let pid = rustix::process::Pid::from_raw(child.id().unwrap() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = tokio::time::timeout(Duration::from_secs(60), child.wait_with_output())
        .await
        .unwrap()
        .unwrap();
    assert!(!output.status.success(), "{}", text(&output));
    endpoint.api.close();
    tokio::time::timeout(Duration::from_secs(60), endpoint.api.drained())
        .await
        .expect("the build ends");
    let outcome = endpoint.engine.seen.lock().unwrap().outcome.clone();
    assert!(outcome.is_some_and(|outcome| outcome.is_err_and(|err| err.is_cancelled())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_client_ends_its_build_and_its_session() {
    let endpoint = Endpoint::tcp().await;
    let buildx = Buildx::new(&endpoint.address).await;
    let dir = context(&[("Dockerfile", "WAIT for it\n")]);
    let mut child = buildx.spawn(&["build", "--progress", "plain", dir.path().to_str().unwrap()]);
    tokio::time::timeout(Duration::from_secs(60), endpoint.engine.running.notified())
        .await
        .expect("the step starts");
    let session = endpoint.api.builds()[0].session.clone();
    child.kill().await.unwrap();
    endpoint.api.close();
    tokio::time::timeout(Duration::from_secs(60), endpoint.api.drained())
        .await
        .expect("the build ends");
    // The build hears of it first from the call that ended; the session's own end may come a moment later.
    tokio::time::timeout(Duration::from_secs(60), session.closed().cancelled())
        .await
        .expect("the session ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_export_arrives_as_it_was() {
    let endpoint = Endpoint::tcp().await;
    let buildx = Buildx::new(&endpoint.address).await;
    let dir = context(FILES);
    let large = "0123456789abcdef".repeat(100_000);
    std::fs::write(dir.path().join("large"), &large).unwrap();
    std::fs::write(dir.path().join("empty"), "").unwrap();
    std::fs::set_permissions(
        dir.path().join("large"),
        std::fs::Permissions::from_mode(0o4750),
    )
    .unwrap();
    symlink("../outside", dir.path().join("src/link")).unwrap();
    std::fs::hard_link(dir.path().join("large"), dir.path().join("linked")).unwrap();
    for number in 0..300 {
        std::fs::write(
            dir.path().join(format!("src/{number}")),
            format!("content {number}"),
        )
        .unwrap();
    }
    let odd = OsStr::from_bytes(b"src/not \xff utf-8");
    std::fs::write(dir.path().join(odd), "odd").unwrap();
    let out = tempfile::tempdir().unwrap();
    let dest = out.path().join("result");
    let output = format!("type=local,dest={}", dest.display());
    let output = buildx
        .run(&[
            "build",
            "--progress",
            "plain",
            "-o",
            &output,
            dir.path().to_str().unwrap(),
        ])
        .await;
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(std::fs::read_to_string(dest.join("large")).unwrap(), large);
    assert_eq!(std::fs::read_to_string(dest.join("empty")).unwrap(), "");
    assert_eq!(
        std::fs::read_to_string(dest.join("src/299")).unwrap(),
        "content 299"
    );
    assert_eq!(
        std::fs::read_link(dest.join("src/link")).unwrap().to_str(),
        Some("../outside")
    );
    assert_eq!(std::fs::read_to_string(dest.join(odd)).unwrap(), "odd");
    let (one, other) = (
        dest.join("large").metadata().unwrap(),
        dest.join("linked").metadata().unwrap(),
    );
    assert_eq!((one.ino(), one.mode() & 0o7777), (other.ino(), 0o4750));
    let source = dir.path().join("src/main.rs").metadata().unwrap();
    assert_eq!(
        dest.join("src/main.rs")
            .metadata()
            .unwrap()
            .modified()
            .unwrap(),
        source.modified().unwrap()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tar_exports_arrive_and_the_metadata_file_has_the_response() {
    let endpoint = Endpoint::tcp().await;
    let buildx = Buildx::new(&endpoint.address).await;
    let dir = context(FILES);
    let out = tempfile::tempdir().unwrap();
    let (tar, oci, metadata) = (
        out.path().join("a.tar"),
        out.path().join("b.tar"),
        out.path().join("meta.json"),
    );
    let one = format!("type=tar,dest={}", tar.display());
    let two = format!("type=oci,dest={}", oci.display());
    let meta = metadata.to_str().unwrap();
    let args = [
        "build",
        "--progress",
        "plain",
        "--metadata-file",
        meta,
        "-o",
        &one,
        "-o",
        &two,
    ];
    let output = buildx
        .run(&[&args[..], &[dir.path().to_str().unwrap()]].concat())
        .await;
    assert!(output.status.success(), "{}", text(&output));
    for file in [tar, oci] {
        let bytes = std::fs::read(file).unwrap();
        assert_eq!(
            (bytes.len(), bytes[0], bytes[4_499_999]),
            (4_500_000, b'a', b'c')
        );
    }
    let metadata = std::fs::read_to_string(metadata).unwrap();
    assert!(metadata.contains("containerimage.digest"), "{metadata}");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_platforms_are_one_solve() {
    let endpoint = Endpoint::tcp().await;
    let buildx = Buildx::new(&endpoint.address).await;
    let dir = context(FILES);
    let path = dir.path().to_str().unwrap();
    let args = [
        "build",
        "--progress",
        "plain",
        "--platform",
        "linux/amd64,linux/arm64",
        "-o",
        "type=cacheonly",
        path,
    ];
    let output = buildx.run(&args).await;
    assert!(output.status.success(), "{}", text(&output));
    let seen = endpoint.engine.seen.lock().unwrap().clone();
    assert_eq!(seen.attrs["platform"], "linux/amd64,linux/arm64");
    assert_eq!(seen.outcome.unwrap().unwrap()["test.platforms"], "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_warnings_and_raw_progress_come_through() {
    let endpoint = Endpoint::tcp().await;
    let buildx = Buildx::new(&endpoint.address).await;
    let dir = context(&[("Dockerfile", "SECRET token\nPRINT x\nWARN beware of this\n")]);
    std::fs::write(dir.path().join("token"), "s3cret").unwrap();
    let secret = format!("id=token,src={}", dir.path().join("token").display());
    let args = [
        "build",
        "--progress",
        "rawjson",
        "--secret",
        &secret,
        dir.path().to_str().unwrap(),
    ];
    let output = buildx.run(&args).await;
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(
        endpoint.engine.seen.lock().unwrap().secret,
        Some(Some(b"s3cret".to_vec()))
    );
    let printed = text(&output);
    let lines: Vec<serde_json::Value> = printed
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let all = |key: &str| {
        lines
            .iter()
            .filter_map(|line| line[key].as_array())
            .flatten()
            .cloned()
            .collect::<Vec<_>>()
    };
    assert!(
        all("warnings")
            .iter()
            .any(|warning| warning["short"] == "YmV3YXJlIG9mIHRoaXM="),
        "{printed}"
    );
    assert!(
        all("logs").iter().any(|log| log["data"] == "eAo="),
        "{printed}"
    );
    let vertexes = all("vertexes");
    let print = vertexes
        .iter()
        .rfind(|vertex| vertex["name"] == "[2/9] PRINT x")
        .unwrap();
    assert!(
        print["started"].is_string() && print["completed"].is_string(),
        "{print}"
    );

    let dir = context(&[("Dockerfile", "SECRET other\n")]);
    let output = buildx
        .run(&["build", "--progress", "plain", dir.path().to_str().unwrap()])
        .await;
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(endpoint.engine.seen.lock().unwrap().secret, Some(None));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_farm_is_one_builder_with_all_platforms() {
    let endpoint = Endpoint::tcp().await;
    let buildx = Buildx::new(&endpoint.address).await;
    let output = buildx.run(&["inspect"]).await;
    let printed = text(&output);
    assert!(output.status.success(), "{printed}");
    assert!(
        printed.contains("linux/amd64, linux/arm64") || printed.contains("linux/amd64*"),
        "{printed}"
    );
    assert!(
        printed.contains("running") && printed.contains("v0.10.6+buildyard"),
        "{printed}"
    );
}
