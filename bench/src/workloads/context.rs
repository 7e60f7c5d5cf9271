//! Contexts of many small files: all new (W3), one edited (W4), unchanged, and how that grows.

use std::path::PathBuf;

use super::{Figures, OneFigure, Workload, plain};
use crate::case::{Case, Goal};
use crate::catalogue::Entry;
use crate::client::Build;
use crate::engine::Engine;
use crate::files::Tree;
use crate::site::{Scale, Site};

/// Files of W3 and W4: 63 MB.
pub(super) const FILES: usize = 30_000;
/// Sizes in the table of what grows.
const SIZES: [usize; 3] = [1_000, 10_000, 100_000];

pub(super) fn all_new() -> Entry {
    plain(
        "W3",
        |scale| {
            let files = scale.of(FILES, 100);
            let about = format!("{files}-file context, every file new, COPY . /src");
            vec![Case::seconds("W3", about, Goal::Ratio(0.25))]
        },
        |site| Ok(Box::new(Files::new(site, "all-new", FILES, Change::All)?)),
    )
}

pub(super) fn one_edited() -> Entry {
    plain(
        "W4",
        |scale| {
            let files = scale.of(FILES, 100);
            let about = format!("{files}-file context, one file edited, image pushed");
            vec![Case::seconds("W4", about, Goal::Ratio(0.15))]
        },
        |site| {
            Ok(Box::new(Files::new(
                site,
                "edited",
                FILES,
                Change::OneAndPush,
            )?))
        },
    )
}

pub(super) fn growing_new() -> Entry {
    let rows = |scale: Scale| {
        let full = SIZES[2];
        let about = format!("context of {} files, all new", scale.of(full, 100));
        vec![Case::seconds(
            format!("new-context/{full}"),
            about,
            Goal::Ratio(0.25),
        )]
    };
    Entry {
        growth: true,
        rounds: 2,
        ..plain("new-context", rows, |site| {
            Ok(Box::new(Files::new(
                site,
                "new-context",
                SIZES[2],
                Change::All,
            )?))
        })
    }
}

pub(super) fn growing() -> Entry {
    let rows = |scale: Scale| {
        let row = |what: &str, about: &str, full: usize, goal| {
            let about = format!("{about} {} files, no export", scale.of(full, 100));
            Case::seconds(format!("{what}/{full}"), about, goal)
        };
        let edited = SIZES.map(|full| row("edit", "one edit in", full, Goal::Ratio(0.2)));
        let same = SIZES.map(|full| row("unchanged", "context of", full, Goal::Ratio(0.7)));
        [edited, same].concat()
    };
    Entry {
        growth: true,
        ..plain("context", rows, |site| {
            let sized = |full| Files::new(site, &format!("context-{full}"), full, Change::One);
            let sizes = SIZES
                .map(sized)
                .into_iter()
                .collect::<anyhow::Result<_>>()?;
            Ok(Box::new(Growing { sizes }))
        })
    }
}

/// What is different in each round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    All,
    One,
    OneAndPush,
}

/// A context, and what happens to it.
pub(super) struct Files {
    dir: PathBuf,
    tree: Tree,
    change: Change,
    image: String,
}

impl Files {
    pub(super) fn new(
        site: &Site,
        name: &str,
        full: usize,
        change: Change,
    ) -> anyhow::Result<Self> {
        let dockerfile = "ARG BASE\nFROM $BASE\nCOPY . /src\n";
        let dir = site.project(name, dockerfile)?;
        Ok(Self {
            tree: Tree::new(&dir, site.scale.of(full, 100))?,
            dir,
            change,
            image: name.to_owned(),
        })
    }
}

impl OneFigure for Files {
    fn change(&mut self, round: u32) -> anyhow::Result<()> {
        match self.change {
            Change::All => self.tree.write(round),
            Change::One | Change::OneAndPush => self.tree.edit(round),
        }
    }

    fn run(&self, site: &Site, engine: &Engine, _round: u32) -> anyhow::Result<f64> {
        let build = Build::of(&self.dir).base(&site.busybox);
        let build = match self.change {
            Change::All | Change::One => build.cache_only(),
            Change::OneAndPush => build.push(&site.name(engine.side(), &self.image)),
        };
        engine.build(&build)
    }
}

/// The edited context, and then the same again, of each size.
struct Growing {
    sizes: Vec<Files>,
}

impl Workload for Growing {
    fn warm(&mut self, site: &Site, engine: &Engine) -> anyhow::Result<()> {
        self.sizes
            .iter_mut()
            .try_for_each(|files| files.warm(site, engine))
    }

    fn vary(&mut self, round: u32) -> anyhow::Result<()> {
        self.sizes
            .iter_mut()
            .try_for_each(|files| files.vary(round))
    }

    fn measure(&mut self, site: &Site, engine: &Engine, round: u32) -> Figures {
        let mut figures = Vec::new();
        for (number, files) in self.sizes.iter().enumerate() {
            figures.push((number, files.run(site, engine, round)?));
            figures.push((SIZES.len() + number, files.run(site, engine, round)?));
        }
        Ok(figures)
    }
}
