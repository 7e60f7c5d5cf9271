//! From the flags of `buildyard build` to what is asked of the farm: a pure translation, told what the environment holds.
//!
//! Nothing here reads files or talks to the network. What the farm can do is the farm's to say: only flags that this
//! client itself cannot serve are refused here.

mod attrs;
mod context;
mod outputs;
mod reference;
mod secrets;

pub use context::{ContextSource, DockerfileSource};
pub use outputs::{Output, Sink};
pub use reference::{ReferenceError, normalize};
pub use secrets::{SecretSource, SecretSpec};

use std::collections::{BTreeMap, HashMap};

use bollard_buildkit_proto::moby::buildkit::v1::{CacheOptions, CacheOptionsEntry};

use crate::args::{BuildArgs, FieldsError, fields, key_values};

/// Everything a build needs, before any file was read.
#[derive(Debug, Clone, PartialEq)]
pub struct BuildRequest {
    /// Attributes for the frontend `dockerfile.v0`.
    pub attrs: HashMap<String, String>,
    /// What to export, in order; the index is the exporter's id in the session.
    pub outputs: Vec<Output>,
    /// `network.host`, `security.insecure`.
    pub entitlements: Vec<String>,
    /// Cache import and export, as asked for.
    pub cache: CacheOptions,
    /// The context.
    pub context: ContextSource,
    /// The Dockerfile.
    pub dockerfile: DockerfileSource,
    /// Secrets by id.
    pub secrets: BTreeMap<String, SecretSpec>,
}

/// A command line that asks for something impossible or contradictory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// A value that is a list of fields is malformed.
    #[error("--{flag}: {source}")]
    Fields {
        /// The flag.
        flag: &'static str,
        /// What is wrong.
        source: FieldsError,
    },
    /// A value is not acceptable.
    #[error("--{flag} {value:?}: {reason}")]
    Value {
        /// The flag.
        flag: &'static str,
        /// The value.
        value: String,
        /// What is wrong and what is wanted.
        reason: String,
    },
    /// buildx has this flag, this client or the farm has not.
    #[error("--{flag} is not supported: {reason}")]
    Unsupported {
        /// The flag.
        flag: &'static str,
        /// What to do instead.
        reason: &'static str,
    },
    /// Flags that exclude each other.
    #[error("{0}")]
    Conflict(&'static str),
}

impl RequestError {
    pub(crate) fn value(flag: &'static str, value: &str, reason: impl Into<String>) -> Self {
        Self::Value {
            flag,
            value: value.to_owned(),
            reason: reason.into(),
        }
    }
}

/// Translates the flags; `env` looks a variable of the environment up.
///
/// # Errors
/// What [`RequestError`] lists; nothing was done.
pub fn translate(
    args: &BuildArgs,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<BuildRequest, RequestError> {
    refuse_unsupported(args)?;
    let tags = args
        .tag
        .iter()
        .map(|tag| tag_name(tag))
        .collect::<Result<Vec<_>, _>>()?;
    let (context, dockerfile) = context::sources(&args.context, args.file.as_deref())?;
    let mut attrs = attrs::frontend_attrs(args, env)?;
    if let ContextSource::Remote(url) = &context {
        attrs.insert("context".into(), url.clone());
    }
    attrs.insert("filename".into(), dockerfile.file_name());
    Ok(BuildRequest {
        attrs,
        outputs: outputs::outputs(args, &tags)?,
        entitlements: entitlements(args),
        cache: CacheOptions {
            imports: args
                .cache_from
                .iter()
                .map(|v| cache_entry("cache-from", v))
                .collect::<Result<_, _>>()?,
            exports: args
                .cache_to
                .iter()
                .map(|v| cache_entry("cache-to", v))
                .collect::<Result<_, _>>()?,
            ..CacheOptions::default()
        },
        context,
        dockerfile,
        secrets: secrets::secrets(&args.secret, env)?,
    })
}

fn refuse_unsupported(args: &BuildArgs) -> Result<(), RequestError> {
    let refuse = |given: bool, flag, reason| {
        if given {
            Err(RequestError::Unsupported { flag, reason })
        } else {
            Ok(())
        }
    };
    refuse(
        !args.ssh.is_empty(),
        "ssh",
        "use --secret with RUN --mount=type=secret for keys",
    )?;
    refuse(
        !args.build_context.is_empty(),
        "build-context",
        "use a stage, an image or one directory as the context",
    )?;
    refuse(args.call.is_some(), "call", "only builds can be asked for")?;
    refuse(args.check, "check", "only builds can be asked for")?;
    refuse(
        !args.resource.is_empty(),
        "resource",
        "limit the worker instead",
    )?;
    refuse(
        !args.policy.is_empty(),
        "policy",
        "the farm evaluates no source policies",
    )?;
    attestation("provenance", args.provenance.as_deref())?;
    attestation("sbom", args.sbom.as_deref())?;
    for value in &args.attest {
        let off = key_values(value)
            .map_err(|source| RequestError::Fields {
                flag: "attest",
                source,
            })?
            .get("disabled")
            .is_some_and(|value| value == "true");
        if !off {
            return Err(RequestError::value(
                "attest",
                value,
                "the farm makes no attestations; use disabled=true",
            ));
        }
    }
    Ok(())
}

fn attestation(flag: &'static str, value: Option<&str>) -> Result<(), RequestError> {
    match value {
        None | Some("false" | "0" | "disabled" | "disabled=true") => Ok(()),
        Some(value) => Err(RequestError::value(
            flag,
            value,
            format!("the farm makes no attestations; use --{flag}=false"),
        )),
    }
}

fn tag_name(tag: &str) -> Result<String, RequestError> {
    normalize(tag).map_err(|error| RequestError::value("tag", tag, error.to_string()))
}

/// `--network host` asks for the entitlement by itself, as buildx does.
fn entitlements(args: &BuildArgs) -> Vec<String> {
    let mut entitlements = args.allow.clone();
    if args.network.as_deref() == Some("host") {
        entitlements.push("network.host".into());
    }
    entitlements.sort();
    entitlements.dedup();
    entitlements
}

/// `type=registry,ref=…`; a value that is only a name means a registry's reference.
fn cache_entry(flag: &'static str, value: &str) -> Result<CacheOptionsEntry, RequestError> {
    let error = |source| RequestError::Fields { flag, source };
    if fields(value)
        .map_err(error)?
        .iter()
        .all(|field| !field.contains('='))
    {
        let attrs = HashMap::from([("ref".to_owned(), value.to_owned())]);
        return Ok(CacheOptionsEntry {
            r#type: "registry".into(),
            attrs,
        });
    }
    let mut attrs = key_values(value).map_err(error)?;
    let r#type = attrs
        .remove("type")
        .ok_or_else(|| RequestError::value(flag, value, "no type (e.g. type=registry,ref=NAME)"))?;
    Ok(CacheOptionsEntry {
        r#type,
        attrs: attrs.into_iter().collect(),
    })
}

#[cfg(test)]
mod tests;
