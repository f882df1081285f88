//! The service's sagas with a real Postgres, a real process that is killed, and calls that get lost.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should say where")]

mod house;

use std::future::Future;
use std::process::Command;
use std::time::{Duration, Instant};

use house::door::{Door, Fate};
use house::{APART, House, SEED};
use lab::process::Background;
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

/// Longer than a lease, a pause and a slow machine together.
const LIMIT: Duration = Duration::from_secs(40);

/// A house whose service reaches the books through a door.
struct Street {
    house: House,
    door: Door,
    /// Where the door is.
    door_url: String,
    /// A folder for the logs of processes.
    folder: tempfile::TempDir,
    http: Client,
}

impl Street {
    /// With a service in this process.
    async fn build() -> Self {
        let mut street = Self::without_service().await;
        street.house.orders = street.house.serve_orders(&street.door_url).await;
        street
    }

    async fn without_service() -> Self {
        let house = House::without_service(SEED).await;
        house.copy().await;
        let door = Door::to(&house.internal);
        let door_url = door.serve(house.stop.subscribe()).await;
        let http = Client::builder().timeout(Duration::from_secs(20)).build().unwrap();
        Self { house, door, door_url, folder: tempfile::tempdir().unwrap(), http }
    }

    /// Sends a request to the service; none if no answer came.
    async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Option<(StatusCode, Value)> {
        self.send_to(&self.house.orders, method, path, body).await
    }

    async fn send_to(
        &self,
        base: &str,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Option<(StatusCode, Value)> {
        let mut request = self.http.request(method, format!("{base}{path}"));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.ok()?;
        let status = answer.status();
        Some((status, answer.json().await.ok()?))
    }

    async fn place(&self, customer: i64, product: i64, qty: i32) -> Option<(StatusCode, Value)> {
        let body = json!({"customer": customer, "items": [{"product": product, "qty": qty}]});
        self.send(Method::POST, "/orders", Some(body)).await
    }

    /// Places an order that is confirmed at once, and gives its number.
    async fn placed(&self, customer: i64, product: i64, qty: i32) -> i64 {
        let (status, order) = self.place(customer, product, qty).await.unwrap();
        assert_eq!((status, &order["status"]), (StatusCode::CREATED, &json!("placed")), "{order}");
        order["id"].as_i64().unwrap()
    }

    async fn here(&self, sql: &str) -> String {
        self.house.value(&self.house.monolith_url, sql).await
    }

    async fn there(&self, sql: &str) -> String {
        self.house.value(&self.house.orders_url, sql).await
    }

    /// What the books say of an order: its credit and its pieces.
    async fn books(&self, order: i64) -> (String, String) {
        let credit = format!("select sum(cents) from credit_held where order_id = {order}");
        let stock = format!("select sum(qty) from stock_held where order_id = {order}");
        (self.here(&credit).await, self.here(&stock).await)
    }

    async fn state(&self, order: i64) -> String {
        self.there(&format!("select state || ' ' || version from orders where id = {order}")).await
    }

    async fn newest(&self) -> i64 {
        self.there("select max(id) from orders").await.parse().unwrap()
    }

    async fn all_ended(&self) {
        wait_until("the end of all sagas", async || {
            self.there("select count(*) from saga where ended_at is null").await == "0"
        })
        .await;
    }

    /// Starts the service as a process of its own, which the door may kill, and waits until it serves.
    async fn start_process(&mut self) {
        let address = format!("127.0.0.1:{}", lab::free_port().unwrap());
        let mut command = Command::new(env!("CARGO_BIN_EXE_orders"));
        command.args(["--listen", &address, "--monolith", &self.door_url]);
        command.env("ORDERS_DATABASE_URL", &self.house.orders_url);
        let log = self.folder.path().join("orders.log");
        self.door.watch_over(Background::start("the service orders", &mut command, &log).unwrap());
        self.house.orders = format!("http://{address}");
        wait_until("the start of the service", async || {
            self.send(Method::GET, "/health", None).await.is_some_and(|(status, _)| status.is_success())
        })
        .await;
    }

    /// Nothing may be written to the service's orders any more, as when they belong to the monolith again.
    async fn shut(&self, url: &str, table: &str) {
        let sql = format!(
            "create function refuse() returns trigger language plpgsql as $$ begin \
               raise exception 'the orders are kept elsewhere' using errcode = 'GATE1', \
                 detail = 'They left at epoch 3.', hint = 'Ask who owns them.'; end $$; \
             create trigger gate before insert or update or delete on {table} execute function refuse()"
        );
        self.house.sql(url, &sql).await;
    }

    /// Brings an order from the service to the monolith, as a stream would.
    async fn bring_back(&self, order: i64) {
        let db = &self.house;
        let rows = |select: &str| format!("select coalesce(json_agg(r), '[]') from ({select}) r");
        for (table, select) in [
            (
                "orders",
                format!(
                    "select id, customer_id, state as status, note, total_cents / 100.0 as total, placed_at, \
                     version from orders where id = {order}"
                ),
            ),
            (
                "order_items",
                format!(
                    "select id, order_id, product_id, quantity as qty, unit_cents / 100.0 as price from items \
                     where order_id = {order}"
                ),
            ),
        ] {
            let rows = self.there(&rows(&select)).await.replace('\'', "''");
            let sql =
                format!("insert into {table} select * from json_populate_recordset(null::{table}, '{rows}')");
            db.sql(&db.monolith_url, &sql).await;
        }
    }
}

async fn wait_until<F: Future<Output = bool>>(what: &str, mut done: impl FnMut() -> F) {
    let end = Instant::now() + LIMIT;
    while !done().await {
        assert!(Instant::now() < end, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn empty() -> (String, String) {
    (String::new(), String::new())
}

fn held(cents: i64, pieces: i32) -> (String, String) {
    (cents.to_string(), pieces.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_books_follow_an_order_through_its_life() {
    let street = Street::build().await;
    let stock = "select stock from products where id = 1";
    let before: i32 = street.here(stock).await.parse().unwrap();
    let order = street.placed(7, 1, 3).await;
    assert_eq!((street.state(order).await.as_str(), street.books(order).await), ("placed 1", held(708, 3)));
    let now: i32 = street.here(stock).await.parse().unwrap();
    assert_eq!(now, before - 3);
    let pay = json!({"amount": "2.08", "method": "card"});
    let (status, paid) = street.send(Method::POST, &format!("/orders/{order}/pay"), Some(pay)).await.unwrap();
    assert_eq!((status, &paid["paid"]), (StatusCode::OK, &json!("2.08")));
    assert_eq!(street.books(order).await, held(500, 3));

    let other = street.placed(7, 1, 2).await;
    let (status, _) = street.send(Method::POST, &format!("/orders/{other}/cancel"), None).await.unwrap();
    assert_eq!((status, street.books(other).await), (StatusCode::OK, empty()));
    let now: i32 = street.here(stock).await.parse().unwrap();
    assert_eq!(now, before - 3);
    let (status, _) = street.send(Method::DELETE, &format!("/orders/{other}"), None).await.unwrap();
    assert_eq!(status, StatusCode::OK);
    let (_, sagas) = street.send(Method::GET, "/sagas", None).await.unwrap();
    assert_eq!(sagas, json!({"count": 0, "stuck": 0, "sagas": []}));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_beyond_credit_or_stock_is_refused_and_leaves_nothing_in_the_books() {
    let street = Street::build().await;
    let steps = "select string_agg(split_part(key, '/', 2), ' ' order by at) from calls";
    street.house.sql(&street.house.monolith_url, "update products set stock = 5 where id = 1").await;
    let (status, refused) = street.place(7, 1, 6).await.unwrap();
    assert_eq!((status, &refused["error"]["code"]), (StatusCode::CONFLICT, &json!("stock")));
    let order = street.newest().await;
    assert_eq!((street.state(order).await.as_str(), street.books(order).await), ("refused 1", empty()));
    assert_eq!(street.here(steps).await, "reserve_credit reserve_stock release_credit");

    street.house.sql(&street.house.monolith_url, "delete from calls").await;
    street.house.sql(&street.house.monolith_url, "update customers set credit_limit = 1 where id = 7").await;
    let (status, refused) = street.place(7, 1, 1).await.unwrap();
    assert_eq!((status, &refused["error"]["code"]), (StatusCode::CONFLICT, &json!("credit")));
    let order = street.newest().await;
    assert_eq!((street.state(order).await.as_str(), street.books(order).await), ("refused 1", empty()));
    assert_eq!(street.here(steps).await, "reserve_credit");
    assert_eq!(street.here("select stock from products where id = 1").await, "5");
    let (status, _) = street.send(Method::DELETE, &format!("/orders/{order}"), None).await.unwrap();
    assert_eq!(status, StatusCode::OK, "a refused order may be deleted");
}

/// What is done to the service that is killed, at which step, and how the order ends.
struct Death {
    deed: &'static str,
    step: &'static str,
    ends: &'static str,
    books: (i64, i32),
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_killed_at_any_step_ends_its_sagas_after_a_restart() {
    let mut street = Street::without_service().await;
    let death = |deed, step, ends, books| Death { deed, step, ends, books };
    let deaths = [
        death("place", "reserve_credit", "placed 1", (472, 2)),
        death("place", "reserve_stock", "placed 1", (472, 2)),
        death("place too much", "release_credit", "refused 1", (0, 0)),
        death("pay", "pay_credit", "placed 2", (372, 2)),
        death("cancel", "release_stock", "cancelled 2", (0, 0)),
        death("cancel", "release_credit", "cancelled 2", (0, 0)),
    ];
    street.house.sql(&street.house.monolith_url, "update products set stock = 100").await;
    let mut expected = Vec::new();
    for Death { deed, step, ends, books } in &deaths {
        for fate in [Fate::KilledBefore, Fate::KilledAfter] {
            street.start_process().await;
            let order = match *deed {
                "pay" | "cancel" => street.placed(7, 1, 2).await,
                _ => 0,
            };
            street.door.decide_once(step, fate);
            let answer = match *deed {
                "place" => street.place(7, 1, 2).await,
                "place too much" => street.place(7, 2, 101).await,
                "pay" => {
                    let pay = json!({"amount": "1.00", "method": "card"});
                    street.send(Method::POST, &format!("/orders/{order}/pay"), Some(pay)).await
                }
                _ => street.send(Method::POST, &format!("/orders/{order}/cancel"), None).await,
            };
            assert!(answer.is_none() && street.door.killed(), "{deed} at {step}: {answer:?}");
            let order = if order == 0 { street.newest().await } else { order };
            expected.push((order, format!("{deed}, {fate:?} at {step}"), *ends, *books));
        }
    }
    street.door.decide(|_, _| Fate::Passes);
    street.start_process().await;
    street.all_ended().await;
    for (order, how, ends, (cents, pieces)) in expected {
        let books = if cents == 0 { empty() } else { held(cents, pieces) };
        assert_eq!((street.state(order).await.as_str(), street.books(order).await), (ends, books), "{how}");
    }
    let held = "select coalesce(sum(qty), 0) from stock_held where product_id = 1 and order_id > 1000000";
    let gone = "select 100 - stock from products where id = 1";
    assert_eq!(street.here(held).await, street.here(gone).await);
    street.door.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_killed_while_it_confirms_confirms_after_a_restart() {
    let mut street = Street::without_service().await;
    street.start_process().await;
    let mut lock = database(&street.house.orders_url).await;
    let tx = lock.transaction().await.unwrap();
    // The order is inserted, but no status can be changed.
    let street_ = &street;
    let waiting = async {
        let reserved = "select count(*) from calls where key like '%/reserve_stock' and answer is not null";
        let confirming = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' \
                          and query like 'update orders set state = $2%'";
        wait_until("the pending order", async || street_.there("select count(*) from saga").await == "1")
            .await;
        tx.batch_execute("lock table orders in share mode").await.unwrap();
        street_.door.decide(|_, _| Fate::Passes);
        wait_until("both reservations", async || street_.here(reserved).await == "1").await;
        wait_until("the confirmation", async || street_.there(confirming).await == "1").await;
        street_.door.kill().await;
        tx.rollback().await.unwrap();
    };
    street.door.decide(|_, _| Fate::Late(Duration::from_millis(800)));
    let (answer, ()) = tokio::join!(street.place(7, 1, 2), waiting);
    assert!(answer.is_none(), "{answer:?}");
    let order = street.newest().await;
    assert_eq!(street.state(order).await, "pending 0");
    street.start_process().await;
    street.all_ended().await;
    assert_eq!((street.state(order).await.as_str(), street.books(order).await), ("placed 1", held(472, 2)));
    street.door.kill().await;
}

async fn database(url: &str) -> tokio_postgres::Client {
    monolith_demo::shop::database::connect(url, "test").await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_comes_again_gets_the_same_answer_and_does_nothing() {
    let street = Street::build().await;
    let base = &street.house.internal;
    let call = async |key: &str, call: Value| {
        street.send_to(base, Method::PUT, &format!("/calls/{key}"), Some(call)).await.unwrap()
    };
    let reserve = json!({"order": 9_000_001, "act": "reserve_credit", "customer": 7, "amount": "3.00"});
    let answers =
        futures_util::future::join_all((0..12).map(|_| call("a%2Freserve_credit", reserve.clone()))).await;
    assert!(answers.iter().all(|answer| *answer == (StatusCode::OK, json!("done"))), "{answers:?}");
    assert_eq!(street.books(9_000_001).await, ("300".into(), String::new()));

    let pay = json!({"order": 9_000_001, "act": "pay_credit", "amount": "1.00"});
    for _ in 0..3 {
        assert_eq!(call("b%2Fpay_credit", pay.clone()).await, (StatusCode::OK, json!("done")));
    }
    assert_eq!(street.books(9_000_001).await, ("200".into(), String::new()));

    let pieces = json!({"order": 9_000_001, "act": "reserve_stock", "pieces": [{"product": 1, "qty": 900}]});
    let (status, refused) = call("c%2Freserve_stock", pieces.clone()).await;
    assert_eq!((status, &refused["refused"]["code"]), (StatusCode::OK, &json!("stock")));
    street.house.sql(&street.house.monolith_url, "update products set stock = 1000").await;
    assert_eq!(call("c%2Freserve_stock", pieces.clone()).await.1, refused, "an answer is for ever");

    let (status, other) = call("b%2Fpay_credit", reserve).await;
    assert_eq!((status, &other["error"]["code"]), (StatusCode::CONFLICT, &json!("key")));

    let undo = json!({"order": 9_000_001, "act": "release_stock", "undoes": "d/reserve_stock"});
    assert_eq!(call("d%2Frelease_stock", undo).await, (StatusCode::OK, json!("done")));
    let (_, late) = call("d%2Freserve_stock", pieces).await;
    assert_eq!(late["refused"]["code"], "undone", "a reservation that comes after its release does nothing");
    assert_eq!(street.books(9_000_001).await.1, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_pending_while_the_monolith_is_silent_and_ends_when_it_speaks() {
    let street = Street::build().await;
    street.door.decide(|_, _| Fate::Lost);
    let (status, order) = street.place(7, 1, 2).await.unwrap();
    assert_eq!((status, &order["status"]), (StatusCode::ACCEPTED, &json!("pending")));
    let id = order["id"].as_i64().unwrap();
    let pay = json!({"amount": "1.00", "method": "card"});
    for (path, body) in [("pay", Some(pay)), ("cancel", None)] {
        let (status, answer) =
            street.send(Method::POST, &format!("/orders/{id}/{path}"), body).await.unwrap();
        assert_eq!(status, StatusCode::CONFLICT, "{answer}");
    }
    let note = json!({"note": "soon?"});
    let (status, changed) = street.send(Method::PUT, &format!("/orders/{id}"), Some(note)).await.unwrap();
    assert_eq!((status, &changed["version"]), (StatusCode::OK, &json!(1)));
    street.house.sql(&street.house.orders_url, "update saga set attempts = 12").await;
    let (_, sagas) = street.send(Method::GET, "/sagas", None).await.unwrap();
    assert_eq!((&sagas["count"], &sagas["stuck"]), (&json!(1), &json!(1)), "{sagas}");
    assert!(sagas["sagas"][0]["trouble"].as_str().unwrap().contains("502"), "{sagas}");
    street.door.decide(|_, _| Fate::Passes);
    street.all_ended().await;
    assert_eq!((street.state(id).await.as_str(), street.books(id).await), ("placed 2", held(472, 2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_waits_too_long_is_given_up_and_leaves_nothing_in_the_books() {
    let street = Street::build().await;
    // The credit is reserved, but the service does not know.
    street.door.decide(|_, _| Fate::Unanswered);
    let (status, order) = street.place(7, 1, 2).await.unwrap();
    assert_eq!(status, StatusCode::ACCEPTED);
    let id = order["id"].as_i64().unwrap();
    assert_eq!(street.books(id).await, ("472".into(), String::new()));
    street
        .house
        .sql(&street.house.orders_url, "update saga set begun_at = now() - interval '6 minutes'")
        .await;
    street.door.decide(|_, _| Fate::Passes);
    street.all_ended().await;
    assert_eq!((street.state(id).await.as_str(), street.books(id).await), ("refused 1", empty()));
    assert_eq!(street.there("select refusal->>'code' from saga").await, "timeout");
}

#[tokio::test(flavor = "multi_thread")]
async fn sagas_that_outlive_the_service_s_ownership_end_at_the_monolith() {
    let street = Street::build().await;
    let (monolith, service) = (&street.house.monolith_url, &street.house.orders_url);
    street.house.sql(monolith, "update products set stock = 7 where id = 2").await;
    street.door.decide(|_, _| Fate::Lost);
    let (good, bad) = tokio::join!(street.place(7, 1, 2), street.place(8, 2, 8));
    let [good, bad] = [good, bad].map(|answer| answer.unwrap().1["id"].as_i64().unwrap());
    // The orders go back to the monolith, pending as they are. For a moment nobody may write them.
    street.shut(service, "orders").await;
    for order in [good, bad] {
        street.bring_back(order).await;
    }
    street.shut(monolith, "orders").await;
    street.door.decide(|_, _| Fate::Passes);
    let confirming = "select count(*) from saga where state in ('confirm', 'refuse') and attempts > 0";
    wait_until("sagas that wait for an owner", async || street.there(confirming).await == "2").await;
    assert!(street.there("select trouble from saga limit 1").await.contains("kept elsewhere"));
    street.house.sql(monolith, "drop trigger gate on orders").await;
    street.all_ended().await;
    let status = async |order: i64| {
        street.here(&format!("select status || ' ' || version from orders where id = {order}")).await
    };
    assert_eq!((status(good).await.as_str(), street.books(good).await), ("placed 1", held(472, 2)));
    assert_eq!((status(bad).await.as_str(), street.books(bad).await), ("refused 1", empty()));

    // The monolith goes on with an order of the service, in the same books.
    let base = &street.house.monolith;
    let pay = json!({"amount": "4.00", "method": "card"});
    let (paid, _) =
        street.send_to(base, Method::POST, &format!("/orders/{good}/pay"), Some(pay)).await.unwrap();
    assert_eq!((paid, street.books(good).await), (StatusCode::OK, held(72, 2)));
    // The warehouse takes the oldest orders first.
    let finished = format!("update orders set status = 'delivered' where id < {APART}");
    street.house.sql(monolith, &finished).await;
    let pool = monolith_demo::shop::database::pool(monolith, "test-warehouse", 1).unwrap();
    for (status, books) in
        [("packed 3", held(72, 2)), ("shipped 4", ("72".into(), String::new())), ("delivered 5", empty())]
    {
        monolith_demo::shop::warehouse::tick(&pool, false).await.unwrap();
        let found =
            street.here(&format!("select status || ' ' || version from orders where id = {good}")).await;
        assert_eq!((found.as_str(), street.books(good).await), (status, books));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_goes_on_with_the_monolith_s_orders_in_the_same_books() {
    let street = Street::build().await;
    let base = &street.house.monolith;
    let body = json!({"customer": 7, "items": [{"product": 1, "qty": 2}]});
    let mut ids = Vec::new();
    for _ in 0..2 {
        let (_, order) = street.send_to(base, Method::POST, "/orders", Some(body.clone())).await.unwrap();
        ids.push(order["id"].as_i64().unwrap());
        assert_eq!(street.books(ids[ids.len() - 1]).await, held(472, 2));
    }
    street.house.copy().await;
    let pay = json!({"amount": "4.72", "method": "card"});
    let (paid, _) = street.send(Method::POST, &format!("/orders/{}/pay", ids[0]), Some(pay)).await.unwrap();
    assert_eq!((paid, street.books(ids[0]).await), (StatusCode::OK, held(0, 2)));
    let (gone, _) = street.send(Method::POST, &format!("/orders/{}/cancel", ids[1]), None).await.unwrap();
    assert_eq!((gone, street.books(ids[1]).await), (StatusCode::OK, empty()));
}
