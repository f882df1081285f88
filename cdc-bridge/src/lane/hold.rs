//! The locks that keep a copy's source tables from being rewritten until the copy is whole.
//!
//! A rewriting ALTER TABLE or a TRUNCATE makes a table look empty to older snapshots (PostgreSQL manual, 13.6), and its rows
//! never come in the stream. So a copy counts only if the locks lasted from before its snapshot until after its last row. A
//! snapshot needs no such proof: a session that could not take it over fails.

use super::halt::Halt;
use crate::feed::source::SourceError;
use migrations::code::Code;
use migrations::finding::Finding;
use migrations::plan::Slice;
use postgres::in_words;
use std::time::Duration;
use tokio::time::{interval, timeout};
use tokio_postgres::{Client, Error};

/// How often the locks are proven while rows are copied, and how long an answer may take.
const PROOF_INTERVAL: Duration = Duration::from_secs(5);
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// How many of these tables this session has locked.
const HELD: &str = "SELECT count(*) FROM unnest($1::text[]) AS t(name) WHERE EXISTS (\
    SELECT FROM pg_catalog.pg_locks l WHERE l.pid = pg_catalog.pg_backend_pid() AND l.granted \
    AND l.locktype = 'relation' AND l.relation = pg_catalog.to_regclass(t.name))";

/// ACCESS SHARE locks on a slice's source tables. They last as long as the client's transaction. It has no id, so the
/// snapshot's slot does not wait for it.
pub(crate) struct Hold<'a> {
    source: &'a Client,
    slice: &'a Slice,
    tables: Vec<String>,
}

impl<'a> Hold<'a> {
    pub(crate) async fn take(source: &'a Client, slice: &'a Slice) -> Result<Hold<'a>, Halt> {
        let tables: Vec<String> = slice.all_tables().map(|table| table.from.quoted()).collect();
        let sql = format!("BEGIN; LOCK TABLE {} IN ACCESS SHARE MODE", tables.join(", "));
        source.batch_execute(&sql).await.map_err(SourceError::from)?;
        Ok(Hold { source, slice, tables })
    }

    /// Proves that the same transaction still holds every lock.
    pub(crate) async fn prove(&self) -> Result<(), Halt> {
        match timeout(ANSWER_MAX, self.held()).await {
            Ok(Ok(held)) if usize::try_from(held) == Ok(self.tables.len()) => Ok(()),
            Ok(Ok(_)) => Err(self.lost("its transaction has ended")),
            Ok(Err(error)) => Err(self.lost(&in_words(&error))),
            Err(_) => Err(self.lost("it does not answer")),
        }
    }

    async fn held(&self) -> Result<i64, Error> {
        Ok(self.source.query_one(HELD, &[&self.tables]).await?.get(0))
    }

    /// Waits until the locks are lost.
    pub(crate) async fn end(&self) -> Halt {
        let mut due = interval(PROOF_INTERVAL);
        loop {
            due.tick().await;
            if let Err(lost) = self.prove().await {
                return lost;
            }
        }
    }

    fn lost(&self, why: &str) -> Halt {
        Halt::Away(Box::new(Finding::warning(
            Code::BridgeWaits,
            format!(
                "the copy of slice {} does not count: the session that kept its source tables from being rewritten has \
                 lost its locks: {why}",
                self.slice.name
            ),
            "the copy begins again by itself; keep what ends idle transactions away from strangler's role",
        )))
    }
}
