//! Changes as one statement: the database checks foreign keys after its last row, whatever the order of the rows.
//!
//! The source's own statements were checked so: rows that refer to each other may come and go in any order.

use super::Sink;
use super::write::{columns_of, parameters};
use crate::lane::halt::Halt;
use crate::lane::refusal::{RowError, expect, unknown_value};
use rows::change::{Change, Tuple};
use rows::mapping::Mapping;
use rows::reduce::{self, Moved, NetRows};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// So few rows are updated each by a part of its own, in the source's order: so a key is free when the next row gets it.
const APART_MAX: usize = 256;

/// A statement takes no more (PostgreSQL's protocol, `Bind`).
const PARAMETERS_MAX: usize = u16::MAX as usize;

/// More rows are updated in the order in which they are given if they are looked up one after the other.
const IN_ORDER: &str = "SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off";
const ANY_ORDER: &str = "SET LOCAL enable_hashjoin TO DEFAULT; SET LOCAL enable_mergejoin TO DEFAULT";

/// A part of the statement.
struct Piece {
    sql: String,
    /// The texts of its parameters, column by column.
    arrays: Vec<Vec<Option<String>>>,
    rows: u64,
    /// Whether some of the rows may be gone already.
    may_lack: bool,
}

/// Columns to set, and the rows in which they are set.
type Settings = Vec<(BTreeSet<usize>, Vec<Moved>)>;

impl Sink {
    /// False if the changes are none that one statement can do.
    pub(super) async fn apply_together(&mut self, changes: &[Change]) -> Result<bool, RowError> {
        let Some(mut tables) = reduce::net(changes) else { return Ok(false) };
        tables.sort_by_key(|rows| self.ranks.get(&rows.relation.table).copied());
        let moves: usize = tables.iter().flat_map(|rows| rows.updates.values()).map(Vec::len).sum();
        let is_many = moves > APART_MAX;
        let mut pieces = Vec::new();
        // What leaves makes room for what comes: unique values are checked row by row.
        for rows in tables.iter().rev() {
            self.deletes(rows, &mut pieces)?;
        }
        for rows in &tables {
            self.moves(rows, if is_many { moves } else { 1 }, &mut pieces).await?;
        }
        for rows in &tables {
            self.inserts(rows, &mut pieces)?;
        }
        if pieces.is_empty() {
            return Ok(true);
        }
        if parameters_of(&pieces) > PARAMETERS_MAX {
            return Ok(false);
        }
        let parts = pieces.iter().enumerate();
        let parts = parts.map(|(n, piece)| format!("s{n} AS ({} RETURNING 1)", piece.sql));
        let counts = (0..pieces.len()).map(|n| format!("(SELECT count(*) FROM s{n})"));
        let (parts, counts): (Vec<String>, Vec<String>) = (parts.collect(), counts.collect());
        let sql = format!("WITH {} SELECT {}", parts.join(", "), counts.join(", "));
        if is_many {
            self.client.batch_execute(IN_ORDER).await?;
        }
        let arrays: Vec<Vec<Option<&str>>> =
            pieces.iter().flat_map(|piece| &piece.arrays).map(|array| texts(array)).collect();
        let found = self.client.query_one(&sql, &parameters(&arrays)).await?;
        if is_many {
            self.client.batch_execute(ANY_ORDER).await?;
        }
        for (n, piece) in pieces.iter().enumerate().filter(|(_, piece)| !piece.may_lack) {
            expect(u64::try_from(found.get::<_, i64>(n)).unwrap_or_default(), piece.rows)?;
        }
        Ok(true)
    }

    fn deletes(&mut self, rows: &NetRows, pieces: &mut Vec<Piece>) -> Result<(), RowError> {
        if rows.deletes.is_empty() {
            return Ok(());
        }
        let mapping = self.mappings.of(&rows.relation)?;
        let statement = mapping.delete_after(parameters_of(pieces));
        let arrays = owned(&rows.deletes, &statement.columns)?;
        let may_lack = self.cascades.deletes.contains(&mapping.to);
        pieces.push(Piece { sql: statement.sql, arrays, rows: rows.deletes.len() as u64, may_lack });
        Ok(())
    }

    fn inserts(&mut self, rows: &NetRows, pieces: &mut Vec<Piece>) -> Result<(), RowError> {
        if rows.inserts.is_empty() {
            return Ok(());
        }
        let statement = self.mappings.of(&rows.relation)?.insert_after(parameters_of(pieces));
        let arrays = owned(&rows.inserts, &statement.columns)?;
        pieces.push(Piece { sql: statement.sql, arrays, rows: rows.inserts.len() as u64, may_lack: false });
        Ok(())
    }

    /// So many rows by one part.
    async fn moves(
        &mut self,
        rows: &NetRows,
        together: usize,
        pieces: &mut Vec<Piece>,
    ) -> Result<(), RowError> {
        let mapping = self.mappings.of(&rows.relation)?;
        for (unsent, moves) in &rows.updates {
            for (columns, moves) in self.settings(&mapping, unsent, moves).await? {
                let is_rekey = |one: &Moved| key_changes(&mapping, one);
                for moves in moves.chunk_by(|one, next| is_rekey(one) == is_rekey(next)) {
                    for moves in moves.chunks(together) {
                        pieces.extend(piece(&mapping, &columns, moves, parameters_of(pieces))?);
                    }
                }
            }
        }
        Ok(())
    }

    /// Which columns are set in which of these rows.
    async fn settings(
        &mut self,
        mapping: &Arc<Mapping>,
        unsent: &BTreeSet<usize>,
        moves: &[Moved],
    ) -> Result<Settings, RowError> {
        if !self.is_sparing() {
            if mapping.misses(unsent) {
                return Err(Halt::stop(unknown_value(mapping)).into());
            }
            return Ok(vec![(mapping.settable(unsent), moves.to_vec())]);
        }
        // Each row is asked about where it stands.
        let places: Vec<Tuple> =
            moves.iter().map(|one| reduce::with_key(&one.to, &one.from, &mapping.key)).collect();
        let changed = self.changed(mapping, unsent, &places).await?;
        expect(changed.len() as u64, moves.len() as u64)?;
        let mut settings: BTreeMap<BTreeSet<usize>, Vec<(usize, Moved)>> = BTreeMap::new();
        for (row, mut columns) in changed {
            let Some(one) = moves.get(row) else { continue };
            if key_changes(mapping, one) {
                columns.extend(mapping.keyed());
            }
            if mapping.reads_any(&columns, unsent) {
                return Err(Halt::stop(unknown_value(mapping)).into());
            }
            settings.entry(columns).or_default().push((row, one.clone()));
        }
        let in_order = |(columns, mut rows): (BTreeSet<usize>, Vec<(usize, Moved)>)| {
            rows.sort_by_key(|(row, _)| *row);
            (columns, rows.into_iter().map(|(_, one)| one).collect())
        };
        Ok(settings.into_iter().map(in_order).collect())
    }
}

/// The part that updates rows, of which either all change their keys or none does. None if there is nothing to set.
fn piece(
    mapping: &Mapping,
    columns: &BTreeSet<usize>,
    moves: &[Moved],
    before: usize,
) -> Result<Option<Piece>, RowError> {
    let (to, from): (Vec<Tuple>, Vec<Tuple>) =
        moves.iter().map(|one| (one.to.clone(), one.from.clone())).unzip();
    let (sql, arrays) = if moves.first().is_some_and(|one| key_changes(mapping, one)) {
        let (statement, key) = mapping.rekey_after(before, columns);
        let mut arrays = owned(&to, &statement.columns)?;
        arrays.extend(owned(&from, &key)?);
        (statement.sql, arrays)
    } else if columns.is_empty() {
        return Ok(None);
    } else {
        let statement = mapping.update_after(before, columns);
        let arrays = owned(&to, &statement.columns)?;
        (statement.sql, arrays)
    };
    Ok(Some(Piece { sql, arrays, rows: moves.len() as u64, may_lack: false }))
}

fn key_changes(mapping: &Mapping, one: &Moved) -> bool {
    mapping.key.iter().any(|index| one.from.get(*index) != one.to.get(*index))
}

/// The parameters of these pieces together.
fn parameters_of(pieces: &[Piece]) -> usize {
    pieces.iter().map(|piece| piece.arrays.len()).sum()
}

fn owned(rows: &[Tuple], columns: &[usize]) -> Result<Vec<Vec<Option<String>>>, RowError> {
    let own = |array: Vec<Option<&str>>| array.into_iter().map(|text| text.map(str::to_owned)).collect();
    Ok(columns_of(rows, columns)?.into_iter().map(own).collect())
}

fn texts(array: &[Option<String>]) -> Vec<Option<&str>> {
    array.iter().map(Option::as_deref).collect()
}
