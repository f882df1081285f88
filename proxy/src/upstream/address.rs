//! An upstream's address: read from `http://host:port`, and recognised in a redirect. Pure: no name is resolved.

use migrations::plan::Upstream;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an upstream")]
pub(crate) struct BadAddress(pub(crate) String);

/// Reads `http://host[:port]` or `https://host[:port]`. An IPv6 host loses its brackets.
pub(crate) fn parse(text: &str) -> Result<Upstream, BadAddress> {
    let bad = || BadAddress(text.to_owned());
    let (tls, authority) = match text.split_once("://") {
        Some(("http", rest)) => (false, rest),
        Some(("https", rest)) => (true, rest),
        _ => return Err(bad()),
    };
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    let (host, port) = split(authority);
    let port = match port {
        Some(port) => port.parse().map_err(|_| bad())?,
        None => default_port(tls),
    };
    let odd = |b: u8| !(b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']'));
    if host.is_empty() || port == 0 || host.bytes().any(odd) {
        return Err(bad());
    }
    Ok(Upstream { tls, host: bare(host).to_owned(), port })
}

/// Whether an authority, with or without TLS, is this upstream.
pub(crate) fn is_authority(upstream: &Upstream, tls: bool, authority: &str) -> bool {
    let (host, port) = split(authority);
    let port = match port {
        None | Some("") => default_port(tls),
        Some(port) => port.parse().unwrap_or(0),
    };
    port == upstream.port && bare(host).eq_ignore_ascii_case(&upstream.host)
}

fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host)
}

fn default_port(tls: bool) -> u16 {
    if tls { 443 } else { 80 }
}

fn split(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_scheme_host_and_port() {
        let shown = |text| parse(text).unwrap().to_string();
        assert_eq!(shown("http://127.0.0.1:4000"), "http://127.0.0.1:4000");
        assert_eq!(shown("https://shop.internal/"), "https://shop.internal:443");
        assert_eq!(shown("http://[::1]:80"), "http://[::1]:80");
        assert_eq!(parse("http://[::1]").unwrap().host, "::1");
        for bad in [
            "",
            "127.0.0.1:80",
            "ftp://a:1",
            "http://",
            "http://a:0",
            "http://a:99999",
            "http://a/b",
            "http://u@a",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_authority_is_compared_with_default_ports() {
        let shop = parse("http://Shop.internal:80").unwrap();
        assert!(is_authority(&shop, false, "shop.INTERNAL"));
        assert!(is_authority(&shop, false, "shop.internal:80"));
        assert!(!is_authority(&shop, true, "shop.internal"));
        assert!(!is_authority(&shop, false, "shop.internal:81"));
        assert!(is_authority(&parse("http://[::1]:8080").unwrap(), false, "[::1]:8080"));
    }
}
