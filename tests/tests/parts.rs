//! The parts of the farm tests work by themselves: without this, a failing farm test could be the parts' fault.

use buildyard_tests::{Image, Login, Registry, inspect_raw, push_base_image};

#[test]
fn the_base_image_runs_on_both_platforms() {
    let registry = Registry::start();
    let name = push_base_image(&registry);
    let index = inspect_raw(&name);
    assert_eq!(index["manifests"].as_array().map(Vec::len), Some(2));
    for architecture in ["amd64", "arm64"] {
        let image = Image::pull(&name, architecture);
        assert_eq!(image.config["architecture"], architecture);
        assert_eq!(image.run("bin/busybox", &["echo", "hello"]), "hello\n");
        assert!(image.has("bin/sh") && image.has("tmp"));
    }
    assert!(registry.requests(&["\"PUT ", "/manifests/"]) >= 3);
}

#[test]
fn a_registry_asks_for_its_password() {
    let registry = Registry::with_login(Login::Basic);
    let login = |password: &str| {
        let folder = buildyard_tests::Scratch::new();
        std::process::Command::new("skopeo")
            .args(["login", "--tls-verify=false", "--authfile"])
            .arg(folder.path().join("auth.json"))
            .args([
                "--username",
                Registry::USER,
                "--password",
                password,
                &registry.host(),
            ])
            .output()
            .expect("running skopeo")
            .status
            .success()
    };
    assert!(login(Registry::PASSWORD));
    assert!(!login("wrong"));
}
