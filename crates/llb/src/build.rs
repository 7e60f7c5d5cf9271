//! Builds operations and marshals them into definitions.
//!
//! A frontend [adds](Builder::add) nodes, each with outputs of earlier nodes as inputs, and asks for the
//! [definition](Builder::definition) of an output. Equal operations with equal inputs are one node, so that what several
//! definitions share is byte for byte the same in each. Digests are computed only when a definition is asked for: the
//! operation of a node may be [replaced](Builder::replace) until then.
//!
//! Format: BuildKit `solver/pb/ops.proto`; the closing operation and its metadata as `client/llb/state.go` writes them.
//! Does not check that the operations make sense: [`Graph`](crate::Graph) does, when a definition is loaded.

use std::collections::{BTreeMap, HashMap};

use bollard_buildkit_proto::pb;
use buildyard_model::{Digest, Platform};
use prost::Message;

/// An output of a node of one [`Builder`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Output {
    node: usize,
    index: u32,
}

/// One operation with all that is said about it.
#[derive(Debug, Clone)]
pub struct Node {
    op: pb::op::Op,
    inputs: Vec<Output>,
    platform: Option<Platform>,
    metadata: pb::OpMetadata,
    locations: Vec<pb::Range>,
}

/// A description that names a vertex in progress displays.
pub const CUSTOM_NAME: &str = "llb.customname";

impl Node {
    /// An operation without inputs, platform or description.
    pub fn new(op: pb::op::Op) -> Self {
        let metadata = pb::OpMetadata::default();
        Self {
            op,
            inputs: Vec::new(),
            platform: None,
            metadata,
            locations: Vec::new(),
        }
    }

    /// Its inputs, in the order in which the operation counts them.
    #[must_use]
    pub fn inputs(mut self, inputs: impl IntoIterator<Item = Output>) -> Self {
        self.inputs = inputs.into_iter().collect();
        self
    }

    /// The platform it is made for. File operations, merges and local sources have none.
    #[must_use]
    pub fn platform(mut self, platform: &Platform) -> Self {
        self.platform = Some(platform.clone());
        self
    }

    /// The vertex name that clients show.
    #[must_use]
    pub fn name(self, name: impl Into<String>) -> Self {
        self.describe(CUSTOM_NAME, name)
    }

    /// A text about the operation that does not change it.
    #[must_use]
    pub fn describe(mut self, key: &str, text: impl Into<String>) -> Self {
        self.metadata
            .description
            .insert(key.to_owned(), text.into());
        self
    }

    /// Must run again even if its result is known.
    #[must_use]
    pub fn ignore_cache(mut self, ignore: bool) -> Self {
        self.metadata.ignore_cache = ignore;
        self
    }

    /// The group that it is shown in.
    #[must_use]
    pub fn progress_group(mut self, group: pb::ProgressGroup) -> Self {
        self.metadata.progress_group = Some(group);
        self
    }

    /// A capability that its engine must have.
    #[must_use]
    pub fn cap(mut self, capability: &str) -> Self {
        self.metadata.caps.insert(capability.to_owned(), true);
        self
    }

    /// Where in the source file it comes from.
    #[must_use]
    pub fn location(mut self, range: pb::Range) -> Self {
        self.locations.push(range);
        self
    }

    /// The operation's message; `name_of` says how an input is named in it.
    fn message(&self, name_of: impl Fn(usize) -> String) -> pb::Op {
        pb::Op {
            inputs: self
                .inputs
                .iter()
                .map(|input| pb::Input {
                    digest: name_of(input.node),
                    index: i64::from(input.index),
                })
                .collect(),
            op: Some(self.op.clone()),
            platform: self.platform.as_ref().map(to_pb),
            constraints: Some(pb::WorkerConstraints::default()),
        }
    }

    /// Takes over what another node with the same operation was told.
    fn merge(&mut self, other: Self) {
        self.metadata.ignore_cache |= other.metadata.ignore_cache;
        for (key, text) in other.metadata.description {
            self.metadata.description.entry(key).or_insert(text);
        }
        self.metadata.caps.extend(other.metadata.caps);
        if self.metadata.progress_group.is_none() {
            self.metadata.progress_group = other.metadata.progress_group;
        }
        for range in other.locations {
            if !self.locations.contains(&range) {
                self.locations.push(range);
            }
        }
    }
}

/// A platform as BuildKit's message.
pub fn to_pb(platform: &Platform) -> pb::Platform {
    pb::Platform {
        os: platform.os.clone(),
        architecture: platform.architecture.clone(),
        variant: platform.variant.clone(),
        ..Default::default()
    }
}

/// Collects nodes. Inputs are added before the nodes that use them, so the order of adding is a topological order.
#[derive(Debug, Clone, Default)]
pub struct Builder {
    nodes: Vec<Node>,
    /// Nodes by the digest of their operation, its inputs named by their numbers: equal numbers are equal operations.
    known: HashMap<Digest, usize>,
}

impl Builder {
    /// A builder without nodes.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many different operations there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether nothing was added yet.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Adds a node and returns its first output. An operation that is there already, with the same inputs and
    /// platform, is not added again: it takes over the new one's locations, and is never cached if either must not be.
    pub fn add(&mut self, node: Node) -> Output {
        let key = Digest::of(node.message(|number| number.to_string()).encode_to_vec());
        let number = match self.known.get(&key) {
            Some(&number) => {
                self.nodes[number].merge(node);
                number
            }
            None => {
                self.nodes.push(node);
                self.known.insert(key, self.nodes.len() - 1);
                self.nodes.len() - 1
            }
        };
        Output {
            node: number,
            index: 0,
        }
    }

    /// Adds a node whose operation is not known yet; nothing is ever taken for equal to it.
    pub fn reserve(&mut self, node: Node) -> Output {
        self.nodes.push(node);
        Output {
            node: self.nodes.len() - 1,
            index: 0,
        }
    }

    /// Gives the node behind `output` its final operation.
    pub fn replace(&mut self, output: Output, op: pb::op::Op) {
        self.nodes[output.node].op = op;
    }

    /// The definition whose result is `output`: the operations that it needs, inputs first, then the closing operation.
    /// `None` is `scratch`, the empty definition. `source` is the file that the locations are in.
    pub fn definition(
        &self,
        output: Option<Output>,
        source: Option<&pb::SourceInfo>,
    ) -> pb::Definition {
        let mut marshal = Marshal::new(self, source.is_some());
        if let Some(output) = output {
            marshal.operations(&self.needed(output.node));
            marshal.close(output);
        }
        marshal.source.infos.extend(source.cloned());
        marshal.definition.source = Some(marshal.source);
        marshal.definition
    }

    /// The numbers of the node and of all that it needs, in ascending order.
    fn needed(&self, node: usize) -> Vec<usize> {
        let mut wanted = vec![false; node + 1];
        wanted[node] = true;
        for number in (0..=node).rev() {
            if wanted[number] {
                for input in &self.nodes[number].inputs {
                    wanted[input.node] = true;
                }
            }
        }
        (0..=node).filter(|&number| wanted[number]).collect()
    }
}

impl Output {}

/// A definition in the making.
struct Marshal<'a> {
    builder: &'a Builder,
    has_source: bool,
    digests: HashMap<usize, Digest>,
    definition: pb::Definition,
    source: pb::Source,
}

impl<'a> Marshal<'a> {
    fn new(builder: &'a Builder, has_source: bool) -> Self {
        let definition = pb::Definition::default();
        Self {
            builder,
            has_source,
            digests: HashMap::new(),
            definition,
            source: pb::Source::default(),
        }
    }

    fn operations(&mut self, numbers: &[usize]) {
        for &number in numbers {
            let node = &self.builder.nodes[number];
            let bytes = node
                .message(|input| self.digests[&input].to_string())
                .encode_to_vec();
            let digest = Digest::of(&bytes);
            self.digests.insert(number, digest);
            let name = digest.to_string();
            if self.has_source && !node.locations.is_empty() {
                let location = pb::Location {
                    source_index: 0,
                    ranges: node.locations.clone(),
                };
                self.source
                    .locations
                    .entry(name.clone())
                    .or_default()
                    .locations
                    .push(location);
            }
            if self
                .definition
                .metadata
                .insert(name, node.metadata.clone())
                .is_none()
            {
                self.definition.def.push(bytes);
            }
        }
    }

    /// Ends the definition with the operation that has nothing but the result as its input.
    fn close(&mut self, output: Output) {
        let input = pb::Input {
            digest: self.digests[&output.node].to_string(),
            index: i64::from(output.index),
        };
        let bytes = pb::Op {
            inputs: vec![input],
            ..Default::default()
        }
        .encode_to_vec();
        let mut caps = BTreeMap::from([
            ("constraints".to_owned(), true),
            ("platform".to_owned(), true),
        ]);
        if self
            .definition
            .metadata
            .values()
            .any(|metadata| metadata.ignore_cache)
        {
            caps.insert("meta.ignorecache".to_owned(), true);
        }
        if self
            .definition
            .metadata
            .values()
            .any(|metadata| !metadata.description.is_empty())
        {
            caps.insert("meta.description".to_owned(), true);
        }
        let metadata = pb::OpMetadata {
            caps,
            ..Default::default()
        };
        self.definition
            .metadata
            .insert(Digest::of(&bytes).to_string(), metadata);
        self.definition.def.push(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Graph, Limits};

    fn source(identifier: &str) -> Node {
        let op = pb::SourceOp {
            identifier: identifier.to_owned(),
            ..Default::default()
        };
        Node::new(pb::op::Op::Source(op))
    }

    fn merge(inputs: &[Output]) -> Node {
        let numbers = (0..inputs.len() as i64)
            .map(|input| pb::MergeInput { input })
            .collect();
        Node::new(pb::op::Op::Merge(pb::MergeOp { inputs: numbers })).inputs(inputs.iter().copied())
    }

    fn line(line: i32) -> pb::Range {
        let position = Some(pb::Position { line, character: 0 });
        pb::Range {
            start: position,
            end: position,
        }
    }

    #[test]
    fn a_definition_loads_as_the_graph_it_was_built_from() {
        let mut builder = Builder::new();
        let a =
            builder.add(source("docker-image://a").platform(&Platform::new("linux", "arm64", "")));
        let unused = builder.add(source("docker-image://unused"));
        let b = builder.add(source("docker-image://b").name("the b"));
        let both = builder.add(merge(&[a, b]).name("both").ignore_cache(true));
        assert_eq!(builder.len(), 4);
        let (graph, targets) =
            Graph::load(&[&builder.definition(Some(both), None)], Limits::default())
                .expect("it is sound");
        let names: Vec<_> = graph
            .steps()
            .iter()
            .map(|step| step.name.text.as_str())
            .collect();
        assert_eq!(names.len(), 3);
        assert_eq!(names[1..], ["the b", "both"]);
        assert_eq!(targets[0].map(|target| target.step), Some(2));
        assert!(graph.step(2).ignore_cache);
        assert_eq!(
            graph.step(0).platform,
            Some(Platform::new("linux", "arm64", ""))
        );
        assert_ne!(unused, b);
    }

    #[test]
    fn equal_operations_are_one_and_keep_what_both_were_told() {
        let mut builder = Builder::new();
        let first = builder.add(source("s").name("first").location(line(1)));
        let again = builder.add(
            source("s")
                .name("again")
                .location(line(2))
                .ignore_cache(true),
        );
        assert_eq!((first, builder.len()), (again, 1));
        let file = pb::SourceInfo {
            filename: "Dockerfile".to_owned(),
            ..Default::default()
        };
        let definition = builder.definition(Some(first), Some(&file));
        let name = Digest::of(&definition.def[0]).to_string();
        let metadata = &definition.metadata[&name];
        assert_eq!(metadata.description[CUSTOM_NAME], "first");
        assert!(metadata.ignore_cache);
        let source = definition.source.expect("it was given");
        assert_eq!(source.infos, [file]);
        assert_eq!(
            source.locations[&name].locations[0].ranges,
            [line(1), line(2)]
        );
    }

    #[test]
    fn what_definitions_share_is_the_same_in_each() {
        let mut builder = Builder::new();
        let shared = builder.reserve(source(""));
        let one = builder.add(merge(&[shared, shared]));
        let other = builder.add(merge(&[shared]));
        builder.replace(
            shared,
            pb::op::Op::Source(pb::SourceOp {
                identifier: "late".into(),
                ..Default::default()
            }),
        );
        let (one, other) = (
            builder.definition(Some(one), None),
            builder.definition(Some(other), None),
        );
        assert_eq!(one.def[0], other.def[0]);
        assert_ne!(one.def[1], other.def[1]);
        let op = pb::Op::decode(one.def[0].as_slice()).expect("it was encoded here");
        assert!(matches!(op.op, Some(pb::op::Op::Source(source)) if source.identifier == "late"));
    }

    #[test]
    fn scratch_is_the_empty_definition() {
        let definition = Builder::new().definition(None, None);
        assert!(definition.def.is_empty());
    }

    #[test]
    fn the_bytes_of_an_operation_do_not_change() {
        let mut builder = Builder::new();
        let image =
            builder.add(source("docker-image://a").platform(&Platform::new("linux", "amd64", "")));
        let definition = builder.definition(Some(image), None);
        assert_eq!(
            Digest::of(&definition.def[0]).to_string(),
            "sha256:776979e27aef04f5c0f4d654b108334ba35b353b5df9956cfc69565889836432"
        );
    }
}
