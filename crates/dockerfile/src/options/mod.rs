//! What the client asks of a build: BuildKit's frontend attributes, as buildx sends them.
//!
//! Names and meanings: BuildKit `frontend/dockerui/config.go`, `attr.go`. What would change the outcome and is not done
//! here is refused by name.

mod values;

use std::collections::BTreeMap;

use bollard_buildkit_proto::pb;
use buildyard_model::Platform;

use values::{Refusal, boolean, extra_hosts, invalid, network, platforms, resolve_mode, ulimits};
pub(crate) use values::{epoch, parse_bool};

/// The options of one build.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Stage to build, by name or number; the last one if none is given.
    pub target: Option<String>,
    /// Platforms to build for; none is the build platform, and the image keeps its base's platform.
    pub platforms: Vec<Platform>,
    /// `BUILDPLATFORM`.
    pub build_platform: Platform,
    /// The outcome is an index even for one platform, and names show platforms.
    pub multi_platform: bool,
    /// `--build-arg`.
    pub build_args: BTreeMap<String, String>,
    /// `--label`.
    pub labels: BTreeMap<String, String>,
    /// `--no-cache`, `--no-cache-filter`.
    pub no_cache: NoCache,
    /// `--add-host`.
    pub extra_hosts: Vec<pb::HostIp>,
    /// `--pull`; for whoever resolves images.
    pub resolve_mode: ResolveMode,
    /// `--network`.
    pub network: pb::NetMode,
    /// Host name in RUN steps; empty for the default.
    pub hostname: String,
    /// `--shm-size` in bytes; 0 for the default.
    pub shm_size: i64,
    /// `--ulimit`.
    pub ulimits: Vec<pb::Ulimit>,
    /// The Dockerfile's path in its local directory.
    pub filename: String,
    /// The name under which the session offers the Dockerfile's directory.
    pub dockerfile_key: String,
    /// The name under which the session offers the build context.
    pub context_key: String,
    /// Sessions other than the build's own that offer a local directory, by its name.
    pub local_sessions: BTreeMap<String, String>,
    /// Prefix of cache mounts' ids.
    pub cache_namespace: String,
    /// `SOURCE_DATE_EPOCH` in seconds.
    pub epoch: Option<i64>,
    /// Attributes that are not known and have no effect.
    pub ignored: Vec<String>,
}

/// Which stages run again even if their results are known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum NoCache {
    /// None.
    #[default]
    Nothing,
    /// All.
    All,
    /// Those of these names.
    Stages(Vec<String>),
}

impl NoCache {
    /// Whether a stage of this name (empty if it has none) is meant.
    pub fn includes(&self, stage: &str) -> bool {
        match self {
            Self::Nothing => false,
            Self::All => true,
            Self::Stages(names) => names.iter().any(|name| name.eq_ignore_ascii_case(stage)),
        }
    }
}

/// Where images are looked up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ResolveMode {
    /// As the engine likes.
    #[default]
    Default,
    /// Always in the registry.
    Pull,
    /// Locally, if there.
    Local,
}

/// An attribute that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// Its value is wrong.
    #[error("invalid value {value:?} of {name}: {problem}")]
    Invalid {
        /// Attribute.
        name: String,
        /// Its value.
        value: String,
        /// What is wrong.
        problem: String,
    },
    /// It asks for something that this engine does not do.
    #[error("{what} ({name}={value}) is not supported yet")]
    Unsupported {
        /// Attribute.
        name: String,
        /// Its value; of a long one, the beginning.
        value: String,
        /// What it asks for.
        what: &'static str,
    },
}

impl Options {
    /// Reads the attributes of a `dockerfile.v0` solve. Unknown ones are listed in [`Options::ignored`].
    ///
    /// # Errors
    /// The first attribute that is wrong or would change the outcome and is not supported.
    pub fn from_attrs(
        attrs: &BTreeMap<String, String>,
        build_platform: &Platform,
    ) -> Result<Self, OptionsError> {
        let mut options = Self::new(build_platform.clone());
        let mut multi_platform = None;
        for (name, value) in attrs {
            let set = options.set(name, value).map_err(|problem| match problem {
                Refusal::Unsupported(what) => OptionsError::Unsupported {
                    name: name.clone(),
                    value: shown(value),
                    what,
                },
                Refusal::Invalid(problem) => OptionsError::Invalid {
                    name: name.clone(),
                    value: value.clone(),
                    problem,
                },
            })?;
            match set {
                Set::Done => {}
                // The build argument comes first in the map and counts for more.
                Set::MultiPlatform(yes) => multi_platform = multi_platform.or(Some((name, yes))),
                Set::Unknown => options.ignored.push(name.clone()),
            }
        }
        options.multi_platform = options.platforms.len() > 1;
        if let Some((name, yes)) = multi_platform {
            if !yes && options.multi_platform {
                let problem = "several target platforms were asked for".to_owned();
                return Err(OptionsError::Invalid {
                    name: name.clone(),
                    value: "false".to_owned(),
                    problem,
                });
            }
            options.multi_platform = yes;
        }
        Ok(options)
    }

    /// Nothing asked for.
    pub fn new(build_platform: Platform) -> Self {
        Self {
            target: None,
            platforms: Vec::new(),
            build_platform,
            multi_platform: false,
            build_args: BTreeMap::new(),
            labels: BTreeMap::new(),
            no_cache: NoCache::default(),
            extra_hosts: Vec::new(),
            resolve_mode: ResolveMode::default(),
            network: pb::NetMode::Unset,
            hostname: String::new(),
            shm_size: 0,
            ulimits: Vec::new(),
            filename: "Dockerfile".to_owned(),
            dockerfile_key: "dockerfile".to_owned(),
            context_key: "context".to_owned(),
            local_sessions: BTreeMap::new(),
            cache_namespace: String::new(),
            epoch: None,
            ignored: Vec::new(),
        }
    }

    fn set(&mut self, name: &str, value: &str) -> Result<Set, Refusal> {
        if let Some((prefix, rest)) = name.split_once(':') {
            return self.set_prefixed(prefix, rest, value);
        }
        let text = value.to_owned();
        match name {
            "target" => self.target = Some(text).filter(|target| !target.is_empty()),
            "platform" => self.platforms = platforms(value)?,
            "no-cache" if value.is_empty() => self.no_cache = NoCache::All,
            "no-cache" => {
                self.no_cache = NoCache::Stages(value.split(',').map(str::to_owned).collect())
            }
            "add-hosts" => self.extra_hosts = extra_hosts(value)?,
            "image-resolve-mode" => self.resolve_mode = resolve_mode(value)?,
            "force-network-mode" => self.network = network(value)?,
            "hostname" if self.hostname.is_empty() => self.hostname = text,
            "hostname" => {}
            "shm-size" if value.is_empty() => {}
            "shm-size" => {
                self.shm_size = value
                    .parse()
                    .map_err(|_| invalid("it must be a number of bytes"))?
            }
            "ulimit" => self.ulimits = ulimits(value)?,
            "filename" if !value.is_empty() => self.filename = text,
            "dockerfilekey" if !value.is_empty() => self.dockerfile_key = text,
            "contextkey" if !value.is_empty() => self.context_key = text,
            "multi-platform" if !value.is_empty() => return boolean(value).map(Set::MultiPlatform),
            _ => return refused(name, value),
        }
        Ok(Set::Done)
    }

    fn set_prefixed(&mut self, prefix: &str, rest: &str, value: &str) -> Result<Set, Refusal> {
        match prefix {
            "build-arg" => return self.set_build_arg(rest, value),
            "label" => drop(self.labels.insert(rest.to_owned(), value.to_owned())),
            "local-sessionid" => drop(
                self.local_sessions
                    .insert(rest.to_owned(), value.to_owned()),
            ),
            "vcs" => {}
            "context" => return Err(Refusal::Unsupported("a named build context")),
            "input" | "input-metadata" => return Err(Refusal::Unsupported("a frontend input")),
            "automount" => return Err(Refusal::Unsupported("an automatic mount")),
            "attest" if value.split(',').any(|part| part == "disabled=true") => {}
            "attest" => return Err(Refusal::Unsupported("an attestation")),
            _ => return Ok(Set::Unknown),
        }
        Ok(Set::Done)
    }

    fn set_build_arg(&mut self, name: &str, value: &str) -> Result<Set, Refusal> {
        self.build_args.insert(name.to_owned(), value.to_owned());
        match name {
            "BUILDKIT_CACHE_MOUNT_NS" => self.cache_namespace = value.to_owned(),
            "BUILDKIT_SANDBOX_HOSTNAME" if !value.is_empty() => self.hostname = value.to_owned(),
            "BUILDKIT_MULTI_PLATFORM" if !value.is_empty() => {
                return boolean(value).map(Set::MultiPlatform);
            }
            "SOURCE_DATE_EPOCH" if !value.is_empty() => {
                self.epoch = Some(epoch(value).map_err(Refusal::Invalid)?)
            }
            _ => {}
        }
        Ok(Set::Done)
    }
}

/// A value for an error: of a long one the beginning, of an address not who logs in there.
fn shown(value: &str) -> String {
    let value = match value.split_once("://") {
        Some((scheme, rest)) => {
            let authority = rest.split('/').next().unwrap_or_default();
            let login = authority.rfind('@').map_or(0, |at| at + 1);
            format!("{scheme}://{}", &rest[login..])
        }
        None => value.to_owned(),
    };
    value.chars().take(200).collect()
}

/// What became of an attribute.
enum Set {
    Done,
    MultiPlatform(bool),
    Unknown,
}

/// Attributes that are known and not set: without effect, the caller's, or refused.
fn refused(name: &str, value: &str) -> Result<Set, Refusal> {
    let what = match name {
        _ if value.is_empty() => return Ok(Set::Done),
        "context" => "a build context that is no local directory",
        "contextsubdir" => "a subdirectory of the build context",
        "requestid" => "this request",
        "cgroup-parent" => "a parent of the steps' control groups",
        "device" | "devices" => "a device",
        "linux-resources" | "resource" | "resources" => "a resource limit",
        "override-copy-image" => "another image for copying",
        "source" | "cmdline" | "frontend.caps" | "cache-from" | "cache-imports"
        | "multi-platform" => {
            return Ok(Set::Done);
        }
        _ => return Ok(Set::Unknown),
    };
    match (name, value) {
        ("requestid", "frontend.dockerfile.build" | "build") => Ok(Set::Done),
        _ => Err(Refusal::Unsupported(what)),
    }
}

#[cfg(test)]
mod tests;
