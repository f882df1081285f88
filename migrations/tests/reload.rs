//! Which edits of a plan a running house takes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the finding")]

use migrations::api::Outline;
use migrations::code::Code;
use migrations::crossing::{Crossing, Digest, Intent, Moment};
use migrations::finding::Finding;
use migrations::journal::{JournalId, SliceState, State};
use migrations::lsn::{CommitLsn, EndLsn, Of};
use migrations::plan::Plan;
use migrations::problem::Problem;
use migrations::share::Share;
use migrations::stage::{Epoch, Hold, Stage};
use std::collections::BTreeSet;

const PLAN: &str = "
version: 1
name: shop
monolith: { upstream: 'http://127.0.0.1:4000', database: 'postgres://s@db1/shop' }
services:
  orders: { upstream: 'http://127.0.0.1:4001', database: 'postgres://s@db2/orders' }
  carts: { upstream: 'http://127.0.0.1:4002', database: 'postgres://s@db3/carts' }
slices:
  orders:
    service: orders
    routes:
      list: GET /orders
      place: POST /orders
    tables:
      - { from: public.orders, set: { cents: '(total * 100)::bigint' }, reverse: { total: 'cents / 100.0' } }
  pages:
    service: orders
    routes: { show: GET /pages }
";

fn plan(edits: &[(&str, &str)]) -> Plan {
    let text = edits.iter().fold(PLAN.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replace(from, to)
    });
    match migrations::plan::check("strangler.yaml", &text, &|_| None) {
        Ok((plan, _)) => plan,
        Err(findings) => panic!("{findings:#?}"),
    }
}

fn crossing() -> Crossing {
    let intent = Intent::Cutover { for_ms: None };
    Crossing { intent, plan: Digest(1), schema: Digest(2), reverse_from: Of::service(EndLsn(3)) }
}

/// The journal with one slice as `change` leaves it.
fn state(slice: &str, change: impl FnOnce(&mut SliceState)) -> State {
    let mut state = State::empty(JournalId(uuid::Uuid::nil()));
    let name = slice.parse().unwrap();
    let mut one = state.slice(&name);
    change(&mut one);
    state.slices.insert(name, one);
    state
}

fn reloaded(edits: &[(&str, &str)], state: &State) -> Result<(), Problem> {
    Outline::of(&plan(&[])).reloaded(&Outline::of(&plan(edits)), state, &BTreeSet::new())
}

fn following() -> State {
    state("orders", |one| one.stage = Stage::Following { copied_at: Of::monolith(CommitLsn(5)) })
}

fn split() -> State {
    let copied_at = Of::monolith(CommitLsn(5));
    state("orders", |one| one.stage = Stage::Split { copied_at, crossing: crossing(), returns_at: None })
}

/// Edits that need another copy, another log or another journal.
const TEARING: &[(&str, &str)] = &[
    ("set: { cents: '(total * 100)::bigint' }", "set: { cents: '(total * 10)::bigint' }"),
    ("public.orders, set", "public.orders, drop: [note], set"),
    ("name: shop", "name: shops"),
    ("postgres://s@db1/shop", "postgres://s@db9/shop"),
    ("postgres://s@db2/orders", "postgres://s@db9/orders"),
    ("name: shop", "log: { kafka: { brokers: 'b:9092' } }\nname: shop"),
    ("  orders:\n    service: orders", "  orders:\n    service: carts"),
    ("  orders:\n    service", "  buys:\n    service"),
];

const HARMLESS: &[(&str, &str)] = &[
    ("http://127.0.0.1:4001", "http://127.0.0.1:4009"),
    ("      list: GET /orders", "      look: GET /orders/look\n      list: GET /orders"),
    ("name: shop", "proxy: { read_timeout: 5s }\nname: shop"),
    ("name: shop", "limits: { max_staleness: 3m }\nname: shop"),
    ("name: shop", "log: { embedded: { max: 9GiB } }\nname: shop"),
    ("postgres://s@db3/carts", "postgres://s@db9/carts"),
    ("    routes: { show: GET /pages }", "    sticky: { cookie: s }\n    routes: { show: GET /page }"),
    ("place: POST /orders", "put: POST /orders"),
    MORE,
];

/// A table comes.
const MORE: (&str, &str) =
    ("    tables:\n", "    reference: [public.prices]\n    tables:\n      - public.notes\n");

#[test]
fn what_a_followed_slice_stands_on_does_not_change() {
    for edit in TEARING {
        let refused = reloaded(&[*edit], &following()).unwrap_err();
        assert_eq!((refused.code, refused.exit()), (Code::PlanInUse, 4), "{edit:?}");
        assert!(!refused.findings.is_empty() && refused.findings.iter().all(|one| !one.remedy.is_empty()));
        let begun = state("orders", |_| {});
        let is_journal = edit.0.contains("db1");
        assert_eq!(reloaded(&[*edit], &begun).is_err(), is_journal, "nothing is copied: {edit:?}");
        reloaded(&[*edit], &State::empty(JournalId(uuid::Uuid::nil()))).unwrap();
    }
    for edit in HARMLESS {
        reloaded(&[*edit], &following()).unwrap();
    }
    let with = Outline::of(&plan(&[MORE]));
    with.reloaded(&Outline::of(&plan(&[])), &following(), &BTreeSet::new()).unwrap_err();
    let both = [MORE, TEARING[0]];
    assert!(reloaded(&both, &following()).is_err(), "a table came, and another is mapped otherwise");
    assert!(reloaded(&[MORE], &split()).is_err(), "the way back would stop");
}

#[test]
fn a_retired_slice_may_only_get_more_to_read() {
    let retired = state("orders", |one| one.stage = Stage::Retired);
    let prices = ("    tables:\n", "    reference: [public.prices]\n    tables:\n");
    let taxes = ("    tables:\n", "    reference: [public.prices, public.taxes]\n    tables:\n");
    let renamed =
        ("    tables:\n", "    reference: [{ from: public.prices, rename: { eur: price } }]\n    tables:\n");
    for edit in TEARING.iter().chain([&MORE]) {
        let refused = reloaded(&[*edit], &retired).unwrap_err();
        let is_told = |one: &Finding| one.message.contains("slice orders is retired");
        assert!(refused.findings.iter().any(is_told), "{edit:?}: {refused:?}");
    }
    reloaded(&[prices], &retired).unwrap();
    let with = Outline::of(&plan(&[prices]));
    let then = |edits: &[(&str, &str)]| with.reloaded(&Outline::of(&plan(edits)), &retired, &BTreeSet::new());
    then(&[taxes]).unwrap();
    for edits in [&[][..], &[renamed], &[taxes, TEARING[0]]] {
        let refused = then(edits).unwrap_err();
        let finding = &refused.findings[0];
        assert!(finding.message.contains("how their rows are mapped"), "{edits:?}: {finding:?}");
        assert!(finding.remedy.contains("under `reference` may be added"), "{finding:?}");
    }
    let reads_late = Outline::of(&plan(&[renamed]));
    let stopped = ["orders".parse().unwrap()].into();
    reads_late.reloaded(&with, &retired, &stopped).unwrap();
}

#[test]
fn tables_that_a_slice_was_copied_with_may_be_put_back() {
    let (wrong, right) = (Outline::of(&plan(&TEARING[..1])), Outline::of(&plan(&[])));
    wrong.reloaded(&right, &following(), &BTreeSet::new()).unwrap_err();
    wrong.reloaded(&right, &following(), &["orders".parse().unwrap()].into()).unwrap();
}

#[test]
fn a_split_slice_keeps_its_routes_and_its_way_back() {
    let lost = reloaded(&[("      list: GET /orders\n", "")], &split()).unwrap_err();
    assert!(lost.findings[0].message.contains("orders.list"), "{lost:?}");
    for edit in TEARING {
        assert!(reloaded(&[*edit], &split()).is_err(), "{edit:?}");
    }
    reloaded(&[("http://127.0.0.1:4001", "http://127.0.0.1:4009")], &split()).unwrap();
}

#[test]
fn a_route_at_the_service_stays_and_its_slice_gets_no_tables() {
    let shared = state("pages", |one| _ = one.shares.insert("show".parse().unwrap(), Share::SERVICE));
    let lost = reloaded(&[("{ show: GET", "{ see: GET")], &shared).unwrap_err();
    assert!(lost.findings[0].remedy.contains("`strangler route set pages.show monolith`"), "{lost:?}");
    let tables = ("routes: { show: GET /pages }", "routes: { show: GET /pages }\n    tables: [public.pages]");
    assert!(reloaded(&[tables], &shared).unwrap_err().findings[0].message.contains("gets tables"));
    reloaded(&[("{ show: GET /pages }", "{ show: GET /pages, all: GET /all }")], &shared).unwrap();
}

#[test]
fn nothing_is_taken_while_writes_move() {
    let mut held = split();
    held.slices.values_mut().for_each(|one| one.hold = Some(Hold { epoch: Epoch(1), until: Moment(1) }));
    for edits in [&[][..], HARMLESS] {
        let edits: Vec<_> = edits.iter().take(1).copied().collect();
        let refused = reloaded(&edits, &held).unwrap_err();
        assert!(refused.findings[0].remedy.contains("strangler abort orders"), "{refused:?}");
    }
}
