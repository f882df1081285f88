//! A request that a table places, and its answer: who answers, how far it got, and what it means for later reads.
//!
//! It touches no socket; [`crate::request`] says what happened. A request that is refused before a table is asked
//! never becomes an exchange.

use crate::client::{self, CLIENT_COOKIE, Client, KeyKind};
use crate::failure::Failure;
use crate::freshness::marks::Count;
use crate::freshness::seen::{Carried, ProxyTag, SEEN_COOKIE, Seen};
use crate::freshness::{Freshness, Wait};
use crate::headers;
use crate::headers::preflight;
use crate::headers::trace::Trace;
use crate::hold::Ending;
use crate::hold::stay::Stay;
use crate::hold::traffic::Traffic;
use crate::metrics::Metrics;
use crate::route::decision::{Case, Decision, Side, Stale, Why, decide};
use crate::table::route::LiveRoute;
use crate::table::{Live, Tables};
use crate::tally::End;
use crate::upstream::Pool;
use http1::{Fields, RequestHead};
use migrations::pattern::{Access, is_safe_method};
use migrations::plan::Consistency;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The logged status of a request whose client left without an answer.
pub(crate) const CLIENT_LEFT: u16 = 499;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrived {
    pub(crate) at: Instant,
    pub(crate) address: IpAddr,
}

pub(crate) struct Exchange {
    pub(crate) arrived: Arrived,
    /// The request keeps this table to its end, whatever is swapped in.
    pub(crate) live: Arc<Live>,
    /// It can change after a wait and when the service fails.
    pub(crate) decision: Decision,
    /// Bytes of the answer's body that the client got.
    pub(crate) answer_bytes: u64,
    /// What holds of its slice mean for it.
    pub(crate) stay: Stay,
    reached: Reached,
    access: Access,
    /// An upgraded connection may write, whatever its route says.
    is_upgrade: bool,
    /// A preflight shows no data, and browsers keep no cookies of it.
    is_preflight: bool,
    matched: Option<Matched>,
    asked: Option<Side>,
    seen: Seen,
    carried: Option<Origin>,
    /// With strong consistency, the barrier that a read at the service waits for.
    needs: Option<u64>,
}

/// How far a request got. Each step holds what is only known from there on.
enum Reached {
    /// Its body is unread, nothing was sent, and who answers may still change.
    Waiting(Wait),
    /// Its side is chosen. Nothing was sent.
    Decided,
    /// It was sent, once or more often. An upstream may have acted on it.
    Sent(Trace),
    /// An upstream's answer has begun. `new_id` is the id that the client gets.
    Answered { trace: Trace, status: u16, new_id: Option<u64> },
    /// The proxy itself answered. An upstream may still have acted on a request that was sent.
    Failed { sent: Option<Trace>, status: u16 },
}

/// The route that a request matches, and its client as the route's slice sees it.
#[derive(Clone, Copy)]
struct Matched {
    number: usize,
    client: Client,
}

/// Who set the cookie that the client sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Ours,
    Foreign,
}

impl Exchange {
    pub(crate) fn place(
        arrived: Arrived,
        live: Arc<Live>,
        request: &RequestHead,
        asked: Option<Side>,
        tag: ProxyTag,
        count: &Count,
    ) -> Self {
        let number = live.route_at(request, request.path());
        let is_preflight = preflight::asked_for(request).is_some()
            && number.is_none_or(|_| live.route(request.method(), request.path()).is_none());
        let route = number.and_then(|number| Some((number, live.nth(number)?)));
        let access = match route {
            // It may ask about a write, but writes nothing.
            Some((_, route)) if !is_preflight => route.access,
            Some(_) => Access::Read,
            None if is_safe_method(request.method()) => Access::Read,
            None => Access::Write,
        };
        let matched = route.map(|(number, route)| Matched {
            number,
            client: route.client(&request.fields, arrived.address),
        });
        let of_slice = route.filter(|(_, route)| !route.is_pinned);
        let freshness = of_slice.and_then(|(_, route)| route.slice.freshness.as_ref());
        let consistency = freshness.map(|freshness| freshness.consistency);
        let mut exchange = Self {
            arrived,
            live,
            decision: Decision { side: Side::Monolith, why: Why::Unmatched },
            answer_bytes: 0,
            stay: Stay::default(),
            reached: Reached::Decided,
            access,
            is_upgrade: request.is_upgrade(),
            is_preflight,
            matched,
            asked,
            seen: Seen::default(),
            carried: None,
            needs: None,
        };
        match consistency {
            Some(Consistency::Session) => exchange.read_seen(&request.fields, tag, count),
            Some(Consistency::Strong) => exchange.needs = Some(count.mark()),
            None => {}
        }
        if let Some(wait) = exchange.decide() {
            exchange.reached = Reached::Waiting(wait);
        }
        exchange
    }

    /// What it must wait for before its body is read.
    pub(crate) fn wait(&self) -> Option<&Wait> {
        match &self.reached {
            Reached::Waiting(wait) => Some(wait),
            _ => None,
        }
    }

    /// Whether the wrong side would answer it wrongly: its slice has tables, whose rows are the newest at one side only. A
    /// hold has an end of its own.
    pub(crate) fn needs_right_side(&self) -> bool {
        let Some(route) = self.route().filter(|route| !route.is_pinned) else { return false };
        let is_held = || self.may_write() && self.live.hold(&route.slice.traffic.slice).is_some();
        (route.slice.follows || route.slice.leads) && !is_held()
    }

    /// Ends the wait. If what it waited for has come, the side is chosen again.
    pub(crate) fn resume(&mut self, has_come: bool) {
        self.reached = Reached::Decided;
        if has_come {
            self.decide();
        }
    }

    /// Places it by a newer table. Nothing of it was sent.
    pub(crate) fn place_again(
        &mut self,
        live: Arc<Live>,
        request: &RequestHead,
        tag: ProxyTag,
        count: &Count,
    ) {
        let stay = std::mem::take(&mut self.stay);
        let again = Self::place(self.arrived, live, request, self.asked, tag, count);
        *self = Self { stay, ..again };
    }

    /// The writes of its slice, if it is one of them. What the plan keeps at the monolith is none.
    pub(crate) fn traffic(&self) -> Option<&Arc<Traffic>> {
        if !self.may_write() {
            return None;
        }
        Some(&self.route().filter(|route| !route.is_pinned)?.slice.traffic)
    }

    /// It met a hold and is not sent.
    pub(crate) fn refuse(&mut self, failure: Failure) {
        self.decision.why = Why::Held;
        self.stay.end(if failure == Failure::ClientLeft { Ending::Left } else { Ending::Expired });
    }

    /// It is being sent to an upstream. Returns its trace.
    pub(crate) fn send(&mut self, request: &RequestHead) -> Trace {
        let trace = headers::traced(&request.fields, self.trace().copied());
        self.reached = Reached::Sent(trace);
        trace
    }

    /// An upstream's answer begins. A new client at a shared route gets its id, so that it keeps its side wherever it goes.
    pub(crate) fn answer(&mut self, trace: Trace, status: u16) {
        let new_id = self.placed().filter(|(route, _)| route.is_between() && !self.is_preflight);
        let new_id = new_id.and_then(|(_, client)| match client.kind {
            KeyKind::Named(id) => Some(id),
            KeyKind::Chosen | KeyKind::Own => None,
        });
        self.reached = Reached::Answered { trace, status, new_id };
        self.stay.note_answer();
    }

    /// The proxy itself answers. `false` if an upstream's answer has begun: then it is too late to tell the client.
    pub(crate) fn fail(&mut self, status: u16) -> bool {
        if matches!(self.reached, Reached::Answered { .. }) {
            return false;
        }
        self.reached = Reached::Failed { sent: self.trace().copied(), status };
        true
    }

    pub(crate) fn is_read(&self) -> bool {
        self.access == Access::Read
    }

    fn may_write(&self) -> bool {
        !self.is_read() || self.is_upgrade
    }

    /// Whether it may be sent again after it was sent: a read without an answer.
    pub(crate) fn is_repeatable(&self) -> bool {
        self.is_read() && !self.is_answered()
    }

    pub(crate) fn is_answered(&self) -> bool {
        matches!(self.reached, Reached::Answered { .. })
    }

    pub(crate) fn status(&self) -> u16 {
        match self.reached {
            Reached::Answered { status, .. } | Reached::Failed { status, .. } => status,
            Reached::Waiting(_) | Reached::Decided | Reached::Sent(_) => CLIENT_LEFT,
        }
    }

    pub(crate) fn trace(&self) -> Option<&Trace> {
        match &self.reached {
            Reached::Sent(trace) | Reached::Answered { trace, .. } => Some(trace),
            Reached::Failed { sent, .. } => sent.as_ref(),
            Reached::Waiting(_) | Reached::Decided => None,
        }
    }

    pub(crate) fn pool(&self) -> &Arc<Pool> {
        match (self.decision.side, self.route()) {
            (Side::Service, Some(route)) => &route.slice.service,
            _ => &self.live.monolith,
        }
    }

    pub(crate) fn route(&self) -> Option<&LiveRoute> {
        self.live.nth(self.route_number()?)
    }

    pub(crate) fn route_number(&self) -> Option<usize> {
        self.matched.map(|matched| matched.number)
    }

    /// How it ended at the side that it was sent to.
    pub(crate) fn end(&self) -> End {
        match self.reached {
            Reached::Answered { status, .. } => End::Answered(status),
            Reached::Failed { status: 502 | 504, .. } => End::Unanswered,
            _ => End::Left,
        }
    }

    /// How long it has been under way, without what it waited for the end of a hold.
    pub(crate) fn took(&self) -> Duration {
        self.arrived.at.elapsed().saturating_sub(self.stay.waited.unwrap_or_default())
    }

    /// Whether the monolith shall answer it because of this status, as the plan says. A tester sees what the service says.
    pub(crate) fn is_unwanted(&self, status: u16) -> bool {
        let falls_back = self.route().is_some_and(|route| route.slice.falls_back);
        falls_back && (500..600).contains(&status) && self.decision.why != Why::Override
    }

    /// Lets the monolith answer after the service failed. `false` if that is not safe, or its data may be older than what
    /// the client has seen.
    pub(crate) fn fall_back(&mut self, why: Why, end: End) -> bool {
        let leads = self.route().is_some_and(|route| route.slice.leads);
        let may = self.is_repeatable() && self.decision.side == Side::Service && !leads;
        if may {
            self.live.tally(self.route_number(), Side::Service, end, self.took());
            self.decision = Decision { side: Side::Monolith, why };
        }
        may
    }

    /// Marks the clients that must wait later, by the table that is in use now. Called when an answer begins and when
    /// the exchange ends. Barriers are only asked for at the end, so that one covers the whole answer.
    pub(crate) fn mark(&mut self, tables: &Tables, request: &RequestHead, is_end: bool, metrics: &Metrics) {
        let now = tables.peek();
        let Some(now) = now.as_ref().filter(|now| !now.followers.is_empty()) else { return };
        if self.is_preflight {
            return;
        }
        let is_write = self.may_write();
        let is_marked = if is_write && self.trace().is_some() {
            self.mark_write(now, tables.count.mark(), &request.fields, is_end);
            true
        } else if !is_write && self.is_answered() && self.decision.side == Side::Monolith {
            self.mark_read(now, tables.count.mark(), request, is_end)
        } else {
            false
        };
        if is_marked && !is_end {
            metrics.marks.inc();
        }
    }

    pub(crate) fn cookies(&self, tag: ProxyTag) -> Vec<String> {
        let mut cookies = Vec::new();
        if let Reached::Answered { new_id: Some(id), .. } = self.reached {
            let id = client::cookie_value(id);
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

    /// Decides who answers. Returns the barrier that is worth a short wait. Without the wait, a client that only
    /// reads would stay at the monolith while it keeps reading.
    fn decide(&mut self) -> Option<Wait> {
        let (route, client) = self.placed()?;
        if route.is_pinned {
            self.decision = Decision { side: Side::Monolith, why: Why::Pinned };
            return None;
        }
        let freshness = route.slice.freshness.as_ref();
        let stale = freshness.and_then(|freshness| self.stale(freshness, client));
        let decision = decide(&Case {
            share: route.share,
            settled: route.settled(),
            bucket: client.bucket(),
            is_read: self.is_read(),
            follows: freshness.is_some() || route.slice.follows,
            leads: route.slice.leads,
            is_alone: freshness.is_some_and(|freshness| freshness.is_alone()),
            is_old: route.is_withheld(),
            asked: self.asked,
            stale,
            service_is_well: route.slice.service.is_well(),
        });
        let mark = match (decision.why, stale) {
            (Why::Saw, Some(Stale::Saw(mark))) | (Why::Behind, Some(Stale::Unknown(mark))) => Some(mark),
            (Why::Wrote, Some(Stale::Wrote(mark))) if self.carried == Some(Origin::Foreign) => Some(mark),
            _ => None,
        };
        let wait = mark.and_then(|mark| Some(Wait { freshness: freshness?.clone(), mark }));
        self.decision = decision;
        wait
    }

    fn placed(&self) -> Option<(&LiveRoute, Client)> {
        Some((self.route()?, self.matched?.client))
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

    fn stale(&self, freshness: &Freshness, client: Client) -> Option<Stale> {
        if let Some(mark) = self.needs {
            return (!freshness.marks.has_passed(mark)).then_some(Stale::Unknown(mark));
        }
        let saw = self.seen.saw_in(freshness.slice.as_str());
        let stale = freshness.marks.stale(client.hash, self.seen.wrote, saw);
        if let Some(Stale::Wrote(mark) | Stale::Saw(mark)) = stale {
            freshness.want(mark);
        }
        stale
    }

    fn all_passed(&self) -> bool {
        self.live.followers.iter().all(|follower| {
            let marks = &follower.freshness.marks;
            marks.has_passed(self.seen.wrote)
                && marks.has_passed(self.seen.saw_in(follower.freshness.slice.as_str()))
        })
    }

    fn mark_write(&mut self, now: &Arc<Live>, mark: u64, fields: &Fields, is_end: bool) {
        for follower in &now.followers {
            let client =
                Client::of(fields, &follower.sticky, self.arrived.address, follower.salt, follower.naming);
            follower.freshness.marks.wrote(client.hash, mark);
            if is_end {
                follower.freshness.want(mark);
            }
        }
        self.seen.note_write(mark);
    }

    /// Marks a client whose read belongs to the service by its bucket, and was answered by the monolith.
    fn mark_read(&mut self, now: &Arc<Live>, mark: u64, request: &RequestHead, is_end: bool) -> bool {
        let number = match Arc::ptr_eq(&self.live, now) {
            true => self.route_number(),
            false => now.route_at(request, request.path()),
        };
        let Some(route) = number.and_then(|number| now.nth(number)) else { return false };
        let Some(freshness) = route.slice.freshness.as_ref().filter(|_| route.access == Access::Read) else {
            return false;
        };
        let client = route.client(&request.fields, self.arrived.address);
        let is_marked = route.share.takes(client.bucket());
        if is_marked {
            freshness.marks.saw(client.hash, mark);
            if is_end {
                freshness.want(mark);
            }
            self.seen.note_read(&route.slice.name, mark);
        }
        is_marked
    }
}
