//! The first copy: every row of a slice at one exact place in the source's stream, straight into the sink.
//!
//! Nothing of it goes through the log. A copy that was interrupted begins again with empty tables. Knows nothing of the
//! slice's stage; what is read next is cut in `copy/`.

use super::border::Border;
use super::chunk::{self, Extent};
use super::filled;
use super::halt::Halt;
use super::hold::Hold;
use super::kept::{self, Kept, Shapes};
use super::narrowed;
use super::plan::LanePlan;
use super::publication;
use super::refusal::for_function;
use crate::feed::source::{Snapshot, Source, SourceError, listed};
use crate::log::Log;
use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use migrations::code::Code;
use migrations::finding::Finding;
use migrations::journal::Generation;
use migrations::lane::Mark;
use migrations::lsn::{EndLsn, Position, Timeline};
use migrations::names::TableName;
use migrations::plan::{DatabaseUrl, Slice};
use migrations::preflight::ColumnSeen;
use migrations::stage::Epoch;
use postgres::gate;
use postgres::{Refusal, catalog, connect, in_words};
use rows::change::Relation;
use rows::mapping::Mapping;
use rows::order;
use rows::progress::Captured;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::task::JoinSet;
use tokio_postgres::Client;

/// At most so many chunks are copied at the same time, each by a connection on either side.
const WORKERS_MAX: usize = 4;

/// Rows are handed from source to sink in pieces of this size, in bytes.
const PIECE_BYTES: usize = 128 << 10;

/// What is copied, from where to where.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    pub(crate) plan: &'a LanePlan,
    pub(crate) epoch: Epoch,
    pub(crate) attempt: Generation,
    pub(crate) source: &'a Source,
    pub(crate) timeline: Timeline,
    pub(crate) captured: Captured,
    /// The sink tables whose rows are an earlier copy's.
    pub(crate) filled: BTreeSet<TableName>,
    /// Whether tables with rows of others may be emptied, too.
    pub(crate) replace: bool,
    /// Up to where the log was filled when the copy began.
    pub(crate) passed: EndLsn,
    pub(crate) log: &'a Log,
}

/// How far a copy is. Shared with the report.
#[derive(Debug, Default)]
pub(crate) struct RowCount {
    /// Rows that are in the sink.
    pub(crate) rows: AtomicU64,
    /// Rows there are, as the source's planner estimates.
    pub(crate) estimated: AtomicU64,
}

pub(super) struct Table {
    mapping: Mapping,
    extent: Extent,
    is_binary: bool,
}

impl Job<'_> {
    /// The rows of a copy are no writes of the service's own.
    fn mark(&self) -> Mark {
        Mark { lane: self.plan.id.clone(), epoch: self.epoch }
    }
}

/// Copies the slice; capture must already keep its tables' changes. `client` holds the slice's lock at the sink.
pub(crate) async fn copy(job: &Job<'_>, client: &Client, progress: &Arc<RowCount>) -> Result<Kept, Halt> {
    let source = job.source.connect("strangler copy").await?;
    let mut kept = Kept {
        log: job.log.id(),
        timeline: job.timeline.clone(),
        attempt: job.attempt,
        copied_at: None,
        position: Position::default(),
        // No more than the snapshot holds, and no more than the cursor's place: the log is trimmed by it.
        passed: job.passed,
        cursor: job.log.end_cursor().await?,
        shapes: Shapes::new(),
        mapping: job.plan.slice.mapping_hash(),
        captured: job.captured.clone(),
        filled: job.filled.clone(),
        border: Border::default(),
        foreign: None,
        noted_us: 0,
    };
    must_be_ours(job, client).await?;
    // Before anything is made, so that a removal finds that there is something to remove.
    kept::keep(client, &job.plan.id, &kept, Some(&kept.filled)).await?;
    make_gates(job, &source, client).await?;
    // Nobody writes any more after the gate is shut, but somebody may have written just before.
    must_be_ours(job, client).await?;
    let hold = Hold::take(&source, &job.plan.slice).await?;
    let (stamp, rooms) = narrowed::look(client, job.plan).await?;
    let (tables, shapes) = tables(job, &source, client, progress).await?;
    // Everything that commits after the snapshot's consistent point is appended to the log after this cursor.
    (kept.cursor, kept.shapes) = (job.log.end_cursor().await?, shapes);
    let to = migrations::filled::all(&job.plan.slice);
    kept.filled = to.clone();
    let holder = uuid::Uuid::new_v4().to_string();
    kept::keep(client, &job.plan.id, &kept, Some(&kept.filled)).await?;
    kept::hold(client, &job.plan.id, &holder).await?;
    filled::empty(client, &job.mark(), &to).await?;
    let snapshot = Snapshot::take(job.source, job.plan.slice.name.as_str()).await?;
    let keys = catalog::foreign_keys(client, None).await.map_err(Halt::of)?;
    let copied = async {
        for level in order::levels(&to, &keys).map_err(Halt::stop)? {
            copy_level(job, &snapshot.name, &holder, &tables, &level, progress).await?;
        }
        Ok::<_, Halt>(())
    };
    tokio::select! {
        copied = copied => copied?,
        lost = hold.end() => return Err(lost),
    }
    hold.prove().await?;
    if narrowed::stamped(client, job.plan).await? != stamp {
        return Err(Halt::away(
            "a column of the service's tables was altered while they were filled: the copy begins again",
        ));
    }
    let point = snapshot.consistent_point;
    kept.copied_at = Some(point);
    kept.position = Position { commit: point, ordinal: 0 };
    // `install` may have removed a table from the slice meanwhile.
    kept::keep(client, &job.plan.id, &kept, None).await?;
    narrowed::note(client, &job.plan.id, &rooms).await?;
    Ok(kept)
}

async fn must_be_ours(job: &Job<'_>, client: &Client) -> Result<(), Halt> {
    if job.replace { Ok(()) } else { filled::must_be_ours(client, &job.plan.slice, &job.filled).await }
}

/// The service's gate shut, the monolith's open.
async fn make_gates(job: &Job<'_>, source: &Client, sink: &Client) -> Result<(), Halt> {
    let slice = &job.plan.slice.name;
    let made = async {
        for client in [sink, source] {
            gate::make(client, slice, job.epoch).await?;
        }
        // One that an earlier copy left shut. One that is open was opened by a cutover, and its tables are not a copy's.
        gate::raise(sink, slice, job.epoch).await?;
        gate::open(source, slice, job.epoch).await
    };
    made.await.map_err(|error| no_gate(&job.plan.slice, error))
}

/// A gate could not be made.
pub(super) fn no_gate(slice: &Slice, error: tokio_postgres::Error) -> Halt {
    match Refusal::of(&error) {
        Refusal::NoRight | Refusal::NotInstalled => Halt::stop(not_installed(slice, &in_words(&error))),
        Refusal::OtherShape => Halt::stop(Finding::error(
            Code::CopyNoTable,
            format!("the gate of slice {} cannot be made: {}", slice.name, in_words(&error)),
            "run `strangler doctor`: it names the table and the statement that fixes it",
        )),
        _ => Halt::of(error),
    }
}

pub(super) type Tables = BTreeMap<TableName, Table>;

/// Joins the plan with both catalogs, by sink table.
pub(super) async fn tables(
    job: &Job<'_>,
    source: &Client,
    sink: &Client,
    progress: &RowCount,
) -> Result<(Tables, Shapes), Halt> {
    let keys = catalog::foreign_keys(sink, None).await.map_err(Halt::of)?;
    let (mut tables, mut shapes) = (Tables::new(), Shapes::new());
    let lists = listed(source, &job.source.plan).await?;
    let (mut estimated, mut missing) = (0, None);
    for table in job.plan.slice.all_tables() {
        let from = catalog::shape(source, &table.from).await.map_err(SourceError::from)?;
        let to = catalog::shape(sink, &table.to).await.map_err(Halt::of)?;
        let (Some(from), Some(to)) = (from, to) else {
            missing = Some(table);
            break;
        };
        let relation = Relation::of(&table.from, from.identity, &from.columns);
        let mapping = Mapping::new(table, &relation, &to.columns, |_| true).map_err(Halt::stop)?;
        publication::must_be_listed(&mapping, &lists)?;
        let (blocks, rows) = catalog::extent(source, &table.from).await.map_err(SourceError::from)?;
        estimated += rows;
        let is_whole = order::refers_to_itself(&table.to, &keys);
        let has_binary = from.has_binary && to.has_binary;
        let is_binary = has_binary && mapping.is_binary(&relation, &declared(from.columns));
        shapes.insert(table.from.clone(), relation);
        tables.insert(table.to.clone(), Table { mapping, extent: Extent { blocks, is_whole }, is_binary });
    }
    if let Some(table) = missing {
        return Err(Halt::stop(no_table(&table.from, &table.to)));
    }
    progress.rows.store(0, Ordering::Relaxed);
    progress.estimated.store(estimated, Ordering::Relaxed);
    Ok((tables, shapes))
}

/// The columns of Postgres' own types, as they are declared. Other databases know other types by their numbers.
fn declared(columns: Vec<ColumnSeen>) -> BTreeMap<String, String> {
    let columns = columns.into_iter().filter(|column| column.kind.is_postgres());
    columns.map(|column| (column.name, column.declared)).collect()
}

type Queue = Arc<Mutex<VecDeque<(Arc<Work>, chunk::Condition)>>>;

/// One table's statements, shared by the workers.
struct Work {
    from: TableName,
    read_columns: String,
    is_binary: bool,
    /// The table that COPY fills, and the statement that goes on from there if that is a staging table.
    fills: String,
    fills_columns: String,
    staging: Option<(String, String)>,
}

async fn copy_level(
    job: &Job<'_>,
    snapshot: &str,
    holder: &str,
    tables: &Tables,
    level: &order::Level,
    progress: &Arc<RowCount>,
) -> Result<(), Halt> {
    let mut queue = VecDeque::new();
    for (n, name) in level.tables.iter().enumerate() {
        let Some(table) = tables.get(name) else { continue };
        let work = Arc::new(Work::of(table, n));
        queue.extend(chunk::chunks(&table.extent).into_iter().map(|condition| (work.clone(), condition)));
    }
    // Tables that refer to each other in a circle are filled in one transaction, which checks at its end.
    let workers = if level.is_circle { 1 } else { queue.len().min(workers_max()) };
    let in_one = level.is_circle;
    let queue: Queue = Arc::new(Mutex::new(queue));
    let mut running = JoinSet::new();
    for _ in 0..workers {
        let worker = Worker {
            source: job.source.clone(),
            sink: job.plan.sink.clone(),
            mark: job.mark(),
            snapshot: snapshot.to_owned(),
            holder: holder.to_owned(),
            queue: queue.clone(),
            progress: progress.clone(),
            in_one,
        };
        running.spawn(worker.run());
    }
    // Dropping the set at the first error ends the other workers too.
    while let Some(done) = running.join_next().await {
        done.map_err(|why| Halt::away(why.to_string()))??;
    }
    Ok(())
}

/// As many as this machine has cores: what the databases have is not known, and on two cores a third worker only waits
/// for the others' locks on the table's end. (Measured: 1.8 s of the sink's CPU for what two do in 1.35 s.)
fn workers_max() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().min(WORKERS_MAX))
}

impl Work {
    fn of(table: &Table, n: usize) -> Work {
        let mapping = &table.mapping;
        let (fills, fills_columns, staging) = if mapping.is_direct() {
            (mapping.to.quoted(), mapping.sink_columns(), None)
        } else {
            let name = format!("pg_temp.strangler_staging_{n}");
            let make = format!(
                "CREATE TEMP TABLE strangler_staging_{n} ({}) ON COMMIT DELETE ROWS",
                mapping.staging()
            );
            (name.clone(), mapping.source_columns(), Some((make, mapping.insert_staged(&name))))
        };
        Work {
            from: mapping.from.clone(),
            read_columns: mapping.source_columns(),
            is_binary: table.is_binary,
            fills,
            fills_columns,
            staging,
        }
    }
}

/// Copies chunk after chunk until none is left.
struct Worker {
    source: Source,
    sink: DatabaseUrl,
    mark: Mark,
    snapshot: String,
    holder: String,
    queue: Queue,
    progress: Arc<RowCount>,
    /// All chunks in one transaction of the sink.
    in_one: bool,
}

impl Worker {
    async fn run(self) -> Result<(), Halt> {
        let source = under(&self.source, &self.snapshot).await?;
        let sink = connect(&self.sink, "strangler copy").await?;
        let mut staged: BTreeSet<String> = BTreeSet::new();
        let mut copied: BTreeSet<TableName> = BTreeSet::new();
        if self.in_one {
            kept::begin_chunk(&sink, &self.mark, &self.holder).await?;
        }
        loop {
            let next = self.queue.lock().map(|mut queue| queue.pop_front()).unwrap_or_default();
            let Some((work, condition)) = next else { break };
            if let Some((make, _)) = &work.staging
                && staged.insert(work.fills.clone())
            {
                sink.batch_execute(make).await.map_err(Halt::of)?;
            }
            if !self.in_one {
                kept::begin_chunk(&sink, &self.mark, &self.holder).await?;
            }
            let rows = copy_chunk(&source, &sink, &work, &condition).await?;
            if !self.in_one {
                sink.batch_execute("COMMIT").await.map_err(|error| refused(&work.from, error))?;
            }
            copied.insert(work.from.clone());
            self.progress.rows.fetch_add(rows, Ordering::Relaxed);
        }
        if self.in_one {
            let of = copied.iter().map(TableName::to_string).collect::<Vec<_>>().join(" or ");
            sink.batch_execute("COMMIT").await.map_err(|error| refused(&of, error))?;
        }
        Ok(())
    }
}

/// A session of the source that sees what the snapshot holds.
pub(super) async fn under(source: &Source, snapshot: &str) -> Result<Client, Halt> {
    let client = source.connect("strangler copy").await?;
    let begin = format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}",
        migrations::names::quote_literal(snapshot)
    );
    client.batch_execute(&begin).await.map_err(SourceError::from)?;
    Ok(client)
}

/// Copies the `n`-th table within the sink's open transaction.
pub(super) async fn fill(
    source: &Client,
    sink: &Client,
    table: &Table,
    n: usize,
    progress: &RowCount,
) -> Result<(), Halt> {
    let work = Work::of(table, n);
    if let Some((make, _)) = &work.staging {
        sink.batch_execute(make).await.map_err(Halt::of)?;
    }
    for condition in chunk::chunks(&table.extent) {
        let rows = copy_chunk(source, sink, &work, &condition).await?;
        progress.rows.fetch_add(rows, Ordering::Relaxed);
    }
    Ok(())
}

async fn copy_chunk(source: &Client, sink: &Client, work: &Work, condition: &str) -> Result<u64, Halt> {
    let read = chunk::read(&work.from, &work.read_columns, condition, work.is_binary);
    let write = chunk::write(&work.fills, &work.fills_columns, work.is_binary);
    let unread = |error: tokio_postgres::Error| unread(&work.from, error);
    let rows = source.copy_out(&read).await.map_err(unread)?;
    let mut rows = std::pin::pin!(rows);
    let refused = |error: tokio_postgres::Error| refused(&work.from, error);
    let copy = sink.copy_in::<_, Bytes>(&write).await.map_err(refused)?;
    let mut copy = std::pin::pin!(copy);
    // The server sends each row as a message of its own; handing them over one by one would cost more than copying them.
    let mut piece = BytesMut::with_capacity(PIECE_BYTES + 4096);
    while let Some(row) = rows.next().await {
        piece.extend_from_slice(&row.map_err(unread)?);
        if piece.len() >= PIECE_BYTES {
            copy.send(piece.split().freeze()).await.map_err(refused)?;
        }
    }
    copy.send(piece.freeze()).await.map_err(refused)?;
    let count = copy.finish().await.map_err(refused)?;
    if let Some((_, insert)) = &work.staging {
        let inserted = sink.execute(insert, &[]).await.map_err(refused)?;
        if inserted != count {
            return Err(Halt::stop(other_count(&work.from, count, inserted)));
        }
    }
    Ok(count)
}

/// Data that the sink's tables refuse will be refused again. What only stands in the way is tried again for a while.
fn refused(from: &impl std::fmt::Display, error: tokio_postgres::Error) -> Halt {
    // The server counts the rows of a COPY, and says at which one it stood.
    let place = error.as_db_error().and_then(|error| error.where_()).and_then(|place| place.lines().last());
    let place = place.map(|place| format!("; {place}")).unwrap_or_default();
    let how = error.as_db_error().and_then(for_function);
    let how = how.unwrap_or_else(|| "fix the service's table or the mapping in the plan".to_owned());
    let finding = Finding::error(
        Code::CopyRefusedRow,
        format!("a row of {from} does not fit the service's table: {}{place}", in_words(&error)),
        format!("{how}, then `strangler sync resume`"),
    );
    match Refusal::of(&error) {
        Refusal::Rows => Halt::stop(finding),
        Refusal::Contended => Halt::Contended(Box::new(finding), None),
        _ => Halt::of(error),
    }
}

/// A row that the source cannot read may be one that it never can: a damaged block.
fn unread(from: &TableName, error: tokio_postgres::Error) -> Halt {
    match Refusal::of(&error) {
        Refusal::Contended => Halt::no_progress(&format!("the source, asked for {from},"), &in_words(&error)),
        Refusal::Rows => Halt::stop(Finding::error(
            Code::CopyRefusedRow,
            format!("a row of {from} cannot be read at the source: {}", in_words(&error)),
            "correct the row, or leave the column out with `drop` in the plan, then `strangler sync resume`",
        )),
        _ => SourceError::from(error).into(),
    }
}

/// The plan's mapping lost or doubled rows.
fn other_count(from: &TableName, read: u64, inserted: u64) -> Finding {
    Finding::error(
        Code::CopyOtherCount,
        format!("the plan's mapping turned {read} rows of {from} into {inserted}"),
        "a `set` must give one value for each row: correct the plan, `strangler reload`, then `strangler sync resume`",
    )
}

fn not_installed(slice: &Slice, words: &str) -> Finding {
    Finding::error(
        Code::GateNotInstalled,
        format!("the gate of slice {} cannot be made: {words}", slice.name),
        "run `strangler install` with an admin URL for each database, then `strangler sync resume`",
    )
}

pub(crate) fn no_table(from: &TableName, to: &TableName) -> Finding {
    Finding::error(
        Code::CopyNoTable,
        format!(
            "table {from} at the source or table {to} at the sink is missing, or strangler may not see it"
        ),
        "run `strangler doctor`: it names the table and the statement that fixes it",
    )
}
