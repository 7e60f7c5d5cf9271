//! `RUN --mount`.

use bollard_buildkit_proto::pb;
use buildyard_llb::build::{Node, Output};

use super::stage::Running;
use super::transfer::{normalize, owner};
use crate::error::Problem;
use crate::instruction::{MountFlag, Run};
use crate::options::parse_bool;
use crate::suggest::{hint, nearest};

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

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Type {
    #[default]
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

impl Type {
    const NAMES: [(&'static str, Self); 5] = [
        ("bind", Self::Bind),
        ("cache", Self::Cache),
        ("tmpfs", Self::Tmpfs),
        ("secret", Self::Secret),
        ("ssh", Self::Ssh),
    ];

    fn name(self) -> &'static str {
        Self::NAMES
            .iter()
            .find(|(_, kind)| *kind == self)
            .map_or("", |(name, _)| name)
    }
}

/// The options of a mount, expanded.
#[derive(Debug, Default)]
struct Options {
    kind: Type,
    source: String,
    target: String,
    read_only: Option<bool>,
    required: bool,
    size: i64,
    id: String,
    sharing: Option<pb::CacheSharingOpt>,
    env: Option<String>,
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
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

fn invalid(message: String) -> Problem {
    Problem::Invalid(message)
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

const KEYS: [&str; 20] = [
    "type",
    "from",
    "source",
    "src",
    "target",
    "dst",
    "destination",
    "readonly",
    "ro",
    "readwrite",
    "rw",
    "required",
    "size",
    "id",
    "sharing",
    "mode",
    "uid",
    "gid",
    "env",
    "env",
];

fn options(running: &mut Running<'_, '_>, flag: &MountFlag) -> Result<Options, Problem> {
    let mut options = Options::default();
    for field in &flag.fields {
        let (key, value) = field
            .split_once('=')
            .map_or((field.as_str(), None), |(key, value)| (key, Some(value)));
        let key = key.to_lowercase();
        let value = value.map(|value| running.expand(value)).transpose()?;
        options.set(&key, value.as_deref(), field)?;
    }
    options.check(flag)?;
    Ok(options)
}

impl Options {
    fn set(&mut self, key: &str, value: Option<&str>, field: &str) -> Result<(), Problem> {
        let flag = || match value {
            None => Ok(true),
            Some(text) => {
                parse_bool(text).ok_or_else(|| invalid(format!("invalid value for {key}: {text}")))
            }
        };
        match key {
            "readonly" | "ro" => self.read_only = Some(flag()?),
            "readwrite" | "rw" => self.read_only = Some(!flag()?),
            "required" if matches!(self.kind, Type::Secret | Type::Ssh) => self.required = flag()?,
            _ => {
                let Some(value) = value else {
                    return Err(match KEYS.contains(&key) {
                        true => {
                            invalid(format!("invalid field '{field}' must be a key=value pair"))
                        }
                        false => unknown(key, field),
                    });
                };
                return self.set_value(key, value, field);
            }
        }
        Ok(())
    }

    fn set_value(&mut self, key: &str, value: &str, field: &str) -> Result<(), Problem> {
        let number = |radix| {
            u32::from_str_radix(value, radix)
                .map_err(|_| invalid(format!("invalid value {value} for {key}")))
                .map(Some)
        };
        match key {
            "type" => self.kind = kind(value)?,
            "from" => {}
            "source" | "src" => value.clone_into(&mut self.source),
            "target" | "dst" | "destination" => value.clone_into(&mut self.target),
            "id" => value.clone_into(&mut self.id),
            "env" if self.kind == Type::Secret => self.env = Some(value.to_owned()),
            "size" if self.kind == Type::Tmpfs => {
                self.size = size(value)
                    .ok_or_else(|| invalid(format!("invalid value for size: {value}")))?;
            }
            "sharing" => self.sharing = Some(sharing(value)?),
            "mode" => self.mode = number(8)?,
            "uid" => self.uid = number(10)?,
            "gid" => self.gid = number(10)?,
            "env" | "size" | "required" => {
                return Err(invalid(format!(
                    "unexpected key '{key}' for mount type '{}'",
                    self.kind.name()
                )));
            }
            _ => return Err(unknown(key, field)),
        }
        Ok(())
    }

    /// What does not go together.
    fn check(&self, flag: &MountFlag) -> Result<(), Problem> {
        let kind = self.kind.name();
        if matches!(self.kind, Type::Bind | Type::Tmpfs) {
            for (name, given) in [("mode", self.mode), ("uid", self.uid), ("gid", self.gid)] {
                if given.is_some() {
                    return Err(invalid(format!(
                        "{name} not allowed for {kind:?} type mounts"
                    )));
                }
            }
        }
        if self.sharing.is_some() && self.kind != Type::Cache {
            return Err(invalid(format!(
                "invalid cache sharing set for {kind} mount"
            )));
        }
        if flag.from.is_some() && matches!(self.kind, Type::Secret | Type::Ssh) {
            return Err(invalid(format!("{kind} mount should not have a from")));
        }
        Ok(())
    }
}

fn unknown(key: &str, field: &str) -> Problem {
    let suggestion = nearest(key, KEYS);
    invalid(format!(
        "unexpected key '{key}' in '{field}'{}",
        hint(suggestion.as_deref())
    ))
}

fn kind(value: &str) -> Result<Type, Problem> {
    let lower = value.to_lowercase();
    Type::NAMES
        .iter()
        .find(|(name, _)| *name == lower)
        .map(|(_, kind)| *kind)
        .ok_or_else(|| {
            let suggestion = nearest(value, Type::NAMES.map(|(name, _)| name));
            invalid(format!(
                "unsupported mount type {value:?}{}",
                hint(suggestion.as_deref())
            ))
        })
}

fn sharing(value: &str) -> Result<pb::CacheSharingOpt, Problem> {
    match value.to_lowercase().as_str() {
        "shared" => Ok(pb::CacheSharingOpt::Shared),
        "private" => Ok(pb::CacheSharingOpt::Private),
        "locked" => Ok(pb::CacheSharingOpt::Locked),
        _ => {
            let suggestion = nearest(value, ["shared", "private", "locked"]);
            Err(invalid(format!(
                "unsupported sharing value {value:?}{}",
                hint(suggestion.as_deref())
            )))
        }
    }
}

/// A size with a binary unit: `64m`, `1GiB`, `512`.
fn size(text: &str) -> Option<i64> {
    let lower = text.trim().to_lowercase();
    let end = lower
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(lower.len());
    let (number, unit) = lower.split_at(end);
    let unit = unit.trim_start();
    let unit = unit
        .strip_suffix("ib")
        .or(unit.strip_suffix('b'))
        .unwrap_or(unit);
    let shift = match unit {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return None,
    };
    let bytes = number.parse::<f64>().ok()? * (1_i64 << shift) as f64;
    (bytes.is_finite() && bytes >= 0.0 && bytes < i64::MAX as f64).then_some(bytes as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        let check = |text, expected| assert_eq!(size(text), expected, "{text:?}");
        check("512", Some(512));
        check("64m", Some(64 << 20));
        check("1GiB", Some(1 << 30));
        check("1.5 kB", Some(1536));
        check("b", None);
        check("1x", None);
        check("-1", None);
        check("99999999p", None);
    }
}
