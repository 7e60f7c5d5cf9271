//! Promise: a step is run again when something that it sees has changed, and then only what is made of its outcome.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, SystemTime};

use buildyard_tests::{
    Buildx, Context, Image, Registry, Serve, native_architecture, push_base_image,
};

struct Bed {
    registry: Registry,
    base: String,
    _farm: buildyard_tests::Server,
    buildx: Buildx,
}

impl Bed {
    fn new() -> Self {
        let registry = Registry::start();
        let base = push_base_image(&registry);
        let farm = Serve::up().start();
        Self {
            buildx: Buildx::new(&farm.endpoint()),
            registry,
            base,
            _farm: farm,
        }
    }

    /// Builds, and returns the steps that were run, without their places: `COPY d /copied`.
    fn executed(&self, context: &Context, args: &[&str]) -> Vec<String> {
        let outcome = self.buildx.build(context, args).succeeds();
        let instruction = |name: &str| {
            let (_, instruction) = name.split_once("] ").expect("a step of a stage");
            instruction.to_owned()
        };
        let mut executed: Vec<String> = outcome.executed().into_iter().map(instruction).collect();
        executed.sort();
        executed
    }

    fn image(&self) -> String {
        format!("{}/app:1", self.registry.host())
    }
}

fn sorted<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut names: Vec<String> = names.into_iter().map(str::to_owned).collect();
    names.sort();
    names
}

/// What sees the folder `d`, and what is made of that.
const OF_D: [&str; 7] = [
    "COPY d /copied",
    "ADD d /added",
    "RUN --mount=type=bind,source=d,target=/in cp -a /in /bound",
    "COPY --from=copy /copied /copied",
    "COPY --from=add /added /added",
    "COPY --from=bind /bound /bound",
    // It goes on top of those.
    "COPY --from=other /other /other",
];

#[test]
fn what_a_step_sees_makes_a_miss_and_times_never_do() {
    let bed = Bed::new();
    let base = &bed.base;
    let dockerfile = format!(
        "FROM {base} AS copy\nCOPY d /copied\nFROM {base} AS add\nADD d /added\n\
         FROM {base} AS bind\nRUN --mount=type=bind,source=d,target=/in cp -a /in /bound\n\
         FROM {base} AS other\nCOPY e /other\n\
         FROM {base}\nCOPY --from=copy /copied /copied\nCOPY --from=add /added /added\n\
         COPY --from=bind /bound /bound\nCOPY --from=other /other /other\n"
    );
    let context = Context::new(&[("d/f", "1"), ("e", "2"), ("Dockerfile", &dockerfile)]);
    let path = |name: &str| context.path().join(name);
    symlink("f", path("d/l")).expect("making a link");
    fs::set_permissions(path("d/f"), fs::Permissions::from_mode(0o644)).expect("setting its mode");
    let all = sorted(OF_D.into_iter().chain(["COPY e /other"]));
    assert_eq!(bed.executed(&context, &[]), all);
    let nothing = Vec::<String>::new();

    let old = SystemTime::now() - Duration::from_secs(1_000_000);
    for name in ["d/f", "d", "e"] {
        let file = fs::File::open(path(name)).expect("opening it");
        file.set_modified(old).expect("setting its time");
    }
    assert_eq!(bed.executed(&context, &[]), nothing, "other times");

    context.write("d/f", "3");
    assert_eq!(bed.executed(&context, &[]), sorted(OF_D), "content");
    fs::set_permissions(path("d/f"), fs::Permissions::from_mode(0o600)).expect("setting its mode");
    assert_eq!(bed.executed(&context, &[]), sorted(OF_D), "mode");
    fs::remove_file(path("d/l")).expect("removing the link");
    symlink("g", path("d/l")).expect("making a link");
    assert_eq!(bed.executed(&context, &[]), sorted(OF_D), "link target");
    context.write("e", "4");
    let of_e = sorted(["COPY e /other", "COPY --from=other /other /other"]);
    assert_eq!(bed.executed(&context, &[]), of_e, "beside it");

    // As it was at first.
    context.write("d/f", "1");
    context.write("e", "2");
    fs::set_permissions(path("d/f"), fs::Permissions::from_mode(0o644)).expect("setting its mode");
    fs::remove_file(path("d/l")).expect("removing the link");
    symlink("f", path("d/l")).expect("making a link");
    assert_eq!(bed.executed(&context, &[]), nothing, "what was before");
}

#[test]
fn the_same_outcome_ends_the_rebuild() {
    let bed = Bed::new();
    let base = &bed.base;
    let dockerfile = format!(
        "FROM {base} AS one\nCOPY a.txt /\nRUN head -c 1 a.txt > /out\n\
         FROM {base}\nCOPY --from=one /out /out\nRUN cat /out > /last\n"
    );
    let context = Context::new(&[("a.txt", "a1"), ("Dockerfile", &dockerfile)]);
    let name = bed.image();
    let push = ["--push", "-t", &name];
    let first = ["COPY a.txt /", "RUN head -c 1 a.txt > /out"];
    let second = ["COPY --from=one /out /out", "RUN cat /out > /last"];
    let all = sorted(first.into_iter().chain(second));
    assert_eq!(bed.executed(&context, &push), all);
    context.write("a.txt", "a2");
    assert_eq!(bed.executed(&context, &push), sorted(first));
    let filter = [&push[..], &["--no-cache-filter", "one"]].concat();
    assert_eq!(bed.executed(&context, &filter), sorted(first));
    context.write("a.txt", "b1");
    assert_eq!(bed.executed(&context, &push), all);
    let image = Image::pull(&name, native_architecture());
    assert_eq!(image.text("last"), "b");
}

#[test]
fn proxies_and_secrets_make_no_miss() {
    let bed = Bed::new();
    let dockerfile = format!(
        "FROM {}\nRUN --mount=type=secret,id=s cat /run/secrets/s > /dev/null; echo $HTTP_PROXY > /dev/null\n",
        bed.base
    );
    let context = Context::new(&[("Dockerfile", &dockerfile)]);
    let secret = context.path().join("secret");
    let source = format!("id=s,src={}", secret.display());
    let build = |content: &str, proxy: &str| {
        fs::write(&secret, content).expect("writing the secret");
        let proxy = format!("HTTP_PROXY={proxy}");
        bed.executed(&context, &["--secret", &source, "--build-arg", &proxy])
    };
    assert_eq!(build("one", "http://a:1").len(), 1);
    assert_eq!(build("two", "http://b:2"), Vec::<String>::new());
}
