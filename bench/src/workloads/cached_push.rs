//! W1: a build for two platforms of which nothing is new, pushed again.

use std::path::PathBuf;

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
            "W1",
            |_| {
                let about = "fully cached two-platform push";
                vec![Case::seconds("W1", about, Goal::Ratio(0.5))]
            },
            |site| Ok(Box::new(CachedPush::new(site)?)),
        )
    }
}

const DOCKERFILE: &str = "\
ARG BASE
FROM $BASE
WORKDIR /app
COPY hello.sh /app/
RUN chmod 755 hello.sh
RUN uname -m > machine
CMD [\"/app/hello.sh\"]
";

/// The project that is pushed.
pub(super) struct CachedPush {
    dir: PathBuf,
}

impl CachedPush {
    pub(super) fn new(site: &Site) -> anyhow::Result<Self> {
        let dir = site.project("cached-push", DOCKERFILE)?;
        std::fs::write(dir.join("hello.sh"), "#!/bin/sh\necho hello\n")?;
        Ok(Self { dir })
    }
}

impl OneFigure for CachedPush {
    fn run(&self, site: &Site, engine: &Engine, _round: u32) -> anyhow::Result<f64> {
        let build = Build::of(&self.dir)
            .base(&site.busybox)
            .two_platforms()
            .no_network()
            .push(&site.name(engine.side(), "cached-push"));
        engine.build(&build)
    }
}
