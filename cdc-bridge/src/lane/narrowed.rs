//! Whether the sink's columns still take every value that they took when the slice was copied.
//!
//! A column that became narrower rounds or cuts silently: its database changes a value to fit the column before it stores it.
//! The copy's columns are the measure, so a restart changes nothing.

use super::halt::Halt;
use super::kept::{Shapes, to_json};
use super::plan::LanePlan;
use migrations::code::Code;
use migrations::column_type::{Fit, TypeSeen, fit};
use migrations::finding::Finding;
use migrations::lane::{Direction, LaneId, Right};
use migrations::names::{TableName, quote_identifier};
use migrations::plan::Table;
use migrations::preflight::ColumnSeen;
use postgres::catalog;
use postgres::stamp::{self, Stamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

/// A column of a sink's table as far as it decides which values it takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Room {
    name: String,
    declared: String,
    kind: TypeSeen,
    modifier: i32,
}

/// The columns of a lane's sink, by table.
pub(crate) type Rooms = BTreeMap<TableName, Vec<Room>>;

fn rooms(columns: &[ColumnSeen]) -> Vec<Room> {
    let of = |column: &ColumnSeen| Room {
        name: column.name.clone(),
        declared: column.declared.clone(),
        kind: column.kind.clone(),
        modifier: column.modifier,
    };
    columns.iter().map(of).collect()
}

/// How the columns stand now, and what they take. An ALTER in between shows as another stamp.
pub(crate) async fn look(client: &Client, plan: &LanePlan) -> Result<(Stamp, Rooms), Halt> {
    let stamp = stamped(client, plan).await?;
    let mut found = Rooms::new();
    for table in &plan.tables {
        if let Some(shape) = catalog::shape(client, &table.to).await.map_err(Halt::of)? {
            found.insert(table.to.clone(), rooms(&shape.columns));
        }
    }
    Ok((stamp, found))
}

pub(crate) async fn stamped(client: &Client, plan: &LanePlan) -> Result<Stamp, Halt> {
    let tables: BTreeSet<TableName> = plan.tables.iter().map(|table| table.to.clone()).collect();
    stamp::read(client, &tables).await.map_err(Halt::of)
}

/// The lane begins anew, and looks at the columns as they are now.
pub(crate) fn altered() -> Halt {
    Halt::away("a column of the sink's tables was altered: they are looked at anew")
}

/// Notes what the columns took when the slice was copied.
pub(crate) async fn note(client: &Client, lane: &LaneId, rooms: &Rooms) -> Result<(), Halt> {
    let sql = "UPDATE strangler.stream SET sink_columns = $3 WHERE slice = $1 AND direction = $2";
    let rooms = to_json(rooms)?;
    let parameters: [&(dyn ToSql + Sync); 3] = [&lane.slice.as_str(), &lane.direction.to_string(), &rooms];
    client.execute(sql, &parameters).await.map_err(Halt::of)?;
    Ok(())
}

/// Fails if a column that the lane fills takes less than it did. Tables that are only watched are their owner's to change. A
/// lane that has noted nothing yet begins with what there is.
pub(crate) async fn check(
    client: &Client,
    plan: &LanePlan,
    right: Right,
    shapes: &Shapes,
    now: &BTreeMap<TableName, Vec<ColumnSeen>>,
) -> Result<(), Halt> {
    let sql = "SELECT sink_columns FROM strangler.stream WHERE slice = $1 AND direction = $2";
    let parameters: [&(dyn ToSql + Sync); 2] = [&plan.id.slice.as_str(), &plan.id.direction.to_string()];
    let row = client.query_opt(sql, &parameters).await.map_err(Halt::of)?;
    let noted: Option<serde_json::Value> = row.and_then(|row| row.get(0));
    match noted.and_then(|noted| serde_json::from_value::<Rooms>(noted).ok()) {
        Some(then) => judge(plan, right, shapes, &then, now).map_err(Halt::stop),
        None => {
            let now = now.iter().map(|(table, columns)| (table.clone(), rooms(columns))).collect();
            note(client, &plan.id, &now).await
        }
    }
}

fn judge(
    plan: &LanePlan,
    right: Right,
    shapes: &Shapes,
    then: &Rooms,
    now: &BTreeMap<TableName, Vec<ColumnSeen>>,
) -> Result<(), Box<Finding>> {
    let is_filled = |table: &&Table| matches!(right, Right::Apply(_)) || plan.is_reference(&table.from);
    for table in plan.tables.iter().filter(is_filled) {
        let (Some(then), Some(now)) = (then.get(&table.to), now.get(&table.to)) else { continue };
        let carried = shapes.get(&table.from).into_iter().flat_map(|relation| &relation.columns);
        let carried = carried.filter_map(|column| table.sink_column(&column.name));
        let filled: BTreeSet<&str> = carried.chain(table.set.keys().map(String::as_str)).collect();
        for room in then.iter().filter(|room| filled.contains(room.name.as_str())) {
            // Of one that is gone its first statement tells more.
            let Some(column) = now.iter().find(|column| column.name == room.name) else { continue };
            if !takes_all(room, column) {
                return Err(Box::new(narrowed(plan, &table.to, room, column)));
            }
        }
    }
    Ok(())
}

/// Whether a column takes unchanged what another one took.
fn takes_all(room: &Room, column: &ColumnSeen) -> bool {
    let is_same = room.kind == column.kind && room.modifier == column.modifier;
    let fits = || fit(&room.kind, room.modifier, &column.kind, column.modifier);
    is_same || matches!(fits(), Fit::Exact | Fit::Rewrites)
}

fn narrowed(plan: &LanePlan, table: &TableName, room: &Room, column: &ColumnSeen) -> Finding {
    let (whose, slice) = match plan.id.direction {
        Direction::Forward => ("service", &plan.id.slice),
        Direction::Reverse => ("monolith", &plan.id.slice),
    };
    Finding::error(
        Code::SinkNarrowed,
        format!(
            "column {} of the {whose}'s table {table} was {} when the slice was copied, and is {} now: values would be rounded, \
             cut or refused",
            room.name, room.declared, column.declared
        ),
        format!(
            "run in the {whose}'s database: `ALTER TABLE {} ALTER COLUMN {column} TYPE {declared} USING {column}::text::{declared};`, then `strangler sync resume {slice}`; what \
             the change itself cut is mended by `strangler verify {slice} --repair`; or copy the slice again: `strangler sync drop \
             {slice}`, then `strangler sync start {slice}`",
            table.quoted(),
            column = quote_identifier(&room.name),
            declared = room.declared,
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(kind: TypeSeen, modifier: i32) -> ColumnSeen {
        ColumnSeen {
            name: "total".to_owned(),
            number: 1,
            type_oid: 0,
            declared: String::new(),
            cast: String::new(),
            exact: String::new(),
            operators: None,
            kind,
            modifier,
            written: 0,
            file: 0,
            is_key: false,
            key_position: 0,
            default: None,
            is_nullable: true,
            has_default: false,
            is_always_identity: false,
            generated_as: None,
            is_toastable: false,
        }
    }

    #[test]
    fn whatever_takes_less_than_before_is_narrower() {
        let base = |name: &str| TypeSeen::Base(name.to_owned());
        let states = |labels: &[&str]| TypeSeen::Enum {
            name: "public.state".to_owned(),
            labels: labels.iter().map(|label| (*label).to_owned()).collect(),
        };
        let numeric = |precision: i32, scale: i32| ((precision << 16) | scale) + 4;
        let takes = |then: TypeSeen, before: i32, now: TypeSeen, after: i32| {
            takes_all(&rooms(&[seen(then, before)])[0], &seen(now, after))
        };
        let narrower = [
            (base("numeric"), numeric(12, 2), base("numeric"), numeric(12, 1)),
            (base("numeric"), -1, base("numeric"), numeric(12, 2)),
            (base("timestamptz"), -1, base("timestamptz"), 0),
            (base("varchar"), 24, base("varchar"), 14),
            (base("text"), -1, base("varchar"), 14),
            (base("bpchar"), 9, base("bpchar"), 6),
            (base("int8"), -1, base("int4"), -1),
            (base("float8"), -1, base("float4"), -1),
            (states(&["new", "done"]), -1, states(&["new"]), -1),
            (base("text"), -1, TypeSeen::Other("public.short".to_owned()), -1),
        ];
        for (then, before, now, after) in narrower {
            assert!(!takes(then.clone(), before, now.clone(), after), "{then:?} {before} to {now:?} {after}");
            assert!(takes(then.clone(), before, then, before));
        }
        assert!(takes(base("numeric"), numeric(12, 2), base("numeric"), numeric(14, 4)));
        assert!(takes(base("int4"), -1, base("int8"), -1));
        assert!(takes(states(&["new"]), -1, states(&["new", "done"]), -1));
    }
}
