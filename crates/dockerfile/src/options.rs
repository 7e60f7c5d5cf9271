//! What the client asks of a build: BuildKit's frontend attributes, as buildx sends them.
//!
//! Names and meanings: BuildKit `frontend/dockerui/config.go`, `attr.go`. What would change the outcome and is not done
//! here is refused by name.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bollard_buildkit_proto::pb;
use buildyard_model::Platform;

use crate::{csv, limits};

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
    /// `--cgroup-parent`.
    pub cgroup_parent: String,
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
    #[error("{what} ({name}) is not supported yet")]
    Unsupported {
        /// Attribute.
        name: String,
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
            cgroup_parent: String::new(),
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
            "cgroup-parent" => self.cgroup_parent = text,
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

/// What became of an attribute.
enum Set {
    Done,
    MultiPlatform(bool),
    Unknown,
}

enum Refusal {
    Invalid(String),
    Unsupported(&'static str),
}

fn invalid(problem: impl Into<String>) -> Refusal {
    Refusal::Invalid(problem.into())
}

/// Attributes that are known and not set: without effect, the caller's, or refused.
fn refused(name: &str, value: &str) -> Result<Set, Refusal> {
    let what = match name {
        _ if value.is_empty() => return Ok(Set::Done),
        "context" => "a build context that is no local directory",
        "contextsubdir" => "a subdirectory of the build context",
        "requestid" => "this request",
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

fn platforms(value: &str) -> Result<Vec<Platform>, Refusal> {
    if value.is_empty() {
        return Ok(Vec::new());
    }
    let mut platforms: Vec<Platform> = Vec::new();
    for part in value.split(',') {
        let platform = part
            .trim()
            .parse()
            .map_err(|error| invalid(format!("{error}")))?;
        if !platforms.contains(&platform) {
            platforms.push(platform);
        }
    }
    match platforms.len() > limits::PLATFORMS {
        true => Err(invalid(format!(
            "more than {} platforms",
            limits::PLATFORMS
        ))),
        false => Ok(platforms),
    }
}

fn extra_hosts(value: &str) -> Result<Vec<pb::HostIp>, Refusal> {
    if value.is_empty() {
        return Ok(Vec::new());
    }
    let host = |field: &String| {
        let field = field.to_lowercase();
        let (host, ip) = field
            .split_once('=')
            .ok_or_else(|| invalid(format!("{field:?} must be host=ip")))?;
        let ip: IpAddr = ip
            .parse()
            .map_err(|_| invalid(format!("{ip:?} is not an IP address")))?;
        Ok(pb::HostIp {
            host: host.to_owned(),
            ip: ip.to_string(),
        })
    };
    csv::fields(value)
        .map_err(invalid)?
        .iter()
        .map(host)
        .collect()
}

fn resolve_mode(value: &str) -> Result<ResolveMode, Refusal> {
    match value {
        "" | "default" => Ok(ResolveMode::Default),
        "pull" => Ok(ResolveMode::Pull),
        "local" => Ok(ResolveMode::Local),
        _ => Err(invalid("it must be default, pull or local")),
    }
}

fn network(value: &str) -> Result<pb::NetMode, Refusal> {
    match value {
        "" | "sandbox" | "default" => Ok(pb::NetMode::Unset),
        "host" => Ok(pb::NetMode::Host),
        "none" => Ok(pb::NetMode::None),
        _ => Err(invalid("it must be default, host or none")),
    }
}

/// `name=soft[:hard]`, comma separated; -1 is unlimited.
fn ulimits(value: &str) -> Result<Vec<pb::Ulimit>, Refusal> {
    const NAMES: [&str; 15] = [
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ];
    let ulimit = |field: &String| {
        let refuse = || {
            invalid(format!(
                "{field:?} must be name=soft[:hard] of a known limit"
            ))
        };
        let (name, limits) = field
            .split_once('=')
            .filter(|(name, _)| NAMES.contains(name))
            .ok_or_else(refuse)?;
        let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
        let number = |text: &str| text.parse::<i64>().ok().filter(|&number| number >= -1);
        let (soft, hard) = number(soft).zip(number(hard)).ok_or_else(refuse)?;
        if hard != -1 && (soft > hard || soft == -1) {
            return Err(invalid(format!(
                "the soft limit of {name} is above the hard one"
            )));
        }
        Ok(pb::Ulimit {
            name: name.to_owned(),
            soft,
            hard,
        })
    };
    match value.is_empty() {
        true => Ok(Vec::new()),
        false => csv::fields(value)
            .map_err(invalid)?
            .iter()
            .map(ulimit)
            .collect(),
    }
}

/// Go's `strconv.ParseBool`.
pub(crate) fn parse_bool(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn boolean(value: &str) -> Result<bool, Refusal> {
    parse_bool(value).ok_or_else(|| invalid("it must be true or false"))
}

/// Seconds since 1970 of `SOURCE_DATE_EPOCH`.
pub(crate) fn epoch(value: &str) -> Result<i64, String> {
    let seconds = value
        .parse::<i64>()
        .ok()
        .filter(|&seconds| jiff::Timestamp::from_second(seconds).is_ok());
    seconds.ok_or_else(|| "it must be a number of seconds since 1970".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(attrs: &[(&str, &str)]) -> Result<Options, OptionsError> {
        let attrs = attrs
            .iter()
            .map(|&(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Options::from_attrs(&attrs, &Platform::new("linux", "amd64", ""))
    }

    #[test]
    fn what_buildx_sends_is_understood() {
        let options = parse(&[
            ("target", "app"),
            ("platform", "linux/amd64,linux/arm64/v8"),
            ("build-arg:A", "1"),
            ("build-arg:BUILDKIT_SANDBOX_HOSTNAME", "box"),
            ("hostname", "other"),
            ("label:l", "v"),
            ("no-cache", "a,B"),
            ("add-hosts", "DB=10.0.0.1,v6=::1"),
            ("image-resolve-mode", "pull"),
            ("force-network-mode", "none"),
            ("shm-size", "1024"),
            ("ulimit", "nofile=1:2,core=-1"),
            ("vcs:revision", "x"),
            ("frontend.caps", "moby.buildkit.frontend.inputs"),
            ("unknown-thing", "x"),
        ])
        .expect("all known");
        assert_eq!(
            options
                .platforms
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>(),
            ["linux/amd64", "linux/arm64"]
        );
        assert!(
            options.multi_platform
                && options.no_cache.includes("b")
                && !options.no_cache.includes("")
        );
        assert_eq!(
            (options.hostname.as_str(), options.build_args["A"].as_str()),
            ("box", "1")
        );
        assert_eq!(
            options.extra_hosts[1],
            pb::HostIp {
                host: "v6".into(),
                ip: "::1".into()
            }
        );
        assert_eq!(
            options.ulimits[0],
            pb::Ulimit {
                name: "nofile".into(),
                soft: 1,
                hard: 2
            }
        );
        assert_eq!(
            (options.network, options.resolve_mode),
            (pb::NetMode::None, ResolveMode::Pull)
        );
        assert_eq!(options.ignored, ["unknown-thing"]);
        assert!(
            parse(&[("no-cache", "")])
                .expect("known")
                .no_cache
                .includes("")
        );
    }

    #[test]
    fn what_would_change_the_outcome_is_refused_by_name() {
        for (name, value) in [
            ("context:alpine", "docker-image://x"),
            ("context", "https://example.com/x.git"),
            ("attest:provenance", "mode=max"),
            ("requestid", "frontend.outline"),
            ("input:x", "y"),
        ] {
            let error = parse(&[(name, value)]).expect_err(name);
            assert!(
                matches!(&error, OptionsError::Unsupported { name: found, .. } if found == name),
                "{error}"
            );
        }
        assert!(
            parse(&[
                ("context", ""),
                ("attest:provenance", "disabled=true"),
                ("requestid", "")
            ])
            .is_ok()
        );
    }

    #[test]
    fn wrong_values_are_refused() {
        for (name, value) in [
            ("platform", "linux/amd64,nonsense/a/b/c"),
            ("shm-size", "1g"),
            ("add-hosts", "a"),
            ("add-hosts", "a=b"),
            ("ulimit", "nofile=2:1"),
            ("ulimit", "x=1"),
            ("image-resolve-mode", "x"),
            ("force-network-mode", "bridge"),
            ("multi-platform", "x"),
            ("build-arg:SOURCE_DATE_EPOCH", "yesterday"),
        ] {
            let error = parse(&[(name, value)]).expect_err(name);
            assert!(
                matches!(error, OptionsError::Invalid { .. }),
                "{name}: {error}"
            );
        }
        assert!(
            parse(&[
                ("multi-platform", "0"),
                ("platform", "linux/amd64,linux/arm64")
            ])
            .is_err()
        );
    }

    #[test]
    fn a_single_platform_can_be_an_index() {
        assert!(
            !parse(&[("platform", "linux/arm64")])
                .expect("known")
                .multi_platform
        );
        let options = parse(&[
            ("platform", "linux/arm64"),
            ("build-arg:BUILDKIT_MULTI_PLATFORM", "1"),
        ]);
        assert!(options.expect("known").multi_platform);
    }
}
