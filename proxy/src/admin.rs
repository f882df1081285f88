//! The admin listener: `/metrics`, `/healthz` and `/readyz`, for operators and orchestrators. It only reads.

use crate::answer::reason;
use crate::drain::Drain;
use crate::entrance::Host;
use crate::guests::Seat;
use crate::metrics::Metrics;
use crate::relay;
use crate::table::Tables;
use crate::visit::Visit;
use crate::wire::socket::Socket;
use http1::{Framing, Malformed, OutgoingHead, RequestHead};
use link::ActsOn;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::net::TcpStream;

/// Connections at one time. When there are more, the one leaves that has waited longest, so that nobody is shut out.
pub(crate) const PLACES: usize = 32;
/// What asks here sends little.
const HEAD_BYTES_MAX: usize = 16 << 10;

#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) tables: Arc<Tables>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) drain: Arc<Drain>,
}

impl Host for Admin {
    fn receive(
        &self,
        stream: TcpStream,
        peer: IpAddr,
        seat: Seat,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (admin, visit) =
            (self.clone(), Visit::new(Socket::Client(stream), peer, HEAD_BYTES_MAX, seat, &self.drain));
        async move { admin.serve(visit).await }
    }
}

/// Status, kind and body.
type Page = (u16, &'static str, Vec<u8>);

impl Admin {
    async fn serve(&self, mut visit: Visit) {
        while visit.is_kept {
            let page = match visit.next_request().await {
                Ok(false) => return,
                Ok(true) => match Framing::of_request(&visit.request) {
                    Ok(framing) => {
                        // A body is not read.
                        visit.is_kept &= framing == Framing::Empty && !visit.is_stopping();
                        self.page(&visit.request)
                    }
                    Err(Malformed(why)) => malformed(&mut visit, why),
                },
                Err(_) => malformed(&mut visit, "the head cannot be read, or is late"),
            };
            write(&mut visit, page);
            if relay::flush(&mut visit.wire, &mut visit.deadline).await.is_err() {
                return;
            }
        }
        visit.leave().await;
    }

    fn page(&self, request: &RequestHead) -> Page {
        match (request.method(), request.path()) {
            ("GET", b"/metrics") => (200, "text/plain; version=0.0.4", self.counts()),
            ("GET" | "HEAD", b"/healthz") => json(200, "{\"status\":\"alive\"}"),
            ("GET" | "HEAD", b"/readyz") => self.readiness(),
            _ => json(404, "{\"error\":\"not found; try /metrics, /healthz or /readyz\"}"),
        }
    }

    fn counts(&self) -> Vec<u8> {
        self.tables.add_up();
        self.metrics.text()
    }

    fn readiness(&self) -> Page {
        match self.tables.acts_on() {
            Some(ActsOn { journal, generation, plan }) => {
                let body = serde_json::json!({
                    "status": "ready", "journal": journal, "generation": generation, "plan": plan
                });
                (200, "application/json", body.to_string().into_bytes())
            }
            None => json(503, "{\"error\":\"no routing table yet\",\"hint\":\"start the controller\"}"),
        }
    }
}

fn json(status: u16, body: &str) -> Page {
    (status, "application/json", body.as_bytes().to_vec())
}

fn malformed(visit: &mut Visit, why: &str) -> Page {
    visit.is_kept = false;
    (400, "application/json", serde_json::json!({ "error": why }).to_string().into_bytes())
}

fn write(visit: &mut Visit, (status, kind, body): Page) {
    let out = &mut visit.wire.outbox;
    let mut head = OutgoingHead::status(status, reason(status).as_bytes(), out);
    head.field(b"Content-Type", kind.as_bytes());
    head.framing(Framing::Length(body.len() as u64));
    head.field(b"Connection", if visit.is_kept { b"keep-alive" } else { b"close" });
    head.end();
    if visit.request.method() != "HEAD" {
        out.extend_from_slice(&body);
    }
}
