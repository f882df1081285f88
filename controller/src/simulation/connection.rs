//! A controller's connections to the two databases, played: the journal's store, and the hands of the coordinator. What
//! was asked arrives late, or not at all, or after the one who asked has died; and so do the answers.

use super::chance::Dice;
use super::database::Databases;
use super::world::{Beat, Who, World};
use super::{Blow, Mutant};
use crate::coordinator::{Done, Trouble};
use crate::store::{Draft, Loaded, StoreError};
use migrations::control::VERSION;
use migrations::crossing::{Digest, Moment};
use migrations::cutover::Step;
use migrations::gate::{Act, Gate, Refused, Side};
use migrations::journal::{Entry, Generation};
use migrations::stage::Epoch;
use migrations::verify::{CompareAnswer, Difference, Listed};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::oneshot;

/// As the store has it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// A fence waits for writers so long.
const LOCK_TIMEOUT: Duration = Duration::from_millis(100);
/// How often whoever waits for a lock looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(4);
const LONGER_THAN_A_LEASE: Duration = Duration::from_secs(8);
/// Nobody alters a table here.
const SHAPES: Digest = Digest(7);

/// No answer came.
#[derive(Debug)]
pub(super) struct Lost;

#[derive(Clone)]
pub struct Connection {
    world: Arc<World>,
    who: Who,
    dice: Arc<Mutex<Dice>>,
    /// The journal is asked one question at a time.
    session: Arc<tokio::sync::Mutex<()>>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.who)
    }
}

/// What becomes of a question.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Answered,
    NeverAsked,
    NeverAnswered,
}

impl Connection {
    pub(super) fn new(world: &Arc<World>, who: Who, name: &str) -> Connection {
        let dice = Arc::new(Mutex::new(world.dice(name)));
        Connection { world: Arc::clone(world), who, dice, session: Arc::default() }
    }

    /// Asks a database. The question lives on without the one who asked.
    pub(super) async fn ask<T: fmt::Debug + Send + 'static>(
        &self,
        side: Side,
        what: &'static str,
        work: impl FnOnce(&mut Databases, Moment) -> T + Send + 'static,
    ) -> Result<T, Lost> {
        let mut work = Some(work);
        self.ask_patiently(side, what, Duration::ZERO, move |databases, now, _| {
            work.take().map(|work| work(databases, now))
        })
        .await
    }

    /// Asks a database for something that waits for a lock: `work` returns nothing until it has it, or the time is over.
    async fn ask_patiently<T: fmt::Debug + Send + 'static>(
        &self,
        side: Side,
        what: &'static str,
        patience: Duration,
        mut work: impl FnMut(&mut Databases, Moment, bool) -> Option<T> + Send + 'static,
    ) -> Result<T, Lost> {
        let (there, back, fate) = self.trip();
        let (answer, answered) = oneshot::channel();
        let asker = self.clone();
        tokio::spawn(async move {
            let (world, who) = (&asker.world, asker.who);
            world.rest(there, Beat::Database).await;
            world.thaw(who).await;
            if fate == Fate::NeverAsked || world.is_away(side) {
                world.tell(|| format!("{who:?} asks the {side} in vain: {what}"));
                return;
            }
            let until = world.now().after(patience);
            let done = loop {
                let now = world.now();
                let done = work(&mut world.databases(), now, now >= until);
                if let Some(done) = done {
                    break done;
                }
                world.rest(LOOK_AGAIN, Beat::Database).await;
            };
            world.tell(|| {
                let done: String = format!("{done:?}").chars().take(200).collect();
                format!("{who:?} asks the {side}: {what}: {done}")
            });
            if asker.suffer() == Some(Blow::LosesTheAnswer) || fate == Fate::NeverAnswered {
                return;
            }
            world.rest(back, Beat::Database).await;
            world.thaw(who).await;
            // Whoever asked may have given up.
            let _ = answer.send(done);
        });
        answered.await.map_err(|_| Lost)
    }

    fn trip(&self) -> (Duration, Duration, Fate) {
        let (faults, mut dice) = (self.world.faults(), self.dice.lock().unwrap());
        let mut way = || match () {
            () if dice.hits(faults.hang) => dice.ms(1_000..12_000),
            () if dice.hits(faults.slow) => dice.ms(20..500),
            () => dice.ms(0..4),
        };
        let (there, back) = (way(), way());
        let fate = match () {
            () if dice.hits(faults.loss) => Fate::NeverAsked,
            () if dice.hits(faults.lost_answer) => Fate::NeverAnswered,
            () => Fate::Answered,
        };
        (there, back, fate)
    }

    /// After each step a controller may die, or stand still. More happens while something is under way.
    fn suffer(&self) -> Option<Blow> {
        let Who::Controller(number) = self.who else { return None };
        let often = if self.world.databases().head().is_crossing() { 3.0 } else { 0.5 };
        let (faults, mut dice) = (self.world.faults(), self.dice.lock().unwrap());
        let blow = self.world.counts().or_else(|| match () {
            () if dice.hits(faults.crash * often) => Some(Blow::Dies),
            () if dice.hits(faults.freeze * often) => Some(Blow::StandsStill),
            () => None,
        });
        match blow {
            Some(Blow::Dies) => self.world.seats[number].crash.notify_one(),
            Some(Blow::StandsStill) if self.world.course.blow.is_some() => {
                self.world.freeze(number, LONGER_THAN_A_LEASE);
            }
            Some(Blow::StandsStill) => self.world.freeze(number, dice.ms(500..14_000)),
            Some(Blow::LosesTheAnswer) | None => {}
        }
        blow
    }

    /// Asks for the journal, one question after the other.
    async fn query<T: fmt::Debug + Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce(&mut Databases, Moment) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let asked = async {
            let _session = self.session.lock().await;
            self.ask(Side::Monolith, what, work).await
        };
        match tokio::time::timeout(ANSWER_TIMEOUT, asked).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(Lost)) => Err(StoreError::Uncertain { why: "the connection broke".to_owned() }),
            Err(_) => Err(StoreError::Uncertain { why: "no answer".to_owned() }),
        }
    }

    pub(crate) async fn load(&self, after: Generation) -> Result<Loaded, StoreError> {
        self.query("load", move |databases, _| databases.load(after)).await
    }

    pub(crate) async fn append(&self, expected: Generation, draft: &Draft) -> Result<Entry, StoreError> {
        let draft = draft.clone();
        self.query(draft.decided.event.name(), move |databases, now| databases.append(now, expected, &draft))
            .await?
    }

    pub(crate) async fn now(&self) -> Result<Moment, StoreError> {
        self.query("now", |_, now| now).await
    }

    pub(crate) async fn take_lease(&self, coordinator: &str, time: Duration) -> Result<bool, StoreError> {
        let coordinator = coordinator.to_owned();
        self.query("take the lease", move |databases, now| databases.take_lease(now, &coordinator, time))
            .await
    }

    /// What touches nothing here, and takes its time.
    pub(crate) async fn see_both(&self, what: &'static str) -> Result<(), Trouble> {
        self.ask(Side::Monolith, what, |_, _| ()).await.map_err(again)?;
        self.ask(Side::Service, what, |_, _| ()).await.map_err(again)
    }

    pub(crate) async fn deed(&self, step: Step, epoch: Epoch) -> Result<Done, Trouble> {
        match step {
            Step::Inspect => self.see_both("inspect").await.map(|()| Done::Ready(SHAPES)),
            Step::Reserve(side) => self.ask(side, "reserve", |_, _| Done::Reserved).await.map_err(again),
            Step::Fence(side) => self.turn(side, Act::Fence(epoch)).await,
            Step::Open(side) => self.turn(side, Act::Open(epoch)).await,
            Step::Compare => self.compare(epoch).await,
            Step::Number(_) => self.see_both("number").await.map(|()| Done::Numbered),
        }
    }

    pub(crate) async fn gate(&self, side: Side) -> Result<Option<Gate>, Trouble> {
        self.ask(side, "its gate", move |databases, _| databases.gate(side)).await.map_err(again)
    }

    pub(super) async fn turn(&self, side: Side, act: Act) -> Result<Done, Trouble> {
        let is_patient = matches!(act, Act::Fence(_)) && !self.world.is_mutant(Mutant::NoBarrier);
        let (what, patience) = match act {
            Act::Fence(_) => ("fence", LOCK_TIMEOUT),
            Act::Open(_) | Act::Raise(_) => ("open", Duration::ZERO),
        };
        let turning = move |databases: &mut Databases, now, is_late: bool| {
            let tables = databases.tables(side);
            tables.is_fencing = is_patient && tables.writers > 0 && !is_late;
            match (is_patient && tables.writers > 0, is_late) {
                (true, false) => None,
                (true, true) => Some(Err(Trouble::Again("a lock was not had in time".to_owned()))),
                (false, _) => Some(databases.turn(now, side, act).map_err(stale)),
            }
        };
        self.ask_patiently(side, what, patience, turning).await.map_err(again)??;
        Ok(Done::Turned(side, self.gate(side).await?))
    }

    async fn compare(&self, epoch: Epoch) -> Result<Done, Trouble> {
        if !self.world.bridge.knows(epoch) {
            return Err(Trouble::Again("the bridge has not heard of the epoch".to_owned()));
        }
        let looking = |databases: &mut Databases, _| databases.differences();
        let total = self.ask(Side::Service, "compare", looking).await.map_err(again)?;
        let differences: Listed<Difference> = Listed { total, listed: Vec::new() };
        let answer = CompareAnswer {
            version: VERSION,
            epoch,
            compared: 1,
            complete: true,
            incomplete_because: None,
            differences,
        };
        Ok(Done::Compared(SHAPES, answer))
    }
}

fn again(Lost: Lost) -> Trouble {
    Trouble::Again("the connection broke".to_owned())
}

fn stale(refused: Refused) -> Trouble {
    Trouble::Stale(refused.to_string())
}
