//! Looks again at the rows that a lane changed since a verification began.

use super::proof::{Sides, Verdict};
use super::table::{Key, Table};
use crate::lane::changed::{Changed, ChangedRow};
use crate::lane::halt::Halt;

/// Rows that are looked at together.
const BATCH: usize = 500;

/// Forgets those that are the same on both sides; `found` is told of the others. Each row is looked at once: one that
/// changes meanwhile comes next time.
pub(crate) async fn again(
    sides: &mut Sides,
    tables: &[Table],
    changed: &Changed,
    mut found: impl FnMut(&Table, &Key, Verdict),
) -> Result<(), Halt> {
    let (newest, mut after) = (changed.newest(), 0);
    loop {
        let rows = changed.rows(after..newest, BATCH);
        let Some(last) = rows.last() else { return Ok(()) };
        after = last.number;
        for (table, rows) in by_table(tables, &rows) {
            let keys: Vec<Key> = rows.iter().map(|row| table.key_of(&row.key)).collect();
            let mut done = 0;
            while done < keys.len() {
                let verdicts = sides.prove(table, &keys[done..].iter().collect::<Vec<_>>()).await?;
                for verdict in verdicts {
                    match verdict {
                        Verdict::Same => changed.forget(rows[done]),
                        other => found(table, &keys[done], other),
                    }
                    done += 1;
                }
            }
        }
    }
}

/// The rows of each table. Others than these tables are left out.
pub(crate) fn by_table<'t, 'r>(
    tables: &'t [Table],
    rows: &'r [ChangedRow],
) -> impl Iterator<Item = (&'t Table, Vec<&'r ChangedRow>)> {
    let of = |table: &Table| rows.iter().filter(|row| row.table == table.from).collect::<Vec<_>>();
    tables.iter().map(move |table| (table, of(table))).filter(|(_, rows)| !rows.is_empty())
}
