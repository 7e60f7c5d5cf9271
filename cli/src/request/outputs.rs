//! `--output`, `--push`, `--load`, `--tag` and `--annotation`: what to export and where its bytes go on this side.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::RequestError;
use crate::args::{BuildArgs, fields, key_values};

/// One thing to export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// BuildKit's exporter: `image`, `oci`, `docker`, `local`, `tar`.
    pub kind: String,
    /// The exporter's attributes.
    pub attrs: BTreeMap<String, String>,
    /// What happens with what the farm sends back.
    pub sink: Sink,
}

/// Where the bytes of an export go on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sink {
    /// Nothing is sent back: the farm pushes or keeps it.
    None,
    /// One file.
    File(PathBuf),
    /// Standard output, which must not be a terminal.
    Stdout,
    /// A directory, made if it does not exist.
    Directory(PathBuf),
    /// The Docker Engine of this machine.
    Engine,
}

pub(super) fn outputs(args: &BuildArgs, tags: &[String]) -> Result<Vec<Output>, RequestError> {
    let mut outputs = args
        .output
        .iter()
        .filter(|value| !value.is_empty())
        .map(|value| output(value))
        .collect::<Result<Vec<_>, _>>()?;
    outputs.retain(|output| output.kind != "cacheonly");
    if args.push {
        push(&mut outputs);
    }
    if args.load {
        load(&mut outputs);
    }
    if outputs
        .iter()
        .filter(|output| output.sink == Sink::Stdout)
        .count()
        > 1
    {
        return Err(RequestError::Conflict(
            "only one output can go to standard output",
        ));
    }
    let annotations = annotations(&args.annotation)?;
    for output in &mut outputs {
        if !matches!(output.kind.as_str(), "image" | "oci" | "docker") {
            continue;
        }
        if !tags.is_empty() {
            output
                .attrs
                .entry("name".into())
                .or_insert_with(|| tags.join(","));
        }
        output.attrs.extend(annotations.clone());
        let pushes = output.attrs.get("push").is_some_and(|push| push == "true");
        if pushes && !output.attrs.contains_key("name") {
            return Err(RequestError::Conflict(
                "a push needs a name: give the image one with --tag",
            ));
        }
    }
    if !annotations.is_empty()
        && !outputs
            .iter()
            .any(|o| matches!(o.kind.as_str(), "image" | "oci" | "docker"))
    {
        return Err(RequestError::Conflict(
            "--annotation needs an image to annotate: add --push or an image output",
        ));
    }
    Ok(outputs)
}

/// `--push` makes an image output push, or adds one.
fn push(outputs: &mut Vec<Output>) {
    let mut found = false;
    for output in outputs.iter_mut().filter(|output| output.kind == "image") {
        output.attrs.insert("push".into(), "true".into());
        found = true;
    }
    if !found {
        let attrs = BTreeMap::from([("push".into(), "true".into())]);
        outputs.push(Output {
            kind: "image".into(),
            attrs,
            sink: Sink::None,
        });
    }
}

/// `--load` adds a docker output that goes to the engine.
fn load(outputs: &mut Vec<Output>) {
    if !outputs.iter().any(|output| output.sink == Sink::Engine) {
        outputs.push(Output {
            kind: "docker".into(),
            attrs: BTreeMap::new(),
            sink: Sink::Engine,
        });
    }
}

fn output(value: &str) -> Result<Output, RequestError> {
    let refuse = |reason: String| RequestError::value("output", value, reason);
    let error = |source| RequestError::Fields {
        flag: "output",
        source,
    };
    let parts = fields(value).map_err(error)?;
    let mut attrs = match &parts[..] {
        [one] if one == "-" => {
            BTreeMap::from([("type".into(), "tar".into()), ("dest".into(), "-".into())])
        }
        [one] if !one.starts_with("type=") => BTreeMap::from([
            ("type".to_owned(), "local".to_owned()),
            ("dest".to_owned(), one.clone()),
        ]),
        _ => key_values(value).map_err(error)?,
    };
    let kind = attrs
        .remove("type")
        .ok_or_else(|| refuse("no type (e.g. type=local,dest=out)".into()))?;
    let dest = attrs.remove("dest").filter(|dest| !dest.is_empty());
    match kind.as_str() {
        "registry" => {
            attrs.insert("push".into(), "true".into());
            in_farm("image", attrs, dest).map_err(refuse)
        }
        "image" => in_farm("image", attrs, dest).map_err(refuse),
        "cacheonly" => in_farm("cacheonly", attrs, dest).map_err(refuse),
        "local" => match dest {
            Some(dest) if dest != "-" => Ok(Output {
                kind,
                attrs,
                sink: Sink::Directory(dest.into()),
            }),
            _ => Err(refuse("needs the directory to write to (dest=DIR)".into())),
        },
        "oci" | "docker" | "tar" => {
            if attrs.get("tar").is_some_and(|tar| tar == "false") {
                return Err(refuse(
                    "only archives can be written (leave tar=false out)".into(),
                ));
            }
            let sink = match dest {
                Some(dest) if dest != "-" => Sink::File(dest.into()),
                None if kind == "docker" => Sink::Engine,
                _ => Sink::Stdout,
            };
            Ok(Output { kind, attrs, sink })
        }
        other => Err(refuse(format!(
            "unknown type {other:?} (known: image, registry, oci, docker, local, tar, cacheonly)"
        ))),
    }
}

fn in_farm(
    kind: &str,
    attrs: BTreeMap<String, String>,
    dest: Option<String>,
) -> Result<Output, String> {
    match dest {
        Some(_) => Err(format!("type={kind} writes no file (leave dest out)")),
        None => Ok(Output {
            kind: kind.into(),
            attrs,
            sink: Sink::None,
        }),
    }
}

/// `[TYPE[PLATFORM][,TYPE…]:]KEY=VALUE` as the exporters' attributes `annotation[-TYPE][[PLATFORM]].KEY`.
fn annotations(values: &[String]) -> Result<BTreeMap<String, String>, RequestError> {
    let mut attrs = BTreeMap::new();
    for value in values {
        let refuse = |reason: String| RequestError::value("annotation", value, reason);
        let (name, text) = value
            .split_once('=')
            .ok_or_else(|| refuse("want KEY=VALUE".into()))?;
        let Some((types, key)) = name.split_once(':') else {
            attrs.insert(format!("annotation.{name}"), text.to_owned());
            continue;
        };
        for part in types.split(',') {
            let (kind, platform) = match part.split_once('[') {
                Some((kind, rest)) => {
                    let name = rest
                        .strip_suffix(']')
                        .ok_or_else(|| refuse(format!("{part:?} lacks a ']'")))?;
                    let platform: buildyard_model::Platform =
                        name.parse().map_err(|error| refuse(format!("{error}")))?;
                    (kind, format!("[{platform}]"))
                }
                None => (part, String::new()),
            };
            if ![
                "manifest",
                "manifest-descriptor",
                "index",
                "index-descriptor",
            ]
            .contains(&kind)
            {
                return Err(refuse(format!(
                    "unknown type {kind:?} (known: manifest, manifest-descriptor, index, index-descriptor)"
                )));
            }
            attrs.insert(
                format!("annotation-{kind}{platform}.{key}"),
                text.to_owned(),
            );
        }
    }
    Ok(attrs)
}
