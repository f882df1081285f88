//! What a cutover needs beyond following: one change of the sound world for each finding about it.

use super::*;
use crate::access::{AccessSeen, Accesses, Evidence};
use crate::gate::Gate;
use crate::stage::Epoch;

impl World {
    fn preconditions(&self) -> Vec<Precondition> {
        let seen = Sight { source: Some(self.source.clone()), sink: Some(self.sink.clone()) };
        preconditions(&self.plan, self.plan.slices.values().next().unwrap(), &seen)
    }

    fn against(&self) -> Vec<Finding> {
        self.preconditions().into_iter().flat_map(|one| one.findings).collect()
    }

    fn stands(&mut self, stage: &str, epoch: u64) {
        let head = HeadSeen { stage: stage.to_owned(), epoch: Epoch(epoch), is_held: false };
        self.source.heads.insert("orders".to_owned(), head);
        for (seen, is_shut) in [(&mut self.source, false), (&mut self.sink, true)] {
            let gate = Gate { epoch: Epoch(epoch), is_shut };
            seen.gates.insert("orders".to_owned(), GateSeen { gate, refusal: None });
        }
    }

    fn gate(&mut self, is_of_monolith: bool) -> &mut GateSeen {
        let seen = if is_of_monolith { &mut self.source } else { &mut self.sink };
        seen.gates.get_mut("orders").unwrap()
    }
}

/// The finding that a change brings against a cutover, which must be the only one; following is not hindered by it.
#[track_caller]
pub(super) fn hinders(code: Code, hint: &str, change: impl FnOnce(&mut World)) -> Finding {
    let mut world = World::sound();
    world.stands("following", 4);
    change(&mut world);
    let found = world.against();
    assert_eq!(found.iter().map(|f| f.code).collect::<Vec<_>>(), [code], "{found:#?}");
    assert!(found[0].remedy.contains(hint), "{}", found[0].remedy);
    assert!(!world.findings().iter().any(Finding::is_error), "{:#?}", world.findings());
    found[0].clone()
}

#[test]
fn a_sound_world_meets_every_precondition() {
    let mut world = World::sound();
    assert!(world.preconditions().iter().all(Precondition::is_met) && world.against().is_empty());
    world.stands("following", 4);
    assert_eq!((world.preconditions().len(), world.against()), (10, Vec::new()));
}

#[test]
fn the_way_back() {
    let finds = |code, hint, change: fn(&mut World)| assert!(hinders(code, hint, change).is_error());
    finds(Code::SourceWalLevel, "wal_level = 'logical'", |w| w.sink.server.wal_level = "replica".to_owned());
    finds(Code::SourceNoReplicationRight, "database: ALTER ROLE \"strangler\" REPLICATION;", |w| {
        w.sink.role.may_replicate = false;
    });
    finds(Code::InstallNoPublication, "strangler install", |w| {
        w.sink.installed.as_mut().unwrap().published = None
    });
    finds(Code::TableNoRight, "GRANT INSERT ON TABLE", |w| {
        w.source().rights.remove("INSERT");
    });
}

#[test]
fn triggers_and_rules_of_the_monolith() {
    let trigger = || TriggerSeen { name: "audit".to_owned() };
    let unmarked = hinders(Code::SourceUnmarkedTrigger, "`triggers: { audit: skip }`", |w| {
        w.source().triggers.push(trigger());
    });
    assert!(unmarked.is_error());
    let mut marked = World::of(&PLAN.replace("    routes:", "    triggers: { audit: skip }\n    routes:"));
    marked.source().triggers.push(trigger());
    assert_eq!((marked.findings(), marked.against()), (Vec::new(), Vec::new()));
    hinders(Code::TableRule, "DROP RULE \"log\" ON", |w| w.source().rules.push("log".to_owned()));
}

#[test]
fn a_sequence_that_a_table_which_stays_takes_numbers_from() {
    let numbered = |name: &str, is_identity| NumberedSeen {
        table: table(name),
        column: "id".to_owned(),
        owner: "app".to_owned(),
        is_identity,
    };
    let shared = |one, other| SharedSequenceSeen { sequence: "public.numbers".to_owned(), one, other };
    let default = "ALTER TABLE \"public\".\"orders\" ALTER COLUMN \"id\" SET DEFAULT nextval('\"public\".\"orders_id_own_seq\"');";
    hinders(Code::SourceSharedSequence, default, |w| {
        w.source.shared_sequences.push(shared(numbered("orders", false), numbered("invoices", false)));
    });
    hinders(Code::SourceSharedSequence, "ALTER TABLE \"public\".\"invoices\" ALTER COLUMN", |w| {
        w.source.shared_sequences.push(shared(numbered("orders", true), numbered("invoices", false)));
    });
    let mut world = World::sound();
    world.source.shared_sequences.push(shared(numbered("customers", false), numbered("invoices", false)));
    assert_eq!(world.against(), [], "it stays, too");
}

fn seen(role: &str, application: Option<&str>, by: Evidence) -> AccessSeen {
    AccessSeen {
        role: role.to_owned(),
        application: application.map(str::to_owned),
        table: "public.orders".to_owned(),
        query: "UPDATE orders".to_owned(),
        times: 3,
        seconds_ago: None,
        by,
    }
}

fn watched(seen: Vec<AccessSeen>) -> Accesses {
    Accesses { seen, was_watched: true, has_statements: true }
}

#[test]
fn each_writer_that_was_seen_must_be_marked() {
    let noted = |application| watched(vec![seen("app", Some(application), Evidence::Trigger)]);
    let writes = |writers| {
        hinders(Code::WriterUnmarked, "`writers: {", move |w| {
            drop(w.source.writers.insert("orders".to_owned(), writers))
        })
    };
    let nightly = writes(noted("nightly"));
    assert!(nightly.is_error() && nightly.remedy.contains("{ nightly: moved }"), "{nightly}");
    assert!(writes(noted("")).remedy.contains("{ app: moved }"), "an unnamed application goes by its role");
    assert!(writes(noted("Shop: nightly \"2\"")).remedy.contains(r#"{ "Shop: nightly \"2\"": moved }"#));
    assert!(writes(watched(vec![seen("app", None, Evidence::Statements)])).remedy.contains("{ app: moved }"));
}

#[test]
fn a_mark_of_an_application_counts_before_that_of_its_role() {
    let plan = |writers: &str| PLAN.replace("    routes:", &format!("    writers: {writers}\n    routes:"));
    let against = |writers: &str, seen: Vec<AccessSeen>| {
        let mut world = World::of(&plan(writers));
        world.source.writers.insert("orders".to_owned(), watched(seen));
        world.against().len()
    };
    let trigger = || {
        vec![seen("app", Some("shop"), Evidence::Trigger), seen("app", Some("nightly"), Evidence::Trigger)]
    };
    assert_eq!(against("{ shop: moved }", trigger()), 1);
    assert_eq!(against("{ shop: moved, nightly: disabled }", trigger()), 0);
    assert_eq!(against("{ app: moved }", trigger()), 0);
    // Statements know only the role, and its applications were told apart.
    let both = || [trigger(), vec![seen("app", None, Evidence::Statements)]].concat();
    assert_eq!(against("{ shop: moved, nightly: disabled }", both()), 0);
    // Whether a session is met is luck.
    assert_eq!(against("{ x: moved }", vec![seen("app", Some("shop"), Evidence::Session)]), 0);
    let world = World::of(&plan("{ shop: disabled, app: moved }"));
    let slice = world.plan.slices.values().next().unwrap();
    let fates =
        [Some("shop"), Some("other"), None].map(|name| seen("app", name, Evidence::Trigger).fate(slice));
    use crate::plan::WriterFate::{Disabled, Moved};
    assert_eq!(fates, [Some(Disabled), Some(Moved), Some(Moved)]);
}

#[test]
fn a_slice_whose_writers_nobody_looked_for_is_doubtful() {
    let unwatched = hinders(Code::WriterUnwatched, "strangler writers orders --observe 1h", |w| {
        w.source.writers.insert("orders".to_owned(), Accesses::default());
    });
    assert!(!unwatched.is_error());
}

#[test]
fn whoever_keeps_a_gate_from_turning() {
    let session = |is_maintenance| HolderSeen::Session {
        pid: 7,
        user: "app".to_owned(),
        application: "report".to_owned(),
        query: "UPDATE orders".to_owned(),
        is_maintenance,
    };
    let held = |who, seconds| BlockerSeen { table: table("orders"), who, seconds };
    let busy =
        |hint, blocker: BlockerSeen| hinders(Code::TableBusy, hint, |w| w.source.blockers.push(blocker));
    let writer = busy("SELECT pg_terminate_backend(7);", held(session(false), 10));
    assert!(writer.is_error() && writer.message.contains("report (app, process 7, for 10 s: UPDATE orders)"));
    assert!(busy("SELECT pg_cancel_backend(7);", held(session(true), 10)).is_error());
    assert!(!busy("SELECT pg_cancel_backend(7);", held(session(true), 9)).is_error(), "it may end in time");
    let gid = "it's".to_owned();
    assert!(busy("ROLLBACK PREPARED 'it''s';", held(HolderSeen::Prepared { gid }, 0)).is_error());
    let mut short = World::sound();
    short.source.blockers.push(held(session(false), 9));
    assert_eq!(short.against(), [], "writers come and go");
    hinders(Code::TableBusy, "service orders's database: SELECT", |w| {
        w.sink.blockers.push(held(session(true), 60));
    });
}

#[test]
fn what_the_slot_of_the_way_back_waits_for() {
    let open = hinders(Code::SourceLongTransaction, "pg_terminate_backend(7)", |w| {
        let (user, application) = ("app".to_owned(), "report".to_owned());
        w.sink.long_transactions.push(TransactionSeen { pid: 7, user, application, seconds: 90 });
    });
    assert!(!open.is_error(), "one that only reads hinders nobody");
    let hint = "run in database mail of the server of service orders's database: COMMIT PREPARED 'held';";
    let prepared = PreparedSeen { gid: "held".to_owned(), database: "mail".to_owned() };
    assert!(hinders(Code::SourcePreparedTransaction, hint, |w| w.sink.prepared.push(prepared)).is_error());
}

#[test]
fn a_hold_needs_room_and_patience() {
    let room = hinders(Code::HoldRoom, "max_writes: 15000", |w| {
        w.source.rows_written.insert(table("orders"), 3_000);
        w.source.rows_written.insert(table("customers"), 90_000);
    });
    assert!(room.message.contains("3000 rows a second"), "{room}");
    let mut calm = World::sound();
    calm.source.rows_written.insert(table("orders"), 2_000);
    assert_eq!(calm.against(), []);
    hinders(Code::HoldPatience, "max_wait: 5000ms", |w| w.plan.proxy.hold.wait_ms_max = 4_000);
    hinders(Code::HoldPatience, "less than your clients wait", |w| w.plan.proxy.hold.wait_ms_max = 31_000);
}

#[test]
fn what_an_earlier_attempt_left() {
    let shut = hinders(Code::GateOther, "strangler reconcile orders", |w| w.gate(true).gate.is_shut = true);
    assert!(shut.message.contains("shut at epoch 4"), "{shut}");
    hinders(Code::GateOther, "strangler reconcile orders", |w| w.gate(false).gate.is_shut = false);
    hinders(Code::GateAhead, "strangler verify orders", |w| w.gate(false).gate.epoch = Epoch(5));
    hinders(Code::GateOther, "strangler install", |w| w.gate(true).refusal = Some("it is busy".to_owned()));
    hinders(Code::SourceSlotIdle, "run in service orders's database: SELECT pg_drop_replication_slot", |w| {
        w.sink.slots.push(SlotSeen {
            name: "strangler_shop_abcd1234".to_owned(),
            is_of_this_database: true,
            is_temporary: false,
            is_active: false,
            is_lost: false,
            reader: None,
            confirmed: EndLsn(0),
            kept_bytes: 9,
        });
    });
    let mut moving = World::sound();
    moving.stands("cutting", 4);
    moving.gate(true).gate.is_shut = true;
    assert_eq!(moving.against(), [], "it is on its way");
}

#[test]
fn replicas_that_no_commit_waits_for_must_be_accepted() {
    let standby = |is_asynchronous| StandbySeen { application: "standby1".to_owned(), is_asynchronous };
    let found = hinders(Code::ServerAsyncStandby, "synchronous_standby_names = '\"standby1\"';", |w| {
        w.source.server.standbys.push(standby(true));
    });
    assert!(found.is_error());
    let mut accepted = World::of(&format!("{PLAN}accept: [async-failover]\n"));
    accepted.source.server.standbys.push(standby(true));
    assert!(accepted.preconditions().iter().all(Precondition::is_met), "{:#?}", accepted.against());
    accepted.plan.accept.clear();
    accepted.source.server.standbys.push(standby(false));
    assert_eq!(accepted.against(), [], "one has every commit");
}

#[test]
fn a_clock_that_is_off_is_doubtful() {
    let early = hinders(Code::ClockSkew, "NTP", |w| w.source.clock_ahead_ms = 1_001);
    assert!(!early.is_error() && early.message.contains("ahead of") && early.message.contains("early"));
    let late = hinders(Code::ClockSkew, "NTP", |w| w.source.clock_ahead_ms = -2_000);
    assert!(late.message.contains("behind") && late.message.contains("late"));
}
