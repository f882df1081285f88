//! The controller's status in few words: each slice's condition, the live bridge, the slot that keeps WAL. Pure.

use crate::house::Kept;
use crate::part::Part;
use crate::ui::figure;
use migrations::api::{AgentStatus, SliceStatus, Status};
use migrations::control::{BridgeReport, Condition, LaneReport, Report};
use migrations::share::Share;
use migrations::sql::Database;

/// The slot that keeps WAL if everything stops now. While no bridge reports one, it is `known`.
pub(crate) fn kept(status: &Status, known: Option<&Kept>) -> Option<Kept> {
    let captured = status.slices.iter().filter(|(_, slice)| slice.stage.is_captured() && slice.has_tables);
    let slices: Vec<String> = captured.map(|(name, _)| name.to_string()).collect();
    if slices.is_empty() {
        return None;
    }
    let reported = status.agents.iter().find_map(|agent| match &agent.report {
        Report::Bridge(bridge) => bridge.feeds.get(&Database::Monolith).map(|feed| feed.slot.clone()),
        Report::Proxy(_) => None,
    });
    let slot = reported.or_else(|| known.map(|known| known.slot.clone()))?;
    Some(Kept { slot, slices })
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
    for (name, slice) in status.iter().flat_map(|status| &status.slices) {
        words.push(format!("{name} {}", condition(slice, figures)));
    }
    words.join("  ")
}

pub(crate) fn condition(slice: &SliceStatus, figures: bool) -> String {
    let stage = slice.stage.name();
    let Some(stream) = slice.forward() else { return stage.to_owned() };
    match &stream.condition {
        Condition::Idle | Condition::Copied { .. } => stage.to_owned(),
        Condition::Copying { rows, rows_estimated } if figures => {
            format!("copying {} %", figure::percent(*rows, *rows_estimated))
        }
        Condition::Copying { .. } => "copying".to_owned(),
        Condition::Following if figures => format!("{stage}, lag {}", figure::span(stream.lag_ms)),
        Condition::Following => stage.to_owned(),
        Condition::Paused => format!("{stage}, paused"),
        Condition::Waiting { .. } => format!("{stage}, waiting"),
        Condition::Lost { .. } => format!("{stage}, lost"),
        Condition::Stopped { .. } => format!("{stage}, stopped"),
    }
}

/// A lane that does not follow yet has no lag.
pub(crate) fn lag(stream: &LaneReport) -> String {
    match stream.condition {
        Condition::Idle | Condition::Copying { .. } | Condition::Lost { .. } => "–".to_owned(),
        _ => format!("{}  {}", figure::span(stream.lag_ms), figure::size(stream.lag_bytes)),
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
    use std::collections::BTreeMap;

    fn agent(kind: AgentKind, name: &str, live: bool, slot: Option<&str>) -> AgentStatus {
        let feeds = slot.map(|slot| FeedReport {
            slot: slot.to_owned(),
            timeline: Timeline { system_id: "1".to_owned(), timeline: 1 },
            captured: EndLsn(1),
            lag_bytes: 0,
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
            report,
        }
    }

    fn status(agents: Vec<AgentStatus>) -> Status {
        Status {
            plan: "shop".to_owned(),
            journal: JournalId(Default::default()),
            generation: Generation(0),
            slices: BTreeMap::new(),
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
