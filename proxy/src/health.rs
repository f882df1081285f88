//! Active health checks. Every few seconds, each address is connected to or asked for the plan's health path, and its
//! name is resolved again.
//!
//! It decides nothing about requests. [`crate::upstream::Target`] counts the results.

use crate::descriptors::{comes_of_shortage, is_shortage};
use crate::table::Tables;
use crate::upstream::Target;
use migrations::plan::ProxySettings;
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use prometheus::IntCounter;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const ROUND: Duration = Duration::from_secs(2);
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// Checks all addresses of the live table in rounds. Never returns.
pub(crate) async fn keep_checking(tables: Arc<Tables>, question: Option<Question>, shortages: IntCounter) {
    // A connector reads the machine's certificate authorities, so all checks use one.
    let asker = question.map(|question| Arc::new(Asker { question, connector: Connector::new(None) }));
    loop {
        let mut checks = JoinSet::new();
        for target in tables.live().iter().flat_map(|live| live.targets()) {
            checks.spawn(check(target, asker.clone(), shortages.clone()));
        }
        while checks.join_next().await.is_some() {}
        tables.sweep();
        tokio::time::sleep(ROUND).await;
    }
}

/// What an upstream is asked.
#[derive(Clone)]
pub(crate) struct Question {
    path: String,
    /// `None`: the upstream's address.
    host: Option<String>,
}

impl Question {
    /// `None` if a connection is enough.
    pub(crate) fn of(settings: &ProxySettings) -> Option<Self> {
        Some(Self { path: settings.health_path.clone()?, host: settings.health_host.clone() })
    }
}

struct Asker {
    question: Question,
    connector: Connector,
}

async fn check(target: Arc<Target>, asker: Option<Arc<Asker>>, shortages: IntCounter) {
    match tokio::time::timeout(CHECK_TIMEOUT, is_well(&target, asker.as_deref())).await {
        Ok(Ok(true)) => target.note_success(),
        Ok(Ok(false)) | Err(_) => target.note_failure(),
        Ok(Err(Shortage)) => {
            shortages.inc();
            tracing::warn!(upstream = %target.upstream, "cannot check it: no file descriptor or local port is left");
        }
    }
}

/// This machine or process had no means to ask.
struct Shortage;

async fn is_well(target: &Arc<Target>, asker: Option<&Asker>) -> Result<bool, Shortage> {
    let resolver = target.clone();
    let mut addresses = tokio::task::spawn_blocking(move || resolver.look_up()).await.unwrap_or_default();
    // The address in use is kept while the name still has it and it answers.
    addresses.sort_by_key(|address| Some(*address) != target.address());
    let mut is_short = false;
    for number in 0..addresses.len() {
        let address = addresses[number];
        match TcpStream::connect(address).await {
            Ok(_) => {
                addresses.rotate_left(number);
                target.resolve_to(&addresses);
                return match asker {
                    Some(asker) => answers(target, address, asker).await,
                    None => Ok(true),
                };
            }
            Err(error) if is_shortage(&error) => is_short = true,
            Err(_) => {}
        }
    }
    if is_short { Err(Shortage) } else { Ok(false) }
}

/// Whether the health path answers 2xx, on its own connection.
async fn answers(target: &Target, address: SocketAddr, asker: &Asker) -> Result<bool, Shortage> {
    let Some(peer) = target.peer().filter(|_| target.address() == Some(address)) else { return Ok(false) };
    let asked = async {
        let (mut session, _) = asker.connector.get_http_session(&peer).await?;
        let mut request = RequestHeader::build("GET", asker.question.path.as_bytes(), Some(3))?;
        let host = asker.question.host.clone().unwrap_or_else(|| target.upstream.authority());
        request.insert_header(http::header::HOST, host)?;
        request.insert_header(http::header::USER_AGENT, "strangler-health")?;
        request.insert_header(http::header::CONNECTION, "close")?;
        session.write_request_header(Box::new(request)).await?;
        session.finish_request_body().await?;
        session.read_response_header().await?;
        let status = session.response_header().map(|header| header.status);
        Ok::<_, Box<pingora::Error>>(status.is_some_and(|status| status.is_success()))
    };
    match asked.await {
        Err(error) if comes_of_shortage(&error) => Err(Shortage),
        asked => Ok(asked.unwrap_or(false)),
    }
}
