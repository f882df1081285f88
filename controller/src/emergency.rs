//! Takes requests back to the monolith while the journal cannot be written, and tells the journal afterwards.
//!
//! It only ever takes requests back to the owner of the rows, so it decides nothing about rows. The proxies have the last word:
//! one whose table says that the service owns a slice lets the service answer it all the same.

use crate::desk::Desk;
use crate::recall::Recall;
use crate::store::Draft;
use migrations::api::{SetShares, Wish, plan_event};
use migrations::code::Code;
use migrations::journal::State;
use migrations::names::Requests;
use migrations::problem::Problem;
use migrations::share::Share;
use migrations::stage::Owner;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// What a wish is about.
pub(crate) fn requests(wish: &SetShares) -> Requests {
    Requests { slice: wish.slice.clone(), route: wish.route.clone() }
}

/// Takes requests back without the journal. Refused if the monolith may not own their rows, as far as this controller knows.
pub(crate) fn take_back(desk: &Desk, wish: &SetShares) -> Result<State, Problem> {
    let SetShares { slice, share, actor, reason, .. } = wish;
    let requests = requests(wish);
    if *share != Share::MONOLITH {
        let message = "in an emergency requests go to the monolith, and nowhere else";
        let way = format!("run `strangler route set {requests} monolith --emergency`");
        return Err(Problem::new(Code::CommandUsage, message, way));
    }
    let state = desk.state().map_or_else(|| remembered(desk), Ok)?;
    plan_event(&desk.plan, &state, Wish::Shares(wish))?;
    if state.slice(slice).stage.owner() != Owner::Monolith {
        let message = format!("slice {slice} is not the monolith's now, so the monolith must not answer it");
        return Err(Problem::new(Code::SliceStage, message, "bring the monolith's database back"));
    }
    let recall = Recall { actor: actor.clone(), reason: reason.clone() };
    desk.recalls.note(&requests, recall).map_err(|error| {
        let message = "the emergency cannot be kept in the controller's folder";
        Problem::new(Code::CommandFailed, message, "free some space, and see that the folder can be written")
            .because(&error)
    })?;
    tracing::warn!(%requests, %actor, "taken back to the monolith without the journal");
    Ok(state)
}

/// What an earlier controller of this folder read, unless an agent knows of a later decision.
fn remembered(desk: &Desk) -> Result<State, Problem> {
    let hint = "bring the monolith's database back; until a controller has read the journal, proxies let the monolith answer reads \
                of slices with tables";
    let refused = |message: &str| Problem::new(Code::JournalUnreachable, message, hint);
    let Some(state) = desk.remembered.state() else {
        return Err(refused(
            "neither this controller nor an earlier one of its folder has read the journal, so it does not know who owns the slice",
        ));
    };
    let mut known = desk.agents.acts_on().into_iter();
    if known.any(|(journal, generation)| journal != state.journal || generation > state.generation) {
        return Err(refused(
            "proxies or the bridge know later decisions than this controller, so it does not know who owns the slice",
        ));
    }
    Ok(state)
}

/// Tells the journal what was taken back without it. What cannot be any more is given up.
pub(crate) async fn tell_journal(desk: &Desk) {
    let held = desk.recalls.held();
    for (requests, Recall { actor, reason }) in held {
        let Requests { slice, route } = requests.clone();
        let colon = if reason.is_empty() { "" } else { ": " };
        let (share, reason) = (Share::MONOLITH, format!("in an emergency{colon}{reason}"));
        let wish = SetShares { slice, route, share, emergency: false, actor, reason };
        let is_refused = AtomicBool::new(false);
        let decided = desk.decide(|state| {
            let planned = plan_event(&desk.plan, state, Wish::Shares(&wish));
            is_refused.store(planned.is_err(), SeqCst);
            Ok(Some(Draft { actor: wish.actor.clone(), reason: wish.reason.clone(), decided: planned? }))
        });
        match decided.await {
            Err(problem) if is_refused.load(SeqCst) => {
                tracing::error!(%problem, %requests, "what was taken back in an emergency is no longer so");
            }
            // The journal is what failed: it is told later.
            Err(_) => continue,
            Ok(_) => {}
        }
        if let Err(error) = desk.recalls.forget(&requests) {
            tracing::error!(%error, %requests, "the journal has what was taken back, and the file keeps it");
        }
    }
}

/// Whether the journal is what failed. Just when its server goes down, a connection that is still held is closed.
pub(crate) fn is_journals(problem: &Problem) -> bool {
    matches!(problem.code, Code::JournalUnreachable | Code::JournalRefused)
}
