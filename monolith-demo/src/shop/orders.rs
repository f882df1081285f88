//! Orders in the database: each read is one statement, each write one transaction.
//!
//! Knows neither HTTP nor a schema. The statements come from [`Side`](super::side::Side), the rules from
//! [`super::order`]. What a write means for credit and stock is a [`Deal`]. Where the books are at hand, it is entered
//! in the same transaction. Elsewhere it is a saga, which begins in the same transaction and is pursued after it.

use std::collections::BTreeMap;

use deadpool_postgres::Transaction;
use tokio_postgres::Row;
use tokio_postgres::types::{Json, ToSql};

use super::deal::{Deal, What};
use super::money::Cents;
use super::order::{
    Change, Item, Line, Locked, NewOrder, NewPayment, Order, Orders, Payment, Search, Status, check_note,
};
use super::refusal::Refusal;
use super::saga::Saga;
use super::saga::driver::Standing;
use super::{Books, Shop, books};

pub const LIST_MAX: i64 = 100;

impl Shop {
    /// One order with its items and payments.
    ///
    /// # Errors
    /// [`Refusal::Absent`] when there is none.
    pub async fn show(&self, id: i64) -> Result<Order, Refusal> {
        let db = self.pool.get().await?;
        let sql = format!("{} where o.id = $1", self.side.order);
        let row = db.query_opt(&db.prepare_cached(&sql).await?, &[&id]).await?;
        row.map_or_else(|| Err(Refusal::no_order(id)), |row| self.read(&row))
    }

    pub async fn search(&self, wish: &Search, limit: i64) -> Result<Orders, Refusal> {
        // Only the requested conditions, so that each shape gets its own query plan and index.
        let limit = limit.clamp(1, LIST_MAX);
        let status = wish.status.map(Status::as_str);
        let mut sql = format!("{} where true", self.side.order);
        let mut params: Vec<&(dyn ToSql + Sync)> = vec![&limit];
        if let Some(customer) = &wish.customer {
            params.push(customer);
            sql += &format!(" and o.customer_id = ${}", params.len());
        }
        if let Some(status) = &status {
            params.push(status);
            sql += &format!(" and o.{} = ${}::text::order_status", self.side.status, params.len());
        }
        if let Some(text) = &wish.text {
            params.push(text);
            sql += &format!(" and strpos(lower(o.note), lower(${}::text)) > 0", params.len());
        }
        sql += " order by o.id desc limit $1";
        let db = self.pool.get().await?;
        let rows = db.query(&db.prepare_cached(&sql).await?, &params).await?;
        let orders = rows.iter().map(|row| self.read(row)).collect::<Result<_, _>>()?;
        Ok(Orders { orders, served_by: self.name().into() })
    }

    /// Takes an order, if the customer's credit and the stock allow it. Where the books are elsewhere and do not answer
    /// in time, the order is pending.
    ///
    /// # Errors
    /// [`Refusal::Malformed`], [`Refusal::Absent`] for an unknown customer, [`Refusal::Business`] `credit`,
    /// `stock` or `product`.
    pub async fn place(&self, wish: &NewOrder) -> Result<Order, Refusal> {
        wish.check()?;
        let mut db = self.pool.get().await?;
        let tx = db.transaction().await?;
        let sql = "select from customers where id = $1";
        if tx.query_opt(&tx.prepare_cached(sql).await?, &[&wish.customer]).await?.is_none() {
            return Err(Refusal::Absent { what: "customer", id: wish.customer.to_string() });
        }
        let prices = prices(&tx, &wish.items).await?;
        let total = total(&wish.items, &prices)?;
        let (status, version) = match self.books {
            Books::Here => (Status::Placed, 1),
            Books::Elsewhere(_) => (Status::Pending, 0),
        };
        let order: [&(dyn ToSql + Sync); 5] =
            [&wish.customer, &wish.note, &total.0, &status.as_str(), &version];
        let id: i64 = query_one(&tx, self.side.insert_order, &order).await?.try_get(0)?;
        let products: Vec<i64> = wish.items.iter().map(|line| line.product).collect();
        let quantities: Vec<i32> = wish.items.iter().map(|line| line.qty).collect();
        let cents: Vec<i64> = prices.iter().map(|price| price.0).collect();
        execute(&tx, self.side.insert_items, &[&id, &products, &quantities, &cents]).await?;
        let what = What::Place { customer: wish.customer, total, pieces: wish.items.clone() };
        let saga = self.enter(&tx, Deal { order: id, what }).await?;
        let order = self.answer_and_commit(tx, id).await?;
        drop(db);
        match self.pursue(saga).await {
            None | Some(Standing::UnderWay) => Ok(order),
            Some(Standing::Done) => self.show(id).await,
            Some(Standing::Refused(reason)) => Err(reason.into()),
        }
    }

    /// Changes the note.
    ///
    /// # Errors
    /// [`Refusal::Absent`], [`Refusal::Business`] `version`.
    pub async fn change(&self, id: i64, change: &Change) -> Result<Order, Refusal> {
        check_note(change.note.as_deref())?;
        let mut db = self.pool.get().await?;
        let tx = db.transaction().await?;
        self.lock(&tx, id).await?.may_change(change.version)?;
        let sql = "update orders set note = $2, version = version + 1 where id = $1";
        execute(&tx, sql, &[&id, &change.note]).await?;
        self.answer_and_commit(tx, id).await
    }

    /// Books a payment.
    ///
    /// # Errors
    /// [`Refusal::Absent`], [`Refusal::Business`] `overpaid` or `cancelled`.
    pub async fn pay(&self, id: i64, payment: &NewPayment) -> Result<Order, Refusal> {
        if payment.method.is_empty() || payment.method.len() > 100 || payment.method.contains('\0') {
            return Err(Refusal::Malformed("method: 1 to 100 bytes".into()));
        }
        let mut db = self.pool.get().await?;
        let tx = db.transaction().await?;
        self.lock(&tx, id).await?.may_pay(payment.amount)?;
        execute(&tx, self.side.insert_payment, &[&id, &payment.amount.0, &payment.method]).await?;
        execute(&tx, "update orders set version = version + 1 where id = $1", &[&id]).await?;
        let what = What::Pay { amount: payment.amount };
        let saga = self.enter(&tx, Deal { order: id, what }).await?;
        let order = self.answer_and_commit(tx, id).await?;
        drop(db);
        // The payment is booked, however long the books take.
        self.pursue(saga).await;
        Ok(order)
    }

    /// Calls an order off.
    ///
    /// # Errors
    /// [`Refusal::Absent`], [`Refusal::Business`] `status` or `paid`.
    pub async fn cancel(&self, id: i64) -> Result<Order, Refusal> {
        let mut db = self.pool.get().await?;
        let tx = db.transaction().await?;
        self.lock(&tx, id).await?.may_cancel()?;
        execute(&tx, self.side.cancel, &[&id]).await?;
        let saga = self.enter(&tx, Deal { order: id, what: What::Cancel }).await?;
        let order = self.answer_and_commit(tx, id).await?;
        drop(db);
        self.pursue(saga).await;
        Ok(order)
    }

    /// Deletes a cancelled or refused order. It uses neither credit nor stock any more.
    ///
    /// # Errors
    /// [`Refusal::Absent`], [`Refusal::Business`] `status`.
    pub async fn remove(&self, id: i64) -> Result<(), Refusal> {
        let mut db = self.pool.get().await?;
        let tx = db.transaction().await?;
        self.lock(&tx, id).await?.may_remove()?;
        for sql in self.side.remove {
            execute(&tx, sql, &[&id]).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// Enters a deal into the books. Where they are elsewhere, that is a saga to pursue after the commit.
    async fn enter(&self, tx: &Transaction<'_>, deal: Deal) -> Result<Option<Saga>, Refusal> {
        match &self.books {
            Books::Here => books::enter(tx, &deal).await.map(|()| None),
            Books::Elsewhere(sagas) => sagas.begin(tx, &deal).await.map(Some),
        }
    }

    async fn pursue(&self, saga: Option<Saga>) -> Option<Standing> {
        match (&self.books, saga) {
            (Books::Elsewhere(sagas), Some(saga)) => Some(sagas.pursue(saga).await),
            _ => None,
        }
    }

    async fn lock(&self, tx: &Transaction<'_>, id: i64) -> Result<Locked, Refusal> {
        let row = tx.query_opt(&tx.prepare_cached(self.side.lock).await?, &[&id]).await?;
        let row = row.ok_or_else(|| Refusal::no_order(id))?;
        // A second statement on purpose: it sees commits from while the first waited for the lock.
        let paid = query_one(tx, self.side.paid, &[&id]).await?;
        Ok(Locked {
            version: row.try_get("version")?,
            status: status(&row)?,
            total: Cents(row.try_get("total")?),
            paid: Cents(paid.try_get(0)?),
        })
    }

    async fn answer_and_commit(&self, tx: Transaction<'_>, id: i64) -> Result<Order, Refusal> {
        let sql = format!("{} where o.id = $1", self.side.order);
        let order = self.read(&query_one(&tx, &sql, &[&id]).await?)?;
        tx.commit().await?;
        Ok(order)
    }

    fn read(&self, row: &Row) -> Result<Order, Refusal> {
        read_order(row, self.name())
    }
}

/// Reads one row of a side's order statement.
pub fn read_order(row: &Row, served_by: &str) -> Result<Order, Refusal> {
    let Json(items): Json<Vec<(i64, i64, i32, i64)>> = row.try_get("items")?;
    let Json(payments): Json<Vec<(i64, i64, String, String)>> = row.try_get("payments")?;
    let items = items.into_iter();
    let payments = payments.into_iter();
    let payments: Vec<Payment> = payments
        .map(|(id, cents, method, paid_at)| Payment { id, amount: Cents(cents), method, paid_at })
        .collect();
    Ok(Order {
        id: row.try_get("id")?,
        customer: row.try_get("customer_id")?,
        status: status(row)?,
        note: row.try_get("note")?,
        total: Cents(row.try_get("total")?),
        paid: Cents(payments.iter().map(|payment| payment.amount.0).sum()),
        placed_at: row.try_get("placed_at")?,
        version: row.try_get("version")?,
        items: items
            .map(|(id, product, qty, cents)| Item { id, product, qty, price: Cents(cents) })
            .collect(),
        payments,
        served_by: served_by.into(),
    })
}

/// The price of each line.
///
/// # Errors
/// [`Refusal::Business`] `product` when one is unknown.
async fn prices(tx: &Transaction<'_>, lines: &[Line]) -> Result<Vec<Cents>, Refusal> {
    let ids: Vec<i64> = lines.iter().map(|line| line.product).collect();
    let sql = "select id, (price * 100)::bigint from products where id = any($1)";
    let mut known: BTreeMap<i64, i64> = BTreeMap::new();
    for row in &tx.query(&tx.prepare_cached(sql).await?, &[&ids]).await? {
        known.insert(row.try_get(0)?, row.try_get(1)?);
    }
    let price = |line: &Line| match known.get(&line.product) {
        Some(cents) => Ok(Cents(*cents)),
        None => Err(Refusal::business("product", format!("there is no product {}", line.product))),
    };
    lines.iter().map(price).collect()
}

fn status(row: &Row) -> Result<Status, Refusal> {
    let word: &str = row.try_get("status")?;
    Status::from_word(word).ok_or_else(|| Refusal::Unexpected(format!("status {word}")))
}

fn total(lines: &[Line], prices: &[Cents]) -> Result<Cents, Refusal> {
    let mut total = Some(Cents(0));
    for (line, price) in lines.iter().zip(prices) {
        total = total.zip(price.times(line.qty)).and_then(|(sum, line)| sum.plus(line));
    }
    total.ok_or_else(|| Refusal::business("total", "the total is too large to book"))
}

async fn query_one(
    tx: &Transaction<'_>,
    sql: &str,
    params: &[&(dyn ToSql + Sync)],
) -> Result<Row, tokio_postgres::Error> {
    tx.query_one(&tx.prepare_cached(sql).await?, params).await
}

async fn execute(
    tx: &Transaction<'_>,
    sql: &str,
    params: &[&(dyn ToSql + Sync)],
) -> Result<u64, tokio_postgres::Error> {
    tx.execute(&tx.prepare_cached(sql).await?, params).await
}
