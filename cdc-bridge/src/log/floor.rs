//! What the log holds already: repeated changes, messages and records are dropped here, so that a source may begin again
//! from any earlier transaction. Pure; the writers of both adapters use it.

use super::contract::{Flush, LogError};
use migrations::code::Code;
use migrations::finding::Finding;
use migrations::lsn::{EndLsn, Position, Timeline};
use rows::progress::{LogId, Membership, Progress, Seals};
use std::collections::BTreeSet;

/// How far a writer is.
#[derive(Debug)]
pub(crate) struct Floor {
    log: LogId,
    timeline: Option<Timeline>,
    end: EndLsn,
    last: Position,
    /// The memberships that the last record named.
    captured: Option<BTreeSet<Membership>>,
    /// The seals that it named.
    seals: Option<Seals>,
}

/// What of a flush must be written.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) flush: Flush,
    /// What the flush's record stated, new or not.
    pub(crate) end: Option<EndLsn>,
}

impl Floor {
    /// A writer of `log` after the last durable progress record.
    pub(crate) fn new(log: LogId, last: Option<&Progress>) -> Self {
        Self {
            log,
            timeline: last.map(|progress| progress.timeline.clone()),
            end: last.map(|progress| progress.end).unwrap_or_default(),
            last: Position::default(),
            captured: last.map(|progress| progress.captured.clone()),
            seals: last.and_then(|progress| progress.seals.clone()),
        }
    }

    pub(crate) fn admit(&mut self, mut flush: Flush) -> Result<Admitted, LogError> {
        flush.changes.retain(|change| {
            let is_new = !self.end.is_past(change.position.commit) && change.position > self.last;
            if is_new {
                self.last = change.position;
            }
            is_new
        });
        let end = flush.progress.as_ref().map(|progress| progress.end);
        if let Some(mut progress) = flush.progress.take() {
            self.check(&progress, &flush)?;
            progress.log = self.log.clone();
            progress.messages.retain(|message| !self.end.is_past(message.position.commit));
            // A table that left the publication and came back is news, although nothing was written meanwhile.
            let captures_others = self.captured.as_ref() != Some(&progress.captured);
            let is_news = progress.end > self.end || captures_others || self.seals != progress.seals;
            if is_news || !flush.changes.is_empty() || !progress.messages.is_empty() {
                self.captured = Some(progress.captured.clone());
                self.seals.clone_from(&progress.seals);
                self.end = self.end.max(progress.end);
                progress.end = self.end;
                self.timeline = Some(progress.timeline.clone());
                flush.progress = Some(progress);
            }
        }
        Ok(Admitted { flush, end })
    }

    /// LSNs of another server or timeline look like old or far ones; a record that does not cover its own changes
    /// would never have them delivered. Either would lose changes silently.
    fn check(&self, progress: &Progress, flush: &Flush) -> Result<(), LogError> {
        let timeline = self.timeline.as_ref().unwrap_or(&progress.timeline);
        if *timeline != progress.timeline {
            let message =
                format!("the log was filled from {timeline}, but the source is now {}", progress.timeline);
            let hint = "copy every slice again: `strangler sync drop`, then `strangler sync start`";
            return Err(LogError::Refused(Finding::error(Code::LogOtherTimeline, message, hint)));
        }
        let uncovered = flush.changes.last().filter(|change| !progress.end.is_past(change.position.commit));
        if let Some(change) = uncovered {
            let message =
                format!("a change at {} came before a record that ends at {}", change.position, progress.end);
            let hint = "restart the bridge; if it happens again, report it with this message";
            return Err(LogError::Refused(Finding::error(Code::LogOrder, message, hint)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flush(end: u64, captured: &[i64]) -> Flush {
        let progress = Progress {
            version: 1,
            log: LogId(String::new()),
            timeline: Timeline { system_id: "1".to_owned(), timeline: 1 },
            end: EndLsn(end),
            committed_us: 0,
            messages: Vec::new(),
            captured: captured.iter().map(|one| Membership(*one)).collect(),
            seals: None,
        };
        Flush { changes: Vec::new(), progress: Some(progress) }
    }

    #[test]
    fn a_record_is_written_once_and_again_when_other_tables_are_captured() {
        let mut floor = Floor::new(LogId("log".to_owned()), None);
        let mut written = |end, captured: &[i64]| {
            let admitted = floor.admit(flush(end, captured)).unwrap().flush.progress;
            admitted.map(|progress| progress.end.0)
        };
        assert_eq!(written(10, &[1]), Some(10));
        assert_eq!(written(10, &[1]), None, "nothing new");
        assert_eq!(written(10, &[2]), Some(10), "the table left and came back");
        assert_eq!(written(8, &[2]), None);
        assert_eq!(written(8, &[1, 2]), Some(10), "a record never takes an end back");
    }
}
