//! Sequences of the side that shall own a slice go on where those of the other side are: from `last_value`, with a gap.
//!
//! The highest number in a table says too little: a number that was given out and rolled back, or that a session holds in
//! its cache, may be known outside.

use super::trouble::Trouble;
use futures_util::future::try_join_all;
use migrations::gate::Side;
use migrations::names::TableName;
use migrations::plan::{Slice, Table};
use postgres::catalog;
use tokio_postgres::{Client, Error, Row};

/// Numbers that are left out at least.
const GAP_MIN: i64 = 1_000;

/// The sequences of a table's columns: those that belong to a column, and those that a default asks. One that belongs to
/// nothing we were given rights on can be neither read nor set.
const SEQUENCES: &str = "
    WITH owned AS (
        SELECT d.refobjsubid AS attnum, d.objid AS oid FROM pg_depend d
         WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = to_regclass($1) AND d.refobjsubid > 0
           AND d.classid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
        UNION
        SELECT f.adnum, d.refobjid FROM pg_attrdef f
          JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = f.oid
               AND d.refclassid = 'pg_class'::regclass AND d.deptype = 'n'
         WHERE f.adrelid = to_regclass($1))
    SELECT a.attname::text, quote_ident(n.nspname) || '.' || quote_ident(s.relname), q.seqincrement, q.seqmin, q.seqmax,
           q.seqcache, q.seqcycle, has_sequence_privilege(s.oid, 'SELECT'), has_sequence_privilege(s.oid, 'UPDATE')
      FROM owned JOIN pg_class s ON s.oid = owned.oid AND s.relkind = 'S'
      JOIN pg_attribute a ON a.attrelid = to_regclass($1) AND a.attnum = owned.attnum AND NOT a.attisdropped
      JOIN pg_namespace n ON n.oid = s.relnamespace JOIN pg_sequence q ON q.seqrelid = s.oid
     ORDER BY 1, 2";

#[derive(Debug, Clone, PartialEq, Eq)]
struct Sequence {
    column: String,
    /// Quoted, with its schema.
    name: String,
    increment: i64,
    min: i64,
    max: i64,
    cache: i64,
    is_cycling: bool,
    may_read: bool,
    may_set: bool,
    last: i64,
}

/// A sequence that numbers a column of the new owner, and the one that numbered it at the old owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pair {
    old: Sequence,
    new: Sequence,
}

/// The pairs for the move of a slice to the side `to`; or why some column could not be numbered after it.
pub(super) async fn pairs(
    slice: &Slice,
    to: Side,
    monolith: &Client,
    service: &Client,
) -> Result<Vec<Pair>, Trouble> {
    let (old, new) = match to {
        Side::Service => (monolith, service),
        Side::Monolith => (service, monolith),
    };
    let mut pairs = Vec::new();
    for table in &slice.tables {
        let table = match to {
            Side::Service => table.clone(),
            Side::Monolith => table.reversed(),
        };
        let seen = async {
            let shape = catalog::shape(old, &table.from).await?;
            let columns = shape.into_iter().flat_map(|shape| shape.columns).map(|column| column.name);
            Ok((columns.collect::<Vec<_>>(), sequences(old, &table.from).await?))
        };
        let seen = futures_util::try_join!(seen, sequences(new, &table.to));
        let ((columns, olds), news) = seen.map_err(|error: Error| Trouble::of(&error))?;
        pairs.extend(paired(&table, &columns, &olds, news, to).map_err(Trouble::Final)?);
    }
    Ok(pairs)
}

/// Sets each new owner's sequence past where the old owner's is now.
pub(super) async fn set(
    pairs: &[Pair],
    to: Side,
    monolith: &Client,
    service: &Client,
) -> Result<(), Trouble> {
    let (from, client) = match to {
        Side::Service => (monolith, service),
        Side::Monolith => (service, monolith),
    };
    // Asked at once, for writes are held meanwhile.
    let now = pairs.iter().map(|pair| async move {
        let (old, new) = futures_util::try_join!(last(from, &pair.old), last(client, &pair.new))?;
        let at = |sequence: &Sequence, last| Sequence { last, ..sequence.clone() };
        Ok(Pair { old: at(&pair.old, old), new: at(&pair.new, new) })
    });
    let now = try_join_all(now).await.map_err(|error: Error| Trouble::of(&error))?;
    for Pair { old, new } in now {
        if let Some(value) = ahead(&old, &new).map_err(Trouble::Final)? {
            let name = &new.name;
            let set = client.execute("SELECT setval($1::text::regclass, $2)", &[name, &value]).await;
            set.map_err(|error| Trouble::of(&error))?;
            tracing::info!(sequence = name, value, "a sequence goes on after the other side's");
        }
    }
    Ok(())
}

async fn sequences(client: &Client, table: &TableName) -> Result<Vec<Sequence>, Error> {
    let mut found = Vec::new();
    for row in client.query(SEQUENCES, &[&table.quoted()]).await? {
        let mut sequence = sequence(&row);
        if sequence.may_read {
            sequence.last = last(client, &sequence).await?;
        }
        found.push(sequence);
    }
    Ok(found)
}

async fn last(client: &Client, sequence: &Sequence) -> Result<i64, Error> {
    let asked = format!("SELECT last_value FROM {}", sequence.name);
    Ok(client.query_one(&asked, &[]).await?.get(0))
}

fn sequence(row: &Row) -> Sequence {
    Sequence {
        column: row.get(0),
        name: row.get(1),
        increment: row.get(2),
        min: row.get(3),
        max: row.get(4),
        cache: row.get(5),
        is_cycling: row.get(6),
        may_read: row.get(7),
        may_set: row.get(8),
        last: 0,
    }
}

/// Every new sequence of a column that gets the old owner's values, with that column's old sequences. A column that gets none
/// is numbered by the new owner alone.
fn paired(
    table: &Table,
    columns: &[String],
    old: &[Sequence],
    new: Vec<Sequence>,
    to: Side,
) -> Result<Vec<Pair>, String> {
    let mut pairs = Vec::new();
    for new in new {
        let gets = |column: &str| table.sink_column(column) == Some(new.column.as_str());
        if !table.set.contains_key(&new.column) && !columns.iter().any(|column| gets(column)) {
            continue;
        }
        let before = pairs.len();
        let olds = old.iter().filter(|old| gets(&old.column));
        pairs.extend(olds.map(|old| Pair { old: old.clone(), new: new.clone() }));
        if pairs.len() == before {
            return Err(format!(
                "column {} of table {} is numbered by a sequence at the {to} and by none at the {}, so nothing says \
                 which numbers are taken",
                new.column,
                table.to,
                to.other()
            ));
        }
    }
    // Whatever cannot be done is said before writes are held.
    pairs.iter().try_for_each(|Pair { old, new }| ahead(old, new).map(drop))?;
    Ok(pairs)
}

/// What the new sequence is to be set to; none if it is far enough already. It is never set back, and keeps to its own
/// steps.
fn ahead(old: &Sequence, new: &Sequence) -> Result<Option<i64>, String> {
    let (from, to) = (&old.name, &new.name);
    if !old.may_read || !new.may_set {
        let hidden = if old.may_read { new } else { old };
        return Err(format!(
            "sequence {} belongs to no column of the slice's tables, so it may be neither read nor set: run ALTER \
             SEQUENCE {} OWNED BY the column, then `strangler install`",
            hidden.name, hidden.name
        ));
    }
    if old.is_cycling || new.is_cycling {
        let cycling = if old.is_cycling { from } else { to };
        return Err(format!(
            "sequence {cycling} begins again at its end, so no number of it is known to be free"
        ));
    }
    if old.increment.signum() != new.increment.signum() {
        return Err(format!("sequences {from} and {to} count in different directions"));
    }
    // Wide enough for every value and its gap.
    let wide = i128::from;
    let gap = wide(GAP_MIN.max(old.cache.max(new.cache).saturating_mul(2))) * wide(old.increment.abs());
    let direction = wide(new.increment.signum());
    let missing = (wide(old.last) + direction * gap - wide(new.last)) * direction;
    if missing <= 0 {
        return Ok(None);
    }
    let step = wide(new.increment).abs();
    let value = wide(new.last) + direction * (missing + step - 1) / step * step;
    match i64::try_from(value) {
        Ok(value) if (new.min..=new.max).contains(&value) => Ok(Some(value)),
        _ => Err(format!("sequence {to} ends before it is past the last number of {from}, {}", old.last)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(name: &str, increment: i64, last: i64) -> Sequence {
        let (min, max) = if increment > 0 { (1, i64::MAX) } else { (i64::MIN, -1) };
        let (column, name) = ("id".to_owned(), name.to_owned());
        let is_cycling = false;
        Sequence {
            column,
            name,
            increment,
            min,
            max,
            cache: 1,
            is_cycling,
            may_read: true,
            may_set: true,
            last,
        }
    }

    #[test]
    fn a_sequence_goes_on_after_the_other_ones_with_a_gap() {
        let set = |old: &Sequence, new: &Sequence| ahead(old, new).unwrap();
        assert_eq!(set(&sequence("a", 1, 500), &sequence("b", 1, 1)), Some(1500));
        assert_eq!(set(&sequence("a", 1, 500), &sequence("b", 1, 1500)), None, "never back, never twice");
        assert_eq!(set(&sequence("a", 1, 500), &sequence("b", 1, 9_000)), None);
        let cached = Sequence { cache: 5_000, ..sequence("a", 1, 500) };
        assert_eq!(set(&cached, &sequence("b", 1, 1)), Some(10_500), "sessions hold numbers in their caches");
        assert_eq!(set(&sequence("a", 10, 500), &sequence("b", 1, 1)), Some(10_500));
    }

    #[test]
    fn a_sequence_keeps_to_its_own_steps() {
        // Even numbers here, odd ones elsewhere.
        assert_eq!(ahead(&sequence("a", 1, 500), &sequence("b", 2, 2)).unwrap(), Some(1500));
        assert_eq!(ahead(&sequence("a", 1, 501), &sequence("b", 2, 2)).unwrap(), Some(1502));
    }

    #[test]
    fn one_that_counts_down_goes_further_down() {
        assert_eq!(ahead(&sequence("a", -1, -500), &sequence("b", -1, -1)).unwrap(), Some(-1500));
        assert_eq!(ahead(&sequence("a", -1, -500), &sequence("b", -1, -1500)).unwrap(), None);
        assert_eq!(ahead(&sequence("a", -1, -500), &sequence("b", -3, -1)).unwrap(), Some(-1501));
    }

    #[test]
    fn what_cannot_be_numbered_is_said() {
        let refused = |old: &Sequence, new: &Sequence| ahead(old, new).unwrap_err();
        let (a, b) = (sequence("a", 1, 500), sequence("b", 1, 1));
        assert!(refused(&Sequence { is_cycling: true, ..a.clone() }, &b).contains("begins again"));
        assert!(refused(&a, &sequence("b", -1, -1)).contains("directions"));
        assert!(refused(&a, &Sequence { max: 1_400, ..b.clone() }).contains("ends before"));
        assert!(refused(&sequence("a", 1, i64::MAX - 3), &b).contains("ends before"));
        assert!(refused(&Sequence { may_read: false, ..a.clone() }, &b).contains("OWNED BY"));
        assert!(refused(&a, &Sequence { may_set: false, ..b }).contains("OWNED BY"));
    }
}
