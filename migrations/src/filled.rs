//! Which of a service's tables a copy filled, by what its database keeps (`strangler.stream`), and which may therefore be
//! emptied.

use crate::names::TableName;
use crate::plan::Slice;
use std::collections::BTreeSet;

/// The sink tables of the slice as the plan has them.
pub fn all(slice: &Slice) -> BTreeSet<TableName> {
    slice.all_tables().map(|table| table.to.clone()).collect()
}

/// Those of the filled tables that the plan still gives the slice. A table that left the plan is not among them: the
/// service may write it again.
pub fn ours(slice: &Slice, filled: &BTreeSet<TableName>) -> BTreeSet<TableName> {
    &all(slice) & filled
}
