//! Who a client is, as far as a share needs to know: a key from its request, hashed into a bucket.
//!
//! Pure. The key is the slice's header or cookie, else our own cookie, else what a browser's first requests have in common. From
//! that, [`Naming`] makes the very id that our cookie gets. So the cookie changes nothing about who a client is.

use http1::{Fields, Name};
use migrations::plan::Sticky;
use migrations::share::Share;
use siphasher::sip::SipHasher24;
use siphasher::sip128;
use std::hash::Hasher;
use std::net::IpAddr;
use twox_hash::XxHash64;

/// Our own cookie: the client's id, set with an answer of a shared route.
pub(crate) const CLIENT_COOKIE: &str = "strangler_client";
/// Fields that a browser sends with all its requests alike, the first ones and preflights, too.
const ALIKE: [&str; 2] = ["user-agent", "accept-language"];

/// Gives ids to clients that have none. Every proxy with the same secret gives the same ones.
///
/// An id must not change while a client keeps no cookies, or the client would change sides, and what it has seen would be
/// forgotten. So the time plays no part.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Naming(u64, u64);

impl Naming {
    /// The secret keeps others from telling a client's address from its id.
    pub(crate) fn of(secret: &str) -> Self {
        let mut hasher = sip128::SipHasher24::new();
        hasher.write(secret.as_bytes());
        let key = sip128::Hasher128::finish128(&hasher);
        Self(key.h1, key.h2)
    }

    fn id(self, fields: &Fields, address: IpAddr) -> u64 {
        let mut hasher = SipHasher24::new_with_keys(self.0, self.1);
        match address.to_canonical() {
            IpAddr::V4(address) => hasher.write(&address.octets()),
            IpAddr::V6(address) => hasher.write(&address.octets()),
        }
        for name in ALIKE {
            let value = fields.called(name).unwrap_or_default();
            hasher.write_u64(value.len() as u64);
            hasher.write(value);
        }
        hasher.finish()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyKind {
    Chosen,
    Own,
    /// The client keeps no cookies, or does not have ours yet. This is its id.
    Named(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Client {
    /// A hash of the slice and the key.
    pub(crate) hash: u64,
    pub(crate) kind: KeyKind,
}

impl Client {
    /// Recognises the client of a request. `salt` is the slice's.
    pub(crate) fn of(fields: &Fields, sticky: &Sticky, address: IpAddr, salt: u64, naming: Naming) -> Client {
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
        let id = naming.id(fields, address);
        Client { hash: hash(salt, cookie_value(id).as_bytes()), kind: KeyKind::Named(id) }
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

/// The value of our cookie for a client with this id.
pub(crate) fn cookie_value(id: u64) -> String {
    format!("{id:016x}")
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

    const NAMING: Naming = Naming(1, 2);

    fn of(head: &RequestHead, sticky: &Sticky, address: IpAddr) -> Client {
        Client::of(&head.fields, sticky, address, 5, NAMING)
    }

    fn with_own_cookie(value: &str, salt: u64) -> Client {
        Client { hash: hash(salt, value.as_bytes()), kind: KeyKind::Own }
    }

    #[test]
    fn the_key_is_the_slices_then_our_cookie_then_what_first_requests_share() {
        let session = Sticky::Cookie("session".to_owned());
        let kind = |line: &str| of(&with_cookies(line), &session, HOME).kind;
        assert_eq!(kind("a=b; session=x; strangler_client=y"), KeyKind::Chosen);
        assert_eq!(kind("sessions=x; strangler_client=y"), KeyKind::Own);
        assert!(matches!(kind("session=; other=y"), KeyKind::Named(_)));
        let user = Sticky::Header("X-User".to_owned());
        assert_eq!(of(&with("x-user: 7"), &user, HOME).kind, KeyKind::Chosen);
    }

    #[test]
    fn an_address_is_the_same_in_either_notation() {
        let mapped: IpAddr = "::ffff:127.0.0.1".parse().unwrap();
        let plain = with("Accept: */*");
        assert_eq!(of(&plain, &Sticky::Own, mapped), of(&plain, &Sticky::Own, HOME));
    }

    #[test]
    fn proxies_with_one_secret_give_one_id_and_others_another() {
        let id = |secret: &str| Naming::of(secret).id(&with("User-Agent: x").fields, HOME);
        assert_eq!(id("token"), id("token"));
        assert_ne!(id("token"), id("tokem"));
    }

    #[test]
    fn the_ids_of_clients_differ_by_address_agent_and_language() {
        let head = |agent: usize, language: usize| {
            with(&format!("User-Agent: {}\r\nAccept-Language: {}", "a".repeat(agent), "a".repeat(language)))
        };
        let mut ids = std::collections::HashSet::new();
        for n in 0..1000usize {
            let address = IpAddr::from([10, 0, 0, (n / 100) as u8]);
            ids.insert(NAMING.id(&head(n / 10 % 10, n % 10).fields, address));
        }
        assert_eq!(ids.len(), 1000);
    }

    #[test]
    fn buckets_are_even() {
        let below = (0..20_000).filter(|n| with_own_cookie(&n.to_string(), salt("orders")).bucket() < 2500);
        let count = below.count();
        assert!((4700..5300).contains(&count), "{count}");
        let address = |n: u32| IpAddr::from(n.to_be_bytes());
        let head = with("User-Agent: x");
        let below = (0..20_000).filter(|n| of(&head, &Sticky::Own, address(*n)).bucket() < 2500);
        let count = below.count();
        assert!((4700..5300).contains(&count), "{count}");
    }

    proptest! {
        #[test]
        fn raising_a_share_moves_no_client_back(key: u64, low in 0u16..=10_000, high in 0u16..=10_000) {
            let bucket = with_own_cookie(&key.to_string(), 3).bucket();
            prop_assert!(bucket < Share::BUCKETS);
            let (low, high) = (low.min(high), low.max(high));
            prop_assert!(bucket >= low || bucket < high);
        }

        #[test]
        fn the_cookie_changes_nothing_about_who_a_client_is(address: u32, agent in "[ -~]{0,40}", salt: u64, first: u64, second: u64) {
            let (address, naming) = (IpAddr::from(address.to_be_bytes()), Naming(first, second));
            let lines = |cookie: &str| with(&format!("User-Agent: {agent}\r\nAccept: */*{cookie}"));
            let before = Client::of(&lines("").fields, &Sticky::Own, address, salt, naming);
            let KeyKind::Named(id) = before.kind else { panic!("it has no cookie") };
            let cookie = format!("\r\nCookie: {CLIENT_COOKIE}={}", cookie_value(id));
            // It may come from elsewhere by then.
            let after = Client::of(&lines(&cookie).fields, &Sticky::Own, HOME, salt, naming);
            prop_assert_eq!((after.kind, after.hash, after.bucket()), (KeyKind::Own, before.hash, before.bucket()));
        }
    }
}
