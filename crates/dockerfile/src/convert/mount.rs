//! `RUN --mount`.

use bollard_buildkit_proto::pb;
use buildyard_llb::build::{Node, Output};

use super::action::owner;
use super::mount_options::{Options, Type, invalid, options};
use super::path::normalize;
use super::stage::Running;
use crate::error::Problem;
use crate::instruction::{MountFlag, Run};

/// A mount and what is mounted; inputs and outputs are numbered later.
pub(super) struct Mount {
    pub(super) message: pb::Mount,
    pub(super) source: Option<Output>,
}

/// A secret, as a file or a variable or both.
pub(super) struct Secret {
    pub(super) variable: Option<pb::SecretEnv>,
    pub(super) mount: Option<pb::Mount>,
}

impl Mount {
    /// The root file system: the one mount with an output.
    pub(super) fn root(source: Option<Output>) -> Self {
        Self {
            message: pb::Mount {
                dest: "/".to_owned(),
                ..Default::default()
            },
            source,
        }
    }

    /// A part of `source` that cannot be written.
    pub(super) fn read_only(dest: &str, source: Option<Output>, selector: &str) -> Self {
        let selector = selector.to_owned();
        let message = pb::Mount {
            dest: dest.to_owned(),
            selector,
            readonly: true,
            output: -1,
            ..Default::default()
        };
        Self { message, source }
    }

    /// An empty file system in memory; `size` 0 is no limit.
    pub(super) fn tmpfs(dest: &str, size: i64) -> Self {
        let message = pb::Mount {
            dest: dest.to_owned(),
            output: -1,
            mount_type: pb::MountType::Tmpfs.into(),
            tmpfs_opt: Some(pb::TmpfsOpt { size }),
            ..Default::default()
        };
        Self {
            message,
            source: None,
        }
    }
}

/// Adds the mounts of a RUN instruction.
pub(super) fn mounts(
    running: &mut Running<'_, '_>,
    run: &Run,
    mounts: &mut Vec<Mount>,
    secrets: &mut Vec<Secret>,
) -> Result<(), Problem> {
    for (number, flag) in run.mounts.iter().enumerate() {
        let options = options(running, flag)?;
        match options.kind {
            Type::Secret => secrets.push(secret(&options)?),
            Type::Ssh => return Err(Problem::Unsupported("RUN --mount=type=ssh".to_owned())),
            _ => {
                let mount = directory(running, number, flag, &options)?;
                if mounts
                    .iter()
                    .any(|other| other.message.dest == mount.message.dest)
                {
                    return Err(invalid(format!(
                        "two mounts have the target {:?}",
                        mount.message.dest
                    )));
                }
                mounts.push(mount);
            }
        }
    }
    Ok(())
}

/// A bind, cache or tmpfs mount.
fn directory(
    running: &mut Running<'_, '_>,
    number: usize,
    flag: &MountFlag,
    options: &Options,
) -> Result<Mount, Problem> {
    let target = normalize(&running.stage.state.dir, &options.target, false);
    if target == "/" {
        return Err(invalid(format!(
            "invalid mount target {:?}",
            options.target
        )));
    }
    if options.kind == Type::Tmpfs {
        let mut mount = Mount::tmpfs(&target, options.size);
        mount.message.readonly = options.read_only.unwrap_or(false);
        return Ok(mount);
    }
    let mut source = source(running, number, flag, options)?;
    let mut message = pb::Mount {
        dest: target,
        output: -1,
        ..Default::default()
    };
    message.readonly = options.read_only.unwrap_or(options.kind == Type::Bind);
    let selector = normalize("/", &options.source, false);
    if selector != "/" {
        message.selector = selector;
    } else if options.kind == Type::Cache
        && (options.mode, options.uid, options.gid) != (None, None, None)
    {
        source = Some(owned_directory(running, source, options)?);
        message.selector = "/cache".to_owned();
    }
    if options.kind == Type::Cache {
        let id = if options.id.is_empty() {
            normalize("/", &options.target, false)
        } else {
            options.id.clone()
        };
        message.mount_type = pb::MountType::Cache.into();
        message.cache_opt = Some(pb::CacheOpt {
            id: format!("{}/{id}", running.work.options.cache_namespace),
            sharing: options
                .sharing
                .unwrap_or(pb::CacheSharingOpt::Shared)
                .into(),
        });
    }
    Ok(Mount { message, source })
}

/// What is mounted: another stage or image, the build context, or nothing for a cache.
fn source(
    running: &mut Running<'_, '_>,
    number: usize,
    flag: &MountFlag,
    options: &Options,
) -> Result<Option<Output>, Problem> {
    let named = running.sources.get(number).cloned().flatten();
    match (named, &flag.from) {
        (Some(stage), _) if stage.done => Ok(stage.output),
        (Some(stage), _) => Err(Problem::DefinedLater {
            what: "mount from",
            from: stage.label,
            current: running.stage.label.clone(),
        }),
        (None, Some(from)) => Err(invalid(format!("cannot mount from {from:?}"))),
        (None, None) if options.kind == Type::Cache => Ok(None),
        (None, None) => Ok(Some(running.work.use_context(&options.source))),
    }
}

/// A directory with the owner and mode that a new cache begins with.
fn owned_directory(
    running: &mut Running<'_, '_>,
    base: Option<Output>,
    options: &Options,
) -> Result<Output, Problem> {
    let input = if base.is_some() { 0 } else { -1 };
    let ids = format!("{}:{}", options.uid.unwrap_or(0), options.gid.unwrap_or(0));
    let action = pb::FileActionMkDir {
        path: "/cache".to_owned(),
        mode: (options.mode.unwrap_or(0o755) & 0o777) as i32,
        make_parents: false,
        owner: Some(owner(&ids, input)),
        timestamp: -1,
    };
    let action = pb::FileAction {
        input,
        secondary_input: -1,
        output: 0,
        action: Some(pb::file_action::Action::Mkdir(action)),
    };
    let node = Node::new(pb::op::Op::File(pb::FileOp {
        actions: vec![action],
    }))
    .inputs(base)
    .name("[internal] settings cache mount permissions")
    .cap("file.base");
    running.work.add(node, 128)
}

fn secret(options: &Options) -> Result<Secret, Problem> {
    let base = |path: &str| {
        path.trim_end_matches('/')
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    if !options.source.is_empty() && !options.id.is_empty() {
        return Err(invalid("both source and id can't be set".to_owned()));
    }
    let given = if options.source.is_empty() {
        &options.id
    } else {
        &options.source
    };
    let id = if given.is_empty() {
        base(&options.target)
    } else {
        given.clone()
    };
    if id.is_empty() {
        return Err(invalid(
            "invalid secret mount. one of source, target required".to_owned(),
        ));
    }
    let target = match (options.target.is_empty(), &options.env) {
        (false, _) => Some(options.target.clone()),
        (true, None) => Some(format!("/run/secrets/{}", base(&id))),
        (true, Some(_)) => None,
    };
    let optional = !options.required;
    let variable = options.env.clone().map(|name| pb::SecretEnv {
        id: id.clone(),
        name,
        optional,
    });
    let mount = target.map(|dest| pb::Mount {
        input: -1,
        output: -1,
        dest,
        mount_type: pb::MountType::Secret.into(),
        secret_opt: Some(pb::SecretOpt {
            id,
            uid: options.uid.unwrap_or(0),
            gid: options.gid.unwrap_or(0),
            mode: options.mode.unwrap_or(0o400),
            optional,
        }),
        ..Default::default()
    });
    Ok(Secret { variable, mount })
}
