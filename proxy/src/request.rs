//! The life of a request, from its head to its line in the access log.
//!
//! [`Exchange`] finds things out, decides and marks. [`relay`] moves bytes. `wait.rs` is the one place where a request
//! waits. This file holds the order of the steps, and what follows a failure.

use crate::access_log::{AccessLog, Line};
use crate::answer::Answer;
use crate::connection::Connection;
use crate::drain::Drain;
use crate::entrance::Host;
use crate::exchange::{Arrived, CLIENT_LEFT, Exchange};
use crate::failure::Failure;
use crate::freshness::seen::ProxyTag;
use crate::guests::Seat;
use crate::headers::trace::Trace;
use crate::headers::{self, Forwarded, Returned};
use crate::last_hop;
use crate::metrics::Metrics;
use crate::passage::Passage;
use crate::redirect;
use crate::relay;
use crate::route::decision::{Side, Why};
use crate::table::{Live, Tables};
use crate::tally::End;
use crate::tls::{Guest, Tls};
use crate::upstream::Target;
use crate::visit::Visit;
use crate::wire::socket::Socket;
use http1::{Fields, Framing, HEAD_TOO_LARGE, Malformed, Name, RequestHead, TOO_MANY_FIELDS};
use migrations::path;
use migrations::plan::{ProxySettings, Reuse};
use pingora::connectors::TransportConnector;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;
use subtle::ConstantTimeEq;
use tokio::net::TcpStream;

/// If an address cannot be connected to, this many other addresses of the same upstream are tried.
const REPEATS_MAX: usize = 2;

pub(crate) struct Requests {
    pub(crate) tables: Arc<Tables>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) log: AccessLog,
    pub(crate) settings: ProxySettings,
    /// Names this process in cookies.
    pub(crate) tag: ProxyTag,
    pub(crate) connector: TransportConnector,
    pub(crate) drain: Arc<Drain>,
}

/// Clients of one listener.
#[derive(Clone)]
pub(crate) struct Clients {
    pub(crate) requests: Arc<Requests>,
    /// None: they come plainly.
    pub(crate) tls: Option<Arc<Tls>>,
}

impl Host for Clients {
    fn receive(
        &self,
        stream: TcpStream,
        peer: IpAddr,
        seat: Seat,
    ) -> impl Future<Output = ()> + Send + 'static {
        let Clients { requests, tls } = self.clone();
        async move { requests.receive(stream, tls, peer, seat).await }
    }
}

/// The attempts to get an answer, one after the other.
#[derive(Default)]
struct Attempts {
    /// The address of the last attempt.
    target: Option<Arc<Target>>,
    /// Whether the last attempt's connection had served a request before.
    was_kept: bool,
    /// How many attempts at the same side came before it.
    repeats: usize,
}

/// What came of an attempt.
enum Attempt {
    Done,
    /// The service answered with 5xx, and the monolith shall answer instead.
    Unwanted,
}

impl Requests {
    /// Serves a client until it leaves.
    async fn receive(&self, stream: TcpStream, tls: Option<Arc<Tls>>, peer: IpAddr, seat: Seat) {
        let _counted = self.drain.visit();
        let speaks_plainly = tls.is_some();
        // In a box, like what follows: most connections wait most of the time.
        let socket = match tls {
            None => Socket::Client(stream),
            Some(tls) => match Box::pin(tls.greet(stream)).await {
                Guest::Secure(stream) => Socket::SecureClient(stream),
                Guest::Plain(stream) => Socket::Client(stream),
                Guest::Gone => return,
            },
        };
        let head_bytes_max = usize::try_from(self.settings.head_bytes_max).unwrap_or(usize::MAX);
        let mut visit = Visit::new(socket, peer, head_bytes_max, seat, &self.drain);
        if speaks_plainly && !visit.is_secure {
            self.turn_away(&mut visit, Failure::NotTls).await;
        }
        while visit.is_kept {
            match visit.next_request().await {
                Ok(true) => Box::pin(self.serve(&mut visit)).await,
                Ok(false) => return visit.part().await,
                Err(failure) => self.turn_away(&mut visit, failure).await,
            }
        }
        visit.leave().await;
    }

    async fn serve(&self, visit: &mut Visit) {
        if last_hop::is_reached(&visit.request) {
            return self.answer_here(visit, None).await;
        }
        if let Some(port) = self.redirect_port(visit) {
            return self.answer_here(visit, Some(port)).await;
        }
        let arrived = self.arrived(visit);
        if !self.settings.trust_forwarded && headers::is_forwarded(&visit.request.fields) {
            self.metrics.forwarded_ignored.inc();
        }
        match self.admit(visit, arrived) {
            Ok((mut exchange, mut upload)) => {
                let attended = match self.wait(visit, &mut exchange).await {
                    Ok(()) => self.attend(visit, &mut exchange, &mut upload).await,
                    held => held,
                };
                if let Err(failure) = attended {
                    self.tell(visit, &mut exchange, failure).await;
                }
                exchange.mark(&self.tables, &visit.request, true, &self.metrics);
                self.count(visit, &exchange);
            }
            Err(failure) => self.turn_away(visit, failure).await,
        }
    }

    /// The request's head is here, or it is clear that it cannot be read.
    fn arrived(&self, visit: &Visit) -> Arrived {
        let peer = visit.peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let address = headers::client_address(&visit.request.fields, peer, self.settings.trust_forwarded);
        Arrived { at: Instant::now(), address }
    }

    /// Refuses a request before a table is asked, and logs it.
    async fn turn_away(&self, visit: &mut Visit, failure: Failure) {
        let arrived = self.arrived(visit);
        let (status, bytes) = self.refuse(visit, failure).await;
        self.log.write(&Line { status, bytes, ..Line::of(&visit.request, arrived) });
    }

    /// The port at which a plain request is to come again by TLS.
    fn redirect_port(&self, visit: &Visit) -> Option<u16> {
        let port = self.settings.tls.as_ref()?.redirect_port?;
        let trust = self.settings.trust_forwarded;
        let is_secure = headers::client_uses_tls(&visit.request.fields, trust, visit.is_secure);
        (!is_secure && redirect::is_due(&visit.request)).then_some(port)
    }

    /// Answers without an upstream: with a redirect to this port, or as the last server.
    async fn answer_here(&self, visit: &mut Visit, redirect_port: Option<u16>) {
        let arrived = self.arrived(visit);
        visit.is_kept = false;
        let (request, outbox) = (&visit.request, &mut visit.wire.outbox);
        let (status, bytes) = match redirect_port {
            None => (200, last_hop::answer(request, outbox)),
            Some(port) => match redirect::answer(request, port, outbox) {
                Ok(()) => (redirect::STATUS, 0),
                Err(malformed) => return self.turn_away(visit, Failure::Malformed(malformed)).await,
            },
        };
        let _ = relay::flush(&mut visit.wire, &mut visit.deadline).await;
        self.metrics.decided(Why::Here);
        self.log.write(&Line { status, bytes, why: Some(Why::Here), ..Line::of(&visit.request, arrived) });
    }

    /// Checks what the head alone can tell, and finds out who answers. Returns the exchange and the request's body.
    fn admit(&self, visit: &mut Visit, arrived: Arrived) -> Result<(Exchange, Passage), Failure> {
        let request = &mut visit.request;
        let framing = Framing::of_request(request).map_err(Failure::Malformed)?;
        let upload = Passage::new(framing, framing).limited_to(self.settings.body_bytes_max);
        let mut upload = upload.ok_or(Failure::TooLarge)?;
        let live = self.tables.live().ok_or(Failure::NoTable)?;
        self.respell(request, &live);
        if !self.settings.takes_ambiguous_paths && live.is_ambiguous(request) {
            return Err(Failure::AmbiguousPath);
        }
        let asked = self.asked_side(&request.fields);
        let exchange = Exchange::place(arrived, live, request, asked, self.tag, &self.tables.count);
        if exchange.is_read() && framing != Framing::Empty {
            upload.keep_copy();
        }
        Ok((exchange, upload))
    }

    /// Gives the path the one spelling that is matched and sent.
    fn respell(&self, request: &mut RequestHead, live: &Live) {
        let Some(path) = path::normal(request.path()) else { return };
        if live.route_at(request, request.path()) != live.route_at(request, &path) {
            self.metrics.respelled.inc();
        }
        request.respell(&path);
    }

    /// Gets the request answered by an upstream, and by another one if the first fails and it is safe.
    async fn attend(
        &self,
        visit: &mut Visit,
        exchange: &mut Exchange,
        upload: &mut Passage,
    ) -> Result<(), Failure> {
        let mut attempts = Attempts::default();
        loop {
            match self.attempt(visit, exchange, upload, &mut attempts).await {
                Ok(Attempt::Unwanted) => attempts = Attempts::default(),
                Ok(Attempt::Done) => return Ok(()),
                Err(failure) if self.may_repeat(failure, exchange, upload, &mut attempts) => {}
                Err(failure) => return Err(failure),
            }
        }
    }

    async fn attempt(
        &self,
        visit: &mut Visit,
        exchange: &mut Exchange,
        upload: &mut Passage,
        attempts: &mut Attempts,
    ) -> Result<Attempt, Failure> {
        let pool = exchange.pool();
        (attempts.target, attempts.was_kept) =
            (visit.own.target_of(pool).or_else(|| pool.pick()).cloned(), false);
        let target = attempts.target.clone().ok_or(Failure::Unresolved)?;
        // A repeat because of a stale kept connection must not get another kept one.
        let is_repeat = attempts.repeats > 0;
        let mut connection = match visit.own.take(&target).filter(|_| !is_repeat) {
            Some(own) => own,
            None => target.connect(&self.connector, is_repeat).await?,
        };
        attempts.was_kept = connection.is_used;
        let trace = match self.send(visit, exchange, &target, &mut connection, upload).await {
            Err(Failure::ClientLeft) if upload.is_whole() => {
                exchange.stay.outlive_client(connection, target.patience.read);
                return Err(Failure::ClientLeft);
            }
            sent => sent?,
        };
        target.note_answer();
        let status = visit.answer.status;
        // Nothing of the answer has gone to the client yet.
        if exchange.is_unwanted(status)
            && upload.is_repeatable()
            && exchange.fall_back(Why::Erred, End::Answered(status))
        {
            return Ok(Attempt::Unwanted);
        }
        let is_clear = has_an_end_for_both(visit, upload, &mut connection);
        let mut download = self.take_answer(visit, exchange, trace, upload)?;
        let mut relay = visit.relay(&mut connection.wire, target.patience.read);
        if relay.answer.status == 101 {
            relay.flush().await?;
            let (bytes, is_cut) = relay.tunnel(exchange.stay.is_stopped()).await;
            exchange.answer_bytes = bytes;
            if is_cut {
                exchange.stay.note_cut(exchange.arrived.address);
            }
            return Ok(Attempt::Done);
        }
        let passed = relay.bring(upload, &mut download).await;
        exchange.answer_bytes = download.bytes;
        passed?;
        let has_end = download.comes != Framing::UntilClose && visit.answer.wants_more();
        if is_clear && upload.is_whole() && has_end {
            match self.settings.reuse {
                Reuse::Own => visit.own.keep(target, connection),
                Reuse::Shared => target.shared.keep(connection),
            }
        }
        Ok(Attempt::Done)
    }

    /// Sends the request until the head of its answer is here. Passes interim answers on.
    async fn send(
        &self,
        visit: &mut Visit,
        exchange: &mut Exchange,
        target: &Target,
        connection: &mut Connection,
        upload: &mut Passage,
    ) -> Result<Trace, Failure> {
        visit.answer.begin();
        let trace = exchange.send(&visit.request);
        let trust = self.settings.trust_forwarded;
        Forwarded {
            peer: visit.peer,
            came_by_tls: visit.is_secure,
            trust,
            framing: upload.goes,
            trace: &trace,
            upstream: &target.upstream,
        }
        .write(&visit.request, &mut connection.wire.outbox);
        upload.begin(&mut connection.wire);
        let mut relay = visit.relay(&mut connection.wire, target.patience.read);
        relay.ask(upload).await?;
        while relay.answer.is_interim() {
            if !relay.request.is_old {
                headers::write_interim(relay.answer, &mut relay.client.outbox);
                relay.flush().await?;
            }
            relay.ask(upload).await?;
        }
        Ok(trace)
    }

    /// Marks the client if it must wait later, and writes the answer's head. Returns the answer's body.
    fn take_answer(
        &self,
        visit: &mut Visit,
        exchange: &mut Exchange,
        trace: Trace,
        upload: &Passage,
    ) -> Result<Passage, Failure> {
        let (request, answer) = (&visit.request, &visit.answer);
        let comes = Framing::of_answer(answer, request).map_err(Failure::BadAnswer)?;
        if answer.status == 101 && !upload.is_whole() {
            // The other protocol would read the rest of the request's body as its own.
            return Err(Failure::BadAnswer(Malformed("it switches protocols before the request has ended")));
        }
        // An HTTP/1.0 client does not know chunks: its answer ends with the connection.
        let goes = match comes {
            Framing::Chunked | Framing::UntilClose if request.is_old => Framing::UntilClose,
            Framing::UntilClose => Framing::Chunked,
            other => other,
        };
        let download = Passage::new(comes, goes).limited_to(self.settings.body_bytes_max);
        let download = download.ok_or(Failure::AnswerTooLarge)?;
        // After an early answer, the rest of the request is still on the connection.
        let is_readable = upload.is_whole() && goes != Framing::UntilClose && answer.status != 101;
        visit.is_kept &= is_readable && !visit.is_stopping();
        exchange.answer(trace, answer.status);
        exchange.mark(&self.tables, request, false, &self.metrics);
        let location = self.kept_on_host(visit, exchange);
        if exchange.is_read() || answer.status == 101 {
            visit.lesson = None;
        }
        let mut cookies = exchange.cookies(self.tag);
        if !cookies.is_empty() && headers::caching::may_be_shared(request, answer) {
            // The client stays known by its key.
            cookies.clear();
        }
        Returned {
            request,
            framing: goes,
            is_kept: visit.is_kept,
            location: location.as_deref(),
            cookies: &cookies,
        }
        .write(answer, &mut visit.wire.outbox);
        Ok(download)
    }

    /// Whether a failed request is sent again. A request that may write is never sent twice.
    fn may_repeat(
        &self,
        failure: Failure,
        exchange: &mut Exchange,
        upload: &Passage,
        attempts: &mut Attempts,
    ) -> bool {
        if failure == Failure::Exhausted {
            self.metrics.shortages.with_label_values(&["connect"]).inc();
        }
        if !failure.is_upstreams() {
            return false;
        }
        let pool = exchange.pool();
        if failure != Failure::Unresolved {
            let counters = &pool.counters;
            if failure.is_late() { counters.timeouts.inc() } else { counters.broken.inc() }
        }
        if let Failure::BadAnswer(Malformed(why)) = failure {
            // The upstream has done what was asked for. Another one must not do it again.
            tracing::warn!(upstream = &*pool.name, why, "an upstream's answer cannot be passed on");
            return false;
        }
        let may_again = if failure == Failure::Unresolved {
            false
        } else if failure.is_unconnected() {
            attempts.target.iter().for_each(|target| target.note_unconnected());
            // Nothing was sent, so even a write may try another address of the same upstream.
            attempts.repeats < REPEATS_MAX.min(pool.targets.len().saturating_sub(1))
        } else if exchange.is_repeatable() && upload.is_repeatable() {
            // The upstream may have closed a kept connection just as we used it. One new connection is tried.
            attempts.was_kept && failure == Failure::Broken && attempts.repeats == 0
        } else {
            // The upstream may have written although it did not answer.
            return false;
        };
        attempts.repeats = if may_again { attempts.repeats + 1 } else { 0 };
        may_again || exchange.fall_back(Why::Fallback, End::Unanswered)
    }

    /// Tells the client what went wrong, unless an answer has already begun.
    async fn tell(&self, visit: &mut Visit, exchange: &mut Exchange, failure: Failure) {
        // The rest of the request or of the answer makes the connection unreadable.
        visit.is_kept = false;
        let Some(answer) = Answer::to(failure, Some(&exchange.pool().name)) else { return };
        if exchange.fail(answer.status) {
            exchange.mark(&self.tables, &visit.request, false, &self.metrics);
            let cookies = exchange.cookies(self.tag);
            exchange.answer_bytes = self.say(visit, &answer, &cookies).await;
        }
    }

    /// Refuses a request before a table is asked. Returns the status and the length of the body that was sent.
    async fn refuse(&self, visit: &mut Visit, failure: Failure) -> (u16, u64) {
        visit.is_kept = false;
        let why = match failure {
            Failure::NoTable => "no-table",
            Failure::TooLarge => "too-large",
            Failure::AmbiguousPath => "path",
            Failure::NotTls => "tls",
            Failure::Malformed(HEAD_TOO_LARGE | TOO_MANY_FIELDS) => "head",
            _ => "framing",
        };
        let Some(answer) = Answer::to(failure, None) else { return (CLIENT_LEFT, 0) };
        self.metrics.refused.with_label_values(&[why]).inc();
        (answer.status, self.say(visit, &answer, &[]).await)
    }

    /// Sends our own answer. Returns the length of its body.
    async fn say(&self, visit: &mut Visit, answer: &Answer, cookies: &[String]) -> u64 {
        if matches!(answer.status, 502..=504) {
            self.metrics.failed.inc();
        }
        let is_head = visit.request.method() == "HEAD";
        let bytes = answer.write(&mut visit.wire.outbox, cookies, is_head);
        if relay::flush(&mut visit.wire, &mut visit.deadline).await.is_err() {
            tracing::debug!("the client left before it got the error");
        }
        bytes
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

    /// The target of a redirect to an upstream, changed to the host that the client used.
    fn kept_on_host(&self, visit: &Visit, exchange: &Exchange) -> Option<String> {
        let location = std::str::from_utf8(visit.answer.fields.first(Name::Location)?).ok()?;
        let host = std::str::from_utf8(visit.request.fields.first(Name::Host)?).ok()?;
        let trust = self.settings.trust_forwarded;
        let tls = headers::client_uses_tls(&visit.request.fields, trust, visit.is_secure);
        let is_upstream = |tls, authority: &str| exchange.live.is_upstream(tls, authority);
        headers::location::rewritten(location, tls, host, is_upstream)
    }

    fn count(&self, visit: &Visit, exchange: &Exchange) {
        let (status, why) = (exchange.status(), exchange.decision.why);
        let (route, pool) = (exchange.route(), exchange.pool());
        let line = Line {
            status,
            upstream: if why == Why::Held { "" } else { &pool.name },
            slice: route.map(|route| &*route.slice.name),
            route: route.map(|route| &*route.name),
            why: Some(why),
            held: exchange.stay.waited,
            bytes: exchange.answer_bytes,
            trace: exchange.trace(),
            ..Line::of(&visit.request, exchange.arrived)
        };
        exchange.live.counters.count(exchange.route_number(), exchange.decision.side, status);
        self.metrics.decided(why);
        if why != Why::Held {
            exchange.live.tally(
                exchange.route_number(),
                exchange.decision.side,
                exchange.end(),
                exchange.took(),
            );
        }
        pool.counters.latency.observe(line.took.as_secs_f64());
        if exchange.is_answered() {
            pool.counters.answered.inc();
        }
        self.log.write(&line);
    }
}

/// Whether the upstream and the proxy agree on where the request ends. They may not, if it answered before the body came that
/// it was asked about (`Expect: 100-continue`): it may take what follows for the next request. Then nothing follows.
fn has_an_end_for_both(visit: &Visit, upload: &mut Passage, connection: &mut Connection) -> bool {
    let expected = visit.request.fields.called("expect");
    let is_asked = expected.is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue"));
    let is_clear = !is_asked || upload.is_whole() && connection.wire.has_sent();
    if !is_clear {
        connection.wire.outbox.clear();
        upload.refuse();
    }
    is_clear
}
