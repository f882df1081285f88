//! Clients of the shop that remember what they were promised; the proof afterwards; and the lag.
#![allow(clippy::print_stdout, reason = "a demo's main speaks to the terminal")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use monolith_demo::shop::server::asked_to_stop;
use monolith_demo::traffic::report::{Counts, Proof};
use monolith_demo::traffic::{lag, ledger::Ledger, proof, run};
use serde::Serialize;

/// Clients that keep a ledger of every answer they were promised, check it, and prove it afterwards.
///
/// Exits with 0 only if nothing failed, was wrong, lost or doubled, and both sides are equal.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// Where the clients go.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    proxy: String,
    #[command(flatten)]
    databases: Databases,
    /// How many clients; every other one keeps cookies, the rest send a header x-client.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    clients: u32,
    /// Requests per second, of all clients together, at most.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// How long the clients go on, in seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    #[command(flatten)]
    files: Files,
    /// Where the clients' dice start.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Failed requests that are still fine, as when something was killed on purpose.
    #[arg(long, default_value_t = 0)]
    allow_failed: u64,
}

#[derive(Subcommand)]
enum Verb {
    /// Proves a ledger from the databases, without any traffic.
    Prove {
        #[command(flatten)]
        databases: Databases,
        #[command(flatten)]
        files: Files,
    },
    /// Measures how long a commit in the monolith takes to be visible in the service's database.
    Lag {
        #[command(flatten)]
        databases: Databases,
        /// How many commits to measure.
        #[arg(long, default_value_t = 50)]
        samples: usize,
    },
}

#[derive(clap::Args)]
struct Databases {
    /// The monolith's Postgres.
    #[arg(long, env = "MONOLITH_DATABASE_URL", hide_env_values = true)]
    monolith_database: Option<String>,
    /// The service's Postgres; without it the two sides are not compared.
    #[arg(long, env = "ORDERS_DATABASE_URL", hide_env_values = true)]
    orders_database: Option<String>,
    /// How long the two sides may take to become equal, in seconds.
    #[arg(long, default_value_t = 30)]
    wait_seconds: u64,
}

#[derive(clap::Args)]
struct Files {
    /// File of JSON lines with every promise. A run appends to it.
    #[arg(long, default_value = "traffic-ledger.jsonl")]
    ledger: PathBuf,
    /// Where to write the report, as JSON.
    #[arg(long)]
    report: Option<PathBuf>,
}

impl Databases {
    fn meant(self) -> anyhow::Result<proof::Databases> {
        Ok(proof::Databases {
            monolith: self.monolith_database.context("give --monolith-database or MONOLITH_DATABASE_URL")?,
            orders: self.orders_database,
            patience: Duration::from_secs(self.wait_seconds),
        })
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    monolith_demo::start_log();
    let mut args = Args::parse();
    let held = match args.verb.take() {
        Some(Verb::Prove { databases, files }) => prove(databases, &files).await?,
        Some(Verb::Lag { databases, samples }) => {
            let databases = databases.meant()?;
            let orders = databases.orders.context("give --orders-database or ORDERS_DATABASE_URL")?;
            println!(
                "{}",
                serde_json::to_string(&lag::measure(&databases.monolith, &orders, samples).await?)?
            );
            true
        }
        None => traffic(args).await?,
    };
    Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn traffic(args: Args) -> anyhow::Result<bool> {
    let settings = run::Settings {
        proxy: args.proxy,
        clients: args.clients,
        rate: args.rate,
        lasts: Duration::from_secs(args.seconds),
        ledger: args.files.ledger,
        seed: args.seed,
        databases: args.databases.meant()?,
    };
    let (stop, stopped) = tokio::sync::watch::channel(false);
    tokio::spawn(async move {
        asked_to_stop().await;
        stop.send_replace(true);
        // Kept alive: a client that sees the sender gone would take it for a stop.
        std::future::pending::<()>().await;
    });
    let report = run::run(&settings, stopped, show_progress).await?;
    show_proof(&report.proof);
    for sample in &report.samples {
        println!("  {sample}");
    }
    save(args.files.report.as_deref(), &report)?;
    Ok(report.holds(args.allow_failed))
}

async fn prove(databases: Databases, files: &Files) -> anyhow::Result<bool> {
    let ledger = Ledger::read(&files.ledger)?;
    let proof = proof::prove(&databases.meant()?, &ledger).await?;
    show_proof(&proof);
    save(files.report.as_deref(), &proof)?;
    Ok(proof.holds())
}

fn show_progress(elapsed: Duration, counts: &Counts) {
    let served: Vec<String> =
        counts.by_served.iter().map(|(side, count)| format!("{side} {count}")).collect();
    println!(
        "{:>4} s  requests {} ({})  failed {}  wrong {}  p50 {:.1} ms  p99 {:.1} ms",
        elapsed.as_secs(),
        counts.requests,
        served.join(", "),
        counts.failed,
        counts.wrong,
        counts.latencies.quantile_ms(0.5),
        counts.latencies.quantile_ms(0.99)
    );
}

fn show_proof(proof: &Proof) {
    let differences = match proof.differences {
        Some(count) => format!("{count} of {} rows differ", proof.rows),
        None => "no second side to compare with".into(),
    };
    println!(
        "proof: {} promises, lost {}, doubled {}, {differences}; {} writes nobody knows about",
        proof.promises, proof.lost, proof.doubled, proof.unknown
    );
    for sample in &proof.proof_samples {
        println!("  {sample}");
    }
}

fn save(path: Option<&Path>, report: &impl Serialize) -> anyhow::Result<()> {
    let Some(path) = path else { return Ok(()) };
    std::fs::write(path, serde_json::to_string_pretty(report)?)
        .with_context(|| format!("{} cannot be written: choose another with --report", path.display()))
}
