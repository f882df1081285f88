//! The gate: what a database enforces for a slice at an epoch, as calls of the functions that `install` makes there.
//!
//! Knows how a gate is worked, not when; the triggers themselves are in `sql/`.

use crate::names::{SliceName, quote_identifier};

/// Makes the slice's gate if it is missing: triggers on every table, created disabled, and the gate's row, open
/// at epoch 0. Idempotent.
pub fn make(slice: &SliceName) -> String {
    format!("SELECT strangler.{}()", function("gate_make", slice))
}

/// Shuts (`$1` true) or opens the slice's gate at epoch `$2` (bigint). Refused by the database where it has seen a higher epoch.
pub fn set(slice: &SliceName) -> String {
    format!("SELECT strangler.{}($1, $2)", function("gate_set", slice))
}

/// Takes the slice's gate away. Idempotent.
pub fn unmake(slice: &SliceName) -> String {
    format!("SELECT strangler.{}()", function("gate_unmake", slice))
}

/// The quoted name of a slice's own function.
pub fn function(verb: &str, slice: &SliceName) -> String {
    quote_identifier(&format!("{verb}_{slice}"))
}
