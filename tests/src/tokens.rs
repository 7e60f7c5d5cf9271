//! A token server: who knows the password of [`Registry`](crate::Registry) gets a token for what is asked, everybody else
//! one that is good for nothing.
//!
//! The protocol is distribution's (`docs/spec/auth/token.md`, `jwt.md`): `GET /token?service=…&scope=…`, answered with a
//! JSON web token, signed by the key of a certificate that the registry trusts.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, KeyPair, SigningKey};
use serde_json::{Value, json};

use crate::Registry;

/// How long a token is good.
const LIFETIME: Duration = Duration::from_secs(300);

/// What was asked for: who asked (none: nobody in particular), and the scopes.
pub type TokenRequest = (Option<String>, Vec<String>);

/// A running token server; stopped when dropped.
#[derive(Debug)]
pub(crate) struct TokenServer {
    address: SocketAddr,
    issuer: Arc<Issuer>,
    _runtime: tokio::runtime::Runtime,
}

#[derive(Debug)]
struct Issuer {
    key: KeyPair,
    certificate: Certificate,
    requests: Mutex<Vec<TokenRequest>>,
}

impl TokenServer {
    /// The name that its tokens are issued under.
    pub(crate) const ISSUER: &str = "token server of a test";

    pub(crate) fn start() -> Self {
        let key = KeyPair::generate().expect("making a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("signing itself");
        let issuer = Arc::new(Issuer {
            key,
            certificate,
            requests: Mutex::default(),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listening = tokio::net::TcpListener::bind("127.0.0.1:0");
        let listener = runtime.block_on(listening).expect("binding a free port");
        let address = listener.local_addr().expect("it is bound");
        let router = Router::new()
            .route("/token", get(answer))
            .with_state(issuer.clone());
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self {
            address,
            issuer,
            _runtime: runtime,
        }
    }

    /// Where tokens are had.
    pub(crate) fn realm(&self) -> String {
        format!("http://{}/token", self.address)
    }

    /// The certificate that tokens are verified with.
    pub(crate) fn certificate(&self) -> String {
        self.issuer.certificate.pem()
    }

    /// What was asked for so far, refusals included.
    pub(crate) fn requests(&self) -> Vec<TokenRequest> {
        self.issuer.requests.lock().expect("nobody panics").clone()
    }
}

async fn answer(
    State(issuer): State<Arc<Issuer>>,
    Query(query): Query<Vec<(String, String)>>,
    headers: HeaderMap,
) -> (StatusCode, Json<Value>) {
    let values = |key: &str| {
        let pairs = query.iter().filter(|(name, _)| name == key);
        pairs.map(|(_, value)| value.clone()).collect::<Vec<_>>()
    };
    // Several scopes may come as one value with spaces between them.
    let scopes: Vec<String> = values("scope")
        .iter()
        .flat_map(|value| value.split(' '))
        .map(str::to_owned)
        .collect();
    let login = headers
        .get(header::AUTHORIZATION)
        .map(|value| login(value.as_bytes()));
    let user = login.as_ref().map(|(user, _)| user.clone());
    let asked = (user.clone(), scopes.clone());
    issuer.requests.lock().expect("nobody panics").push(asked);
    let granted = match &login {
        None => Vec::new(),
        Some((user, password))
            if (user.as_str(), password.as_str()) == (Registry::USER, Registry::PASSWORD) =>
        {
            scopes.iter().map(|scope| access(scope)).collect()
        }
        Some(_) => {
            let refusal = json!({"errors": [{"code": "UNAUTHORIZED", "message": "incorrect user or password"}]});
            return (StatusCode::UNAUTHORIZED, Json(refusal));
        }
    };
    let service = values("service").pop().unwrap_or_default();
    let token = issuer.token(&service, &user.unwrap_or_default(), &granted);
    let token = json!({"token": token, "expires_in": LIFETIME.as_secs()});
    (StatusCode::OK, Json(token))
}

/// The user and the password of a Basic authorization; empty where it is another.
fn login(value: &[u8]) -> (String, String) {
    let encoded = value.strip_prefix(b"Basic ").unwrap_or_default();
    let text = STANDARD.decode(encoded).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let (user, password) = text.split_once(':').unwrap_or_default();
    (user.to_owned(), password.to_owned())
}

/// `repository:NAME:ACTION,…` as a token's claim.
fn access(scope: &str) -> Value {
    let (kind, rest) = scope.split_once(':').unwrap_or((scope, ""));
    let (name, actions) = rest.rsplit_once(':').unwrap_or((rest, ""));
    json!({"type": kind, "name": name, "actions": actions.split(',').collect::<Vec<_>>()})
}

impl Issuer {
    fn token(&self, service: &str, user: &str, access: &[Value]) -> String {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("after 1970")
            .as_secs();
        let header =
            json!({"typ": "JWT", "alg": "ES256", "x5c": [STANDARD.encode(self.certificate.der())]});
        let claims = json!({
            "iss": TokenServer::ISSUER, "aud": service, "sub": user, "access": access, "jti": format!("{now}"),
            // The clock of the registry is the same.
            "iat": now, "nbf": now - 60, "exp": now + LIFETIME.as_secs(),
        });
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(&header), encode(&claims));
        let signature = self.key.sign(signed.as_bytes()).expect("signing");
        format!(
            "{signed}.{}",
            URL_SAFE_NO_PAD.encode(two_numbers(&signature))
        )
    }
}

/// An ECDSA signature as JWS has it (RFC 7518, 3.4): both numbers with 32 bytes each. X.509 has them as a sequence of two
/// integers.
fn two_numbers(sequence: &[u8]) -> [u8; 64] {
    let mut numbers = [0; 64];
    let mut rest = &sequence[2..];
    for place in [32, 64] {
        let (number, behind) = rest[2..].split_at(usize::from(rest[1]));
        let number = number.strip_prefix(&[0]).unwrap_or(number);
        numbers[place - number.len()..place].copy_from_slice(number);
        rest = behind;
    }
    numbers
}
