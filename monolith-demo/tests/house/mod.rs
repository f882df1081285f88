//! A shop to test: a private Postgres, and both sides of the shop on free ports.

#![allow(dead_code, reason = "each test file uses its own part of the house")]

pub mod door;

use std::time::Duration;

use lab::Cluster;
use monolith_demo::shop::saga::courier::Courier;
use monolith_demo::shop::saga::driver::Sagas;
use monolith_demo::shop::schema::Seed;
use monolith_demo::shop::{Shop, database, schema, server};
use monolith_demo::traffic::proof;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// How far the service's numbers are ahead of the monolith's, so that no order of one side looks like the other's.
pub const APART: i64 = 1_000_000;

pub const SEED: Seed = Seed { customers: 50, products: 20, orders: 400 };

/// Both sides, each with its database and an address of its own.
pub struct House {
    pub monolith: String,
    /// Address of the monolith's inner door.
    pub internal: String,
    pub orders: String,
    pub monolith_url: String,
    pub orders_url: String,
    /// Keeps the servers running; they stop when it is dropped.
    pub stop: watch::Sender<bool>,
    pub cluster: Cluster,
}

impl House {
    pub async fn build(seed: Seed) -> Self {
        let mut house = Self::without_service(seed).await;
        house.orders = house.serve_orders(&house.internal).await;
        house
    }

    /// A house whose service is not running yet. Nobody drives its sagas.
    pub async fn without_service(seed: Seed) -> Self {
        let cluster = Cluster::start_with("-c fsync=off");
        let (monolith_url, orders_url) = (cluster.database("monolith"), cluster.database("orders"));
        let (stop, stopped) = watch::channel(false);
        let pool = database::pool(&monolith_url, "test-monolith", 12).unwrap();
        schema::migrate_monolith(&pool, seed).await.unwrap();
        // A second migration must change nothing, and must not seed again.
        schema::migrate_monolith(&pool, seed).await.unwrap();
        let shop = Shop::monolith(pool);
        let internal = serve(server::internal(shop.clone()), stopped.clone()).await;
        let monolith = serve(server::monolith(shop), stopped).await;
        let pool = database::pool(&orders_url, "test-orders", 12).unwrap();
        schema::migrate_orders(&pool).await.unwrap();
        schema::migrate_orders(&pool).await.unwrap();
        Self { monolith, internal, orders: String::new(), monolith_url, orders_url, stop, cluster }
    }

    /// Serves the service `orders` in this process, with the books at `internal`. Gives its address.
    pub async fn serve_orders(&self, internal: &str) -> String {
        let pool = database::pool(&self.orders_url, "test-orders", 12).unwrap();
        let sagas = Sagas::new(pool.clone(), Courier::new(internal).unwrap());
        tokio::spawn(sagas.clone().run(self.stop.subscribe()));
        serve(server::orders(Shop::orders(pool, sagas)), self.stop.subscribe()).await
    }

    /// Fills the service's database from the monolith's, by the mapping.
    pub async fn copy(&self) {
        let source = database::connect(&self.monolith_url, "test-copy").await.unwrap();
        let sink = database::connect(&self.orders_url, "test-copy").await.unwrap();
        sink.batch_execute("truncate customers, products, orders, items, payments").await.unwrap();
        for (table, select) in [
            ("customers", "select * from customers"),
            ("products", "select * from products"),
            (
                "orders",
                "select id, customer_id, status as state, note, (total * 100)::bigint as total_cents, \
                 placed_at, version from orders",
            ),
            (
                "items",
                "select id, order_id, product_id, qty as quantity, (price * 100)::bigint as unit_cents \
                 from order_items",
            ),
            (
                "payments",
                "select id, order_id, (amount * 100)::bigint as amount_cents, method, paid_at from payments",
            ),
        ] {
            let rows = format!("select coalesce(json_agg(r), '[]')::text from ({select}) r");
            let rows: String = source.query_one(&rows, &[]).await.unwrap().get(0);
            let insert = format!(
                "insert into {table} select * from json_populate_recordset(null::{table}, $1::text::json)"
            );
            sink.execute(&insert, &[&rows]).await.unwrap();
            let name = if table == "items" { "order_items" } else { table };
            let last = format!("select nextval(pg_get_serial_sequence('{name}', 'id')) + 1");
            let last: i64 = source.query_one(&last, &[]).await.unwrap().get(0);
            for (side, name, last) in [(&source, name, last), (&sink, table, last + APART)] {
                let set = format!("select setval(pg_get_serial_sequence('{name}', 'id'), $1)");
                side.query_one(&set, &[&last]).await.unwrap();
            }
        }
    }

    pub fn databases(&self) -> proof::Databases {
        proof::Databases {
            monolith: self.monolith_url.clone(),
            orders: Some(self.orders_url.clone()),
            patience: Duration::from_millis(500),
        }
    }

    pub async fn sql(&self, url: &str, sql: &str) {
        database::connect(url, "test").await.unwrap().batch_execute(sql).await.unwrap();
    }

    /// One value, as text.
    pub async fn value(&self, url: &str, sql: &str) -> String {
        let db = database::connect(url, "test").await.unwrap();
        let row = db.query_one(&format!("select ({sql})::text"), &[]).await.unwrap();
        row.get::<_, Option<String>>(0).unwrap_or_default()
    }
}

/// Serves on a free port and gives the address.
pub async fn serve(router: axum::Router, stop: watch::Receiver<bool>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(server::serve(listener, router, server::until(stop)));
    format!("http://{address}")
}
