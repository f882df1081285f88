//! The terminal: the only place that prints.
//!
//! Results go to stdout; hints, notes and progress to stderr, so that a pipe holds results alone. Colours are always
//! written and taken out again where no terminal reads them or `NO_COLOR` is set. Whatever is not ours – rows, the
//! servers' words, names – is made harmless before it is coloured; only `line` and `raw` take text as it is.

pub mod change;
pub mod figure;
pub mod grid;
pub mod harmless;
pub mod progress;

use crate::problem::Problem;
use clap::ValueEnum;
use harmless::{harmless, lines};
use migrations::api::Outcome;
use migrations::finding::{Finding, Severity};
use owo_colors::OwoColorize;
use progress::Progress;
use serde::Serialize;
use std::io::{self, BufRead, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Text for people
    Human,
    /// One JSON document per result, on one line
    Json,
}

/// How this invocation speaks.
#[derive(Debug)]
pub struct Ui {
    output: Output,
    quiet: bool,
    verbose: u8,
    /// Whoever read our output has left; streams end then.
    gone: AtomicBool,
}

impl Ui {
    /// Speaks as the options say.
    pub fn new(output: Output, quiet: bool, verbose: u8) -> Self {
        Self { output, quiet, verbose, gone: AtomicBool::new(false) }
    }

    /// Whether results are JSON.
    pub fn is_json(&self) -> bool {
        self.output == Output::Json
    }

    /// Whether somebody watches stdout.
    pub fn is_terminal(&self) -> bool {
        io::stdout().is_terminal()
    }

    /// Whether whoever read our output has left.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    /// A line of the result for people, styled and harmless already; nothing with `--output json`.
    pub fn line(&self, text: impl AsRef<str>) {
        if !self.is_json() {
            self.raw(&format!("{}\n", text.as_ref()));
        }
    }

    /// Result text as it is, in either output.
    pub fn raw(&self, text: &str) {
        let mut out = anstream::stdout().lock();
        if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
            self.gone.store(true, Ordering::Relaxed);
        }
    }

    /// One JSON document on one line; nothing in human output.
    pub fn json(&self, document: &impl Serialize) {
        if self.is_json() {
            match serde_json::to_string(document) {
                Ok(text) => self.raw(&format!("{text}\n")),
                Err(error) => self.warn(&format!("could not write the result as JSON: {error}")),
            }
        }
    }

    /// What happens meanwhile: to stderr, silent with `-q`.
    pub fn note(&self, text: impl AsRef<str>) {
        if !self.quiet {
            self.err(&harmless(text.as_ref()));
        }
    }

    /// What is doubtful: to stderr, even with `-q`.
    pub fn warn(&self, text: &str) {
        self.err(&format!("{} {}", "warning:".yellow().bold(), harmless(text)));
    }

    /// The next command, on success.
    pub fn hint(&self, text: &str) {
        if !self.is_json() && !self.quiet {
            self.err(&format!("{} {}", "hint:".cyan().bold(), harmless(text)));
        }
    }

    /// The commands that lead on, as the controller names them.
    pub fn next_steps(&self, steps: &[String]) {
        let quoted =
            |step: &String| if step.starts_with("strangler ") { format!("`{step}`") } else { step.clone() };
        let steps: Vec<String> = steps.iter().map(quoted).collect();
        if !steps.is_empty() {
            self.hint(&format!("next: {}", steps.join(", or ")));
        }
    }

    /// One mark, one finding, and what to do about it.
    pub fn finding(&self, finding: &Finding) {
        let mark = match finding.severity {
            Severity::Error => "✗".red().bold().to_string(),
            Severity::Warning => "!".yellow().bold().to_string(),
        };
        let code = format!("[{}]", harmless(finding.code.as_str()));
        self.line(format!("{mark} {} {}", harmless(&finding.message), code.dimmed()));
        for line in finding.remedy.lines() {
            self.line(format!("  {}", harmless(line)));
        }
    }

    /// Findings of the plan with their lines, as `check` shows them.
    pub fn rendered(&self, findings: &[Finding]) {
        let tamed = |finding: &Finding| Finding {
            message: harmless(&finding.message),
            remedy: lines(&finding.remedy),
            ..finding.clone()
        };
        let findings: Vec<Finding> = findings.iter().map(tamed).collect();
        for line in migrations::finding::render(&findings).trim_end().lines() {
            let line = &harmless(line);
            self.line(match line.split_once(": ") {
                Some(("error", text)) => format!("{} {text}", "error:".red().bold()),
                Some(("warning", text)) => format!("{} {text}", "warning:".yellow().bold()),
                _ => line.to_owned(),
            });
        }
    }

    /// One thing that is well.
    pub fn tick(&self, text: &str) {
        self.line(format!("{} {}", "✔".green().bold(), harmless(text)));
    }

    /// A problem: what was found on stdout and the rest on stderr, or all of it as one JSON document on stdout.
    pub fn problem(&self, problem: &Problem) {
        if self.is_json() {
            self.json(&problem.document());
            return;
        }
        if problem.findings.iter().any(|finding| finding.place.is_some()) {
            self.rendered(&problem.findings);
        } else {
            problem.findings.iter().for_each(|finding| self.finding(finding));
        }
        self.err(&format!("{} {}", "error:".red().bold(), lines(&problem.message)));
        for hint in &problem.hints {
            self.err(&format!("{} {}", "hint:".cyan().bold(), lines(hint)));
        }
        if self.verbose > 0 {
            for cause in &problem.causes {
                self.err(&format!("{} {}", "because:".dimmed(), lines(cause)));
            }
        }
    }

    /// A command line that was not understood, as its parser shows it.
    pub fn misread(&self, styled: &str) {
        self.err(styled.trim_end());
    }

    /// What an outcome says beside its headline.
    pub fn outcome(&self, outcome: &Outcome) {
        self.json(outcome);
        for finding in &outcome.findings {
            self.finding(finding);
        }
        self.next_steps(&outcome.next_steps);
    }

    /// Asks; true only for a plain yes. Where nobody can answer it is no.
    pub fn confirm(&self, question: &str) -> bool {
        if !io::stdin().is_terminal() {
            return false;
        }
        let mut err = anstream::stderr().lock();
        let asked = write!(err, "{question} [y/N] ").and_then(|()| err.flush());
        drop(err);
        let mut answer = String::new();
        asked.is_ok()
            && io::stdin().lock().read_line(&mut answer).is_ok()
            && matches!(answer.trim(), "y" | "Y" | "yes")
    }

    /// Clears the screen before a redraw, where there is a screen.
    pub fn clear(&self) {
        if self.is_terminal() && !self.is_json() {
            self.raw("\x1b[H\x1b[2J");
        }
    }

    /// Progress of something that takes a while.
    pub fn progress(&self) -> Progress {
        Progress::new(!self.quiet && !self.is_json())
    }

    fn err(&self, text: &str) {
        // Nobody can be told that stderr is closed.
        let _ = writeln!(anstream::stderr().lock(), "{text}");
    }
}
