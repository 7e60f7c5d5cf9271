//! Many clients at once: with different builds (W7), with the same one (W8), with a cached one.

use std::path::PathBuf;

use super::{Figures, OneFigure, Workload, plain};
use crate::case::{Case, Goal};
use crate::catalogue::Entry;
use crate::client::Build;
use crate::engine::Engine;
use crate::site::{Scale, Site};

/// Clients of W7.
const DIFFERENT: usize = 24;
/// Clients of W8.
const SAME: usize = 12;
/// Clients in the table of what grows.
const GROWING: [usize; 3] = [1, 8, 32];

pub(super) fn different() -> Entry {
    plain(
        "W7",
        |scale| {
            let about = format!("{} different small builds at once", scale.of(DIFFERENT, 2));
            vec![Case::seconds("W7", about, Goal::Ratio(0.5))]
        },
        |site| {
            let project = |number: usize| {
                let step = format!("RUN echo {number} > /number && cat /text > /copy\n");
                let dir = site.project(&format!("different-{number}"), &dockerfile(&step))?;
                std::fs::write(dir.join("text"), format!("text of {number}\n"))?;
                Ok(dir)
            };
            let clients = site.scale.of(DIFFERENT, 2);
            Ok(Box::new(AtOnce {
                dirs: (0..clients).map(project).collect::<anyhow::Result<_>>()?,
                two_platforms: false,
            }))
        },
    )
}

pub(super) fn same() -> Entry {
    let rows = |scale: Scale| {
        let clients = scale.of(SAME, 2);
        let about = format!("{clients} clients, the same two-platform build at once");
        vec![Case::seconds("W8", about, Goal::Ratio(0.5))]
    };
    Entry {
        emulated: true,
        ..plain("W8", rows, |site| {
            let dir = small(site, "same")?;
            Ok(Box::new(AtOnce {
                dirs: vec![dir; site.scale.of(SAME, 2)],
                two_platforms: true,
            }))
        })
    }
}

pub(super) fn growing() -> Entry {
    let rows = |scale: Scale| {
        let row = |full: usize| {
            let goal = if full == 32 {
                Goal::Ratio(0.6)
            } else {
                Goal::None
            };
            let about = format!("{} at once, a cached build", scale.of(full, 2));
            Case::seconds(format!("clients/{full}"), about, goal)
        };
        GROWING.map(row).to_vec()
    };
    Entry {
        growth: true,
        ..plain("clients", rows, |site| {
            let dir = small(site, "clients")?;
            Ok(Box::new(Cached { dir }))
        })
    }
}

fn small(site: &Site, name: &str) -> anyhow::Result<PathBuf> {
    let dir = site.project(name, &dockerfile("RUN cat /text > /copy\n"))?;
    std::fs::write(dir.join("text"), "text\n")?;
    Ok(dir)
}

fn dockerfile(step: &str) -> String {
    format!("ARG BASE\nFROM $BASE\nCOPY text /text\nARG ROUND\n{step}")
}

fn build(site: &Site, dir: &std::path::Path, round: u32) -> Build {
    Build::of(dir)
        .base(&site.busybox)
        .round(round)
        .no_network()
        .cache_only()
}

/// A client for each folder, new in each round.
struct AtOnce {
    dirs: Vec<PathBuf>,
    two_platforms: bool,
}

impl OneFigure for AtOnce {
    fn run(&self, site: &Site, engine: &Engine, round: u32) -> anyhow::Result<f64> {
        let build = |dir: &PathBuf| {
            let build = build(site, dir, round);
            if self.two_platforms {
                build.two_platforms()
            } else {
                build
            }
        };
        let builds: Vec<Build> = self.dirs.iter().map(build).collect();
        Ok(engine.build_all(&builds)?.seconds)
    }
}

/// More and more clients with one build that is cached.
struct Cached {
    dir: PathBuf,
}

impl Workload for Cached {
    fn warm(&mut self, site: &Site, engine: &Engine) -> anyhow::Result<()> {
        engine.build(&build(site, &self.dir, 0)).map(drop)
    }

    fn measure(&mut self, site: &Site, engine: &Engine, _round: u32) -> Figures {
        let mut figures = Vec::new();
        for (row, full) in GROWING.into_iter().enumerate() {
            let builds = vec![build(site, &self.dir, 0); site.scale.of(full, 2)];
            figures.push((row, engine.build_all(&builds)?.seconds));
        }
        Ok(figures)
    }
}
