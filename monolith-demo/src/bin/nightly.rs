//! The shop's nightly job. It lives on when the database refuses it.
#![allow(clippy::print_stdout, reason = "a job's main speaks to the terminal")]

use std::time::Duration;

use clap::Parser;
use monolith_demo::shop::server::asked_to_stop;
use monolith_demo::shop::{database, nightly};

/// Cancel orders that nobody paid, straight in the monolith's database.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// The monolith's Postgres.
    #[arg(long, env = "MONOLITH_DATABASE_URL", hide_env_values = true)]
    database: String,
    /// Age after which an unpaid order is cancelled, in seconds.
    #[arg(long, default_value_t = 24 * 3600)]
    age_seconds: u64,
    /// Pause between two rounds, in seconds.
    #[arg(long, default_value_t = 24 * 3600)]
    every_seconds: u64,
    /// Number of rounds; 0 means until it is stopped.
    #[arg(long, default_value_t = 0)]
    rounds: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    monolith_demo::start_log();
    let args = Args::parse();
    let pool = database::pool(&args.database, "shop-nightly", 1)?;
    let mut round = 0;
    loop {
        round += 1;
        match nightly::expire(&pool, Duration::from_secs(args.age_seconds)).await {
            Ok(count) => println!("round {round}: {count} unpaid orders were cancelled"),
            Err(refusal) => println!("round {round}: refused: {}", refusal.in_full()),
        }
        if let Err(refusal) = nightly::forget_calls(&pool).await {
            println!("round {round}: old calls are kept: {}", refusal.in_full());
        }
        if round == args.rounds {
            println!("the job lived through all {round} rounds");
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(args.every_seconds)) => {}
            () = asked_to_stop() => return Ok(()),
        }
    }
}
