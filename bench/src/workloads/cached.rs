//! Builds of which nothing is new: chains of RUN steps, and fans of many stages that the last one copies from.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::{Figures, Workload, plain};
use crate::case::{Case, Goal};
use crate::catalogue::Entry;
use crate::client::Build;
use crate::engine::Engine;
use crate::site::{Scale, Site};

/// Steps of the chains.
const CHAINS: [usize; 3] = [10, 100, 400];
/// Stages of the fans.
const FANS: [usize; 3] = [10, 100, 300];

pub(super) fn chains() -> Entry {
    Entry {
        growth: true,
        ..plain(
            "chain",
            |scale| rows("chain", CHAINS, "RUN steps", scale),
            |site| Ok(Box::new(Cached::new(site, "chain", CHAINS, chain)?)),
        )
    }
}

pub(super) fn fans() -> Entry {
    Entry {
        growth: true,
        ..plain(
            "fan",
            |scale| rows("fan", FANS, "stages, each copied from", scale),
            |site| Ok(Box::new(Cached::new(site, "fan", FANS, fan)?)),
        )
    }
}

/// A row for each size; the largest has the goal.
fn rows(name: &str, sizes: [usize; 3], what: &str, scale: Scale) -> Vec<Case> {
    let row = |full: usize| {
        let goal = match full == sizes[2] {
            true => Goal::Ratio(0.25),
            false => Goal::None,
        };
        let about = format!("cached, {} {what}", scale.of(full, 2));
        Case::seconds(format!("{name}/{full}"), about, goal)
    };
    sizes.map(row).to_vec()
}

/// A Dockerfile with so many steps behind each other. Each changes something, as real ones do.
pub(super) fn chain(steps: usize) -> String {
    let mut text = "ARG BASE\nFROM $BASE\nARG ROUND\n".to_owned();
    for step in 0..steps {
        // Writing into memory does not fail.
        let _ = writeln!(text, "RUN echo {step} > /step-{step}");
    }
    text
}

/// A Dockerfile with so many stages, and one that has a file of each.
fn fan(stages: usize) -> String {
    let mut text = "ARG BASE\n".to_owned();
    for stage in 0..stages {
        let _ = writeln!(
            text,
            "FROM $BASE AS stage-{stage}\nRUN echo {stage} > /file-{stage}"
        );
    }
    text += "FROM scratch\n";
    for stage in 0..stages {
        let _ = writeln!(text, "COPY --from=stage-{stage} /file-{stage} /");
    }
    text
}

/// A build of each size, all of whose steps are cached.
struct Cached {
    dirs: Vec<PathBuf>,
}

impl Cached {
    fn new(
        site: &Site,
        name: &str,
        sizes: [usize; 3],
        dockerfile: fn(usize) -> String,
    ) -> anyhow::Result<Self> {
        let project = |full: usize| {
            let text = dockerfile(site.scale.of(full, 2));
            site.project(&format!("{name}-{full}"), &text)
        };
        let dirs = sizes
            .map(project)
            .into_iter()
            .collect::<anyhow::Result<_>>()?;
        Ok(Self { dirs })
    }

    fn build(site: &Site, dir: &Path) -> Build {
        Build::of(dir).base(&site.busybox).no_network().cache_only()
    }
}

impl Workload for Cached {
    fn warm(&mut self, site: &Site, engine: &Engine) -> anyhow::Result<()> {
        for dir in &self.dirs {
            engine.build(&Self::build(site, dir))?;
        }
        Ok(())
    }

    fn measure(&mut self, site: &Site, engine: &Engine, _round: u32) -> Figures {
        let each = self.dirs.iter().enumerate();
        each.map(|(row, dir)| Ok((row, engine.build(&Self::build(site, dir))?)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockerfiles_have_their_steps() {
        assert_eq!(chain(3).matches("\nRUN ").count(), 3, "{}", chain(3));
        assert_eq!(
            fan(3).matches("\nCOPY --from=stage-").count(),
            3,
            "{}",
            fan(3)
        );
        assert_eq!(fan(3).matches("\nRUN ").count(), 3, "{}", fan(3));
    }
}
