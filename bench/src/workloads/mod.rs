//! The workloads, one idea a file.

mod big_layer;
mod cached;
mod cached_push;
mod clients;
mod context;
mod emulated;
mod exports;
mod first_build;
mod index;
mod memory;
mod slow_link;
mod start;
mod steps;

use crate::catalogue::Entry;
use crate::engine::Engine;
use crate::site::Site;

/// Figures by the number of their row.
pub(crate) type Figures = anyhow::Result<Vec<(usize, f64)>>;

/// One workload. What both engines share is made with the value.
pub(crate) trait Workload {
    /// Once for each engine, before anything is measured: what is to be cached is built here.
    fn warm(&mut self, _site: &Site, _engine: &Engine) -> anyhow::Result<()> {
        Ok(())
    }

    /// Makes the variation of a round, from 1 on, which both engines then build.
    fn vary(&mut self, _round: u32) -> anyhow::Result<()> {
        Ok(())
    }

    /// Measures.
    fn measure(&mut self, site: &Site, engine: &Engine, round: u32) -> Figures;
}

/// A workload of one figure, whose first build is a round like the others.
trait OneFigure {
    /// See [`Workload::vary`].
    fn change(&mut self, _round: u32) -> anyhow::Result<()> {
        Ok(())
    }

    /// Does it once and returns what it took, in seconds. Round 0 is not measured.
    fn run(&self, site: &Site, engine: &Engine, round: u32) -> anyhow::Result<f64>;
}

impl<T: OneFigure> Workload for T {
    fn warm(&mut self, site: &Site, engine: &Engine) -> anyhow::Result<()> {
        self.run(site, engine, 0).map(drop)
    }

    fn vary(&mut self, round: u32) -> anyhow::Result<()> {
        self.change(round)
    }

    fn measure(&mut self, site: &Site, engine: &Engine, round: u32) -> Figures {
        Ok(vec![(0, self.run(site, engine, round)?)])
    }
}

/// All, in the order of the tables.
pub(crate) fn all() -> Vec<Entry> {
    vec![
        cached_push::entry(),
        steps::trivial(),
        steps::trivial_with_network(),
        context::all_new(),
        context::one_edited(),
        big_layer::pushed(),
        emulated::entry(),
        clients::different(),
        clients::same(),
        exports::to_a_folder(),
        exports::to_an_archive(),
        first_build::entry(),
        big_layer::loaded(),
        cached::chains(),
        cached::fans(),
        steps::cold_chain(),
        context::growing(),
        context::growing_new(),
        clients::growing(),
        index::entry(),
        big_layer::growing(),
        memory::entry(),
        big_layer::stored(),
        start::entry(),
        slow_link::entry(),
    ]
}

/// An entry without limits; the others change what differs.
fn plain(
    name: &'static str,
    rows: fn(crate::site::Scale) -> Vec<crate::case::Case>,
    make: fn(&Site) -> anyhow::Result<Box<dyn Workload>>,
) -> Entry {
    Entry {
        name,
        growth: false,
        rounds: u32::MAX,
        emulated: false,
        rows,
        make,
    }
}
