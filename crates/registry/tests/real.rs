//! Pull and push against Debian's `docker-registry`: open, with names and passwords, and with TLS. What was pushed is
//! read back by `skopeo`.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use buildyard_image::{
    CompressionKind, Descriptor, DescriptorPlatform, ImageConfig, Index, Manifest, MediaTypes,
};
use buildyard_model::{Digest, Platform};
use buildyard_registry::testing::TestRegistry;
use buildyard_registry::{
    Credentials, FixedAuth, NoAuth, Pushed, Reference, Registry, RegistryConfig, RegistryError,
    Retry,
};
use bytes::Bytes;
use futures::TryStreamExt;

/// `u:secret`, by bcrypt, which is all that the registry reads.
const PASSWORDS: &str = "u:$2b$04$W1.P4x282vRdbpZFnlVHHeZxn6MsWrVkUWQpYOeMrhFLoEqaiQpT2\n";

/// A registry of its own process.
struct Server {
    process: Child,
    host: String,
    directory: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to stop.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    /// Starts one with more sections of its configuration; `prepare` puts files beside it.
    fn start(extra: impl Fn(&Path) -> String) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let listener =
            std::net::TcpListener::bind(("127.0.0.1", 0)).expect("loopback has free ports");
        let port = listener
            .local_addr()
            .expect("a bound socket has an address")
            .port();
        drop(listener);
        let host = format!("127.0.0.1:{port}");
        let root = directory.path().display();
        let config = format!(
            "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    rootdirectory: {root}/data\n\
             http:\n  addr: {host}\n  secret: x\n{}",
            extra(directory.path())
        );
        let path = directory.path().join("config.yml");
        std::fs::write(&path, config).expect("it can be written");
        let mut command = Command::new("docker-registry");
        command
            .arg("serve")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let process = command
            .spawn()
            .expect("docker-registry is needed for this test (Debian package docker-registry)");
        let server = Self {
            process,
            host,
            directory,
        };
        server.wait();
        server
    }

    fn wait(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while std::net::TcpStream::connect(&self.host).is_err() {
            assert!(
                Instant::now() < deadline,
                "docker-registry doesn't listen on {}",
                self.host
            );
            std::thread::yield_now();
        }
    }

    fn reference(&self, name: &str) -> Reference {
        format!("{}/{name}", self.host)
            .parse()
            .expect("the test's names are well formed")
    }
}

fn open(_: &Path) -> String {
    String::new()
}

fn config() -> RegistryConfig {
    let retry = Retry {
        attempts: 2,
        first: Duration::from_millis(10),
        longest: Duration::from_millis(10),
    };
    RegistryConfig {
        retry,
        ..RegistryConfig::default()
    }
}

fn anonymous() -> Registry {
    Registry::new(config(), Arc::new(NoAuth))
}

fn platform(text: &str) -> Platform {
    text.parse().expect("the test's platforms are well formed")
}

/// Pushes an image of one layer of random size for each platform; says what the layer of the first is.
async fn push_image(registry: &Registry, to: &Reference, types: MediaTypes) -> (Descriptor, Bytes) {
    let mut entries = Vec::new();
    let mut first = None;
    for name in ["linux/amd64", "linux/arm64"] {
        let bytes = Bytes::from(format!("{name} ").repeat(200_000));
        let layer = Descriptor::of(types.layer(CompressionKind::Uncompressed), &bytes);
        registry
            .push_blob(to, &layer, None, &bytes)
            .await
            .expect("it can be pushed");
        let platform = platform(name);
        let mut config = ImageConfig {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            ..Default::default()
        };
        config.rootfs.diff_ids.push(layer.digest.to_string());
        let config = Bytes::from(config.to_bytes());
        let described = Descriptor::of(types.config(), &config);
        registry
            .push_blob(to, &described, None, &config)
            .await
            .expect("it can be pushed");
        let manifest = Bytes::from(Manifest::new(types, described, vec![layer.clone()]).to_bytes());
        let mut entry = Descriptor::of(types.manifest(), &manifest);
        registry
            .put_manifest(&to.at(entry.digest), types.manifest(), manifest)
            .await
            .expect("it can be pushed");
        entry.platform = Some(DescriptorPlatform::from(&platform));
        entries.push(entry);
        first.get_or_insert((layer, bytes));
    }
    let index = Index::new(types, entries).to_bytes();
    let sent = registry
        .put_manifest(to, types.index(), index.clone().into())
        .await;
    assert_eq!(sent.ok(), Some(true));
    let sent = registry.put_manifest(to, types.index(), index.into()).await;
    assert_eq!(sent.ok(), Some(false), "it is there");
    first.expect("there are two platforms")
}

fn skopeo(args: &[&str]) -> Result<String, String> {
    let output = Command::new("skopeo")
        .args(args)
        .output()
        .expect("skopeo is needed for this test");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    if output.status.success() {
        Ok(text(output.stdout))
    } else {
        Err(text(output.stderr))
    }
}

#[tokio::test]
async fn what_is_pushed_is_read_by_others_and_by_us() {
    let server = Server::start(open);
    let registry = anonymous();
    for (types, tag) in [(MediaTypes::Oci, "oci"), (MediaTypes::Docker, "docker")] {
        let to = server.reference(&format!("group/app:{tag}"));
        let (layer, bytes) = push_image(&registry, &to, types).await;
        let found = anonymous()
            .resolve(&to, &platform("linux/amd64"))
            .await
            .expect("it is there");
        assert_eq!(found.layers[0].descriptor, layer);
        let stream = registry.fetch_blob(&to, &layer).await.expect("it is there");
        let parts: Vec<Bytes> = stream.try_collect().await.expect("it is sound");
        assert_eq!(Bytes::from(parts.concat()), bytes);
        let target = server.directory.path().join(tag);
        let args = [
            "--insecure-policy",
            "copy",
            "--all",
            "--src-tls-verify=false",
            &format!("docker://{to}"),
            &format!("dir:{}", target.display()),
        ];
        skopeo(&args).expect("skopeo copies it, digests checked");
        let mut raw = Vec::new();
        let manifest = std::fs::File::open(target.join("manifest.json"))
            .and_then(|mut file| file.read_to_end(&mut raw));
        manifest.expect("skopeo wrote it");
        assert_eq!(Some(Digest::of(&raw)), found.index_digest);
    }
}

#[tokio::test]
async fn a_blob_is_mounted_from_another_repository() {
    let server = Server::start(open);
    let registry = anonymous();
    let (layer, bytes) = push_image(&registry, &server.reference("one:1"), MediaTypes::Oci).await;
    let (one, two) = (server.reference("one:1"), server.reference("two:1"));
    assert_eq!(
        registry
            .push_blob(&two, &layer, Some(&one), &bytes)
            .await
            .ok(),
        Some(Pushed::Mounted)
    );
    assert_eq!(registry.has_blob(&two, &layer).await.ok(), Some(true));
    assert_eq!(
        registry
            .has_blob(&server.reference("three:1"), &layer)
            .await
            .ok(),
        Some(false)
    );
    let nowhere = server.reference("nowhere:1");
    let pushed = registry
        .push_blob(&server.reference("three:1"), &layer, Some(&nowhere), &bytes)
        .await;
    assert_eq!(
        pushed.ok(),
        Some(Pushed::Uploaded),
        "the registry declines a mount from where it isn't"
    );
}

#[tokio::test]
async fn names_and_passwords_are_asked_for() {
    let server = Server::start(|directory| {
        let path = directory.join("passwords");
        std::fs::write(&path, PASSWORDS).expect("it can be written");
        format!(
            "auth:\n  htpasswd:\n    realm: test\n    path: {}\n",
            path.display()
        )
    });
    let as_user = |secret: &str| {
        let credentials = Credentials {
            user: "u".to_owned(),
            secret: secret.to_owned(),
        };
        Registry::new(config(), Arc::new(FixedAuth(credentials)))
    };
    let to = server.reference("app:1");
    push_image(&as_user("secret"), &to, MediaTypes::Oci).await;
    let args = [
        "inspect",
        "--raw",
        "--tls-verify=false",
        "--creds=u:secret",
        &format!("docker://{to}"),
    ];
    skopeo(&args).expect("skopeo reads it");
    for (registry, tried) in [
        (anonymous(), "tried without credentials"),
        (as_user("wrong"), "tried as user \"u\""),
    ] {
        let error = registry
            .resolve(&to, &platform("linux/amd64"))
            .await
            .unwrap_err();
        assert!(
            matches!(error, RegistryError::Unauthorized { .. }),
            "{error}"
        );
        assert!(error.to_string().contains(tried), "{error}");
    }
}

#[tokio::test]
async fn missing_images_are_not_found() {
    let server = Server::start(open);
    let registry = anonymous();
    push_image(&registry, &server.reference("app:1"), MediaTypes::Oci).await;
    for name in ["app:2", "nothing:1"] {
        let error = registry
            .resolve(&server.reference(name), &platform("linux/amd64"))
            .await
            .unwrap_err();
        assert!(matches!(error, RegistryError::NotFound { .. }), "{error}");
    }
    let error = registry
        .resolve(&server.reference("app:1"), &platform("linux/riscv64"))
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("(the image has linux/amd64, linux/arm64)"),
        "{error}"
    );
    let gone = Descriptor::of("x", b"gone");
    let error = registry
        .fetch_blob(&server.reference("app:1"), &gone)
        .await
        .err()
        .expect("it isn't there");
    assert!(matches!(error, RegistryError::NotFound { .. }), "{error}");
}

#[tokio::test]
async fn certificates_are_checked_unless_told_otherwise() {
    let issued =
        rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).expect("ring makes keys");
    let server = Server::start(|directory| {
        let write = |name: &str, text: String| {
            std::fs::write(directory.join(name), text).expect("it can be written");
            directory.join(name).display().to_string()
        };
        let certificate = write("cert.pem", issued.cert.pem());
        let key = write("key.pem", issued.signing_key.serialize_pem());
        format!("  tls:\n    certificate: {certificate}\n    key: {key}\n")
    });
    let to = server.reference("app:1");
    let asked = |config: RegistryConfig| {
        let registry = Registry::new(config, Arc::new(NoAuth));
        let to = to.clone();
        async move { registry.manifest_digest(&to).await }
    };
    let error = asked(config()).await.unwrap_err();
    assert!(matches!(error, RegistryError::Tls { .. }), "{error}");
    let trusted = RegistryConfig {
        ca_file: Some(server.directory.path().join("cert.pem")),
        ..config()
    };
    assert_eq!(asked(trusted.clone()).await.ok(), Some(None));
    let insecure = RegistryConfig {
        insecure: [server.host.clone()].into(),
        ..config()
    };
    assert_eq!(asked(insecure).await.ok(), Some(None));
    push_image(
        &Registry::new(trusted, Arc::new(NoAuth)),
        &to,
        MediaTypes::Oci,
    )
    .await;
    let missing = RegistryConfig {
        ca_file: Some("/nonexistent.pem".into()),
        ..config()
    };
    assert!(matches!(
        asked(missing).await,
        Err(RegistryError::Config(_))
    ));
}

#[tokio::test]
async fn plain_http_elsewhere_must_be_allowed() {
    let server = TestRegistry::start().await;
    server.put_image("app", "1", &[platform("linux/amd64")]);
    // The same listener by an address that doesn't look like loopback.
    let host = server.host().replace("127.0.0.1", "0.0.0.0");
    let reference: Reference = format!("{host}/app:1").parse().expect("well formed");
    let error = anonymous().manifest(&reference).await.unwrap_err();
    assert!(matches!(error, RegistryError::PlainHttp { .. }), "{error}");
    let allowed = anonymous().allowing_insecure([host]);
    allowed.manifest(&reference).await.expect("it is read");
}
