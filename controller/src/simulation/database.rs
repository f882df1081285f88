//! The two databases, played: journal, head, lease, gates, rows and streams of changes. What a gate or the journal
//! refuses is the product's own table ([`migrations::gate`]). Each method is one transaction.

use super::Mutant;
use super::lane::Lane;
use super::tally::Tally;
use crate::store::{Draft, Loaded, StoreError};
use migrations::crossing::Moment;
use migrations::cutover::stay;
use migrations::gate::{Act, Gate, Head, Ledger, Refused, Side, Unwritten};
use migrations::journal::{Entry, Generation, JournalId, SliceState};
use migrations::lane::Direction;
use migrations::lsn::{CommitLsn, Of};
use migrations::names::SliceName;
use migrations::stage::{Epoch, Event, Owner, Stage};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use uuid::Uuid;

/// A client's write: its number, and the row that it sets to this number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Write {
    pub(super) number: u32,
    pub(super) row: u8,
}

/// What stands in a stream of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Client(Write),
    /// Brought by a lane, with its mark.
    Lane(Direction, Write),
    /// The gate was shut or opened.
    Turn {
        epoch: Epoch,
        is_shut: bool,
    },
}

/// The slice's tables on one side.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) stream: Vec<(Moment, Change)>,
    pub(super) rows: BTreeMap<u8, u32>,
    had: BTreeSet<u32>,
    /// Clients' open transactions. A fence waits for them.
    pub(super) writers: u32,
    /// A fence waits, so later writers queue behind it.
    pub(super) is_fencing: bool,
}

impl Tables {
    pub(super) fn turned(&mut self, now: Moment, epoch: Epoch, is_shut: bool) {
        self.stream.push((now, Change::Turn { epoch, is_shut }));
    }

    /// Puts a write in. None is put in twice.
    pub(super) fn put(&mut self, now: Moment, change: Change) -> bool {
        let (Change::Client(write) | Change::Lane(_, write)) = change else { return true };
        self.stream.push((now, change));
        self.rows.insert(write.row, write.number);
        self.had.insert(write.number)
    }
}

#[derive(Debug)]
pub(super) struct Databases {
    slice: SliceName,
    journal: JournalId,
    pub(super) entries: Vec<Entry>,
    pub(super) ledger: Ledger,
    lease: Option<(String, Moment)>,
    pub(super) service: Gate,
    tables: [Tables; 2],
    pub(super) lanes: BTreeMap<Direction, Lane>,
    acknowledged: BTreeSet<u32>,
    executed: BTreeSet<u32>,
    /// The latest moment until which the journal ever allowed writes to be held.
    pub(super) held_until: Moment,
    pub(super) mutant: Option<Mutant>,
    /// The first thing that must never be.
    pub(super) broken: Option<String>,
    pub(super) tally: Tally,
}

impl Databases {
    /// A slice that follows the monolith.
    pub(super) fn new(slice: SliceName, mutant: Option<Mutant>) -> Databases {
        let ledger = Ledger { gate: Some(Gate::made(Side::Monolith, Epoch(0))), ..Ledger::default() };
        let mut databases = Databases {
            slice,
            journal: JournalId(Uuid::from_u128(1)),
            entries: Vec::new(),
            ledger,
            lease: None,
            service: Gate::made(Side::Service, Epoch(0)),
            tables: [Tables::default(), Tables::default()],
            lanes: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            executed: BTreeSet::new(),
            held_until: Moment(0),
            mutant,
            broken: None,
            tally: Tally::default(),
        };
        databases.lanes.insert(Direction::Forward, Lane::default());
        let copied = Event::CopyCompleted { copied_at: Of::monolith(CommitLsn(1)) };
        for event in [Event::SyncStarted { replace: false }, copied] {
            let ledger = databases.ledger.append(databases.ledger.length, &event).unwrap();
            databases.write(ledger, event, "a person");
        }
        databases
    }

    pub(super) fn head(&self) -> &SliceState {
        &self.ledger.head
    }

    pub(super) fn gate(&self, side: Side) -> Option<Gate> {
        match side {
            Side::Monolith => self.ledger.gate,
            Side::Service => Some(self.service),
        }
    }

    pub(super) fn is_open(&self, side: Side) -> bool {
        self.gate(side).is_some_and(|gate| !gate.is_shut)
    }

    pub(super) fn tables(&mut self, side: Side) -> &mut Tables {
        &mut self.tables[side as usize]
    }

    /// Rows that the two sides do not have alike.
    pub(super) fn differences(&self) -> u64 {
        let [monolith, service] = &self.tables;
        let rows: BTreeSet<_> = monolith.rows.keys().chain(service.rows.keys()).collect();
        rows.into_iter().filter(|row| monolith.rows.get(row) != service.rows.get(row)).count() as u64
    }

    pub(super) fn load(&self, after: Generation) -> Loaded {
        let entries = self.entries.iter().filter(|entry| entry.generation > after).cloned().collect();
        Loaded { journal: self.journal, length: self.ledger.length, entries }
    }

    /// As the journal's store does it: entry, head and the monolith's gate at once.
    pub(super) fn append(
        &mut self,
        now: Moment,
        expected: Generation,
        draft: &Draft,
    ) -> Result<Entry, StoreError> {
        let (event, after) = (&draft.decided.event, &draft.decided.after);
        let ledger = match self.ledger.append(expected, event) {
            Ok(ledger) if ledger.head != *after => {
                self.breaks(format!("I6: {} leads elsewhere than was judged", event.name()));
                ledger
            }
            Ok(ledger) => ledger,
            Err(_) if self.mutant == Some(Mutant::NoLeaseNoCompareAndSwap) => self.forced(event, after),
            Err(why) => {
                self.tally.refused += 1;
                return Err(match why {
                    Unwritten::Conflict(length) => StoreError::Conflict(length),
                    why => {
                        StoreError::Refused { why: why.to_string(), remedy: "read the journal".to_owned() }
                    }
                });
            }
        };
        self.decides(now, event, &draft.actor);
        self.write(ledger, event.clone(), &draft.actor);
        self.opened(now, event);
        Ok(self.entries.last().cloned().unwrap())
    }

    /// Over whatever the journal and the gate say.
    fn forced(&self, event: &Event, after: &SliceState) -> Ledger {
        let gate = self.ledger.gate.map(|gate| match event {
            Event::CutoverAborted { epoch, .. } | Event::RollbackCommitted { epoch } => {
                Gate { epoch: gate.epoch.max(*epoch), is_shut: false }
            }
            _ => gate,
        });
        Ledger { length: self.ledger.length.next(), head: after.clone(), gate }
    }

    fn write(&mut self, ledger: Ledger, event: Event, actor: &str) {
        self.entries.push(Entry {
            generation: ledger.length,
            at: String::new(),
            actor: actor.to_owned(),
            reason: String::new(),
            slice: self.slice.clone(),
            event,
        });
        self.ledger = ledger;
        if !self.head().is_crossing() {
            self.lease = None;
        }
        self.held_until = self.held_until.max(self.head().hold.map_or(Moment(0), |hold| hold.until));
    }

    /// What must be so when somebody gets the tables, and for how long nobody has them.
    fn decides(&mut self, now: Moment, event: &Event, actor: &str) {
        match event {
            Event::CutoverStarted { until, .. } | Event::RollbackStarted { until, .. } => {
                let asked = self
                    .head()
                    .preparing
                    .map_or(Duration::from_secs(5), |preparing| Duration::from_millis(preparing.hold_ms));
                if *until > now.after(asked) && actor == "coordinator" {
                    self.breaks(format!("I5: writes may be held until {until:?}, at {now:?}"));
                }
            }
            Event::CutoverCommitted { .. } => self.tally.committed += 1,
            Event::RollbackCommitted { .. } => self.tally.rolled_back += 1,
            Event::CutoverAborted { .. } | Event::RollbackAborted { .. } => self.tally.aborted += 1,
            _ => {}
        }
        let hands_over = matches!(event, Event::CutoverCommitted { .. } | Event::RollbackCommitted { .. });
        if hands_over && self.mutant.is_none() && self.differences() > 0 {
            self.breaks(format!("I2: the sides differ at {}", event.name()));
        }
    }

    /// An entry that opens the monolith's gate says so in its stream.
    fn opened(&mut self, now: Moment, event: &Event) {
        if let Event::CutoverAborted { epoch, .. } | Event::RollbackCommitted { epoch } = event {
            self.tables(Side::Monolith).turned(now, *epoch, false);
            self.has_all(Side::Monolith);
        }
        self.check();
    }

    pub(super) fn take_lease(&mut self, now: Moment, coordinator: &str, time: Duration) -> bool {
        if let Some((other, until)) = &self.lease
            && other != coordinator
        {
            if *until > now && self.mutant != Some(Mutant::NoLeaseNoCompareAndSwap) {
                return false;
            }
            self.tally.taken_over += 1;
        }
        self.lease = Some((coordinator.to_owned(), now.after(time)));
        true
    }

    /// `strangler.abort`; without an epoch `strangler.abort_expired`.
    pub(super) fn abort(&mut self, now: Moment, epoch: Option<Epoch>) -> Result<Option<Epoch>, Unwritten> {
        let head = self.head();
        let returns = matches!(head.stage, Stage::Returning { .. });
        let ledger = match epoch {
            Some(epoch) => self.ledger.abort(epoch, "by hand".to_owned())?,
            None => {
                let is_undecided = returns || head.is_crossing() && !head.stage.is_at_service();
                if !is_undecided || self.lease.as_ref().is_some_and(|(_, until)| *until > now) {
                    return Ok(None);
                }
                let (epoch, why) = (head.epoch.next(), "the lease has run out".to_owned());
                let event = if returns { stay(head, why, now) } else { Event::CutoverAborted { epoch, why } };
                self.tally.expired += 1;
                return self.give_up(now, self.ledger.append(self.ledger.length, &event)?, event);
            }
        };
        let (epoch, why) = (ledger.head.epoch, "by hand".to_owned());
        let event = if returns {
            Event::RollbackAborted { epoch, why, returns_at: None }
        } else {
            Event::CutoverAborted { epoch, why }
        };
        self.give_up(now, ledger, event)
    }

    fn give_up(&mut self, now: Moment, ledger: Ledger, event: Event) -> Result<Option<Epoch>, Unwritten> {
        let lease = self.lease.clone().filter(|_| matches!(event, Event::RollbackAborted { .. }));
        let epoch = ledger.head.epoch;
        self.decides(now, &event, "a database");
        self.write(ledger, event.clone(), "a database");
        self.lease = lease;
        self.opened(now, &event);
        Ok(Some(epoch))
    }

    /// Turns a gate, as the installed functions do.
    pub(super) fn turn(&mut self, now: Moment, side: Side, act: Act) -> Result<(), Refused> {
        let gate = self.gate(side).unwrap_or_default();
        let head = (side == Side::Monolith).then(|| Head::from(self.head()));
        let turned = self.gated(gate, act, head).inspect_err(|_| self.tally.refused += 1)?;
        match side {
            Side::Monolith => self.ledger.gate = Some(turned),
            Side::Service => self.service = turned,
        }
        if !matches!(act, Act::Raise(_)) {
            self.tables(side).turned(now, turned.epoch, turned.is_shut);
        }
        if !turned.is_shut {
            self.has_all(side);
        }
        self.check();
        Ok(())
    }

    pub(super) fn gated(&self, gate: Gate, act: Act, head: Option<Head>) -> Result<Gate, Refused> {
        match (self.mutant, act) {
            (Some(Mutant::NoEpoch), Act::Fence(epoch)) => Ok(Gate { epoch, is_shut: true }),
            (Some(Mutant::NoEpoch), Act::Open(epoch)) => Ok(Gate { epoch, is_shut: false }),
            _ => gate.after(act, head),
        }
    }

    /// A client's transaction writes its first row. None while a fence is waited for; false where the gate is shut.
    pub(super) fn begin(&mut self, side: Side) -> Option<bool> {
        let is_open = self.is_open(side);
        let tables = self.tables(side);
        tables.writers += u32::from(is_open && !tables.is_fencing);
        if is_open && tables.is_fencing { None } else { Some(is_open) }
    }

    /// A client's transaction commits.
    pub(super) fn commit(&mut self, now: Moment, side: Side, write: Write) {
        self.tables(side).writers -= 1;
        if !self.executed.insert(write.number) {
            self.breaks(format!("I4: write {} was executed twice", write.number));
        }
        self.tables(side).put(now, Change::Client(write));
    }

    /// A client has heard that its write is committed.
    pub(super) fn acknowledge(&mut self, write: Write) {
        self.acknowledged.insert(write.number);
        self.tally.acknowledged += 1;
        for side in [Side::Monolith, Side::Service] {
            if self.is_open(side) && !self.tables[side as usize].had.contains(&write.number) {
                self.breaks(format!("I2: write {} is not at the {side}, which is open", write.number));
            }
        }
    }

    fn has_all(&mut self, side: Side) {
        let lost = self.acknowledged.difference(&self.tables[side as usize].had).next().copied();
        if let Some(lost) = lost {
            self.breaks(format!("I2: the {side} opens without write {lost}"));
        }
    }

    fn check(&mut self) {
        let (monolith, service) = (self.is_open(Side::Monolith), self.is_open(Side::Service));
        if monolith && service {
            self.breaks("I1: both sides accept writes".to_owned());
        }
        let is_owner_shut = match self.head().stage.owner() {
            Owner::Monolith => !monolith,
            Owner::Service => !service,
            Owner::Nobody => false,
        };
        if is_owner_shut && !self.head().is_crossing() {
            self.breaks("I6: nothing is under way, and the owner's gate is shut".to_owned());
        }
    }

    pub(super) fn breaks(&mut self, what: String) {
        self.broken.get_or_insert(what);
    }

    /// What keeps the slice from being settled; none if exactly the owner's side is open, both sides are equal, and nothing
    /// is left to do.
    pub(super) fn unsettled(&self) -> Option<String> {
        let head = self.head();
        let is_open = [Side::Monolith, Side::Service].map(|side| self.is_open(side));
        let reverse = self.lanes.get(&Direction::Reverse).map(|lane| lane.attempt);
        let way_back = head.has_way_back().then_some(head.way_back);
        let lost = self.acknowledged.iter().find(|write| self.tables.iter().any(|t| !t.had.contains(write)));
        if head.is_crossing() {
            Some(format!("it is {} with {:?}, {:?}", head.stage.name(), head.preparing, head.hold))
        } else if is_open != [head.stage.owner() == Owner::Monolith, head.stage.owner() == Owner::Service] {
            Some(format!("it is {}, and the gates are open: {is_open:?}", head.stage.name()))
        } else if matches!(head.stage, Stage::Split { returns_at: Some(_), .. }) {
            Some("it returns by itself".to_owned())
        } else if reverse != way_back {
            Some(format!("the way back is {reverse:?}, and should be {way_back:?}"))
        } else if self.differences() > 0 {
            Some(format!("{} rows differ", self.differences()))
        } else {
            lost.map(|write| format!("write {write} is not on both sides"))
        }
    }
}
