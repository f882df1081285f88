//! The shapes of tables before and after a change.

use super::shape::compatible;
use crate::change::{Column, Relation, ReplicaIdentity, Stored};
use migrations::column_type::ColumnType;

fn relation(columns: &[(&str, ColumnType)]) -> Relation {
    let column = |(name, kind): &(&str, ColumnType)| Column {
        name: (*name).to_owned(),
        kind: kind.clone(),
        is_key: *name == "id",
        nullable: *name != "id",
        number: 0,
        stored: None,
        declared: None,
        key_position: 0,
        default: None,
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
fn more_labels_go_on_and_other_types_stop() {
    let numeric = |precision, scale| ColumnType::Numeric { precision, scale };
    let array = |kind| ColumnType::Array(Box::new(kind));
    let mood = |labels: &str| ColumnType::Enum {
        name: "public.mood".to_owned(),
        labels: labels.split(' ').map(str::to_owned).collect(),
    };
    assert_eq!(verdict(ColumnType::Text, ColumnType::Text), Ok(()));
    for more in ["sad ok good", "bad sad ok", "sad so-so ok"] {
        assert_eq!(verdict(mood("sad ok"), mood(more)), Ok(()));
        assert_eq!(verdict(array(mood("sad ok")), array(mood(more))), Ok(()));
    }
    for others in ["sad", "ok sad", "sad fine", "blue ok"] {
        assert!(verdict(mood("sad ok"), mood(others)).is_err(), "{others}");
        assert!(verdict(array(mood("sad ok")), array(mood(others))).is_err(), "{others}");
    }
    assert!(verdict(numeric(10, 2), numeric(12, 2)).unwrap_err().contains("numeric(10,2) to numeric(12,2)"));
    assert!(verdict(ColumnType::Int4, ColumnType::Int8).unwrap_err().contains("integer to bigint"));
    assert!(verdict(ColumnType::Int8, ColumnType::Int4).unwrap_err().contains("bigint to integer"));
    assert!(verdict(array(ColumnType::Int2), array(ColumnType::Int4)).is_err());
    assert!(verdict(ColumnType::Text, ColumnType::Jsonb).is_err());
}

#[test]
fn values_that_an_alter_wrote_anew_stop() {
    let stored = |modifier, written, file| {
        let mut relation = relation(&[("id", ColumnType::Int4), ("v", ColumnType::Text)]);
        relation.columns[1].stored = Some(Stored { modifier, written, file });
        relation
    };
    let verdict =
        |now, used| compatible(&stored(-1, 700, 1), &now, |_| used).map_err(|finding| finding.message);
    assert!(verdict(stored(-1, 701, 2), true).unwrap_err().contains("`v` were rewritten"));
    assert!(verdict(stored(9, 700, 1), true).unwrap_err().contains("`v` has another length"));
    // SET STATISTICS, VACUUM FULL, and what the plan does not read.
    for (now, used) in [(stored(-1, 701, 1), true), (stored(-1, 700, 2), true), (stored(9, 701, 2), false)] {
        assert_eq!(verdict(now, used), Ok(()));
    }
    // A shape that was kept by an earlier version.
    let earlier = relation(&[("id", ColumnType::Int4), ("v", ColumnType::Text)]);
    assert!(compatible(&earlier, &stored(9, 701, 2), |_| true).is_ok());
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

#[test]
fn another_default_or_place_in_the_key_goes_on() {
    let old = relation(&[("id", ColumnType::Int4), ("v", ColumnType::Text)]);
    let mut new = old.clone();
    new.columns[0].key_position = 1;
    new.columns[1].default = Some("'new'::text".to_owned());
    assert!(compatible(&old, &new, |_| true).is_ok());
    assert!(compatible(&new, &old, |_| true).is_ok());
    // A shape that was kept by an earlier version knows neither.
    let mut kept = serde_json::to_value(&new).unwrap();
    for column in kept["columns"].as_array_mut().unwrap() {
        let column = column.as_object_mut().unwrap();
        column.retain(|name, _| !matches!(name.as_str(), "key_position" | "default"));
    }
    assert_eq!(serde_json::from_value::<Relation>(kept).unwrap(), old);
}
