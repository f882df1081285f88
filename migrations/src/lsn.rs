//! Places in a source's change stream, each kind with a type of its own although all are 64 bits:
//! where a transaction is ordered ([`CommitLsn`]), up to where a stream is done ([`EndLsn`]), and one change ([`Position`]).
//!
//! Places of different databases must never meet: [`Of`] keeps the database in the type, [`Timeline`] tells servers and
//! their histories apart. Inside a lane or a feed, which runs the same code for every database, places are bare.

use crate::text::{BadText, travels_as_text};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

fn bad(text: &str) -> BadText {
    BadText::new(text, "is not a position", "write an LSN as `16/B374D848`, a position as `16/B374D848+3`")
}

fn parse_lsn(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    let part = |t: &str| if (1..=8).contains(&t.len()) { u32::from_str_radix(t, 16).ok() } else { None };
    Some(u64::from(part(high)?) << 32 | u64::from(part(low)?))
}

macro_rules! lsn {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(pub u64);

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
            }
        }

        impl FromStr for $type {
            type Err = BadText;
            fn from_str(text: &str) -> Result<Self, BadText> {
                parse_lsn(text).map(Self).ok_or_else(|| bad(text))
            }
        }

        travels_as_text!($type);
    };
}

lsn!(
    /// Where a transaction's commit record starts: `final_lsn` of pgoutput's Begin (PostgreSQL manual, 55.9).
    /// It orders transactions and is part of a [`Position`].
    CommitLsn
);
lsn!(
    /// Just behind a transaction's commit record (`end_lsn` of pgoutput's Commit) or a keepalive's end of WAL.
    /// What is *confirmed* to a slot and what a sink has *passed* are compared as these.
    EndLsn
);

impl EndLsn {
    /// Bytes of WAL from `earlier` to here, 0 if `earlier` is not behind.
    pub fn bytes_since(self, earlier: EndLsn) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Whether a transaction with this commit LSN lies wholly before here.
    pub fn is_past(self, commit: CommitLsn) -> bool {
        self.0 > commit.0
    }
}

/// One change's place in its source's total order: the transaction's commit LSN and the change's ordinal in
/// the transaction, from 1. Ordinal 0 is the place before a transaction's first change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Position {
    pub commit: CommitLsn,
    /// Which change of it, from 1.
    pub ordinal: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.commit, self.ordinal)
    }
}

impl FromStr for Position {
    type Err = BadText;
    fn from_str(text: &str) -> Result<Self, BadText> {
        let bad = || bad(text);
        let (commit, ordinal) = text.split_once('+').ok_or_else(bad)?;
        let commit = commit.parse().map_err(|_| bad())?;
        let ordinal = ordinal.parse().map_err(|_| bad())?;
        Ok(Self { commit, ordinal })
    }
}

travels_as_text!(Position);

/// Which history of which server LSNs belong to (`IDENTIFY_SYSTEM`; PostgreSQL manual, 55.4). LSNs of
/// different timelines or systems must not be compared: a promoted replica may reuse them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Timeline {
    pub system_id: String,
    /// The timeline's number; it rises at a promotion.
    pub timeline: u32,
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "system {} timeline {}", self.system_id, self.timeline)
    }
}

/// Marks a place in the monolith's change stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Monolith {}

/// Marks a place in a service's change stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {}

/// A place in the change stream of one kind of database. A service's place cannot stand where a monolith's belongs, and
/// the two cannot be compared. On the wire and on paper it is the place alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Of<D, T>(T, PhantomData<D>);

impl<T> Of<Monolith, T> {
    /// States that a bare place is the monolith's.
    pub const fn monolith(place: T) -> Self {
        Self(place, PhantomData)
    }
}

impl<T> Of<Service, T> {
    /// States that a bare place is a service's.
    pub const fn service(place: T) -> Self {
        Self(place, PhantomData)
    }
}

impl<D, T> Of<D, T> {
    /// The place without its database, for code that serves every database.
    pub fn bare(self) -> T {
        self.0
    }
}

impl<D, T: fmt::Display> fmt::Display for Of<D, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Something that will survive a crash. Only what is durable may be confirmed to a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Durable<T>(T);

impl<T> Durable<T> {
    /// States that `value` is on disk or acknowledged by all who must. Called by the two log adapters only.
    pub fn attest(value: T) -> Self {
        Self(value)
    }

    pub fn get(&self) -> &T {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn positions_read_back_and_keep_their_order(a: u64, x: u64, b: u64, y: u64) {
            let p = Position { commit: CommitLsn(a), ordinal: x };
            let q = Position { commit: CommitLsn(b), ordinal: y };
            prop_assert_eq!(p.to_string().parse::<Position>().unwrap(), p);
            prop_assert_eq!(p.cmp(&q), (a, x).cmp(&(b, y)));
        }
    }

    #[test]
    fn the_database_of_a_place_is_in_its_type_only() {
        let place = Of::monolith(CommitLsn(0x16_0000_0001));
        assert_eq!(serde_json::to_string(&place).unwrap(), "\"16/1\"");
        assert_eq!(serde_json::from_str::<Of<Monolith, CommitLsn>>("\"16/1\"").unwrap(), place);
        assert_eq!((place.to_string(), place.bare()), ("16/1".to_owned(), CommitLsn(0x16_0000_0001)));
    }

    #[test]
    fn what_is_no_lsn_is_refused() {
        for bad in ["", "1", "1/", "/1", "G/1", "123456789/1", "-1/1"] {
            assert!(bad.parse::<EndLsn>().is_err(), "{bad}");
        }
    }
}
