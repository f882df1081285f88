//! Measures how long a commit in the monolith takes to become visible in the service's database.
//!
//! It writes to an order of its own, and removes the order afterwards.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::Serialize;
use tokio_postgres::Client;

use super::memory::PROBE;
use crate::shop::database::connect;

/// Longest wait for one commit.
const PATIENCE: Duration = Duration::from_secs(30);
/// The pause between two reads. It limits both the error of a sample and the load.
const LOOK: Duration = Duration::from_micros(200);
/// The pause between two samples, so that each meets the stream at its usual load.
const PAUSE: Duration = Duration::from_millis(20);

#[derive(Clone, Copy, Debug, Serialize)]
pub struct Lag {
    pub lag_ms_p50: f64,
    /// All but one in a hundred were.
    pub lag_ms_p99: f64,
    pub samples: usize,
}

pub async fn measure(monolith: &str, orders: &str, samples: usize) -> anyhow::Result<Lag> {
    anyhow::ensure!(samples > 0, "nothing to measure: set --samples to at least 1");
    let source = connect(monolith, "shop-lag").await.context("the monolith's database")?;
    let sink = connect(orders, "shop-lag").await.context("the service's database")?;
    // Delivered, so that the warehouse ignores it. Without items a total of 0 is correct.
    let sql = "insert into orders (customer_id, status, note, total) \
               select min(id), 'delivered', $1, 0 from customers having count(*) > 0 returning id";
    let row = source.query_opt(sql, &[&PROBE]).await?;
    let id: i64 = row.context("the shop has no customer: start the monolith with --migrate")?.try_get(0)?;
    let measured = sample(&source, &sink, id, samples).await;
    let removed = source.execute("delete from orders where id = $1", &[&id]).await;
    let mut millis = measured?;
    removed.with_context(|| format!("could not remove order {id}: delete it by hand"))?;
    wait_for(&sink, id, None).await?;
    millis.sort_by(f64::total_cmp);
    let quantile = |part: f64| {
        let rank = ((millis.len() as f64 * part).ceil() as usize).clamp(1, millis.len());
        millis.get(rank - 1).map_or(0.0, |millis| (millis * 100.0).round() / 100.0)
    };
    Ok(Lag { lag_ms_p50: quantile(0.5), lag_ms_p99: quantile(0.99), samples })
}

async fn sample(source: &Client, sink: &Client, id: i64, samples: usize) -> anyhow::Result<Vec<f64>> {
    let sql = "update orders set note = $2, version = version + 1 where id = $1 returning version";
    let update = source.prepare(sql).await?;
    wait_for(sink, id, Some(1)).await?;
    let mut millis = Vec::with_capacity(samples);
    for number in 0..samples {
        tokio::time::sleep(PAUSE).await;
        let row = source.query_one(&update, &[&id, &format!("{PROBE} {number}")]).await?;
        let committed = Instant::now();
        wait_for(sink, id, Some(row.try_get(0)?)).await?;
        millis.push(committed.elapsed().as_secs_f64() * 1e3);
    }
    Ok(millis)
}

/// Waits until the sink has the order at this version or later; without a version, until the order is gone.
async fn wait_for(sink: &Client, id: i64, version: Option<i32>) -> anyhow::Result<()> {
    let select = sink.prepare("select version from orders where id = $1").await?;
    let begun = Instant::now();
    loop {
        let found: Option<i32> =
            sink.query_opt(&select, &[&id]).await?.map(|row| row.try_get(0)).transpose()?;
        let there = match version {
            Some(version) => found.is_some_and(|found| found >= version),
            None => found.is_none(),
        };
        if there {
            return Ok(());
        }
        anyhow::ensure!(
            begun.elapsed() < PATIENCE,
            "a commit did not reach the service within {PATIENCE:?}: is the slice following?"
        );
        tokio::time::sleep(LOOK).await;
    }
}
