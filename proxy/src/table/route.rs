//! One route of the live table: what a request asks about it, and when a raised share counts.
//!
//! Pure. [`crate::route::decision`] decides where a request goes.

use crate::client::{self, Client, Naming};
use crate::doubt::Doubt;
use crate::freshness::Freshness;
use crate::hold::traffic::Traffic;
use crate::upstream::Pool;
use http1::Fields;
use migrations::control::TableRoute;
use migrations::pattern::Access;
use migrations::plan::Sticky;
use migrations::share::Share;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// No barrier has this number. The route is not settled before the real number is known.
const NOT_YET: u64 = u64::MAX;

pub(crate) struct LiveSlice {
    pub(crate) name: Box<str>,
    pub(crate) service: Arc<Pool>,
    /// Set if the service follows and a read is shared.
    pub(crate) freshness: Option<Arc<Freshness>>,
    pub(crate) traffic: Arc<Traffic>,
    pub(crate) salt: u64,
    /// Whether the service's data follow the monolith's.
    pub(crate) follows: bool,
    /// Whether the monolith's data are behind the service's, so that it answers nothing.
    pub(crate) leads: bool,
    /// Whether the monolith answers a read that the service answered with 5xx, unless the service leads.
    pub(crate) falls_back: bool,
    doubt: Arc<Doubt>,
    sticky: Sticky,
    naming: Naming,
}

impl LiveSlice {
    pub(crate) fn new(
        entry: &TableRoute,
        service: Arc<Pool>,
        freshness: Option<Arc<Freshness>>,
        traffic: Arc<Traffic>,
        doubt: Arc<Doubt>,
        naming: Naming,
    ) -> Self {
        Self {
            name: entry.slice.as_str().into(),
            service,
            freshness,
            traffic,
            salt: client::salt(entry.slice.as_str()),
            follows: entry.follows,
            leads: entry.leads,
            falls_back: entry.falls_back,
            doubt,
            sticky: entry.sticky.clone(),
            naming,
        }
    }

    /// Whether `entry` belongs to the same slice, unchanged.
    pub(crate) fn is_of(&self, entry: &TableRoute) -> bool {
        *self.name == *entry.slice.as_str()
            && *self.service.name == *entry.service.as_str()
            && (self.follows, self.leads, self.falls_back) == (entry.follows, entry.leads, entry.falls_back)
            && self.sticky == entry.sticky
    }
}

/// One route, ready for requests.
///
/// Ten thousand routes do not fit the CPU's nearest cache, so a route is small. What routes have in common lies
/// elsewhere, once, and so do the counters.
pub(crate) struct LiveRoute {
    pub(crate) slice: Arc<LiveSlice>,
    settles_at: AtomicU64,
    pub(crate) share: Share,
    before: Share,
    pub(crate) access: Access,
    /// The monolith answers it, as it answers what matches no route.
    pub(crate) is_pinned: bool,
    pub(crate) name: Box<str>,
    entry: Box<TableRoute>,
}

const _: () = assert!(size_of::<LiveRoute>() <= 48);

impl LiveRoute {
    /// `old` is the route that it replaces.
    pub(crate) fn new(entry: &TableRoute, slice: Arc<LiveSlice>, old: Option<&LiveRoute>) -> Self {
        // The old share only counts if nothing but the share has changed.
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
            is_pinned: entry.pinned,
            name: entry.route.as_str().into(),
            entry: Box::new(entry.clone()),
        }
    }

    pub(crate) fn entry(&self) -> &TableRoute {
        &self.entry
    }

    /// Whether its share was raised and its barrier has no number yet.
    pub(crate) fn waits_for_its_number(&self) -> bool {
        self.settles_at.load(SeqCst) == NOT_YET
    }

    /// The raised share counts once the barrier `mark` has passed.
    pub(crate) fn settle_at(&self, mark: u64) {
        self.settles_at.store(mark, SeqCst);
        if let Some(freshness) = &self.slice.freshness {
            freshness.want(mark);
        }
    }

    /// Whether a controller says that the monolith shall answer for now: the copy is too old, or somebody took the route back
    /// in an emergency.
    pub(crate) fn is_withheld(&self) -> bool {
        let (doubt, slice) = (&self.slice.doubt, &self.slice.traffic.slice);
        doubt.withholds(slice) || doubt.recalls(slice, &self.name)
    }

    /// The part of the share that needs no barrier: all of it, or the share before it was raised.
    pub(crate) fn settled(&self) -> Share {
        let Some(freshness) = &self.slice.freshness else { return self.share };
        if freshness.marks.has_passed(self.settles_at.load(SeqCst)) { self.share } else { self.before }
    }

    /// Whether some clients go to one side and some to the other.
    pub(crate) fn is_between(&self) -> bool {
        self.share != Share::MONOLITH && self.share != Share::SERVICE
    }

    pub(crate) fn client(&self, fields: &Fields, address: core::net::IpAddr) -> Client {
        Client::of(fields, &self.slice.sticky, address, self.slice.salt, self.slice.naming)
    }
}
