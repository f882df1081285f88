//! Proves from the databases that nothing is lost or doubled, that both sides are equal row by row, and that the books of
//! credit and stock are right.
//!
//! Each side is read in one snapshot, ordered by id, a page at a time, so that a million rows need little memory. The
//! shop may keep running: rows that differ are read again on both sides until each was equal once, or the time is over.
//! A row that is really different stays different.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio_postgres::{Client, Portal, Row, Transaction};

use super::books;
use super::ledger::Ledger;
use super::promise::Facts;
use super::report::{Proof, keep_sample};
use super::tables::{MONOLITH_OPEN, Mapped, ORDERS_OPEN, TABLES};
use crate::shop::database::connect;
use crate::shop::orders::read_order;
use crate::shop::side::Side;

const PAGE: i32 = 5000;
/// The most suspects that are read again one by one. With more, the other side is simply far behind.
const SUSPECTS_MAX: usize = 100_000;
const KEYS: usize = 1000;
/// The pause between two reads of the suspects.
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Clone, Debug)]
pub struct Databases {
    pub monolith: String,
    /// Without it only the promises are proven.
    pub orders: Option<String>,
    /// How long all sagas may take to end, the two sides to become equal, and the books to become right.
    pub patience: Duration,
}

/// A row, by table and id, that was not the same on both sides.
type Suspects = BTreeSet<(usize, i64)>;

pub async fn prove(databases: &Databases, ledger: &Ledger) -> anyhow::Result<Proof> {
    let deadline = Instant::now() + databases.patience;
    let mut monolith = connect(&databases.monolith, "shop-proof").await.context("the monolith's database")?;
    let mut proof = Proof { unknown: ledger.unknown(), ..Proof::default() };
    let mut doubled = BTreeSet::new();
    let orders = match &databases.orders {
        None => None,
        Some(url) => {
            let mut orders = connect(url, "shop-proof").await.context("the service's database")?;
            books::find_open_sagas(&mut proof, &orders, deadline).await?;
            // This waits for the other side.
            find_differences(&mut proof, &mut monolith, &mut orders, databases.patience).await?;
            find_doubled(&mut proof, &mut doubled, &orders).await?;
            Some(orders)
        }
    };
    find_doubled(&mut proof, &mut doubled, &monolith).await?;
    let (side, owner, open) = match &orders {
        Some(orders) if ledger.owner() == Some(Side::orders().name) => (Side::orders(), orders, &ORDERS_OPEN),
        _ => (Side::monolith(), &monolith, &MONOLITH_OPEN),
    };
    side.name.clone_into(&mut proof.owner);
    let deadline = Instant::now() + databases.patience;
    books::compare(&mut proof, &monolith, (owner, open), deadline).await?;
    find_lost(&mut proof, owner, &side, ledger).await?;
    Ok(proof)
}

async fn find_lost(proof: &mut Proof, owner: &Client, side: &Side, ledger: &Ledger) -> anyhow::Result<()> {
    let sql = format!("{} where o.id = any($1)", side.order);
    let statement =
        owner.prepare(&sql).await.with_context(|| format!("could not read the orders of {}", side.name))?;
    let promises: Vec<_> = ledger.promises().iter().collect();
    for some in promises.chunks(KEYS) {
        let ids: Vec<i64> = some.iter().map(|(id, _)| **id).collect();
        let mut found = std::collections::BTreeMap::new();
        for row in &owner.query(&statement, &[&ids]).await? {
            let order = read_order(row, side.name)?;
            found.insert(order.id, Facts::from(&order));
        }
        for (id, promise) in some {
            proof.promises += 1;
            if let Some(lost) = promise.broken_by(found.get(*id)) {
                proof.lost += 1;
                keep_sample(&mut proof.proof_samples, || format!("lost: order {id}: {lost}"));
            }
        }
    }
    Ok(())
}

/// A reference that is doubled on both sides counts once.
async fn find_doubled(
    proof: &mut Proof,
    doubled: &mut BTreeSet<String>,
    side: &Client,
) -> anyhow::Result<()> {
    let statements = [
        "select substring(note from '^ref:[0-9a-f-]{36}') as ref, count(*) from orders \
          where note like 'ref:%' group by 1 having count(*) > 1",
        "select method as ref, count(*) from payments where method like 'card ref:%' \
          group by 1 having count(*) > 1",
    ];
    for sql in statements {
        for row in side.query(sql, &[]).await.context("could not count references")? {
            let reference: Option<String> = row.try_get(0)?;
            let count: i64 = row.try_get(1)?;
            let reference = reference.unwrap_or_else(|| "an unreadable reference".into());
            if doubled.insert(reference.clone()) {
                keep_sample(&mut proof.proof_samples, || format!("doubled: {reference} × {count}"));
            }
        }
    }
    proof.doubled = doubled.len() as u64;
    Ok(())
}

async fn find_differences(
    proof: &mut Proof,
    monolith: &mut Client,
    orders: &mut Client,
    patience: Duration,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + patience;
    let (mut suspects, mut count) = compare_all(proof, monolith, orders).await?;
    while count as usize > suspects.len() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_secs(1)).await;
        (suspects, count) = compare_all(proof, monolith, orders).await?;
    }
    let beyond = count - suspects.len() as u64;
    loop {
        suspects = compare_again(&suspects, monolith, orders).await?;
        if suspects.is_empty() || Instant::now() >= deadline {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    for (table, id) in suspects.iter().take(super::report::SAMPLES_MAX) {
        let Some(table) = TABLES.get(*table) else { continue };
        let here = some_rows(monolith, table.monolith, &[*id]).await?.pop().map(|(_, row)| row);
        let there = some_rows(orders, table.orders, &[*id]).await?.pop().map(|(_, row)| row);
        let side = |row: Option<String>| row.unwrap_or_else(|| "absent".into());
        let (here, there) = (side(here), side(there));
        keep_sample(&mut proof.proof_samples, || {
            format!("differs: {} {id}: monolith {here}, orders {there}", table.name)
        });
    }
    proof.differences = Some(beyond + suspects.len() as u64);
    Ok(())
}

/// Compares all tables once. Returns the first suspects, and how many there are in all.
async fn compare_all(
    proof: &mut Proof,
    monolith: &mut Client,
    orders: &mut Client,
) -> anyhow::Result<(Suspects, u64)> {
    let here = snapshot(monolith).await?;
    let there = snapshot(orders).await?;
    let (mut suspects, mut count) = (Suspects::new(), 0);
    proof.rows = 0;
    for (index, table) in TABLES.iter().enumerate() {
        let mut left = Pages::open(&here, table.monolith).await.with_context(|| name(table, "monolith"))?;
        let mut right = Pages::open(&there, table.orders).await.with_context(|| name(table, "orders"))?;
        let (mut a, mut b) = (left.next().await?, right.next().await?);
        loop {
            let (differs, step_left, step_right) = match (&a, &b) {
                (None, None) => break,
                (Some(x), Some(y)) if x.0 == y.0 => ((x.1 != y.1).then_some(x.0), true, true),
                (Some(x), Some(y)) if x.0 < y.0 => (Some(x.0), true, false),
                (Some(x), None) => (Some(x.0), true, false),
                (_, Some(y)) => (Some(y.0), false, true),
            };
            if let Some(id) = differs {
                count += 1;
                if suspects.len() < SUSPECTS_MAX {
                    suspects.insert((index, id));
                }
            }
            if step_left {
                proof.rows += 1;
                a = left.next().await?;
            }
            if step_right {
                b = right.next().await?;
            }
        }
    }
    Ok((suspects, count))
}

/// Reads suspects again on both sides, and returns those that still differ.
async fn compare_again(suspects: &Suspects, monolith: &Client, orders: &Client) -> anyhow::Result<Suspects> {
    let mut remaining = Suspects::new();
    for (index, table) in TABLES.iter().enumerate() {
        let ids: Vec<i64> =
            suspects.range((index, i64::MIN)..=(index, i64::MAX)).map(|(_, id)| *id).collect();
        for ids in ids.chunks(KEYS) {
            let here: BTreeSet<_> = some_rows(monolith, table.monolith, ids).await?.into_iter().collect();
            let there: BTreeSet<_> = some_rows(orders, table.orders, ids).await?.into_iter().collect();
            remaining.extend(here.symmetric_difference(&there).map(|(id, _)| (index, *id)));
        }
    }
    Ok(remaining)
}

async fn some_rows(side: &Client, select: &str, ids: &[i64]) -> anyhow::Result<Vec<(i64, String)>> {
    let rows = side.query(&format!("{select} where id = any($1)"), &[&ids]).await?;
    rows.iter().map(id_and_row).collect()
}

async fn snapshot(side: &mut Client) -> anyhow::Result<Transaction<'_>> {
    let snapshot = side
        .build_transaction()
        .isolation_level(tokio_postgres::IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await?;
    Ok(snapshot)
}

fn name(table: &Mapped, side: &str) -> String {
    format!("could not read table {} of {side}", table.name)
}

fn id_and_row(row: &Row) -> anyhow::Result<(i64, String)> {
    Ok((row.try_get(0)?, row.try_get(1)?))
}

/// The rows of one table ordered by id, a page at a time.
struct Pages<'a> {
    tx: &'a Transaction<'a>,
    portal: Portal,
    page: std::vec::IntoIter<Row>,
    more: bool,
}

impl<'a> Pages<'a> {
    async fn open(tx: &'a Transaction<'a>, select: &str) -> anyhow::Result<Self> {
        let statement = tx.prepare(&format!("{select} order by id")).await?;
        let portal = tx.bind(&statement, &[]).await?;
        Ok(Self { tx, portal, page: Vec::new().into_iter(), more: true })
    }

    async fn next(&mut self) -> anyhow::Result<Option<(i64, String)>> {
        if self.page.len() == 0 && self.more {
            let rows = self.tx.query_portal(&self.portal, PAGE).await?;
            self.more = rows.len() == PAGE as usize;
            self.page = rows.into_iter();
        }
        self.page.next().as_ref().map(id_and_row).transpose()
    }
}
