//! `/livez`: the coordinator serves. `/readyz`: it serves and a worker that executes something is connected.

use axum::extract::State;
use axum::http::StatusCode;

use super::Shared;

pub(super) async fn livez() -> &'static str {
    "ok\n"
}

pub(super) async fn readyz(State(shared): State<Shared>) -> (StatusCode, &'static str) {
    let executes =
        |offer: &crate::farm::Offer| !offer.native.is_empty() || !offer.emulated.is_empty();
    if shared.farm.connected().iter().any(executes) {
        (StatusCode::OK, "ok\n")
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "no worker is connected; cached builds are served all the same\n",
        )
    }
}
