//! Starting and ending: sockets, threads, and the order in which they come and go.
//!
//! Knows nothing of routes. Pingora brings its own runtimes, so the server runs in a thread of its own and may
//! be started from anywhere.

use crate::access_log::AccessLog;
use crate::admin::Admin;
use crate::agent::Agent;
use crate::freshness::BridgeLink;
use crate::freshness::seen::ProxyTag;
use crate::metrics::Metrics;
use crate::request::Requests;
use crate::table::Tables;
use crate::upstream::Patience;
use async_trait::async_trait;
use link::{Link, Told};
use migrations::control::AgentKind;
use migrations::plan::ProxySettings;
use pingora::connectors::{ConnectorOptions, TransportConnector};
use pingora::server::configuration::ServerConf;
use pingora::server::{RunArgs, Server, ShutdownSignal, ShutdownSignalWatch};
use pingora::services::background::background_service;
use pingora::services::listening::Service;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Requests under way may take so long to end after a stop was asked for, in seconds.
const GRACE_S: u64 = 3;
/// After that, runtimes may take so long to end, in seconds.
const RUNTIME_END_S: u64 = 1;
/// The last lines of the access log may take so long.
const LOG_END_MAX: Duration = Duration::from_secs(1);

/// Why the proxy could not start.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// A listener's address is taken or is none of this machine's.
    #[error("cannot listen at {address}; stop what listens there, or change `proxy.{key}` in the plan")]
    Listen {
        /// Which key of the plan.
        key: &'static str,
        /// Which address.
        address: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The folder for the stored table cannot be made.
    #[error("cannot make the state folder {path}; give this user access to it, or name another one")]
    State {
        /// Which folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The client for the controller cannot be made.
    #[error("cannot make an HTTP client; see the system's resolver and limits")]
    Client(#[from] reqwest::Error),
    /// Metrics are wrong: a mistake of ours.
    #[error("cannot set up metrics; please report this")]
    Metrics(#[from] prometheus::Error),
    /// A thread cannot be started.
    #[error("cannot start a thread; see the system's limits (`ulimit -u`)")]
    Thread(#[source] std::io::Error),
    /// The server ended by a panic: a mistake of ours.
    #[error("the proxy's server panicked; please report what it printed")]
    Panicked,
}

/// When the proxy must stop.
#[derive(Debug)]
pub struct Shutdown(Option<watch::Receiver<Stop>>);

/// Stops a proxy that was started with [`Shutdown::by_hand`]. If it is dropped the proxy stops, too.
#[derive(Debug)]
pub struct Stopper(watch::Sender<Stop>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    No,
    Gracefully,
    AtOnce,
}

impl Shutdown {
    /// At SIGTERM or SIGINT, gracefully.
    pub fn by_signal() -> Self {
        Self(None)
    }

    /// When the caller says so.
    pub fn by_hand() -> (Stopper, Self) {
        let (sender, receiver) = watch::channel(Stop::No);
        (Stopper(sender), Self(Some(receiver)))
    }
}

impl Stopper {
    /// No new connections; requests under way may end.
    pub fn stop(&self) {
        self.0.send_replace(Stop::Gracefully);
    }

    /// Connections are cut.
    pub fn stop_at_once(&self) {
        self.0.send_replace(Stop::AtOnce);
    }
}

#[async_trait]
impl ShutdownSignalWatch for Shutdown {
    async fn recv(&self) -> ShutdownSignal {
        match &self.0 {
            Some(by_hand) => {
                let mut by_hand = by_hand.clone();
                let stop =
                    by_hand.wait_for(|stop| *stop != Stop::No).await.map_or(Stop::AtOnce, |stop| *stop);
                if stop == Stop::AtOnce {
                    ShutdownSignal::FastShutdown
                } else {
                    ShutdownSignal::GracefulTerminate
                }
            }
            None => {
                either_signal().await;
                ShutdownSignal::GracefulTerminate
            }
        }
    }
}

/// Runs the proxy until it is told to stop, with the access log on standard output.
///
/// Blocks; may be called from any thread. It serves with the table stored in `link.state_dir` at once, if there is
/// one, and with the controller's from when it answers.
///
/// # Errors
/// If it cannot start: an address is taken, or the state folder is out of reach.
pub fn run(settings: &ProxySettings, link: Link, shutdown: Shutdown) -> Result<(), ProxyError> {
    run_logging_to(settings, link, shutdown, Box::new(std::io::stdout()))
}

/// As [`run`], with the access log elsewhere.
///
/// # Errors
/// As [`run`].
pub fn run_logging_to(
    settings: &ProxySettings,
    link: Link,
    shutdown: Shutdown,
    access_log: Box<dyn Write + Send>,
) -> Result<(), ProxyError> {
    std::fs::create_dir_all(&link.state_dir)
        .map_err(|source| ProxyError::State { path: link.state_dir.clone(), source })?;
    can_listen("listen", &settings.listen)?;
    can_listen("admin", &settings.admin)?;
    let metrics = Arc::new(Metrics::new()?);
    let tables = Arc::new(Tables::new(Patience::of(settings), metrics.clone()));
    let tag = ProxyTag(rand::random::<u64>() >> 16);
    let agent = link::Agent::new(link.clone(), AgentKind::Proxy, tag.0)?;
    let stored = restore(&agent, &tables);
    let (log, writer) =
        AccessLog::start(access_log, metrics.log_lines_dropped.clone()).map_err(ProxyError::Thread)?;
    let server = assembled(settings, Conversation { link, agent, stored }, tag, tables, metrics, log)?;
    let thread = std::thread::Builder::new().name("proxy".to_owned());
    let run = move || server.run(RunArgs { shutdown_signal: Box::new(shutdown) });
    let ended = thread.spawn(run).map_err(ProxyError::Thread)?.join();
    finish_log(writer);
    ended.map_err(|_| ProxyError::Panicked)
}

/// Serves with the stored table until the controller answers, if there is one that can be used.
fn restore(agent: &link::Agent, tables: &Tables) -> Option<Told> {
    let error: Box<dyn std::error::Error> = match agent.stored().read() {
        Ok(Some(desired)) => match tables.take(desired.clone()) {
            Ok(_) => {
                tracing::info!("serving with the stored table until the controller answers");
                return Some(Told { desired, is_current: false });
            }
            Err(error) => error.into(),
        },
        Ok(None) => {
            tracing::info!("no stored table; unready until the controller answers");
            return None;
        }
        Err(error) => error.into(),
    };
    tracing::error!(error = &*error, "the stored table cannot be used; unready until the controller answers");
    None
}

/// What the agent speaks with.
struct Conversation {
    link: Link,
    agent: link::Agent,
    stored: Option<Told>,
}

fn assembled(
    settings: &ProxySettings,
    conversation: Conversation,
    tag: ProxyTag,
    tables: Arc<Tables>,
    metrics: Arc<Metrics>,
    log: AccessLog,
) -> Result<Server, ProxyError> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let conf = ServerConf {
        threads,
        grace_period_seconds: Some(GRACE_S),
        graceful_shutdown_timeout_seconds: Some(RUNTIME_END_S),
        // A single thread has nobody to steal from, and Tokio's scheduler for one thread costs less. With more
        // threads Pingora would then give each a runtime of its own, and kept connections would wander between them.
        work_stealing: threads > 1,
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    let connector = TransportConnector::new(Some(ConnectorOptions::from_server_conf(&server.configuration)));
    let requests = Requests {
        tables: tables.clone(),
        metrics: metrics.clone(),
        log,
        settings: settings.clone(),
        tag,
        connector,
    };
    let mut proxy = Service::new("proxy".to_owned(), requests);
    proxy.add_tcp(&settings.listen);
    server.add_service(proxy);

    let mut admin =
        Service::new("admin".to_owned(), Admin { tables: tables.clone(), metrics: metrics.clone() });
    admin.add_tcp(&settings.admin);
    admin.threads = Some(1);
    server.add_service(admin);

    let Conversation { link, agent, stored } = conversation;
    let bridge = BridgeLink { address: tables.bridge.clone(), token: link.token, http: link::client()? };
    let agent = Agent {
        tables,
        metrics,
        agent,
        stored,
        listen: settings.listen.clone(),
        health_path: settings.health_path.clone(),
        bridge,
    };
    server.add_service(background_service("agent", agent));
    Ok(server)
}

/// Pingora panics in a thread of its own when it cannot listen; it is tried here first.
fn can_listen(key: &'static str, address: &str) -> Result<(), ProxyError> {
    match std::net::TcpListener::bind(address) {
        Ok(_) => Ok(()),
        Err(source) => Err(ProxyError::Listen { key, address: address.to_owned(), source }),
    }
}

async fn either_signal() {
    let Ok(mut term) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    let Ok(mut interrupt) = signal(SignalKind::interrupt()) else { return std::future::pending().await };
    tokio::select! {
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
    }
}

fn finish_log(writer: JoinHandle<()>) {
    let deadline = Instant::now() + LOG_END_MAX;
    while !writer.is_finished() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
}
