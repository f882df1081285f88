//! The log: it keeps captured changes durably until every sink has them. One contract, one writer, one reader, and two
//! stores that keep what the writer makes: on disk and in Kafka.
//!
//! The contract, held by one test suite for both: a writer appends flushes of changes in position order and ends a
//! flush with a [`Progress`] record where a transaction ends; what [`Writer::append`] returns is durable. After a
//! crash a new writer may repeat changes from any earlier transaction on, byte for byte the same. A reader delivers
//! each change once, in strictly rising position, and only up to what a progress record promises.

// An error that carries a finding is large, and rare.
#![allow(clippy::result_large_err)]

mod bookmark;
mod contract;
mod embedded;
mod extent;
mod floor;
pub(crate) mod kafka;
mod reader;
mod recent;
mod store;
mod values;
mod writer;

use bookmark::Bookmark;
pub use bookmark::Cursor;
pub use contract::{BATCH_BYTES_MAX, Batch, Flush, LogError, Owner, RECENT_MAX};
pub use kafka::{out_of_reach, unknown_options};
use migrations::lsn::Timeline;
use migrations::names::{PlanName, TableName};
use migrations::plan::LogChoice;
use migrations::sql::Database;
pub use reader::Reader;
use reader::Wanted;
use rows::change::Change;
use rows::envelope::Context;
use rows::progress::{LogId, Progress};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use store::Store;
pub use writer::Writer;

/// A log. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Log {
    store: Store,
    context: Context,
}

impl Log {
    /// Opens the log of one of the plan's databases; an embedded one is made if it is missing. `name` is the database's own
    /// name, which events carry; `state_dir` is the bridge's own folder.
    pub async fn open(
        choice: &LogChoice,
        plan: &PlanName,
        database: &Database,
        name: &str,
        state_dir: &Path,
    ) -> Result<Log, LogError> {
        let context = context(choice, plan, database, name);
        let file = match database {
            Database::Monolith => "log.redb".to_owned(),
            Database::Service(service) => format!("log-{service}.redb"),
        };
        let (choice, plan, path) = (choice.clone(), plan.clone(), state_dir.join(file));
        let place = path.display().to_string();
        let open = move || {
            let store =
                match (kafka::Store::open(&choice, &plan, (&context.prefix, &context.database))?, &choice) {
                    (Some(store), _) => Store::Kafka(Arc::new(store)),
                    (None, LogChoice::Embedded { bytes_max }) => {
                        let store =
                            embedded::Store::open(&path, plan.as_str(), &context.database, *bytes_max)?;
                        Store::Embedded(Arc::new(store))
                    }
                    (None, _) => return Err(contract::unknown(plan.as_str())),
                };
            Ok(Log { store, context })
        };
        let opened = tokio::task::spawn_blocking(open).await;
        opened.map_err(|error| LogError::Unavailable {
            place,
            why: error.to_string(),
            hint: "restart the bridge".into(),
        })?
    }

    /// The same, but events do not tell these columns.
    #[must_use]
    pub fn hiding(mut self, hidden: BTreeMap<TableName, BTreeSet<String>>) -> Log {
        self.context.hidden = hidden;
        self
    }

    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Which log it is; another one after it was deleted or destroyed.
    pub fn id(&self) -> LogId {
        self.store.extent().borrow().log.clone()
    }

    /// Where it is, for people: `.strangler/bridge/log.redb`, `Kafka localhost:9092, topic strangler.shop.log`.
    pub fn describe(&self) -> String {
        self.store.place()
    }

    /// The last durable progress record; none if nothing was ever written.
    pub async fn end(&self) -> Result<Option<Progress>, LogError> {
        match self.store.blocking(Store::look).await {
            Ok(extent) => Ok(extent.last),
            Err(LogError::Missing) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes ready for rows of up to `row_bytes_max` bytes: makes the topic, or refuses one that would lose rows.
    pub async fn prepare(&self, row_bytes_max: u64, server: &Timeline) -> Result<(), LogError> {
        let server = server.clone();
        self.store.blocking(move |store| store.prepare(row_bytes_max, &server)).await
    }

    /// Begins to append. It ends the session of an earlier writer.
    pub async fn writer(&self) -> Result<Writer, LogError> {
        Writer::begin(self.store.clone()).await
    }

    /// Behind the last progress record: a reader from here sees every transaction that is completed later.
    pub async fn end_cursor(&self) -> Result<Cursor, LogError> {
        Ok(self.store.blocking(Store::known).await?.end())
    }

    /// Reads changes of `tables` from a cursor on; [`LogError::Trimmed`] where it is no longer kept.
    pub async fn reader(&self, tables: BTreeSet<TableName>, from: &Cursor) -> Result<Reader, LogError> {
        self.read(Wanted::Of(Arc::new(tables)), from).await
    }

    async fn read(&self, wanted: Wanted, from: &Cursor) -> Result<Reader, LogError> {
        let from = self.bookmark(from)?;
        self.store.blocking(move |store| Reader::begin(store, wanted, from)).await
    }

    /// Reads all changes from a cursor on, of whatever table.
    pub(crate) async fn reader_of_all(&self, from: &Cursor) -> Result<Reader, LogError> {
        self.read(Wanted::Every, from).await
    }

    /// Waits until this process learns how far the log is, if it did not know.
    pub(crate) async fn news(&self) {
        let mut extent = self.store.extent();
        if !self.store.is_known() {
            // The sender is held by us.
            let _ = extent.changed().await;
        }
    }

    /// Before the first change that is kept.
    pub(crate) async fn start_cursor(&self) -> Result<Cursor, LogError> {
        Ok(self.store.blocking(Store::known).await?.start())
    }

    /// Whether a cursor is of this log, and not of one before it.
    pub(crate) fn is_of(&self, cursor: &Cursor) -> bool {
        Bookmark::read(cursor).is_some_and(|bookmark| bookmark.log == self.id())
    }

    /// The topic that the log is in; empty for an embedded one.
    pub(crate) fn topic(&self) -> String {
        match &self.store {
            Store::Embedded(_) => String::new(),
            Store::Kafka(store) => store.topic.clone(),
        }
    }

    fn bookmark(&self, cursor: &Cursor) -> Result<Bookmark, LogError> {
        Bookmark::read(cursor).ok_or_else(|| self.store.damaged("a cursor is not one of ours"))
    }

    /// The newest `n` changes of `tables` (1000 at most), oldest first.
    pub async fn recent(&self, tables: &BTreeSet<TableName>, n: usize) -> Result<Vec<Change>, LogError> {
        let (tables, n) = (tables.clone(), n.min(RECENT_MAX));
        match self.store.blocking(move |store| recent::recent(store, tables, n)).await {
            Err(LogError::Missing) => Ok(Vec::new()),
            found => found,
        }
    }

    /// Drops what lies before a cursor, or a little less.
    pub async fn trim(&self, before: &Cursor) -> Result<(), LogError> {
        let before = self.bookmark(before)?;
        let trim = move |store: &Store| {
            let extent = store.known()?;
            if before.base <= extent.first {
                return Ok(());
            }
            match store.check(&before, &extent) {
                // It was trimmed that far already.
                Err(LogError::Trimmed) => Ok(()),
                Ok(()) => store.trim(&before),
                Err(error) => Err(error),
            }
        };
        self.store.blocking(trim).await
    }

    /// Whose log is there, before it is removed; none if there is no log.
    pub async fn owner(&self) -> Result<Option<Owner>, LogError> {
        self.store.blocking(Store::owner).await
    }

    /// Removes the log itself; the next one has another [`LogId`].
    pub async fn destroy(&self) -> Result<(), LogError> {
        self.store.blocking(Store::destroy).await
    }

    /// Bytes that the log holds, as its bound counts them.
    pub fn bytes(&self) -> u64 {
        self.store.extent().borrow().bytes
    }
}

/// What events say of their source. The prefix is the topics' where there are topics, else the plan's name; a service
/// has one of its own.
fn context(choice: &LogChoice, plan: &PlanName, database: &Database, name: &str) -> Context {
    let (prefix, publish) = match choice {
        LogChoice::Kafka { topic_prefix, publish, .. } => (topic_prefix.clone(), publish.clone()),
        _ => (plan.to_string(), None),
    };
    let publish = publish.unwrap_or_default();
    let prefix = match database {
        Database::Monolith => prefix,
        Database::Service(service) => format!("{prefix}-{service}"),
    };
    let version = env!("CARGO_PKG_VERSION").to_owned();
    Context { prefix, database: name.to_owned(), version, publish, hidden: BTreeMap::new() }
}
