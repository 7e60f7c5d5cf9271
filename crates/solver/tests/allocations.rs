//! What a step's key costs in allocations: a cached build computes one per step, so the cost must not grow with the chain
//! that the step is on. In a program of its own, as the allocator is the program's.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use async_trait::async_trait;
use buildyard_layer::Toc;
use buildyard_llb::build::{Builder, Node};
use buildyard_llb::{Graph, Step, pb};
use buildyard_model::{Chain, Digest, LayerId};
use buildyard_solver::{Tocs, TocsError, Trees};

/// Most of them are the copy of the operation that is encoded without what must not matter: its arguments, its environment,
/// its mounts. A few more than today's are no alarm.
const MOST: usize = 40;

struct Counting;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is passed on to the system's allocator as it came; the counter allocates nothing.
#[expect(unsafe_code, reason = "an allocator is unsafe by its trait")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct NoTocs;

#[async_trait]
impl Tocs for NoTocs {
    async fn toc(&self, _: LayerId) -> Result<Option<Arc<Toc>>, TocsError> {
        Ok(None)
    }
}

/// A RUN on another one's root.
fn step() -> Step {
    let run = |input, text: &str| {
        let exec = pb::ExecOp {
            meta: Some(pb::Meta {
                args: ["/bin/sh", "-c", text].map(str::to_owned).to_vec(),
                env: vec!["PATH=/bin".to_owned()],
                cwd: "/".to_owned(),
                ..pb::Meta::default()
            }),
            mounts: vec![pb::Mount {
                input,
                dest: "/".to_owned(),
                ..pb::Mount::default()
            }],
            ..pb::ExecOp::default()
        };
        Node::new(pb::op::Op::Exec(exec))
    };
    let mut builder = Builder::new();
    let below = builder.add(run(-1, "one"));
    let top = builder.add(run(0, "two").inputs([below]));
    let definition = builder.definition(Some(top), None);
    let (graph, _) = Graph::load(&[&definition], Default::default()).expect("a sound graph");
    graph.step(1).clone()
}

async fn allocations(step: &Step, layers: usize) -> usize {
    let layers = (0..layers).map(|number| LayerId(Digest::of(number.to_string())));
    let inputs = [Chain::new(layers.collect())];
    let trees = Trees::default();
    let before = COUNT.get();
    let key = buildyard_solver::key(step, &inputs, &trees, &NoTocs).await;
    let after = COUNT.get();
    key.expect("it has a key").expect("no table is needed");
    after - before
}

#[tokio::test]
async fn a_key_takes_as_many_allocations_on_a_long_chain_as_on_a_short_one() {
    let step = step();
    allocations(&step, 1).await;
    let short = allocations(&step, 2).await;
    assert_eq!(allocations(&step, 2000).await, short);
    assert!(short <= MOST, "{short} allocations for one key");
}
