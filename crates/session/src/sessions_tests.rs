use std::time::Duration;

use bollard_buildkit_proto::moby::buildkit::v1::BytesMessage;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;

use super::*;

const SOON: Duration = Duration::from_secs(60);
/// Sooner than the first question after the client's health, which would find the end as well.
const AT_ONCE: Duration = Duration::from_secs(60);

fn headers(id: &str) -> MetadataMap {
    let mut headers = MetadataMap::new();
    if !id.is_empty() {
        headers.insert("x-docker-expose-session-uuid", id.parse().unwrap());
    }
    headers.insert("x-docker-expose-session-sharedkey", "key".parse().unwrap());
    headers.append(
        "x-docker-expose-session-grpc-method",
        "/a.B/One".parse().unwrap(),
    );
    headers.append(
        "x-docker-expose-session-grpc-method",
        "/a.B/Two".parse().unwrap(),
    );
    headers
}

type Client = mpsc::Sender<Result<BytesMessage, tonic::Status>>;

fn open(sessions: &Sessions, id: &str) -> Result<(Client, Attached), SessionError> {
    let (client, incoming) = mpsc::channel(1);
    sessions
        .attach(&headers(id), ReceiverStream::new(incoming))
        .map(|attached| (client, attached))
}

#[tokio::test]
async fn a_session_is_found_by_its_id_while_it_is_open() {
    let sessions = Sessions::default();
    let (_client, attached) = open(&sessions, "one").unwrap();
    for id in ["one", "context:one"] {
        let session = sessions.get(id, SOON).await.unwrap();
        assert_eq!((session.id(), session.shared_key()), ("one", "key"));
        assert!(
            session.supports("/a.b/one")
                && session.supports("/a.B/Two")
                && !session.supports("/a.B/Three")
        );
    }
    let session = sessions.get("one", SOON).await.unwrap();
    drop(attached);
    assert!(session.closed().is_cancelled());
    assert_eq!(sessions.count(), 0);
}

#[tokio::test]
async fn one_that_comes_late_is_waited_for_and_one_that_never_comes_is_named() {
    let sessions = Sessions::default();
    let waiting = tokio::spawn({
        let sessions = sessions.clone();
        async move {
            sessions
                .get("late", SOON)
                .await
                .map(|session| session.id().to_owned())
        }
    });
    tokio::task::yield_now().await;
    let _open = open(&sessions, "late").unwrap();
    assert_eq!(waiting.await.unwrap().unwrap(), "late");
    let err = sessions
        .get("never", Duration::from_millis(1))
        .await
        .unwrap_err();
    assert!(
        err.to_string()
            .starts_with("no active session never (waited 0 s)"),
        "{err}"
    );
}

#[tokio::test]
async fn a_client_that_ends_its_stream_ends_the_session() {
    let sessions = Sessions::default();
    let (client, _attached) = open(&sessions, "one").unwrap();
    let session = sessions.get("one", SOON).await.unwrap();
    drop(client);
    tokio::time::timeout(AT_ONCE, session.closed().cancelled())
        .await
        .expect("the end is seen");
    assert!(sessions.get("one", Duration::ZERO).await.is_err());
    let (_client, _again) = open(&sessions, "one").expect("the id is free again");
}

#[tokio::test]
async fn bad_sessions_are_refused() {
    let sessions = Sessions::default();
    assert!(matches!(
        open(&sessions, ""),
        Err(SessionError::MissingHeader(_))
    ));
    assert!(matches!(
        open(&sessions, &"x".repeat(2000)),
        Err(SessionError::MissingHeader(_))
    ));
    let _open = open(&sessions, "one").unwrap();
    assert!(matches!(
        open(&sessions, "one"),
        Err(SessionError::AlreadyOpen(_))
    ));
}
