//! `buildyard build`: puts session, solve and progress together, and writes what was asked to be written.

use std::collections::{BTreeMap, HashMap};
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bollard_buildkit_proto::moby::buildkit::v1::Exporter;
use buildyard_model::Digest;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::args::{BuildArgs, ProgressMode};
use crate::buildkit::export::{Destination, FileSendService};
use crate::buildkit::filesync::FileSyncService;
use crate::buildkit::{BuildError, Credentials, Job, SecretStore, Services, Solved, solve};
use crate::connect::Farm;
use crate::docker;
use crate::exit::Failure;
use crate::progress::{Display, display, render_error, render_warnings};
use crate::request::{BuildRequest, ContextSource, DockerfileSource, Output, Sink, translate};

/// The largest Dockerfile that is read from standard input.
const MAX_DOCKERFILE: u64 = 16 << 20;

/// Runs the command.
pub(super) async fn run(args: BuildArgs) -> Result<(), Failure> {
    let request = translate(&args, &|name| std::env::var(name).ok())
        .map_err(|error| Failure::usage(error.to_string()))?;
    let quiet = args.quiet || args.progress == ProgressMode::Quiet;
    let farm = Farm::new(&args.farm)?;
    let directories = Directories::prepare(&request)?;
    check_sinks(&request.outputs).await?;
    let secrets = SecretStore::new(request.secrets.clone());
    secrets
        .check()
        .map_err(|message| Failure::Asked(anyhow::anyhow!(message)))?;
    let channel = farm.channel().await?;

    let exports = FileSendService::new(destinations(&request.outputs));
    let services = Services {
        files: FileSyncService::new(directories.by_name()),
        exports: exports.clone(),
        credentials: Credentials,
        secrets,
    };
    let nothing_kept = request.outputs.is_empty();
    let job = job(request, &directories);
    let interrupt = CancellationToken::new();
    let _signals = watch_signals(interrupt.clone())?;
    let mut display = display(args.progress, quiet);
    let outcome = solve(channel, job, services, &mut *display, &interrupt).await;
    display.finish();
    let warnings = display.board().map(render_warnings).unwrap_or_default();
    match outcome {
        Ok(solved) => {
            eprint!("{warnings}");
            if nothing_kept && !quiet {
                eprintln!(
                    "Nothing was exported: the result stays in the farm's cache. Add --push, --load or --output to get it."
                );
            }
            deliver(&args, &solved, quiet).map_err(Failure::Asked)
        }
        Err(error) => Err(failure(error, exports.failure(), &*display, &farm)),
    }
}

/// The directories that the farm may read. A Dockerfile from standard input gets one of its own.
struct Directories {
    context: Option<PathBuf>,
    dockerfile: Option<PathBuf>,
    _temporary: Option<tempfile::TempDir>,
}

impl Directories {
    fn prepare(request: &BuildRequest) -> Result<Self, Failure> {
        let context = match &request.context {
            ContextSource::Directory(dir) => Some(existing_dir(dir)?),
            ContextSource::Remote(_) => None,
        };
        let (dockerfile, temporary) = match &request.dockerfile {
            DockerfileSource::InContext(_) => (None, None),
            DockerfileSource::File { dir, name } => {
                let path = dir.join(name);
                std::fs::File::open(&path)
                    .with_context(|| format!("cannot read the Dockerfile {}", path.display()))?;
                (Some(existing_dir(dir)?), None)
            }
            DockerfileSource::Stdin => {
                let temporary = dockerfile_from_stdin()
                    .context("cannot take the Dockerfile from standard input")?;
                (Some(temporary.path().to_owned()), Some(temporary))
            }
        };
        Ok(Self {
            context,
            dockerfile,
            _temporary: temporary,
        })
    }

    fn by_name(&self) -> BTreeMap<String, PathBuf> {
        let named =
            |name: &str, dir: &Option<PathBuf>| dir.clone().map(|dir| (name.to_owned(), dir));
        [
            named("context", &self.context),
            named("dockerfile", &self.dockerfile),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// The same on every run with the same directory of the same machine, and nobody else's.
    fn shared_key(&self) -> String {
        let machine = std::fs::read("/etc/machine-id").unwrap_or_default();
        let path = self
            .context
            .as_deref()
            .unwrap_or(Path::new(""))
            .as_os_str()
            .as_encoded_bytes()
            .to_vec();
        Digest::of([machine, path].join(&0u8)).hex()
    }
}

fn existing_dir(dir: &Path) -> Result<PathBuf, Failure> {
    let found = dir
        .canonicalize()
        .with_context(|| format!("cannot use the directory {}", dir.display()))?;
    if !found.is_dir() {
        return Err(Failure::Asked(anyhow::anyhow!(
            "{} is not a directory",
            dir.display()
        )));
    }
    Ok(found)
}

fn dockerfile_from_stdin() -> anyhow::Result<tempfile::TempDir> {
    let mut text = Vec::new();
    std::io::stdin()
        .take(MAX_DOCKERFILE + 1)
        .read_to_end(&mut text)?;
    anyhow::ensure!(
        text.len() as u64 <= MAX_DOCKERFILE,
        "it has more than {} MiB",
        MAX_DOCKERFILE >> 20
    );
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("Dockerfile"), text)?;
    Ok(dir)
}

/// Looks before the build whether its result can be taken.
async fn check_sinks(outputs: &[Output]) -> Result<(), Failure> {
    for output in outputs {
        match &output.sink {
            Sink::Stdout if std::io::stdout().is_terminal() => {
                return Err(Failure::usage(format!(
                    "--output type={} would write an archive to the terminal: give dest=FILE, or redirect standard output",
                    output.kind
                )));
            }
            Sink::File(path) if path.is_dir() => {
                return Err(Failure::usage(format!(
                    "--output dest={}: that is a directory",
                    path.display()
                )));
            }
            Sink::Engine => docker::check_engine()
                .await
                .map_err(|error| Failure::Asked(error.into()))?,
            _ => {}
        }
    }
    Ok(())
}

fn destinations(outputs: &[Output]) -> BTreeMap<usize, Destination> {
    let destination = |output: &Output| match &output.sink {
        Sink::None => None,
        Sink::File(path) => Some(Destination::File(path.clone())),
        Sink::Stdout => Some(Destination::Stdout),
        Sink::Directory(path) => Some(Destination::Directory(path.clone())),
        Sink::Engine => Some(Destination::Engine),
    };
    outputs
        .iter()
        .enumerate()
        .filter_map(|(id, output)| Some((id, destination(output)?)))
        .collect()
}

fn job(request: BuildRequest, directories: &Directories) -> Job {
    let exporter = |output: Output| Exporter {
        r#type: output.kind,
        attrs: output.attrs.into_iter().collect(),
    };
    Job {
        attrs: request.attrs,
        exporters: request.outputs.into_iter().map(exporter).collect(),
        entitlements: request.entitlements,
        cache: request.cache,
        shared_key: directories.shared_key(),
    }
}

/// The first signal ends the build, the second one this process.
fn watch_signals(interrupt: CancellationToken) -> Result<AbortOnDropHandle<()>, Failure> {
    let mut interrupted = signal(SignalKind::interrupt()).context("cannot watch for signals")?;
    let mut terminated = signal(SignalKind::terminate()).context("cannot watch for signals")?;
    Ok(AbortOnDropHandle::new(tokio::spawn(async move {
        tokio::select! {
            _ = interrupted.recv() => {}
            _ = terminated.recv() => {}
        }
        interrupt.cancel();
        tokio::select! {
            _ = interrupted.recv() => {}
            _ = terminated.recv() => {}
        }
        std::process::exit(130);
    })))
}

fn failure(error: BuildError, ours: Option<String>, display: &dyn Display, farm: &Farm) -> Failure {
    match error {
        BuildError::Interrupted => Failure::Interrupted,
        BuildError::Lost(_) => Failure::Farm(error.into()),
        BuildError::Refused(status) => {
            let context = format!("the farm at {} does not take the build", farm.target());
            let unanswered = std::error::Error::source(&status).is_some();
            let hint = farm.certificate_hint().filter(|_| unanswered);
            let context = match hint {
                Some(hint) => format!("{context} ({hint})"),
                None => context,
            };
            match Failure::from(status) {
                Failure::Farm(error) | Failure::Asked(error) => {
                    Failure::Farm(error.context(context))
                }
                other => other,
            }
        }
        BuildError::Failed { status, details } => {
            if let Some(board) = display.board() {
                eprint!("{}", render_warnings(board));
            }
            eprint!("{}", render_error(display.board(), &details));
            if let Some(ours) = ours {
                return Failure::Asked(anyhow::anyhow!(ours));
            }
            let message = status.message().to_owned();
            match Failure::from(status) {
                Failure::Farm(_) => Failure::Farm(anyhow::anyhow!("failed to solve: {message}")),
                _ => Failure::Asked(anyhow::anyhow!("failed to solve: {message}")),
            }
        }
    }
}

/// Writes the files that were asked for, and the image's id where nothing else is said.
fn deliver(args: &BuildArgs, solved: &Solved, quiet: bool) -> anyhow::Result<()> {
    if let Some(path) = &args.metadata_file {
        let text = serde_json::to_string_pretty(&metadata(solved))? + "\n";
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let id = image_id(&solved.response);
    if let Some(path) = &args.iidfile {
        let id = id.context("--iidfile: the build made no image")?;
        std::fs::write(path, id).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if quiet && let Some(id) = id {
        println!("{id}");
    }
    Ok(())
}

/// The config's digest where there is one image, else the index's, as buildx.
fn image_id(response: &HashMap<String, String>) -> Option<&str> {
    let config = response.get("containerimage.config.digest");
    config
        .or_else(|| response.get("containerimage.digest"))
        .map(String::as_str)
}

/// The exporters' answer; values that are base64 of JSON become JSON, as buildx does.
fn metadata(solved: &Solved) -> serde_json::Value {
    let mut object: BTreeMap<&str, serde_json::Value> = BTreeMap::new();
    for (key, value) in &solved.response {
        let decoded = STANDARD
            .decode(value)
            .ok()
            .and_then(|json| serde_json::from_slice(&json).ok());
        let decoded =
            decoded.filter(|json: &serde_json::Value| json.is_object() || json.is_array());
        object.insert(key, decoded.unwrap_or_else(|| value.clone().into()));
    }
    object.insert(
        "buildx.build.ref",
        format!("buildyard/buildyard/{}", solved.id).into(),
    );
    serde_json::json!(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_in_the_metadata_are_json() {
        let response = HashMap::from([
            ("containerimage.digest".to_owned(), "sha256:aa".to_owned()),
            (
                "containerimage.descriptor".to_owned(),
                STANDARD.encode(r#"{"size":1}"#),
            ),
            ("image.name".to_owned(), "r.example/app:latest".to_owned()),
        ]);
        let metadata = metadata(&Solved {
            id: "x".into(),
            response,
        });
        assert_eq!(metadata["containerimage.digest"], "sha256:aa");
        assert_eq!(metadata["containerimage.descriptor"]["size"], 1);
        assert_eq!(metadata["image.name"], "r.example/app:latest");
    }

    #[test]
    fn the_config_is_the_images_id_where_there_is_one() {
        let mut response = HashMap::from([(
            "containerimage.digest".to_owned(),
            "sha256:index".to_owned(),
        )]);
        assert_eq!(image_id(&response), Some("sha256:index"));
        response.insert(
            "containerimage.config.digest".into(),
            "sha256:config".into(),
        );
        assert_eq!(image_id(&response), Some("sha256:config"));
        assert_eq!(image_id(&HashMap::new()), None);
    }
}
