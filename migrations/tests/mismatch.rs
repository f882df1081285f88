//! A plan that was edited after something was decided: what is said, what is refused, and where requests go meanwhile.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by falling over")]

use migrations::api::{self, SetShares, SyncVerb, SyncWish, Wish, mismatches, next_steps};
use migrations::code::{Code, Kind};
use migrations::control::Desired;
use migrations::journal::{Entry, Generation, JournalId, State};
use migrations::lsn::{CommitLsn, Of};
use migrations::names::SliceName;
use migrations::plan::{Plan, check};
use migrations::problem::Problem;
use migrations::share::Share;
use migrations::stage::Event;
use uuid::Uuid;

const TABLES: &str = "    tables: [public.orders]\n    reference: [public.customers]\n";
const PLAN: &str = r#"
version: 1
name: shop
monolith: { upstream: "http://127.0.0.1:4000", database: "postgres://s@h/shop" }
services:
  orders: { upstream: "http://127.0.0.1:4001", database: "postgres://s@h/orders" }
slices:
  orders:
    service: orders
    routes: { list: GET /orders, show: "GET /orders/{id}", place: POST /orders }
    tables: [public.orders]
    reference: [public.customers]
"#;

fn plan() -> Plan {
    check("strangler.yaml", PLAN, &|_| None).unwrap().0
}

fn edited(edits: &[(&str, &str)]) -> Plan {
    let text = edits.iter().fold(PLAN.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replace(from, to)
    });
    check("strangler.yaml", &text, &|_| None).unwrap().0
}

fn slice(name: &str) -> SliceName {
    name.parse().unwrap()
}

fn entries(events: &[(&str, Event)]) -> Vec<Entry> {
    let entry = |(at, (name, event)): (usize, &(&str, Event))| Entry {
        generation: Generation(at as u64 + 1),
        at: "2026-01-01T00:00:00Z".into(),
        actor: "a@b".into(),
        reason: String::new(),
        slice: slice(name),
        event: event.clone(),
    };
    events.iter().enumerate().map(entry).collect()
}

fn state(events: &[(&str, Event)]) -> State {
    State::replay(JournalId(Uuid::nil()), &entries(events)).unwrap()
}

fn plan_event(plan: &Plan, state: &State, wish: Wish<'_>) -> Result<Event, Problem> {
    api::plan_event(plan, state, wish).map(|decided| decided.event)
}

fn following() -> Vec<(&'static str, Event)> {
    vec![
        ("orders", Event::SyncStarted { replace: false }),
        ("orders", Event::CopyCompleted { copied_at: Of::monolith(CommitLsn(5)) }),
    ]
}

fn shares(name: &str, route: Option<&str>, share: &str) -> SetShares {
    SetShares {
        slice: slice(name),
        route: route.map(|route| route.parse().unwrap()),
        share: share.parse().unwrap(),
        emergency: false,
        actor: "a@b".into(),
        reason: String::new(),
    }
}

/// What all routes of slice `orders` came to while it had no tables.
fn without_tables(share: &str) -> (&'static str, Event) {
    let wish = shares("orders", None, share);
    ("orders", plan_event(&edited(&[(TABLES, "")]), &state(&[]), Wish::Shares(&wish)).unwrap())
}

fn told(plan: &Plan, state: &State) -> Vec<Code> {
    mismatches(plan, state).into_iter().map(|finding| finding.code).collect()
}

#[test]
fn a_slice_that_the_plan_forgot_is_a_finding() {
    let plan = plan();
    assert!(mismatches(&plan, &state(&following())).is_empty());
    let findings = mismatches(&plan, &state(&[("stock", Event::SyncStarted { replace: false })]));
    assert_eq!(findings.len(), 1);
    assert!(findings[0].message.contains("stock is copying"));
    let wish = SyncWish::default();
    let gone = state(&[("stock", Event::SyncStarted { replace: false })]);
    let refusal = plan_event(&plan, &gone, Wish::Sync(&slice("stock"), SyncVerb::Drop, &wish)).unwrap_err();
    assert_eq!(refusal.kind, Kind::Usage);
}

#[test]
fn a_followed_slice_that_lost_its_tables_waits_for_them() {
    let bare = edited(&[(TABLES, "")]);
    let followed = state(&following());
    let found = mismatches(&bare, &followed);
    assert!(found.len() == 1 && found[0].message.contains("names no tables of it"), "{found:?}");
    let wish = SyncWish::default();
    let refused = |wish| plan_event(&bare, &followed, wish).unwrap_err();
    for refusal in [
        refused(Wish::Sync(&slice("orders"), SyncVerb::Drop, &wish)),
        refused(Wish::Shares(&shares("orders", None, "10%"))),
    ] {
        assert!(
            refusal.code == Code::SliceImpossible && refusal.remedy.contains("put its tables back"),
            "{refusal:?}"
        );
    }
    assert!(plan_event(&bare, &followed, Wish::Shares(&shares("orders", None, "monolith"))).is_ok());
    assert!(next_steps(&bare, &slice("orders"), &followed).is_empty());
    assert!(mismatches(&bare, &state(&[])).is_empty());
}

#[test]
fn a_slice_that_gains_tables_keeps_reads_and_writes_on_one_side() {
    let plan = plan();
    for share in ["service", "25%"] {
        let moved = state(&[without_tables(share)]);
        let desired = Desired::from(&plan, &moved, None);
        for route in &desired.table.routes {
            assert_eq!((route.share, route.follows), (share.parse().unwrap(), false), "{}", route.route);
        }
        assert_eq!(told(&plan, &moved), [Code::JournalGainedTables]);
        assert_eq!(next_steps(&plan, &slice("orders"), &moved), ["strangler route set orders monolith"]);
    }
}

#[test]
fn a_slice_that_gains_tables_is_copied_only_when_nothing_is_at_the_service() {
    let plan = plan();
    let mut events = vec![without_tables("service")];
    let wish = SyncWish { replace: true, ..SyncWish::default() };
    let start =
        |state: &State| plan_event(&plan, state, Wish::Sync(&slice("orders"), SyncVerb::Start, &wish));
    let refusal = start(&state(&events)).unwrap_err();
    assert!(
        refusal.code == Code::SliceShared && refusal.remedy.contains("route set orders monolith"),
        "{refusal:?}"
    );
    let more = plan_event(&plan, &state(&events), Wish::Shares(&shares("orders", None, "50%")));
    assert_eq!(more.unwrap_err().kind, Kind::Conflict);

    let back = plan_event(&plan, &state(&events), Wish::Shares(&shares("orders", None, "monolith"))).unwrap();
    events.push(("orders", back));
    let back = state(&events);
    assert!(told(&plan, &back).is_empty());
    let desired = Desired::from(&plan, &back, None);
    assert!(desired.table.routes.iter().all(|route| route.share == Share::MONOLITH));
    assert_eq!(start(&back).unwrap(), Event::SyncStarted { replace: true });
}

#[test]
fn a_write_of_a_slice_that_gained_tables_may_go_back_alone() {
    let (plan, moved) = (plan(), state(&[without_tables("service")]));
    let wish = shares("orders", Some("place"), "monolith");
    let Ok(Event::Shared { routes }) = plan_event(&plan, &moved, Wish::Shares(&wish)) else { panic!() };
    assert_eq!(routes.keys().map(|name| name.as_str()).collect::<Vec<_>>(), ["place"]);
}

#[test]
fn a_share_whose_route_or_slice_was_renamed_is_told_and_can_be_forgotten() {
    let forgotten = |from, to, route: Option<&str>, left: usize| {
        let plan = edited(&[(TABLES, ""), (from, to)]);
        let mut events = vec![without_tables("50%")];
        assert_eq!(told(&plan, &state(&events)), [Code::JournalForgottenRoute]);
        let raised = shares("orders", Some("place"), "60%");
        assert!(plan_event(&plan, &state(&events), Wish::Shares(&raised)).is_err());
        let wish = shares("orders", route, "monolith");
        let event = plan_event(&plan, &state(&events), Wish::Shares(&wish)).unwrap();
        events.push(("orders", event));
        assert!(told(&plan, &state(&events)).is_empty());
        assert_eq!(state(&events).slice(&slice("orders")).shares.len(), left);
    };
    forgotten("place: POST", "buy: POST", Some("place"), 2);
    forgotten("place: POST", "buy: POST", None, 0);
    forgotten("  orders:\n    service: orders", "  sales:\n    service: orders", None, 0);
}

#[test]
fn it_is_known_until_when_requests_may_have_gone_to_the_service() {
    let mut events = following();
    let last = |events: &[(&str, Event)]| {
        State::last_shared(JournalId(Uuid::nil()), &entries(events), &slice("orders")).unwrap()
    };
    assert_eq!(last(&events), None);
    let share = |events: &[(&str, Event)], share| {
        let wish = shares("orders", None, share);
        ("orders", plan_event(&plan(), &state(events), Wish::Shares(&wish)).unwrap())
    };
    events.push(share(&events, "10%"));
    events.push(("stock", Event::SyncStarted { replace: false }));
    assert_eq!(last(&events), Some(Generation(4)), "it goes on while others are decided about");
    events.push(share(&events, "monolith"));
    events.push(("stock", Event::SyncDropped));
    assert_eq!(last(&events), Some(Generation(4)));
    events.push(share(&events, "10%"));
    events.push(("orders", Event::Evicted { why: "WAL".into() }));
    assert_eq!(last(&events), Some(Generation(7)));
}
