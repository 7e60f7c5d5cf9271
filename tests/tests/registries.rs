//! Promise: the client's credentials reach the registries that ask for them, and a registry's refusals are told apart.

use std::time::Duration;

use buildyard_tests::{Farm, Login, PLATFORMS, Registry, wait_for};

const USING_THE_BASE: &str = "FROM BASE\nRUN id > /who\nCOPY file /\n";

#[test]
fn tokens_come_from_the_client_for_pulling_pushing_and_mounting() {
    let farm = Farm::with_registry(Registry::with_login(Login::Token));
    farm.buildx
        .log_in(&farm.registry.host(), Registry::USER, Registry::PASSWORD);
    let before = farm.registry.token_requests().len();
    let name = farm.name("team/app:1");
    let output = format!("type=image,name={name},push=true");
    let args = ["--platform", PLATFORMS, "--output", &output];
    farm.build(USING_THE_BASE, &args).succeeds();
    // The base image's layers did not travel, the registry took them over from the other repository: the common one, and
    // one of each platform. (It writes its log after it has answered.)
    let mounts = ["\"POST /v2/team/app/", "mount=", "from=base", "\" 201 "];
    wait_for("three mounts", Duration::from_secs(60), || {
        (farm.registry.requests(&mounts) == 3).then_some(())
    });
    let asked = farm.registry.token_requests().split_off(before);
    for (user, _) in &asked {
        assert_eq!(user.as_deref(), Some(Registry::USER), "{asked:?}");
    }
    let (base, app) = (
        "repository:base/busybox:pull",
        "repository:team/app:pull,push",
    );
    let has = |scopes: &[&str]| asked.iter().any(|(_, asked)| asked == scopes);
    assert!(
        has(&[base]) && has(&[app]) && has(&[app, base]),
        "{asked:?}"
    );
    // Nothing of it is kept: another client has to show credentials of its own, though everything is cached.
    let stranger = farm.stranger();
    stranger
        .build(&farm.context(USING_THE_BASE), &args)
        .fails()
        .says("base/busybox")
        .says("access denied by")
        .says("docker login");
}

#[test]
fn wrong_credentials_are_told_as_such() {
    let farm = Farm::with_registry(Registry::with_login(Login::Token));
    let name = farm.name("team/app:1");
    let check = |dockerfile: &str, what: &str| {
        let output = format!("type=image,name={name},push=true");
        farm.build(dockerfile, &["--output", &output])
            .fails()
            .says(what)
            .says("access denied by")
            .says("unauthorized: incorrect user or password")
            .says(&format!("docker login {}", farm.registry.host()));
    };
    farm.buildx
        .log_in(&farm.registry.host(), Registry::USER, "wrong");
    check("FROM BASE\nCOPY file /\n", "base/busybox");
    check("FROM scratch\nCOPY file /\n", "team/app");
}

#[test]
fn a_registry_that_wants_a_password_gets_the_clients() {
    let farm = Farm::with_registry(Registry::with_login(Login::Basic));
    let host = farm.registry.host();
    let name = farm.name("out:1");
    let push = |dockerfile: &str| farm.build(dockerfile, &["-t", &name, "--push"]);
    let new = "FROM scratch\nCOPY file /\n";
    push(new)
        .fails()
        .says("failed to push")
        .says("docker login");
    farm.buildx.log_in(&host, Registry::USER, "wrong");
    push(new)
        .fails()
        .says("failed to push")
        .says(&format!("tried as user {:?}", Registry::USER));
    farm.buildx
        .log_in(&host, Registry::USER, Registry::PASSWORD);
    push(new).succeeds();
    // The base image is asked for with the same credentials, and with no others.
    let based = "FROM REGISTRY/out:1\nLABEL a=b\n";
    push(based).succeeds();
    farm.stranger()
        .build(
            &farm.context(based),
            &["--no-cache", "-o", "type=cacheonly"],
        )
        .fails()
        .says(&name)
        .says("docker login");
}
