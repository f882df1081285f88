//! Watches a crossing until writes are held no longer, and shows each step as it ends.

use super::trace::Trace;
use super::words::{Shown, present};
use crate::remote::Remote;
use crate::ui::figure;
use crate::ui::progress::Progress;
use migrations::api::{CrossingReport, CrossingVerb, Outcome, Status};
use migrations::control::Report;
use migrations::names::SliceName;
use migrations::problem::Problem;
use std::time::{Duration, Instant};

const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long the controller may be unreachable, for example during a restart, before watching ends.
const ABSENCE_MAX: Duration = Duration::from_secs(30);
/// The coordinator says how long the hold was a moment after the journal says that it ended.
const LAST_WORDS: u32 = 5;

#[derive(Debug)]
pub(crate) struct Watch<'a> {
    remote: &'a Remote,
    verb: CrossingVerb,
    outcome: &'a Outcome,
    progress: Progress,
    shown: Shown,
    pub(crate) trace: Trace,
    pub(crate) report: Option<CrossingReport>,
}

impl<'a> Watch<'a> {
    pub(crate) fn new(
        remote: &'a Remote,
        verb: CrossingVerb,
        outcome: &'a Outcome,
        progress: Progress,
    ) -> Self {
        let trace = Trace::from(&outcome.slice, outcome.generation);
        Self { remote, verb, outcome, progress, shown: Shown::default(), trace, report: None }
    }

    /// Fails only when the controller has been away for long.
    pub(crate) async fn until_over(&mut self) -> Result<(), Problem> {
        let mut heard = Instant::now();
        while !self.trace.is_over() {
            let looked = Instant::now();
            let before = self.trace.read();
            match self.look().await {
                Ok(()) => heard = Instant::now(),
                Err(problem) if heard.elapsed() > ABSENCE_MAX => return Err(problem),
                Err(problem) => self.progress.state(&format!("{}: {}", self.slice(), problem.message)),
            }
            if self.trace.read() == before {
                tokio::time::sleep(LOOK_EVERY.saturating_sub(looked.elapsed())).await;
            }
        }
        for _ in 0..LAST_WORDS {
            let is_known = |report: &CrossingReport| report.hold_ms.is_some();
            if !self.trace.was_held() || self.report.as_ref().is_some_and(is_known) {
                break;
            }
            tokio::time::sleep(LOOK_EVERY / 2).await;
            self.hear().await;
        }
        Ok(())
    }

    /// Removes the progress, before a result is printed.
    pub(crate) fn clear(&mut self) {
        self.progress.clear();
    }

    async fn look(&mut self) -> Result<(), Problem> {
        let entries = self.remote.journal(self.trace.read(), LOOK_EVERY).await?;
        self.trace.take(&entries);
        self.hear().await;
        let mut words = present(self.verb, &self.trace, self.report.as_ref());
        if self.progress.is_live()
            && let Ok(status) = self.remote.status().await
        {
            words.push_str(&traffic(&status, self.slice()));
        }
        if !self.trace.is_over() {
            self.progress.state(&format!("{}: {words}", self.slice()));
        }
        Ok(())
    }

    /// What the controller that drives it has measured. Another controller knows nothing of it.
    async fn hear(&mut self) {
        if let Ok(Some(report)) = self.remote.crossing(self.slice()).await
            && is_about(&report, self.verb, self.outcome)
        {
            self.report = Some(report);
        }
        for line in self.shown.news(self.verb, &self.trace, self.report.as_ref()) {
            self.progress.step(line.text, line.ms);
        }
    }

    fn slice(&self) -> &'a SliceName {
        &self.outcome.slice
    }
}

/// Whether it is about the crossing that was asked for, and not about an earlier one.
fn is_about(report: &CrossingReport, verb: CrossingVerb, outcome: &Outcome) -> bool {
    report.slice == outcome.slice && report.verb == verb && report.epoch >= outcome.epoch
}

/// The writes at the proxies, and what is left of the hold.
fn traffic(status: &Status, slice: &SliceName) -> String {
    let proxies = status.agents.iter().filter(|agent| agent.live).filter_map(|agent| match &agent.report {
        Report::Proxy(proxy) => proxy.slices.get(slice),
        Report::Bridge(_) => None,
    });
    let (held, in_flight) =
        proxies.fold((0, 0), |(held, in_flight), one| (held + one.held, in_flight + one.in_flight));
    let hold = status.slices.get(slice).and_then(|stands| stands.hold);
    hold.map_or_else(String::new, |hold| {
        let left = figure::left(hold.until.since(status.now));
        format!("  {} wait, {} under way, {left} left", figure::count(held), figure::count(in_flight))
    })
}
