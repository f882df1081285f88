//! What Postgres' catalogs say about tables: columns, keys, triggers, rights, foreign keys.

use migrations::names::TableName;
use migrations::preflight::{
    ActionSeen, ColumnSeen, ForeignKeySeen, IdentitySeen, IndexSeen, KindSeen, TableSeen, TriggerSeen,
    TypeSeen,
};
use std::collections::{BTreeMap, BTreeSet};
use tokio_postgres::{Client, Error, Row};

/// The bridge reads and writes with `row_security = off`: any policy that concerns our role is an error to it, not a
/// filter, so that no row is ever left out silently.
const TABLE: &str = "
    SELECT c.oid, c.relkind::text, pg_get_userbyid(c.relowner)::text, c.relreplident::text, c.relpersistence <> 'p',
           row_security_active(c.oid),
           c.relkind = 'r' AND EXISTS (SELECT FROM pg_inherits h WHERE h.inhparent = c.oid),
           pn.nspname::text, p.relname::text, has_schema_privilege(n.oid, 'USAGE'),
           ARRAY(SELECT r FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) AS r
                 WHERE has_table_privilege(c.oid, r))
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN pg_inherits i ON c.relispartition AND i.inhrelid = c.oid
      LEFT JOIN pg_class p ON p.oid = i.inhparent LEFT JOIN pg_namespace pn ON pn.oid = p.relnamespace
     WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p', 'v', 'm', 'f')";

/// Values of at most 24 bytes are never stored apart (PostgreSQL source, `toast_tuple_find_biggest_attribute`): a
/// numeric of up to 28 digits, a text of up to 4 characters of up to 4 bytes.
const COLUMNS: &str = "
    SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), a.atttypmod, NOT a.attnotnull,
           a.atthasdef OR a.attidentity <> '',
           CASE WHEN a.attgenerated <> '' THEN coalesce(pg_get_expr(d.adbin, d.adrelid), '') END,
           a.attlen = -1 AND a.attstorage <> 'p'
               AND NOT (t.typname = 'numeric' AND a.atttypmod >= 4 AND ((a.atttypmod - 4) >> 16) <= 28)
               AND NOT (t.typname IN ('varchar', 'bpchar') AND a.atttypmod BETWEEN 4 AND 8),
           t.typcategory = 'A' AND t.typelem <> 0,
           coalesce(e.typname, t.typname)::text, coalesce(e.typtype, t.typtype)::text,
           coalesce(e.typnamespace, t.typnamespace) = 'pg_catalog'::regnamespace,
           ARRAY(SELECT l.enumlabel::text FROM pg_enum l WHERE l.enumtypid = coalesce(e.oid, t.oid) ORDER BY l.enumsortorder),
           a.attidentity = 'a'
      FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
      LEFT JOIN pg_type e ON t.typcategory = 'A' AND e.oid = t.typelem
      LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
     WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";

const INDEXES: &str = "
    SELECT c.relname::text, i.indisprimary, bool_and(a.attnotnull), array_agg(a.attname::text ORDER BY k.place), i.indimmediate
      FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
      CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
      JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
     WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND (i.indimmediate OR i.indisprimary) AND i.indpred IS NULL
       AND i.indexprs IS NULL AND k.place <= i.indnkeyatts
     GROUP BY c.relname, i.indisprimary, i.indimmediate ORDER BY c.relname";

/// Those of its partitions, too: a row that is written to the table fires them.
const TRIGGERS: &str = "
    SELECT DISTINCT t.tgname::text
      FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_namespace n ON n.oid = p.pronamespace
     WHERE (t.tgrelid = $1 OR t.tgrelid IN (SELECT relid FROM pg_partition_tree($1::oid::regclass)))
       AND NOT t.tgisinternal AND t.tgenabled IN ('O', 'A') AND n.nspname <> 'strangler'
     ORDER BY 1";

const FOREIGN_KEYS: &str = "
    SELECT k.conname::text, cn.nspname::text, c.relname::text, rn.nspname::text, r.relname::text, k.condeferrable,
           k.condeferred, k.confdeltype::text, k.confupdtype::text, ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY AS o (attnum, place)
                 JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = o.attnum ORDER BY o.place),
           ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY AS o (attnum, place)
                 JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = o.attnum ORDER BY o.place)
      FROM pg_constraint k
      JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace cn ON cn.oid = c.relnamespace
      JOIN pg_class r ON r.oid = k.confrelid JOIN pg_namespace rn ON rn.oid = r.relnamespace
     WHERE k.contype = 'f' AND k.conparentid = 0 AND (k.conrelid = ANY ($1) OR k.confrelid = ANY ($1))
     ORDER BY 2, 3, 1";

/// Those of the tables that exist, and every foreign key from or to them. `with_rows` asks also whether they are empty.
pub(crate) async fn tables(
    client: &Client,
    names: &BTreeSet<TableName>,
    with_rows: bool,
) -> Result<(BTreeMap<TableName, TableSeen>, Vec<ForeignKeySeen>), Error> {
    let mut seen = BTreeMap::new();
    let mut oids: Vec<u32> = Vec::new();
    for name in names {
        let Some(row) = client.query_opt(TABLE, &[&name.schema, &name.name]).await? else { continue };
        oids.push(row.get(0));
        let mut table = table(client, &row).await?;
        if with_rows && table.may_use_schema && table.rights.contains("SELECT") {
            let question = format!("SELECT NOT EXISTS (SELECT FROM {})", name.quoted());
            // A view that fails or a table that is locked is no reason to see nothing at all.
            table.is_empty = client.query_one(&question, &[]).await.ok().map(|row| row.get(0));
        }
        seen.insert(name.clone(), table);
    }
    let keys = client.query(FOREIGN_KEYS, &[&oids]).await?;
    Ok((seen, keys.iter().map(foreign_key).collect()))
}

async fn table(client: &Client, row: &Row) -> Result<TableSeen, Error> {
    let oid: u32 = row.get(0);
    let mut key = Vec::new();
    let (mut unique_indexes, mut late_key) = (Vec::new(), None);
    for index in client.query(INDEXES, &[&oid]).await? {
        let seen = IndexSeen { name: index.get(0), columns: index.get(3) };
        match (index.get(1), index.get(4), index.get(2)) {
            (true, true, _) => key = seen.columns,
            (true, false, _) => late_key = Some(seen),
            (false, _, true) => unique_indexes.push(seen),
            (false, _, false) => {}
        }
    }
    let parent: (Option<String>, Option<String>) = (row.get(7), row.get(8));
    let rights: Vec<String> = row.get(10);
    Ok(TableSeen {
        kind: match row.get(1) {
            "r" => KindSeen::Table,
            "p" => KindSeen::Partitioned,
            _ => KindSeen::Other,
        },
        owner: row.get(2),
        key,
        late_key,
        unique_indexes,
        identity: match row.get(3) {
            "f" => IdentitySeen::Full,
            "i" => IdentitySeen::Index,
            "n" => IdentitySeen::Nothing,
            _ => IdentitySeen::Default,
        },
        columns: client.query(COLUMNS, &[&oid]).await?.iter().map(column).collect(),
        triggers: client
            .query(TRIGGERS, &[&oid])
            .await?
            .iter()
            .map(|row| TriggerSeen { name: row.get(0) })
            .collect(),
        is_unlogged: row.get(4),
        has_row_security: row.get(5),
        has_children: row.get(6),
        partition_of: parent.0.zip(parent.1).map(|(schema, name)| TableName { schema, name }),
        is_empty: None,
        may_use_schema: row.get(9),
        rights: rights.into_iter().collect(),
    })
}

fn column(row: &Row) -> ColumnSeen {
    let element = match (row.get::<_, &str>(9), row.get::<_, bool>(10)) {
        ("e", _) => TypeSeen::Enum(row.get(11)),
        ("b", true) => TypeSeen::Base(row.get(8)),
        _ => TypeSeen::Other(row.get(8)),
    };
    ColumnSeen {
        name: row.get(0),
        declared: row.get(1),
        kind: if row.get(7) { TypeSeen::Array(Box::new(element)) } else { element },
        modifier: row.get(2),
        is_nullable: row.get(3),
        has_default: row.get(4),
        generated_as: row.get(5),
        is_always_identity: row.get(12),
        is_toastable: row.get(6),
    }
}

fn foreign_key(row: &Row) -> ForeignKeySeen {
    ForeignKeySeen {
        name: row.get(0),
        from: TableName { schema: row.get(1), name: row.get(2) },
        from_columns: row.get(9),
        to: TableName { schema: row.get(3), name: row.get(4) },
        to_columns: row.get(10),
        is_deferrable: row.get(5),
        is_deferred: row.get(6),
        on_delete: action(row.get(7)),
        on_update: action(row.get(8)),
    }
}

/// `confdeltype` and `confupdtype` (PostgreSQL manual, `pg_constraint`).
fn action(kind: &str) -> ActionSeen {
    match kind {
        "r" => ActionSeen::Restrict,
        "c" => ActionSeen::Cascade,
        "n" => ActionSeen::SetNull,
        "d" => ActionSeen::SetDefault,
        _ => ActionSeen::NoAction,
    }
}
