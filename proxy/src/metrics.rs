//! What the proxy counts, for Prometheus. Labels come from the plan only, which bounds their number.
//!
//! Counters are looked up beforehand, so a request touches atomics and no map. A table counts the requests of its
//! routes itself. Those counts are added up when the metrics are read.

use crate::hold::counters::HoldMetrics;
use crate::route::decision::{Side, Why};
use crate::tls::counters::TlsCounters;
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    TextEncoder,
};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
const LATENCY_BUCKETS: [f64; 12] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

pub(crate) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    failures: IntCounterVec,
    latency: HistogramVec,
    answered: IntCounterVec,
    barriers: IntCounterVec,
    pub(crate) holds: HoldMetrics,
    decisions: [IntCounter; Why::ALL.len()],
    /// Requests refused before a table was asked: no table, body too large, malformed.
    pub(crate) refused: IntCounterVec,
    /// Marks that send a client to the monolith until a barrier has passed.
    pub(crate) marks: IntCounter,
    pub(crate) overrides_refused: IntCounter,
    /// Requests of which a balancer said how their client came, and was not believed.
    pub(crate) forwarded_ignored: IntCounter,
    /// Requests whose route was found only by the normal spelling of their path.
    pub(crate) respelled: IntCounter,
    /// Our own answers with 502, 503 or 504.
    pub(crate) failed: IntCounter,
    /// Access log lines dropped because the writer fell behind.
    pub(crate) log_lines_dropped: IntCounter,
    pub(crate) tls: TlsCounters,
    /// Clients' connections.
    pub(crate) connections: IntGauge,
    /// Clients that had to leave because others came.
    pub(crate) evicted: IntCounter,
    /// Connections to the admin port.
    pub(crate) admin_connections: IntGauge,
    pub(crate) admin_evicted: IntCounter,
    /// What could not be done for want of a descriptor, port or place: accept, connect, check.
    pub(crate) shortages: IntCounterVec,
    /// Times that an upstream sent bytes that nobody asked for.
    pub(crate) unasked: IntCounter,
    pub(crate) generation: IntGauge,
    pub(crate) ready: IntGauge,
    pub(crate) in_doubt: IntGauge,
    pub(crate) alone: IntGauge,
    pub(crate) unwell: IntGauge,
}

#[derive(Clone)]
pub(crate) struct PoolCounters {
    /// Seconds from a request's head to the end of its answer.
    pub(crate) latency: Histogram,
    pub(crate) answered: IntCounter,
    pub(crate) broken: IntCounter,
    pub(crate) timeouts: IntCounter,
}

#[derive(Clone)]
pub(crate) struct BarrierCounters {
    pub(crate) passed: IntCounter,
    pub(crate) failed: IntCounter,
}

/// The requests of each route of a table by side and status class, since they were last added up.
///
/// Nearly all requests have the same side and class. So each pair of these has its own column, and the counters in
/// use lie close together however many routes there are.
pub(crate) struct RouteCounters {
    columns: [[Box<[AtomicU64]>; CLASSES.len()]; 2],
}

impl RouteCounters {
    /// `routes` counters, and one for requests that match no route.
    pub(crate) fn new(routes: usize) -> Self {
        let column = || (0..=routes).map(|_| AtomicU64::new(0)).collect();
        Self { columns: std::array::from_fn(|_| std::array::from_fn(|_| column())) }
    }

    /// Counts a request that this side answered. `route` is its number, if it matched one.
    pub(crate) fn count(&self, route: Option<usize>, side: Side, status: u16) {
        let class = usize::from(status / 100).clamp(1, CLASSES.len()) - 1;
        let column = &self.columns[side as usize][class];
        column[route.unwrap_or(column.len() - 1)].fetch_add(1, Relaxed);
    }
}

fn latency() -> Result<HistogramVec, prometheus::Error> {
    let options = HistogramOpts::new("strangler_proxy_request_seconds", "Time from request to end of answer");
    HistogramVec::new(options.buckets(LATENCY_BUCKETS.to_vec()), &["upstream"])
}

impl Metrics {
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let vec = |name: &str, help: &str, labels: &[&str]| {
            let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        let one = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let latency = latency()?;
        registry.register(Box::new(latency.clone()))?;
        let decisions =
            vec("strangler_proxy_decisions_total", "Requests by why their side was chosen", &["why"])?;
        Ok(Self {
            requests: vec(
                "strangler_proxy_requests_total",
                "Requests",
                &["upstream", "slice", "route", "class"],
            )?,
            failures: vec(
                "strangler_proxy_upstream_failures_total",
                "Upstream failures",
                &["upstream", "kind"],
            )?,
            answered: vec("strangler_proxy_answered_total", "Requests answered", &["upstream"])?,
            barriers: vec("strangler_proxy_barriers_total", "Barriers", &["slice", "outcome"])?,
            decisions: Why::ALL.map(|why| decisions.with_label_values(&[why.word()])),
            refused: vec("strangler_proxy_refused_total", "Requests refused before any upstream", &["why"])?,
            marks: one("strangler_proxy_marks_total", "Marks that wait for a barrier")?,
            overrides_refused: one(
                "strangler_proxy_overrides_refused_total",
                "Overrides without the secret",
            )?,
            forwarded_ignored: one(
                "strangler_proxy_forwarded_ignored_total",
                "Requests whose Forwarded or X-Forwarded-Proto was thrown away",
            )?,
            respelled: one(
                "strangler_proxy_paths_respelled_total",
                "Requests whose path had to be respelled to find its route",
            )?,
            failed: one("strangler_proxy_failed_total", "Own answers with 502, 503 or 504")?,
            log_lines_dropped: one("strangler_proxy_log_lines_dropped_total", "Access log lines dropped")?,
            connections: gauge("strangler_proxy_connections", "Connections of clients")?,
            evicted: one("strangler_proxy_evicted_total", "Waiting clients that left for others")?,
            admin_connections: gauge("strangler_proxy_admin_connections", "Connections to the admin port")?,
            admin_evicted: one("strangler_proxy_admin_evicted_total", "Those that left it for others")?,
            shortages: vec("strangler_proxy_shortages_total", "What lacked a descriptor or port", &["at"])?,
            unasked: one("strangler_proxy_unasked_total", "Bytes of upstreams that nobody asked for")?,
            generation: gauge("strangler_proxy_generation", "Generation of the table in use")?,
            ready: gauge("strangler_proxy_ready", "1 with a table")?,
            in_doubt: gauge(
                "strangler_proxy_table_in_doubt",
                "1 while a controller is asked for the newest table",
            )?,
            alone: gauge("strangler_proxy_alone", "1 while no controller confirms the table")?,
            unwell: gauge("strangler_proxy_unwell_addresses", "Upstream addresses that fail their checks")?,
            holds: HoldMetrics::new(&registry)?,
            tls: TlsCounters::new(&registry)?,
            latency,
            registry,
        })
    }

    pub(crate) fn pool(&self, upstream: &str) -> PoolCounters {
        PoolCounters {
            latency: self.latency.with_label_values(&[upstream]),
            answered: self.answered.with_label_values(&[upstream]),
            broken: self.failures.with_label_values(&[upstream, "broken"]),
            timeouts: self.failures.with_label_values(&[upstream, "timeout"]),
        }
    }

    pub(crate) fn barriers(&self, slice: &str) -> BarrierCounters {
        BarrierCounters {
            passed: self.barriers.with_label_values(&[slice, "passed"]),
            failed: self.barriers.with_label_values(&[slice, "failed"]),
        }
    }

    pub(crate) fn decided(&self, why: Why) {
        self.decisions[why.number()].inc();
    }

    /// Adds up what a table counted. `named` gives the slice and name of a route, and the upstream of each side.
    pub(crate) fn add_up<'a>(
        &self,
        counters: &RouteCounters,
        named: impl Fn(usize) -> ([&'a str; 2], [&'a str; 2]),
    ) {
        for (side, columns) in counters.columns.iter().enumerate() {
            for (column, class) in columns.iter().zip(CLASSES) {
                // Most are zero, and a load is cheaper than a swap.
                let counted = column.iter().enumerate().filter(|(_, cell)| cell.load(Relaxed) > 0);
                for (number, cell) in counted {
                    let ([slice, route], upstreams) = named(number);
                    let counter = self.requests.with_label_values(&[upstreams[side], slice, route, class]);
                    counter.inc_by(cell.swap(0, Relaxed));
                }
            }
        }
    }

    pub(crate) fn answered_by_upstream(&self) -> BTreeMap<String, u64> {
        use prometheus::core::Collector;
        let families = self.answered.collect();
        let metrics = families.iter().flat_map(|family| family.get_metric());
        let named = metrics.filter_map(|metric| {
            let upstream = metric.get_label().first()?.value().to_owned();
            Some((upstream, metric.get_counter().get_value() as u64))
        });
        named.collect()
    }

    pub(crate) fn text(&self) -> Vec<u8> {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "cannot write the metrics");
        }
        text
    }
}
