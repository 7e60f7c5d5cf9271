//! Missing steps are cut by execution platform into at most one job per platform.

use buildyard_llb::build::{Builder, Node, Output};
use buildyard_llb::cut::{Part, cut};
use buildyard_llb::pb::{self, op::Op};
use buildyard_llb::{Graph, Limits, Target};
use buildyard_model::Platform;
use proptest::prelude::*;

const AMD: &str = "linux/amd64";
const ARM: &str = "linux/arm64";

/// A graph being drawn; every operation has a number of its own, so that none equals another.
#[derive(Default)]
struct Drawing {
    builder: Builder,
    steps: usize,
}

impl Drawing {
    fn add(&mut self, op: Op, inputs: &[Output], platform: Option<&str>) -> Output {
        self.steps += 1;
        let node = Node::new(op).inputs(inputs.iter().copied());
        let node = match platform {
            Some(platform) => node.platform(&platform.parse().expect("a platform")),
            None => node,
        };
        self.builder.add(node)
    }

    fn image(&mut self) -> Output {
        let identifier = format!("docker-image://image{}", self.steps);
        let source = pb::SourceOp {
            identifier,
            ..pb::SourceOp::default()
        };
        self.add(Op::Source(source), &[], None)
    }

    /// Runs something on the first input, with the others mounted.
    fn run(&mut self, platform: &str, inputs: &[Output]) -> Output {
        let mount = |number: usize| pb::Mount {
            input: number as i64,
            dest: if number == 0 {
                "/".to_owned()
            } else {
                format!("/{number}")
            },
            output: if number == 0 { 0 } else { -1 },
            ..pb::Mount::default()
        };
        let exec = pb::ExecOp {
            meta: Some(pb::Meta {
                args: vec![self.steps.to_string()],
                ..pb::Meta::default()
            }),
            mounts: (0..inputs.len()).map(mount).collect(),
            ..pb::ExecOp::default()
        };
        self.add(Op::Exec(exec), inputs, Some(platform))
    }

    /// Copies from the second input onto the first, or makes a file on the only one.
    fn copy(&mut self, inputs: &[Output]) -> Output {
        let action = if inputs.len() > 1 {
            pb::file_action::Action::Copy(pb::FileActionCopy {
                src: "/".to_owned(),
                dest: format!("/{}", self.steps),
                ..pb::FileActionCopy::default()
            })
        } else {
            pb::file_action::Action::Mkdir(pb::FileActionMkDir {
                path: format!("/{}", self.steps),
                ..pb::FileActionMkDir::default()
            })
        };
        let action = pb::FileAction {
            input: 0,
            secondary_input: if inputs.len() > 1 { 1 } else { -1 },
            output: 0,
            action: Some(action),
        };
        let file = pb::FileOp {
            actions: vec![action],
        };
        self.add(Op::File(file), inputs, None)
    }

    /// Loads what these outputs need, and cuts all that is no source.
    fn cut(&self, targets: &[Output]) -> (Graph, Vec<usize>, Vec<Part>) {
        let definitions: Vec<_> = targets
            .iter()
            .map(|target| self.builder.definition(Some(*target), None))
            .collect();
        let definitions: Vec<_> = definitions.iter().collect();
        let (graph, targets): (Graph, Vec<Target>) =
            Graph::load(&definitions, Limits::default()).expect("a sound graph");
        let sources = |number: usize| graph.step(number).is_source();
        let missing = graph.needed(&targets, sources);
        let parts = cut(&graph, &missing);
        (graph, missing, parts)
    }
}

/// Each part as its platform and how many steps of it execute and do not.
fn counted(graph: &Graph, parts: &[Part]) -> Vec<(Option<String>, usize, usize)> {
    let count = |part: &Part| {
        let executing = part
            .steps
            .iter()
            .filter(|&&step| graph.step(step).executes())
            .count();
        let platform = part.platform.as_ref().map(Platform::to_string);
        (platform, executing, part.steps.len() - executing)
    };
    parts.iter().map(count).collect()
}

fn on(platform: &str) -> Option<String> {
    Some(platform.to_owned())
}

#[test]
fn each_platform_gets_one_job_with_the_file_steps_around_its_own() {
    let mut drawing = Drawing::default();
    let context = drawing.image();
    let targets = [AMD, ARM].map(|platform| {
        let base = drawing.image();
        let copied = drawing.copy(&[base, context]);
        let run = drawing.run(platform, &[copied]);
        let again = drawing.run(platform, &[run]);
        drawing.copy(&[again, context])
    });
    let (graph, _, parts) = drawing.cut(&targets);
    assert_eq!(counted(&graph, &parts), [(on(AMD), 2, 2), (on(ARM), 2, 2)]);
}

#[test]
fn a_cross_build_is_one_job_of_the_machine_that_compiles() {
    let mut drawing = Drawing::default();
    let tools = drawing.image();
    let targets = [AMD, ARM].map(|_| {
        let compiled = drawing.run(AMD, &[tools]);
        let base = drawing.image();
        drawing.copy(&[base, compiled])
    });
    let (graph, _, parts) = drawing.cut(&targets);
    assert_eq!(counted(&graph, &parts), [(on(AMD), 2, 2)]);
}

#[test]
fn what_executes_nothing_is_one_job_of_no_platform() {
    let mut drawing = Drawing::default();
    let context = drawing.image();
    let targets = [(); 2].map(|()| {
        let base = drawing.image();
        let copied = drawing.copy(&[base, context]);
        drawing.copy(&[copied])
    });
    let (graph, _, parts) = drawing.cut(&targets);
    assert_eq!(counted(&graph, &parts), [(None, 0, 4)]);
}

#[test]
fn file_steps_stay_with_what_they_are_made_of_else_with_what_they_are_for() {
    let mut drawing = Drawing::default();
    let base = drawing.image();
    let made = drawing.run(AMD, &[base]);
    let after = drawing.copy(&[made]);
    let before = drawing.copy(&[base]);
    let target = drawing.run(ARM, &[before, after]);
    let (graph, _, parts) = drawing.cut(&[target]);
    assert_eq!(counted(&graph, &parts), [(on(AMD), 1, 1), (on(ARM), 1, 1)]);
    // What is missing alone counts: with the rest known, there is no amd64.
    let number = |part: usize| *parts[part].steps.last().expect("a step");
    let rest = cut(&graph, &[number(1)]);
    assert_eq!(counted(&graph, &rest), [(on(ARM), 1, 0)]);
}

/// A step: what it is, and which earlier ones it takes.
fn any_steps() -> impl Strategy<Value = Vec<(u8, usize, usize)>> {
    proptest::collection::vec((0u8..5, any::<usize>(), any::<usize>()), 1..60)
}

proptest! {
    #[test]
    fn every_missing_step_is_in_one_part_and_every_platform_has_at_most_one(steps in any_steps()) {
        let mut drawing = Drawing::default();
        let mut outputs = vec![drawing.image()];
        for (kind, first, second) in steps {
            let inputs = [outputs[first % outputs.len()], outputs[second % outputs.len()]];
            outputs.push(match kind {
                0 => drawing.image(),
                1 => drawing.run(AMD, &inputs),
                2 => drawing.run(ARM, &inputs),
                3 => drawing.run("linux/riscv64", &inputs[..1]),
                _ => drawing.copy(&inputs),
            });
        }
        let (graph, missing, parts) = drawing.cut(&outputs);
        let mut cut: Vec<usize> = parts.iter().flat_map(|part| part.steps.clone()).collect();
        cut.sort_unstable();
        prop_assert_eq!(cut, missing);
        let mut platforms: Vec<_> = parts.iter().map(|part| &part.platform).collect();
        let count = platforms.len();
        platforms.sort();
        platforms.dedup();
        prop_assert_eq!(platforms.len(), count, "one part per platform");
        for part in &parts {
            prop_assert!(part.steps.is_sorted(), "inputs come first");
            prop_assert!(part.platform.is_some() || parts.len() == 1);
            for &step in &part.steps {
                let step = graph.step(step);
                prop_assert!(!step.executes() || step.platform == part.platform);
            }
        }
    }
}
