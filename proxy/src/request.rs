//! The life of a request, from its head to the line in the access log.
//!
//! What is found out, decided and marked is [`Exchange`]'s; moving bytes is [`relay`]'s. Here is only the order, and what
//! follows when something fails.

use crate::access_log::{AccessLog, Line};
use crate::answer::Answer;
use crate::connection::Connection;
use crate::exchange::Exchange;
use crate::failure::Failure;
use crate::freshness::seen::ProxyTag;
use crate::headers::{self, Forwarded, Returned};
use crate::limits;
use crate::metrics::Metrics;
use crate::passage::Passage;
use crate::relay;
use crate::route::decision::Side;
use crate::table::Tables;
use crate::visit::Visit;
use async_trait::async_trait;
use http1::Framing;
use http1::{Fields, Name};
use migrations::plan::ProxySettings;
use pingora::apps::ServerApp;
use pingora::connectors::TransportConnector;
use pingora::protocols::Stream;
use pingora::server::ShutdownWatch;
use std::sync::Arc;
use std::time::Duration;
use subtle::ConstantTimeEq;

/// How long a read waits for a barrier that would let the service answer it.
const BARRIER_PATIENCE: Duration = Duration::from_millis(15);
/// A request is sent to so many further addresses of the same upstream when one cannot be connected to.
const REPEATS_MAX: usize = 2;

/// What answers requests.
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
    /// What connects to upstreams.
    pub connector: TransportConnector,
}

#[async_trait]
impl ServerApp for Requests {
    /// Serves the requests of one connection.
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let mut visit = Visit::new(stream, shutdown);
        while visit.is_kept {
            match visit.next_request().await {
                Ok(true) => self.serve(&mut visit).await,
                Ok(false) => return None,
                Err(failure) => {
                    visit.is_kept = false;
                    self.tell(&mut visit, &mut Exchange::default(), failure).await;
                }
            }
        }
        visit.leave().await;
        None
    }
}

impl Requests {
    async fn serve(&self, visit: &mut Visit) {
        let mut exchange = Exchange::default();
        let peer = visit.peer.unwrap_or(exchange.address);
        exchange.address =
            headers::client_address(&visit.request.fields, peer, self.settings.trust_forwarded);
        exchange.is_upgrade = visit.request.is_upgrade();
        if let Err(failure) = self.attend(visit, &mut exchange).await {
            // What is left of the request or of the answer makes the rest of the connection unreadable.
            visit.is_kept = false;
            self.tell(visit, &mut exchange, failure).await;
        }
        exchange.mark(&self.tables, &visit.request, true, &self.metrics);
        self.count(visit, &exchange);
    }

    /// Has the request answered by an upstream, by another one if it must be and may be.
    async fn attend(&self, visit: &mut Visit, exchange: &mut Exchange) -> Result<(), Failure> {
        let bytes_max = self.settings.body_bytes_max;
        let framing = limits::admitted(&visit.request, bytes_max)?;
        let live = self.tables.live().ok_or(Failure::NoTable)?;
        let asked = self.asked_side(&visit.request.fields);
        exchange.begin(live, &visit.request, asked, self.tag, &self.tables.count);
        if let Some(wait) = exchange.worth_waiting()
            && wait.freshness.passes_within(wait.mark, BARRIER_PATIENCE).await
        {
            exchange.decide();
        }
        let mut upload = Passage::new(framing, framing, bytes_max);
        if exchange.is_read && framing != Framing::Empty {
            upload.keep_copy();
        }
        loop {
            let mut was_used = false;
            let sent = match self.connect(exchange).await {
                Ok(connection) => {
                    was_used = connection.is_used;
                    self.forward(visit, exchange, connection, &mut upload).await
                }
                Err(failure) => Err(failure),
            };
            match sent {
                Err(failure) if self.may_repeat(failure, exchange, &upload, was_used) => {}
                ended => return ended,
            }
        }
    }

    async fn connect(&self, exchange: &mut Exchange) -> Result<Connection, Failure> {
        exchange.target = exchange.pool().and_then(|pool| pool.pick()).cloned();
        let target = exchange.target.as_ref().ok_or(Failure::Unresolved)?;
        // What is sent again because a kept connection was worn out must not meet another one.
        Connection::to(target, &self.connector, exchange.repeats > 0).await
    }

    /// Sends the request to an upstream, and its answer to the client.
    async fn forward(
        &self,
        visit: &mut Visit,
        exchange: &mut Exchange,
        mut connection: Connection,
        upload: &mut Passage,
    ) -> Result<(), Failure> {
        let Some(target) = exchange.target.clone() else { return Err(Failure::Unresolved) };
        self.send(visit, exchange, &mut connection, upload).await?;
        if !target.is_well() {
            target.note_success();
        }
        let (came, goes) = self.take_answer(visit, exchange, upload)?;
        let mut relay = visit.relay(&mut connection.wire, target.patience.read);
        if relay.answer.status == 101 {
            relay.tell().await?;
            exchange.answer_bytes = relay.tunnel().await;
            return Ok(());
        }
        let mut download = Passage::new(came, goes, self.settings.body_bytes_max);
        let passed = relay.bring(upload, &mut download).await;
        exchange.answer_bytes = download.bytes;
        passed?;
        if upload.is_whole() && came != Framing::UntilClose && visit.answer.wants_more() {
            target.kept.keep(connection);
        }
        Ok(())
    }

    /// Sends the request until the head of its answer is here; heads before that one are passed on.
    async fn send(
        &self,
        visit: &mut Visit,
        exchange: &mut Exchange,
        connection: &mut Connection,
        upload: &mut Passage,
    ) -> Result<(), Failure> {
        exchange.is_sent = true;
        visit.answer.begin();
        let trace = headers::traced(&visit.request.fields, exchange.trace.take());
        let trust = self.settings.trust_forwarded;
        let upstream = exchange.target.as_ref().map(|target| &target.upstream);
        Forwarded { peer: visit.peer, trust, framing: upload.goes, trace: &trace, upstream }
            .write(&visit.request, &mut connection.wire.outbox);
        exchange.trace = Some(trace);
        upload.begin(&mut connection.wire);
        let patience = exchange.target.as_ref().map_or(Duration::ZERO, |target| target.patience.read);
        let mut relay = visit.relay(&mut connection.wire, patience);
        relay.ask(upload).await?;
        while relay.answer.is_interim() {
            if !relay.request.is_old {
                headers::write_interim(relay.answer, &mut relay.client.outbox);
                relay.tell().await?;
            }
            relay.ask(upload).await?;
        }
        Ok(())
    }

    /// Marks who must be marked, and writes the answer's head. How its body comes, and how it goes on.
    fn take_answer(
        &self,
        visit: &mut Visit,
        exchange: &mut Exchange,
        upload: &Passage,
    ) -> Result<(Framing, Framing), Failure> {
        let (request, answer) = (&visit.request, &visit.answer);
        let came = limits::accepted(answer, request, self.settings.body_bytes_max)?;
        if answer.status == 101 && !upload.is_whole() {
            // What is left of the request's body would be taken for words of the other protocol.
            return Err(Failure::Broken);
        }
        // An HTTP/1.0 client knows no chunks: its answer ends with the connection.
        let goes = match came {
            Framing::Chunked | Framing::UntilClose if request.is_old => Framing::UntilClose,
            Framing::UntilClose => Framing::Chunked,
            other => other,
        };
        // An answer before the request's end leaves the rest of the request on the connection.
        let is_readable = upload.is_whole() && goes != Framing::UntilClose && answer.status != 101;
        visit.is_kept &= is_readable && !visit.is_last();
        exchange.is_answered = true;
        exchange.status = Some(answer.status);
        exchange.introduce();
        exchange.mark(&self.tables, request, false, &self.metrics);
        let location = self.kept_on_host(visit, exchange);
        let cookies = exchange.cookies(self.tag);
        Returned {
            request,
            framing: goes,
            is_kept: visit.is_kept,
            location: location.as_deref(),
            cookies: &cookies,
        }
        .write(answer, &mut visit.wire.outbox);
        Ok((came, goes))
    }

    /// Whether a request that failed is sent again, to whom it then belongs. What was sent and may write never is.
    fn may_repeat(
        &self,
        failure: Failure,
        exchange: &mut Exchange,
        upload: &Passage,
        was_used: bool,
    ) -> bool {
        if !failure.is_upstreams() {
            return false;
        }
        if failure == Failure::Unresolved {
            return exchange.fall_back();
        }
        if let Some(pool) = exchange.pool() {
            let counters = &pool.counters;
            if failure.is_late() { counters.timeouts.inc() } else { counters.broken.inc() }
        }
        if failure.is_unconnected() {
            if let Some(target) = &exchange.target {
                target.note_failure();
            }
            // Nothing was sent, so even a write may try the next address of the same upstream.
            let addresses = exchange.pool().map_or(0, |pool| pool.targets.len());
            let has_another = exchange.repeats < REPEATS_MAX.min(addresses.saturating_sub(1));
            exchange.repeats += 1;
            return has_another || exchange.fall_back();
        }
        if exchange.is_answered || !exchange.is_read || !upload.is_repeatable() {
            // A write may have happened although nothing came back.
            return false;
        }
        // The upstream may have closed a kept connection just when it was used again: a fresh one is tried once.
        let is_worn_out = was_used && failure == Failure::Broken && exchange.repeats == 0;
        exchange.repeats += 1;
        is_worn_out || exchange.fall_back()
    }

    /// Tells the client what went wrong, if it was told nothing yet.
    async fn tell(&self, visit: &mut Visit, exchange: &mut Exchange, failure: Failure) {
        let upstream = exchange.pool().map(|pool| pool.name.clone());
        let answer = Answer::to(failure, upstream.as_deref()).filter(|_| exchange.status.is_none());
        let Some(answer) = answer else { return };
        if exchange.live.is_none() {
            let why = match answer.status {
                503 => "no-table",
                413 => "too-large",
                _ => "framing",
            };
            self.metrics.refused.with_label_values(&[why]).inc();
        }
        if matches!(answer.status, 502..=504) {
            self.metrics.failed.inc();
        }
        exchange.mark(&self.tables, &visit.request, false, &self.metrics);
        exchange.status = Some(answer.status);
        let is_head = visit.request.method() == "HEAD";
        exchange.answer_bytes = answer.write(&mut visit.wire.outbox, &exchange.cookies(self.tag), is_head);
        if relay::tell(&mut visit.wire, &mut visit.deadline).await.is_err() {
            tracing::debug!("the client left before it was told of a failure");
        }
    }

    fn asked_side(&self, fields: &Fields) -> Option<Side> {
        let side = fields.first(Name::Side)?;
        let told = fields.first(Name::Secret).unwrap_or_default();
        let secret = self.settings.override_secret.as_ref();
        if !secret.is_some_and(|secret| bool::from(secret.expose().as_bytes().ct_eq(told))) {
            self.metrics.overrides_refused.inc();
            return None;
        }
        match side {
            b"monolith" => Some(Side::Monolith),
            b"service" => Some(Side::Service),
            _ => None,
        }
    }

    /// Where a redirect to an upstream leads instead: to the host that the client used.
    fn kept_on_host(&self, visit: &Visit, exchange: &Exchange) -> Option<String> {
        let location = std::str::from_utf8(visit.answer.fields.first(Name::Location)?).ok()?;
        let host = std::str::from_utf8(visit.request.fields.first(Name::Host)?).ok()?;
        let live = exchange.live.as_ref()?;
        let scheme = headers::client_scheme(&visit.request.fields, self.settings.trust_forwarded);
        let is_upstream = |tls, authority: &str| live.is_upstream(tls, authority);
        headers::location::rewritten(location, scheme, host, is_upstream)
    }

    fn count(&self, visit: &Visit, exchange: &Exchange) {
        let status = exchange.status.unwrap_or(499);
        let took = exchange.started.elapsed();
        let matched = exchange.matched();
        let upstream = exchange.pool();
        if let (Some(live), Some(pool)) = (&exchange.live, upstream) {
            live.counters.count(exchange.route, exchange.decision.side, status);
            self.metrics.decided(exchange.decision.why);
            pool.counters.latency.observe(took.as_secs_f64());
            if exchange.is_answered {
                pool.counters.answered.inc();
            }
        }
        self.log.write(&Line {
            method: visit.request.method(),
            path: visit.request.path(),
            status,
            upstream: upstream.map_or("", |pool| &*pool.name),
            slice: matched.map(|route| &*route.slice.name),
            route: matched.map(|route| &*route.name),
            why: exchange.live.as_ref().map_or("refused", |_| exchange.decision.why.word()),
            took,
            bytes: exchange.answer_bytes,
            client: exchange.address,
            trace: exchange.trace.as_ref(),
        });
    }
}
