//! Promise: steps run where they can, which is said of each; what executes nothing needs no machine of its platform.

use std::time::Duration;

use buildyard_tests::{
    Buildx, Context, Image, PLATFORMS, Registry, Serve, Server, inspect_raw, native_architecture,
    push_base_image, wait_for,
};

/// Waits until a worker has joined so many times: from then on it gets jobs.
fn wait_joined(coordinator: &Server, name: &str, times: usize) {
    let of_worker = format!("worker_id={name} ");
    wait_for(&format!("worker {name}"), Duration::from_secs(60), || {
        let said = coordinator.log();
        let joined = said
            .lines()
            .filter(|line| line.contains("a worker is connected") && line.contains(&of_worker));
        (joined.count() == times).then_some(())
    });
}

#[test]
fn each_step_says_whether_it_was_emulated_in_progress_and_in_the_record() {
    let registry = Registry::start();
    let base = push_base_image(&registry);
    let farm = Serve::up().start();
    let context = Context::new(&[("Dockerfile", &format!("FROM {base}\nRUN uname -m\n"))]);
    let outcome = Buildx::new(&farm.endpoint())
        .build(&context, &["--platform", PLATFORMS])
        .succeeds();
    let said = |how: &str| {
        outcome
            .stderr
            .lines()
            .filter(|line| line.contains(how))
            .count()
    };
    assert!(
        said(", native") > 0 && said(", emulated by qemu-") > 0,
        "{}",
        outcome.stderr
    );

    let builds: serde_json::Value =
        serde_json::from_str(&farm.cli(&["builds", "--format", "json"])).expect("JSON");
    let id = builds[0]["id"].as_str().expect("an id");
    let how = |shown: &str, architecture: &str| {
        let name = format!("linux/{architecture} 2/2] RUN uname -m");
        let line = shown.lines().find(|line| line.contains(&name))?;
        let how = ["native", "emulated"];
        how.into_iter().find(|how| line.contains(how))
    };
    // A build's record is finished a moment after its client has its answer.
    let recorded = wait_for("the record of the build", Duration::from_secs(60), || {
        let shown = farm.cli(&["builds", "show", id]);
        let of = |architecture: &str| how(&shown, architecture);
        Some([of("amd64")?, of("arm64")?])
    });
    let expected = ["amd64", "arm64"].map(|architecture| match architecture {
        native if native == native_architecture() => "native",
        _ => "emulated",
    });
    assert_eq!(recorded, expected);

    // Who watches the farm sees the same: a worker for each platform, and that no build is under way any more.
    let page = wait_for("the end of the build", Duration::from_secs(60), || {
        let page = farm.page("/metrics")?;
        page.contains("\nbuildyard_builds_running 0\n")
            .then_some(page)
    });
    assert!(page.starts_with("HTTP/1.1 200 "), "{page}");
    let head = page.to_lowercase();
    assert!(
        head.contains("\r\ncontent-type: application/openmetrics-text; version=1.0.0"),
        "{page}"
    );
    for platform in PLATFORMS.split(',') {
        let line = format!("\nbuildyard_workers_connected{{platform=\"{platform}\"}} 1\n");
        assert!(page.contains(&line), "{page}");
    }
    assert!(page.ends_with("\n# EOF\n"), "{page}");
}

#[test]
fn what_executes_nothing_needs_no_machine_of_its_platform() {
    let registry = Registry::start();
    let coordinator = Serve::coordinator().start();
    let context = Context::new(&[
        ("a.txt", "a\n"),
        (
            "Dockerfile",
            "FROM scratch\nCOPY --chmod=600 a.txt /b/\nWORKDIR /w\n",
        ),
    ]);
    let name = format!("{}/any:1", registry.host());
    let platforms = "linux/s390x,linux/riscv64,linux/ppc64le";
    let args = ["--platform", platforms, "--push", "-t", &name];
    Buildx::new(&coordinator.endpoint())
        .build(&context, &args)
        .succeeds();
    let index = inspect_raw(&name);
    assert_eq!(
        index["manifests"].as_array().map(Vec::len),
        Some(3),
        "{index}"
    );
    assert_eq!(Image::pull(&name, "s390x").text("b/a.txt"), "a\n");
}

#[test]
fn the_machines_network_needs_leave_of_client_and_worker() {
    let registry = Registry::start();
    let base = push_base_image(&registry);
    let mut coordinator = Serve::coordinator().start();
    let platform = format!("linux/{}", native_architecture());
    let url = coordinator.url();
    let worker = |name: &str, more: &[&str]| {
        let args = [&["--platforms", &platform], more].concat();
        Serve::worker(&url, name).args(&args).start()
    };
    let _one = worker("one", &[]);
    coordinator.wait_workers(true);
    let links = "RUN --network=host readlink /proc/self/ns/net > /network";
    let dockerfile = format!("FROM {base}\n{links}\n");
    let context = Context::new(&[("Dockerfile", &dockerfile)]);
    let buildx = Buildx::new(&coordinator.endpoint());
    let name = format!("{}/net:1", registry.host());
    let args = ["--push", "-t", &name];
    let allowed = [&args[..], &["--allow", "network.host"]].concat();
    buildx
        .build(&context, &args)
        .fails()
        .says("network.host is not allowed");
    buildx
        .build(&context, &allowed)
        .fails()
        .says("lets steps use its machine's network")
        .says("one (")
        .says("--allow-host-network");
    // Beside the one that does not allow it, the one that does gets the step.
    let _two = worker("two", &["--allow-host-network"]);
    wait_joined(&coordinator, "two", 1);
    buildx
        .build(&context, &allowed)
        .succeeds()
        .says("on two, native");
    let own = std::fs::read_link("/proc/self/ns/net").expect("this network");
    let seen = Image::pull(&name, native_architecture()).text("network");
    assert_eq!(seen.trim(), own.display().to_string());
}

#[test]
fn a_step_goes_where_its_input_lies() {
    let registry = Registry::start();
    let base = push_base_image(&registry);
    let mut coordinator = Serve::coordinator().start();
    let platform = format!("linux/{}", native_architecture());
    let (url, offer) = (coordinator.url(), ["--platforms", platform.as_str()]);
    let buildx = Buildx::new(&coordinator.endpoint());
    let context = |step: &str| {
        let dockerfile = format!("FROM {base}\nRUN echo first > /first\n{step}\n");
        Context::new(&[("Dockerfile", &dockerfile)])
    };
    let second = Serve::worker(&url, "two").args(&offer);
    let mut two = second.start();
    coordinator.wait_workers(true);
    buildx
        .build(&context("RUN true"), &[])
        .succeeds()
        .says("on two, native");
    assert!(two.stop().success());

    // By name, and as it is as free as the other, the first one would get it.
    let _one = Serve::worker(&url, "one").args(&offer).start();
    let _two = second.start();
    wait_joined(&coordinator, "one", 1);
    wait_joined(&coordinator, "two", 2);
    buildx
        .build(&context("RUN cat /first"), &[])
        .succeeds()
        .says("on two, native");
}
