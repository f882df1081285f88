//! `strangler down`: stops what `up` started here, and names the slot that keeps WAL from then on.

use crate::house::{Kept, Watch};
use crate::invocation::Invocation;
use crate::outlook;
use crate::part::Part;
use crate::ui::Ui;
use migrations::problem::Problem;
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

/// Names the slot that keeps WAL while nothing runs, and how to drop it.
pub(crate) fn say_kept(ui: &Ui, kept: &Kept) {
    ui.note(format!(
        "the replication slot {} keeps WAL in the monolith's database until the bridge runs again",
        kept.slot
    ));
    let drops: Vec<String> = kept.slices.iter().map(|slice| format!("strangler sync drop {slice}")).collect();
    ui.hint(&format!(
        "`strangler up --detach` continues the copy; to drop the copy, then run `{}`",
        drops.join(" && ")
    ));
    ui.hint(&format!(
        "if strangler will not run again, drop the slot in the monolith's database: \
         SELECT pg_drop_replication_slot('{}');",
        kept.slot
    ));
}
