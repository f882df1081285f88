//! The shop's customers: a program of the demo that orders, pays and cancels through the proxy, keeps a ledger of what
//! it was promised, and proves in the end from the databases that every promise was kept.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde::Deserialize;

use super::built;
use super::shop::Shop;
use lab::process::{self, Background};

/// How many customers there are, and how many requests a second they make together.
const CUSTOMERS: (u32, u32) = (16, 200);
/// They go on until they are stopped. This only bounds a demo that was forgotten.
const LONGEST_SECONDS: u32 = 24 * 3600;
/// Waiting until both sides are equal, and comparing them.
const PROOF_LIMIT: Duration = Duration::from_secs(120);
const LAG_LIMIT: Duration = Duration::from_secs(90);
const LAG_SAMPLES: u32 = 100;

#[derive(Clone, Debug, Default, Deserialize)]
pub struct Proof {
    pub requests: u64,
    /// Requests that got a 5xx or no answer.
    pub failed: u64,
    /// Writes that were put off with a 503 and Retry-After.
    pub deferred: u64,
    /// Answers that broke a rule, such as a read that went back in time.
    pub wrong: u64,
    /// Promises that the database does not keep.
    pub lost: u64,
    /// Writes that were done more than once.
    pub doubled: u64,
    /// Rows that differ between the two databases.
    pub differences: u64,
    /// Customers whose open orders exceeded their credit, at any look while they ordered.
    pub credit_exceeded: u64,
    /// Products whose stock was negative at any look.
    pub stock_negative: u64,
    /// Sagas of the service that did not end.
    pub sagas_open: u64,
    /// Entries of the monolith's books that do not fit the orders.
    pub books_differ: u64,
    /// How many answers each side gave, by its own word.
    pub by_served: BTreeMap<String, u64>,
    pub seconds: f64,
    #[serde(default)]
    pub samples: Vec<String>,
    #[serde(default)]
    pub proof_samples: Vec<String>,
}

/// From commit at the monolith to visible at the service.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Lag {
    /// Half of the commits took at most this, in ms.
    #[serde(rename = "lag_ms_p50")]
    pub p50_ms: f64,
    /// All but one in a hundred took at most this, in ms.
    #[serde(rename = "lag_ms_p99")]
    pub p99_ms: f64,
}

pub struct Traffic {
    running: Option<Background>,
    /// Monolith's and service's database, as the applications reach them.
    databases: (String, String),
    proxies: Vec<String>,
    /// Of the customers' choices.
    pub seed: u64,
    report: PathBuf,
    ledger: PathBuf,
    incidents: PathBuf,
    log: PathBuf,
}

impl Traffic {
    /// Customers that have not started yet. Their files will be in `folder`.
    pub fn prepared(shop: &Shop, proxies: &[&str], folder: &Path) -> Traffic {
        Traffic {
            running: None,
            databases: shop.application_urls(),
            proxies: proxies.iter().map(|proxy| format!("http://{proxy}")).collect(),
            seed: 1,
            report: folder.join("traffic.json"),
            ledger: folder.join("traffic-ledger.jsonl"),
            incidents: folder.join("traffic-incidents.jsonl"),
            log: folder.join("traffic.log"),
        }
    }

    pub fn start(&mut self) -> Result<()> {
        for old in [&self.report, &self.ledger, &self.incidents, &self.log] {
            if old.exists() {
                fs::remove_file(old).with_context(|| format!("{} cannot be removed", old.display()))?;
            }
        }
        let mut command = self.command();
        let (customers, rate) = CUSTOMERS;
        for proxy in &self.proxies {
            command.args(["--proxy", proxy]);
        }
        command.args(["--clients", &customers.to_string(), "--rate", &rate.to_string()]);
        command.args(["--seconds", &LONGEST_SECONDS.to_string(), "--seed", &self.seed.to_string()]);
        command.arg("--ledger").arg(&self.ledger).arg("--report").arg(&self.report);
        command.arg("--incidents").arg(&self.incidents);
        self.running = Some(Background::start("the traffic", &mut command, &self.log)?);
        Ok(())
    }

    /// Each request that did not go well, as a JSON line.
    pub fn incidents(&self) -> &Path {
        &self.incidents
    }

    /// The last line of their log.
    pub fn last_words(&self) -> String {
        process::end_of(&self.log).lines().last().unwrap_or_default().trim().to_owned()
    }

    /// Fails if they ended by themselves.
    pub fn must_run(&mut self) -> Result<()> {
        match &mut self.running {
            Some(running) => running.must_run(),
            None => Ok(()),
        }
    }

    /// Asks them to stop and gives their proof.
    pub fn finish(&mut self) -> Result<Proof> {
        let Some(mut running) = self.running.take() else {
            bail!("there was no traffic to prove anything from")
        };
        running.must_run()?;
        running.signal(Signal::SIGINT);
        // The report says all that their exit code says.
        running.wait(PROOF_LIMIT)?;
        let text = fs::read_to_string(&self.report)
            .with_context(|| format!("the traffic wrote no report. It said:\n{}", running.log_end()))?;
        serde_json::from_str(&text).context("the traffic's report cannot be read, or nothing was compared")
    }

    /// Measures how long commits of the monolith take to be visible in the service's database.
    pub fn lag(&self) -> Result<Lag> {
        let mut command = self.command();
        command.args(["lag", "--samples", &LAG_SAMPLES.to_string()]);
        let text = process::output(&mut command, LAG_LIMIT)?;
        let line = text.lines().last().unwrap_or_default();
        serde_json::from_str(line).with_context(|| format!("the lag is not {line:?}"))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(built("traffic"));
        command.env("MONOLITH_DATABASE_URL", &self.databases.0).env("ORDERS_DATABASE_URL", &self.databases.1);
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_that_compared_nothing_is_no_proof() {
        let whole = r#"{"requests":9,"failed":0,"deferred":0,"wrong":0,"lost":0,"doubled":0,"differences":0,
                        "credit_exceeded":0,"stock_negative":0,"sagas_open":0,"books_differ":0,
                        "by_served":{"monolith":5,"orders":4},"seconds":1.5,"x":1}"#;
        let proof: Proof = serde_json::from_str(whole).unwrap();
        assert_eq!((proof.requests, proof.by_served["orders"]), (9, 4));
        let uncompared = whole.replace("\"differences\":0", "\"differences\":null");
        assert!(serde_json::from_str::<Proof>(&uncompared).is_err());
    }
}
