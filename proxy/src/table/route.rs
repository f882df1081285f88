//! One route of the live table: what a request asks about it, and from when on a raised share counts.
//!
//! Pure. Does not decide where a request goes; that is [`crate::route::decision`]'s.

use crate::client::{self, Client};
use crate::freshness::Freshness;
use crate::upstream::Pool;
use http1::Fields;
use migrations::control::TableRoute;
use migrations::pattern::Access;
use migrations::plan::Sticky;
use migrations::share::Share;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// No barrier has this number: the route is not settled before its real number is known.
const NOT_YET: u64 = u64::MAX;

/// What the routes of a slice have in common.
pub struct LiveSlice {
    /// Its name.
    pub name: Box<str>,
    /// Who answers the shared part.
    pub service: Arc<Pool>,
    /// Its marks, if its service follows and any of its reads are shared.
    pub freshness: Option<Arc<Freshness>>,
    /// What makes its buckets its own.
    pub salt: u64,
    /// Whether the service's data are copied after the monolith's.
    pub follows: bool,
    sticky: Sticky,
}

impl LiveSlice {
    /// The slice as `entry` has it.
    pub fn new(entry: &TableRoute, service: Arc<Pool>, freshness: Option<Arc<Freshness>>) -> Self {
        Self {
            name: entry.slice.as_str().into(),
            service,
            freshness,
            salt: client::salt(entry.slice.as_str()),
            follows: entry.follows,
            sticky: entry.sticky.clone(),
        }
    }

    /// Whether another entry has the same in common.
    pub fn is_of(&self, entry: &TableRoute) -> bool {
        *self.name == *entry.slice.as_str()
            && *self.service.name == *entry.service.as_str()
            && self.follows == entry.follows
            && self.sticky == entry.sticky
    }
}

/// One route, ready for requests.
///
/// Ten thousand of them are not in the CPU's nearest cache. So it is small: what many routes have in common lies elsewhere,
/// once, and so does what is counted.
pub struct LiveRoute {
    /// Its slice.
    pub slice: Arc<LiveSlice>,
    settles_at: AtomicU64,
    /// How much goes to the service.
    pub share: Share,
    before: Share,
    /// Whether it reads or may write.
    pub access: Access,
    /// Its name in the slice.
    pub name: Box<str>,
    /// As the table has it.
    entry: Box<TableRoute>,
}

const _: () = assert!(size_of::<LiveRoute>() <= 48);

impl LiveRoute {
    /// Makes a route that takes over from `old`.
    pub fn new(entry: &TableRoute, slice: Arc<LiveSlice>, old: Option<&LiveRoute>) -> Self {
        // The same clients are asked about the same requests only if nothing but the share has changed.
        let is_same = |old: &&Self| TableRoute { share: entry.share, ..(*old.entry).clone() } == *entry;
        let before = match old.filter(|old| old.slice.freshness.is_some()).filter(is_same) {
            Some(old) => old.settled().min(entry.share),
            None => Share::MONOLITH,
        };
        let settles_at = if slice.freshness.is_none() || before == entry.share { 0 } else { NOT_YET };
        Self {
            slice,
            settles_at: AtomicU64::new(settles_at),
            share: entry.share,
            before,
            access: entry.access,
            name: entry.route.as_str().into(),
            entry: Box::new(entry.clone()),
        }
    }

    /// As the table has it.
    pub fn entry(&self) -> &TableRoute {
        &self.entry
    }

    /// Whether its share was raised and the barrier it waits for has no number yet.
    pub fn waits_for_its_number(&self) -> bool {
        self.settles_at.load(SeqCst) == NOT_YET
    }

    /// Its raised share counts when the barrier `mark` has passed.
    pub fn settle_at(&self, mark: u64) {
        self.settles_at.store(mark, SeqCst);
        if let Some(freshness) = &self.slice.freshness {
            freshness.want(mark);
        }
    }

    /// The part of the share that needs no barrier: all of it, or what it was before it was raised.
    pub fn settled(&self) -> Share {
        let Some(freshness) = &self.slice.freshness else { return self.share };
        if freshness.marks.has_passed(self.settles_at.load(SeqCst)) { self.share } else { self.before }
    }

    /// Whether some clients are at one side and some at the other.
    pub fn is_between(&self) -> bool {
        self.share != Share::MONOLITH && self.share != Share::SERVICE
    }

    /// The client as this route's slice sees it.
    pub fn client(&self, fields: &Fields, address: core::net::IpAddr) -> Client {
        Client::of(fields, &self.slice.sticky, address, self.slice.salt)
    }
}
