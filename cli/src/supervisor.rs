//! Keeps the parts of the house alive on this machine: starts them, starts again what dies, stops them in order.
//!
//! Each part is a child of the same executable in a process group of its own, so that a Ctrl-C at the terminal
//! reaches only us. What the parts do is theirs.

use crate::house::{House, Watch};
use crate::outlook;
use crate::part::Part;
use crate::problem::Problem;
use crate::process::Record;
use crate::remote::Remote;
use crate::signals::Signals;
use crate::ui::Ui;
use crate::ui::progress::Progress;
use migrations::api::Status;
use std::fs::File;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How often the children are looked at: a dead proxy is found this soon.
const TICK: Duration = Duration::from_millis(100);
/// The first wait before a part is started again; it doubles each time it dies young.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
/// The longest wait before a part is started again.
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A part that lived this long is healthy: its next death counts as a first one.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);
/// How long a part may take to end before it is killed. Two rounds of it stay below what `down` waits.
const STOP_PATIENCE: Duration = Duration::from_millis(4_500);
/// How often the controller is asked how things stand.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often logs are looked at for their length.
const TRIM_EVERY: Duration = Duration::from_secs(30);

/// How children are made.
#[derive(Debug)]
pub struct Starter {
    /// Our own executable.
    pub executable: PathBuf,
    /// The plan, from the root.
    pub plan: PathBuf,
    /// Where the controller is reached from this machine.
    pub controller: String,
}

/// The parts under watch.
#[derive(Debug)]
pub struct Supervisor {
    house: House,
    starter: Starter,
    parts: Vec<Kept>,
    watch: Watch,
    progress: Progress,
    trimmed: Instant,
}

/// Ends what an earlier supervisor left behind when it was killed: its parts may hold our ports and locks.
pub async fn end_leftovers(house: &House, ui: &Ui) {
    for part in Part::ALL {
        if let Some(record) = house.running(part) {
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
    /// Takes charge of `parts`; the caller holds the folder's lock. Nothing is started yet.
    pub fn new(
        house: House,
        starter: Starter,
        parts: Vec<Part>,
        progress: Progress,
    ) -> Result<Self, Problem> {
        let now = Instant::now();
        let watch = Watch {
            process: Record::of(std::process::id(), 0),
            controller: starter.controller.clone(),
            kept: None,
        };
        house.note_up(&watch)?;
        let fresh = |part| Kept {
            part,
            child: None,
            since: now,
            due: now,
            backoff: BACKOFF_MIN / 2,
            restarts: 0,
            ended: None,
        };
        let parts = parts.into_iter().map(fresh).collect();
        Ok(Self { house, starter, parts, watch, progress, trimmed: now })
    }

    /// Keeps the parts until SIGINT, SIGTERM or SIGHUP, then stops them. Says what still keeps WAL, if anything does.
    pub async fn run(mut self, remote: Remote) -> Result<Watch, Problem> {
        let mut signals = Signals::listen()?;
        let (sender, mut status) = watch::channel(None);
        let looking = tokio::spawn(look(remote, sender));
        loop {
            self.tick();
            self.take_in(status.borrow_and_update().as_ref());
            tokio::select! {
                () = signals.received() => break,
                () = tokio::time::sleep(TICK) => {}
            }
        }
        looking.abort();
        self.progress.state("stopping");
        tokio::select! {
            () = self.stop() => {}
            // Asked twice: whoever asks does not want to wait.
            () = signals.received() => self.kill(),
        }
        self.house.forget_up();
        self.progress.clear();
        Ok(self.watch)
    }

    /// One look at every part: what died is noted, what is due is started.
    fn tick(&mut self) {
        for at in 0..self.parts.len() {
            self.bury(at);
            let kept = &self.parts[at];
            if kept.child.is_none() && Instant::now() >= kept.due {
                self.start(at);
            }
        }
        if self.trimmed.elapsed() >= TRIM_EVERY {
            self.trimmed = Instant::now();
            for name in self.parts.iter().map(|kept| kept.part.name()).chain(["up"]) {
                // A log that cannot be trimmed now is tried again; the disk's own error shows elsewhere first.
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
        let text =
            format!("the {} {ended}; restarting it in {} s", kept.part.name(), kept.backoff.as_secs());
        kept.ended = Some(ended);
        self.progress.note(&text);
    }

    fn start(&mut self, at: usize) {
        let part = self.parts[at].part;
        let spawned = self.house.log(part.name()).map_err(|problem| problem.message).and_then(|log| {
            self.command(part, log).and_then(|mut command| command.spawn()).map_err(|error| error.to_string())
        });
        let kept = &mut self.parts[at];
        kept.since = Instant::now();
        match spawned {
            Ok(child) => {
                let record = Record { ended: kept.ended.clone(), ..Record::of(child.id(), kept.restarts) };
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

    fn command(&self, part: Part, log: File) -> std::io::Result<Command> {
        let mut command = Command::new(&self.starter.executable);
        command.arg("--plan").arg(&self.starter.plan).arg("--controller").arg(&self.starter.controller);
        command.arg(part.name()).process_group(0);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(command)
    }

    /// Notes a slot that keeps WAL as soon as it is known, so that `down` can name it even when nobody answers.
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

    /// Bridge and controller first, so that requests are served to the last; then the proxy.
    async fn stop(&mut self) {
        let (proxies, others): (Vec<_>, Vec<_>) =
            self.parts.iter_mut().partition(|kept| kept.part == Part::Proxy);
        futures_util::future::join_all(others.into_iter().map(|kept| end_child(&self.house, kept))).await;
        futures_util::future::join_all(proxies.into_iter().map(|kept| end_child(&self.house, kept))).await;
    }

    fn kill(&mut self) {
        for kept in &mut self.parts {
            if let Some(mut child) = kept.child.take() {
                // It may have ended by itself just now.
                let _ = child.kill().and_then(|()| child.wait());
            }
            self.house.forget(kept.part);
        }
    }
}

async fn end_child(house: &House, kept: &mut Kept) {
    if let Some(child) = kept.child.as_mut() {
        Record::of(child.id(), 0).end(STOP_PATIENCE).await;
        // Reaped, so that its number is free; it was seen to be gone, or has just been killed.
        let _ = child.wait();
    }
    kept.child = None;
    house.forget(kept.part);
}

/// Asks the controller again and again how things stand. An unreachable one leaves the last answer standing.
async fn look(remote: Remote, sender: watch::Sender<Option<Status>>) {
    while !sender.is_closed() {
        if let Ok(status) = remote.status().await {
            sender.send_replace(Some(status));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// How long to wait before a part is started again that lived for `lived`.
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
