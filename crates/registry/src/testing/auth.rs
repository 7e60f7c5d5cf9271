//! Who is let in.

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

/// How a registry is guarded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Guard {
    /// Not at all.
    #[default]
    Open,
    /// Basic, this name and password.
    Basic(String, String),
    /// Bearer tokens from `/token` of the same server, which wants this name and password (or, by POST, the password as
    /// refresh token). A token is its scopes, so that each request's scope is checked. Without credentials one gets a token
    /// that only reads.
    Token(String, String),
}

impl Guard {
    /// Whether the request may pass; else the answer to it. `scope` is the permission that it needs.
    pub(crate) fn check(
        &self,
        headers: &HeaderMap,
        base: &str,
        scope: &str,
    ) -> Result<(), Box<Response>> {
        let shown = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let (allowed, challenge) = match self {
            Self::Open => return Ok(()),
            Self::Basic(user, secret) => (
                shown == format!("Basic {}", base64(&format!("{user}:{secret}"))),
                "Basic realm=\"test\"".to_owned(),
            ),
            Self::Token(..) => {
                let token = shown.strip_prefix("Bearer ").unwrap_or_default();
                let allowed = scope.is_empty() && !token.is_empty() || grants(token, scope);
                (
                    allowed,
                    format!("Bearer realm=\"{base}/token\",service=\"test\",scope=\"{scope}\""),
                )
            }
        };
        if allowed {
            return Ok(());
        }
        let body = r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#;
        Err(Box::new(
            (
                StatusCode::UNAUTHORIZED,
                [("www-authenticate", challenge)],
                body,
            )
                .into_response(),
        ))
    }

    /// The token for these scopes, `None` where name and password are wrong.
    pub(crate) fn token(
        &self,
        headers: &HeaderMap,
        refresh: Option<&str>,
        scopes: &[String],
    ) -> Option<String> {
        let Self::Token(user, secret) = self else {
            return None;
        };
        let shown = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let known = match (shown, refresh) {
            (None, None) => {
                let reads = scopes
                    .iter()
                    .map(|scope| scope.trim_end_matches(",push").to_owned());
                return Some(format!("anonymous {}", reads.collect::<Vec<_>>().join(" ")));
            }
            (Some(shown), _) => shown == format!("Basic {}", base64(&format!("{user}:{secret}"))),
            (None, Some(refresh)) => refresh == secret,
        };
        known.then(|| format!("known {}", scopes.join(" ")))
    }
}

/// Whether one of the token's scopes covers the one that is needed.
fn grants(token: &str, needed: &str) -> bool {
    let Some((name, actions)) = needed.rsplit_once(':') else {
        return false;
    };
    token
        .split(' ')
        .filter_map(|scope| scope.rsplit_once(':'))
        .any(|(granted, has)| {
            let has: Vec<&str> = has.split(',').collect();
            granted == name && actions.split(',').all(|action| has.contains(&action))
        })
}

/// RFC 4648, for one header.
pub(crate) fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let word = chunk
            .iter()
            .fold(0_u32, |word, byte| word << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * place) & 63) as usize];
            out.push(if place <= chunk.len() {
                char::from(digit)
            } else {
                '='
            });
        }
    }
    out
}
