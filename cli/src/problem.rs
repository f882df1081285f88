//! Why a command did not do what was asked: what kind of failure, in one sentence, and what to do next.
//!
//! Knows the exit codes and nothing of how a problem is shown.

use migrations::finding::Finding;
use migrations::names::SliceName;
use serde::Serialize;

/// The kinds of failure, one exit code each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Anything without a code of its own.
    Error,
    /// The command line or the plan is wrong.
    Usage,
    /// The live systems are not ready.
    Preflight,
    /// Somebody else decided otherwise, or knows more.
    Conflict,
    /// Given up safely: the old owner serves.
    Aborted,
    /// Committed, but the way forward is unfinished.
    Unfinished,
    /// Both sides were compared and differ.
    Differences,
    /// The work may go on, only the watching ended.
    TimedOut,
}

impl Kind {
    /// The process's exit code.
    pub(crate) fn exit(self) -> u8 {
        match self {
            Kind::Error => 1,
            Kind::Usage => 2,
            Kind::Preflight => 3,
            Kind::Conflict => 4,
            Kind::Aborted => 5,
            Kind::Unfinished => 6,
            Kind::Differences => 7,
            Kind::TimedOut => 8,
        }
    }

    /// The kind behind an exit code that the controller gave.
    fn of_exit(exit: u8) -> Self {
        match exit {
            2 => Kind::Usage,
            3 => Kind::Preflight,
            4 => Kind::Conflict,
            5 => Kind::Aborted,
            6 => Kind::Unfinished,
            7 => Kind::Differences,
            8 => Kind::TimedOut,
            _ => Kind::Error,
        }
    }
}

/// A failure as the user meets it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Problem {
    /// Decides the exit code.
    pub(crate) kind: Kind,
    /// What is wrong, without a full stop.
    pub(crate) message: String,
    /// What to do next, the likeliest first.
    pub(crate) hints: Vec<String>,
    /// What was found, where the failure is a list of findings.
    pub(crate) findings: Vec<Finding>,
    /// What lies behind, for `-v`.
    pub(crate) causes: Vec<String>,
}

impl Problem {
    /// A failure of a kind.
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hints: Vec::new(), findings: Vec::new(), causes: Vec::new() }
    }

    /// A failure without a kind of its own.
    pub(crate) fn error(message: impl Into<String>) -> Self {
        Self::new(Kind::Error, message)
    }

    /// A wrong command line or plan.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// That the plan does not have this slice, with those that it has.
    pub(crate) fn no_slice<'a>(slice: &SliceName, known: impl Iterator<Item = &'a SliceName>) -> Self {
        let known: Vec<&str> = known.map(SliceName::as_str).collect();
        let hint = match &known[..] {
            [] => "it has none yet; write one under `slices:` in the plan".to_owned(),
            known => format!("it has: {}", known.join(", ")),
        };
        Self::usage(format!("the plan has no slice `{slice}`")).hint(hint)
    }

    /// The same failure with one more thing to do.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// The same failure with what was found.
    pub(crate) fn with(mut self, findings: Vec<Finding>) -> Self {
        self.findings = findings;
        self
    }

    /// The same failure with what caused it, outermost first.
    pub(crate) fn because(mut self, error: &(dyn std::error::Error + 'static)) -> Self {
        let chain = std::iter::successors(Some(error), |error| error.source());
        self.causes.extend(chain.map(ToString::to_string));
        self
    }

    /// The process's exit code.
    pub(crate) fn exit(&self) -> u8 {
        self.kind.exit()
    }

    /// The problem as `--output json` shows it.
    pub(crate) fn document(&self) -> Document<'_> {
        Document {
            error: &self.message,
            hint: self.hints.join("; "),
            findings: &self.findings,
            exit: self.exit(),
        }
    }
}

/// A problem as JSON.
#[derive(Debug, Serialize)]
pub(crate) struct Document<'a> {
    error: &'a str,
    hint: String,
    findings: &'a [Finding],
    exit: u8,
}

impl From<migrations::problem::Problem> for Problem {
    fn from(told: migrations::problem::Problem) -> Self {
        Problem {
            kind: Kind::of_exit(told.exit()),
            hints: told.remedy.lines().map(str::to_owned).collect(),
            message: told.message,
            findings: told.findings,
            causes: told.causes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_read_back() {
        for exit in 1..=8 {
            assert_eq!(Kind::of_exit(exit).exit(), exit);
        }
        assert_eq!(Kind::of_exit(0).exit(), 1, "a refusal is never a success");
    }

    #[test]
    fn a_slice_that_is_not_there_names_those_that_are() {
        let slice: SliceName = "ordres".parse().unwrap();
        let known: [SliceName; 2] = ["carts", "orders"].map(|name| name.parse().unwrap());
        assert_eq!(Problem::no_slice(&slice, known.iter()).hints, ["it has: carts, orders"]);
        assert!(Problem::no_slice(&slice, [].iter()).hints[0].contains("`slices:`"));
    }

    #[test]
    fn a_problem_keeps_its_chain_of_causes() {
        let inner = std::io::Error::other("disk full");
        assert_eq!(Problem::error("cannot write").because(&inner).causes, ["disk full"]);
    }
}
