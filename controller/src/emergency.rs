//! Takes a slice back to the monolith while the journal cannot be written, and tells the journal afterwards.
//!
//! It only ever takes requests back to the owner of the rows, so it decides nothing about rows.

use crate::desk::Desk;
use crate::recall::Recall;
use crate::store::Draft;
use migrations::api::{SetShares, Wish, plan_event};
use migrations::code::{Code, Kind};
use migrations::journal::State;
use migrations::problem::Problem;
use migrations::share::Share;
use migrations::stage::Owner;

/// Takes a slice back without the journal. Refused if the monolith may not own its rows, as far as this controller knows.
pub(crate) fn take_back(desk: &Desk, wish: &SetShares) -> Result<State, Problem> {
    let SetShares { slice, route, share, actor, reason, .. } = wish;
    let whole = format!("strangler route set {slice} monolith --emergency");
    if *share != Share::MONOLITH || route.is_some() {
        let message = "in an emergency a whole slice goes to the monolith, and nothing else";
        return Err(Problem::new(Code::CommandUsage, message, format!("run `{whole}`")));
    }
    let Some(state) = desk.state() else {
        let message = "this controller has not read the journal since its start, so it does not know who owns the slice";
        let hint = "bring the monolith's database back; without a controller that knows, proxies already let the monolith answer reads \
                    of slices with tables";
        return Err(Problem::new(Code::JournalUnreachable, message, hint));
    };
    plan_event(&desk.plan, &state, Wish::Shares(wish))?;
    if state.slice(slice).stage.owner() != Owner::Monolith {
        let message = format!("slice {slice} is not the monolith's now, so the monolith must not answer it");
        return Err(Problem::new(Code::SliceStage, message, "bring the monolith's database back"));
    }
    let recall = Recall { actor: actor.clone(), reason: reason.clone() };
    desk.recalls.note(slice, recall).map_err(|error| {
        let message = "the emergency cannot be kept in the controller's folder";
        Problem::new(Code::CommandFailed, message, "free some space, and see that the folder can be written")
            .because(&error)
    })?;
    tracing::warn!(%slice, %actor, "taken back to the monolith without the journal");
    Ok(state)
}

/// Tells the journal what was taken back without it. What cannot be any more is given up.
pub(crate) async fn tell_journal(desk: &Desk) {
    let held = desk.recalls.held();
    for (slice, Recall { actor, reason }) in held {
        let (share, reason) = (Share::MONOLITH, format!("in an emergency: {reason}"));
        let wish = SetShares { slice, route: None, share, emergency: false, actor, reason };
        let decided = desk.decide(|state| {
            let decided = plan_event(&desk.plan, state, Wish::Shares(&wish))?;
            Ok(Some(Draft { actor: wish.actor.clone(), reason: wish.reason.clone(), decided }))
        });
        match decided.await {
            Err(problem) if may_be_told_later(&problem) => continue,
            Err(problem) => {
                tracing::error!(%problem, slice = %wish.slice, "what was taken back in an emergency is no longer so");
            }
            Ok(_) => {}
        }
        if let Err(error) = desk.recalls.forget(&wish.slice) {
            tracing::error!(%error, slice = %wish.slice, "the journal has what was taken back, and the file keeps it");
        }
    }
}

fn may_be_told_later(problem: &Problem) -> bool {
    let is_passing = matches!(problem.kind, Kind::Unavailable | Kind::TimedOut | Kind::Conflict);
    is_journals(problem) || is_passing && problem.code != Code::SliceStage
}

/// Whether the journal is what failed. Just when its server goes down, a connection that is still held is closed.
pub(crate) fn is_journals(problem: &Problem) -> bool {
    matches!(problem.code, Code::JournalUnreachable | Code::JournalRefused)
}
