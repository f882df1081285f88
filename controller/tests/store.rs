//! One contract for both stores of the journal.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on shall fail")]

mod world;

use controller::{Draft, Loaded, Store, StoreError};
use lab::Cluster;
use migrations::journal::{Entry, Generation, Move, SliceState, State};
use migrations::plan::Plan;
use migrations::stage::Event;
use std::collections::BTreeMap;
use std::sync::Arc;

const ROUTES_ONLY: &str = r#"
version: 1
name: shop
monolith: { upstream: "http://127.0.0.1:1" }
services: { orders: { upstream: "http://127.0.0.1:2" } }
slices: { orders: { service: orders, routes: { show: "GET /orders/{id}" } } }
"#;

fn draft(actor: &str, event: Event) -> Draft {
    let decided = Move { slice: "orders".parse().unwrap(), event, after: SliceState::default() };
    Draft { actor: actor.to_owned(), reason: "because".to_owned(), decided }
}

fn with_database(cluster: &Cluster) -> Plan {
    let url = world::url(cluster, "strangler", "postgres");
    world::plan(
        &ROUTES_ONLY
            .replace("http://127.0.0.1:1\" }", &format!("http://127.0.0.1:1\", database: \"{url}\" }}")),
    )
}

async fn installed(cluster: &Cluster) -> Plan {
    let plan = with_database(cluster);
    let admin = BTreeMap::from([("monolith".to_owned(), world::url(cluster, "postgres", "postgres"))]);
    controller::install(&plan, &admin, &mut |_| {}).await.unwrap();
    plan
}

/// What every store must do. `open` makes another one on the same journal, as another process would.
async fn contract(open: impl Fn() -> Store) {
    let store = open();
    let Loaded { journal: id, length, entries } = store.load(Generation(0)).await.unwrap();
    assert_eq!((length, entries), (Generation(0), Vec::new()));
    assert_eq!(open().load(Generation(0)).await.unwrap().journal, id, "a journal keeps its id");

    let first =
        store.append(Generation(0), &draft("ann", Event::SyncStarted { replace: false })).await.unwrap();
    assert_eq!(
        (first.generation, first.actor.as_str(), first.reason.as_str()),
        (Generation(1), "ann", "because")
    );
    assert!(first.at.ends_with('Z') && first.at.contains('T'), "{}", first.at);
    let second = open().append(Generation(1), &draft("bob", Event::SyncDropped)).await.unwrap();
    assert_eq!(store.load(Generation(0)).await.unwrap().entries, [first, second.clone()]);
    assert_eq!(store.load(Generation(1)).await.unwrap().entries, [second]);

    for stale in [0, 1, 3] {
        let lost =
            store.append(Generation(stale), &draft("eve", Event::SyncStarted { replace: false })).await;
        assert!(matches!(lost, Err(StoreError::Conflict(_))), "{stale}: {lost:?}");
    }
    let beyond = store.load(Generation(9)).await.unwrap();
    assert_eq!((beyond.length, beyond.entries), (Generation(2), Vec::new()));
    race(&open).await;
    let Loaded { journal: id, entries, .. } = store.load(Generation(0)).await.unwrap();
    assert_eq!(State::replay(id, &entries).unwrap().generation, Generation(12));
}

/// Writers that want the same place: exactly one gets each.
async fn race(open: &impl Fn() -> Store) {
    let stores: Vec<Arc<Store>> = (0..4).map(|_| Arc::new(open())).collect();
    for length in 2..12 {
        let event = if length % 2 == 0 { Event::SyncStarted { replace: false } } else { Event::SyncDropped };
        let tries: Vec<_> = stores
            .iter()
            .map(|store| {
                let (store, draft) = (Arc::clone(store), draft("racer", event.clone()));
                tokio::spawn(async move { store.append(Generation(length), &draft).await })
            })
            .collect();
        let mut won = 0;
        for one in tries {
            match one.await.unwrap() {
                Ok(entry) => {
                    assert_eq!(entry.generation, Generation(length + 1));
                    won += 1;
                }
                Err(StoreError::Conflict(_)) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
        assert_eq!(won, 1, "place {length}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let plan = world::plan(ROUTES_ONLY);
    contract(|| Store::of(&plan, folder.path())).await;
}

#[tokio::test]
async fn a_torn_line_of_a_crash_makes_room_for_the_next_entry() {
    let folder = tempfile::tempdir().unwrap();
    let plan = world::plan(ROUTES_ONLY);
    let store = Store::of(&plan, folder.path());
    store.append(Generation(0), &draft("ann", Event::SyncStarted { replace: false })).await.unwrap();
    let path = folder.path().join("journal.jsonl");
    let mut text = std::fs::read(&path).unwrap();
    text.extend_from_slice(b"{\"generation\":2,\"at\":\"20");
    std::fs::write(&path, text).unwrap();
    assert_eq!(store.load(Generation(0)).await.unwrap().entries.len(), 1);
    store.append(Generation(1), &draft("ann", Event::SyncDropped)).await.unwrap();
    assert_eq!(Store::of(&plan, folder.path()).load(Generation(0)).await.unwrap().entries.len(), 2);
}

#[tokio::test]
async fn a_damaged_file_is_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("journal.jsonl"), "what is this\n").unwrap();
    let loaded = Store::of(&world::plan(ROUTES_ONLY), folder.path()).load(Generation(0)).await;
    assert!(matches!(loaded, Err(StoreError::Damaged { .. })), "{loaded:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_keeps_the_contract_and_only_lets_the_journal_grow() {
    let cluster = Cluster::start();
    let folder = tempfile::tempdir().unwrap();
    let nothing_there = Store::of(&with_database(&cluster), folder.path()).load(Generation(0)).await;
    assert!(
        matches!(nothing_there, Err(StoreError::Unreachable { .. } | StoreError::Refused { .. })),
        "{nothing_there:?}"
    );

    let plan = installed(&cluster).await;
    contract(|| Store::of(&plan, folder.path())).await;
    let head = "SELECT slice || ' ' || generation || ' ' || (stage->>'stage') FROM strangler.slice";
    assert_eq!(cluster.sql("postgres", head), "orders 12 monolith");

    for user in ["strangler", "postgres"] {
        let client = world::client(&cluster, user, "postgres").await;
        for change in [
            "UPDATE strangler.journal SET actor = 'x'",
            "DELETE FROM strangler.journal",
            "TRUNCATE strangler.journal",
        ] {
            let refused = client.batch_execute(change).await.unwrap_err();
            let message = refused.as_db_error().unwrap().message().to_owned();
            let wanted = if user == "postgres" { "the journal only grows" } else { "permission denied" };
            assert!(message.contains(wanted), "{user}: {change}: {message}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_gets_a_database_goes_on_with_its_journal() {
    let folder = tempfile::tempdir().unwrap();
    let without = world::plan(ROUTES_ONLY);
    let shared = |share: &str| Event::Shared {
        routes: BTreeMap::from([("show".parse().unwrap(), share.parse().unwrap())]),
    };
    let before = Store::of(&without, folder.path());
    for (length, share) in ["25%", "service"].into_iter().enumerate() {
        let draft = draft("ann", shared(share));
        before.append(Generation(length as u64), &draft).await.unwrap();
    }
    let entries = before.load(Generation(0)).await.unwrap().entries;

    let cluster = Cluster::start();
    let with = installed(&cluster).await;
    let after = Store::of(&with, folder.path());
    let loaded = after.load(Generation(1)).await.unwrap();
    assert_eq!((loaded.length, loaded.entries.len()), (Generation(2), 1));
    let taken = after.load(Generation(0)).await.unwrap();
    let state = State::replay(taken.journal, &taken.entries).unwrap();
    assert_eq!(state.slices, State::replay(taken.journal, &entries).unwrap().slices);
    let told = |entry: &Entry| (entry.actor.clone(), entry.reason.clone(), entry.event.clone());
    assert_eq!(
        taken.entries.iter().map(told).collect::<Vec<_>>(),
        entries.iter().map(told).collect::<Vec<_>>()
    );
    assert_eq!(taken.entries[0].at[..19], entries[0].at[..19]);
    let head = "SELECT slice || ' ' || generation || ' ' || (stage->>'stage') FROM strangler.slice";
    assert_eq!(cluster.sql("postgres", head), "orders 2 monolith");

    // Nor does a plan that loses its database begin another one, or bring the old one back.
    for _ in 0..2 {
        let lost = Store::of(&without, folder.path()).load(Generation(0)).await;
        let Err(StoreError::Elsewhere { remedy }) = lost else { panic!("{lost:?}") };
        assert!(remedy.contains("journal.elsewhere"), "{remedy}");
    }
    controller::forget_elsewhere(folder.path());
    assert_eq!(Store::of(&without, folder.path()).load(Generation(0)).await.unwrap().length, Generation(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_was_in_the_database_all_along_takes_nothing_over() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start();
    let with = installed(&cluster).await;
    let store = Store::of(&with, folder.path());
    store.append(Generation(0), &draft("ann", Event::SyncStarted { replace: false })).await.unwrap();
    // What an older release left there.
    let stale = tempfile::tempdir().unwrap();
    let file = Store::of(&world::plan(ROUTES_ONLY), stale.path());
    for length in 0..2 {
        let event = if length == 0 { Event::SyncStarted { replace: false } } else { Event::SyncDropped };
        file.append(Generation(length), &draft("bob", event)).await.unwrap();
    }
    std::fs::copy(stale.path().join("journal.jsonl"), folder.path().join("journal.jsonl")).unwrap();
    assert_eq!(store.load(Generation(0)).await.unwrap().entries.len(), 1);
    assert!(!folder.path().join("journal.jsonl").exists(), "it is put aside");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_down_is_asked_again() {
    let cluster = Cluster::start();
    let plan = installed(&cluster).await;
    let folder = tempfile::tempdir().unwrap();
    let store = Store::of(&plan, folder.path());
    store.append(Generation(0), &draft("ann", Event::SyncStarted { replace: false })).await.unwrap();
    cluster.kill();
    for _ in 0..2 {
        let down = store.load(Generation(0)).await;
        assert!(matches!(down, Err(StoreError::Unreachable { .. } | StoreError::Refused { .. })), "{down:?}");
    }
    cluster.restart();
    assert_eq!(store.load(Generation(0)).await.unwrap().entries.len(), 1);
}
