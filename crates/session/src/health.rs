//! Notices a client that is silently gone.
//!
//! A closed connection ends the session at once. One that died without a word (a laptop's lid, a lost network) is
//! found by asking the client's health service, which every BuildKit session serves. HTTP/2 pings won't do: Go's gRPC
//! servers hang up on peers that ping often.

use std::time::Duration;

use bollard_buildkit_proto::health::HealthCheckRequest;
use bollard_buildkit_proto::health::health_client::HealthClient;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::transport::Channel;

const EVERY: Duration = Duration::from_secs(10);
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// Answers that may be missing in a row. A client that hashes a large context can be slow.
const MISSES: u32 = 3;

/// Asks until the session ends, and ends it when the client stays silent. The first question is asked at once: it
/// opens the inner connection, whose beginning Go's server waits for no longer than ten seconds.
pub(crate) async fn watch(channel: Channel, closed: CancellationToken) {
    let mut missed = 0;
    while let Some(alive) = closed.run_until_cancelled(is_alive(channel.clone())).await {
        missed = if alive { 0 } else { missed + 1 };
        if missed == MISSES {
            tracing::info!("client's session is silent, ending it");
            closed.cancel();
        }
        closed.run_until_cancelled(tokio::time::sleep(EVERY)).await;
    }
}

async fn is_alive(channel: Channel) -> bool {
    let mut client = HealthClient::new(channel);
    let check = client.check(HealthCheckRequest::default());
    match tokio::time::timeout(ANSWER_WITHIN, check).await {
        Ok(Ok(_)) => true,
        // An answer all the same: a client without the service is alive.
        Ok(Err(status)) => matches!(status.code(), Code::Unimplemented | Code::NotFound),
        Err(_) => false,
    }
}
