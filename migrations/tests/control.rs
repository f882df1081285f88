//! What is derived from plan and journal: orders for agents, answers to wishes, next steps; and that all words read back.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by falling over")]

use migrations::api::{
    Acknowledged, AgentStatus, Outcome, RouteStatus, RouteTraffic, SetShares, SliceStatus, Status, SyncVerb,
    SyncWish, Wish, next_steps, plan_event,
};
use migrations::code::Code;
use migrations::control::{
    AgentId, AgentKind, Began, BridgeReport, Condition, Desired, FeedReport, LaneReport, Observed, Report,
    VERSION,
};
use migrations::crossing::{Crossing, Digest, Intent, Moment, Preparing};
use migrations::finding::Finding;
use migrations::gate::Side;
use migrations::journal::{Entry, Generation, JournalId, State};
use migrations::lane::{Direction, LaneId, Right};
use migrations::lsn::{CommitLsn, EndLsn, Of, Position, Timeline};
use migrations::names::SliceName;
use migrations::plan::{Plan, check};
use migrations::share::Share;
use migrations::sql::Database;
use migrations::stage::{Epoch, Event, Hold, Owner, Stage};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt::Debug;
use uuid::Uuid;

const PLAN: &str = r#"
version: 1
name: shop
monolith: { upstream: "http://127.0.0.1:4000", database: "postgres://s@h/shop" }
services:
  orders: { upstream: "http://127.0.0.1:4001", database: "postgres://s@h/orders" }
slices:
  orders:
    service: orders
    routes:
      list: GET /orders
      show: GET /orders/{id:int}
      place: POST /orders
      new: { match: GET /orders/new, side: monolith }
      draft: { match: POST /orders/new, side: monolith }
    tables: [public.orders]
    reference: [public.customers]
  pages:
    service: orders
    routes: { about: GET /about, contact: POST /contact }
"#;

fn plan() -> Plan {
    check("strangler.yaml", PLAN, &|_| None).unwrap().0
}

fn slice(name: &str) -> SliceName {
    name.parse().unwrap()
}

fn state(events: &[(&str, Event)]) -> State {
    let mut state = State::empty(JournalId(Uuid::nil()));
    for (name, event) in events {
        let entry = Entry {
            generation: state.generation.next(),
            at: "2026-01-01T00:00:00Z".into(),
            actor: "a@b".into(),
            reason: String::new(),
            slice: slice(name),
            event: event.clone(),
        };
        state.apply(&entry).unwrap();
    }
    state
}

fn following() -> Vec<(&'static str, Event)> {
    vec![
        ("orders", Event::SyncStarted { replace: false }),
        ("orders", Event::CopyCompleted { copied_at: Of::monolith(CommitLsn(5)) }),
    ]
}

fn split() -> Vec<(&'static str, Event)> {
    let mut events = following();
    events.extend(cutting());
    events.push(("orders", Event::CutoverCommitted { epoch: Epoch(1), returns_at: None }));
    events
}

fn crossing() -> Crossing {
    let intent = Intent::Cutover { for_ms: None };
    Crossing { intent, plan: Digest(1), schema: Digest(2), reverse_from: Of::service(EndLsn(3)) }
}

fn cutting() -> [(&'static str, Event); 2] {
    let intent = Intent::Cutover { for_ms: None };
    let preparing = Preparing { intent, plan: Digest(1), hold_ms: 5_000, until: Moment(5) };
    [
        ("orders", Event::CutoverPrepared { preparing }),
        ("orders", Event::CutoverStarted { epoch: Epoch(1), crossing: crossing(), until: Moment(9) }),
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

fn share_of(desired: &Desired, route: &str) -> (Share, bool) {
    let route = desired.table.routes.iter().find(|row| row.route.as_str() == route).unwrap();
    (route.share, route.follows)
}

#[test]
fn shared_reads_go_to_the_service_and_writes_stay_with_the_owner() {
    let plan = plan();
    let mut events = following();
    let wish = shares("orders", None, "25%");
    events.push(("orders", plan_event(&plan, &state(&events), Wish::Shares(&wish)).unwrap().event));
    let desired = Desired::from(&plan, &state(&events), Some("http://127.0.0.1:7402".into()));
    let quarter: Share = "25%".parse().unwrap();
    assert_eq!(share_of(&desired, "list"), (quarter, true));
    assert_eq!(share_of(&desired, "place"), (Share::MONOLITH, true));
    assert_eq!(share_of(&desired, "about"), (Share::MONOLITH, false));
    assert_eq!(desired.generation, Generation(3));
    assert_eq!(desired.plan, plan.hash);
    let lane = LaneId::forward(slice("orders"));
    assert_eq!(desired.lanes.keys().collect::<Vec<_>>(), [&lane, &lane.opposite()]);
    assert_eq!(desired.lanes[&lane].attempt, Generation(1));
    assert!(desired.table.holds.is_empty());
    assert_eq!(desired.table.monolith, ["http://127.0.0.1:4000"]);
}

fn rights(desired: &Desired) -> [Right; 2] {
    [LaneId::forward(slice("orders")), LaneId::reverse(slice("orders"))]
        .map(|lane| desired.lanes[&lane].right)
}

#[test]
fn the_way_back_is_watched_from_preparation_on_and_rests_before_and_after() {
    let plan = plan();
    let of = |events: &[(&str, Event)]| rights(&Desired::from(&plan, &state(events), None));
    let mut events = following();
    assert_eq!(of(&events), [Right::Apply(Epoch(0)), Right::Rest]);
    let [prepared, started] = cutting();
    events.push(prepared);
    assert_eq!(of(&events), [Right::Apply(Epoch(0)), Right::Watch]);
    events.push(started);
    assert_eq!(of(&events), [Right::Apply(Epoch(1)), Right::Watch]);
    events.push(("orders", Event::CutoverAborted { epoch: Epoch(2), why: "late".into() }));
    assert_eq!(of(&events), [Right::Apply(Epoch(2)), Right::Rest]);
}

#[test]
fn after_the_split_everything_of_the_slice_is_at_the_service() {
    let plan = plan();
    let desired = Desired::from(&plan, &state(&split()), None);
    for route in ["list", "show", "place"] {
        assert_eq!(share_of(&desired, route), (Share::SERVICE, false));
    }
    let leads = |desired: &Desired| {
        let of_orders = desired.table.routes.iter().filter(|row| row.slice == slice("orders"));
        of_orders.map(|row| row.leads).collect::<Vec<_>>()
    };
    assert!(leads(&desired).iter().all(|leads| *leads), "what the monolith has is behind");
    assert_eq!(rights(&desired), [Right::Watch, Right::Apply(Epoch(1))]);
    let mut cut = following();
    cut.extend(cutting());
    let desired = Desired::from(&plan, &state(&cut), None);
    assert_eq!(share_of(&desired, "place"), (Share::MONOLITH, true));
    assert!(leads(&desired).iter().all(|leads| !*leads));
    let hold = Hold { epoch: Epoch(1), until: Moment(9) };
    assert_eq!(desired.table.holds, BTreeMap::from([(slice("orders"), hold)]));
    assert_eq!(rights(&desired)[0], Right::Apply(Epoch(1)), "what was written before the fence still comes");
}

#[test]
fn a_slice_without_tables_shares_its_writes_too() {
    let plan = plan();
    let empty = state(&[]);
    let event = plan_event(&plan, &empty, Wish::Shares(&shares("pages", None, "service"))).unwrap().event;
    let desired = Desired::from(&plan, &state(&[("pages", event)]), None);
    assert_eq!(share_of(&desired, "contact"), (Share::SERVICE, false));
}

#[test]
fn a_pinned_route_stays_at_the_monolith_in_every_stage() {
    let plan = plan();
    let mut shared = following();
    // It was shared before the plan pinned it.
    let routes = [("new", "50%"), ("list", "50%")];
    let routes = routes.iter().map(|(name, share)| (name.parse().unwrap(), share.parse().unwrap())).collect();
    shared.push(("orders", Event::Shared { routes }));
    for events in [Vec::new(), shared, split()] {
        let desired = Desired::from(&plan, &state(&events), None);
        for name in ["new", "draft"] {
            assert_eq!(share_of(&desired, name).0, Share::MONOLITH);
            assert!(desired.table.routes.iter().any(|row| row.route.as_str() == name && row.pinned));
        }
        let row = serde_json::to_value(&desired.table.routes[0]).unwrap();
        assert!(row.get("pinned").is_none(), "what is not pinned travels as before");
    }
    assert_eq!(share_of(&Desired::from(&plan, &state(&split()), None), "place").0, Share::SERVICE);
}

#[test]
fn wishes_are_refused_with_a_way_on() {
    let plan = plan();
    let (start, follow) = (state(&[]), state(&following()));
    let copying = state(&following()[..1]);
    let mut events = following();
    let tenth =
        plan_event(&plan, &follow, Wish::Shares(&shares("orders", Some("list"), "10%"))).unwrap().event;
    events.push(("orders", tenth));
    let shared = state(&events);
    let wish = SyncWish { actor: "a@b".into(), ..SyncWish::default() };
    let skip = SyncWish { skip: Some(Of::monolith(Position::default())), ..wish.clone() };
    let sync = |state: &State, name: &str, verb, wish: &SyncWish| {
        plan_event(&plan, state, Wish::Sync(&slice(name), verb, wish)).unwrap_err()
    };
    let share = |state: &State, name, route, to| {
        plan_event(&plan, state, Wish::Shares(&shares(name, route, to))).unwrap_err()
    };
    let refusals = [
        share(&start, "order", None, "10%"),
        share(&start, "zebra", None, "10%"),
        share(&follow, "orders", Some("lst"), "10%"),
        share(&follow, "orders", Some("place"), "10%"),
        share(&follow, "orders", Some("new"), "10%"),
        share(&start, "orders", None, "10%"),
        share(&copying, "orders", Some("list"), "10%"),
        share(&state(&split()), "orders", None, "10%"),
        sync(&start, "pages", SyncVerb::Start, &wish),
        sync(&follow, "orders", SyncVerb::Start, &wish),
        sync(&start, "orders", SyncVerb::Drop, &wish),
        sync(&follow, "orders", SyncVerb::Pause, &skip),
        sync(&shared, "orders", SyncVerb::Drop, &wish),
    ];
    let shown: Vec<String> =
        refusals.iter().map(|r| format!("{} {}; {}", r.kind.policy().exit, r.message, r.remedy)).collect();
    insta::assert_snapshot!(shown.join("\n"));
}

#[test]
fn legal_wishes_become_events() {
    let plan = plan();
    let wish = SyncWish::default();
    let orders = slice("orders");
    let event =
        |state: &State, verb| plan_event(&plan, state, Wish::Sync(&orders, verb, &wish)).unwrap().event;
    assert_eq!(event(&state(&[]), SyncVerb::Start), Event::SyncStarted { replace: false });
    assert_eq!(event(&state(&following()), SyncVerb::Pause), Event::Paused);
    assert_eq!(event(&state(&following()), SyncVerb::Resume), Event::Resumed { skip: None });
    assert_eq!(event(&state(&following()), SyncVerb::Drop), Event::SyncDropped);
    let mut events = following();
    for share in ["10%", "monolith"] {
        let wish = shares("orders", None, share);
        events.push(("orders", plan_event(&plan, &state(&events), Wish::Shares(&wish)).unwrap().event));
    }
    assert_eq!(event(&state(&events), SyncVerb::Drop), Event::SyncDropped);
    // Back to the monolith is never refused for want of a copy.
    let back = plan_event(&plan, &state(&[]), Wish::Shares(&shares("orders", None, "monolith")));
    assert!(matches!(back.map(|back| back.event), Ok(Event::Shared { .. })));
}

#[test]
fn next_steps_are_commands() {
    let plan = plan();
    let steps = |state: &State, name| next_steps(&plan, &slice(name), state);
    assert_eq!(steps(&state(&[]), "orders"), ["strangler doctor orders", "strangler sync start orders"]);
    assert_eq!(steps(&state(&following()[..1]), "orders"), ["strangler sync status orders"]);
    assert_eq!(
        steps(&state(&following()), "orders"),
        [
            "strangler route set orders 10%",
            "strangler rehearse orders",
            "strangler cutover orders",
            "strangler tail orders"
        ]
    );
    let mut read = following();
    let routes = ["list", "show"].map(|name| (name.parse().unwrap(), Share::SERVICE));
    read.push(("orders", Event::Shared { routes: routes.into() }));
    let next = steps(&state(&read), "orders");
    assert_eq!(next[..2], ["strangler rehearse orders", "strangler cutover orders"], "{next:?}");
    assert_eq!(steps(&state(&[]), "pages"), ["strangler route set pages 10%"]);
    assert!(steps(&state(&[]), "nobody").is_empty());
}

fn reads_back<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    let text = serde_json::to_string(value).unwrap();
    let read: T = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"));
    assert_eq!(&read, value);
}

fn stages() -> Vec<Stage> {
    let copied_at = Of::monolith(CommitLsn(u64::MAX));
    vec![
        Stage::Monolith,
        Stage::Copying,
        Stage::Following { copied_at },
        Stage::Cutting { copied_at, crossing: crossing() },
        Stage::Split { copied_at, crossing: crossing(), returns_at: Some(Moment(1)) },
        Stage::Returning { copied_at, crossing: crossing(), returns_at: None },
        Stage::Retired,
    ]
}

fn conditions() -> Vec<Condition> {
    let finding = Finding::error(Code::SinkRefusedRow, "a row does not fit", "look at it");
    vec![
        Condition::Idle,
        Condition::Waiting { finding: finding.clone() },
        Condition::Copying { rows: 5, rows_estimated: 10 },
        Condition::Copied { attempt: Generation(4), copied_at: Of::monolith(CommitLsn(7)) },
        Condition::Following,
        Condition::Adding {
            tables: ["public.prices".parse().unwrap()].into(),
            rows: 5,
            rows_estimated: 10,
            waits: None,
        },
        Condition::Paused,
        Condition::Lost { attempt: Generation(4), why: "slot".into() },
        Condition::Stopped { finding, position: Some(Position { commit: CommitLsn(9), ordinal: 2 }) },
    ]
}

#[test]
fn orders_and_reports_read_back() {
    let plan = plan();
    for events in [vec![], following(), split()] {
        reads_back(&Desired::from(&plan, &state(&events), Some("http://127.0.0.1:7402".into())));
        reads_back(&Desired::from(&plan, &state(&events), None));
    }
    for condition in conditions() {
        let lane = LaneReport {
            condition,
            lag_bytes: Some(u64::MAX),
            lag_ms: None,
            lag_unknown: Some("the database is down".to_owned()),
            changes: 6,
            foreign: 7,
            fenced: Some(Epoch(8)),
            began: Some(Began { attempt: Generation(4), at: EndLsn(9) }),
        };
        let feed = FeedReport {
            slot: "strangler_shop_a".into(),
            timeline: Timeline { system_id: "1".into(), timeline: 1 },
            captured: EndLsn(5),
            lag_bytes: Some(1),
            changes: 2,
        };
        let report = BridgeReport {
            feeds: BTreeMap::from([
                (Database::Monolith, feed.clone()),
                (Database::Service("orders".parse().unwrap()), feed),
            ]),
            lanes: BTreeMap::from([
                (LaneId::forward(slice("orders")), lane.clone()),
                (LaneId::reverse(slice("orders")), lane),
            ]),
            rows: [("orders".parse().unwrap(), "0123456789abcdef".to_owned())].into(),
            findings: vec![],
            holds_nothing: false,
        };
        reads_back(&Observed {
            version: VERSION,
            agent: AgentId { kind: AgentKind::Bridge, name: "h-1".into() },
            address: None,
            acts_on: Some((JournalId(Uuid::nil()), Generation(3))),
            plan: plan.hash.clone(),
            report: Report::Bridge(report),
        });
    }
}

fn traffic() -> Vec<RouteTraffic> {
    let side = Side::Service;
    vec![RouteTraffic { side, per_second: 1.5, requests: 90, errors: 1, unanswered: 2, p99_ms: None }]
}

#[test]
fn status_and_outcome_read_back_in_every_stage() {
    for stage in stages() {
        let route = RouteStatus {
            recalled: true,
            name: "list".parse().unwrap(),
            pattern: "GET /orders/{id}".parse().unwrap(),
            access: migrations::pattern::Access::Read,
            share: "12.5%".parse().unwrap(),
            pinned: false,
            traffic: traffic(),
        };
        let one = SliceStatus {
            stage,
            epoch: Epoch(4),
            owner: Owner::Nobody,
            preparing: None,
            hold: None,
            has_tables: true,
            routes: vec![route],
            withheld: true,
            lanes: BTreeMap::from([(Direction::Forward, LaneReport::caught_up(Condition::Following))]),
            lag_unknown: None,
            next_steps: vec!["strangler status".into()],
        };
        reads_back(&one);
        let agent = AgentStatus {
            agent: AgentId { kind: AgentKind::Proxy, name: "h-1".into() },
            address: Some("http://127.0.0.1:1".into()),
            live: true,
            seen_ms_ago: 5,
            generation: Some(Generation(3)),
            plan: "hash".into(),
            report: Report::Proxy(Default::default()),
        };
        reads_back(&Status {
            plan: "shop".into(),
            plan_hash: "hash".into(),
            journal: JournalId(Uuid::nil()),
            generation: Generation(3),
            now: Moment(1),
            slices: BTreeMap::from([(slice("orders"), one)]),
            unmatched: Vec::new(),
            agents: vec![agent],
            findings: vec![Finding::warning(Code::BridgeWaits, "b", "c")],
        });
        let outcome = Outcome {
            slice: slice("orders"),
            stage,
            epoch: Epoch(4),
            owner: Owner::Service,
            hold: None,
            generation: Generation(9),
            proxies: Acknowledged { live: 2, have: 1, silent: 0 },
            findings: vec![],
            next_steps: vec![],
        };
        reads_back(&outcome);
        let flat: serde_json::Value = serde_json::to_value(&outcome).unwrap();
        assert_eq!(flat["stage"], stage.name());
        assert_eq!(flat["epoch"], 4);
    }
}
