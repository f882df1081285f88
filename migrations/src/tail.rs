//! A change as `strangler tail` shows it to people: each value as the source's database prints it.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TailedChange {
    /// Its place in the stream, as `sync resume --skip` takes it.
    pub position: String,
    pub operation: Operation,
    /// `schema.table` in the source's database.
    pub table: String,
    /// The key first, then the others, in the table's order.
    pub columns: Vec<TailedColumn>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    Insert,
    Update,
    Delete,
    Truncate,
}

/// A column of the row: its new value, or its last one if the row was deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TailedColumn {
    pub name: String,
    /// None for NULL.
    pub value: Option<String>,
    /// Its value before, if that is known and was another one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub was: Option<String>,
}
