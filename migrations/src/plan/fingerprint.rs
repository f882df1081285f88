//! A hash of what a plan means: the same for the same meaning on every machine and in every version of the
//! standard library, another where anything but a secret was changed.

use super::{LogChoice, Plan, Slice, SqlExpression, Table, Upstream};
use std::collections::BTreeMap;
use std::fmt::Display;

/// FNV-1a, 64 bits (<http://www.isthe.com/chongo/tech/comp/fnv/>): it tells plans apart, it protects nothing.
struct Fingerprint(u64);

impl Fingerprint {
    const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;

    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(Self::PRIME);
        }
    }

    /// A named value, closed so that two neighbours are never read as one.
    fn put(&mut self, name: &str, value: impl Display) {
        self.bytes(name.as_bytes());
        self.bytes(&[0x1f]);
        self.bytes(value.to_string().as_bytes());
        self.bytes(&[0x1e]);
    }

    fn put_upstreams(&mut self, upstreams: &[Upstream]) {
        upstreams.iter().for_each(|upstream| self.put("upstream", upstream));
    }

    fn put_columns(&mut self, name: &str, columns: &BTreeMap<String, SqlExpression>) {
        for (column, sql) in columns {
            self.put(name, column);
            self.put("sql", &sql.text);
        }
    }

    fn put_table(&mut self, name: &str, table: &Table) {
        self.put_forward(name, table);
        self.put_columns("reverse", &table.reverse);
    }

    /// What the service's rows are made by.
    fn put_forward(&mut self, name: &str, table: &Table) {
        self.put(name, &table.from);
        self.put("to", &table.to);
        for (from, to) in &table.rename {
            self.put("rename", from);
            self.put("as", to);
        }
        table.drop.iter().for_each(|column| self.put("drop", column));
        self.put_columns("set", &table.set);
    }
}

/// A hash of what a slice's rows in the service are made of and by, 16 hexadecimal digits.
pub(super) fn of_rows(slice: &Slice) -> String {
    let mut print = Fingerprint(Fingerprint::OFFSET_BASIS);
    for (name, tables) in [("table", &slice.tables), ("reference", &slice.reference)] {
        // Their order in the plan says nothing.
        let tables: BTreeMap<String, &Table> =
            tables.iter().map(|table| (table.from.to_string(), table)).collect();
        for table in tables.values() {
            print.put_forward(name, table);
            // A column that is made anew on the way back is not taken as it is on the way there.
            table.reverse.keys().for_each(|column| print.put("reverse", column));
        }
    }
    format!("{:016x}", print.0)
}

/// The plan's hash, 16 hexadecimal digits. Passwords and the override secret have no part in it.
pub(super) fn of(plan: &Plan) -> String {
    let mut print = Fingerprint(Fingerprint::OFFSET_BASIS);
    print.put("name", &plan.name);
    print.put_upstreams(&plan.monolith.upstreams);
    if let Some(database) = &plan.monolith.database {
        print.put("database", database.redacted());
    }
    for (name, service) in &plan.services {
        print.put("service", name);
        print.put_upstreams(&service.upstreams);
        if let Some(database) = &service.database {
            print.put("database", database.redacted());
        }
    }
    settings(plan, &mut print);
    slices(plan, &mut print);
    format!("{:016x}", print.0)
}

fn settings(plan: &Plan, print: &mut Fingerprint) {
    match &plan.log {
        LogChoice::Embedded { bytes_max } => print.put("embedded", bytes_max),
        LogChoice::Kafka { brokers, topic_prefix, partitions, replication, schemas } => {
            print.put("kafka", brokers);
            print.put("topic_prefix", topic_prefix);
            print.put("partitions", partitions);
            print.put("replication", replication);
            print.put("schemas", schemas);
        }
    }
    let proxy = &plan.proxy;
    print.put("proxy", &proxy.listen);
    print.put("admin", &proxy.admin);
    print.put("override", proxy.override_secret.is_some());
    print.put("trust_forwarded", proxy.trust_forwarded);
    print.put("health_path", proxy.health_path.as_deref().unwrap_or_default());
    print.put("connect_timeout", proxy.connect_timeout_ms);
    print.put("read_timeout", proxy.read_timeout_ms);
    print.put("max_body", proxy.body_bytes_max.unwrap_or_default());
    print.put("hold_writes", proxy.hold.writes_max);
    print.put("hold_bytes", proxy.hold.bytes_max);
    print.put("hold_wait", proxy.hold.wait_ms_max);
    print.put("controller", &plan.controller.listen);
    print.put("bridge", &plan.bridge.listen);
    print.put("max_wal_kept", plan.limits.wal_kept_bytes_max);
    print.put("max_row", plan.limits.row_bytes_max);
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
        }
        slice.tables.iter().for_each(|table| print.put_table("table", table));
        slice.reference.iter().for_each(|table| print.put_table("reference", table));
        match &slice.sticky {
            Sticky::Own => print.put("sticky", "own"),
            Sticky::Cookie(name) => print.put("cookie", name),
            Sticky::Header(name) => print.put("header", name),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_fnv_1a() {
        // Test vectors of the FNV reference (64 bit, FNV-1a): "", "a", "foobar".
        let hash = |text: &str| {
            let mut print = Fingerprint(Fingerprint::OFFSET_BASIS);
            print.bytes(text.as_bytes());
            print.0
        };
        assert_eq!(hash(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(hash("foobar"), 0x8594_4171_f739_67e8);
    }
}
