//! The built binary as a server: `buildyard up`, `coordinator` or `worker`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use crate::{Certificates, Process, Scratch, free_port, programs};

/// How long a server may take to be ready; a debug build on a busy machine needs some seconds.
const START: Duration = Duration::from_secs(60);

/// How long a server may take to stop: much more than the grace period that the tests give it.
const STOP: Duration = Duration::from_secs(90);

/// What is to be served.
#[derive(Debug, Clone)]
pub struct Serve {
    name: String,
    before: Vec<String>,
    words: Vec<String>,
    host: String,
    port: Option<u16>,
    plain: bool,
    ready: &'static str,
    data: Arc<Scratch>,
}

impl Serve {
    /// A whole farm in one process.
    pub fn up() -> Self {
        Self::listening("up", "/readyz")
    }

    /// A coordinator alone. It is ready without workers.
    pub fn coordinator() -> Self {
        Self::listening("coordinator", "/livez")
    }

    /// A worker that joins `url`. Being ready says only that it runs: see [`Server::wait_workers`].
    pub fn worker(url: &str, name: &str) -> Self {
        let mut serve = Self::new("worker", "");
        serve.name = format!("worker {name}");
        serve.args(&["--join", url, "--name", name])
    }

    /// Arguments that somebody else chose, e.g. a unit file; they listen on `port`, if on any, and keep their data in
    /// the folder `data`.
    pub fn words(words: &[String], port: Option<u16>, data: Arc<Scratch>) -> Self {
        Self {
            name: words.first().cloned().unwrap_or_default(),
            before: Vec::new(),
            words: words.to_vec(),
            host: "127.0.0.1".to_owned(),
            port,
            plain: true,
            ready: "/livez",
            data,
        }
    }

    fn listening(role: &str, ready: &'static str) -> Self {
        let mut serve = Self::new(role, ready);
        let port = free_port();
        serve.port = Some(port);
        serve.args(&["--listen", &format!("127.0.0.1:{port}")])
    }

    fn new(role: &str, ready: &'static str) -> Self {
        let data = Arc::new(Scratch::new());
        let dir = data.path().join("data").display().to_string();
        let serve = Self {
            name: role.to_owned(),
            before: Vec::new(),
            words: vec![role.to_owned()],
            host: "127.0.0.1".to_owned(),
            port: None,
            plain: true,
            ready,
            data,
        };
        serve.args(&["--data", &dir, "--grace", "5"])
    }

    /// Where it keeps its data; the folder is made by its first start.
    pub fn data(&self) -> std::path::PathBuf {
        self.data.path().join("data")
    }

    /// How many seconds it gives what is under way when it is stopped, instead of five.
    #[must_use]
    pub fn grace(mut self, seconds: u32) -> Self {
        let grace = self.words.iter().position(|word| word == "--grace");
        self.words[grace.expect("it has a grace period") + 1] = seconds.to_string();
        self
    }

    /// More arguments.
    #[must_use]
    pub fn args(mut self, words: &[&str]) -> Self {
        self.words
            .extend(words.iter().map(|word| (*word).to_owned()));
        self
    }

    /// Words before the binary, e.g. [`OtherNetwork::enter`](crate::OtherNetwork::enter)'s.
    #[must_use]
    pub fn through(mut self, words: &[String]) -> Self {
        self.before = words.to_vec();
        self
    }

    /// Listens at `host` instead of loopback, with certificates: the port speaks TLS and asks for them.
    #[must_use]
    pub fn tls(mut self, host: &str, certificates: &Certificates) -> Self {
        let address = format!("{host}:{}", self.port.expect("a worker has no endpoint"));
        let listen = self.words.iter().position(|word| word == "--listen");
        self.words[listen.expect("a listening server") + 1] = address;
        self.host = host.to_owned();
        self.plain = false;
        let file = |name: &str| certificates.file(name).display().to_string();
        let (cert, key, ca) = (file("server.pem"), file("server.key"), file("ca.pem"));
        self.args(&["--tls-cert", &cert, "--tls-key", &key, "--client-ca", &ca])
    }

    /// Starts it and waits until it is ready. Starting the same value again, after the first server has stopped, uses the
    /// same data and the same port.
    ///
    /// # Panics
    /// It ends, or is not ready in time; its output is in the message.
    pub fn start(&self) -> Server {
        let mut server = self.spawn();
        if let Some(port) = self.port {
            server.process.wait_ready(START, || self.is_ready(port));
        }
        server
    }

    /// Starts it and does not wait.
    ///
    /// # Panics
    /// The program is not there.
    pub fn spawn(&self) -> Server {
        let mut words = self.before.clone();
        words.push(programs::buildyard().display().to_string());
        words.extend(self.words.iter().cloned());
        let environment = [
            (
                "BUILDYARD_LOG".to_owned(),
                "info,buildyard=debug".to_owned(),
            ),
            ("NO_COLOR".to_owned(), "1".to_owned()),
        ];
        let log = self.data.path().join("log");
        Server {
            process: Process::start(&self.name, &words, &environment, log),
            host: self.host.clone(),
            port: self.port,
            data: self.data.clone(),
        }
    }

    fn is_ready(&self, port: u16) -> bool {
        if self.plain {
            get(port, self.ready) == Some(200)
        } else {
            TcpStream::connect((self.host.as_str(), port)).is_ok()
        }
    }
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    process: Process,
    host: String,
    port: Option<u16>,
    data: Arc<Scratch>,
}

impl Server {
    fn port(&self) -> u16 {
        self.port.expect("a worker has no endpoint")
    }

    /// The address for buildx.
    pub fn endpoint(&self) -> String {
        format!("tcp://{}:{}", self.host, self.port())
    }

    /// The address for workers and for our own CLI.
    pub fn url(&self) -> String {
        format!("http://{}:{}", self.host, self.port())
    }

    /// The address for workers and for our own CLI, where it asks for certificates.
    pub fn https(&self) -> String {
        format!("https://{}:{}", self.host, self.port())
    }

    /// Its folder.
    pub fn data(&self) -> std::path::PathBuf {
        self.data.path().join("data")
    }

    /// A folder beside its data, for sockets and certificates.
    pub fn folder(&self) -> &Path {
        self.data.path()
    }

    /// The number of the process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// What it has written.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The status of a plain HTTP request, e.g. of `/readyz`.
    pub fn status(&self, path: &str) -> Option<u16> {
        get(self.port(), path)
    }

    /// The answer to a plain HTTP request, with its head.
    pub fn page(&self, path: &str) -> Option<String> {
        answer(self.port(), path)
    }

    /// Waits until a worker is connected, or, with `connected` false, until none is.
    pub fn wait_workers(&mut self, connected: bool) {
        let port = self.port();
        let wanted = move || (get(port, "/readyz") == Some(200)) == connected;
        self.process.wait_ready(START, wanted);
    }

    /// SIGTERM, and how it ended.
    pub fn stop(&mut self) -> ExitStatus {
        self.process.stop(STOP)
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Runs our own CLI against it.
    ///
    /// # Panics
    /// It fails.
    pub fn cli(&self, args: &[&str]) -> String {
        let output = std::process::Command::new(programs::buildyard())
            .args(args)
            .env("BUILDYARD_BUILDER", self.url())
            .output()
            .expect("running buildyard");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "buildyard {args:?}: {}\n{errors}",
            output.status
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// The status of `GET path` at a port of loopback; none when nobody answers.
pub(crate) fn get(port: u16, path: &str) -> Option<u16> {
    answer(port, path)?.split(' ').nth(1)?.parse().ok()
}

/// The beginning of the answer to it.
fn answer(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .ok()?;
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.take(64 << 10).read_to_string(&mut answer).ok()?;
    Some(answer)
}
