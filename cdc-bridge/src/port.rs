//! The bridge's own port: barriers for proxies, change events for people, metrics.
//!
//! Everything under `/v1` asks for the controller's token.

use crate::feed::Feed;
use crate::feed::source;
use crate::lane::state::LaneState;
use crate::log::{Log, LogError, Reader};
use crate::tailed::Telling;
use crate::verify::{self, Verifier};
use axum::body::{Body, Bytes};
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use migrations::code::Code;
use migrations::control::{BarrierAnswer, BarrierRequest, Condition, LaneReport, VERSION};
use migrations::lane::LaneId;
use migrations::names::{SliceName, TableName};
use migrations::plan::Secret;
use migrations::problem::Problem;
use migrations::sql::Database;
use postgres::clock;
use prometheus::{GaugeVec, IntCounterVec, Opts, Registry, TextEncoder};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, watch};
use tokio::time::{sleep, timeout};
use tokio_postgres::Client;

/// After this time the proxy asks again; it reads from the monolith meanwhile.
const BARRIER_WAIT: Duration = Duration::from_secs(10);

/// Events that `tail` gives at once.
const TAIL_MAX: usize = 1000;
const TAIL_POLL: Duration = Duration::from_millis(200);
/// Pause between two looks for a log that is not made yet: each is a connection of its own.
const LOG_POLL: Duration = Duration::from_millis(800);

/// What the port knows of one lane.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    pub(crate) feed: Feed,
    pub(crate) tables: BTreeSet<TableName>,
    pub(crate) state: watch::Receiver<LaneState>,
}

#[derive(Debug)]
pub(crate) struct Port {
    /// The token of everything under `/v1`.
    pub(crate) token: Secret,
    pub(crate) feeds: BTreeMap<Database, Feed>,
    pub(crate) lanes: BTreeMap<LaneId, Watched>,
    /// The barriers' connection to the monolith, made when the first one comes.
    pub(crate) barriers: Mutex<Option<Arc<Client>>>,
    pub(crate) verifier: Arc<Verifier>,
}

impl Port {
    pub(crate) fn router(self) -> Router {
        let port = Arc::new(self);
        let guarded = Router::new()
            .route("/v1/barrier", post(barrier))
            .route("/v1/tail", get(tail))
            .merge(verify::port::routes(port.verifier.clone()))
            .layer(axum::middleware::from_fn_with_state(port.clone(), authorise));
        Router::new()
            .merge(guarded)
            .route("/metrics", get(metrics))
            .route("/healthz", get(|| async { "ok\n" }))
            .with_state(port)
    }

    /// The lane that brings a slice's rows to its service.
    fn forward(&self, slice: &SliceName) -> Option<&Watched> {
        self.lanes.get(&LaneId::forward(slice.clone()))
    }

    /// A connection that works; a broken one is replaced.
    async fn barrier_client(&self, feed: &Feed) -> Result<Arc<Client>, postgres::ConnectError> {
        let mut held = self.barriers.lock().await;
        match held.as_ref() {
            Some(client) if !client.is_closed() => Ok(client.clone()),
            _ => {
                let client = Arc::new(feed.source.connect("strangler barrier").await?);
                *held = Some(client.clone());
                Ok(client)
            }
        }
    }
}

fn refusal(code: Code, message: &str, remedy: &str) -> Response {
    let problem = Problem::new(code, message, remedy);
    let status = StatusCode::from_u16(problem.kind.policy().status);
    (status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), Json(problem)).into_response()
}

async fn authorise(
    State(port): State<Arc<Port>>,
    headers: HeaderMap,
    request: Request,
    next: Next,
) -> Response {
    if link::bearer::admits(&port.token, &headers) {
        next.run(request).await
    } else {
        refusal(Code::ApiToken, "the token is missing or wrong", "set STRANGLER_TOKEN")
    }
}

async fn barrier(State(port): State<Arc<Port>>, Json(request): Json<BarrierRequest>) -> Response {
    let Some(watched) = port.forward(&request.slice) else {
        return refusal(Code::SliceUnknown, "no such slice has tables", "see `strangler status`");
    };
    let token = uuid::Uuid::new_v4().simple().to_string();
    let sent = match port.barrier_client(&watched.feed).await {
        Ok(client) => source::barrier(&client, &token).await.map(drop).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    if let Err(why) = sent {
        return refusal(Code::BridgeWaits, &why, "it is asked again by itself");
    }
    let mut state = watched.state.clone();
    match timeout(BARRIER_WAIT, state.wait_for(|state| state.tokens.contains(&token))).await {
        Ok(Ok(_)) => Json(BarrierAnswer { version: VERSION }).into_response(),
        _ => refusal(Code::BridgeWaits, "the sink has not passed yet", "it is asked again by itself"),
    }
}

#[derive(Debug, Deserialize)]
struct TailQuery {
    slice: SliceName,
    #[serde(default)]
    n: Option<usize>,
    #[serde(default)]
    follow: bool,
    /// Whether each change is told for people ([`migrations::tail`]), and not as its record.
    #[serde(default)]
    told: bool,
}

async fn tail(State(port): State<Arc<Port>>, Query(query): Query<TailQuery>) -> Response {
    let Some(watched) = port.forward(&query.slice) else {
        return refusal(Code::SliceUnknown, "no such slice has tables", "see `strangler status`");
    };
    let tables = watched.tables.clone();
    let count = query.n.unwrap_or(if query.follow { 0 } else { 10 }).min(TAIL_MAX);
    let Some(log) = watched.feed.log.borrow().clone() else {
        return refusal(Code::BridgeWaits, "the log is not open yet", "try again");
    };
    let recent = match log.recent(&tables, count).await {
        Ok(recent) => recent,
        Err(error) => return refusal(Code::BridgeWaits, &error.to_string(), "try again"),
    };
    let telling = if query.told { Telling::ForPeople } else { Telling::AsRecords(log.context().clone()) };
    let first = telling.lines(&recent);
    let first = futures_util::stream::once(async move { Ok::<_, LogError>(Bytes::from(first)) });
    let body = if query.follow {
        let reader = match from_now_on(&log, &tables).await {
            Ok(reader) => reader,
            Err(error) => return refusal(Code::BridgeWaits, &error.to_string(), "try again"),
        };
        let later = futures_util::stream::try_unfold(
            (reader, tables, log, telling),
            |(mut reader, tables, log, telling)| async move {
                let changes = match &mut reader {
                    Some(reader) => reader.next().await?.changes,
                    None => {
                        sleep(LOG_POLL).await;
                        reader = from_now_on(&log, &tables).await?;
                        Vec::new()
                    }
                };
                if changes.is_empty() {
                    sleep(TAIL_POLL).await;
                }
                let lines = telling.lines(&changes);
                Ok::<_, LogError>(Some((Bytes::from(lines), (reader, tables, log, telling))))
            },
        );
        Body::from_stream(futures_util::StreamExt::chain(first, later))
    } else {
        Body::from_stream(first)
    };
    ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

/// Reads what comes from now on; none while there is no log.
async fn from_now_on(log: &Log, tables: &BTreeSet<TableName>) -> Result<Option<Reader>, LogError> {
    match log.end_cursor().await {
        Ok(cursor) => log.reader(tables.clone(), &cursor).await.map(Some),
        Err(LogError::Missing) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn metrics(State(port): State<Arc<Port>>) -> Response {
    match measure(&port).await {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(why) => refusal(Code::ApiFailed, &why.to_string(), "report this"),
    }
}

async fn measure(port: &Port) -> Result<String, prometheus::Error> {
    let registry = Registry::new();
    measure_feeds(port, &registry).await?;
    measure_lanes(port, &registry)?;
    measure_verifications(port, &registry).await?;
    TextEncoder::new().encode_to_string(&registry.gather())
}

async fn measure_feeds(port: &Port, registry: &Registry) -> Result<(), prometheus::Error> {
    let label = &["feed"];
    let changes = counter(
        registry,
        "strangler_capture_changes_total",
        "Changes written to the log since the start.",
        label,
    )?;
    let lag =
        gauge(registry, "strangler_capture_lag_bytes", "Source WAL not yet durable in the log.", label)?;
    let published = counter(
        registry,
        "strangler_published_records_total",
        "Records written into the topics of tables since the start.",
        label,
    )?;
    let unpublished = gauge(
        registry,
        "strangler_publish_lag_bytes",
        "Source WAL that is in the log and not noted as published.",
        label,
    )?;
    let bytes = gauge(registry, "strangler_log_bytes", "Bytes that the log holds.", label)?;
    for (database, feed) in &port.feeds {
        let Some(log) = feed.log.borrow().clone() else { continue };
        let held = log.bytes();
        let (status, standing) = (feed.status.borrow(), feed.published.borrow());
        let feed = &[database.as_str()];
        if let Some((end, _)) = &standing.place {
            published.with_label_values(feed).inc_by(standing.records);
            unpublished.with_label_values(feed).set(status.captured.bytes_since(*end) as f64);
        }
        changes.with_label_values(feed).inc_by(status.changes);
        if let Some(bytes) = status.lag_bytes(clock::now_us()) {
            lag.with_label_values(feed).set(bytes as f64);
        }
        bytes.with_label_values(feed).set(held as f64);
    }
    Ok(())
}

fn measure_lanes(port: &Port, registry: &Registry) -> Result<(), prometheus::Error> {
    let label = &["slice", "direction"];
    let lag_bytes =
        gauge(registry, "strangler_stream_lag_bytes", "Source WAL not yet durable in the sink.", label)?;
    let lag_ms = gauge(
        registry,
        "strangler_stream_lag_ms",
        "Age of the oldest commit that is not durable in the sink, else how long the last took.",
        label,
    )?;
    let blind = gauge(
        registry,
        "strangler_stream_blind",
        "1 while the lag of a lane is unknown; its lags are absent then.",
        label,
    )?;
    let changes =
        counter(registry, "strangler_stream_changes_total", "Changes applied since the start.", label)?;
    let foreign = counter(
        registry,
        "strangler_stream_foreign_total",
        "Changes since the start that another writer made to rows that the service owns.",
        label,
    )?;
    let stopped = gauge(
        registry,
        "strangler_stream_stopped",
        "1 while the lane stands at something it cannot apply.",
        label,
    )?;
    let now_us = clock::now_us();
    for (id, watched) in &port.lanes {
        let report: LaneReport = watched.state.borrow().report(&watched.feed.status.borrow(), now_us);
        let lane = &[id.slice.as_str(), &id.direction.to_string()];
        report.lag_bytes.into_iter().for_each(|bytes| lag_bytes.with_label_values(lane).set(bytes as f64));
        report.lag_ms.into_iter().for_each(|ms| lag_ms.with_label_values(lane).set(ms as f64));
        blind.with_label_values(lane).set(f64::from(u8::from(report.lag_unknown.is_some())));
        changes.with_label_values(lane).inc_by(report.changes);
        foreign.with_label_values(lane).inc_by(report.foreign);
        let is_stopped = matches!(report.condition, Condition::Stopped { .. });
        stopped.with_label_values(lane).set(f64::from(u8::from(is_stopped)));
    }
    Ok(())
}

async fn measure_verifications(port: &Port, registry: &Registry) -> Result<(), prometheus::Error> {
    let label = &["slice"];
    let rows = gauge(registry, "strangler_verify_rows", "Rows compared by the last verification.", label)?;
    let estimated = gauge(
        registry,
        "strangler_verify_rows_estimated",
        "Rows that there are, as the planner estimates.",
        label,
    )?;
    let differences =
        gauge(registry, "strangler_verify_differences", "Rows that it found to differ.", label)?;
    let changed = gauge(
        registry,
        "strangler_verify_changed",
        "Rows that changed since they were compared, and will be compared again.",
        &["slice", "direction"],
    )?;
    for (lane, count) in port.verifier.changed() {
        changed.with_label_values(&[lane.slice.as_str(), &lane.direction.to_string()]).set(count as f64);
    }
    for report in port.verifier.reports().await {
        let slice = &[report.slice.as_str()];
        rows.with_label_values(slice).set(report.rows as f64);
        estimated.with_label_values(slice).set(report.rows_estimated as f64);
        differences.with_label_values(slice).set(report.differences.total as f64);
    }
    Ok(())
}

fn gauge(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<GaugeVec, prometheus::Error> {
    let gauge = GaugeVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(gauge.clone()))?;
    Ok(gauge)
}

fn counter(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntCounterVec, prometheus::Error> {
    let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(counter.clone()))?;
    Ok(counter)
}
