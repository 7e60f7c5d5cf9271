//! Steps that write much: pushed (W5), loaded into a Docker Engine (W12), how time and memory grow, what is stored.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::ensure;

use super::{Figures, Workload, plain};
use crate::case::{Case, Goal};
use crate::catalogue::Entry;
use crate::client::Build;
use crate::disk::taken;
use crate::engine::{Engine, Side};
use crate::site::{Scale, Site, write_text};

/// The size of the text that steps write again and again: 10 MB.
const SEED: usize = 10_000_000;
/// What W5 and W12 write: 0.9 GB.
const LARGE: usize = 90;
/// What the layers that grow are, with names: 10 MB, 1 GB, 4 GB.
const SIZES: [(&str, usize); 3] = [("10M", 1), ("1G", 100), ("4G", 400)];
/// What is written to see what is stored: 100 MB.
const STORED: usize = 10;
/// How long an engine may take to come to rest after a build.
const REST: Duration = Duration::from_secs(20);

pub(super) fn pushed() -> Entry {
    plain(
        "W5",
        |scale| {
            let about = format!("a RUN that writes {}, gzip, push", size(scale, LARGE));
            vec![Case::seconds("W5", about, Goal::Ratio(0.25))]
        },
        |site| Ok(Box::new(Large::new(site, "large", Output::Push)?)),
    )
}

pub(super) fn loaded() -> Entry {
    let rows = |scale: Scale| {
        let about = format!(
            "a RUN that writes {}, type=docker into a Docker Engine",
            size(scale, LARGE)
        );
        vec![Case::seconds("W12", about, Goal::Ratio(0.8))]
    };
    plain("W12", rows, |site| {
        ensure!(
            site.engines
                .iter()
                .any(|engine| engine.side() == Side::Reference),
            "there is no Docker Engine to load into when ours is measured alone"
        );
        Ok(Box::new(Large::new(site, "loaded", Output::Load)?))
    })
}

pub(super) fn growing() -> Entry {
    let rows = |scale: Scale| {
        let times = SIZES.map(|(name, seeds)| {
            let goal = match name {
                "4G" => Goal::of("layer/1G", 4.4),
                _ => Goal::None,
            };
            let about = format!("one layer of {}, pushed", size(scale, seeds));
            Case::seconds(format!("layer/{name}"), about, goal)
        });
        let peaks = SIZES.map(|(name, seeds)| {
            let about = format!("memory at most, {}", size(scale, seeds));
            Case::megabytes(format!("layer-peak/{name}"), about, Goal::Most(200.0))
        });
        let about = format!("memory at most while pulling {}", size(scale, SIZES[2].1));
        let pull = Case::megabytes("layer-peak/pull", about, Goal::Most(200.0));
        times.into_iter().chain(peaks).chain([pull]).collect()
    };
    Entry {
        growth: true,
        rounds: 1,
        ..plain("layer", rows, |site| {
            Ok(Box::new(Growing {
                writing: Writing::new(site, "layer")?,
                pulling: site.project("pulled", "ARG BASE\nFROM $BASE\nRUN true\n")?,
            }))
        })
    }
}

pub(super) fn stored() -> Entry {
    let rows = |scale: Scale| {
        let about = format!("stored for a build that wrote {}", size(scale, STORED));
        vec![Case::times("disk", about, Goal::Most(1.1))]
    };
    Entry {
        growth: true,
        ..plain("disk", rows, |site| {
            Ok(Box::new(Stored(Writing::new(site, "stored")?)))
        })
    }
}

/// A size in words.
fn size(scale: Scale, seeds: usize) -> String {
    let megabytes = scale.of(seeds, 1) * SEED / 1_000_000;
    match megabytes {
        large if large >= 1_000 => format!("{} GB", large as f64 / 1_000.0),
        small => format!("{small} MB"),
    }
}

const DOCKERFILE: &str = "\
ARG BASE
FROM $BASE AS seed
COPY seed /seed
FROM seed
ARG ROUND
ARG COUNT
RUN mkdir /data && for i in $(seq $COUNT); do { echo $ROUND $i; cat /seed; } > /data/$i; done
";

/// A step that writes files of 10 MB, each with another first line.
struct Writing {
    dir: PathBuf,
}

impl Writing {
    fn new(site: &Site, name: &str) -> anyhow::Result<Self> {
        let dir = site.project(name, DOCKERFILE)?;
        write_text(&dir.join("seed"), 3, SEED)?;
        Ok(Self { dir })
    }

    fn build(&self, site: &Site, seeds: usize, round: u32) -> Build {
        Build::of(&self.dir)
            .base(&site.busybox)
            .round(round)
            .arg(format!("--build-arg=COUNT={}", site.scale.of(seeds, 1)))
            .no_network()
    }

    /// The stage before that step.
    fn seed(&self, site: &Site) -> Build {
        self.build(site, 1, 0).arg("--target=seed").cache_only()
    }
}

#[derive(Debug, Clone, Copy)]
enum Output {
    Push,
    Load,
}

/// 0.9 GB.
struct Large {
    writing: Writing,
    output: Output,
    image: &'static str,
}

impl Large {
    fn new(site: &Site, image: &'static str, output: Output) -> anyhow::Result<Self> {
        Ok(Self {
            writing: Writing::new(site, image)?,
            output,
            image,
        })
    }
}

impl Workload for Large {
    fn warm(&mut self, site: &Site, engine: &Engine) -> anyhow::Result<()> {
        engine.build(&self.writing.seed(site)).map(drop)
    }

    fn measure(&mut self, site: &Site, engine: &Engine, round: u32) -> Figures {
        let build = self.writing.build(site, LARGE, round);
        let name = site.name(engine.side(), self.image);
        let build = match self.output {
            Output::Push => build.push(&name),
            Output::Load => build.arg(format!("--output=type=docker,name={name}")),
        };
        Ok(vec![(0, engine.build(&build)?)])
    }
}

/// Layers of three sizes, pushed by an engine of their own, and the largest pulled by another one.
struct Growing {
    writing: Writing,
    pulling: PathBuf,
}

impl Workload for Growing {
    fn measure(&mut self, site: &Site, engine: &Engine, _round: u32) -> Figures {
        let side = engine.side();
        let mut figures = Vec::new();
        let pushing = site.fresh(side);
        pushing.build(&self.writing.seed(site))?;
        let name = |size: &str| site.name(side, &format!("layer-{}", size.to_lowercase()));
        for (number, (size, seeds)) in SIZES.into_iter().enumerate() {
            let processes = pushing.processes();
            processes.forget_peak()?;
            // Another round for each: scaled down, their sizes may be the same.
            let round = u32::try_from(number)?;
            let build = self.writing.build(site, seeds, round).push(&name(size));
            figures.push((number, pushing.build(&build)?));
            figures.push((SIZES.len() + number, processes.peak()?));
        }
        drop(pushing);
        let pulling = site.fresh(side);
        let processes = pulling.processes();
        processes.forget_peak()?;
        let build = Build::of(&self.pulling)
            .base(&name(SIZES[2].0))
            .no_network()
            .cache_only();
        pulling.build(&build)?;
        figures.push((2 * SIZES.len(), processes.peak()?));
        Ok(figures)
    }
}

/// What an engine has on disk after a build, by what the build wrote.
struct Stored(Writing);

impl Workload for Stored {
    fn measure(&mut self, site: &Site, engine: &Engine, round: u32) -> Figures {
        let fresh = site.fresh(engine.side());
        fresh.build(&self.0.seed(site))?;
        let before = at_rest(&fresh)?;
        fresh.build(&self.0.build(site, STORED, round).cache_only())?;
        let stored = at_rest(&fresh)?.saturating_sub(before) as f64;
        let produced = site.scale.of(STORED, 1) * SEED;
        Ok(vec![(0, stored / produced as f64)])
    }
}

/// What its data takes once that does not change any more.
fn at_rest(engine: &Engine) -> anyhow::Result<u64> {
    let start = Instant::now();
    let mut last = None;
    loop {
        rustix::fs::sync();
        let now = taken(&engine.data())?;
        if last == Some(now) || start.elapsed() > REST {
            return Ok(now);
        }
        last = Some(now);
        std::thread::sleep(Duration::from_secs(1));
    }
}
