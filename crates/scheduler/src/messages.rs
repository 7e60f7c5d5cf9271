//! What people read about waiting and refused jobs.

use std::fmt;

use buildyard_model::{Platform, WorkerId};

use crate::{Networks, Refusal, Waiting};

/// So many workers are named.
const SHOWN: usize = 5;

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy { platform } => {
                write!(f, "waiting for a free worker{}", of(platform.as_ref()))
            }
            Self::Away {
                platform, workers, ..
            } => {
                write!(
                    f,
                    "waiting for {} to come back{}",
                    names(workers),
                    of(platform.as_ref())
                )
            }
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NobodyCan { platform: None, .. } => f.write_str(
                "no worker has joined the farm; start one with `buildyard worker --join URL`",
            ),
            Self::NobodyCan {
                platform: Some(platform),
                native,
                emulated,
            } => {
                write!(
                    f,
                    "no worker can run {platform}; the farm runs {}; add a {platform} worker, or a worker with \
                     qemu-user-static",
                    Farm { native, emulated }
                )
            }
            Self::NoHostNetwork { platform, workers } => {
                let offered: Vec<String> = workers
                    .iter()
                    .take(SHOWN)
                    .map(|(worker, networks)| format!("{worker} ({})", offered(*networks)))
                    .collect();
                write!(
                    f,
                    "no worker{} lets steps use its machine's network; networks are {}{}; start a worker with \
                     --allow-host-network",
                    of(platform.as_ref()),
                    offered.join(", "),
                    more(workers.len())
                )
            }
            Self::StayedAway {
                platform,
                workers,
                waited,
                native,
                emulated,
            } => {
                write!(
                    f,
                    "no worker came back{} within {} s: {} away; the farm runs {} now",
                    of(platform.as_ref()),
                    waited.as_secs(),
                    match &workers[..] {
                        [one] => format!("{one} is"),
                        several => format!("{} are", names(several)),
                    },
                    Farm { native, emulated }
                )
            }
            Self::LostTooOften { times } => {
                write!(
                    f,
                    "its worker was lost {times} times; a step may take down the machine that runs it"
                )
            }
            Self::QueueFull { limit } => {
                write!(
                    f,
                    "{limit} jobs are waiting already; add workers, or try again later"
                )
            }
        }
    }
}

impl std::error::Error for Refusal {}

/// What the farm can do.
struct Farm<'a> {
    native: &'a [Platform],
    emulated: &'a [Platform],
}

impl fmt::Display for Farm<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let native = self.native.iter().map(ToString::to_string);
        let emulated = self
            .emulated
            .iter()
            .map(|platform| format!("{platform} (emulated)"));
        let all: Vec<String> = native.chain(emulated).collect();
        f.write_str(if all.is_empty() { "nothing" } else { "" })?;
        f.write_str(&all.join(", "))
    }
}

fn of(platform: Option<&Platform>) -> String {
    platform
        .map(|platform| format!(" for {platform}"))
        .unwrap_or_default()
}

/// At most [`SHOWN`] names.
fn names(workers: &[WorkerId]) -> String {
    let shown: Vec<&str> = workers.iter().take(SHOWN).map(WorkerId::as_str).collect();
    format!("{}{}", shown.join(", "), more(workers.len()))
}

/// How many are not named.
fn more(count: usize) -> String {
    match count.saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    }
}

/// A worker's networks. `none` is always there.
fn offered(networks: Networks) -> &'static str {
    match (networks.private, networks.host) {
        (true, true) => "private, none, host",
        (true, false) => "private, none",
        (false, true) => "none, host",
        (false, false) => "none",
    }
}
