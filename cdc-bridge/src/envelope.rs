//! Debezium's words for a change.
