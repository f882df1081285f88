//! The patient: a monolith and a split-out service, each with a Postgres cluster of its own, started as their team
//! would start them.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use lab::{Cluster, free_port};

use super::built;
use crate::program::Program;

/// The applications' own roles; strangler gets another.
const MONOLITH_ROLE: &str = "shop";
const ORDERS_ROLE: &str = "orders";
/// Strangler's own role, made by `strangler install`.
const STRANGLER_ROLE: &str = "strangler";
/// Tells either of them to make its tables first.
const MIGRATE: &str = "--migrate";
/// A careful team bounds what a forgotten slot may keep.
const SETTINGS: &str = "-c max_slot_wal_keep_size=4GB";

/// The shop, open. What is dropped first stands first.
pub struct Shop {
    monolith: Program,
    /// The service.
    pub orders: Program,
    pub monolith_url: String,
    pub orders_url: String,
    pub monolith_cluster: Cluster,
    pub orders_cluster: Cluster,
}

impl Shop {
    pub fn open() -> Result<Shop> {
        let monolith_cluster = Cluster::of_application("monolith", "shop", MONOLITH_ROLE, SETTINGS)?;
        let orders_cluster = Cluster::of_application("orders", "orders", ORDERS_ROLE, SETTINGS)?;
        let monolith_listen = format!("127.0.0.1:{}", free_port()?);
        let orders_listen = format!("127.0.0.1:{}", free_port()?);
        let internal_listen = format!("127.0.0.1:{}", free_port()?);
        let mut command = Command::new(built("monolith"));
        command.args([MIGRATE, "--listen", &monolith_listen, "--internal-listen", &internal_listen]);
        command.env("MONOLITH_DATABASE_URL", monolith_cluster.url(MONOLITH_ROLE, "shop"));
        let monolith = serve("the monolith", command, &monolith_listen, &monolith_cluster)?;
        let mut command = Command::new(built("orders"));
        let internal_url = format!("http://{internal_listen}");
        command.args([MIGRATE, "--listen", &orders_listen, "--monolith", &internal_url]);
        command.env("ORDERS_DATABASE_URL", orders_cluster.url(ORDERS_ROLE, "orders"));
        let mut orders = serve("the service orders", command, &orders_listen, &orders_cluster)?;
        // A service that is started again while its database is away waits for it, but would not migrate it.
        orders.leave_out(MIGRATE);
        Ok(Shop {
            monolith,
            orders,
            monolith_url: format!("http://{monolith_listen}"),
            orders_url: format!("http://{orders_listen}"),
            monolith_cluster,
            orders_cluster,
        })
    }

    /// The databases' URLs for the applications: monolith, orders. The traffic's proof reads through them.
    pub fn application_urls(&self) -> (String, String) {
        (self.monolith_cluster.url(MONOLITH_ROLE, "shop"), self.orders_cluster.url(ORDERS_ROLE, "orders"))
    }

    /// The databases' URLs for strangler's own role: monolith, orders.
    pub fn strangler_urls(&self) -> (String, String) {
        (self.monolith_cluster.url(STRANGLER_ROLE, "shop"), self.orders_cluster.url(STRANGLER_ROLE, "orders"))
    }

    /// The databases' URLs for the superuser: monolith, orders.
    pub fn admin_urls(&self) -> (String, String) {
        (self.monolith_cluster.admin_url("shop"), self.orders_cluster.admin_url("orders"))
    }

    /// The highest order number on each side: monolith, service.
    pub fn newest_orders(&self) -> Result<(i64, i64)> {
        let newest = |cluster: &Cluster, database: &str| -> Result<i64> {
            let text = cluster.psql(database, "SELECT coalesce(max(id), 0) FROM public.orders")?;
            text.parse().with_context(|| format!("an order number is not {text:?}"))
        };
        Ok((newest(&self.monolith_cluster, "shop")?, newest(&self.orders_cluster, "orders")?))
    }

    pub fn must_be_open(&mut self) -> Result<()> {
        self.monolith.must_run()?;
        self.orders.must_run()
    }

    /// Leaves the clusters' folders behind, and names them.
    pub fn keep(&mut self) -> [PathBuf; 2] {
        [&mut self.monolith_cluster, &mut self.orders_cluster].map(|cluster| {
            cluster.keep();
            cluster.folder().to_owned()
        })
    }
}

fn serve(name: &str, command: Command, listen: &str, cluster: &Cluster) -> Result<Program> {
    Program::start(name, command, (listen, "/health"), &cluster.folder().join("application.log"))
}
