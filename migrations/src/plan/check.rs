//! From the plan as written to the plan as meant, or every finding at once, each with its place.
//!
//! Looks at nothing but the text and the environment it is given: whether databases and upstreams are there, and
//! whether tables have these columns, is for `doctor`.

mod across;
mod address;
mod kafka;
mod publish;
mod reading;
mod settings;
mod slice;
mod table;
mod tls;

use super::tree::{self, Node, Spot};
use super::written::Notes;
use super::{Checked, Monolith, Plan, Service, environment, fingerprint};
use crate::code::Code;
use crate::names::ServiceName;
use address::{Database, Listener};
use reading::Fields;
use slice::SliceDraft;
use std::collections::BTreeMap;

/// A plan longer than this is not read.
pub(super) const PLAN_BYTES_MAX: usize = 1 << 20;

const KEYS: [&str; 11] = [
    "version",
    "name",
    "monolith",
    "services",
    "log",
    "proxy",
    "controller",
    "bridge",
    "slices",
    "accept",
    "limits",
];

/// Checks a plan. `file_name` is only shown; `env` answers what a variable holds. The plan comes with its
/// warnings; otherwise all findings come in the order of the file. What a variable holds is only repeated where it
/// became a name.
pub fn check(file_name: &str, text: &str, env: &dyn Fn(&str) -> Option<String>) -> Checked {
    let too_large = text.len() > PLAN_BYTES_MAX;
    let mut notes = Notes::new(file_name, if too_large { "" } else { text });
    let start = Spot { line: 1, column: 1 };
    if too_large {
        let message = format!("the file has {} bytes; a plan has at most {PLAN_BYTES_MAX}", text.len());
        notes.error(start, Code::PlanTooLarge, message, "name the plan with `--plan FILE`");
        return Err(notes.into_findings());
    }
    let mut root = match tree::read(text) {
        Ok(root) => root,
        Err(unreadable) => {
            notes.error(unreadable.spot, unreadable.code, unreadable.message, unreadable.hint);
            return Err(notes.into_findings());
        }
    };
    environment::fill(&mut root, env, &mut notes);
    let plan = Draft::read(&root, &mut notes).and_then(|draft| draft.finish(&mut notes));
    match plan {
        Some(plan) if !notes.has_errors() => Ok((plan, notes.into_findings())),
        _ => {
            if !notes.has_errors() {
                let hint = "compare it with the example in docs/plan.md";
                notes.error(start, Code::PlanIncomplete, "the plan is not complete", hint);
            }
            Err(notes.into_findings())
        }
    }
}

/// One side of the move, as far as it could be read.
pub(super) struct SideDraft {
    /// `the monolith`, or the service's name in backticks.
    label: String,
    upstreams: Vec<super::Upstream>,
    database: Option<Database>,
    /// There is a `database:` that is a finding already.
    database_broken: bool,
    spot: Spot,
}

/// Everything that could be read, with the places that checks across the file need.
pub(super) struct Draft {
    name: Option<crate::names::PlanName>,
    monolith: Option<SideDraft>,
    services: BTreeMap<ServiceName, SideDraft>,
    slices: Vec<SliceDraft>,
    settings: settings::Settings,
    listeners: Vec<Listener>,
}

impl Draft {
    fn read(root: &Node, notes: &mut Notes<'_>) -> Option<Draft> {
        let fields = Fields::open(root, "the plan", &KEYS, notes)?;
        version(&fields, notes);
        let name = fields.need("name", "write for example `name: shop`", notes);
        let name = name.and_then(|node| reading::parse(node, "a plan's name", notes));
        let monolith =
            fields.need("monolith", "write `monolith: { upstream: http://127.0.0.1:4000 }`", notes);
        let monolith = monolith.and_then(|node| side(node, "the monolith".to_owned(), notes));
        let services = services(&fields, notes);
        let slices = slice::slices(fields.get("slices"), &services, notes);
        if slices.is_empty() && fields.filled("slices").is_none() {
            let hint = "everything goes to the monolith; add `slices:` to move something";
            notes.warning(fields.owner, Code::PlanNoSlices, "the plan has no slices", hint);
        }
        let mut listeners = Vec::new();
        let settings = settings::Settings::read(&fields, name.as_ref(), &mut listeners, notes);
        Some(Draft { name, monolith, services, slices, settings, listeners })
    }

    fn finish(self, notes: &mut Notes<'_>) -> Option<Plan> {
        across::check(&self, notes);
        let monolith = self.monolith?;
        let services = self.services.into_iter().map(|(name, side)| {
            let database = side.database.map(|database| database.url);
            (name, Service { upstreams: side.upstreams, database })
        });
        let slices =
            self.slices.into_iter().map(|draft| draft.finish().map(|slice| (slice.name.clone(), slice)));
        let mut plan = Plan {
            name: self.name?,
            monolith: Monolith {
                upstreams: monolith.upstreams,
                database: monolith.database.map(|database| database.url),
            },
            services: services.collect(),
            log: self.settings.log?,
            proxy: self.settings.proxy,
            controller: self.settings.controller,
            bridge: self.settings.bridge,
            slices: slices.collect::<Option<_>>()?,
            accept: self.settings.accept,
            limits: self.settings.limits,
            hash: String::new(),
        };
        plan.hash = fingerprint::of(&plan);
        Some(plan)
    }
}

fn version(fields: &Fields<'_>, notes: &mut Notes<'_>) {
    let Some(node) = fields.need("version", "begin the file with `version: 1`", notes) else { return };
    let Some(text) = reading::text(node, "the version", notes) else { return };
    if text != "1" {
        let message = "this strangler reads version 1 of the plan";
        notes.error(node.spot, Code::PlanVersion, message, "write `version: 1`");
    }
}

fn services(fields: &Fields<'_>, notes: &mut Notes<'_>) -> BTreeMap<ServiceName, SideDraft> {
    let mut services = BTreeMap::new();
    for (key, node) in reading::entries(fields.get("services"), "services", notes) {
        let name: Option<ServiceName> = reading::parse_key(key, "a service's name", notes);
        if key.text == "monolith" {
            let hint = "choose the name of what it does, e.g. `orders`";
            notes.error(key.spot, Code::PlanBadName, "a service cannot be called `monolith`", hint);
        }
        let side = side(node, format!("service `{}`", key.text), notes);
        if let (Some(name), Some(side)) = (name, side) {
            services.insert(name, side);
        }
    }
    services
}

fn side(node: &Node, label: String, notes: &mut Notes<'_>) -> Option<SideDraft> {
    let fields = Fields::open(node, &label, &["upstream", "database"], notes)?;
    let upstream =
        fields.need("upstream", "write `upstream: http://127.0.0.1:4000`, or a list of these", notes);
    let upstreams = upstream.map(|node| address::upstreams(node, notes)).unwrap_or_default();
    let written = fields.get("database");
    let database = written.and_then(|node| address::database(node, notes));
    let database_broken = written.is_some() && database.is_none();
    Some(SideDraft { label, upstreams, database, database_broken, spot: node.owner })
}
