//! The coordinator's connections. Each is lent to one step: a step that does not come back in time loses its connection,
//! and the next one gets another.

use migrations::gate::Side;
use migrations::plan::{Plan, Slice};
use migrations::problem::Diagnostic;
use migrations::sql::Database;
use postgres::{Refusal, connect, in_words};
use std::time::Duration;
use tokio_postgres::{Client, Error};

/// Connecting, and settings.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// The server gives a statement up by itself when nobody waits for it any more. An opening gate is patient for 5 s.
const SETTINGS: &str = "SET statement_timeout = '8s'; SET idle_in_transaction_session_timeout = '8s'";

/// Why a step is not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It may be done at the next try.
    Again(String),
    /// Someone decided otherwise meanwhile, or the database knows more than the journal.
    Stale(String),
    Final(String),
}

impl Trouble {
    pub(super) fn of(error: &Error) -> Trouble {
        let words = in_words(error);
        match error.code().map(|code| code.code()) {
            Some("STR02") => Trouble::Stale(words),
            // A statement that had no time, or fell victim to a deadlock, may go through next time.
            _ if Refusal::of(error) == Refusal::Away => Trouble::Again(words),
            _ => Trouble::Final(words),
        }
    }

    pub(super) fn late(what: &str, after: Duration) -> Trouble {
        Trouble::Again(format!("{what} did not answer within {} s", after.as_secs_f32()))
    }
}

#[derive(Debug)]
pub(super) struct Hands<'a> {
    plan: &'a Plan,
    slice: &'a Slice,
    monolith: Option<Client>,
    service: Option<Client>,
}

impl<'a> Hands<'a> {
    pub(super) fn new(plan: &'a Plan, slice: &'a Slice) -> Hands<'a> {
        Hands { plan, slice, monolith: None, service: None }
    }

    /// A connection to one side's database. Whoever has done his step gives it back.
    pub(super) async fn lend(&mut self, side: Side) -> Result<Client, Trouble> {
        if let Some(client) = self.place(side).take().filter(|client| !client.is_closed()) {
            return Ok(client);
        }
        let database = match side {
            Side::Monolith => Database::Monolith,
            Side::Service => Database::Service(self.slice.service.clone()),
        };
        let Some(url) = database.url(self.plan) else {
            return Err(Trouble::Final(format!("the plan gives {database} no URL")));
        };
        let opening = async {
            let client = connect(url, "strangler coordinator").await.map_err(|error| {
                tracing::debug!(%error, remedy = %error.remedy(), "the coordinator has no connection");
                Trouble::Again(error.to_string())
            })?;
            client.batch_execute(SETTINGS).await.map_err(|error| Trouble::of(&error))?;
            Ok(client)
        };
        let opened = tokio::time::timeout(CONNECT_MAX, opening).await;
        opened.unwrap_or_else(|_| Err(Trouble::late(&database.to_string(), CONNECT_MAX)))
    }

    pub(super) fn give_back(&mut self, side: Side, client: Client) {
        *self.place(side) = Some(client);
    }

    fn place(&mut self, side: Side) -> &mut Option<Client> {
        match side {
            Side::Monolith => &mut self.monolith,
            Side::Service => &mut self.service,
        }
    }
}
