//! The gates as they are worked in a cutover: what a fence waits for, what it covers, who may give up, and what a refused
//! writer is told. Everything is asked by strangler's own role or by the application's, none of them a superuser.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on shall fail")]

mod world;

use controller::StoreError;
use migrations::crossing::Moment;
use migrations::cutover::AGAIN;
use migrations::gate::Fence;
use migrations::journal::SliceState;
use migrations::stage::{Epoch, Event, Stage};
use postgres::gate::{self, Gate};
use postgres::slot;
use serde_json::Value;
use std::process::Command;
use std::time::{Duration, Instant};
use tokio_postgres::Client;
use world::{Decider, World, refusal};

const ROWS: &str = "SELECT count(*)::text FROM orders";
const WRITE: &str = "INSERT INTO orders (customer_id, total) VALUES (1, 1)";
/// The states of all gate triggers in a database.
const TRIGGERS: &str =
    "SELECT string_agg(DISTINCT tgenabled::text, '') FROM pg_trigger WHERE tgname LIKE 'strangler_gate%'";
const GATE: &str = "SELECT concat(epoch, CASE WHEN is_shut THEN ' shut' ELSE ' open' END) FROM strangler.gate WHERE slice = 'orders'";

/// A slice that follows, its gates made, and the journal that says so.
async fn following() -> (World, Decider) {
    let world = World::new("").await;
    world.install().await;
    world.make_gates().await;
    let mut decider = Decider::of(&world).await;
    decider.decide_all(world::followed()).await;
    (world, decider)
}

/// One that is being cut over at epoch 1.
async fn cutting() -> (World, Decider) {
    let (world, mut decider) = following().await;
    decider.decide_all([world::prepared(), world::started(1)]).await;
    (world, decider)
}

/// The SQLSTATE of what a gate answered.
fn state<T: std::fmt::Debug>(answer: Result<T, tokio_postgres::Error>) -> String {
    answer.unwrap_err().as_db_error().unwrap().code().code().to_owned()
}

/// What the head says, as the parts of a state.
fn head(world: &World) -> (Value, Value, Value, String) {
    let part = |column: &str| {
        let sql =
            format!("SELECT coalesce({column}, 'null')::text FROM strangler.slice WHERE slice = 'orders'");
        serde_json::from_str(&world.monolith(&sql)).unwrap()
    };
    let rest = "SELECT concat(epoch, ' ', generation) FROM strangler.slice WHERE slice = 'orders'";
    (part("stage"), part("preparing"), part("hold"), world.monolith(rest))
}

/// What the head ought to say.
fn wanted(state: &SliceState, generation: u64) -> (Value, Value, Value, String) {
    (
        serde_json::to_value(state.stage).unwrap(),
        serde_json::to_value(state.preparing).unwrap(),
        serde_json::to_value(state.hold).unwrap(),
        format!("{} {generation}", state.epoch),
    )
}

/// A statement by psql, with nothing of ours running. What it printed, and whether it succeeded.
fn psql(world: &World, user: &str, database: &str, sql: &str) -> (bool, String) {
    let program = lab::postgres::programs().unwrap().join("psql");
    let url = world::url(&world.cluster, user, database);
    let out = Command::new(program).args(["-X", "-A", "-t", "-d", &url, "-c", sql]).output().unwrap();
    let said = [out.stdout, out.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
    (out.status.success(), said)
}

/// The content of our messages and the tables' changes in a slot's stream, in their order.
async fn stream(client: &Client) -> Vec<String> {
    let changes = "SELECT data FROM pg_logical_slot_get_changes('seen', NULL, NULL, 'include-xids', '0')
                   WHERE data LIKE 'table public%' OR data LIKE '%strangler.fence%'";
    client.query(changes, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fence_comes_after_every_write_that_was_let_in() {
    let (world, _decider) = cutting().await;
    let us = world.client("strangler", "monolith").await;
    let watcher = world.client("strangler", "monolith").await;
    let slot = "SELECT pg_create_logical_replication_slot('seen', 'test_decoding')";
    watcher.query(slot, &[]).await.unwrap();

    let writer = world.client("app", "monolith").await;
    writer.batch_execute(&format!("BEGIN; {WRITE}")).await.unwrap();
    // It sees the world as it was before the fence, for as long as it likes.
    let old = world.client("app", "monolith").await;
    old.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT * FROM orders").await.unwrap();
    let busy = gate::fence(&us, &world.slice, Epoch(1)).await.unwrap_err();
    let busy = busy.as_db_error().unwrap();
    assert_eq!(busy.code().code(), "STR05", "{busy:?}");
    assert!(
        busy.detail().unwrap().contains("process ") && busy.hint().unwrap().contains("ask again"),
        "{busy:?}"
    );
    // `lines` comes before `orders`: what was shut of it is open again.
    assert_eq!(world.monolith(TRIGGERS), "D");
    assert_eq!(world.monolith(GATE), "0 open");
    let other = world.client("app", "monolith").await;
    assert_eq!(refusal(&other, WRITE).await, None, "nobody is kept out by a fence that failed");

    writer.batch_execute("COMMIT").await.unwrap();
    gate::fence(&us, &world.slice, Epoch(1)).await.unwrap();
    gate::fence(&us, &world.slice, Epoch(1)).await.unwrap();
    assert_eq!(world.monolith(TRIGGERS), "A");
    for late in [&writer, &old] {
        assert_eq!(refusal(late, WRITE).await.as_deref(), Some("STR01"));
    }
    assert_eq!(world.monolith(ROWS), "2");

    let stream = stream(&watcher).await;
    let fence = Fence { slice: world.slice.clone(), epoch: Epoch(1) }.to_string();
    assert_eq!(stream.len(), 4, "{stream:?}");
    assert!(stream[..2].iter().all(|change| change.starts_with("table public.orders: INSERT")), "{stream:?}");
    assert!(stream[2..].iter().all(|said| said.ends_with(&fence)), "{stream:?}");
    let read = gate::read(&us, &world.slice).await.unwrap();
    assert_eq!(read, Some(Gate { epoch: Epoch(1), is_shut: true }));
}

/// Partitions that are made and attached at any moment, cascades, and a role that has no right but to write.
#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::too_many_lines, reason = "one gate, tried in every way")]
async fn no_way_leads_around_a_shut_gate() {
    let (world, mut decider) = following().await;
    let us = world.client("strangler", "monolith").await;
    let app = world.client("app", "monolith").await;
    app.batch_execute(
        "INSERT INTO customers VALUES (1, 'ann');
         ALTER TABLE orders ADD FOREIGN KEY (customer_id) REFERENCES customers ON DELETE CASCADE;
         INSERT INTO orders VALUES (1, 1, '', 1);
         CREATE TABLE lines_2 PARTITION OF lines FOR VALUES FROM (1000) TO (2000);
         CREATE TABLE lines_3 PARTITION OF lines FOR VALUES FROM (2000) TO (3000) PARTITION BY RANGE (no);
         CREATE TABLE lines_3a PARTITION OF lines_3 FOR VALUES FROM (0) TO (100);
         CREATE TABLE apart (LIKE lines INCLUDING ALL)",
    )
    .await
    .unwrap();
    world.monolith("CREATE ROLE clerk LOGIN; GRANT INSERT ON orders, lines TO clerk");
    let clerk = world.client("clerk", "monolith").await;
    decider.decide_all([world::prepared(), world::started(1)]).await;
    gate::fence(&us, &world.slice, Epoch(1)).await.unwrap();

    app.batch_execute(
        "CREATE TABLE lines_4 PARTITION OF lines FOR VALUES FROM (3000) TO (4000);
         ALTER TABLE lines ATTACH PARTITION apart FOR VALUES FROM (4000) TO (5000)",
    )
    .await
    .unwrap();
    let writes = [
        "DELETE FROM customers",
        "TRUNCATE customers CASCADE",
        "INSERT INTO lines VALUES (1500, 1, 1)",
        "INSERT INTO lines_2 VALUES (1500, 1, 1)",
        "TRUNCATE lines_2",
        "INSERT INTO lines VALUES (2500, 1, 1)",
        "INSERT INTO lines_3 VALUES (2500, 1, 1)",
        "INSERT INTO lines_3a VALUES (2500, 1, 1)",
        "TRUNCATE lines_3a",
        "INSERT INTO lines VALUES (3500, 1, 1)",
        "INSERT INTO lines_4 VALUES (3500, 1, 1)",
        "INSERT INTO lines VALUES (4500, 1, 1)",
        "INSERT INTO apart VALUES (4500, 1, 1)",
        "MERGE INTO orders USING customers c ON false WHEN NOT MATCHED THEN INSERT VALUES (9, c.id, '', 1)",
        "WITH gone AS (DELETE FROM orders RETURNING id) SELECT * FROM gone",
    ];
    for write in writes {
        assert_eq!(refusal(&app, write).await.as_deref(), Some("STR01"), "{write}");
    }
    for write in ["INSERT INTO orders VALUES (2, 1, '', 1)", "INSERT INTO lines VALUES (3500, 1, 1)"] {
        let refused = world::refused(&clerk, write).await;
        assert!(refused.message().contains("(epoch 1)"), "he has no right in our schema: {refused:?}");
    }
    assert_eq!(world.monolith(ROWS), "1");

    // A fence looks at the partitions again, and the next one, too.
    assert_eq!(refusal(&app, "TRUNCATE lines_4").await, None, "only a fence covers this");
    gate::fence(&us, &world.slice, Epoch(1)).await.unwrap();
    for write in ["TRUNCATE lines_4", "TRUNCATE apart"] {
        assert_eq!(refusal(&app, write).await.as_deref(), Some("STR01"), "{write}");
    }
    assert_eq!(gate::abort(&us, &world.slice, Epoch(1)).await.unwrap(), Epoch(2));
    for write in &writes[2..13] {
        assert!(refusal(&app, write).await.is_none_or(|code| code == "23505"), "{write}");
    }
    app.batch_execute("CREATE TABLE lines_5 PARTITION OF lines FOR VALUES FROM (5000) TO (6000)")
        .await
        .unwrap();
    decider.read().await;
    decider.decide_all([world::prepared(), world::started(3)]).await;
    gate::fence(&us, &world.slice, Epoch(3)).await.unwrap();
    for write in [
        "TRUNCATE lines_5",
        "INSERT INTO lines_5 VALUES (5500, 1, 1)",
        "INSERT INTO lines VALUES (5500, 1, 1)",
    ] {
        assert_eq!(refusal(&app, write).await.as_deref(), Some("STR01"), "{write}");
    }
}

/// With every process of ours dead: by psql, as strangler's role and as the tables' owner, and as nobody else.
#[tokio::test(flavor = "multi_thread")]
async fn a_cutover_is_given_up_by_psql() {
    let (world, mut decider) = cutting().await;
    let us = world.client("strangler", "monolith").await;
    let app = world.client("app", "monolith").await;
    world.monolith("CREATE ROLE stranger LOGIN; GRANT USAGE ON SCHEMA strangler TO stranger");
    let mut epoch = 1;
    for who in ["strangler", "app"] {
        gate::fence(&us, &world.slice, Epoch(epoch)).await.unwrap();
        let refused = world::refused(&app, WRITE).await;
        let said = format!("is being moved to service orders (epoch {epoch})");
        assert!(refused.message().contains(&said), "{refused:?}");
        let statement = format!("SELECT strangler.abort('orders', {epoch});");
        assert!(refused.hint().unwrap().ends_with(&statement), "{refused:?}");

        for (user, why) in
            [("stranger", "permission denied for function"), ("clerk", "permission denied for schema")]
        {
            if user == "clerk" && epoch == 1 {
                world.monolith("CREATE ROLE clerk LOGIN");
            }
            let (done, said) = psql(&world, user, "monolith", &statement);
            assert!(!done && said.contains(why), "{said}");
        }
        let (done, said) = psql(&world, who, "monolith", &statement);
        assert!(
            done && said.contains(&format!("{}", epoch + 1)) && said.contains("is the monolith's"),
            "{said}"
        );
        assert_eq!(refusal(&app, WRITE).await, None);
        assert_eq!(world.monolith(GATE), format!("{} open", epoch + 1));

        decider.read().await;
        assert_eq!(head(&world), wanted(&decider.head(), decider.state.generation.0));
        assert!(matches!(decider.head().stage, Stage::Following { .. }) && decider.head().hold.is_none());
        let entry =
            "SELECT concat_ws(' ', actor, event) FROM strangler.journal ORDER BY generation DESC LIMIT 1";
        let entry = world.monolith(entry);
        assert!(entry.starts_with(&format!("{who}@127.0.0.1 ")), "{entry}");

        // It is over: nothing of that epoch can be done any more, by nobody.
        let (done, said) = psql(&world, who, "monolith", &statement);
        assert!(!done && said.contains("nothing of slice orders is under way"), "{said}");
        assert_eq!(state(gate::fence(&us, &world.slice, Epoch(epoch)).await), "STR02", "a zombie");
        assert_eq!(state(gate::open(&us, &world.slice, Epoch(epoch)).await), "STR02");
        assert_eq!(world.monolith(TRIGGERS), "D");
        epoch += 2;
        decider.decide_all([world::prepared(), world::started(epoch)]).await;
    }
    let stuck = world.client("strangler", "monolith").await;
    stuck.batch_execute("BEGIN; SELECT FROM strangler.slice FOR UPDATE").await.unwrap();
    assert_eq!(state(gate::abort(&us, &world.slice, Epoch(epoch)).await), "STR05", "a retry may do");
    stuck.batch_execute("ROLLBACK").await.unwrap();
    // The journal is not the application's, except for just this.
    for forbidden in [
        "INSERT INTO strangler.journal (generation, actor, slice, event) VALUES (99, 'x', 'orders', '{}')",
        "UPDATE strangler.slice SET epoch = 9",
        "SELECT * FROM strangler.journal",
        "SELECT strangler.journal_abort('orders', 5)",
        "SELECT strangler.fence('orders', 5)",
        "SELECT strangler.gate_raise('orders', 5)",
        "SELECT strangler.gate_unmake('orders')",
        "SELECT strangler.rehearse_gate('orders')",
    ] {
        assert_eq!(refusal(&app, forbidden).await.as_deref(), Some("42501"), "{forbidden}");
    }
    let gone = "SELECT strangler.abort('stock', 1)";
    assert_eq!(refusal(&app, gone).await.as_deref(), Some("STR04"));
    assert_eq!(refusal(&app, "SELECT strangler.abort('orders', NULL)").await.as_deref(), Some("22004"));
}

#[tokio::test(flavor = "multi_thread")]
async fn giving_up_says_what_the_journals_own_event_would() {
    let (world, mut decider) = following().await;
    let us = world.client("strangler", "monolith").await;
    let service = world.client("strangler", "service").await;

    // While it is prepared: nothing was shut, and the epoch rises all the same.
    decider.decide(world::prepared()).await.unwrap();
    assert_eq!(gate::abort(&us, &world.slice, Epoch(0)).await.unwrap(), Epoch(1));
    decider.read().await;
    assert_eq!(head(&world), wanted(&decider.head(), 4));
    assert_eq!(world.monolith(GATE), "1 open");
    assert!(decider.head().preparing.is_none());

    // While it returns: the service's it remains.
    decider.decide_all([world::prepared(), world::started(2)]).await;
    gate::fence(&us, &world.slice, Epoch(2)).await.unwrap();
    decider.decide(world::committed(2)).await.unwrap();
    gate::open(&service, &world.slice, Epoch(2)).await.unwrap();
    decider.decide_all([world::released(2), world::rollback_started(3)]).await;
    gate::fence(&service, &world.slice, Epoch(3)).await.unwrap();
    // A frozen applier keeps nobody from giving up.
    let applier = world.client("strangler", "monolith").await;
    applier.batch_execute("BEGIN; SELECT FROM strangler.gate FOR SHARE").await.unwrap();
    let (done, said) = psql(&world, "app", "monolith", "SELECT strangler.abort('orders', 3)");
    assert!(
        done && said.contains("is service orders's") && said.contains("SELECT strangler.open('orders', 4)"),
        "{said}"
    );
    applier.batch_execute("COMMIT").await.unwrap();
    decider.read().await;
    assert_eq!(head(&world), wanted(&decider.head(), decider.state.generation.0));
    assert!(matches!(decider.head().stage, Stage::Split { returns_at: None, .. }));
    assert_eq!(decider.head().hold.unwrap().epoch, Epoch(4));
    assert_eq!(world.monolith(GATE), "2 shut", "the applier raises it when it goes on");
    gate::raise(&us, &world.slice, Epoch(4)).await.unwrap();
    let (done, said) = psql(&world, "strangler", "service", "SELECT strangler.open('orders', 4)");
    assert!(done, "{said}");
    let app = world.client("app", "service").await;
    assert_eq!(refusal(&app, "INSERT INTO orders VALUES (1, 1, 'a', 100)").await, None);
    assert_eq!(state(gate::abort(&us, &world.slice, Epoch(4)).await), "STR02", "it was decided");

    // By nobody's lease: only when it has run out. What a person wanted waits for a person.
    decider.decide_all([world::released(4), world::rollback_started(5)]).await;
    let (slice, store) = (&world.slice, &decider.store);
    let hour = std::time::Duration::from_secs(3600);
    assert!(store.take_lease(slice, "ann", hour).await.unwrap());
    assert_eq!(gate::abort_expired(&us, slice).await.unwrap(), None);
    assert!(store.take_lease(slice, "ann", std::time::Duration::ZERO).await.unwrap());
    assert_eq!(gate::abort_expired(&us, slice).await.unwrap(), Some(Epoch(6)));
    assert_eq!(gate::abort_expired(&us, slice).await.unwrap(), None, "once");
    decider.read().await;
    assert!(matches!(decider.head().stage, Stage::Split { returns_at: None, .. }));

    // What is due comes back by itself.
    let (epoch, why) = (Epoch(8), String::new());
    let due = Event::RollbackAborted { epoch, why, returns_at: Some(Moment(3)) };
    decider.decide_all([world::released(6), world::rollback_started(7), due]).await;
    decider.decide_all([world::released(8), world::rollback_started(9)]).await;
    let before = decider.store.now().await.unwrap();
    assert_eq!(gate::abort_expired(&us, &world.slice).await.unwrap(), Some(Epoch(10)));
    decider.read().await;
    let Stage::Split { returns_at: Some(again), .. } = decider.head().stage else {
        panic!("{:?}", decider.head());
    };
    let after = decider.store.now().await.unwrap();
    let due = before.after(AGAIN)..=after.after(AGAIN);
    assert!(due.contains(&again), "{again:?} {due:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_coordinator_has_the_lease_until_it_runs_out_or_the_cutover_ends() {
    let (world, mut decider) = following().await;
    let us = world.client("strangler", "monolith").await;
    let (hour, nothing) = (std::time::Duration::from_secs(3600), std::time::Duration::ZERO);
    let slice = world.slice.clone();
    let now = decider.store.now().await.unwrap();
    let there: i64 = world
        .monolith("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint::text")
        .parse()
        .unwrap();
    assert!(there.abs_diff(now.0 as i64) < 60_000);
    {
        let store = &decider.store;
        assert!(store.take_lease(&slice, "ann", hour).await.unwrap());
        assert!(!store.take_lease(&slice, "bob", hour).await.unwrap());
        assert!(store.take_lease(&slice, "ann", hour).await.unwrap(), "his own");
    }
    decider.decide_all([world::prepared(), world::started(1)]).await;
    {
        let store = &decider.store;
        assert!(!store.take_lease(&slice, "bob", hour).await.unwrap(), "it goes on through the crossing");
        assert!(store.take_lease(&slice, "ann", nothing).await.unwrap());
        assert!(store.take_lease(&slice, "bob", hour).await.unwrap(), "it ran out");
        assert!(!store.take_lease(&slice, "ann", hour).await.unwrap());
    }
    gate::abort(&us, &slice, Epoch(1)).await.unwrap();
    assert!(decider.store.take_lease(&slice, "ann", hour).await.unwrap(), "it ended with the cutover");
}

/// The same transaction changes journal, head and gate.
#[tokio::test(flavor = "multi_thread")]
async fn a_decision_and_the_monoliths_gate_change_together() {
    let (world, mut decider) = cutting().await;
    let us = world.client("strangler", "monolith").await;
    let service = world.client("strangler", "service").await;
    let app = world.client("app", "monolith").await;
    let refused = decider.decide(world::committed(1)).await.unwrap_err();
    assert!(
        matches!(&refused, StoreError::Refused { why, .. } if why.contains("open at epoch 0")),
        "{refused:?}"
    );
    gate::fence(&us, &world.slice, Epoch(1)).await.unwrap();
    assert_eq!(state(gate::open(&us, &world.slice, Epoch(1)).await), "STR02", "not while nobody owns it");
    decider.decide(world::aborted(2)).await.unwrap();
    assert_eq!(world.monolith(GATE), "2 open");
    assert_eq!(refusal(&app, WRITE).await, None);

    decider.decide_all([world::prepared(), world::started(3)]).await;
    gate::fence(&us, &world.slice, Epoch(3)).await.unwrap();
    // Another controller that knows less decides nothing.
    let mut late = Decider::of(&world).await;
    decider.decide(world::committed(3)).await.unwrap();
    assert!(matches!(late.decide(world::aborted(4)).await, Err(StoreError::Conflict(_))));
    assert_eq!(world.monolith(GATE), "3 shut");
    assert_eq!(head(&world), wanted(&decider.head(), 8));
    let told = world::refused(&app, WRITE).await;
    assert!(told.message().contains("owned by service orders (epoch 3)"), "{told:?}");
    assert!(told.hint().unwrap().contains("`strangler rollback orders`"), "{told:?}");
    assert!(!told.hint().unwrap().contains("strangler.abort"), "it was decided: {told:?}");
    assert_eq!(state(gate::open(&us, &world.slice, Epoch(9)).await), "STR02", "the service owns it");

    gate::open(&service, &world.slice, Epoch(3)).await.unwrap();
    decider.decide_all([world::released(3), world::rollback_started(4)]).await;
    let told = world::refused(&app, WRITE).await;
    assert!(told.message().contains("on its way back from service orders (epoch 4)"), "{told:?}");
    assert!(told.hint().unwrap().contains("SELECT strangler.abort('orders', 4)"), "{told:?}");
    gate::fence(&service, &world.slice, Epoch(4)).await.unwrap();
    decider.decide(world::rollback_aborted(5)).await.unwrap();
    assert_eq!(world.monolith(GATE), "5 shut");
    gate::open(&service, &world.slice, Epoch(5)).await.unwrap();
    decider.decide_all([world::released(5), world::rollback_started(6)]).await;
    gate::fence(&service, &world.slice, Epoch(6)).await.unwrap();
    assert_eq!(state(gate::open(&service, &world.slice, Epoch(5)).await), "STR02");
    decider.decide(world::rollback_committed(6)).await.unwrap();
    assert_eq!(world.monolith(GATE), "6 open");
    assert_eq!(refusal(&app, WRITE).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn vitess_17794_giving_one_slice_up_turns_no_gate_of_another() {
    let mut world = World::new("").await;
    let stock = "CREATE TABLE stock (id int PRIMARY KEY, n int)";
    for database in ["monolith", "service"] {
        world.cluster.sql(database, &format!("SET ROLE app; {stock}"));
    }
    let marks = "    triggers: { audit: skip }";
    let other = "  stock: { service: orders, routes: { all: GET /stock }, tables: [public.stock] }";
    world.plan = world.plan_with(marks, &format!("{marks}\n{other}"));
    world.install().await;
    let us = world.client("strangler", "monolith").await;
    let app = world.client("app", "monolith").await;
    let stock = "INSERT INTO stock SELECT coalesce(max(id), 0) + 1 FROM stock";
    let mut deciders = Vec::new();
    for slice in ["orders", "stock"] {
        let slice = slice.parse().unwrap();
        gate::make(&us, &slice, Epoch(0)).await.unwrap();
        let mut decider = Decider::of(&world).await;
        decider.slice = slice;
        decider.decide_all(world::followed()).await;
        decider.decide_all([world::prepared(), world::started(1)]).await;
        deciders.push(decider);
    }
    let [orders, stocks] = &mut deciders[..] else { unreachable!("there are two") };
    gate::fence(&us, &stocks.slice, Epoch(1)).await.unwrap();
    assert_eq!(refusal(&app, WRITE).await, None, "the fence of one slice shut another's gate");
    gate::fence(&us, &orders.slice, Epoch(1)).await.unwrap();
    gate::abort(&us, &orders.slice, Epoch(1)).await.unwrap();
    assert_eq!(refusal(&app, WRITE).await, None);
    assert_eq!(refusal(&app, stock).await.as_deref(), Some("STR01"), "another slice's abort opened the gate");
    orders.read().await;
    orders.decide_all([world::prepared(), world::started(3)]).await;
    gate::fence(&us, &orders.slice, Epoch(3)).await.unwrap();
    gate::abort(&us, &stocks.slice, Epoch(1)).await.unwrap();
    assert_eq!(refusal(&app, stock).await, None);
    assert_eq!(refusal(&app, WRITE).await.as_deref(), Some("STR01"));
}

#[tokio::test(flavor = "multi_thread")]
async fn vitess_13998_13999_14008_a_left_over_gate_does_not_break_the_next_cutover() {
    let (world, mut decider) = following().await;
    let us = world.client("strangler", "monolith").await;
    let app = world.client("app", "monolith").await;
    app.batch_execute("ALTER TABLE orders ENABLE ALWAYS TRIGGER strangler_gate_orders").await.unwrap();
    let told = world::refused(&app, WRITE).await;
    assert!(told.code().code() == "STR01" && told.hint().unwrap().contains("strangler status"), "{told:?}");
    decider.decide_all([world::prepared(), world::started(1)]).await;
    gate::fence(&us, &world.slice, Epoch(1)).await.unwrap();
    decider.decide(world::aborted(2)).await.unwrap();
    assert_eq!(refusal(&app, WRITE).await, None);

    app.batch_execute("DROP TRIGGER strangler_gate_lines ON lines").await.unwrap_err();
    app.batch_execute("DROP TRIGGER strangler_gate_orders ON orders").await.unwrap();
    decider.decide_all([world::prepared(), world::started(3)]).await;
    gate::fence(&us, &world.slice, Epoch(3)).await.unwrap();
    assert_eq!(refusal(&app, WRITE).await.as_deref(), Some("STR01"), "what is missing is made again");
    gate::abort(&us, &world.slice, Epoch(3)).await.unwrap();
    assert_eq!(refusal(&app, WRITE).await, None);
    assert_eq!(world.monolith(TRIGGERS), "D");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rehearsal_of_a_gate_leaves_everything_as_it_was() {
    let (world, _decider) = following().await;
    let app = world.client("app", "monolith").await;
    for (database, gate, triggers) in [("monolith", "0 open", "D"), ("service", "0 shut", "A")] {
        let us = world.client("strangler", database).await;
        gate::rehearse(&us, &world.slice).await.unwrap();
        assert_eq!(world.cluster.sql(database, GATE), gate);
        assert_eq!(world.cluster.sql(database, TRIGGERS), triggers);
    }
    assert_eq!(refusal(&app, WRITE).await, None);
    app.batch_execute(&format!("BEGIN; {WRITE}")).await.unwrap();
    let us = world.client("strangler", "monolith").await;
    assert_eq!(state(gate::rehearse(&us, &world.slice).await), "STR05");
    app.batch_execute("COMMIT").await.unwrap();
}

/// A rehearsal would wait for the open write, and all who come later for the rehearsal.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_made_ready_for_a_gate_without_a_lock() {
    let (world, _decider) = following().await;
    let app = world.client("app", "monolith").await;
    app.batch_execute(&format!("BEGIN; {WRITE}")).await.unwrap();
    for (database, gate, triggers) in [("monolith", "0 open", "D"), ("service", "0 shut", "A")] {
        let us = world.client("strangler", database).await;
        us.batch_execute("BEGIN").await.unwrap();
        gate::warm(&us, &world.slice).await.unwrap();
        // A locked row would need a transaction id.
        let locks = "SELECT count(*) FILTER (WHERE mode <> 'AccessShareLock'), pg_current_xact_id_if_assigned() IS NOT NULL
                     FROM pg_locks WHERE pid = pg_backend_pid() AND locktype <> 'virtualxid'";
        let row = us.query_one(locks, &[]).await.unwrap();
        assert_eq!((row.get::<_, i64>(0), row.get::<_, bool>(1)), (0, false), "{database}");
        us.batch_execute("COMMIT").await.unwrap();
        assert_eq!(world.cluster.sql(database, GATE), gate);
        assert_eq!(world.cluster.sql(database, TRIGGERS), triggers);
    }
    app.batch_execute("COMMIT").await.unwrap();
}

/// An administrator who is no superuser: the tables' own owner, with a role that a DBA made before.
#[tokio::test(flavor = "multi_thread")]
async fn gates_need_no_superuser_at_all() {
    let mut world = World::new("").await;
    world.cluster.sql(
        "postgres",
        "CREATE ROLE strangler LOGIN REPLICATION; ALTER DATABASE monolith OWNER TO app; ALTER DATABASE service OWNER TO app;
         GRANT pg_read_all_stats TO app WITH ADMIN OPTION",
    );
    world.admin = [("monolith", "monolith"), ("orders", "service")]
        .map(|(part, database)| (part.to_owned(), world::url(&world.cluster, "app", database)))
        .into();
    world.install().await;
    world.install().await;
    let us = world.client("strangler", "monolith").await;
    gate::make(&us, &world.slice, Epoch(0)).await.unwrap();
    let mut decider = Decider::of(&world).await;
    decider.decide_all(world::followed()).await;
    decider.decide_all([world::prepared(), world::started(1)]).await;
    gate::fence(&us, &world.slice, Epoch(1)).await.unwrap();
    let app = world.client("app", "monolith").await;
    assert_eq!(refusal(&app, WRITE).await.as_deref(), Some("STR01"));
    let (done, said) = psql(&world, "app", "monolith", "SELECT strangler.abort('orders', 1)");
    assert!(done, "{said}");
    assert_eq!(refusal(&app, WRITE).await, None);
}

/// A real autovacuum: it yields only to a lock that waits for longer than `deadlock_timeout`. Others do not yield at all.
#[tokio::test(flavor = "multi_thread")]
async fn making_a_gate_outlasts_an_autovacuum_and_names_who_does_not_yield() {
    let world = World::new("-c autovacuum_naptime=1s -c deadlock_timeout=200ms").await;
    world.install().await;
    world.monolith(
        "ALTER TABLE orders SET (autovacuum_vacuum_threshold = 1, autovacuum_vacuum_scale_factor = 0, \
         autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1, autovacuum_enabled = off); \
         INSERT INTO orders (customer_id, note, total) SELECT 1, repeat('x', 1000), 1 FROM generate_series(1, 2000); \
         DELETE FROM orders; ALTER TABLE orders SET (autovacuum_enabled = on)",
    );
    let vacuums =
        "SELECT count(*)::text FROM pg_stat_activity WHERE query LIKE 'autovacuum: VACUUM%public.orders'";
    let began = Instant::now();
    while world.monolith(vacuums) != "1" {
        assert!(began.elapsed() < Duration::from_secs(60), "no autovacuum");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let us = world.client("strangler", "monolith").await;
    gate::make(&us, &world.slice, Epoch(0)).await.unwrap();

    let index = world.client("app", "service").await;
    index
        .batch_execute(
            "SET application_name = 'nightly'; BEGIN; LOCK TABLE items IN SHARE UPDATE EXCLUSIVE MODE",
        )
        .await
        .unwrap();
    let us = world.client("strangler", "service").await;
    let busy = gate::make(&us, &world.slice, Epoch(0)).await.unwrap_err();
    let busy = busy.as_db_error().unwrap();
    let told = busy.detail().unwrap();
    assert!(
        busy.code().code() == "STR05" && told.contains("nightly") && told.contains("pg_terminate_backend("),
        "{busy:?}"
    );
    index.batch_execute("COMMIT").await.unwrap();
    gate::make(&us, &world.slice, Epoch(0)).await.unwrap();
}

/// A prepared transaction has no session, and keeps a slot from being made for as long as it stands.
#[tokio::test(flavor = "multi_thread")]
async fn who_keeps_a_slot_from_being_made_is_named_with_its_end() {
    let world = World::new("-c max_prepared_transactions=2").await;
    world.install().await;
    let us = world.client("strangler", "monolith").await;
    assert_eq!(slot::blocker(&us).await.unwrap(), None);
    let writer = world.client("app", "monolith").await;
    writer.batch_execute("SET application_name = 'nightly'").await.unwrap();
    writer.batch_execute(&format!("BEGIN; {WRITE}")).await.unwrap();
    let told = slot::blocker(&us).await.unwrap().unwrap();
    assert!(told.contains("of app (nightly)") && told.contains("pg_terminate_backend("), "{told}");
    writer.batch_execute("PREPARE TRANSACTION 'left over'").await.unwrap();
    let told = slot::blocker(&us).await.unwrap().unwrap();
    assert!(
        told.contains("in database monolith") && told.contains("ROLLBACK PREPARED 'left over';"),
        "{told}"
    );
    writer.batch_execute("ROLLBACK PREPARED 'left over'").await.unwrap();
}
