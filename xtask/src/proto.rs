//! The generated code of `buildyard.v1`: made from its `.proto` file by protoc, and kept in the repository so that a build
//! needs no protoc.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;

use crate::command::find;

const GENERATED: &str = "proto/src/generated";

/// `cargo xtask proto`.
#[derive(Debug, Args)]
pub(crate) struct ProtoArgs {
    /// Only say whether the generated code is what protoc makes now
    #[arg(long)]
    check: bool,
}

/// Makes or checks the generated code.
///
/// # Errors
/// protoc is missing or fails, or with `--check` the code is out of date.
pub(crate) fn run(root: &Path, args: &ProtoArgs) -> anyhow::Result<()> {
    if args.check {
        check(root)
    } else {
        generate(root, &root.join(GENERATED))
    }
}

/// Whether the code can be generated on this machine.
pub(crate) fn has_protoc() -> bool {
    std::env::var_os("PROTOC").is_some() || find("protoc").is_some()
}

/// Compares the generated code with what would be generated now.
///
/// # Errors
/// They differ, or protoc fails.
pub(crate) fn check(root: &Path) -> anyhow::Result<()> {
    let fresh = tempfile::tempdir().context("making a folder")?;
    generate(root, fresh.path())?;
    let kept = root.join(GENERATED);
    for file in listed(fresh.path())? {
        let name = file.file_name().context("a generated file has a name")?;
        let old = fs::read(kept.join(name)).unwrap_or_default();
        if fs::read(&file)? != old {
            bail!(
                "{GENERATED}/{} is not what protoc makes of proto/: run `cargo xtask proto`",
                name.display()
            );
        }
    }
    Ok(())
}

/// Writes the generated code into `out`.
fn generate(root: &Path, out: &Path) -> anyhow::Result<()> {
    let proto = root.join("proto");
    tonic_prost_build::configure()
        .out_dir(out)
        .bytes(".buildyard.v1")
        .emit_rerun_if_changed(false)
        .compile_protos(&[proto.join("buildyard/v1/farm.proto")], &[proto])
        .context("generating the code of buildyard.v1; is protoc installed?")
}

fn listed(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))?;
    entries.map(|entry| Ok(entry?.path())).collect()
}
