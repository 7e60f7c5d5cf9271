//! `cargo xtask`: what a developer runs.

mod proto;

fn main() -> anyhow::Result<()> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the workspace");
    proto::generate(root, &root.join("proto/src/generated"))
}
