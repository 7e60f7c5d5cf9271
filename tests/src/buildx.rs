//! The real `docker buildx`, unmodified and in its default settings, in a home of its own.

use std::path::Path;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::{Checkout, Context, Running, Scratch, programs};

/// A client with one builder.
#[derive(Debug)]
pub struct Buildx {
    home: Scratch,
    /// The Docker engine whose builder is used; none: the builder `farm`.
    docker: Option<String>,
}

impl Buildx {
    /// Makes `endpoint` (`tcp://` or `unix://`) the builder.
    pub fn new(endpoint: &str) -> Self {
        Self::with_options(endpoint, &[])
    }

    /// The same with options of the remote driver, e.g. `cacert=FILE`.
    pub fn with_options(endpoint: &str, options: &[&str]) -> Self {
        let buildx = Self {
            home: Scratch::new(),
            docker: None,
        };
        let mut args = vec!["create", "--driver", "remote", "--name", "farm", "--use"];
        for option in options {
            args.extend(["--driver-opt", option]);
        }
        args.push(endpoint);
        buildx.run(&args).succeeds();
        buildx
    }

    /// Uses the builder inside of a Docker engine, e.g. of [`crate::compare::Reference`].
    pub fn of_docker(endpoint: &str) -> Self {
        Self {
            home: Scratch::new(),
            docker: Some(endpoint.to_owned()),
        }
    }

    /// Has the Docker engine at `endpoint` beside its builder: `--load` brings images there.
    #[must_use]
    pub fn with_docker(mut self, endpoint: &str) -> Self {
        self.docker = Some(endpoint.to_owned());
        self
    }

    /// Builds one of the projects, in its folder.
    pub fn build_project(&self, base: &str, project: &Checkout, args: &[&str]) -> Outcome {
        let rest = project.args(base);
        let mut words = vec!["build", "--progress", "plain"];
        words.extend(args);
        words.extend(rest.iter().map(String::as_str));
        let mut command = self.command(&words);
        command.current_dir(project.path());
        Running::start(words.join(" "), command).finish()
    }

    /// The folder that it takes for `$HOME/.docker`.
    pub fn docker_config(&self) -> std::path::PathBuf {
        self.home.path().join("docker")
    }

    /// Writes down the user and the password of a registry.
    pub fn log_in(&self, host: &str, user: &str, password: &str) {
        let auth = STANDARD.encode(format!("{user}:{password}"));
        let config = serde_json::json!({"auths": {host: {"auth": auth}}});
        let dir = self.docker_config();
        std::fs::create_dir_all(&dir).expect("making the folder of the configuration");
        std::fs::write(dir.join("config.json"), config.to_string()).expect("writing it");
    }

    /// `buildx build` of a context, to its end.
    pub fn build(&self, context: &Context, args: &[&str]) -> Outcome {
        self.start(context, args).finish()
    }

    /// Starts `buildx build` of a context.
    pub fn start(&self, context: &Context, args: &[&str]) -> Running {
        let path = context.arg();
        let mut words = vec!["build", "--progress", "plain"];
        words.extend(args);
        words.push(&path);
        Running::start(words.join(" "), self.command(&words))
    }

    /// Runs it to its end.
    pub fn run(&self, args: &[&str]) -> Outcome {
        Running::start(args.join(" "), self.command(args)).finish()
    }

    /// The command that runs it; whoever spawns it gets the process of buildx itself.
    pub fn command(&self, args: &[&str]) -> Command {
        let home = self.home.path();
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(programs::buildx())
            .args(args)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", home)
            .env("DOCKER_CONFIG", self.docker_config())
            .env("BUILDX_CONFIG", home.join("buildx"))
            .current_dir(home);
        if let Some(docker) = &self.docker {
            command.env("DOCKER_HOST", docker);
        }
        command
    }

    /// Its home, which is also where it runs.
    pub fn home(&self) -> &Path {
        self.home.path()
    }
}

/// How a client's run ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What was run.
    pub line: String,
    /// The exit code; none after a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error: buildx's progress goes there.
    pub stderr: String,
}

impl Outcome {
    /// Asserts success.
    #[track_caller]
    pub fn succeeds(self) -> Self {
        assert_eq!(self.code, Some(0), "buildx {}\n{}", self.line, self.stderr);
        self
    }

    /// Asserts failure.
    #[track_caller]
    pub fn fails(self) -> Self {
        assert_ne!(self.code, Some(0), "buildx {}\n{}", self.line, self.stderr);
        self
    }

    /// Asserts that the progress has a text.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(
            self.stderr.contains(text),
            "no {text:?} in:\n{}",
            self.stderr
        );
        self
    }

    /// Asserts that the progress lacks a text.
    #[track_caller]
    pub fn does_not_say(self, text: &str) -> Self {
        assert!(!self.stderr.contains(text), "{text:?} in:\n{}", self.stderr);
        self
    }

    /// The names of the steps that were taken from the cache, as plain progress writes them.
    pub fn cached(&self) -> Vec<&str> {
        let steps = steps(&self.stderr);
        let cached = |number: &str| {
            self.stderr
                .lines()
                .any(|line| line == format!("{number} CACHED"))
        };
        steps
            .into_iter()
            .filter(|(number, _)| cached(number))
            .map(|(_, name)| name)
            .collect()
    }

    /// The names of the steps of Dockerfiles' stages, e.g. `[linux/amd64 stage-1 2/3] RUN true`, that were run.
    pub fn executed(&self) -> Vec<&str> {
        let cached = self.cached();
        let of_a_stage = |name: &str| {
            name.contains('/') && !name.contains("internal] ") && !name.contains("] FROM ")
        };
        steps(&self.stderr)
            .into_iter()
            .map(|(_, name)| name)
            .filter(|name| of_a_stage(name) && !cached.contains(name))
            .collect()
    }
}

/// The steps of plain progress: `#7 [stage-1 2/3] RUN true` gives (`#7`, `[stage-1 2/3] RUN true`).
fn steps(progress: &str) -> Vec<(&str, &str)> {
    let mut steps: Vec<(&str, &str)> = Vec::new();
    for line in progress.lines() {
        let Some((number, name)) = line.split_once(' ') else {
            continue;
        };
        let first = number.starts_with('#') && name.starts_with('[');
        if first && !steps.iter().any(|(known, _)| *known == number) {
            steps.push((number, name));
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROGRESS: &str = "#0 building with \"farm\" instance using remote driver\n\n\
        #1 [internal] load build definition from Dockerfile\n#1 DONE 0.0s\n\n\
        #5 [linux/amd64 1/2] FROM r/base\n#5 CACHED\n\n\
        #6 [linux/amd64 2/2] RUN true\n#6 0.1 [stage]\n#6 DONE 0.2s\n\n\
        #7 [linux/arm64 2/2] RUN true\n#7 CACHED\n";

    #[test]
    fn steps_are_read_from_plain_progress() {
        let outcome = Outcome {
            line: String::new(),
            code: Some(0),
            stdout: String::new(),
            stderr: PROGRESS.into(),
        };
        assert_eq!(
            outcome.cached(),
            [
                "[linux/amd64 1/2] FROM r/base",
                "[linux/arm64 2/2] RUN true"
            ]
        );
        assert_eq!(outcome.executed(), ["[linux/amd64 2/2] RUN true"]);
    }
}
