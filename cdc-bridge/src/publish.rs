//! Publishes what a feed captured to other programs: Debezium's records, in a topic for each table.
//!
//! It reads the log as a lane does, and is none: nothing waits for it, and the log keeps nothing for it that would fill the
//! log. Each record is published at least once.

mod place;
mod work;

use crate::log::kafka::Cluster;
use crate::log::{Cursor, Log, LogError};
use migrations::code::Code;
use migrations::finding::Finding;
use migrations::lsn::EndLsn;
use migrations::plan::LogChoice;
use migrations::problem::Diagnostic;
use place::Place;
use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use work::Work;

/// Waits between failed sessions.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// Pause between two looks for a log that another process may make: each is a connection of its own.
const LOG_POLL: Duration = Duration::from_secs(5);
/// The place is kept so often.
const PLACE_INTERVAL: Duration = Duration::from_secs(1);
/// And so often although nothing was published: a cluster forgets the places of groups that are silent for days.
const PLACE_AGAIN: Duration = Duration::from_secs(3600);

/// Where to publish.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    cluster: Cluster,
    partitions: i32,
    replication: i32,
    /// The largest row.
    row_bytes_max: u64,
}

impl Output {
    /// None if nothing is to be published.
    pub(crate) fn of(choice: &LogChoice, row_bytes_max: u64) -> Option<Output> {
        let LogChoice::Kafka { brokers, partitions, replication, publish: Some(_), options, .. } = choice
        else {
            return None;
        };
        Some(Output {
            cluster: Cluster::new(brokers, options),
            partitions: i32::from(*partitions).max(1),
            replication: i32::from(*replication).max(1),
            row_bytes_max,
        })
    }
}

/// How far publishing is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Standing {
    /// Everything before is published, and noted as published.
    pub(crate) place: Option<(EndLsn, Cursor)>,
    /// Records published since the start.
    pub(crate) records: u64,
    /// What keeps it from publishing.
    pub(crate) finding: Option<Finding>,
    /// That changes were not published, since the start.
    pub(crate) skipped: Option<Finding>,
}

/// Publishes until it is dropped.
pub(crate) async fn run(log: &Log, output: &Output, standing: &watch::Sender<Standing>) {
    let mut wait = RETRY_MIN;
    loop {
        let began = Instant::now();
        let Err(error) = session(log, output, standing).await;
        if matches!(error, LogError::Missing | LogError::Trimmed) {
            // There is no log, or another one, or what is to be published next left it: the next session sees which.
            standing.send_modify(|standing| (standing.finding, standing.place) = (None, None));
            let _ = timeout(LOG_POLL, log.news()).await;
            sleep(RETRY_MIN).await;
            continue;
        }
        let finding = stopped(&error, log);
        tracing::warn!("{}", finding.message);
        standing.send_modify(|standing| standing.finding = Some(finding));
        if began.elapsed() > RETRY_MAX {
            wait = RETRY_MIN;
        }
        sleep(wait).await;
        wait = (wait * 2).min(RETRY_MAX);
    }
}

async fn session(
    log: &Log,
    output: &Output,
    standing: &watch::Sender<Standing>,
) -> Result<Infallible, LogError> {
    let place = Place::new(&output.cluster, log)?;
    let start = log.start_cursor().await?;
    let kept = place.load().await?;
    let from = kept.clone().unwrap_or_else(|| start.clone());
    let mut reader = match log.reader_of_all(&from).await {
        Err(LogError::Trimmed | LogError::Refused(_)) => {
            if kept.is_some_and(|kept| log.is_of(&kept)) {
                standing.send_modify(|standing| standing.skipped = Some(skipped(log)));
            }
            log.reader_of_all(&start).await?
        }
        reader => reader?,
    };
    let mut work = Work::new(output, log)?;
    let mut noting = Noting { place, published: None, at: Instant::now() };
    standing.send_modify(|standing| standing.finding = None);
    loop {
        let batch = {
            // A read that takes long goes on. Begun again and again, it would never end.
            let mut next = pin!(reader.next());
            loop {
                if let Ok(batch) = timeout(PLACE_INTERVAL, &mut next).await {
                    break batch?;
                }
                if noting.at.elapsed() > PLACE_AGAIN {
                    noting.published.clone_from(&standing.borrow().place);
                }
                work = work.beat().await?;
                noting.note(standing).await?;
            }
        };
        let records;
        (work, records) = work.publish(batch.changes).await?;
        standing.send_modify(|standing| standing.records += records);
        if let Some((progress, cursor)) = batch.progress {
            noting.published = Some((progress.end, cursor));
        }
        work = work.beat().await?;
        noting.note(standing).await?;
    }
}

/// Notes now and then how far it is published.
struct Noting {
    place: Place,
    /// What is to be noted next.
    published: Option<(EndLsn, Cursor)>,
    at: Instant,
}

impl Noting {
    async fn note(&mut self, standing: &watch::Sender<Standing>) -> Result<(), LogError> {
        if self.at.elapsed() < PLACE_INTERVAL {
            return Ok(());
        }
        let Some((end, cursor)) = self.published.take() else { return Ok(()) };
        self.place.keep(&cursor).await?;
        self.at = Instant::now();
        standing.send_modify(|standing| standing.place = Some((end, cursor)));
        Ok(())
    }
}

fn stopped(error: &LogError, log: &Log) -> Finding {
    let message = format!("changes of {} are not published: {error}", log.context().database);
    Finding::warning(Code::PublishStopped, message, error.remedy())
}

fn skipped(log: &Log) -> Finding {
    let message = format!(
        "changes of {} were not published to Kafka's topics: the log did not hold them any more",
        log.context().database
    );
    let hint = "fill consumers of these topics anew; raise `log.kafka.max` if publishing may stand still for so long again";
    Finding::warning(Code::PublishSkipped, message, hint)
}
