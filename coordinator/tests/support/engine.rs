//! An engine that follows a script: the "Dockerfile" itself, one action a line.
//!
//! It takes the real context from the real client, shows steps, fails at a line, waits for its cancellation, and
//! exports the context as the result.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use async_trait::async_trait;
use bollard_buildkit_proto::fsutil::types::Stat;
use bollard_buildkit_proto::pb;
use buildyard_coordinator::backend::*;
use buildyard_coordinator::progress::{STDERR, StatusUpdate, VertexInfo, Warning};
use buildyard_layer::{Entry, Kind, Toc};
use buildyard_model::{Digest, StepDigest};
use buildyard_session::{DirEntry, DirKind, DirSource, SyncRequest};

use super::pack::Packs;

/// What the engine was asked, for the tests to look at.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) frontend: String,
    pub(crate) attrs: BTreeMap<String, String>,
    pub(crate) context: Vec<String>,
    pub(crate) travelled: Vec<u64>,
    pub(crate) exporters: Vec<ExporterSpec>,
    pub(crate) secret: Option<Option<Vec<u8>>>,
    pub(crate) outcome: Option<Result<BTreeMap<String, String>, BuildError>>,
}

#[derive(Default)]
pub(crate) struct Scripted {
    pub(crate) seen: Mutex<Seen>,
    pub(crate) packs: Packs,
    pub(crate) previous: Mutex<BTreeMap<String, Arc<Toc>>>,
    pub(crate) running: tokio::sync::Notify,
}

/// What a reference is: the context.
struct Tree(Arc<Toc>);

impl Scripted {
    async fn sync(
        &self,
        build: &Build,
        name: &str,
        request: SyncRequest,
    ) -> Result<Arc<Toc>, BuildError> {
        let previous = self
            .previous
            .lock()
            .expect("no test panics while it holds this")
            .get(name)
            .cloned();
        let request = SyncRequest {
            dir_name: name.to_owned(),
            previous,
            ..request
        };
        let synced = build.session.sync_dir(request, self.packs.create()).await?;
        self.seen
            .lock()
            .expect("no test panics while it holds this")
            .travelled
            .push(synced.files);
        let toc = Arc::new(synced.toc);
        self.previous
            .lock()
            .expect("no test panics while it holds this")
            .insert(name.to_owned(), toc.clone());
        Ok(toc)
    }

    async fn dockerfile(&self, build: &Build) -> Result<Vec<u8>, BuildError> {
        let step = Digest::of("definition");
        let name = "[internal] load build definition from Dockerfile".to_owned();
        build.progress.declare(
            step,
            VertexInfo {
                name,
                ..Default::default()
            },
        );
        build.progress.started(step, SystemTime::now());
        let follow_paths = vec!["Dockerfile".to_owned()];
        let toc = self
            .sync(
                build,
                "dockerfile",
                SyncRequest {
                    follow_paths,
                    ..Default::default()
                },
            )
            .await?;
        build.progress.completed(step, SystemTime::now());
        let text = self.packs.content(&toc, b"Dockerfile");
        text.ok_or_else(|| {
            BuildError::failed(
                "failed to read dockerfile: open Dockerfile: no such file or directory",
            )
        })
    }

    async fn context(&self, build: &Build) -> Result<Arc<Toc>, BuildError> {
        let step = Digest::of("context");
        let name = "[internal] load build context".to_owned();
        build.progress.declare(
            step,
            VertexInfo {
                name,
                ..Default::default()
            },
        );
        build.progress.started(step, SystemTime::now());
        let exclude_patterns = vec!["ignored".to_owned()];
        let toc = self
            .sync(
                build,
                "context",
                SyncRequest {
                    exclude_patterns,
                    ..Default::default()
                },
            )
            .await?;
        let now = SystemTime::now();
        let (started, completed) = (Some(now), Some(now));
        let id = "transferring context:".to_owned();
        build.progress.status(
            step,
            StatusUpdate {
                id,
                current: 7,
                started,
                completed,
                ..Default::default()
            },
            now,
        );
        build.progress.completed(step, now);
        let paths = toc
            .entries
            .iter()
            .map(|entry| String::from_utf8_lossy(&entry.path).into_owned());
        self.seen
            .lock()
            .expect("no test panics while it holds this")
            .context = paths.collect();
        Ok(toc)
    }

    async fn step(
        &self,
        build: &Build,
        number: usize,
        line: &str,
        dockerfile: &[u8],
    ) -> Result<(), BuildError> {
        let step = Digest::of(format!("step {number} {line}"));
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let progress = &build.progress;
        progress.declare(
            step,
            VertexInfo {
                name: format!("[{number}/9] {line}"),
                ..Default::default()
            },
        );
        let now = SystemTime::now();
        match word {
            "CACHED" => progress.cached(step, now),
            "PRINT" => {
                progress.started(step, now);
                progress.log(step, STDERR, format!("{rest}\n").as_bytes(), now);
                progress.completed(step, now);
            }
            "WARN" => progress.warn(Warning {
                vertex: Some(step),
                short: rest.to_owned(),
                ..Default::default()
            }),
            "SECRET" => {
                let secret = build.session.secret(rest).await?;
                self.seen
                    .lock()
                    .expect("no test panics while it holds this")
                    .secret = Some(secret);
            }
            "WAIT" => {
                progress.started(step, now);
                self.running.notify_one();
                build.cancel.cancelled().await;
                return Err(BuildError::cancelled());
            }
            "FAIL" => {
                progress.started(step, now);
                progress.log(step, STDERR, b"about to fail\n", now);
                let error = BuildError::command(&["/bin/sh", "-c", rest].map(str::to_owned), 1);
                progress.failed(step, &error.message, now);
                let info = pb::SourceInfo {
                    filename: "Dockerfile".into(),
                    data: dockerfile.into(),
                    ..Default::default()
                };
                let line = Some(pb::Position {
                    line: number as i32,
                    character: 0,
                });
                let range = pb::Range {
                    start: line,
                    end: line,
                };
                let error = error.context(format!("failed to solve step {number}"));
                return Err(error.at_step(StepDigest(step)).at_source(info, vec![range]));
            }
            _ => {}
        }
        Ok(())
    }
}

fn reference(toc: &Arc<Toc>) -> Ref {
    Ref::new(
        pb::Definition {
            def: vec![b"x".to_vec()],
            ..Default::default()
        },
        Tree(toc.clone()),
    )
}

#[async_trait]
impl Backend for Scripted {
    async fn solve(&self, build: &Arc<Build>, input: SolveInput) -> Result<Solved, BuildError> {
        let What::Frontend { name, attrs, .. } = input.what else {
            return Ok(Solved::default());
        };
        {
            let mut seen = self
                .seen
                .lock()
                .expect("no test panics while it holds this");
            (seen.frontend, seen.attrs) = (name, attrs.clone());
        }
        let dockerfile = self.dockerfile(build).await?;
        let context = self.context(build).await?;
        for (index, line) in String::from_utf8_lossy(&dockerfile).lines().enumerate() {
            self.step(build, index + 1, line, &dockerfile).await?;
        }
        let platforms: Vec<_> = attrs
            .get("platform")
            .map(|list| list.split(',').collect())
            .unwrap_or_default();
        if platforms.len() < 2 {
            return Ok(Solved {
                refs: Refs::Single(reference(&context)),
                ..Default::default()
            });
        }
        let refs = platforms
            .iter()
            .map(|platform| ((*platform).to_owned(), reference(&context)))
            .collect();
        let list = platforms
            .iter()
            .map(|platform| serde_json::json!({"ID": platform, "Platform": {}}));
        let list = serde_json::json!({ "Platforms": list.collect::<Vec<_>>() }).to_string();
        Ok(Solved {
            refs: Refs::PerPlatform(refs),
            metadata: [("refs.platforms".to_owned(), list.into_bytes())].into(),
        })
    }

    async fn evaluate(&self, _: &Arc<Build>, _: &Ref) -> Result<(), BuildError> {
        Ok(())
    }

    async fn read_file(
        &self,
        _: &Arc<Build>,
        reference: &Ref,
        path: &str,
        _: Option<ByteRange>,
    ) -> Result<Vec<u8>, BuildError> {
        let tree = reference
            .state::<Tree>()
            .ok_or_else(|| BuildError::not_found("scratch"))?;
        let content = self.packs.content(&tree.0, path.as_bytes());
        content.ok_or_else(|| BuildError::not_found(format!("{path}: no such file")))
    }

    async fn read_dir(
        &self,
        _: &Arc<Build>,
        _: &Ref,
        path: &str,
        _: &str,
    ) -> Result<Vec<Stat>, BuildError> {
        Err(BuildError::not_found(format!("{path}: no such directory")))
    }

    async fn stat_file(&self, _: &Arc<Build>, _: &Ref, path: &str) -> Result<Stat, BuildError> {
        Err(BuildError::not_found(format!("{path}: no such file")))
    }

    async fn resolve_image(
        &self,
        _: &Arc<Build>,
        query: ImageQuery,
    ) -> Result<ResolvedConfig, BuildError> {
        Err(BuildError::not_found(format!(
            "{}: not found",
            query.reference
        )))
    }

    async fn export(
        &self,
        build: &Arc<Build>,
        solved: Solved,
        exporters: Vec<ExporterSpec>,
    ) -> Result<BTreeMap<String, String>, BuildError> {
        self.seen
            .lock()
            .expect("no test panics while it holds this")
            .exporters = exporters.clone();
        let mut response = BTreeMap::from([(
            "containerimage.digest".to_owned(),
            Digest::of("image").to_string(),
        )]);
        if let Refs::PerPlatform(refs) = &solved.refs {
            response.insert("test.platforms".to_owned(), refs.len().to_string());
        }
        for exporter in exporters {
            match (&solved.refs, exporter.kind.as_str()) {
                (Refs::Single(reference), "local") => {
                    let tree = reference.state::<Tree>().expect("made by solve");
                    let source = Export {
                        toc: tree.0.clone(),
                        packs: self.packs.clone(),
                    };
                    build
                        .session
                        .send_dir(exporter.index, Arc::new(source))
                        .await?;
                }
                (_, "tar" | "oci" | "docker") => {
                    let parts = (0..3).map(|part| Ok(vec![b'a' + part; 1_500_000].into()));
                    build
                        .session
                        .send_stream(exporter.index, &response, futures::stream::iter(parts))
                        .await?;
                }
                _ => {}
            }
        }
        Ok(response)
    }

    fn worker(&self) -> WorkerView {
        let platform = |architecture: &str| pb::Platform {
            os: "linux".into(),
            architecture: architecture.into(),
            ..Default::default()
        };
        WorkerView {
            id: "farm".into(),
            labels: [(
                "org.mobyproject.buildkit.worker.executor".to_owned(),
                "buildyard".to_owned(),
            )]
            .into(),
            platforms: vec![platform("amd64"), platform("arm64")],
        }
    }

    async fn finished(
        &self,
        _: &Arc<Build>,
        outcome: &Result<BTreeMap<String, String>, BuildError>,
    ) {
        self.seen
            .lock()
            .expect("no test panics while it holds this")
            .outcome = Some(outcome.clone());
    }
}

/// The context as an export.
struct Export {
    toc: Arc<Toc>,
    packs: Packs,
}

impl DirSource for Export {
    fn paths(&self) -> usize {
        self.toc.entries.len()
    }

    fn entry(&self, number: usize) -> DirEntry {
        let entry = &self.toc.entries[number];
        let kind = match &entry.kind {
            Kind::File { size, ino, .. } => {
                let same = |other: &&Entry| {
                    *ino != 0
                        && matches!(other.kind, Kind::File { ino: first, .. } if first == *ino)
                };
                match self.toc.entries[..number].iter().find(same) {
                    Some(first) => DirKind::HardLink(first.path.clone()),
                    None => DirKind::File(*size),
                }
            }
            Kind::Directory { .. } => DirKind::Directory,
            Kind::Symlink { target } => DirKind::Symlink(target.clone()),
            other => panic!("{other:?} in a test's context"),
        };
        DirEntry {
            path: entry.path.clone(),
            kind,
            mode: entry.mode,
            mtime: entry.mtime,
            xattrs: BTreeMap::new(),
        }
    }

    fn open(&self, number: usize) -> std::io::Result<Box<dyn Read + '_>> {
        let path = &self.toc.entries[number].path;
        let content = self
            .packs
            .content(&self.toc, path)
            .ok_or(std::io::ErrorKind::NotFound)?;
        Ok(Box::new(std::io::Cursor::new(content)))
    }
}
