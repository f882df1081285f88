//! Keeps the parts alive on this machine: starts them, restarts any that die, and stops them in order.
//!
//! Each part is a child process with its own process group, so that a Ctrl-C at the terminal reaches only the
//! supervisor. A part that is replaced hands its place over (`renewing`).

mod renewing;
mod staff;

pub(crate) use staff::Starter;

use crate::house::{House, PlanCopy, Watch};
use crate::outlook;
use crate::part::Part;
use crate::process::Process;
use crate::remote::Remote;
use crate::renewal;
use crate::signals::Signals;
use crate::ui::Ui;
use crate::ui::progress::Progress;
use migrations::api::Status;
use migrations::plan::Plan;
use migrations::problem::Problem;
use renewing::Renewing;
use staff::{STOP_PATIENCE, Staff};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How often the children are checked. A dead proxy is noticed within this time.
const TICK: Duration = Duration::from_millis(100);
const LOOK_EVERY: Duration = Duration::from_secs(1);
const TRIM_EVERY: Duration = Duration::from_secs(30);

pub(crate) struct Supervisor {
    staff: Staff,
    renewing: Option<Renewing>,
    watch: Watch,
    trimmed: Instant,
}

/// Stops the parts of an earlier supervisor that was killed. They may hold our ports and locks.
pub(crate) async fn end_leftovers(house: &House, ui: &Ui) {
    for part in Part::ALL {
        if let Some(record) = house.running(part) {
            // A proxy that can hand over serves until the new one is ready.
            if part == Part::Proxy && house.holder(part) == Some(record.pid) {
                continue;
            }
            ui.note(format!(
                "the {} of an earlier `up` is still running (pid {}); stopping it",
                part.name(),
                record.pid
            ));
            record.end(STOP_PATIENCE).await;
        }
        house.forget(part);
    }
}

impl Supervisor {
    /// Starts nothing yet. The caller holds the folder's lock.
    pub(crate) fn new(
        house: House,
        starter: Starter,
        plan: Plan,
        progress: Progress,
    ) -> Result<Self, Problem> {
        let watch = Watch {
            process: Process::of(std::process::id(), 0),
            controller: starter.controller.clone(),
            kept: None,
        };
        house.keep_plan(PlanCopy::Running, &starter.source.text)?;
        house.note_up(&watch)?;
        let staff = Staff::new(house, starter, plan, progress);
        Ok(Self { staff, renewing: None, watch, trimmed: Instant::now() })
    }

    /// Keeps the parts alive until SIGINT, SIGTERM or SIGHUP, then stops them. The result names a slot that still keeps
    /// WAL.
    pub(crate) async fn run(mut self, remote: Remote) -> Result<Watch, Problem> {
        let mut signals = Signals::listen()?;
        let (sender, mut status) = watch::channel(None);
        let looking = tokio::spawn(look(remote, sender));
        let mut wishes = self.wishes();
        loop {
            self.tick();
            self.take_in(status.borrow_and_update().as_ref());
            tokio::select! {
                () = signals.received() => break,
                Some(asked) = async { wishes.as_mut()?.recv().await }, if wishes.is_some() => {
                    let begun = Renewing::begin(asked, &self.staff, self.renewing.is_some());
                    self.renewing = begun.or(self.renewing.take());
                }
                () = tokio::time::sleep(TICK) => {}
            }
        }
        looking.abort();
        self.staff.leaving.extend(self.renewing.take().and_then(Renewing::into_child));
        self.staff.progress.state("stopping");
        tokio::select! {
            () = self.staff.stop() => {}
            // A second signal means: do not wait.
            () = signals.received() => self.staff.kill(),
        }
        self.staff.house.forget_up();
        self.staff.progress.clear();
        Ok(self.watch)
    }

    /// Wishes of other commands to replace the parts; none where no socket can be made.
    fn wishes(&self) -> Option<tokio::sync::mpsc::Receiver<renewal::Asked>> {
        match renewal::listen(&self.staff.house) {
            Ok(wishes) => Some(wishes),
            Err(error) => {
                self.staff.progress.note(&format!("`strangler reload` cannot reach this process: {error}"));
                None
            }
        }
    }

    fn tick(&mut self) {
        if let Some(mut renewing) = self.renewing.take() {
            self.renewing = renewing.goes_on(&mut self.staff).then_some(renewing);
        }
        self.staff.tick(self.renewing.as_ref().and_then(Renewing::part));
        if self.trimmed.elapsed() >= TRIM_EVERY {
            self.trimmed = Instant::now();
            for name in self.staff.parts.iter().map(|kept| kept.part.name()).chain(["up"]) {
                // Tried again next time; a full or broken disk shows elsewhere first.
                let _ = self.staff.house.trim_log(name);
            }
        }
    }

    /// Records the slot that keeps WAL as soon as it is known, so that `down` can name it without a controller.
    fn take_in(&mut self, status: Option<&Status>) {
        if let Some(status) = status {
            let kept = outlook::kept(status, self.watch.kept.as_ref());
            if kept != self.watch.kept {
                self.watch.kept = kept;
                if let Err(problem) = self.staff.house.note_up(&self.watch) {
                    self.staff.progress.note(&problem.message);
                }
            }
        }
        let parts = self.staff.parts.iter().map(|kept| (kept.part, kept.child.is_some()));
        let line = outlook::line(parts, status, self.staff.progress.is_live());
        self.staff.progress.state(&line);
    }
}

/// Polls the controller's status. While the controller is unreachable the last answer stays.
async fn look(remote: Remote, sender: watch::Sender<Option<Status>>) {
    while !sender.is_closed() {
        if let Ok(status) = remote.status().await {
            sender.send_replace(Some(status));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
