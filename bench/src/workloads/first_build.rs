//! W11: the first build on an engine with nothing in it, on a base image of many files.

use std::path::PathBuf;

use super::{Figures, Workload, plain};
use crate::case::{Case, Goal};
use crate::catalogue::Entry;
use crate::client::Build;
use crate::engine::Engine;
use crate::files::layer;
use crate::site::{Scale, Site};

/// Files in each of the three layers.
const FILES: usize = 10_000;
const LAYERS: usize = 3;

pub(super) fn entry() -> Entry {
    let rows = |scale: Scale| {
        let files = LAYERS * scale.of(FILES, 100);
        let about = format!("first build: pull {files} files in {LAYERS} layers, one RUN");
        vec![Case::seconds("W11", about, Goal::Ratio(0.4))]
    };
    plain("W11", rows, |site| {
        let files = site.scale.of(FILES, 100);
        // A RUN needs a program: it comes from busybox, mounted.
        let dockerfile = "ARG BASE\nARG TOOLS\nFROM $TOOLS AS tools\nFROM $BASE\n\
            RUN --mount=from=tools,source=/bin,target=/bin [\"/bin/busybox\", \"touch\", \"/done\"]\n";
        let layers = (0..LAYERS)
            .map(|number| layer(&format!("srv/layer-{number}"), files))
            .collect::<anyhow::Result<_>>()?;
        Ok(Box::new(First {
            dir: site.project("first", dockerfile)?,
            base: site.push("base/files:latest", layers),
        }))
    })
}

struct First {
    dir: PathBuf,
    base: String,
}

impl Workload for First {
    fn measure(&mut self, site: &Site, engine: &Engine, _round: u32) -> Figures {
        let fresh = site.fresh(engine.side());
        let build = Build::of(&self.dir)
            .base(&self.base)
            .arg(format!("--build-arg=TOOLS={}", site.busybox))
            .no_network()
            .cache_only();
        Ok(vec![(0, fresh.build(&build)?)])
    }
}
