//! One slice: its service, its routes, who else writes, and its tables by [`super::table`].

use super::SideDraft;
use super::reading::{self, Fields};
use super::table::{self, Kind};
use crate::code::Code;
use crate::names::{RouteName, ServiceName, SliceName};
use crate::pattern::{Access, Pattern};
use crate::plan::Sticky;
use crate::plan::tree::{Key, Node, Spot, Value};
use crate::plan::written::Notes;
use crate::plan::{Route, Slice, Table, TriggerFate, WriterFate};
use std::collections::BTreeMap;

const KEYS: [&str; 8] =
    ["service", "routes", "tables", "reference", "sticky", "fallback", "writers", "triggers"];

/// A slice as far as it could be read, with the places of what is compared across slices.
pub(super) struct SliceDraft {
    pub label: String,
    pub name: Option<SliceName>,
    pub service: Option<ServiceName>,
    pub routes: Vec<(Spot, Route)>,
    pub tables: Vec<(Spot, Table)>,
    pub reference: Vec<(Spot, Table)>,
    /// There are tables, even if they could not be read: both databases are needed.
    pub wants_databases: bool,
    sticky: Sticky,
    falls_back_on_5xx: bool,
    writers: BTreeMap<String, WriterFate>,
    triggers: BTreeMap<String, TriggerFate>,
}

impl SliceDraft {
    pub(super) fn finish(self) -> Option<Slice> {
        let bare = |tables: Vec<(Spot, Table)>| tables.into_iter().map(|(_, table)| table).collect();
        Some(Slice {
            name: self.name?,
            service: self.service?,
            routes: self.routes.into_iter().map(|(_, route)| route).collect(),
            tables: bare(self.tables),
            reference: bare(self.reference),
            sticky: self.sticky,
            falls_back_on_5xx: self.falls_back_on_5xx,
            writers: self.writers,
            triggers: self.triggers,
        })
    }
}

pub(super) fn slices(
    node: Option<&Node>,
    services: &BTreeMap<ServiceName, SideDraft>,
    notes: &mut Notes<'_>,
) -> Vec<SliceDraft> {
    let entries = reading::entries(node, "slices", notes);
    entries.into_iter().filter_map(|(key, node)| slice(key, node, services, notes)).collect()
}

fn slice(
    key: &Key,
    node: &Node,
    services: &BTreeMap<ServiceName, SideDraft>,
    notes: &mut Notes<'_>,
) -> Option<SliceDraft> {
    let name = reading::parse_key(key, "a slice's name", notes);
    let label = reading::shown(&key.text);
    let fields = Fields::open(node, &format!("slice `{label}`"), &KEYS, notes)?;
    let wants_databases = fields.filled("tables").is_some() || fields.filled("reference").is_some();
    let mistyped = ["routes", "tables", "reference"].iter().any(|key| fields.is_mistyped(key));
    if !wants_databases && !mistyped && fields.filled("routes").is_none() {
        let message = format!("slice `{label}` has neither routes nor tables");
        notes.error(
            key.spot,
            Code::PlanEmptySlice,
            message,
            "write for example `routes: { list: GET /orders }`",
        );
    }
    let mut tables = |key, kind| {
        let items = reading::items(fields.get(key), key, notes);
        items.into_iter().filter_map(|node| table::table(node, kind, notes)).collect()
    };
    let (moved, reference) = (tables("tables", Kind::Moved), tables("reference", Kind::Reference));
    let fates = [
        ("moved", WriterFate::Moved),
        ("disabled", WriterFate::Disabled),
        ("accepted", WriterFate::Accepted),
    ];
    let deeds = [("fire", TriggerFate::Fire), ("skip", TriggerFate::Skip)];
    Some(SliceDraft {
        name,
        service: service(&fields, services, notes),
        routes: routes(fields.get("routes"), notes),
        tables: moved,
        reference,
        wants_databases,
        sticky: fields.get("sticky").and_then(|node| sticky(node, notes)).unwrap_or_default(),
        falls_back_on_5xx: fields
            .get("fallback")
            .and_then(|node| falls_back(node, notes))
            .unwrap_or_default(),
        writers: words(fields.get("writers"), "writers", "what becomes of a writer", &fates, notes),
        triggers: words(fields.get("triggers"), "triggers", "what a trigger does", &deeds, notes),
        label,
    })
}

fn service(
    fields: &Fields<'_>,
    services: &BTreeMap<ServiceName, SideDraft>,
    notes: &mut Notes<'_>,
) -> Option<ServiceName> {
    let known: Vec<&str> = services.keys().map(ServiceName::as_str).collect();
    let hint = match known.first() {
        Some(first) => format!("write `service: {first}`"),
        None => "name a service under `services:` and write it here".to_owned(),
    };
    let node = fields.need("service", &hint, notes)?;
    let name: ServiceName = reading::parse(node, "a service's name", notes)?;
    if services.contains_key(&name) {
        return Some(name);
    }
    let scalar = reading::scalar(node, "a service's name", notes)?;
    let hint = match reading::nearest(name.as_str(), known.iter().copied()) {
        Some(near) => format!("write `{near}`"),
        None if known.is_empty() => "name it under `services:` with its upstream".to_owned(),
        None => format!("the plan names {}", reading::listed(&known)),
    };
    let message = format!("there is no service `{}`", reading::shown(&scalar.written));
    notes.error(node.spot, Code::PlanUnknownService, message, hint);
    None
}

fn routes(node: Option<&Node>, notes: &mut Notes<'_>) -> Vec<(Spot, Route)> {
    let entries = reading::entries(node, "routes", notes);
    entries.into_iter().filter_map(|(key, node)| route(key, node, notes)).collect()
}

fn route(key: &Key, node: &Node, notes: &mut Notes<'_>) -> Option<(Spot, Route)> {
    let name: Option<RouteName> = reading::parse_key(key, "a route's name", notes);
    let what = "a route such as `GET /orders/{id}`";
    let mut is_pinned = false;
    let (spot, pattern, access): (Spot, Option<Pattern>, Option<Access>) = match &node.value {
        Value::Map(_) => {
            let keys = ["match", "access", "side"];
            let fields = Fields::open(node, &format!("route `{}`", key.text), &keys, notes)?;
            let matched = fields.need("match", "write `match: GET /orders/{id}`", notes)?;
            let words = [("read", Access::Read), ("write", Access::Write)];
            let access = match fields.get("access") {
                Some(node) => Some(reading::choice(node, "an access", &words, notes)?),
                None => None,
            };
            if let Some(node) = fields.get("side") {
                is_pinned = reading::choice(node, "a side of a route", &[("monolith", true)], notes)?;
            }
            (matched.spot, reading::parse(matched, what, notes), access)
        }
        _ => (node.spot, reading::parse(node, what, notes), None),
    };
    let pattern = pattern?;
    let access = access.unwrap_or_else(|| pattern.default_access());
    Some((spot, Route { name: name?, pattern, access, is_pinned }))
}

fn falls_back(node: &Node, notes: &mut Notes<'_>) -> Option<bool> {
    reading::choice(node, "a reason to fall back", &[("on-5xx", true)], notes)
}

fn sticky(node: &Node, notes: &mut Notes<'_>) -> Option<Sticky> {
    let fields = Fields::open(node, "sticky", &["cookie", "header"], notes)?;
    let (cookie, header) = (fields.get("cookie"), fields.get("header"));
    let both_or_none = cookie.is_some() == header.is_some();
    if both_or_none {
        let message = "sticky names exactly one cookie or one header";
        notes.error(
            node.spot,
            Code::PlanBadSticky,
            message,
            "write `sticky: { cookie: session }`, or leave it out",
        );
        return None;
    }
    let node = cookie.or(header)?;
    let scalar = reading::scalar(node, "the name", notes)?;
    let meant = scalar.meant.as_deref()?;
    // A token in the sense of RFC 9110, 5.6.2: cookie names (RFC 6265, 4.1.1) and header names alike.
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if meant.is_empty() || meant.len() > 128 || !meant.bytes().all(fits) {
        let message = format!("`{}` is not the name of a cookie or header", reading::shown(&scalar.written));
        notes.error(node.spot, Code::PlanBadSticky, message, "write its bare name, e.g. `session`");
        return None;
    }
    Some(if cookie.is_some() { Sticky::Cookie(meant.to_owned()) } else { Sticky::Header(meant.to_owned()) })
}

fn words<T: Copy>(
    node: Option<&Node>,
    part: &str,
    what: &str,
    words: &[(&str, T)],
    notes: &mut Notes<'_>,
) -> BTreeMap<String, T> {
    let mut read = BTreeMap::new();
    for (key, node) in reading::entries(node, part, notes) {
        if key.text.trim().is_empty() {
            notes.error(key.spot, Code::PlanBadName, format!("a name in {part} is empty"), "write a name");
        }
        if let Some(word) = reading::choice(node, what, words, notes) {
            read.insert(key.text.clone(), word);
        }
    }
    read
}
