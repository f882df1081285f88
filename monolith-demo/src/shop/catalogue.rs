//! What only the monolith serves: customers, products, and an old URL of orders.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio_postgres::Row;

use super::Shop;
use super::api::address;
use super::money::Cents;
use super::refusal::Refusal;

/// The most customers or products in one answer.
const LIST_MAX: i64 = 500;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Customer {
    pub id: i64,
    pub name: String,
    pub email: String,
    /// The most that open orders may add up to.
    pub credit_limit: Cents,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Product {
    pub id: i64,
    pub sku: String,
    pub name: String,
    pub price: Cents,
    pub stock: i32,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Customers {
    /// The first of them, by number.
    pub customers: Vec<Customer>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Products {
    /// The first of them, by number.
    pub products: Vec<Product>,
}

/// The routes that only the monolith has.
pub fn routes() -> Router<Shop> {
    Router::new()
        .route("/customers", get(customers))
        .route("/customers/{id}", get(customer))
        .route("/products", get(products))
        .route("/old-orders/{id}", get(old_order))
}

impl Shop {
    pub async fn customers(&self, limit: i64) -> Result<Vec<Customer>, Refusal> {
        let db = self.pool.get().await?;
        let sql = "select id, name, email, (credit_limit * 100)::bigint as credit_limit, created_at \
                   from customers order by id limit $1";
        let rows = db.query(&db.prepare_cached(sql).await?, &[&limit]).await?;
        rows.iter().map(read_customer).collect()
    }
}

async fn customers(State(shop): State<Shop>) -> Result<Json<Customers>, Refusal> {
    Ok(Json(Customers { customers: shop.customers(LIST_MAX).await? }))
}

async fn customer(
    State(shop): State<Shop>,
    id: Result<Path<i64>, PathRejection>,
) -> Result<Json<Customer>, Refusal> {
    let id = id?.0;
    let db = shop.pool.get().await?;
    let sql = "select id, name, email, (credit_limit * 100)::bigint as credit_limit, created_at \
               from customers where id = $1";
    let row = db.query_opt(&db.prepare_cached(sql).await?, &[&id]).await?;
    let row = row.ok_or_else(|| Refusal::Absent { what: "customer", id: id.to_string() })?;
    Ok(Json(read_customer(&row)?))
}

async fn products(State(shop): State<Shop>) -> Result<Json<Products>, Refusal> {
    let db = shop.pool.get().await?;
    let sql =
        "select id, sku, name, (price * 100)::bigint as price, stock from products order by id limit $1";
    let rows = db.query(&db.prepare_cached(sql).await?, &[&LIST_MAX]).await?;
    let read = |row: &Row| -> Result<Product, Refusal> {
        Ok(Product {
            id: row.try_get("id")?,
            sku: row.try_get("sku")?,
            name: row.try_get("name")?,
            price: Cents(row.try_get("price")?),
            stock: row.try_get("stock")?,
        })
    };
    Ok(Json(Products { products: rows.iter().map(read).collect::<Result<_, _>>()? }))
}

async fn old_order(headers: HeaderMap, id: Result<Path<i64>, PathRejection>) -> Result<Response, Refusal> {
    let location = [(header::LOCATION, address(&headers, id?.0))];
    Ok((StatusCode::FOUND, location).into_response())
}

fn read_customer(row: &Row) -> Result<Customer, Refusal> {
    Ok(Customer {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        email: row.try_get("email")?,
        credit_limit: Cents(row.try_get("credit_limit")?),
        created_at: row.try_get("created_at")?,
    })
}
