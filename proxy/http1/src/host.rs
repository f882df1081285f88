//! Which host a request is for: `Host`, or the authority of an absolute target (RFC 9112, 3.2). Pure text: no name is
//! resolved.

use core::net::Ipv6Addr;

/// Whether it is a host with or without a port (RFC 9110, 7.2). The grammar allows more: a host without a name, and a
/// comma. Servers differ in what they make of those.
pub(crate) fn is_valid(authority: &[u8]) -> bool {
    let (host, port) = split(authority);
    let host_is_valid = match host.strip_prefix(b"[") {
        Some(rest) => is_literal(rest),
        None => is_name(host),
    };
    host_is_valid && port.is_none_or(|port| port.is_empty() || number(port).is_some())
}

/// Whether two valid authorities name one host and port.
pub(crate) fn is_same(one: &[u8], other: &[u8], default_port: u16) -> bool {
    let port = |port: Option<&[u8]>| port.and_then(number).unwrap_or(default_port);
    let ((host, its_port), (other, others_port)) = (split(one), split(other));
    host.eq_ignore_ascii_case(other) && port(its_port) == port(others_port)
}

/// The host, and the port after its colon. An IPv6 address keeps its brackets.
pub(crate) fn split(authority: &[u8]) -> (&[u8], Option<&[u8]>) {
    let literal_end = authority.iter().position(|b| *b == b']').filter(|_| authority.starts_with(b"["));
    let from = literal_end.unwrap_or(0);
    match authority[from..].iter().position(|b| *b == b':') {
        Some(colon) => (&authority[..from + colon], Some(&authority[from + colon + 1..])),
        None => (authority, None),
    }
}

fn is_literal(text: &[u8]) -> bool {
    let address = text.strip_suffix(b"]").and_then(|text| std::str::from_utf8(text).ok());
    address.is_some_and(|text| text.parse::<Ipv6Addr>().is_ok())
}

/// A registered name (RFC 3986, 3.2.2) without a comma.
fn is_name(text: &[u8]) -> bool {
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        rest = match (byte, after) {
            (b'%', [high, low, after @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => after,
            (b'%', _) => return false,
            _ if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=".contains(byte) => after,
            _ => return false,
        };
    }
    !text.is_empty()
}

fn number(port: &[u8]) -> Option<u16> {
    // `parse` alone would take a sign.
    let text = std::str::from_utf8(port).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()))?;
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_and_maybe_a_port() {
        for good in [
            "a",
            "a:80",
            "a:",
            "A.b-c_d.:65535",
            "10.0.0.1:8080",
            "[::1]",
            "[::1]:80",
            "x%20y",
            "[::ffff:1.2.3.4]:",
        ] {
            assert!(is_valid(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            ":80",
            "a b",
            "a,b",
            "a/b",
            "a@b",
            "a:b",
            "a:80:80",
            "a:65536",
            "a:+80",
            "::1",
            "[::1",
            "[::1]x",
            "[a]",
            "[]",
            "[::1%25eth0]",
            "x%2",
            "x%zz",
            "a\\b",
            "a?b",
            "a#b",
            "\"a\"",
            "<a>",
            "b\u{fc}cher",
            "a\u{7f}",
            "a:80,b:80",
        ] {
            assert!(!is_valid(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn case_and_the_default_port_make_no_other_host() {
        for (one, other) in [("a", "A:80"), ("a:", "a"), ("[::1]:080", "[::1]"), ("a:81", "A:81")] {
            assert!(is_same(one.as_bytes(), other.as_bytes(), 80), "{one} {other}");
        }
        for (one, other) in [("a", "b"), ("a", "a:443"), ("a:80", "a:81"), ("[::1]", "[::2]"), ("a", "a.")] {
            assert!(!is_same(one.as_bytes(), other.as_bytes(), 80), "{one} {other}");
        }
    }
}
