//! Verifications: a slice's rows are compared on both sides, exactly, while both sides move.
//!
//! What is compared is what the lanes of the slice's stage write: while the monolith owns the slice, its rows as the plan's
//! mapping makes them, against the service's; once the service owns it, the service's rows as the way back makes them,
//! against the monolith's, and the reference tables as before. At most one verification for each slice.

mod barrier;
mod kept;
mod look;
mod pace;
pub(crate) mod port;
mod proof;
mod run;
pub(crate) mod subject;
mod table;

use kept::{Kept, Shelf};
use migrations::code::Code;
use migrations::lane::LaneId;
use migrations::names::SliceName;
use migrations::problem::Problem;
use migrations::stage::{Owner, Stage};
use migrations::verify::{Course, Verification, VerifyRequest};
use run::{Part, Run, Wishes};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use subject::Subject;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Verifications that wait to be started. Starting is immediate.
const STARTS_MAX: usize = 16;

/// One slice's verification that was begun in this process.
#[derive(Debug)]
struct Job {
    report: watch::Receiver<Verification>,
    wishes: watch::Sender<Wishes>,
}

impl Job {
    async fn stop(&mut self) {
        self.wishes.send_modify(|wishes| wishes.stop = true);
        // It ends at once; if it has ended before, it has said so.
        let _ = self.report.wait_for(|report| !report.course.is_under_way()).await;
    }
}

/// Begins verifications, and knows how they stand.
#[derive(Debug)]
pub(crate) struct Verifier {
    subjects: BTreeMap<LaneId, Arc<Subject>>,
    folder: PathBuf,
    jobs: Mutex<BTreeMap<SliceName, Job>>,
    starts: mpsc::Sender<Run>,
}

/// Runs what a [`Verifier`] begins.
#[derive(Debug)]
pub(crate) struct Runs(mpsc::Receiver<Run>);

impl Runs {
    pub(crate) async fn run(mut self) {
        let mut running = JoinSet::new();
        loop {
            tokio::select! {
                Some(run) = self.0.recv() => drop(running.spawn(run.go())),
                Some(_) = running.join_next() => {}
                else => return,
            }
        }
    }
}

impl Verifier {
    /// `folder` is where the bridge keeps what must survive a restart.
    pub(crate) fn new(subjects: BTreeMap<LaneId, Arc<Subject>>, folder: PathBuf) -> (Arc<Verifier>, Runs) {
        let (starts, runs) = mpsc::channel(STARTS_MAX);
        (Arc::new(Verifier { subjects, folder, jobs: Mutex::default(), starts }), Runs(runs))
    }

    /// Begins a verification, goes on with one that was stopped, or joins the one that runs.
    pub(crate) async fn start(&self, request: &VerifyRequest) -> Result<Verification, Problem> {
        let slice = &request.slice;
        let (owner, parts) = self.parts(slice)?;
        let wishes = Wishes { stop: false, full_speed: request.full_speed };
        let mut jobs = self.jobs.lock().await;
        if let Some(job) = jobs.get_mut(slice).filter(|job| job.report.borrow().course.is_under_way()) {
            if !request.restart {
                job.wishes.send_replace(wishes);
                return Ok(job.report.borrow().clone());
            }
            job.stop().await;
        }
        let shelf = Shelf::of(&self.folder, slice);
        let lanes = parts
            .iter()
            .filter_map(|part| Some((part.subject.plan.id.clone(), part.subject.order()?.attempt)));
        let mapping = parts.first().map(|part| part.subject.plan.slice.mapping_hash()).unwrap_or_default();
        let fresh = Kept::new(slice.clone(), owner, mapping, lanes.collect());
        let earlier = shelf.read().filter(|kept| !request.restart && kept.goes_on(&fresh));
        let kept = earlier.unwrap_or(fresh);
        let first = kept.report(Course::Running, false);
        let (report, wishes) = (watch::Sender::new(first.clone()), watch::Sender::new(wishes));
        let job = Job { report: report.subscribe(), wishes: wishes.clone() };
        let (since, kept_at) = (Instant::now(), Instant::now());
        let run =
            Run { parts: Arc::new(parts), kept, shelf, report, wishes: wishes.subscribe(), since, kept_at };
        self.starts.send(run).await.map_err(|_| ended())?;
        jobs.insert(slice.clone(), job);
        Ok(first)
    }

    /// How the last verification stands.
    pub(crate) async fn look(&self, slice: &SliceName) -> Result<Verification, Problem> {
        let subject = self.subject(&LaneId::forward(slice.clone())).ok_or_else(|| unknown(slice))?;
        if let Some(job) = self.jobs.lock().await.get(slice) {
            return Ok(job.report.borrow().clone());
        }
        let owner = subject.order().map_or(Owner::Monolith, |order| order.stage.owner());
        Ok(match Shelf::of(&self.folder, slice).read() {
            Some(kept) if kept.is_done => kept.report(Course::Done, false),
            Some(kept) => kept.report(Course::Stopped, false),
            None => Verification::none(slice.clone(), owner),
        })
    }

    /// Stops the one that runs; what it compared is kept.
    pub(crate) async fn stop(&self, slice: &SliceName) -> Result<Verification, Problem> {
        if let Some(job) = self.jobs.lock().await.get_mut(slice) {
            job.stop().await;
        }
        self.look(slice).await
    }

    /// The last reports of this process, for metrics.
    pub(crate) async fn reports(&self) -> Vec<Verification> {
        self.jobs.lock().await.values().map(|job| job.report.borrow().clone()).collect()
    }

    fn subject(&self, lane: &LaneId) -> Option<&Arc<Subject>> {
        self.subjects.get(lane)
    }

    /// Whose rows are the measure, and what is compared by which lane.
    fn parts(&self, slice: &SliceName) -> Result<(Owner, Vec<Part>), Problem> {
        let forward = self.subject(&LaneId::forward(slice.clone())).ok_or_else(|| unknown(slice))?;
        let order = forward.order().ok_or_else(|| waits(slice))?;
        let part = |subject: &Arc<Subject>, tables| Part { subject: subject.clone(), tables };
        match order.stage {
            Stage::Following { .. } | Stage::Cutting { .. } => {
                Ok((Owner::Monolith, vec![part(forward, forward.plan.tables.clone())]))
            }
            Stage::Split { .. } | Stage::Returning { .. } => {
                let back =
                    self.subject(&LaneId::reverse(slice.clone())).filter(|back| back.order().is_some());
                let back = back.ok_or_else(|| no_way_back(slice))?;
                let reference = forward.plan.slice.reference.clone();
                Ok((Owner::Service, vec![part(back, back.plan.tables.clone()), part(forward, reference)]))
            }
            Stage::Monolith | Stage::Copying | Stage::Retired => Err(no_copy(slice, order.stage)),
        }
    }
}

fn unknown(slice: &SliceName) -> Problem {
    Problem::new(
        Code::SliceUnknown,
        format!("the bridge knows no slice {slice} with tables"),
        "see `strangler status`",
    )
}

fn waits(slice: &SliceName) -> Problem {
    Problem::new(
        Code::BridgeWaits,
        format!("the bridge has no orders for slice {slice} yet"),
        "try again when its controller answers: see `strangler status`",
    )
}

fn no_copy(slice: &SliceName, stage: Stage) -> Problem {
    Problem::new(
        Code::SliceStage,
        format!("slice {slice} is {}: there is no copy that is kept up to date", stage.name()),
        format!("copy it first with `strangler sync start {slice}`, and wait until it follows"),
    )
}

fn no_way_back(slice: &SliceName) -> Problem {
    Problem::new(
        Code::SliceStage,
        format!("the service owns slice {slice}, and its rows do not come back: the monolith's are no copy"),
        "nothing can be compared in this stage",
    )
}

fn ended() -> Problem {
    Problem::new(Code::PartFailed, "the bridge is ending", "start it again with `strangler up --detach`")
}
