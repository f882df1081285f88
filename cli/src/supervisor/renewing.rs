//! Puts new processes in the place of those that run, one part after the other. The old process serves until the new one has
//! taken its place; if the new one fails before, nothing has changed for the old one.

use super::staff::{self, Staff};
use crate::house::{House, PlanCopy};
use crate::invocation::{Source, checked};
use crate::part::Part;
use crate::renewal::{Asked, Renewal, Word};
use migrations::code::Code;
use migrations::plan::Plan;
use migrations::problem::Problem;
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

    /// Begins what was asked for, or says why not. `is_busy` while another one is under way.
    pub(super) fn begin(asked: Asked, staff: &Staff, is_busy: bool) -> Option<Self> {
        let Asked { renewal, words } = asked;
        let begun = if is_busy {
            Err(Problem::new(
                Code::UpRunning,
                "parts are being replaced already",
                "wait for it, then look at `strangler status`",
            ))
        } else {
            Self::of(renewal, words.clone(), staff)
        };
        begun.map_err(|problem| words.try_send(Word::Failed(problem))).ok()
    }

    fn of(renewal: Renewal, words: Sender<Word>, staff: &Staff) -> Result<Self, Problem> {
        let Renewal { source, executable, every_part } = renewal;
        let (plan, _) = checked(&staff.starter.plan.display().to_string(), &source)?;
        if plan.controller.listen != staff.plan.controller.listen {
            return Err(Problem::new(
                Code::PlanInUse,
                format!(
                    "the controller cannot move from {} to {} while it is in use; nothing was changed",
                    staff.plan.controller.listen, plan.controller.listen
                ),
                "put `controller.listen` back; or at a quiet time `strangler down`, then `strangler up --detach`",
            ));
        }
        staff.house.keep_plan(PlanCopy::Next, &source.text)?;
        let is_other = every_part || executable != staff.starter.executable;
        let needs = |part: &Part| *part != Part::Proxy || is_other || plan.proxy != staff.served;
        let left = Part::of(&plan).into_iter().filter(needs).collect();
        Ok(Renewing { plan, source, executable, is_adopted: false, left, next: None, words })
    }

    /// One step: looks whether the new process has the place, or starts the next one. False when it is over.
    pub(super) fn goes_on(&mut self, staff: &mut Staff) -> bool {
        let ended = match self.next.take() {
            Some(next) => self.look_at(staff, next),
            None => match self.left.pop_front() {
                Some(part) => self.start_next(staff, part),
                None => Some(Word::Done),
            },
        };
        let Some(word) = ended else { return true };
        if !self.is_adopted {
            staff.house.drop_plan(PlanCopy::Next);
        }
        self.say(word);
        false
    }

    fn start_next(&mut self, staff: &Staff, part: Part) -> Option<Word> {
        let copy = if self.is_adopted { PlanCopy::Running } else { PlanCopy::Next };
        let spawned = staff.house.log(part.name()).and_then(|log| {
            let command = staff.command(part, log, copy, &self.executable, &self.source);
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
                staff.progress.note(&format!("starting a new {} (pid {})", part.name(), child.id()));
                self.next = Some(Next { part, child, since: Instant::now() });
                None
            }
            Err(problem) => Some(Word::Failed(problem)),
        }
    }

    fn look_at(&mut self, staff: &mut Staff, mut next: Next) -> Option<Word> {
        let part = next.part;
        if let Ok(Some(status)) = next.child.try_wait() {
            staff.restart_soon(part);
            return Some(failed(part, &staff::end(status), &staff.house));
        }
        if staff.house.holder(part) == Some(next.child.id()) {
            self.adopt(staff);
            let ms = u64::try_from(next.since.elapsed().as_millis()).unwrap_or(u64::MAX);
            staff.put_in_place(part, next.child);
            self.say(Word::Replaced { part: part.name().to_owned(), ms });
            return None;
        }
        if next.since.elapsed() >= PLACE_MAX {
            // It may have just ended by itself.
            let _ = next.child.kill().and_then(|()| next.child.wait());
            staff.restart_soon(part);
            let how = format!("was not ready within {} s", PLACE_MAX.as_secs());
            return Some(failed(part, &how, &staff.house));
        }
        self.next = Some(next);
        None
    }

    fn adopt(&mut self, staff: &mut Staff) {
        if self.is_adopted {
            return;
        }
        self.is_adopted = true;
        for part in staff.adopt(self.plan.clone(), self.source.clone(), self.executable.clone()) {
            self.say(Word::Stopped { part: part.name().to_owned() });
        }
    }

    fn say(&self, word: Word) {
        // Who asked may have left.
        let _ = self.words.try_send(word);
    }
}

fn failed(part: Part, how: &str, house: &House) -> Word {
    let (name, words) = (part.name(), house.log_end(part.name(), LOG_LINES).join("\n  "));
    Word::Failed(Problem::new(
        Code::PartFailed,
        format!("the new {name} {how}; the one that runs goes on\n  {words}"),
        format!("read the whole log: {}; then run it again", house.log_path(name).display()),
    ))
}
