//! Start and end: sockets, threads, and their order.
//!
//! Pingora brings its own runtimes. So the server runs in its own thread and may be started from anywhere.

use crate::access_log::AccessLog;
use crate::admin::{Admin, PLACES};
use crate::agent::{Agent, Ignored};
use crate::client::Naming;
use crate::descriptors::{Bounds, Budget, raised_limit};
use crate::drain::Drain;
use crate::entrance::Entrance;
use crate::freshness::BridgeLink;
use crate::freshness::seen::ProxyTag;
use crate::guests::Guests;
use crate::health::Question;
use crate::metrics::Metrics;
use crate::request::{Clients, Requests};
use crate::shutdown::Shutdown;
use crate::succession::{Course, Listeners, Place, Succession, Term};
use crate::table::Tables;
use crate::tls::{BadCertificate, Tls};
use crate::upstream::Patience;
use link::handover::Inherited;
use link::{Link, Told};
use migrations::code::Code;
use migrations::control::AgentKind;
use migrations::plan::{Consistency, ProxySettings, TlsSettings};
use migrations::problem::Diagnostic;
use pingora::connectors::{ConnectorOptions, TransportConnector};
use pingora::server::configuration::ServerConf;
use pingora::server::{RunArgs, Server};
use pingora::services::background::background_service;
use socket2::SockRef;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Connections that wait to be accepted. The system may have a lower bound.
const BACKLOG: i32 = 4096;
/// After the end, the last lines of the access log have this long.
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
    #[error("{why}")]
    Certificate { why: String, remedy: String },
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
    #[error("another process took the place of the proxy that serves here: {0}")]
    Place(String),
    #[error("cannot take the place in the state folder")]
    Kept(#[source] std::io::Error),
    #[error("the proxy's server panicked")]
    Panicked,
}

impl Diagnostic for ProxyError {
    fn code(&self) -> Code {
        match self {
            ProxyError::Listen { .. } => Code::PartListen,
            ProxyError::Certificate { .. } => Code::ProxyCertificate,
            _ => Code::PartFailed,
        }
    }

    fn remedy(&self) -> String {
        match self {
            ProxyError::Listen { key, .. } => {
                return format!("stop what listens there, or change `proxy.{key}` in the plan");
            }
            ProxyError::Certificate { remedy, .. } => remedy,
            ProxyError::State { .. } => "give this user access to it, or name another one",
            ProxyError::Client(_) => "check the system's resolver and limits",
            ProxyError::Thread(_) => "raise the limit that `ulimit -u` shows",
            ProxyError::Metrics(_) => "report this",
            ProxyError::Place(_) | ProxyError::Kept(_) => "start one proxy for each state folder",
            ProxyError::Panicked => "report what it printed",
        }
        .to_owned()
    }
}

/// The inherited sockets, or new ones.
fn listeners(settings: &ProxySettings, inherited: &mut Inherited) -> Result<Listeners, ProxyError> {
    let mut at = |key, address: &str| {
        let failed = |source| ProxyError::Listen { key, address: address.to_owned(), source };
        let listener = inherited.listener(address).map_err(failed)?;
        SockRef::from(&listener).listen(BACKLOG).map_err(failed).map(|()| listener)
    };
    Ok(Listeners {
        clients: at("listen", &settings.listen)?,
        secure: settings.tls.as_ref().map(|tls| at("tls.listen", &tls.listen)).transpose()?,
        admin: at("admin", &settings.admin)?,
    })
}

/// Whether a proxy could start with these files.
///
/// # Errors
/// Of the first file that cannot be used.
pub fn check_certificates(settings: &TlsSettings) -> Result<(), ProxyError> {
    opened(settings, &Metrics::new()?).map(drop)
}

fn opened(settings: &TlsSettings, metrics: &Metrics) -> Result<Tls, ProxyError> {
    Tls::open(settings, metrics.tls.clone())
        .map_err(|BadCertificate { why, remedy }| ProxyError::Certificate { why, remedy })
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
    let limit = raised_limit();
    let metrics = Arc::new(Metrics::new()?);
    let tls = settings.tls.as_ref().map(|tls| opened(tls, &metrics).map(Arc::new)).transpose()?;
    let bounds = Bounds::of(limit, settings.connections_max.and_then(|max| usize::try_from(max).ok()));
    let mut inherited = Inherited::of(&link.state_dir).map_err(ProxyError::Kept)?;
    let listeners = listeners(settings, &mut inherited)?;
    tracing::info!(clients = bounds.clients, open_files = limit, "connections are bounded");
    let consistency = settings.consistency.unwrap_or(Consistency::Session);
    let naming = Naming::of(link.token.expose());
    let (patience, budget) = (Patience::of(settings), Budget::new(bounds));
    let tables = Tables::new(patience, settings.hold, consistency, naming, budget, metrics.clone());
    let tables = Arc::new(tables);
    let claim = inherited.into_claim();
    let tag = ProxyTag(rand::random::<u64>() >> 16);
    let agent = link::Agent::new(link.clone(), AgentKind::Proxy, tag.0)?;
    let stored = restore(&agent, &tables);
    let (log, writer) =
        AccessLog::start(access_log, metrics.log_lines_dropped.clone()).map_err(ProxyError::Thread)?;
    let (place, drain) = (Arc::new(watch::Sender::new(Place::Awaited)), Arc::new(Drain::new()));
    let term = Arc::<Mutex<Term>>::default();
    let course = Course {
        shutdown,
        place: place.clone(),
        term: term.clone(),
        listeners: Mutex::new(Some(listeners.again().map_err(ProxyError::Thread)?)),
        tables: tables.clone(),
        drain: drain.clone(),
        patience: Duration::from_millis(settings.drain_ms),
    };
    let parts = Parts { settings, tag, tables, tls, metrics, log, drain, bounds };
    let succession = Succession { claim: Mutex::new(Some(claim)), tables: parts.tables.clone(), place, term };
    let decided = succession.place.subscribe();
    let server = assembled(parts, Conversation { link, agent, stored }, listeners, succession)?;
    let thread = std::thread::Builder::new().name("proxy".to_owned());
    let run = move || server.run(RunArgs { shutdown_signal: Box::new(course) });
    let ended = thread.spawn(run).map_err(ProxyError::Thread)?.join();
    finish_log(writer);
    ended.map_err(|_| ProxyError::Panicked)?;
    match &*decided.borrow() {
        Place::Lost(why) => Err(ProxyError::Place(why.clone())),
        Place::Awaited | Place::Ours => Ok(()),
    }
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

/// What the services of one proxy share.
struct Parts<'s> {
    settings: &'s ProxySettings,
    tag: ProxyTag,
    tables: Arc<Tables>,
    tls: Option<Arc<Tls>>,
    metrics: Arc<Metrics>,
    log: AccessLog,
    drain: Arc<Drain>,
    bounds: Bounds,
}

fn assembled(
    parts: Parts<'_>,
    conversation: Conversation,
    listeners: Listeners,
    succession: Succession,
) -> Result<Server, ProxyError> {
    let Parts { settings, tag, tables, tls, metrics, log, drain, bounds } = parts;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let conf = ServerConf {
        threads,
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
        drain: drain.clone(),
    };
    let requests = Arc::new(requests);
    let door = |tls| Clients { requests: requests.clone(), tls };
    let secure = listeners.secure.zip(tls.clone()).map(|(listener, tls)| (listener, door(Some(tls))));
    let place = || succession.place.subscribe();
    server.add_service(Entrance {
        name: "proxy",
        threads: None,
        doors: std::iter::once((listeners.clients, door(None))).chain(secure).collect(),
        guests: Guests::new(bounds.clients, metrics.connections.clone(), metrics.evicted.clone()),
        place: place(),
        drain: drain.clone(),
        failures: metrics.shortages.with_label_values(&["accept"]),
    });
    let admin = Admin { tables: tables.clone(), metrics: metrics.clone(), drain: drain.clone() };
    server.add_service(Entrance {
        name: "admin",
        threads: Some(1),
        doors: vec![(listeners.admin, admin)],
        guests: Guests::new(PLACES, metrics.admin_connections.clone(), metrics.admin_evicted.clone()),
        place: place(),
        drain: drain.clone(),
        failures: metrics.shortages.with_label_values(&["accept"]),
    });

    let Conversation { link, agent, stored } = conversation;
    let bridge = BridgeLink { address: tables.bridge.clone(), token: link.token, http: link::client()? };
    let agent = Agent {
        tables,
        metrics,
        agent,
        stored,
        listen: settings.listen.clone(),
        https: settings.tls.as_ref().map(|tls| format!("https://{}", tls.listen)).zip(tls),
        health: Question::of(settings),
        bridge,
        drain,
        place: place(),
        ignored: Ignored::default(),
    };
    server.add_service(background_service("agent", agent));
    server.add_service(background_service("succession", succession));
    Ok(server)
}

fn finish_log(writer: JoinHandle<()>) {
    let deadline = Instant::now() + LOG_END_MAX;
    while !writer.is_finished() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
}
