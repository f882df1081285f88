//! Reading a table as texts by its key, as SQL: page after page in the key's order, or single rows by their keys.
//!
//! Pure. A table's order is its own database's: nothing here supposes that another database orders keys alike. Single rows
//! are looked up one by one through the key's index, whatever the planner thinks of the number of keys.

use crate::mapping::compare::{VERSION, printed};
use migrations::column_type::{ColumnType, TypeSeen};
use migrations::names::{TableName, quote_identifier};
use migrations::preflight::ColumnSeen;

/// The statements that read one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    table: String,
    key: Vec<ColumnSeen>,
    columns: Vec<ColumnSeen>,
}

impl Page {
    /// A table by the columns of its key, in the order of the key's index; `read` are the columns that are returned.
    pub fn new(table: &TableName, key: Vec<ColumnSeen>, read: Vec<ColumnSeen>) -> Page {
        Page { table: table.quoted(), key, columns: read }
    }

    /// The first rows. Parameter: how many.
    pub fn first(&self) -> String {
        self.page("", 1)
    }

    /// The rows after a key. Parameters: the key's texts, then how many rows.
    pub fn after(&self) -> String {
        let condition = format!("WHERE {}", self.is_after());
        self.page(&condition, self.key.len() + 1)
    }

    /// A comparison of rows has one operator. A key of several kinds is compared column by column, and found by its first.
    fn is_after(&self) -> String {
        let bound = |n: usize| format!("${}::text::{}", n + 1, self.key[n].cast);
        let compare = |n: usize, sign: &str| {
            format!("{} {} {}", named(&self.key[n]), self.key[n].operator(sign), bound(n))
        };
        if self.key.windows(2).all(|pair| pair[0].operators == pair[1].operators) {
            let sign = self.key.first().map(|key| key.operator(">")).unwrap_or_default();
            let bounds = list((0..self.key.len()).map(bound));
            return format!("({}) {sign} ({bounds})", list(self.key.iter().map(named)));
        }
        let after = (0..self.key.len()).map(|last| {
            let same = (0..last).map(|n| compare(n, "=") + " AND ");
            format!("({}{})", same.collect::<String>(), compare(last, ">"))
        });
        format!("{} AND ({})", compare(0, ">="), after.collect::<Vec<_>>().join(" OR "))
    }

    fn page(&self, condition: &str, limit: usize) -> String {
        let order = list(self.key.iter().map(named));
        format!(
            "SELECT {} FROM {} AS t {condition} ORDER BY {order} LIMIT ${limit}::bigint",
            list(self.columns.iter().map(text)),
            self.table,
        )
    }

    /// Rows by their keys. Parameters: an array of texts for each key column. A row for each key, in their order: its
    /// number from 1, the oldest transaction that was open, the row's version (none if there is no such row), and the
    /// columns.
    pub fn rows(&self) -> String {
        let columns = self.columns.iter().enumerate();
        let columns: String = columns.map(|(n, column)| format!(", {} AS c{n}", text(column))).collect();
        let names: String = (0..self.columns.len()).map(|n| format!(", t.c{n}")).collect();
        format!(
            "SELECT s.n, pg_snapshot_xmin(pg_current_snapshot())::text, t.version{names} FROM {} \
             LEFT JOIN LATERAL (SELECT {VERSION}{columns} FROM {} AS t WHERE {} LIMIT 1) AS t ON true ORDER BY s.n",
            self.keys(),
            self.table,
            self.matching(),
        )
    }

    /// Those keys that the table does not have. Parameters as for [`Page::rows`]. A row for each: its number from 1, and
    /// the key as the table's own types write it.
    pub fn missing(&self) -> String {
        let texts = self.key.iter().enumerate().map(|(n, column)| write(column, &format!("s.k{n}")));
        format!(
            "SELECT s.n, {} FROM {} LEFT JOIN LATERAL (SELECT true AS is_there FROM {} AS t WHERE {} LIMIT 1) AS t ON true \
             WHERE t.is_there IS NULL ORDER BY s.n",
            list(texts),
            self.keys(),
            self.table,
            self.matching(),
        )
    }

    fn keys(&self) -> String {
        let casts =
            list(self.key.iter().enumerate().map(|(n, column)| format!("u.v{n}::{} AS k{n}", column.cast)));
        let arrays = list((1..=self.key.len()).map(|n| format!("${n}::text[]")));
        let names = list((0..self.key.len()).map(|n| format!("v{n}")));
        format!("(SELECT {casts}, u.n FROM unnest({arrays}) WITH ORDINALITY AS u({names}, n)) AS s")
    }

    fn matching(&self) -> String {
        let equals = |(n, key): (usize, &ColumnSeen)| format!("{} {} s.k{n}", named(key), key.operator("="));
        let parts: Vec<String> = self.key.iter().enumerate().map(equals).collect();
        parts.join(" AND ")
    }
}

fn named(column: &ColumnSeen) -> String {
    format!("t.{}", quote_identifier(&column.name))
}

fn text(column: &ColumnSeen) -> String {
    write(column, &named(column))
}

/// A value as the stream writes it. The cast to text would take the blanks of a char(n) away, and of other types it may
/// be a function that writes more or less than the type prints.
fn write(column: &ColumnSeen, value: &str) -> String {
    let (kind, modifier) = column.kind.without_domain(column.modifier);
    match ColumnType::of(kind, modifier) {
        _ if *kind == TypeSeen::Base("bpchar".to_owned()) => format!("textin(bpcharout({value}))"),
        ColumnType::Printed { .. } | ColumnType::Composite { .. } => printed(value),
        _ => format!("{value}::text"),
    }
}

fn list(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}
