//! W6: a step of the other platform.

use std::path::PathBuf;

use buildyard_tests::native_architecture;

use super::{OneFigure, plain};
use crate::case::{Case, Goal};
use crate::catalogue::Entry;
use crate::client::Build;
use crate::engine::Engine;
use crate::site::Site;

pub(super) fn entry() -> Entry {
    Entry {
        emulated: true,
        ..plain(
            "W6",
            |_| {
                let about = "an emulated step (sort and checksum over /usr)";
                vec![Case::seconds("W6", about, Goal::Ratio(0.8))]
            },
            |site| {
                site.debian()?;
                Ok(Box::new(Emulated {
                    dir: site.project("emulated", DOCKERFILE)?,
                }))
            },
        )
    }
}

const DOCKERFILE: &str = "\
ARG BASE
FROM $BASE
ARG ROUND
RUN find /usr | sort > /names && cat /usr/bin/a* /usr/bin/b* /usr/bin/c* | sha256sum > /sum
";

struct Emulated {
    dir: PathBuf,
}

impl OneFigure for Emulated {
    fn run(&self, site: &Site, engine: &Engine, round: u32) -> anyhow::Result<f64> {
        let other = match native_architecture() {
            "amd64" => "arm64",
            _ => "amd64",
        };
        let build = Build::of(&self.dir)
            .base(site.debian()?)
            .round(round)
            .arg(format!("--platform=linux/{other}"))
            .no_network()
            .cache_only();
        engine.build(&build)
    }
}
