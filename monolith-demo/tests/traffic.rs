//! Traffic against a real shop: a correct shop passes, and the proof finds every kind of mistake.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should say where")]

mod house;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{Method, Response, StatusCode};
use house::door::{Door, Fate};
use house::{House, SEED};
use monolith_demo::shop::{database, warehouse};
use monolith_demo::traffic::incidents::{Incident, Kind};
use monolith_demo::traffic::ledger::Ledger;
use monolith_demo::traffic::promise::Removal;
use monolith_demo::traffic::{lag, proof, run};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::watch;

fn settings(house: &House, ledger: PathBuf) -> run::Settings {
    run::Settings {
        proxies: vec![house.monolith.clone()],
        clients: 12,
        rate: 400,
        lasts: Duration::from_secs(4),
        ledger,
        incidents: None,
        seed: 7,
        databases: proof::Databases { orders: None, ..house.databases() },
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_correct_shop_passes_and_the_proof_finds_lost_doubled_and_different_rows() {
    let house = House::build(SEED).await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.jsonl");
    let (stop, stopped) = watch::channel(false);
    let pool = database::pool(&house.monolith_url, "test-warehouse", 1).unwrap();
    let job = tokio::spawn(warehouse::run(pool, Duration::from_millis(50), stopped.clone()));
    let deeds = ["place", "change", "pay", "cancel", "remove"].map(|deed| format!("\"deed\":\"{deed}\""));
    let long = run::Settings { lasts: Duration::from_secs(40), ..settings(&house, path.clone()) };
    // A deletion is the rarest deed, because an order must be cancelled first. On a busy machine that takes time.
    let report = run::run(&long, stopped, |_, counts| {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        stop.send_replace(counts.requests > 1200 && deeds.iter().all(|deed| text.contains(deed)));
    });
    let report = report.await.unwrap();
    stop.send_replace(true);
    job.await.unwrap();
    assert!(report.holds(0), "{report:#?}");
    assert!(report.requests > 400 && report.by_served["monolith"] == report.requests, "{report:#?}");
    assert!(report.proof.promises > 50 && report.proof.differences.is_none(), "{report:#?}");

    let ledger = Ledger::read(&path).unwrap();
    let prove = async || proof::prove(&house.databases(), &ledger).await.unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(deeds.iter().all(|deed| text.contains(deed)), "some deed never happened");

    assert!(prove().await.differences.unwrap() > 1000, "an empty service is different in every row");
    house.copy().await;
    let proof = prove().await;
    assert!(proof.holds() && proof.rows > 1000, "{proof:#?}");

    // Three differences: a row with another state, a missing row, and an extra row.
    house.sql(&house.orders_url, "update orders set note = concat(note, '!') where id = 17").await;
    house.sql(&house.orders_url, "delete from payments where id = (select max(id) from payments)").await;
    house
        .sql(
            &house.orders_url,
            "insert into items (id, order_id, product_id, quantity, unit_cents) values (999999, 1, 1, 1, 1)",
        )
        .await;
    let proof = prove().await;
    assert_eq!((proof.differences, proof.lost, proof.doubled), (Some(3), 0, 0), "{proof:#?}");
    assert_eq!(proof.proof_samples.iter().filter(|sample| sample.starts_with("differs")).count(), 3);

    // A doubled row, the same on both sides, so that only the reference shows it.
    let double = "insert into orders (customer_id, note, total) select customer_id, note, total from orders \
                  where note like 'ref:%' order by id limit 1";
    house.sql(&house.monolith_url, double).await;
    house.copy().await;
    let proof = prove().await;
    assert_eq!((proof.differences, proof.lost, proof.doubled), (Some(0), 0, 1), "{proof:#?}");

    // A lost order, a lost change and a lost payment, again the same on both sides. No client tried to delete these
    // orders, because a deleted order may be gone.
    let (mut placed, mut paid) = (vec![], None);
    for (id, promise) in ledger.promises().iter().filter(|(_, promise)| promise.removal == Removal::None) {
        match &promise.facts {
            Some(facts) if !facts.payments.is_empty() => paid = paid.or(facts.payments.first()),
            Some(facts) if *id > 400 && facts.version > 1 => placed.push(*id),
            _ => {}
        }
    }
    house.sql(&house.monolith_url, &format!("delete from orders where id = {}", placed[0])).await;
    house.sql(&house.monolith_url, &format!("update orders set version = 1 where id = {}", placed[1])).await;
    house.sql(&house.monolith_url, &format!("delete from payments where id = {}", paid.unwrap())).await;
    house.copy().await;
    let proof = prove().await;
    assert_eq!((proof.differences, proof.lost), (Some(0), 3), "{proof:#?}");
    assert!(!proof.holds());
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_is_measured_and_its_probe_is_removed() {
    let house = House::build(SEED).await;
    house.copy().await;
    // Instead of a stream, a task copies the orders every few milliseconds.
    let dblink = "create extension postgres_fdw; create server m foreign data wrapper postgres_fdw \
                  options (host '127.0.0.1', port 'PORT', dbname 'monolith'); \
                  create user mapping for postgres server m options (user 'postgres', password_required 'false'); \
                  create foreign table source (id bigint, customer_id bigint, status order_status, note text, \
                  total numeric(12, 2), placed_at timestamptz, version int) server m options (table_name 'orders')";
    let port = house.monolith_url.split([':', '/']).rev().nth(1).unwrap().to_owned();
    house.sql(&house.orders_url, &dblink.replace("PORT", &port)).await;
    let sink = database::connect(&house.orders_url, "test-stream").await.unwrap();
    let stream = tokio::spawn(async move {
        for _ in 0..2000 {
            sink.batch_execute(
                "insert into orders select id, customer_id, status, note, (total * 100)::bigint, placed_at, version \
                   from source where note like 'lag-probe%' on conflict (id) do update set note = excluded.note, \
                   version = excluded.version; \
                 delete from orders where note like 'lag-probe%' and id not in (select id from source)",
            )
            .await
            .unwrap();
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    });
    let lag = lag::measure(&house.monolith_url, &house.orders_url, 10).await.unwrap();
    stream.abort();
    assert!(lag.samples == 10 && lag.lag_ms_p50 > 0.0 && lag.lag_ms_p99 >= lag.lag_ms_p50, "{lag:?}");
    let proof = proof::prove(&house.databases(), &Ledger::default()).await.unwrap();
    assert!(proof.holds(), "{proof:#?}");
}

/// Sends a request on to one of the shop's sides.
async fn forward(base: &str, http: reqwest::Client, request: Request) -> Response<Body> {
    let path = request.uri().path_and_query().unwrap().to_string();
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    let answer = http.request(parts.method, format!("{base}{path}")).headers(parts.headers).body(body);
    let answer = answer.send().await.unwrap();
    let mut response = Response::builder().status(answer.status());
    *response.headers_mut().unwrap() = answer.headers().clone();
    response.body(Body::from(answer.bytes().await.unwrap())).unwrap()
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap()
}

fn is_read(request: &Request) -> bool {
    request.method() == Method::GET || request.uri().path() == "/orders/search"
}

fn is_of_orders(request: &Request) -> bool {
    let path = request.uri().path();
    path == "/orders" || path.starts_with("/orders/")
}

/// Sends reads of orders to the service, which gets no changes, and everything else to the monolith.
async fn careless_proxy(house: Arc<House>, http: reqwest::Client, request: Request) -> Response<Body> {
    let at_service = is_of_orders(&request) && is_read(&request);
    forward(if at_service { &house.orders } else { &house.monolith }, http, request).await
}

/// Sends all that is about orders to `orders`, as after a cutover.
async fn cut_over_proxy(
    monolith: String,
    orders: String,
    http: reqwest::Client,
    request: Request,
) -> Response<Body> {
    forward(if is_of_orders(&request) { &orders } else { &monolith }, http, request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn books_are_right_when_calls_get_lost_under_load() {
    let house = House::without_service(SEED).await;
    let tight = "update products set stock = 12; \
                 update customers set credit_limit = 40 + coalesce((select sum(cents) / 100.0 \
                   from credit_held where customer_id = customers.id), 0)";
    house.sql(&house.monolith_url, tight).await;
    house.copy().await;
    let door = Door::to(&house.internal);
    let mut dice = StdRng::seed_from_u64(11);
    door.decide(move |_, _| match dice.random_range(0..10) {
        0 => Fate::Lost,
        1 => Fate::Unanswered,
        2 => Fate::Twice,
        // Some arrive after the caller has given up and called again.
        3 => Fate::Late(Duration::from_millis(dice.random_range(1..2500))),
        _ => Fate::Passes,
    });
    let (_stop, stopped) = watch::channel(false);
    let door = door.serve(stopped.clone()).await;
    let (orders, monolith, http) = (house.serve_orders(&door).await, house.monolith.clone(), client());
    let router = axum::Router::new()
        .fallback(move |request| cut_over_proxy(monolith.clone(), orders.clone(), http.clone(), request));
    let proxy = house::serve(router, stopped.clone()).await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.jsonl");
    let databases = proof::Databases { patience: Duration::from_secs(20), ..house.databases() };
    let settings = run::Settings {
        proxies: vec![proxy],
        databases,
        lasts: Duration::from_secs(8),
        ..settings(&house, path.clone())
    };
    let report = run::run(&settings, stopped.clone(), |_, _| {}).await.unwrap();
    let proof = &report.proof;
    assert_eq!((report.failed, report.wrong, proof.lost, proof.doubled), (0, 0, 0, 0), "{report:#?}");
    assert_eq!((proof.owner.as_str(), proof.sagas_open, proof.books_differ), ("orders", 0, 0), "{report:#?}");
    assert_eq!((report.watch.credit_exceeded, report.watch.stock_negative), (0, 0), "{report:#?}");
    assert!(report.watch.looks > 2 && report.refused > 20 && proof.promises > 50, "{report:#?}");
    let refused = "select count(*) from saga where deal->>'kind' = 'place' and refusal->>'code' = ";
    for code in ["credit", "stock"] {
        let count: u64 = house.value(&house.orders_url, &format!("{refused}'{code}'")).await.parse().unwrap();
        assert!(count > 0, "no order was refused for {code}");
    }

    // The proof sees a saga that stays open, an entry that is missing, and one that has no order.
    let spoil = "insert into saga (id, order_id, deal, state, due_at) \
                 values (gen_random_uuid(), 1, '{\"order\":1,\"kind\":\"cancel\"}', 'release_stock', 'infinity')";
    house.sql(&house.orders_url, spoil).await;
    let spoil = "delete from credit_held where order_id = (select max(order_id) from credit_held); \
                 insert into stock_held values (999999999, 1, 1)";
    house.sql(&house.monolith_url, spoil).await;
    let ledger = Ledger::read(&path).unwrap();
    let proof = proof::prove(&house.databases(), &ledger).await.unwrap();
    assert_eq!((proof.sagas_open, proof.books_differ, proof.lost), (1, 2, 0), "{proof:#?}");

    // A credit that is exceeded for a while is seen during the run.
    house.sql(&house.monolith_url, "update customers set credit_limit = 0").await;
    let short = run::Settings { lasts: Duration::from_secs(2), databases: house.databases(), ..settings };
    let report = run::run(&short, stopped, |_, _| {}).await.unwrap();
    assert!(report.watch.credit_exceeded > 0 && !report.holds(0), "{report:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_is_put_off_is_no_promise_and_no_failure() {
    let house = House::build(SEED).await;
    let (_stop, stopped) = watch::channel(false);
    let (monolith, http) = (house.monolith.clone(), client());
    let writes = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let router = axum::Router::new().fallback(move |request: Request| {
        let (monolith, http) = (monolith.clone(), http.clone());
        let count =
            if is_read(&request) { 1 } else { writes.fetch_add(1, std::sync::atomic::Ordering::Relaxed) };
        async move {
            if count % 4 != 0 {
                return forward(&monolith, http, request).await;
            }
            let busy = Response::builder().status(StatusCode::SERVICE_UNAVAILABLE).header("retry-after", "1");
            busy.body(Body::empty()).unwrap()
        }
    });
    let first = house::serve(router.clone(), stopped.clone()).await;
    let proxies = vec![first, house::serve(router, stopped.clone()).await];
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("incidents.jsonl");
    let settings = run::Settings {
        proxies: proxies.clone(),
        incidents: Some(path.clone()),
        ..settings(&house, dir.path().join("ledger.jsonl"))
    };
    let report = run::run(&settings, stopped, |_, _| {}).await.unwrap();
    assert!(report.holds(0) && report.deferred > 5, "{report:#?}");
    assert_eq!(report.proof.unknown, report.deferred, "{report:#?}");

    // Each of them is written down, with its time and its way.
    let text = std::fs::read_to_string(&path).unwrap();
    let incidents: Vec<Incident> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(incidents.len() as u64, report.deferred, "{text}");
    assert!(
        incidents.iter().all(|one| one.kind == Kind::PutOff && one.trip.from_ms <= one.trip.until_ms),
        "{text}"
    );
    for proxy in &proxies {
        assert!(incidents.iter().any(|one| one.trip.proxy == *proxy), "no way led through {proxy}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn traffic_notices_reads_that_go_back_in_time() {
    let house = Arc::new(House::build(SEED).await);
    house.copy().await;
    let (_stop, stopped) = watch::channel(false);
    let (behind, http) = (house.clone(), client());
    let router = axum::Router::new().fallback(move |request| careless_proxy(behind, http, request));
    let proxy = house::serve(router, stopped.clone()).await;
    let dir = tempfile::tempdir().unwrap();
    let settings =
        run::Settings { proxies: vec![proxy], ..settings(&house, dir.path().join("ledger.jsonl")) };
    let report = run::run(&settings, stopped, |_, _| {}).await.unwrap();
    assert_eq!((report.failed, report.proof.lost), (0, 0), "{report:#?}");
    assert!(report.by_served["orders"] > 100 && report.by_served["monolith"] > 100, "{report:#?}");
    assert!(report.wrong > 20 && !report.holds(0), "{report:#?}");
    let found = |kind: &str| report.samples.iter().any(|sample| sample.contains(kind));
    assert!(found("vanished") || found("missing from a list"), "{report:#?}");
}
