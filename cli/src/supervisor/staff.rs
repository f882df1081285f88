//! The processes of the parts on this machine: started, buried, started again, stopped.

use crate::house::{House, PlanCopy};
use crate::invocation::Source;
use crate::part::Part;
use crate::process::Process;
use crate::ui::progress::Progress;
use migrations::plan::{Plan, ProxySettings};
use nix::sys::signal::Signal;
use std::fs::File;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The first wait before a restart; it doubles each time a part dies before [`HEALTHY_AFTER`].
const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A part that lived this long is healthy: its next restart waits [`BACKOFF_MIN`] again.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);
/// How long a part may take to end before it is killed. `down` waits longer than two of these.
pub(super) const STOP_PATIENCE: Duration = Duration::from_millis(4_500);

/// Not `Debug`: what the plan's variables hold may be secret.
pub(crate) struct Starter {
    pub(crate) executable: PathBuf,
    pub(crate) plan: PathBuf,
    pub(crate) controller: String,
    /// The plan that was accepted. A restart runs it, too, whatever became of the file.
    pub(crate) source: Source,
}

pub(super) struct Staff {
    pub(super) house: House,
    pub(super) starter: Starter,
    pub(super) plan: Plan,
    /// What the proxy was started with.
    pub(super) served: ProxySettings,
    pub(super) parts: Vec<Kept>,
    /// Processes whose place was taken. They end by themselves.
    pub(super) leaving: Vec<Child>,
    pub(super) progress: Progress,
}

#[derive(Debug)]
pub(super) struct Kept {
    pub(super) part: Part,
    pub(super) child: Option<Child>,
    since: Instant,
    due: Instant,
    backoff: Duration,
    restarts: u32,
    ended: Option<String>,
}

impl Kept {
    fn new(part: Part) -> Self {
        let now = Instant::now();
        Self { part, child: None, since: now, due: now, backoff: BACKOFF_MIN / 2, restarts: 0, ended: None }
    }
}

impl Staff {
    /// Starts nothing yet.
    pub(super) fn new(house: House, starter: Starter, plan: Plan, progress: Progress) -> Self {
        let parts = Part::of(&plan).into_iter().map(Kept::new).collect();
        let served = plan.proxy.clone();
        Self { house, starter, plan, served, parts, leaving: Vec::new(), progress }
    }

    /// Starts what is due, and notices who died. The part that is `replaced` is another's matter.
    pub(super) fn tick(&mut self, replaced: Option<Part>) {
        self.leaving.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
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
        let words = self.house.log_end(kept.part.name(), 2).join("; ");
        let words = if words.is_empty() { words } else { format!(", its last words: {words}") };
        let text =
            format!("the {} {ended}{words}; restarting it in {} s", kept.part.name(), kept.backoff.as_secs());
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

    pub(super) fn command(
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

    /// Takes a plan for good: restarts run it, too. Returns the parts that it needs no more, which are being stopped.
    pub(super) fn adopt(&mut self, plan: Plan, source: Source, executable: PathBuf) -> Vec<Part> {
        if let Err(problem) = self.house.adopt_plan() {
            self.progress.note(&problem.message);
        }
        (self.plan, self.starter.source, self.starter.executable) = (plan, source, executable);
        let needed = Part::of(&self.plan);
        let (kept, needless) =
            std::mem::take(&mut self.parts).into_iter().partition(|kept| needed.contains(&kept.part));
        self.parts = kept;
        let stop = |Kept { part, child, .. }: Kept| {
            if let Some(child) = child {
                Process::of(child.id(), 0).signal(Signal::SIGTERM);
                self.leaving.push(child);
            }
            self.house.forget(part);
            part
        };
        needless.into_iter().map(stop).collect()
    }

    /// The new process serves. The old one ends what is under way, and then by itself.
    pub(super) fn put_in_place(&mut self, part: Part, child: Child) {
        let at = self.place_of(part);
        let kept = &mut self.parts[at];
        kept.since = Instant::now();
        let record = Process::of(child.id(), kept.restarts);
        self.leaving.extend(kept.child.replace(child));
        self.progress.note(&format!("the new {} took the place (pid {})", part.name(), record.pid));
        if part == Part::Proxy {
            self.served = self.plan.proxy.clone();
        }
        if let Err(problem) = self.house.note(part, &record) {
            self.progress.note(&problem.message);
        }
    }

    /// Has the proxy read its certificates again. One without TLS would end by this signal.
    pub(super) fn refresh_certificates(&self) {
        if let (Some(pid), Some(_)) = (self.pid(Part::Proxy), &self.served.tls) {
            Process::of(pid, 0).signal(Signal::SIGHUP);
        }
    }

    pub(super) fn pid(&self, part: Part) -> Option<u32> {
        let kept = self.parts.iter().find(|kept| kept.part == part)?;
        kept.child.as_ref().map(Child::id)
    }

    pub(super) fn lives(&mut self, part: Part) -> bool {
        let child = self.parts.iter_mut().find(|kept| kept.part == part).and_then(|kept| kept.child.as_mut());
        child.is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Starts a part at the next tick, because no process has its place. One that had it ends by itself. False if the plan
    /// does not need the part.
    pub(super) fn start_again(&mut self, part: Part) -> bool {
        if !Part::of(&self.plan).contains(&part) {
            return false;
        }
        let at = self.place_of(part);
        let kept = &mut self.parts[at];
        self.leaving.extend(kept.child.take());
        kept.due = Instant::now();
        true
    }

    fn place_of(&mut self, part: Part) -> usize {
        let known = self.parts.iter().position(|kept| kept.part == part);
        known.unwrap_or_else(|| {
            self.parts.push(Kept::new(part));
            self.parts.len() - 1
        })
    }

    /// Stops bridge and controller first and the proxy last, so that requests are served until the end.
    pub(super) async fn stop(&mut self) {
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

    pub(super) fn kill(&mut self) {
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

async fn end_child(house: &House, kept: &mut Kept) {
    if let Some(child) = kept.child.as_mut() {
        Process::of(child.id(), 0).end(STOP_PATIENCE).await;
        // Reaps it, which frees its pid. It has ended or was just killed, so this does not block.
        let _ = child.wait();
    }
    kept.child = None;
    house.forget(kept.part);
}

/// How long to wait before restarting a part that lived for `lived`.
fn after(lived: Duration, last: Duration) -> Duration {
    if lived >= HEALTHY_AFTER { BACKOFF_MIN } else { (last * 2).clamp(BACKOFF_MIN, BACKOFF_MAX) }
}

/// How a process ended.
pub(super) fn end(status: ExitStatus) -> String {
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

    #[test]
    fn a_part_that_is_new_in_the_plan_is_started_though_its_first_process_failed() {
        let plan = |database: &str| {
            let text = format!(
                "version: 1\nname: shop\nmonolith: {{ upstream: 'http://127.0.0.1:4000'{database} }}\nslices: {{}}\n"
            );
            migrations::plan::check("strangler.yaml", &text, &|_| None).unwrap().0
        };
        let folder = tempfile::tempdir().unwrap();
        let house = House::beside(&folder.path().join("strangler.yaml"));
        let source = || Source { text: String::new(), variables: [].into() };
        let starter = Starter {
            executable: PathBuf::new(),
            plan: PathBuf::new(),
            controller: String::new(),
            source: source(),
        };
        let mut staff = Staff::new(house, starter, plan(""), Progress::new(false));
        assert!(!staff.start_again(Part::Bridge), "the plan that runs has no bridge");
        staff.adopt(plan(", database: 'postgres://strangler@127.0.0.1/shop'"), source(), PathBuf::new());
        assert!(staff.start_again(Part::Bridge));
        let is_due =
            |kept: &Kept| kept.part == Part::Bridge && kept.child.is_none() && kept.due <= Instant::now();
        assert!(staff.parts.iter().any(is_due));
    }
}
