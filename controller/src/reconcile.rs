//! Makes the gates match the journal, e.g. after a database was failed over and lost its last commits. Idempotent: where all
//! is right nothing is touched. A slice that is crossing is the coordinator's matter.

use migrations::api::Reconciled;
use migrations::code::Code;
use migrations::finding::Finding;
use migrations::gate::{Gate, Side};
use migrations::journal::SliceState;
use migrations::plan::{Plan, Slice};
use migrations::problem::Problem;
use migrations::sql::Database;
use migrations::stage::{Owner, Stage};
use postgres::{connect, gate, in_words};
use std::time::Duration;
use tokio_postgres::Client;

/// One gate is looked at and turned within this time.
const SIDE_MAX: Duration = Duration::from_secs(10);
const SETTINGS: &str = "SET statement_timeout = '8s'";

/// What is to be done about a gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Deed {
    Nothing,
    Fence,
    Open,
    /// Nothing of ours can mend it.
    Tell(Finding),
}

/// Both gates of a slice.
pub(crate) async fn reconcile(plan: &Plan, slice: &Slice, state: &SliceState) -> Reconciled {
    let mut done = Reconciled { slice: slice.name.clone(), did: Vec::new(), findings: Vec::new() };
    if !is_due(slice, state) {
        return done;
    }
    for side in [Side::Monolith, Side::Service] {
        let working = mend(plan, slice, state, side, &mut done);
        if let Err(finding) = tokio::time::timeout(SIDE_MAX, working).await.unwrap_or_else(|_| {
            Err(unseen(slice, side, &format!("no answer within {} s", SIDE_MAX.as_secs())))
        }) {
            done.findings.push(finding);
        }
    }
    done
}

/// Whether the slice has gates that stand by the journal, and not by a coordinator.
pub(crate) fn is_due(slice: &Slice, state: &SliceState) -> bool {
    let is_gated = !matches!(state.stage, Stage::Monolith | Stage::Copying);
    !slice.tables.is_empty() && is_gated && !state.is_crossing()
}

async fn mend(
    plan: &Plan,
    slice: &Slice,
    state: &SliceState,
    side: Side,
    done: &mut Reconciled,
) -> Result<(), Finding> {
    let client = open(plan, slice, side).await?;
    let said = |error: &tokio_postgres::Error| unseen(slice, side, &in_words(error));
    let seen = gate::read(&client, &slice.name).await.map_err(|error| said(&error))?;
    let (name, epoch) = (&slice.name, state.epoch);
    let (turned, how) = match deed(slice, state, side, seen) {
        Deed::Nothing => return Ok(()),
        Deed::Tell(finding) => return Err(finding),
        Deed::Fence => (gate::fence(&client, name, epoch).await, "shut"),
        Deed::Open => (gate::open(&client, name, epoch).await, "open"),
    };
    turned.map_err(|error| {
        let message =
            format!("the gate of slice {name} at the {side} cannot be {how} again: {}", in_words(&error));
        Finding::error(
            Code::GateOther,
            message,
            "look at `strangler journal` and run `strangler reconcile` again",
        )
    })?;
    done.did.push(format!("the {side}'s gate is {how} again, at epoch {epoch}"));
    Ok(())
}

/// What the journal wants of a gate that was seen so.
pub(crate) fn deed(slice: &Slice, state: &SliceState, side: Side, seen: Option<Gate>) -> Deed {
    let (name, epoch) = (&slice.name, state.epoch);
    let wants_shut = match state.stage.owner() {
        Owner::Monolith => side == Side::Service,
        Owner::Service => side == Side::Monolith,
        Owner::Nobody => true,
    };
    let Some(seen) = seen else {
        let message = format!("slice {name} has no gate at the {side}");
        let remedy = "run `strangler install`, then `strangler sync drop` and `strangler sync start`";
        return Deed::Tell(Finding::error(Code::GateNotInstalled, message, remedy));
    };
    if seen.epoch > epoch {
        let proof = if side == Side::Service && !seen.is_shut {
            ": the service owned it then, and may have taken writes that the monolith lacks"
        } else {
            ""
        };
        let message = format!(
            "the gate of slice {name} at the {side} has seen epoch {}, and the journal only {epoch}: the journal lost \
             entries{proof}",
            seen.epoch
        );
        let remedy = format!(
            "stop the writers of slice {name}, restore the journal to what the other database knows, and run `strangler \
             verify {name}`"
        );
        return Deed::Tell(Finding::error(Code::GateAhead, message, remedy));
    }
    match (wants_shut, seen.is_shut) {
        (true, false) => Deed::Fence,
        (false, true) => Deed::Open,
        _ => Deed::Nothing,
    }
}

async fn open(plan: &Plan, slice: &Slice, side: Side) -> Result<Client, Finding> {
    let database = match side {
        Side::Monolith => Database::Monolith,
        Side::Service => Database::Service(slice.service.clone()),
    };
    let Some(url) = database.url(plan) else {
        return Err(unseen(slice, side, &format!("the plan gives {database} no URL")));
    };
    let client = connect(url, "strangler reconcile").await;
    let client = client.map_err(|error| Finding::from(Problem::of(&error)))?;
    client.batch_execute(SETTINGS).await.map_err(|error| unseen(slice, side, &in_words(&error)))?;
    Ok(client)
}

fn unseen(slice: &Slice, side: Side, why: &str) -> Finding {
    let message = format!("the gate of slice {} at the {side} cannot be seen: {why}", slice.name);
    Finding::error(Code::GateOther, message, "mend that, then run `strangler reconcile` again")
}

#[cfg(test)]
mod tests {
    use super::*;
    use migrations::crossing::{Crossing, Digest, Intent};
    use migrations::lsn::{CommitLsn, EndLsn, Of};
    use migrations::stage::Epoch;

    const PLAN: &str = r#"
version: 1
name: shop
monolith: { upstream: "http://127.0.0.1:1", database: "postgres://a@b/monolith" }
services: { orders: { upstream: "http://127.0.0.1:2", database: "postgres://a@b/orders" } }
slices:
  orders: { service: orders, routes: { show: "GET /orders/{id}" }, tables: [public.orders] }
"#;

    fn deed_of(is_split: bool, side: Side, is_shut: bool, epoch: u64) -> Deed {
        let (plan, _) = migrations::plan::check("plan.yaml", PLAN, &|_| None).unwrap();
        let slice = plan.slices.values().next().unwrap();
        let copied_at = Of::monolith(CommitLsn::default());
        let crossing = Crossing {
            intent: Intent::Cutover { for_ms: None },
            plan: Digest(1),
            schema: Digest(2),
            reverse_from: Of::service(EndLsn::default()),
        };
        let stage = if is_split {
            Stage::Split { copied_at, crossing, returns_at: None }
        } else {
            Stage::Following { copied_at }
        };
        let state = SliceState { stage, epoch: Epoch(5), ..SliceState::default() };
        deed(slice, &state, side, Some(Gate { epoch: Epoch(epoch), is_shut }))
    }

    #[test]
    fn a_gate_that_a_failover_turned_is_turned_again() {
        assert_eq!(deed_of(true, Side::Monolith, false, 4), Deed::Fence);
        assert_eq!(deed_of(true, Side::Monolith, true, 5), Deed::Nothing);
        assert_eq!(deed_of(true, Side::Service, true, 5), Deed::Open);
        assert_eq!(deed_of(false, Side::Monolith, true, 5), Deed::Open);
        assert_eq!(deed_of(false, Side::Service, false, 4), Deed::Fence);
        assert_eq!(deed_of(false, Side::Service, true, 3), Deed::Nothing);
    }

    #[test]
    fn a_gate_that_knows_more_than_the_journal_is_told_and_not_touched() {
        for side in [Side::Monolith, Side::Service] {
            let Deed::Tell(finding) = deed_of(false, side, false, 6) else { panic!("{side}") };
            assert_eq!(finding.code, Code::GateAhead);
            assert_eq!(finding.message.contains("may have taken writes"), side == Side::Service);
        }
    }
}
