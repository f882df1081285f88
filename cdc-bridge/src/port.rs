//! The bridge's own port: barriers for proxies, change events for people, metrics.
//!
//! Everything under `/v1` asks for the controller's token.

use crate::feed::source::{self, Source};
use crate::feed::status::Status;
use crate::lane::state::State as LaneState;
use crate::log::{Event, Log, LogError, Reader};
use axum::body::{Body, Bytes};
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use migrations::api::Refusal;
use migrations::control::{BarrierAnswer, BarrierRequest, VERSION};
use migrations::names::{SliceName, TableName};
use migrations::plan::Secret;
use postgres::clock;
use rows::change::Change;
use rows::envelope::{Context, Encoded, Encoder};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, watch};
use tokio::time::{sleep, timeout};
use tokio_postgres::Client;

/// A barrier that takes longer is asked again by the proxy, which reads from the monolith meanwhile.
const BARRIER_WAIT: Duration = Duration::from_secs(10);

/// Events that `tail` gives at once.
const TAIL_MAX: usize = 1000;
const TAIL_POLL: Duration = Duration::from_millis(200);
/// Pause between two looks for a log that is not made yet: each is a connection of its own.
const LOG_POLL: Duration = Duration::from_millis(800);

/// What the port tells of one slice.
#[derive(Debug, Clone)]
pub struct Watched {
    /// Its source tables.
    pub tables: BTreeSet<TableName>,
    /// Its stream.
    pub state: watch::Receiver<LaneState>,
}

/// What the port works with.
#[derive(Debug)]
pub struct Port {
    /// The token of everything under `/v1`.
    pub token: Secret,
    /// Where barriers are sampled.
    pub source: Source,
    /// Where events are read.
    pub log: Log,
    /// What its events say of the source.
    pub context: Context,
    /// How capture stands.
    pub capture: watch::Receiver<Status>,
    /// Every slice with tables.
    pub slices: BTreeMap<SliceName, Watched>,
    /// The barriers' connection, made when the first one comes.
    pub barriers: Mutex<Option<Arc<Client>>>,
}

impl Port {
    /// Its routes.
    pub fn router(self) -> Router {
        let port = Arc::new(self);
        let guarded = Router::new()
            .route("/v1/barrier", post(barrier))
            .route("/v1/tail", get(tail))
            .layer(axum::middleware::from_fn_with_state(port.clone(), authorise));
        Router::new()
            .merge(guarded)
            .route("/metrics", get(metrics))
            .route("/healthz", get(|| async { "ok\n" }))
            .with_state(port)
    }

    /// A connection that works; a broken one is replaced.
    async fn barrier_client(&self) -> Result<Arc<Client>, postgres::ConnectError> {
        let mut held = self.barriers.lock().await;
        match held.as_ref() {
            Some(client) if !client.is_closed() => Ok(client.clone()),
            _ => {
                let client = Arc::new(self.source.connect("strangler barrier").await?);
                *held = Some(client.clone());
                Ok(client)
            }
        }
    }
}

fn refusal(status: StatusCode, message: &str, hint: &str) -> Response {
    // Only what was asked for wrongly is the asker's to mend.
    let exit = if status == StatusCode::NOT_FOUND { 2 } else { 1 };
    let (message, hint) = (message.to_owned(), hint.to_owned());
    (status, Json(Refusal { exit, message, hint, findings: Vec::new() })).into_response()
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
        refusal(StatusCode::UNAUTHORIZED, "the token is missing or wrong", "set STRANGLER_TOKEN")
    }
}

async fn barrier(State(port): State<Arc<Port>>, Json(request): Json<BarrierRequest>) -> Response {
    let Some(watched) = port.slices.get(&request.slice) else {
        return refusal(StatusCode::NOT_FOUND, "no such slice has tables", "see `strangler status`");
    };
    let token = uuid::Uuid::new_v4().simple().to_string();
    let sent = match port.barrier_client().await {
        Ok(client) => source::barrier(&client, &token).await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    if let Err(why) = sent {
        return refusal(StatusCode::SERVICE_UNAVAILABLE, &why, "it is asked again by itself");
    }
    let mut state = watched.state.clone();
    match timeout(BARRIER_WAIT, state.wait_for(|state| state.tokens.contains(&token))).await {
        Ok(Ok(_)) => Json(BarrierAnswer { version: VERSION }).into_response(),
        _ => {
            refusal(StatusCode::GATEWAY_TIMEOUT, "the sink has not passed yet", "it is asked again by itself")
        }
    }
}

#[derive(Debug, Deserialize)]
struct TailQuery {
    slice: SliceName,
    #[serde(default)]
    n: Option<usize>,
    #[serde(default)]
    follow: bool,
}

async fn tail(State(port): State<Arc<Port>>, Query(query): Query<TailQuery>) -> Response {
    let Some(watched) = port.slices.get(&query.slice) else {
        return refusal(StatusCode::NOT_FOUND, "no such slice has tables", "see `strangler status`");
    };
    let tables = watched.tables.clone();
    let count = query.n.unwrap_or(if query.follow { 0 } else { 10 }).min(TAIL_MAX);
    let recent = match port.log.recent(&tables, count).await {
        Ok(recent) => recent,
        Err(error) => return refusal(StatusCode::SERVICE_UNAVAILABLE, &error.to_string(), "try again"),
    };
    let first: String = recent.iter().map(line).collect();
    let first = futures_util::stream::once(async move { Ok::<_, LogError>(Bytes::from(first)) });
    let body = if query.follow {
        let reader = match from_now_on(&port.log, &tables).await {
            Ok(reader) => reader,
            Err(error) => return refusal(StatusCode::SERVICE_UNAVAILABLE, &error.to_string(), "try again"),
        };
        let later = futures_util::stream::try_unfold(
            (reader, tables, port.clone()),
            |(mut reader, tables, port)| async move {
                let changes = match &mut reader {
                    Some(reader) => reader.next().await?.changes,
                    None => {
                        sleep(LOG_POLL).await;
                        reader = from_now_on(&port.log, &tables).await?;
                        Vec::new()
                    }
                };
                if changes.is_empty() {
                    sleep(TAIL_POLL).await;
                }
                let lines: String = events(&port.context, &changes).iter().map(line).collect();
                Ok::<_, LogError>(Some((Bytes::from(lines), (reader, tables, port))))
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

/// The records of some changes, without tombstones.
fn events(context: &Context, changes: &[Change]) -> Vec<Event> {
    let mut encoder = Encoder::new(context.clone());
    let mut encoded = Encoded::new();
    let mut events = Vec::new();
    for change in changes {
        encoder.encode(change, clock::now_us(), &mut encoded);
        let topic = encoder.topic(&change.relation.table);
        events.extend(encoded.records().filter(|record| record.value.is_some()).map(|record| {
            Event {
                topic: topic.clone(),
                key: record.key.and_then(|key| serde_json::from_slice(key).ok()).unwrap_or_default(),
                value: record.value.and_then(|value| serde_json::from_slice(value).ok()).unwrap_or_default(),
                headers: record
                    .headers()
                    .map(|(name, value)| (name.to_owned(), String::from_utf8_lossy(value).into_owned()))
                    .collect(),
            }
        }));
    }
    events
}

fn line(event: &Event) -> String {
    let mut line = serde_json::to_string(event).unwrap_or_default();
    line.push('\n');
    line
}

async fn metrics(State(port): State<Arc<Port>>) -> Response {
    let capture = port.capture.borrow().clone();
    let mut text = String::new();
    let mut gauge = |name: &str, help: &str, kind: &str, lines: Vec<(String, f64)>| {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in lines {
            let _ = writeln!(text, "{name}{labels} {value}");
        }
    };
    let bytes = port.log.bytes().await.unwrap_or(0);
    let lag = capture.server_end.bytes_since(capture.captured);
    gauge(
        "strangler_capture_changes_total",
        "Changes written to the log since the start.",
        "counter",
        vec![(String::new(), capture.changes as f64)],
    );
    gauge(
        "strangler_capture_lag_bytes",
        "Source WAL not yet durable in the log.",
        "gauge",
        vec![(String::new(), lag as f64)],
    );
    gauge(
        "strangler_log_bytes",
        "Bytes that the embedded log holds.",
        "gauge",
        vec![(String::new(), bytes as f64)],
    );
    let now = clock::now_us();
    let reports: Vec<_> = port
        .slices
        .iter()
        .map(|(name, watched)| {
            (format!("{{slice=\"{name}\"}}"), watched.state.borrow().report(&capture, now))
        })
        .collect();
    let each = |value: &dyn Fn(&migrations::control::LaneReport) -> f64| {
        reports.iter().map(|(labels, report)| (labels.clone(), value(report))).collect::<Vec<_>>()
    };
    gauge(
        "strangler_stream_lag_bytes",
        "Source WAL not yet durable in the sink.",
        "gauge",
        each(&|r| r.lag_bytes as f64),
    );
    gauge(
        "strangler_stream_lag_ms",
        "Age of the oldest commit that is not durable in the sink, else how long the last took.",
        "gauge",
        each(&|r| r.lag_ms as f64),
    );
    gauge(
        "strangler_stream_changes_total",
        "Changes applied since the start.",
        "counter",
        each(&|r| r.changes as f64),
    );
    let stopped = |r: &migrations::control::LaneReport| {
        f64::from(u8::from(matches!(r.condition, migrations::control::Condition::Stopped { .. })))
    };
    gauge(
        "strangler_stream_stopped",
        "1 while the stream stands at something it cannot apply.",
        "gauge",
        each(&stopped),
    );
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}
