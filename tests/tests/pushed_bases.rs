//! Promise: an image that a farm pushed is a base like any other: what it hands down (triggers, configuration) acts on who
//! starts from it, on each platform, also on a farm that has never seen it.

use buildyard_tests::{
    Buildx, Context, Image, Outcome, PLATFORMS, Registry, Serve, Server, push_base_image,
};
use serde_json::{Value, json};

struct Farms {
    registry: Registry,
    base: String,
    servers: [Server; 2],
}

impl Farms {
    fn new() -> Self {
        let registry = Registry::start();
        let base = push_base_image(&registry);
        let servers = [Serve::up().start(), Serve::up().start()];
        Self {
            registry,
            base,
            servers,
        }
    }

    fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.registry.host())
    }

    /// Builds on one of the farms. In the Dockerfile `BUSYBOX` is the base image, `PUSHED` the image of that name.
    fn build(&self, farm: usize, name: &str, platforms: &str, dockerfile: &str) -> Outcome {
        let dockerfile = dockerfile
            .replace("BUSYBOX", &self.base)
            .replace("PUSHED", &self.name("pushed"));
        let context = Context::new(&[("Dockerfile", &dockerfile), ("app.txt", "of the context")]);
        let buildx = Buildx::new(&self.servers[farm].endpoint());
        let name = self.name(name);
        buildx.build(&context, &["--platform", platforms, "-t", &name, "--push"])
    }

    /// Pushes a base from the first farm and builds on it with the second.
    fn hand_down(&self, base: &str, child: &str) {
        self.build(0, "pushed", PLATFORMS, base).succeeds();
        self.build(1, "child", PLATFORMS, child).succeeds();
    }
}

#[test]
fn triggers_see_the_context_and_the_stages_of_who_starts_from_the_base() {
    let farms = Farms::new();
    farms.hand_down(
        "FROM BUSYBOX\n\
         ENV WHO=base\n\
         ONBUILD ARG MODE=default\n\
         ONBUILD COPY app.txt /app/\n\
         ONBUILD COPY --from=assets --chown=7:8 /made /app/made\n\
         ONBUILD RUN --mount=from=assets,source=/made,target=/in cat /in > /app/mounted && uname -m > /app/machine\n\
         ONBUILD RUN echo \"$MODE $WHO\" > /app/mode\n\
         ONBUILD ENV TRIGGERED=yes\n\
         ONBUILD CMD [\"go\"]\n",
        "FROM BUSYBOX AS assets\n\
         RUN echo asset of $(uname -m) > /made\n\
         FROM PUSHED AS child\n\
         RUN cat /app/mounted > /seen\n\
         FROM child\n\
         ENV LAST=1\n",
    );
    for (architecture, machine) in [("amd64", "x86_64"), ("arm64", "aarch64")] {
        let image = Image::pull(&farms.name("child"), architecture);
        assert_eq!(image.text("app/app.txt"), "of the context");
        assert_eq!(image.text("app/mode"), "default base\n");
        assert_eq!(image.text("app/machine"), format!("{machine}\n"));
        for path in ["app/made", "app/mounted", "seen"] {
            assert_eq!(image.text(path), format!("asset of {machine}\n"), "{path}");
        }
        let config = &image.config["config"];
        assert_eq!(config["Cmd"], json!(["go"]));
        // They act once: nothing of them is left for who starts from the child.
        assert_eq!(config["OnBuild"], Value::Null);
        let env = config["Env"].to_string();
        assert!(
            env.contains("TRIGGERED=yes") && env.contains("LAST=1"),
            "{env}"
        );
    }
}

#[test]
fn what_a_base_hands_down_is_kept_reset_or_changed_by_the_rules() {
    let farms = Farms::new();
    farms.hand_down(
        "FROM BUSYBOX\n\
         ENV KEPT=1 CHANGED=1 PATH=/opt/bin:$PATH\n\
         LABEL kept=1 changed=1\n\
         WORKDIR /work\n\
         USER app\n\
         EXPOSE 80\n\
         VOLUME /data\n\
         STOPSIGNAL SIGINT\n\
         HEALTHCHECK --interval=5s --retries=2 CMD true\n\
         SHELL [\"/bin/sh\", \"-eu\", \"-c\"]\n\
         ENTRYPOINT [\"/bin/entry\"]\n\
         CMD [\"of\", \"base\"]\n",
        "FROM PUSHED\n\
         ENV CHANGED=2\n\
         LABEL changed=2\n\
         RUN echo \"$(id -un) $(pwd) $KEPT $CHANGED\" > /tmp/seen; case $- in *u*) echo strict;; esac >> /tmp/seen\n\
         WORKDIR inner\n\
         EXPOSE 90/udp\n\
         VOLUME /more\n\
         ENTRYPOINT [\"/bin/own\"]\n",
    );
    let image = Image::pull(&farms.name("child"), "arm64");
    assert_eq!(image.text("tmp/seen"), "app /work 1 2\nstrict\n");
    let mut config = image.config["config"].clone();
    let env = config.as_object_mut().and_then(|all| all.remove("Env"));
    let env = env.expect("variables").to_string();
    assert!(
        env.contains("PATH=/opt/bin:/usr") && env.contains("CHANGED=2"),
        "{env}"
    );
    assert_eq!(
        config,
        json!({
            "Labels": {"kept": "1", "changed": "2"},
            "WorkingDir": "/work/inner",
            "User": "app",
            "ExposedPorts": {"80/tcp": {}, "90/udp": {}},
            "Volumes": {"/data": {}, "/more": {}},
            "StopSignal": "SIGINT",
            "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 5_000_000_000_u64, "Retries": 2},
            "Shell": ["/bin/sh", "-eu", "-c"],
            "Entrypoint": ["/bin/own"],
            "ArgsEscaped": true,
        })
    );
}

#[test]
fn a_base_of_several_platforms_serves_those_and_names_them() {
    let farms = Farms::new();
    let base = "FROM BUSYBOX\nRUN uname -m > /machine\n";
    farms.build(0, "pushed", PLATFORMS, base).succeeds();
    farms
        .build(1, "child", "linux/s390x", "FROM PUSHED\n")
        .fails()
        .says("no match for platform linux/s390x")
        .says("the image has linux/amd64, linux/arm64")
        .says("Dockerfile:1");
    // Each form of --platform, in a build for one platform.
    let child = "FROM --platform=linux/arm64 PUSHED AS foreign\n\
                 FROM --platform=$BUILDPLATFORM PUSHED AS builder\n\
                 FROM --platform=$TARGETPLATFORM PUSHED AS target\n\
                 FROM PUSHED\n\
                 COPY --from=foreign /machine /foreign\n\
                 COPY --from=builder /machine /builder\n\
                 COPY --from=target /machine /target\n";
    farms.build(1, "child", "linux/arm64", child).succeeds();
    let image = Image::pull(&farms.name("child"), "arm64");
    let native = format!("{}\n", std::env::consts::ARCH);
    for (path, machine) in [
        ("foreign", "aarch64\n"),
        ("builder", native.as_str()),
        ("target", "aarch64\n"),
        ("machine", "aarch64\n"),
    ] {
        assert_eq!(image.text(path), machine, "{path}");
    }
}
