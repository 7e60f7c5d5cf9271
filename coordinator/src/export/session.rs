//! A session's client as the one who takes exports.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use buildyard_registry::BlobStream;
use buildyard_session::{DirSource, Session, SessionError};

use super::{ClientSink, ExportError};

/// The output with this number of a session's client.
pub struct SessionSink {
    session: Arc<Session>,
    exporter: usize,
}

impl SessionSink {
    /// The output number `exporter` of the session.
    pub fn new(session: Arc<Session>, exporter: usize) -> Self {
        Self { session, exporter }
    }
}

#[async_trait]
impl ClientSink for SessionSink {
    async fn send_stream(
        &self,
        attrs: &BTreeMap<String, String>,
        body: BlobStream,
    ) -> Result<u64, ExportError> {
        let sent = self.session.send_stream(self.exporter, attrs, body).await;
        sent.map_err(failed)
    }

    async fn send_dir(&self, source: Arc<dyn DirSource>) -> Result<u64, ExportError> {
        let sent = self.session.send_dir(self.exporter, source).await;
        sent.map_err(failed)
    }
}

fn failed(error: SessionError) -> ExportError {
    ExportError::Client(error.to_string())
}
