//! A source database: its slots, its publication, its barriers, and the snapshots of copies.
//!
//! Knows nothing of slices; [`super::capture`] reads the stream.

use migrations::code::Code;
use migrations::lsn::{CommitLsn, EndLsn};
use migrations::names::{PlanName, SliceName, TableName};
use migrations::plan::{DatabaseUrl, Plan, Table};
use migrations::preflight::SlotSeen;
use migrations::problem::Diagnostic;
use migrations::sql::{self, Database};
use postgres::replication::{Replication, ReplicationError};
use postgres::{ConnectError, catalog, connect, in_words, slot};
use rows::progress::Membership;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

/// A snapshot's slot waits for every open transaction of the cluster; after this it names one that blocks.
const SNAPSHOT_WAIT: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the source's database refused: {0}")]
    Refused(String),
    #[error("the source's database refused: {0}")]
    Locked(String),
    #[error(
        "another bridge of this plan runs, with the same log or a copy of it: {reader} reads replication slot {slot}"
    )]
    Taken { slot: String, reader: String },
    #[error("the copy's snapshot waits for an open transaction: {0}")]
    Blocked(String),
}

/// What to do if two bridges of one plan run.
pub(crate) const STOP_ONE: &str = "stop one of the two: run `strangler down` in the folder from which it was started, on that machine; leave \
                                   the slot as it is, the other bridge needs it";

impl Diagnostic for SourceError {
    fn code(&self) -> Code {
        Code::BridgeWaits
    }

    fn remedy(&self) -> String {
        match self {
            SourceError::Connect(error) => error.remedy(),
            SourceError::Refused(_) | SourceError::Locked(_) => "`strangler doctor` names the fix".to_owned(),
            SourceError::Taken { .. } => format!(
                "{STOP_ONE}. Right after a crash it may be the last session of this bridge: then it goes on by itself"
            ),
            SourceError::Blocked(_) => "end it, and the copy goes on by itself".to_owned(),
        }
    }
}

impl From<tokio_postgres::Error> for SourceError {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.code() {
            Some(&SqlState::LOCK_NOT_AVAILABLE) => SourceError::Locked(in_words(&error)),
            _ => SourceError::Refused(in_words(&error)),
        }
    }
}

impl From<ReplicationError> for SourceError {
    fn from(error: ReplicationError) -> Self {
        match error {
            ReplicationError::Connect(error) => error.into(),
            error => SourceError::Refused(error.to_string()),
        }
    }
}

/// One of a plan's databases as a source of changes. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) database: Database,
    pub(crate) url: DatabaseUrl,
    pub(crate) plan: PlanName,
    pub(crate) row_bytes_max: u64,
    /// The slot is given up before it keeps more, in bytes.
    pub(crate) wal_kept_bytes_max: u64,
    /// By table, the columns that no lane needs. They are kept out of the log, whether the server sends them or not.
    pub(crate) left_out: Arc<BTreeMap<TableName, BTreeSet<String>>>,
    /// By table, the columns that all slices drop or mask. A `set` may read them, so they may be in the log.
    pub(crate) hidden: Arc<BTreeMap<TableName, BTreeSet<String>>>,
}

impl Source {
    /// A database of the plan as a source; none where the plan gives it no URL.
    pub(crate) fn of(plan: &Plan, database: &Database) -> Option<Source> {
        Some(Source {
            database: database.clone(),
            url: database.url(plan)?.clone(),
            plan: plan.name.clone(),
            row_bytes_max: plan.limits.row_bytes_max,
            wal_kept_bytes_max: plan.limits.wal_kept_bytes_max,
            left_out: Arc::new(columns(plan, database, Table::left_out)),
            hidden: Arc::new(match database {
                Database::Monolith => columns(plan, database, Table::hidden),
                // What it has is its own.
                Database::Service(_) => BTreeMap::new(),
            }),
        })
    }

    pub(crate) async fn connect(&self, application: &str) -> Result<Client, ConnectError> {
        connect(&self.url, application).await
    }

    /// A replication connection that has not begun to stream.
    pub(crate) async fn replication(&self) -> Result<Replication, SourceError> {
        let row_bytes = usize::try_from(self.row_bytes_max).unwrap_or(usize::MAX);
        // An update carries the old row beside the new one, and text is longer than what is stored.
        let message_bytes_max = row_bytes.saturating_mul(4).saturating_add(64 << 10);
        Ok(Replication::open(&self.url, message_bytes_max).await?)
    }
}

/// By table of this database, the columns of which all of the plan's slices say so.
fn columns(
    plan: &Plan,
    database: &Database,
    of: impl Fn(&Table) -> BTreeSet<String>,
) -> BTreeMap<TableName, BTreeSet<String>> {
    let mut columns: BTreeMap<TableName, BTreeSet<String>> = BTreeMap::new();
    for slice in database.slices(plan) {
        for table in sql::captured(slice, database) {
            let named = of(&table);
            match columns.entry(table.from) {
                Entry::Vacant(first) => drop(first.insert(named)),
                Entry::Occupied(mut known) => known.get_mut().retain(|column| named.contains(column)),
            }
        }
    }
    columns
}

/// The plan's slots in this database, of this log and of others.
pub(crate) async fn slots(client: &Client, plan: &PlanName) -> Result<Vec<SlotSeen>, SourceError> {
    let mut slots = slot::list(client, &sql::slot_pattern(plan)).await?;
    slots.retain(|slot| slot.is_of_this_database && !slot.is_temporary);
    Ok(slots)
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Published {
    pub(crate) table: TableName,
    pub(crate) membership: Membership,
}

/// The tables of which the plan's publication holds every row and kind of change, by their oids.
pub(crate) async fn published(
    client: &Client,
    plan: &PlanName,
) -> Result<BTreeMap<u32, Published>, SourceError> {
    let published = catalog::published(client, &sql::publication(plan)).await?.unwrap_or_default();
    let whole = published.into_iter().filter(|published| published.is_whole);
    Ok(whole
        .map(|one| (one.oid, Published { table: one.table, membership: Membership(one.membership) }))
        .collect())
}

/// The tables of the plan's publication of which not all columns are published, with those that are.
pub(crate) async fn listed(
    client: &Client,
    plan: &PlanName,
) -> Result<BTreeMap<TableName, BTreeSet<String>>, SourceError> {
    let published = catalog::published(client, &sql::publication(plan)).await?.unwrap_or_default();
    Ok(published.into_iter().filter_map(|one| Some((one.table, one.columns?))).collect())
}

/// Publishes a slice's tables of these kinds, and no others of the slice.
pub(crate) async fn publish(
    client: &Client,
    slice: &SliceName,
    kinds: &[&str],
) -> Result<(), tokio_postgres::Error> {
    client.execute("SELECT strangler.publish($1, $2)", &[&slice.as_str(), &kinds]).await.map(drop)
}

pub(crate) async fn create_slot(source: &Source, client: &Client, slot: &str) -> Result<EndLsn, SourceError> {
    match timeout(SNAPSHOT_WAIT, slot::create(client, slot)).await {
        Ok(point) => Ok(point?),
        Err(_) => Err(blocked(source, slot).await),
    }
}

/// Commits a logical message with this content. When a sink has passed the message, it has passed everything that was
/// committed before; and a quiet database has something to stream. Returns a place just before its end.
pub(crate) async fn barrier(client: &Client, token: &str) -> Result<EndLsn, SourceError> {
    let sql = "SELECT pg_logical_emit_message(true, 'strangler.barrier', $1)::text";
    let place: String = client.query_one(sql, &[&token]).await?.get(0);
    place.parse().map_err(|_| SourceError::Refused(format!("it put a message at {place}")))
}

/// A snapshot at an exact place in the stream. It lasts as long as this value.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// For `SET TRANSACTION SNAPSHOT`.
    pub(crate) name: String,
    /// Transactions with this commit LSN or a later one are not in it.
    pub(crate) consistent_point: CommitLsn,
    _keeper: Client,
}

impl Snapshot {
    /// Takes a snapshot by a temporary slot, which goes at once, so that it keeps no WAL during the copy; an ordinary
    /// transaction keeps the snapshot instead. Waits for the open transactions of the whole cluster, and after a while
    /// says which one blocks. (`EXPORT_SNAPSHOT` is understood before and after 15.)
    pub(crate) async fn take(source: &Source, slice: &str) -> Result<Snapshot, SourceError> {
        let unique = uuid::Uuid::new_v4().simple().to_string();
        let slot = format!("strangler_copy_{}_{}", slice.replace('-', "_"), &unique[..8]);
        let mut session = source.replication().await?;
        let sql = format!("CREATE_REPLICATION_SLOT \"{slot}\" TEMPORARY LOGICAL pgoutput EXPORT_SNAPSHOT");
        let rows = match timeout(SNAPSHOT_WAIT, session.ask(&sql)).await {
            Ok(rows) => rows?,
            Err(_) => return Err(blocked(source, &slot).await),
        };
        let text = |column: usize| rows.first().and_then(|row| row.get(column)).cloned().flatten();
        let point: Option<CommitLsn> = text(1).and_then(|text| text.parse().ok());
        let (Some(consistent_point), Some(exported)) = (point, text(2)) else {
            return Err(SourceError::Refused("it made a slot without a snapshot".to_owned()));
        };
        let keeper = source.connect("strangler copy").await?;
        let import = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}",
            migrations::names::quote_literal(&exported)
        );
        keeper.batch_execute(&import).await?;
        let name = keeper.query_one("SELECT pg_export_snapshot()", &[]).await?.get(0);
        // A session that never streamed ends with its connection, and its slot with it.
        drop(session);
        Ok(Snapshot { name, consistent_point, _keeper: keeper })
    }
}

/// Ends the session that waits to make this slot, which would not notice that we have gone, and says what it waited for.
pub(crate) async fn blocked(source: &Source, slot: &str) -> SourceError {
    let client = match source.connect("strangler").await {
        Ok(client) => client,
        Err(error) => return error.into(),
    };
    if let Err(error) = slot::end_user(&client, slot).await {
        return error.into();
    }
    let blocker = slot::blocker(&client).await.ok().flatten();
    SourceError::Blocked(blocker.unwrap_or_else(|| "it has ended meanwhile".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: &str = "{ version: 1, name: shop, monolith: { upstream: 'http://a:1', database: 'postgres://s@h/a' }, \
        services: { orders: { upstream: 'http://b:1', database: 'postgres://s@h/b' }, \
        mail: { upstream: 'http://c:1', database: 'postgres://s@h/c' } }, slices: { \
        orders: { service: orders, routes: { list: GET /orders }, tables: [{ from: public.orders, rename: { note: remark }, \
            drop: [flags, total], set: { cents: 'total * 100', text: \"'-'\" }, reverse: { total: 'cents / 100' } }], \
            reference: [{ from: public.users, drop: [email, password] }] }, \
        mail: { service: mail, routes: { list: GET /mail }, reference: [{ from: public.users, drop: [name, password] }] } } }";

    #[test]
    fn only_what_no_slice_needs_is_left_out() {
        let (plan, _) = migrations::plan::check("plan.yaml", PLAN, &|_| None).unwrap();
        let told = |database: &Database| -> Vec<String> {
            let columns = columns(&plan, database, Table::left_out);
            columns.iter().map(|(table, columns)| format!("{table} {columns:?}")).collect()
        };
        let there = ["public.orders {\"cents\", \"flags\", \"text\"}", "public.users {\"password\"}"];
        assert_eq!(told(&Database::Monolith), there);
        let orders = Database::Service("orders".parse().unwrap());
        // On the way back `text` has no column to go to, and `cents` is read.
        assert_eq!(told(&orders), ["public.orders {\"flags\", \"text\", \"total\"}"]);
        assert_eq!(told(&Database::Service("mail".parse().unwrap())), [""; 0]);
    }

    #[test]
    fn what_all_slices_drop_or_mask_is_hidden_though_a_set_reads_it() {
        let (plan, _) = migrations::plan::check("plan.yaml", PLAN, &|_| None).unwrap();
        let hidden = columns(&plan, &Database::Monolith, Table::hidden);
        let hidden: Vec<String> =
            hidden.iter().map(|(table, columns)| format!("{table} {columns:?}")).collect();
        let there =
            ["public.orders {\"cents\", \"flags\", \"text\", \"total\"}", "public.users {\"password\"}"];
        assert_eq!(hidden, there);
    }
}
