//! What a feed's database publishes for a lane: the tables that its order asks for, and no others of its slice.

use super::halt::Halt;
use super::plan::LanePlan;
use crate::feed::Feed;
use crate::feed::source::{self, SourceError};
use migrations::code::Code;
use migrations::control::LaneOrder;
use migrations::finding::Finding;
use migrations::names::TableName;
use migrations::stage::Stage;
use postgres::{Refusal, in_words};
use rows::mapping::Mapping;
use rows::progress::Captured;
use std::collections::{BTreeMap, BTreeSet};

/// Publishes what an order asks for. If it was asked before, nothing is touched: what others changed since then stays so,
/// until someone has decided.
pub(crate) async fn publish(plan: &LanePlan, order: &LaneOrder, feed: &Feed) -> Result<(), Halt> {
    let client = feed.source.connect("strangler").await.map_err(SourceError::from)?;
    let kinds: &[&str] = match order.stage {
        _ if plan.wanted(order).is_empty() => &[],
        Stage::Retired => &["reference"],
        _ => &["moved", "reference"],
    };
    let published = source::publish(&client, &plan.id.slice, kinds).await;
    published.map_err(|error| match Refusal::of(&error) {
        // An earlier installation publishes all tables at once.
        Refusal::NotInstalled | Refusal::NoRight | Refusal::OtherShape | Refusal::Rows => {
            Halt::stop(unpublished(plan, &in_words(&error)))
        }
        Refusal::Contended => Halt::no_progress(
            &format!("the source, asked to publish the tables of slice {},", plan.id.slice),
            &in_words(&error),
        ),
        Refusal::Away => SourceError::from(error).into(),
    })
}

/// When there is no way back any more, the tables that moved need no longer be published.
pub(crate) async fn retire(plan: &LanePlan, order: &LaneOrder, feed: &Feed) -> Result<(), Halt> {
    if order.stage == Stage::Retired { publish(plan, order, feed).await } else { Ok(()) }
}

/// As what the feed's database publishes these tables now. Those that it does not publish are left out.
pub(crate) async fn now(feed: &Feed, tables: &BTreeSet<TableName>) -> Result<Captured, Halt> {
    let client = feed.source.connect("strangler").await.map_err(SourceError::from)?;
    let published = source::published(&client, &feed.source.plan).await?.into_values();
    let ours = published.filter(|one| tables.contains(&one.table));
    Ok(ours.map(|one| (one.table, one.membership)).collect())
}

/// Refuses a mapping that reads a column which is not published.
pub(crate) fn must_be_listed(
    mapping: &Mapping,
    listed: &BTreeMap<TableName, BTreeSet<String>>,
) -> Result<(), Halt> {
    let Some(columns) = listed.get(&mapping.from) else { return Ok(()) };
    match mapping.reads().find(|column| !columns.contains(*column)) {
        None => Ok(()),
        Some(column) => Err(Halt::stop(Finding::error(
            Code::InstallNotPublished,
            format!("column {column} of {} is not published", mapping.from),
            "run `strangler sync drop` for each slice that has the table, `strangler install` again, then `strangler sync start`",
        ))),
    }
}

fn unpublished(plan: &LanePlan, words: &str) -> Finding {
    Finding::error(
        Code::InstallNotPublished,
        format!("the tables of slice {} cannot be published: {words}", plan.id.slice),
        "run `strangler install` again with an admin URL for each database, then `strangler sync resume`",
    )
}
