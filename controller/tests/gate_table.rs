//! The installed SQL and the journal's store against the pure table of `migrations::gate`: thousands of random deeds on eight
//! slices, with stale and early epochs among them. After each one everything that a database has of every slice is what
//! the table says. So a deed never touches another slice either.
//!
//! A run prints its seed; `STRANGLER_TEST_SEED` repeats it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on shall fail"
)]

mod world;

use controller::{Draft, Store, StoreError};
use lab::{Cluster, Dice};
use migrations::crossing::Moment;
use migrations::gate::{Act, Gate, Head, Ledger, Refused, Side, Unwritten};
use migrations::journal::{Generation, Move, State};
use migrations::names::SliceName;
use migrations::stage::{Epoch, Event, Stage};
use postgres::gate;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio_postgres::{Client, Error};

const DEEDS: u32 = 3_000;
const SLICES: [&str; 8] = ["ask", "billing", "carts", "orders", "orders-2", "raise", "stock", "work"];

#[derive(Debug, Clone, PartialEq)]
enum Deed {
    Make(Side, Epoch),
    Unmake(Side),
    Work(Side, Act),
    Append(Generation, Event),
    Abort(Epoch),
    AbortExpired,
    /// The lease is taken for long, or not at all any more.
    Lease(bool),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Done,
    /// Nothing was to be done.
    Nothing,
    /// The server's SQLSTATE.
    Refused(String),
    Conflict,
    /// The store's own refusal.
    Unwritten,
}

/// What the table says that the databases have.
struct Model {
    state: State,
    gates: BTreeMap<(SliceName, Side), Gate>,
    leased: BTreeSet<SliceName>,
}

impl Model {
    fn ledger(&self, slice: &SliceName) -> Ledger {
        let gate = self.gates.get(&(slice.clone(), Side::Monolith)).copied();
        Ledger { length: self.state.generation, head: self.state.slice(slice), gate }
    }

    fn keep(&mut self, slice: &SliceName, side: Side, gate: Option<Gate>) {
        let place = (slice.clone(), side);
        match gate {
            Some(gate) => self.gates.insert(place, gate),
            None => self.gates.remove(&place),
        };
    }

    /// What the deed comes to, and the gate that it leaves.
    fn expect(&self, slice: &SliceName, deed: &Deed) -> (Outcome, Option<Ledger>) {
        let ledger = self.ledger(slice);
        let gate = |side| self.gates.get(&(slice.clone(), side)).copied();
        let written = |written: Result<Ledger, Unwritten>| match written {
            Ok(ledger) => (Outcome::Done, Some(ledger)),
            Err(Unwritten::Conflict(_)) => (Outcome::Conflict, None),
            Err(_) => (Outcome::Unwritten, None),
        };
        let turned = |gate| (Outcome::Done, Some(Ledger { gate, ..ledger.clone() }));
        match deed {
            Deed::Make(side, epoch) => turned(Some(gate(*side).unwrap_or_else(|| Gate::made(*side, *epoch)))),
            Deed::Unmake(_) => turned(None),
            Deed::Work(side, act) => {
                let head = (*side == Side::Monolith).then(|| Head::from(&ledger.head));
                match gate(*side).map(|gate| gate.after(*act, head)) {
                    None => (Outcome::Refused("STR04".to_owned()), None),
                    Some(Err(Refused::Stale { .. } | Refused::Open | Refused::NotDecided)) => {
                        (Outcome::Refused("STR02".to_owned()), None)
                    }
                    Some(Ok(gate)) => turned(Some(gate)),
                }
            }
            Deed::Append(expected, event) => written(ledger.append(*expected, event)),
            Deed::Abort(epoch) => match ledger.abort(*epoch, String::new()) {
                Err(Unwritten::NoGate) => (Outcome::Refused("STR04".to_owned()), None),
                Err(_) => (Outcome::Refused("STR02".to_owned()), None),
                ok => written(ok),
            },
            Deed::AbortExpired => match ledger.abort(ledger.head.epoch, String::new()) {
                Err(Unwritten::NothingToAbort(_)) => (Outcome::Nothing, None),
                _ if self.leased.contains(slice) => (Outcome::Nothing, None),
                Err(Unwritten::NoGate) => (Outcome::Refused("STR04".to_owned()), None),
                Err(_) => (Outcome::Refused("STR02".to_owned()), None),
                ok => written(ok),
            },
            Deed::Lease(_) => (Outcome::Done, None),
        }
    }
}

struct House {
    _cluster: Cluster,
    _folder: tempfile::TempDir,
    store: Store,
    monolith: Client,
    service: Client,
}

impl House {
    async fn new() -> House {
        // What a crash would lose does not matter here.
        let cluster = Cluster::start_with("-c fsync=off -c synchronous_commit=off -c full_page_writes=off");
        let tables: String =
            SLICES.iter().map(|slice| format!("CREATE TABLE \"t-{slice}\" (id int PRIMARY KEY);")).collect();
        for database in ["monolith", "service"] {
            cluster.database(database);
        }
        cluster.sql("postgres", "CREATE ROLE app LOGIN");
        for database in ["monolith", "service"] {
            cluster.sql(database, &format!("GRANT CREATE ON SCHEMA public TO app; SET ROLE app; {tables}"));
        }
        let slices: String = SLICES
            .iter()
            .map(|slice| {
                format!("  {slice}: {{ service: orders, routes: {{ show: \"GET /{slice}\" }}, tables: [public.t-{slice}] }}\n")
            })
            .collect();
        let plan = world::plan(&format!(
            "version: 1\nname: shop\nmonolith: {{ upstream: \"http://127.0.0.1:1\", database: \"{}\" }}\n\
             services: {{ orders: {{ upstream: \"http://127.0.0.1:2\", database: \"{}\" }} }}\nslices:\n{slices}",
            world::url(&cluster, "strangler", "monolith"),
            world::url(&cluster, "strangler", "service"),
        ));
        let admin = [("monolith", "monolith"), ("orders", "service")]
            .map(|(part, database)| (part.to_owned(), world::url(&cluster, "postgres", database)));
        controller::install(&plan, &admin.into(), &mut |_| {}).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        House {
            store: Store::of(&plan, folder.path()),
            monolith: world::client(&cluster, "strangler", "monolith").await,
            service: world::client(&cluster, "strangler", "service").await,
            _cluster: cluster,
            _folder: folder,
        }
    }

    fn client(&self, side: Side) -> &Client {
        match side {
            Side::Monolith => &self.monolith,
            Side::Service => &self.service,
        }
    }

    async fn perform(&self, model: &Model, slice: &SliceName, deed: &Deed) -> Outcome {
        match deed {
            Deed::Make(side, epoch) => outcome(gate::make(self.client(*side), slice, *epoch).await),
            Deed::Unmake(side) => outcome(gate::unmake(self.client(*side), slice).await),
            Deed::Work(side, act) => outcome(match act {
                Act::Fence(epoch) => gate::fence(self.client(*side), slice, *epoch).await,
                Act::Open(epoch) => gate::open(self.client(*side), slice, *epoch).await,
                Act::Raise(epoch) => gate::raise(self.client(*side), slice, *epoch).await,
            }),
            Deed::Append(expected, event) => self.append(model, slice, *expected, event).await,
            Deed::Abort(epoch) => outcome(gate::abort(&self.monolith, slice, *epoch).await.map(|raised| {
                assert_eq!(raised, epoch.next());
            })),
            Deed::AbortExpired => match gate::abort_expired(&self.monolith, slice).await {
                Ok(None) => Outcome::Nothing,
                Ok(Some(raised)) => {
                    assert_eq!(raised, model.state.slice(slice).epoch.next());
                    Outcome::Done
                }
                Err(error) => outcome(Err(error)),
            },
            Deed::Lease(is_held) => {
                let time = Duration::from_secs(if *is_held { 3_600 } else { 0 });
                self.store.take_lease(slice, "ann", time).await.unwrap();
                Outcome::Done
            }
        }
    }

    async fn append(&self, model: &Model, slice: &SliceName, expected: Generation, event: &Event) -> Outcome {
        let after = model.state.slice(slice).after(expected.next(), event).unwrap();
        let decided = Move { slice: slice.clone(), event: event.clone(), after };
        let draft = Draft { actor: "ann".to_owned(), reason: String::new(), decided };
        match self.store.append(expected, &draft).await {
            Ok(_) => Outcome::Done,
            Err(StoreError::Conflict(_)) => Outcome::Conflict,
            Err(StoreError::Refused { .. }) => Outcome::Unwritten,
            Err(error) => panic!("{error:?}"),
        }
    }

    /// Everything that both databases have of every slice.
    async fn look(&self, model: &Model) {
        let heads = "SELECT slice, stage, preparing, hold, epoch, generation,
                            lease_until > clock_timestamp() AS is_leased,
                            (SELECT max(j.generation) FROM strangler.journal j WHERE j.slice = s.slice) AS last FROM strangler.slice s";
        let rows = self.monolith.query(heads, &[]).await.unwrap();
        assert_eq!(rows.len(), model.state.slices.len());
        for row in rows {
            let name: SliceName = row.get::<_, &str>("slice").parse().unwrap();
            let state = model.state.slice(&name);
            let json = |column: &str| row.get::<_, Option<Value>>(column).unwrap_or(Value::Null);
            assert_eq!(json("stage"), serde_json::to_value(state.stage).unwrap(), "{name}");
            assert_eq!(json("preparing"), serde_json::to_value(state.preparing).unwrap(), "{name}");
            assert_eq!(json("hold"), serde_json::to_value(state.hold).unwrap(), "{name}");
            assert_eq!(row.get::<_, i64>("epoch") as u64, state.epoch.0, "{name}");
            assert_eq!(row.get::<_, i64>("generation"), row.get::<_, i64>("last"), "{name}");
            let is_leased = row.get::<_, Option<bool>>("is_leased").unwrap_or_default();
            assert_eq!(is_leased, model.leased.contains(&name), "{name}");
        }
        for side in [Side::Monolith, Side::Service] {
            let gates = "
                SELECT substr(c.relname, 3), g.epoch, g.is_shut, (SELECT string_agg(t.tgenabled::text, '') FROM pg_trigger t WHERE t.tgrelid = c.oid)
                  FROM pg_class c LEFT JOIN strangler.gate g ON g.slice = substr(c.relname, 3)
                 WHERE c.relname LIKE 't-%' AND c.relkind = 'r'";
            let rows = self.client(side).query(gates, &[]).await.unwrap();
            assert_eq!(rows.len(), SLICES.len());
            for row in rows {
                let name: SliceName = row.get::<_, &str>(0).parse().unwrap();
                let there = row
                    .get::<_, Option<i64>>(1)
                    .map(|epoch| Gate { epoch: Epoch(epoch as u64), is_shut: row.get(2) });
                assert_eq!(there, model.gates.get(&(name.clone(), side)).copied(), "{name} at the {side}");
                let triggers = there.map(|gate| if gate.is_shut { "A" } else { "D" });
                assert_eq!(row.get::<_, Option<&str>>(3), triggers, "{name} at the {side}");
            }
        }
    }
}

fn outcome(answer: Result<(), Error>) -> Outcome {
    match answer {
        Ok(()) => Outcome::Done,
        Err(error) => Outcome::Refused(
            error.as_db_error().unwrap_or_else(|| panic!("{error:?}")).code().code().to_owned(),
        ),
    }
}

/// An epoch near those that are in force: the right one, a zombie's, or one too early.
fn epoch(dice: &mut Dice, model: &Model, slice: &SliceName) -> Epoch {
    let head = model.state.slice(slice).epoch.0;
    match dice.below(8) {
        0 => Epoch(head.saturating_sub(1)),
        1 => Epoch(head + 1),
        2 if dice.one_in(4) => Epoch(head + 2),
        _ => Epoch(head),
    }
}

/// What usually comes next in a slice's life, or anything.
fn event(dice: &mut Dice, model: &Model, slice: &SliceName) -> Event {
    let state = model.state.slice(slice);
    let (now, next) = (state.epoch.0, state.epoch.0 + 1 + dice.below(2));
    let likely = match state.stage {
        Stage::Monolith => world::followed()[0].clone(),
        Stage::Copying => world::followed()[1].clone(),
        Stage::Following { .. } if state.hold.is_some() => world::released(now),
        Stage::Following { .. } if state.preparing.is_some() => world::started(next),
        Stage::Following { .. } => world::prepared(),
        Stage::Cutting { .. } if dice.one_in(3) => world::aborted(next),
        Stage::Cutting { .. } => world::committed(now),
        Stage::Split { .. } if state.hold.is_some() => world::released(now),
        Stage::Split { .. } => world::rollback_started(next),
        Stage::Returning { .. } if dice.one_in(3) => world::rollback_aborted(next),
        Stage::Returning { .. } => world::rollback_committed(now),
        Stage::Retired => Event::Confirmed,
    };
    let wild = epoch(dice, model, slice).0;
    match dice.below(40) {
        0 => Event::SyncDropped,
        1 => Event::Evicted { why: "too much WAL".to_owned() },
        2 => world::aborted(wild),
        3 => world::committed(wild),
        4 => world::rollback_committed(wild),
        5 => world::rollback_aborted(wild),
        6 => Event::Confirmed,
        7 => {
            Event::RollbackAborted { epoch: Epoch(wild), why: "late".to_owned(), returns_at: Some(Moment(5)) }
        }
        8 if dice.one_in(20) => Event::Completed,
        _ => likely,
    }
}

fn deed(dice: &mut Dice, model: &Model, slice: &SliceName) -> Deed {
    let side = if dice.one_in(3) { Side::Service } else { Side::Monolith };
    let at = epoch(dice, model, slice);
    match dice.below(20) {
        0..=1 => Deed::Make(side, at),
        2 if dice.one_in(8) => Deed::Unmake(side),
        3..=6 => Deed::Work(side, Act::Fence(at)),
        7..=8 => Deed::Work(side, Act::Open(at)),
        9 => Deed::Work(side, Act::Raise(at)),
        10 => Deed::Abort(at),
        11 => Deed::AbortExpired,
        12 => Deed::Lease(dice.one_in(2)),
        _ => {
            let length = model.state.generation.0;
            let expected = match dice.below(20) {
                0 => length.saturating_sub(1),
                1 => length + 1,
                _ => length,
            };
            Deed::Append(Generation(expected), event(dice, model, slice))
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_installed_sql_is_the_pure_table() {
    let mut dice = Dice::thrown("the_installed_sql_is_the_pure_table");
    let house = House::new().await;
    let journal = house.store.load(Generation(0)).await.unwrap().journal;
    let mut model = Model { state: State::empty(journal), gates: BTreeMap::new(), leased: BTreeSet::new() };
    let mut told: BTreeMap<String, u32> = BTreeMap::new();
    for place in 0..DEEDS {
        let slice: SliceName = SLICES[dice.below(SLICES.len() as u64) as usize].parse().unwrap();
        let deed = deed(&mut dice, &model, &slice);
        if let Deed::Append(_, event) = &deed
            && model.state.slice(&slice).after(model.state.generation, event).is_err()
        {
            // No controller writes what is not legal.
            continue;
        }
        let (expected, after) = model.expect(&slice, &deed);
        let before =
            format!("{place}: {slice}: {deed:?} on {:?} and {:?}", model.ledger(&slice), model.gates);
        assert_eq!(house.perform(&model, &slice, &deed).await, expected, "{before}");
        let kind = match &deed {
            Deed::Append(_, event) => event.name().to_owned(),
            other => format!("{other:?}").replace(|c: char| c.is_ascii_digit(), ""),
        };
        *told.entry(format!("{kind} {expected:?}")).or_default() += 1;

        if let Some(after) = after {
            take(&house, &mut model, &slice, &deed, after).await;
        }
        if let Deed::Lease(is_held) = deed
            && model.state.slices.contains_key(&slice)
        {
            if is_held {
                model.leased.insert(slice.clone())
            } else {
                model.leased.remove(&slice)
            };
        }
        if matches!(deed, Deed::Append(..) | Deed::Abort(_) | Deed::AbortExpired)
            && expected == Outcome::Done
            && !model.state.slice(&slice).is_crossing()
        {
            model.leased.remove(&slice);
        }
        house.look(&model).await;
    }
    println!("{told:#?}");
    let stages: BTreeSet<&str> = model.state.slices.values().map(|state| state.stage.name()).collect();
    println!("{} entries; at the end {stages:?}", model.state.generation);
    for wanted in [
        "Fence Done",
        "Fence STR02",
        "Open Done",
        "Open STR02",
        "Raise Done",
        "Raise STR02",
        "Abort( Done",
        "Abort( STR02",
        "AbortExpired Done",
        "AbortExpired Nothing",
        "cutover-committed Done",
        "cutover-committed Unwritten",
        "cutover-aborted Done",
        "cutover-aborted Conflict",
        "rollback-committed Done",
        "rollback-aborted Done",
    ] {
        let (kind, outcome) = wanted.split_once(' ').unwrap();
        let seen = told.keys().any(|one| one.contains(kind) && one.contains(outcome));
        assert!(seen, "{wanted} never came up: {told:#?}");
    }
}

/// Takes over what a deed left: the journal's own words where the database wrote the entry.
async fn take(house: &House, model: &mut Model, slice: &SliceName, deed: &Deed, after: Ledger) {
    let side = match deed {
        Deed::Make(side, _) | Deed::Unmake(side) | Deed::Work(side, _) => *side,
        _ => Side::Monolith,
    };
    model.keep(slice, side, after.gate);
    if after.length == model.state.generation {
        return;
    }
    let entries = house.store.load(model.state.generation).await.unwrap().entries;
    assert_eq!(entries.len(), 1);
    model.state.apply(&entries[0]).unwrap();
    let (head, wanted) = (model.state.slice(slice), after.head);
    match (deed, head.stage, wanted.stage) {
        // One that nobody drives is tried again.
        (
            Deed::AbortExpired,
            Stage::Split { returns_at: Some(_), copied_at, crossing },
            Stage::Split { returns_at: None, .. },
        ) => assert_eq!(wanted.stage, Stage::Split { returns_at: None, copied_at, crossing }),
        _ => assert_eq!(head.stage, wanted.stage),
    }
    assert_eq!((head.epoch, head.hold, head.preparing), (wanted.epoch, wanted.hold, wanted.preparing));
}
