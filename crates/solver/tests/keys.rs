//! The keys of a Dockerfile's steps: what changes them, what does not, and how far a change reaches.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use buildyard_dockerfile::{Conversion, Images, Options, ResolvedImage, Source, convert, parse};
use buildyard_image::{ImageConfig, RootFs};
use buildyard_layer::{Entry, Kind, Time, Toc, path_cmp};
use buildyard_llb::pb::op::Op;
use buildyard_llb::{Graph, Limits, Step};
use buildyard_model::{Chain, Digest, LayerId, Platform, StepKey};
use buildyard_solver::{Tocs, TocsError, Trees};

/// All layers there are.
#[derive(Default)]
struct Layers(HashMap<LayerId, Arc<Toc>>);

#[async_trait]
impl Tocs for Layers {
    async fn toc(&self, layer: LayerId) -> Result<Option<Arc<Toc>>, TocsError> {
        Ok(Some(self.0.get(&layer).cloned().unwrap_or_default()))
    }
}

fn entry(path: &str, kind: Kind) -> Entry {
    Entry {
        path: path.as_bytes().to_vec(),
        kind,
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: Time::default(),
        xattrs: BTreeMap::new(),
    }
}

fn file(path: &str, content: &str) -> Entry {
    let kind = Kind::File {
        size: content.len() as u64,
        content: Digest::of(content),
        extents: Vec::new(),
        ino: 0,
    };
    entry(path, kind)
}

fn symlink(path: &str, target: &str) -> Entry {
    let target = target.as_bytes().to_vec();
    entry(path, Kind::Symlink { target })
}

/// A context: a folder `d` with a file and a link, and a file beside it.
fn context() -> Vec<Entry> {
    let folder = entry("d", Kind::Directory { opaque: false });
    vec![
        folder,
        file("d/f", "1"),
        symlink("d/l", "f"),
        file("e", "2"),
    ]
}

/// The same with one entry replaced, or added.
fn with(replace: Entry) -> Vec<Entry> {
    let mut entries = context();
    entries.retain(|entry| entry.path != replace.path);
    entries.push(replace);
    entries.sort_by(|a, b| path_cmp(&a.path, &b.path));
    entries
}

fn image() -> ImageConfig {
    ImageConfig {
        os: "linux".to_owned(),
        architecture: "amd64".to_owned(),
        rootfs: RootFs {
            diff_ids: vec![Digest::of("base").to_string()],
            ..RootFs::default()
        },
        ..ImageConfig::default()
    }
}

fn graph(dockerfile: &str, attrs: &[(&str, &str)]) -> Graph {
    let bytes = dockerfile.as_bytes();
    let file = parse(&Source {
        filename: "Dockerfile",
        bytes,
    });
    let file = file.expect("it parses");
    let attrs = attrs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let native = Platform::new("linux", "amd64", "");
    let options = Options::from_attrs(&attrs.collect(), &native).expect("sound attributes");
    let mut images = Images::new();
    loop {
        match convert(&file, &options, &images, &[]).expect("it converts") {
            Conversion::NeedsImages(requests) => {
                for request in requests {
                    let (digest, config) = (Digest::of(&request.reference), image());
                    let key = (request.reference, request.platform);
                    images.insert(key, ResolvedImage { digest, config });
                }
            }
            Conversion::Done(build) => {
                let definitions: Vec<_> = build
                    .targets
                    .iter()
                    .map(|target| &target.definition)
                    .collect();
                return Graph::load(&definitions, Limits::default())
                    .expect("a sound graph")
                    .0;
            }
        }
    }
}

/// The keys of all steps that are no sources, with their names. Each step yields a file `out` that its key alone decides.
async fn keys(
    dockerfile: &str,
    attrs: &[(&str, &str)],
    context: &[Entry],
) -> Vec<(String, StepKey)> {
    let graph = graph(dockerfile, attrs);
    let toc = Toc {
        entries: context.to_vec(),
        ..Toc::default()
    };
    // A new folder is a new layer, whatever is in it.
    let context = LayerId(Digest::of(format!("{toc:?}")));
    let mut layers = Layers(HashMap::from([(context, Arc::new(toc))]));
    let trees = Trees::default();
    let mut results: Vec<Chain> = Vec::new();
    let mut keys = Vec::new();
    for step in graph.steps() {
        let inputs: Vec<Chain> = step
            .inputs
            .iter()
            .map(|input| results[input.step].clone())
            .collect();
        let layer = match source(step) {
            Some(true) => LayerId(Digest::of("base")),
            Some(false) => context,
            None => {
                let key = buildyard_solver::key(step, &inputs, &trees, &layers).await;
                let key = key
                    .expect("everything is there")
                    .expect("all tables are known");
                keys.push((step.name.text.clone(), key));
                let out = Toc {
                    entries: vec![file("out", &key.to_string())],
                    ..Toc::default()
                };
                layers.0.insert(LayerId(key.digest()), Arc::new(out));
                LayerId(key.digest())
            }
        };
        results.push(Chain::new(vec![layer]));
    }
    keys
}

/// Whether a source is an image.
fn source(step: &Step) -> Option<bool> {
    match &step.op.op {
        Some(Op::Source(source)) => Some(source.identifier.starts_with("docker-image://")),
        _ => None,
    }
}

/// What has another key.
async fn changed(
    dockerfile: &str,
    before: (&[(&str, &str)], &[Entry]),
    after: (&[(&str, &str)], &[Entry]),
) -> Vec<String> {
    let (old, new) = (
        keys(dockerfile, before.0, before.1).await,
        keys(dockerfile, after.0, after.1).await,
    );
    assert_eq!(old.len(), new.len(), "the same steps");
    let pairs = old.into_iter().zip(new);
    let differing = pairs.filter(|((_, old), (_, new))| old != new);
    differing.map(|((name, _), _)| name).collect()
}

#[tokio::test]
async fn a_time_never_makes_a_miss_and_everything_else_that_a_step_sees_does() {
    let xattrs = BTreeMap::from([(b"user.x".to_vec(), b"1".to_vec())]);
    let at = Time {
        seconds: 99,
        nanos: 1,
    };
    let changes = [
        (
            "time",
            Entry {
                mtime: at,
                ..file("d/f", "1")
            },
            false,
        ),
        (
            "the link's time",
            Entry {
                mtime: at,
                ..symlink("d/l", "f")
            },
            false,
        ),
        ("beside it", file("e", "3"), false),
        ("content", file("d/f", "3"), true),
        (
            "mode",
            Entry {
                mode: 0o700,
                ..file("d/f", "1")
            },
            true,
        ),
        (
            "owner",
            Entry {
                uid: 1,
                ..file("d/f", "1")
            },
            true,
        ),
        (
            "group",
            Entry {
                gid: 1,
                ..file("d/f", "1")
            },
            true,
        ),
        ("link target", symlink("d/l", "g"), true),
        (
            "xattr",
            Entry {
                xattrs,
                ..file("d/f", "1")
            },
            true,
        ),
        ("one more", file("d/n", ""), true),
    ];
    let instructions = [
        "COPY d /to/",
        "COPY --link d /to/",
        "COPY --chown=1:1 --chmod=700 d /to/",
        "COPY d/ d/* /to/",
        "ADD d /to/",
        "RUN --mount=type=bind,source=d,target=/in x",
        "RUN --mount=type=bind,source=d,target=/in,rw x",
    ];
    for instruction in instructions {
        let dockerfile = format!("FROM base\n{instruction}\n");
        for (what, entry, misses) in &changes {
            let changed =
                changed(&dockerfile, (&[], &context()), (&[], &with(entry.clone()))).await;
            assert_eq!(!changed.is_empty(), *misses, "{what}: {instruction}");
        }
    }
}

#[tokio::test]
async fn a_change_reaches_what_is_made_of_it_and_nothing_else() {
    let dockerfile = "FROM base AS d\nCOPY d /d\nRUN make d\n\
                      FROM base AS e\nRUN tools\nCOPY e /e\nRUN make e\n\
                      FROM base\nCOPY --from=e /out /e\nCOPY --from=d /out /d\nRUN last\n";
    let after = with(file("d/f", "3"));
    let changed = changed(dockerfile, (&[], &context()), (&[], &after)).await;
    let reached = [
        "COPY d /d",
        "RUN make d",
        "COPY --from=d /out /d",
        "RUN last",
    ];
    assert_eq!(changed.len(), reached.len(), "{changed:?}");
    for name in reached {
        assert!(
            changed.iter().any(|changed| changed.ends_with(name)),
            "{name}: {changed:?}"
        );
    }
}

#[tokio::test]
async fn what_is_no_part_of_a_result_is_no_part_of_a_key() {
    let dockerfile =
        "FROM base\nARG V=1\nRUN --mount=type=secret,id=s echo\nRUN echo $V\nCOPY e /\n";
    let context = context();
    for attrs in [
        [("build-arg:HTTP_PROXY", "http://proxy:1")],
        [("build-arg:no_proxy", "example.org")],
        [("no-cache", "")],
        [("label:a", "b")],
    ] {
        let changed = changed(dockerfile, (&[], &context), (&attrs, &context)).await;
        assert_eq!(changed, Vec::<String>::new(), "{attrs:?}");
    }
    let attrs = [("build-arg:V", "2")];
    let changed = changed(dockerfile, (&[], &context), (&attrs, &context)).await;
    assert!(
        !changed.is_empty(),
        "an argument that a step has in its environment counts"
    );
}
