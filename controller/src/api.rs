//! The controller's API over HTTP: for people and programs, and for the agents that pull. The words are
//! `migrations::api`'s and `migrations::control`'s; here is only how they travel.

mod answer;
mod crossing;
mod fared;

use crate::agents::HEARD_AFTER;
use crate::desk::Desk;
use crate::drive;
use crate::emergency;
use crate::metrics;
use crate::observe;
use crate::store::{Draft, StoreError};
use answer::Failure;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use migrations::api::{
    Acknowledged, Outcome, Outline, SetShares, Status, SyncVerb, SyncWish, Wish, known_slice, plan_event,
};
use migrations::code::Code;
use migrations::control::{self, Condition, Confirmed, Observed, Report, TableRoute};
use migrations::finding::Finding;
use migrations::journal::{self, Entry, Generation, JournalId};
use migrations::lane::Direction;
use migrations::names::{Requests, SliceName};
use migrations::plan::{Secret, Slice};
use migrations::preflight::{Aim, Diagnosis};
use migrations::share::Share;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// No poll is kept open longer, whatever it asks.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// How long a decision waits for the proxies to have it.
const ACKNOWLEDGE_MAX: Duration = Duration::from_secs(10);
/// A report of a bridge with very many slices; far more than any real one.
const BODY_BYTES_MAX: usize = 4 << 20;

#[derive(Clone)]
struct Shared {
    desk: Arc<Desk>,
    token: Arc<Secret>,
    ends: watch::Receiver<bool>,
    begun: Instant,
}

/// Every path of the API. `ends` turns true when open polls shall answer because the process ends.
pub(crate) fn router(desk: Arc<Desk>, token: Secret, ends: watch::Receiver<bool>) -> Router {
    let measured = get(metrics::show).with_state(Arc::clone(&desk));
    let shared = Shared { desk, token: Arc::new(token), ends, begun: Instant::now() };
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/journal", get(journal))
        .route("/v1/shares", post(shares))
        .route("/v1/slices/{slice}/sync/{verb}", post(sync))
        .route("/v1/slices/{slice}/doctor", get(doctor))
        .route("/v1/slices/{slice}/crossing", get(crossing::report))
        .route("/v1/slices/{slice}/reconcile", post(crossing::reconcile))
        .route("/v1/slices/{slice}/{verb}", post(crossing::cross))
        .route("/v1/reconcile", post(crossing::reconcile_all))
        .route("/v1/plan", post(reload))
        .route("/v1/desired", get(desired))
        .route("/v1/observed", post(observed))
        .fallback(|| async { answer::not_found() })
        .layer(middleware::from_fn_with_state(shared.clone(), only_with_token))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .route("/metrics", measured)
        .route("/healthz", get(|| async { "ok\n" }))
        .with_state(shared)
}

async fn only_with_token(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    if link::bearer::admits(&shared.token, request.headers()) {
        next.run(request).await
    } else {
        answer::no_token().into_response()
    }
}

async fn status(State(shared): State<Shared>) -> Result<Json<Status>, Failure> {
    let desk = &shared.desk;
    let acts_on = desk.agents.acts_on();
    // The newest truth where it can be had; else the last known one, with a finding that says so. While the journal
    // is known to be out of reach nobody waits for it here: it is tried every second anyway.
    let state = match (desk.trouble(), desk.state()) {
        (Some(_), Some(known)) => known,
        (_, known) => match desk.refresh().await {
            Ok(state) => state,
            Err(error) => known.ok_or(error)?,
        },
    };
    let trouble = desk.trouble().or_else(|| desk.behind(&acts_on, &state));
    let table = desk.desired().map(|desired| desired.table);
    let shares_copies = table.is_some_and(|table| table.routes.iter().any(TableRoute::reads_a_copy));
    let several = answer::several(&desk.plan, &desk.agents.proxy_names()).filter(|_| shares_copies);
    let trouble = trouble
        .into_iter()
        .chain(desk.courses.alarms())
        .chain(several)
        .chain(desk.recalls.findings())
        .collect();
    let (agents, withheld) = (desk.agents.status(state.journal), desk.withheld());
    let lanes = |slice: &SliceName| desk.agents.lanes(slice);
    let mut status = answer::status(&desk.plan, &state, agents, trouble, &withheld, lanes);
    for Requests { slice, route } in desk.recalls.requests() {
        let Some(stands) = status.slices.get_mut(&slice) else { continue };
        stands.withheld |= route.is_none();
        let meant =
            stands.routes.iter_mut().filter(|one| route.as_ref().is_none_or(|name| one.name == *name));
        meant.for_each(|one| one.recalled = true);
    }
    Ok(Json(status))
}

#[derive(Deserialize)]
struct JournalQuery {
    #[serde(default)]
    after: u64,
    #[serde(default)]
    wait_ms: u64,
}

async fn journal(
    State(shared): State<Shared>,
    query: Result<Query<JournalQuery>, QueryRejection>,
) -> Result<Json<Vec<Entry>>, Failure> {
    let Query(query) = query?;
    let deadline = deadline(query.wait_ms);
    let mut revisions = shared.desk.revisions();
    loop {
        revisions.mark_unchanged();
        let entries = shared.desk.entries(Generation(query.after)).await?;
        if !entries.is_empty() || !shared.news(&mut revisions, deadline).await {
            return Ok(Json(entries));
        }
    }
}

async fn shares(
    State(shared): State<Shared>,
    wish: Result<Json<SetShares>, JsonRejection>,
) -> Result<Json<Outcome>, Failure> {
    let Json(wish) = wish?;
    detached(async move {
        let asked = Wish::Shares(&wish);
        if wish.emergency && shared.desk.trouble().is_some() {
            return shared.recall(&wish).await;
        }
        shared.may_share(&wish).await?;
        match shared.decide(&wish.slice, asked, (&wish.actor, &wish.reason), Vec::new()).await {
            Err(Failure(why)) if emergency::is_journals(&why) && wish.share == Share::MONOLITH => {
                if wish.emergency {
                    return shared.recall(&wish).await;
                }
                let requests = emergency::requests(&wish);
                let way = format!("if it is urgent: `strangler route set {requests} monolith --emergency`");
                Err(Failure(why.remedy(&way)))
            }
            decided => decided,
        }
    })
    .await
}

async fn sync(
    State(shared): State<Shared>,
    Path((slice, verb)): Path<(String, String)>,
    wish: Result<Json<SyncWish>, JsonRejection>,
) -> Result<Json<Outcome>, Failure> {
    let Json(wish) = wish?;
    let slice = name(&slice)?;
    let verb: SyncVerb = verb.parse().map_err(|_| answer::not_found())?;
    detached(async move {
        let asked = Wish::Sync(&slice, verb, &wish);
        let mut findings = Vec::new();
        if matches!(verb, SyncVerb::Start | SyncVerb::Drop) {
            shared.is_read_by_nobody(&slice, asked).await?;
        }
        if verb == SyncVerb::Start {
            findings = shared.ready(&slice, Aim::Following, wish.replace).await?;
        }
        shared.decide(&slice, asked, (&wish.actor, &wish.reason), findings).await
    })
    .await
}

/// Runs to its end even if the one who asked hangs up: a wish that was taken is not left half done.
async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> Result<T, Failure> {
    tokio::spawn(work).await.unwrap_or_else(|_| Err(answer::broken()))
}

async fn doctor(State(shared): State<Shared>, Path(slice): Path<String>) -> Result<Json<Diagnosis>, Failure> {
    let slice = name(&slice)?;
    if !shared.desk.plan.slices.contains_key(&slice) {
        let state = shared.desk.refresh().await?;
        known_slice(&shared.desk.plan, &state, &slice)?;
    }
    Ok(Json(observe::doctor(&shared.desk.plan, Some(&slice)).await))
}

/// Whether an edited plan may take the place of the one that runs. Nothing is changed: a controller that starts with it takes it.
async fn reload(
    State(shared): State<Shared>,
    next: Result<Json<Outline>, JsonRejection>,
) -> Result<StatusCode, Failure> {
    let Json(next) = next?;
    let state = shared.desk.present().await?;
    let is_copied_otherwise = |slice: &SliceName| {
        let lanes = shared.desk.agents.lanes(slice);
        lanes.values().any(|lane| {
            matches!(&lane.condition, Condition::Stopped { finding, .. } if finding.code == Code::PlanCopiedOtherwise)
        })
    };
    let stopped = state.slices.keys().filter(|slice| is_copied_otherwise(slice)).cloned().collect();
    Outline::of(&shared.desk.plan).reloaded(&next, &state, &stopped)?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
struct DesiredQuery {
    journal: Option<JournalId>,
    #[serde(default)]
    generation: u64,
    #[serde(default)]
    plan: String,
    #[serde(default)]
    wait_ms: u64,
}

impl DesiredQuery {
    fn has(&self, desired: &control::Desired) -> bool {
        self.journal == Some(desired.journal)
            && Generation(self.generation) >= desired.generation
            && self.plan == desired.plan
    }
}

async fn desired(
    State(shared): State<Shared>,
    query: Result<Query<DesiredQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(query) = query?;
    // Who does not wait wants to know what is so now. What this controller read before it stood still may be old.
    let is_so = if query.wait_ms == 0 { shared.desk.refresh().await.map(drop) } else { Ok(()) };
    let deadline = deadline(query.wait_ms);
    let mut revisions = shared.desk.revisions();
    let bridge = shared.desk.bridge();
    loop {
        revisions.mark_unchanged();
        let desired = shared.desk.desired();
        if let Some(desired) = &desired
            && (!query.has(desired) || desired.bridge != bridge)
        {
            return Ok(Json(desired).into_response());
        }
        if shared.news(&mut revisions, deadline).await {
            continue;
        }
        return match desired {
            // Who polls has no word for the bridge's address, so a change that fell between two polls is told again.
            Some(desired) if query.wait_ms > 0 && shared.desk.bridge_moved_within(WAIT_MAX * 2) => {
                Ok(Json(desired).into_response())
            }
            Some(_) => Ok(is_so.map(|()| StatusCode::NO_CONTENT.into_response())?),
            None => Err(answer::no_journal(shared.desk.trouble())),
        };
    }
}

async fn observed(
    State(shared): State<Shared>,
    observed: Result<Json<Observed>, JsonRejection>,
) -> Result<Response, Failure> {
    let Json(observed) = observed?;
    if observed.version != control::VERSION {
        return Err(answer::other_version(observed.version));
    }
    let (report, acts_on) = (observed.report.clone(), (observed.acts_on, observed.plan.clone()));
    shared.desk.agents.report(observed, &shared.desk.plan);
    shared.desk.look_for_bridge();
    if let Report::Bridge(report) = report {
        // A bridge that hangs up does not take back what its report proves.
        let desk = Arc::clone(&shared.desk);
        let taken = tokio::spawn(async move { drive::take(&desk, &report).await });
        let _ = taken.await;
    }
    // Whoever acts on the newest may count on it for a while.
    let (acts_on, plan) = acts_on;
    let is_newest = plan == shared.desk.plan.hash && acts_on.is_some_and(|held| shared.desk.is_newest(held));
    let recalled = shared.desk.recalls.requests();
    if !is_newest && recalled.is_empty() {
        return Ok(StatusCode::ACCEPTED.into_response());
    }
    if !is_newest {
        let said = Confirmed { recalled, ..Confirmed::nothing() };
        return Ok((StatusCode::ACCEPTED, Json(said)).into_response());
    }
    let withheld: BTreeSet<SliceName> = shared.desk.withheld().into_keys().collect();
    if withheld.is_empty() && recalled.is_empty() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    Ok(Json(Confirmed { version: control::VERSION, withheld, recalled }).into_response())
}

/// Whether the plan has the slice is for `known_slice` to say: it knows what was meant.
fn name(slice: &str) -> Result<SliceName, Failure> {
    slice.parse().map_err(|error| answer::no_name(&error))
}

impl Shared {
    /// Waits for something newer; false when the deadline came first or the process ends.
    async fn news(&self, revisions: &mut watch::Receiver<u64>, deadline: Instant) -> bool {
        let mut ends = self.ends.clone();
        tokio::select! {
            changed = revisions.changed() => changed.is_ok(),
            () = tokio::time::sleep_until(deadline) => false,
            _ = ends.wait_for(|ended| *ended) => false,
        }
    }

    /// Refuses a wish that empties the service's tables while a proxy may still send reads there. Also the place of all
    /// cheap objections, which come before a long look.
    async fn is_read_by_nobody(&self, slice: &SliceName, wish: Wish<'_>) -> Result<(), Failure> {
        self.all_are_heard().await;
        let state = self.desk.present().await?;
        plan_event(&self.desk.plan, &state, wish)?;
        let entries = self.desk.entries(Generation(0)).await?;
        let shared = journal::State::last_shared(state.journal, &entries, slice).map_err(StoreError::from)?;
        let behind = shared.and_then(|shared| self.desk.agents.left_behind(state.journal, shared));
        behind.map_or(Ok(()), |(proxy, silent)| Err(answer::still_read(slice, &proxy, silent)))
    }

    /// Refuses reads from a copy for clients that come through several proxies, if the plan does not say how they come.
    async fn may_share(&self, wish: &SetShares) -> Result<(), Failure> {
        let slice = self.desk.plan.slices.get(&wish.slice);
        if wish.share == Share::MONOLITH || slice.is_none_or(Slice::is_stateless) {
            return Ok(());
        }
        self.all_are_heard().await;
        let several = answer::several(&self.desk.plan, &self.desk.agents.proxy_names());
        several.map_or(Ok(()), |finding| Err(Failure(finding.into())))
    }

    /// Right after its start a controller knows of no agent, or of some, which does not mean that no other lives.
    async fn all_are_heard(&self) {
        tokio::time::sleep_until(self.begun + HEARD_AFTER).await;
    }

    /// Looks at the live systems before a slice is followed or cut over: the warnings, or the refusal that holds every finding.
    async fn ready(&self, slice: &SliceName, aim: Aim, replace: bool) -> Result<Vec<Finding>, Failure> {
        if let Some(other) = self.desk.agents.other_plan() {
            return Err(answer::not_ready(slice, aim, vec![other]));
        }
        let mut findings = observe::glance(&self.desk.plan, slice).await.findings(aim);
        findings.retain(|finding| !(replace && finding.code == Code::SinkNotEmpty));
        if findings.iter().any(Finding::is_error) {
            return Err(answer::not_ready(slice, aim, findings));
        }
        Ok(findings)
    }

    /// Waits until every live proxy acts on a state, but not for ever.
    async fn acknowledged(&self, state: &journal::State) -> Acknowledged {
        let (desk, plan) = (&self.desk, &self.desk.plan.hash);
        let deadline = Instant::now() + ACKNOWLEDGE_MAX;
        let (mut reports, mut revisions) = (desk.agents.reports(), desk.revisions());
        loop {
            reports.mark_unchanged();
            revisions.mark_unchanged();
            // Others may have decided more meanwhile, which this controller reads every second.
            let known = desk.state().map_or(state.generation, |newest| newest.generation);
            let proxies = desk.agents.acknowledged(state.journal, &(state.generation..=known), plan);
            if proxies.have >= proxies.live || Instant::now() >= deadline {
                return proxies;
            }
            // A proxy that stays silent is no longer waited for.
            let silence = desk.agents.next_silence().unwrap_or(deadline);
            tokio::select! {
                _ = reports.changed() => {}
                _ = revisions.changed() => {}
                () = tokio::time::sleep_until(silence.min(deadline)) => {}
            }
        }
    }

    /// Takes requests back without the journal, and waits until the live proxies have it, but not for ever.
    async fn recall(&self, wish: &SetShares) -> Result<Json<Outcome>, Failure> {
        let desk = &self.desk;
        // A controller that has just started judges by what the agents act on.
        self.all_are_heard().await;
        let state = emergency::take_back(desk, wish)?;
        let requests = emergency::requests(wish);
        let (deadline, mut reports) = (Instant::now() + ACKNOWLEDGE_MAX, desk.agents.reports());
        let proxies = loop {
            reports.mark_unchanged();
            let proxies = desk.agents.recalling(&requests);
            if proxies.have >= proxies.live || Instant::now() >= deadline {
                break proxies;
            }
            let silence = desk.agents.next_silence().unwrap_or(deadline);
            tokio::select! {
                _ = reports.changed() => {}
                () = tokio::time::sleep_until(silence.min(deadline)) => {}
            }
        };
        let lanes = desk.agents.lanes(&wish.slice);
        Ok(Json(answer::outcome(&desk.plan, &state, &wish.slice, &lanes, proxies, desk.recalls.findings())))
    }

    /// Journals a wish. The work goes on if the asker hangs up.
    async fn take(&self, wish: Wish<'_>, (actor, reason): (&str, &str)) -> Result<journal::State, Failure> {
        let desk = &self.desk;
        self.all_are_heard().await;
        let (state, _) = desk
            .decide(|state| {
                let decided = plan_event(&desk.plan, state, wish)?;
                Ok(Some(Draft { actor: actor.to_owned(), reason: reason.to_owned(), decided }))
            })
            .await?;
        Ok(state)
    }

    /// Journals a wish and waits until the live proxies have it.
    async fn decide(
        &self,
        slice: &SliceName,
        wish: Wish<'_>,
        by: (&str, &str),
        mut findings: Vec<Finding>,
    ) -> Result<Json<Outcome>, Failure> {
        let desk = &self.desk;
        let state = self.take(wish, by).await?;
        let proxies = self.acknowledged(&state).await;
        let lanes = desk.agents.lanes(slice);
        if let (Wish::Shares(_), Some(planned)) = (wish, desk.plan.slices.get(slice)) {
            findings.extend(answer::reads_wait(planned, &state, lanes.get(&Direction::Forward)));
        }
        Ok(Json(answer::outcome(&desk.plan, &state, slice, &lanes, proxies, findings)))
    }
}

fn deadline(wait_ms: u64) -> Instant {
    Instant::now() + Duration::from_millis(wait_ms).min(WAIT_MAX)
}

impl From<JsonRejection> for Failure {
    fn from(rejection: JsonRejection) -> Self {
        answer::misunderstood(&rejection.body_text())
    }
}

impl From<QueryRejection> for Failure {
    fn from(rejection: QueryRejection) -> Self {
        answer::misunderstood(&rejection.body_text())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let Failure(problem) = self;
        let status = StatusCode::from_u16(problem.kind.policy().status);
        (status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), Json(problem)).into_response()
    }
}
