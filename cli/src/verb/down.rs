//! `strangler down`: stops what `up` started here, and names the slots and gates that stay.

use crate::house::{Kept, Watch};
use crate::invocation::Invocation;
use crate::outlook;
use crate::part::Part;
use crate::ui::Ui;
use migrations::problem::Problem;
use migrations::sql::Database;
use serde_json::json;
use std::time::Duration;

/// How long the supervisor may take. It kills slow parts sooner than this.
const SUPERVISOR_PATIENCE: Duration = Duration::from_secs(10);
/// How long the controller may take to answer.
const ASK_PATIENCE: Duration = Duration::from_secs(2);
/// How long a part without a supervisor may take.
const PART_PATIENCE: Duration = Duration::from_secs(4);

pub(crate) async fn run(call: &Invocation<'_>) -> Result<(), Problem> {
    let house = call.house();
    let mut kept = None;
    let mut stopped = false;
    let mut killed = false;
    if let Some(watch) = house.up() {
        let mut progress = call.ui.progress();
        progress.state("stopping");
        kept = kept_now(call, &watch).await;
        stopped = true;
        killed = !watch.process.end(SUPERVISOR_PATIENCE).await;
        house.forget_up();
    }
    // Parts that are left because the supervisor was killed; the proxy last.
    for part in Part::ALL {
        if let Some(record) = house.running(part) {
            stopped = true;
            killed |= !record.end(PART_PATIENCE).await;
            house.forget(part);
        }
    }
    call.ui.json(&json!({
        "stopped": stopped, "killed": killed, "slot": kept.as_ref().map(|kept| &kept.slot),
        "service_slots": kept.as_ref().map(|kept| &kept.service_slots), "shut": kept.as_ref().map(|kept| &kept.shut),
        "next_steps": ["strangler up --detach"],
    }));
    match (stopped, killed) {
        (false, _) => call.ui.line("nothing of this plan is running here"),
        (true, false) => call.ui.tick("stopped"),
        (true, true) => {
            call.ui.tick("stopped; parts that did not end in time were killed, and nothing is lost")
        }
    }
    if let Some(kept) = &kept {
        say_kept(call.ui, kept);
    } else {
        call.ui.next_steps(&["strangler up --detach".to_owned()]);
    }
    Ok(())
}

/// As the controller reports it if it still answers, else as the supervisor recorded it.
async fn kept_now(call: &Invocation<'_>, watch: &Watch) -> Option<Kept> {
    let known = watch.kept.as_ref();
    let asked = async { call.remote().ok()?.status().await.ok() };
    match tokio::time::timeout(ASK_PATIENCE, asked).await {
        Ok(Some(status)) => outlook::kept(&status, known),
        _ => known.cloned(),
    }
}

/// Names what stays while nothing runs, and how to end it.
pub(crate) fn say_kept(ui: &Ui, kept: &Kept) {
    let slots = slots(kept);
    for (database, slot) in &slots {
        ui.note(format!("the replication slot {slot} keeps WAL in {database} until the bridge runs again"));
    }
    for slice in &kept.shut {
        ui.note(format!(
            "slice {slice} stays split: its service owns the tables, and their gate in the monolith's database stays shut"
        ));
    }
    ui.hint(&format!("`strangler up --detach` goes on; {}", ends(kept)));
    for (database, slot) in &slots {
        ui.hint(&format!(
            "if strangler will not run again, drop the slot in {database}: SELECT pg_drop_replication_slot('{slot}');"
        ));
    }
}

fn slots(kept: &Kept) -> Vec<(Database, &str)> {
    let services = kept.service_slots.iter().map(|(database, slot)| (database.clone(), slot.as_str()));
    [(Database::Monolith, kept.slot.as_str())].into_iter().chain(services).collect()
}

/// How each slice is given up once strangler is up again.
fn ends(kept: &Kept) -> String {
    let (split, followed): (Vec<&String>, Vec<&String>) =
        kept.slices.iter().partition(|slice| kept.shut.contains(slice));
    let each = |verb: &str, slices: &[&String]| {
        let commands: Vec<String> = slices.iter().map(|slice| format!("strangler {verb} {slice}")).collect();
        (!commands.is_empty()).then(|| format!("`{}`", commands.join(" && ")))
    };
    let back = each("rollback", &split).map(|back| format!("to give a split slice back, then run {back}"));
    let drop = each("sync drop", &followed).map(|drop| format!("to drop the copy, then run {drop}"));
    [back, drop].into_iter().flatten().collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_slice_is_given_back_and_not_dropped() {
        let mut kept = Kept {
            slot: "strangler_shop_1".to_owned(),
            slices: vec!["carts".to_owned(), "orders".to_owned()],
            service_slots: [(Database::Service("orders".parse().unwrap()), "strangler_shop_2".to_owned())]
                .into(),
            shut: vec!["orders".to_owned()],
        };
        assert_eq!(
            ends(&kept),
            "to give a split slice back, then run `strangler rollback orders`; to drop the copy, then run `strangler sync drop carts`"
        );
        assert_eq!(slots(&kept).len(), 2);
        kept.shut.clear();
        assert_eq!(
            ends(&kept),
            "to drop the copy, then run `strangler sync drop carts && strangler sync drop orders`"
        );
    }
}
