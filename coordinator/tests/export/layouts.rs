//! `type=oci` and `type=docker`, read back by skopeo and umoci.

use std::path::Path;
use std::process::Command;

use crate::Bench;
use crate::layers::{Put, image};

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    let output =
        output.unwrap_or_else(|error| panic!("{program} is needed for this test: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {errors}");
    String::from_utf8(output.stdout).expect("it prints UTF-8")
}

fn unpack(archive: &[u8], directory: &Path) {
    tar::Archive::new(archive)
        .unpack(directory)
        .expect("the archive is sound");
}

async fn exported(bench: &Bench, kind: &str, platforms: &[&str]) -> Vec<u8> {
    let base = bench.layers.add(&[
        Put::Directory("etc"),
        Put::File("etc/motd", "old"),
        Put::File("gone", "x"),
    ]);
    let images: Vec<_> = platforms
        .iter()
        .map(|platform| {
            let made = bench.layers.add(&[
                Put::File("etc/motd", platform),
                Put::File(".wh.gone", ""),
                Put::Link("etc/link", "etc/motd"),
            ]);
            image(platform, &[base, made])
        })
        .collect();
    let attrs = [("name", "app:1,reg.example/app:2")];
    let response = bench
        .export(kind, &attrs, &images)
        .await
        .expect("it can be exported");
    assert_eq!(
        *bench.client.attrs.lock().expect("no test panics with it"),
        response
    );
    std::mem::take(&mut *bench.client.stream.lock().expect("no test panics with it"))
}

#[tokio::test]
async fn an_oci_archive_is_read_by_others() {
    let archive = exported(&Bench::new(), "oci", &["linux/amd64", "linux/arm64"]).await;
    assert_eq!(
        archive,
        exported(&Bench::new(), "oci", &["linux/amd64", "linux/arm64"]).await,
        "it is the same each time"
    );
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    unpack(&archive, directory.path());
    let layout = directory.path().to_str().expect("it is UTF-8");
    for architecture in ["amd64", "arm64"] {
        let arch = format!("--override-arch={architecture}");
        let shown = run(
            "skopeo",
            &[&arch, "inspect", "--config", &format!("oci:{layout}:2")],
        );
        assert!(
            shown.contains(&format!("\"architecture\": \"{architecture}\"")),
            "{shown}"
        );
        // A single image for umoci, which wants a layout without nested indexes.
        let flat = directory.path().join(architecture);
        let flat = flat.to_str().expect("it is UTF-8");
        run(
            "skopeo",
            &[
                "--insecure-policy",
                &arch,
                "copy",
                &format!("oci:{layout}:2"),
                &format!("oci:{flat}:x"),
            ],
        );
        let bundle = format!("{flat}-bundle");
        run(
            "umoci",
            &["unpack", "--image", &format!("{flat}:x"), &bundle],
        );
        let read = |path: &str| std::fs::read_to_string(format!("{bundle}/rootfs/{path}"));
        assert_eq!(read("etc/motd").ok(), Some(format!("linux/{architecture}")));
        assert_eq!(read("etc/link").ok(), Some(format!("linux/{architecture}")));
        assert!(read("gone").is_err());
    }
}

#[tokio::test]
async fn a_docker_archive_is_read_by_others() {
    let archive = exported(&Bench::new(), "docker", &["linux/arm64"]).await;
    let file = tempfile::NamedTempFile::new().expect("a temporary file can be made");
    std::fs::write(file.path(), &archive).expect("it can be written");
    let path = file.path().to_str().expect("it is UTF-8");
    let shown = run(
        "skopeo",
        &["inspect", &format!("docker-archive:{path}:app:1")],
    );
    assert!(shown.contains("\"Architecture\": \"arm64\""), "{shown}");
    let target = tempfile::tempdir().expect("a temporary directory can be made");
    let to = format!("dir:{}", target.path().display());
    run(
        "skopeo",
        &[
            "--insecure-policy",
            "copy",
            &format!("docker-archive:{path}:reg.example/app:2"),
            &to,
        ],
    );
}

#[tokio::test]
async fn docker_gets_no_index() {
    let bench = Bench::new();
    let layer = bench.layers.add(&[Put::File("a", "b")]);
    let images = ["linux/amd64", "linux/arm64"].map(|platform| image(platform, &[layer]));
    let error = bench
        .export("docker", &[], &images)
        .await
        .map_err(|error| error.to_string());
    assert_eq!(
        error,
        Err("docker exporter does not currently support exporting manifest lists".to_owned())
    );
    let error = bench
        .export("oci", &[("annotation-index.a", "b")], &images[..1])
        .await
        .map_err(|e| e.to_string());
    assert_eq!(
        error,
        Err("index annotations not supported for single platform export".to_owned())
    );
}
