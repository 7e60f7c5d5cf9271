//! Makes the generated code of `buildyard.v1` from its `.proto` file (needs `protoc`).

use std::path::Path;

use anyhow::Context;

/// Writes the generated code into `out`.
pub(crate) fn generate(root: &Path, out: &Path) -> anyhow::Result<()> {
    let proto = root.join("proto");
    tonic_prost_build::configure()
        .out_dir(out)
        .bytes(".buildyard.v1")
        .compile_protos(&[proto.join("buildyard/v1/farm.proto")], &[proto])
        .context("generating the code of buildyard.v1; is protoc installed?")
}
