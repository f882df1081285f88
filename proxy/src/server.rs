//! Start and end: sockets, threads, and their order.
//!
//! Pingora brings its own runtimes. So the server runs in its own thread and may be started from anywhere.

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
use migrations::code::Code;
use migrations::control::AgentKind;
use migrations::plan::{Consistency, ProxySettings};
use migrations::problem::Diagnostic;
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

/// Requests under way have this long to end after a stop.
const GRACE_S: u64 = 3;
/// Then the runtimes have this long to end.
const RUNTIME_END_S: u64 = 1;
/// Then the last lines of the access log have this long.
const LOG_END_MAX: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    #[error("cannot listen at {address}")]
    Listen {
        key: &'static str,
        address: String,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot make the state folder {path}")]
    State {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot make an HTTP client")]
    Client(#[from] reqwest::Error),
    #[error("cannot set up metrics")]
    Metrics(#[from] prometheus::Error),
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
    #[error("the proxy's server panicked")]
    Panicked,
}

impl Diagnostic for ProxyError {
    fn code(&self) -> Code {
        match self {
            ProxyError::Listen { .. } => Code::PartListen,
            _ => Code::PartFailed,
        }
    }

    fn remedy(&self) -> String {
        match self {
            ProxyError::Listen { key, .. } => {
                return format!("stop what listens there, or change `proxy.{key}` in the plan");
            }
            ProxyError::State { .. } => "give this user access to it, or name another one",
            ProxyError::Client(_) => "check the system's resolver and limits",
            ProxyError::Thread(_) => "raise the limit that `ulimit -u` shows",
            ProxyError::Metrics(_) => "report this",
            ProxyError::Panicked => "report what it printed",
        }
        .to_owned()
    }
}

#[derive(Debug)]
pub struct Shutdown(Option<watch::Receiver<Stop>>);

/// Stops a proxy that was started with [`Shutdown::by_hand`]. Dropping it stops the proxy at once.
#[derive(Debug)]
pub struct Stopper(watch::Sender<Stop>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    No,
    Gracefully,
    AtOnce,
}

impl Shutdown {
    pub fn by_signal() -> Self {
        Self(None)
    }

    pub fn by_hand() -> (Stopper, Self) {
        let (sender, receiver) = watch::channel(Stop::No);
        (Stopper(sender), Self(Some(receiver)))
    }
}

impl Stopper {
    /// Takes no new connections. Requests under way may end.
    pub fn stop(&self) {
        self.0.send_replace(Stop::Gracefully);
    }

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

/// Runs the proxy until it is stopped, with the access log on standard output.
///
/// Blocks. May be called from any thread. If `link.state_dir` holds a table, the proxy serves with it at once. When
/// the controller answers, its table takes over.
pub fn run(settings: &ProxySettings, link: Link, shutdown: Shutdown) -> Result<(), ProxyError> {
    run_logging_to(settings, link, shutdown, Box::new(std::io::stdout()))
}

/// As [`run`], with the access log elsewhere.
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
    let consistency = settings.consistency.unwrap_or(Consistency::Session);
    let tables = Tables::new(Patience::of(settings), settings.hold, consistency, metrics.clone());
    let tables = Arc::new(tables);
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

/// Puts the stored table in use, if there is one that can be used.
fn restore(agent: &link::Agent, tables: &Tables) -> Option<Told> {
    let (error, remedy): (Box<dyn std::error::Error>, _) = match agent.stored().read() {
        Ok(Some(desired)) => match tables.take(desired.clone()) {
            Ok(_) => {
                tracing::info!("serving with the stored table until the controller answers");
                return Some(Told { desired, is_current: false });
            }
            Err(error) => {
                let remedy = error.remedy();
                (error.into(), remedy)
            }
        },
        Ok(None) => {
            tracing::info!("no stored table; not ready until the controller answers");
            return None;
        }
        Err(error) => (error.into(), "make the file readable, or remove it".to_owned()),
    };
    tracing::error!(error = &*error, %remedy, "cannot use the stored table; not ready until the controller answers");
    None
}

/// What the agent speaks with, and what it knows from before.
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
        // With one thread there is nothing to steal, and Tokio's scheduler for one thread costs less. With more
        // threads, `false` would give each its own runtime, and kept connections would wander between them.
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

/// Pingora panics in its own thread when it cannot listen. So it is tried here first.
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
