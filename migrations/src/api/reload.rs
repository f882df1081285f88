//! Whether a running house may take an edited plan: what is copied, followed, moved or sent to a service must stay what it is.
//!
//! Pure. The two plans are compared by what they say of names and places, so that no secret travels.

use crate::code::Code;
use crate::finding::Finding;
use crate::journal::{SliceState, State};
use crate::names::{PlanName, RouteName, ServiceName, SliceName, TableName};
use crate::plan::{LogChoice, Plan, Slice};
use crate::problem::Problem;
use crate::sql::Database;
use crate::stage::Stage;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What of a plan may be in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outline {
    pub name: PlanName,
    /// The plan's hash.
    pub hash: String,
    /// Where the controller listens.
    pub controller: String,
    /// Which log it is: not its size or its brokers.
    log: String,
    /// The databases' URLs without passwords and parameters.
    databases: BTreeMap<Database, String>,
    slices: BTreeMap<SliceName, SliceOutline>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SliceOutline {
    service: ServiceName,
    has_tables: bool,
    /// What its rows are made of, and by what, as a hash for each table of the monolith's.
    rows: BTreeMap<TableName, String>,
    /// Those of them that the service only reads.
    #[serde(default)]
    reference: BTreeSet<TableName>,
    may_return: bool,
    routes: BTreeSet<RouteName>,
}

impl Outline {
    pub fn of(plan: &Plan) -> Outline {
        let log = match &plan.log {
            LogChoice::Embedded { .. } => "embedded".to_owned(),
            LogChoice::Kafka { topic_prefix, .. } => format!("kafka, topic_prefix {topic_prefix}"),
        };
        let databases = Database::all(plan).into_iter();
        let databases = databases.filter_map(|database| {
            let shown = database.url(plan)?.redacted();
            Some((database, shown))
        });
        Outline {
            name: plan.name.clone(),
            hash: plan.hash.clone(),
            controller: plan.controller.listen.clone(),
            log,
            databases: databases.collect(),
            slices: plan.slices.iter().map(|(name, slice)| (name.clone(), SliceOutline::of(slice))).collect(),
        }
    }

    /// Takes `next` in this plan's place, as the journal stands. The slices `stopped` were copied otherwise than this plan
    /// says, and stopped at that: `next` may put their tables back.
    ///
    /// # Errors
    /// With a finding for each thing that is in use and would change.
    pub fn reloaded(
        &self,
        next: &Outline,
        state: &State,
        stopped: &BTreeSet<SliceName>,
    ) -> Result<(), Problem> {
        let torn = state
            .slices
            .iter()
            .flat_map(|(name, slice)| self.torn(next, name, slice, stopped.contains(name)));
        let findings: Vec<Finding> = self.lost_journal(next, state).into_iter().chain(torn).collect();
        if findings.is_empty() {
            return Ok(());
        }
        let message = "the edited plan changes what is in use; nothing was changed";
        let remedy = "do what each finding says, or take the change back; then run `strangler reload` again";
        Err(Problem::new(Code::PlanInUse, message, remedy).with(findings))
    }

    fn lost_journal(&self, next: &Outline, state: &State) -> Option<Finding> {
        let held = self.databases.get(&Database::Monolith)?;
        if state.slices.is_empty() || next.databases.get(&Database::Monolith) == Some(held) {
            return None;
        }
        let message = format!("the journal is in {held}, and the plan names this database no more");
        let remedy = "put it back; to begin a new journal, run `strangler sync drop` for each slice, then `strangler down` and `strangler up --detach`";
        Some(finding(message, remedy.to_owned()))
    }

    fn torn(
        &self,
        next: &Outline,
        name: &SliceName,
        slice: &SliceState,
        is_copied_otherwise: bool,
    ) -> Vec<Finding> {
        if slice.is_crossing() || matches!(slice.stage, Stage::Cutting { .. } | Stage::Returning { .. }) {
            let remedy =
                format!("wait until it has ended (`strangler status -w`), or `strangler abort {name}`");
            return vec![finding(format!("writes of slice {name} are being moved"), remedy)];
        }
        let (held, wanted) = (self.slices.get(name), next.slices.get(name));
        let mut changes = Vec::new();
        if slice.stage != Stage::Monolith {
            changes.extend(self.moved(next, held.map(|held| &held.service)));
            changes.extend(changed(held, wanted, slice.stage, is_copied_otherwise));
        }
        let mut findings: Vec<Finding> = Vec::new();
        if !changes.is_empty() {
            let message = format!(
                "slice {name} is {}, and the plan changes {}",
                slice.stage.name(),
                changes.join(", ")
            );
            findings.push(finding(message, ends(name, slice.stage)));
        }
        findings.extend(lost_routes(name, slice, held, wanted));
        if slice.stage == Stage::Monolith
            && !slice.shares.is_empty()
            && wanted.is_some_and(|one| one.has_tables)
            && held.is_none_or(|one| !one.has_tables)
        {
            let message =
                format!("slice {name} gets tables while its requests go to the service, which has no copy");
            findings.push(finding(message, format!("run `strangler route set {name} monolith` first")));
        }
        findings
    }

    /// What every copy stands on, where it would be another one.
    fn moved(&self, next: &Outline, service: Option<&ServiceName>) -> Vec<String> {
        let mut changes = Vec::new();
        if self.name != next.name {
            changes.push("the plan's name".to_owned());
        }
        if self.log != next.log {
            changes.push(format!("the log ({} → {})", self.log, next.log));
        }
        let service = service.cloned().map(Database::Service);
        for database in [Some(Database::Monolith), service].into_iter().flatten() {
            if self.databases.get(&database) != next.databases.get(&database) {
                changes.push(format!("the database of {database}"));
            }
        }
        changes
    }
}

impl SliceOutline {
    fn of(slice: &Slice) -> Self {
        Self {
            service: slice.service.clone(),
            has_tables: !slice.is_stateless(),
            rows: slice
                .all_tables()
                .map(|table| (table.from.clone(), slice.only(|one| one.from == table.from).mapping_hash()))
                .collect(),
            reference: slice.reference.iter().map(|table| table.from.clone()).collect(),
            may_return: slice.may_return(),
            routes: slice.routes.iter().map(|route| route.name.clone()).collect(),
        }
    }

    /// Whether tables came, and nothing else changed, while they can be added to the copy. When the move is complete, only
    /// what the service reads is still followed.
    fn only_grew(&self, next: &SliceOutline, stage: Stage) -> bool {
        let is_read = |table: &TableName| self.rows.contains_key(table) || next.reference.contains(table);
        let may_grow = match stage {
            Stage::Following { .. } => true,
            Stage::Retired => next.rows.keys().all(is_read),
            _ => false,
        };
        may_grow && self.rows.iter().all(|(table, made)| next.rows.get(table) == Some(made))
    }
}

fn changed(
    held: Option<&SliceOutline>,
    wanted: Option<&SliceOutline>,
    stage: Stage,
    is_copied_otherwise: bool,
) -> Vec<String> {
    let mut changes = Vec::new();
    match (held, wanted) {
        (Some(held), Some(wanted)) => {
            if held.service != wanted.service {
                changes.push(format!("its service ({} → {})", held.service, wanted.service));
            }
            let is_whole = held.rows == wanted.rows || held.only_grew(wanted, stage);
            if !is_whole && !is_copied_otherwise {
                changes.push("its tables or how their rows are mapped".to_owned());
            }
            if stage.is_at_service() && stage != Stage::Retired && held.may_return && !wanted.may_return {
                changes.push("its way back".to_owned());
            }
        }
        (Some(_), None) => changes.push("that there is such a slice".to_owned()),
        // The plan that runs does not know it: it can only get better.
        (None, _) => {}
    }
    changes
}

/// Requests that go to the service would go to the monolith.
fn lost_routes(
    name: &SliceName,
    slice: &SliceState,
    held: Option<&SliceOutline>,
    wanted: Option<&SliceOutline>,
) -> Option<Finding> {
    let held = held?;
    let is_at_service = |route: &&RouteName| slice.stage.is_at_service() || slice.shares.contains_key(*route);
    let is_lost = |route: &&RouteName| wanted.is_none_or(|wanted| !wanted.routes.contains(*route));
    let lost: Vec<String> = held
        .routes
        .iter()
        .filter(is_at_service)
        .filter(is_lost)
        .map(|route| format!("{name}.{route}"))
        .collect();
    if lost.is_empty() {
        return None;
    }
    let message = format!("requests of {} go to the service, and the plan has this no more", lost.join(", "));
    let remedy = if slice.stage.is_at_service() {
        "keep the route under its name while the service owns the slice".to_owned()
    } else {
        let back: Vec<String> =
            lost.iter().map(|route| format!("`strangler route set {route} monolith`")).collect();
        format!("run {} first", back.join(", "))
    };
    Some(finding(message, remedy))
}

fn ends(name: &SliceName, stage: Stage) -> String {
    match stage {
        Stage::Retired => {
            "keep what the slice is made of: its move is final; only tables under `reference` may be added"
                .to_owned()
        }
        Stage::Split { .. } | Stage::Returning { .. } => {
            format!("put it back, or run `strangler rollback {name}` and give the copy up then")
        }
        Stage::Monolith | Stage::Copying | Stage::Following { .. } | Stage::Cutting { .. } => format!(
            "run `strangler route set {name} monolith` and `strangler sync drop {name}`; after the reload `strangler sync start {name}`"
        ),
    }
}

fn finding(message: String, remedy: String) -> Finding {
    Finding::error(Code::PlanInUse, message, remedy)
}
