//! Promise: the endpoint lets in whom it should, workers join from elsewhere, registries get the client's own credentials,
//! and secrets stay secret.

use std::path::Path;

use buildyard_tests::{
    Buildx, Certificates, Context, Image, Login, OtherNetwork, Registry, Serve, busybox,
    native_architecture, push_base_image,
};

/// A build that needs no base image: all that runs is in the context.
fn self_contained() -> Context {
    let context = Context::new(&[(
        "Dockerfile",
        "FROM scratch\nCOPY --chmod=755 busybox /bin/busybox\nRUN [\"/bin/busybox\", \"sh\", \"-c\", \"echo made > /made\"]\n",
    )]);
    std::fs::copy(
        busybox(native_architecture()),
        context.path().join("busybox"),
    )
    .expect("copying busybox");
    context
}

#[test]
fn a_unix_socket_is_an_endpoint() {
    let folder = buildyard_tests::Scratch::new();
    let socket = format!("unix://{}", folder.path().join("farm.sock").display());
    let _farm = Serve::up().args(&["--listen", &socket]).start();
    Buildx::new(&socket)
        .build(&self_contained(), &[])
        .succeeds();
}

#[test]
fn only_clients_with_a_certificate_are_let_in() {
    let certificates = Certificates::new("127.0.0.1");
    let farm = Serve::coordinator().tls("127.0.0.1", &certificates).start();
    let flags = certificates.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let _worker = Serve::worker(&farm.https(), "w1").args(&flags).start();
    let https = farm.https();
    let list = [&["workers", "--builder", &https][..], &flags].concat();
    let joined = || farm.cli(&list).contains("w1").then_some(());
    buildyard_tests::wait_for("the worker", std::time::Duration::from_secs(60), joined);

    let buildx = Buildx::with_options(&farm.endpoint(), &[&certificates.driver_options("client")]);
    buildx.build(&self_contained(), &[]).succeeds();

    // buildx tries for twenty seconds before it gives up; our own client says at once that it is not let in.
    let refused = |who: Option<&str>| {
        let ca = certificates.file("ca.pem");
        let mut list = std::process::Command::new(buildyard_tests::buildyard());
        list.args(["workers", "--builder", &https, "--ca"]).arg(ca);
        if let Some(who) = who {
            let file = |kind: &str| certificates.file(&format!("{who}.{kind}"));
            list.arg("--cert")
                .arg(file("pem"))
                .arg("--key")
                .arg(file("key"));
        }
        let output = list.output().expect("running buildyard");
        !output.status.success() && output.stdout.is_empty()
    };
    assert!(!refused(Some("client")));
    assert!(refused(Some("stranger")));
    assert!(refused(None));
}

#[test]
fn a_worker_joins_from_another_network() {
    let network = OtherNetwork::new();
    let certificates = Certificates::new(&network.host());
    let farm = Serve::coordinator()
        .tls(&network.host(), &certificates)
        .start();
    let flags = certificates.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let worker = Serve::worker(&farm.https(), "away")
        .args(&flags)
        .through(&network.enter())
        .start();
    let buildx = Buildx::with_options(&farm.endpoint(), &[&certificates.driver_options("client")]);
    let registry = Registry::start();
    let name = format!("{}/app:1", registry.host());

    buildx
        .build(&self_contained(), &["--push", "-t", &name])
        .succeeds();

    assert_eq!(
        Image::pull(&name, native_architecture()).text("made"),
        "made\n"
    );
    drop(worker);
}

#[test]
fn a_registry_gets_the_clients_password() {
    let open = Registry::start();
    let base = push_base_image(&open);
    let guarded = Registry::with_login(Login::Basic);
    let farm = Serve::up().start();
    let name = format!("{}/app:1", guarded.host());
    let context = Context::new(&[(
        "Dockerfile",
        &format!("FROM {base}\nRUN echo made > /made\n"),
    )]);
    let args = ["--push", "-t", &name];

    let stranger = Buildx::new(&farm.endpoint());
    stranger.build(&context, &args).fails().says("/app");

    let known = Buildx::new(&farm.endpoint());
    known.log_in(&guarded.host(), Registry::USER, Registry::PASSWORD);
    known.build(&context, &args).succeeds();
    let on_top = Context::new(&[("Dockerfile", &format!("FROM {name}\nRUN cat /made\n"))]);
    known.build(&on_top, &[]).succeeds();
    stranger
        .build(&on_top, &["--no-cache"])
        .fails()
        .says("/app");
    assert_absent(&farm.data(), Registry::PASSWORD.as_bytes());
}

#[test]
fn secrets_reach_the_step_and_nothing_else() {
    const SECRET: &str = "a-secret-that-is-nowhere-else";
    let registry = Registry::start();
    let base = push_base_image(&registry);
    let farm = Serve::up().start();
    let dockerfile = format!(
        "FROM {base}\nRUN --mount=type=secret,id=token sha256sum < /run/secrets/token > /sum\n\
         RUN --mount=type=secret,id=token,env=TOKEN echo -n \"$TOKEN\" | wc -c > /length\nRUN ls -A /run > /left || true\n"
    );
    let context = Context::new(&[("Dockerfile", &dockerfile)]);
    let outside = Context::new(&[("token", SECRET)]);
    let secret = format!("id=token,src={}", outside.path().join("token").display());
    let name = format!("{}/app:1", registry.host());

    let outcome = Buildx::new(&farm.endpoint())
        .build(&context, &["--secret", &secret, "--push", "-t", &name])
        .succeeds();

    assert!(!outcome.stderr.contains(SECRET));
    let image = Image::pull(&name, native_architecture());
    assert_eq!(image.text("length").trim(), SECRET.len().to_string());
    assert!(!image.text("sum").is_empty());
    assert_absent(&image.root(), SECRET.as_bytes());
    assert_absent(&farm.data(), SECRET.as_bytes());
    assert!(!farm.log().contains(SECRET));
}

/// Asserts that no file below a folder has these bytes.
fn assert_absent(folder: &Path, bytes: &[u8]) {
    for entry in std::fs::read_dir(folder).expect("listing a folder") {
        let path = entry.expect("an entry").path();
        let kind = path.symlink_metadata().expect("its kind").file_type();
        if kind.is_dir() {
            assert_absent(&path, bytes);
        } else if kind.is_file() {
            let content = std::fs::read(&path).expect("reading a file");
            let found = content.windows(bytes.len()).any(|window| window == bytes);
            assert!(!found, "{} has what it must not have", path.display());
        }
    }
}
