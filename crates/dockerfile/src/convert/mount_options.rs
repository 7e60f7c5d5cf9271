//! The comma separated options of a mount, as BuildKit's `instructions/commands_runmount.go` has them.

use bollard_buildkit_proto::pb;

use super::stage::Running;
use crate::error::Problem;
use crate::instruction::MountFlag;
use crate::options::parse_bool;
use crate::suggest::{hint, nearest};

/// What is mounted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Type {
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
pub(super) struct Options {
    pub(super) kind: Type,
    pub(super) source: String,
    pub(super) target: String,
    pub(super) read_only: Option<bool>,
    pub(super) required: bool,
    pub(super) size: i64,
    pub(super) id: String,
    pub(super) sharing: Option<pb::CacheSharingOpt>,
    pub(super) env: Option<String>,
    pub(super) mode: Option<u32>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
}

pub(super) fn invalid(message: String) -> Problem {
    Problem::Invalid(message)
}

const KEYS: [&str; 19] = [
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
];

/// Reads the fields of a mount.
pub(super) fn options(running: &mut Running<'_, '_>, flag: &MountFlag) -> Result<Options, Problem> {
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
