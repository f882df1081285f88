//! What the catalogs say about tables: columns, keys, triggers, rights, foreign keys, publications.
//!
//! Reads only. What the facts mean is decided in `migrations` and by the bridge.

mod column_type;

use migrations::column_type::TypeSeen;
use migrations::names::{TableName, quote_identifier};
use migrations::preflight::{
    ActionSeen, ColumnSeen, ForeignKeySeen, IdentitySeen, IndexSeen, KindSeen, NumberedSeen,
    SharedSequenceSeen, TableSeen, TriggerSeen,
};
use std::collections::{BTreeMap, BTreeSet};
use tokio_postgres::{Client, Error, Row};

/// The bridge reads and writes with `row_security = off`: any policy that concerns our role is an error to it, not a
/// filter, so that no row is ever left out silently.
const TABLE: &str = "
    SELECT c.oid, c.relkind::text, pg_get_userbyid(c.relowner)::text, c.relpersistence <> 'p',
           row_security_active(c.oid),
           c.relkind = 'r' AND EXISTS (SELECT FROM pg_inherits h WHERE h.inhparent = c.oid),
           pn.nspname::text, p.relname::text, has_schema_privilege(n.oid, 'USAGE'),
           ARRAY(SELECT r FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) AS r
                 WHERE has_table_privilege(c.oid, r))
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN pg_inherits i ON c.relispartition AND i.inhrelid = c.oid
      LEFT JOIN pg_class p ON p.oid = i.inhparent LEFT JOIN pg_namespace pn ON pn.oid = p.relnamespace
     WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p', 'v', 'm', 'f')";

/// The file of a table, or of its oldest partition. What rewrites rows gives every partition another one.
const FILE: &str = "(
    SELECT f.relfilenode::bigint FROM pg_class f
     WHERE f.relfilenode <> 0 AND (f.oid = c.oid OR f.oid IN (SELECT relid FROM pg_partition_tree(c.oid)))
     ORDER BY f.oid LIMIT 1)";

/// A number for each table that changes with its file, its columns, or the labels and fields of their types.
const STAMPS: &str = "
    SELECT c.oid, hashtextextended(concat_ws(' ', FILE, c.relreplident::text, (
               SELECT string_agg(concat_ws(' ', a.attnum, a.xmin, l.oid, l.xmin,
                          CASE WHEN i.typtype IN ('c', 'd') THEN MADE_OF END), ',' ORDER BY a.attnum, l.oid)
                 FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
                 LEFT JOIN pg_enum l ON l.enumtypid IN (t.oid, t.typelem)
                 LEFT JOIN pg_type i ON i.oid = CASE WHEN t.typelem = 0 THEN t.oid ELSE t.typelem END
                WHERE a.attrelid = c.oid AND a.attnum > 0)), 0)
      FROM pg_class c WHERE c.oid = ANY ($1)";

const TYPES: &str = "SELECT t.oid, t.typname::text, MADE_OF FROM pg_type t WHERE t.oid = ANY ($1)";

/// Values of at most 24 bytes are never stored apart (PostgreSQL source, `toast_tuple_find_biggest_attribute`): a
/// numeric of up to 28 digits, a text of up to 4 characters of up to 4 bytes.
const COLUMNS: &str = "
    SELECT c.relreplident::text, a.attname::text, a.attnum, format_type(a.atttypid, a.atttypmod),
           format_type(a.atttypid, -1), a.atttypmod, NOT a.attnotnull, a.atthasdef OR a.attidentity <> '',
           CASE WHEN a.attgenerated <> '' THEN coalesce(pg_get_expr(d.adbin, d.adrelid), '') END,
           a.attlen = -1 AND a.attstorage <> 'p'
               AND NOT (t.typname = 'numeric' AND a.atttypmod >= 4 AND ((a.atttypmod - 4) >> 16) <= 28)
               AND NOT (t.typname IN ('varchar', 'bpchar') AND a.atttypmod BETWEEN 4 AND 8),
           a.attidentity = 'a',
           (SELECT k.place::int2 FROM pg_index i CROSS JOIN unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
             WHERE i.indrelid = c.oid AND i.indisprimary AND k.attnum = a.attnum AND k.place <= i.indnkeyatts),
           t.oid, t.typname::text, MADE_OF,
           a.xmin::text::bigint, coalesce(FILE, 0), (SELECT quote_ident(ln.nspname) || '.' || quote_ident(l.collname)
               FROM pg_collation l JOIN pg_namespace ln ON ln.oid = l.collnamespace
              WHERE l.oid = a.attcollation AND l.collname <> 'default'),
           NOT EXISTS (SELECT FROM pg_attribute o JOIN pg_type y ON y.oid = o.atttypid
                        WHERE o.attrelid = c.oid AND o.attnum > 0 AND 0 IN (y.typreceive::oid, y.typsend::oid)),
           (SELECT quote_ident(kn.nspname) FROM pg_index i
             CROSS JOIN unnest(i.indkey::int2[], i.indclass::oid[]) WITH ORDINALITY AS k (attnum, class, place)
              JOIN pg_opclass s ON s.oid = k.class
              JOIN pg_amop m ON m.amopfamily = s.opcfamily AND m.amopstrategy = 3
                   AND m.amoplefttype = s.opcintype AND m.amoprighttype = s.opcintype
              JOIN pg_operator q ON q.oid = m.amopopr JOIN pg_namespace kn ON kn.oid = q.oprnamespace
             WHERE i.indrelid = c.oid AND i.indisprimary AND k.attnum = a.attnum AND kn.nspname <> 'pg_catalog'),
           CASE WHEN a.attgenerated = '' THEN pg_get_expr(d.adbin, d.adrelid) END
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
      JOIN pg_type t ON t.oid = a.atttypid
      LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
     WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p', 'v', 'm', 'f') ORDER BY a.attnum";

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

/// The one that makes a view is none.
const RULES: &str = "
    SELECT rulename::text FROM pg_rewrite WHERE ev_class = $1 AND ev_type <> '1' AND ev_enabled <> 'D' ORDER BY 1";

/// Sequences that a default asks, or that an identity has. Partitions ask the same as their parents.
const SHARED_SEQUENCES: &str = "
    WITH uses AS (
        SELECT d.refobjid AS oid, f.adrelid AS rel, f.adnum::int AS attnum, false AS is_identity
          FROM pg_attrdef f JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = f.oid
               AND d.refclassid = 'pg_class'::regclass AND d.deptype = 'n'
        UNION
        SELECT d.objid, d.refobjid, d.refobjsubid, true FROM pg_depend d
         WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype = 'i'
           AND d.refobjsubid > 0),
    named AS (
        SELECT u.oid, u.is_identity, c.oid AS rel, n.nspname::text AS schema, c.relname::text AS name,
               a.attname::text AS column, pg_get_userbyid(c.relowner)::text AS owner
          FROM uses u JOIN pg_class c ON c.oid = u.rel AND NOT c.relispartition JOIN pg_namespace n ON n.oid = c.relnamespace
          JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = u.attnum AND NOT a.attisdropped)
    SELECT quote_ident(sn.nspname) || '.' || quote_ident(s.relname),
           one.schema, one.name, one.column, one.owner, one.is_identity,
           other.schema, other.name, other.column, other.owner, other.is_identity
      FROM named one JOIN named other ON other.oid = one.oid AND other.rel <> one.rel
      JOIN pg_class s ON s.oid = one.oid AND s.relkind = 'S' JOIN pg_namespace sn ON sn.oid = s.relnamespace
      JOIN unnest($1::text[], $2::text[]) AS t (schema, name) ON t.schema = one.schema AND t.name = one.name
     ORDER BY 1, 2, 3, 7, 8 LIMIT 20";

/// Rows that were written to a table and its partitions since the statistics began.
const WRITTEN: &str = "
    SELECT t.schema, t.name, (SELECT coalesce(sum(pg_stat_get_tuples_inserted(o.oid) + pg_stat_get_tuples_updated(o.oid)
                                                  + pg_stat_get_tuples_deleted(o.oid)), 0)::bigint
                                FROM (SELECT c.oid UNION SELECT relid FROM pg_partition_tree(c.oid)) AS o (oid))
      FROM unnest($1::text[], $2::text[]) AS t (schema, name)
      JOIN pg_namespace n ON n.nspname = t.schema JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.name";

/// Without the copies that partitions inherit.
const FOREIGN_KEYS: &str = "
    SELECT k.conname::text, cn.nspname::text, c.relname::text, rn.nspname::text, r.relname::text, k.condeferrable,
           k.condeferred, k.confdeltype::text, k.confupdtype::text, ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY AS o (attnum, place)
                 JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = o.attnum ORDER BY o.place),
           ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY AS o (attnum, place)
                 JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = o.attnum ORDER BY o.place)
      FROM pg_constraint k
      JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace cn ON cn.oid = c.relnamespace
      JOIN pg_class r ON r.oid = k.confrelid JOIN pg_namespace rn ON rn.oid = r.relnamespace
     WHERE k.contype = 'f' AND k.conparentid = 0
       AND ($1::oid[] IS NULL OR k.conrelid = ANY ($1) OR k.confrelid = ANY ($1))
     ORDER BY 2, 3, 1";

/// A publication's tables, each with its membership; whole if every row and kind of change is published, with the columns
/// that are listed, or all. A row
/// without a table says that the publication is there. An ALTER of the publication's settings rewrites its row (`xmin`,
/// which no vacuum changes). A table's filter and columns are those of its entry (`r`): others are another entry. Whole
/// schemas are entries of a catalog that servers before 15 lack.
const PUBLISHED: &str = "
    SELECT c.oid, n.nspname::text, c.relname::text,
           hashtextextended(concat_ws(' ', p.oid, p.xmin, c.oid, r.oid, (
               SELECT string_agg(d.objid::text, ',' ORDER BY d.objid) FROM pg_depend d
                WHERE d.refclassid = 'pg_publication'::regclass AND d.refobjid = p.oid
                      AND d.classid <> 'pg_publication_rel'::regclass)), 0),
           p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate AND to_jsonb(r)->>'prqual' IS NULL,
           (SELECT array_agg(a.attname::text) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum::text IN (
               SELECT jsonb_array_elements_text(nullif(to_jsonb(r)->'prattrs', 'null'))))
      FROM pg_publication p LEFT JOIN pg_publication_tables t ON t.pubname = p.pubname
      LEFT JOIN pg_namespace n ON n.nspname = t.schemaname
      LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename
      LEFT JOIN pg_publication_rel r ON r.prpubid = p.oid AND r.prrelid = c.oid WHERE p.pubname = $1";

/// Blocks of an ordinary table, and rows of it with its partitions, as the planner estimates.
const EXTENT: &str = "
    SELECT CASE WHEN c.relkind = 'r' THEN pg_relation_size(c.oid) / current_setting('block_size')::bigint ELSE 0 END,
           (SELECT coalesce(sum(greatest(l.reltuples, 0)), 0)::bigint FROM pg_partition_tree(c.oid) t
              JOIN pg_class l ON l.oid = t.relid)
           + CASE WHEN c.relispartition OR c.relkind = 'p' THEN 0 ELSE greatest(c.reltuples, 0)::bigint END
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2";

/// Ordinary and partitioned tables (leaves belong to their parent) with the columns of their primary key.
const LISTED: &str = "
    SELECT n.nspname::text, c.relname::text, greatest(c.reltuples, 0)::bigint,
           coalesce((SELECT array_agg(a.attname::text ORDER BY k.ordinal)
                       FROM pg_index i
                      CROSS JOIN unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, ordinal)
                       JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
                      WHERE i.indrelid = c.oid AND i.indisprimary), '{}'),
           ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                  ORDER BY a.attnum)
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence = 'p'
       AND n.nspname NOT IN ('information_schema', 'strangler') AND n.nspname !~ '^pg_'
     ORDER BY 1, 2
     LIMIT $1";

/// Materialized views, and the tables that each reads. A view is a rule on itself, and the rule depends on what it reads
/// (PostgreSQL manual, 52.44).
const MATERIALIZED: &str = "
    SELECT n.nspname::text, c.relname::text,
           ARRAY(SELECT DISTINCT format('%s.%s', tn.nspname, t.relname)
                   FROM pg_rewrite r JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
                   JOIN pg_class t ON d.refclassid = 'pg_class'::regclass AND d.refobjid = t.oid AND t.oid <> c.oid
                   JOIN pg_namespace tn ON tn.oid = t.relnamespace
                  WHERE r.ev_class = c.oid ORDER BY 1)
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind = 'm' AND n.nspname NOT IN ('information_schema', 'strangler') AND n.nspname !~ '^pg_'
     ORDER BY 1, 2
     LIMIT $1";

/// A table's columns in their order, and what the stream says of an old row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    pub identity: IdentitySeen,
    pub columns: Vec<ColumnSeen>,
    /// Whether COPY can read and write the table in binary: the types of all its columns must have such a form, also of
    /// those that are not copied.
    pub has_binary: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    pub oid: u32,
    pub table: TableName,
    /// Another one after every change of how the table is published, even if the change was taken back.
    pub membership: i64,
    /// Every row and kind of change is published.
    pub is_whole: bool,
    /// The columns that are published; none if all are.
    pub columns: Option<BTreeSet<String>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub table: TableName,
    pub rows_estimated: u64,
    /// The columns of its primary key; none without one.
    pub key: Vec<String>,
    pub columns: Vec<String>,
}

/// A table's shape, read in one question so that all of it is of one moment; none if there is no such table, or one
/// without columns.
pub async fn shape(client: &Client, table: &TableName) -> Result<Option<Shape>, Error> {
    let question = COLUMNS.replace("FILE", FILE).replace("MADE_OF", column_type::MADE_OF);
    let rows = client.query(&question, &[&table.schema, &table.name]).await?;
    let Some(first) = rows.first() else { return Ok(None) };
    let identity = match first.get(0) {
        "f" => IdentitySeen::Full,
        "i" => IdentitySeen::Index,
        "n" => IdentitySeen::Nothing,
        _ => IdentitySeen::Default,
    };
    let columns = rows.iter().map(column).collect();
    Ok(Some(Shape { identity, columns, has_binary: first.get(18) }))
}

/// The types with these oids. Those that were dropped are left out.
pub async fn types(client: &Client, oids: &[u32]) -> Result<BTreeMap<u32, TypeSeen>, Error> {
    let question = TYPES.replace("MADE_OF", column_type::MADE_OF);
    let rows = client.query(&question, &[&oids]).await?;
    Ok(rows.iter().map(|row| (row.get(0), column_type::seen(row.get(0), row.get(1), row.get(2)))).collect())
}

/// By the oids of tables, a number for each that changes whenever [`shape`] does.
pub async fn stamps(client: &Client, tables: &[u32]) -> Result<BTreeMap<u32, i64>, Error> {
    let question = STAMPS.replace("FILE", FILE).replace("MADE_OF", column_type::MADE_OF);
    let rows = client.query(&question, &[&tables]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Every foreign key, or those from or to the tables with these oids.
pub async fn foreign_keys(client: &Client, of: Option<&[u32]>) -> Result<Vec<ForeignKeySeen>, Error> {
    Ok(client.query(FOREIGN_KEYS, &[&of]).await?.iter().map(foreign_key).collect())
}

/// The tables of a publication; none if there is no such publication.
pub async fn published(client: &Client, publication: &str) -> Result<Option<Vec<Published>>, Error> {
    let rows = client.query(PUBLISHED, &[&publication]).await?;
    let published = rows.iter().filter_map(|row| {
        Some(Published {
            oid: row.get::<_, Option<u32>>(0)?,
            table: TableName { schema: row.get(1), name: row.get(2) },
            membership: row.get(3),
            is_whole: row.get(4),
            columns: row.get::<_, Option<Vec<String>>>(5).map(|columns| columns.into_iter().collect()),
        })
    });
    Ok((!rows.is_empty()).then(|| published.collect()))
}

/// The sequences that number one of these tables and another table, at most 20.
pub async fn shared_sequences(
    client: &Client,
    tables: &BTreeSet<TableName>,
) -> Result<Vec<SharedSequenceSeen>, Error> {
    let (schemas, names) = apart(tables);
    let rows = client.query(SHARED_SEQUENCES, &[&schemas, &names]).await?;
    let numbered = |row: &Row, at: usize| NumberedSeen {
        table: TableName { schema: row.get(at), name: row.get(at + 1) },
        column: row.get(at + 2),
        owner: row.get(at + 3),
        is_identity: row.get(at + 4),
    };
    let shared = rows.iter().map(|row| SharedSequenceSeen {
        sequence: row.get(0),
        one: numbered(row, 1),
        other: numbered(row, 6),
    });
    Ok(shared.collect())
}

/// How many rows were written to each of these tables since the server's statistics began.
pub async fn written(
    client: &Client,
    tables: &BTreeSet<TableName>,
) -> Result<BTreeMap<TableName, u64>, Error> {
    let (schemas, names) = apart(tables);
    let rows = client.query(WRITTEN, &[&schemas, &names]).await?;
    let written = rows.iter().map(|row| {
        let count = u64::try_from(row.get::<_, i64>(2)).unwrap_or_default();
        (TableName { schema: row.get(0), name: row.get(1) }, count)
    });
    Ok(written.collect())
}

/// Schemas and names, as two arrays for a statement.
pub(crate) fn apart(tables: &BTreeSet<TableName>) -> (Vec<&str>, Vec<&str>) {
    tables.iter().map(|table| (table.schema.as_str(), table.name.as_str())).unzip()
}

/// How large a table is: its blocks, 0 if it is partitioned, and its rows as the planner estimates.
pub async fn extent(client: &Client, table: &TableName) -> Result<(u64, u64), Error> {
    let row = client.query_one(EXTENT, &[&table.schema, &table.name]).await?;
    let count = |index: usize| u64::try_from(row.get::<_, i64>(index)).unwrap_or_default();
    Ok((count(0), count(1)))
}

pub async fn listed(client: &Client, tables_max: i64) -> Result<Vec<Listed>, Error> {
    let rows = client.query(LISTED, &[&tables_max]).await?;
    let listed = rows.iter().map(|row| Listed {
        table: TableName { schema: row.get(0), name: row.get(1) },
        rows_estimated: u64::try_from(row.get::<_, i64>(2)).unwrap_or_default(),
        key: row.get(3),
        columns: row.get(4),
    });
    Ok(listed.collect())
}

/// Materialized views, each with the tables that it reads.
pub async fn materialized_views(
    client: &Client,
    views_max: i64,
) -> Result<Vec<(TableName, Vec<String>)>, Error> {
    let rows = client.query(MATERIALIZED, &[&views_max]).await?;
    let views = rows.iter().map(|row| (TableName { schema: row.get(0), name: row.get(1) }, row.get(2)));
    Ok(views.collect())
}

/// Those of the tables that exist, and every foreign key from or to them. `with_rows` asks also whether they are empty.
pub async fn tables(
    client: &Client,
    names: &BTreeSet<TableName>,
    with_rows: bool,
) -> Result<(BTreeMap<TableName, TableSeen>, Vec<ForeignKeySeen>), Error> {
    let mut seen = BTreeMap::new();
    let mut oids: Vec<u32> = Vec::new();
    for name in names {
        let Some(row) = client.query_opt(TABLE, &[&name.schema, &name.name]).await? else { continue };
        oids.push(row.get(0));
        let mut table = table(client, name, &row).await?;
        if with_rows && table.may_use_schema && table.rights.contains("SELECT") {
            let question = format!("SELECT NOT EXISTS (SELECT FROM {})", name.quoted());
            // A view that fails or a table that is locked is no reason to see nothing at all.
            table.is_empty = client.query_one(&question, &[]).await.ok().map(|row| row.get(0));
        }
        seen.insert(name.clone(), table);
    }
    Ok((seen, foreign_keys(client, Some(&oids)).await?))
}

/// Rows that are looked at for large objects.
const ROWS_LOOKED_AT: u32 = 1000;

/// The columns that name large objects. Postgres does not say which do: a few rows are compared with the objects.
pub async fn large_objects(client: &Client, name: &TableName, table: &TableSeen) -> BTreeSet<String> {
    let oid = TypeSeen::Base("oid".to_owned());
    let mut found = BTreeSet::new();
    for column in table.columns.iter().filter(|column| *column.kind.without_domain(-1).0 == oid) {
        let question = format!(
            "SELECT EXISTS (SELECT FROM (SELECT {0}::oid AS oid FROM {1} WHERE {0} IS NOT NULL LIMIT {ROWS_LOOKED_AT}) AS t \
             JOIN pg_largeobject_metadata AS o ON o.oid = t.oid)",
            quote_identifier(&column.name),
            name.quoted(),
        );
        // A table that may not be read is another finding.
        if client.query_one(&question, &[]).await.is_ok_and(|row| row.get(0)) {
            found.insert(column.name.clone());
        }
    }
    found
}

async fn table(client: &Client, name: &TableName, row: &Row) -> Result<TableSeen, Error> {
    let oid: u32 = row.get(0);
    let shape = shape(client, name).await?;
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
    let parent: (Option<String>, Option<String>) = (row.get(6), row.get(7));
    let rights: Vec<String> = row.get(9);
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
        identity: shape.as_ref().map_or(IdentitySeen::Default, |shape| shape.identity),
        columns: shape.map(|shape| shape.columns).unwrap_or_default(),
        triggers: client
            .query(TRIGGERS, &[&oid])
            .await?
            .iter()
            .map(|row| TriggerSeen { name: row.get(0) })
            .collect(),
        rules: client.query(RULES, &[&oid]).await?.iter().map(|row| row.get(0)).collect(),
        is_unlogged: row.get(3),
        has_row_security: row.get(4),
        has_children: row.get(5),
        partition_of: parent.0.zip(parent.1).map(|(schema, name)| TableName { schema, name }),
        large_objects: BTreeSet::new(),
        is_empty: None,
        may_use_schema: row.get(8),
        rights: rights.into_iter().collect(),
    })
}

fn column(row: &Row) -> ColumnSeen {
    let kind = column_type::seen(row.get(12), row.get(13), row.get(14));
    let modifier = row.get(5);
    let key_position = row.get::<_, Option<i16>>(11).unwrap_or(0);
    let collation: Option<&str> = row.get(17);
    let collation = collation.map(|collation| format!(" COLLATE {collation}")).unwrap_or_default();
    let cast = if matches!(kind, TypeSeen::Domain { .. }) { kind.cast() } else { row.get(4) };
    ColumnSeen {
        name: row.get(1),
        number: row.get(2),
        type_oid: row.get(12),
        declared: row.get(3),
        cast,
        exact: format!("{}{collation}", kind.sql(modifier)),
        modifier,
        written: row.get(15),
        file: row.get(16),
        is_nullable: row.get(6),
        has_default: row.get(7),
        generated_as: row.get(8),
        is_toastable: row.get(9),
        is_always_identity: row.get(10),
        is_key: key_position > 0,
        key_position,
        default: row.get(20),
        operators: row.get(19),
        kind,
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
