//! What the journal says of a run: how often writes moved, how often a move was given up, and how long writes were held.
//! Pure.

use anyhow::{Context, Result};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::outage::Outage;

/// Undecided, a hold lasts no longer: the default of `--hold`.
const HOLD_MS: u64 = 5_000;
/// What an entry may take to be written, and the coordinator to notice.
const SLACK_MS: u64 = 1_500;
/// A part that was broken just before the hold's end may delay the entry that ends it: a lease must run out first.
const AFTERWARDS_MS: u64 = 10_000;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    pub cutovers: u64,
    pub rollbacks: u64,
    /// Cutovers, rehearsals and rollbacks that were given up.
    pub aborted: u64,
    pub rehearsed: u64,
    /// From the start of a hold to its end, by the journal's clock.
    pub hold_ms_max: u64,
    /// What should not have happened.
    pub faults: Vec<String>,
}

/// A hold that has not ended.
#[derive(Clone, Copy)]
struct Hold {
    since_ms: u64,
    is_decided: bool,
}

impl History {
    pub fn read(entries: &[Value], outages: &[Outage]) -> Result<History> {
        let (mut history, mut hold) = (History::default(), None);
        for entry in entries {
            history.take(entry, outages, &mut hold)?;
        }
        if hold.is_some() {
            history.faults.push("writes are still held at the end".to_owned());
        }
        Ok(history)
    }

    fn take(&mut self, entry: &Value, outages: &[Outage], hold: &mut Option<Hold>) -> Result<()> {
        let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
        let at =
            OffsetDateTime::parse(text("at"), &Rfc3339).context("an entry of the journal has no time")?;
        let at_ms = u64::try_from(at.unix_timestamp_nanos() / 1_000_000)?;
        match text("event") {
            "cutover-started" | "rollback-started" => {
                *hold = Some(Hold { since_ms: at_ms, is_decided: false })
            }
            "cutover-committed" => {
                self.cutovers += 1;
                self.decided(at_ms, outages, hold);
            }
            "rollback-committed" => {
                self.rollbacks += 1;
                self.decided(at_ms, outages, hold);
            }
            "rollback-aborted" => {
                self.aborted += 1;
                self.decided(at_ms, outages, hold);
            }
            "cutover-aborted" => {
                let is_rehearsed = text("why") == "rehearsed";
                *(if is_rehearsed { &mut self.rehearsed } else { &mut self.aborted }) += 1;
                self.decided(at_ms, outages, hold);
                self.ended(at_ms, hold);
            }
            "released" => self.ended(at_ms, hold),
            "evicted" => self.faults.push(format!("the copy was lost: {}", text("why"))),
            _ => {}
        }
        Ok(())
    }

    fn decided(&mut self, at_ms: u64, outages: &[Outage], hold: &mut Option<Hold>) {
        let Some(hold) = hold.as_mut().filter(|hold| !hold.is_decided) else { return };
        hold.is_decided = true;
        let took = at_ms.saturating_sub(hold.since_ms);
        let met = outages.iter().any(|outage| outage.meets(hold.since_ms, at_ms, AFTERWARDS_MS));
        if took > HOLD_MS + SLACK_MS && !met {
            let what = format!("a hold was undecided for {took} ms although nothing was broken");
            self.faults.push(what);
        }
    }

    fn ended(&mut self, at_ms: u64, hold: &mut Option<Hold>) {
        if let Some(hold) = hold.take() {
            self.hold_ms_max = self.hold_ms_max.max(at_ms.saturating_sub(hold.since_ms));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::schedule::{How, Part};
    use serde_json::json;

    fn entry(ms: u64, event: &str, why: &str) -> Value {
        json!({ "at": format!("2026-01-01T10:00:{:02}.{:03}Z", ms / 1000, ms % 1000), "event": event, "why": why })
    }

    const TEN: u64 = 1_767_261_600_000;

    #[test]
    fn moves_are_counted_and_holds_measured() {
        let entries = [
            entry(0, "cutover-prepared", ""),
            entry(100, "cutover-started", ""),
            entry(300, "cutover-committed", ""),
            entry(350, "released", ""),
            entry(1000, "rollback-started", ""),
            entry(1100, "rollback-aborted", "late"),
            entry(1700, "released", ""),
            entry(2000, "rollback-started", ""),
            entry(2100, "rollback-committed", ""),
            entry(2200, "released", ""),
            entry(3000, "cutover-started", ""),
            entry(3050, "cutover-aborted", "rehearsed"),
            entry(4000, "cutover-aborted", "a lane stopped"),
        ];
        let history = History::read(&entries, &[]).unwrap();
        let expected = History { cutovers: 1, rollbacks: 1, aborted: 2, rehearsed: 1, ..History::default() };
        assert_eq!(history, History { hold_ms_max: 700, ..expected });
    }

    #[test]
    fn a_hold_beyond_its_time_needs_a_reason() {
        let entries = [entry(0, "cutover-started", ""), entry(9_000, "cutover-aborted", "late")];
        let outage = Outage {
            part: Part::Controller,
            how: How::Kill,
            from_ms: TEN + 1_000,
            until_ms: Some(TEN + 2_000),
        };
        assert_eq!(History::read(&entries, &[]).unwrap().faults.len(), 1);
        assert_eq!(History::read(&entries, &[outage]).unwrap().faults, Vec::<String>::new());
        assert_eq!(History::read(&entries[..1], &[outage]).unwrap().faults.len(), 1, "it never ended");
        assert_eq!(History::read(&[entry(0, "evicted", "no slot")], &[]).unwrap().faults.len(), 1);
    }
}
