//! Proves that a row differs, while both sides move.
//!
//! The sink is at every instant a prefix of the source's transactions, in the order of their commits. A source read sees
//! another set: a transaction that waits for a synchronous standby is committed in the stream and may be in the sink, and
//! is invisible at the source. So a row that looks different is proven to differ in five looks:
//!
//! 1. the source's row is read;
//! 2. the sink passes a barrier that was given afterwards, so it has everything that the first look saw;
//! 3. the sink's row is compared, and is another one;
//! 4. the source's row is read again, once all transactions have ended that had begun before the third look. Everything
//!    that the sink had at the third look is now visible. If the row's version is the same as at the first look, then
//!    nothing changed it in between, and the sink's row should have been equal;
//! 5. only if the source has no such row at both looks: it may have come and gone in between. The sink passes another
//!    barrier, so it has the row's end, too. If the sink's row is still the same version, it is no row of the source.
//!
//! What is not proven is looked at again. A row that changes at every look is never proven, and that is said.

use super::barrier::{Barrier, next_transaction};
use super::look::{Eye, Found, Other};
use super::table::{Key, Table};
use crate::feed::source::SourceError;
use crate::lane::halt::Halt;
use migrations::verify::How;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tokio_postgres::Row;

/// How long transactions that are open are waited for, once.
const OPEN_WAIT: Duration = Duration::from_secs(3);
const OPEN_POLL_MIN: Duration = Duration::from_millis(2);
const OPEN_POLL_MAX: Duration = Duration::from_millis(200);

/// What is known of a row after a proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It was the same on both sides.
    Same,
    Different(How),
    /// It changed meanwhile.
    Changing,
    /// It seems to differ; a transaction is open that may be in the sink.
    Undecided,
}

/// What both sides had of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Looks<'a> {
    /// The source's version at the first look.
    first: Option<&'a str>,
    /// The source's version at the last look.
    last: Option<&'a str>,
    /// Whether all transactions had ended by then that were open at the sink's look.
    have_ended: bool,
    /// What the sink had in between.
    other: &'a Other,
    /// The sink's version at the very last, where a row is only there.
    at_end: Option<&'a str>,
}

/// Decides about a row that the sink did not have alike.
fn judge(looks: Looks<'_>) -> Verdict {
    let Looks { first, last, have_ended, other, at_end } = looks;
    if first != last {
        return Verdict::Changing;
    }
    if !have_ended {
        return Verdict::Undecided;
    }
    match first {
        Some(_) => Verdict::Different(other.how.clone()),
        None if other.version.as_deref() == at_end => Verdict::Different(How::Extra),
        None => Verdict::Changing,
    }
}

/// Both sides of one lane, with what a proof needs.
#[derive(Debug)]
pub(crate) struct Sides {
    pub(crate) source: Eye,
    pub(crate) sink: Eye,
    pub(crate) barrier: Barrier,
    /// The oldest transaction that was waited for in vain: nobody waits for it again.
    blocked_by: Option<u64>,
}

/// A row that seems to differ.
struct Suspect<'k> {
    place: usize,
    key: &'k Key,
    first: Option<String>,
    other: Other,
}

impl Sides {
    pub(crate) fn new(source: Eye, sink: Eye, barrier: Barrier) -> Sides {
        Sides { source, sink, barrier, blocked_by: None }
    }

    pub(crate) fn are_closed(&self) -> bool {
        self.source.client.is_closed() || self.sink.client.is_closed()
    }

    /// Looks once at rows by their keys: of how many, and which of them the sink does not have alike. It proves nothing
    /// unless both sides stand still.
    pub(crate) async fn glance(
        &mut self,
        table: &Table,
        keys: &[&Key],
    ) -> Result<(usize, Vec<(usize, How)>), Halt> {
        let (rows, _) = self.source.rows(&table.rows, keys).await.map_err(SourceError::from)?;
        let suspects = self.suspects(table, keys, &rows).await?.into_iter();
        Ok((rows.len(), suspects.map(|suspect| (suspect.place, suspect.other.how)).collect()))
    }

    /// Looks at rows by their keys until each is the same, proven to differ, or neither. Gives a verdict for the first of
    /// them, as many as may be held at once.
    pub(crate) async fn prove(&mut self, table: &Table, keys: &[&Key]) -> Result<Vec<Verdict>, Halt> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        Ok(self.prove_rows(table, keys).await?.0)
    }

    /// The same, with the source's rows as they were at the first look.
    pub(crate) async fn prove_rows(
        &mut self,
        table: &Table,
        keys: &[&Key],
    ) -> Result<(Vec<Verdict>, Vec<Found>), Halt> {
        let (rows, _) = self.source.rows(&table.rows, keys).await.map_err(SourceError::from)?;
        self.barrier.pass(&self.source.client).await?;
        let mut verdicts = vec![Verdict::Same; rows.len()];
        let suspects = self.suspects(table, keys, &rows).await?;
        for (place, verdict) in self.judged(table, suspects).await? {
            verdicts[place] = verdict;
        }
        Ok((verdicts, rows))
    }

    /// Those rows that the sink does not have alike.
    async fn suspects<'k>(
        &mut self,
        table: &Table,
        keys: &[&'k Key],
        rows: &[Found],
    ) -> Result<Vec<Suspect<'k>>, Halt> {
        let is_there = |place: &usize| rows[*place].version.is_some();
        let (there, gone): (Vec<usize>, Vec<usize>) = (0..rows.len()).partition(is_there);
        let mut suspects = Vec::new();
        let values: Vec<&Row> = there.iter().map(|place| &rows[*place].row).collect();
        for (n, other) in self.sink.differing(table, &values, Found::COLUMNS).await? {
            let place = there[n];
            suspects.push(Suspect { place, key: keys[place], first: rows[place].version.clone(), other });
        }
        let wanted: Vec<&Key> = gone.iter().map(|place| keys[*place]).collect();
        for (n, version) in self.sink.found(table, &wanted).await? {
            let other = Other { how: How::Extra, version: Some(version) };
            suspects.push(Suspect { place: gone[n], key: keys[gone[n]], first: None, other });
        }
        Ok(suspects)
    }

    async fn judged(
        &mut self,
        table: &Table,
        suspects: Vec<Suspect<'_>>,
    ) -> Result<Vec<(usize, Verdict)>, Halt> {
        if suspects.is_empty() {
            return Ok(Vec::new());
        }
        let keys: Vec<&Key> = suspects.iter().map(|suspect| suspect.key).collect();
        let (last, have_ended) = self.versions(table, &keys).await?;
        let mut at_end = vec![None; suspects.len()];
        let extra: Vec<usize> =
            (0..suspects.len()).filter(|n| suspects[*n].first.is_none() && last[*n].is_none()).collect();
        if have_ended && !extra.is_empty() {
            self.barrier.pass(&self.source.client).await?;
            let wanted: Vec<&Key> = extra.iter().map(|n| keys[*n]).collect();
            for (n, version) in self.sink.found(table, &wanted).await? {
                at_end[extra[n]] = Some(version);
            }
        }
        let judged = suspects.iter().zip(&last).zip(&at_end).map(|((suspect, last), at_end)| {
            let looks = Looks {
                first: suspect.first.as_deref(),
                last: last.as_deref(),
                have_ended,
                other: &suspect.other,
                at_end: at_end.as_deref(),
            };
            (suspect.place, judge(looks))
        });
        Ok(judged.collect())
    }

    /// The versions of the source's rows once every transaction has ended that has begun by now, and whether they have:
    /// some may be open for long.
    async fn versions(&mut self, table: &Table, keys: &[&Key]) -> Result<(Vec<Option<String>>, bool), Halt> {
        let bound = next_transaction(&self.source.client).await?;
        let (deadline, mut pause) = (Instant::now() + OPEN_WAIT, OPEN_POLL_MIN);
        loop {
            let (found, oldest) = self.source.rows(&table.versions, keys).await.map_err(SourceError::from)?;
            let have_ended = oldest >= bound;
            let is_late = Instant::now() >= deadline || self.blocked_by == Some(oldest);
            if have_ended || is_late {
                self.blocked_by = (!have_ended).then_some(oldest);
                return Ok((found.into_iter().map(|found| found.version).collect(), have_ended));
            }
            sleep(pause).await;
            pause = (pause * 2).min(OPEN_POLL_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(first: Option<&str>, last: Option<&str>, have_ended: bool, at_end: Option<&str>) -> Verdict {
        let other = match first {
            Some(_) => Other { how: How::Missing, version: None },
            None => Other { how: How::Extra, version: Some("s1".to_owned()) },
        };
        judge(Looks { first, last, have_ended, other: &other, at_end })
    }

    #[test]
    fn a_row_differs_if_it_stood_still_at_the_source_and_every_writer_had_ended() {
        assert_eq!(verdict(Some("a"), Some("a"), true, None), Verdict::Different(How::Missing));
        assert_eq!(verdict(Some("a"), Some("a"), false, None), Verdict::Undecided);
        for (first, last) in [(Some("a"), Some("b")), (Some("a"), None), (None, Some("a"))] {
            assert_eq!(verdict(first, last, true, Some("s1")), Verdict::Changing);
        }
    }

    #[test]
    fn a_row_that_only_the_copy_has_must_outlast_another_barrier() {
        assert_eq!(verdict(None, None, true, Some("s1")), Verdict::Different(How::Extra));
        assert_eq!(verdict(None, None, true, Some("s2")), Verdict::Changing);
        assert_eq!(verdict(None, None, true, None), Verdict::Changing);
        assert_eq!(verdict(None, None, false, None), Verdict::Undecided);
    }
}
