//! The session's services, asked by a peer over an in-memory connection.

use std::collections::BTreeMap;
use std::path::Path;

use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use bollard_buildkit_proto::fsutil::types::{Packet, Stat};
use bollard_buildkit_proto::health::HealthCheckRequest;
use bollard_buildkit_proto::health::health_client::HealthClient;
use bollard_buildkit_proto::moby::buildkit::secrets::v1::GetSecretRequest;
use bollard_buildkit_proto::moby::buildkit::secrets::v1::secrets_client::SecretsClient;
use bollard_buildkit_proto::moby::filesync::packet::file_send_client::FileSendClient as DirectoryClient;
use bollard_buildkit_proto::moby::filesync::packet::file_sync_client::FileSyncClient;
use bollard_buildkit_proto::moby::filesync::v1::BytesMessage;
use bollard_buildkit_proto::moby::filesync::v1::file_send_client::FileSendClient;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Endpoint;
use tonic::{Code, Request};

use super::*;
use crate::buildkit::export::Destination;
use crate::buildkit::filesync::GO_DIR;
use crate::request::{SecretSource, SecretSpec};

struct Peer {
    channel: Channel,
    exports: FileSendService,
    _server: AbortOnDropHandle<()>,
}

async fn peer(dir: &Path, destinations: BTreeMap<usize, Destination>) -> Peer {
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let exports = FileSendService::new(destinations);
    let secret = dir.join("secret");
    let file = |path: &Path| SecretSpec {
        source: SecretSource::File(path.into()),
    };
    let services = Services {
        files: FileSyncService::new(BTreeMap::from([(
            "context".to_owned(),
            dir.join("context"),
        )])),
        exports: exports.clone(),
        credentials: Credentials,
        secrets: SecretStore::new(BTreeMap::from([
            ("here".to_owned(), file(&secret)),
            ("gone".to_owned(), file(Path::new("/nonexistent"))),
        ])),
    };
    let server = tokio::spawn(async move { drop(serve(ours, services).await) });
    let mut theirs = Some(theirs);
    let connector = tower::service_fn(move |_: http::Uri| {
        let stream = theirs
            .take()
            .ok_or_else(|| std::io::Error::other("one connection only"));
        async move { stream.map(TokioIo::new) }
    });
    let channel = Endpoint::from_static("http://session")
        .connect_with_connector(connector)
        .await
        .unwrap();
    Peer {
        channel,
        exports,
        _server: AbortOnDropHandle::new(server),
    }
}

fn packet(kind: PacketType, id: u32) -> Packet {
    Packet {
        r#type: kind.into(),
        id,
        ..Packet::default()
    }
}

/// Receives a directory as the farm does; asks for every regular file at once.
async fn receive(
    peer: &Peer,
    metadata: &[(&'static str, &str)],
) -> Result<BTreeMap<String, Option<Vec<u8>>>, tonic::Status> {
    let (outgoing, packets) = mpsc::channel(8);
    let mut request = Request::new(ReceiverStream::new(packets));
    for (key, value) in metadata {
        request.metadata_mut().append(*key, value.parse().unwrap());
    }
    let mut incoming = FileSyncClient::new(peer.channel.clone())
        .diff_copy(request)
        .await?
        .into_inner();
    let mut paths = Vec::new();
    let mut contents: BTreeMap<String, Option<Vec<u8>>> = BTreeMap::new();
    let (mut asked, mut done, mut listed) = (0, 0, false);
    loop {
        let Some(message) = incoming.message().await? else {
            panic!("ended early")
        };
        match message.r#type() {
            PacketType::PacketStat => match message.stat {
                Some(stat) => {
                    let regular = stat.mode >> 19 == 0;
                    contents.insert(
                        stat.path.clone(),
                        (regular && stat.linkname.is_empty()).then(Vec::new),
                    );
                    if regular && stat.linkname.is_empty() {
                        let id = u32::try_from(paths.len()).unwrap();
                        outgoing
                            .send(packet(PacketType::PacketReq, id))
                            .await
                            .unwrap();
                        asked += 1;
                    }
                    paths.push(stat.path);
                }
                None => listed = true,
            },
            PacketType::PacketData if message.data.is_empty() => done += 1,
            PacketType::PacketData => {
                let content = contents.get_mut(&paths[message.id as usize]).unwrap();
                content.as_mut().unwrap().extend(message.data);
            }
            PacketType::PacketFin => return Ok(contents),
            PacketType::PacketErr => {
                let status = incoming.message().await.expect_err("a status follows");
                assert_eq!(status.message().as_bytes(), message.data);
                return Err(status);
            }
            PacketType::PacketReq => panic!("a sender asks for nothing"),
        }
        if listed && asked == done {
            outgoing
                .send(packet(PacketType::PacketFin, 0))
                .await
                .unwrap();
        }
    }
}

#[tokio::test]
async fn a_directory_is_sent_whole_or_in_part() {
    let dir = tempfile::tempdir().unwrap();
    let at = |path: &str| dir.path().join("context").join(path);
    std::fs::create_dir_all(at("many")).unwrap();
    let large: Vec<u8> = (0..1_000_000u32).map(|n| (n % 251) as u8).collect();
    std::fs::write(at("large"), &large).unwrap();
    std::fs::write(at("empty"), "").unwrap();
    for n in 0..500 {
        std::fs::write(at(&format!("many/{n}")), n.to_string()).unwrap();
    }
    let peer = peer(dir.path(), BTreeMap::new()).await;
    let (all, few) = tokio::join!(
        receive(&peer, &[("dir-name", "context")]),
        receive(
            &peer,
            &[
                ("dir-name", "context"),
                ("exclude-patterns", "many"),
                ("followpaths", "empty"),
                ("followpaths", "many/7")
            ]
        ),
    );
    let all = all.unwrap();
    assert_eq!(all.len(), 503);
    assert_eq!(all["large"].as_deref(), Some(&large[..]));
    assert_eq!(all["many/499"].as_deref(), Some(&b"499"[..]));
    assert_eq!(
        few.unwrap(),
        BTreeMap::from([("empty".to_owned(), Some(Vec::new()))])
    );
}

#[tokio::test]
async fn only_named_directories_are_sent() {
    let dir = tempfile::tempdir().unwrap();
    let peer = peer(dir.path(), BTreeMap::new()).await;
    let error = receive(&peer, &[("dir-name", "elsewhere")])
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    // The directory "context" was never made.
    let error = receive(&peer, &[("dir-name", "context")])
        .await
        .unwrap_err();
    assert!(
        error.message().contains("cannot open the directory"),
        "{error}"
    );
}

#[tokio::test]
async fn a_file_that_cannot_be_sent_ends_the_transfer_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("context")).unwrap();
    let path = dir.path().join("context/file");
    std::fs::write(&path, "x").unwrap();
    let peer = peer(dir.path(), BTreeMap::new()).await;
    let (outgoing, packets) = mpsc::channel(8);
    let mut request = Request::new(ReceiverStream::new(packets));
    request
        .metadata_mut()
        .insert("dir-name", "context".parse().unwrap());
    let mut incoming = FileSyncClient::new(peer.channel.clone())
        .diff_copy(request)
        .await
        .unwrap()
        .into_inner();
    while incoming.message().await.unwrap().unwrap().stat.is_some() {}
    std::fs::remove_file(&path).unwrap();
    outgoing
        .send(packet(PacketType::PacketReq, 0))
        .await
        .unwrap();
    let message = incoming.message().await.unwrap().unwrap();
    assert_eq!(message.r#type(), PacketType::PacketErr);
    assert!(
        String::from_utf8(message.data)
            .unwrap()
            .contains("\"file\"")
    );
    assert!(incoming.message().await.is_err());
}

#[tokio::test]
async fn a_number_that_names_no_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("context/dir")).unwrap();
    let peer = peer(dir.path(), BTreeMap::new()).await;
    let (outgoing, packets) = mpsc::channel(8);
    let mut request = Request::new(ReceiverStream::new(packets));
    request
        .metadata_mut()
        .insert("dir-name", "context".parse().unwrap());
    let mut incoming = FileSyncClient::new(peer.channel.clone())
        .diff_copy(request)
        .await
        .unwrap()
        .into_inner();
    while incoming.message().await.unwrap().unwrap().stat.is_some() {}
    outgoing
        .send(packet(PacketType::PacketReq, 0))
        .await
        .unwrap();
    assert_eq!(
        incoming.message().await.unwrap().unwrap().r#type(),
        PacketType::PacketErr
    );
    assert_eq!(
        incoming.message().await.unwrap_err().code(),
        Code::InvalidArgument
    );
}

#[tokio::test]
async fn secrets_and_health_are_served() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("secret"), b"\x00value").unwrap();
    let peer = peer(dir.path(), BTreeMap::new()).await;
    let mut secrets = SecretsClient::new(peer.channel.clone());
    let mut get = async |id: &str| {
        let request = GetSecretRequest {
            id: id.into(),
            ..GetSecretRequest::default()
        };
        secrets
            .get_secret(request)
            .await
            .map(|response| response.into_inner().data)
    };
    assert_eq!(get("here").await.unwrap(), b"\x00value");
    assert_eq!(get("unknown").await.unwrap_err().code(), Code::NotFound);
    assert_eq!(
        get("gone").await.unwrap_err().code(),
        Code::FailedPrecondition
    );
    let health = HealthClient::new(peer.channel.clone())
        .check(HealthCheckRequest::default())
        .await
        .unwrap();
    assert_eq!(health.into_inner().status, 1);
}

fn export<T>(id: usize, stream: T) -> Request<T> {
    let mut request = Request::new(stream);
    request
        .metadata_mut()
        .insert("buildkit-attachable-exporter-id", id.into());
    request
}

#[tokio::test]
async fn each_export_goes_to_its_destination() {
    let dir = tempfile::tempdir().unwrap();
    let (file, tree) = (dir.path().join("new/image.tar"), dir.path().join("tree"));
    let destinations = BTreeMap::from([
        (0, Destination::Directory(tree.clone())),
        (2, Destination::File(file.clone())),
    ]);
    let peer = peer(dir.path(), destinations).await;

    let chunks = ["one", "two"].map(|text| BytesMessage { data: text.into() });
    let stream = tokio_stream::iter(chunks);
    let mut answer = FileSendClient::new(peer.channel.clone())
        .diff_copy(export(2, stream))
        .await
        .unwrap()
        .into_inner();
    assert!(answer.message().await.unwrap().is_none());
    assert_eq!(std::fs::read(&file).unwrap(), b"onetwo");

    let (outgoing, packets) = mpsc::channel(8);
    let request = export(0, ReceiverStream::new(packets));
    let stat = |path: &str, mode| Packet {
        stat: Some(Stat {
            path: path.into(),
            mode,
            ..Stat::default()
        }),
        ..packet(PacketType::PacketStat, 0)
    };
    for message in [
        stat("d", GO_DIR | 0o750),
        stat("d/f", 0o640),
        packet(PacketType::PacketStat, 0),
    ] {
        outgoing.send(message).await.unwrap();
    }
    let mut incoming = DirectoryClient::new(peer.channel.clone())
        .diff_copy(request)
        .await
        .unwrap()
        .into_inner();
    let asked = incoming.message().await.unwrap().unwrap();
    assert_eq!((asked.r#type(), asked.id), (PacketType::PacketReq, 1));
    outgoing
        .send(Packet {
            data: b"text".to_vec(),
            ..packet(PacketType::PacketData, 1)
        })
        .await
        .unwrap();
    outgoing
        .send(packet(PacketType::PacketData, 1))
        .await
        .unwrap();
    assert_eq!(
        incoming.message().await.unwrap().unwrap().r#type(),
        PacketType::PacketFin
    );
    outgoing
        .send(packet(PacketType::PacketFin, 0))
        .await
        .unwrap();
    assert!(incoming.message().await.unwrap().is_none());
    assert_eq!(std::fs::read(tree.join("d/f")).unwrap(), b"text");

    let stream = tokio_stream::iter(Vec::<BytesMessage>::new());
    let error = FileSendClient::new(peer.channel.clone())
        .diff_copy(export(1, stream))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    assert_eq!(peer.exports.failure(), None);
}

#[tokio::test]
async fn an_export_that_cannot_be_written_says_why_on_both_sides() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    let destination = Destination::File(dir.path().join("file/below"));
    let peer = peer(dir.path(), BTreeMap::from([(0, destination)])).await;
    let stream = tokio_stream::iter([BytesMessage {
        data: b"x".to_vec(),
    }]);
    let error = FileSendClient::new(peer.channel.clone())
        .diff_copy(export(0, stream))
        .await
        .unwrap_err();
    assert!(error.message().contains("file/below"), "{error}");
    assert_eq!(peer.exports.failure().as_deref(), Some(error.message()));
}

#[tokio::test]
async fn a_broken_off_export_leaves_the_old_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("image.tar");
    std::fs::write(&file, "old").unwrap();
    let peer = peer(
        dir.path(),
        BTreeMap::from([(0, Destination::File(file.clone()))]),
    )
    .await;
    let (outgoing, chunks) = mpsc::channel(1);
    outgoing
        .send(BytesMessage {
            data: b"half".to_vec(),
        })
        .await
        .unwrap();
    let mut client = FileSendClient::new(peer.channel.clone());
    let call = client.diff_copy(export(0, ReceiverStream::new(chunks)));
    assert!(
        tokio::time::timeout(std::time::Duration::from_millis(200), call)
            .await
            .is_err(),
        "waits for the rest"
    );
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while std::fs::read_dir(dir.path()).unwrap().count() > 1 {
        assert!(
            std::time::Instant::now() < deadline,
            "the temporary file stays"
        );
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(std::fs::read(&file).unwrap(), b"old");
}
