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

/// Removes what may differ between the sides: which side answered, and times.
fn without_side(mut value: Value) -> Value {
    match &mut value {
        Value::Object(fields) => {
            fields.remove("served_by");
            for (name, field) in fields.iter_mut() {
                if name == "placed_at" || name == "paid_at" {
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
    let (_, first) =
        ask(&house.monolith, Method::POST, "/orders", Some(&place(json!([{"product": 1, "qty": 2}])))).await;
    let id = first["id"].as_i64().unwrap();
    let (_, same) =
        ask(&house.orders, Method::POST, "/orders", Some(&place(json!([{"product": 1, "qty": 2}])))).await;
    assert_eq!(without_side(first.clone()), without_side(same));
    assert_eq!(first["total"], "4.72");
    let order = |rest: &str| format!("/orders/{id}{rest}");
    let post = Method::POST;
    let story = [
        (post.clone(), "/orders".into(), Some(place(json!([]))), 400),
        (post.clone(), "/orders".into(), Some(place(json!([{"product": 1, "qty": 0}]))), 400),
        (post.clone(), "/orders".into(), Some(place(json!([{"product": 1, "qty": 999}]))), 409),
        (post.clone(), "/orders".into(), Some(place(json!([{"product": 999, "qty": 1}]))), 409),
        (
            post.clone(),
            "/orders".into(),
            Some(json!({"customer": 999, "items": [{"product": 1, "qty": 1}]})),
            404,
        ),
        (post.clone(), "/orders".into(), Some(json!({"surprise": 1})), 400),
        (Method::PUT, order(""), Some(json!({"note": null})), 200),
        (Method::PUT, order(""), Some(json!({"note": "late", "version": 1})), 409),
        (Method::PUT, order(""), Some(json!({"note": "in time", "version": 2})), 200),
        (post.clone(), order("/pay"), Some(json!({"amount": "1.005", "method": "card"})), 400),
        (post.clone(), order("/pay"), Some(json!({"amount": "0.00", "method": "card"})), 400),
        (post.clone(), order("/pay"), Some(json!({"amount": "4.70", "method": "card"})), 200),
        (post.clone(), order("/pay"), Some(json!({"amount": "0.03", "method": "card"})), 409),
        (post.clone(), order("/cancel"), None, 409),
        (Method::DELETE, order(""), None, 409),
        (Method::GET, order(""), None, 200),
        (
            post.clone(),
            "/orders".into(),
            Some(place(json!([{"product": 2, "qty": 1}, {"product": 3, "qty": 4}]))),
            201,
        ),
        (post.clone(), format!("/orders/{}/cancel", id + 1), None, 200),
        (
            post.clone(),
            format!("/orders/{}/pay", id + 1),
            Some(json!({"amount": "0.01", "method": "cash"})),
            409,
        ),
        (Method::DELETE, format!("/orders/{}", id + 1), None, 200),
        (Method::GET, format!("/orders/{}", id + 1), None, 404),
        (Method::DELETE, format!("/orders/{}", id + 1), None, 404),
        (Method::PATCH, order(""), None, 404),
    ];
    for (method, path, body, expected) in story {
        let (here, a) = ask(&house.monolith, method.clone(), &path, body.as_ref()).await;
        let (there, b) = ask(&house.orders, method.clone(), &path, body.as_ref()).await;
        assert_eq!(here.as_u16(), expected, "{method} {path} {body:?}: {a}");
        assert_eq!((here, without_side(a)), (there, without_side(b)), "{method} {path} {body:?}");
    }
    let (_, order) = ask(&house.orders, Method::GET, &order(""), None).await;
    assert_eq!((&order["version"], &order["paid"]), (&json!(4), &json!("4.70")));
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_orders_never_exceed_the_credit_limit() {
    let house = House::build(SEED).await;
    house.copy().await;
    let monolith = (&house.monolith, &house.monolith_url, "status");
    for (base, url, state) in [monolith, (&house.orders, &house.orders_url, "state")] {
        // The open orders of the seed alone would use up the credit.
        let settle = format!("update orders set {state} = 'cancelled' where customer_id = 49");
        house.sql(url, &settle).await;
        house.sql(url, "update customers set credit_limit = 10 where id = 49").await;
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
