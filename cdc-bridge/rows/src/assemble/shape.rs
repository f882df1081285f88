//! Whether a table that changed its shape under a running stream can still be followed.
//!
//! Only what keeps every value exact goes on by itself: a sink rejects loudly what does not fit its type, but it
//! rounds silently what has more digits than it keeps.

use crate::change::{Column, Relation, ReplicaIdentity};
use migrations::code::Code;
use migrations::column_type::ColumnType;
use migrations::finding::Finding;

/// Compares a table's shape with the one before. `used` says which columns the plan reads. What goes on: a new
/// column outside the plan, an enum with more labels, a constraint on nulls that came or went, more written of old rows,
/// the same rows in another file. Everything else is the finding that names the change.
pub fn compatible(old: &Relation, new: &Relation, used: impl Fn(&str) -> bool) -> Result<(), Box<Finding>> {
    let stop = |what: String| Err(Box::new(finding(old, &what)));
    if old.table != new.table {
        return stop(format!("it is called {} now", new.table));
    }
    if new.identity != old.identity && new.identity != ReplicaIdentity::Full {
        return stop(format!("its replica identity went from {:?} to {:?}", old.identity, new.identity));
    }
    if let Some(gone) = old.columns.iter().find(|column| new.index_of(&column.name).is_none()) {
        let added = new.columns.iter().filter(|column| old.index_of(&column.name).is_none());
        let added: Vec<&str> = added.map(|column| column.name.as_str()).collect();
        return stop(match added.as_slice() {
            [] => format!("its column `{}` is gone", gone.name),
            added => {
                format!("its column `{}` is gone or was renamed (new: `{}`)", gone.name, added.join("`, `"))
            }
        });
    }
    for column in &new.columns {
        let before = old.index_of(&column.name).map(|index| &old.columns[index]);
        if let Some(what) = change_of(before, column, used(&column.name)) {
            return stop(what);
        }
    }
    Ok(())
}

/// What stops the stream about one column, if anything.
fn change_of(before: Option<&Column>, after: &Column, used: bool) -> Option<String> {
    let name = &after.name;
    let Some(before) = before else {
        return used.then(|| format!("it has a new column `{name}` that the plan uses"));
    };
    if before.number != after.number && before.number != 0 && after.number != 0 {
        return Some(format!("its column `{name}` was dropped and added again"));
    }
    if before.is_key != after.is_key {
        let what = if after.is_key { "joined" } else { "left" };
        return Some(format!("its column `{name}` {what} the primary key"));
    }
    let fits = before.kind == after.kind || has_more_labels(&before.kind, &after.kind);
    let is_carried = !matches!(after.kind, ColumnType::Unsupported(_));
    if (used || !is_carried) && !fits {
        return Some(format!("its column `{name}` went from {} to {}", before.kind.sql(), after.kind.sql()));
    }
    let (Some(before), Some(after)) = (before.stored, after.stored) else { return None };
    if used && before.modifier != after.modifier {
        return Some(format!("its column `{name}` has another length or precision"));
    }
    (used && before.was_rewritten(&after))
        .then(|| format!("the values of its column `{name}` were rewritten"))
}

/// Whether an enum only got more labels. A label keeps its place among the others, so one that was renamed or exchanged is
/// found.
fn has_more_labels(old: &ColumnType, new: &ColumnType) -> bool {
    match (old, new) {
        (
            ColumnType::Enum { name: old_name, labels: old },
            ColumnType::Enum { name: new_name, labels: new },
        ) => {
            let mut rest = new.iter();
            old_name == new_name && old.iter().all(|label| rest.any(|one| one == label))
        }
        (ColumnType::Array(old), ColumnType::Array(new)) => has_more_labels(old, new),
        _ => false,
    }
}

fn finding(old: &Relation, what: &str) -> Finding {
    let table = &old.table;
    Finding::error(
        Code::SourceSchemaChanged,
        format!("the table {table} changed in a way that cannot be followed: {what}"),
        "change the service's table and the plan accordingly, then copy the slice again with `strangler sync drop` \
         and `strangler sync start`",
    )
}
