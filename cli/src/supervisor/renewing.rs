//! Puts new processes in the place of those that run, one part after the other. The old process serves until the new one has
//! taken its place; if the new one fails before, nothing has changed for the old one.

mod verdict;

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
use std::process::{Child, ExitStatus};
use std::time::Instant;
use tokio::sync::mpsc::Sender;
use verdict::{PLACE_MAX, Sight, Verdict};

const LOG_LINES: usize = 4;

pub(super) struct Renewing {
    plan: Plan,
    source: Source,
    executable: PathBuf,
    /// Whether a part runs by the new plan: from here on there is only forward.
    is_adopted: bool,
    left: VecDeque<Part>,
    /// The edit does not touch it.
    keeps_proxy: bool,
    next: Option<Next>,
    words: Sender<Word>,
}

struct Next {
    part: Part,
    child: Child,
    since: Instant,
    /// Whether the old process had a place to give.
    is_offered: bool,
    /// Since when no process hands the place over.
    free_since: Option<Instant>,
    ended: Option<ExitStatus>,
}

impl Next {
    fn started(part: Part, child: Child, staff: &Staff) -> Self {
        let is_offered = staff.pid(part).is_some() && staff.house.holder(part) == staff.pid(part);
        Self { part, child, since: Instant::now(), is_offered, free_since: None, ended: None }
    }

    fn seen(&mut self, staff: &mut Staff) -> Sight {
        // An end counts from the second look on: the old process may give its place away just now.
        let has_ended = self.ended.is_some();
        self.ended = self.ended.or_else(|| self.child.try_wait().ok().flatten());
        let holder = staff.house.holder(self.part);
        self.free_since = holder.is_none().then(|| self.free_since.unwrap_or_else(Instant::now));
        Sight {
            has_ended,
            has_door: holder == Some(self.child.id()),
            old_has_door: holder.is_some() && holder == staff.pid(self.part),
            old_lives: staff.lives(self.part),
            is_offered: self.is_offered,
            waited: self.since.elapsed(),
            free: self.free_since.map(|since| since.elapsed()),
        }
    }
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
        let left: VecDeque<Part> = Part::of(&plan).into_iter().filter(needs).collect();
        let keeps_proxy = !left.contains(&Part::Proxy);
        Ok(Renewing { plan, source, executable, is_adopted: false, left, keeps_proxy, next: None, words })
    }

    /// One step: looks whether the new process has the place, or starts the next one. False when it is over.
    pub(super) fn goes_on(&mut self, staff: &mut Staff) -> bool {
        let ended = match self.next.take() {
            Some(next) => self.look_at(staff, next),
            None => match self.left.pop_front() {
                Some(part) => self.start_next(staff, part),
                None => {
                    if self.keeps_proxy {
                        staff.refresh_certificates();
                    }
                    Some(Word::Done)
                }
            },
        };
        let Some(word) = ended else { return true };
        if !self.is_adopted {
            staff.house.drop_plan(PlanCopy::Next);
        }
        self.say(word);
        false
    }

    fn start_next(&mut self, staff: &mut Staff, part: Part) -> Option<Word> {
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
                self.next = Some(Next::started(part, child, staff));
                None
            }
            Err(problem) => {
                if !staff.lives(part) {
                    staff.start_again(part);
                }
                Some(Word::Failed(problem))
            }
        }
    }

    fn look_at(&mut self, staff: &mut Staff, mut next: Next) -> Option<Word> {
        let part = next.part;
        let verdict = next.seen(staff).verdict();
        match verdict {
            Verdict::Awaited => self.next = Some(next),
            Verdict::InPlace => {
                self.adopt(staff);
                let ms = u64::try_from(next.since.elapsed().as_millis()).unwrap_or(u64::MAX);
                staff.put_in_place(part, next.child);
                self.say(Word::Replaced { part: part.name().to_owned(), ms });
            }
            Verdict::Failed | Verdict::Fell => {
                let how = match next.ended {
                    Some(status) => staff::end(status),
                    None => {
                        // It may have just ended by itself.
                        let _ = next.child.kill().and_then(|()| next.child.wait());
                        format!("was not ready within {} s", PLACE_MAX.as_secs())
                    }
                };
                let rest = match verdict {
                    Verdict::Fell if staff.start_again(part) => "another one is started",
                    Verdict::Fell => "the plan that runs needs none",
                    _ => "the one that runs goes on",
                };
                return Some(failed(part, &how, rest, &staff.house));
            }
        }
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

fn failed(part: Part, how: &str, rest: &str, house: &House) -> Word {
    let (name, words) = (part.name(), house.log_end(part.name(), LOG_LINES).join("\n  "));
    Word::Failed(Problem::new(
        Code::PartFailed,
        format!("the new {name} {how}; {rest}\n  {words}"),
        format!("read the whole log: {}; then run it again", house.log_path(name).display()),
    ))
}
