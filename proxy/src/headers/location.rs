//! Keeps redirects on the proxy's host: an upstream that redirects to its own address would send the client
//! past the proxy.
//!
//! Pure. A redirect to anywhere else, or a relative one, is left as it is.

/// The redirect's target as the client must see it; none if it may stay. `is_upstream` tells, by TLS and
/// authority, whether an address is one of ours.
pub fn rewritten(
    location: &str,
    scheme: &str,
    host: &str,
    is_upstream: impl FnOnce(bool, &str) -> bool,
) -> Option<String> {
    let (tls, rest) = match strip_scheme(location) {
        Some(parts) => parts,
        None => (scheme == "https", location.strip_prefix("//")?),
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
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
        rewritten(location, "https", "shop.example", |tls, authority| !tls && authority == "10.0.0.1:4001")
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
    fn a_redirect_without_scheme_is_met_under_the_clients() {
        let seen = rewritten("//10.0.0.1:4001/a", "http", "shop", |tls, _| !tls);
        assert_eq!(seen.unwrap(), "http://shop/a");
    }
}
