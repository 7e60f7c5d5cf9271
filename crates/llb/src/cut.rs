//! Cutting the missing steps of a graph into jobs, at most one per execution platform.
//!
//! Steps that execute decide: each goes to the job of its platform. A step that executes nothing goes where its data is
//! or will be needed: to the job of an input, else of a consumer; and where no step of the graph executes, all go into
//! one job that any worker can do.

use std::collections::BTreeMap;

use buildyard_model::Platform;

use crate::graph::Graph;

/// A part of the missing steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The platform that its steps execute on; `None` where nothing executes.
    pub platform: Option<Platform>,
    /// Numbers of its steps, inputs first.
    pub steps: Vec<usize>,
}

/// Cuts `missing` (numbers in ascending order). Each missing step is in exactly one part.
pub fn cut(graph: &Graph, missing: &[usize]) -> Vec<Part> {
    let mut homes: BTreeMap<usize, Option<Platform>> = BTreeMap::new();
    for &number in missing {
        let step = graph.step(number);
        if step.executes() {
            homes.insert(
                number,
                Some(step.platform.clone().unwrap_or_else(Platform::native)),
            );
        }
    }
    follow_inputs(graph, missing, &mut homes);
    follow_consumers(graph, missing, &mut homes);
    let fallback = homes.values().flatten().next().cloned();
    let mut parts: BTreeMap<Option<Platform>, Vec<usize>> = BTreeMap::new();
    for &number in missing {
        let home = homes
            .get(&number)
            .cloned()
            .flatten()
            .or_else(|| fallback.clone());
        parts.entry(home).or_default().push(number);
    }
    parts
        .into_iter()
        .map(|(platform, steps)| Part { platform, steps })
        .collect()
}

/// Steps on top of executing ones stay where their first executing input is.
fn follow_inputs(graph: &Graph, missing: &[usize], homes: &mut BTreeMap<usize, Option<Platform>>) {
    for &number in missing {
        if homes.contains_key(&number) {
            continue;
        }
        let home = graph
            .step(number)
            .inputs
            .iter()
            .find_map(|input| homes.get(&input.step).cloned());
        if let Some(home) = home {
            homes.insert(number, home);
        }
    }
}

/// Steps that only feed others go to the first of these.
fn follow_consumers(
    graph: &Graph,
    missing: &[usize],
    homes: &mut BTreeMap<usize, Option<Platform>>,
) {
    for &number in missing.iter().rev() {
        let Some(home) = homes.get(&number).cloned() else {
            continue;
        };
        for input in &graph.step(number).inputs {
            if missing.binary_search(&input.step).is_ok() {
                homes.entry(input.step).or_insert_with(|| home.clone());
            }
        }
    }
}
