//! The engine that ours is compared with: the BuildKit inside of Debian's `dockerd`, with a containerd of its own.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use crate::{Process, Scratch, programs};

/// How long it may take to come up.
const START: Duration = Duration::from_secs(60);

/// How long it may take to stop: it waits for its containerd.
const STOP: Duration = Duration::from_secs(60);

/// A running engine.
#[derive(Debug)]
pub struct Reference {
    process: Process,
    words: Vec<String>,
    data: Scratch,
}

impl Reference {
    /// Starts it without a network for containers: builds are to ask for `--network none`. Nothing on the machine is changed.
    ///
    /// # Panics
    /// It does not come up, e.g. as there is no containerd.
    pub fn start() -> Self {
        Self::with(&["--iptables=false", "--ip6tables=false", "--bridge=none"])
    }

    /// Starts it with the bridge and the rules for packets that it makes by default: only in a network name space that
    /// nobody else uses. Its control groups are below `group`.
    ///
    /// # Panics
    /// It does not come up.
    pub fn with_bridge(group: &str) -> Self {
        Self::with(&["--cgroup-parent", group])
    }

    fn with(network: &[&str]) -> Self {
        let data = Scratch::new();
        let file = |name: &str| data.path().join(name).display().to_string();
        let config = json!({
            "features": {"containerd-snapshotter": true},
            "userland-proxy": false,
            "insecure-registries": ["127.0.0.0/8"],
        });
        std::fs::write(file("daemon.json"), config.to_string()).expect("writing a configuration");
        let socket = format!("unix://{}", file("sock"));
        let mut words = vec![
            programs::dockerd().display().to_string(),
            "--config-file".into(),
            file("daemon.json"),
            "--data-root".into(),
            file("data"),
            "--exec-root".into(),
            file("exec"),
            "--pidfile".into(),
            file("pid"),
            "--host".into(),
            socket,
        ];
        words.extend(network.iter().map(|word| (*word).to_owned()));
        let mut reference = Self {
            process: spawn(&words, &data),
            words,
            data,
        };
        reference.wait_ready();
        reference
    }

    /// Asks it to stop and waits for that; its data stays.
    ///
    /// # Panics
    /// It does not stop in time.
    pub fn stop(&mut self) {
        self.process.stop(STOP);
        // A stopped engine leaves its socket; the next one must not be taken for ready because of it.
        let _ = std::fs::remove_file(self.socket());
    }

    /// Starts it on the data that it has, after [`Self::stop`], and does not wait until it [`Self::is_up`].
    ///
    /// # Panics
    /// The program cannot be started.
    pub fn start_again(&mut self) {
        self.process = spawn(&self.words, &self.data);
    }

    /// Waits until it [`Self::is_up`].
    ///
    /// # Panics
    /// It ends, or is not up in time.
    pub fn wait_ready(&mut self) {
        let socket = self.socket();
        self.process.wait_ready(START, || answers(&socket));
    }

    /// Whether it answers its clients.
    pub fn is_up(&self) -> bool {
        answers(&self.socket())
    }

    /// What `DOCKER_HOST` is to be for its clients.
    pub fn endpoint(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.data.path().join("sock")
    }

    /// Its folder.
    pub fn data(&self) -> PathBuf {
        self.data.path().join("data")
    }

    /// The number of its process, whose child is its containerd.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }
}

/// Its socket is there before it can do anything, so it is asked.
fn answers(socket: &Path) -> bool {
    let ask = || {
        let mut stream = UnixStream::connect(socket).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        stream.write_all(b"GET /_ping HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.take(1024).read_to_string(&mut answer).ok()?;
        Some(answer.split(' ').nth(1)? == "200")
    };
    ask().unwrap_or(false)
}

fn spawn(words: &[String], data: &Scratch) -> Process {
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{path}:/usr/sbin:/sbin:{}", programs::unpacked().display());
    let environment = [("PATH".to_owned(), path)];
    Process::start("dockerd", words, &environment, data.path().join("log"))
}
