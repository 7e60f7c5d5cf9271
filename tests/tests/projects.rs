//! The projects of `tests/dockerfiles` come out as the reference engine made them, on both platforms.
//!
//! What is expected was recorded by `cargo xtask compare --record`; nothing of the reference is needed here.

use std::time::{SystemTime, UNIX_EPOCH};

use buildyard_tests::compare::{Explained, Facts, Layout, difference, facts};
use buildyard_tests::{
    Buildx, Project, Registry, Scratch, Serve, is_recorded, last_words, push_base_image,
};

/// Projects whose steps cannot be emulated (`mknod` is refused in a user namespace), take long under an emulator, or say what
/// that looks like.
const NATIVE_ONLY: [&str; 3] = ["15-special-files", "25-many-layers", "42-run-sandbox"];

/// Builds every `of`-th project, from the `first` on, and checks all facts of its images.
fn build_projects(first: usize, of: usize) {
    let registry = Registry::start();
    let base = push_base_image(&registry);
    let base_image = Layout::pull(&base);
    let server = Serve::up().start();
    let buildx = Buildx::new(&server.endpoint());
    let explained = Explained::read();
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.expect("a clock after 1970").as_secs();
    let scratch = Scratch::new();
    let mut wrong = String::new();
    for project in Project::good().into_iter().skip(first).step_by(of) {
        let native_only = NATIVE_ONLY.contains(&project.name.as_str());
        let platforms: &[&str] = if native_only {
            &["amd64"]
        } else {
            &["amd64", "arm64"]
        };
        let names: Vec<String> = platforms
            .iter()
            .map(|name| format!("linux/{name}"))
            .collect();
        let archive = scratch.path().join("image.tar");
        let output = format!("type=oci,dest={}", archive.display());
        let checkout = project.checkout(&base);
        let args = ["--platform", &names.join(","), "--output", &output];
        buildx.build_project(&base, &checkout, &args).succeeds();
        let layout = Layout::read(&archive);
        for platform in platforms {
            let found = facts(&layout, platform, &base_image.diff_ids(platform), now);
            for (fact, expected, found) in difference(&project.expected(), &of_amd64(&found)) {
                let programs = fact.ends_with("/bin/busybox") && *platform != "amd64";
                if is_recorded(&fact)
                    && !programs
                    && explained.reason(&project.name, &fact).is_none()
                {
                    wrong += &format!(
                        "{} {platform} {fact:?}\n    expected: {expected}\n    found:    {found}\n",
                        project.name
                    );
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// What is expected was recorded on amd64: the platform's own name and machine stand for those.
fn of_amd64(facts: &Facts) -> Facts {
    let of = |text: &String| {
        text.replace("arm64", "amd64")
            .replace(r#"8 "aarch64\n""#, r#"7 "x86_64\n""#)
    };
    facts
        .iter()
        .map(|(name, text)| (name.clone(), of(text)))
        .collect()
}

#[test]
fn the_projects_of_the_first_fifth_come_out_as_recorded() {
    build_projects(0, 5);
}

#[test]
fn the_projects_of_the_second_fifth_come_out_as_recorded() {
    build_projects(1, 5);
}

#[test]
fn the_projects_of_the_third_fifth_come_out_as_recorded() {
    build_projects(2, 5);
}

#[test]
fn the_projects_of_the_fourth_fifth_come_out_as_recorded() {
    build_projects(3, 5);
}

#[test]
fn the_projects_of_the_last_fifth_come_out_as_recorded() {
    build_projects(4, 5);
}

/// Each by a client of its own, a few at a time: it is they that take most of the time.
#[test]
fn the_failing_projects_fail_as_recorded() {
    const AT_ONCE: usize = 4;
    let registry = Registry::start();
    let base = push_base_image(&registry);
    let server = Serve::up().start();
    let expected = Project::errors();
    let projects = Project::failing();
    let wrong = |project: &Project| {
        let buildx = Buildx::new(&server.endpoint());
        let outcome = buildx.build_project(&base, &project.checkout(&base), &[]);
        let found = last_words(&outcome.fails().stderr, &base);
        let expected = expected.get(&project.name);
        (expected != Some(&found)).then(|| {
            let expected = expected.map_or("nothing was recorded", String::as_str);
            format!(
                "{}\n    expected: {expected}\n    found:    {found}\n",
                project.name
            )
        })
    };
    let mut report = String::new();
    for some in projects.chunks(AT_ONCE) {
        std::thread::scope(|scope| {
            let builds: Vec<_> = some.iter().map(|one| scope.spawn(|| wrong(one))).collect();
            let ended = builds
                .into_iter()
                .map(|build| build.join().expect("a client"));
            report.extend(ended.flatten());
        });
    }
    assert!(report.is_empty(), "{report}");
    assert_eq!(server.status("/livez"), Some(200));
}
