//! Serves a side of the shop on a socket, and stops gracefully.

use std::future::Future;
use std::time::Duration;

use anyhow::Context as _;
use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::middleware::Next;
use axum::response::Response;
use axum::routing::get;
use axum::serve::ListenerExt as _;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::refusal::Refusal;
use super::saga::rows::Unfinished;
use super::{Books, Shop, api, catalogue, internal, page};

/// How long running requests may take after a stop was requested.
const DRAIN: Duration = Duration::from_secs(10);

pub fn monolith(shop: Shop) -> Router {
    finish(api::routes().merge(catalogue::routes()).route("/", get(page::front)), shop)
}

/// The monolith's inner door. It belongs on an address that no customer reaches.
pub fn internal(shop: Shop) -> Router {
    finish(internal::routes(), shop)
}

pub fn orders(shop: Shop) -> Router {
    finish(api::routes().route("/sagas", get(sagas)), shop)
}

/// Serves until `stop` ends, then waits at most [`DRAIN`] for running requests.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    stop: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let listener = listener.tap_io(|stream| {
        // Small answers must not wait for more data. If this fails, the connection is only slower.
        let _ = stream.set_nodelay(true);
    });
    let (stopped, mut deadline) = watch::channel(false);
    let stop = async move {
        stop.await;
        let _ = stopped.send(true);
    };
    let too_late = async move {
        // An error means that the sender is gone, because the server ended by itself.
        if deadline.wait_for(|stopped| *stopped).await.is_err() {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        served = axum::serve(listener, router).with_graceful_shutdown(stop) => served.context("serving failed"),
        () = too_late => {
            tracing::warn!("some requests did not finish in time and were cut off");
            Ok(())
        }
    }
}

/// Ends at Ctrl-C or SIGTERM.
pub async fn asked_to_stop() {
    let terminate = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(error) => {
                tracing::warn!(%error, "could not listen for SIGTERM");
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminate => {}
    }
    tracing::info!("asked to stop");
}

/// Becomes true at Ctrl-C or SIGTERM.
pub fn stop_when_asked() -> watch::Receiver<bool> {
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        asked_to_stop().await;
        stop.send_replace(true);
        // The sender must live on: its end would be taken for a stop.
        std::future::pending::<()>().await;
    });
    stopped
}

/// Ends when `stop` becomes true, or when nobody is left to say so.
pub async fn until(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

pub async fn bind(address: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("could not listen on {address}: is it taken? choose another address with --listen")
    })
}

fn finish(routes: Router<Shop>, shop: Shop) -> Router {
    routes
        .route("/health", get(health))
        .fallback(absent)
        .method_not_allowed_fallback(absent)
        .layer(axum::middleware::from_fn_with_state(shop.clone(), sign))
        .with_state(shop)
}

async fn health(State(shop): State<Shop>) -> Result<Json<Value>, Refusal> {
    let db = shop.pool.get().await?;
    db.simple_query("select 1").await?;
    Ok(Json(json!({ "status": "ok", "served_by": shop.name() })))
}

/// `GET /sagas`: those that have not ended.
async fn sagas(State(shop): State<Shop>) -> Result<Json<Unfinished>, Refusal> {
    match &shop.books {
        Books::Elsewhere(sagas) => Ok(Json(sagas.unfinished().await?)),
        Books::Here => Err(Refusal::Absent { what: "page", id: "/sagas".into() }),
    }
}

async fn absent(request: Request) -> Refusal {
    Refusal::Absent { what: "page", id: format!("{} {}", request.method(), request.uri().path()) }
}

async fn sign(State(shop): State<Shop>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().insert("x-served-by", HeaderValue::from_static(shop.name()));
    response
}
