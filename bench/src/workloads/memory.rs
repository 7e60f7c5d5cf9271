//! Memory of an engine that has nothing to do, before and after large contexts.

use std::path::PathBuf;
use std::time::Duration;

use super::{Figures, Workload, plain};
use crate::case::{Case, Goal};
use crate::catalogue::Entry;
use crate::client::Build;
use crate::engine::Engine;
use crate::files::Tree;
use crate::site::{Scale, Site};

const FILES: usize = 100_000;
/// How long an engine is left alone before it is looked at.
const SETTLE: Duration = Duration::from_secs(3);

pub(super) fn entry() -> Entry {
    let rows = |scale: Scale| {
        let about = format!("resident after builds of {} files", scale.of(FILES, 100));
        vec![
            Case::megabytes("memory/idle", "resident after its start", Goal::Most(30.0)),
            Case::megabytes("memory/after", about, Goal::Most(100.0)),
        ]
    };
    Entry {
        growth: true,
        rounds: 2,
        ..plain("memory", rows, |site| {
            let dir = site.project("memory", "ARG BASE\nFROM $BASE\nCOPY . /src\n")?;
            let tree = Tree::new(&dir, site.scale.of(FILES, 100))?;
            Ok(Box::new(Memory { dir, tree }))
        })
    }
}

struct Memory {
    dir: PathBuf,
    tree: Tree,
}

impl Workload for Memory {
    fn measure(&mut self, site: &Site, engine: &Engine, round: u32) -> Figures {
        let fresh = site.fresh(engine.side());
        std::thread::sleep(SETTLE);
        let idle = fresh.processes().resident()?;
        let build = Build::of(&self.dir).base(&site.busybox).cache_only();
        // New, edited, unchanged.
        fresh.build(&build)?;
        self.tree.edit(round)?;
        fresh.build(&build)?;
        fresh.build(&build)?;
        std::thread::sleep(SETTLE);
        let after = fresh.processes().resident()?;
        Ok(vec![(0, idle), (1, after)])
    }
}
