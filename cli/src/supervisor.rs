//! Keeps the parts alive on this machine: starts them, restarts any that die, and stops them in order.
//!
//! Each part is a child process with its own process group, so that a Ctrl-C at the terminal reaches only the
//! supervisor. A part that is replaced hands its place over (`renewing`).

mod renewing;

use crate::house::{House, PlanCopy, Watch};
use crate::invocation::Source;
use crate::outlook;
use crate::part::Part;
use crate::process::Process;
use crate::remote::Remote;
use crate::renewal;
use crate::signals::Signals;
use crate::ui::Ui;
use crate::ui::progress::Progress;
use migrations::api::Status;
use migrations::plan::{Plan, ProxySettings};
use migrations::problem::Problem;
use renewing::Renewing;
use std::fs::File;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How often the children are checked. A dead proxy is noticed within this time.
const TICK: Duration = Duration::from_millis(100);
/// The first wait before a restart; it doubles each time a part dies before [`HEALTHY_AFTER`].
const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A part that lived this long is healthy: its next restart waits [`BACKOFF_MIN`] again.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);
/// How long a part may take to end before it is killed. `down` waits longer than two of these.
const STOP_PATIENCE: Duration = Duration::from_millis(4_500);
const LOOK_EVERY: Duration = Duration::from_secs(1);
const TRIM_EVERY: Duration = Duration::from_secs(30);

/// Not `Debug`: what the plan's variables hold may be secret.
pub(crate) struct Starter {
    pub(crate) executable: PathBuf,
    pub(crate) plan: PathBuf,
    pub(crate) controller: String,
    /// The plan that was accepted. A restart runs it, too, whatever became of the file.
    pub(crate) source: Source,
}

pub(crate) struct Supervisor {
    house: House,
    starter: Starter,
    plan: Plan,
    /// What the proxy was started with.
    served: ProxySettings,
    parts: Vec<Kept>,
    /// Processes whose place was taken. They end by themselves.
    leaving: Vec<Child>,
    renewing: Option<Renewing>,
    watch: Watch,
    progress: Progress,
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

#[derive(Debug)]
struct Kept {
    part: Part,
    child: Option<Child>,
    since: Instant,
    due: Instant,
    backoff: Duration,
    restarts: u32,
    ended: Option<String>,
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
        Ok(Self {
            house,
            starter,
            served: plan.proxy.clone(),
            parts: Part::of(&plan).into_iter().map(Kept::new).collect(),
            plan,
            leaving: Vec::new(),
            renewing: None,
            watch,
            progress,
            trimmed: Instant::now(),
        })
    }

    /// Keeps the parts alive until SIGINT, SIGTERM or SIGHUP, then stops them. The result names a slot that still keeps
    /// WAL.
    pub(crate) async fn run(mut self, remote: Remote) -> Result<Watch, Problem> {
        let mut signals = Signals::listen()?;
        let (sender, mut status) = watch::channel(None);
        let looking = tokio::spawn(look(remote, sender));
        let mut wishes = self.wishes();
        loop {
            self.renew();
            self.tick();
            self.take_in(status.borrow_and_update().as_ref());
            tokio::select! {
                () = signals.received() => break,
                Some(asked) = async { wishes.as_mut()?.recv().await }, if wishes.is_some() => self.begin(asked),
                () = tokio::time::sleep(TICK) => {}
            }
        }
        looking.abort();
        self.progress.state("stopping");
        tokio::select! {
            () = self.stop() => {}
            // A second signal means: do not wait.
            () = signals.received() => self.kill(),
        }
        self.house.forget_up();
        self.progress.clear();
        Ok(self.watch)
    }

    /// Wishes of other commands to replace the parts; none where no socket can be made.
    fn wishes(&self) -> Option<tokio::sync::mpsc::Receiver<renewal::Asked>> {
        match renewal::listen(&self.house) {
            Ok(wishes) => Some(wishes),
            Err(error) => {
                self.progress.note(&format!("`strangler reload` cannot reach this process: {error}"));
                None
            }
        }
    }

    fn tick(&mut self) {
        self.leaving.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        let replaced = self.renewing.as_ref().and_then(Renewing::part);
        for at in 0..self.parts.len() {
            if Some(self.parts[at].part) == replaced {
                continue;
            }
            self.bury(at);
            let kept = &self.parts[at];
            if kept.child.is_none() && Instant::now() >= kept.due {
                self.start(at);
            }
        }
        if self.trimmed.elapsed() >= TRIM_EVERY {
            self.trimmed = Instant::now();
            for name in self.parts.iter().map(|kept| kept.part.name()).chain(["up"]) {
                // Tried again next time; a full or broken disk shows elsewhere first.
                let _ = self.house.trim_log(name);
            }
        }
    }

    fn bury(&mut self, at: usize) {
        let kept = &mut self.parts[at];
        let ended = match kept.child.as_mut().map(Child::try_wait) {
            Some(Ok(Some(status))) => end(status),
            Some(Err(error)) => format!("could not be watched: {error}"),
            Some(Ok(None)) | None => return,
        };
        kept.child = None;
        kept.backoff = after(kept.since.elapsed(), kept.backoff);
        kept.due = Instant::now() + kept.backoff;
        kept.restarts = kept.restarts.saturating_add(1);
        let text = format!("the {} {ended}; restarting it in {} s", kept.part.name(), kept.backoff.as_secs());
        kept.ended = Some(ended);
        self.progress.note(&text);
    }

    fn start(&mut self, at: usize) {
        let part = self.parts[at].part;
        let spawned = self.house.log(part.name()).map_err(|problem| problem.message).and_then(|log| {
            let (executable, source) = (&self.starter.executable, &self.starter.source);
            let command = self.command(part, log, PlanCopy::Running, executable, source);
            command.and_then(|mut command| command.spawn()).map_err(|error| error.to_string())
        });
        if part == Part::Proxy {
            self.served = self.plan.proxy.clone();
        }
        let kept = &mut self.parts[at];
        kept.since = Instant::now();
        match spawned {
            Ok(child) => {
                let record = Process { ended: kept.ended.clone(), ..Process::of(child.id(), kept.restarts) };
                kept.child = Some(child);
                let started = format!("started the {} (pid {})", part.name(), record.pid);
                self.progress.note(&started);
                if let Err(problem) = self.house.note(part, &record) {
                    self.progress.note(&problem.message);
                }
            }
            Err(error) => {
                kept.backoff = after(Duration::ZERO, kept.backoff);
                kept.due = Instant::now() + kept.backoff;
                kept.restarts = kept.restarts.saturating_add(1);
                let text = format!("could not start the {}: {error}", part.name());
                kept.ended = Some(error);
                self.progress.note(&text);
            }
        }
    }

    fn command(
        &self,
        part: Part,
        log: File,
        copy: PlanCopy,
        executable: &Path,
        source: &Source,
    ) -> std::io::Result<Command> {
        let mut command = Command::new(executable);
        command.arg("--plan").arg(&self.starter.plan).arg("--plan-copy").arg(self.house.plan_copy(copy));
        command.arg("--controller").arg(&self.starter.controller);
        for (name, value) in &source.variables {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.arg(part.name()).process_group(0);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(command)
    }

    /// Records the slot that keeps WAL as soon as it is known, so that `down` can name it without a controller.
    fn take_in(&mut self, status: Option<&Status>) {
        if let Some(status) = status {
            let kept = outlook::kept(status, self.watch.kept.as_ref());
            if kept != self.watch.kept {
                self.watch.kept = kept;
                if let Err(problem) = self.house.note_up(&self.watch) {
                    self.progress.note(&problem.message);
                }
            }
        }
        let parts = self.parts.iter().map(|kept| (kept.part, kept.child.is_some()));
        let line = outlook::line(parts, status, self.progress.is_live());
        self.progress.state(&line);
    }

    /// Stops bridge and controller first and the proxy last, so that requests are served until the end.
    async fn stop(&mut self) {
        self.leaving.extend(self.renewing.take().and_then(Renewing::into_child));
        let leaving = std::mem::take(&mut self.leaving);
        let left = leaving.into_iter().map(|mut child| async move {
            Process::of(child.id(), 0).end(STOP_PATIENCE).await;
            let _ = child.wait();
        });
        let (proxies, others): (Vec<_>, Vec<_>) =
            self.parts.iter_mut().partition(|kept| kept.part == Part::Proxy);
        futures_util::future::join_all(others.into_iter().map(|kept| end_child(&self.house, kept))).await;
        let proxies = proxies.into_iter().map(|kept| end_child(&self.house, kept));
        tokio::join!(futures_util::future::join_all(proxies), futures_util::future::join_all(left));
    }

    fn kill(&mut self) {
        for mut child in self.leaving.drain(..) {
            let _ = child.kill().and_then(|()| child.wait());
        }
        for kept in &mut self.parts {
            if let Some(mut child) = kept.child.take() {
                // It may have just ended by itself.
                let _ = child.kill().and_then(|()| child.wait());
            }
            self.house.forget(kept.part);
        }
    }
}

impl Kept {
    fn new(part: Part) -> Self {
        let now = Instant::now();
        Self { part, child: None, since: now, due: now, backoff: BACKOFF_MIN / 2, restarts: 0, ended: None }
    }
}

async fn end_child(house: &House, kept: &mut Kept) {
    if let Some(child) = kept.child.as_mut() {
        Process::of(child.id(), 0).end(STOP_PATIENCE).await;
        // Reaps it, which frees its pid. It has ended or was just killed, so this does not block.
        let _ = child.wait();
    }
    kept.child = None;
    house.forget(kept.part);
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

/// How long to wait before restarting a part that lived for `lived`.
fn after(lived: Duration, last: Duration) -> Duration {
    if lived >= HEALTHY_AFTER { BACKOFF_MIN } else { (last * 2).clamp(BACKOFF_MIN, BACKOFF_MAX) }
}

fn end(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_dies_young_waits_longer_each_time_and_never_too_long() {
        let mut backoff = BACKOFF_MIN / 2;
        let mut waits = Vec::new();
        for _ in 0..6 {
            backoff = after(Duration::ZERO, backoff);
            waits.push(backoff.as_secs());
        }
        assert_eq!(waits, [1, 2, 4, 8, 10, 10]);
        assert_eq!(after(HEALTHY_AFTER, BACKOFF_MAX), BACKOFF_MIN);
    }
}
