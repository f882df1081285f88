//! How a batch that the database refuses is parted until every change of it is applied, or the one is known that cannot be.
//!
//! First all changes go together, reduced to what is left per row. A refused part is halved, between transactions as long
//! as it holds several. So one bad transaction of a batch costs few tries more, however large the batch is. Where a foreign
//! key refuses, the part also goes as one statement, which the database checks once, as the source did.

use super::Sink;
use crate::lane::halt::Halt;
use crate::lane::refusal::{RowError, refused, row_exists};
use migrations::lsn::CommitLsn;
use rows::change::{Change, Operation};
use std::ops::Range;

/// Changes of one transaction that wait for its rest, because a foreign key refuses them without it.
const CARRIED_BYTES_MAX: usize = 8 << 20;

impl Sink {
    /// Applies changes, and says how many. Those that are left need the rest of their transaction, which is still to come:
    /// `is_open` says so.
    pub(super) async fn apply_rows(&mut self, changes: &[Change], is_open: bool) -> Result<usize, Halt> {
        if let [one] = changes
            && !is_open
        {
            return match self.apply_groups(changes).await {
                Ok(()) => Ok(1),
                Err(error) => Err(self.refuse(one, error).await?),
            };
        }
        let mut parts = Parts::of(changes);
        while let Some(part) = parts.next() {
            let Some(error) = self.attempt(&changes[part.clone()]).await? else { continue };
            if parts.divide(&part) {
                continue;
            }
            if error.is_foreign_key() {
                let rest = part.start..parts.end_of_transaction(part.start);
                if let Some(applied) = self.stretch(&changes[rest.clone()]).await? {
                    parts.skip_to(part.start + applied);
                    continue;
                }
                if is_open && rest.end == changes.len() && size(&changes[rest]) <= CARRIED_BYTES_MAX {
                    return Ok(part.start);
                }
            }
            return Err(self.refuse(&changes[part.start], error).await?);
        }
        Ok(changes.len())
    }

    /// Whether more changes may wait for the rest of their transaction with those that do.
    pub(super) fn may_carry(&self, changes: &[Change]) -> bool {
        size(&self.carried) + size(changes) <= CARRIED_BYTES_MAX
    }

    /// Applies a part, or leaves nothing of it and says what refuses it.
    async fn attempt(&mut self, part: &[Change]) -> Result<Option<RowError>, Halt> {
        self.client.batch_execute("SAVEPOINT part").await.map_err(Halt::of)?;
        let mut error = match self.apply_groups(part).await {
            Ok(()) => return self.release().await.map(|()| None),
            Err(error) => error,
        };
        if error.is_foreign_key() && part.len() > 1 {
            self.client.batch_execute("ROLLBACK TO part").await.map_err(Halt::of)?;
            match self.apply_together(part).await {
                Ok(true) => return self.release().await.map(|()| None),
                // What is refused so is not the key's fault alone.
                Ok(false) => {}
                Err(other) => error = if other.is_foreign_key() { error } else { other },
            }
        }
        if !error.is_about_rows() && !error.is_contended() {
            return Err(error.into_halt());
        }
        self.client.batch_execute("ROLLBACK TO part").await.map_err(Halt::of)?;
        Ok(Some(error))
    }

    async fn release(&mut self) -> Result<(), Halt> {
        self.client.batch_execute("RELEASE part").await.map_err(Halt::of)
    }

    /// Applies the first of a transaction's changes as one statement, as many as that takes; their number, if any do.
    /// A source's statement ends somewhere, but the stream does not say where.
    async fn stretch(&mut self, changes: &[Change]) -> Result<Option<usize>, Halt> {
        let mut count = 2;
        while count <= changes.len() {
            self.client.batch_execute("SAVEPOINT part").await.map_err(Halt::of)?;
            match self.apply_together(&changes[..count]).await {
                Ok(true) => return self.release().await.map(|()| Some(count)),
                Ok(false) => {}
                Err(error) if error.is_about_rows() || error.is_contended() => {}
                Err(error) => return Err(error.into_halt()),
            }
            self.client.batch_execute("ROLLBACK TO part").await.map_err(Halt::of)?;
            if count == changes.len() {
                return Ok(None);
            }
            // So that all tries together cost no more than some times the last one.
            count = (count + (count / 8).max(1)).min(changes.len());
        }
        Ok(None)
    }

    /// The halt of a change that cannot be applied by itself, nor together with others.
    async fn refuse(&mut self, change: &Change, error: RowError) -> Result<Halt, Halt> {
        if error.is_about_rows() {
            let finding = if self.is_there(change, &error).await? {
                row_exists(&self.plan, change)
            } else {
                refused(&self.plan, change, &error)
            };
            return Ok(Halt::Stopped(Box::new(finding), Some(change.position)));
        }
        if error.is_contended() {
            let finding = refused(&self.plan, change, &error);
            return Ok(Halt::Contended(Box::new(finding), Some(change.position)));
        }
        Ok(error.into_halt())
    }
}

fn size(changes: &[Change]) -> usize {
    changes.iter().map(Change::size).sum()
}

/// The parts of a batch that are not applied yet, the first one last.
struct Parts {
    /// Of each change, its transaction and whether it is a truncate.
    changes: Vec<(CommitLsn, bool)>,
    open: Vec<Range<usize>>,
}

impl Parts {
    fn of(changes: &[Change]) -> Parts {
        let of = |change: &Change| (change.position.commit, matches!(change.operation, Operation::Truncate));
        let whole = 0..changes.len();
        Parts { changes: changes.iter().map(of).collect(), open: vec![whole] }
    }

    fn next(&mut self) -> Option<Range<usize>> {
        while let Some(part) = self.open.pop() {
            if !part.is_empty() {
                return Some(part);
            }
        }
        None
    }

    /// Puts a refused part back in two; false if it cannot be parted. The truncates of one transaction stay together.
    fn divide(&mut self, part: &Range<usize>) -> bool {
        let middle = part.start + part.len() / 2;
        let transaction = |at: usize| self.changes[at].0;
        let is_one = transaction(part.start) == transaction(part.end - 1);
        let may_part = |at: &usize| match is_one {
            true => !(self.changes[at - 1].1 && self.changes[*at].1),
            false => transaction(at - 1) != transaction(*at),
        };
        let places = (part.start + 1..part.end).filter(may_part);
        let Some(at) = places.min_by_key(|at| at.abs_diff(middle)) else { return false };
        self.open.push(at..part.end);
        self.open.push(part.start..at);
        true
    }

    fn end_of_transaction(&self, at: usize) -> usize {
        let rest = &self.changes[at..];
        at + rest.iter().take_while(|(transaction, _)| *transaction == rest[0].0).count()
    }

    /// Everything before this place is applied.
    fn skip_to(&mut self, place: usize) {
        for part in &mut self.open {
            part.start = part.start.max(place);
            part.end = part.end.max(part.start);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parts of changes whose transactions are these, `t` for a truncate after its transaction's digit.
    fn parts(changes: &[(u64, bool)]) -> Parts {
        let changes: Vec<_> =
            changes.iter().map(|(commit, truncates)| (CommitLsn(*commit), *truncates)).collect();
        let whole = 0..changes.len();
        Parts { changes, open: vec![whole] }
    }

    /// How often parts are tried until all but `bad` changes are applied, and which are left.
    fn tries(mut parts: Parts, is_bad: impl Fn(&Range<usize>) -> bool) -> (usize, Vec<usize>) {
        let (mut tries, mut left) = (0, Vec::new());
        while let Some(part) = parts.next() {
            tries += 1;
            if is_bad(&part) && !parts.divide(&part) {
                left.push(part.start);
            }
        }
        (tries, left)
    }

    #[test]
    fn one_bad_change_among_many_is_found_by_few_tries() {
        let changes: Vec<(u64, bool)> = (0..60_000).map(|n| (n / 30, false)).collect();
        let (found, left) = tries(parts(&changes), |part| part.contains(&41_234));
        assert_eq!(left, [41_234]);
        assert!(found < 40, "{found} tries");
        assert_eq!(tries(parts(&changes), |_| false), (1, vec![]));
    }

    #[test]
    fn transactions_are_parted_from_each_other_first_and_truncates_of_one_stay_together() {
        let mut all = parts(&[(1, false), (2, false), (2, false), (2, false), (2, false)]);
        let whole = all.next().unwrap();
        assert!(all.divide(&whole));
        assert_eq!(all.open, [1..5, 0..1]);
        let mut truncates = parts(&[(1, true), (1, true), (1, true), (1, false)]);
        let whole = truncates.next().unwrap();
        assert!(truncates.divide(&whole));
        assert_eq!(truncates.open, [3..4, 0..3]);
        let part = truncates.next().unwrap();
        assert!(!truncates.divide(&part));
        assert!(!parts(&[(1, false)]).divide(&(0..1)));
    }

    #[test]
    fn what_was_applied_beyond_a_part_is_not_tried_again() {
        let mut all = parts(&[(1, false), (1, false), (1, false), (2, false), (2, false)]);
        all.open = vec![3..5, 1..3, 0..1];
        assert_eq!((all.next(), all.end_of_transaction(0)), (Some(0..1), 3));
        all.skip_to(2);
        assert_eq!((all.next(), all.next(), all.next()), (Some(2..3), Some(3..5), None));
        all.open = vec![3..5, 1..3];
        all.skip_to(5);
        assert_eq!(all.next(), None);
    }
}
