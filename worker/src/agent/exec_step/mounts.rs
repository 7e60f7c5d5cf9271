//! The mounts of a step.

use std::sync::Arc;

use anyhow::Context;
use buildyard_layer::{FileReader, Kind, NameFiles, Node, Tree, names::name_files, unpack};
use buildyard_llb::pb;
use buildyard_model::{Chain, Platform};

use super::caches::{self, Fill, Taken};
use super::executor::Executor;
use super::inputs::{self, Ready};
use super::{StepError, process};
use crate::agent::cache::Using;
use crate::agent::failure;
use crate::agent::job::Job;
use crate::agent::machine::Machine;
use crate::agent::spec::JobStep;
use crate::runner::{ContainerMount, ContainerSource};
use crate::snapshots::{Mounts, UpperDir};

/// A writable mount whose changes are a result of the step.
pub(super) struct Output {
    pub(super) index: usize,
    pub(super) base: Chain,
    pub(super) tree: Arc<Tree>,
    pub(super) upper: UpperDir,
    pub(super) is_root: bool,
}

/// A step's mounts, and what has to live as long as it runs.
pub(super) struct Prepared {
    pub(super) root: Mounts,
    pub(super) read_only_root: bool,
    pub(super) mounts: Vec<ContainerMount>,
    pub(super) outputs: Vec<Output>,
    root_tree: Arc<Tree>,
    _scratch: Vec<UpperDir>,
    caches: Taken,
    _using: Vec<Using>,
}

impl Prepared {
    /// `etc/passwd` and `etc/group` of the root file system.
    pub(super) async fn names(&self, machine: &Machine) -> Result<NameFiles, StepError> {
        let (tree, flats) = (self.root_tree.clone(), machine.layers.flats().clone());
        let read = move || {
            name_files(&tree, &mut |node: &Node<'_>| {
                use std::io::Read;
                let Kind::File { size, .. } = node.entry.kind else {
                    return Ok(Vec::new());
                };
                let mut bytes = Vec::new();
                let Kind::File { extents, .. } = &node.entry.kind else {
                    return Ok(bytes);
                };
                FileReader::new(&flats, node.flats, size, extents).read_to_end(&mut bytes)?;
                Ok(bytes)
            })
        };
        let names = tokio::task::spawn_blocking(read)
            .await
            .expect("reading does not panic");
        Ok(names.context("reading etc/passwd and etc/group")?)
    }
}

/// Makes all mounts of an operation ready. Its cache mounts are taken already.
#[allow(
    clippy::too_many_arguments,
    reason = "one call, of parts that have no name together"
)]
pub(super) async fn prepare(
    machine: &Arc<Machine>,
    job: &Arc<Job>,
    step: &JobStep,
    executor: &Executor,
    exec: &pb::ExecOp,
    inputs: &[Chain],
    platform: &Platform,
    caches: Taken,
) -> Result<Prepared, StepError> {
    let root = exec
        .mounts
        .iter()
        .find(|mount| mount.dest == "/")
        .ok_or_else(|| anyhow::anyhow!("the operation has no root mount"))?;
    let (ready, upper, mounts) =
        input(machine, job, step, executor, inputs, root.input, true).await?;
    let mut prepared = Prepared {
        root: mounts,
        read_only_root: root.readonly,
        mounts: Vec::new(),
        outputs: Vec::new(),
        root_tree: ready.tree.clone(),
        _scratch: Vec::new(),
        caches,
        _using: Vec::new(),
    };
    prepared.keep(root, ready, upper, true);
    let mut mounts: Vec<&pb::Mount> = exec.mounts.iter().filter(|m| m.dest != "/").collect();
    // What lies in another mount comes after it, as in BuildKit.
    mounts.sort_by_key(|mount| &mount.dest);
    for mount in mounts {
        let source = prepared
            .source(machine, job, step, executor, inputs, mount, platform)
            .await?;
        if let Some(source) = source {
            let destination = destination(&mount.dest, exec);
            prepared.mounts.push(ContainerMount {
                destination,
                source,
                read_only: mount.readonly,
            });
        }
    }
    Ok(prepared)
}

impl Prepared {
    /// Keeps what an input needs while the step runs, and its upper directory: as an output, or only as long.
    fn keep(&mut self, mount: &pb::Mount, ready: Ready, upper: Option<UpperDir>, is_root: bool) {
        self._using.extend(ready.using);
        let Some(upper) = upper else {
            return;
        };
        match usize::try_from(mount.output) {
            Ok(index) if !mount.readonly => {
                self.outputs.push(Output {
                    index,
                    base: ready.chain,
                    tree: ready.tree,
                    upper,
                    is_root,
                });
            }
            _ => self._scratch.push(upper),
        }
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "one call, of parts that have no name together"
    )]
    async fn source(
        &mut self,
        machine: &Arc<Machine>,
        job: &Arc<Job>,
        step: &JobStep,
        executor: &Executor,
        inputs: &[Chain],
        mount: &pb::Mount,
        platform: &Platform,
    ) -> Result<Option<ContainerSource>, StepError> {
        let selector = mount.selector.clone();
        match mount.mount_type() {
            pb::MountType::Bind => {
                let writable = !mount.readonly;
                let (ready, upper, mounts) =
                    input(machine, job, step, executor, inputs, mount.input, writable).await?;
                self.keep(mount, ready, upper, false);
                Ok(Some(ContainerSource::Snapshot { mounts, selector }))
            }
            pb::MountType::Cache => {
                let fill = match mount.input {
                    -1 => None,
                    input_index => {
                        let (ready, _, _) =
                            input(machine, job, step, executor, inputs, input_index, false).await?;
                        Some(copy_of(machine, ready.tree))
                    }
                };
                let name = caches::name(mount, inputs, platform);
                let cache = self.caches.get(&name);
                let cache = cache.ok_or_else(|| anyhow::anyhow!("a cache mount was not taken"))?;
                cache.make(fill).await.context("making a cache mount")?;
                let mounts = cache.mounts();
                Ok(Some(ContainerSource::Snapshot { mounts, selector }))
            }
            pb::MountType::Tmpfs => {
                let size = mount.tmpfs_opt.as_ref().map_or(0, |options| options.size);
                Ok(Some(ContainerSource::Tmpfs(
                    u64::try_from(size).ok().filter(|size| *size > 0),
                )))
            }
            pb::MountType::Secret => {
                let options = mount.secret_opt.clone().unwrap_or_default();
                let refuse =
                    |text: String| StepError::from(failure::of_step(step.step.digest, text, 0));
                match process::secret(machine, job, &options.id)
                    .await
                    .map_err(&refuse)?
                {
                    Some(data) => Ok(Some(ContainerSource::Secret {
                        contents: data.into(),
                        mode: options.mode,
                        uid: options.uid,
                        gid: options.gid,
                    })),
                    None if options.optional => Ok(None),
                    None => Err(refuse(format!("secret {}: not found", options.id))),
                }
            }
            pb::MountType::Ssh => {
                let text = "ssh mounts are not supported yet";
                Err(failure::of_step(step.step.digest, text, 0).into())
            }
        }
    }
}

/// An input of the operation, ready and mounted; the empty chain where it has none.
async fn input(
    machine: &Arc<Machine>,
    job: &Arc<Job>,
    step: &JobStep,
    executor: &Executor,
    inputs: &[Chain],
    index: i64,
    writable: bool,
) -> Result<(Ready, Option<UpperDir>, Mounts), StepError> {
    let chain = usize::try_from(index)
        .ok()
        .and_then(|index| inputs.get(index))
        .cloned()
        .unwrap_or_default();
    inputs::mounted(machine, job, step, &chain, &executor.snapshots, writable).await
}

/// Fills a new cache mount with a copy of its initial contents.
fn copy_of(machine: &Machine, tree: Arc<Tree>) -> Fill {
    let flats = machine.layers.flats().clone();
    Arc::new(move |dir| Ok(unpack(&tree.to_toc(), &flats, dir)?))
}

/// A mount point relative to the working directory is taken from there.
fn destination(dest: &str, exec: &pb::ExecOp) -> String {
    if dest.starts_with('/') {
        return dest.to_owned();
    }
    let cwd = exec
        .meta
        .as_ref()
        .map(|meta| meta.cwd.as_str())
        .unwrap_or("/");
    format!("{}/{dest}", cwd.trim_end_matches('/'))
}
