//! The coordinator's connections. Each is lent to one step: a step that does not come back in time loses its connection,
//! and the next one gets another.

use super::reservation::Reservation;
use super::trouble::Trouble;
use migrations::gate::Side;
use migrations::plan::{Plan, Slice};
use migrations::problem::Diagnostic;
use migrations::sql::Database;
use postgres::connect;
use std::time::Duration;
use tokio_postgres::Client;

/// Connecting, and settings.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// The server gives a statement up by itself when nobody waits for it any more. An opening gate is patient for 5 s.
const SETTINGS: &str = "SET statement_timeout = '8s'; SET idle_in_transaction_session_timeout = '8s'";

#[derive(Debug)]
pub(super) struct Hands<'a> {
    plan: &'a Plan,
    slice: &'a Slice,
    monolith: Option<Held>,
    service: Option<Held>,
    /// Of the tables whose gate is to open. A session of its own: the others are needed meanwhile.
    opening: Option<(Side, Reservation)>,
}

#[derive(Debug)]
enum Held {
    Free(Client),
    Reserved(Reservation),
}

impl<'a> Hands<'a> {
    pub(super) fn new(plan: &'a Plan, slice: &'a Slice) -> Hands<'a> {
        Hands { plan, slice, monolith: None, service: None, opening: None }
    }

    /// A connection to one side's database. Whoever has done his step gives it back.
    pub(super) async fn lend(&mut self, side: Side) -> Result<Client, Trouble> {
        match self.place(side).take() {
            Some(Held::Free(client)) if !client.is_closed() => return Ok(client),
            Some(Held::Reserved(reservation)) => {
                if let Some(client) = reservation.give_up().await {
                    return Ok(client);
                }
            }
            _ => {}
        }
        open(self.plan, self.slice, side).await
    }

    pub(super) fn give_back(&mut self, side: Side, client: Client) {
        *self.place(side) = Some(Held::Free(client));
    }

    pub(super) fn reserve(&mut self, side: Side, reservation: Reservation) {
        *self.place(side) = Some(Held::Reserved(reservation));
    }

    /// None if there is none, or its session is gone.
    pub(super) fn lend_reserved(&mut self, side: Side) -> Option<Reservation> {
        match self.place(side).take() {
            Some(Held::Reserved(reservation)) if reservation.is_alive() => Some(reservation),
            other => {
                *self.place(side) = other;
                None
            }
        }
    }

    pub(super) fn reserve_opening(&mut self, side: Side, reservation: Reservation) {
        self.opening = Some((side, reservation));
    }

    /// As [`Hands::lend_reserved`], for the gate that is to open.
    pub(super) fn lend_opening(&mut self, side: Side) -> Option<Reservation> {
        match self.opening.take() {
            Some((of, reservation)) if of == side && reservation.is_alive() => Some(reservation),
            other => {
                self.opening = other;
                None
            }
        }
    }

    fn place(&mut self, side: Side) -> &mut Option<Held> {
        match side {
            Side::Monolith => &mut self.monolith,
            Side::Service => &mut self.service,
        }
    }
}

/// A new connection to one side's database.
pub(super) async fn open(plan: &Plan, slice: &Slice, side: Side) -> Result<Client, Trouble> {
    let database = match side {
        Side::Monolith => Database::Monolith,
        Side::Service => Database::Service(slice.service.clone()),
    };
    let Some(url) = database.url(plan) else {
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
