//! A hash of what a plan means: another where anything but a secret was changed.

use super::{Consistency, LogChoice, Plan, Slice, SqlExpression, Table, Upstream};
use crate::fingerprint::Fingerprint;
use std::collections::BTreeMap;

fn put_upstreams(print: &mut Fingerprint, upstreams: &[Upstream]) {
    upstreams.iter().for_each(|upstream| print.put("upstream", upstream));
}

fn put_columns(print: &mut Fingerprint, name: &str, columns: &BTreeMap<String, SqlExpression>) {
    for (column, sql) in columns {
        print.put(name, column);
        print.put("sql", &sql.text);
    }
}

fn put_table(print: &mut Fingerprint, name: &str, table: &Table) {
    put_forward(print, name, table);
    put_columns(print, "reverse", &table.reverse);
}

/// What the service's rows are made by.
fn put_forward(print: &mut Fingerprint, name: &str, table: &Table) {
    print.put(name, &table.from);
    print.put("to", &table.to);
    for (from, to) in &table.rename {
        print.put("rename", from);
        print.put("as", to);
    }
    table.drop.iter().for_each(|column| print.put("drop", column));
    put_columns(print, "set", &table.set);
}

/// A hash of what a slice's rows in the service are made of and by, 16 hexadecimal digits.
pub(super) fn of_rows(slice: &Slice) -> String {
    let mut print = Fingerprint::default();
    for (name, tables) in [("table", &slice.tables), ("reference", &slice.reference)] {
        // Their order in the plan says nothing.
        let tables: BTreeMap<String, &Table> =
            tables.iter().map(|table| (table.from.to_string(), table)).collect();
        for table in tables.values() {
            put_forward(&mut print, name, table);
            // A column that is made anew on the way back is not taken as it is on the way there.
            table.reverse.keys().for_each(|column| print.put("reverse", column));
        }
    }
    print.digest().to_string()
}

/// The plan's hash, 16 hexadecimal digits. Passwords and the override secret have no part in it.
pub(super) fn of(plan: &Plan) -> String {
    let mut print = Fingerprint::default();
    print.put("name", &plan.name);
    put_upstreams(&mut print, &plan.monolith.upstreams);
    if let Some(database) = &plan.monolith.database {
        print.put("database", database.redacted());
    }
    for (name, service) in &plan.services {
        print.put("service", name);
        put_upstreams(&mut print, &service.upstreams);
        if let Some(database) = &service.database {
            print.put("database", database.redacted());
        }
    }
    settings(plan, &mut print);
    slices(plan, &mut print);
    print.digest().to_string()
}

fn settings(plan: &Plan, print: &mut Fingerprint) {
    match &plan.log {
        LogChoice::Embedded { bytes_max } => print.put("embedded", bytes_max),
        LogChoice::Kafka { brokers, topic_prefix, partitions, replication, publish, bytes_max, options } => {
            print.put("kafka", brokers);
            print.put("topic_prefix", topic_prefix);
            print.put("partitions", partitions);
            print.put("replication", replication);
            print.put("publish", publish.is_some());
            if let Some(publish) = publish {
                publish.put(print);
            }
            print.put("max", bytes_max);
            for (name, option) in options.iter() {
                print.put("option", name);
                print.put("value", if option.is_secret { "" } else { option.expose() });
            }
        }
    }
    let proxy = &plan.proxy;
    print.put("proxy", &proxy.listen);
    print.put("admin", &proxy.admin);
    print.put("override", proxy.override_secret.is_some());
    print.put("trust_forwarded", proxy.trust_forwarded);
    print.put("health_path", proxy.health_path.as_deref().unwrap_or_default());
    if let Some(host) = &proxy.health_host {
        print.put("health_host", host);
    }
    print.put("connect_timeout", proxy.connect_timeout_ms);
    print.put("read_timeout", proxy.read_timeout_ms);
    print.put("drain", proxy.drain_ms);
    print.put("max_body", proxy.body_bytes_max.unwrap_or_default());
    print.put("max_head", proxy.head_bytes_max);
    print.put("max_connections", proxy.connections_max.unwrap_or_default());
    print.put("reuse", proxy.reuse.word());
    print.put("hold_writes", proxy.hold.writes_max);
    print.put("hold_bytes", proxy.hold.bytes_max);
    print.put("hold_wait", proxy.hold.wait_ms_max);
    print.put("consistency", proxy.consistency.map(Consistency::word).unwrap_or_default());
    print.put("ambiguous_paths", proxy.takes_ambiguous_paths);
    if let Some(tls) = &proxy.tls {
        tls.put(print);
    }
    print.put("controller", &plan.controller.listen);
    print.put("bridge", &plan.bridge.listen);
    print.put("max_wal_kept", plan.limits.wal_kept_bytes_max);
    print.put("max_row", plan.limits.row_bytes_max);
    print.put("max_staleness", plan.limits.staleness_ms_max);
    for acceptance in &plan.accept {
        print.put(
            "accept",
            match acceptance {
                super::Acceptance::AsyncFailover => "async-failover",
            },
        );
    }
}

fn slices(plan: &Plan, print: &mut Fingerprint) {
    use crate::pattern::Access;
    use crate::plan::{Sticky, TriggerFate, WriterFate};
    for slice in plan.slices.values() {
        print.put("slice", &slice.name);
        print.put("service", &slice.service);
        for route in &slice.routes {
            print.put("route", &route.name);
            print.put("match", &route.pattern);
            print.put(
                "access",
                match route.access {
                    Access::Read => "read",
                    Access::Write => "write",
                },
            );
            if route.is_pinned {
                print.put("side", "monolith");
            }
        }
        slice.tables.iter().for_each(|table| put_table(print, "table", table));
        slice.reference.iter().for_each(|table| put_table(print, "reference", table));
        match &slice.sticky {
            Sticky::Own => print.put("sticky", "own"),
            Sticky::Cookie(name) => print.put("cookie", name),
            Sticky::Header(name) => print.put("header", name),
        }
        if slice.falls_back_on_5xx {
            print.put("fallback", "on-5xx");
        }
        for (writer, fate) in &slice.writers {
            print.put("writer", writer);
            print.put(
                "fate",
                match fate {
                    WriterFate::Moved => "moved",
                    WriterFate::Disabled => "disabled",
                    WriterFate::Accepted => "accepted",
                },
            );
        }
        for (trigger, fate) in &slice.triggers {
            print.put("trigger", trigger);
            print.put(
                "fate",
                match fate {
                    TriggerFate::Fire => "fire",
                    TriggerFate::Skip => "skip",
                },
            );
        }
    }
}
