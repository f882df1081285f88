//! The terminal: the only place that prints.
//!
//! Results go to stdout. Hints, notes and progress go to stderr, so that a pipe gets results only. Colours are always
//! written, and removed if the output is no terminal or `NO_COLOR` is set. Foreign text (rows, servers' messages,
//! names) is made harmless before it is coloured. Only `line` and `raw` print text as it is.

pub(crate) mod change;
pub(crate) mod figure;
pub(crate) mod grid;
pub(crate) mod harmless;
pub(crate) mod progress;

use crate::failed::Failed;
use clap::ValueEnum;
use harmless::{harmless, lines};
use migrations::api::Outcome;
use migrations::finding::{Finding, Severity};
use owo_colors::OwoColorize;
use progress::Progress;
use serde::Serialize;
use std::io::{self, BufRead, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Text for people
    Human,
    /// One JSON document per result, on one line
    Json,
}

#[derive(Debug)]
pub(crate) struct Ui {
    output: Output,
    quiet: bool,
    verbose: u8,
    /// The reader of our stdout has closed it, so endless output stops.
    gone: AtomicBool,
}

impl Ui {
    pub(crate) fn new(output: Output, quiet: bool, verbose: u8) -> Self {
        Self { output, quiet, verbose, gone: AtomicBool::new(false) }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.output == Output::Json
    }

    pub(crate) fn is_terminal(&self) -> bool {
        io::stdout().is_terminal()
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    /// One line of the human result. The text must already be harmless.
    pub(crate) fn line(&self, text: impl AsRef<str>) {
        if !self.is_json() {
            self.raw(&format!("{}\n", text.as_ref()));
        }
    }

    /// Text as it is, with either kind of output.
    pub(crate) fn raw(&self, text: &str) {
        let mut out = anstream::stdout().lock();
        if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
            self.gone.store(true, Ordering::Relaxed);
        }
    }

    /// One line of the JSON result.
    pub(crate) fn json(&self, document: &impl Serialize) {
        if self.is_json() {
            match serde_json::to_string(document) {
                Ok(text) => self.raw(&format!("{text}\n")),
                Err(error) => self.warn(&format!("could not write the result as JSON: {error}")),
            }
        }
    }

    /// What happens meanwhile. Hidden with `-q`.
    pub(crate) fn note(&self, text: impl AsRef<str>) {
        if !self.quiet {
            self.err(&harmless(text.as_ref()));
        }
    }

    /// Shown even with `-q`.
    pub(crate) fn warn(&self, text: &str) {
        self.err(&format!("{} {}", "warning:".yellow().bold(), harmless(text)));
    }

    pub(crate) fn hint(&self, text: &str) {
        if !self.is_json() && !self.quiet {
            self.err(&format!("{} {}", "hint:".cyan().bold(), harmless(text)));
        }
    }

    pub(crate) fn next_steps(&self, steps: &[String]) {
        let quoted =
            |step: &String| if step.starts_with("strangler ") { format!("`{step}`") } else { step.clone() };
        let mut steps: Vec<String> = steps.iter().map(quoted).collect();
        steps.dedup();
        if !steps.is_empty() {
            self.hint(&format!("next: {}", steps.join(", or ")));
        }
    }

    pub(crate) fn finding(&self, finding: &Finding) {
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

    /// Findings with their lines in the plan, as `check` shows them.
    pub(crate) fn rendered(&self, findings: &[Finding]) {
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

    pub(crate) fn tick(&self, text: &str) {
        self.line(format!("{} {}", "✔".green().bold(), harmless(text)));
    }

    /// A line of something that is not as it should be.
    pub(crate) fn cross(&self, text: &str) {
        self.line(format!("{} {}", "✗".red().bold(), harmless(text)));
    }

    /// Findings go to stdout and the rest to stderr. As JSON, everything is one document on stdout.
    pub(crate) fn failed(&self, failed: &Failed) {
        if self.is_json() {
            self.json(failed);
            return;
        }
        let problem = &failed.problem;
        if problem.findings.iter().any(|finding| finding.place.is_some()) {
            self.rendered(&problem.findings);
        } else {
            problem.findings.iter().for_each(|finding| self.finding(finding));
        }
        self.err(&format!("{} {}", "error:".red().bold(), lines(&problem.message)));
        // What a finding says to do is said once.
        let is_said = problem.findings.iter().any(|finding| finding.remedy == problem.remedy);
        for hint in problem.remedy.lines().filter(|_| !is_said) {
            self.err(&format!("{} {}", "hint:".cyan().bold(), lines(hint)));
        }
        if self.verbose > 0 {
            for cause in &problem.causes {
                self.err(&format!("{} {}", "because:".dimmed(), lines(cause)));
            }
        }
    }

    pub(crate) fn is_verbose(&self) -> bool {
        self.verbose > 0
    }

    /// The error of a rejected command line, in clap's own format.
    pub(crate) fn misread(&self, styled: &str) {
        self.err(styled.trim_end());
    }

    /// Everything about an outcome but its headline, which the verb prints.
    pub(crate) fn outcome(&self, outcome: &Outcome) {
        self.json(outcome);
        for finding in &outcome.findings {
            self.finding(finding);
        }
        self.next_steps(&outcome.next_steps);
    }

    /// True only for a plain yes. Without a terminal the answer is no.
    pub(crate) fn confirm(&self, question: &str) -> bool {
        let answer = self.ask(&format!("{question} [y/N]"));
        answer.is_some_and(|answer| matches!(&answer[..], "y" | "Y" | "yes"))
    }

    /// What was typed, without blanks around it. Without a terminal nobody is asked.
    pub(crate) fn ask(&self, question: &str) -> Option<String> {
        if !io::stdin().is_terminal() {
            return None;
        }
        let mut err = anstream::stderr().lock();
        write!(err, "{question} ").and_then(|()| err.flush()).ok()?;
        drop(err);
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer).ok()?;
        Some(answer.trim().to_owned())
    }

    /// Clears the screen before a redraw. Does nothing without a terminal.
    pub(crate) fn clear(&self) {
        if self.is_terminal() && !self.is_json() {
            self.raw("\x1b[H\x1b[2J");
        }
    }

    pub(crate) fn progress(&self) -> Progress {
        Progress::new(!self.quiet && !self.is_json())
    }

    fn err(&self, text: &str) {
        // A closed stderr cannot be reported anywhere.
        let _ = writeln!(anstream::stderr().lock(), "{text}");
    }
}
