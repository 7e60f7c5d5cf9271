//! `type=image`.

use buildyard_image::{Document, ImageConfig, Index, Manifest, MediaTypes};
use buildyard_model::Digest;
use buildyard_registry::testing::{Fault, TestRegistry, Trouble};

use crate::Bench;
use crate::layers::{Put, image};

const BASE: [Put<'static>; 2] = [Put::Directory("bin"), Put::File("bin/sh", "shell")];

fn index(server: &TestRegistry, repository: &str, name: &str) -> Index {
    let (media_type, bytes) = server.manifest(repository, name).expect("it was pushed");
    match Document::parse(&media_type, &bytes) {
        Ok(Document::Index(index)) => index,
        other => panic!("not an index: {other:?}"),
    }
}

fn manifest(server: &TestRegistry, repository: &str, name: &str) -> Manifest {
    let (media_type, bytes) = server.manifest(repository, name).expect("it was pushed");
    match Document::parse(&media_type, &bytes) {
        Ok(Document::Manifest(manifest)) => *manifest,
        other => panic!("not a manifest: {other:?}"),
    }
}

fn config(server: &TestRegistry, repository: &str, manifest: &Manifest) -> ImageConfig {
    let bytes = server
        .blob(repository, &manifest.config.digest)
        .expect("it was pushed");
    serde_json::from_slice(&bytes).expect("it is JSON")
}

#[tokio::test]
async fn two_platforms_become_an_index() {
    let server = TestRegistry::start().await;
    let bench = Bench::new();
    let base = bench
        .layers
        .pulled(&BASE, &server.reference("base:1"), |bytes| {
            drop(server.put_blob("base", bytes))
        });
    let images = ["linux/amd64", "linux/arm64"].map(|platform| {
        let made = bench.layers.add(&[Put::File("app", platform)]);
        image(platform, &[base, made])
    });
    let name = format!("{}/app:1", server.host());
    let attrs = [("name", name.as_str()), ("push", "true")];
    server.requests();
    let response = bench
        .export("image", &attrs, &images)
        .await
        .expect("it can be pushed");

    let pushed = index(&server, "app", "1");
    let platforms: Vec<_> = pushed
        .manifests
        .iter()
        .filter_map(|entry| entry.platform.as_ref())
        .collect();
    assert_eq!(
        platforms
            .iter()
            .map(|p| p.architecture.as_str())
            .collect::<Vec<_>>(),
        ["amd64", "arm64"]
    );
    let digest = Digest::of(pushed.to_bytes());
    assert_eq!(response["containerimage.digest"], digest.to_string());
    assert_eq!(response["image.name"], name);
    assert!(!response.contains_key("containerimage.config.digest"));

    let arm64 = manifest(&server, "app", &pushed.manifests[1].digest.to_string());
    let config = config(&server, "app", &arm64);
    assert_eq!(config.rootfs.diff_ids.len(), 2);
    let times: Vec<_> = config
        .history
        .iter()
        .filter_map(|entry| entry.created.as_deref())
        .collect();
    assert_eq!(
        times,
        [
            "2026-01-01T00:00:00Z",
            "2026-01-02T00:00:00Z",
            "2026-01-02T00:00:00Z"
        ]
    );
    assert_eq!(config.created.as_deref(), Some("2026-01-02T00:00:00Z"));

    let requests = server.requests();
    assert_eq!(
        requests.last().map(String::as_str),
        Some("PUT /v2/app/manifests/1"),
        "the index comes last"
    );
    let sent = requests
        .iter()
        .filter(|line| line.starts_with("PUT /v2/app/blobs"))
        .count();
    assert_eq!(
        sent, 4,
        "a layer and a configuration for each platform; the base's layer is mounted"
    );
    assert!(server.blob("app", &arm64.layers[0].digest).is_some());
    let shown = bench
        .shown
        .0
        .lock()
        .expect("no test panics with it")
        .clone();
    assert_eq!(shown[0], "exporting layers");
    assert_eq!(shown[5], format!("exporting manifest list {digest}"));
    assert_eq!(shown[6], "pushing layers");
    assert_eq!(shown[7], format!("pushing manifest for {name}@{digest}"));
    assert_eq!(shown.len(), 8);

    // The same again, by a build that knows nothing of the first.
    let again = Bench {
        layers: bench.layers.clone(),
        ..Bench::new()
    };
    let response_again = again
        .export("image", &attrs, &images)
        .await
        .expect("it can be pushed");
    assert_eq!(response_again, response);
    // Asked is the registry's version, for each platform's manifest and for the name: nothing is sent that is there, and a
    // manifest that is there speaks for its blobs.
    let mut requests = server.requests();
    requests.sort();
    let mut expected = vec!["GET /v2/".to_owned(), "HEAD /v2/app/manifests/1".to_owned()];
    let digests = pushed.manifests.iter().map(|entry| entry.digest);
    expected.extend(digests.map(|digest| format!("HEAD /v2/app/manifests/{digest}")));
    expected.sort();
    assert_eq!(requests, expected);
}

#[tokio::test]
async fn one_platform_is_a_plain_manifest() {
    let server = TestRegistry::start().await;
    let bench = Bench::new();
    let layer = bench.layers.add(&BASE);
    let host = server.host();
    let names = format!("{host}/one:1,{host}/one:2,{host}/two");
    let attrs = [
        ("name", names.as_str()),
        ("push", "true"),
        ("annotation.a", "b"),
    ];
    let response = bench
        .export("image", &attrs, &[image("linux/arm/v7", &[layer])])
        .await
        .expect("it can be pushed");
    let first = manifest(&server, "one", "1");
    assert_eq!(first, manifest(&server, "one", "2"));
    assert_eq!(first, manifest(&server, "two", "latest"));
    assert_eq!(first.annotations["a"], "b");
    assert_eq!(
        response["containerimage.config.digest"],
        first.config.digest.to_string()
    );
    assert_eq!(
        response["image.name"],
        format!("{host}/one:1,{host}/one:2,{host}/two:latest")
    );
    assert_eq!(config(&server, "two", &first).variant, "v7");
}

#[tokio::test]
async fn options_change_what_is_pushed() {
    let server = TestRegistry::start().await;
    let bench = Bench::new();
    let base = bench
        .layers
        .pulled(&BASE, &server.reference("base:1"), |bytes| {
            drop(server.put_blob("base", bytes))
        });
    let made = bench.layers.add(&[Put::File("app", "x")]);
    let images = [image("linux/amd64", &[base, made])];
    let push = async |repository: &str, attrs: &[(&str, &str)]| {
        let name = format!("{}/{repository}:1", server.host());
        let all = [attrs, &[("name", name.as_str()), ("push", "true")]].concat();
        bench
            .export("image", &all, &images)
            .await
            .expect("it can be pushed");
        let pushed = manifest(&server, repository, "1");
        let layers: Vec<String> = pushed
            .layers
            .iter()
            .map(|layer| layer.media_type.clone())
            .collect();
        (pushed, layers)
    };
    let gzip = "application/vnd.oci.image.layer.v1.tar+gzip";
    let zstd = "application/vnd.oci.image.layer.v1.tar+zstd";
    let (_, layers) = push("plain", &[]).await;
    assert_eq!(layers, [gzip, gzip]);
    let (pushed, layers) = push("docker", &[("oci-mediatypes", "false")]).await;
    assert_eq!(pushed.media_type, MediaTypes::Docker.manifest());
    assert_eq!(
        layers,
        ["application/vnd.docker.image.rootfs.diff.tar.gzip"; 2]
    );
    let (_, layers) = push("zstd", &[("compression", "zstd")]).await;
    assert_eq!(layers, [gzip, zstd], "a pulled layer keeps its encoding");
    let (_, layers) = push(
        "forced",
        &[("compression", "zstd"), ("force-compression", "true")],
    )
    .await;
    assert_eq!(layers, [zstd, zstd]);
    let (pushed, _) = push("epoch", &[("source-date-epoch", "0")]).await;
    let config = config(&server, "epoch", &pushed);
    assert_eq!(config.created.as_deref(), Some("1970-01-01T00:00:00Z"));
    assert!(
        config
            .history
            .iter()
            .all(|entry| entry.created == config.created)
    );
}

#[tokio::test]
async fn an_image_can_be_pushed_without_a_tag() {
    let server = TestRegistry::start().await;
    let bench = Bench::new();
    let images = [image("linux/amd64", &[bench.layers.add(&BASE)])];
    let name = format!("{}/app", server.host());
    let by_digest = ("push-by-digest", "true");
    let response = bench
        .export("image", &[("name", &name), by_digest], &images)
        .await
        .expect("it can be pushed");
    assert!(
        server
            .manifest("app", &response["containerimage.digest"])
            .is_some()
    );
    assert!(server.manifest("app", "latest").is_none());
    let tagged = format!("{name}:1");
    let error = bench
        .export("image", &[("name", &tagged), by_digest], &images)
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains(&format!("can't push tagged ref {tagged} by digest")),
        "{error}"
    );
}

#[tokio::test]
async fn plain_http_elsewhere_needs_registry_insecure() {
    let server = TestRegistry::start().await;
    let bench = Bench::new();
    let images = [image("linux/amd64", &[bench.layers.add(&BASE)])];
    // The same listener by an address that doesn't look like loopback.
    let host = server.host().replace("127.0.0.1", "0.0.0.0");
    let name = format!("{host}/app:1");
    let push = async |more: &[(&str, &str)]| {
        let attrs = [&[("name", name.as_str()), ("push", "true")], more].concat();
        bench.export("image", &attrs, &images).await
    };
    for refused in [&[][..], &[("registry.insecure", "false")]] {
        let error = push(refused).await.unwrap_err().to_string();
        let hint = format!("{host} speaks plain HTTP; set registry.insecure=true");
        assert!(error.contains(&hint), "{error}");
    }
    assert!(server.manifest("app", "1").is_none());
    let response = push(&[("registry.insecure", "true")]).await;
    assert_eq!(response.expect("it is pushed")["image.name"], name);
    assert!(server.manifest("app", "1").is_some());
}

#[tokio::test]
async fn a_push_that_fails_leaves_the_name_alone() {
    let server = TestRegistry::start().await;
    let bench = Bench::new();
    let layer = bench.layers.add(&BASE);
    let images = [image("linux/amd64", &[layer])];
    let name = format!("{}/app:1", server.host());
    let attrs = [("name", name.as_str()), ("push", "true")];
    server.inject(Fault::new(
        "PUT /v2/app/blobs",
        u32::MAX,
        Trouble::Status(403),
    ));
    let error = bench.export("image", &attrs, &images).await.unwrap_err();
    assert!(error.to_string().contains("access denied"), "{error}");
    assert!(server.manifest("app", "1").is_none());

    let server = TestRegistry::start().await;
    let name = format!("{}/app:1", server.host());
    let dry = bench
        .export("image", &[("name", &name)], &images)
        .await
        .expect("nothing is pushed");
    assert!(dry.contains_key("containerimage.digest"));
    let layers = bench.layers.clone();
    let blob = buildyard_coordinator::export::LayerBlobs::describe(
        &*layers,
        layer,
        Default::default(),
        false,
    );
    layers.damage(blob.await.expect("it is there").descriptor.digest);
    let error = bench
        .export("image", &[("name", &name), ("push", "true")], &images)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("is damaged"), "{error}");
    assert!(server.manifest("app", "1").is_none());
}
