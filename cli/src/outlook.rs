//! The controller's status in few words: each slice's condition, the live bridge, the slot that keeps WAL. Pure.

use crate::house::Kept;
use crate::part::Part;
use crate::ui::figure;
use migrations::api::{AgentStatus, SliceStatus, Status};
use migrations::code::Code;
use migrations::control::{BridgeReport, Condition, LaneReport, Report};
use migrations::crossing::{Intent, Moment};
use migrations::finding::Finding;
use migrations::lane::Direction;
use migrations::names::TableName;
use migrations::share::Share;
use migrations::sql::Database;
use migrations::stage::Stage;
use std::collections::{BTreeMap, BTreeSet};

/// What stays in the databases if everything stops now. While no bridge reports its slots, they are those that are `known`.
pub(crate) fn kept(status: &Status, known: Option<&Kept>) -> Option<Kept> {
    let named = |is: fn(&SliceStatus) -> bool| {
        let slices = status.slices.iter().filter(|(_, slice)| slice.has_tables && is(slice));
        slices.map(|(name, _)| name.to_string()).collect::<Vec<String>>()
    };
    let slices = named(|slice| slice.stage.is_captured());
    if slices.is_empty() {
        return None;
    }
    let mut slots = BTreeMap::new();
    for agent in &status.agents {
        if let Report::Bridge(bridge) = &agent.report {
            slots.extend(bridge.feeds.iter().map(|(database, feed)| (database.clone(), feed.slot.clone())));
        }
    }
    let known_slot = || known.map(|known| known.slot.clone());
    let slot = slots.remove(&Database::Monolith).or_else(known_slot)?;
    if slots.is_empty() {
        slots = known.map(|known| known.service_slots.clone()).unwrap_or_default();
    }
    // What is not decided is given up when the controller ends.
    let shut = named(|slice| matches!(slice.stage, Stage::Split { .. } | Stage::Returning { .. }));
    Some(Kept { slot, slices, service_slots: if shut.is_empty() { BTreeMap::new() } else { slots }, shut })
}

/// The live bridge and its report. Of two bridges this is the one that captures; the other one is fenced out.
pub(crate) fn bridge(status: &Status) -> Option<(&AgentStatus, &BridgeReport)> {
    let reports = status.agents.iter().filter(|agent| agent.live).filter_map(|agent| match &agent.report {
        Report::Bridge(bridge) => Some((agent, bridge)),
        Report::Proxy(_) => None,
    });
    reports.max_by_key(|(_, bridge)| !bridge.feeds.is_empty())
}

/// Parts and slices on one line. Without `figures` the line changes only when something happens.
pub(crate) fn line(
    parts: impl Iterator<Item = (Part, bool)>,
    status: Option<&Status>,
    figures: bool,
) -> String {
    let mark = |runs: bool| if runs { '✔' } else { '✗' };
    let mut words: Vec<String> =
        parts.map(|(part, runs)| format!("{} {}", part.name(), mark(runs))).collect();
    for (status, (name, slice)) in
        status.into_iter().flat_map(|status| status.slices.iter().map(move |slice| (status, slice)))
    {
        let mut word = format!("{name} {}", condition(slice, figures.then_some(status.now)));
        if figures && slice.lag_unknown.is_some() {
            word.push_str(", lag unknown");
        } else if let Some(lane) =
            slice.lane().filter(|lane| figures && lane.condition == Condition::Following)
        {
            word.push_str(&format!(", lag {}", time_lag(lane)));
        }
        words.push(word);
    }
    words.join("  ")
}

/// The stage, and what keeps its lane from following. With the time it is `now`, also how much of a hold and of `--for`
/// is left.
pub(crate) fn condition(slice: &SliceStatus, now: Option<Moment>) -> String {
    let stands = crossing(slice, now).unwrap_or_else(|| slice.stage.name().to_owned());
    match slice.lane().map(|lane| &lane.condition) {
        Some(Condition::Copying { rows, rows_estimated }) if now.is_some() => {
            format!("copying {} %", figure::percent(*rows, *rows_estimated))
        }
        Some(Condition::Copying { .. }) => "copying".to_owned(),
        Some(Condition::Adding { tables, rows, rows_estimated, .. }) => {
            let share = now.map(|_| format!(" {} %", figure::percent(*rows, *rows_estimated)));
            format!("{stands}, adding {}{}", listed(tables), share.unwrap_or_default())
        }
        Some(Condition::Paused) => format!("{stands}, paused"),
        Some(Condition::Waiting { .. }) => format!("{stands}, waiting"),
        Some(Condition::Lost { .. }) => format!("{stands}, lost"),
        Some(Condition::Stopped { .. }) => format!("{stands}, stopped"),
        Some(Condition::Idle | Condition::Copied { .. } | Condition::Following) | None => stands,
    }
}

/// Tables' names, with commas.
pub(crate) fn listed(tables: &BTreeSet<TableName>) -> String {
    tables.iter().map(TableName::to_string).collect::<Vec<_>>().join(", ")
}

/// A slice that is on its way from one owner to the other, or returns by itself.
fn crossing(slice: &SliceStatus, now: Option<Moment>) -> Option<String> {
    let stage = slice.stage.name();
    if let Some(preparing) = slice.preparing {
        return Some(match preparing.intent {
            Intent::Cutover { .. } => format!("{stage}, preparing a cutover"),
            Intent::Rehearse => format!("{stage}, preparing a rehearsal"),
        });
    }
    match (slice.stage, slice.hold, now) {
        (Stage::Cutting { .. } | Stage::Returning { .. }, Some(hold), Some(now)) => {
            Some(format!("{stage}, {} left", figure::left(hold.until.since(now))))
        }
        (Stage::Cutting { .. } | Stage::Returning { .. }, ..) => None,
        (_, Some(_), _) => Some(format!("{stage}, writes are still held")),
        (Stage::Split { returns_at: Some(at), .. }, None, Some(now)) if at > now => {
            Some(format!("{stage}, returns in {}", figure::left(at.since(now))))
        }
        (Stage::Split { returns_at: Some(_), .. }, None, Some(_)) => {
            Some(format!("{stage}, its return is due"))
        }
        (Stage::Split { returns_at: Some(_), .. }, None, None) => Some(format!("{stage}, returns by itself")),
        (_, None, _) => None,
    }
}

/// Writes that passed a gate: they are on one side only, so both sides may differ.
pub(crate) fn foreign(status: &Status) -> Vec<Finding> {
    let lanes =
        status.slices.iter().flat_map(|(name, slice)| slice.lanes.iter().map(move |lane| (name, lane)));
    let found = lanes.filter(|(_, (_, lane))| lane.foreign > 0);
    found
        .map(|(name, (direction, lane))| {
            let (side, owner) = match direction {
                Direction::Forward => ("monolith", "service"),
                Direction::Reverse => ("service", "monolith"),
            };
            let message = format!(
                "{} changes of slice {name} were written at the {side} while the {owner} owned it, and not by strangler",
                figure::count(lane.foreign)
            );
            let remedy = format!(
                "find the writer in the log of the {side}'s database: it passes the gate; then compare both sides with \
                 `strangler verify {name}`"
            );
            Finding::error(Code::SliceForeignWrites, message, remedy)
        })
        .collect()
}

/// A lane that does not follow yet has no lag.
pub(crate) fn lag(slice: &SliceStatus) -> String {
    let Some(lane) = slice.lane().filter(|_| slice.lag_unknown.is_none()) else {
        return if slice.lag_unknown.is_some() { "unknown" } else { "–" }.to_owned();
    };
    match lane.lag_bytes {
        Some(bytes) => format!("{}  {}", time_lag(lane), figure::size(bytes)),
        None => time_lag(lane),
    }
}

/// The lag in time: a figure, or that it is unknown, or that there is none yet.
pub(crate) fn time_lag(lane: &LaneReport) -> String {
    match lane.lag_ms {
        Some(ms) => figure::span(ms),
        None if lane.lag_unknown.is_some() => "unknown".to_owned(),
        None => "–".to_owned(),
    }
}

/// Where a share of the requests goes, as the end of a sentence: `… go to the service`.
pub(crate) fn destination(share: Share) -> String {
    match share {
        Share::MONOLITH => "the monolith".to_owned(),
        Share::SERVICE => "the service".to_owned(),
        part => format!("the service for {} of clients", percent(part)),
    }
}

/// A share as text: `12.5 %`.
pub(crate) fn percent(share: Share) -> String {
    format!("{} %", share.to_string().trim_end_matches('%'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use migrations::control::{AgentId, AgentKind, FeedReport, ProxyReport};
    use migrations::journal::{Generation, JournalId};
    use migrations::lsn::{EndLsn, Timeline};
    use serde_json::{Value, json};

    fn agent(kind: AgentKind, name: &str, live: bool, slot: Option<&str>) -> AgentStatus {
        let feeds = slot.map(|slot| FeedReport {
            slot: slot.to_owned(),
            timeline: Timeline { system_id: "1".to_owned(), timeline: 1 },
            captured: EndLsn(1),
            lag_bytes: Some(0),
            changes: 0,
        });
        let feeds = feeds.map(|feed| (Database::Monolith, feed)).into_iter().collect();
        let report = match kind {
            AgentKind::Proxy => Report::Proxy(ProxyReport::default()),
            AgentKind::Bridge => Report::Bridge(BridgeReport { feeds, ..BridgeReport::default() }),
        };
        AgentStatus {
            agent: AgentId { kind, name: name.to_owned() },
            address: None,
            live,
            seen_ms_ago: 0,
            generation: None,
            plan: String::new(),
            report,
        }
    }

    fn status(agents: Vec<AgentStatus>) -> Status {
        Status {
            plan: "shop".to_owned(),
            plan_hash: String::new(),
            journal: JournalId(Default::default()),
            generation: Generation(0),
            now: Moment(0),
            slices: BTreeMap::new(),
            unmatched: Vec::new(),
            agents,
            findings: Vec::new(),
        }
    }

    #[test]
    fn of_two_bridges_the_one_that_captures_counts() {
        let fenced = agent(AgentKind::Bridge, "second", true, None);
        let first = agent(AgentKind::Bridge, "first", true, Some("slot"));
        let gone = agent(AgentKind::Bridge, "gone", false, Some("slot"));
        let proxy = agent(AgentKind::Proxy, "proxy", true, None);
        let name =
            |agents: Vec<AgentStatus>| bridge(&status(agents)).map(|(agent, _)| agent.agent.name.clone());
        assert_eq!(name(vec![first.clone(), fenced.clone()]).as_deref(), Some("first"));
        assert_eq!(name(vec![fenced.clone(), first]).as_deref(), Some("first"));
        assert_eq!(name(vec![gone.clone(), fenced]).as_deref(), Some("second"));
        assert_eq!(name(vec![gone, proxy]), None);
    }

    const NOW: Moment = Moment(1_000_000);

    fn slice(stage: &Value, more: &Value) -> SliceStatus {
        let mut slice = json!({
            "epoch": 5, "owner": "nobody", "has_tables": true, "routes": [], "lanes": {}, "next_steps": [],
        });
        for part in [stage, more] {
            slice.as_object_mut().unwrap().extend(part.as_object().unwrap().clone());
        }
        serde_json::from_value(slice).unwrap()
    }

    fn stage(name: &str) -> Value {
        json!({
            "stage": name, "copied_at": "0/1", "intent": "cutover", "plan": "0000000000000000",
            "schema": "0000000000000000", "reverse_from": "0/1",
        })
    }

    fn lanes(foreign: u64) -> Value {
        let lane = |lag_ms, foreign| json!({ "condition": { "condition": "following" }, "lag_bytes": 0, "lag_ms": lag_ms, "changes": 0, "foreign": foreign });
        json!({ "lanes": { "forward": lane(1, foreign), "reverse": lane(2, 0) } })
    }

    #[test]
    fn a_crossing_shows_how_far_it_is_and_how_much_time_is_left() {
        let hold = json!({ "hold": { "epoch": 5, "until": NOW.0 + 4_200 } });
        let preparing = |intent: &str| json!({ "preparing": { "intent": intent, "plan": "0000000000000000", "hold_ms": 1, "until": 1 } });
        let returns = |at: u64| {
            let mut split = stage("split");
            split["returns_at"] = json!(at);
            slice(&split, &json!({}))
        };
        let shown = [
            slice(&stage("following"), &preparing("cutover")),
            slice(&stage("following"), &preparing("rehearse")),
            slice(&stage("cutting"), &hold),
            slice(&stage("split"), &hold),
            returns(NOW.0 + 552_000),
            returns(NOW.0),
            slice(&stage("split"), &json!({})),
            slice(&stage("returning"), &hold),
            slice(&stage("following"), &hold),
        ];
        assert_eq!(
            shown.each_ref().map(|slice| condition(slice, Some(NOW))),
            [
                "following, preparing a cutover",
                "following, preparing a rehearsal",
                "cutting, 4.2 s left",
                "split, writes are still held",
                "split, returns in 9m 12s",
                "split, its return is due",
                "split",
                "returning, 4.2 s left",
                "following, writes are still held",
            ]
        );
        // In lines that pile up, no time runs.
        assert_eq!(
            [&shown[2], &shown[4]].map(|slice| condition(slice, None)),
            ["cutting", "split, returns by itself"]
        );
    }

    #[test]
    fn the_lag_is_that_of_the_lane_to_the_side_that_does_not_own() {
        let lag = |name: &str| slice(&stage(name), &lanes(0)).lane().and_then(|lane| lane.lag_ms);
        assert_eq!(
            ["following", "cutting", "split", "returning"].map(lag),
            [Some(1), Some(1), Some(2), Some(2)]
        );
        assert_eq!(lag("retired"), None);
    }

    #[test]
    fn a_lag_that_nobody_knows_is_not_shown_as_a_figure() {
        let shown = |more: &Value| {
            let mut status = status(Vec::new());
            let slice = slice(&stage("following"), more);
            status.slices.insert("orders".parse().unwrap(), slice.clone());
            (lag(&slice), line(std::iter::empty(), Some(&status), true))
        };
        assert_eq!(shown(&lanes(0)), ("1 ms  0 B".to_owned(), "orders following, lag 1 ms".to_owned()));
        let unknown = ("unknown".to_owned(), "orders following, lag unknown".to_owned());
        assert_eq!(shown(&json!({ "lag_unknown": "no live bridge reports it" })), unknown);
        let mut blind = lanes(0);
        blind["lanes"]["forward"]["lag_ms"] = Value::Null;
        blind["lanes"]["forward"]["lag_unknown"] = json!("capture stands");
        blind["lag_unknown"] = json!("capture stands");
        assert_eq!(shown(&blind), unknown);
        let copying = json!({ "lanes": { "forward": { "condition": { "condition": "copied", "attempt": 1, "copied_at": "0/1" },
            "lag_bytes": null, "lag_ms": null, "changes": 0, "foreign": 0 } } });
        assert_eq!(shown(&copying).0, "–");
    }

    #[test]
    fn writes_past_a_gate_are_an_alarm_that_names_their_side() {
        let mut one = status(Vec::new());
        one.slices.insert("orders".parse().unwrap(), slice(&stage("split"), &lanes(0)));
        assert_eq!(foreign(&one), []);
        one.slices.insert("orders".parse().unwrap(), slice(&stage("split"), &lanes(3)));
        let found = foreign(&one);
        assert_eq!(found.len(), 1);
        assert!(
            found[0].is_error() && found[0].message.starts_with("3 changes of slice orders"),
            "{}",
            found[0]
        );
        assert!(found[0].message.contains("at the monolith while the service owned it"), "{}", found[0]);
    }

    #[test]
    fn a_split_slice_leaves_a_slot_at_the_service_and_a_shut_gate() {
        let mut one = status(vec![agent(AgentKind::Bridge, "one", true, Some("strangler_shop_1"))]);
        let mut split = slice(&stage("split"), &json!({}));
        one.slices.insert("orders".parse().unwrap(), split.clone());
        if let Report::Bridge(bridge) = &mut one.agents[0].report {
            let feed = FeedReport {
                slot: "strangler_shop_2".to_owned(),
                ..bridge.feeds[&Database::Monolith].clone()
            };
            bridge.feeds.insert(Database::Service("orders".parse().unwrap()), feed);
        }
        let named = kept(&one, None).unwrap();
        assert_eq!((&named.slot[..], &named.shut[..]), ("strangler_shop_1", &["orders".to_owned()][..]));
        assert_eq!(named.service_slots.values().collect::<Vec<_>>(), ["strangler_shop_2"]);
        // The bridge has stopped already.
        one.agents.clear();
        assert_eq!(kept(&one, Some(&named)), Some(named.clone()));
        split.stage = Stage::Retired;
        one.slices.insert("orders".parse().unwrap(), split);
        assert_eq!(kept(&one, Some(&named)), None);
    }

    #[test]
    fn a_share_reads_as_the_end_of_a_sentence() {
        let shares: Vec<String> = ["monolith", "25%", "12.5%", "service"]
            .iter()
            .map(|text| destination(text.parse().unwrap()))
            .collect();
        assert_eq!(
            shares,
            [
                "the monolith",
                "the service for 25 % of clients",
                "the service for 12.5 % of clients",
                "the service"
            ]
        );
    }
}
