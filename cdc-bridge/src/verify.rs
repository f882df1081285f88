//! Verifications: a slice's rows are compared on both sides, exactly, while both sides move.
//!
//! What is compared is what the lanes of the slice's stage write: while the monolith owns the slice, its rows as the plan's
//! mapping makes them, against the service's; once the service owns it, the service's rows as the way back makes them,
//! against the monolith's, and the reference tables as before. At most one verification for each slice.

mod again;
mod barrier;
mod kept;
mod look;
mod open;
mod pace;
pub(crate) mod port;
mod proof;
mod repair;
mod run;
pub(crate) mod subject;
mod table;
mod watch;

use kept::{Kept, Shelf};
use migrations::code::Code;
use migrations::lane::{Direction, LaneId};
use migrations::names::SliceName;
use migrations::problem::Problem;
use migrations::stage::{Owner, Stage};
use migrations::verify::{CompareAnswer, CompareRequest, Course, Verification, VerifyRequest};
use run::{Part, Run, Wishes};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use subject::Subject;
use tokio::sync::watch::{Receiver, Sender};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;
use watch::{Ask, Known, Watch};

/// Verifications that wait to be started. Starting is immediate.
const STARTS_MAX: usize = 16;

/// Questions of a slice that wait; one coordinator asks one at a time.
const ASKS_MAX: usize = 4;

/// One slice's verification that was begun in this process.
#[derive(Debug)]
struct Job {
    report: Receiver<Verification>,
    wishes: Sender<Wishes>,
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
    known: Known,
    asks: BTreeMap<SliceName, mpsc::Sender<Ask>>,
}

/// Runs what a [`Verifier`] begins, and watches each slice.
#[derive(Debug)]
pub(crate) struct Runs {
    starts: mpsc::Receiver<Run>,
    watches: Vec<(Watch, mpsc::Receiver<Ask>)>,
}

impl Runs {
    pub(crate) async fn run(mut self) {
        let mut running = JoinSet::new();
        for (watch, asks) in self.watches.drain(..) {
            running.spawn(watch.run(asks));
        }
        loop {
            tokio::select! {
                Some(run) = self.starts.recv() => drop(running.spawn(run.go())),
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
        let (known, mut asks, mut watches) = (Known::default(), BTreeMap::new(), Vec::new());
        for (lane, forward) in subjects.iter().filter(|(lane, _)| lane.direction == Direction::Forward) {
            let (sender, asked) = mpsc::channel(ASKS_MAX);
            asks.insert(lane.slice.clone(), sender);
            let back = subjects.get(&lane.opposite()).cloned();
            watches.push((Watch { forward: forward.clone(), back, known: known.clone() }, asked));
        }
        let verifier = Verifier { subjects, folder, jobs: Mutex::default(), starts, known, asks };
        (Arc::new(verifier), Runs { starts: runs, watches })
    }

    /// Begins a verification, goes on with one that was stopped, or joins the one that runs.
    pub(crate) async fn start(&self, request: &VerifyRequest) -> Result<Verification, Problem> {
        let slice = &request.slice;
        let (owner, parts) = self.parts(slice)?;
        let wishes = Wishes { stop: false, full_speed: request.full_speed, repair: request.repair };
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
        let (report, wishes) = (Sender::new(first.clone()), Sender::new(wishes));
        let job = Job { report: report.subscribe(), wishes: wishes.clone() };
        let (since, kept_at) = (Instant::now(), Instant::now());
        let (parts, known) = (Arc::new(parts), self.known.clone());
        let run = Run { parts, kept, shelf, report, wishes: wishes.subscribe(), known, since, kept_at };
        self.starts.send(run).await.map_err(|_| ended())?;
        jobs.insert(slice.clone(), job);
        Ok(first)
    }

    /// How the last verification stands.
    pub(crate) async fn look(&self, slice: &SliceName) -> Result<Verification, Problem> {
        let subject = self.subject(&LaneId::forward(slice.clone())).ok_or_else(|| unknown(slice))?;
        if let Some(job) = self.jobs.lock().await.get(slice) {
            let mut report = job.report.borrow().clone();
            let back = self.subject(&LaneId::reverse(slice.clone()));
            let owners = if report.owner == Owner::Service { back } else { Some(subject) };
            report.is_watched = owners.is_some_and(|owners| self.known.check(owners).is_ok());
            return Ok(report);
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

    /// Whether the rows that changed since the last verification are the same on both sides, which stand still.
    pub(crate) async fn compare(&self, request: &CompareRequest) -> Result<CompareAnswer, Problem> {
        let asks = self.asks.get(&request.slice).ok_or_else(|| unknown(&request.slice))?;
        let (answer, answered) = oneshot::channel();
        asks.send(Ask { epoch: request.epoch, answer }).await.map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }

    /// How many rows changed since they were compared, by lane, for metrics.
    pub(crate) fn changed(&self) -> impl Iterator<Item = (&LaneId, usize)> {
        self.subjects.iter().map(|(lane, subject)| (lane, subject.changed.count()))
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
