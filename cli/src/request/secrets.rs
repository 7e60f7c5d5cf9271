//! `--secret`: which value stands behind which id.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::RequestError;
use crate::args::{fields, key_values};

/// Where a secret's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// In a file, read when a step asks.
    File(PathBuf),
    /// In a variable of the environment.
    Env(String),
}

/// One secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretSpec {
    /// Where its bytes are.
    pub source: SecretSource,
}

pub(super) fn secrets(
    values: &[String],
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<BTreeMap<String, SecretSpec>, RequestError> {
    let mut secrets = BTreeMap::new();
    for value in values {
        let (id, spec) = secret(value, env)?;
        if secrets.insert(id.clone(), spec).is_some() {
            return Err(RequestError::value(
                "secret",
                value,
                format!("{id:?} is given twice"),
            ));
        }
    }
    Ok(secrets)
}

fn secret(
    value: &str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<(String, SecretSpec), RequestError> {
    let refuse = |reason: &str| RequestError::value("secret", value, reason);
    let fields_error = |source| RequestError::Fields {
        flag: "secret",
        source,
    };
    let mut pairs = if fields(value)
        .map_err(fields_error)?
        .iter()
        .all(|field| !field.contains('='))
    {
        BTreeMap::from([("id".to_owned(), value.to_owned())])
    } else {
        key_values(value).map_err(fields_error)?
    };
    let id = pairs
        .remove("id")
        .filter(|id| !id.is_empty())
        .ok_or_else(|| refuse("no id (want id=NAME)"))?;
    let kind = pairs.remove("type");
    let file = pairs.remove("src").or_else(|| pairs.remove("source"));
    let variable = pairs.remove("env");
    if let Some(key) = pairs.keys().next() {
        return Err(refuse(&format!(
            "unknown key {key:?} (known: id, src, env, type)"
        )));
    }
    let source = match (kind.as_deref(), file, variable) {
        (_, Some(_), Some(_)) => return Err(refuse("src and env exclude each other")),
        (None | Some("file"), Some(file), None) => SecretSource::File(file.into()),
        (None | Some("env"), None, Some(variable)) => SecretSource::Env(variable),
        // buildx: with type=env, src names the variable.
        (Some("env"), Some(variable), None) => SecretSource::Env(variable),
        (Some("env"), None, None) => SecretSource::Env(id.clone()),
        (Some("file"), None, None) => SecretSource::File(id.clone().into()),
        // buildx: an id alone means the variable of that name if there is one, else the file.
        (None, None, None) if env(&id).is_some() => SecretSource::Env(id.clone()),
        (None, None, None) => SecretSource::File(id.clone().into()),
        (Some(kind), ..) if kind != "file" && kind != "env" => {
            return Err(refuse(&format!("unknown type {kind:?} (known: file, env)")));
        }
        (Some(_), ..) => return Err(refuse("type and source do not fit")),
    };
    Ok((id, SecretSpec { source }))
}
