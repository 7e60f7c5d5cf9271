//! Results that go to the client: a root file system as files (W9), both platforms as an archive (W10).

use std::path::{Path, PathBuf};

use anyhow::Context;

use super::{OneFigure, plain};
use crate::case::{Case, Goal};
use crate::catalogue::Entry;
use crate::client::Build;
use crate::engine::Engine;
use crate::site::{Scale, Site, write_text};

/// The text that W10 packs, once for both platforms and once more for each: 8 MB.
const TEXT: usize = 8_000_000;

pub(super) fn to_a_folder() -> Entry {
    plain(
        "W9",
        |_| {
            let about = "a Debian root file system to type=local";
            vec![Case::seconds("W9", about, Goal::Ratio(0.6))]
        },
        |site| {
            site.debian()?;
            let dockerfile = "ARG BASE\nFROM $BASE\nARG ROUND\nRUN echo $ROUND > /round\n";
            Ok(Box::new(Folder {
                dir: site.project("folder", dockerfile)?,
            }))
        },
    )
}

pub(super) fn to_an_archive() -> Entry {
    let rows = |scale: Scale| {
        let megabytes = 3.0 * scale.of(TEXT, 100_000) as f64 / 1e6;
        let about = format!("both platforms as type=oci, {megabytes:.1} MB of new layers");
        vec![Case::seconds("W10", about, Goal::Ratio(0.4))]
    };
    Entry {
        emulated: true,
        ..plain("W10", rows, |site| {
            let dockerfile =
                "ARG BASE\nFROM $BASE\nCOPY text /text\nRUN { uname -m; cat /text; } > /copy\n";
            let dir = site.project("archive", dockerfile)?;
            let size = site.scale.of(TEXT, 100_000);
            write_text(&dir.join("text"), 0, size)?;
            Ok(Box::new(Archive { dir, size }))
        })
    }
}

struct Folder {
    dir: PathBuf,
}

impl OneFigure for Folder {
    /// What was exported stays until the end of the run: ext4 without a journal gives nobody an inode that was freed a minute
    /// ago, and looks for another one by one. After so many deletions that took the client five seconds, whoever sent the files.
    fn run(&self, site: &Site, engine: &Engine, round: u32) -> anyhow::Result<f64> {
        let out = site.output(&format!("folder-{}-{round}", engine.side().name()));
        let build = Build::of(&self.dir)
            .base(site.debian()?)
            .round(round)
            .no_network()
            .arg(format!("--output=type=local,dest={}", out.display()));
        engine.build(&build)
    }
}

struct Archive {
    dir: PathBuf,
    size: usize,
}

impl OneFigure for Archive {
    fn change(&mut self, round: u32) -> anyhow::Result<()> {
        write_text(&self.dir.join("text"), u64::from(round), self.size)
    }

    fn run(&self, site: &Site, engine: &Engine, _round: u32) -> anyhow::Result<f64> {
        let out = site.output("archive");
        let build = Build::of(&self.dir)
            .base(&site.busybox)
            .two_platforms()
            .no_network()
            .arg(format!("--output=type=oci,dest={}", out.display()));
        let figure = engine.build(&build);
        remove(&out)?;
        figure
    }
}

/// Removes the archive, if there is one: the next build begins with nothing there.
fn remove(out: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(out) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", out.display()))
        }
        _ => Ok(()),
    }
}
