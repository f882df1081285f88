//! The monolith's books: the credit that open orders use, and the pieces that are set aside for them.
//!
//! Every entry is part of the caller's transaction. Rows are locked in one order everywhere: the customer, then
//! products by number. The books do not know where an order itself is kept.

use std::collections::BTreeMap;

use deadpool_postgres::Transaction;

use super::deal::{Deal, What};
use super::money::Cents;
use super::order::Line;
use super::refusal::Refusal;

/// Enters what a change of an order means.
///
/// # Errors
/// [`Refusal::Business`] `credit` or `stock`, [`Refusal::Absent`] for an unknown customer.
pub async fn enter(tx: &Transaction<'_>, deal: &Deal) -> Result<(), Refusal> {
    match &deal.what {
        What::Place { customer, total, pieces } => {
            reserve_credit(tx, deal.order, *customer, *total).await?;
            reserve_stock(tx, deal.order, pieces).await
        }
        What::Pay { amount } => pay_credit(tx, deal.order, *amount).await,
        What::Cancel => {
            release_stock(tx, &[deal.order]).await?;
            release_credit(tx, &[deal.order]).await
        }
    }
}

/// Sets credit aside for an order.
pub async fn reserve_credit(
    tx: &Transaction<'_>,
    order: i64,
    customer: i64,
    amount: Cents,
) -> Result<(), Refusal> {
    // Two orders of one customer must not both use the same credit.
    let sql = "select (credit_limit * 100)::bigint from customers where id = $1 for no key update";
    let Some(row) = tx.query_opt(&tx.prepare_cached(sql).await?, &[&customer]).await? else {
        return Err(Refusal::Absent { what: "customer", id: customer.to_string() });
    };
    let limit = Cents(row.try_get(0)?);
    // A second statement on purpose: it sees commits from while the first waited for the lock.
    let sql = "select coalesce(sum(cents), 0)::bigint from credit_held where customer_id = $1";
    let used: i64 = tx.query_one(&tx.prepare_cached(sql).await?, &[&customer]).await?.try_get(0)?;
    if used + amount.0 > limit.0 {
        let message =
            format!("{amount} more than {} open would exceed the credit limit of {limit}", Cents(used));
        return Err(Refusal::business("credit", message));
    }
    let sql = "insert into credit_held (order_id, customer_id, cents) values ($1, $2, $3)";
    tx.execute(&tx.prepare_cached(sql).await?, &[&order, &customer, &amount.0]).await?;
    Ok(())
}

/// Takes the pieces of an order off the stock.
pub async fn reserve_stock(tx: &Transaction<'_>, order: i64, pieces: &[Line]) -> Result<(), Refusal> {
    let mut wanted: BTreeMap<i64, i32> = BTreeMap::new();
    for line in pieces {
        let qty = wanted.entry(line.product).or_default();
        *qty = qty.saturating_add(line.qty);
    }
    let products: Vec<i64> = wanted.keys().copied().collect();
    let quantities: Vec<i32> = wanted.values().copied().collect();
    let sql = "select id, stock from products where id = any($1) order by id for no key update";
    let mut stock: BTreeMap<i64, i32> = BTreeMap::new();
    for row in &tx.query(&tx.prepare_cached(sql).await?, &[&products]).await? {
        stock.insert(row.try_get(0)?, row.try_get(1)?);
    }
    for (product, qty) in &wanted {
        match stock.get(product) {
            None => return Err(Refusal::business("product", format!("there is no product {product}"))),
            Some(stock) if stock < qty => {
                let message = format!("{qty} of product {product} were ordered, but {stock} are in stock");
                return Err(Refusal::business("stock", message));
            }
            Some(_) => {}
        }
    }
    let sql = "update products p set stock = p.stock - l.qty \
               from unnest($1::bigint[], $2::int[]) as l (product, qty) where p.id = l.product";
    tx.execute(&tx.prepare_cached(sql).await?, &[&products, &quantities]).await?;
    let sql = "insert into stock_held (order_id, product_id, qty) \
               select $1, l.product, l.qty from unnest($2::bigint[], $3::int[]) as l (product, qty)";
    tx.execute(&tx.prepare_cached(sql).await?, &[&order, &products, &quantities]).await?;
    Ok(())
}

/// Puts the pieces of these orders back into the stock, if any are set aside.
pub async fn release_stock(tx: &Transaction<'_>, orders: &[i64]) -> Result<(), Refusal> {
    let sql = "select id from products \
               where id in (select product_id from stock_held where order_id = any($1)) \
               order by id for no key update";
    tx.execute(&tx.prepare_cached(sql).await?, &[&orders]).await?;
    let sql = "with back as (delete from stock_held where order_id = any($1) returning product_id, qty), \
                    sums as (select product_id, sum(qty)::int as qty from back group by product_id) \
               update products p set stock = p.stock + s.qty from sums s where p.id = s.product_id";
    tx.execute(&tx.prepare_cached(sql).await?, &[&orders]).await?;
    Ok(())
}

/// The pieces of these orders have left the house.
pub async fn ship_stock(tx: &Transaction<'_>, orders: &[i64]) -> Result<(), Refusal> {
    let sql = "delete from stock_held where order_id = any($1)";
    tx.execute(&tx.prepare_cached(sql).await?, &[&orders]).await?;
    Ok(())
}

/// These orders use no credit any more.
pub async fn release_credit(tx: &Transaction<'_>, orders: &[i64]) -> Result<(), Refusal> {
    let sql = "delete from credit_held where order_id = any($1)";
    tx.execute(&tx.prepare_cached(sql).await?, &[&orders]).await?;
    Ok(())
}

/// An order that uses credit uses so much less. A delivered order uses none, and may still be paid.
pub async fn pay_credit(tx: &Transaction<'_>, order: i64, amount: Cents) -> Result<(), Refusal> {
    let sql = "update credit_held set cents = cents - $2 where order_id = $1";
    tx.execute(&tx.prepare_cached(sql).await?, &[&order, &amount.0]).await?;
    Ok(())
}
