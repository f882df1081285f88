//! The shop's monolith: one Postgres, a page, a JSON API and a background job.

use std::time::Duration;

use clap::Parser;
use monolith_demo::shop::{Shop, database, schema, server, warehouse};

/// The shop's monolith.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Address to serve on.
    #[arg(long, env = "MONOLITH_LISTEN", default_value = "127.0.0.1:4000")]
    listen: String,
    /// Address of the inner door, for the shop's own programs. Customers must not reach it.
    #[arg(long, env = "MONOLITH_INTERNAL_LISTEN", default_value = "127.0.0.1:4010")]
    internal_listen: String,
    /// The monolith's Postgres.
    #[arg(long, env = "MONOLITH_DATABASE_URL", hide_env_values = true)]
    database: String,
    /// Create the schema first, and seed it if there are no customers.
    #[arg(long)]
    migrate: bool,
    /// Customers to seed.
    #[arg(long, default_value_t = 1000)]
    seed_customers: u32,
    /// Products to seed.
    #[arg(long, default_value_t = 200)]
    seed_products: u32,
    /// Orders to seed.
    #[arg(long, default_value_t = 10_000)]
    seed_orders: u32,
    /// Pause between two rounds of the background job, in milliseconds; 0 turns the job off.
    #[arg(long, default_value_t = 500)]
    job_interval_ms: u64,
    /// Maximum number of database connections.
    #[arg(long, default_value_t = 16)]
    connections: usize,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    monolith_demo::start_log();
    let args = Args::parse();
    let pool = database::pool(&args.database, "shop-monolith", args.connections)?;
    // Before a long seed, so that a taken address fails at once.
    let listener = server::bind(&args.listen).await?;
    let inner_door = server::bind(&args.internal_listen).await?;
    if args.migrate {
        let seed = schema::Seed {
            customers: args.seed_customers,
            products: args.seed_products,
            orders: args.seed_orders,
        };
        schema::migrate_monolith(&pool, seed).await?;
    }
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let job = (args.job_interval_ms > 0)
        .then(|| database::pool(&args.database, "shop-warehouse", 1))
        .transpose()?
        .map(|pool| {
            let stopped = stopped.clone();
            tokio::spawn(warehouse::run(pool, Duration::from_millis(args.job_interval_ms), stopped))
        });
    tracing::info!(
        address = %listener.local_addr()?,
        internal = %inner_door.local_addr()?,
        "the monolith is serving"
    );
    let shop = Shop::monolith(pool);
    let internal = server::internal(shop.clone());
    let internal = tokio::spawn(server::serve(inner_door, internal, server::until(stopped)));
    let served = server::serve(listener, server::monolith(shop), server::asked_to_stop()).await;
    stop.send_replace(true);
    internal.await??;
    if let Some(job) = job {
        job.await?;
    }
    served
}
