//! What people read about waiting and refused jobs.

use std::fmt;

use buildyard_model::{Platform, WorkerId};

use crate::{Refusal, Waiting};

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

/// At most five names.
fn names(workers: &[WorkerId]) -> String {
    let shown: Vec<&str> = workers.iter().take(5).map(WorkerId::as_str).collect();
    match workers.len() - shown.len() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
