//! The controller's process: listens, keeps an eye on the journal, ends when it is told to.

use crate::api;
use crate::coordinator::{self, Line};
use crate::desk::Desk;
use crate::emergency;
use crate::recall::Recalls;
use crate::remembered::Remembered;
use crate::store::Store;
use link::handover::{self, NoPlace};
use migrations::code::Code;
use migrations::plan::{Plan, Secret};
use migrations::problem::Diagnostic;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How often the journal is read for what other controllers wrote.
const REFRESH: Duration = Duration::from_secs(1);
/// How long requests may run on after the end was asked for: `strangler up` kills a part that takes 4.5 s.
const GRACE: Duration = Duration::from_secs(3);

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("the controller cannot listen at {address}")]
    Listen {
        address: String,
        #[source]
        source: std::io::Error,
    },
    #[error("the controller that serves here keeps its place")]
    Place(#[source] std::io::Error),
    #[error("the controller cannot serve any longer")]
    Serve(#[source] std::io::Error),
}

impl Diagnostic for ServeError {
    fn code(&self) -> Code {
        match self {
            ServeError::Listen { .. } => Code::PartListen,
            ServeError::Place(_) | ServeError::Serve(_) => Code::PartFailed,
        }
    }

    fn remedy(&self) -> String {
        match self {
            ServeError::Listen { .. } => {
                "stop what listens there (`strangler down`), or change `controller.listen` in the plan"
            }
            ServeError::Place(_) => "stop it, then start this one again",
            ServeError::Serve(_) => "start it again with `strangler controller`",
        }
        .to_owned()
    }
}

/// Serves the API of a plan until `shutdown` comes or another process takes its place. If one serves with this `state_dir`,
/// its place is taken: its listener passes on, and its work ends before this one begins. `state_dir` holds the journal where the plan has no database. A
/// database that is down does not keep it from starting: it says so and tries again.
pub async fn serve(
    plan: Plan,
    token: Secret,
    state_dir: PathBuf,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    let address = plan.controller.listen.clone();
    std::fs::create_dir_all(&state_dir).map_err(ServeError::Serve)?;
    let place = handover::place(&state_dir, &address).await;
    let (listener, offer) = place.map_err(|no_place| match no_place {
        NoPlace::Listen(source) => ServeError::Listen { address: address.clone(), source },
        NoPlace::Kept(source) => ServeError::Place(source),
    })?;
    let shutdown = async move {
        tokio::select! {
            () = shutdown => None,
            successor = offer.taken() => Some(successor),
        }
    };
    let store = Store::of(&plan, &state_dir);
    let mut desk = Desk::new(plan, store);
    desk.recalls = Recalls::read(state_dir.join("recalled.json"));
    if desk.plan.monolith.database.is_some() {
        desk.remembered = Remembered::read(state_dir.join("remembered.json"));
    }
    let desk = Arc::new(desk);
    // A journal that cannot be read is said in the log, in every answer and in `status`; see `Desk::trouble`.
    let _ = desk.refresh().await;
    tracing::info!(%address, "the controller listens");

    let (ending, ends) = watch::channel(false);
    let watcher = tokio::spawn(watch_journal(Arc::clone(&desk), ends.clone()));
    let timed = Arc::clone(&desk);
    let clock = tokio::spawn(async move { timed.agents.clock.keep().await });
    let line = Line::new(token.clone()).map(Arc::new);
    let mut coordinator = tokio::spawn(coordinator::run(Arc::clone(&desk), line, ends.clone()));
    let app = api::router(Arc::clone(&desk), token, ends.clone());
    let server = axum::serve(listener, app).with_graceful_shutdown(ended(ends));
    let mut server = tokio::spawn(server.into_future());
    // It waits until this process ends.
    let _successor;
    let outcome = tokio::select! {
        served = &mut server => served,
        successor = shutdown => {
            _successor = successor;
            // Long polls see it and answer; what still runs after the grace is cut off. A crossing that is not decided yet
            // is given up, or else nobody would own its slice.
            ending.send_replace(true);
            let both = async { tokio::join!(&mut server, &mut coordinator).0 };
            match tokio::time::timeout(GRACE, both).await {
                Ok(served) => served,
                Err(_) => { server.abort(); Ok(Ok(())) }
            }
        }
    };
    ending.send_replace(true);
    coordinator.abort();
    watcher.abort();
    clock.abort();
    match outcome {
        Ok(served) => served.map_err(ServeError::Serve),
        Err(lost) => Err(ServeError::Serve(std::io::Error::other(lost))),
    }
}

async fn ended(mut ends: watch::Receiver<bool>) {
    // The sender lives as long as the server; were it gone, ending would be right too.
    let _ = ends.wait_for(|ended| *ended).await;
}

/// Reads what other controllers wrote, until the process ends.
pub(crate) async fn watch_journal(desk: Arc<Desk>, mut ends: watch::Receiver<bool>) {
    let mut tick = tokio::time::interval(REFRESH);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            _ = tick.tick() => {}
            _ = ends.wait_for(|ended| *ended) => return,
        }
        if let Ok(state) = desk.refresh().await {
            desk.remembered.keep(&state);
            emergency::tell_journal(&desk).await;
        }
        desk.look_for_bridge();
    }
}
