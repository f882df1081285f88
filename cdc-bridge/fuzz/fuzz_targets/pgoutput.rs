//! Any bytes: the decoder answers with a message or an error, a message's tuples can be walked, and the assembler
//! takes any order of messages. The input is cut like the captured files: position, length, message.

#![no_main]

use bytes::Bytes;
use rows::change::{Change, Column, Operation, Relation};
use migrations::column_type::ColumnType;
use rows::assemble::{Assembler, Step};
use rows::pgoutput::decode;
use libfuzzer_sys::fuzz_target;
use migrations::names::TableName;

fuzz_target!(|data: &[u8]| {
    let mut assembler = Assembler::new();
    let mut rest = data;
    while let Some((head, tail)) = rest.split_at_checked(12) {
        let lsn = u64::from_be_bytes(head[..8].try_into().expect("eight bytes"));
        let len = u32::from_be_bytes(head[8..].try_into().expect("four bytes")) as usize;
        let (message, tail) = tail.split_at(len.min(tail.len()));
        rest = tail;
        let Ok(message) = decode(Bytes::copy_from_slice(message)) else { continue };
        match assembler.push(lsn, message) {
            Ok(Step::NeedRelation(wire)) => {
                let column =
                    |name: String| Column { name, kind: ColumnType::Text, is_key: true, nullable: true, number: 0, stored: None, declared: None, key_position: 0, default: None };
                let relation = Relation {
                    table: TableName { schema: wire.schema, name: wire.name },
                    identity: wire.identity,
                    columns: wire.columns.into_iter().map(|wire| column(wire.name)).collect(),
                };
                assembler.learn(wire.oid, relation);
            }
            Ok(Step::Change(change)) => walk(&change),
            _ => {}
        }
    }
});

fn walk(change: &Change) {
    let (Operation::Insert { new: tuple }
    | Operation::Update { new: tuple, .. }
    | Operation::Delete { old: tuple }) = &change.operation
    else {
        return;
    };
    assert_eq!(tuple.values().count(), change.relation.columns.len());
}
