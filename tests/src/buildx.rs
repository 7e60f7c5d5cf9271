//! The real `docker buildx`, unmodified and in its default settings, in a home of its own.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::{Context, Scratch, programs};

/// A client with one builder.
#[derive(Debug)]
pub struct Buildx {
    home: Scratch,
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
        };
        let mut args = vec!["create", "--driver", "remote", "--name", "farm", "--use"];
        for option in options {
            args.extend(["--driver-opt", option]);
        }
        args.push(endpoint);
        buildx.run(&args).succeeds();
        buildx
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

    /// `buildx build` of a context.
    pub fn build(&self, context: &Context, args: &[&str]) -> Outcome {
        let path = context.arg();
        let mut words = vec!["build", "--progress", "plain"];
        words.extend(args);
        words.push(&path);
        self.run(&words)
    }

    /// Runs it to its end.
    pub fn run(&self, args: &[&str]) -> Outcome {
        let child = self.spawn(args);
        let output = child.wait_with_output().expect("waiting for buildx");
        Outcome::of(args, &output)
    }

    /// Starts it; its output is to be taken from the child.
    pub fn spawn(&self, args: &[&str]) -> Child {
        self.command(args).spawn().expect("starting buildx")
    }

    fn command(&self, args: &[&str]) -> Command {
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
            .current_dir(home)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
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
    fn of(args: &[&str], output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            line: args.join(" "),
            code: output.status.code(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }

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
        let numbered = |name: &str| {
            let other = name.starts_with("[internal]") || name.contains("] FROM ");
            name.starts_with('[') && name.contains('/') && !other
        };
        steps(&self.stderr)
            .into_iter()
            .map(|(_, name)| name)
            .filter(|name| numbered(name) && !cached.contains(name))
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
