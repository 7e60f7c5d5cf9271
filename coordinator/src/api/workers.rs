//! The farm as clients see it: one worker with every platform.
//!
//! A client that sees one worker with all platforms sends one solve for all of them; that is what lets a step be run
//! once for several targets.

use bollard_buildkit_proto::moby::buildkit::v1::types::{BuildkitVersion, WorkerRecord};

use crate::backend::WorkerView;

/// What this builder says it is. The version is that of the BuildKit whose features it has: clients below 0.11 expect
/// no attestations. What makes it this project is the package and the part behind the plus sign.
pub(crate) fn version() -> BuildkitVersion {
    BuildkitVersion {
        package: "buildyard".to_owned(),
        version: concat!("v0.10.6+buildyard.", env!("CARGO_PKG_VERSION")).to_owned(),
        revision: String::new(),
    }
}

/// The record of the one worker.
pub(crate) fn record(view: WorkerView) -> WorkerRecord {
    WorkerRecord {
        id: view.id,
        labels: view.labels.into_iter().collect(),
        platforms: view.platforms,
        buildkit_version: Some(version()),
        ..Default::default()
    }
}
