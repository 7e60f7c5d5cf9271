//! What all platforms of one conversion share.

use std::collections::BTreeSet;

use bollard_buildkit_proto::pb;
use buildyard_llb::build::{Builder, Node, Output};

use super::{ImageRequest, Images};
use crate::error::Problem;
use crate::expand::{Expander, Expansion, Variables};
use crate::instruction::Dockerfile;
use crate::limits;
use crate::options::Options;

/// The state of one conversion.
pub(super) struct Work<'a> {
    pub(super) file: &'a Dockerfile,
    pub(super) options: &'a Options,
    pub(super) images: &'a Images,
    pub(super) builder: Builder,
    /// The build context. Its operation is known only when all stages are done: it lists the paths that they use.
    pub(super) context: Output,
    /// Paths of the context that the stages use, absolute.
    pub(super) context_paths: BTreeSet<String>,
    /// Images to be resolved, each once.
    pub(super) requests: Vec<ImageRequest>,
    /// Bytes that may still be made.
    budget: usize,
}

impl<'a> Work<'a> {
    pub(super) fn new(file: &'a Dockerfile, options: &'a Options, images: &'a Images) -> Self {
        let mut builder = Builder::new();
        let context = builder.reserve(
            Node::new(pb::op::Op::Source(pb::SourceOp::default()))
                .name("[internal] load build context")
                .cap("source.local")
                .cap("source.local.sharedkeyhint"),
        );
        Self {
            file,
            options,
            images,
            builder,
            context,
            context_paths: BTreeSet::new(),
            requests: Vec::new(),
            budget: limits::CONVERSION_BYTES,
        }
    }

    /// Takes `bytes` from what the conversion may make.
    pub(super) fn spend(&mut self, bytes: usize) -> Result<(), Problem> {
        let limit = limits::CONVERSION_BYTES;
        self.budget = self.budget.checked_sub(bytes).ok_or(Problem::TooMuch {
            what: "bytes of operations",
            limit,
        })?;
        Ok(())
    }

    /// Expands variables and removes quotes.
    pub(super) fn expand(
        &mut self,
        word: &str,
        variables: &dyn Variables,
    ) -> Result<String, Problem> {
        self.expand_with(Expander::new(self.file.escape), word, variables)
            .map(|found| found.text)
    }

    pub(super) fn expand_with(
        &mut self,
        how: Expander,
        word: &str,
        variables: &dyn Variables,
    ) -> Result<Expansion, Problem> {
        let found = how
            .expand(word, variables)
            .map_err(|problem| Problem::Expansion {
                word: word.chars().take(200).collect(),
                problem,
            })?;
        self.spend(found.text.len())?;
        Ok(found)
    }

    /// Adds an operation, and takes its size from the budget.
    pub(super) fn add(&mut self, node: Node, bytes: usize) -> Result<Output, Problem> {
        self.spend(bytes)?;
        Ok(self.builder.add(node))
    }

    /// Says that a stage uses a path of the build context.
    pub(super) fn use_context(&mut self, path: &str) -> Output {
        self.context_paths
            .insert(super::path::normalize("/", path, false));
        self.context
    }

    /// Gives the build context its operation: attributes as BuildKit's `llb.Local` writes them, but without the ids of
    /// the session, so that equal contexts are equal operations.
    pub(super) fn set_context(&mut self, ignore: &[String]) {
        let key = &self.options.context_key;
        let json = |list: &[String]| serde_json::Value::from(list.to_vec()).to_string();
        let mut source = pb::SourceOp {
            identifier: format!("local://{key}"),
            ..Default::default()
        };
        source
            .attrs
            .insert("local.sharedkeyhint".to_owned(), key.clone());
        if !ignore.is_empty() {
            source
                .attrs
                .insert("local.excludepatterns".to_owned(), json(ignore));
        }
        let paths: Vec<String> = self
            .context_paths
            .iter()
            .map(|path| path.trim_start_matches('/').to_owned())
            .collect();
        if !paths.is_empty() && !self.context_paths.contains("/") {
            source
                .attrs
                .insert("local.followpaths".to_owned(), json(&paths));
        }
        self.builder
            .replace(self.context, pb::op::Op::Source(source));
    }

    /// The Dockerfile, for error messages that show its lines.
    pub(super) fn source_info(&self) -> pb::SourceInfo {
        pb::SourceInfo {
            filename: self.file.filename.clone(),
            data: self.file.source.clone(),
            language: "Dockerfile".to_owned(),
            definition: None,
        }
    }
}
