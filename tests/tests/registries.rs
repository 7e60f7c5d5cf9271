//! Promise: the client's credentials reach the registries that ask for them, and a registry's refusals are told apart.

use std::time::Duration;

use buildyard_tests::{
    Farm, Login, PLATFORMS, Registry, inspect_raw, native_architecture, push_repacked_image,
    wait_for,
};
use serde_json::Value;

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

/// The digests of the layers that an image has for this machine's platform.
fn layers(name: &str) -> Vec<String> {
    let index = inspect_raw(name);
    let manifests = index["manifests"].as_array().expect("an index");
    let native = |entry: &&Value| entry["platform"]["architecture"] == native_architecture();
    let entry = manifests.iter().find(native).expect("a manifest");
    let repository = name.rsplit_once(':').expect("a tag").0;
    let digest = entry["digest"].as_str().expect("a digest");
    let manifest = inspect_raw(&format!("{repository}@{digest}"));
    let layers = manifest["layers"].as_array().expect("layers");
    let digests = layers.iter().filter_map(|layer| layer["digest"].as_str());
    digests.map(str::to_owned).collect()
}

#[test]
fn a_truncated_layer_is_named_with_its_place_and_what_came_of_it() {
    let farm = Farm::new();
    let layer = layers(&farm.base).pop().expect("a layer");
    let size = farm.registry.truncate(&layer, 1000);
    let blob = format!("{}@{layer}", farm.name("base/busybox"));
    farm.build("FROM BASE\nRUN true\n", &[])
        .fails()
        .says(&format!("pulling a layer: {blob}: the connection broke"))
        .says(&format!("after 1000 of {size} bytes"))
        .says("it is tried again")
        .says(">>> RUN true")
        .does_not_say("Internal");
    let tries = farm.registry.requests(&["\"GET ", &layer]);
    assert!((2..=30).contains(&tries), "{tries} tries");
}

#[test]
fn images_that_pack_the_same_layers_differently_keep_their_own() {
    let mut farm = Farm::new();
    let base = layers(&farm.base);
    farm.build("FROM BASE\nRUN true\n", &[]).succeeds();
    let other = Registry::start();
    let repacked = push_repacked_image(&other);
    farm.registry.stop();
    // Everything is known of these layers already, but not that they can be had in this form and from there.
    let name = format!("{}/out:1", other.host());
    let output = format!("type=image,name={name},push=true");
    let platform = format!("linux/{}", native_architecture());
    let args = ["--platform", &platform, "--output", &output];
    farm.build(&format!("FROM {repacked}\nCOPY file /\n"), &args)
        .succeeds();
    let manifest = inspect_raw(&name);
    let out = manifest["layers"].as_array().expect("layers").iter();
    let out: Vec<&str> = out.filter_map(|layer| layer["digest"].as_str()).collect();
    assert_eq!(out[..2], layers(&repacked));
    assert!(base.iter().all(|layer| !out.contains(&layer.as_str())));
}
