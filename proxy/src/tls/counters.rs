//! What is counted at the TLS listener, for Prometheus.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Handshakes by how they ended, and the end of the certificates.
#[derive(Clone)]
pub(crate) struct TlsCounters {
    pub(super) done: IntCounter,
    pub(super) failed: IntCounter,
    /// They took too long.
    pub(super) late: IntCounter,
    /// The client spoke plain HTTP.
    pub(super) plain: IntCounter,
    /// When the first of the certificates ends, in seconds since 1970.
    pub(super) ends: IntGauge,
}

impl TlsCounters {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let handshakes = Opts::new("strangler_proxy_handshakes_total", "TLS handshakes of clients");
        let handshakes = IntCounterVec::new(handshakes, &["outcome"])?;
        registry.register(Box::new(handshakes.clone()))?;
        let ends = "When the first certificate of the TLS listener ends, since 1970";
        let ends = IntGauge::new("strangler_proxy_certificate_ends_seconds", ends)?;
        registry.register(Box::new(ends.clone()))?;
        let outcome = |outcome| handshakes.with_label_values(&[outcome]);
        Ok(Self {
            done: outcome("done"),
            failed: outcome("failed"),
            late: outcome("late"),
            plain: outcome("plain"),
            ends,
        })
    }
}
