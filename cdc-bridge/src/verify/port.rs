//! The paths of verifications at the bridge's port.

use super::Verifier;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use migrations::names::SliceName;
use migrations::problem::Problem;
use migrations::verify::{CompareRequest, StopRequest, VerifyRequest};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

pub(crate) fn routes<S: Clone + Send + Sync + 'static>(verifier: Arc<Verifier>) -> Router<S> {
    Router::new()
        .route("/v1/verify", post(start).get(look))
        .route("/v1/verify/stop", post(stop))
        .route("/v1/compare", post(compare))
        .with_state(verifier)
}

async fn start(State(verifier): State<Arc<Verifier>>, Json(request): Json<VerifyRequest>) -> Response {
    answer(verifier.start(&request).await)
}

#[derive(Debug, Deserialize)]
struct Look {
    slice: SliceName,
}

async fn look(State(verifier): State<Arc<Verifier>>, Query(look): Query<Look>) -> Response {
    answer(verifier.look(&look.slice).await)
}

async fn stop(State(verifier): State<Arc<Verifier>>, Json(request): Json<StopRequest>) -> Response {
    answer(verifier.stop(&request.slice).await)
}

async fn compare(State(verifier): State<Arc<Verifier>>, Json(request): Json<CompareRequest>) -> Response {
    answer(verifier.compare(&request).await)
}

fn answer<T: Serialize>(result: Result<T, Problem>) -> Response {
    match result {
        Ok(answer) => Json(answer).into_response(),
        Err(problem) => {
            let status = StatusCode::from_u16(problem.kind.policy().status);
            (status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), Json(problem)).into_response()
        }
    }
}
