//! What Prometheus reads of the controller: where each slice stands, and how its crossings ended.

use crate::desk::Desk;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus::{Error, GaugeVec, Opts, Registry, TextEncoder};
use std::sync::Arc;

pub(crate) async fn show(State(desk): State<Arc<Desk>>) -> Response {
    match measure(&desk) {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn measure(desk: &Desk) -> Result<String, Error> {
    let registry = Registry::new();
    let gauge = |name: &str, help: &str, labels: &[&str]| {
        let gauge = GaugeVec::new(Opts::new(name, help), labels)?;
        registry.register(Box::new(gauge.clone()))?;
        Ok::<_, Error>(gauge)
    };
    let stage =
        gauge("strangler_slice_stage", "1 for the stage that a slice is in.", &["slice", "stage", "owner"])?;
    let epoch = gauge("strangler_slice_epoch", "The slice's epoch.", &["slice"])?;
    let held = gauge("strangler_slice_held", "1 while the slice's writes are held.", &["slice"])?;
    let stuck = gauge("strangler_slice_stuck", "1 while a crossing does not go on.", &["slice"])?;
    if let Some(state) = desk.state() {
        for name in desk.plan.slices.keys() {
            let (slice, label) = (state.slice(name), name.as_str());
            let owner = slice.stage.owner().to_string();
            stage.with_label_values(&[label, slice.stage.name(), &owner]).set(1.0);
            epoch.with_label_values(&[label]).set(slice.epoch.0 as f64);
            held.with_label_values(&[label]).set(f64::from(u8::from(slice.hold.is_some())));
            stuck.with_label_values(&[label]).set(f64::from(u8::from(desk.courses.is_alarmed(name))));
        }
    }
    if let Some(ends) = desk.courses.ends() {
        ends.register(&registry)?;
    }
    TextEncoder::new().encode_to_string(&registry.gather())
}
