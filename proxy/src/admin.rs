//! The admin listener: `/metrics`, `/healthz` and `/readyz`, for operators and orchestrators. It only reads.

use crate::metrics::Metrics;
use crate::table::Tables;
use async_trait::async_trait;
use http::{Response, StatusCode, header};
use link::ActsOn;
use pingora::apps::http_app::ServeHttp;
use pingora::protocols::http::ServerSession;
use std::sync::Arc;

pub(crate) struct Admin {
    pub(crate) tables: Arc<Tables>,
    pub(crate) metrics: Arc<Metrics>,
}

#[async_trait]
impl ServeHttp for Admin {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let request = session.req_header();
        let (status, kind, body) = match (request.method.as_str(), request.uri.path()) {
            ("GET", "/metrics") => (StatusCode::OK, "text/plain; version=0.0.4", self.counts()),
            ("GET" | "HEAD", "/healthz") => json(StatusCode::OK, "{\"status\":\"alive\"}"),
            ("GET" | "HEAD", "/readyz") => self.readiness(),
            _ => json(StatusCode::NOT_FOUND, "{\"error\":\"not found; try /metrics, /healthz or /readyz\"}"),
        };
        let body = if request.method == http::Method::HEAD { Vec::new() } else { body };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let length = response.body().len().into();
        response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
        response.headers_mut().insert(header::CONTENT_LENGTH, length);
        response
    }
}

impl Admin {
    fn counts(&self) -> Vec<u8> {
        self.tables.add_up();
        self.metrics.text()
    }

    fn readiness(&self) -> (StatusCode, &'static str, Vec<u8>) {
        match self.tables.acts_on() {
            Some(ActsOn { journal, generation, plan }) => {
                let body = serde_json::json!({
                    "status": "ready", "journal": journal, "generation": generation, "plan": plan
                });
                (StatusCode::OK, "application/json", body.to_string().into_bytes())
            }
            None => json(
                StatusCode::SERVICE_UNAVAILABLE,
                "{\"error\":\"no routing table yet\",\"hint\":\"start the controller\"}",
            ),
        }
    }
}

fn json(status: StatusCode, body: &str) -> (StatusCode, &'static str, Vec<u8>) {
    (status, "application/json", body.as_bytes().to_vec())
}
