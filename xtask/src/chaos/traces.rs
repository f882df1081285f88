//! What a slice at rest must look like in the databases, whatever happened before: gates, triggers, slots, leases.

use anyhow::Result;
use lab::Cluster;

use crate::demo::shop::Shop;

/// Each gate that is not as its owner needs it. `$` stands for whether the side owns the slice.
const GATES: &str = "
SELECT 'the gate is ' || CASE WHEN is_shut THEN 'shut' ELSE 'open' END || ' at epoch ' || epoch
    FROM strangler.gate WHERE is_shut = $
UNION ALL
SELECT 'trigger ' || tgname || ' of ' || tgrelid::regclass || ' is ' || CASE tgenabled WHEN 'D' THEN 'off' ELSE 'on' END
    FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
    WHERE tgname LIKE 'strangler%' AND NOT (relname IN ('customers', 'products')) AND (tgenabled = 'D') <> $";

/// A copy of a reference table stays shut in the service, whoever owns the slice.
const REFERENCES: &str = "
SELECT 'trigger ' || tgname || ' of ' || tgrelid::regclass || ' is off'
    FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
    WHERE tgname LIKE 'strangler%' AND relname IN ('customers', 'products') AND tgenabled = 'D'";

const HEADS: &str = "
SELECT 'slice ' || slice || ' is held, prepared or leased by ' || coalesce(coordinator, 'nobody')
    FROM strangler.slice WHERE hold IS NOT NULL OR preparing IS NOT NULL OR lease_until > clock_timestamp()";

const SLOTS: &str = "SELECT slot_name FROM pg_replication_slots";
const SETTINGS: &str = "SELECT 'settings of table ' || relname || ': ' || array_to_string(reloptions, ', ')
    FROM pg_class WHERE relnamespace = 'public'::regnamespace AND reloptions IS NOT NULL";

/// What is not as it should be in both databases while nothing is under way.
pub fn find(shop: &Shop, owner: &str) -> Result<Vec<String>> {
    let is_service = owner == "service";
    let mut traces = Vec::new();
    let sides = [
        ("monolith", &shop.monolith_cluster, "shop", !is_service),
        ("service", &shop.orders_cluster, "orders", is_service),
    ];
    for (side, cluster, database, owns) in sides {
        let gates = GATES.replace('$', if owns { "true" } else { "false" });
        traces.extend(rows(side, cluster, database, &gates)?);
        traces.extend(rows(side, cluster, database, SETTINGS)?);
        let slots = rows(side, cluster, database, SLOTS)?;
        let expected = usize::from(side == "monolith" || is_service);
        if slots.len() != expected {
            traces.push(format!("{side}: {expected} slot(s) should be here, not {slots:?}"));
        }
    }
    traces.extend(rows("service", &shop.orders_cluster, "orders", REFERENCES)?);
    traces.extend(rows("monolith", &shop.monolith_cluster, "shop", HEADS)?);
    Ok(traces)
}

fn rows(side: &str, cluster: &Cluster, database: &str, sql: &str) -> Result<Vec<String>> {
    let rows = cluster.psql(database, sql)?;
    Ok(rows.lines().map(|row| format!("{side}: {row}")).collect())
}
