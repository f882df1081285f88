//! Who a client is, as far as a share needs to know: a key from its request, hashed into a bucket.
//!
//! Pure. The key is the slice's header or cookie, else our own cookie, else the address.

use http1::{Fields, Name};
use migrations::plan::Sticky;
use migrations::share::Share;
use std::net::IpAddr;
use twox_hash::XxHash64;

/// Our own cookie: a random id, set with the first answer of a shared route.
pub(crate) const CLIENT_COOKIE: &str = "strangler_client";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyKind {
    Chosen,
    Own,
    /// The client keeps no cookies, or does not have ours yet.
    Address,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Client {
    /// A hash of the slice and the key.
    pub(crate) hash: u64,
    pub(crate) kind: KeyKind,
}

impl Client {
    /// Recognises the client of a request. `salt` is the slice's.
    pub(crate) fn of(fields: &Fields, sticky: &Sticky, address: IpAddr, salt: u64) -> Client {
        let chosen = match sticky {
            Sticky::Own => None,
            Sticky::Cookie(name) => cookie(fields, name),
            Sticky::Header(name) => fields.called(name),
        };
        if let Some(key) = chosen.filter(|key| !key.is_empty()) {
            return Client { hash: hash(salt, key), kind: KeyKind::Chosen };
        }
        if let Some(key) = cookie(fields, CLIENT_COOKIE).filter(|key| !key.is_empty()) {
            return Client { hash: hash(salt, key), kind: KeyKind::Own };
        }
        let hash = match address.to_canonical() {
            IpAddr::V4(address) => hash(salt, &address.octets()),
            IpAddr::V6(address) => hash(salt, &address.octets()),
        };
        Client { hash, kind: KeyKind::Address }
    }

    /// The client that will return with this value of our own cookie.
    pub(crate) fn with_own_cookie(value: &str, salt: u64) -> Client {
        Client { hash: hash(salt, value.as_bytes()), kind: KeyKind::Own }
    }

    /// 0 to 9 999. It does not depend on the share, so raising a share moves no client back.
    pub(crate) fn bucket(self) -> u16 {
        (self.hash % u64::from(Share::BUCKETS)) as u16
    }
}

/// Makes a slice's buckets its own, so that the same clients are not the first in every slice.
pub(crate) fn salt(slice: &str) -> u64 {
    hash(0, slice.as_bytes())
}

/// The value of the first cookie of that name (RFC 6265, 4.2).
pub(crate) fn cookie<'a>(fields: &'a Fields, name: &str) -> Option<&'a [u8]> {
    let pairs = fields.all(Name::Cookie).flat_map(|line| line.split(|b| *b == b';'));
    pairs.map(<[u8]>::trim_ascii).find_map(|pair| {
        let value = pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        Some(value)
    })
}

fn hash(seed: u64, key: &[u8]) -> u64 {
    XxHash64::oneshot(seed, key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::tests::request;
    use http1::RequestHead;
    use proptest::prelude::*;

    const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn with(field: &str) -> RequestHead {
        request(&format!("GET / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n"))
    }

    fn with_cookies(line: &str) -> RequestHead {
        with(&format!("Cookie: {line}"))
    }

    #[test]
    fn the_key_is_the_slices_then_our_cookie_then_the_address() {
        let session = Sticky::Cookie("session".to_owned());
        let kind = |line: &str| Client::of(&with_cookies(line).fields, &session, HOME, 1).kind;
        assert_eq!(kind("a=b; session=x; strangler_client=y"), KeyKind::Chosen);
        assert_eq!(kind("sessions=x; strangler_client=y"), KeyKind::Own);
        assert_eq!(kind("session=; other=y"), KeyKind::Address);
        let user = Sticky::Header("X-User".to_owned());
        assert_eq!(Client::of(&with("x-user: 7").fields, &user, HOME, 1).kind, KeyKind::Chosen);
    }

    #[test]
    fn a_new_cookie_is_recognised_when_it_comes_back() {
        let back = Client::of(&with_cookies("strangler_client=abc").fields, &Sticky::Own, HOME, 5);
        assert_eq!(back, Client::with_own_cookie("abc", 5));
    }

    #[test]
    fn an_address_is_the_same_in_either_notation() {
        let mapped: IpAddr = "::ffff:127.0.0.1".parse().unwrap();
        let plain = with("Accept: */*");
        let of = |address| Client::of(&plain.fields, &Sticky::Own, address, 5);
        assert_eq!(of(mapped), of(HOME));
    }

    #[test]
    fn buckets_are_even() {
        let below =
            (0..20_000).filter(|n| Client::with_own_cookie(&n.to_string(), salt("orders")).bucket() < 2500);
        let count = below.count();
        assert!((4700..5300).contains(&count), "{count}");
    }

    proptest! {
        #[test]
        fn raising_a_share_moves_no_client_back(key: u64, low in 0u16..=10_000, high in 0u16..=10_000) {
            let bucket = Client::with_own_cookie(&key.to_string(), 3).bucket();
            prop_assert!(bucket < Share::BUCKETS);
            let (low, high) = (low.min(high), low.max(high));
            prop_assert!(bucket >= low || bucket < high);
        }
    }
}
