//! The cookie that carries a client's marks. So they survive a restart of this proxy, and every other proxy reads
//! them as "must wait".
//!
//! Its form is `PROXY.WROTE[.SLICE.SAW]…`: the proxy that set it, the barrier that its writes wait for in all slices,
//! and the barriers that its reads wait for in single slices. Pure. It is not signed: forging it only affects the
//! forger's own reads.

use std::fmt;

pub(crate) const SEEN_COOKIE: &str = "strangler_seen";

/// More slices are folded into the mark for all slices. That is stricter and keeps the cookie short.
const SLICES_MAX: usize = 8;

/// A longer cookie is not read.
const BYTES_MAX: usize = 1024;

/// The proxy process that a mark belongs to. Each start draws a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProxyTag(pub(crate) u64);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) wrote: u64,
    pub(crate) saw: Vec<(Box<str>, u64)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Carried {
    /// This proxy set it.
    Ours(Seen),
    /// Another proxy set it, or this one before its restart, or it is unreadable. The client may have just done
    /// anything.
    Foreign,
}

impl Seen {
    /// Reads a cookie. `highest` is the highest number that this proxy can have given.
    pub(crate) fn read(text: &[u8], tag: ProxyTag, highest: u64) -> Carried {
        match parse(text, tag) {
            Some(seen) if seen.wrote <= highest && seen.saw.iter().all(|(_, n)| *n <= highest) => {
                Carried::Ours(seen)
            }
            _ => Carried::Foreign,
        }
    }

    /// The barrier that its reads of a slice wait for. 0: none.
    pub(crate) fn saw_in(&self, slice: &str) -> u64 {
        self.saw.iter().find(|(name, _)| **name == *slice).map_or(0, |(_, mark)| *mark)
    }

    /// The client wrote. That mark covers everything it saw before.
    pub(crate) fn note_write(&mut self, mark: u64) {
        self.wrote = self.wrote.max(mark);
        self.saw.clear();
    }

    /// The client saw newer data of a slice.
    pub(crate) fn note_read(&mut self, slice: &str, mark: u64) {
        self.saw.retain(|(name, _)| **name != *slice);
        if self.saw.len() >= SLICES_MAX {
            let highest = self.saw.iter().map(|(_, n)| *n).max().unwrap_or_default();
            self.note_write(highest.max(mark));
        } else {
            self.saw.push((slice.into(), mark));
        }
    }

    pub(crate) fn value(&self, tag: ProxyTag) -> impl fmt::Display + '_ {
        Value { seen: self, tag }
    }
}

struct Value<'a> {
    seen: &'a Seen,
    tag: ProxyTag,
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{}", self.tag.0, self.seen.wrote)?;
        self.seen.saw.iter().try_for_each(|(slice, mark)| write!(f, ".{slice}.{mark}"))
    }
}

fn parse(text: &[u8], tag: ProxyTag) -> Option<Seen> {
    let text = std::str::from_utf8(text).ok().filter(|text| text.len() <= BYTES_MAX)?;
    let mut parts = text.split('.');
    if u64::from_str_radix(parts.next()?, 16).ok()? != tag.0 {
        return None;
    }
    let mut seen = Seen { wrote: parts.next()?.parse().ok()?, saw: Vec::new() };
    while let Some(slice) = parts.next() {
        seen.saw.push((slice.into(), parts.next()?.parse().ok()?));
    }
    (seen.saw.len() <= SLICES_MAX).then_some(seen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn cookies_read_back(tag: u64, wrote in 0u64..1000, saw in proptest::collection::btree_map("[a-z][a-z0-9-]{0,31}", 0u64..1000, 0..SLICES_MAX)) {
            let seen = Seen { wrote, saw: saw.into_iter().map(|(s, n)| (s.into(), n)).collect() };
            let text = seen.value(ProxyTag(tag)).to_string();
            prop_assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-'));
            prop_assert_eq!(Seen::read(text.as_bytes(), ProxyTag(tag), 1000), Carried::Ours(seen.clone()));
            prop_assert_eq!(Seen::read(text.as_bytes(), ProxyTag(tag.wrapping_add(1)), 1000), Carried::Foreign);
        }

        #[test]
        fn any_bytes_are_read_without_panic(text: Vec<u8>, tag: u64) {
            let _ = Seen::read(&text, ProxyTag(tag), 5);
        }
    }

    #[test]
    fn numbers_that_were_never_given_are_foreign() {
        assert_eq!(Seen::read(b"a.7", ProxyTag(10), 6), Carried::Foreign);
        assert_eq!(Seen::read(b"a.1.orders.9", ProxyTag(10), 6), Carried::Foreign);
        assert_eq!(Seen::read(b"a.1.orders", ProxyTag(10), 6), Carried::Foreign);
    }

    #[test]
    fn many_slices_fold_into_one_stricter_mark() {
        let mut seen = Seen::default();
        for n in 0..=SLICES_MAX {
            seen.note_read(&format!("s{n}"), n as u64 + 1);
        }
        assert_eq!(seen, Seen { wrote: SLICES_MAX as u64 + 1, saw: Vec::new() });
    }
}
