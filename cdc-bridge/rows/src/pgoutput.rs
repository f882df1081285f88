//! pgoutput's messages, protocol version 1, values in text format: bytes in, messages out (PostgreSQL manual, 55.9
//! "Logical Replication Message Formats").
//!
//! Knows no socket, no transaction and no catalog; a row's oid means nothing here. Tuples are slices of the bytes
//! that came in, never copies. Whatever the bytes are, the answer is a message or an error, never a panic.

use crate::change::{BadTuple, ReplicaIdentity, Tuple};
use crate::characters::Characters;
use bytes::{Buf, Bytes};
use migrations::code::Code;
use migrations::problem::Diagnostic;
use std::collections::BTreeSet;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WireMessage {
    /// `B`: a committed transaction begins.
    Begin {
        /// Where its commit record starts.
        final_lsn: u64,
        /// When it committed: microseconds since 2000-01-01 UTC.
        committed_pg_us: i64,
        xid: u32,
    },
    /// `C`: the transaction is complete.
    Commit {
        /// Where its commit record starts, as in its `Begin`.
        commit_lsn: u64,
        /// Just after its commit record.
        end_lsn: u64,
        committed_pg_us: i64,
    },
    /// `O`: the transaction was replicated from elsewhere.
    Origin { commit_lsn: u64, name: String },
    /// `R`: a table's shape, before its first row of a session and after each change of it.
    Relation(WireRelation),
    /// `Y`: a type that is not built in, before the first relation that uses it.
    Type {
        oid: u32,
        /// Its schema; `pg_catalog` is sent as an empty name and read back here.
        schema: String,
        name: String,
    },
    /// `I`: a new row.
    Insert { oid: u32, new: Tuple },
    /// `U`: a changed row.
    Update {
        oid: u32,
        /// The old row, if it was sent.
        old: Option<OldTuple>,
        new: Tuple,
    },
    /// `D`: a removed row.
    Delete { oid: u32, old: OldTuple },
    /// `T`: tables were emptied, all by one statement.
    Truncate { oids: Vec<u32>, cascade: bool, restart_identity: bool },
    /// `M`: a logical message (`pg_logical_emit_message`).
    Message { transactional: bool, lsn: u64, prefix: String, content: Bytes },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldTuple {
    /// `O`, all columns (`REPLICA IDENTITY FULL`), rather than `K`, in which columns outside the key are null.
    pub full: bool,
    pub tuple: Tuple,
}

/// A table's shape as the stream tells it; nullability and the primary key are in the catalog only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireRelation {
    /// The table's oid; rows name their table by it.
    pub oid: u32,
    pub schema: String,
    pub name: String,
    pub identity: ReplicaIdentity,
    /// The published columns in the order of a row's values.
    pub columns: Vec<WireColumn>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireColumn {
    pub name: String,
    pub type_oid: u32,
    /// Its type's modifier (`atttypmod`), -1 for none.
    pub type_modifier: i32,
    /// Whether it belongs to the replica identity: the key, or every column under `FULL`.
    pub part_of_key: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("a `{kind}` message of the change stream ends too early")]
    Short { kind: char },
    #[error("a `{kind}` message of the change stream has {left} bytes too many")]
    Trailing { kind: char, left: usize },
    #[error("a `{kind}` message of the change stream holds {value} as its {field}")]
    Field { kind: char, field: &'static str, value: i64 },
    #[error("a `{kind}` message of the change stream holds a name that is not UTF-8")]
    Name { kind: char },
    /// A row is malformed. Binary values, which are never asked for, count as such.
    #[error("a `{kind}` message of the change stream: {source}")]
    Tuple { kind: char, source: BadTuple },
    #[error("the change stream holds a message of the unknown kind {0:#04x}")]
    Kind(u8),
    /// What these characters are must be learnt first. Then the message can be read.
    #[error("the change stream holds {} unknown characters", .0.len())]
    Unknown(BTreeSet<Vec<u8>>),
}

impl Diagnostic for DecodeError {
    fn code(&self) -> Code {
        Code::BridgeWaits
    }

    fn remedy(&self) -> String {
        "run `strangler doctor`: is this server's version supported?".to_owned()
    }
}

/// Reads a message whose texts are UTF-8.
pub fn decode(bytes: Bytes) -> Result<WireMessage, DecodeError> {
    decode_in(bytes, &Characters::default())
}

/// Reads a message whose texts are of these characters.
pub fn decode_in(bytes: Bytes, characters: &Characters) -> Result<WireMessage, DecodeError> {
    let mut reader = Reader { kind: '?', bytes, characters, unknown: BTreeSet::new() };
    let read = read(&mut reader);
    if reader.unknown.is_empty() { read } else { Err(DecodeError::Unknown(reader.unknown)) }
}

fn read(reader: &mut Reader<'_>) -> Result<WireMessage, DecodeError> {
    let kind = reader.u8()?;
    reader.kind = char::from(kind);
    let message = match kind {
        b'I' => insert(reader)?,
        b'U' => update(reader)?,
        b'D' => delete(reader)?,
        b'B' => WireMessage::Begin {
            final_lsn: reader.u64()?,
            committed_pg_us: reader.u64()? as i64,
            xid: reader.u32()?,
        },
        b'C' => commit(reader)?,
        b'O' => WireMessage::Origin { commit_lsn: reader.u64()?, name: reader.other_name()? },
        b'R' => WireMessage::Relation(relation(reader)?),
        b'Y' => WireMessage::Type { oid: reader.u32()?, schema: reader.schema()?, name: reader.name()? },
        b'T' => truncate(reader)?,
        b'M' => message(reader)?,
        unknown => return Err(DecodeError::Kind(unknown)),
    };
    reader.end()?;
    Ok(message)
}

fn insert(reader: &mut Reader<'_>) -> Result<WireMessage, DecodeError> {
    let oid = reader.u32()?;
    match reader.u8()? {
        b'N' => Ok(WireMessage::Insert { oid, new: reader.tuple()? }),
        other => Err(reader.field("row's kind", other.into())),
    }
}

fn update(reader: &mut Reader<'_>) -> Result<WireMessage, DecodeError> {
    let oid = reader.u32()?;
    let mut kind = reader.u8()?;
    let mut old = None;
    if matches!(kind, b'K' | b'O') {
        old = Some(OldTuple { full: kind == b'O', tuple: reader.tuple()? });
        kind = reader.u8()?;
    }
    match kind {
        b'N' => Ok(WireMessage::Update { oid, old, new: reader.tuple()? }),
        other => Err(reader.field("row's kind", other.into())),
    }
}

fn delete(reader: &mut Reader<'_>) -> Result<WireMessage, DecodeError> {
    let oid = reader.u32()?;
    let full = match reader.u8()? {
        b'K' => false,
        b'O' => true,
        other => return Err(reader.field("row's kind", other.into())),
    };
    Ok(WireMessage::Delete { oid, old: OldTuple { full, tuple: reader.tuple()? } })
}

fn commit(reader: &mut Reader<'_>) -> Result<WireMessage, DecodeError> {
    match reader.u8()? {
        0 => Ok(WireMessage::Commit {
            commit_lsn: reader.u64()?,
            end_lsn: reader.u64()?,
            committed_pg_us: reader.u64()? as i64,
        }),
        flags => Err(reader.field("flags", flags.into())),
    }
}

fn relation(reader: &mut Reader<'_>) -> Result<WireRelation, DecodeError> {
    let oid = reader.u32()?;
    let schema = reader.schema()?;
    let name = reader.name()?;
    let identity = match reader.u8()? {
        b'd' => ReplicaIdentity::Default,
        b'i' => ReplicaIdentity::Index,
        b'f' => ReplicaIdentity::Full,
        b'n' => ReplicaIdentity::Nothing,
        other => return Err(reader.field("replica identity", other.into())),
    };
    let count = reader.u16()?;
    // A column takes at least ten bytes: a count that the bytes cannot hold must not reserve memory.
    let mut columns = Vec::with_capacity(usize::from(count).min(reader.bytes.len() / 10));
    for _ in 0..count {
        let part_of_key = match reader.u8()? {
            0 => false,
            1 => true,
            flags => return Err(reader.field("column's flags", flags.into())),
        };
        let name = reader.name()?;
        let type_oid = reader.u32()?;
        let type_modifier = reader.u32()? as i32;
        columns.push(WireColumn { name, type_oid, type_modifier, part_of_key });
    }
    Ok(WireRelation { oid, schema, name, identity, columns })
}

fn truncate(reader: &mut Reader<'_>) -> Result<WireMessage, DecodeError> {
    let count = reader.u32()?;
    let options = reader.u8()?;
    if options > 3 {
        return Err(reader.field("options", options.into()));
    }
    let mut oids = Vec::with_capacity((count as usize).min(reader.bytes.len() / 4));
    for _ in 0..count {
        oids.push(reader.u32()?);
    }
    Ok(WireMessage::Truncate { oids, cascade: options & 1 != 0, restart_identity: options & 2 != 0 })
}

fn message(reader: &mut Reader<'_>) -> Result<WireMessage, DecodeError> {
    let transactional = match reader.u8()? {
        0 => false,
        1 => true,
        flags => return Err(reader.field("flags", flags.into())),
    };
    let lsn = reader.u64()?;
    let prefix = reader.other_name()?;
    let len = reader.u32()? as usize;
    if len > reader.bytes.len() {
        return Err(reader.short());
    }
    let content = reader.bytes.split_to(len);
    Ok(WireMessage::Message { transactional, lsn, prefix, content })
}

/// What is left of one message.
struct Reader<'a> {
    kind: char,
    bytes: Bytes,
    characters: &'a Characters,
    unknown: BTreeSet<Vec<u8>>,
}

impl Reader<'_> {
    fn short(&self) -> DecodeError {
        DecodeError::Short { kind: self.kind }
    }

    fn field(&self, field: &'static str, value: i64) -> DecodeError {
        DecodeError::Field { kind: self.kind, field, value }
    }

    fn u8(&mut self) -> Result<u8, DecodeError> {
        self.bytes.try_get_u8().map_err(|_| self.short())
    }

    fn u16(&mut self) -> Result<u16, DecodeError> {
        self.bytes.try_get_u16().map_err(|_| self.short())
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        self.bytes.try_get_u32().map_err(|_| self.short())
    }

    fn u64(&mut self) -> Result<u64, DecodeError> {
        self.bytes.try_get_u64().map_err(|_| self.short())
    }

    /// A string that ends with a zero byte.
    fn name(&mut self) -> Result<String, DecodeError> {
        let name = self.any_name()?;
        String::from_utf8(name).map_err(|_| DecodeError::Name { kind: self.kind })
    }

    /// A name of others, which may have any bytes.
    fn other_name(&mut self) -> Result<String, DecodeError> {
        Ok(String::from_utf8_lossy(&self.any_name()?).into_owned())
    }

    fn any_name(&mut self) -> Result<Vec<u8>, DecodeError> {
        let len = self.bytes.iter().position(|byte| *byte == 0).ok_or_else(|| self.short())?;
        let name = self.bytes.split_to(len);
        self.bytes.advance(1);
        Ok(self.characters.text(&name, &mut self.unknown).into_owned())
    }

    /// A schema's name, which is empty for `pg_catalog`.
    fn schema(&mut self) -> Result<String, DecodeError> {
        let name = self.name()?;
        Ok(if name.is_empty() { "pg_catalog".to_owned() } else { name })
    }

    fn tuple(&mut self) -> Result<Tuple, DecodeError> {
        let tuple =
            Tuple::take(&mut self.bytes).map_err(|source| DecodeError::Tuple { kind: self.kind, source })?;
        Ok(self.characters.tuple(tuple, &mut self.unknown))
    }

    fn end(&self) -> Result<(), DecodeError> {
        match self.bytes.len() {
            0 => Ok(()),
            left => Err(DecodeError::Trailing { kind: self.kind, left }),
        }
    }
}
