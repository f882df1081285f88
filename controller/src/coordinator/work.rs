//! Does the steps: at the gates, at the sequences, and by looking. What came of a step is returned; nothing is decided here.

use super::compare::Line;
use super::hands::{self, Hands};
use super::ready::{self, READY_MAX, Ready};
use super::reservation::{Reservation, Turned};
use super::sequences::{self, Pair};
use super::shapes;
use super::trouble::Trouble;
use crate::desk::Desk;
use crate::observe;
#[cfg(test)]
use crate::store::Store;
use migrations::crossing::Digest;
use migrations::cutover::Step;
use migrations::gate::{Gate, Side};
use migrations::plan::Slice;
use migrations::preflight::Aim;
use migrations::stage::Epoch;
use migrations::verify::CompareAnswer;
use postgres::gate;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio_postgres::Client;

/// Longer than `doctor` takes for both databases.
const INSPECT_MAX: Duration = Duration::from_secs(60);
/// Longer than a reservation waits for its locks.
const RESERVE_MAX: Duration = Duration::from_secs(7);
/// A fence waits for locks up to 100 ms.
const FENCE_MAX: Duration = Duration::from_secs(1);
/// An opening gate waits for locks up to 5 s, and nobody else does in the meantime.
const OPEN_MAX: Duration = Duration::from_secs(7);
/// A database that does not answer another step for so long is asked anew.
const STEP_MAX: Duration = Duration::from_secs(3);

/// What came of a step.
#[derive(Debug)]
pub(crate) enum Done {
    Ready(Digest),
    Reserved,
    Turned(Side, Option<Gate>),
    Compared(Digest, CompareAnswer),
    Numbered,
}

#[derive(Debug)]
pub(super) struct Work<'a> {
    desk: &'a Desk,
    slice: &'a Slice,
    line: &'a Line,
    hands: Hands<'a>,
    /// A session at the monolith that is ready to open its gate.
    opening: Option<Client>,
    /// What is numbered anew at each side, found before writes were held.
    pairs: BTreeMap<Side, Vec<Pair>>,
}

impl<'a> Work<'a> {
    pub(super) fn new(desk: &'a Desk, slice: &'a Slice, line: &'a Line) -> Work<'a> {
        let mut work = Work {
            desk,
            slice,
            line,
            hands: Hands::new(&desk.plan, slice),
            opening: None,
            pairs: BTreeMap::new(),
        };
        if let Some(Ready { monolith, service, opening, pairs }) = desk.spare.take(&slice.name) {
            work.give_back_both(monolith, service);
            work.opening = Some(opening);
            work.pairs.insert(Side::Monolith, pairs);
        }
        work
    }

    pub(super) async fn step(&mut self, step: Step, epoch: Epoch) -> Result<Done, Trouble> {
        let (what, time) = match step {
            Step::Inspect => ("a database", INSPECT_MAX),
            Step::Reserve(_) => ("the database", RESERVE_MAX),
            Step::Fence(_) => ("the database", FENCE_MAX),
            Step::Open(_) => ("the database", OPEN_MAX),
            // It may take as long as writes may be held.
            Step::Compare => return self.deed(step, epoch).await,
            Step::Number(_) => ("a database", STEP_MAX),
        };
        within(what, time, self.deed(step, epoch)).await
    }

    pub(super) async fn gate(&mut self, side: Side) -> Result<Option<Gate>, Trouble> {
        within("the database", STEP_MAX, self.read(side)).await
    }

    async fn deed(&mut self, step: Step, epoch: Epoch) -> Result<Done, Trouble> {
        #[cfg(test)]
        if let Store::Played(played) = self.desk.store() {
            return played.deed(step, epoch).await;
        }
        match step {
            Step::Inspect => self.inspect().await,
            Step::Reserve(side) => self.reserve(side).await,
            Step::Fence(side) => self.fence(side, epoch).await,
            Step::Open(side) => self.open(side, epoch).await,
            Step::Compare => self.compare(epoch).await,
            Step::Number(side) => self.number(side).await,
        }
    }

    async fn read(&mut self, side: Side) -> Result<Option<Gate>, Trouble> {
        #[cfg(test)]
        if let Store::Played(played) = self.desk.store() {
            return played.gate(side).await;
        }
        let client = self.hands.lend(side).await?;
        let read = gate::read(&client, &self.slice.name).await.map_err(|error| Trouble::of(&error))?;
        self.hands.give_back(side, client);
        Ok(read)
    }

    /// Before a slice returns by itself. What cannot be made ready, the steps find out themselves.
    pub(super) async fn make_ready(&mut self) {
        if let Err(trouble) = within("a database", READY_MAX, self.warm()).await {
            tracing::info!(slice = %self.slice.name, ?trouble, "nothing is ready before the return");
        }
    }

    async fn warm(&mut self) -> Result<(), Trouble> {
        #[cfg(test)]
        if let Store::Played(played) = self.desk.store() {
            return played.see_both("warm").await;
        }
        let (monolith, service) = self.lend_both().await?;
        ready::warm(&monolith, &service, &self.slice.name).await;
        let pairs = sequences::pairs(self.slice, Side::Monolith, &monolith, &service).await?;
        self.pairs.insert(Side::Monolith, pairs);
        self.give_back_both(monolith, service);
        self.reserve(Side::Service).await.map(drop)
    }

    async fn inspect(&mut self) -> Result<Done, Trouble> {
        let found = observe::glance(&self.desk.plan, &self.slice.name).await.findings(Aim::Cutover);
        let errors: Vec<String> = found.iter().filter(|f| f.is_error()).map(|f| f.message.clone()).collect();
        if !errors.is_empty() {
            return Err(Trouble::Final(errors.join("; ")));
        }
        let (monolith, service) = self.lend_both().await?;
        // Both ways: what could not be numbered after the way back is said before the way there.
        sequences::pairs(self.slice, Side::Monolith, &monolith, &service).await?;
        let pairs = sequences::pairs(self.slice, Side::Service, &monolith, &service).await?;
        self.pairs.insert(Side::Service, pairs);
        ready::warm(&monolith, &service, &self.slice.name).await;
        let digest = shapes::digest(self.slice, &monolith, &service).await;
        let digest = digest.map_err(|error| Trouble::of(&error))?;
        self.give_back_both(monolith, service);
        Ok(Done::Ready(digest))
    }

    /// Also on the side whose gate is to open then.
    async fn reserve(&mut self, from: Side) -> Result<Done, Trouble> {
        let (slice, to) = (self.slice, from.other());
        // A cutover is prepared while writes go on; a rollback may hold them already.
        let patience = match from {
            Side::Monolith => Duration::from_secs(5),
            Side::Service => Duration::from_secs(2),
        };
        let (shutting, opening) = (self.hands.lend_reserved(from), self.hands.lend_opening(to));
        let client = if shutting.is_none() { Some(self.hands.lend(from).await?) } else { None };
        let (desk, spare) = (self.desk, self.opening.take().filter(|_| to == Side::Monolith));
        let shutting = async {
            match (shutting, client) {
                (None, Some(client)) => Reservation::take(client, slice, from, patience).await.map(Some),
                (reserved, _) => Ok(reserved),
            }
        };
        let opening = async {
            let client = match (opening, spare) {
                (Some(reserved), _) => return Ok(reserved),
                (None, Some(client)) => client,
                (None, None) => hands::open(&desk.plan, slice, to).await?,
            };
            gate::warm(&client, &slice.name).await.map_err(|error| Trouble::of(&error))?;
            Reservation::take(client, slice, to, patience).await
        };
        let (shutting, opening) = futures_util::try_join!(shutting, opening)?;
        shutting.into_iter().for_each(|reserved| self.hands.reserve(from, reserved));
        self.hands.reserve_opening(to, opening);
        Ok(Done::Reserved)
    }

    /// The entry that comes next turns a gate itself, or none is turned any more.
    pub(super) async fn let_go(&mut self) {
        for side in [Side::Monolith, Side::Service] {
            if let Some(reserved) = self.hands.lend_opening(side) {
                let _ = reserved.give_up().await;
            }
        }
    }

    async fn fence(&mut self, side: Side, epoch: Epoch) -> Result<Done, Trouble> {
        let name = &self.slice.name;
        let (client, fenced) = match self.hands.lend_reserved(side) {
            Some(reservation) => match reservation.fence(name, epoch).await? {
                Turned::Yes(client) => (client, Ok(())),
                Turned::No(reservation, trouble) => {
                    self.hands.reserve(side, reservation);
                    return Err(trouble);
                }
            },
            // Its session was lost meanwhile. The gate can be shut all the same.
            None => {
                let client = self.hands.lend(side).await?;
                let fenced = gate::fence(&client, name, epoch).await;
                (client, fenced.map_err(|error| Trouble::of(&error)))
            }
        };
        self.hands.give_back(side, client);
        fenced?;
        Ok(Done::Turned(side, self.gate(side).await?))
    }

    async fn open(&mut self, side: Side, epoch: Epoch) -> Result<Done, Trouble> {
        let name = &self.slice.name;
        if let Some(reservation) = self.hands.lend_opening(side) {
            if let Turned::No(reservation, trouble) = reservation.open(name, epoch).await? {
                self.hands.reserve_opening(side, reservation);
                return Err(trouble);
            }
        } else {
            let client = self.hands.lend(side).await?;
            let opened = gate::open(&client, name, epoch).await;
            self.hands.give_back(side, client);
            opened.map_err(|error| Trouble::of(&error))?;
        }
        Ok(Done::Turned(side, self.gate(side).await?))
    }

    async fn compare(&mut self, epoch: Epoch) -> Result<Done, Trouble> {
        let (monolith, service) = self.lend_both().await?;
        let shapes = async {
            let digest = shapes::digest(self.slice, &monolith, &service).await;
            digest.map_err(|error| Trouble::of(&error))
        };
        let rows = self.line.compare(self.desk.bridge(), &self.slice.name, epoch);
        let (schema, rows) = futures_util::try_join!(shapes, rows)?;
        self.give_back_both(monolith, service);
        Ok(Done::Compared(schema, rows))
    }

    async fn number(&mut self, to: Side) -> Result<Done, Trouble> {
        let (monolith, service) = self.lend_both().await?;
        let pairs = match self.pairs.remove(&to) {
            Some(pairs) => pairs,
            None => sequences::pairs(self.slice, to, &monolith, &service).await?,
        };
        sequences::set(&pairs, to, &monolith, &service).await?;
        self.give_back_both(monolith, service);
        Ok(Done::Numbered)
    }

    async fn lend_both(&mut self) -> Result<(Client, Client), Trouble> {
        let monolith = self.hands.lend(Side::Monolith).await?;
        Ok((monolith, self.hands.lend(Side::Service).await?))
    }

    fn give_back_both(&mut self, monolith: Client, service: Client) {
        self.hands.give_back(Side::Monolith, monolith);
        self.hands.give_back(Side::Service, service);
    }
}

async fn within<T>(
    what: &str,
    time: Duration,
    work: impl Future<Output = Result<T, Trouble>>,
) -> Result<T, Trouble> {
    tokio::time::timeout(time, work).await.unwrap_or_else(|_| Err(Trouble::late(what, time)))
}
