//! A cached build while the cache index holds more and more of other builds. Only ours has an index that can be filled.

use std::path::PathBuf;

use super::{Figures, Workload, plain};
use crate::case::{Case, Goal};
use crate::catalogue::Entry;
use crate::client::Build;
use crate::engine::{Engine, Side};
use crate::index::fill;
use crate::site::{Scale, Site};
use crate::stats::median;

/// Entries, with names.
const SIZES: [(&str, usize); 3] = [("10^3", 1_000), ("10^5", 100_000), ("10^6", 1_000_000)];
/// Builds whose median is a figure.
const BUILDS: usize = 5;

pub(super) fn entry() -> Entry {
    let rows = |scale: Scale| {
        let row = |(name, full): (&str, usize)| {
            let goal = match name {
                "10^6" => Goal::of("index/10^3", 1.2),
                _ => Goal::None,
            };
            let about = format!("cached build among {} entries", scale.of(full, 10));
            Case::seconds(format!("index/{name}"), about, goal)
        };
        SIZES.map(row).to_vec()
    };
    Entry {
        growth: true,
        // Filling takes minutes; each figure is a median already.
        rounds: 1,
        ..plain("index", rows, |site| {
            let dockerfile = "ARG BASE\nFROM $BASE\nCOPY text /text\nRUN cat /text > /copy\n";
            let dir = site.project("index", dockerfile)?;
            std::fs::write(dir.join("text"), "text\n")?;
            Ok(Box::new(Index { dir }))
        })
    }
}

struct Index {
    dir: PathBuf,
}

impl Workload for Index {
    fn measure(&mut self, site: &Site, engine: &Engine, _round: u32) -> Figures {
        if engine.side() == Side::Reference {
            return Ok(Vec::new());
        }
        let build = Build::of(&self.dir)
            .base(&site.busybox)
            .no_network()
            .cache_only();
        let mut farm = site.fresh(Side::Ours);
        farm.build(&build)?;
        let mut figures = Vec::new();
        let mut filled = 0;
        for (row, (_, full)) in SIZES.into_iter().enumerate() {
            let entries = site.scale.of(full, 10);
            farm.stop();
            fill(&database(&farm), filled, entries)?;
            filled = entries;
            farm.start_again()?;
            // The first build after a start also opens connections.
            farm.build(&build)?;
            let times = (0..BUILDS)
                .map(|_| farm.build(&build))
                .collect::<anyhow::Result<Vec<f64>>>()?;
            figures.extend(median(&times).map(|figure| (row, figure)));
        }
        Ok(figures)
    }
}

/// `buildyard up` keeps its coordinator's database in its data directory.
fn database(farm: &Engine) -> PathBuf {
    farm.data().join("buildyard.db")
}
