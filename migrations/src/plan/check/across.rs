//! What can only be seen by comparing parts of the plan: routes that meet, tables named twice, databases that are
//! missing or the same, addresses and topics taken twice.

use super::slice::SliceDraft;
use super::{Draft, SideDraft};
use crate::code::Code;
use crate::names::{ServiceName, TableName};
use crate::pattern::{Meeting, Pattern, Segment};
use crate::plan::tree::Spot;
use crate::plan::written::Notes;
use crate::plan::{LogChoice, Route, Table};
use std::collections::{BTreeMap, HashMap};

/// More routes than this are not compared.
const ROUTES_MAX: usize = 10_000;
/// After so many crossings the reader has understood.
const CROSSINGS_SHOWN_MAX: usize = 50;

pub(super) fn check(draft: &Draft, notes: &mut Notes<'_>) {
    routes(&draft.slices, notes);
    sources(draft, notes);
    sinks(draft, notes);
    topics(draft, notes);
    outbox(draft, notes);
    databases(draft, notes);
    listeners(draft, notes);
}

struct Found<'d> {
    slice: &'d str,
    spot: Spot,
    route: &'d Route,
}

impl Found<'_> {
    fn name(&self) -> String {
        format!("`{}.{}` (line {})", self.slice, self.route.name, self.spot.line)
    }
}

fn routes(slices: &[SliceDraft], notes: &mut Notes<'_>) {
    let all: Vec<Found<'_>> = slices
        .iter()
        .flat_map(|slice| {
            slice.routes.iter().map(|(spot, route)| Found { slice: &slice.label, spot: *spot, route })
        })
        .collect();
    if all.len() > ROUTES_MAX {
        let message = format!("the plan has {} routes; {ROUTES_MAX} can be used", all.len());
        let spot = all.get(ROUTES_MAX).map_or(Spot::default(), |found| found.spot);
        notes.error(spot, Code::PlanTooManyRoutes, message, "join routes with `{name}` and `{*rest}`");
        return;
    }
    let mut shapes: HashMap<String, &Found<'_>> = HashMap::new();
    for found in &all {
        let Some(first) = shapes.insert(shape(&found.route.pattern), found) else { continue };
        for (one, other) in [(first, found), (found, first)] {
            let message = format!("this route matches the same requests as {}", other.name());
            notes.error(one.spot, Code::PlanRouteTwice, message, "keep one of the two");
        }
    }
    // A path without names is one path: it cannot cross another pattern.
    let wide: Vec<&Found<'_>> = all.iter().filter(|found| has_names(&found.route.pattern)).collect();
    let pairs = wide.iter().enumerate().flat_map(|(at, a)| wide[..at].iter().map(move |b| (*b, *a)));
    let mut crossing = pairs.filter(|(a, b)| a.route.pattern.meeting(&b.route.pattern) == Meeting::Crossing);
    let shown: Vec<(&Found<'_>, &Found<'_>)> = crossing.by_ref().take(CROSSINGS_SHOWN_MAX).collect();
    if let Some((_, b)) = crossing.next() {
        let more = 1 + crossing.count();
        let message = format!("{more} more pairs of routes cross, which are not shown");
        notes.warning(b.spot, Code::PlanRoutesCross, message, "check these first, then run the check again");
    }
    for (a, b) in shown {
        let Some(first_wins) = a.route.pattern.wins(&b.route.pattern) else {
            let message =
                format!("some requests match both this route and {}, and neither is narrower", a.name());
            let hint =
                "write kinds of which one takes all that the other takes, or that take nothing in common";
            notes.error(b.spot, Code::PlanRoutesAmbiguous, message, hint);
            continue;
        };
        let (winner, loser) = if first_wins { (a, b) } else { (b, a) };
        let message = format!("some requests match both this route and {}", a.name());
        let hint = format!(
            "`{}` takes them, not `{}`; if that is wrong, write a third route",
            winner.route.pattern, loser.route.pattern
        );
        notes.warning(b.spot, Code::PlanRoutesCross, message, hint);
    }
}

/// The pattern without the names of its segments: equal for patterns that match the same requests.
fn shape(pattern: &Pattern) -> String {
    let mut shape = pattern.method().to_owned();
    for segment in pattern.segments() {
        match segment {
            Segment::Literal(text) => shape.extend(["/", text]),
            Segment::Typed { kind, .. } => shape.push_str(&format!("/{{:{kind:?}}}")),
            Segment::Name(_) => shape.push_str("/{}"),
            Segment::Rest(_) => shape.push_str("/{*}"),
        }
    }
    shape
}

fn has_names(pattern: &Pattern) -> bool {
    pattern.segments().iter().any(|segment| !matches!(segment, Segment::Literal(_)))
}

struct Named<'d> {
    slice: &'d SliceDraft,
    spot: Spot,
    table: &'d Table,
    moved: bool,
}

fn named(slices: &[SliceDraft]) -> impl Iterator<Item = Named<'_>> {
    slices.iter().flat_map(|slice| {
        let moved = slice.tables.iter().map(|entry| (entry, true));
        let reference = slice.reference.iter().map(|entry| (entry, false));
        moved.chain(reference).map(move |((spot, table), moved)| Named { slice, spot: *spot, table, moved })
    })
}

/// A source table may be read by several services, but moves once, and no service gets it twice.
fn sources(draft: &Draft, notes: &mut Notes<'_>) {
    let mut seen: BTreeMap<String, Vec<Named<'_>>> = BTreeMap::new();
    for here in named(&draft.slices) {
        let before = seen.entry(here.table.from.to_string()).or_default();
        if let Some(there) = before.iter().find(|there| collide(&here, there)) {
            let hint = if here.slice.label == there.slice.label {
                "name it once, under `tables` or under `reference`".to_owned()
            } else if here.moved && there.moved {
                "a table moves with one slice; the others may name it under `reference`".to_owned()
            } else {
                format!("the service has it by slice `{}` already", there.slice.label)
            };
            twice(&here, there, &format!("table `{}`", here.table.from), &hint, notes);
        }
        before.push(here);
    }
}

fn collide(a: &Named<'_>, b: &Named<'_>) -> bool {
    let same_service = a.slice.service.is_some() && a.slice.service == b.slice.service;
    std::ptr::eq(a.slice, b.slice) || same_service || (a.moved && b.moved)
}

fn twice(a: &Named<'_>, b: &Named<'_>, what: &str, hint: &str, notes: &mut Notes<'_>) {
    for (one, other) in [(a, b), (b, a)] {
        let message = format!("{what} is in slice `{}` too (line {})", other.slice.label, other.spot.line);
        notes.error(one.spot, Code::PlanTableTwice, message, hint);
    }
}

/// Two source tables must not be written into one sink table.
fn sinks(draft: &Draft, notes: &mut Notes<'_>) {
    let mut seen: BTreeMap<(&ServiceName, String), Named<'_>> = BTreeMap::new();
    for here in named(&draft.slices) {
        let Some(service) = &here.slice.service else { continue };
        let key = (service, here.table.to.to_string());
        if let Some(there) = seen.get(&key) {
            // The same source is a finding of its own.
            if here.table.from != there.table.from {
                let hint = "give one of them a `to:` of its own";
                twice(&here, there, &format!("the service's table `{}`", here.table.to), hint, notes);
            }
        } else {
            seen.insert(key, here);
        }
    }
}

/// In Kafka two source tables must not share a topic, or have topics that Kafka holds for one.
fn topics(draft: &Draft, notes: &mut Notes<'_>) {
    let Some(LogChoice::Kafka { .. }) = &draft.settings.log else { return };
    let mut seen: BTreeMap<String, Named<'_>> = BTreeMap::new();
    for here in named(&draft.slices) {
        let topic = topic_as_compared(&here.table.from);
        let Some(there) = seen.get(&topic) else {
            seen.insert(topic, here);
            continue;
        };
        if here.table.from == there.table.from {
            continue;
        }
        for (one, other) in [(&here, there), (there, &here)] {
            let message = format!(
                "in Kafka `{}` and `{}` (line {}) would have one topic: a topic's name has only A-Z, a-z, 0-9, `.`, `_` and `-`, and Kafka takes `.` and `_` for the same",
                one.table.from, other.table.from, other.spot.line
            );
            let hint = "rename one of the two tables in the monolith, or leave out `log: { kafka: … }`";
            notes.error(one.spot, Code::PlanSameTopic, message, hint);
        }
    }
}

/// Only tables of slices are in the log.
fn outbox(draft: &Draft, notes: &mut Notes<'_>) {
    for (spot, table) in &draft.settings.outbox {
        if named(&draft.slices).any(|named| named.table.from == *table || named.table.to == *table) {
            continue;
        }
        let message = format!("no slice has the outbox table `{table}`");
        let hint = "name it under a slice's `tables`, so that it moves with what writes it";
        notes.error(*spot, Code::PlanOutbox, message, hint);
    }
}

/// A table's part of its topic's name as Kafka compares it: what a topic cannot hold is written `_` there for each UTF-16 unit, and Kafka
/// refuses a topic that differs from another only in `.` and `_` (Kafka source, `Topic.unifyCollisionChars`).
fn topic_as_compared(table: &TableName) -> String {
    let letters = |c: char| match c {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '-' => vec![c],
        _ => vec!['_'; c.len_utf16()],
    };
    table.to_string().chars().flat_map(letters).collect()
}

fn databases(draft: &Draft, notes: &mut Notes<'_>) {
    let mut told: Vec<&str> = Vec::new();
    for slice in draft.slices.iter().filter(|slice| slice.wants_databases) {
        let service = slice.service.as_ref().and_then(|name| draft.services.get(name));
        for side in [draft.monolith.as_ref(), service].into_iter().flatten() {
            let missing = side.database.is_none() && !side.database_broken;
            if missing && !told.contains(&side.label.as_str()) {
                told.push(&side.label);
                missing_database(side, slice, notes);
            }
        }
    }
    // Each database has one publication, one slot and one set of gates for the plan.
    let mut seen: BTreeMap<&str, String> = BTreeMap::new();
    let monolith = draft.monolith.iter().map(|side| (side, "the monolith"));
    let mut services: Vec<_> = draft.services.values().map(|side| (side, side.label.as_str())).collect();
    services.sort_by_key(|(side, _)| side.spot.line);
    for (side, label) in monolith.chain(services) {
        let Some(database) = &side.database else { continue };
        let Some(other) = seen.get(database.identity.as_str()) else {
            seen.insert(&database.identity, format!("{label} (line {})", database.spot.line));
            continue;
        };
        let message = format!("{label} has the same database as {other}");
        let hint = "a slice's tables move from one database to another; give the service one of its own";
        notes.error(database.spot, Code::PlanSameDatabase, message, hint);
    }
}

fn missing_database(side: &SideDraft, slice: &SliceDraft, notes: &mut Notes<'_>) {
    let message = format!("{} needs `database`, as slice `{}` has tables", side.label, slice.label);
    let hint = "write `database: ${DATABASE_URL}`, a URL of strangler's own role";
    notes.error(side.spot, Code::PlanMissingDatabase, message, hint);
}

fn listeners(draft: &Draft, notes: &mut Notes<'_>) {
    for (at, here) in draft.listeners.iter().enumerate() {
        let clash = draft.listeners[..at].iter().find(|there| {
            let (a, b) = (here.address, there.address);
            let both = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
            a.port() == b.port() && a.port() != 0 && both
        });
        if let Some(there) = clash {
            let message =
                format!("`{}` and `{}` both listen on port {}", there.key, here.key, here.address.port());
            notes.error(
                here.spot,
                Code::PlanSameListen,
                message,
                format!("give `{}` a port of its own", here.key),
            );
        }
    }
}
