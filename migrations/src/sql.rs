//! All SQL that strangler installs, and the names of what it makes in databases.
//!
//! The files in `sql/` are static: what they must know about the plan they read as JSON from a setting of their
//! transaction, so no name is ever pasted into a script. Owners and keys they find out themselves; nothing here
//! needs a live database, and a DBA can run the same text.

mod login;

use crate::code::Code;
use crate::names::{PlanName, ServiceName, TableName, quote_literal};
use crate::plan::{DatabaseUrl, Plan, Slice, Table, TriggerFate};
use crate::problem::Diagnostic;
use crate::text::BadText;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt;

pub use login::Login;

pub const SCHEMA: &str = "strangler";

/// The publication of a plan's tables, in each database that is a source.
pub fn publication(plan: &PlanName) -> String {
    format!("strangler_{}", plan.as_str().replace('-', "_"))
}

/// The replication slot that keeps WAL for the log with id `log`: a log that is gone is recognised by its slot's name.
pub fn slot(plan: &PlanName, log: &str) -> String {
    let log: String = log.chars().filter(char::is_ascii_alphanumeric).take(8).collect();
    format!("{}{}", slot_prefix(plan), log.to_ascii_lowercase())
}

/// What the names of all of a plan's slots begin with.
pub fn slot_prefix(plan: &PlanName) -> String {
    format!("strangler_{}_", plan.as_str().replace('-', "_"))
}

/// A regular expression for the names of a plan's slots and of no other plan's: plan `shop` must not take the
/// slots of plan `shop-2`.
pub fn slot_pattern(plan: &PlanName) -> String {
    format!("^{}[a-z0-9]{{8}}$", slot_prefix(plan))
}

/// Whether a slot's name is of this plan, as [`slot_pattern`] says it.
pub fn is_slot_of(plan: &PlanName, name: &str) -> bool {
    let is_id = |id: &str| id.len() == 8 && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    name.strip_prefix(&slot_prefix(plan)).is_some_and(is_id)
}

/// A database that strangler works in. On the wire it is [`Database::as_str`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Database {
    /// The monolith's: journal, publication, the source tables' gates.
    Monolith,
    /// A service's: streams, the sink tables' gates.
    Service(ServiceName),
}

impl Database {
    /// `monolith`, or the service's name.
    pub fn as_str(&self) -> &str {
        match self {
            Database::Monolith => "monolith",
            Database::Service(service) => service.as_str(),
        }
    }

    /// Every database of a plan in which something is installed: the monolith's if there is one, and those of
    /// services that get tables.
    pub fn all(plan: &Plan) -> Vec<Database> {
        let monolith = plan.monolith.database.as_ref().map(|_| Database::Monolith);
        let services = plan.services.iter().filter(|(name, service)| {
            let gets_tables = plan.slices.values().any(|s| s.service == **name && !s.is_stateless());
            service.database.is_some() && gets_tables
        });
        monolith.into_iter().chain(services.map(|(name, _)| Database::Service(name.clone()))).collect()
    }

    pub fn slices<'p>(&self, plan: &'p Plan) -> impl Iterator<Item = &'p Slice> {
        plan.slices.values().filter(|slice| match self {
            Database::Monolith => !slice.is_stateless(),
            Database::Service(service) => !slice.is_stateless() && slice.service == *service,
        })
    }

    /// Whether changes are captured from it: the monolith's always, a service's so that a slice may come back.
    pub fn is_source(&self, plan: &Plan) -> bool {
        *self == Database::Monolith || self.slices(plan).any(Slice::may_return)
    }

    /// Its URL in the plan, by strangler's own role.
    pub fn url<'a>(&self, plan: &'a Plan) -> Option<&'a DatabaseUrl> {
        match self {
            Database::Monolith => plan.monolith.database.as_ref(),
            Database::Service(service) => plan.services.get(service)?.database.as_ref(),
        }
    }
}

impl TryFrom<String> for Database {
    type Error = BadText;
    fn try_from(text: String) -> Result<Self, BadText> {
        // The plan's check refuses a service of that name.
        if text == "monolith" { Ok(Self::Monolith) } else { text.parse().map(Self::Service) }
    }
}

impl From<Database> for String {
    fn from(database: Database) -> String {
        database.as_str().to_owned()
    }
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Database::Monolith => f.write_str("the monolith's database"),
            Database::Service(service) => write!(f, "service {service}'s database"),
        }
    }
}

/// A piece of SQL with a title. All scripts for one database belong into one transaction, in their order.
#[derive(Clone, PartialEq, Eq)]
pub struct Script {
    /// What it does, for the one who watches.
    pub title: String,
    /// Several statements. It may hold the role's password: for running, never for showing.
    pub sql: String,
    is_secret: bool,
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Script({})", self.title)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoScript {
    #[error("the plan gives {0} no URL")]
    NoDatabase(String),
    #[error("the URL of {0} names no user")]
    NoUser(String),
}

impl Diagnostic for NoScript {
    fn code(&self) -> Code {
        Code::PlanBadDatabase
    }

    fn remedy(&self) -> String {
        match self {
            NoScript::NoDatabase(_) => {
                "write its URL under `database:` in the plan, then run `strangler check`"
            }
            NoScript::NoUser(_) => {
                "write `postgres://strangler:password@host/database` with a role of strangler's own, which \
                 `strangler install` makes"
            }
        }
        .to_owned()
    }
}

/// The command that installs a plan: it wants an administrator's URL for each of its databases.
pub fn install_command(plan: &Plan) -> String {
    let urls = Database::all(plan);
    let urls = urls.iter().map(|database| format!(" --admin-url {}=URL", database.as_str()));
    format!("strangler install{}", urls.collect::<String>())
}

/// The script that makes everything strangler needs in a database. It may be run again at any time, and must be
/// when the plan's tables change.
pub fn install(plan: &Plan, database: &Database) -> Result<Vec<Script>, NoScript> {
    let login = login(plan, database)?;
    let mut scripts = vec![facts_script(plan, database, &login.user)];
    if let Some(password) = &login.password {
        scripts.push(Script {
            title: "password of the role".to_owned(),
            sql: format!(
                "SELECT pg_catalog.set_config('strangler.password', {}, true);",
                quote_literal(password)
            ),
            is_secret: true,
        });
    }
    scripts.push(file(format!("role {}", login.user), include_str!("../sql/0001_role.sql")));
    scripts.push(file("schema strangler", include_str!("../sql/0002_schema.sql")));
    if *database == Database::Monolith {
        scripts.push(file("journal", include_str!("../sql/0003_journal.sql")));
    }
    scripts.push(file("streams", include_str!("../sql/0004_stream.sql")));
    scripts.push(file("gate", include_str!("../sql/0005_gate.sql")));
    if *database == Database::Monolith {
        scripts.push(file("abort", include_str!("../sql/0006_abort.sql")));
    }
    scripts.push(file("slices", include_str!("../sql/0007_slices.sql")));
    scripts.push(file("rights", include_str!("../sql/0008_rights.sql")));
    let title = format!("publication {}", publication(&plan.name));
    scripts.push(file(title, include_str!("../sql/0009_publication.sql")));
    if *database == Database::Monolith {
        scripts.push(file("writers", include_str!("../sql/0010_writers.sql")));
    }
    Ok(scripts)
}

/// The script that takes everything away from a database again. It fails while a service owns a slice's tables
/// and while a bridge reads a slot.
pub fn uninstall(plan: &Plan, database: &Database) -> Result<Vec<Script>, NoScript> {
    let login = login(plan, database)?;
    Ok(vec![
        facts_script(plan, database, &login.user),
        file("nothing stands in the way", include_str!("../sql/0101_may_leave.sql")),
        file("publication, gates, schema strangler", include_str!("../sql/0102_leave.sql")),
        file(format!("role {}", login.user), include_str!("../sql/0103_role_leaves.sql")),
        file("slots", include_str!("../sql/0104_slots_leave.sql")),
    ])
}

/// A script as a DBA runs it with `psql`: one transaction, without the password, which psql asks for.
pub fn printed(plan: &Plan, database: &Database, scripts: &[Script]) -> Result<String, NoScript> {
    let login = login(plan, database)?;
    let mut text =
        format!("-- For {database}, to be run with psql by a superuser or the owner of the tables.\n");
    text.push_str("\\set ON_ERROR_STOP on\nBEGIN;\n");
    for script in scripts.iter().filter(|script| !script.is_secret) {
        text.push_str(&format!("\n-- {}\n{}\n", script.title, script.sql.trim_end()));
    }
    text.push_str("\nCOMMIT;\n");
    if scripts.iter().any(|script| script.is_secret) {
        let user = crate::names::quote_identifier(&login.user);
        text.push_str(&format!(
            "-- The password that stands in the plan's database URL:\n\\password {user}\n"
        ));
    }
    Ok(text)
}

/// The user and the password by which strangler enters a database.
pub fn login(plan: &Plan, database: &Database) -> Result<Login, NoScript> {
    let url = database.url(plan).ok_or_else(|| NoScript::NoDatabase(database.to_string()))?;
    Login::of(url).ok_or_else(|| NoScript::NoUser(database.to_string()))
}

/// What the scripts know about the plan, and what `doctor` compares with what was installed.
pub fn facts(plan: &Plan, database: &Database, role: &str) -> Value {
    let slices: Vec<Value> = database.slices(plan).map(|slice| slice_facts(slice, database)).collect();
    let returns: Vec<_> =
        database.slices(plan).filter(|slice| slice.may_return()).map(|slice| &slice.name).collect();
    json!({
        "plan": plan.name,
        "part": database.as_str(),
        "side": if *database == Database::Monolith { "monolith" } else { "service" },
        "is_source": database.is_source(plan),
        "returns": returns,
        "role": role,
        "publication": publication(&plan.name),
        "slots": slot_pattern(&plan.name),
        "slices": slices,
    })
}

/// One slice's part of [`facts`].
pub fn slice_facts(slice: &Slice, database: &Database) -> Value {
    let name = |table: &TableName| json!({ "schema": table.schema, "name": table.name });
    let is_monolith = *database == Database::Monolith;
    let names = |tables: &[Table]| -> Vec<Value> {
        tables.iter().map(|table| name(if is_monolith { &table.from } else { &table.to })).collect()
    };
    let stream = |table: &Table| {
        let read: BTreeSet<&String> = table.set.values().flat_map(|set| &set.columns).collect();
        let kind = if slice.reference.contains(table) { "reference" } else { "moved" };
        json!({ "schema": table.from.schema, "name": table.from.name, "kind": kind, "left_out": table.left_out(), "read": read })
    };
    let published: Vec<Value> = captured(slice, database).iter().map(stream).collect();
    let skip: Vec<&String> = slice
        .triggers
        .iter()
        .filter(|(_, fate)| **fate == TriggerFate::Skip)
        .map(|(trigger, _)| trigger)
        .collect();
    json!({
        "slice": slice.name,
        "service": slice.service,
        "moved": names(&slice.tables),
        "reference": names(&slice.reference),
        "skip": skip,
        "published": published,
    })
}

/// The slice's tables whose changes are captured from this database, as the lane from there sees them.
pub fn captured(slice: &Slice, database: &Database) -> Vec<Table> {
    match database {
        Database::Monolith => slice.all_tables().cloned().collect(),
        Database::Service(_) if slice.may_return() => slice.tables.iter().map(Table::reversed).collect(),
        Database::Service(_) => Vec::new(),
    }
}

/// The functions of schema strangler that its role must be able to call for a slice.
pub fn functions(slice: &Slice, database: &Database) -> Vec<String> {
    let mut functions: Vec<String> =
        ["fence", "open", "gate_make", "gate_unmake", "gate_raise", "rehearse_gate"]
            .map(str::to_owned)
            .into();
    functions.push(format!("gate_of_{}", slice.name));
    if !captured(slice, database).is_empty() {
        functions.push("publish".to_owned());
    }
    if *database == Database::Monolith {
        functions.extend([
            "abort".to_owned(),
            "abort_expired".to_owned(),
            format!("abort_of_{}", slice.name),
        ]);
        if !slice.tables.is_empty() {
            functions.extend(["watch_writers", "unwatch_writers"].map(str::to_owned));
            functions.push(format!("writers_of_{}", slice.name));
        }
    }
    functions
}

fn facts_script(plan: &Plan, database: &Database, role: &str) -> Script {
    let facts = quote_literal(&facts(plan, database, role).to_string());
    // Whoever may make functions in a schema of the administrator's path would run them with his rights.
    let sql = format!(
        "SET LOCAL client_min_messages = warning;\nSET LOCAL search_path = pg_catalog, pg_temp;\nSET LOCAL jit = off;\n\
         SELECT pg_catalog.set_config('strangler.facts', {facts}, true);"
    );
    Script { title: format!("what plan {} says about {database}", plan.name), sql, is_secret: false }
}

fn file(title: impl Into<String>, sql: &str) -> Script {
    Script { title: title.into(), sql: sql.to_owned(), is_secret: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plans_slots_are_not_taken_for_anothers() {
        let shop: PlanName = "shop".parse().unwrap();
        let shop_2: PlanName = "shop-2".parse().unwrap();
        assert_eq!(slot(&shop, "AB-cd1234ef99"), "strangler_shop_abcd1234");
        assert!(slot(&shop_2, "abcd").starts_with(&slot_prefix(&shop)));
        assert_eq!(slot_pattern(&shop), "^strangler_shop_[a-z0-9]{8}$");
        let slots = [slot(&shop, "AB-cd1234ef99"), slot(&shop_2, "AB-cd1234ef99")];
        assert_eq!(slots.each_ref().map(|slot| is_slot_of(&shop, slot)), [true, false]);
        assert_eq!(slots.each_ref().map(|slot| is_slot_of(&shop_2, slot)), [false, true]);
        assert!(!is_slot_of(&shop, "strangler_shop_ab") && !is_slot_of(&shop, "strangler_shop_ABCD1234"));
    }
}
