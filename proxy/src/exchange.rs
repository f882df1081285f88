//! One request and its answer: what was found out about it, who answers, and what its end means for later reads.
//!
//! Holds the state that the steps of [`crate::request`] share. Speaks to no socket; it is told what happened.

use crate::client::{self, CLIENT_COOKIE, Client, KeyKind};
use crate::freshness::Freshness;
use crate::freshness::marks::Count;
use crate::freshness::seen::{Carried, ProxyTag, SEEN_COOKIE, Seen};
use crate::headers::trace::Trace;
use crate::metrics::Metrics;
use crate::route::decision::{Case, Decision, Side, Stale, Why, decide};
use crate::table::route::LiveRoute;
use crate::table::{Live, Tables};
use crate::upstream::{Pool, Target};
use http1::Fields;
use http1::RequestHead;
use migrations::pattern::{Access, is_safe_method};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

/// One request and its answer.
pub struct Exchange {
    /// When its head had arrived.
    pub started: Instant,
    /// Whose it is.
    pub address: IpAddr,
    /// The table it is answered by; none if there is none yet.
    pub live: Option<Arc<Live>>,
    /// The number of the route it matches, if it matches one.
    pub route: Option<usize>,
    /// Who answers, and why.
    pub decision: Decision,
    /// Whether it only reads: it may be sent again as long as nothing was answered.
    pub is_read: bool,
    /// Whether it turns into something else than HTTP, e.g. a WebSocket.
    pub is_upgrade: bool,
    /// The address it was sent to last.
    pub target: Option<Arc<Target>>,
    /// Its trace.
    pub trace: Option<Trace>,
    /// How often it was sent again to the same side.
    pub repeats: usize,
    /// Whether anything was sent to an upstream.
    pub is_sent: bool,
    /// Whether an upstream's answer has begun to reach the client.
    pub is_answered: bool,
    /// The status that the client was told, if it was told any.
    pub status: Option<u16>,
    /// Bytes of the answer's body that the client was sent.
    pub answer_bytes: u64,
    client: Option<Client>,
    asked: Option<Side>,
    new_id: Option<String>,
    seen: Seen,
    carried: Option<Origin>,
}

/// Whose cookie the client brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Ours,
    Foreign,
}

/// A barrier that is worth a short wait: a client that only reads would otherwise stay at the monolith for as
/// long as it keeps reading.
pub struct Wait {
    /// Whose barrier.
    pub freshness: Arc<Freshness>,
    /// Which one.
    pub mark: u64,
}

impl Default for Exchange {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            address: IpAddr::from([0, 0, 0, 0]),
            live: None,
            route: None,
            decision: Decision { side: Side::Monolith, why: Why::Unmatched },
            is_read: false,
            is_upgrade: false,
            target: None,
            trace: None,
            repeats: 0,
            is_sent: false,
            is_answered: false,
            status: None,
            answer_bytes: 0,
            client: None,
            asked: None,
            new_id: None,
            seen: Seen::default(),
            carried: None,
        }
    }
}

impl Exchange {
    /// Finds the request's route and decides who answers.
    pub fn begin(
        &mut self,
        live: Arc<Live>,
        request: &RequestHead,
        asked: Option<Side>,
        tag: ProxyTag,
        count: &Count,
    ) {
        self.asked = asked;
        self.route = live.route(request.method(), request.path());
        let route = self.route.and_then(|number| live.nth(number));
        self.is_read = match route {
            Some(route) => route.access == Access::Read,
            None => is_safe_method(request.method()),
        };
        if let Some(route) = route {
            self.client = Some(route.client(&request.fields, self.address));
            if route.slice.freshness.is_some() {
                self.read_seen(&request.fields, tag, count);
            }
        }
        self.live = Some(live);
        self.decide();
    }

    /// Decides again, after a wait.
    pub fn decide(&mut self) {
        let Some((route, client)) = self.placed() else { return };
        let case = Case {
            share: route.share,
            settled: route.settled(),
            bucket: client.bucket(),
            is_read: self.is_read,
            follows: route.slice.freshness.is_some() || route.slice.follows,
            asked: self.asked,
            stale: self.stale(route, client),
            service_is_well: route.slice.service.is_well(),
        };
        self.decision = decide(&case);
    }

    /// The barrier that the request should wait for a moment, if there is one.
    pub fn worth_waiting(&self) -> Option<Wait> {
        let (route, client) = self.placed()?;
        let freshness = route.slice.freshness.clone()?;
        let mark = match (self.decision.why, self.stale(route, client)?) {
            (Why::Saw, Stale::Saw(mark)) => mark,
            (Why::Wrote, Stale::Wrote(mark)) if self.carried == Some(Origin::Foreign) => mark,
            _ => return None,
        };
        Some(Wait { freshness, mark })
    }

    /// The upstream that answers.
    pub fn pool(&self) -> Option<&Arc<Pool>> {
        let live = self.live.as_ref()?;
        match (self.decision.side, self.matched()) {
            (Side::Service, Some(route)) => Some(&route.slice.service),
            _ => Some(&live.monolith),
        }
    }

    /// The route it matches.
    pub fn matched(&self) -> Option<&LiveRoute> {
        self.live.as_ref()?.nth(self.route?)
    }

    /// The service failed before it answered: the monolith answers. False if that must not be.
    pub fn fall_back(&mut self) -> bool {
        let may = self.is_read && self.decision.side == Side::Service && !self.is_answered;
        if may {
            self.decision = Decision { side: Side::Monolith, why: Why::Fallback };
            self.repeats = 0;
        }
        may
    }

    /// An answer begins or the exchange ends: whoever must wait is marked, by what the table says now. Barriers
    /// are asked for at the end only, so that one covers the whole answer.
    pub fn mark(&mut self, tables: &Tables, request: &RequestHead, is_end: bool, metrics: &Metrics) {
        let now = tables.peek();
        let Some(now) = now.as_ref().filter(|now| !now.followers.is_empty()) else { return };
        let is_write = !self.is_read || self.is_upgrade;
        let is_marked = if is_write && self.is_sent {
            self.mark_write(now, tables.count.mark(), &request.fields, is_end);
            true
        } else if !is_write && self.is_answered && self.decision.side == Side::Monolith {
            self.mark_read(now, tables.count.mark(), request, is_end)
        } else {
            false
        };
        if is_marked && !is_end {
            metrics.marks.inc();
        }
    }

    /// The cookies that the answer sets.
    pub fn cookies(&mut self, tag: ProxyTag) -> Vec<String> {
        let mut cookies = Vec::new();
        if let Some(id) = &self.new_id {
            cookies.push(format!("{CLIENT_COOKIE}={id}; Path=/; HttpOnly; SameSite=Lax"));
        }
        let waits = self.seen.wrote > 0 || !self.seen.saw.is_empty();
        if waits && !self.all_passed() {
            let value = self.seen.value(tag);
            cookies.push(format!("{SEEN_COOKIE}={value}; Path=/; HttpOnly; SameSite=Lax"));
        } else if self.carried.is_some() && self.all_passed() {
            cookies.push(format!("{SEEN_COOKIE}=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax"));
        }
        cookies
    }

    /// Gives a client that is met for the first time at a shared route an id to come back with.
    pub fn introduce(&mut self) {
        if let Some((route, client)) = self.placed()
            && client.kind == KeyKind::Address
            && route.is_between()
        {
            self.new_id = Some(format!("{:016x}", rand::random::<u64>()));
        }
    }

    fn placed(&self) -> Option<(&LiveRoute, Client)> {
        Some((self.matched()?, self.client?))
    }

    fn read_seen(&mut self, fields: &Fields, tag: ProxyTag, count: &Count) {
        let Some(cookie) = client::cookie(fields, SEEN_COOKIE).filter(|value| !value.is_empty()) else {
            return;
        };
        match Seen::read(cookie, tag, count.mark()) {
            Carried::Ours(seen) => (self.seen, self.carried) = (seen, Some(Origin::Ours)),
            Carried::Foreign => {
                self.seen.note_write(count.mark());
                self.carried = Some(Origin::Foreign);
            }
        }
    }

    fn stale(&self, route: &LiveRoute, client: Client) -> Option<Stale> {
        let freshness = route.slice.freshness.as_ref()?;
        let stale = freshness.marks.stale(client.hash, self.seen.wrote, self.seen.saw_in(&route.slice.name));
        if let Some(Stale::Wrote(mark) | Stale::Saw(mark)) = stale {
            freshness.want(mark);
        }
        stale
    }

    fn all_passed(&self) -> bool {
        let Some(live) = &self.live else { return false };
        live.followers.iter().all(|follower| {
            let marks = &follower.freshness.marks;
            marks.has_passed(self.seen.wrote)
                && marks.has_passed(self.seen.saw_in(follower.freshness.slice.as_str()))
        })
    }

    fn mark_write(&mut self, now: &Arc<Live>, mark: u64, fields: &Fields, is_end: bool) {
        for follower in &now.followers {
            let client = Client::of(fields, &follower.sticky, self.address, follower.salt);
            follower.freshness.marks.wrote(client.hash, mark);
            if is_end {
                follower.freshness.want(mark);
            }
        }
        self.seen.note_write(mark);
    }

    /// Marks a client whose read belongs to the service by its bucket, as it is now, and was answered by the
    /// monolith. Its bucket is the one it comes back with, if it was given an id.
    fn mark_read(&mut self, now: &Arc<Live>, mark: u64, request: &RequestHead, is_end: bool) -> bool {
        let number = match &self.live {
            Some(then) if Arc::ptr_eq(then, now) => self.route,
            _ => now.route(request.method(), request.path()),
        };
        let Some(route) = number.and_then(|number| now.nth(number)) else { return false };
        let Some(freshness) = route.slice.freshness.as_ref().filter(|_| route.access == Access::Read) else {
            return false;
        };
        let client = route.client(&request.fields, self.address);
        let next = self.new_id.as_ref().map(|id| Client::with_own_cookie(id, route.slice.salt));
        let mut is_marked = false;
        for client in [Some(client), next].into_iter().flatten() {
            if route.share.takes(client.bucket()) {
                freshness.marks.saw(client.hash, mark);
                is_marked = true;
            }
        }
        if is_marked {
            if is_end {
                freshness.want(mark);
            }
            self.seen.note_read(&route.slice.name, mark);
        }
        is_marked
    }
}
