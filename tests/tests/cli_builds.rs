//! Promise: `buildyard build` does what `docker buildx build` does: images are pushed with the user's credentials, results
//! arrive where `-o` says, certificates open an `https://` farm, and `buildyard builder setup` hands the farm to buildx.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use buildyard_tests::{
    Buildx, Certificates, Context, Farm, Image, Login, PLATFORMS, Registry, Scratch, Serve,
    busybox, inspect_raw, native_architecture, wait_for,
};
use serde_json::Value;

const MACHINES: [(&str, &str); 2] = [("amd64", "x86_64\n"), ("arm64", "aarch64\n")];

/// Our own CLI as the user to whom the folder belongs: the Docker configuration is in `docker`, buildx's in `buildx`.
fn command(home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(buildyard_tests::buildyard());
    command
        .args(args)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", home)
        .env("DOCKER_CONFIG", home.join("docker"))
        .env("BUILDX_CONFIG", home.join("buildx"))
        .current_dir(home);
    command
}

/// `buildyard build --builder URL … CONTEXT`.
fn build(home: &Path, url: &str, context: &Context, args: &[&str]) -> Command {
    let path = context.arg();
    let first = ["build", "--progress", "plain", "--builder", url];
    command(home, &[&first[..], args, &[&path]].concat())
}

#[track_caller]
fn succeeds(command: &mut Command) -> Output {
    let output = command.output().expect("running buildyard");
    assert_code(command, &output, 0);
    output
}

/// Asserts that it ends with this code and says this.
#[track_caller]
fn fails(command: &mut Command, code: i32, texts: &[&str]) {
    let output = command.output().expect("running buildyard");
    assert_code(command, &output, code);
    let errors = String::from_utf8_lossy(&output.stderr);
    for text in texts {
        assert!(errors.contains(text), "no {text:?} in:\n{errors}");
    }
}

#[track_caller]
fn assert_code(command: &Command, output: &Output, code: i32) {
    let errors = String::from_utf8_lossy(&output.stderr);
    let args: Vec<_> = command.get_args().collect();
    assert_eq!(output.status.code(), Some(code), "{args:?}\n{errors}");
}

fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn an_index_is_pushed_and_its_digest_is_written_down() {
    const SECRET: &str = "a-secret-that-is-nowhere-else";
    let farm = Farm::new();
    let home = farm.buildx.home();
    let context = farm.context(
        "FROM BASE\nRUN --mount=type=secret,id=token wc -c < /run/secrets/token > /length\nRUN uname -m > /machine\nCOPY file /\n",
    );
    fs::write(home.join("token"), SECRET).expect("writing a secret");
    let push = |name: &str, platforms: &str| {
        let args = [
            "--platform",
            platforms,
            "-t",
            name,
            "--push",
            "--secret",
            "id=token,src=token",
            "--metadata-file",
            "metadata.json",
            "--iidfile",
            "id",
        ];
        let output = succeeds(&mut build(home, &farm.server.url(), &context, &args));
        let shown = String::from_utf8_lossy(&output.stderr);
        assert!(!shown.contains(SECRET), "{shown}");
        let metadata = read(home.join("metadata.json"));
        let metadata: Value = serde_json::from_str(&metadata).expect("metadata in JSON");
        let digest = metadata["containerimage.digest"].as_str();
        let digest = digest.expect("the digest of what was pushed").to_owned();
        assert_eq!(metadata["containerimage.descriptor"]["digest"], digest);
        assert_eq!(metadata["image.name"], name);
        (digest, read(home.join("id")))
    };

    let both = farm.name("both:1");
    let (digest, id) = push(&both, PLATFORMS);
    assert_eq!(id, digest);
    let by_digest = format!("{}@{digest}", farm.name("both"));
    let index = inspect_raw(&both);
    assert_eq!(
        index["mediaType"],
        "application/vnd.oci.image.index.v1+json"
    );
    assert_eq!(index, inspect_raw(&by_digest));
    for (architecture, machine) in MACHINES {
        // By the digest: skopeo compares it with what it gets.
        let image = Image::pull(&by_digest, architecture);
        assert_eq!(image.config["architecture"], architecture);
        assert_eq!(image.text("machine"), machine);
        assert_eq!(image.text("length").trim(), SECRET.len().to_string());
        assert_eq!(image.text("file"), "x");
    }

    // One image has an id of its own, its configuration's digest.
    let one = farm.name("one:1");
    let (digest, id) = push(&one, "linux/arm64");
    let manifest = inspect_raw(&format!("{}@{digest}", farm.name("one")));
    assert_eq!(manifest, inspect_raw(&one));
    assert_eq!(manifest["config"]["digest"], id);
    assert_eq!(Image::pull(&one, "arm64").text("machine"), "aarch64\n");
}

#[test]
fn results_arrive_as_files_and_archives() {
    let farm = Farm::new();
    let home = farm.buildx.home();
    let context = farm.context(
        "FROM BASE AS make\nRUN uname -m > /machine && mkdir /d && ln -s ../machine /d/link && chmod 751 /machine\n\
         FROM scratch AS files\nCOPY --from=make /machine /d /out/\nFROM make AS image\n",
    );
    let export = |target: &str, platforms: &str, output: &str| {
        let args = ["--target", target, "--platform", platforms, "-o", output];
        build(home, &farm.server.url(), &context, &args)
    };
    succeeds(&mut export("files", "linux/arm64", "type=local,dest=one"));
    assert_eq!(read(home.join("one/out/machine")), "aarch64\n");
    let link = fs::read_link(home.join("one/out/link")).expect("an exported link");
    assert_eq!(link, Path::new("../machine"));
    let file = fs::metadata(home.join("one/out/machine")).expect("an exported file");
    assert_eq!(file.permissions().mode() & 0o777, 0o751);

    succeeds(&mut export("files", PLATFORMS, "type=local,dest=two"));
    succeeds(&mut export("files", PLATFORMS, "type=tar,dest=two.tar"));
    let shown = File::create(home.join("shown.tar")).expect("a file for standard output");
    let mut to_stdout = export("files", PLATFORMS, "-");
    let status = to_stdout.stdout(shown).stderr(Stdio::null()).status();
    assert!(status.expect("running buildyard").success());
    let archives = [unpacked(home, "two.tar"), unpacked(home, "shown.tar")];
    for (architecture, machine) in MACHINES {
        let file = format!("linux_{architecture}/out/machine");
        for folder in [&home.join("two"), archives[0].path(), archives[1].path()] {
            assert_eq!(read(folder.join(&file)), machine);
        }
    }

    succeeds(&mut export("image", PLATFORMS, "type=oci,dest=image.tar"));
    let oci = format!("oci-archive:{}", home.join("image.tar").display());
    for (architecture, machine) in MACHINES {
        assert_eq!(Image::read(&oci, architecture).text("machine"), machine);
    }
    succeeds(&mut export(
        "image",
        "linux/arm64",
        "type=docker,dest=docker.tar",
    ));
    let docker = format!("docker-archive:{}", home.join("docker.tar").display());
    assert_eq!(Image::read(&docker, "arm64").text("machine"), "aarch64\n");
}

fn unpacked(home: &Path, archive: &str) -> Scratch {
    let file = File::open(home.join(archive)).expect("an exported archive");
    let folder = Scratch::new();
    let unpacking = tar::Archive::new(file).unpack(folder.path());
    unpacking.expect("unpacking an exported archive");
    folder
}

#[test]
fn a_dockerfile_comes_from_standard_input() {
    let farm = Farm::new();
    let home = farm.buildx.home();
    // The one in the context is not the one that is meant.
    let context = farm.context("FROM scratch\nCOPY missing /\n");
    let args = ["-f", "-", "-o", "type=local,dest=out"];
    let mut child = build(home, &farm.server.url(), &context, &args)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starting buildyard");
    let text = farm.dockerfile(
        "FROM BASE AS make\nCOPY file /\nRUN cat /file /file > /twice\nFROM scratch\nCOPY --from=make /twice /\n",
    );
    // Taken out, so that it is closed: the Dockerfile ends there.
    let mut stdin = child.stdin.take().expect("it has a pipe");
    stdin.write_all(text.as_bytes()).expect("writing to it");
    drop(stdin);
    let output = child.wait_with_output().expect("its end");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert_eq!(read(home.join("out/twice")), "xx");
}

#[test]
fn passwords_of_the_docker_configuration_reach_a_registry() {
    credentials_reach(Login::Basic);
}

#[test]
fn tokens_are_got_with_the_docker_configuration() {
    credentials_reach(Login::Token);
}

/// Without a login, with a wrong one, with the right one.
fn credentials_reach(login: Login) {
    let farm = Farm::with_registry(Registry::with_login(login));
    let (home, host) = (farm.buildx.home(), farm.registry.host());
    let name = farm.name("team/app:1");
    let push =
        |context: &Context| build(home, &farm.server.url(), context, &["-t", &name, "--push"]);
    let new = farm.context("FROM scratch\nCOPY file /\n");
    let based = farm.context("FROM BASE\nRUN cat /etc/passwd > /users || true\nCOPY file /\n");
    let hint = format!("docker login {host}");
    let expected = ["team/app", "access denied by", &hint];
    fails(&mut push(&new), 1, &expected);
    fails(&mut push(&based), 1, &["base/busybox", &hint]);
    farm.buildx.log_in(&host, Registry::USER, "wrong");
    fails(&mut push(&new), 1, &expected);
    farm.buildx
        .log_in(&host, Registry::USER, Registry::PASSWORD);
    succeeds(&mut push(&based));
    // Read back with those credentials too, by a build: what it shows is what was pushed.
    let back =
        farm.context("FROM REGISTRY/team/app:1 AS app\nFROM scratch\nCOPY --from=app /file /\n");
    let args = ["-o", "type=local,dest=back"];
    succeeds(&mut build(home, &farm.server.url(), &back, &args));
    assert_eq!(read(home.join("back/file")), "x");
}

/// A build that needs no registry: what it runs is in its context.
fn self_contained() -> Context {
    let context = Context::new(&[(
        "Dockerfile",
        "FROM scratch AS make\nCOPY --chmod=755 busybox /bin/busybox\n\
         RUN [\"/bin/busybox\", \"sh\", \"-c\", \"echo made > /made\"]\nFROM scratch\nCOPY --from=make /made /\n",
    )]);
    let busybox = busybox(native_architecture());
    fs::copy(busybox, context.path().join("busybox")).expect("copying busybox");
    context
}

#[test]
fn certificates_open_a_farm_at_https() {
    let certificates = Certificates::new("127.0.0.1");
    let farm = Serve::up().tls("127.0.0.1", &certificates).start();
    let (url, home) = (farm.https(), Scratch::new());
    let flags = certificates.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let list = [&["workers", "--builder", &url][..], &flags].concat();
    let connected = || farm.cli(&list).contains("connected").then_some(());
    wait_for("the farm's worker", Duration::from_secs(60), connected);
    let context = self_contained();

    let args = [&["-o", "type=local,dest=out"][..], &flags].concat();
    succeeds(&mut build(home.path(), &url, &context, &args));
    assert_eq!(read(home.path().join("out/made")), "made\n");

    let refused = |flags: &[&str], reason: &str| {
        let args = [&["-o", "type=local,dest=refused"][..], flags].concat();
        let mut build = build(home.path(), &url, &context, &args);
        fails(&mut build, 3, &[&url, reason]);
        assert!(!home.path().join("refused").exists());
    };
    let file = |name: &str| certificates.file(name).display().to_string();
    let (ca, cert, key) = (file("ca.pem"), file("stranger.pem"), file("stranger.key"));
    let missing = "if the farm asks for a certificate, give one with --cert and --key";
    refused(&["--ca", &ca], missing);
    let list = ["workers", "--builder", &url, "--ca", &ca];
    fails(&mut command(home.path(), &list), 3, &[&url, missing]);
    let stranger = ["--ca", &ca, "--cert", &cert, "--key", &key];
    refused(
        &stranger,
        "the farm may not accept the certificate of --cert",
    );
    // The system's authorities do not know this farm.
    refused(&[], "invalid peer certificate: UnknownIssuer");

    let buildx = Buildx::new(&farm.endpoint());
    set_up(&buildx, &[&["--builder", &url][..], &flags].concat());
    builds_through_it(&buildx, &["--builder", "ours"]);
}

#[test]
fn a_builder_is_set_up_for_buildx() {
    let farm = Serve::up().start();
    // Its builder so far is one where nobody answers.
    let buildx = Buildx::new("tcp://127.0.0.1:9");
    set_up(&buildx, &["--builder", &farm.url(), "--use"]);
    builds_through_it(&buildx, &[]);

    // The command that it prints does the same.
    let words = ["builder", "setup", "--name", "printed", "--builder"];
    let url = farm.url();
    let printed = succeeds(&mut command(buildx.home(), &[&words[..], &[&url]].concat()));
    let printed = String::from_utf8(printed.stdout).expect("UTF-8");
    let words = printed.strip_prefix("docker buildx ").expect("a command");
    let words: Vec<&str> = words.split_whitespace().collect();
    buildx.run(&words).succeeds();
    builds_through_it(&buildx, &["--builder", "printed"]);
}

/// `buildyard builder setup --create` as the user of this client, who has buildx among Docker's plugins.
fn set_up(buildx: &Buildx, args: &[&str]) {
    let plugins = buildx.docker_config().join("cli-plugins");
    fs::create_dir_all(&plugins).expect("making the folder of plugins");
    let run = buildx.command(&[]);
    let program = run.get_args().last().expect("the program of buildx");
    symlink(program, plugins.join("docker-buildx")).expect("adding a plugin");
    let words = ["builder", "setup", "--create", "--name", "ours"];
    succeeds(&mut command(buildx.home(), &[&words[..], args].concat()));
}

fn builds_through_it(buildx: &Buildx, args: &[&str]) {
    let out = Scratch::new();
    let output = format!("type=local,dest={}", out.path().display());
    let args = [args, &["-o", &output]].concat();
    buildx.build(&self_contained(), &args).succeeds();
    assert_eq!(read(out.path().join("made")), "made\n");
}
