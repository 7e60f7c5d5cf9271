//! The binary against a farm's HTTP API: a hand-written answer over TCP, a Unix socket, and TLS with client certificates.

// Helpers of a test may fail it as tests do.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio_rustls::TlsAcceptor;

const WORKERS: &str = r#"[{"id":"w1","platforms":[{"platform":"linux/arm64","emulated":true}],"slots":2,"running":1,
    "connected":true,"last_seen":"2026-08-01T00:00:00Z","from_a_newer_farm":1}]"#;

/// Answers one request.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut request = Vec::new();
    let mut buffer = [0; 1024];
    while !request.ends_with(b"\r\n\r\n") {
        let read = stream.read(&mut buffer).await.unwrap();
        assert_ne!(read, 0, "the request ends early");
        request.extend_from_slice(&buffer[..read]);
    }
    let request = String::from_utf8(request).unwrap();
    let path = request.split(' ').nth(1).unwrap();
    let (status, body) = match path {
        "/api/v1/workers" => ("200 OK", WORKERS),
        "/api/v1/builds?limit=5" => ("200 OK", "[]"),
        "/api/v1/builds/b1/logs?step=2" => ("200 OK", "#2 0.1 hello\n"),
        "/api/v1/builds/broken" => ("200 OK", "nonsense"),
        _ => ("404 Not Found", "no"),
    };
    let text = format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(text.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
}

async fn buildyard(args: Vec<String>) -> Output {
    let run = move || {
        Command::new(env!("CARGO_BIN_EXE_buildyard"))
            .env_remove("BUILDYARD_BUILDER")
            .args(args)
            .output()
    };
    tokio::task::spawn_blocking(run).await.unwrap().unwrap()
}

/// Serves one request on a free port and runs the command against it: exit code, standard output, standard error.
async fn ask(words: &[&str]) -> (i32, String, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serve = async { answer(listener.accept().await.unwrap().0).await };
    let mut args: Vec<String> = words.iter().map(ToString::to_string).collect();
    args.extend(["--builder".into(), url]);
    let (output, ()) = tokio::join!(buildyard(args), serve);
    taken(&output)
}

fn taken(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (
        output.status.code().unwrap(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[tokio::test]
async fn answers_become_tables_text_or_json() {
    let (code, out, _) = ask(&["workers"]).await;
    assert_eq!(code, 0);
    assert!(
        out.contains("w1") && out.contains("linux/arm64 (emulated)") && out.contains("1/2"),
        "{out}"
    );
    let (_, out, _) = ask(&["workers", "--format", "json"]).await;
    assert!(out.contains(r#""emulated": true"#), "{out}");
    assert_eq!(
        ask(&["builds", "logs", "b1", "2"]).await.1,
        "#2 0.1 hello\n"
    );
    assert!(
        ask(&["builds", "--limit", "5"])
            .await
            .2
            .contains("no build yet")
    );
}

#[tokio::test]
async fn what_the_farm_does_not_know_or_garbles_has_its_exit_code() {
    let (code, _, err) = ask(&["builds", "show", "gone"]).await;
    assert_eq!(code, 1);
    assert!(err.contains("does not know the build gone"), "{err}");
    let (code, _, err) = ask(&["builds", "show", "broken"]).await;
    assert_eq!(code, 3);
    assert!(err.contains("as a farm does"), "{err}");
    let output = buildyard(vec!["builds".into(), "show".into(), "../x".into()]).await;
    assert_eq!(output.status.code(), Some(2));
}

#[tokio::test]
async fn a_unix_socket_serves_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("farm.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let serve = async { answer(listener.accept().await.unwrap().0).await };
    let args = vec![
        "workers".into(),
        "--builder".into(),
        format!("unix://{}", path.display()),
    ];
    let (output, ()) = tokio::join!(buildyard(args), serve);
    assert_eq!(taken(&output).0, 0);
}

/// Writes ca.pem, cert.pem and key.pem, and makes a server that asks for certificates of that authority.
fn authority(dir: &Path) -> TlsAcceptor {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let issue = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &ca).unwrap(), key)
    };
    let (client, client_key) = issue("client");
    std::fs::write(dir.join("ca.pem"), ca.pem()).unwrap();
    std::fs::write(dir.join("cert.pem"), client.pem()).unwrap();
    std::fs::write(dir.join("key.pem"), client_key.serialize_pem()).unwrap();
    let (server, server_key) = issue("localhost");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .unwrap();
    let key = rustls_pki_types::PrivatePkcs8KeyDer::from(server_key.serialize_der()).into();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![server.der().clone()], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

#[tokio::test]
async fn https_shows_a_certificate_and_checks_the_farms() {
    let dir = tempfile::tempdir().unwrap();
    let acceptor = authority(dir.path());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let file = |name: &str| dir.path().join(name).display().to_string();
    let run = async |files: &[(&str, &str)]| {
        let mut args = vec![
            "workers".into(),
            "--builder".into(),
            format!("https://localhost:{port}"),
        ];
        args.extend(
            files
                .iter()
                .flat_map(|(flag, name)| [(*flag).to_owned(), file(name)]),
        );
        let serve = async {
            if let Ok(stream) = acceptor.accept(listener.accept().await.unwrap().0).await {
                answer(stream).await;
            }
        };
        let (output, ()) = tokio::join!(buildyard(args), serve);
        taken(&output)
    };
    let (code, _, err) = run(&[
        ("--ca", "ca.pem"),
        ("--cert", "cert.pem"),
        ("--key", "key.pem"),
    ])
    .await;
    assert_eq!(code, 0, "{err}");
    // Without the authority the farm's certificate is not believed.
    assert_eq!(run(&[]).await.0, 3);
}
