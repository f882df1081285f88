//! A source's history made from a seed: transactions over a few tables, as capture would hand them to a log.

use cdc_bridge::log::Flush;
use lab::Dice;
use migrations::column_type::ColumnType;
use migrations::lsn::{CommitLsn, EndLsn, Position, Timeline};
use migrations::names::TableName;
use rows::change::{Change, Column, Operation, Relation, ReplicaIdentity, Transaction, Tuple, Value};
use rows::progress::{LogId, Membership, Message, Progress};
use std::collections::BTreeSet;
use std::sync::Arc;

#[derive(Debug, Clone)]
pub struct Committed {
    pub changes: Vec<Change>,
    pub messages: Vec<Message>,
    pub end: EndLsn,
    pub committed_us: i64,
}

pub fn timeline() -> Timeline {
    Timeline { system_id: "7300000000000000001".into(), timeline: 1 }
}

pub fn table(index: u64) -> TableName {
    format!("public.t{index}").parse().unwrap()
}

pub fn tables(indexes: &[u64]) -> BTreeSet<TableName> {
    indexes.iter().map(|index| table(*index)).collect()
}

pub fn relation(index: u64) -> Arc<Relation> {
    relation_of(index, false)
}

/// The table's shape, before or after a column was added.
pub fn relation_of(index: u64, wider: bool) -> Arc<Relation> {
    let column = |name: &str, kind, is_key| Column {
        name: name.into(),
        kind,
        is_key,
        nullable: !is_key,
        number: 0,
        stored: None,
        declared: None,
        key_position: 0,
        default: None,
    };
    let mut columns = vec![column("id", ColumnType::Int8, true), column("note", ColumnType::Text, false)];
    if wider {
        columns.push(column("more", ColumnType::Int4, false));
    }
    Arc::new(Relation { table: table(index), identity: ReplicaIdentity::Default, columns })
}

pub fn row(id: u64, note: &str) -> Tuple {
    let id = id.to_string();
    Tuple::of([Value::Text(id.as_bytes()), Value::Text(note.as_bytes())].into_iter())
}

pub fn key_row(id: u64) -> Tuple {
    let id = id.to_string();
    Tuple::of([Value::Text(id.as_bytes()), Value::Null].into_iter())
}

/// Makes transactions one after the other; the relations are the same `Arc`s throughout, as capture's are.
#[derive(Debug)]
pub struct History {
    pub dice: Dice,
    at: u64,
    xid: u32,
    relations: Vec<Arc<Relation>>,
}

impl History {
    pub fn new(dice: Dice) -> Self {
        Self { dice, at: 0x0100_0000, xid: 700, relations: (0..3).map(relation).collect() }
    }

    /// The next transaction: these operations on these tables.
    pub fn commit(&mut self, operations: Vec<(u64, Operation)>) -> Committed {
        self.xid += 1;
        let start = self.at;
        self.at += 64 * (operations.len() as u64 + 2) + 8 * self.dice.below(64);
        let commit = CommitLsn(self.at);
        self.at += 48;
        let committed_us = 1_700_000_000_000_000 + i64::from(self.xid) * 1000;
        let transaction = Transaction { xid: self.xid, committed_us };
        let change = |(index, (table, operation)): (usize, (u64, Operation))| Change {
            position: Position { commit, ordinal: index as u64 + 1 },
            lsn: start + 64 * index as u64,
            transaction,
            relation: self.relations[table as usize].clone(),
            mark: None,
            operation,
        };
        let changes = operations.into_iter().enumerate().map(change).collect();
        Committed { changes, messages: Vec::new(), end: EndLsn(self.at), committed_us }
    }

    /// A transaction of a few random operations; now and then a large one, a mark, or a message of ours.
    pub fn random(&mut self) -> Committed {
        let count = if self.dice.one_in(12) { 200 + self.dice.below(400) } else { self.dice.below(6) };
        let operations = (0..count).map(|_| self.operation()).collect();
        let mut committed = self.commit(operations);
        if self.dice.one_in(5) {
            let mark: Arc<str> = Arc::from("orders");
            committed.changes.iter_mut().for_each(|change| change.mark = Some(mark.clone()));
        }
        if self.dice.one_in(4) {
            let ordinal = committed.changes.len() as u64 + 1;
            let commit = CommitLsn(committed.end.0 - 48);
            committed.messages.push(message(Position { commit, ordinal }, "42"));
        }
        committed
    }

    fn operation(&mut self) -> (u64, Operation) {
        let dice = &mut self.dice;
        let (table, id) = (dice.below(3), dice.below(50));
        let length = if dice.one_in(40) { 20_000 } else { dice.below(100) as usize };
        let note: String = (0..length).map(|_| char::from(b'a' + dice.below(26) as u8)).collect();
        let operation = match dice.below(10) {
            0..5 => Operation::Insert { new: row(id, &note) },
            5..7 => Operation::Update { old: None, new: row(id, &note) },
            7 => Operation::Update { old: Some(key_row(id)), new: row(id + 1000, &note) },
            8 => Operation::Delete { old: key_row(id) },
            _ if dice.one_in(4) => Operation::Truncate,
            _ => Operation::Insert { new: row(id, "ünïcödé \"\\ \u{1F980}\n\t") },
        };
        (table, operation)
    }
}

pub fn message(position: Position, content: &str) -> Message {
    Message { position, prefix: "strangler.barrier".into(), content: content.into() }
}

pub fn progress(committed: &Committed) -> Progress {
    Progress {
        version: 1,
        log: LogId(String::new()),
        timeline: timeline(),
        end: committed.end,
        committed_us: committed.committed_us,
        messages: committed.messages.clone(),
        captured: [Membership(1)].into(),
        seals: None,
    }
}

/// Whole transactions as one flush with the record after the last.
pub fn flush(transactions: &[Committed]) -> Flush {
    let changes = transactions.iter().flat_map(|committed| committed.changes.clone()).collect();
    let progress = transactions.last().map(|last| {
        let messages = transactions.iter().flat_map(|committed| committed.messages.clone()).collect();
        Progress { messages, ..progress(last) }
    });
    Flush { changes, progress }
}

/// The same, cut at random places: some transactions together, some in several flushes without a record.
pub fn flushes(dice: &mut Dice, transactions: &[Committed]) -> Vec<Flush> {
    let mut flushes = Vec::new();
    let mut rest = transactions;
    while !rest.is_empty() {
        let (some, later) = rest.split_at((1 + dice.below(5) as usize).min(rest.len()));
        rest = later;
        let mut whole = flush(some);
        while whole.changes.len() > 10 && dice.one_in(2) {
            let tail = whole.changes.split_off(1 + dice.below(whole.changes.len() as u64 - 1) as usize);
            flushes.push(Flush { changes: std::mem::replace(&mut whole.changes, tail), progress: None });
        }
        flushes.push(whole);
    }
    flushes
}

pub fn changes_of(transactions: &[Committed], tables: &BTreeSet<TableName>) -> Vec<Change> {
    let all = transactions.iter().flat_map(|committed| committed.changes.iter());
    all.filter(|change| tables.contains(&change.relation.table)).cloned().collect()
}

pub fn messages_of(transactions: &[Committed]) -> Vec<Message> {
    transactions.iter().flat_map(|committed| committed.messages.clone()).collect()
}
