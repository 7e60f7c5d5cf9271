//! The engine that ours is compared with: the BuildKit inside of Debian's `dockerd`, with a containerd of its own.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::json;

use crate::{Process, Scratch, programs};

/// How long it may take to come up.
const START: Duration = Duration::from_secs(60);

/// A running engine. It has no network for containers: builds are to ask for `--network none`.
#[derive(Debug)]
pub struct Reference {
    _process: Process,
    data: Scratch,
}

impl Reference {
    /// Starts it; nothing on the machine is changed.
    ///
    /// # Panics
    /// It does not come up, e.g. as there is no containerd.
    pub fn start() -> Self {
        let data = Scratch::new();
        let file = |name: &str| data.path().join(name).display().to_string();
        let config = json!({
            "features": {"containerd-snapshotter": true},
            "userland-proxy": false,
            "insecure-registries": ["127.0.0.0/8"],
        });
        std::fs::write(file("daemon.json"), config.to_string()).expect("writing a configuration");
        let socket = format!("unix://{}", file("sock"));
        let words = [
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
            "--iptables=false".into(),
            "--ip6tables=false".into(),
            "--bridge=none".into(),
        ];
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{path}:/usr/sbin:/sbin:{}", programs::unpacked().display());
        let environment = [("PATH".to_owned(), path)];
        let log = data.path().join("log");
        let mut process = Process::start("dockerd", &words, &environment, log);
        let socket = data.path().join("sock");
        process.wait_ready(START, || UnixStream::connect(&socket).is_ok());
        Self {
            _process: process,
            data,
        }
    }

    /// What `DOCKER_HOST` is to be for its clients.
    pub fn endpoint(&self) -> String {
        format!("unix://{}", self.data.path().join("sock").display())
    }
}
