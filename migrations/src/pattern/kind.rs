//! What a typed segment takes: `{id:int}` digits, `{code:[A-Z]{3}}` three capital letters.
//!
//! A kind is a set of signs and a number of them, or `uuid`. So a match is one pass over the segment, and how two kinds
//! meet can be decided exactly.

use crate::text::BadText;
use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// The kinds with a name, and what they are.
const NAMED: [(&str, &str); 3] = [("int", r"\d+"), ("slug", r"[\w-]+"), ("word", r"\w+")];

const DIGITS: u128 = range(b'0', b'9');
const WORD: u128 = DIGITS | range(b'a', b'z') | range(b'A', b'Z') | one(b'_');
const HEX: u128 = DIGITS | range(b'a', b'f') | range(b'A', b'F');
const DASH: u128 = one(b'-');

/// The length of a UUID as text, and where its dashes are (RFC 9562, 4).
const UUID_LEN: u32 = 36;
const UUID_DASHES: [usize; 4] = [8, 13, 18, 23];

/// The largest number that a count may name.
const COUNT_MAX: u32 = 255;

/// Which texts a typed segment takes; never the empty one, and always at least two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Hexadecimal digits of either case in the form 8-4-4-4-12.
    Uuid,
    /// From `least` to `most` signs of the set, in which bit N stands for the ASCII sign N.
    Signs { set: u128, least: u32, most: u32 },
}

impl Kind {
    /// Whether it takes a segment's text.
    pub fn takes(self, text: &[u8]) -> bool {
        match self {
            Kind::Uuid => {
                let is_dash = |at: usize| UUID_DASHES.contains(&at);
                let fits = |(at, b): (usize, &u8)| has(if is_dash(at) { DASH } else { HEX }, *b);
                text.len() == UUID_LEN as usize && text.iter().enumerate().all(fits)
            }
            Kind::Signs { set, least, most } => {
                let fits = |len: u32| (least..=most).contains(&len);
                u32::try_from(text.len()).is_ok_and(fits) && text.iter().all(|b| has(set, *b))
            }
        }
    }

    /// Whether both take some text.
    pub fn meets(self, other: Kind) -> bool {
        match (self, other) {
            (Kind::Uuid, Kind::Uuid) => true,
            (Kind::Uuid, Kind::Signs { set, least, most })
            | (Kind::Signs { set, least, most }, Kind::Uuid) => {
                set & HEX != 0 && set & DASH != 0 && (least..=most).contains(&UUID_LEN)
            }
            (
                Kind::Signs { set: a, least: a_least, most: a_most },
                Kind::Signs { set: b, least: b_least, most: b_most },
            ) => a & b != 0 && a_least.max(b_least) <= a_most.min(b_most),
        }
    }

    /// Whether it takes every text that `other` takes.
    pub fn covers(self, other: Kind) -> bool {
        match (self, other) {
            (Kind::Uuid, other) => other == Kind::Uuid,
            (Kind::Signs { set, least, most }, Kind::Uuid) => {
                (HEX | DASH) & !set == 0 && (least..=most).contains(&UUID_LEN)
            }
            (
                Kind::Signs { set: wide, least, most },
                Kind::Signs { set: narrow, least: narrow_least, most: narrow_most },
            ) => narrow & !wide == 0 && least <= narrow_least && narrow_most <= most,
        }
    }

    /// The name of the kind, if it has one.
    pub(super) fn name(self) -> Option<&'static str> {
        let named = NAMED.iter().find(|(_, written)| written.parse() == Ok(self)).map(|(name, _)| *name);
        if self == Kind::Uuid { Some("uuid") } else { named }
    }

    /// First of all a number that is smaller for a kind than for any that covers it.
    fn rank(self) -> (u32, u32, u32, u128) {
        match self {
            Kind::Uuid => (0, 0, 0, 0),
            Kind::Signs { set, least, most } => (set.count_ones(), most - least, least, set),
        }
    }
}

/// A kind comes before every other one that covers it.
impl Ord for Kind {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl PartialOrd for Kind {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl FromStr for Kind {
    type Err = BadText;
    fn from_str(text: &str) -> Result<Self, BadText> {
        if text == "uuid" {
            return Ok(Kind::Uuid);
        }
        let written = NAMED.iter().find(|(name, _)| *name == text).map_or(text, |(_, written)| *written);
        signs(written).ok_or_else(|| {
            let remedy = "write `int`, `uuid`, `slug`, `word`, or signs and their number: `[a-z0-9-]+`, `[A-Z]{3}`, `\\d{4,8}`";
            BadText::new(text, "is not a kind of segment", remedy)
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.pad(name),
            None => write!(f, "{self:?}"),
        }
    }
}

fn signs(written: &str) -> Option<Kind> {
    let (set, count) = match written.strip_prefix('[') {
        Some(inner) => {
            let (class, count) = inner.split_once(']')?;
            (class_of(class)?, count)
        }
        None => {
            let (class, count) = written.split_at_checked(2)?;
            (shorthand(class.strip_prefix('\\')?.bytes().next()?)?, count)
        }
    };
    let (least, most) = counts(count)?;
    // One text alone is not a kind, but text.
    (set.count_ones() > 1).then_some(Kind::Signs { set, least, most })
}

fn class_of(class: &str) -> Option<u128> {
    let mut set = 0;
    let mut rest = class.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first == b'\\' {
            let (escaped, after) = after.split_first()?;
            rest = after;
            set |= shorthand(*escaped)
                .or_else(|| (!escaped.is_ascii_alphanumeric()).then(|| sign(*escaped))?)?;
            continue;
        }
        match after {
            [b'-', last, after @ ..] if *last != b'\\' => {
                if first > last {
                    return None;
                }
                // A range must not lead over signs that stand in no path.
                set |= (*first..=*last).map(sign).try_fold(0, |all, one| Some(all | one?))?;
                rest = after;
            }
            _ => set |= sign(*first)?,
        }
    }
    (set != 0).then_some(set)
}

/// `+`, `{3}`, `{3,}`, `{3,8}`, or nothing for one.
fn counts(count: &str) -> Option<(u32, u32)> {
    let number = |text: &str| text.parse().ok().filter(|n| (1..=COUNT_MAX).contains(n));
    match count {
        "" => Some((1, 1)),
        "+" => Some((1, u32::MAX)),
        _ => {
            let inner = count.strip_prefix('{')?.strip_suffix('}')?;
            let (least, most) = match inner.split_once(',') {
                None => (number(inner)?, number(inner)?),
                Some((least, "")) => (number(least)?, u32::MAX),
                Some((least, most)) => (number(least)?, number(most)?),
            };
            (least <= most).then_some((least, most))
        }
    }
}

fn shorthand(letter: u8) -> Option<u128> {
    match letter {
        b'd' => Some(DIGITS),
        b'w' => Some(WORD),
        _ => None,
    }
}

/// A sign that can stand for itself in a path (RFC 3986, 3.3).
fn sign(b: u8) -> Option<u128> {
    let fits = b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&b);
    fits.then(|| one(b))
}

const fn one(b: u8) -> u128 {
    1 << b
}

const fn range(first: u8, last: u8) -> u128 {
    (u128::MAX >> (127 - last)) & (u128::MAX << first)
}

fn has(set: u128, b: u8) -> bool {
    b.is_ascii() && set & one(b) != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kind(text: &str) -> Kind {
        text.parse().unwrap()
    }

    #[test]
    fn kinds_take_what_they_say() {
        for (written, taken, left) in [
            ("int", vec!["7", "0042", "99999999999999999999"], vec!["", "-7", "7a", "٧", "1.0"]),
            ("slug", vec!["a-B_9", "-"], vec!["a.b", "a%20b", "é"]),
            ("word", vec!["a_9"], vec!["a-9"]),
            (
                "uuid",
                vec!["0b54f5c2-7a1e-4C3D-9d55-0123456789ab"],
                vec!["0b54f5c27a1e4c3d9d550123456789ab", "0b54f5c2-7a1e-4c3d-9d55-0123456789ag", ""],
            ),
            (r"\d{4}", vec!["2026"], vec!["202", "20261"]),
            ("[A-Z]{2,3}", vec!["AB", "ABC"], vec!["A", "ABCD", "ab"]),
            ("[a-z-]+", vec!["-", "a-b"], vec!["A"]),
            (r"[\w.@]{2,}", vec!["a@b.c"], vec!["a", "a+b"]),
            (r"[a\-z]+", vec!["a-z"], vec!["b"]),
        ] {
            let kind = kind(written);
            taken.iter().for_each(|text| assert!(kind.takes(text.as_bytes()), "{written} {text}"));
            left.iter().for_each(|text| assert!(!kind.takes(text.as_bytes()), "{written} {text}"));
        }
    }

    #[test]
    fn what_is_no_kind_is_refused() {
        let long = "x".repeat(5000);
        for bad in [
            "",
            "integer",
            "[a-z",
            "[]+",
            "[a]+",
            "[z-a]+",
            "[^/]+",
            "[a-z]*",
            "[a-z]{0,3}",
            "[a-z]{3,2}",
            "[a-z]{999}",
            "[a-z]+x",
            r"\s+",
            r"[\s]+",
            "[a/]+",
            "[%]+",
            "[a-é]+",
            "é",
            r"\",
            r"[\",
            "[ -~]+",
            ".+",
            "[ab]{",
            "[ab]{}",
            "[ab]{1",
            &long,
        ] {
            assert!(bad.parse::<Kind>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_kind_that_is_written_out_has_its_name() {
        assert_eq!(kind("[0-9]+").name(), Some("int"));
        assert_eq!(kind("[-a-zA-Z0-9_]+").name(), Some("slug"));
        assert_eq!(kind("[a-z]+").name(), None);
    }

    /// Every text of up to three of these signs.
    fn texts() -> Vec<Vec<u8>> {
        let signs = b"0a-z";
        let longer = |texts: &[Vec<u8>]| -> Vec<Vec<u8>> {
            texts
                .iter()
                .flat_map(|text| signs.iter().map(move |b| [text.as_slice(), &[*b]].concat()))
                .collect()
        };
        let one = longer(&[Vec::new()]);
        let (two, mut all) = (longer(&one), one.clone());
        all.extend(longer(&two));
        all.extend(two);
        all
    }

    fn any_kind() -> impl Strategy<Value = Kind> {
        let sets = ["0a", "0a-", "a-z", "0-z", "0a-z", "z-"]
            .map(|signs| signs.bytes().fold(0, |set, b| set | one(b)));
        (proptest::sample::select(sets.to_vec()), 1..=3u32, 0..3u32)
            .prop_map(|(set, least, more)| Kind::Signs { set, least, most: (least + more).min(3) })
    }

    proptest! {
        #[test]
        fn how_kinds_meet_is_how_their_texts_do(a in any_kind(), b in any_kind()) {
            let texts = texts();
            let (in_a, in_b) = (|t: &&Vec<u8>| a.takes(t), |t: &&Vec<u8>| b.takes(t));
            prop_assert_eq!(a.meets(b), texts.iter().filter(in_a).any(|t| in_b(&t)));
            prop_assert_eq!(a.covers(b), texts.iter().filter(in_b).all(|t| in_a(&t)));
            if a != b && b.covers(a) {
                prop_assert!(a < b, "the narrower one comes first");
            }
        }
    }

    #[test]
    fn uuid_is_narrower_than_what_covers_it() {
        let (uuid, slug) = (Kind::Uuid, kind("slug"));
        assert!(slug.covers(uuid) && !uuid.covers(slug) && uuid < slug && uuid.meets(slug));
        assert!(!uuid.meets(kind("int")) && !uuid.meets(kind("[0-9a-f-]{35}")));
        assert!(uuid.meets(kind("[0-9-]+")) && !kind("[0-9-]+").covers(uuid));
    }
}
