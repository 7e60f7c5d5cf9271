//! What a registry asks for in `WWW-Authenticate`: RFC 7235, with distribution's `Bearer` (its token specification).

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// A challenge that can be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// A token from the server at `realm`.
    Bearer {
        /// URL of the authorisation server.
        realm: String,
        /// The service's name there; may be empty.
        service: String,
    },
    /// Name and password with each request.
    Basic,
}

/// The challenge among the headers that is best to answer; `None` where there is none that is known.
pub(crate) fn best_challenge(headers: &HeaderMap) -> Option<Challenge> {
    let texts = headers
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let mut basic = None;
    for text in texts {
        for challenge in http_auth::parse_challenges(text).unwrap_or_default() {
            let param = |name: &str| {
                let found = challenge
                    .params
                    .iter()
                    .find(|(key, _)| key.eq_ignore_ascii_case(name));
                found
                    .map(|(_, value)| value.to_unescaped())
                    .unwrap_or_default()
            };
            let realm = param("realm");
            if challenge.scheme.eq_ignore_ascii_case("bearer") && !realm.is_empty() {
                return Some(Challenge::Bearer {
                    realm,
                    service: param("service"),
                });
            }
            if challenge.scheme.eq_ignore_ascii_case("basic") {
                basic = Some(Challenge::Basic);
            }
        }
    }
    basic
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let bearer = |realm: &str, service: &str| {
            Some(Challenge::Bearer {
                realm: realm.to_owned(),
                service: service.to_owned(),
            })
        };
        let check = |lines: &[&str], expected: Option<Challenge>| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(
                    WWW_AUTHENTICATE,
                    line.parse().expect("the test's headers are well formed"),
                );
            }
            assert_eq!(best_challenge(&headers), expected, "{lines:?}");
        };
        check(&[], None);
        check(&["Basic realm=\"Registry Realm\""], Some(Challenge::Basic));
        check(
            &["Bearer realm=\"https://a/token\",service=\"s\",scope=\"x\""],
            bearer("https://a/token", "s"),
        );
        check(
            &["bearer Realm=\"https://a/token\""],
            bearer("https://a/token", ""),
        );
        check(
            &["Basic realm=\"x\"", "Bearer realm=\"https://a\""],
            bearer("https://a", ""),
        );
        check(&["Bearer service=\"s\""], None);
        check(&["Negotiate realm=x"], None);
        check(&["Bearer realm=\"unfinished"], None);
    }
}
