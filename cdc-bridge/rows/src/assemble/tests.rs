//! The shapes of tables before and after a change.

use super::shape::compatible;
use crate::change::{Column, Relation, ReplicaIdentity};
use migrations::column_type::ColumnType;

fn relation(columns: &[(&str, ColumnType)]) -> Relation {
    let column = |(name, kind): &(&str, ColumnType)| Column {
        name: (*name).to_owned(),
        kind: kind.clone(),
        is_key: *name == "id",
        nullable: *name != "id",
        number: 0,
    };
    Relation {
        table: "public.orders".parse().unwrap(),
        identity: ReplicaIdentity::Default,
        columns: columns.iter().map(column).collect(),
    }
}

fn verdict(old: ColumnType, new: ColumnType) -> Result<(), String> {
    let id = ("id", ColumnType::Int4);
    let old = relation(&[id.clone(), ("v", old)]);
    let new = relation(&[id, ("v", new)]);
    compatible(&old, &new, |_| true).map_err(|finding| finding.message)
}

#[test]
fn widened_types_go_on_and_others_stop() {
    let numeric = |precision, scale| ColumnType::Numeric { precision, scale };
    assert_eq!(verdict(ColumnType::Int4, ColumnType::Int8), Ok(()));
    assert_eq!(verdict(ColumnType::Text, ColumnType::Text), Ok(()));
    assert_eq!(verdict(numeric(10, 2), numeric(12, 2)), Ok(()));
    let array = |kind| ColumnType::Array(Box::new(kind));
    assert_eq!(verdict(array(ColumnType::Int2), array(ColumnType::Int4)), Ok(()));
    let mood = |labels: &[&str]| ColumnType::Enum {
        name: "public.mood".to_owned(),
        labels: labels.iter().map(|label| (*label).to_owned()).collect(),
    };
    assert_eq!(verdict(mood(&["sad"]), mood(&["sad", "ok"])), Ok(()));
    assert!(verdict(mood(&["sad", "ok"]), mood(&["sad"])).is_err());
    // Finer values would be rounded silently by a sink of the old type.
    assert!(verdict(numeric(10, 2), numeric(12, 4)).unwrap_err().contains("numeric(10,2) to numeric(12,4)"));
    assert!(verdict(ColumnType::Int8, ColumnType::Int4).unwrap_err().contains("bigint to integer"));
    assert!(verdict(ColumnType::Text, ColumnType::Jsonb).is_err());
}

#[test]
fn a_column_that_was_dropped_and_added_again_is_another_one() {
    let mut old = relation(&[("id", ColumnType::Int4), ("v", ColumnType::Text)]);
    let mut new = old.clone();
    // A shape that was kept by an earlier version has no numbers.
    new.columns[1].number = 3;
    assert!(compatible(&old, &new, |_| true).is_ok());
    old.columns[1].number = 2;
    let finding = compatible(&old, &new, |_| true).unwrap_err();
    assert!(finding.message.contains("`v` was dropped and added again"), "{finding}");
}

#[test]
fn columns_come_and_go_only_outside_the_plan() {
    let old = relation(&[("id", ColumnType::Int4), ("v", ColumnType::Text)]);
    let with =
        |name| relation(&[("id", ColumnType::Int4), ("v", ColumnType::Text), (name, ColumnType::Text)]);
    let used = |name: &str| name != "extra";
    assert!(compatible(&old, &with("extra"), used).is_ok());
    assert!(compatible(&old, &with("wanted"), used).unwrap_err().message.contains("`wanted`"));
    let mut strict = with("extra");
    strict.columns[2].nullable = false;
    assert!(compatible(&old, &strict, used).is_ok(), "a default fills it");
    let renamed = relation(&[("id", ColumnType::Int4), ("w", ColumnType::Text)]);
    let finding = compatible(&old, &renamed, used).unwrap_err();
    assert!(finding.message.contains("`v` is gone or was renamed (new: `w`)"), "{finding}");
}

#[test]
fn a_weaker_identity_or_another_key_stops() {
    let full = Relation { identity: ReplicaIdentity::Full, ..relation(&[("id", ColumnType::Int4)]) };
    let default = relation(&[("id", ColumnType::Int4)]);
    assert!(compatible(&default, &full, |_| true).is_ok());
    assert!(compatible(&full, &default, |_| true).unwrap_err().message.contains("replica identity"));
    let mut keyless = default.clone();
    keyless.columns[0].is_key = false;
    assert!(compatible(&default, &keyless, |_| true).unwrap_err().message.contains("primary key"));
}
