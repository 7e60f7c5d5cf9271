//! Builds every project with the reference engine and with ours, and says in what the images differ.
//!
//! `cargo xtask compare [NAME…]` sets up what is needed and runs this. Differences that are meant are in `explained.txt`
//! beside the projects, with their reasons; any other one makes it fail.

#![allow(
    clippy::expect_used,
    reason = "a developer's tool: what is missing ends it with the reason"
)]

use std::time::{SystemTime, UNIX_EPOCH};

use buildyard_tests::compare::{Explained, Facts, Layout, Reference, difference, facts};
use buildyard_tests::{
    Buildx, Checkout, Project, Registry, Scratch, Serve, is_recorded, last_words,
    native_architecture, push_base_image,
};

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let bench = Bench::start();
    let mut unexplained = 0;
    let (good, failing) = (Project::good(), Project::failing());
    for project in good.iter().chain(&failing) {
        if wanted.is_empty()
            || wanted
                .iter()
                .any(|part| project.name.contains(part.as_str()))
        {
            unexplained += bench.compare(project);
        }
    }
    drop(bench);
    if unexplained > 0 {
        eprintln!("{unexplained} differences without an explanation");
        std::process::exit(1);
    }
}

/// Both engines with what they need.
struct Bench {
    base: String,
    base_layers: Vec<String>,
    now: u64,
    explained: Explained,
    reference: Buildx,
    ours: Buildx,
    scratch: Scratch,
    _running: (Registry, Reference, buildyard_tests::Server),
}

/// How one engine's build ended.
#[derive(Clone)]
struct Built {
    code: Option<i32>,
    error: String,
    facts: Facts,
}

impl Bench {
    fn start() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let registry = Registry::start();
        let base = push_base_image(&registry);
        let server = Serve::up().start();
        let engine = Reference::start();
        Self {
            base_layers: Layout::pull(&base).diff_ids(native_architecture()),
            base,
            now: now.expect("a clock after 1970").as_secs(),
            explained: Explained::read(),
            reference: Buildx::of_docker(&engine.endpoint()),
            ours: Buildx::new(&server.endpoint()),
            scratch: Scratch::new(),
            _running: (registry, engine, server),
        }
    }

    fn compare(&self, project: &Project) -> usize {
        let checkout = project.checkout(&self.base);
        let reference = self.build(&self.reference, &checkout);
        let ours = self.build(&self.ours, &checkout);
        let failing = project.name.contains('/');
        if record() && failing {
            Project::record_errors(&[(project.name.clone(), ours.error.clone())].into());
        } else if record() {
            // What the reference cannot build has ours, to be looked at by whoever records.
            let facts = if reference.facts.is_empty() {
                &ours.facts
            } else {
                &reference.facts
            };
            project.record(facts);
        }
        let found = self.differences(project, &reference, &ours);
        let mut unexplained = 0;
        let mut lines = String::new();
        for (fact, theirs, ours) in &found {
            let reason = self.explained.reason(&project.name, fact);
            unexplained += usize::from(reason.is_none());
            let reason = reason.unwrap_or("NOT EXPLAINED");
            lines += &format!(
                "    {fact:?}: {reason}\n        reference: {theirs}\n        ours:      {ours}\n"
            );
        }
        let exit = reference.code.unwrap_or(-1);
        let facts = reference.facts.len();
        println!(
            "{}: exit code {exit}, {facts} facts, {} differ, {unexplained} without explanation",
            project.name,
            found.len()
        );
        print!("{lines}");
        unexplained
    }

    /// In what ours differs from the reference; where that cannot build a good project, from what was recorded.
    fn differences(
        &self,
        project: &Project,
        reference: &Built,
        ours: &Built,
    ) -> Vec<(String, String, String)> {
        let cannot =
            reference.facts.is_empty() && !ours.facts.is_empty() && !project.name.contains('/');
        if !cannot {
            return difference(&reference.all(), &ours.all());
        }
        let words = |built: &Built| Built {
            facts: Facts::new(),
            ..built.clone()
        };
        let mut found = difference(&words(reference).all(), &words(ours).all());
        let facts = difference(&project.expected(), &ours.facts);
        found.extend(facts.into_iter().filter(|(name, ..)| is_recorded(name)));
        found
    }

    fn build(&self, client: &Buildx, checkout: &Checkout) -> Built {
        let archive = self.scratch.path().join("image.tar");
        let output = format!("type=oci,dest={}", archive.display());
        let args = ["--provenance=false", "--network=none", "--output", &output];
        let outcome = client.build_project(&self.base, checkout, &args);
        let facts = match outcome.code {
            Some(0) => facts(
                &Layout::read(&archive),
                native_architecture(),
                &self.base_layers,
                self.now,
            ),
            _ => Facts::new(),
        };
        Built {
            code: outcome.code,
            error: last_words(&outcome.stderr, &self.base),
            facts,
        }
    }
}

impl Built {
    fn all(&self) -> Facts {
        let mut facts = self.facts.clone();
        facts.insert("exit code".into(), format!("{:?}", self.code));
        facts.insert("error".into(), self.error.clone());
        facts
    }
}

/// Whether the reference's facts become the expectations of the test.
fn record() -> bool {
    std::env::var_os("BUILDYARD_COMPARE_RECORD").is_some()
}
