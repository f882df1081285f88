//! What was seen of a slice's two databases at one moment. Data only.

use crate::access::Accesses;
use crate::column_type::TypeSeen;
use crate::gate::Gate;
use crate::lsn::EndLsn;
use crate::names::TableName;
use crate::sql::Database;
use crate::stage::Epoch;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Both databases of a slice; none where it could not be reached.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sight {
    pub source: Option<DatabaseSeen>,
    pub sink: Option<DatabaseSeen>,
}

/// One database, as strangler's role sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct DatabaseSeen {
    pub database: Database,
    pub name: String,
    /// By what locales texts are compared and their letters are known, where a column does not say.
    pub collation: String,
    /// The server's identifier, where we may read it.
    pub system_id: Option<String>,
    pub server: ServerSeen,
    pub role: RoleSeen,
    /// What `strangler install` left; none where it has not run.
    pub installed: Option<InstalledSeen>,
    /// The plan's tables that exist.
    pub tables: BTreeMap<TableName, TableSeen>,
    /// Foreign keys from or to these tables.
    pub foreign_keys: Vec<ForeignKeySeen>,
    /// All replication slots of the server.
    pub slots: Vec<SlotSeen>,
    /// Prepared transactions of the server: the first copy waits for those of every database.
    pub prepared: Vec<PreparedSeen>,
    /// Transactions of the server that are open for long.
    pub long_transactions: Vec<TransactionSeen>,
    /// Who holds locks on the slices' tables that keep a gate from turning.
    pub blockers: Vec<BlockerSeen>,
    /// Sequences that number a table of the slices and another one.
    pub shared_sequences: Vec<SharedSequenceSeen>,
    /// The slices' gates.
    pub gates: BTreeMap<String, GateSeen>,
    /// Where the journal's heads say that slices stand. Only the monolith's database has them.
    pub heads: BTreeMap<String, HeadSeen>,
    /// Who writes the slices' tables, as far as that is on record. Only the monolith's database has it.
    pub writers: BTreeMap<String, Accesses>,
    /// How far the clock of this machine is ahead of the server's, in milliseconds.
    pub clock_ahead_ms: i64,
    /// Rows that are written a second, by table. Empty if that was not measured.
    pub rows_written: BTreeMap<TableName, u64>,
}

impl DatabaseSeen {
    /// Whether both are one database of one server.
    pub fn is_same_database(&self, other: &DatabaseSeen) -> bool {
        self.system_id.is_some() && self.system_id == other.system_id && self.name == other.name
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct ServerSeen {
    /// `server_version_num`, e.g. 150018 for 15.18.
    pub version: u32,
    /// The database's encoding, e.g. `UTF8`.
    pub encoding: String,
    pub is_standby: bool,
    pub wal_level: String,
    /// `max_replication_slots`.
    pub slots_max: u32,
    /// `max_wal_senders`.
    pub wal_senders_max: u32,
    /// How many of them run.
    pub wal_senders: u32,
    /// `max_slot_wal_keep_size`; none is without a limit.
    pub slot_wal_bytes_max: Option<u64>,
    /// Replicas of the whole server, by application name. Those that no commit waits for are asynchronous.
    pub standbys: Vec<StandbySeen>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandbySeen {
    pub application: String,
    pub is_asynchronous: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct RoleSeen {
    pub name: String,
    pub is_superuser: bool,
    pub may_replicate: bool,
    pub may_make_temporary: bool,
    /// Sessions by this role that are not strangler's.
    pub other_sessions: Vec<SessionSeen>,
}

/// A session of somebody else by our role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionSeen {
    pub pid: i32,
    pub application: String,
}

/// What `strangler install` left in a database.
#[derive(Debug, Clone, PartialEq)]
pub struct InstalledSeen {
    pub plan: String,
    /// What the scripts were told then ([`crate::sql::facts`]); none where this part was not installed.
    pub facts: Option<Value>,
    /// The functions in schema `strangler` that we may call, by name.
    pub functions: BTreeSet<String>,
    /// The tables of the plan's publication, each with the columns that are listed, or none; none where there is no such
    /// publication.
    pub published: Option<BTreeMap<TableName, Option<BTreeSet<String>>>>,
    /// Slices that are copied here, with the tables that were filled by us.
    pub filled: BTreeMap<String, BTreeSet<TableName>>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct TableSeen {
    pub kind: KindSeen,
    pub owner: String,
    /// The primary key's columns, in its order; empty without one.
    pub key: Vec<String>,
    /// A primary key that is DEFERRABLE, and so tells no rows apart in a stream.
    pub late_key: Option<IndexSeen>,
    /// Unique indexes over columns that are never null: candidates for a primary key.
    pub unique_indexes: Vec<IndexSeen>,
    pub identity: IdentitySeen,
    pub columns: Vec<ColumnSeen>,
    /// User triggers that are enabled.
    pub triggers: Vec<TriggerSeen>,
    /// Rules that rewrite what is written to it.
    pub rules: Vec<String>,
    /// Whether it is unlogged or temporary, so that its changes are in no WAL.
    pub is_unlogged: bool,
    /// Whether row-level security may hide rows from our role or refuse them.
    pub has_row_security: bool,
    /// Whether other tables inherit from it, not being its partitions.
    pub has_children: bool,
    /// The partitioned table that it is a partition of.
    pub partition_of: Option<TableName>,
    /// Its columns that name large objects, as far as some of its rows show.
    pub large_objects: BTreeSet<String>,
    /// Whether it holds no row; none where we may not look.
    pub is_empty: Option<bool>,
    pub may_use_schema: bool,
    /// What we may do with it: `SELECT`, `INSERT`, `UPDATE`, `DELETE`, `TRUNCATE`.
    pub rights: BTreeSet<String>,
}

impl TableSeen {
    pub fn column(&self, name: &str) -> Option<&ColumnSeen> {
        self.columns.iter().find(|column| column.name == name)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KindSeen {
    Table,
    Partitioned,
    /// A view, a foreign table or something else that has no changes of its own.
    Other,
}

/// A unique index over columns that are never null.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexSeen {
    pub name: String,
    pub columns: Vec<String>,
}

/// A table's replica identity: what the stream tells of a changed row's old version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentitySeen {
    Default,
    Full,
    Index,
    /// Nothing: updates of a published table fail.
    Nothing,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnSeen {
    pub name: String,
    /// `pg_attribute.attnum`, which no other column of the table gets again.
    pub number: i16,
    /// Its type's number in `pg_type`, which means something in one database only.
    pub type_oid: u32,
    /// Its type as one would write it, e.g. `numeric(12,2)`.
    pub declared: String,
    /// The same without its modifier: a cast to `varchar(20)` would cut a longer text silently, an assignment refuses it.
    pub cast: String,
    /// Its type as any database names it, without domains, with digits, length and collation.
    pub exact: String,
    pub kind: TypeSeen,
    /// Its type's modifier (`atttypmod`); −1 without one.
    pub modifier: i32,
    /// The transaction that wrote the column's entry in the catalog.
    pub written: i64,
    /// The file of its table, or of the oldest partition.
    pub file: i64,
    pub is_key: bool,
    /// Its place in the primary key, from 1; 0 outside of it.
    pub key_position: i16,
    /// The schema of the operators that the primary key compares it by, quoted; none if they are Postgres' own.
    pub operators: Option<String>,
    pub is_nullable: bool,
    /// Whether it fills itself when an insert leaves it out: a default or an identity.
    pub has_default: bool,
    /// Its default as SQL.
    pub default: Option<String>,
    /// Whether it is an identity that only the database fills: `GENERATED ALWAYS AS IDENTITY`.
    pub is_always_identity: bool,
    /// The expression over other columns that it is computed by, where it is generated.
    pub generated_as: Option<String>,
    /// Whether large values of it are stored apart, so that the stream leaves unchanged ones out.
    pub is_toastable: bool,
}

impl ColumnSeen {
    pub fn is_generated(&self) -> bool {
        self.generated_as.is_some()
    }

    /// A comparison as the primary key makes it, whatever the session's search path.
    pub fn operator(&self, sign: &str) -> String {
        match &self.operators {
            Some(schema) => format!("OPERATOR({schema}.{sign})"),
            None => sign.to_owned(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TriggerSeen {
    pub name: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignKeySeen {
    pub name: String,
    pub from: TableName,
    /// Its columns that refer, in the constraint's order.
    pub from_columns: Vec<String>,
    pub to: TableName,
    /// Its columns that are referred to, in the same order.
    pub to_columns: Vec<String>,
    pub is_deferrable: bool,
    pub is_deferred: bool,
    /// What deleting a row that is referred to does.
    pub on_delete: ActionSeen,
    /// What changing the key of a row that is referred to does.
    pub on_update: ActionSeen,
}

impl ForeignKeySeen {
    /// Whether deleting or changing what is referred to writes the referring table.
    pub fn cascades(&self) -> bool {
        self.on_delete.writes() || self.on_update.writes()
    }

    /// Whether every check of it can wait for the end of the transaction. `RESTRICT` never waits (PostgreSQL manual,
    /// `CREATE TABLE`, `REFERENCES`).
    pub fn can_wait(&self) -> bool {
        self.is_deferrable && self.on_delete != ActionSeen::Restrict && self.on_update != ActionSeen::Restrict
    }
}

/// What a foreign key does when the row referred to goes or changes its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActionSeen {
    /// It refuses, at the end of the statement or of the transaction.
    NoAction,
    Restrict,
    Cascade,
    SetNull,
    SetDefault,
}

impl ActionSeen {
    /// Whether it writes the referring table.
    pub fn writes(self) -> bool {
        matches!(self, Self::Cascade | Self::SetNull | Self::SetDefault)
    }

    /// As it stands behind `ON DELETE` and `ON UPDATE`.
    pub fn sql(self) -> &'static str {
        match self {
            Self::NoAction => "NO ACTION",
            Self::Restrict => "RESTRICT",
            Self::Cascade => "CASCADE",
            Self::SetNull => "SET NULL",
            Self::SetDefault => "SET DEFAULT",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotSeen {
    pub name: String,
    /// Whether it reads the changes of the database that was looked at.
    pub is_of_this_database: bool,
    pub is_temporary: bool,
    pub is_active: bool,
    /// The session that reads it now, in words: its process, what it calls itself, and from where it is connected.
    pub reader: Option<String>,
    /// Whether the server has thrown away WAL that it needs.
    pub is_lost: bool,
    /// Everything before is confirmed: the server no longer keeps it for the reader.
    pub confirmed: EndLsn,
    /// WAL that is kept for it, in bytes.
    pub kept_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreparedSeen {
    pub gid: String,
    /// The database in which it was prepared and must be ended.
    pub database: String,
}

/// A transaction that is open for long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionSeen {
    pub pid: i32,
    pub user: String,
    pub application: String,
    /// How long it is open, in seconds.
    pub seconds: u64,
}

/// Somebody who holds a lock on a table that lets no gate turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockerSeen {
    pub table: TableName,
    pub who: HolderSeen,
    /// How long it has been at it, in seconds.
    pub seconds: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HolderSeen {
    Session {
        pid: i32,
        user: String,
        application: String,
        /// Its statement, shortened.
        query: String,
        /// VACUUM, ANALYZE or an index build: cancelling it loses no one's work but its own.
        is_maintenance: bool,
    },
    /// A prepared transaction.
    Prepared { gid: String },
}

/// A sequence that two tables take numbers from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedSequenceSeen {
    /// Quoted, with its schema.
    pub sequence: String,
    pub one: NumberedSeen,
    pub other: NumberedSeen,
}

/// A column that a sequence numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumberedSeen {
    pub table: TableName,
    pub column: String,
    /// Of the table.
    pub owner: String,
    pub is_identity: bool,
}

/// A slice's gate, and whether it can be turned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateSeen {
    pub gate: Gate,
    /// Why it could not be shut and opened again in a transaction that was rolled back; none if it could, or if that was
    /// not tried.
    pub refusal: Option<String>,
}

/// The journal's head of a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadSeen {
    /// The stage's name.
    pub stage: String,
    pub epoch: Epoch,
    /// Writes wait at the proxies.
    pub is_held: bool,
}
