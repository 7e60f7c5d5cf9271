//! Definitions to one checked graph.
//!
//! Format: BuildKit `solver/pb/ops.proto`. A definition is a list of encoded operations, each known by the SHA-256 of its
//! bytes, which is also how others name it as their input. The last one carries nothing but the input that is the
//! definition's result.

use std::collections::HashMap;
use std::sync::Arc;

use bollard_buildkit_proto::pb;
use buildyard_model::{Digest, Platform, StepDigest};
use prost::Message;

/// How large a graph may be before it is refused.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Number of different operations.
    pub steps: usize,
    /// Size of one encoded operation in bytes.
    pub operation_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            steps: 50_000,
            operation_bytes: 16 << 20,
        }
    }
}

/// Why a definition was refused.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    /// The bytes of an operation are not an `Op` message.
    #[error("operation {0} of the definition cannot be decoded")]
    Undecodable(StepDigest, #[source] prost::DecodeError),
    /// An operation is larger than the limit.
    #[error("operation {digest} has {bytes} bytes; at most {limit} are allowed")]
    OperationTooLarge {
        /// Which one.
        digest: StepDigest,
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Too many operations.
    #[error("the definition has more than {0} operations")]
    TooManySteps(usize),
    /// An input names an operation that is not in the definition.
    #[error("operation {of} has the input {input:?}, which is not in the definition")]
    UnknownInput {
        /// Whose input.
        of: StepDigest,
        /// The name given.
        input: String,
    },
    /// An input asks for an output that its operation does not have.
    #[error("operation {of} asks for output {output} of {input}, which has {outputs}")]
    UnknownOutput {
        /// Whose input.
        of: StepDigest,
        /// The operation asked.
        input: StepDigest,
        /// The output asked for.
        output: i64,
        /// How many there are.
        outputs: usize,
    },
    /// Operations that need each other.
    #[error("operation {0} needs its own result")]
    Cycle(StepDigest),
    /// The closing operation does not have exactly one input.
    #[error("the definition's last operation has {0} inputs; it must have one")]
    NoResult(usize),
    /// An operation that this engine does not do.
    #[error("operation {0}: {1}")]
    Unsupported(StepDigest, String),
    /// A number in an operation points nowhere.
    #[error("operation {digest}: {what} {index} does not exist")]
    BadIndex {
        /// Which operation.
        digest: StepDigest,
        /// What the number should name.
        what: &'static str,
        /// The number.
        index: i64,
    },
    /// A platform that cannot be understood.
    #[error("operation {0} has an incomplete platform")]
    BadPlatform(StepDigest),
}

/// A checked graph. Steps are in topological order: the inputs of a step have lower numbers.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    steps: Vec<Step>,
    numbers: HashMap<StepDigest, usize>,
}

/// One operation of the graph.
#[derive(Debug, Clone)]
pub struct Step {
    /// SHA-256 of the encoded operation.
    pub digest: StepDigest,
    /// The operation.
    pub op: Arc<pb::Op>,
    /// The operation as it came.
    pub bytes: Arc<[u8]>,
    /// Its inputs, in the operation's own order.
    pub inputs: Vec<Input>,
    /// How many results it yields.
    pub outputs: usize,
    /// The platform it was made for.
    pub platform: Option<Platform>,
    /// What it is called and shown as.
    pub name: StepName,
    /// It must run again even if its result is known (`--no-cache`).
    pub ignore_cache: bool,
}

/// How a step is shown.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StepName {
    /// BuildKit's vertex name.
    pub text: String,
    /// The group that it is shown in.
    pub progress_group: Option<pb::ProgressGroup>,
}

/// An output of another step of the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Input {
    /// Number of the step.
    pub step: usize,
    /// Which of its outputs.
    pub output: usize,
}

/// What a definition yields: an output, or nothing (an empty definition is `scratch`).
pub type Target = Option<Input>;

impl Graph {
    /// Joins definitions into one graph. Returns what each of them yields, in their order.
    ///
    /// # Errors
    /// A [`GraphError`] for the first thing that is wrong. Nothing of a refused definition is kept.
    pub fn load(
        definitions: &[&pb::Definition],
        limits: Limits,
    ) -> Result<(Self, Vec<Target>), GraphError> {
        let mut graph = Self::default();
        let targets = definitions
            .iter()
            .map(|definition| Loader::new(definition, limits)?.run(&mut graph))
            .collect::<Result<_, _>>()?;
        Ok((graph, targets))
    }

    /// All steps, inputs first.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The step of this number.
    pub fn step(&self, number: usize) -> &Step {
        &self.steps[number]
    }

    /// The number of a step.
    pub fn find(&self, digest: &StepDigest) -> Option<usize> {
        self.numbers.get(digest).copied()
    }

    /// Which steps must be known to know the targets, when `known` ones need nothing further.
    pub fn needed(&self, targets: &[Target], known: impl Fn(usize) -> bool) -> Vec<usize> {
        let mut wanted = vec![false; self.steps.len()];
        for target in targets.iter().flatten() {
            wanted[target.step] = true;
        }
        for number in (0..self.steps.len()).rev() {
            if wanted[number] && !known(number) {
                for input in &self.steps[number].inputs {
                    wanted[input.step] = true;
                }
            }
        }
        (0..self.steps.len())
            .filter(|&number| wanted[number] && !known(number))
            .collect()
    }
}

impl Step {
    /// Whether it runs a program, and so needs a machine of its platform.
    pub fn executes(&self) -> bool {
        matches!(self.op.op, Some(pb::op::Op::Exec(_)))
    }

    /// Whether it brings something in from outside the graph.
    pub fn is_source(&self) -> bool {
        matches!(self.op.op, Some(pb::op::Op::Source(_)))
    }
}

/// One definition on its way into a graph.
struct Loader<'a> {
    definition: &'a pb::Definition,
    operations: HashMap<StepDigest, (pb::Op, &'a [u8])>,
    last: Option<StepDigest>,
    limits: Limits,
}

impl<'a> Loader<'a> {
    fn new(definition: &'a pb::Definition, limits: Limits) -> Result<Self, GraphError> {
        if definition.def.len() > limits.steps {
            return Err(GraphError::TooManySteps(limits.steps));
        }
        let mut operations = HashMap::with_capacity(definition.def.len());
        let mut last = None;
        for bytes in &definition.def {
            let digest = StepDigest(Digest::of(bytes));
            if bytes.len() > limits.operation_bytes {
                let limit = limits.operation_bytes;
                return Err(GraphError::OperationTooLarge {
                    digest,
                    bytes: bytes.len(),
                    limit,
                });
            }
            let op =
                pb::Op::decode(bytes.as_slice()).map_err(|e| GraphError::Undecodable(digest, e))?;
            operations.insert(digest, (op, bytes.as_slice()));
            last = Some(digest);
        }
        Ok(Self {
            definition,
            operations,
            last,
            limits,
        })
    }

    fn run(&self, graph: &mut Graph) -> Result<Target, GraphError> {
        let Some(last) = self.last else {
            return Ok(None);
        };
        let (closing, _) = &self.operations[&last];
        let [result] = closing.inputs.as_slice() else {
            return Err(GraphError::NoResult(closing.inputs.len()));
        };
        let root = self.named(last, &result.digest)?;
        self.add_with_inputs(root, graph)?;
        self.input(last, result, graph).map(Some)
    }

    /// Depth first without recursion: a chain may be longer than the stack is deep.
    fn add_with_inputs(&self, root: StepDigest, graph: &mut Graph) -> Result<(), GraphError> {
        let mut open: HashMap<StepDigest, ()> = HashMap::new();
        let mut stack = vec![(root, 0)];
        while let Some((digest, next)) = stack.pop() {
            if graph.numbers.contains_key(&digest) {
                continue;
            }
            let (op, bytes) = &self.operations[&digest];
            if next == 0 && open.insert(digest, ()).is_some() {
                return Err(GraphError::Cycle(digest));
            }
            if let Some(input) = op.inputs.get(next) {
                let input = self.named(digest, &input.digest)?;
                stack.push((digest, next + 1));
                if !graph.numbers.contains_key(&input) {
                    if open.contains_key(&input) {
                        return Err(GraphError::Cycle(input));
                    }
                    stack.push((input, 0));
                }
                continue;
            }
            let step = self.step(digest, op, bytes, graph)?;
            if graph.steps.len() >= self.limits.steps {
                return Err(GraphError::TooManySteps(self.limits.steps));
            }
            graph.numbers.insert(digest, graph.steps.len());
            graph.steps.push(step);
        }
        Ok(())
    }

    fn named(&self, of: StepDigest, name: &str) -> Result<StepDigest, GraphError> {
        name.parse::<StepDigest>()
            .ok()
            .filter(|digest| self.operations.contains_key(digest))
            .ok_or_else(|| GraphError::UnknownInput {
                of,
                input: name.chars().take(100).collect(),
            })
    }

    fn input(&self, of: StepDigest, input: &pb::Input, graph: &Graph) -> Result<Input, GraphError> {
        let digest = self.named(of, &input.digest)?;
        let step = graph.numbers[&digest];
        let outputs = graph.steps[step].outputs;
        match usize::try_from(input.index) {
            Ok(output) if output < outputs => Ok(Input { step, output }),
            _ => Err(GraphError::UnknownOutput {
                of,
                input: digest,
                output: input.index,
                outputs,
            }),
        }
    }

    fn step(
        &self,
        digest: StepDigest,
        op: &pb::Op,
        bytes: &[u8],
        graph: &Graph,
    ) -> Result<Step, GraphError> {
        let inputs: Vec<Input> = op
            .inputs
            .iter()
            .map(|input| self.input(digest, input, graph))
            .collect::<Result<_, _>>()?;
        let outputs = crate::view::check(digest, op)?;
        let platform = match &op.platform {
            Some(p) if p.os.is_empty() || p.architecture.is_empty() => {
                return Err(GraphError::BadPlatform(digest));
            }
            Some(p) => Some(Platform::new(&p.os, &p.architecture, &p.variant)),
            None => None,
        };
        let metadata = self.definition.metadata.get(&digest.to_string());
        let custom = metadata
            .and_then(|m| m.description.get("llb.customname"))
            .cloned();
        Ok(Step {
            digest,
            inputs,
            outputs,
            platform,
            name: StepName {
                text: custom.unwrap_or_else(|| crate::view::default_name(op)),
                progress_group: metadata.and_then(|m| m.progress_group.clone()),
            },
            ignore_cache: metadata.is_some_and(|m| m.ignore_cache),
            op: Arc::new(op.clone()),
            bytes: bytes.into(),
        })
    }
}
