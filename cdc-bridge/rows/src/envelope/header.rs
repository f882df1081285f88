//! The names of a record's headers.

/// The change's position, `16/B374D848+3`: on every record.
pub const POSITION: &str = "strangler.position";
/// The slice whose applier wrote the change: the echo mark.
pub const MARK: &str = "strangler.mark";
/// The text of values in `after` that its JSON does not give back exactly: an object of column → text, null where a
/// large value did not change and was not sent.
pub const EXACT: &str = "strangler.exact";
/// The same for `before`, and for the old row of a changed key.
pub const EXACT_BEFORE: &str = "strangler.exact.before";
/// A changed key's old row, where it is more than the key, or might be by the table's identity.
pub const BEFORE: &str = "strangler.before";
/// The old row's columns that were sent, where the table's identity does not say them.
pub const IDENTITY: &str = "strangler.identity";
/// On the delete half of a changed key: the new key (Debezium's).
pub const NEW_KEY: &str = "__debezium.newkey";
/// On the create half of a changed key: the old key (Debezium's).
pub const OLD_KEY: &str = "__debezium.oldkey";
