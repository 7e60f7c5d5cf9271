//! `GET /api/v1/workers`.

use std::time::SystemTime;

use axum::Json;
use axum::extract::State;
use buildyard_model::Platform;
use buildyard_model::api::{WorkerInfo, WorkerPlatform};

use buildyard_store::{UnixMillis, WorkerRecord};

use super::{Shared, WebError};

pub(super) async fn list(State(shared): State<Shared>) -> Result<Json<Vec<WorkerInfo>>, WebError> {
    let connected = shared.farm.connected();
    let platform = |emulated: bool| {
        move |platform: &Platform| WorkerPlatform {
            platform: platform.to_string(),
            emulated,
        }
    };
    let is_connected = |worker: &WorkerRecord| connected.iter().any(|offer| offer.id == worker.id);
    let workers = shared.farm.known().into_iter().map(|worker| WorkerInfo {
        platforms: worker
            .native
            .iter()
            .map(platform(false))
            .chain(worker.emulated.iter().map(platform(true)))
            .collect(),
        slots: worker.slots,
        running: shared.farm.running_on(&worker.id),
        connected: is_connected(&worker),
        // The stored time is that of its last arrival or departure.
        last_seen: Some(
            if is_connected(&worker) {
                UnixMillis::from(SystemTime::now())
            } else {
                worker.seen
            }
            .to_string(),
        ),
        id: worker.id.to_string(),
    });
    Ok(Json(
        workers
            .filter(|worker| !worker.platforms.is_empty())
            .collect(),
    ))
}
