//! Promise: cache mounts are shared as their steps ask for, and steps that wait for them keep nobody from running.

use buildyard_tests::{Buildx, Context, Registry, Serve, push_base_image};

/// Builds a stage for each of the commands, at once, and one that needs all.
fn build(slots: &str, commands: &[&str]) {
    let registry = Registry::start();
    let base = push_base_image(&registry);
    let farm = Serve::up().args(&["--slots", slots]).start();
    let mut dockerfile = String::new();
    for (number, command) in commands.iter().enumerate() {
        dockerfile += &format!("FROM {base} AS s{number}\nRUN {command}; touch /done{number}\n");
    }
    dockerfile += &format!("FROM {base}\n");
    for number in 0..commands.len() {
        dockerfile += &format!("COPY --from=s{number} /done{number} /\n");
    }
    let context = Context::new(&[("Dockerfile", &dockerfile)]);
    Buildx::new(&farm.endpoint())
        .build(&context, &[])
        .succeeds();
}

/// Makes a file and waits for the other step's, for at most a minute.
fn meet(mount: &str, own: &str, other: &str) -> String {
    format!(
        "{mount} set -e; touch /c/{own}; n=0; until [ -e /c/{other} ]; do n=$((n+1)); test $n -lt 600; sleep 0.1; done"
    )
}

#[test]
fn steps_that_share_a_cache_see_what_the_other_writes() {
    let mount = "--mount=type=cache,id=x,target=/c";
    build("2", &[&meet(mount, "a", "b"), &meet(mount, "b", "a")]);
}

#[test]
fn a_locked_cache_is_one_steps_at_a_time_whatever_the_order_of_the_mounts() {
    let alone = "set -e; for d in /x /y; do mkdir $d/held; done; sleep 0.2; rmdir /x/held /y/held";
    let locked = |id: &str, target: &str| {
        format!("--mount=type=cache,sharing=locked,id={id},target={target}")
    };
    let forth = format!("{} {} {alone}", locked("1", "/x"), locked("2", "/y"));
    let back = format!("{} {} {alone}", locked("2", "/x"), locked("1", "/y"));
    build(
        "4",
        &[
            &forth,
            &back,
            &forth.replace("0.2", "0.1"),
            &back.replace("0.2", "0.1"),
        ],
    );
}

#[test]
fn a_private_cache_is_nobody_elses_while_it_is_used() {
    // Both hold theirs until both have begun, which a shared cache tells.
    let mounts =
        "--mount=type=cache,id=meet,target=/c --mount=type=cache,sharing=private,id=p,target=/p";
    let alone = |own: &str, other: &str| {
        format!(
            "{}; mkdir /p/held; touch /c/{own}2; n=0; until [ -e /c/{other}2 ]; do n=$((n+1)); test $n -lt 600; sleep 0.1; done; rmdir /p/held",
            meet(mounts, own, other)
        )
    };
    build("2", &[&alone("a", "b"), &alone("b", "a")]);
}
