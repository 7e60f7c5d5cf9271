//! Pull and push against the registry in this process: what is asked, how often, and what failures look like.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use buildyard_image::{Descriptor, Index, MediaTypes};
use buildyard_model::{Digest, Platform};
use buildyard_registry::testing::{Fault, Guard, TestRegistry, Trouble};
use buildyard_registry::{
    Auth, AuthError, BlobSource, BlobStream, Credentials, Documents, FixedAuth, NoAuth, Pushed,
    Reference, Registry, RegistryConfig, RegistryError, Retry, Token, TokenRequest,
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};

fn config() -> RegistryConfig {
    let retry = Retry {
        attempts: 4,
        first: Duration::from_millis(5),
        longest: Duration::from_millis(20),
    };
    RegistryConfig {
        retry,
        ..RegistryConfig::default()
    }
}

fn anonymous() -> Registry {
    Registry::new(config(), Arc::new(NoAuth))
}

fn as_user(user: &str, secret: &str) -> Registry {
    let credentials = Credentials {
        user: user.to_owned(),
        secret: secret.to_owned(),
    };
    Registry::new(config(), Arc::new(FixedAuth(credentials)))
}

fn platform(text: &str) -> Platform {
    text.parse().expect("the test's platforms are well formed")
}

async fn read(stream: BlobStream) -> Result<Bytes, String> {
    let parts: Result<Vec<Bytes>, _> = stream.try_collect().await;
    parts
        .map(|parts| parts.concat().into())
        .map_err(|error| error.to_string())
}

#[tokio::test]
async fn an_image_is_resolved_for_its_platform() {
    let server = TestRegistry::start().await;
    let platforms = [platform("linux/amd64"), platform("linux/arm64")];
    let index = server.put_image("base", "1", &platforms);
    let registry = anonymous();
    for wanted in &platforms {
        let found = registry
            .resolve(&server.reference("base:1"), wanted)
            .await
            .expect("it is there");
        assert_eq!(found.index_digest, Some(index));
        assert_eq!(found.reference.digest, Some(index));
        assert_eq!(found.config.architecture, wanted.architecture);
        assert_eq!(
            Digest::of(&found.config_bytes),
            Digest::of(found.config.to_bytes())
        );
        let layer = &found.layers[0];
        let stream = registry
            .fetch_blob(&found.reference, &layer.descriptor)
            .await
            .expect("it is there");
        assert_eq!(
            read(stream).await,
            Ok(Bytes::from(format!("layer of {wanted}")))
        );
        assert_eq!(layer.diff_id, layer.descriptor.digest);
    }
}

#[tokio::test]
async fn a_name_is_asked_for_once_a_build_and_documents_once() {
    let server = TestRegistry::start().await;
    let platforms = [platform("linux/amd64"), platform("linux/arm64")];
    server.put_image("base", "1", &platforms);
    let documents = Arc::new(Documents::default());
    let requests = async || {
        let build = Registry::remembering(config(), Arc::new(NoAuth), documents.clone());
        server.requests();
        for wanted in &platforms {
            let found = build.resolve(&server.reference("base:1"), wanted).await;
            assert_eq!(
                found.expect("it is there").config.architecture,
                wanted.architecture
            );
        }
        server.requests()
    };
    let first = requests().await;
    assert_eq!(first[..2], ["GET /v2/", "GET /v2/base/manifests/1"]);
    // A manifest and a configuration for each platform.
    assert_eq!(first.len(), 2 + 2 * 2, "{first:?}");
    assert_eq!(requests().await, ["GET /v2/", "GET /v2/base/manifests/1"]);

    // Who asks for a document by its digest alone is told by the registry whether that is allowed.
    let digest = first[2].rsplit('/').next().expect("the digest is last");
    let build = Registry::remembering(config(), Arc::new(NoAuth), documents.clone());
    server.requests();
    let one = server
        .reference("base")
        .at(digest.parse().expect("a digest"));
    build
        .resolve(&one, &platforms[0])
        .await
        .expect("it is there");
    assert_eq!(
        server.requests()[1],
        format!("GET /v2/base/manifests/{digest}")
    );
}

#[tokio::test]
async fn a_platform_that_is_missing_is_told_apart_from_an_image_that_is() {
    let server = TestRegistry::start().await;
    server.put_image(
        "base",
        "1",
        &[platform("linux/amd64"), platform("linux/arm64")],
    );
    let registry = anonymous();
    let error = registry
        .resolve(&server.reference("base:1"), &platform("linux/s390x"))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, RegistryError::NoSuchPlatform { available, .. } if available.len() == 2),
        "{error}"
    );
    let error = registry
        .resolve(&server.reference("base:2"), &platform("linux/amd64"))
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("{}/base:2: not found", server.host())
    );
}

#[tokio::test]
async fn entries_without_a_platform_are_known_by_their_configuration() {
    let server = TestRegistry::start().await;
    let entries = ["linux/amd64", "linux/arm64"].map(|name| {
        let bytes = server.put_platform("base", &platform(name)).to_bytes();
        let entry = Descriptor::of(MediaTypes::Oci.manifest(), &bytes);
        server.put_manifest(
            "base",
            name.rsplit('/').next().expect("a name"),
            MediaTypes::Oci.manifest(),
            bytes,
        );
        entry
    });
    let index = Index::new(MediaTypes::Oci, entries.to_vec());
    server.put_manifest("base", "1", MediaTypes::Oci.index(), index.to_bytes());
    let registry = anonymous();
    let found = registry
        .resolve(&server.reference("base:1"), &platform("linux/arm64"))
        .await
        .expect("it is there");
    assert_eq!(
        (found.manifest_digest, found.config.architecture.as_str()),
        (entries[1].digest, "arm64")
    );
    let error = registry
        .resolve(&server.reference("base:1"), &platform("linux/s390x"))
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("(the image has linux/amd64, linux/arm64)"),
        "{error}"
    );
}

#[tokio::test]
async fn a_registry_that_is_down_is_named_with_its_address() {
    let host = {
        let listener =
            std::net::TcpListener::bind(("127.0.0.1", 0)).expect("loopback has free ports");
        listener
            .local_addr()
            .expect("a bound socket has an address")
            .to_string()
    };
    let reference = format!("{host}/base:1").parse().expect("well formed");
    let error = anonymous().manifest(&reference).await.unwrap_err();
    assert!(
        matches!(error, RegistryError::Unreachable { .. }),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains(&format!("{host} cannot be reached: Connection refused")),
        "{error}"
    );
}

#[tokio::test]
async fn a_download_goes_on_where_it_broke() {
    let server = TestRegistry::start().await;
    let bytes = Bytes::from(
        (0..300_000_u32)
            .flat_map(u32::to_le_bytes)
            .collect::<Vec<_>>(),
    );
    let blob = server.put_blob("base", bytes.clone());
    let reference = server.reference("base:1");
    let path = format!("GET /v2/base/blobs/{}", blob.digest);
    server.inject(Fault::new(&path, 1, Trouble::Cut(500_000)));
    server.inject(Fault::new(&path, 1, Trouble::Status(503)));
    server.inject(Fault::new(&path, 1, Trouble::NoRange));
    let stream = anonymous()
        .fetch_blob(&reference, &blob)
        .await
        .expect("it is there");
    assert_eq!(read(stream).await, Ok(bytes));
    let asked = server
        .requests()
        .iter()
        .filter(|line| **line == path)
        .count();
    assert_eq!(asked, 3, "broken off, refused, whole");
}

#[tokio::test]
async fn a_download_that_always_breaks_ends() {
    let server = TestRegistry::start().await;
    let blob = server.put_blob("base", vec![7; 100_000]);
    server.inject(Fault::new("GET /v2/base/blobs", u32::MAX, Trouble::Cut(0)));
    let stream = anonymous()
        .fetch_blob(&server.reference("base:1"), &blob)
        .await
        .expect("the answer begins");
    let error = read(stream).await.unwrap_err();
    assert!(error.contains("the connection broke"), "{error}");
    assert!(error.contains("after 0 of 100000 bytes"), "{error}");
}

#[tokio::test]
async fn damaged_content_is_found() {
    let server = TestRegistry::start().await;
    let registry = anonymous();
    let reference = server.reference("base:1");
    let promised = Descriptor::of("x", b"right");
    let check = |served: &'static [u8], expected: &'static str| {
        let (server, registry, reference, promised) = (&server, &registry, &reference, &promised);
        async move {
            server.put_blob_as("base", &promised.digest, served);
            let stream = registry
                .fetch_blob(reference, promised)
                .await
                .expect("it begins");
            let error = read(stream).await.unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    };
    check(b"wrong", "its bytes have the digest").await;
    check(b"right and more", "longer than its 5 bytes").await;
    check(b"rig", "has only 3 of its 5 bytes").await;
    let wrong = server.put_manifest("base", "1", MediaTypes::Oci.manifest(), "{}");
    let other = Digest::of("other");
    let bytes = server
        .manifest("base", &wrong.to_string())
        .expect("it was put")
        .1;
    server.put_manifest(
        "base",
        &other.to_string(),
        MediaTypes::Oci.manifest(),
        bytes,
    );
    let error = registry.manifest(&reference.at(other)).await.unwrap_err();
    assert!(matches!(error, RegistryError::Damaged { .. }), "{error}");
}

#[tokio::test]
async fn documents_that_are_too_long_or_no_images_are_refused() {
    let server = TestRegistry::start().await;
    let check = async |media_type: &str, bytes: Vec<u8>, expected: &str| {
        server.put_manifest("base", "1", media_type, bytes);
        let error = anonymous()
            .resolve(&server.reference("base:1"), &platform("linux/amd64"))
            .await
            .unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    };
    check(
        MediaTypes::Oci.manifest(),
        vec![b' '; 5 << 20],
        "longer than 4194304 bytes",
    )
    .await;
    check(
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        b"{}".to_vec(),
        "schema 1",
    )
    .await;
    check(
        MediaTypes::Oci.manifest(),
        b"{".to_vec(),
        "manifest is malformed",
    )
    .await;
    let mut manifest = server.put_platform("base", &platform("linux/amd64"));
    manifest.layers.clear();
    check(
        MediaTypes::Oci.manifest(),
        manifest.to_bytes(),
        "0 layers, its configuration 1 diff ids",
    )
    .await;
    let mut manifest = server.put_platform("base", &platform("linux/amd64"));
    manifest.layers[0].media_type =
        "application/vnd.cncf.helm.chart.content.v1.tar+gzip".to_owned();
    check(
        MediaTypes::Oci.manifest(),
        manifest.to_bytes(),
        "is not that of a layer",
    )
    .await;
}

#[tokio::test]
async fn redirects_and_silence_end() {
    let server = TestRegistry::start().await;
    server.put_image("base", "1", &[platform("linux/amd64")]);
    let reference = server.reference("base:1");
    server.inject(Fault::new("/manifests/1", 20, Trouble::Loop));
    let error = anonymous().manifest(&reference).await.unwrap_err();
    assert!(
        error.to_string().contains("redirects without end"),
        "{error}"
    );

    let server = TestRegistry::start().await;
    server.inject(Fault::new(
        "/manifests/1",
        u32::MAX,
        Trouble::Stall(Duration::from_secs(60)),
    ));
    let impatient = RegistryConfig {
        read_timeout: Duration::from_millis(500),
        ..config()
    };
    let begun = Instant::now();
    let error = Registry::new(impatient, Arc::new(NoAuth))
        .manifest(&server.reference("base:1"))
        .await
        .unwrap_err();
    assert!(matches!(error, RegistryError::TimedOut { .. }), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(50));
}

#[tokio::test]
async fn what_may_go_better_is_tried_again_and_the_rest_is_not() {
    let server = TestRegistry::start().await;
    server.put_image("base", "1", &[platform("linux/amd64")]);
    let reference = server.reference("base:1");
    server.inject(Fault::new(
        "GET /v2/base/manifests/1",
        2,
        Trouble::Busy(429),
    ));
    server.inject(Fault::new(
        "GET /v2/base/manifests/1",
        1,
        Trouble::Status(500),
    ));
    anonymous()
        .manifest(&reference)
        .await
        .expect("the fourth try succeeds");
    server.inject(Fault::new(
        "GET /v2/base/manifests/1",
        1,
        Trouble::Status(400),
    ));
    let error = anonymous().manifest(&reference).await.unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("the registry answered 400: injected"),
        "{error}"
    );
}

fn image_blob(text: &str) -> (Descriptor, Bytes) {
    let bytes = Bytes::from(text.to_owned());
    (Descriptor::of("application/octet-stream", &bytes), bytes)
}

#[tokio::test]
async fn a_blob_takes_the_cheapest_way() {
    let server = TestRegistry::start().await;
    let registry = anonymous();
    let (blob, bytes) = image_blob("layer");
    let (first, second) = (server.reference("one:1"), server.reference("two:1"));
    let push = async |to: &Reference, origin: Option<&Reference>| {
        registry
            .push_blob(to, &blob, origin, &bytes)
            .await
            .expect("it can be pushed")
    };
    assert_eq!(push(&first, None).await, Pushed::Uploaded);
    assert_eq!(server.blob("one", &blob.digest), Some(bytes.clone()));
    assert_eq!(push(&second, Some(&first)).await, Pushed::Mounted);
    assert_eq!(server.blob("two", &blob.digest), Some(bytes.clone()));
    assert_eq!(
        anonymous()
            .push_blob(&second, &blob, Some(&first), &bytes)
            .await
            .ok(),
        Some(Pushed::Existed)
    );

    let elsewhere = TestRegistry::start().await;
    assert_eq!(
        push(&elsewhere.reference("one:1"), Some(&first)).await,
        Pushed::Uploaded
    );

    let declining = TestRegistry::with(Guard::Open, true).await;
    declining.put_blob("one", bytes.clone());
    let origin = declining.reference("one:1");
    assert_eq!(
        push(&declining.reference("two:1"), Some(&origin)).await,
        Pushed::Uploaded
    );
    assert!(declining.blob("two", &blob.digest).is_some());
}

#[tokio::test]
async fn the_empty_blob_can_be_pushed_and_fetched() {
    let server = TestRegistry::start().await;
    let registry = anonymous();
    let (blob, bytes) = image_blob("");
    let to = server.reference("one:1");
    assert_eq!(
        registry.push_blob(&to, &blob, None, &bytes).await.ok(),
        Some(Pushed::Uploaded)
    );
    let stream = registry.fetch_blob(&to, &blob).await.expect("it is there");
    assert_eq!(read(stream).await, Ok(Bytes::new()));
}

#[tokio::test]
async fn a_blob_asked_for_at_one_time_is_pushed_once() {
    let server = TestRegistry::start().await;
    let registry = anonymous();
    let (blob, bytes) = image_blob("layer");
    let to = server.reference("one:1");
    server.inject(Fault::new(
        "PUT /v2/one/blobs/uploads",
        1,
        Trouble::Status(502),
    ));
    let pushes = (0..10).map(|_| registry.push_blob(&to, &blob, None, &bytes));
    let pushed = futures::future::try_join_all(pushes)
        .await
        .expect("it can be pushed");
    assert_eq!(
        pushed
            .iter()
            .filter(|how| **how == Pushed::Uploaded)
            .count(),
        1
    );
    let puts = server
        .requests()
        .iter()
        .filter(|line| line.starts_with("PUT"))
        .count();
    assert_eq!(puts, 2, "one refused, one taken");
}

#[tokio::test]
async fn bytes_that_are_not_the_blob_are_not_pushed() {
    let server = TestRegistry::start().await;
    let (blob, _) = image_blob("layer");
    let registry = anonymous();
    let error = registry
        .push_blob(
            &server.reference("one:1"),
            &blob,
            None,
            &Bytes::from("other"),
        )
        .await
        .unwrap_err();
    assert!(matches!(error, RegistryError::Source { .. }), "{error}");
    assert!(error.to_string().contains("have the digest"), "{error}");
    assert_eq!(server.blob("one", &blob.digest), None);
}

#[tokio::test]
async fn a_manifest_that_is_there_is_not_sent() {
    let server = TestRegistry::start().await;
    let registry = anonymous();
    let manifest = server.put_platform("one", &platform("linux/amd64"));
    let bytes = Bytes::from(manifest.to_bytes());
    let types = MediaTypes::Oci;
    let to = server.reference("one:new");
    let put = async || {
        registry
            .put_manifest(&to, types.manifest(), bytes.clone())
            .await
    };
    assert_eq!(put().await.ok(), Some(true));
    assert_eq!(put().await.ok(), Some(false));
    server.inject(Fault::new("HEAD /v2/one/manifests", 1, Trouble::NoDigest));
    assert_eq!(
        put().await.ok(),
        Some(false),
        "without the header the document tells"
    );
    let there = registry
        .manifest_digest(&to)
        .await
        .expect("the registry answers")
        .expect("it is there");
    assert_eq!(there.digest, Digest::of(&bytes));
    assert_eq!(there.size, bytes.len() as u64);
    assert_eq!(
        registry
            .manifest_digest(&server.reference("one:none"))
            .await
            .ok(),
        Some(None)
    );
}

#[tokio::test]
async fn both_kinds_of_authentication_work() {
    for guard in [
        Guard::Basic("u".to_owned(), "secret".to_owned()),
        Guard::Token("u".to_owned(), "secret".to_owned()),
    ] {
        let server = TestRegistry::with(guard.clone(), false).await;
        let registry = as_user("u", "secret");
        let (blob, bytes) = image_blob("layer");
        let (one, two) = (server.reference("one:1"), server.reference("two:1"));
        let pushed = registry.push_blob(&one, &blob, None, &bytes).await;
        assert_eq!(pushed.ok(), Some(Pushed::Uploaded), "{guard:?}");
        let pushed = registry.push_blob(&two, &blob, Some(&one), &bytes).await;
        assert_eq!(pushed.ok(), Some(Pushed::Mounted), "{guard:?}");
        let manifest = server
            .put_platform("two", &platform("linux/amd64"))
            .to_bytes();
        let put = registry
            .put_manifest(&two, MediaTypes::Oci.manifest(), manifest.into())
            .await;
        assert_eq!(put.ok(), Some(true), "{guard:?}");
        // The first thing that a fresh one does is a download: it learns the challenge all the same.
        let stream = as_user("u", "secret")
            .fetch_blob(&two, &blob)
            .await
            .expect("it is let in");
        assert_eq!(read(stream).await, Ok(bytes), "{guard:?}");
    }
}

#[tokio::test]
async fn an_identity_token_is_traded_for_a_token() {
    let server =
        TestRegistry::with(Guard::Token("u".to_owned(), "refresh".to_owned()), false).await;
    let (blob, bytes) = image_blob("layer");
    let pushed = as_user("<token>", "refresh")
        .push_blob(&server.reference("one:1"), &blob, None, &bytes)
        .await;
    assert_eq!(pushed.ok(), Some(Pushed::Uploaded));
    assert!(server.requests().contains(&"POST /token".to_owned()));
}

#[tokio::test]
async fn who_is_refused_reads_what_was_tried_and_no_secret() {
    let (blob, bytes) = image_blob("layer");
    let check = async |guard: Guard, registry: Registry, expected: &str| {
        let server = TestRegistry::with(guard, false).await;
        let error = registry
            .push_blob(&server.reference("one:1"), &blob, None, &bytes)
            .await
            .unwrap_err();
        assert!(
            matches!(error, RegistryError::Unauthorized { .. }),
            "{error}"
        );
        let text = format!("{error} {error:?}");
        assert!(
            text.contains(expected) && !text.contains("hunter2"),
            "{text}"
        );
    };
    let basic = Guard::Basic("u".to_owned(), "secret".to_owned());
    let token = Guard::Token("u".to_owned(), "secret".to_owned());
    check(basic.clone(), anonymous(), "tried without credentials").await;
    check(token.clone(), anonymous(), "tried without credentials").await;
    check(basic, as_user("me", "hunter2"), "tried as user \"me\"").await;
    check(token, as_user("me", "hunter2"), "tried as user \"me\"").await;
}

/// A client that fetches tokens itself and never shows its credentials.
struct SessionAuth {
    realm_asked: std::sync::Mutex<Vec<TokenRequest>>,
    expired: std::sync::atomic::AtomicBool,
}

#[async_trait::async_trait]
impl Auth for SessionAuth {
    async fn credentials(&self, _host: &str) -> Result<Option<Credentials>, AuthError> {
        Err(AuthError("credentials are not for the farm".to_owned()))
    }

    async fn fetch_token(&self, request: &TokenRequest) -> Result<Option<Token>, AuthError> {
        self.realm_asked
            .lock()
            .expect("no test panics with it")
            .push(request.clone());
        let expired = self
            .expired
            .swap(false, std::sync::atomic::Ordering::SeqCst);
        let scopes = if expired {
            String::new()
        } else {
            request.scopes.join(" ")
        };
        Ok(Some(Token(format!("known {scopes}"))))
    }
}

#[tokio::test]
async fn tokens_come_from_the_client_and_are_renewed() {
    let server = TestRegistry::with(Guard::Token("u".to_owned(), "secret".to_owned()), false).await;
    let auth = Arc::new(SessionAuth {
        realm_asked: Default::default(),
        expired: true.into(),
    });
    let registry = Registry::new(config(), auth.clone());
    let (blob, bytes) = image_blob("layer");
    let (one, two) = (server.reference("one:1"), server.reference("two:1"));
    assert_eq!(
        registry.push_blob(&one, &blob, None, &bytes).await.ok(),
        Some(Pushed::Uploaded)
    );
    assert_eq!(
        registry
            .push_blob(&two, &blob, Some(&one), &bytes)
            .await
            .ok(),
        Some(Pushed::Mounted)
    );
    let asked: Vec<TokenRequest> = auth
        .realm_asked
        .lock()
        .expect("no test panics with it")
        .clone();
    let scopes: Vec<Vec<String>> = asked.iter().map(|request| request.scopes.clone()).collect();
    let one = "repository:one:pull,push".to_owned();
    let two = "repository:two:pull,push".to_owned();
    let both = vec![two.clone(), "repository:one:pull".to_owned()];
    assert_eq!(
        scopes,
        [vec![one.clone()], vec![one], vec![two], both],
        "the first token had expired"
    );
    assert_eq!(asked[0].realm, format!("http://{}/token", server.host()));
    assert_eq!(asked[0].service, "test");
    assert!(
        !server
            .requests()
            .iter()
            .any(|line| line.ends_with("/token"))
    );
}

/// A blob of many pieces that counts those which were taken.
struct Pieces(Arc<AtomicUsize>);

/// 1 MiB each.
const PIECES: usize = 512;

#[async_trait::async_trait]
impl BlobSource for Pieces {
    async fn open(&self) -> std::io::Result<BlobStream> {
        static PIECE: [u8; 1 << 20] = [7; 1 << 20];
        let taken = self.0.clone();
        let pieces = futures::stream::iter(0..PIECES).map(move |_| {
            taken.fetch_add(1, Ordering::SeqCst);
            Ok(Bytes::from_static(&PIECE))
        });
        Ok(pieces.boxed())
    }
}

/// A registry that takes nothing is given what sockets and their buffers hold, and no more; others get theirs meanwhile.
#[tokio::test]
async fn a_registry_that_stops_reading_holds_a_bounded_number_of_bytes() {
    let server = TestRegistry::start().await;
    for method in ["PUT", "PATCH"] {
        let on = format!("{method} /v2/slow/");
        let stall = Trouble::Stall(Duration::from_secs(600));
        server.inject(Fault::new(on, u32::MAX, stall));
    }
    let registry = anonymous();
    let taken = Arc::new(AtomicUsize::new(0));
    let large = Descriptor::new(
        "application/octet-stream",
        Digest::of(b"never told"),
        (PIECES << 20) as u64,
    );
    let source = Pieces(taken.clone());
    let slow = server.reference("slow:1");
    let mut stuck = std::pin::pin!(registry.push_blob(&slow, &large, None, &source));
    let others = async {
        while taken.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let to = server.reference("quick:1");
        for number in 0..100_u32 {
            let bytes = Bytes::from(number.to_string());
            let blob = Descriptor::of("application/octet-stream", &bytes);
            let pushed = registry.push_blob(&to, &blob, None, &bytes).await;
            assert_eq!(pushed.ok(), Some(Pushed::Uploaded));
        }
    };
    let done = tokio::time::timeout(Duration::from_secs(120), others);
    tokio::select! {
        pushed = &mut stuck => panic!("nothing was read, and yet: {pushed:?}"),
        done = done => done.expect("others are not held up"),
    }
    // The kernel lets a socket's queues grow: to some MB on each side, to more where it is told to.
    let taken = taken.load(Ordering::SeqCst);
    assert!(
        taken <= PIECES / 4,
        "{taken} MiB for a registry that reads none"
    );
}
