//! How long an engine takes until it is ready: with an empty data directory, and with a full one.

use std::path::PathBuf;

use anyhow::Context;
use buildyard_tests::unmount_below;

use super::{Figures, Workload, plain};
use crate::case::{Case, Goal};
use crate::catalogue::Entry;
use crate::client::Build;
use crate::engine::Engine;
use crate::files::Tree;
use crate::site::{Scale, Site};

/// What makes a data directory full: files of a context, and steps.
const FILES: usize = 30_000;
const STEPS: usize = 100;

pub(super) fn entry() -> Entry {
    let rows = |scale: Scale| {
        let (files, steps) = (scale.of(FILES, 100), scale.of(STEPS, 2));
        let about = format!("ready, data of {files} files and {steps} steps");
        vec![
            Case::seconds(
                "start/empty",
                "ready, empty data directory",
                Goal::Most(0.15),
            ),
            Case::seconds("start/full", about, Goal::Most(0.3)),
        ]
    };
    Entry {
        growth: true,
        ..plain("start", rows, |site| {
            let mut dockerfile = "ARG BASE\nFROM $BASE\nCOPY . /src\n".to_owned();
            for step in 0..site.scale.of(STEPS, 2) {
                dockerfile += &format!("RUN echo {step} > /step-{step}\n");
            }
            let dir = site.project("start", &dockerfile)?;
            Tree::new(&dir, site.scale.of(FILES, 100))?;
            Ok(Box::new(Start { dir }))
        })
    }
}

struct Start {
    dir: PathBuf,
}

impl Workload for Start {
    fn measure(&mut self, site: &Site, engine: &Engine, _round: u32) -> Figures {
        let mut fresh = site.fresh(engine.side());
        fresh.stop();
        let data = fresh.data();
        unmount_below(&data);
        std::fs::remove_dir_all(&data).with_context(|| format!("removing {}", data.display()))?;
        let empty = fresh.start_again()?;
        let build = Build::of(&self.dir)
            .base(&site.busybox)
            .no_network()
            .cache_only();
        fresh.build(&build)?;
        fresh.stop();
        let full = fresh.start_again()?;
        Ok(vec![(0, empty), (1, full)])
    }
}
