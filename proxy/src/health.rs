//! Active health checks: every few seconds each address is connected to, or asked for the plan's health path,
//! and its name is resolved again.
//!
//! Decides nothing about requests; [`crate::upstream::Target`] counts what is found here.

use crate::table::Tables;
use crate::upstream::Target;
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Time between two rounds of checks.
const ROUND: Duration = Duration::from_secs(2);
/// A check that takes longer has failed.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// Checks all addresses of the live table, round after round; never returns.
pub async fn keep_checking(tables: Arc<Tables>, health_path: Option<String>) {
    let health_path: Option<Arc<str>> = health_path.map(Into::into);
    loop {
        let mut checks = JoinSet::new();
        for target in tables.live().iter().flat_map(|live| live.targets()) {
            checks.spawn(check(target, health_path.clone()));
        }
        while checks.join_next().await.is_some() {}
        tokio::time::sleep(ROUND).await;
    }
}

async fn check(target: Arc<Target>, health_path: Option<Arc<str>>) {
    let found = tokio::time::timeout(CHECK_TIMEOUT, is_well(&target, health_path.as_deref())).await;
    if found.unwrap_or(false) { target.note_success() } else { target.note_failure() }
}

async fn is_well(target: &Arc<Target>, health_path: Option<&str>) -> bool {
    let resolver = target.clone();
    let mut addresses = tokio::task::spawn_blocking(move || resolver.look_up()).await.unwrap_or_default();
    // The address in use stays in use as long as the name still has it and it answers.
    addresses.sort_by_key(|address| Some(*address) != target.address());
    for address in addresses {
        if TcpStream::connect(address).await.is_ok() {
            target.resolve_to(address);
            return match health_path {
                Some(path) => answers(target, address, path).await,
                None => true,
            };
        }
    }
    false
}

/// Whether the health path is answered with 2xx, on a connection of its own.
async fn answers(target: &Target, address: SocketAddr, path: &str) -> bool {
    let Some(peer) = target.peer(false).filter(|_| target.address() == Some(address)) else { return false };
    let asked = async {
        let connector = Connector::new(None);
        let (mut session, _) = connector.get_http_session(&*peer).await?;
        let mut request = RequestHeader::build("GET", path.as_bytes(), Some(3))?;
        request.insert_header(
            http::header::HOST,
            format!("{}:{}", target.upstream.host, target.upstream.port),
        )?;
        request.insert_header(http::header::USER_AGENT, "strangler-health")?;
        request.insert_header(http::header::CONNECTION, "close")?;
        session.write_request_header(Box::new(request)).await?;
        session.finish_request_body().await?;
        session.read_response_header().await?;
        let status = session.response_header().map(|header| header.status);
        Ok::<_, Box<pingora::Error>>(status.is_some_and(|status| status.is_success()))
    };
    asked.await.unwrap_or(false)
}
