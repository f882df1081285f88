//! The names of a record's headers, as Debezium's connector spells them, and what they say of the connector.

/// On the delete of a changed key, and on its tombstone: the new key.
pub const NEW_KEY: &str = "__debezium.newkey";
/// On the create of a changed key: the old key.
pub const OLD_KEY: &str = "__debezium.oldkey";

const LOGICAL_NAME: &str = "__debezium.context.connectorLogicalName";
const TASK_ID: &str = "__debezium.context.taskId";
const CONNECTOR_NAME: &str = "__debezium.context.connectorName";

/// The headers that every record has (`extended.headers.enabled`), in their order. The prefix is the connector's logical
/// name. A connector for Postgres has one task.
pub(super) fn context(prefix: &str) -> [(&'static str, &[u8]); 3] {
    [(LOGICAL_NAME, prefix.as_bytes()), (TASK_ID, b"0"), (CONNECTOR_NAME, b"postgresql")]
}
