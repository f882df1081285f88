//! The binary form of changes: what is written is read back, and damage is noticed.

use super::*;
use crate::change::{Column, ReplicaIdentity, Value as Field};
use crate::progress::LogId;
use migrations::column_type::ColumnType;
use migrations::lsn::{EndLsn, Timeline};
use proptest::prelude::*;

fn relation(name: &str) -> Arc<Relation> {
    let column = |name: &str, is_key| Column {
        name: name.to_owned(),
        kind: ColumnType::Text,
        is_key,
        nullable: !is_key,
        number: 0,
        stored: None,
        declared: None,
        key_position: 0,
        default: None,
    };
    Arc::new(Relation {
        table: name.parse().unwrap(),
        identity: ReplicaIdentity::Default,
        columns: vec![column("id", true), column("note", false)],
    })
}

fn tuple() -> impl Strategy<Value = Tuple> {
    let field = prop_oneof![
        Just(None),
        Just(Some(None)),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(|text| Some(Some(text)))
    ];
    prop::collection::vec(field, 0..5).prop_map(|fields| {
        Tuple::of(fields.iter().map(|field| match field {
            None => Field::Null,
            Some(None) => Field::Unchanged,
            Some(Some(text)) => Field::Text(text),
        }))
    })
}

fn operation_of() -> impl Strategy<Value = Operation> {
    prop_oneof![
        tuple().prop_map(|new| Operation::Insert { new }),
        (prop::option::of(tuple()), tuple()).prop_map(|(old, new)| Operation::Update { old, new }),
        tuple().prop_map(|old| Operation::Delete { old }),
        Just(Operation::Truncate),
    ]
}

fn change() -> impl Strategy<Value = (Change, usize)> {
    let places = (0u64..4, any::<u64>(), any::<u64>(), 0u32..3, any::<i64>());
    (places, 0usize..3, prop::option::of("[a-z]{1,5}"), operation_of()).prop_map(
        |((commit, ordinal, lsn, xid, committed_us), table, mark, operation)| {
            let change = Change {
                position: Position { commit: CommitLsn(commit), ordinal },
                lsn,
                transaction: Transaction { xid, committed_us },
                relation: relation(&format!("t{table}")),
                mark: mark.map(Arc::from),
                operation,
            };
            (change, table)
        },
    )
}

fn progress() -> Progress {
    Progress {
        version: 1,
        log: LogId("a".into()),
        timeline: Timeline { system_id: "7".into(), timeline: 1 },
        end: EndLsn(77),
        committed_us: -3,
        messages: Vec::new(),
        captured: [crate::progress::Membership(16_400)].into(),
        seals: None,
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(changes in prop::collection::vec(change(), 0..30), ends: bool, skipped in 0usize..4) {
        let mut encoder = Encoder::default();
        for (change, table) in &changes {
            encoder.push(change, *table as u64);
        }
        let ends = ends.then(progress);
        let value = Value::open(encoder.finish(ends.as_ref())).unwrap();
        prop_assert!(encoder.is_empty());
        prop_assert_eq!(&value.progress, &ends);
        prop_assert_eq!(value.count, changes.len());
        let wanted = |table: u64| (table != skipped as u64).then(|| relation(&format!("t{table}")));
        let relations = value.relations.iter().map(|hash| wanted(*hash)).collect();
        let read: Vec<Change> = value.changes(relations).map(Result::unwrap).collect();
        let expected: Vec<Change> =
            changes.into_iter().filter(|(_, table)| *table != skipped).map(|(change, _)| change).collect();
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn one_wrong_byte_is_noticed(changes in prop::collection::vec(change(), 1..5), at: usize, bit in 0u8..8) {
        let mut encoder = Encoder::default();
        for (change, table) in &changes {
            encoder.push(change, *table as u64);
        }
        let mut bytes = BytesMut::from(&encoder.finish(None)[..]);
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        prop_assert!(Value::open(bytes.freeze()).is_err());
    }

    #[test]
    fn bytes_with_a_right_checksum_and_wrong_content_never_panic(mut body in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Some(first) = body.first_mut() {
            *first = VERSION;
        }
        let checksum = XxHash64::oneshot(0, &body);
        body.extend_from_slice(&checksum.to_be_bytes());
        if let Ok(value) = Value::open(Bytes::from(body)) {
            let relations = value.relations.iter().map(|_| Some(relation("t"))).collect();
            let _ = value.changes(relations).collect::<Vec<_>>();
        }
        let changes = Changes {
            rest: Bytes::from(vec![0xFF; 40]),
            left: 9,
            relations: Vec::new(),
            before: Before::default(),
        };
        prop_assert!(changes.last().is_some_and(|last| last.is_err()));
    }
}
