//! From the stream's messages to committed changes: each gets its position, its transaction, its table's shape and,
//! when strangler's own applier wrote it, its mark.
//!
//! Knows no socket and no catalog: it asks the caller for each table's shape ([`Step::NeedRelation`]).
//! Positions count everything a transaction holds, wanted or not, so that they do not depend on any filter.

pub mod shape;

use crate::change::{Change, Column, Operation, Relation, ReplicaIdentity, Transaction, Tuple};
use crate::pgoutput::{OldTuple, WireMessage, WireRelation};
use crate::progress::Message;
use bytes::Bytes;
use migrations::code::Code;
use migrations::column_type::TypeName;
use migrations::lane::Mark;
use migrations::lsn::{CommitLsn, EndLsn, Position};
use migrations::problem::Diagnostic;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Logical messages with this beginning are strangler's own and are kept; others are counted and dropped.
pub const OWN_PREFIX: &str = "strangler.";

/// From Postgres' epoch (2000-01-01) back to Unix' (1970-01-01), in microseconds.
pub const PG_EPOCH_US: i64 = 946_684_800_000_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Nothing,
    /// A table's rows follow: answer with [`Assembler::learn`] or [`Assembler::ignore`] before the next message.
    NeedRelation(WireRelation),
    Change(Change),
    /// Wanted tables were emptied, one change each, in the order in which they were named.
    Truncated(Vec<Change>),
    Message(Message),
    /// The transaction is complete: everything since the last step of this kind is committed.
    Committed {
        /// Up to where the stream is done now.
        end: EndLsn,
        commit: CommitLsn,
        /// When it committed: microseconds since 1970-01-01 UTC by the source's clock.
        committed_us: i64,
    },
}

/// Why the stream makes no sense. Asking the same session again would not help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AssembleError {
    #[error("the change stream holds a {what} outside a transaction at {at}")]
    Outside { what: &'static str, at: EndLsn },
    /// A transaction begins inside another: streaming of open transactions is never asked for.
    #[error("the change stream begins transaction {new} inside {open}")]
    Nested { open: CommitLsn, new: CommitLsn },
    #[error("the change stream commits transaction {commit} inside {open}")]
    OtherCommit { open: CommitLsn, commit: CommitLsn },
    #[error("the change stream holds a row of table {oid} before its description")]
    UnknownRelation { oid: u32 },
    #[error("a row of {table} does not fit the table's shape: {why}")]
    OtherShape { table: String, why: String },
    #[error("a `{}` message at {at} is not UTF-8", Mark::PREFIX)]
    BadMark { at: EndLsn },
}

impl Diagnostic for AssembleError {
    fn code(&self) -> Code {
        Code::BridgeWaits
    }

    fn remedy(&self) -> String {
        match self {
            AssembleError::BadMark { .. } => "only strangler may write messages with this prefix",
            _ => {
                "the bridge reconnects and reads it again from the last confirmed place; if it repeats, run \
                 `strangler doctor`"
            }
        }
        .to_owned()
    }
}

/// Turns one session's messages into changes. A new session needs a new one: the server describes every table again.
#[derive(Debug, Default)]
pub struct Assembler {
    relations: HashMap<u32, Known>,
    /// The types that were named since the last relation, by oid.
    types: HashMap<u32, TypeName>,
    open: Option<Open>,
}

#[derive(Debug)]
enum Known {
    Wanted(Wanted),
    Ignored,
}

#[derive(Debug)]
struct Wanted {
    /// As the stream has it.
    sent: Relation,
    /// As changes have it.
    relation: Arc<Relation>,
    /// For each column of the stream whether changes have it; none if they have all.
    kept: Option<Vec<bool>>,
}

impl Wanted {
    fn of(sent: Relation, left_out: &BTreeSet<String>) -> Wanted {
        let relation = Arc::new(sent.without(left_out));
        let is_kept = |column: &Column| relation.index_of(&column.name).is_some();
        let kept: Vec<bool> = sent.columns.iter().map(is_kept).collect();
        let kept = kept.contains(&false).then_some(kept);
        Wanted { sent, relation, kept }
    }

    fn only(&self, tuple: Tuple) -> Tuple {
        match &self.kept {
            Some(kept) => tuple.only(kept),
            None => tuple,
        }
    }
}

#[derive(Debug)]
struct Open {
    commit: CommitLsn,
    transaction: Transaction,
    /// The ordinal of the newest change.
    ordinal: u64,
    mark: Option<Arc<str>>,
}

impl Open {
    fn next(&mut self) -> Position {
        self.ordinal += 1;
        Position { commit: self.commit, ordinal: self.ordinal }
    }
}

impl Assembler {
    pub fn new() -> Self {
        Self::default()
    }

    /// A wanted table's shape: the stream's columns with the catalog's facts. It holds until the next one.
    pub fn learn(&mut self, oid: u32, relation: Relation) {
        self.learn_without(oid, relation, &BTreeSet::new());
    }

    /// The same for a table of which no change has these columns.
    pub fn learn_without(&mut self, oid: u32, relation: Relation, left_out: &BTreeSet<String>) {
        self.relations.insert(oid, Known::Wanted(Wanted::of(relation, left_out)));
        self.types.clear();
    }

    /// The table's rows are counted, and otherwise dropped.
    pub fn ignore(&mut self, oid: u32) {
        self.relations.insert(oid, Known::Ignored);
        self.types.clear();
    }

    /// The types of the relation that is asked for that are not built in, as they were called then. A domain has the name of
    /// the type that it is made of (PostgreSQL source, `logicalrep_write_typ`).
    pub fn types(&self) -> &HashMap<u32, TypeName> {
        &self.types
    }

    /// A row was passed over. It is counted like one that is not wanted.
    pub fn pass_over(&mut self) {
        if let Some(open) = &mut self.open {
            open.next();
        }
    }

    /// The shape that holds now, if the table is wanted.
    pub fn relation(&self, oid: u32) -> Option<&Arc<Relation>> {
        match self.relations.get(&oid) {
            Some(Known::Wanted(wanted)) => Some(&wanted.relation),
            _ => None,
        }
    }

    /// Whether a transaction is open: what came since its begin is not yet complete.
    pub fn in_transaction(&self) -> bool {
        self.open.is_some()
    }

    /// Takes the next message; `wal_start` is where the server says that it starts in the WAL.
    pub fn push(&mut self, wal_start: u64, message: WireMessage) -> Result<Step, AssembleError> {
        match message {
            WireMessage::Insert { oid, new } => self.row(wal_start, oid, "row", |table| {
                fits(&table.sent, &new)?;
                Ok(Operation::Insert { new: table.only(new) })
            }),
            WireMessage::Update { oid, old, new } => self.row(wal_start, oid, "row", |table| {
                fits(&table.sent, &new)?;
                let old = old.map(|old| old_row(table, old)).transpose()?;
                Ok(Operation::Update { old, new: table.only(new) })
            }),
            WireMessage::Delete { oid, old } => {
                self.row(wal_start, oid, "row", |table| Ok(Operation::Delete { old: old_row(table, old)? }))
            }
            WireMessage::Truncate { oids, .. } => self.truncate(wal_start, &oids),
            WireMessage::Begin { final_lsn, committed_pg_us, xid } => {
                self.begin(CommitLsn(final_lsn), committed_pg_us, xid)
            }
            WireMessage::Commit { commit_lsn, end_lsn, .. } => {
                self.commit(wal_start, CommitLsn(commit_lsn), EndLsn(end_lsn))
            }
            WireMessage::Message { transactional, lsn, prefix, content } => {
                self.message(transactional, lsn, prefix, &content)
            }
            WireMessage::Relation(relation) => Ok(Step::NeedRelation(relation)),
            WireMessage::Type { oid, schema, name } => {
                self.types.insert(oid, TypeName { schema, name });
                Ok(Step::Nothing)
            }
            WireMessage::Origin { .. } => Ok(Step::Nothing),
        }
    }

    fn begin(&mut self, commit: CommitLsn, committed_pg_us: i64, xid: u32) -> Result<Step, AssembleError> {
        if let Some(open) = &self.open {
            return Err(AssembleError::Nested { open: open.commit, new: commit });
        }
        let transaction = Transaction { xid, committed_us: committed_pg_us.saturating_add(PG_EPOCH_US) };
        self.open = Some(Open { commit, transaction, ordinal: 0, mark: None });
        Ok(Step::Nothing)
    }

    fn commit(&mut self, wal_start: u64, commit: CommitLsn, end: EndLsn) -> Result<Step, AssembleError> {
        let outside = AssembleError::Outside { what: "commit", at: EndLsn(wal_start) };
        let open = self.open.take().ok_or(outside)?;
        if open.commit != commit {
            return Err(AssembleError::OtherCommit { open: open.commit, commit });
        }
        Ok(Step::Committed { end, commit, committed_us: open.transaction.committed_us })
    }

    fn row(
        &mut self,
        lsn: u64,
        oid: u32,
        what: &'static str,
        operation: impl FnOnce(&Wanted) -> Result<Operation, AssembleError>,
    ) -> Result<Step, AssembleError> {
        let open = self.open.as_mut().ok_or(AssembleError::Outside { what, at: EndLsn(lsn) })?;
        let position = open.next();
        let table = match self.relations.get(&oid) {
            Some(Known::Wanted(wanted)) => wanted,
            Some(Known::Ignored) => return Ok(Step::Nothing),
            None => return Err(AssembleError::UnknownRelation { oid }),
        };
        let operation = operation(table)?;
        let (transaction, mark) = (open.transaction, open.mark.clone());
        Ok(Step::Change(Change {
            position,
            lsn,
            transaction,
            relation: Arc::clone(&table.relation),
            mark,
            operation,
        }))
    }

    fn truncate(&mut self, lsn: u64, oids: &[u32]) -> Result<Step, AssembleError> {
        let mut changes = Vec::with_capacity(oids.len());
        for oid in oids {
            match self.row(lsn, *oid, "truncate", |_| Ok(Operation::Truncate))? {
                Step::Change(change) => changes.push(change),
                _ => continue,
            }
        }
        Ok(if changes.is_empty() { Step::Nothing } else { Step::Truncated(changes) })
    }

    fn message(
        &mut self,
        transactional: bool,
        lsn: u64,
        prefix: String,
        content: &Bytes,
    ) -> Result<Step, AssembleError> {
        let position = match (&mut self.open, transactional) {
            (Some(open), true) => open.next(),
            (None, true) => return Err(AssembleError::Outside { what: "message", at: EndLsn(lsn) }),
            // It belongs to no transaction and no commit record lies at its own place, so this is unique. The
            // server sends it between transactions, after those that committed before it.
            (_, false) => Position { commit: CommitLsn(lsn), ordinal: 1 },
        };
        if prefix == Mark::PREFIX {
            let mark =
                std::str::from_utf8(content).map_err(|_| AssembleError::BadMark { at: EndLsn(lsn) })?;
            if let (Some(open), true) = (&mut self.open, transactional) {
                open.mark = Some(Arc::from(mark));
            }
            return Ok(Step::Nothing);
        }
        if !prefix.starts_with(OWN_PREFIX) {
            return Ok(Step::Nothing);
        }
        let content = String::from_utf8_lossy(content).into_owned();
        Ok(Step::Message(Message { position, prefix, content }))
    }
}

fn fits(relation: &Relation, tuple: &Tuple) -> Result<(), AssembleError> {
    if tuple.len() == relation.columns.len() {
        return Ok(());
    }
    let why = format!("it has {} columns, the table {}", tuple.len(), relation.columns.len());
    Err(AssembleError::OtherShape { table: relation.table.to_string(), why })
}

/// A key-only row under `FULL`, or a whole row otherwise, would be read as something it is not.
fn old_row(table: &Wanted, old: OldTuple) -> Result<Tuple, AssembleError> {
    let relation = &table.sent;
    fits(relation, &old.tuple)?;
    if old.full != (relation.identity == ReplicaIdentity::Full) {
        let sent = if old.full { "all columns" } else { "the key only" };
        let why = format!("its old row holds {sent}, its replica identity is {:?}", relation.identity);
        return Err(AssembleError::OtherShape { table: relation.table.to_string(), why });
    }
    Ok(table.only(old.tuple))
}

#[cfg(test)]
mod tests;
