//! The rows of the source and those of the sink, in one form. The sink gives its columns types of its own. So the source's
//! values are cast to them, as texts.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use lab::Cluster;

use super::super::rows::{self, Rows};

/// By table.
type Shapes = BTreeMap<String, Vec<Column>>;

struct Column {
    name: String,
    of: String,
    is_key: bool,
}

/// One database beside another whose tables have other names.
pub struct Pair<'a> {
    pub cluster: &'a Cluster,
    pub source: &'static str,
    pub sink: &'static str,
    /// Each table, and its name in the sink.
    pub tables: Vec<(&'static str, String)>,
}

impl Pair<'_> {
    /// The source's rows, as the sink should have them.
    pub fn expected(&self) -> Result<Rows> {
        let (source, sink) = (shapes(self.cluster, self.source)?, shapes(self.cluster, self.sink)?);
        let selects = self.tables.iter().map(|(table, copy)| {
            let columns = source.get(*table).with_context(|| format!("the source has no table {table}"))?;
            let copied = sink.get(copy);
            let of = |name: &str| {
                let column = copied.and_then(|columns| columns.iter().find(|column| column.name == name));
                column.map_or("text", |column| column.of.as_str())
            };
            let values: Vec<_> =
                columns.iter().map(|column| (column, cast(column, of(&column.name)))).collect();
            Ok(select(table, table, &values))
        });
        self.rows(self.source, selects.collect::<Result<_>>()?)
    }

    /// The sink's rows; none of a table that it has not made yet.
    pub fn found(&self) -> Result<Rows> {
        let (source, sink) = (shapes(self.cluster, self.source)?, shapes(self.cluster, self.sink)?);
        let selects = self.tables.iter().filter_map(|(table, copy)| {
            let copied = sink.get(copy)?;
            let is_key =
                |name: &str| source[*table].iter().any(|column| column.name == name && column.is_key);
            let columns: Vec<Column> = copied
                .iter()
                .map(|Column { name, of, .. }| Column {
                    name: name.clone(),
                    of: of.clone(),
                    is_key: is_key(name),
                })
                .collect();
            let values: Vec<_> = columns.iter().map(|column| (column, cast(column, &column.of))).collect();
            Some(select(table, copy, &values))
        });
        self.rows(self.sink, selects.collect())
    }

    fn rows(&self, database: &str, selects: Vec<String>) -> Result<Rows> {
        if selects.is_empty() {
            return Ok(Rows::new());
        }
        let sql = format!("SET TIME ZONE 'UTC'; SET extra_float_digits = 1; {}", selects.join(" UNION ALL "));
        let text = self.cluster.psql(database, &sql)?;
        text.lines()
            .map(|line| rows::keyed(serde_json::from_str(line).context("psql gave no JSON")?))
            .collect()
    }
}

/// The tables of schema `public` with their columns, but for generated ones, which PostgreSQL does not send.
fn shapes(cluster: &Cluster, database: &str) -> Result<Shapes> {
    let sql = "SELECT jsonb_build_array(c.relname, a.attname, format_type(a.atttypid, a.atttypmod), i.indrelid IS NOT NULL) \
               FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid LEFT JOIN pg_index i ON i.indrelid = c.oid AND \
               i.indisprimary AND a.attnum = ANY (i.indkey) WHERE c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' \
               AND c.relnamespace = 'public'::regnamespace ORDER BY c.relname, a.attnum";
    let mut shapes = Shapes::new();
    for line in cluster.psql(database, sql)?.lines() {
        let (table, name, of, is_key) = serde_json::from_str(line).context("psql gave no JSON")?;
        shapes.entry(table).or_default().push(Column { name, of, is_key });
    }
    Ok(shapes)
}

/// Selects a table's rows as objects, each with its table and key in `id`.
fn select(table: &str, from: &str, values: &[(&Column, String)]) -> String {
    let keys = values.iter().filter(|(column, _)| column.is_key).map(|(_, value)| value.as_str());
    // The order of the columns may differ between both sides.
    let mut keys: Vec<_> = keys.collect();
    keys.sort_unstable();
    // A column may be called `id`, too.
    let columns =
        values.iter().map(|(column, value)| format!("{}, {value}", literal(&format!(".{}", column.name))));
    let columns: Vec<_> = columns.collect();
    format!(
        "SELECT jsonb_build_object({}, 'id', concat_ws(' ', {}, {}))::text FROM {}",
        columns.join(", "),
        literal(table),
        keys.join(", "),
        quoted(from)
    )
}

/// A column's value as the text that type `to` has for it. `concat` calls the type's own output, which a cast to `text`
/// does not always do.
fn cast(column: &Column, to: &str) -> String {
    let name = quoted(&column.name);
    let value = match (column.of.as_str(), to) {
        (_, "json") => format!("{name}::jsonb"),
        ("money", _) => format!("{name}::numeric"),
        // Debezium's types are microseconds, and a time in UTC.
        ("interval", _) => format!("make_interval(secs => extract(epoch FROM {name})::float8)"),
        (of, _)
            if of.ends_with("with time zone") && of.starts_with("time(") || of == "time with time zone" =>
        {
            format!("{name} AT TIME ZONE 'UTC'")
        }
        _ => name.clone(),
    };
    let to = if to == "json" { "jsonb" } else { to };
    format!("CASE WHEN {name} IS NOT NULL THEN concat(concat({value})::{to}) END")
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_cast_to_the_type_of_the_sink() {
        let cast =
            |of: &str, to| cast(&Column { name: "a\"b".to_owned(), of: of.to_owned(), is_key: false }, to);
        let of = |value| format!("CASE WHEN \"a\"\"b\" IS NOT NULL THEN concat(concat({value} END");
        assert_eq!(cast("oid", "bigint"), of("\"a\"\"b\")::bigint)"));
        assert_eq!(cast("hstore", "json"), of("\"a\"\"b\"::jsonb)::jsonb)"));
        assert_eq!(
            cast("time with time zone", "time(6) with time zone"),
            of("\"a\"\"b\" AT TIME ZONE 'UTC')::time(6) with time zone)")
        );
        assert_eq!(cast("timestamp with time zone", "text"), of("\"a\"\"b\")::text)"));
    }
}
