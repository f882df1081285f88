//! Puts new processes in the place of those that run, one part after the other. The old process serves until the new one has
//! taken its place; if the new one fails before, nothing has changed for the old one.

use super::{Kept, Supervisor};
use crate::house::PlanCopy;
use crate::invocation::{Source, checked};
use crate::part::Part;
use crate::process::Process;
use crate::renewal::{Asked, Renewal, Word};
use migrations::code::Code;
use migrations::plan::Plan;
use migrations::problem::Problem;
use nix::sys::signal::Signal;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::Sender;

/// How long a part may take until it has the place. A bridge may have to open a large log.
const PLACE_MAX: Duration = Duration::from_secs(90);
const LOG_LINES: usize = 4;

pub(super) struct Renewing {
    plan: Plan,
    source: Source,
    executable: PathBuf,
    /// Whether a part runs by the new plan: from here on there is only forward.
    is_adopted: bool,
    left: VecDeque<Part>,
    next: Option<Next>,
    words: Sender<Word>,
}

struct Next {
    part: Part,
    child: Child,
    since: Instant,
}

impl Renewing {
    /// The part that is being replaced now.
    pub(super) fn part(&self) -> Option<Part> {
        self.next.as_ref().map(|next| next.part)
    }

    pub(super) fn into_child(self) -> Option<Child> {
        self.next.map(|next| next.child)
    }
}

impl Supervisor {
    pub(super) fn begin(&mut self, asked: Asked) {
        let Asked { renewal, words } = asked;
        match self.renewing(renewal, words.clone()) {
            Ok(renewing) => self.renewing = Some(renewing),
            Err(problem) => _ = words.try_send(Word::Failed(problem)),
        }
    }

    fn renewing(&self, renewal: Renewal, words: Sender<Word>) -> Result<Renewing, Problem> {
        if self.renewing.is_some() {
            return Err(Problem::new(
                Code::UpRunning,
                "parts are being replaced already",
                "wait for it, then look at `strangler status`",
            ));
        }
        let Renewal { source, executable, every_part } = renewal;
        let (plan, _) = checked(&self.starter.plan.display().to_string(), &source)?;
        if plan.controller.listen != self.plan.controller.listen {
            return Err(Problem::new(
                Code::PlanInUse,
                format!(
                    "the controller cannot move from {} to {} while it is in use; nothing was changed",
                    self.plan.controller.listen, plan.controller.listen
                ),
                "put `controller.listen` back; or at a quiet time `strangler down`, then `strangler up --detach`",
            ));
        }
        self.house.keep_plan(PlanCopy::Next, &source.text)?;
        let is_other = every_part || executable != self.starter.executable;
        let needs = |part: &Part| *part != Part::Proxy || is_other || plan.proxy != self.served;
        let left = Part::of(&plan).into_iter().filter(needs).collect();
        Ok(Renewing { plan, source, executable, is_adopted: false, left, next: None, words })
    }

    /// One step: looks whether the new process has the place, or starts the next one.
    pub(super) fn renew(&mut self) {
        let Some(mut renewing) = self.renewing.take() else { return };
        let ended = match renewing.next.take() {
            Some(next) => self.look_at(&mut renewing, next),
            None => match renewing.left.pop_front() {
                Some(part) => self.start_next(&mut renewing, part),
                None => Some(Word::Done),
            },
        };
        match ended {
            None => self.renewing = Some(renewing),
            Some(word) => {
                if !renewing.is_adopted {
                    self.house.drop_plan(PlanCopy::Next);
                }
                // Who asked may have left.
                let _ = renewing.words.try_send(word);
            }
        }
    }

    fn start_next(&mut self, renewing: &mut Renewing, part: Part) -> Option<Word> {
        let copy = if renewing.is_adopted { PlanCopy::Running } else { PlanCopy::Next };
        let spawned = self.house.log(part.name()).and_then(|log| {
            let command = self.command(part, log, copy, &renewing.executable, &renewing.source);
            command.and_then(|mut command| command.spawn()).map_err(|error| {
                Problem::new(
                    Code::PartFailed,
                    format!("could not start a new {}: {error}", part.name()),
                    "check `ulimit -u` and `ulimit -n`",
                )
            })
        });
        match spawned {
            Ok(child) => {
                self.progress.note(&format!("starting a new {} (pid {})", part.name(), child.id()));
                renewing.next = Some(Next { part, child, since: Instant::now() });
                None
            }
            Err(problem) => Some(Word::Failed(problem)),
        }
    }

    fn look_at(&mut self, renewing: &mut Renewing, mut next: Next) -> Option<Word> {
        let (part, name) = (next.part, next.part.name());
        let failed = |how: String, house: &crate::house::House| {
            let words = house.log_end(name, LOG_LINES).join("\n  ");
            let log = house.log_path(name);
            Word::Failed(Problem::new(
                Code::PartFailed,
                format!("the new {name} {how}; the one that runs goes on\n  {words}"),
                format!("read the whole log: {}; then run `strangler reload` again", log.display()),
            ))
        };
        if let Ok(Some(status)) = next.child.try_wait() {
            self.restart_soon(part);
            return Some(failed(super::end(status), &self.house));
        }
        if self.house.holder(part) == Some(next.child.id()) {
            let ms = u64::try_from(next.since.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.adopt(renewing);
            self.put_in_place(part, next.child);
            let _ = renewing.words.try_send(Word::Replaced { part: name.to_owned(), ms });
            return None;
        }
        if next.since.elapsed() >= PLACE_MAX {
            // It may have just ended by itself.
            let _ = next.child.kill().and_then(|()| next.child.wait());
            self.restart_soon(part);
            return Some(failed(format!("was not ready within {} s", PLACE_MAX.as_secs()), &self.house));
        }
        renewing.next = Some(next);
        None
    }

    /// From the first part that runs by it, restarts take the new plan, too.
    fn adopt(&mut self, renewing: &mut Renewing) {
        if renewing.is_adopted {
            return;
        }
        renewing.is_adopted = true;
        if let Err(problem) = self.house.adopt_plan() {
            self.progress.note(&problem.message);
        }
        self.starter.source = renewing.source.clone();
        self.starter.executable = renewing.executable.clone();
        self.plan = renewing.plan.clone();
        let needed = Part::of(&self.plan);
        let (kept, needless) =
            std::mem::take(&mut self.parts).into_iter().partition(|kept| needed.contains(&kept.part));
        self.parts = kept;
        for Kept { part, child, .. } in needless {
            if let Some(child) = child {
                Process::of(child.id(), 0).signal(Signal::SIGTERM);
                self.leaving.push(child);
            }
            self.house.forget(part);
            let _ = renewing.words.try_send(Word::Stopped { part: part.name().to_owned() });
        }
    }

    fn put_in_place(&mut self, part: Part, child: Child) {
        let at = match self.parts.iter().position(|kept| kept.part == part) {
            Some(at) => at,
            None => {
                self.parts.push(Kept::new(part));
                self.parts.len() - 1
            }
        };
        let kept = &mut self.parts[at];
        kept.since = Instant::now();
        let record = Process::of(child.id(), kept.restarts);
        // It ends what is under way, and then by itself.
        self.leaving.extend(kept.child.replace(child));
        self.progress.note(&format!("the new {} took the place (pid {})", part.name(), record.pid));
        if part == Part::Proxy {
            self.served = self.plan.proxy.clone();
        }
        if let Err(problem) = self.house.note(part, &record) {
            self.progress.note(&problem.message);
        }
    }

    /// The old process may have given its place away before the new one failed.
    fn restart_soon(&mut self, part: Part) {
        if let Some(kept) = self.parts.iter_mut().find(|kept| kept.part == part) {
            kept.due = Instant::now();
        }
    }
}
