//! Drives one slice through its crossing while it has the lease: observe, ask `migrations::cutover::advance`, do what it
//! says, look again. It chooses nothing itself.

use super::compare::Line;
use super::interruption::{ended, left, passed};
use super::lease::Lease;
use super::sight::Sight;
use super::trouble::Trouble;
use super::work::{Done, Work};
use crate::course::Course;
use crate::desk::Desk;
use crate::place::Place;
use crate::store::Draft;
use migrations::api::{CrossingEnd, Phase};
use migrations::code::Code;
use migrations::crossing::Moment;
use migrations::cutover::{Awaited, Compared, Names, Next, Step, advance, stay};
use migrations::finding::Finding;
use migrations::gate::Side;
use migrations::journal::{Generation, SliceState, State};
use migrations::plan::Slice;
use migrations::stage::{Event, Stage};
use migrations::verify::{CompareAnswer, Difference};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// A fence stalls those who write while it waits, so it is tried so often and no more.
const FENCES_MAX: u32 = 10;
const FENCE_PAUSE: Duration = Duration::from_millis(30);
/// Between tries of any other step, and of an entry.
const PAUSE: Duration = Duration::from_millis(250);

pub(super) struct Driver<'a> {
    desk: &'a Desk,
    slice: &'a Slice,
    names: Names<'a>,
    lease: &'a Lease<'a>,
    ends: watch::Receiver<bool>,
    work: Work<'a>,
    sight: Sight,
    course: Option<Course>,
    /// The journal's length when it began.
    began: Generation,
    /// For how long this process had stood still when it looked last.
    stood: Duration,
}

impl<'a> Driver<'a> {
    pub(super) fn new(
        desk: &'a Desk,
        slice: &'a Slice,
        lease: &'a Lease<'a>,
        line: &'a Line,
        ends: watch::Receiver<bool>,
    ) -> Driver<'a> {
        Driver {
            desk,
            slice,
            names: Names::of(&desk.plan, slice),
            lease,
            ends,
            work: Work::new(desk, slice, line),
            sight: Sight::default(),
            course: None,
            began: desk.state().map_or(Generation(0), |state| state.generation),
            stood: desk.agents.clock.stood(),
        }
    }

    /// Until nothing is left to do. When this process ends, what is not decided yet is given up, and what is decided is
    /// released.
    pub(super) async fn run(&mut self) {
        let (mut reports, mut revisions) = (self.desk.agents.reports(), self.desk.revisions());
        loop {
            reports.mark_unchanged();
            revisions.mark_unchanged();
            let Some(all) = self.desk.state() else { return };
            let state = all.slice(&self.slice.name);
            let arrives = self.sight.place != Some(Place::of(&state));
            self.come_to(&all, &state).await;
            self.notice_standstill();
            if arrives && Place::needs_coordinator(&state) && !self.desk.is_to_drive(&self.slice.name, &state)
            {
                return self.conclude().await;
            }
            let is_ending = *self.ends.borrow();
            let next = if is_ending { leave(&state, self.lease.now()) } else { None };
            if is_ending && state.hold.is_none() {
                return;
            }
            match next.unwrap_or_else(|| self.next(&all, &state)) {
                Next::Done => return self.conclude().await,
                Next::Do(step) => self.act(step, &state).await,
                // The time of the hold begins after that.
                Next::Journal(Event::RollbackStarted { .. }) if !self.sight.is_made_ready => {
                    self.work.make_ready().await;
                    self.sight.is_made_ready = true;
                }
                Next::Journal(event) => self.journal(event, &state).await,
                Next::Wait(awaited, until) => {
                    self.told(awaited);
                    let silence = self.desk.agents.next_silence();
                    let until = silence.into_iter().fold(self.lease.instant(until), Instant::min);
                    tokio::select! {
                        biased;
                        _ = reports.changed() => {}
                        _ = revisions.changed() => {}
                        () = tokio::time::sleep_until(until) => {}
                        () = ended(&mut self.ends, is_ending) => {}
                    }
                }
            }
        }
    }

    fn next(&mut self, all: &State, state: &SliceState) -> Next {
        let (plan, agents, name) = (&self.desk.plan, &self.desk.agents, &self.slice.name);
        let moment = |instant| self.lease.moment(instant);
        let seen = self.sight.seen(plan, agents, name, (all, state), moment);
        advance(state, &seen, self.lease.now())
    }

    /// What was seen of another place counts no more.
    async fn come_to(&mut self, all: &State, state: &SliceState) {
        let place = Place::of(state);
        if self.sight.place == Some(place) {
            return;
        }
        let name = &self.slice.name;
        let wrote = self.desk.entered(name).filter(|(entered, _)| *entered == place).map(|(_, at)| at);
        // Whoever holds the lease while someone else writes sees the slice come; else it was found so.
        let watched = self.sight.place.is_some();
        let is_undecided = matches!(state.stage, Stage::Cutting { .. } | Stage::Returning { .. });
        let since = wrote.or_else(|| (watched || !is_undecided).then(Instant::now));
        self.sight.enter(place, since, all, &self.desk.agents.lanes(name));
        self.measure(state);
        if state.hold.is_some() && !is_undecided {
            let owner = if state.stage.is_at_service() { Side::Service } else { Side::Monolith };
            // The entry may have turned the monolith's gate. Where it cannot be seen, it is opened, which harms nothing.
            match self.work.gate(owner).await {
                Ok(gate) => *self.sight.gate(owner) = gate,
                Err(trouble) => tracing::debug!(slice = %name, ?trouble, "a gate was not seen yet"),
            }
        }
    }

    /// While this process stood still the proxies heard nothing of it, so what is decided is as if found here.
    fn notice_standstill(&mut self) {
        let stood = self.desk.agents.clock.stood();
        if std::mem::replace(&mut self.stood, stood) != stood && self.sight.is_decided() {
            self.sight.since = None;
        }
    }

    fn measure(&mut self, state: &SliceState) {
        // What is prepared, and the start of a rollback, begin another one; a release belongs to what was decided.
        let begins = begins(state);
        if self.course.is_none() || begins.is_some() {
            self.course = Course::of(&self.slice.name, state, self.sight.since);
            if let (Some(course), Some(event)) = (&mut self.course, begins) {
                course.did(self.names.event(&event));
            }
        }
        self.publish();
    }

    fn told(&mut self, awaited: Awaited) {
        if let Some(course) = &mut self.course
            && awaited != Awaited::Deadline
        {
            course.did(self.names.wait(awaited));
            self.publish();
        }
        let is_overdue = matches!(awaited, Awaited::LittleLag(Side::Service));
        let is_split = self.sight.place.is_some_and(|place| place.stage == "split" && !place.is_held);
        let finding = (is_overdue && is_split).then(|| {
            let name = &self.slice.name;
            let message = format!(
                "the time of slice {name} is over, but it returns only when {awaited}: the service serves on"
            );
            Finding::error(Code::SliceWayBack, message, format!("look at `strangler sync status {name}`"))
        });
        self.alarm(finding);
    }

    fn alarm(&self, finding: Option<Finding>) {
        let words = finding.as_ref().map(|finding| finding.message.clone());
        if self.desk.courses.alarm(&self.slice.name, finding)
            && let Some(error) = words
        {
            tracing::error!(slice = %self.slice.name, %error, "a crossing does not go on");
        }
    }

    fn publish(&self) {
        if let Some(course) = &self.course {
            self.desk.courses.publish(course.report());
        }
    }

    async fn act(&mut self, step: Step, state: &SliceState) {
        self.begin(step);
        let began = Instant::now();
        let line = self.names.step(step, state);
        let (place, name) = (Place::of(state), &self.slice.name);
        let until = undecided_until(state).map(|until| self.lease.instant(until));
        let is_ending = *self.ends.borrow();
        let outcome = tokio::select! {
            biased;
            () = left(self.desk, name, place) => return,
            done = self.work.step(step, state.epoch) => done,
            () = passed(until) => Err(Trouble::Again("there was no more time".to_owned())),
            () = ended(&mut self.ends, is_ending) => return,
        };
        let ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        match outcome {
            Ok(done) => {
                tracing::info!(slice = %name, step = line, ms, "done");
                self.done(step, line, done);
            }
            Err(trouble) => {
                let tries = self.sight.tries + 1;
                tracing::warn!(slice = %name, step = line, ms, ?trouble, tries, "not done");
                self.not_done(step, trouble, place).await;
            }
        }
    }

    /// Everything before this step is over.
    fn begin(&mut self, step: Step) {
        let phase = match step {
            Step::Fence(_) => Phase::Drained,
            Step::Compare => Phase::Arrived,
            Step::Inspect | Step::Reserve(_) | Step::Open(_) | Step::Number(_) => return,
        };
        self.reached(phase);
    }

    fn done(&mut self, step: Step, line: String, done: Done) {
        (self.sight.tries, self.sight.trouble) = (0, None);
        self.alarm(None);
        if let Some(course) = &mut self.course {
            course.did(line);
        }
        match done {
            Done::Ready(digest) => self.sight.ready = Some(digest),
            Done::Reserved => self.sight.is_reserved = true,
            Done::Turned(side, gate) => *self.sight.gate(side) = gate,
            Done::Compared(schema, rows) => {
                self.sight.compared = Some(Compared { differences: rows.differences.total, schema });
                self.compared(rows);
            }
            Done::Numbered => self.sight.is_numbered = true,
        }
        match step {
            Step::Fence(_) => self.reached(Phase::Fenced),
            Step::Compare => self.reached(Phase::Compared),
            Step::Number(_) => self.reached(Phase::Numbered),
            Step::Inspect | Step::Reserve(_) | Step::Open(_) => self.publish(),
        }
    }

    fn compared(&mut self, rows: CompareAnswer) {
        let CompareAnswer { compared, differences, incomplete_because, .. } = rows;
        let total = differences.total;
        tracing::info!(slice = %self.slice.name, compared, differences = total, ?incomplete_because, "rows compared");
        let told =
            |first: &Difference| format!("{} {:?} is the first of {total}", first.row.table, first.row.key);
        self.sight.trouble = differences.listed.first().map(told);
        if let Some(course) = &mut self.course {
            course.compared(incomplete_because);
        }
    }

    fn reached(&mut self, phase: Phase) {
        if let Some(course) = &mut self.course {
            course.reached(phase);
        }
        self.publish();
    }

    async fn not_done(&mut self, step: Step, trouble: Trouble, place: Place) {
        self.sight.tries += 1;
        let (why, is_final) = match trouble {
            Trouble::Final(why) => (why, true),
            Trouble::Again(why) => {
                let tries_max = match step {
                    Step::Fence(_) => FENCES_MAX,
                    // Writes are held already.
                    Step::Reserve(Side::Service) => 1,
                    _ => u32::MAX,
                };
                (why, self.sight.tries >= tries_max)
            }
            Trouble::Stale(why) => {
                // The journal says what was decided meanwhile; the same again means that the gate knows more.
                let _ = self.desk.refresh().await;
                (why, self.sight.tries >= FENCES_MAX)
            }
        };
        if let Step::Open(side) = step {
            let name = &self.slice.name;
            let message = format!("the {side} owns slice {name}, but its gate is not open yet: {why}");
            let remedy =
                format!("it is tried again; look at the {side}'s database and at `strangler journal`");
            self.alarm(Some(Finding::error(Code::SliceUnfinished, message, remedy)));
        } else if is_final {
            self.sight.failed = Some(format!("could not {step}: {why}"));
        }
        self.sight.trouble = Some(why);
        let pause = if matches!(step, Step::Fence(_)) { FENCE_PAUSE } else { PAUSE };
        tokio::select! {
            biased;
            () = tokio::time::sleep(pause) => {}
            () = left(self.desk, &self.slice.name, place) => {}
        }
    }

    /// Writes what was decided, unless someone decided otherwise meanwhile.
    async fn journal(&mut self, event: Event, judged: &SliceState) {
        let event = self.with_trouble(event);
        if !matches!(
            event,
            Event::CutoverStarted { .. } | Event::RollbackStarted { .. } | Event::CutoverCommitted { .. }
        ) {
            self.work.let_go().await;
        }
        let reason = self.reason(&event);
        let name = &self.slice.name;
        let decided = self.desk.decide(|state| {
            if state.slice(name) != *judged {
                return Ok(None);
            }
            let decided = state.plan_move(name, event.clone())?;
            Ok(Some(Draft { actor: "coordinator".to_owned(), reason: reason.clone(), decided }))
        });
        match decided.await {
            Ok((_, Some(_))) => self.wrote(&event),
            Ok((_, None)) => {}
            Err(problem) => {
                tracing::warn!(slice = %name, event = event.name(), why = problem.message, "not journalled yet");
                tokio::time::sleep(PAUSE).await;
                let _ = self.desk.refresh().await;
            }
        }
    }

    /// An abort says what the last try ran into, which `advance` does not know.
    fn with_trouble(&self, mut event: Event) -> Event {
        if let Event::CutoverAborted { why, .. } | Event::RollbackAborted { why, .. } = &mut event
            && let Some(trouble) = &self.sight.trouble
            && !why.contains(trouble)
        {
            *why = format!("{why}: {trouble}");
        }
        event
    }

    fn reason(&self, event: &Event) -> String {
        let held = self.course.as_ref().and_then(Course::held);
        match (event, held) {
            (Event::Released { .. } | Event::CutoverAborted { .. }, Some(held)) => {
                format!("writes were held for {} ms", held.as_millis())
            }
            _ => String::new(),
        }
    }

    fn wrote(&mut self, event: &Event) {
        let line = self.names.event(event);
        let Some(course) = &mut self.course else { return };
        course.did(line);
        match event {
            Event::CutoverStarted { epoch, .. } | Event::RollbackStarted { epoch, .. } => course.hold(*epoch),
            Event::CutoverCommitted { .. } | Event::RollbackCommitted { .. } => {
                course.reached(Phase::Decided);
                course.end(CrossingEnd::Committed);
            }
            Event::CutoverAborted { why, .. } => {
                course.reached(Phase::Decided);
                course.let_go();
                course.end(CrossingEnd::Aborted { why: why.clone() });
            }
            Event::RollbackAborted { why, .. } => {
                course.reached(Phase::Decided);
                course.end(CrossingEnd::Aborted { why: why.clone() });
            }
            Event::Released { .. } => {
                course.reached(Phase::Released);
                course.let_go();
            }
            _ => {}
        }
        if let Some(ms) = course.report().hold_ms {
            tracing::info!(slice = %self.slice.name, ms, phases = ?course.report().phases, "writes are held no longer");
        }
        self.publish();
    }

    /// Nothing is left to do. What someone else decided meanwhile is read from the journal.
    async fn conclude(&mut self) {
        self.alarm(None);
        let Some(course) = self.course.as_mut().filter(|course| course.report().end.is_none()) else {
            return;
        };
        let name = &self.slice.name;
        let entries = self.desk.entries(self.began).await.unwrap_or_default();
        let end = entries.into_iter().rev().filter(|entry| entry.slice == *name).find_map(|entry| {
            Some(match entry.event {
                Event::CutoverAborted { why, .. } | Event::RollbackAborted { why, .. } => {
                    CrossingEnd::Aborted { why }
                }
                Event::CutoverCommitted { .. } | Event::RollbackCommitted { .. } => CrossingEnd::Committed,
                _ => return None,
            })
        });
        course.let_go();
        if let Some(end) = end {
            course.end(end);
        }
        self.publish();
    }
}

/// A controller that is stopped in order leaves no slice without an owner.
fn leave(state: &SliceState, now: Moment) -> Option<Next> {
    let (epoch, why) = (state.epoch.next(), "the controller was stopped".to_owned());
    match state.stage {
        Stage::Cutting { .. } => Some(Next::Journal(Event::CutoverAborted { epoch, why })),
        Stage::Returning { .. } => Some(Next::Journal(stay(state, why, now))),
        _ => None,
    }
}

/// The entry that began what the slice is in now.
fn begins(state: &SliceState) -> Option<Event> {
    match (state.preparing, state.stage, state.hold) {
        (Some(preparing), ..) => Some(Event::CutoverPrepared { preparing }),
        (None, Stage::Returning { .. }, Some(hold)) => {
            Some(Event::RollbackStarted { epoch: hold.epoch, until: hold.until })
        }
        _ => None,
    }
}

/// Until when a crossing must be decided; none once it is.
fn undecided_until(state: &SliceState) -> Option<Moment> {
    let is_undecided = matches!(state.stage, Stage::Cutting { .. } | Stage::Returning { .. });
    let held = state.hold.filter(|_| is_undecided).map(|hold| hold.until);
    held.or_else(|| state.preparing.map(|preparing| preparing.until))
}
