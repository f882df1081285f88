//! The log in a Kafka cluster: a topic for each table, as Debezium would write it, and one of ours that promises.
//!
//! Rows and the promise go out together, without transactions and without a second round trip: a reader believes
//! `<prefix>.strangler.progress` and waits for the rows it speaks of. Others may read the topics of the tables.

mod bell;
mod client;
mod delivery;
mod listener;
mod lock;
mod look;
mod merge;
mod murmur2;
mod options;
mod partition;
mod reader;
mod reading;
mod recent;
mod record;
mod routes;
mod standing;
mod topics;
mod trouble;
mod writer;

use migrations::code::Code;
pub use options::{out_of_reach, unknown_options};
pub(crate) use reader::KafkaReader;
pub(crate) use writer::KafkaWriter;

use super::contract::{Cursor, Event, LogError, Owner};
use client::Cluster;
use lock::locked;
use migrations::finding::Finding;
use migrations::lsn::Timeline;
use migrations::names::{PlanName, TableName};
use migrations::plan::LogChoice;
use reading::Begin;
use recent::recent;
use record::{Bookmark, MadeFor};
use rows::envelope::{self, Context};
use rows::progress::{LogId, Progress};
use standing::{Found, Inner, Last};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use topics::Topics;

/// The largest row, before `prepare` says otherwise.
const ROW_BYTES_MAX: u64 = 16 << 20;
/// The log in Kafka. Cheap to clone.
#[derive(Debug, Clone)]
pub struct KafkaLog {
    inner: Arc<Inner>,
}

impl KafkaLog {
    /// Finds the log, or gives a new one its name; it is made by [`KafkaLog::prepare`].
    pub(crate) async fn open(
        choice: &LogChoice,
        plan: &PlanName,
        context: Context,
    ) -> Result<Self, LogError> {
        let LogChoice::Kafka { brokers, partitions, replication, options, .. } = choice else {
            let message = format!("the log of plan {plan} is not one that this strangler knows");
            return Err(LogError::Refused(Finding::error(
                Code::LogUnknown,
                message,
                "write `log: { kafka: … }`",
            )));
        };
        let inner = Inner {
            cluster: Cluster::new(brokers, options),
            plan: plan.clone(),
            context,
            partitions: i32::from(*partitions).max(1),
            replication: i32::from(*replication).max(1),
            id: Mutex::new(LogId(uuid::Uuid::new_v4().to_string())),
            routes: Mutex::default(),
            made: Mutex::default(),
            session: AtomicU64::new(0),
            row_bytes_max: AtomicU64::new(ROW_BYTES_MAX),
            is_used: AtomicBool::new(false),
            is_known: AtomicBool::new(false),
        };
        let log = Self { inner: Arc::new(inner) };
        log.blocking(|inner| inner.find().map(drop)).await?;
        Ok(log)
    }

    pub(crate) fn id(&self) -> LogId {
        self.inner.id()
    }

    pub(crate) fn context(&self) -> &Context {
        &self.inner.context
    }

    pub(crate) fn describe(&self) -> String {
        format!("Kafka {}, topics {}.*", self.inner.cluster.brokers, self.inner.context.prefix)
    }

    /// The last progress record whose flush has arrived.
    pub(crate) async fn end(&self) -> Result<Option<Progress>, LogError> {
        self.blocking(|inner| Ok(inner.last()?.and_then(Last::promise))).await
    }

    /// Makes the missing topics and checks the others. The progress topic is the first, because it says whose the others
    /// are.
    pub(crate) async fn prepare(
        &self,
        tables: &BTreeSet<TableName>,
        row_bytes_max: u64,
        server: &Timeline,
    ) -> Result<(), LogError> {
        self.inner.row_bytes_max.store(row_bytes_max, Ordering::Relaxed);
        let topics = Topics::new(&self.inner.cluster)?;
        self.be_born(&topics, server).await?;
        let names: Vec<String> = self.topics(tables).into_iter().collect();
        locked(&self.inner.made).extend(names.iter().cloned());
        topics.ensure(&names, self.inner.shape(self.inner.partitions)).await
    }

    pub(crate) async fn writer(&self) -> Result<KafkaWriter, LogError> {
        let session = self.inner.session.fetch_add(1, Ordering::SeqCst) + 1;
        self.must_be_there().await?;
        let inner = self.inner.clone();
        let last = self.blocking(|inner| inner.take_up()).await?;
        KafkaWriter::new(inner, session, last.as_ref())
    }

    /// Behind the last progress record.
    pub(crate) async fn end_cursor(&self) -> Result<Cursor, LogError> {
        self.must_be_there().await?;
        self.blocking(|inner| Ok(inner.end_bookmark()?.cursor())).await
    }

    pub(crate) async fn reader(
        &self,
        tables: BTreeSet<TableName>,
        from: &Cursor,
    ) -> Result<KafkaReader, LogError> {
        let bookmark = Bookmark::read(from);
        let mut bookmark =
            bookmark.ok_or_else(|| self.inner.cluster.damaged("a cursor is not one of ours"))?;
        if bookmark.log != self.id() {
            return Err(LogError::Trimmed);
        }
        let topics = self.topics(&tables);
        bookmark.offsets.retain(|topic, _| topics.contains(topic));
        self.blocking(move |inner| {
            let shapes = inner.check(&bookmark)?;
            let known: usize = bookmark.offsets.values().map(BTreeMap::len).sum();
            let partitions = known.max(topics.len() * inner.partitions as usize) + 1;
            KafkaReader::new(Begin {
                cluster: inner.cluster.clone(),
                progress_topic: inner.progress_topic(),
                tables,
                topics,
                bookmark,
                shapes,
                partitions,
            })
        })
        .await
    }

    pub(crate) async fn recent(
        &self,
        tables: &BTreeSet<TableName>,
        n: usize,
    ) -> Result<Vec<Event>, LogError> {
        let topics = self.topics(tables);
        self.blocking(move |inner| recent(&inner.cluster, &topics, n)).await
    }

    pub(crate) async fn owner(&self) -> Result<Option<Owner>, LogError> {
        self.blocking(|inner| {
            let named = match inner.find()? {
                Found::Nothing => return Ok(None),
                Found::Blank => return Ok(Some(Owner::Nobody)),
                Found::Emptied => return Ok(Some(Owner::Unknown)),
                Found::Log(_) if inner.is_used.load(Ordering::SeqCst) => return Ok(Some(Owner::Us)),
                Found::Log(named) => named,
            };
            if let Some(MadeFor { plan, database }) = named.other {
                return Ok(Some(Owner::Other(format!("plan {plan}, database {database}"))));
            }
            let filled = inner.last()?.map(|last| last.system_id());
            Ok(Some(filled.or(named.system_id).map_or(Owner::Unknown, Owner::Server)))
        })
        .await
    }

    /// Removes the topics of these tables.
    pub(crate) async fn forget(&self, tables: &BTreeSet<TableName>) -> Result<(), LogError> {
        self.inner.is_used.store(true, Ordering::SeqCst);
        self.take_away(self.topics(tables).into_iter().collect()).await
    }

    /// Removes the topics of tables that this process prepared, and that are left.
    pub(crate) async fn forget_made(&self) -> Result<(), LogError> {
        let names = locked(&self.inner.made).iter().cloned().collect();
        self.take_away(names).await
    }

    async fn take_away(&self, names: Vec<String>) -> Result<(), LogError> {
        if names.is_empty() {
            return Ok(());
        }
        locked(&self.inner.routes).remove(&names);
        Topics::new(&self.inner.cluster)?.delete(&names).await?;
        locked(&self.inner.made).retain(|name| !names.contains(name));
        Ok(())
    }

    /// Removes the progress topic; the next log is another one.
    pub(crate) async fn destroy(&self) -> Result<(), LogError> {
        self.inner.is_known.store(false, Ordering::SeqCst);
        self.inner.begin_anew();
        Topics::new(&self.inner.cluster)?.delete(&[self.inner.progress_topic()]).await
    }

    fn topics(&self, tables: &BTreeSet<TableName>) -> BTreeSet<String> {
        tables.iter().map(|table| envelope::topic(&self.inner.context.prefix, table)).collect()
    }

    /// Makes the progress topic and writes the log's name into it, unless that was done. Where two do so at once,
    /// the first one's name counts.
    async fn be_born(&self, topics: &Topics, server: &Timeline) -> Result<(), LogError> {
        match self.must_be_there().await {
            Err(LogError::Missing) => {}
            known => return known,
        }
        topics.ensure(&[self.inner.progress_topic()], self.inner.shape(1)).await?;
        // A broker that did not know the topic knows it now; a second name in it would make the first one's readers leave.
        match self.must_be_there().await {
            Err(LogError::Missing) => {}
            known => return known,
        }
        let server = server.clone();
        let name = self.id();
        self.blocking(move |inner| inner.write_name(&server)).await?;
        self.must_be_there().await.map_err(|error| match error {
            LogError::Missing => self.inner.cluster.unavailable("the new log is not there yet"),
            error => error,
        })?;
        self.inner.is_used.fetch_or(self.id() == name, Ordering::SeqCst);
        Ok(())
    }

    async fn must_be_there(&self) -> Result<(), LogError> {
        self.blocking(|inner| match inner.find()? {
            Found::Log(_) => Ok(()),
            Found::Nothing | Found::Blank | Found::Emptied => Err(LogError::Missing),
        })
        .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        run: impl FnOnce(&Arc<Inner>) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let inner = self.inner.clone();
        let run = tokio::task::spawn_blocking(move || run(&inner)).await;
        run.map_err(|error| self.inner.cluster.unavailable(&error.to_string()))?
    }
}
