//! W1, W3 and W4 over a link of 50 ms there and back, and 100 Mbit/s, between the client and the engine.

use std::collections::BTreeMap;

use anyhow::Context;

use super::cached_push::CachedPush;
use super::context::{Change, FILES, Files};
use super::{Figures, Workload, plain};
use crate::case::{Case, Goal};
use crate::catalogue::Entry;
use crate::engine::{Engine, Side};
use crate::relay::Link;
use crate::site::{Scale, Site};

pub(super) fn entry() -> Entry {
    let rows = |scale: Scale| {
        let files = scale.of(FILES, 100);
        let row = |id: &str, about: String| Case::seconds(id, about, Goal::None);
        vec![
            row("slow-link/W1", "fully cached two-platform push".to_owned()),
            row("slow-link/W3", format!("{files} files, every file new")),
            row("slow-link/W4", format!("{files} files, one edited, pushed")),
        ]
    };
    Entry {
        growth: true,
        emulated: true,
        ..plain("slow-link", rows, |site| {
            Ok(Box::new(SlowLink {
                engines: BTreeMap::new(),
                workloads: [
                    Box::new(CachedPush::new(site)?),
                    Box::new(Files::new(site, "slow-new", FILES, Change::All)?),
                    Box::new(Files::new(site, "slow-edited", FILES, Change::OneAndPush)?),
                ],
            }))
        })
    }
}

struct SlowLink {
    /// Of their own, as their clients are.
    engines: BTreeMap<Side, Engine>,
    workloads: [Box<dyn Workload>; 3],
}

impl Workload for SlowLink {
    fn warm(&mut self, site: &Site, engine: &Engine) -> anyhow::Result<()> {
        let far = site.fresh(engine.side()).over(Link::SLOW)?;
        for workload in &mut self.workloads {
            workload.warm(site, &far)?;
        }
        self.engines.insert(engine.side(), far);
        Ok(())
    }

    fn vary(&mut self, round: u32) -> anyhow::Result<()> {
        self.workloads
            .iter_mut()
            .try_for_each(|workload| workload.vary(round))
    }

    fn measure(&mut self, site: &Site, engine: &Engine, round: u32) -> Figures {
        let far = self.engines.get(&engine.side()).context("it was warmed")?;
        let mut figures = Vec::new();
        for (row, workload) in self.workloads.iter_mut().enumerate() {
            let measured = workload.measure(site, far, round)?;
            figures.extend(measured.into_iter().map(|(_, figure)| (row, figure)));
        }
        Ok(figures)
    }
}
