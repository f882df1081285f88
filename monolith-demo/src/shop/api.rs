//! The HTTP contract of orders: the same on both sides.
//!
//! Translates between HTTP and [`Shop`]. The business rules are elsewhere.

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;

use super::Shop;
use super::order::{Change, NewOrder, NewPayment, Order, Orders, Search, Status};
use super::refusal::Refusal;

/// The length of a list without `limit`.
const LIST_DEFAULT: i64 = 20;

type Id = Result<Path<i64>, PathRejection>;

pub fn routes() -> Router<Shop> {
    Router::new()
        .route("/orders", get(list).post(place))
        .route("/orders/search", post(search))
        .route("/orders/{id}", get(show).put(change).delete(remove))
        .route("/orders/{id}/pay", post(pay))
        .route("/orders/{id}/cancel", post(cancel))
}

/// The absolute URL of an order, on the host of the request. Old clients follow it literally.
#[must_use]
pub fn address(headers: &HeaderMap, id: i64) -> String {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    format!("http://{host}/orders/{id}")
}

#[derive(Deserialize)]
struct ListQuery {
    customer: Option<i64>,
    limit: Option<i64>,
}

async fn list(
    State(shop): State<Shop>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<Orders>, Refusal> {
    let Query(query) = query?;
    let wish = Search { customer: query.customer, ..Search::default() };
    Ok(Json(shop.search(&wish, query.limit.unwrap_or(LIST_DEFAULT)).await?))
}

async fn search(
    State(shop): State<Shop>,
    wish: Result<Json<Search>, JsonRejection>,
) -> Result<Json<Orders>, Refusal> {
    Ok(Json(shop.search(&wish?.0, LIST_DEFAULT).await?))
}

async fn show(State(shop): State<Shop>, id: Id) -> Result<Json<Order>, Refusal> {
    Ok(Json(shop.show(id?.0).await?))
}

async fn place(
    State(shop): State<Shop>,
    headers: HeaderMap,
    wish: Result<Json<NewOrder>, JsonRejection>,
) -> Result<Response, Refusal> {
    let order = shop.place(&wish?.0).await?;
    let status = if order.status == Status::Pending { StatusCode::ACCEPTED } else { StatusCode::CREATED };
    let location = [(header::LOCATION, address(&headers, order.id))];
    Ok((status, location, Json(order)).into_response())
}

async fn change(
    State(shop): State<Shop>,
    id: Id,
    change: Result<Json<Change>, JsonRejection>,
) -> Result<Json<Order>, Refusal> {
    Ok(Json(shop.change(id?.0, &change?.0).await?))
}

async fn pay(
    State(shop): State<Shop>,
    id: Id,
    payment: Result<Json<NewPayment>, JsonRejection>,
) -> Result<Json<Order>, Refusal> {
    Ok(Json(shop.pay(id?.0, &payment?.0).await?))
}

async fn cancel(State(shop): State<Shop>, id: Id) -> Result<Json<Order>, Refusal> {
    Ok(Json(shop.cancel(id?.0).await?))
}

async fn remove(State(shop): State<Shop>, id: Id) -> Result<Response, Refusal> {
    let id = id?.0;
    shop.remove(id).await?;
    Ok(Json(json!({ "deleted": id, "served_by": shop.name() })).into_response())
}
