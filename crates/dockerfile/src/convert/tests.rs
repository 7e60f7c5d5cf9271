//! Whole files: what becomes of them.

mod build;
mod errors;
mod history;
mod operations;
mod properties;

use std::collections::BTreeMap;

use bollard_buildkit_proto::pb;
use buildyard_image::{ContainerConfig, ImageConfig, RootFs};
use buildyard_llb::{Graph, Limits};
use buildyard_model::{Digest, Platform};

use super::*;
use crate::parse::{Source, parse};

/// A conversion with a fake registry: every image exists.
pub(super) struct Case {
    text: String,
    options: Options,
    base: BTreeMap<String, ImageConfig>,
    ignore: Vec<String>,
}

pub(super) fn case(text: &str) -> Case {
    let options = Options::new(Platform::new("linux", "amd64", ""));
    Case {
        text: text.to_owned(),
        options,
        base: BTreeMap::new(),
        ignore: Vec::new(),
    }
}

impl Case {
    pub(super) fn attrs(mut self, attrs: &[(&str, &str)]) -> Self {
        let attrs = attrs
            .iter()
            .map(|&(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        self.options = Options::from_attrs(&attrs, &Platform::new("linux", "amd64", ""))
            .expect("the attributes are sound");
        self
    }

    /// The configuration of one image; the others are plain.
    pub(super) fn image(mut self, reference: &str, change: impl Fn(&mut ContainerConfig)) -> Self {
        let mut config = plain_image();
        change(&mut config.config);
        self.base.insert(reference.to_owned(), config);
        self
    }

    pub(super) fn try_run(&self) -> Result<Build, ConvertError> {
        let file = parse(&Source {
            filename: "Dockerfile",
            bytes: self.text.as_bytes(),
        })
        .expect("it parses");
        let mut images = Images::new();
        for _ in 0..10 {
            match convert(&file, &self.options, &images, &self.ignore)? {
                Conversion::Done(build) => return Ok(*build),
                Conversion::NeedsImages(requests) => {
                    for request in requests {
                        let mut config = self
                            .base
                            .get(&request.reference)
                            .cloned()
                            .unwrap_or_else(plain_image);
                        config
                            .architecture
                            .clone_from(&request.platform.architecture);
                        config.variant.clone_from(&request.platform.variant);
                        let digest = Digest::of(&request.reference);
                        images.insert(
                            (request.reference, request.platform),
                            ResolvedImage { digest, config },
                        );
                    }
                }
            }
        }
        panic!("it never has all images");
    }

    pub(super) fn run(&self) -> Build {
        self.try_run().expect("it converts")
    }

    /// The only target.
    pub(super) fn target(&self) -> Target {
        self.run().targets.pop().expect("there is one")
    }

    /// The names of the steps, in their order.
    pub(super) fn names(&self) -> Vec<String> {
        names(&self.target())
    }

    pub(super) fn error(&self) -> ConvertError {
        // Not `expect_err`: it would print a whole build.
        match self.try_run() {
            Ok(_) => panic!(
                "it should be refused: {}",
                self.text.chars().take(500).collect::<String>()
            ),
            Err(error) => error,
        }
    }

    /// The operation of the last step of this kind.
    pub(super) fn exec(&self) -> pb::ExecOp {
        let ops = ops(&self.target()).into_iter().rev();
        let exec = |op: pb::Op| {
            if let Some(pb::op::Op::Exec(exec)) = op.op {
                Some(exec)
            } else {
                None
            }
        };
        ops.filter_map(exec).next().expect("it runs something")
    }

    /// The copy actions of the last file step.
    pub(super) fn copies(&self) -> (pb::Op, Vec<pb::FileActionCopy>) {
        let ops = ops(&self.target()).into_iter().rev();
        let copies = |op: pb::Op| {
            let Some(pb::op::Op::File(file)) = &op.op else {
                return None;
            };
            let copy = |action: &pb::FileAction| match &action.action {
                Some(pb::file_action::Action::Copy(copy)) => Some(copy.clone()),
                _ => None,
            };
            let copies: Vec<_> = file.actions.iter().filter_map(copy).collect();
            (!copies.is_empty()).then_some((op, copies))
        };
        ops.filter_map(copies).next().expect("it copies something")
    }

    pub(super) fn context(&self) -> BTreeMap<String, String> {
        let source = |op: pb::Op| match op.op {
            Some(pb::op::Op::Source(source)) if source.identifier.starts_with("local://") => {
                Some(source.attrs)
            }
            _ => None,
        };
        ops(&self.target())
            .into_iter()
            .filter_map(source)
            .next()
            .expect("it has a context")
    }
}

pub(super) fn plain_image() -> ImageConfig {
    ImageConfig {
        os: "linux".to_owned(),
        architecture: "amd64".to_owned(),
        created: Some("2020-01-01T00:00:00Z".to_owned()),
        rootfs: RootFs {
            diff_ids: vec![Digest::of("layer").to_string()],
            ..RootFs::default()
        },
        config: ContainerConfig {
            env: Some(vec!["PATH=/bin".to_owned()]),
            ..ContainerConfig::default()
        },
        ..ImageConfig::default()
    }
}

pub(super) fn graph(target: &Target) -> Graph {
    Graph::load(&[&target.definition], Limits::default())
        .expect("the definition is sound")
        .0
}

pub(super) fn names(target: &Target) -> Vec<String> {
    graph(target)
        .steps()
        .iter()
        .map(|step| step.name.text.clone())
        .collect()
}

pub(super) fn ops(target: &Target) -> Vec<pb::Op> {
    graph(target)
        .steps()
        .iter()
        .map(|step| step.op.as_ref().clone())
        .collect()
}

/// The reference under which the fake registry resolves an image.
pub(super) fn pinned(reference: &str) -> String {
    format!("{reference}@{}", Digest::of(reference))
}
