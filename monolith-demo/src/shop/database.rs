//! Connections to Postgres, bounded in number and time.

use std::time::Duration;

use anyhow::Context as _;
use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use tokio_postgres::{Client, NoTls};

/// The longest wait for a connection. A request that waits longer gets a 503.
const WAIT: Duration = Duration::from_secs(5);

/// Session settings: every statement is bounded in time, and times are in UTC.
const SESSION: &str = "set statement_timeout = '15s'; set lock_timeout = '10s'; \
                       set idle_in_transaction_session_timeout = '30s'; set timezone = 'UTC'";

/// Does not connect yet, so it succeeds even if the database is down.
pub fn pool(url: &str, application: &str, connections_max: usize) -> anyhow::Result<Pool> {
    let manager = Manager::from_config(
        config(url, application)?,
        NoTls,
        ManagerConfig { recycling_method: RecyclingMethod::Fast },
    );
    let set_session = Hook::async_fn(|client: &mut deadpool_postgres::ClientWrapper, _| {
        Box::pin(async move { client.batch_execute(SESSION).await.map_err(HookError::Backend) })
    });
    Pool::builder(manager)
        .max_size(connections_max)
        .wait_timeout(Some(WAIT))
        .create_timeout(Some(WAIT))
        .runtime(Runtime::Tokio1)
        .post_create(set_session)
        .build()
        .context("could not create the connection pool")
}

/// One connection without a statement timeout, for work that reads whole tables.
pub async fn connect(url: &str, application: &str) -> anyhow::Result<Client> {
    let config = config(url, application)?;
    let (client, connection) = config.connect(NoTls).await.with_context(|| {
        format!("could not reach {}: is the database running, and is the URL right?", place(&config))
    })?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "database connection ended");
        }
    });
    client.batch_execute("set timezone = 'UTC'").await.context("could not set up the session")?;
    Ok(client)
}

fn config(url: &str, application: &str) -> anyhow::Result<tokio_postgres::Config> {
    // The URL holds a password, so the error repeats neither the URL nor the parser's message.
    let mut config: tokio_postgres::Config = url.parse().ok().context(
        "the database URL is not valid: write it like postgres://user:password@127.0.0.1:5432/shop",
    )?;
    config.application_name(application).connect_timeout(WAIT).keepalives_idle(Duration::from_secs(30));
    Ok(config)
}

fn place(config: &tokio_postgres::Config) -> String {
    let host = config.get_hosts().first().map_or_else(String::new, |host| match host {
        tokio_postgres::config::Host::Tcp(name) => name.clone(),
        tokio_postgres::config::Host::Unix(path) => path.display().to_string(),
    });
    let port = config.get_ports().first().copied().unwrap_or(5432);
    format!("{host}:{port}/{}", config.get_dbname().unwrap_or(""))
}
