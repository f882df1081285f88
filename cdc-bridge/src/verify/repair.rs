//! Mends what a verification has proven to differ, by the lane itself: see `lane/sink/mend.rs`.

use super::kept::Kept;
use super::look::Found;
use super::proof::{Sides, Verdict};
use super::subject::Subject;
use super::table::{Key, Table};
use crate::lane::halt::Halt;
use crate::lane::mending::{Deed, Mend, MendRow};
use migrations::verify::{How, RowKey};
use rows::change::{Tuple, Value};
use tokio::sync::oneshot;

/// Rows that are mended together.
const BATCH: usize = 200;
/// A row may have to wait until another one is mended, such as the one that it refers to.
const ROUNDS_MAX: usize = 8;

/// Mends the rows that are listed as different, and takes those that are the same now from the list.
pub(crate) async fn repair(
    kept: &mut Kept,
    sides: &mut Sides,
    subject: &Subject,
    tables: &[Table],
) -> Result<(), Halt> {
    for round in 0..ROUNDS_MAX {
        let mut tried = 0;
        let before = kept.repaired;
        for table in tables {
            tried += one_round(kept, sides, subject, table).await?;
        }
        if tried == 0 || (round > 0 && kept.repaired == before) {
            return Ok(());
        }
    }
    Ok(())
}

/// Returns how many rows the lane was given.
async fn one_round(
    kept: &mut Kept,
    sides: &mut Sides,
    subject: &Subject,
    table: &Table,
) -> Result<usize, Halt> {
    let listed = kept.differences.listed.iter().map(|difference| &difference.row);
    let of_table = listed.filter(|row| row.table == table.name);
    let rows: Vec<(RowKey, Key)> =
        of_table.filter_map(|row| Some((row.clone(), table.key_named(row)?))).collect();
    let mut given = 0;
    for batch in rows.chunks(BATCH) {
        let mut done = 0;
        while done < batch.len() {
            let since = subject.changed.newest();
            let keys: Vec<&Key> = batch[done..].iter().map(|(_, key)| key).collect();
            let (verdicts, found) = sides.prove_rows(table, &keys).await?;
            let mut mends = Vec::new();
            for ((verdict, found), (row, key)) in verdicts.iter().zip(&found).zip(&batch[done..]) {
                match verdict {
                    Verdict::Same => settled(kept, row),
                    Verdict::Different(how) => mends.extend(mend(table, key, found, how)),
                    Verdict::Changing | Verdict::Undecided => {}
                }
            }
            done += verdicts.len();
            given += mends.len();
            if !mends.is_empty() {
                let (answer, answered) = oneshot::channel();
                let mend = Mend { relation: table.relation(), rows: mends, since, answer };
                let gone = |_| Halt::away("the lane does not take rows to mend");
                subject.mending.sender.send(mend).await.map_err(|_| gone(()))?;
                let refused = answered.await.map_err(|_| gone(()))?;
                for why in refused.into_iter().flatten() {
                    tracing::info!(slice = %kept.slice, table = %table.name, why, "a row is not mended");
                }
            }
        }
    }
    Ok(given)
}

/// What mends a row, by the source's row.
fn mend(table: &Table, key: &Key, found: &Found, how: &How) -> Option<MendRow> {
    let relation = table.relation();
    let mut values = vec![Value::Null; relation.columns.len()];
    if found.version.is_some() {
        for (n, column) in table.comparison.differing.columns.iter().enumerate() {
            let text: Option<&str> = found.row.get(Found::COLUMNS + n);
            *values.get_mut(*column)? = text.map_or(Value::Null, |text| Value::Text(text.as_bytes()));
        }
    } else {
        for (name, text) in table.key_names().iter().zip(key) {
            *values.get_mut(relation.index_of(name)?)? = Value::Text(text.as_bytes());
        }
    }
    let tuple = Tuple::of(values.into_iter());
    let deed = match how {
        How::Missing => Deed::Insert(tuple),
        How::Extra => Deed::Delete(tuple),
        How::Values { .. } | How::Unfit { .. } => Deed::Update(tuple),
    };
    Some(MendRow { key: table.noted_row(&table.row(key))?, deed })
}

fn settled(kept: &mut Kept, row: &RowKey) {
    kept.differences.listed.retain(|difference| difference.row != *row);
    kept.differences.total = kept.differences.total.saturating_sub(1);
    kept.repaired += 1;
}
