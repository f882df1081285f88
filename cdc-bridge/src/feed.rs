//! A feed: the changes of one database, captured into a log, and the log kept no larger than its readers need.
//!
//! Knows which tables are wanted, not what is done with their changes.

pub(crate) mod begin;
pub(crate) mod capture;
mod converted;
mod described;
pub(crate) mod end;
mod opening;
pub(crate) mod pending;
pub(crate) mod retention;
mod seal;
mod session;
pub(crate) mod source;
pub(crate) mod status;
mod unsendable;

use crate::log::Log;
use crate::publish::{self, Output, Standing};
use migrations::finding::Finding;
use migrations::names::PlanName;
use migrations::plan::LogChoice;
use migrations::problem::Diagnostic;
use migrations::sql::Database;
use retention::Reading;
use source::Source;
use status::{Order, Status};
use std::path::Path;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

const OPEN_RETRY: Duration = Duration::from_secs(2);

/// A feed as its lanes see it. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Feed {
    pub(crate) source: Source,
    pub(crate) orders: watch::Sender<Option<Order>>,
    pub(crate) status: watch::Sender<Status>,
    /// Its log, once that is open.
    pub(crate) log: watch::Sender<Option<Log>>,
    /// How far its changes are published.
    pub(crate) published: watch::Sender<Standing>,
    /// The source database's own name.
    pub(crate) name: String,
}

impl Feed {
    pub(crate) fn new(source: Source, name: String) -> Feed {
        let (orders, status) = (watch::Sender::new(None), watch::Sender::new(Status::default()));
        let (log, published) = (watch::Sender::new(None), watch::Sender::new(Standing::default()));
        Feed { source, orders, status, log, published, name }
    }

    pub(crate) async fn opened(&self) -> Log {
        let mut log = self.log.subscribe();
        let opened = log.wait_for(Option::is_some).await.ok().and_then(|log| log.clone());
        // The sender is held by us.
        match opened {
            Some(log) => log,
            None => std::future::pending().await,
        }
    }

    /// Opens the log, then captures and trims for as long as the feed is wanted.
    pub(crate) async fn run(
        self,
        choice: &LogChoice,
        plan: &PlanName,
        state_dir: &Path,
        readers: impl Fn() -> Vec<Reading>,
    ) {
        if self.source.database != Database::Monolith {
            // A service needs no log before a lane of it is ordered.
            let _ = self.orders.subscribe().wait_for(Option::is_some).await;
        }
        let log = self.open(choice, plan, state_dir).await;
        let output = Output::of(choice, self.source.row_bytes_max);
        let publishing = async {
            match &output {
                Some(output) => publish::run(&log, output, &self.published).await,
                None => std::future::pending().await,
            }
        };
        let (source, status) = (self.source.clone(), self.status.clone());
        // A task of its own: it is woken for every block that arrives.
        let published = || output.as_ref().map(|_| self.published.borrow().place.clone());
        let mut capture = JoinSet::new();
        capture.spawn(capture::run(source, log.clone(), self.orders.subscribe(), status));
        tokio::select! {
            _ = capture.join_next() => {}
            () = capture::guard_wal(&self.source, &log, self.orders.subscribe(), &self.status) => {}
            () = retention::run(&log, self.orders.subscribe(), &self.status, (readers, published)) => {}
            () = publishing => {}
        }
    }

    async fn open(&self, choice: &LogChoice, plan: &PlanName, state_dir: &Path) -> Log {
        let mut said = String::new();
        loop {
            let opened = Log::open(choice, plan, &self.source.database, &self.name, state_dir).await;
            let why = match opened {
                Ok(log) => {
                    tracing::info!("{} is open", log.describe());
                    let log = log.hiding(self.source.hidden.as_ref().clone());
                    self.status.send_modify(|status| status.finding = None);
                    self.log.send_replace(Some(log.clone()));
                    return log;
                }
                Err(why) => why,
            };
            if said != why.to_string() {
                said = why.to_string();
                tracing::warn!("{why}; {}", why.remedy());
            }
            self.status.send_modify(|status| status.finding = Some(why.finding()));
            sleep(OPEN_RETRY).await;
        }
    }

    /// What is wrong with it.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        let published = self.published.borrow().clone();
        [self.status.borrow().finding.clone(), published.finding, published.skipped]
            .into_iter()
            .flatten()
            .collect()
    }
}
