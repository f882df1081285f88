//! The decoder and the assembler on bytes that a real server sent (`tests/captured`, made by `capture.sh` there), and on such
//! bytes with damage.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what is called by tests may fail like tests")]

use bytes::Bytes;
use migrations::column_type::ColumnType;
use migrations::names::TableName;
use proptest::prelude::*;
use rows::assemble::{Assembler, Step};
use rows::change::{Change, Column, Operation, Relation, ReplicaIdentity, Tuple, Value};
use rows::pgoutput::{DecodeError, WireMessage, WireRelation, decode};

const CASES: [(&str, &[u8]); 10] = [
    ("insert_every_type", include_bytes!("captured/insert_every_type.bin")),
    ("update_default_identity", include_bytes!("captured/update_default_identity.bin")),
    ("update_full_identity", include_bytes!("captured/update_full_identity.bin")),
    ("update_index_identity", include_bytes!("captured/update_index_identity.bin")),
    ("key_change", include_bytes!("captured/key_change.bin")),
    ("unchanged_toast", include_bytes!("captured/unchanged_toast.bin")),
    ("truncate_two_tables", include_bytes!("captured/truncate_two_tables.bin")),
    ("origin", include_bytes!("captured/origin.bin")),
    ("messages_and_mark", include_bytes!("captured/messages_and_mark.bin")),
    ("shape_change", include_bytes!("captured/shape_change.bin")),
];

/// The messages of a case with their WAL positions.
fn captured(case: &str) -> Vec<(u64, Bytes)> {
    let (_, file) = CASES.iter().find(|(name, _)| *name == case).unwrap();
    let mut rest = *file;
    let mut messages = Vec::new();
    while !rest.is_empty() {
        let (lsn, tail) = rest.split_at(8);
        let (len, tail) = tail.split_at(4);
        let (message, tail) = tail.split_at(u32::from_be_bytes(len.try_into().unwrap()) as usize);
        messages.push((u64::from_be_bytes(lsn.try_into().unwrap()), Bytes::copy_from_slice(message)));
        rest = tail;
    }
    messages
}

fn decoded(case: &str) -> Vec<WireMessage> {
    captured(case).into_iter().map(|(_, bytes)| decode(bytes).unwrap()).collect()
}

/// All columns as text: enough to assemble.
fn as_text(wire: &WireRelation) -> Relation {
    let table = TableName { schema: wire.schema.clone(), name: wire.name.clone() };
    let kind = ColumnType::Text;
    let column = |name: &String, is_key| {
        let (name, kind) = (name.clone(), kind.clone());
        Column {
            name,
            kind,
            is_key,
            nullable: !is_key,
            number: 0,
            stored: None,
            declared: None,
            key_position: 0,
            default: None,
        }
    };
    let columns = wire.columns.iter().map(|wire| column(&wire.name, wire.part_of_key)).collect();
    Relation { table, identity: wire.identity, columns }
}

/// Every step of a case but `Nothing`; tables named in `ignored` are not wanted.
fn steps(case: &str, ignored: &[&str]) -> Vec<Step> {
    let mut assembler = Assembler::new();
    let mut steps = Vec::new();
    for (lsn, bytes) in captured(case) {
        match assembler.push(lsn, decode(bytes).unwrap()).unwrap() {
            Step::Nothing => {}
            Step::NeedRelation(wire) if ignored.contains(&wire.name.as_str()) => assembler.ignore(wire.oid),
            Step::NeedRelation(wire) => assembler.learn(wire.oid, as_text(&wire)),
            step => steps.push(step),
        }
    }
    assert!(!assembler.in_transaction());
    steps
}

fn changes(case: &str) -> Vec<Change> {
    changes_of(steps(case, &[]))
}

fn changes_of(steps: Vec<Step>) -> Vec<Change> {
    let one = |step| match step {
        Step::Change(change) => vec![change],
        Step::Truncated(changes) => changes,
        _ => Vec::new(),
    };
    steps.into_iter().flat_map(one).collect()
}

fn texts(tuple: &Tuple) -> Vec<Option<String>> {
    let text = |value| match value {
        Value::Null => None,
        Value::Unchanged => Some("(unchanged)".to_owned()),
        Value::Text(text) => Some(String::from_utf8(text.to_vec()).unwrap()),
    };
    tuple.values().map(text).collect()
}

fn short(tuple: &Tuple) -> String {
    let one = |text: Option<String>| text.map_or("∅".to_owned(), |text| text.chars().take(12).collect());
    texts(tuple).into_iter().map(one).collect::<Vec<String>>().join(" ")
}

/// A case's operations, each on a line.
fn told(case: &str) -> Vec<String> {
    let tell = |change: &Change| match &change.operation {
        Operation::Insert { new } => format!("{} + {}", change.relation.table.name, short(new)),
        Operation::Update { old: None, new } => format!("{} = {}", change.relation.table.name, short(new)),
        Operation::Update { old: Some(old), new } => {
            format!("{} {} → {}", change.relation.table.name, short(old), short(new))
        }
        Operation::Delete { old } => format!("{} - {}", change.relation.table.name, short(old)),
        Operation::Truncate => format!("{} truncated", change.relation.table.name),
    };
    changes(case).iter().map(tell).collect()
}

#[test]
fn a_row_of_every_type_arrives_as_its_text() {
    let rows = changes("insert_every_type");
    let Operation::Insert { new } = &rows[0].operation else { panic!() };
    let texts: Vec<String> = texts(new).into_iter().map(|text| text.unwrap_or("∅".to_owned())).collect();
    let expected = [
        "1",
        "-32768",
        "2147483647",
        "-9223372036854775808",
        "4294967295",
        "t",
        "1.5e-10",
        "0.1",
        "123456789.125",
        "12300",
        "1000000000000000000000000000000",
        "tab\tquote\" back\\ slash\nline ünïcødé 🐘",
        "varchar",
        "ab   ",
        "\\x00ff10",
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        "{\"a\" :  1}",
        "{\"b\": [1, 2.50, null]}",
        "0044-03-15 BC",
        "23:59:59",
        "24:00:00",
        "2016-11-04 13:51:30.123",
        "2016-11-04 13:51:30.123456",
        "2016-11-04 11:51:30.123456+00",
        "it's \"ok\"",
        "{{1,2},{3,NULL}}",
        "{\"a b\",\"\",NULL,\"NULL\",\"q\\\"u\\\\o{te,\"}",
        "{1.50,NaN,0.000}",
        "{\"2016-11-04 13:51:30+00\",infinity}",
        "{sad,glücklich}",
        "{\"\\\\xdead\"}",
    ];
    assert_eq!(texts, expected);
    let Operation::Insert { new } = &rows[1].operation else { panic!() };
    assert!(new.values().skip(1).all(|value| value == Value::Null));
}

#[test]
fn relations_and_types_are_described() {
    let messages = decoded("insert_every_type");
    let kind = messages.iter().find_map(|message| match message {
        WireMessage::Type { schema, name, .. } => Some(format!("{schema}.{name}")),
        _ => None,
    });
    assert_eq!(kind.as_deref(), Some("public.mood"));
    let relation = messages.iter().find_map(|message| match message {
        WireMessage::Relation(relation) => Some(relation),
        _ => None,
    });
    let relation = relation.unwrap();
    assert_eq!((relation.schema.as_str(), relation.name.as_str()), ("public", "every_type"));
    assert_eq!(relation.identity, ReplicaIdentity::Default);
    assert_eq!(relation.columns.len(), 31);
    let keys: Vec<&str> = relation
        .columns
        .iter()
        .filter(|column| column.part_of_key)
        .map(|column| column.name.as_str())
        .collect();
    assert_eq!(keys, ["id"]);
    let numeric = relation.columns.iter().find(|column| column.name == "n").unwrap();
    assert_eq!((numeric.type_oid, numeric.type_modifier), (1700, (12 << 16 | 3) + 4));
}

#[test]
fn old_rows_follow_the_replica_identity() {
    assert_eq!(
        told("update_default_identity"),
        ["by_key + 1 one small p", "by_key = 1 one small q", "by_key - 1 one ∅ ∅"]
    );
    assert_eq!(
        told("update_full_identity"),
        [
            "by_full + 1 small p",
            "by_full + 2 ∅ ∅",
            "by_full 1 small p → 1 small q",
            "by_full 2 ∅ ∅ → 3 ∅ ∅",
            "by_full - 1 small q",
            "by_full - 3 ∅ ∅",
        ]
    );
    assert_eq!(
        told("update_index_identity"),
        [
            "by_index + 1 c1 p",
            "by_index = 1 c1 q",
            "by_index ∅ c1 ∅ → 1 c2 q",
            "by_index = 7 c2 q",
            "by_index - ∅ c2 ∅",
        ]
    );
}

#[test]
fn a_changed_key_comes_with_the_old_one_and_large_values_stay_away() {
    assert_eq!(
        told("key_change"),
        ["by_key + 1 one ∅ p", "by_key 1 one ∅ ∅ → 2 one ∅ p", "by_key - 2 one ∅ ∅"]
    );
    assert_eq!(
        told("unchanged_toast"),
        [
            "by_key + 1 one xxxxxxxxxxxx p",
            "by_full + 1 yyyyyyyyyyyy p",
            "by_key = 1 one (unchanged) q",
            "by_key 1 one ∅ ∅ → 2 one (unchanged) q",
            "by_full 1 yyyyyyyyyyyy p → 1 (unchanged) q",
            "by_key - 2 one ∅ ∅",
            "by_full - 1 yyyyyyyyyyyy q",
        ]
    );
}

#[test]
fn a_truncate_is_one_change_per_table_each_with_its_own_ordinal() {
    assert_eq!(
        told("truncate_two_tables"),
        ["one + 1", "two + 1", "one truncated", "two truncated", "one truncated", "two truncated"]
    );
    let truncates = decoded("truncate_two_tables").into_iter().filter_map(|message| match message {
        WireMessage::Truncate { oids, cascade, restart_identity } => {
            Some((oids.len(), cascade, restart_identity))
        }
        _ => None,
    });
    assert_eq!(truncates.collect::<Vec<_>>(), [(2, true, true), (2, false, false)]);
    let ordinals: Vec<u64> =
        changes("truncate_two_tables").iter().map(|change| change.position.ordinal).collect();
    assert_eq!(ordinals, [1, 1, 1, 2, 1, 2]);
}

#[test]
fn an_origin_is_read_and_changes_nothing() {
    let origins = decoded("origin").into_iter().filter_map(|message| match message {
        WireMessage::Origin { commit_lsn, name } => Some((commit_lsn, name)),
        _ => None,
    });
    assert_eq!(origins.collect::<Vec<_>>(), [(0xAB, "elsewhere".to_owned())]);
    assert_eq!(told("origin"), ["one + 10", "one - 10"]);
    // Two transactions later than 2024, Unix time.
    for change in changes("origin") {
        assert!(change.transaction.xid > 0 && change.transaction.committed_us >= 1_704_067_200_000_000);
    }
}

#[test]
fn messages_have_positions_and_an_appliers_mark_holds_to_the_end_of_its_transaction() {
    let steps = steps("messages_and_mark", &[]);
    let mut seen = Vec::new();
    let mut outside = None;
    for step in &steps {
        match step {
            Step::Message(message) if message.prefix == "strangler.note" => outside = Some(message.position),
            Step::Message(message) => {
                seen.push(format!("{} {} {}", message.position.ordinal, message.prefix, message.content));
            }
            Step::Change(change) => {
                seen.push(format!("{} {}", change.position.ordinal, change.mark.as_deref().unwrap_or("-")));
            }
            Step::Committed { end, commit, .. } => {
                assert!(end.is_past(*commit) && outside.unwrap().commit < *commit);
                seen.push("committed".to_owned());
            }
            other => panic!("{other:?}"),
        }
    }
    // The foreign message and the mark itself are counted although nothing comes of them.
    let fence = r#"4 strangler.fence {"slice":"orders","epoch":7}"#;
    assert_eq!(seen, ["1 -", "3 orders", fence, "6 orders", "committed", "1 -", "2 -", "committed"]);
}

#[test]
fn positions_do_not_depend_on_what_is_wanted() {
    for (case, _) in CASES {
        let all = changes(case);
        let some = changes_of(steps(case, &["one", "by_key"]));
        let wanted: Vec<Change> = all
            .iter()
            .filter(|c| !["one", "by_key"].contains(&c.relation.table.name.as_str()))
            .cloned()
            .collect();
        assert_eq!(some, wanted, "{case}");
        assert!(all.is_sorted_by(|a, b| a.position < b.position), "{case}");
    }
}

#[test]
fn a_changed_table_is_described_again() {
    let relations = decoded("shape_change").into_iter().filter_map(|message| match message {
        WireMessage::Relation(relation) => Some(relation.columns.len()),
        _ => None,
    });
    assert_eq!(relations.collect::<Vec<_>>(), [1, 2, 1]);
    assert_eq!(told("shape_change"), ["one + 30", "one + 31 x", "one - 30", "one - 31"]);
}

#[test]
fn rows_where_they_cannot_be_are_errors() {
    let insert = captured("origin").into_iter().find(|(_, bytes)| bytes[0] == b'I').unwrap();
    let message = decode(insert.1).unwrap();
    assert!(Assembler::new().push(insert.0, message.clone()).unwrap_err().to_string().contains("outside"));
    let mut undescribed = Assembler::new();
    let begin = WireMessage::Begin { final_lsn: 5, committed_pg_us: 0, xid: 1 };
    undescribed.push(1, begin.clone()).unwrap();
    assert!(undescribed.push(2, message).unwrap_err().to_string().contains("description"));
    assert!(undescribed.push(3, begin).unwrap_err().to_string().contains("inside"));
    let commit = WireMessage::Commit { commit_lsn: 6, end_lsn: 7, committed_pg_us: 0 };
    assert!(undescribed.push(4, commit).unwrap_err().to_string().contains("0/6"));
}

#[test]
fn a_row_of_another_width_or_identity_is_an_error() {
    let mut assembler = Assembler::new();
    let mut failures = 0;
    for (lsn, bytes) in captured("update_full_identity") {
        match assembler.push(lsn, decode(bytes).unwrap()) {
            Ok(Step::NeedRelation(wire)) => {
                let narrow = Relation { identity: ReplicaIdentity::Default, ..as_text(&wire) };
                assembler.learn(wire.oid, narrow);
            }
            Ok(_) => {}
            Err(error) => {
                assert!(error.to_string().contains("public.by_full"));
                failures += 1;
            }
        }
    }
    // Two updates and two deletes hold whole old rows, which this identity does not write.
    assert_eq!(failures, 4);
}

#[test]
fn trailing_and_missing_bytes_are_errors() {
    for (case, _) in CASES {
        for (_, bytes) in captured(case) {
            let mut long = bytes.to_vec();
            long.push(0);
            let error = decode(Bytes::from(long)).unwrap_err();
            assert!(matches!(error, DecodeError::Trailing { left: 1, .. }), "{case}: {error}");
            for len in 0..bytes.len().min(300) {
                assert!(decode(bytes.slice(..len)).is_err(), "{case}: {len}");
            }
        }
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0usize..11) {
        let _ = decode(Bytes::from(bytes.clone()));
        let mut plausible = vec![b"BCORYIUDTMx"[kind]];
        plausible.extend_from_slice(&bytes);
        let _ = decode(Bytes::from(plausible));
    }

    #[test]
    fn damaged_messages_never_panic(
        case in 0usize..CASES.len(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut messages = captured(CASES[case].0);
        let len = messages.len();
        for (message, place, byte) in damage {
            let (_, bytes) = &mut messages[message.index(len)];
            let mut damaged = bytes.to_vec();
            let place = place.index(damaged.len().max(1));
            if let Some(at) = damaged.get_mut(place) {
                *at = byte;
            }
            *bytes = Bytes::from(damaged);
        }
        let mut assembler = Assembler::new();
        for (lsn, bytes) in messages {
            let Ok(message) = decode(bytes) else { continue };
            if let Ok(Step::NeedRelation(wire)) = assembler.push(lsn, message) {
                assembler.learn(wire.oid, as_text(&wire));
            }
        }
    }
}
