//! A part of a flush as compact binary: what one value of the embedded log holds. Pure; it knows no store.
//!
//! A value is a header, the hashes of the relations it uses, its changes, a progress record (JSON) where one ends
//! it, and a checksum of all that. Numbers are big-endian; `varint` is LEB128. A change is a flag byte, whatever
//! differs from the change before, and its tuples' bytes as they came. Reading copies nothing: tuples are slices of
//! the value.

use crate::change::{Change, Operation, Relation, Transaction, Tuple};
use crate::progress::Progress;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use migrations::lsn::{CommitLsn, Position};
use std::sync::Arc;
use twox_hash::XxHash64;

/// The first byte of every value. A value of another version is refused, never guessed at.
const VERSION: u8 = 1;
const HEADER_LEN: usize = 16;
const CHECKSUM_LEN: usize = 8;

const SAME_TRANSACTION: u8 = 0x08;
const NEXT_ORDINAL: u8 = 0x10;
const SAME_RELATION: u8 = 0x20;
const SAME_MARK: u8 = 0x40;
const OPERATION: u8 = 0x07;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a stored value is malformed: {0}")]
pub struct Malformed(pub &'static str);

/// A relation's number: a hash of its JSON.
pub fn relation_hash(json: &[u8]) -> u64 {
    XxHash64::oneshot(0, json)
}

/// What the encoding of a change leaves out because it is as in the change before.
#[derive(Debug, Clone, Default)]
struct Before {
    transaction: Option<(CommitLsn, Transaction)>,
    ordinal: u64,
    lsn: u64,
    relation: Option<u16>,
    mark: Option<Arc<str>>,
}

#[derive(Debug, Default)]
pub struct Encoder {
    relations: Vec<u64>,
    changes: BytesMut,
    count: u32,
    before: Before,
}

impl Encoder {
    pub fn push(&mut self, change: &Change, relation: u64) {
        let relation = self.relation_index(relation);
        let before = &mut self.before;
        let transaction = (change.position.commit, change.transaction);
        let flag = |holds: bool, bit: u8| if holds { bit } else { 0 };
        let same_transaction = before.transaction == Some(transaction);
        let next_ordinal = change.position.ordinal == before.ordinal.wrapping_add(1);
        let same_relation = before.relation == Some(relation);
        let same_mark = before.mark == change.mark;
        let out = &mut self.changes;
        out.put_u8(
            operation_code(&change.operation)
                | flag(same_transaction, SAME_TRANSACTION)
                | flag(next_ordinal, NEXT_ORDINAL)
                | flag(same_relation, SAME_RELATION)
                | flag(same_mark, SAME_MARK),
        );
        if !same_transaction {
            out.put_u64(change.position.commit.0);
            out.put_u32(change.transaction.xid);
            out.put_i64(change.transaction.committed_us);
        }
        if !next_ordinal {
            put_varint(out, change.position.ordinal);
        }
        put_varint(out, zigzag(change.lsn.wrapping_sub(before.lsn) as i64));
        if !same_relation {
            out.put_u16(relation);
        }
        if !same_mark {
            put_mark(out, change.mark.as_deref());
        }
        put_tuples(out, &change.operation);
        *before = Before {
            transaction: Some(transaction),
            ordinal: change.position.ordinal,
            lsn: change.lsn,
            relation: Some(relation),
            mark: change.mark.clone(),
        };
        self.count += 1;
    }

    fn relation_index(&mut self, hash: u64) -> u16 {
        if let Some(index) = self.relations.iter().rposition(|known| *known == hash) {
            return index as u16;
        }
        self.relations.push(hash);
        (self.relations.len() - 1) as u16
    }

    /// Bytes so far; the finished value is a little larger.
    pub fn len(&self) -> usize {
        self.changes.len() + self.relations.len() * 8
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether another change may need a relation that the value has no room to name.
    pub fn is_full(&self) -> bool {
        self.relations.len() >= usize::from(u16::MAX) || self.count == u32::MAX
    }

    /// The value, ended by a progress record or not; the encoder is empty afterwards, and keeps its room for the next.
    pub fn finish(&mut self, progress: Option<&Progress>) -> Bytes {
        let progress = progress.map(|progress| serde_json::to_vec(progress).unwrap_or_default());
        let progress_len = progress.as_ref().map_or(0, Vec::len);
        let len = HEADER_LEN + self.len() + progress_len + CHECKSUM_LEN;
        let mut out = BytesMut::with_capacity(len);
        out.put_u8(VERSION);
        out.put_u8(u8::from(progress.is_some()));
        out.put_u16(self.relations.len() as u16);
        out.put_u32(self.count);
        out.put_u32(self.changes.len() as u32);
        out.put_u32(progress_len as u32);
        for relation in &self.relations {
            out.put_u64(*relation);
        }
        out.put_slice(&self.changes);
        out.put_slice(progress.as_deref().unwrap_or_default());
        let checksum = XxHash64::oneshot(0, &out);
        out.put_u64(checksum);
        (self.count, self.before) = (0, Before::default());
        self.relations.clear();
        self.changes.clear();
        out.freeze()
    }
}

fn operation_code(operation: &Operation) -> u8 {
    match operation {
        Operation::Insert { .. } => 0,
        Operation::Update { old: None, .. } => 1,
        Operation::Update { old: Some(_), .. } => 2,
        Operation::Delete { .. } => 3,
        Operation::Truncate => 4,
    }
}

fn put_tuples(out: &mut BytesMut, operation: &Operation) {
    let (first, second) = match operation {
        Operation::Insert { new } | Operation::Update { old: None, new } => (Some(new), None),
        Operation::Update { old, new } => (old.as_ref(), Some(new)),
        Operation::Delete { old } => (Some(old), None),
        Operation::Truncate => (None, None),
    };
    let len: usize = [first, second].iter().flatten().map(|tuple| tuple.as_bytes().len()).sum();
    put_varint(out, len as u64);
    for tuple in [first, second].into_iter().flatten() {
        out.put_slice(tuple.as_bytes());
    }
}

/// No mark is 0, a mark its length and one more.
fn put_mark(out: &mut BytesMut, mark: Option<&str>) {
    match mark {
        None => put_varint(out, 0),
        Some(mark) => {
            put_varint(out, mark.len() as u64 + 1);
            out.put_slice(mark.as_bytes());
        }
    }
}

fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[derive(Debug, Clone)]
pub struct Value {
    /// The hashes of the relations that its changes use.
    pub relations: Vec<u64>,
    /// How many changes it holds.
    pub count: usize,
    /// The progress record that ends it.
    pub progress: Option<Progress>,
    changes: Bytes,
}

impl Value {
    pub fn open(bytes: Bytes) -> Result<Value, Malformed> {
        let body_len = bytes.len().checked_sub(CHECKSUM_LEN).ok_or(Malformed("it is too short"))?;
        let (body, mut checksum) = (bytes.slice(..body_len), bytes.slice(body_len..));
        if XxHash64::oneshot(0, &body) != checksum.get_u64() {
            return Err(Malformed("its checksum differs"));
        }
        let mut rest = body;
        if rest.len() < HEADER_LEN {
            return Err(Malformed("it is too short"));
        }
        if rest.get_u8() != VERSION {
            return Err(Malformed("it is of another version of strangler"));
        }
        let has_progress = rest.get_u8() != 0;
        let relation_count = usize::from(rest.get_u16());
        let count = rest.get_u32() as usize;
        let changes_len = rest.get_u32() as usize;
        let progress_len = rest.get_u32() as usize;
        if rest.len() != relation_count * 8 + changes_len + progress_len {
            return Err(Malformed("its lengths do not add up"));
        }
        let relations = (0..relation_count).map(|_| rest.get_u64()).collect();
        let changes = rest.split_to(changes_len);
        let read = |json: &[u8]| {
            serde_json::from_slice(json).map_err(|_| Malformed("its progress record is not readable"))
        };
        let progress = if has_progress { Some(read(&rest)?) } else { None };
        Ok(Value { relations, count, progress, changes })
    }

    /// Roughly the memory its changes take once they are read, in bytes.
    pub fn size(&self) -> usize {
        self.count * std::mem::size_of::<Change>() + self.changes.len()
    }

    /// Reads the changes of those relations that are given, in the order of [`Value::relations`]; others are
    /// skipped.
    pub fn changes(&self, relations: Vec<Option<Arc<Relation>>>) -> Changes {
        Changes { rest: self.changes.clone(), left: self.count, relations, before: Before::default() }
    }
}

/// Reads a value's changes one by one. It can stop between two changes and go on later.
#[derive(Debug, Clone)]
pub struct Changes {
    rest: Bytes,
    left: usize,
    relations: Vec<Option<Arc<Relation>>>,
    before: Before,
}

impl Iterator for Changes {
    type Item = Result<Change, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.left > 0 {
            self.left -= 1;
            match self.read() {
                Ok(None) => {}
                Ok(Some(change)) => return Some(Ok(change)),
                Err(malformed) => {
                    self.left = 0;
                    return Some(Err(malformed));
                }
            }
        }
        None
    }
}

impl Changes {
    fn read(&mut self) -> Result<Option<Change>, Malformed> {
        let flags = self.take(1)?.get_u8();
        let has = |bit: u8| flags & bit != 0;
        if !has(SAME_TRANSACTION) {
            let mut part = self.take(20)?;
            let commit = CommitLsn(part.get_u64());
            let transaction = Transaction { xid: part.get_u32(), committed_us: part.get_i64() };
            self.before.transaction = Some((commit, transaction));
        }
        let ordinal = if has(NEXT_ORDINAL) { self.before.ordinal.wrapping_add(1) } else { self.varint()? };
        self.before.ordinal = ordinal;
        self.before.lsn = self.before.lsn.wrapping_add(unzigzag(self.varint()?) as u64);
        if !has(SAME_RELATION) {
            self.before.relation = Some(self.take(2)?.get_u16());
        }
        if !has(SAME_MARK) {
            self.before.mark = self.mark()?;
        }
        let tuples_len = self.varint()?;
        let tuples = self.take(usize::try_from(tuples_len).map_err(|_| Malformed("a length is absurd"))?)?;
        let (commit, transaction) =
            self.before.transaction.ok_or(Malformed("a change has no transaction"))?;
        let index = self.before.relation.ok_or(Malformed("a change has no relation"))?;
        let relation =
            self.relations.get(usize::from(index)).ok_or(Malformed("a change's relation is unknown"))?;
        let Some(relation) = relation.clone() else { return Ok(None) };
        let position = Position { commit, ordinal };
        let mark = self.before.mark.clone();
        let operation = operation(flags & OPERATION, tuples)?;
        Ok(Some(Change { position, lsn: self.before.lsn, transaction, relation, mark, operation }))
    }

    fn mark(&mut self) -> Result<Option<Arc<str>>, Malformed> {
        let Some(len) = self.varint()?.checked_sub(1) else { return Ok(None) };
        let text = self.take(usize::try_from(len).map_err(|_| Malformed("a length is absurd"))?)?;
        let text = std::str::from_utf8(&text).map_err(|_| Malformed("a mark is no text"))?;
        Ok(Some(Arc::from(text)))
    }

    fn take(&mut self, len: usize) -> Result<Bytes, Malformed> {
        if len > self.rest.len() {
            return Err(Malformed("it ends in the middle of a change"));
        }
        Ok(self.rest.split_to(len))
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?.get_u8();
            value |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed("a number is too long"))
    }
}

fn operation(code: u8, mut tuples: Bytes) -> Result<Operation, Malformed> {
    let mut tuple = || Tuple::take(&mut tuples).map_err(|_| Malformed("a row is malformed"));
    let operation = match code {
        0 => Operation::Insert { new: tuple()? },
        1 => Operation::Update { old: None, new: tuple()? },
        2 => Operation::Update { old: Some(tuple()?), new: tuple()? },
        3 => Operation::Delete { old: tuple()? },
        4 => Operation::Truncate,
        _ => return Err(Malformed("an operation is unknown")),
    };
    if tuples.is_empty() { Ok(operation) } else { Err(Malformed("bytes are left behind a row")) }
}

#[cfg(test)]
mod tests;
