//! Debian's `docker-registry` (the CNCF's distribution) at a free port.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::tokens::{TokenRequest, TokenServer};
use crate::{Process, Scratch, free_port, programs, server, wait_for};

/// How long it may take to start, or to write a line.
const SOON: Duration = Duration::from_secs(60);

/// Who may use a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Login {
    /// Everybody.
    Open,
    /// Those who know [`Registry::USER`] and [`Registry::PASSWORD`] (HTTP's Basic).
    Basic,
    /// Those who have a token from the registry's token server, which gives them to the same user.
    Token,
}

/// A registry with nothing in it.
#[derive(Debug)]
pub struct Registry {
    process: Process,
    tokens: Option<TokenServer>,
    login: Login,
    port: u16,
    data: Scratch,
}

impl Registry {
    /// The user of a registry with [`Login::Basic`].
    pub const USER: &str = "builder";
    /// That user's password.
    pub const PASSWORD: &str = "correct horse";
    /// The password as bcrypt hash, made once with crypt(3).
    const HASH: &str = "$2y$06$buildyardtestsaltaaaaexD6oQkzGVUCjCI6nZYXpQ3dBvmHnoAy";

    /// Starts one that anybody may use.
    pub fn start() -> Self {
        Self::with_login(Login::Open)
    }

    /// Starts one.
    ///
    /// # Panics
    /// It does not come up.
    pub fn with_login(login: Login) -> Self {
        let data = Scratch::new();
        let port = free_port();
        let file = |name: &str| data.path().join(name);
        let mut config = json!({
            "version": "0.1",
            "log": {"level": "info", "accesslog": {"disabled": false}},
            "storage": {"filesystem": {"rootdirectory": file("blobs")}, "delete": {"enabled": true}},
            "http": {"addr": format!("127.0.0.1:{port}"), "secret": "of this test"},
        });
        if login == Login::Basic {
            let users = format!("{}:{}\n", Self::USER, Self::HASH);
            std::fs::write(file("users"), users).expect("writing the users");
            config["auth"] = json!({"htpasswd": {"realm": "test", "path": file("users")}});
        }
        let tokens = (login == Login::Token).then(TokenServer::start);
        if let Some(tokens) = &tokens {
            std::fs::write(file("trusted.pem"), tokens.certificate())
                .expect("writing a certificate");
            config["auth"] = json!({"token": {
                "realm": tokens.realm(), "service": "registry of a test", "issuer": TokenServer::ISSUER,
                "rootcertbundle": file("trusted.pem"),
            }});
        }
        // The configuration is YAML, of which JSON is a part.
        std::fs::write(file("config.yml"), config.to_string()).expect("writing the configuration");
        let program = programs::docker_registry().display().to_string();
        let words = [
            program,
            "serve".into(),
            file("config.yml").display().to_string(),
        ];
        let mut process = Process::start("registry", &words, &[], file("log"));
        let up = || matches!(server::get(port, "/v2/"), Some(200 | 401));
        process.wait_ready(SOON, up);
        Self {
            process,
            tokens,
            login,
            port,
            data,
        }
    }

    /// The name that stands before a repository, e.g. `127.0.0.1:5000`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `USER:PASSWORD` for programs that need one here.
    pub(crate) fn credentials(&self) -> Option<String> {
        (self.login != Login::Open).then(|| format!("{}:{}", Self::USER, Self::PASSWORD))
    }

    /// What its token server was asked for so far, refusals included.
    ///
    /// # Panics
    /// It has none.
    pub fn token_requests(&self) -> Vec<TokenRequest> {
        self.tokens
            .as_ref()
            .expect("a registry with a token server")
            .requests()
    }

    /// How many requests it has answered by now whose line in the access log has all these parts, e.g.
    /// `["\"PUT ", "/manifests/"]`.
    pub fn requests(&self, parts: &[&str]) -> usize {
        self.wait_written();
        let log = self.process.log();
        let hit =
            |line: &&str| line.contains("HTTP/") && parts.iter().all(|part| line.contains(part));
        log.lines().filter(hit).count()
    }

    /// It writes its log after it has answered: waits until the line of a request of our own is there, behind all others.
    fn wait_written(&self) {
        static ASKED: AtomicU32 = AtomicU32::new(0);
        let number = ASKED.fetch_add(1, Ordering::Relaxed);
        let path = format!("/v2/written-{number}/tags/list");
        if server::get(self.port, &path).is_some() {
            let written = || self.process.log().contains(&path).then_some(());
            wait_for("the registry's log", SOON, written);
        }
    }

    /// Leaves nothing but the first `bytes` bytes of a blob, as a full disk or a crash may have. Returns how many it had.
    ///
    /// # Panics
    /// It has no such blob.
    pub fn truncate(&self, digest: &str, bytes: u64) -> u64 {
        let hex = digest.trim_start_matches("sha256:");
        let folder = "blobs/docker/registry/v2/blobs/sha256";
        let file = format!("{folder}/{}/{hex}/data", &hex[..2]);
        let file = self.data.path().join(file);
        let file = std::fs::File::options().write(true).open(file);
        let file = file.expect("opening a blob");
        let size = file.metadata().expect("the size of a blob").len();
        file.set_len(bytes).expect("truncating a blob");
        size
    }

    /// Stops it: from then on nobody answers at its address.
    pub fn stop(&mut self) {
        self.process.kill();
    }
}
