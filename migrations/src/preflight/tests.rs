//! One hand-built world in which all is well, and for each finding the one change that brings it.

mod columns;
mod cutover;
mod references;

use super::*;
use crate::code::Code;
use crate::column_type::TypeSeen;
use crate::lsn::EndLsn;
use crate::names::TableName;
use crate::plan;
use std::collections::BTreeMap;

pub(super) const PLAN: &str = r#"
version: 1
name: shop
monolith: { upstream: "http://127.0.0.1:4000", database: "postgres://strangler:x@127.0.0.1/shop" }
services:
  orders: { upstream: "http://127.0.0.1:4001", database: "postgres://strangler:x@127.0.0.1/orders" }
slices:
  orders:
    service: orders
    routes: { show: "GET /orders/{id}" }
    tables:
      - from: public.orders
        rename: { note: remark }
        set: { total_cents: "(total * 100)::bigint" }
        reverse: { total: "total_cents / 100.0" }
    reference: [public.customers]
"#;

pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) source: DatabaseSeen,
    sink: DatabaseSeen,
}

fn table(name: &str) -> TableName {
    name.parse().unwrap()
}

fn column(name: &str, base: &str) -> ColumnSeen {
    ColumnSeen {
        name: name.to_owned(),
        number: 0,
        type_oid: 0,
        declared: base.to_owned(),
        cast: base.to_owned(),
        exact: base.to_owned(),
        kind: TypeSeen::Base(base.to_owned()),
        modifier: -1,
        written: 0,
        file: 0,
        is_key: name == "id",
        key_position: 0,
        default: None,
        operators: None,
        is_nullable: false,
        has_default: false,
        is_always_identity: false,
        generated_as: None,
        is_toastable: base == "text",
    }
}

fn seen_table(columns: &[(&str, &str)], rights: &[&str]) -> TableSeen {
    TableSeen {
        kind: KindSeen::Table,
        owner: "app".to_owned(),
        key: vec!["id".to_owned()],
        late_key: None,
        unique_indexes: Vec::new(),
        identity: IdentitySeen::Default,
        columns: columns.iter().map(|(name, base)| column(name, base)).collect(),
        triggers: Vec::new(),
        rules: Vec::new(),
        is_unlogged: false,
        has_row_security: false,
        has_children: false,
        partition_of: None,
        large_objects: Default::default(),
        is_empty: Some(true),
        may_use_schema: true,
        rights: rights.iter().map(|right| (*right).to_owned()).collect(),
    }
}

fn database(plan: &Plan, database: Database, tables: BTreeMap<TableName, TableSeen>) -> DatabaseSeen {
    let slice = plan.slices.values().next().unwrap();
    let functions = crate::sql::functions(slice, &database);
    DatabaseSeen {
        name: database.as_str().to_owned(),
        collation: "C.UTF-8 C.UTF-8".to_owned(),
        system_id: Some("7".to_owned()),
        server: ServerSeen {
            version: 150_018,
            encoding: "UTF8".to_owned(),
            is_standby: false,
            wal_level: "logical".to_owned(),
            slots_max: 10,
            wal_senders_max: 10,
            wal_senders: 0,
            slot_wal_bytes_max: Some(64 << 30),
            standbys: Vec::new(),
        },
        role: RoleSeen {
            name: "strangler".to_owned(),
            is_superuser: false,
            may_replicate: true,
            may_make_temporary: true,
            other_sessions: Vec::new(),
        },
        installed: Some(InstalledSeen {
            plan: plan.name.to_string(),
            facts: Some(crate::sql::facts(plan, &database, "strangler")),
            functions: functions.into_iter().collect(),
            published: Some(match database {
                Database::Monolith => slice.all_tables().map(|table| (table.from.clone(), None)).collect(),
                Database::Service(_) => slice.tables.iter().map(|table| (table.to.clone(), None)).collect(),
            }),
            filled: BTreeMap::new(),
        }),
        tables,
        foreign_keys: Vec::new(),
        slots: Vec::new(),
        prepared: Vec::new(),
        long_transactions: Vec::new(),
        blockers: Vec::new(),
        shared_sequences: Vec::new(),
        gates: BTreeMap::new(),
        heads: BTreeMap::new(),
        writers: BTreeMap::new(),
        clock_ahead_ms: 0,
        rows_written: BTreeMap::new(),
        database,
    }
}

impl World {
    fn sound() -> World {
        Self::of(PLAN)
    }

    pub(super) fn of(text: &str) -> World {
        let (plan, _) = plan::check("plan.yaml", text, &|_| None).unwrap();
        let read = ["SELECT"];
        let write = ["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE"];
        let from = [("id", "int8"), ("customer_id", "int8"), ("note", "text"), ("total", "numeric")];
        let to = [("id", "int8"), ("customer_id", "int8"), ("remark", "text"), ("total_cents", "int8")];
        let customers = [("id", "int8"), ("name", "text")];
        let mut orders = seen_table(&from, &write);
        orders.columns[3].is_toastable = false;
        let sources = [(table("orders"), orders), (table("customers"), seen_table(&customers, &read))];
        let sinks = [
            (table("orders"), seen_table(&to, &write)),
            (table("customers"), seen_table(&customers, &write)),
        ];
        let service = Database::Service("orders".parse().unwrap());
        World {
            source: database(&plan, Database::Monolith, sources.into_iter().collect()),
            sink: database(&plan, service, sinks.into_iter().collect()),
            plan,
        }
    }

    fn findings(&self) -> Vec<Finding> {
        let slice = self.plan.slices.values().next().unwrap();
        let seen = Sight { source: Some(self.source.clone()), sink: Some(self.sink.clone()) };
        judge(&self.plan, slice, &seen)
    }

    pub(super) fn source(&mut self) -> &mut TableSeen {
        self.source.tables.get_mut(&table("orders")).unwrap()
    }

    fn sink(&mut self) -> &mut TableSeen {
        self.sink.tables.get_mut(&table("orders")).unwrap()
    }
}

/// The finding that a change brings, which must be the only one, and its hint must hold these words.
#[track_caller]
fn brings(code: Code, hint: &str, change: impl FnOnce(&mut World)) -> Finding {
    let mut world = World::sound();
    change(&mut world);
    let found = world.findings();
    assert_eq!(found.iter().map(|f| f.code).collect::<Vec<_>>(), [code], "{found:#?}");
    assert!(found[0].remedy.contains(hint), "{}", found[0].remedy);
    found[0].clone()
}

#[test]
fn a_sound_world_has_no_finding() {
    assert_eq!(World::sound().findings(), []);
}

#[test]
fn what_was_not_observed_is_passed_over() {
    let world = World::sound();
    let slice = world.plan.slices.values().next().unwrap();
    assert_eq!(judge(&world.plan, slice, &Sight::default()), []);
}

#[test]
fn the_servers_settings() {
    let wal = "ALTER SYSTEM SET wal_level = 'logical';";
    assert!(
        brings(Code::SourceWalLevel, wal, |w| w.source.server.wal_level = "replica".to_owned()).is_error()
    );
    brings(Code::SourceNoFreeSlot, "max_replication_slots = 2", |w| w.source.server.slots_max = 1);
    brings(Code::SourceNoFreeWalSender, "max_wal_senders = 11", |w| w.source.server.wal_senders = 9);
    brings(Code::SourceWalUnlimited, "max_slot_wal_keep_size", |w| w.source.server.slot_wal_bytes_max = None);
    brings(Code::SourceWalLimitLow, "max_wal_kept", |w| w.source.server.slot_wal_bytes_max = Some(1 << 20));
    brings(Code::ServerStandby, "primary", |w| w.sink.server.is_standby = true);
    brings(Code::ServerVersion, "upgrade", |w| w.source.server.version = 130_020);
    assert!(!brings(Code::ServerMinorVersion, "15.14", |w| w.source.server.version = 150_013).is_error());
    let mut newest = World::sound();
    newest.source.server.version = 180_000;
    assert_eq!(newest.findings(), []);
}

#[test]
fn the_role() {
    brings(Code::SourceNoReplicationRight, "ALTER ROLE \"strangler\" REPLICATION;", |w| {
        w.source.role.may_replicate = false
    });
    brings(Code::RoleSuperuser, "--admin-url monolith=URL --admin-url orders=URL", |w| {
        w.sink.role.is_superuser = true
    });
    brings(Code::RoleOwnsTables, "role of strangler's own", |w| w.source().owner = "strangler".to_owned());
    brings(Code::SinkNoTemporary, "GRANT TEMPORARY ON DATABASE \"orders\"", |w| {
        w.sink.role.may_make_temporary = false
    });
    brings(Code::RoleShared, "a role of its own", |w| {
        w.source.role.other_sessions.push(SessionSeen { pid: 7, application: "puma".to_owned() });
    });
}

#[test]
fn slots_and_open_transactions() {
    let slot = |name: &str, is_active, is_lost| SlotSeen {
        name: name.to_owned(),
        is_of_this_database: true,
        is_temporary: false,
        is_active,
        is_lost,
        reader: None,
        confirmed: EndLsn(0),
        kept_bytes: 9,
    };
    let drop = "SELECT pg_drop_replication_slot('strangler_shop_abcd1234');";
    brings(Code::SourceSlotIdle, drop, |w| {
        w.source.slots.push(slot("strangler_shop_abcd1234", false, false))
    });
    brings(Code::SourceSlotLost, drop, |w| w.source.slots.push(slot("strangler_shop_abcd1234", false, true)));
    brings(
        Code::SourcePreparedTransaction,
        "in database mail of the monolith's server: COMMIT PREPARED 'it''s'; or ROLLBACK",
        |w| w.source.prepared.push(PreparedSeen { gid: "it's".to_owned(), database: "mail".to_owned() }),
    );
    brings(Code::SourceLongTransaction, "pg_terminate_backend(7)", |w| {
        let (user, application) = ("app".to_owned(), "report".to_owned());
        w.source.long_transactions.push(TransactionSeen { pid: 7, user, application, seconds: 90 });
    });
    let mut read = World::sound();
    read.source.slots.extend([slot("strangler_shop_abcd1234", true, false), slot("another", false, false)]);
    // Another plan's, and the same plan's for another database of the server.
    read.source.slots.push(slot("strangler_shop_2_abcd1234", false, true));
    read.source
        .slots
        .push(SlotSeen { is_of_this_database: false, ..slot("strangler_shop_ffff0000", false, true) });
    assert_eq!(read.findings(), []);
    let others = |w: &mut World| {
        w.source.slots.push(slot("strangler_shop_2_abcd1234", true, false));
        w.source.server.slots_max = 2;
    };
    brings(Code::SourceNoFreeSlot, "max_replication_slots = 3", others);
}

#[test]
fn what_is_installed() {
    let command = "`strangler install --admin-url monolith=URL --admin-url orders=URL`";
    brings(Code::InstallMissing, command, |w| w.sink.installed = None);
    brings(Code::InstallOtherPlan, "strangler uninstall", |w| {
        w.source.installed.as_mut().unwrap().plan = "old".to_owned()
    });
    brings(Code::InstallOutdated, "strangler install", |w| w.source.installed.as_mut().unwrap().facts = None);
    brings(Code::InstallNoFunction, "strangler install", |w| {
        w.sink.installed.as_mut().unwrap().functions.remove("gate_of_orders");
    });
    brings(Code::InstallNoPublication, "strangler install", |w| {
        w.source.installed.as_mut().unwrap().published = None
    });
}

#[test]
fn encodings() {
    for is_source in [true, false] {
        let with = |encoding: &str, change: &str| {
            let mut world = World::sound();
            let seen = if is_source { &mut world.source } else { &mut world.sink };
            seen.server.encoding = encoding.to_owned();
            let found = world.findings();
            let found: Vec<&Finding> =
                found.iter().filter(|finding| finding.code == Code::DatabaseEncoding).collect();
            assert_eq!(found.len(), usize::from(!change.is_empty()), "{encoding}: {found:#?}");
            assert!(found.iter().all(|finding| finding.message.contains(change)), "{found:#?}");
        };
        with("UTF8", "");
        with("SQL_ASCII", "SQL_ASCII");
        with("LATIN1", if is_source { "" } else { "LATIN1" });
    }
}

#[test]
fn secrets_and_columns_that_are_kept_out() {
    let column = |w: &mut World, name: &str| {
        let nullable = ColumnSeen { is_nullable: true, ..super::tests::column(name, "text") };
        w.source().columns.push(nullable.clone());
        w.sink().columns.push(nullable);
    };
    brings(Code::SourceSecretColumn, "drop: [", |w| column(w, "password_hash"));
    let text = PLAN.replace("rename: {", "drop: [password_hash]\n        rename: {");
    assert_ne!(text, PLAN);
    let kept_out = |change: &dyn Fn(&mut World)| {
        let mut world = World::of(&text);
        column(&mut world, "password_hash");
        change(&mut world);
        let codes: Vec<Code> = world.findings().iter().map(|finding| finding.code).collect();
        assert!(!codes.contains(&Code::SourceSecretColumn), "{codes:?}");
        (codes.contains(&Code::SourceColumnSent), codes.contains(&Code::SourceListedIdentity))
    };
    assert_eq!(kept_out(&|_| {}), (false, false));
    assert_eq!(kept_out(&|w| w.source.server.version = 140_019), (true, false));
    assert_eq!(kept_out(&|w| w.source().identity = IdentitySeen::Full), (true, false));
    let list = |w: &mut World, columns: &[&str]| {
        let columns = columns.iter().map(|column| (*column).to_owned()).collect();
        let published = w.source.installed.as_mut().unwrap().published.as_mut().unwrap();
        published.insert(table("orders"), Some(columns));
    };
    assert_eq!(kept_out(&|w| list(w, &["id", "note"])), (false, false));
    assert_eq!(kept_out(&|w| list(w, &["note"])), (false, true));
    let full = |w: &mut World| {
        list(w, &["id", "note"]);
        w.source().identity = IdentitySeen::Full;
    };
    assert_eq!(kept_out(&full), (true, true));
}

#[test]
fn the_tables_themselves() {
    brings(Code::SourceNoTable, "create it", |w| drop(w.source.tables.remove(&table("customers"))));
    brings(Code::SinkNoTable, "create it", |w| drop(w.sink.tables.remove(&table("customers"))));
    brings(Code::TableKind, "the table behind it", |w| w.source().kind = KindSeen::Other);
    brings(Code::TableUnlogged, "ALTER TABLE \"public\".\"orders\" SET LOGGED;", |w| {
        w.source().is_unlogged = true
    });
    brings(Code::TableInherited, "partitioned", |w| w.source().has_children = true);
    brings(Code::TablePartition, "name public.all_orders", |w| {
        w.source().partition_of = Some(table("all_orders"))
    });
    brings(Code::TableRowSecurity, "ALTER ROLE \"strangler\" BYPASSRLS;", |w| {
        w.source().has_row_security = true
    });
    brings(Code::TableNoSchemaRight, "GRANT USAGE ON SCHEMA \"public\"", |w| w.sink().may_use_schema = false);
    brings(
        Code::TableNoRight,
        "GRANT DELETE, TRUNCATE ON TABLE \"public\".\"orders\" TO \"strangler\";",
        |w| {
            w.sink().rights.retain(|right| !["DELETE", "TRUNCATE"].contains(&right.as_str()));
        },
    );
    brings(Code::SinkSameDatabase, "a database of its own", |w| w.sink.name = w.source.name.clone());
}

#[test]
fn keys_and_replica_identity() {
    let add = "ALTER TABLE \"public\".\"orders\" ADD PRIMARY KEY (\"id\");";
    brings(Code::SourceNoPrimaryKey, add, |w| w.source().key.clear());
    brings(Code::SourceNoPrimaryKey, "ADD PRIMARY KEY USING INDEX \"by_no\";", |w| {
        w.source().key.clear();
        w.source()
            .unique_indexes
            .push(IndexSeen { name: "by_no".to_owned(), columns: vec!["no".to_owned()] });
    });
    let mut partitioned = World::sound();
    partitioned.source().key.clear();
    partitioned.source().kind = KindSeen::Partitioned;
    let index = IndexSeen { name: "by_no".to_owned(), columns: vec!["no".to_owned()] };
    partitioned.source().unique_indexes.push(index);
    let found = partitioned.findings();
    assert!(found.iter().any(|f| f.remedy.contains("ADD PRIMARY KEY (\"no\");")), "{found:#?}");
    brings(Code::SourceLatePrimaryKey, "DROP CONSTRAINT \"orders_pkey\", ADD PRIMARY KEY (\"id\");", |w| {
        let columns = std::mem::take(&mut w.source().key);
        w.source().late_key = Some(IndexSeen { name: "orders_pkey".to_owned(), columns });
    });
    let default = "REPLICA IDENTITY DEFAULT;";
    brings(Code::SourceReplicaIdentity, default, |w| w.source().identity = IdentitySeen::Nothing);
    brings(Code::SourceReplicaIdentity, default, |w| w.source().identity = IdentitySeen::Index);
    brings(Code::SinkOtherKey, add, |w| w.sink().key.clear());
    brings(Code::SinkOtherKey, "(\"id\") instead of (remark)", |w| w.sink().key = vec!["remark".to_owned()]);
    brings(Code::PlanKeyLost, "take `note`", |w| {
        w.source().key = vec!["note".to_owned()];
        w.plan.slices.values_mut().next().unwrap().tables[0].drop.insert("note".to_owned());
        w.source.installed.as_mut().unwrap().facts =
            Some(crate::sql::facts(&w.plan, &Database::Monolith, "strangler"));
        w.sink().columns[2].is_nullable = true;
    });
}

#[test]
fn rows_and_triggers_of_the_sink() {
    brings(Code::SinkNotEmpty, "--replace", |w| w.sink().is_empty = Some(false));
    let mut ours = World::sound();
    ours.sink().is_empty = Some(false);
    ours.sink.installed.as_mut().unwrap().filled.insert("orders".to_owned(), [table("orders")].into());
    assert_eq!(ours.findings(), []);
    // A table that came to the slice later was not filled with the others.
    brings(Code::SinkNotEmpty, "--replace", |w| {
        w.sink().is_empty = Some(false);
        w.sink.installed.as_mut().unwrap().filled.insert("orders".to_owned(), [].into());
    });

    brings(Code::TableRule, "DROP RULE \"elsewhere\" ON \"public\".\"orders\";", |w| {
        w.sink().rules.push("elsewhere".to_owned());
    });
    let trigger = || TriggerSeen { name: "audit".to_owned() };
    brings(Code::SinkUnmarkedTrigger, "triggers: { audit: skip }", |w| w.sink().triggers.push(trigger()));
    let mut marked = World::of(&PLAN.replace("    routes:", "    triggers: { audit: skip }\n    routes:"));
    assert_eq!(marked.findings().iter().map(|f| f.code).collect::<Vec<_>>(), [Code::SinkNoTrigger]);
    marked.sink().triggers.push(trigger());
    assert_eq!(marked.findings(), []);
}

#[test]
fn partitions_come_and_go_unseen() {
    let found = brings(Code::SourcePartitioned, "strangler sync drop orders", |w| {
        w.source().kind = KindSeen::Partitioned;
    });
    assert!(!found.is_error());
    let mut sink = World::sound();
    sink.sink().kind = KindSeen::Partitioned;
    assert_eq!(sink.findings(), []);
}

#[test]
fn a_service_may_show_what_waits_for_a_replica_of_the_monolith() {
    let found = brings(Code::ServerSynchronousStandby, "leave the slice's reads at the monolith", |w| {
        w.source.server.standbys.push(StandbySeen { application: "eu".to_owned(), is_asynchronous: false });
    });
    assert!(!found.is_error() && found.message.contains("replica eu"));
}

#[test]
fn errors_come_first() {
    let mut world = World::sound();
    world.source.server.slot_wal_bytes_max = None;
    world.sink().key.clear();
    let found = world.findings();
    assert_eq!(found.iter().map(Finding::is_error).collect::<Vec<_>>(), [true, false]);
}
