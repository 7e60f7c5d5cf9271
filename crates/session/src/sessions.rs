//! The sessions that are open now.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bollard_buildkit_proto::moby::buildkit::v1::BytesMessage;
use futures::{Stream, StreamExt};
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;
use tonic::metadata::MetadataMap;

use crate::{Session, SessionError, SessionInfo, health, tunnel};

/// Open sessions by id. Clone it freely.
#[derive(Debug, Clone, Default)]
pub struct Sessions(Arc<Registry>);

#[derive(Debug, Default)]
struct Registry {
    open: Mutex<HashMap<String, Arc<Session>>>,
    arrived: Notify,
}

impl Sessions {
    /// Takes in a `Control.Session` stream: `metadata` is the call's, `incoming` what the client sends. The returned
    /// stream is the call's answer; the session is open until it ends or is dropped.
    pub fn attach<S>(&self, metadata: &MetadataMap, incoming: S) -> Result<Attached, SessionError>
    where
        S: Stream<Item = Result<BytesMessage, tonic::Status>> + Send + 'static,
    {
        let info = SessionInfo::from_metadata(metadata)?;
        let closed = CancellationToken::new();
        let (channel, outgoing, reading) = tunnel::channel(incoming, closed.clone());
        let watch = tokio::spawn(health::watch(channel.clone(), closed.clone()));
        let session = Arc::new(Session::new(info, channel, closed.clone()));
        let entry = Entry::insert(self.0.clone(), session)?;
        let messages = tokio_stream::wrappers::ReceiverStream::new(outgoing);
        Ok(Attached {
            messages: messages
                .take_until(closed.clone().cancelled_owned())
                .boxed(),
            _tasks: [reading, AbortOnDropHandle::new(watch)],
            _closed: closed.drop_guard(),
            _entry: entry,
        })
    }

    /// The session `id`. A client opens it beside its other calls, so this waits up to `timeout` for it to arrive.
    /// A prefix `NAME:` of the id, which clients may put in front, is ignored.
    pub async fn get(&self, id: &str, timeout: Duration) -> Result<Arc<Session>, SessionError> {
        let id = id
            .split_once(':')
            .map_or(id, |(_, rest)| if rest.is_empty() { id } else { rest });
        let found = async {
            loop {
                let mut arrived = std::pin::pin!(self.0.arrived.notified());
                arrived.as_mut().enable();
                if let Some(session) = self.0.find(id) {
                    return session;
                }
                arrived.await;
            }
        };
        tokio::time::timeout(timeout, found)
            .await
            .map_err(|_| SessionError::NotFound {
                id: id.to_owned(),
                waited: timeout,
            })
    }

    /// How many sessions are open.
    pub fn count(&self) -> usize {
        self.0.open().len()
    }
}

impl Registry {
    fn open(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Session>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, id: &str) -> Option<Arc<Session>> {
        self.open()
            .get(id)
            .filter(|session| !session.closed().is_cancelled())
            .cloned()
    }
}

/// A place in the registry, given back when dropped.
struct Entry {
    registry: Arc<Registry>,
    session: Arc<Session>,
}

impl Entry {
    fn insert(registry: Arc<Registry>, session: Arc<Session>) -> Result<Self, SessionError> {
        let id = session.id().to_owned();
        {
            let mut open = registry.open();
            if open
                .get(&id)
                .is_some_and(|old| !old.closed().is_cancelled())
            {
                return Err(SessionError::AlreadyOpen(id));
            }
            open.insert(id.clone(), session.clone());
        }
        registry.arrived.notify_waiters();
        tracing::debug!(session = id, name = session.name(), "session opened");
        Ok(Self { registry, session })
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut open = self.registry.open();
        if open
            .get(self.session.id())
            .is_some_and(|current| Arc::ptr_eq(current, &self.session))
        {
            open.remove(self.session.id());
        }
        tracing::debug!(session = self.session.id(), "session ended");
    }
}

/// The coordinator's half of a session stream. Dropping it ends the session.
pub struct Attached {
    messages: futures::stream::BoxStream<'static, BytesMessage>,
    _tasks: [AbortOnDropHandle<()>; 2],
    _closed: DropGuard,
    _entry: Entry,
}

impl Stream for Attached {
    type Item = Result<BytesMessage, tonic::Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.messages
            .poll_next_unpin(cx)
            .map(|message| message.map(Ok))
    }
}

#[cfg(test)]
#[path = "sessions_tests.rs"]
mod tests;
