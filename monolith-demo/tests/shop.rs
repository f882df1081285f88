//! The shop with a real Postgres: the same contract on both sides, and what only the monolith has.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should say where")]

mod house;

use house::{House, SEED};
use monolith_demo::shop::{database, warehouse};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

async fn ask(base: &str, method: Method, path: &str, body: Option<&Value>) -> (StatusCode, Value) {
    let mut request = Client::new().request(method.clone(), format!("{base}{path}"));
    if let Some(body) = body {
        request = request.json(body);
    }
    let response = request.send().await.unwrap();
    let status = response.status();
    let served_by = response.headers()["x-served-by"].to_str().unwrap().to_owned();
    if status == StatusCode::CREATED {
        let location = response.headers()["location"].to_str().unwrap();
        assert!(location.starts_with(&format!("{base}/orders/")), "{location}");
    }
    let body: Value = response.json().await.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
    if status.is_success() {
        assert_eq!(body["served_by"], served_by, "{method} {path}");
    } else {
        assert!(body["error"]["code"].is_string() && body["error"]["hint"].is_string(), "{body}");
    }
    (status, body)
}

/// Removes what may differ between the sides: which side answered, times, and the numbers of new rows.
fn without_side(mut value: Value) -> Value {
    match &mut value {
        Value::Object(fields) => {
            fields.remove("served_by");
            for (name, field) in fields.iter_mut() {
                if ["placed_at", "paid_at", "id", "deleted"].contains(&name.as_str()) {
                    *field = Value::Null;
                } else {
                    *field = without_side(field.take());
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = without_side(item.take())),
        _ => {}
    }
    value
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_are_the_same_on_both_sides_to_the_byte() {
    let house = House::build(SEED).await;
    house.copy().await;
    let mut requests: Vec<(Method, String, Option<Value>)> = vec![
        (Method::GET, "/orders".into(), None),
        (Method::GET, "/orders?customer=12&limit=5".into(), None),
        (Method::GET, "/orders?limit=nonsense".into(), None),
        (Method::GET, "/orders/999999".into(), None),
        (Method::GET, "/orders/nonsense".into(), None),
        (Method::GET, "/nowhere".into(), None),
        (Method::POST, "/orders/search".into(), Some(json!({"status": "placed"}))),
        (Method::POST, "/orders/search".into(), Some(json!({"customer": 3, "text": "ORDER"}))),
        (Method::POST, "/orders/search".into(), Some(json!({"status": "lost"}))),
    ];
    requests.extend((1..=400).step_by(23).map(|id| (Method::GET, format!("/orders/{id}"), None)));
    for (method, path, body) in requests {
        let (here, mut a) = ask(&house.monolith, method.clone(), &path, body.as_ref()).await;
        let (there, mut b) = ask(&house.orders, method, &path, body.as_ref()).await;
        // Times must be equal here, so only the side's name is removed.
        for value in [&mut a, &mut b] {
            let unsigned =
                value.to_string().replace("\"served_by\":\"orders\"", "\"served_by\":\"monolith\"");
            *value = serde_json::from_str(&unsigned).unwrap();
        }
        assert_eq!((here, a), (there, b), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_are_the_same_on_both_sides() {
    let house = House::build(SEED).await;
    house.copy().await;
    let place = |items: Value| json!({"customer": 7, "items": items, "note": "Zoë's \"ref\"\n\\"});
    let new = |items: Value, expected| (Method::POST, "/orders".to_owned(), Some(place(items)), expected);
    let post = |path: &str, body: Option<Value>, expected| (Method::POST, path.to_owned(), body, expected);
    // FIRST and SECOND are the orders that the story places.
    let story = [
        new(json!([{"product": 1, "qty": 2}]), 201),
        new(json!([]), 400),
        new(json!([{"product": 1, "qty": 0}]), 400),
        new(json!([{"product": 1, "qty": 999}]), 409),
        new(json!([{"product": 999, "qty": 1}]), 409),
        post("/orders", Some(json!({"customer": 999, "items": [{"product": 1, "qty": 1}]})), 404),
        post("/orders", Some(json!({"surprise": 1})), 400),
        (Method::PUT, "/orders/FIRST".into(), Some(json!({"note": null})), 200),
        (Method::PUT, "/orders/FIRST".into(), Some(json!({"note": "late", "version": 1})), 409),
        (Method::PUT, "/orders/FIRST".into(), Some(json!({"note": "in time", "version": 2})), 200),
        post("/orders/FIRST/pay", Some(json!({"amount": "1.005", "method": "card"})), 400),
        post("/orders/FIRST/pay", Some(json!({"amount": "0.00", "method": "card"})), 400),
        post("/orders/FIRST/pay", Some(json!({"amount": "4.70", "method": "card"})), 200),
        post("/orders/FIRST/pay", Some(json!({"amount": "0.03", "method": "card"})), 409),
        post("/orders/FIRST/cancel", None, 409),
        (Method::DELETE, "/orders/FIRST".into(), None, 409),
        (Method::GET, "/orders/FIRST".into(), None, 200),
        new(json!([{"product": 2, "qty": 1}, {"product": 3, "qty": 4}]), 201),
        post("/orders/SECOND/cancel", None, 200),
        post("/orders/SECOND/pay", Some(json!({"amount": "0.01", "method": "cash"})), 409),
        (Method::DELETE, "/orders/SECOND".into(), None, 200),
        (Method::GET, "/orders/SECOND".into(), None, 404),
        (Method::DELETE, "/orders/SECOND".into(), None, 404),
        (Method::PATCH, "/orders/FIRST".into(), None, 404),
    ];
    let mut told = Vec::new();
    for base in [&house.monolith, &house.orders] {
        // Both take from the same stock.
        house.sql(&house.monolith_url, "update products set stock = 300").await;
        let mut placed: Vec<String> = Vec::new();
        let mut answers = Vec::new();
        for (method, path, body, expected) in &story {
            let mut path = path.clone();
            for (name, id) in ["FIRST", "SECOND"].iter().zip(&placed) {
                path = path.replace(name, id);
            }
            let (status, answer) = ask(base, method.clone(), &path, body.as_ref()).await;
            assert_eq!(status.as_u16(), *expected, "{base} {method} {path} {body:?}: {answer}");
            if status == StatusCode::CREATED {
                placed.push(answer["id"].to_string());
            }
            // Messages name orders, too.
            let text =
                placed.iter().fold(without_side(answer).to_string(), |text, id| text.replace(id, "ID"));
            answers.push(text);
        }
        let (_, order) = ask(base, Method::GET, &format!("/orders/{}", placed[0]), None).await;
        assert_eq!((&order["version"], &order["paid"]), (&json!(4), &json!("4.70")));
        assert_eq!(order["total"], "4.72");
        told.push(answers);
    }
    for ((a, b), (method, path, ..)) in told[0].iter().zip(&told[1]).zip(&story) {
        assert_eq!(a, b, "{method} {path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_orders_never_exceed_the_credit_limit() {
    let house = House::build(SEED).await;
    house.copy().await;
    for base in [&house.monolith, &house.orders] {
        // The open orders of the seed alone would use up the credit.
        house.sql(&house.monolith_url, "delete from credit_held where customer_id = 49").await;
        house.sql(&house.monolith_url, "update customers set credit_limit = 10 where id = 49").await;
        let body = json!({"customer": 49, "items": [{"product": 1, "qty": 1}]});
        let attempts = (0..12).map(|_| ask(base, Method::POST, "/orders", Some(&body)));
        let statuses = futures_util::future::join_all(attempts).await;
        let placed = statuses.iter().filter(|(status, _)| *status == StatusCode::CREATED).count();
        let refused = statuses.iter().filter(|(_, body)| body["error"]["code"] == "credit").count();
        // Orders of 2.36 within 10.00.
        assert_eq!((placed, refused), (4, 8), "on {base}: {statuses:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_monolith_has_a_page_old_addresses_and_a_warehouse() {
    let house = House::build(SEED).await;
    let http = Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let page = http.get(&house.monolith).send().await.unwrap().text().await.unwrap();
    assert!(page.contains("Zoë Müller") && page.contains("O&#39;Neill"), "{page}");
    let old = http.get(format!("{}/old-orders/7", house.monolith)).send().await.unwrap();
    assert_eq!(old.status(), StatusCode::FOUND);
    assert_eq!(old.headers()["location"], format!("{}/orders/7", house.monolith));
    for path in ["/health", "/customers/3", "/products"] {
        let answer = http.get(format!("{}{path}", house.monolith)).send().await.unwrap();
        assert_eq!(
            (answer.status(), &answer.headers()["x-served-by"]),
            (StatusCode::OK, &"monolith".parse().unwrap())
        );
    }
    let pool = database::pool(&house.monolith_url, "test-warehouse", 1).unwrap();
    let mut moved = 0;
    for _ in 0..3 {
        let done = warehouse::tick(&pool, true).await.unwrap();
        assert_eq!(done.subscriptions, 1);
        moved += done.packed + done.shipped + done.delivered;
    }
    assert_eq!(moved, 36, "four orders a step, three steps a tick, three ticks");
    let (status, newest) = ask(&house.monolith, Method::GET, "/orders?limit=1", None).await;
    assert_eq!((status, &newest["orders"][0]["note"]), (StatusCode::OK, &json!("subscription")));
}

/// Shuts the monolith's orders, as a gate does.
const GATE: &str = "create function refuse() returns trigger language plpgsql as $$ begin \
       raise exception 'orders have left' using errcode = 'GATE1', \
         detail = 'The service has them since epoch 3.', hint = 'Give them back with: ask the owner.'; end $$; \
     create trigger gate before insert or update or delete on orders execute function refuse()";

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_are_refused_say_so_and_live_on() {
    let house = House::build(SEED).await;
    let nightly = |rounds: &str| {
        let mut job = std::process::Command::new(env!("CARGO_BIN_EXE_nightly"));
        job.env("MONOLITH_DATABASE_URL", &house.monolith_url);
        job.args(["--age-seconds", "60", "--every-seconds", "1", "--rounds", rounds]);
        lab::process::output(&mut job, std::time::Duration::from_secs(60)).unwrap()
    };
    let placed = "select count(*) from orders where status = 'placed'";
    let held =
        "select count(*) from credit_held h join orders o on o.id = h.order_id where o.status = 'placed'";
    assert_eq!(house.value(&house.monolith_url, placed).await, house.value(&house.monolith_url, held).await);
    let said = nightly("1");
    assert!(said.contains("50 unpaid orders were cancelled"), "{said}");
    let books = "select count(*) from credit_held h full join \
                 (select id from orders where status in ('placed', 'packed', 'shipped')) o on o.id = h.order_id \
                 where o.id is null or h.order_id is null";
    assert_eq!(house.value(&house.monolith_url, books).await, "0");

    house.sql(&house.monolith_url, GATE).await;
    house.sql(&house.monolith_url, "update products set stock = 3 where id = 1").await;
    let said = nightly("2");
    for words in [
        "round 2: refused",
        "orders have left (SQLSTATE GATE1)",
        "detail: The service has them since epoch 3.",
        "hint: Give them back with: ask the owner.",
        "the job lived through all 2 rounds",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let pool = database::pool(&house.monolith_url, "test-warehouse", 1).unwrap();
    let refused = warehouse::tick(&pool, true).await.unwrap_err();
    assert!(refused.in_full().contains("orders have left"), "{refused:?}");
    let stock = house.value(&house.monolith_url, "select stock from products where id = 1").await;
    assert_eq!(stock, "503", "the shelves are filled without orders");
    house.sql(&house.monolith_url, "drop trigger gate on orders").await;
    assert!(warehouse::tick(&pool, true).await.unwrap().subscriptions > 0);
}
