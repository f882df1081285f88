//! One simulated client: chooses a request, sends it, checks the answer against its memory, and writes the ledger.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::rngs::StdRng;
use reqwest::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::deeds::{Choices, Wish, reference};
use super::exchange::{Answer, Line, Outcome};
use super::incidents::Kind;
use super::ledger::{Deed, Entry, Ledger};
use super::memory::{Memory, is_probe};
use super::promise::{Facts, Removal};
use super::report::Tally;
use crate::shop::catalogue::{Customer as Person, Products};
use crate::shop::order::{Change, NewOrder, NewPayment, Order, Orders, Search};

/// The most orders of each kind that a client keeps to choose from.
const CHOICES_MAX: usize = 100;
/// How many orders a client lists.
const LIST: usize = 10;

/// What all clients of a run share.
pub struct Common {
    pub customers: Vec<i64>,
    pub products: Vec<i64>,
    pub ledger: Mutex<Ledger>,
    pub tally: Arc<Tally>,
}

impl Common {
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub struct Customer {
    number: u32,
    line: Line,
    dice: StdRng,
    memory: Memory,
    own: Vec<Order>,
    met: Vec<Order>,
    just_written: Option<i64>,
    common: Arc<Common>,
}

impl Customer {
    #[must_use]
    pub fn new(number: u32, line: Line, dice: StdRng, common: Arc<Common>) -> Self {
        let (own, met) = (Vec::new(), Vec::new());
        Self { number, line, dice, memory: Memory::default(), own, met, just_written: None, common }
    }

    pub async fn act(&mut self) -> anyhow::Result<()> {
        let choices = Choices {
            customers: &self.common.customers,
            products: &self.common.products,
            own: &self.own,
            met: &self.met,
            just_written: self.just_written.take(),
        };
        match choices.choose(&mut self.dice) {
            Wish::Show(order) => self.show(order).await,
            Wish::ShowOld(order) => self.show_old(order).await,
            Wish::List(customer) => self.list(customer).await,
            Wish::Search { order, customer, text } => self.search(order, customer, text).await,
            Wish::Products => {
                let answer = self.get("/products").await;
                self.parse::<Products>("GET /products", answer);
                Ok(())
            }
            Wish::Customer(id) => {
                let path = format!("/customers/{id}");
                let answer = self.get(&path).await;
                self.parse::<Person>(&path, answer);
                Ok(())
            }
            Wish::Place { customer, items } => {
                let reference = format!("ref:{}", Uuid::new_v4());
                let body = NewOrder { customer, items, note: Some(reference.clone()) };
                self.write(Deed::Place, None, Some(reference), Method::POST, "/orders", Some(&body)).await
            }
            Wish::Change { seen, careful } => self.change(&seen, careful).await,
            Wish::Pay { order, amount } => {
                let reference = format!("card ref:{}", Uuid::new_v4());
                let body = NewPayment { amount, method: reference.clone() };
                let path = format!("/orders/{order}/pay");
                self.write(Deed::Pay, Some(order), Some(reference), Method::POST, &path, Some(&body)).await
            }
            Wish::Cancel(order) => {
                let path = format!("/orders/{order}/cancel");
                self.write(Deed::Cancel, Some(order), None, Method::POST, &path, None::<&()>).await
            }
            Wish::Remove(order) => {
                let path = format!("/orders/{order}");
                self.write(Deed::Remove, Some(order), None, Method::DELETE, &path, None::<&()>).await
            }
        }
    }

    async fn show(&mut self, id: i64) -> anyhow::Result<()> {
        let path = format!("/orders/{id}");
        match self.get(&path).await {
            Some(answer) if answer.status == StatusCode::NOT_FOUND => self.missed(id),
            answer => {
                if let Some(order) = self.parse::<Order>(&path, answer) {
                    if order.id != id {
                        self.wrong(&format!("GET {path} answered with order {}", order.id));
                    }
                    self.saw(&order)?;
                }
            }
        }
        Ok(())
    }

    async fn show_old(&mut self, id: i64) -> anyhow::Result<()> {
        let path = format!("/old-orders/{id}");
        let Some(answer) = self.get(&path).await else { return Ok(()) };
        let expected = format!("{}/orders/{id}", self.line.base());
        if answer.status != StatusCode::FOUND || answer.location.as_deref() != Some(&expected) {
            let Answer { status, location, .. } = answer;
            self.wrong(&format!("GET {path} answered {status} to {location:?}, not to {expected}"));
            return Ok(());
        }
        self.show(id).await
    }

    async fn list(&mut self, customer: Option<i64>) -> anyhow::Result<()> {
        let path = match customer {
            Some(customer) => format!("/orders?customer={customer}&limit={LIST}"),
            None => format!("/orders?limit={LIST}"),
        };
        let answer = self.get(&path).await;
        let Some(list) = self.parse::<Orders>(&path, answer) else { return Ok(()) };
        let found = {
            let ledger = self.common.ledger();
            let excused = |id| ledger.removal(id) != Removal::None;
            self.memory.listed(customer, LIST, &list.orders, excused)
        };
        if let Some(found) = found {
            self.wrong(&format!("{found} (GET {path}, from {})", list.served_by));
        }
        for order in &list.orders {
            self.promised(order)?;
            self.meet(order);
        }
        Ok(())
    }

    async fn search(&mut self, id: i64, customer: i64, text: String) -> anyhow::Result<()> {
        let body = Search { customer: Some(customer), text: Some(text.clone()), status: None };
        let answer = self.read(Method::POST, "/orders/search", Some(&body)).await;
        let Some(found) = self.parse::<Orders>("POST /orders/search", answer) else { return Ok(()) };
        if found.orders.iter().all(|order| order.id != id) {
            self.missed(id);
        }
        for order in &found.orders {
            if order.id != id {
                self.wrong(&format!("searching {text} found order {} beside {id}", order.id));
            }
            self.saw(order)?;
        }
        Ok(())
    }

    async fn change(&mut self, seen: &Order, careful: bool) -> anyhow::Result<()> {
        let remark = format!("changed by client {} after version {}", self.number, seen.version);
        let note = match reference(seen.note.as_deref()) {
            Some(reference) => format!("{reference} {remark}"),
            None => remark,
        };
        let body = Change { note: Some(note), version: careful.then_some(seen.version) };
        let path = format!("/orders/{}", seen.id);
        self.write(Deed::Change, Some(seen.id), None, Method::PUT, &path, Some(&body)).await
    }

    /// Sends a write, with a line in the ledger before and after it.
    async fn write(
        &mut self,
        deed: Deed,
        order: Option<i64>,
        reference: Option<String>,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> anyhow::Result<()> {
        let client = self.number;
        self.enter(&Entry::Begun { client, deed, order, reference: reference.clone() })?;
        let what = format!("{method} {path}");
        let answer = match self.line.send(method, path, body).await {
            Outcome::Failed(why) => {
                return self.enter(&Entry::Unknown { client, deed, order, reference, why });
            }
            Outcome::Deferred(why) => {
                self.line.incident(Kind::PutOff, why.clone());
                return self.enter(&Entry::Unknown { client, deed, order, reference, why });
            }
            Outcome::Answer(answer) => answer,
        };
        match (answer.status, order) {
            (StatusCode::CONFLICT, _) => self.common.tally.refused(),
            (StatusCode::NOT_FOUND, Some(order)) => self.missed(order),
            (StatusCode::OK, Some(order)) if deed == Deed::Remove => {
                self.memory.removed(order);
                self.forget(order);
                self.enter(&Entry::Removed { client, order, served_by: answer.served_by })?;
                // Often the next request reads the order, which must be gone.
                self.just_written = Some(order);
            }
            (StatusCode::OK | StatusCode::CREATED, _) => self.acknowledged(deed, &what, answer)?,
            (StatusCode::ACCEPTED, None) if deed == Deed::Place => {
                self.common.tally.pending();
                self.acknowledged(deed, &what, answer)?;
            }
            (status, _) => self.wrong(&format!("{what} answered {status}")),
        }
        Ok(())
    }

    fn acknowledged(&mut self, deed: Deed, what: &str, answer: Answer) -> anyhow::Result<()> {
        let (location, served_by) = (answer.location.clone(), answer.served_by.clone());
        let Some(order) = self.parse::<Order>(what, Some(answer)) else { return Ok(()) };
        let expected = format!("{}/orders/{}", self.line.base(), order.id);
        if deed == Deed::Place && location.as_deref() != Some(&expected) {
            self.wrong(&format!("{what} points to {location:?}, not to {expected}"));
        }
        if let Some(wrong) = self.memory.saw(&order, true) {
            self.wrong(&format!("{wrong} ({what})"));
        }
        self.enter(&Entry::Kept { client: self.number, deed, facts: Facts::from(&order), served_by })?;
        self.just_written = Some(order.id);
        if deed == Deed::Place {
            keep(&mut self.own, &order);
        }
        self.meet(&order);
        Ok(())
    }

    /// A read told this order.
    fn saw(&mut self, order: &Order) -> anyhow::Result<()> {
        if let Some(wrong) = self.memory.saw(order, false) {
            self.wrong(&wrong);
        }
        self.meet(order);
        self.promised(order)
    }

    fn promised(&self, order: &Order) -> anyhow::Result<()> {
        let facts = Facts::from(order);
        if is_probe(order) || !self.common.ledger().is_news(&facts) {
            return Ok(());
        }
        self.enter(&Entry::Seen { facts })
    }

    fn missed(&mut self, id: i64) {
        let excused = self.common.ledger().removal(id) != Removal::None;
        match self.memory.missed(id, excused) {
            Some(wrong) => self.wrong(&wrong),
            None => self.forget(id),
        }
    }

    fn meet(&mut self, order: &Order) {
        if is_probe(order) {
            return;
        }
        if let Some(own) = self.own.iter_mut().find(|own| own.id == order.id) {
            own.clone_from(order);
        }
        keep(&mut self.met, order);
    }

    fn forget(&mut self, id: i64) {
        self.own.retain(|order| order.id != id);
        self.met.retain(|order| order.id != id);
    }

    async fn get(&mut self, path: &str) -> Option<Answer> {
        self.read(Method::GET, path, None::<&()>).await
    }

    /// Sends a read. Nothing may put it off.
    async fn read(&mut self, method: Method, path: &str, body: Option<&impl Serialize>) -> Option<Answer> {
        match self.line.send(method, path, body).await {
            Outcome::Answer(answer) => Some(answer),
            Outcome::Deferred(why) => {
                self.line.fail(why);
                None
            }
            Outcome::Failed(_) => None,
        }
    }

    fn parse<T: DeserializeOwned>(&self, what: &str, answer: Option<Answer>) -> Option<T> {
        let answer = answer?;
        if !answer.status.is_success() {
            self.wrong(&format!("{what} answered {}", answer.status));
            return None;
        }
        serde_json::from_slice(&answer.body)
            .inspect_err(|error| self.wrong(&format!("{what} is malformed: {error}")))
            .ok()
    }

    fn enter(&self, entry: &Entry) -> anyhow::Result<()> {
        let contradiction = self.common.ledger().enter(entry)?;
        if let Some(contradiction) = contradiction {
            self.wrong(&contradiction);
        }
        Ok(())
    }

    fn wrong(&self, what: &str) {
        self.line.incident(Kind::Wrong, format!("client {}: {what}", self.number));
    }
}

/// Keeps the newest state of an order, and drops the oldest order beyond the limit.
fn keep(orders: &mut Vec<Order>, order: &Order) {
    orders.retain(|kept| kept.id != order.id);
    if orders.len() >= CHOICES_MAX {
        orders.remove(0);
    }
    orders.push(order.clone());
}
