//! What strangler left behind after `sync drop` and `uninstall`. It should be nothing.

use anyhow::Result;

use super::shop::Shop;
use lab::{Broker, Cluster};

/// Every object in a database that strangler may have made, one per line.
const SQL: &str = "
SELECT 'slot ' || slot_name FROM pg_replication_slots
UNION ALL SELECT 'publication ' || pubname FROM pg_publication
UNION ALL SELECT 'role ' || rolname FROM pg_roles WHERE rolname LIKE 'strangler%'
UNION ALL SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname LIKE 'strangler%'
UNION ALL SELECT 'settings of table ' || relname || ': ' || array_to_string(reloptions, ', ')
    FROM pg_class WHERE relnamespace = 'public'::regnamespace AND reloptions IS NOT NULL
UNION ALL SELECT 'trigger ' || tgname FROM pg_trigger WHERE tgname LIKE 'strangler%'";

/// What is left in both databases and in the broker, each with its place.
pub fn find(shop: &Shop, broker: Option<&Broker>) -> Result<Vec<String>> {
    let mut left = Vec::new();
    left.extend(in_database("monolith", &shop.monolith_cluster, "shop")?);
    left.extend(in_database("service", &shop.orders_cluster, "orders")?);
    if let Some(broker) = broker {
        // Topics of tables are for other programs, and stay.
        let topics = broker.topics()?.into_iter().filter(|topic| topic.starts_with("strangler."));
        left.extend(topics.map(|topic| format!("Kafka: topic {topic}")));
    }
    Ok(left)
}

fn in_database(name: &str, cluster: &Cluster, database: &str) -> Result<Vec<String>> {
    let rows = cluster.psql(database, SQL)?;
    Ok(rows.lines().map(|row| format!("{name}: {row}")).collect())
}
