//! The wishes that move writes, over HTTP. They are answered when they are journalled; the coordinator does the work.

use super::{Shared, answer, detached, name};
use crate::coordinator::{self, sight};
use crate::place::Place;
use crate::reconcile;
use answer::Failure;
use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use migrations::api::{
    CrossingReport, CrossingVerb, CrossingWish, Outcome, Reconciled, Wish, dry_run, known_slice, plan_event,
};
use migrations::crossing::Moment;
use migrations::cutover::{Seen, may_return};
use migrations::journal::Generation;
use migrations::lane::Direction;
use migrations::names::SliceName;
use migrations::preflight::Aim;
use serde::Deserialize;

#[derive(Deserialize)]
pub(super) struct DryRun {
    #[serde(default)]
    dry_run: bool,
}

pub(super) async fn cross(
    State(shared): State<Shared>,
    Path((slice, verb)): Path<(String, String)>,
    query: Result<Query<DryRun>, QueryRejection>,
    wish: Result<Json<CrossingWish>, JsonRejection>,
) -> Result<Response, Failure> {
    let (Query(DryRun { dry_run }), Json(wish)) = (query?, wish?);
    let verb: CrossingVerb = verb.parse().map_err(|_| answer::not_found())?;
    let slice = name(&slice)?;
    if dry_run {
        let steps = shared.steps(&slice, verb, &wish).await?;
        return Ok(Json(steps).into_response());
    }
    let outcome = detached(async move { shared.cross(&slice, verb, &wish).await }).await?;
    Ok(Json(outcome).into_response())
}

/// How the slice's last crossing went; `null` if this controller drove none.
pub(super) async fn report(
    State(shared): State<Shared>,
    Path(slice): Path<String>,
) -> Result<Json<Option<CrossingReport>>, Failure> {
    let slice = name(&slice)?;
    let state = shared.desk.refresh().await?;
    known_slice(&shared.desk.plan, &state, &slice)?;
    let (courses, agents) = (&shared.desk.courses, &shared.desk.agents);
    Ok(Json(courses.of(&slice).map(|report| {
        // The longest wait ends with the hold, and proxies keep it until the next one.
        let was_held = report.hold_ms.is_some() || !report.phases.is_empty();
        let (held_ms_p99, held_ms_max) = if was_held { agents.held_ms(&slice) } else { (0, 0) };
        CrossingReport { held_ms_p99, held_ms_max, ..report }
    })))
}

pub(super) async fn reconcile(
    State(shared): State<Shared>,
    Path(slice): Path<String>,
) -> Result<Json<Vec<Reconciled>>, Failure> {
    let slice = name(&slice)?;
    detached(async move { shared.reconcile(Some(&slice)).await }).await
}

pub(super) async fn reconcile_all(State(shared): State<Shared>) -> Result<Json<Vec<Reconciled>>, Failure> {
    detached(async move { shared.reconcile(None).await }).await
}

impl Shared {
    async fn steps(
        &self,
        slice: &SliceName,
        verb: CrossingVerb,
        wish: &CrossingWish,
    ) -> Result<Vec<String>, Failure> {
        let now = self.crossing_time(slice, verb, wish).await?;
        let state = self.desk.refresh().await?;
        Ok(dry_run(&self.desk.plan, &state, slice, verb, wish, now)?)
    }

    async fn cross(
        &self,
        slice: &SliceName,
        verb: CrossingVerb,
        wish: &CrossingWish,
    ) -> Result<Outcome, Failure> {
        let desk = &self.desk;
        self.all_are_heard().await;
        self.crossing_time(slice, verb, wish).await?;
        let findings = match verb {
            CrossingVerb::Cutover | CrossingVerb::Rehearse => self.ready(slice, Aim::Cutover, false).await?,
            CrossingVerb::Rollback => {
                self.may_return(slice).await?;
                coordinator::make_ready(desk, slice).await;
                if !Place::needs_coordinator(&desk.present().await?.slice(slice)) {
                    coordinator::lead(desk, slice).await;
                }
                Vec::new()
            }
            CrossingVerb::Complete => self.all_follow(slice).await.map(|()| Vec::new())?,
            CrossingVerb::Confirm | CrossingVerb::Abort => Vec::new(),
        };
        // Its times begin after the look at the databases.
        let now = desk.store().now().await?;
        let asked = Wish::Cross(slice, verb, wish, now);
        let state = self.take(asked, (&wish.actor, &wish.reason)).await?;
        let generations = state.generation..=state.generation;
        let proxies = desk.agents.acknowledged(state.journal, &generations, &desk.plan.hash);
        let lanes = desk.agents.lanes(slice);
        Ok(answer::outcome(&desk.plan, &state, slice, &lanes, proxies, findings))
    }

    /// The journal's time, once all cheap objections to a wish are made.
    async fn crossing_time(
        &self,
        slice: &SliceName,
        verb: CrossingVerb,
        wish: &CrossingWish,
    ) -> Result<Moment, Failure> {
        let desk = &self.desk;
        let state = desk.present().await?;
        let objections = |now| plan_event(&desk.plan, &state, Wish::Cross(slice, verb, wish, now)).map(drop);
        if !desk.store().has_gates() {
            objections(Moment::default())?;
            return Err(answer::no_gates(slice));
        }
        let now = desk.store().now().await?;
        objections(now)?;
        Ok(now)
    }

    async fn may_return(&self, slice: &SliceName) -> Result<(), Failure> {
        let state = self.desk.present().await?;
        let lanes = self.desk.agents.lanes(slice);
        let reverse = lanes.get(&Direction::Reverse);
        let seen = Seen { reverse: sight::lane(reverse, &state.slice(slice)), ..Seen::default() };
        may_return(&seen).map_err(|awaited| answer::no_way_back_yet(slice, awaited, reverse))
    }

    /// Whether every proxy that was heard of acts on the newest word.
    async fn all_follow(&self, slice: &SliceName) -> Result<(), Failure> {
        let desk = &self.desk;
        let state = desk.present().await?;
        let before = Generation(state.generation.0.saturating_sub(1));
        if let Some((proxy, silent)) = desk.agents.left_behind(state.journal, before) {
            let who = format!("proxy {proxy}, which last reported {} s ago,", silent.as_secs());
            return Err(answer::not_followed(slice, &who));
        }
        let generations = state.generation..=state.generation;
        let proxies = desk.agents.acknowledged(state.journal, &generations, &desk.plan.hash);
        if proxies.have < proxies.live {
            return Err(answer::not_followed(slice, "a live proxy"));
        }
        Ok(())
    }

    async fn reconcile(&self, only: Option<&SliceName>) -> Result<Json<Vec<Reconciled>>, Failure> {
        let desk = &self.desk;
        let state = desk.present().await?;
        if let Some(slice) = only {
            known_slice(&desk.plan, &state, slice)?;
        }
        let mut done = Vec::new();
        for slice in desk.plan.slices.values().filter(|slice| only.is_none_or(|name| slice.name == *name)) {
            done.push(reconcile::reconcile(&desk.plan, slice, &state.slice(&slice.name)).await);
        }
        Ok(Json(done))
    }
}
