//! After a verification: the rows that change from then on are compared again, a little later, so that few are left when
//! the slice changes its owner. And the question of that moment is answered: are the rows that changed since the same?
//!
//! One for each slice. Between two owners both sides stand still. A comparison then proves that they are equal, so the
//! rows that the new owner changes are known from there on, and the way back needs no verification of its own.

use super::again::{again, by_table};
use super::kept::LISTED_MAX;
use super::open::open;
use super::proof::{Sides, Verdict};
use super::subject::Subject;
use super::table::{Key, Table};
use crate::lane::halt::Halt;
use migrations::code::Code;
use migrations::control::VERSION;
use migrations::lane::{Direction, LaneId, Right};
use migrations::names::SliceName;
use migrations::plan;
use migrations::problem::Problem;
use migrations::stage::{Epoch, Stage};
use migrations::verify::{CompareAnswer, Difference, How, Listed};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;
use uuid::Uuid;

/// How often the rows that changed are looked at again.
const INTERVAL: Duration = Duration::from_secs(1);
/// The pause after a database was away.
const RETRY: Duration = Duration::from_secs(5);
/// Rows that are compared together between two owners.
const BATCH: usize = 500;

/// By which verification each lane's rows are known to be the same, but for those that changed since it began.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known(Arc<Mutex<BTreeMap<LaneId, Uuid>>>);

impl Known {
    pub(crate) fn set(&self, lane: &LaneId, of: Uuid) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(lane.clone(), of);
    }

    /// Why the rows of this lane are not known, if they are not.
    pub(crate) fn check(&self, subject: &Subject) -> Result<(), String> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(&subject.plan.id) {
            Some(of) => subject.changed.knows(*of),
            None => Err("no verification was completed since the bridge was started".to_owned()),
        }
    }
}

/// A question, and where the answer goes.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) epoch: Epoch,
    pub(crate) answer: oneshot::Sender<Result<CompareAnswer, Problem>>,
}

#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) forward: Arc<Subject>,
    pub(crate) back: Option<Arc<Subject>>,
    pub(crate) known: Known,
}

/// Both sides of the lane that is watched, kept open.
#[derive(Debug)]
struct Open {
    lane: LaneId,
    sides: Sides,
    tables: Vec<Table>,
}

impl Watch {
    /// Runs until nobody can ask any more.
    pub(crate) async fn run(self, mut asks: mpsc::Receiver<Ask>) {
        let mut held = None;
        loop {
            let asked = tokio::select! {
                biased;
                asked = asks.recv() => asked,
                () = self.tend(&mut held) => continue,
            };
            let Some(Ask { epoch, answer }) = asked else { return };
            let compared = self.answer(&mut held, epoch).await;
            // Who asked may have gone.
            let _ = answer.send(compared);
        }
    }

    /// Looks once more at the rows that changed, after a while.
    async fn tend(&self, held: &mut Option<Open>) {
        sleep(INTERVAL).await;
        let Some(subject) = self.calm().filter(|subject| self.known.check(subject).is_ok()) else { return };
        if let Err(halt) = self.look_again(held, subject).await {
            tracing::info!(slice = %self.slice(), "the rows that changed are not looked at: {halt}");
            *held = None;
            sleep(RETRY).await;
        }
    }

    async fn look_again(&self, held: &mut Option<Open>, subject: &Subject) -> Result<(), Halt> {
        let open = self.opened(held, subject).await?;
        again(&mut open.sides, &open.tables, &subject.changed, |table, key, verdict| {
            if let Verdict::Different(how) = verdict {
                let row = table.row(key);
                tracing::error!(slice = %self.slice(), ?row, ?how, "a row is not the same on both sides");
            }
        })
        .await
    }

    /// Keeps the connections open, so that nobody waits for them between two owners.
    async fn opened<'o>(&self, held: &'o mut Option<Open>, subject: &Subject) -> Result<&'o mut Open, Halt> {
        let lane = &subject.plan.id;
        if held.as_ref().is_some_and(|open| open.lane != *lane || open.sides.are_closed()) {
            *held = None;
        }
        if held.is_none() {
            let (sides, tables) = open(subject, &moved(subject), None).await?;
            *held = Some(Open { lane: lane.clone(), sides, tables });
        }
        held.as_mut().ok_or_else(|| Halt::away("the connections are gone"))
    }

    async fn answer(&self, held: &mut Option<Open>, epoch: Epoch) -> Result<CompareAnswer, Problem> {
        let (subject, other) = self.crossing(epoch)?;
        let answer = match self.compare(held, subject, epoch).await {
            Ok(answer) => answer,
            Err(halt) => {
                *held = None;
                return Err(unable(self.slice(), &halt));
            }
        };
        if answer.complete
            && answer.differences.total == 0
            && let Some(other) = other
        {
            let of = Uuid::new_v4();
            other.changed.begin(of);
            self.known.set(&other.plan.id, of);
        }
        Ok(answer)
    }

    async fn compare(
        &self,
        held: &mut Option<Open>,
        subject: &Subject,
        epoch: Epoch,
    ) -> Result<CompareAnswer, Halt> {
        let unknown = self.known.check(subject).err();
        let open = self.opened(held, subject).await?;
        let Open { sides, tables, .. } = open;
        // Nobody writes, so what the sink has after this is everything, and one look is a proof.
        sides.barrier.pass(&sides.source.client).await?;
        let (mut compared, mut differences, mut after) = (0, Listed::default(), 0);
        loop {
            let rows = subject.changed.rows(after..u64::MAX, BATCH);
            let Some(last) = rows.last() else { break };
            after = last.number;
            for (table, rows) in by_table(tables, &rows) {
                let keys: Vec<Key> = rows.iter().map(|row| table.key_of(&row.key)).collect();
                for (place, how) in differing(sides, table, &keys).await? {
                    let row = table.row(&keys[place]);
                    differences.push(Difference { row, how }, LISTED_MAX);
                }
                compared += keys.len() as u64;
            }
        }
        Ok(CompareAnswer {
            version: VERSION,
            epoch,
            compared,
            complete: unknown.is_none(),
            incomplete_because: unknown,
            differences,
        })
    }

    fn slice(&self) -> &SliceName {
        &self.forward.plan.id.slice
    }

    /// The lane whose sink is the copy now; none while the slice has none, or changes its owner.
    fn calm(&self) -> Option<&Subject> {
        match self.forward.order()?.stage {
            Stage::Following { .. } => Some(&self.forward),
            Stage::Split { .. } => self.back.as_deref(),
            _ => None,
        }
    }

    /// The lane that brings the last rows before the slice changes its owner, and the one that goes on afterwards.
    fn crossing(&self, epoch: Epoch) -> Result<(&Subject, Option<&Subject>), Problem> {
        let (forward, back) = (&*self.forward, self.back.as_deref());
        let stage = forward.order().map(|order| order.stage);
        let (subject, other) = match stage {
            Some(Stage::Cutting { .. }) => (Some(forward), back),
            Some(Stage::Returning { .. }) => (back, Some(forward)),
            _ => (None, None),
        };
        let subject =
            subject.filter(|subject| subject.order().is_some_and(|order| order.right == Right::Apply(epoch)));
        Ok((subject.ok_or_else(|| stale(self.slice(), epoch))?, other))
    }
}

/// The tables that move with the slice, as its lane sees them. The monolith goes on writing reference tables.
fn moved(subject: &Subject) -> Vec<plan::Table> {
    let reference = match subject.plan.id.direction {
        Direction::Forward => &subject.plan.slice.reference[..],
        Direction::Reverse => &[],
    };
    let tables = subject.plan.tables.iter();
    tables.filter(|table| reference.iter().all(|other| other.from != table.from)).cloned().collect()
}

/// Where rows differ at one look.
async fn differing(sides: &mut Sides, table: &Table, keys: &[Key]) -> Result<Vec<(usize, How)>, Halt> {
    let (mut differing, mut done) = (Vec::new(), 0);
    while done < keys.len() {
        let rest: Vec<&Key> = keys[done..].iter().collect();
        let (count, others) = sides.glance(table, &rest).await?;
        differing.extend(others.into_iter().map(|(place, how)| (done + place, how)));
        done += count;
    }
    Ok(differing)
}

fn stale(slice: &SliceName, epoch: Epoch) -> Problem {
    Problem::new(
        Code::JournalConflict,
        format!("the bridge does not move slice {slice} at epoch {epoch}"),
        "someone decided otherwise, or the bridge has not heard of it yet: see `strangler status`",
    )
}

fn unable(slice: &SliceName, halt: &Halt) -> Problem {
    Problem::new(
        Code::BridgeWaits,
        format!("the rows of slice {slice} cannot be compared: {halt}"),
        "it is asked again by itself",
    )
}
