//! Progress of a long operation: a bar on a terminal, elsewhere a plain line now and then.

use super::figure;
use super::harmless::harmless;
use indicatif::{ProgressBar, ProgressStyle};
use owo_colors::OwoColorize;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

const PLAIN_EVERY: Duration = Duration::from_secs(2);
/// Steps are about so long; a longer one moves its time to the right.
const STEP_WIDTH: usize = 48;

#[derive(Debug)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    speaks: bool,
    last: Option<(Instant, String)>,
}

impl Progress {
    /// Shows nothing unless `speaks`.
    pub(crate) fn new(speaks: bool) -> Self {
        let bar = (speaks && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new_spinner();
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self { bar, speaks, last: None }
    }

    /// What is being done now, without a percentage.
    pub(crate) fn state(&mut self, text: &str) {
        if let Some(bar) = &self.bar {
            if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {msg}") {
                bar.set_style(style);
            }
            bar.set_message(harmless(text));
        } else {
            self.plain(text);
        }
    }

    /// `whole` may be an estimate that `done` exceeds.
    pub(crate) fn part(&mut self, text: &str, done: u64, whole: u64) {
        if let Some(bar) = &self.bar {
            if let Ok(style) = ProgressStyle::with_template("{msg}  {bar:16.cyan/dim} {percent:>3} %  {eta}")
            {
                bar.set_style(style.progress_chars("█▉▊▋▌▍▎▏ "));
            }
            bar.set_message(harmless(text));
            bar.set_length(whole.max(done));
            bar.set_position(done);
        } else {
            self.plain(text);
        }
    }

    /// Whether figures that change all the time may be shown: a bar is redrawn, but lines pile up.
    pub(crate) fn is_live(&self) -> bool {
        self.bar.is_some()
    }

    /// A line that stays.
    pub(crate) fn note(&self, text: &str) {
        self.keep(&harmless(text));
    }

    /// A step that has ended: a line that stays, with the time it took.
    pub(crate) fn step(&self, text: &str, ms: Option<u64>) {
        let took = ms.map(figure::span).unwrap_or_default();
        let line = format!("  {} {:<STEP_WIDTH$}  {}", "✔".green().bold(), harmless(text), took.dimmed());
        self.keep(line.trim_end());
    }

    fn keep(&self, line: &str) {
        if !self.speaks {
            return;
        }
        // A closed stderr cannot be reported anywhere.
        let write = || writeln!(anstream::stderr().lock(), "{line}");
        let _ = match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        };
    }

    /// Removes the bar, before a result is printed.
    pub(crate) fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn plain(&mut self, text: &str) {
        let due = match &self.last {
            None => true,
            Some((at, last)) => last != text && at.elapsed() >= PLAIN_EVERY,
        };
        if self.speaks && due {
            self.note(text);
            self.last = Some((Instant::now(), text.to_owned()));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
