//! The scenes while the service owns the orders: an order that is taken, two that are refused, and a job of the monolith
//! that does not know yet. Each is put to the test by what was answered and by what the databases hold.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::claims::Claims;
use super::probe::{self, Answer};
use super::{Stage, built};
use crate::terminal;
use lab::process;

/// The customer with the highest credit limit: 49 800.50 by the shop's seed.
const CUSTOMER: u32 = 54;
/// A product that costs 2.36, and one that costs 75.99. Of each there are fewer than 500 pieces.
const CHEAP: u32 = 1;
const DEAR: u32 = 200;
/// More pieces than are in stock, and of the dear one more than any credit pays for.
const TOO_MANY: u32 = 1000;
/// Begins the notes of these orders.
const NOTE: &str = "demo:";
const JOB_LIMIT: Duration = Duration::from_secs(30);

/// An order that the service took, to be found again at the monolith.
#[derive(Debug)]
pub struct Taken {
    pub path: String,
}

/// An order through the proxy, as any customer's.
pub fn order(stage: &Stage, claims: &mut Claims) -> Result<Taken> {
    let answer = place(stage, CHEAP, 1, "to be taken")?;
    let is_taken = answer.status == 201 && answer.served_by.as_deref() == Some("orders");
    claims.hold("an order through the proxy was taken by the service", is_taken);
    let id = document(&answer)["id"].as_i64().with_context(|| format!("no order but {}", answer.body))?;
    Ok(Taken { path: format!("/orders/{id}") })
}

/// Orders that credit or stock do not allow. These are still the monolith's, so the service asks for them in a saga.
pub fn refusals(stage: &Stage, claims: &mut Claims) -> Result<()> {
    let answer = place(stage, DEAR, TOO_MANY, "beyond all credit")?;
    let held = is_refused(&answer, "credit") && undone(stage, "beyond all credit")?.is_refused("credit");
    claims.hold("an order over the credit limit was refused by the monolith's books", held);
    let answer = place(stage, CHEAP, TOO_MANY, "beyond the stock")?;
    let undone = undone(stage, "beyond the stock")?;
    let held =
        is_refused(&answer, "stock") && undone.is_refused("stock") && undone.credit_came_back(stage)?;
    claims.hold("an order over the stock was compensated: its credit was reserved, and given back", held);
    Ok(())
}

/// The monolith's nightly job goes straight to its database, where the gate is shut.
pub fn job(stage: &Stage, claims: &mut Claims) -> Result<()> {
    terminal::note("the monolith's nightly job does not know that the orders have moved");
    let mut nightly = Command::new(built("nightly"));
    nightly.args(["--rounds", "1"]).env("MONOLITH_DATABASE_URL", stage.shop.application_urls().0);
    terminal::command(&process::shown(&nightly));
    let (status, out, _) = process::answer(&mut nightly, JOB_LIMIT)?;
    print!("{out}");
    let is_told =
        out.contains("slice orders is owned by service orders") && out.contains("strangler rollback orders");
    claims.hold("the monolith's job was refused at the gate, and told who owns the orders", is_told);
    claims.hold("the job lives on", status.success());
    Ok(())
}

/// Whether the monolith has the order that the service took.
pub fn has_returned(stage: &Stage, taken: &Taken) -> Result<bool> {
    let monolith = stage.shop.monolith_url.trim_start_matches("http://");
    let answer = probe::send(monolith, "GET", &taken.path, None)?;
    Ok(answer.status == 200 && answer.served_by.as_deref() == Some("monolith"))
}

/// Sends an order through the proxy, and shows what was answered.
fn place(stage: &Stage, product: u32, pieces: u32, note: &str) -> Result<Answer> {
    let body = json!({
        "customer": CUSTOMER, "items": [{ "product": product, "qty": pieces }], "note": format!("{NOTE} {note}"),
    });
    let body = body.to_string();
    let answer = probe::send(&stage.strangler.proxy, "POST", "/orders", Some(&body))?;
    println!("\nPOST /orders {body}\n  {} {}", answer.status, answer.body.trim());
    Ok(answer)
}

fn is_refused(answer: &Answer, code: &str) -> bool {
    answer.status == 409 && document(answer)["error"]["code"] == code
}

fn document(answer: &Answer) -> Value {
    serde_json::from_str(&answer.body).unwrap_or_default()
}

/// What the service's database says of an order whose saga has ended.
struct Undone {
    order: String,
    saga: String,
    state: String,
    code: String,
}

fn undone(stage: &Stage, note: &str) -> Result<Undone> {
    let sql = format!(
        "SELECT o.id, s.id, o.state, s.refusal->>'code' FROM orders o JOIN saga s ON s.order_id = o.id \
         WHERE o.note = '{NOTE} {note}' AND s.ended_at IS NOT NULL"
    );
    let row = stage.shop.orders_cluster.psql("orders", &sql)?;
    let fields: Vec<&str> = row.split('|').collect();
    let [order, saga, state, code] = fields[..] else {
        anyhow::bail!("the order {note:?} has no saga that ended, but {row:?}")
    };
    let [order, saga, state, code] = [order, saga, state, code].map(str::to_owned);
    Ok(Undone { order, saga, state, code })
}

impl Undone {
    fn is_refused(&self, code: &str) -> bool {
        self.state == "refused" && self.code == code
    }

    /// Whether the monolith's books reserved credit, released it, and hold nothing any more.
    fn credit_came_back(&self, stage: &Stage) -> Result<bool> {
        let Undone { order, saga, .. } = self;
        let sql = format!(
            "SELECT (SELECT count(*) FROM calls WHERE answer = '\"done\"' \
                       AND key IN ('{saga}/reserve_credit', '{saga}/release_credit')), \
                    (SELECT count(*) FROM credit_held WHERE order_id = {order}), \
                    (SELECT count(*) FROM stock_held WHERE order_id = {order})"
        );
        Ok(stage.shop.monolith_cluster.psql("shop", &sql)? == "2|0|0")
    }
}
