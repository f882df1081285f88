//! One side of the guestbook: the monolith, or the service that its tables move to.

use clap::Parser;
use monolith_demo::guestbook;
use monolith_demo::shop::{database, server};

/// A guestbook with one-row writes, for measuring.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Address to serve on.
    #[arg(long)]
    listen: String,
    /// The Postgres of this side.
    #[arg(long, env = "GUESTBOOK_DATABASE_URL", hide_env_values = true)]
    database: String,
    /// Pages to create. The service gets its pages from the monolith, so it creates none.
    #[arg(long, default_value_t = 0)]
    pages: i64,
    /// Maximum number of database connections.
    #[arg(long, default_value_t = 16)]
    connections: usize,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    monolith_demo::start_log();
    let args = Args::parse();
    let pool = database::pool(&args.database, "guestbook", args.connections)?;
    guestbook::migrate(&pool, args.pages).await?;
    let listener = server::bind(&args.listen).await?;
    tracing::info!(address = %listener.local_addr()?, "the guestbook is open");
    server::serve(listener, guestbook::router(pool), server::asked_to_stop()).await
}
