//! What the journal has said of one crossing so far. The journal alone says how a crossing ends. Pure.

use migrations::cutover::REHEARSED;
use migrations::journal::{Entry, Generation};
use migrations::names::SliceName;
use migrations::stage::Event;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

#[derive(Debug)]
pub(crate) struct Trace {
    slice: SliceName,
    /// Every entry up to here was read.
    read: Generation,
    fate: Fate,
    prepared_at: Option<OffsetDateTime>,
    held_at: Option<OffsetDateTime>,
    freed_at: Option<OffsetDateTime>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    Undecided,
    /// Writes are still held.
    Decided(End),
    Over(End),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    Committed,
    /// Everything but the decision was done, and undone.
    Rehearsed,
    Aborted {
        why: String,
        /// It is tried again by itself.
        again: bool,
    },
}

impl Trace {
    /// Of the crossing that the entry `began` is about.
    pub(crate) fn from(slice: &SliceName, began: Generation) -> Self {
        Self {
            slice: slice.clone(),
            read: Generation(began.0.saturating_sub(1)),
            fate: Fate::Undecided,
            prepared_at: None,
            held_at: None,
            freed_at: None,
        }
    }

    pub(crate) fn read(&self) -> Generation {
        self.read
    }

    pub(crate) fn fate(&self) -> &Fate {
        &self.fate
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self.fate, Fate::Over(_))
    }

    pub(crate) fn was_held(&self) -> bool {
        self.held_at.is_some()
    }

    /// How long it was prepared before writes were held.
    pub(crate) fn prepared_ms(&self) -> Option<u64> {
        between(self.prepared_at, self.held_at)
    }

    /// How long writes were held, by the journal's clock.
    pub(crate) fn hold_ms(&self) -> Option<u64> {
        between(self.held_at, self.freed_at)
    }

    /// Takes the entries in. What comes after the end is about another crossing.
    pub(crate) fn take(&mut self, entries: &[Entry]) {
        for entry in entries {
            if entry.generation <= self.read {
                continue;
            }
            self.read = entry.generation;
            if entry.slice == self.slice && !self.is_over() {
                self.turn(entry);
            }
        }
    }

    fn turn(&mut self, entry: &Entry) {
        let at = OffsetDateTime::parse(&entry.at, &Rfc3339).ok();
        let is_undecided = self.fate == Fate::Undecided;
        match &entry.event {
            Event::CutoverPrepared { .. } => self.prepared_at = at,
            Event::CutoverStarted { .. } | Event::RollbackStarted { .. } => self.held_at = at,
            Event::CutoverCommitted { .. } | Event::RollbackCommitted { .. } if is_undecided => {
                self.fate = Fate::Decided(End::Committed);
            }
            Event::RollbackAborted { why, returns_at, .. } if is_undecided => {
                let again = returns_at.is_some();
                self.fate = Fate::Decided(End::Aborted { why: why.clone(), again });
            }
            Event::CutoverAborted { why, .. } if is_undecided => {
                self.freed_at = at;
                self.fate = Fate::Over(if why == REHEARSED { End::Rehearsed } else { aborted(why.clone()) });
            }
            // What was being prepared went with the copy.
            Event::Evicted { why } if is_undecided => {
                self.fate = Fate::Over(aborted(format!("the copy was lost: {why}")));
            }
            Event::Released { .. } => {
                if let Fate::Decided(end) = &self.fate {
                    self.freed_at = at;
                    self.fate = Fate::Over(end.clone());
                }
            }
            _ => {}
        }
    }
}

fn aborted(why: String) -> End {
    End::Aborted { why, again: false }
}

fn between(from: Option<OffsetDateTime>, to: Option<OffsetDateTime>) -> Option<u64> {
    u64::try_from((to? - from?).whole_milliseconds()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn entry(generation: u64, ms: u64, slice: &str, event: Value) -> Entry {
        let mut entry = json!({
            "generation": generation, "at": format!("2026-01-01T10:00:{:02}.{:03}Z", ms / 1000, ms % 1000),
            "actor": "ann@host", "reason": "", "slice": slice,
        });
        entry.as_object_mut().unwrap().extend(event.as_object().unwrap().clone());
        serde_json::from_value(entry).unwrap()
    }

    fn prepared() -> Value {
        json!({ "event": "cutover-prepared", "intent": "cutover", "plan": "0000000000000000", "hold_ms": 5000, "until": 1 })
    }

    fn started() -> Value {
        json!({
            "event": "cutover-started", "epoch": 5, "intent": "cutover", "plan": "0000000000000000",
            "schema": "0000000000000000", "reverse_from": "0/1", "until": 1,
        })
    }

    /// The trace of the entries from 7 on, one every 40 ms.
    fn trace(events: Vec<Value>) -> Trace {
        let mut trace = Trace::from(&"orders".parse().unwrap(), Generation(7));
        for (event, place) in events.into_iter().zip(0..) {
            trace.take(&[entry(7 + place, 40 * place, "orders", event)]);
        }
        trace
    }

    #[test]
    fn a_cutover_is_over_when_it_is_released() {
        let committed = json!({ "event": "cutover-committed", "epoch": 5 });
        let released = json!({ "event": "released", "epoch": 5 });
        let events = vec![prepared(), started(), committed, released];
        assert_eq!(trace(events[..2].to_vec()).fate(), &Fate::Undecided);
        assert_eq!(trace(events[..3].to_vec()).fate(), &Fate::Decided(End::Committed));
        let over = trace(events);
        assert_eq!(over.fate(), &Fate::Over(End::Committed));
        assert_eq!((over.prepared_ms(), over.hold_ms(), over.read()), (Some(40), Some(80), Generation(10)));
    }

    #[test]
    fn an_abort_and_a_rehearsal_go_back_at_once() {
        let aborted = |why: &str| json!({ "event": "cutover-aborted", "epoch": 6, "why": why });
        let over = trace(vec![prepared(), started(), aborted("late")]);
        assert_eq!(over.fate(), &Fate::Over(End::Aborted { why: "late".to_owned(), again: false }));
        assert_eq!(over.hold_ms(), Some(40));
        let early = trace(vec![prepared(), aborted("late")]);
        assert!(early.is_over() && !early.was_held() && early.hold_ms().is_none());
        assert_eq!(
            trace(vec![prepared(), started(), aborted(REHEARSED)]).fate(),
            &Fate::Over(End::Rehearsed)
        );
        let lost = trace(vec![prepared(), json!({ "event": "evicted", "why": "no slot" })]);
        assert!(matches!(lost.fate(), Fate::Over(End::Aborted { why, .. }) if why.contains("no slot")));
    }

    #[test]
    fn an_aborted_rollback_is_over_when_the_service_takes_writes_again() {
        let started = json!({ "event": "rollback-started", "epoch": 6, "until": 1 });
        let aborted = json!({ "event": "rollback-aborted", "epoch": 7, "why": "late", "returns_at": 9 });
        let released = json!({ "event": "released", "epoch": 7 });
        let end = End::Aborted { why: "late".to_owned(), again: true };
        assert_eq!(trace(vec![started.clone(), aborted.clone()]).fate(), &Fate::Decided(end.clone()));
        assert_eq!(trace(vec![started, aborted, released]).fate(), &Fate::Over(end));
    }

    #[test]
    fn entries_of_others_and_later_ones_change_nothing() {
        let mut trace = Trace::from(&"orders".parse().unwrap(), Generation(7));
        let aborted = json!({ "event": "cutover-aborted", "epoch": 6, "why": "late" });
        trace.take(&[entry(6, 0, "orders", aborted.clone()), entry(7, 0, "orders", prepared())]);
        trace.take(&[entry(8, 0, "carts", aborted.clone())]);
        assert_eq!(trace.fate(), &Fate::Undecided);
        trace.take(&[entry(9, 0, "orders", aborted.clone()), entry(10, 0, "orders", started())]);
        assert!(trace.is_over() && !trace.was_held(), "what follows the end is another crossing");
        trace.take(&[entry(9, 0, "orders", aborted)]);
        assert_eq!(trace.read(), Generation(10));
    }
}
