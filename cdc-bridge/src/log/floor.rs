//! What the log holds already: repeated changes, messages and records are dropped here, so that a source may begin again
//! from any earlier transaction. Pure; the writers of both adapters use it.

use super::contract::{Flush, LogError};
use migrations::code::Code;
use migrations::finding::Finding;
use migrations::lsn::{EndLsn, Position, Timeline};
use rows::progress::{LogId, Progress};

/// How far a writer is.
#[derive(Debug)]
pub(crate) struct Floor {
    log: LogId,
    timeline: Option<Timeline>,
    end: EndLsn,
    last: Position,
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
            if progress.end > self.end || !flush.changes.is_empty() || !progress.messages.is_empty() {
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
