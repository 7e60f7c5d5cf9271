//! RUN steps that do next to nothing, none of them cached: their price (W2, W2b), and a long chain of them.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use serde_json::Value;

use super::cached::chain;
use super::{Figures, Workload, plain};
use crate::case::{Case, Goal};
use crate::catalogue::Entry;
use crate::client::Build;
use crate::engine::Engine;
use crate::site::{Scale, Site};
use crate::stats::median;

/// Steps of W2.
const TRIVIAL: usize = 30;
/// The length of the cold chain.
const COLD: usize = 400;
/// How many steps at each end of the cold chain are looked at.
const END: usize = 20;

pub(super) fn trivial() -> Entry {
    plain(
        "W2",
        |scale| {
            let steps = scale.of(TRIVIAL, 2);
            let about = format!("{steps} trivial RUN steps, none cached, --network none");
            vec![Case::seconds("W2", about, Goal::Ratio(0.25))]
        },
        |site| {
            Ok(Box::new(Cold::new(
                site,
                "trivial",
                site.scale.of(TRIVIAL, 2),
                false,
            )?))
        },
    )
}

pub(super) fn trivial_with_network() -> Entry {
    plain(
        "W2b",
        |scale| {
            let steps = scale.of(TRIVIAL, 2);
            let about = format!("{steps} trivial RUN steps with the default network");
            vec![Case::seconds("W2b", about, Goal::Ratio(0.15))]
        },
        |site| {
            Ok(Box::new(Cold::new(
                site,
                "trivial-network",
                site.scale.of(TRIVIAL, 2),
                true,
            )?))
        },
    )
}

pub(super) fn cold_chain() -> Entry {
    let rows = |scale: Scale| {
        let steps = scale.of(COLD, 10);
        vec![
            Case::seconds(
                "cold-chain",
                format!("of {steps} RUN steps"),
                Goal::Ratio(0.25),
            ),
            Case::seconds("cold-chain/start", "one step at its start", Goal::None),
            Case::seconds(
                "cold-chain/end",
                "one step at its end",
                Goal::of("cold-chain/start", 1.2),
            ),
        ]
    };
    Entry {
        growth: true,
        rounds: 2,
        ..plain("cold-chain", rows, |site| {
            let mut chain = Cold::new(site, "cold-chain", site.scale.of(COLD, 10), false)?;
            chain.each_step = true;
            Ok(Box::new(chain))
        })
    }
}

/// None of the steps is cached: each has the round in its environment.
struct Cold {
    dir: PathBuf,
    network: bool,
    /// The first and the last steps are figures too.
    each_step: bool,
}

impl Cold {
    fn new(site: &Site, name: &str, steps: usize, network: bool) -> anyhow::Result<Self> {
        let mut dockerfile = chain(steps);
        if network {
            // An engine that gives its steps no network must not be the faster one for it.
            dockerfile =
                dockerfile.replacen("RUN ", "RUN ip address show eth0 | grep 'inet ' && ", 1);
        }
        Ok(Self {
            dir: site.project(name, &dockerfile)?,
            network,
            each_step: false,
        })
    }

    fn build(&self, site: &Site, round: u32) -> Build {
        let build = Build::of(&self.dir)
            .base(&site.busybox)
            .round(round)
            .cache_only();
        let build = if self.network {
            build
        } else {
            build.no_network()
        };
        if self.each_step {
            build.with_times()
        } else {
            build
        }
    }
}

impl Workload for Cold {
    fn warm(&mut self, site: &Site, engine: &Engine) -> anyhow::Result<()> {
        engine.build(&self.build(site, 0)).map(drop)
    }

    fn measure(&mut self, site: &Site, engine: &Engine, round: u32) -> Figures {
        let timed = engine.build_all(&[self.build(site, round)])?;
        let mut figures = vec![(0, timed.seconds)];
        if self.each_step {
            let steps = step_times(&timed.progress[0])?;
            let end = END.min(steps.len() / 2);
            let mean = |steps: &[f64]| median(steps).context("no steps in the progress");
            figures.push((1, mean(&steps[..end])?));
            figures.push((2, mean(&steps[steps.len() - end..])?));
        }
        Ok(figures)
    }
}

/// How far apart the ends of RUN steps are, in their order, from the progress in JSON. That is a step's whole price: what an
/// engine does between two steps counts too.
fn step_times(progress: &str) -> anyhow::Result<Vec<f64>> {
    let mut ends: Vec<f64> = Vec::new();
    for line in progress.lines() {
        let status: Value = serde_json::from_str(line).unwrap_or_default();
        for vertex in status["vertexes"].as_array().into_iter().flatten() {
            let is_step = vertex["name"]
                .as_str()
                .is_some_and(|name| name.contains("] RUN "));
            if let (true, Some(end)) = (is_step, vertex["completed"].as_str()) {
                ends.push(seconds_of_day(end).with_context(|| format!("a time: {end}"))?);
            }
        }
    }
    ensure!(
        ends.len() >= 4,
        "only {} ends of RUN steps in the progress",
        ends.len()
    );
    let day = 86_400.0;
    let apart = ends.windows(2).map(|two| (two[1] - two[0]).rem_euclid(day));
    Ok(apart.collect())
}

/// The seconds since midnight of an RFC 3339 time.
fn seconds_of_day(time: &str) -> Option<f64> {
    let (_, clock) = time.split_once('T')?;
    let clock = clock.trim_end_matches('Z').split(['+', '-']).next()?;
    let mut parts = clock.split(':').map(|part| part.parse::<f64>().ok());
    let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
    Some((hours * 60.0 + minutes) * 60.0 + seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_price_of_steps_is_read_from_progress() {
        let line = |name: &str, time: &str| {
            format!(r#"{{"vertexes":[{{"name":"{name}","completed":"2026-01-01T{time}Z"}}]}}"#)
        };
        let progress = [
            line("[internal] load build definition", "23:59:58.1"),
            line("[2/5] RUN echo 0", "23:59:58.5"),
            "{\"logs\":[]}".to_owned(),
            line("[3/5] RUN echo 1", "23:59:59.5"),
            line("[4/5] RUN echo 2", "00:00:00.25"),
            line("[5/5] RUN echo 3", "00:00:00.5"),
        ];
        let steps = step_times(&progress.join("\n")).expect("steps");
        assert_eq!(steps, [1.0, 0.75, 0.25]);
        assert!(step_times(&progress[..3].join("\n")).is_err());
    }
}
