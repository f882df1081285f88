//! Whether and from where a source's stream can go on: what the slot keeps against what the log holds.
//!
//! Pure. The one thing that must never happen is to go on silently over a gap.

use super::source::STOP_ONE;
use migrations::code::Code;
use migrations::finding::Finding;
use migrations::lsn::{EndLsn, Timeline};
use migrations::preflight::SlotSeen;
use rows::progress::Progress;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Begin {
    /// Slot and log are both missing: make the slot, and a first progress record at its consistent point.
    Anew,
    /// The slot was made but the log does not know it yet: write that first progress record.
    Adopt(EndLsn),
    /// Go on after what the log holds.
    Resume(EndLsn),
    /// What lies between is gone: every slice that follows must be copied again.
    Lost(String),
    /// It must not begin before someone has looked.
    Stop(Finding),
    /// Another session reads the slot: who.
    Taken(String),
}

/// Decides how a session begins. `slots` are all slots whose names say that they belong to this plan; `own` is this log's.
pub(crate) fn decide(own: &str, slots: &[SlotSeen], end: Option<&Progress>, server: &Timeline) -> Begin {
    // One that is read now says more than one that was left.
    if let Some(foreign) = slots.iter().filter(|slot| slot.name != own).max_by_key(|slot| slot.is_active) {
        return Begin::Stop(foreign_slot(foreign, own));
    }
    // What the log lacks may be in the log of the bridge that reads the slot.
    if let Some(taken) = slots.iter().find(|slot| slot.is_active) {
        return Begin::Taken(reader(taken));
    }
    let Some(end) = end else {
        return match slots.first() {
            None => Begin::Anew,
            Some(slot) if slot.is_lost => Begin::Lost(format!("the source gave slot {own} up")),
            Some(slot) => Begin::Adopt(slot.confirmed),
        };
    };
    if end.timeline != *server {
        return Begin::Stop(other_server(&end.timeline.to_string(), server));
    }
    match slots.first() {
        None => Begin::Lost(format!("slot {own} is gone from the source")),
        Some(slot) if slot.is_lost => {
            Begin::Lost(format!("the source gave slot {own} up: it kept too much WAL"))
        }
        Some(slot) if slot.confirmed > end.end => Begin::Lost(format!(
            "the log ends at {}, the source keeps changes only from {} on",
            end.end, slot.confirmed
        )),
        Some(_) => Begin::Resume(end.end),
    }
}

/// Who reads a slot, and from where, as far as the server shows it.
pub(crate) fn reader(slot: &SlotSeen) -> String {
    slot.reader.clone().unwrap_or_else(|| "a session that is not shown".to_owned())
}

fn foreign_slot(slot: &SlotSeen, own: &str) -> Finding {
    if slot.is_active {
        let reader = reader(slot);
        return Finding::error(
            Code::CaptureForeignSlot,
            format!(
                "another bridge of this plan runs, with another log: {reader} reads replication slot {} (the slot of this \
                 log is {own})",
                slot.name
            ),
            STOP_ONE,
        );
    }
    Finding::error(
        Code::CaptureForeignSlot,
        format!(
            "replication slot {} keeps WAL for another log of this plan (the slot of this log is {own}): that log was \
             moved or deleted, or its bridge is down",
            slot.name
        ),
        format!(
            "restore that log, or start its bridge; or give it up: `SELECT pg_drop_replication_slot('{}')`, then `strangler sync drop` and \
             `strangler sync start` for each slice",
            slot.name
        ),
    )
}

/// How slices begin anew if what the log holds must be given up.
const COPY_EVERY_SLICE: &str =
    "give up every slice, `strangler sync drop`; only then copy them again, `strangler sync start`";

/// The log holds the changes of another server, or of another history of this one.
pub(crate) fn other_server(log: &str, server: &Timeline) -> Finding {
    Finding::error(
        Code::CaptureOtherServer,
        format!(
            "the log was filled from {log}, but the database is now {server}: it was restored or a replica was promoted, \
             so the same positions may mean other changes"
        ),
        format!(
            "{COPY_EVERY_SLICE}; if the bridge of another plan fills this log, first give this plan its own \
             `topic_prefix`"
        ),
    )
}

/// The log holds the changes that another plan follows, or those of another database of the same server.
pub(crate) fn other_plan(log: &str, whose: &str) -> Finding {
    Finding::error(
        Code::CaptureOtherPlan,
        format!("the log {log} was made for {whose}"),
        "give this plan its own `topic_prefix`; if this is an old log of yours, stop every bridge and delete its \
         topic",
    )
}

/// The server's disk or the log was set back to an earlier moment, which keeps the timeline. What the server writes until
/// it comes as far as the log again would be skipped.
pub(crate) fn set_back(log: EndLsn, server: &Timeline) -> Finding {
    Finding::error(
        Code::CaptureOtherServer,
        format!(
            "the log, which ends at {log}, and the database, {server}, are not of one history: one of the two was set back \
             to an earlier moment, so the same positions may mean other changes"
        ),
        COPY_EVERY_SLICE,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use rows::progress::LogId;

    fn server() -> Timeline {
        Timeline { system_id: "7".to_owned(), timeline: 1 }
    }

    fn slot(name: &str, confirmed: u64) -> SlotSeen {
        SlotSeen {
            name: name.to_owned(),
            is_of_this_database: true,
            is_temporary: false,
            is_active: false,
            is_lost: false,
            reader: None,
            confirmed: EndLsn(confirmed),
            kept_bytes: 0,
        }
    }

    fn end(at: u64) -> Progress {
        Progress {
            version: 1,
            log: LogId("l".to_owned()),
            timeline: server(),
            end: EndLsn(at),
            committed_us: 0,
            messages: vec![],
            captured: [].into(),
            seals: None,
        }
    }

    #[test]
    fn a_stream_goes_on_only_without_a_gap() {
        let s = server();
        assert_eq!(decide("s", &[], None, &s), Begin::Anew);
        assert_eq!(decide("s", &[slot("s", 5)], None, &s), Begin::Adopt(EndLsn(5)));
        assert_eq!(decide("s", &[slot("s", 5)], Some(&end(9)), &s), Begin::Resume(EndLsn(9)));
        assert_eq!(decide("s", &[slot("s", 9)], Some(&end(9)), &s), Begin::Resume(EndLsn(9)));
        assert!(matches!(decide("s", &[slot("s", 10)], Some(&end(9)), &s), Begin::Lost(_)));
        assert!(matches!(decide("s", &[], Some(&end(9)), &s), Begin::Lost(_)));
    }

    #[test]
    fn a_log_whose_slot_another_bridge_reads_lacks_nothing_that_is_lost() {
        let reader = "process 7 (strangler bridge) from 10.0.0.7".to_owned();
        let read = |at, is_lost| SlotSeen {
            is_active: true,
            reader: Some(reader.clone()),
            is_lost,
            ..slot("s", at)
        };
        let promoted = Timeline { timeline: 2, ..server() };
        for server in [server(), promoted] {
            // The log, a log that was copied earlier, and a new one of this name.
            for (end, at) in [(Some(end(9)), 5), (Some(end(9)), 20), (None, 5)] {
                for is_lost in [false, true] {
                    let begins = decide("s", &[read(at, is_lost)], end.as_ref(), &server);
                    assert_eq!(begins, Begin::Taken(reader.clone()));
                }
            }
        }
    }

    #[test]
    fn the_slot_of_a_bridge_that_runs_is_never_to_be_dropped() {
        let reader = Some("process 7 (strangler bridge) from 10.0.0.7".to_owned());
        let active = SlotSeen { is_active: true, reader, ..slot("live", 5) };
        for slots in [vec![active.clone()], vec![slot("old", 1), active.clone(), slot("older", 1)]] {
            let Begin::Stop(found) = decide("s", &slots, None, &server()) else { panic!("it begins") };
            assert!(found.message.contains("process 7 (strangler bridge) from 10.0.0.7"), "{found}");
            assert!(!found.remedy.contains("drop") && found.remedy.contains("strangler down"), "{found}");
        }
        let Begin::Stop(found) = decide("s", &[slot("old", 1)], None, &server()) else { panic!("it begins") };
        assert!(found.remedy.contains("pg_drop_replication_slot('old')"), "{found}");
    }

    #[test]
    fn a_deleted_log_with_a_live_slot_and_another_server_stop() {
        let s = server();
        assert!(
            matches!(decide("s", &[slot("old", 5)], None, &s), Begin::Stop(f) if f.code == Code::CaptureForeignSlot)
        );
        let promoted = Timeline { timeline: 2, ..server() };
        assert!(
            matches!(decide("s", &[slot("s", 5)], Some(&end(9)), &promoted), Begin::Stop(f) if f.code == Code::CaptureOtherServer)
        );
    }
}
