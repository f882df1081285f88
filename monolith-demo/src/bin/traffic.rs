//! Runs the shop's clients, proves afterwards that every promise was kept, and measures lag.
#![allow(clippy::print_stdout, reason = "a demo's main speaks to the terminal")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use monolith_demo::shop::server::stop_when_asked;
use monolith_demo::traffic::report::{Counts, Proof};
use monolith_demo::traffic::{lag, ledger::Ledger, proof, run};
use serde::Serialize;

/// Run clients that write every promise to a ledger, and prove the promises afterwards from the databases.
///
/// Exits with 0 only if no request failed, no answer was wrong, no write is lost or doubled, both sides are equal, and
/// credit and stock were right at every look.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// URL of the shop; may be given more than once, for several proxies in front of one shop.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    proxy: Vec<String>,
    #[command(flatten)]
    databases: Databases,
    /// Number of clients. Every second client keeps cookies; the others send a header x-client.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    clients: u32,
    /// Maximum requests per second, of all clients together.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// How long the clients run, in seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    #[command(flatten)]
    files: Files,
    /// Seed of the clients' random choices.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Failed requests to tolerate, for example when a process is killed on purpose.
    #[arg(long, default_value_t = 0)]
    allow_failed: u64,
    /// File for each request that did not go well, with its time, as JSON lines.
    #[arg(long)]
    incidents: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Verb {
    /// Prove a ledger from the databases, without traffic.
    Prove {
        #[command(flatten)]
        databases: Databases,
        #[command(flatten)]
        files: Files,
    },
    /// Measure how long a commit in the monolith takes to become visible in the service's database.
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
    /// The service's Postgres. Without it the two sides are not compared.
    #[arg(long, env = "ORDERS_DATABASE_URL", hide_env_values = true)]
    orders_database: Option<String>,
    /// How long the two sides may take to become equal, in seconds.
    #[arg(long, default_value_t = 30)]
    wait_seconds: u64,
}

#[derive(clap::Args)]
struct Files {
    /// File with every promise, as JSON lines. A run appends to it.
    #[arg(long, default_value = "traffic-ledger.jsonl")]
    ledger: PathBuf,
    /// File for the report, as JSON.
    #[arg(long)]
    report: Option<PathBuf>,
}

impl Databases {
    fn meant(self) -> anyhow::Result<proof::Databases> {
        Ok(proof::Databases {
            monolith: self.monolith_database.context("set --monolith-database or MONOLITH_DATABASE_URL")?,
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
            let orders = databases.orders.context("set --orders-database or ORDERS_DATABASE_URL")?;
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
        proxies: args.proxy,
        clients: args.clients,
        rate: args.rate,
        lasts: Duration::from_secs(args.seconds),
        ledger: args.files.ledger,
        incidents: args.incidents,
        seed: args.seed,
        databases: args.databases.meant()?,
    };
    let report = run::run(&settings, stop_when_asked(), show_progress).await?;
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
        "{:>4} s  requests {} ({})  failed {}  put off {}  wrong {}  p50 {:.1} ms  p99 {:.1} ms",
        elapsed.as_secs(),
        counts.requests,
        served.join(", "),
        counts.failed,
        counts.deferred,
        counts.wrong,
        counts.latencies.quantile_ms(0.5),
        counts.latencies.quantile_ms(0.99)
    );
}

fn show_proof(proof: &Proof) {
    let differences = match proof.differences {
        Some(count) => format!("{count} of {} rows differ", proof.rows),
        None => "no second side to compare".into(),
    };
    println!(
        "proof at {}: {} promises, lost {}, doubled {}, {differences}; {} writes with unknown outcome",
        proof.owner, proof.promises, proof.lost, proof.doubled, proof.unknown
    );
    println!("       {} sagas open, {} entries of the books are wrong", proof.sagas_open, proof.books_differ);
    for sample in &proof.proof_samples {
        println!("  {sample}");
    }
}

fn save(path: Option<&Path>, report: &impl Serialize) -> anyhow::Result<()> {
    let Some(path) = path else { return Ok(()) };
    std::fs::write(path, serde_json::to_string_pretty(report)?)
        .with_context(|| format!("could not write {}: choose another file with --report", path.display()))
}
