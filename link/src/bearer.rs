//! The bearer token (RFC 6750) that guards the controller's API and the bridge's port.

use http::HeaderMap;
use http::header::AUTHORIZATION;
use migrations::plan::Secret;
use subtle::ConstantTimeEq;

/// Whether a request carries the token. An empty token admits nobody.
pub fn admits(token: &Secret, headers: &HeaderMap) -> bool {
    let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    let wanted = token.expose();
    !wanted.is_empty() && bool::from(given.as_bytes().ct_eq(wanted.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_is_admitted() {
        let admitted = |token: &str, given: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            given.map(|given| headers.insert(AUTHORIZATION, given.parse().unwrap()));
            admits(&Secret::new(token.to_owned()), &headers)
        };
        assert!(admitted("right", Some("Bearer right")));
        for wrong in ["Bearer wrong", "Bearer righ", "Bearer rights", "right", "Basic right", "Bearer "] {
            assert!(!admitted("right", Some(wrong)), "{wrong}");
        }
        assert!(!admitted("right", None));
        assert!(!admitted("", Some("Bearer ")), "an empty token admits nobody");
    }
}
