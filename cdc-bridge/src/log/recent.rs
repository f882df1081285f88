//! The newest changes of some tables, for people.

use super::contract::LogError;
use super::reader::{Shapes, Wanted};
use super::store::Store;
use super::values::Found;
use migrations::names::TableName;
use rows::binary::{Malformed, Value};
use rows::change::Change;
use std::collections::{BTreeSet, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;

/// It looks no further back than this many bytes of values.
const RECENT_BYTES_MAX: usize = 64 << 20;
/// The last `n` changes of these tables that are promised, oldest first.
pub(super) fn recent(store: &Store, tables: BTreeSet<TableName>, n: usize) -> Result<Vec<Change>, LogError> {
    let extent = store.known()?;
    let mut shapes = Shapes::of(Wanted::Of(Arc::new(tables)));
    let mut tap = store.tap()?;
    let malformed = |malformed: Malformed| store.damaged(&malformed.to_string());
    let mut newest = VecDeque::new();
    let (mut until, mut looked) = (extent.promised, 0);
    while until > extent.first && newest.len() < n && looked < RECENT_BYTES_MAX {
        let from = tap.back(until, &extent)?;
        let mut found = VecDeque::new();
        let mut visit = |value: Found<'_>| {
            looked += value.bytes.len();
            let relation = value.relation;
            let value = Value::open(value.bytes).map_err(malformed)?;
            for change in value.changes(shapes.of_value(&value, relation)?) {
                found.push_back(change.map_err(malformed)?);
                if found.len() > n {
                    found.pop_front();
                }
            }
            Ok(ControlFlow::Continue(()))
        };
        tap.read(from, from, until, &mut visit)?;
        // What a dead writer left, its successor has repeated.
        found.retain(|change| newest.front().is_none_or(|next: &Change| change.position < next.position));
        let missing = n - newest.len();
        found.drain(..found.len().saturating_sub(missing));
        found.append(&mut newest);
        newest = found;
        until = from;
    }
    Ok(newest.into())
}
