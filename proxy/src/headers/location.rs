//! Keeps redirects on the proxy's host. An upstream that redirects to its own address would send the client past the
//! proxy.
//!
//! Pure. Other redirects and relative ones stay as they are.

/// The redirect's target as the client must see it. `None` if it may stay. `is_upstream` says whether an authority,
/// with or without TLS, is one of our upstreams.
pub(crate) fn rewritten(
    location: &str,
    client_uses_tls: bool,
    host: &str,
    is_upstream: impl FnOnce(bool, &str) -> bool,
) -> Option<String> {
    let (tls, rest) = match strip_scheme(location) {
        Some(parts) => parts,
        None => (client_uses_tls, location.strip_prefix("//")?),
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let scheme = if client_uses_tls { "https" } else { "http" };
    is_upstream(tls, authority).then(|| format!("{scheme}://{host}{path}"))
}

fn strip_scheme(location: &str) -> Option<(bool, &str)> {
    let (scheme, rest) = location.split_once("://")?;
    if scheme.eq_ignore_ascii_case("http") {
        Some((false, rest))
    } else if scheme.eq_ignore_ascii_case("https") {
        Some((true, rest))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(location: &str) -> Option<String> {
        rewritten(location, true, "shop.example", |tls, authority| !tls && authority == "10.0.0.1:4001")
    }

    #[test]
    fn only_redirects_to_an_upstream_are_rewritten() {
        assert_eq!(
            seen("http://10.0.0.1:4001/orders/7?a=b#c").unwrap(),
            "https://shop.example/orders/7?a=b#c"
        );
        assert_eq!(seen("HTTP://10.0.0.1:4001").unwrap(), "https://shop.example");
        assert_eq!(seen("http://10.0.0.1:4001?x").unwrap(), "https://shop.example?x");
        for other in
            ["/orders/7", "orders", "http://10.0.0.1:4002/", "https://10.0.0.1:4001/", "mailto:a@b", ""]
        {
            assert_eq!(seen(other), None, "{other}");
        }
    }

    #[test]
    fn a_redirect_without_a_scheme_uses_the_clients() {
        let seen = rewritten("//10.0.0.1:4001/a", false, "shop", |tls, _| !tls);
        assert_eq!(seen.unwrap(), "http://shop/a");
    }
}
