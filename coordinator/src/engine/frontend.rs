//! The built-in Dockerfile frontend: takes the Dockerfile and its ignore file from the client, looks base images up, and
//! converts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use buildyard_dockerfile::{
    Build as Converted, Conversion, Dockerignore, Images, Options, ResolvedImage, Source, Target,
    convert, parse, syntax_directive,
};
use buildyard_llb::pb;
use buildyard_model::{Digest, Platform};
use serde_json::json;
use tonic::Code;

use super::Engine;
use super::internal_step::{internal_step, shown};
use super::small_files::SmallFiles;
use super::state::BuildState;
use crate::backend::{Build, BuildError, BuildRequest, Ref, Refs, Solved};
use crate::progress::{STDERR, Warning};

/// How often base images may name further images (through ONBUILD).
const ROUNDS: usize = 10;

impl Engine {
    /// Runs a frontend by its name.
    pub(super) async fn frontend(
        &self,
        build: &Arc<Build>,
        state: &Arc<BuildState>,
        name: &str,
        attrs: &BTreeMap<String, String>,
        inputs: &BTreeMap<String, pb::Definition>,
    ) -> Result<Solved, BuildError> {
        match name {
            "dockerfile.v0" => {}
            "gateway.v0" => {
                let source = attrs.get("source").map(String::as_str).unwrap_or_default();
                check_frontend_image(source)?;
            }
            other => {
                return Err(BuildError::invalid(format!(
                    "frontend {other:?} is not known (dockerfile.v0 is)"
                )));
            }
        }
        if !inputs.is_empty() {
            return Err(BuildError::invalid(
                "inputs of a frontend (input: contexts) are not supported yet",
            ));
        }
        self.dockerfile(build, state, attrs).await
    }

    async fn dockerfile(
        &self,
        build: &Arc<Build>,
        state: &Arc<BuildState>,
        attrs: &BTreeMap<String, String>,
    ) -> Result<Solved, BuildError> {
        let options = Options::from_attrs(attrs, &self.build_platform)
            .map_err(|error| BuildError::invalid(error.to_string()))?;
        let loaded = self.load_dockerfile(build, &options).await?;
        let (bytes, definition) = (loaded.bytes, loaded.step);
        note_syntax(build, definition, &bytes, attrs)?;
        warn_of_idle(build, definition, attrs, &options.ignored);
        let ignore = match loaded.ignore {
            Some(bytes) => Dockerignore::parse(&bytes),
            None => self.load_ignore(build, &options).await?,
        };
        state
            .ignore
            .lock()
            .expect("nobody panics while holding it")
            .clone_from(&ignore);
        let info = pb::SourceInfo {
            filename: options.filename.clone(),
            data: bytes.clone(),
            definition: None,
            language: "Dockerfile".to_owned(),
        };
        let source = Source {
            filename: &options.filename,
            bytes: &bytes,
        };
        let file = parse(&source).map_err(|error| {
            let range = error.lines.to_pb();
            let message = format!("{error}\n{}", error.pointer(&bytes));
            BuildError::failed(message).at_source(info.clone(), vec![range])
        })?;
        let converted = self
            .convert_all(build, state, &file, &options, &ignore, &info)
            .await?;
        for warning in &converted.warnings {
            build.progress.warn(Warning {
                vertex: Some(definition),
                level: 1,
                short: warning.short.clone(),
                detail: warning.detail.clone(),
                url: warning.url.clone(),
                info: Some(info.clone()),
                ranges: vec![warning.lines.to_pb()],
            });
        }
        Ok(solved(converted.targets, options.multi_platform))
    }

    /// Converts, looking images up as the conversion asks for them.
    async fn convert_all(
        &self,
        build: &Arc<Build>,
        state: &Arc<BuildState>,
        file: &buildyard_dockerfile::Dockerfile,
        options: &Options,
        ignore: &[String],
        info: &pb::SourceInfo,
    ) -> Result<Converted, BuildError> {
        let mut images = Images::new();
        for _ in 0..ROUNDS {
            let outcome = convert(file, options, &images, ignore).map_err(|error| {
                let failed = BuildError::failed(error.to_string());
                match error.lines {
                    Some(lines) => failed.at_source(info.clone(), vec![lines.to_pb()]),
                    None => failed,
                }
            })?;
            let requests = match outcome {
                Conversion::Done(converted) => return Ok(*converted),
                Conversion::NeedsImages(requests) => requests,
            };
            let lookups = requests.into_iter().map(|request| async move {
                let look = self.resolve(state, &request.reference, &request.platform);
                let image = shown(build, &request.name, look).await.map_err(|error| {
                    unresolved(error, &request.reference)
                        .at_source(info.clone(), vec![request.lines.to_pb()])
                })?;
                let resolved = ResolvedImage {
                    digest: image.index_digest.unwrap_or(image.manifest_digest),
                    config: image.config.clone(),
                };
                Ok::<_, BuildError>(((request.reference, request.platform), resolved))
            });
            images.extend(futures::future::try_join_all(lookups).await?);
        }
        Err(BuildError::failed(format!(
            "base images named further images {ROUNDS} times over; giving up"
        )))
    }

    /// Takes the Dockerfile, and the ignore file that belongs to it, from the client.
    async fn load_dockerfile(
        &self,
        build: &Arc<Build>,
        options: &Options,
    ) -> Result<Loaded, BuildError> {
        let filename = &options.filename;
        let own_ignore = format!("{filename}.dockerignore");
        let mut names = vec![filename.clone(), own_ignore.clone()];
        if filename == "Dockerfile" {
            names.push("dockerfile".to_owned());
        }
        let step_name = format!("[internal] load build definition from {filename}");
        let step = internal_step(build, &step_name);
        let load = async {
            let files =
                SmallFiles::take(build, (step, "dockerfile"), &options.dockerfile_key, names)
                    .await?;
            let mut bytes = files.read(filename)?;
            if bytes.is_none() && filename == "Dockerfile" {
                bytes = files.read("dockerfile")?;
            }
            let bytes = bytes.ok_or_else(|| {
                BuildError::failed(format!(
                    "failed to read dockerfile: open {filename}: no such file or directory"
                ))
            })?;
            Ok(Loaded {
                bytes,
                ignore: files.read(&own_ignore)?,
                step,
            })
        };
        shown(build, &step_name, load).await
    }

    async fn load_ignore(
        &self,
        build: &Arc<Build>,
        options: &Options,
    ) -> Result<Vec<String>, BuildError> {
        let step_name = "[internal] load .dockerignore";
        let step = internal_step(build, step_name);
        let load = async {
            let name = ".dockerignore".to_owned();
            let what = (step, "context");
            let files = SmallFiles::take(build, what, &options.context_key, vec![name]).await?;
            let bytes = files.read(".dockerignore")?;
            Ok(bytes
                .map(|bytes| Dockerignore::parse(&bytes))
                .unwrap_or_default())
        };
        shown(build, step_name, load).await
    }
}

struct Loaded {
    bytes: Vec<u8>,
    ignore: Option<Vec<u8>>,
    /// The step that loaded it.
    step: Digest,
}

/// The images of BuildKit's own Dockerfile frontend are served by the built-in one; others cannot be run.
fn check_frontend_image(image: &str) -> Result<(), BuildError> {
    let name = image.split(['@', ':']).next().unwrap_or_default();
    let bare = name.strip_prefix("docker.io/").unwrap_or(name);
    if matches!(
        bare,
        "docker/dockerfile" | "docker/dockerfile-upstream" | "dockerfile.v0"
    ) {
        return Ok(());
    }
    Err(BuildError::invalid(format!(
        "frontend image {image:?} cannot be run: only docker/dockerfile is served, by the built-in frontend"
    )))
}

/// The error of a base image's look-up, in BuildKit's words. Which image, which platform and whether the registry lets the
/// user in is the Dockerfile's doing, so the code is the one without a name in front; a registry that is down is not.
fn unresolved(error: BuildError, reference: &str) -> BuildError {
    let code = match error.code {
        Code::NotFound | Code::Unauthenticated | Code::PermissionDenied => Code::Unknown,
        code => code,
    };
    BuildError { code, ..error }.context(format!(
        "{reference}: failed to resolve source metadata for {reference}"
    ))
}

/// A `# syntax=` line or BUILDKIT_SYNTAX: says in the log who serves it.
fn note_syntax(
    build: &Build,
    step: Digest,
    bytes: &[u8],
    attrs: &BTreeMap<String, String>,
) -> Result<(), BuildError> {
    let asked = attrs
        .get("build-arg:BUILDKIT_SYNTAX")
        .cloned()
        .or_else(|| syntax_directive(bytes));
    let Some(image) = asked.filter(|image| !image.is_empty() && image != "dockerfile.v0") else {
        return Ok(());
    };
    check_frontend_image(&image)?;
    let line = format!("{image} is served by the built-in Dockerfile frontend\n");
    build
        .progress
        .log(step, STDERR, line.as_bytes(), SystemTime::now());
    Ok(())
}

/// Names what has no effect: caches that the client wants imported or exported (they need nothing here), each kind once,
/// and attributes that are not known.
fn warn_of_idle(build: &Build, step: Digest, attrs: &BTreeMap<String, String>, unknown: &[String]) {
    let unknown = unknown
        .iter()
        .map(|name| format!("frontend attribute {name:?} is not known here and has no effect"));
    for short in cache_warnings(&build.request, attrs)
        .into_iter()
        .chain(unknown)
    {
        build.progress.warn(Warning {
            vertex: Some(step),
            level: 1,
            short,
            ..Warning::default()
        });
    }
}

fn cache_warnings(request: &BuildRequest, attrs: &BTreeMap<String, String>) -> BTreeSet<String> {
    let imports = request.cache_imports.iter().map(|cache| {
        format!(
            "--cache-from type={} is not read: the farm's own cache needs no import",
            cache.kind
        )
    });
    let exports = request.cache_exports.iter().map(|cache| {
        format!(
            "--cache-to type={} is not written: the farm keeps its cache itself",
            cache.kind
        )
    });
    let inline = attrs
        .contains_key("build-arg:BUILDKIT_INLINE_CACHE")
        .then(|| "BUILDKIT_INLINE_CACHE has no effect: the farm keeps its cache itself".to_owned());
    imports.chain(exports).chain(inline).collect()
}

/// Targets in the form in which clients and exporters take them.
fn solved(targets: Vec<Target>, multi_platform: bool) -> Solved {
    let mut metadata = BTreeMap::new();
    let platforms: Vec<_> = targets
        .iter()
        .map(|target| platform_entry(&target.platform))
        .collect();
    metadata.insert(
        "refs.platforms".to_owned(),
        json!({ "Platforms": platforms }).to_string().into_bytes(),
    );
    let config = |target: &Target| {
        serde_json::to_vec(&target.config).expect("a configuration can be written as JSON")
    };
    if multi_platform {
        let mut refs = BTreeMap::new();
        for target in targets {
            metadata.insert(
                format!("containerimage.config/{}", target.platform),
                config(&target),
            );
            refs.insert(target.platform.to_string(), Ref::new(target.definition, ()));
        }
        return Solved {
            refs: Refs::PerPlatform(refs),
            metadata,
        };
    }
    let mut refs = Refs::Empty;
    for target in targets {
        metadata.insert("containerimage.config".to_owned(), config(&target));
        refs = Refs::Single(Ref::new(target.definition, ()));
    }
    Solved { refs, metadata }
}

fn platform_entry(platform: &Platform) -> serde_json::Value {
    let mut parts = json!({ "architecture": platform.architecture, "os": platform.os });
    if !platform.variant.is_empty() {
        parts["variant"] = json!(platform.variant);
    }
    json!({ "ID": platform.to_string(), "Platform": parts })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::CacheSpec;

    #[test]
    fn each_kind_of_cache_is_named_once() {
        let cache = |kind: &str| CacheSpec {
            kind: kind.to_owned(),
            attrs: BTreeMap::new(),
        };
        let request = BuildRequest {
            cache_imports: vec![cache("registry"), cache("registry")],
            cache_exports: vec![cache("inline"), cache("inline"), cache("gha")],
            ..BuildRequest::default()
        };
        assert_eq!(cache_warnings(&request, &BTreeMap::new()).len(), 3);
        let inline = [("build-arg:BUILDKIT_INLINE_CACHE".to_owned(), "1".to_owned())].into();
        assert_eq!(cache_warnings(&request, &inline).len(), 4);
    }

    #[test]
    fn only_the_built_in_frontend_is_served() {
        let check = |image: &str, served: bool| {
            let outcome = check_frontend_image(image);
            assert_eq!(outcome.is_ok(), served, "{image}");
            if let Err(error) = outcome {
                assert!(error.message.contains(image), "{}", error.message);
            }
        };
        check("docker/dockerfile:1", true);
        check("docker.io/docker/dockerfile:1.7-labs", true);
        check("docker/dockerfile@sha256:00", true);
        check("docker/dockerfile-upstream:master", true);
        check("example.com/docker/dockerfile:1", false);
        check("docker/dockerfile.evil:1", false);
        check("localhost:5000/frontend", false);
    }

    #[test]
    fn a_missing_image_is_the_dockerfiles_fault_and_a_silent_registry_is_not() {
        let check = |code, expected| {
            let error = unresolved(BuildError::new(code, "x: not found"), "r/x:1");
            assert_eq!(error.code, expected);
            assert_eq!(
                error.message,
                "r/x:1: failed to resolve source metadata for r/x:1: x: not found"
            );
        };
        check(Code::NotFound, Code::Unknown);
        check(Code::Unauthenticated, Code::Unknown);
        check(Code::Unavailable, Code::Unavailable);
    }
}
