//! The life of a request as Pingora calls it: one callback, one short call.
//!
//! What is found out, decided and marked is [`Exchange`]'s; here is only the order, and what Pingora must be told.

use crate::access_log::{AccessLog, Line};
use crate::answer::{ANSWER_TOO_LARGE, Answer};
use crate::exchange::Exchange;
use crate::freshness::seen::ProxyTag;
use crate::headers;
use crate::limits;
use crate::metrics::Metrics;
use crate::route::decision::Side;
use crate::table::Tables;
use async_trait::async_trait;
use bytes::Bytes;
use http::header;
use migrations::plan::ProxySettings;
use pingora::ErrorSource::Upstream;
use pingora::ErrorType::{
    ConnectNoRoute, ConnectTimedout, HTTPStatus, ReadTimedout, TLSHandshakeTimedout, WriteTimedout,
};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, Result};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use subtle::ConstantTimeEq;

/// How long a read waits for a barrier that would let the service answer it.
const BARRIER_PATIENCE: Duration = Duration::from_millis(15);
/// A request is sent to so many further addresses of the same upstream when one cannot be connected to.
const REPEATS_MAX: usize = 2;

/// The proxy as Pingora sees it.
pub struct Requests {
    /// The table in use.
    pub tables: Arc<Tables>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Where requests are logged.
    pub log: AccessLog,
    /// The plan's settings.
    pub settings: ProxySettings,
    /// Who we are, in cookies.
    pub tag: ProxyTag,
}

#[async_trait]
impl ProxyHttp for Requests {
    type CTX = Exchange;

    fn new_ctx(&self) -> Exchange {
        Exchange::default()
    }

    fn init_downstream_modules(&self, _modules: &mut HttpModules) {
        // Pingora's own choice is compression, switched off but carried along by every request.
    }

    async fn request_filter(&self, session: &mut Session, exchange: &mut Exchange) -> Result<bool> {
        self.recognise(session, exchange);
        if let Some(refusal) = limits::refusal(session, self.settings.body_bytes_max) {
            return self.refuse(session, refusal).await;
        }
        let Some(live) = self.tables.live() else { return self.refuse(session, Answer::no_table()).await };
        let asked = self.asked_side(session);
        exchange.begin(live, session.req_header(), asked, self.tag, &self.tables.count);
        if let Some(wait) = exchange.worth_waiting()
            && wait.freshness.passes_within(wait.mark, BARRIER_PATIENCE).await
        {
            exchange.decide();
        }
        Ok(false)
    }

    async fn upstream_peer(&self, session: &mut Session, exchange: &mut Exchange) -> Result<Box<HttpPeer>> {
        exchange.body_bytes = 0;
        exchange.target = exchange.pool().and_then(|pool| pool.pick()).cloned();
        let headers = &session.req_header().headers;
        let peer = exchange.target.as_ref().and_then(|target| target.peer_for(headers, exchange.is_upgrade));
        match peer {
            Some(peer) => Ok(peer),
            None => {
                let mut error =
                    Error::explain(ConnectNoRoute, "the upstream's name cannot be resolved").into_up();
                error.set_retry(exchange.fall_back());
                Err(error)
            }
        }
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        exchange: &mut Exchange,
    ) -> Result<()> {
        exchange.is_sent = true;
        headers::forward(request, peer_address(session), self.settings.trust_forwarded)?;
        exchange.trace = Some(headers::traced(request, exchange.trace.take())?);
        Ok(())
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        _end: bool,
        exchange: &mut Exchange,
    ) -> Result<()> {
        exchange.body_bytes += body.as_ref().map_or(0, |bytes| bytes.len() as u64);
        let is_too_large = self.settings.body_bytes_max.is_some_and(|max| exchange.body_bytes > max);
        if is_too_large && !session.was_upgraded() {
            return Err(Error::explain(HTTPStatus(413), "the request's body is too large").into_down());
        }
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        answer: &mut ResponseHeader,
        exchange: &mut Exchange,
    ) -> Result<()> {
        if answer.status.is_informational() && answer.status != http::StatusCode::SWITCHING_PROTOCOLS {
            return Ok(());
        }
        if session.req_header().method != http::Method::HEAD {
            limits::check_answer(answer, self.settings.body_bytes_max)?;
        }
        exchange.is_answered = true;
        if let Some(target) = &exchange.target
            && !target.is_well()
        {
            target.note_success();
        }
        self.keep_on_host(session.req_header(), answer, exchange)?;
        exchange.introduce();
        exchange.mark(&self.tables, session.req_header(), false, &self.metrics);
        for cookie in exchange.cookies(self.tag) {
            answer.append_header(header::SET_COOKIE, cookie)?;
        }
        Ok(())
    }

    fn upstream_response_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        _end: bool,
        exchange: &mut Exchange,
    ) -> Result<Option<Duration>> {
        exchange.answer_bytes += body.as_ref().map_or(0, |bytes| bytes.len() as u64);
        let is_too_large = self.settings.body_bytes_max.is_some_and(|max| exchange.answer_bytes > max);
        if is_too_large && !session.was_upgraded() {
            return Err(Error::new_up(ANSWER_TOO_LARGE));
        }
        Ok(None)
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        exchange: &mut Exchange,
        mut error: Box<Error>,
    ) -> Box<Error> {
        self.count_failure(&error, exchange);
        if let Some(target) = &exchange.target {
            target.note_failure();
        }
        // Nothing was sent, so even a write may try the next address of the same upstream.
        let addresses = exchange.pool().map_or(0, |pool| pool.targets.len());
        let has_another = exchange.repeats < REPEATS_MAX.min(addresses.saturating_sub(1));
        exchange.repeats += 1;
        error.set_retry(has_another || exchange.fall_back());
        error
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        exchange: &mut Exchange,
        reused: bool,
    ) -> Box<Error> {
        if *error.esource() != Upstream {
            error.set_retry(false);
            return error;
        }
        self.count_failure(&error, exchange);
        let is_unanswered = !exchange.is_answered && session.response_written().is_none();
        if !is_unanswered || !exchange.is_read || session.as_ref().retry_buffer_truncated() {
            // A write may have happened although nothing came back; it is never sent twice.
            error.set_retry(false);
            return error;
        }
        // The upstream may have closed a kept connection just when it was used again: a fresh one is tried once.
        let is_worn_out = reused && !is_timeout(&error) && exchange.repeats == 0;
        exchange.repeats += 1;
        error.set_retry(is_worn_out || exchange.fall_back());
        error
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        exchange: &mut Exchange,
    ) -> FailToProxy {
        let upstream = exchange.pool().map(|pool| pool.name.clone());
        let answer = Answer::to_failure(error, upstream.as_deref());
        let status = answer.as_ref().map_or(0, |answer| answer.status);
        if let Some(answer) = answer.filter(|_| session.response_written().is_none()) {
            if matches!(status, 502..=504) {
                self.metrics.failed.inc();
            }
            session.set_keepalive(None);
            exchange.mark(&self.tables, session.req_header(), false, &self.metrics);
            if let Err(error) = answer.send(session, exchange.cookies(self.tag)).await {
                tracing::debug!(%error, "the client left before it was told of a failure");
            }
        }
        FailToProxy { error_code: status, can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, _error: Option<&Error>, exchange: &mut Exchange) {
        exchange.mark(&self.tables, session.req_header(), true, &self.metrics);
        self.count(session, exchange);
    }

    fn suppress_error_log(&self, _session: &Session, _exchange: &Exchange, _error: &Error) -> bool {
        // The access log and the metrics say it.
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _exchange: &Exchange,
        _error: &Error,
        _context: ProxyWarnLogContext,
    ) -> bool {
        true
    }
}

impl Requests {
    fn recognise(&self, session: &mut Session, exchange: &mut Exchange) {
        exchange.is_upgrade = session.is_upgrade_req();
        limits::set(session, exchange.is_upgrade);
        let peer = peer_address(session).unwrap_or(exchange.address);
        exchange.address =
            headers::client_address(&session.req_header().headers, peer, self.settings.trust_forwarded);
    }

    async fn refuse(&self, session: &mut Session, refusal: Answer) -> Result<bool> {
        let why = match refusal.status {
            503 => "no-table",
            413 => "too-large",
            _ => "framing",
        };
        self.metrics.refused.with_label_values(&[why]).inc();
        if refusal.status == 503 {
            self.metrics.failed.inc();
        }
        // The request's body stays unread, and what follows it on the connection cannot be trusted.
        session.set_keepalive(None);
        refusal.send(session, Vec::new()).await?;
        Ok(true)
    }

    fn asked_side(&self, session: &Session) -> Option<Side> {
        let headers = &session.req_header().headers;
        if !headers::has_ours(headers) {
            return None;
        }
        let side = headers.get(headers::SIDE)?;
        let told = headers.get(headers::SECRET).map_or(&b""[..], |value| value.as_bytes());
        let secret = self.settings.override_secret.as_ref();
        if !secret.is_some_and(|secret| bool::from(secret.expose().as_bytes().ct_eq(told))) {
            self.metrics.overrides_refused.inc();
            return None;
        }
        match side.as_bytes() {
            b"monolith" => Some(Side::Monolith),
            b"service" => Some(Side::Service),
            _ => None,
        }
    }

    fn keep_on_host(
        &self,
        request: &RequestHeader,
        answer: &mut ResponseHeader,
        exchange: &Exchange,
    ) -> Result<()> {
        let Some(location) = answer.headers.get(header::LOCATION).and_then(|value| value.to_str().ok())
        else {
            return Ok(());
        };
        let host = request.headers.get(header::HOST).and_then(|value| value.to_str().ok());
        let (Some(live), Some(host)) = (&exchange.live, host) else { return Ok(()) };
        let scheme = headers::client_scheme(&request.headers, self.settings.trust_forwarded);
        let is_upstream = |tls, authority: &str| live.is_upstream(tls, authority);
        match headers::location::rewritten(location, scheme, host, is_upstream) {
            Some(rewritten) => answer.insert_header(header::LOCATION, rewritten),
            None => Ok(()),
        }
    }

    fn count_failure(&self, error: &Error, exchange: &Exchange) {
        if let Some(pool) = exchange.pool() {
            let counters = &pool.counters;
            if is_timeout(error) { counters.timeouts.inc() } else { counters.broken.inc() }
        }
    }

    fn count(&self, session: &Session, exchange: &Exchange) {
        let status = session.response_written().map_or(499, |head| head.status.as_u16());
        let took = exchange.started.elapsed();
        let matched = exchange.matched();
        let upstream = exchange.pool();
        let name = upstream.map_or("", |pool| &*pool.name);
        if let (Some(live), Some(pool)) = (&exchange.live, upstream) {
            live.counters.count(exchange.route, exchange.decision.side, status);
            self.metrics.decided(exchange.decision.why);
            pool.counters.latency.observe(took.as_secs_f64());
            if exchange.is_answered {
                pool.counters.answered.inc();
            }
        }
        let request = session.req_header();
        self.log.write(&Line {
            method: request.method.as_str(),
            path: crate::route::path_of(request.raw_path(), request.uri.path()),
            status,
            upstream: name,
            slice: matched.map(|route| &*route.slice.name),
            route: matched.map(|route| &*route.name),
            why: exchange.live.as_ref().map_or("refused", |_| exchange.decision.why.word()),
            took,
            bytes: session.body_bytes_sent(),
            client: exchange.address,
            trace: exchange.trace.as_ref(),
        });
    }
}

fn is_timeout(error: &Error) -> bool {
    matches!(error.etype(), ConnectTimedout | ReadTimedout | WriteTimedout | TLSHandshakeTimedout)
}

fn peer_address(session: &Session) -> Option<IpAddr> {
    session.client_addr().and_then(|address| address.as_inet()).map(|address| address.ip())
}
