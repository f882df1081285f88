//! An outbox's inserts as events, routed as Debezium's transform `EventRouter` does with its defaults.
//!
//! Values go out as they are, as by Connect's `StringConverter` and `ByteArrayConverter`: a payload of JSON is JSON, not a
//! string that holds some.

use super::{Context, header, value};
use crate::change::{Change, Operation, Tuple, Value};
use migrations::column_type::ColumnType;
use migrations::names::TableName;

const ID: &str = "id";
const TYPE: &str = "aggregatetype";
const KEY: &str = "aggregateid";
const PAYLOAD: &str = "payload";

/// One record for a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// `outbox.event.<aggregatetype>`.
    pub topic: String,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(&'static str, Vec<u8>)>,
}

/// Why a change of an outbox is no event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoEvent {
    #[error("a row of the outbox {0} was updated, which sends nothing; insert another row instead")]
    Updated(TableName),
    #[error(
        "the outbox {0} has no column `{1}`; give it the columns `id`, `aggregatetype`, `aggregateid` and `payload`"
    )]
    NoColumn(TableName, &'static str),
    #[error(
        "a row of the outbox {0} has no `aggregatetype` that a topic can be named by; \
         write one of up to 236 letters, digits, `.`, `_` and `-`"
    )]
    NoType(TableName),
}

/// The event that a change of an outbox sends; none for a delete and a truncate.
///
/// # Errors
/// If it should send one and cannot. The change is passed over.
pub fn event(context: &Context, change: &Change) -> Result<Option<Event>, NoEvent> {
    let table = || change.relation.table.clone();
    match &change.operation {
        Operation::Insert { new } => insert(context, change, new).map(Some),
        Operation::Update { .. } => Err(NoEvent::Updated(table())),
        Operation::Delete { .. } | Operation::Truncate => Ok(None),
    }
}

/// The longest type that `outbox.event.` and Kafka's 249 characters leave room for.
const TYPE_LEN_MAX: usize = 236;

fn insert(context: &Context, change: &Change, row: &Tuple) -> Result<Event, NoEvent> {
    let relation = &change.relation;
    let bytes = |name: &'static str| {
        let index = relation.index_of(name).ok_or_else(|| NoEvent::NoColumn(relation.table.clone(), name))?;
        Ok(match (row.get(index), &relation.columns[index].kind) {
            (Value::Text(text), ColumnType::Bytea) => value::bytea(text),
            (Value::Text(text), _) => Some(text.to_vec()),
            (Value::Null | Value::Unchanged, _) => None,
        })
    };
    let (id, key, payload) = (bytes(ID)?, bytes(KEY)?, bytes(PAYLOAD)?);
    let is_allowed = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let kind =
        bytes(TYPE)?.filter(|kind| (1..=TYPE_LEN_MAX).contains(&kind.len()) && kind.iter().all(is_allowed));
    let kind = kind.and_then(|kind| String::from_utf8(kind).ok());
    let kind = kind.ok_or_else(|| NoEvent::NoType(relation.table.clone()))?;
    let context = header::context(&context.prefix).map(|(name, text)| (name, text.to_vec()));
    let headers = context.into_iter().chain(id.map(|id| ("id", id))).collect();
    Ok(Event { topic: format!("outbox.event.{kind}"), key, value: payload, headers })
}
