//! Drives sagas to their end: those of requests at once, those that were left behind in a loop.
//!
//! A step may be done twice, by two drivers or after a crash. That is harmless: a call with the same key is carried out
//! once, and a row moves on only from the state that was read.

use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool_postgres::{Pool, Transaction};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use uuid::Uuid;

use super::courier::{Courier, Lost};
use super::rows::{self, STUCK_ATTEMPTS, Unfinished};
use super::{Move, Nonsense, Saga, State};
use crate::shop::deal::{Act, Call, Deal, Reason, Verdict};
use crate::shop::refusal::Refusal;
use crate::shop::settle::settle;
use crate::shop::side::Side;

/// How many sagas may be worked on at once.
const AT_ONCE_MAX: usize = 8;
/// How long a request waits for its saga.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often a request looks whether its saga was ended by another task.
const LOOK: Duration = Duration::from_millis(50);
/// The pause between two looks for sagas that are due.
const ROUND: Duration = Duration::from_millis(100);
/// The pause after the first failed try of a state. It doubles with each further one.
const PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How often ended sagas are pruned.
const PRUNE: Duration = Duration::from_secs(600);

/// Where a saga stands after a request waited for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    Done,
    Refused(Reason),
    /// It goes on without the request.
    UnderWay,
}

/// Why a step failed. It is tried again.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Lost(#[from] Lost),
    #[error("{}", .0.in_full())]
    Refusal(#[from] Refusal),
    #[error(transparent)]
    Nonsense(#[from] Nonsense),
}

/// The service's sagas.
#[derive(Clone)]
pub struct Sagas {
    pool: Pool,
    courier: Courier,
    side: Arc<Side>,
    places: Arc<Semaphore>,
}

impl Sagas {
    #[must_use]
    pub fn new(pool: Pool, courier: Courier) -> Self {
        let places = Arc::new(Semaphore::new(AT_ONCE_MAX));
        Self { pool, courier, side: Arc::new(Side::orders()), places }
    }

    /// Writes a saga in the transaction of the order's change.
    pub(crate) async fn begin(&self, tx: &Transaction<'_>, deal: &Deal) -> Result<Saga, Refusal> {
        rows::insert(tx, Uuid::new_v4(), deal).await
    }

    /// Drives a saga that was just committed, and waits a moment for its end. The saga goes on if the caller leaves.
    pub(crate) async fn pursue(&self, saga: Saga) -> Standing {
        let (id, end) = (saga.id, Instant::now() + PATIENCE);
        let sagas = self.clone();
        let place = tokio::time::timeout(PATIENCE, self.places.clone().acquire_owned());
        if let Ok(Ok(place)) = place.await {
            // Its own task: a client that hangs up must not stop it halfway.
            let mut task = tokio::spawn(async move { sagas.drive(saga, place).await });
            // A timeout only ends the wait.
            let _ = tokio::time::timeout(end.saturating_duration_since(Instant::now()), &mut task).await;
        }
        loop {
            match self.standing(id).await {
                Ok(Standing::UnderWay) if Instant::now() < end => tokio::time::sleep(LOOK).await,
                Ok(standing) => return standing,
                Err(error) => {
                    tracing::warn!(saga = %id, error = ?error, "could not see where a saga stands");
                    return Standing::UnderWay;
                }
            }
        }
    }

    async fn standing(&self, id: Uuid) -> Result<Standing, Refusal> {
        let saga = rows::read(&self.pool.get().await?, id).await?;
        Ok(match saga {
            Some(Saga { state: State::Ended, refusal: Some(reason), .. }) => Standing::Refused(reason),
            // Without a row it was pruned, so it ended long ago.
            Some(Saga { state: State::Ended, .. }) | None => Standing::Done,
            Some(_) => Standing::UnderWay,
        })
    }

    /// Goes on with sagas that were left behind, until `stop` becomes true.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut pruned: Option<Instant> = None;
        loop {
            tokio::select! {
                () = tokio::time::sleep(ROUND) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            if let Err(error) = self.round().await {
                tracing::warn!(error = ?error, "could not look for sagas and will try again");
            }
            if pruned.is_none_or(|last| last.elapsed() >= PRUNE) {
                pruned = Some(Instant::now());
                if let Err(error) = self.prune().await {
                    tracing::warn!(error = ?error, "could not prune sagas and will try again");
                }
            }
        }
    }

    /// The sagas that have not ended.
    pub(crate) async fn unfinished(&self) -> Result<Unfinished, Refusal> {
        rows::unfinished(&self.pool.get().await?).await
    }

    /// Starts a task for each saga that is due, as far as there are places.
    async fn round(&self) -> Result<(), Refusal> {
        let free = self.places.available_permits();
        if free == 0 {
            return Ok(());
        }
        let due = rows::take_due(&self.pool.get().await?, free as i64).await?;
        for saga in due {
            // A request may have taken the place meanwhile. Then the saga is due again after its lease.
            let Ok(place) = self.places.clone().try_acquire_owned() else { return Ok(()) };
            let sagas = self.clone();
            tokio::spawn(async move { sagas.drive(saga, place).await });
        }
        Ok(())
    }

    async fn prune(&self) -> Result<u64, Refusal> {
        rows::prune(&self.pool.get().await?).await
    }

    /// Does step after step until the saga ends, a step fails, or another driver was faster.
    async fn drive(&self, mut saga: Saga, _place: OwnedSemaphorePermit) {
        while saga.state != State::Ended {
            match self.step(&saga).await {
                Ok(Some(next)) => saga = next,
                Ok(None) => return,
                Err(trouble) => {
                    self.postpone(&saga, &trouble).await;
                    return;
                }
            }
        }
    }

    /// One step. `None` when the saga was not where it should have been.
    async fn step(&self, saga: &Saga) -> Result<Option<Saga>, Trouble> {
        if let Some((state, reason)) = saga.gives_up() {
            tracing::warn!(saga = %saga.id, order = saga.deal.order, "an order was given up");
            return self.record(saga, state, Some(reason)).await;
        }
        let verdict = match saga.next() {
            Move::Call(key, call) => self.courier.carry(&key, &call).await?,
            Move::Settle { key, placed } => match self.settle_here(saga, placed).await {
                Ok(next) => return Ok(next),
                Err(Trouble::Refusal(Refusal::Absent { what, id })) => {
                    Verdict::Refused(Reason::new("absent", format!("there is no {what} {id}")))
                }
                // The database lets no order be written here, so another program keeps the orders: the monolith.
                Err(Trouble::Refusal(refusal)) if refusal.is_final_in_database() => {
                    let call = Call { order: saga.deal.order, act: Act::Settle { placed } };
                    self.courier.carry(&key, &call).await?
                }
                Err(trouble) => return Err(trouble),
            },
            Move::Nothing => {
                return Err(Refusal::Unexpected("a deal that does not fit its state".into()).into());
            }
        };
        let (state, reason) = saga.after(verdict)?;
        self.record(saga, state, reason).await
    }

    /// Settles the order and ends the saga in one transaction.
    async fn settle_here(&self, saga: &Saga, placed: bool) -> Result<Option<Saga>, Trouble> {
        let mut db = self.pool.get().await.map_err(Refusal::from)?;
        let tx = db.transaction().await.map_err(Refusal::from)?;
        settle(&tx, &self.side, saga.deal.order, placed).await?;
        let (state, reason) = saga.after(Verdict::Done)?;
        if !rows::advance(&tx, saga, state, reason.as_ref()).await? {
            return Ok(None);
        }
        tx.commit().await.map_err(Refusal::from)?;
        Ok(Some(moved(saga, state, reason)))
    }

    async fn record(
        &self,
        saga: &Saga,
        state: State,
        reason: Option<Reason>,
    ) -> Result<Option<Saga>, Trouble> {
        let db = self.pool.get().await.map_err(Refusal::from)?;
        let was_there = rows::advance(&db, saga, state, reason.as_ref()).await?;
        Ok(was_there.then(|| moved(saga, state, reason)))
    }

    async fn postpone(&self, saga: &Saga, trouble: &Trouble) {
        let (id, order, state) = (saga.id, saga.deal.order, saga.state.as_str());
        let doubled = PAUSE.saturating_mul(1 << saga.attempts.clamp(0, 10));
        if saga.attempts + 1 == STUCK_ATTEMPTS {
            tracing::error!(saga = %id, order, state, %trouble, "a saga is stuck; it is tried on, see GET /sagas");
        } else {
            tracing::warn!(saga = %id, order, state, %trouble, "a saga must wait");
        }
        let noted = async {
            let db = self.pool.get().await?;
            rows::postpone(&db, saga, &trouble.to_string(), doubled.min(PAUSE_MAX)).await
        };
        if let Err(error) = noted.await {
            // Its lease ends by itself.
            tracing::warn!(saga = %id, error = ?error, "could not note what a saga waits for");
        }
    }
}

fn moved(saga: &Saga, state: State, reason: Option<Reason>) -> Saga {
    Saga { state, refusal: reason.or_else(|| saga.refusal.clone()), attempts: 0, ..saga.clone() }
}
