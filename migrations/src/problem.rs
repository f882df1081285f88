//! A failure as people and programs meet it: the API answers with it, the command line shows it, and `--output json`
//! prints it. One shape, so that nobody has to read a remedy out of prose.

use crate::code::{Code, Kind, Retry};
use crate::finding::Finding;
use serde::{Deserialize, Serialize};
use std::error::Error;

/// Why something was not done, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// Travels beside the code, because an older strangler may not know the code.
    pub kind: Kind,
    pub code: Code,
    /// What failed and why, without a full stop.
    pub message: String,
    /// What to do, one thing a line, the likeliest first.
    pub remedy: String,
    /// The errors behind it, outermost first.
    #[serde(default)]
    pub causes: Vec<String>,
    /// What was found, where the failure is a list.
    #[serde(default)]
    pub findings: Vec<Finding>,
}

/// An error that knows what to do about it. Its text says only what failed and why.
pub trait Diagnostic: Error + 'static {
    fn code(&self) -> Code;
    fn remedy(&self) -> String;
}

impl Problem {
    pub fn new(code: Code, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            kind: code.kind(),
            code,
            message: message.into(),
            remedy: remedy.into(),
            causes: Vec::new(),
            findings: Vec::new(),
        }
    }

    /// The failure that an error stands for. Its message holds the words of all errors behind it.
    pub fn of(error: &impl Diagnostic) -> Self {
        let mut problem = Problem::new(error.code(), error.to_string(), error.remedy());
        if let Some(source) = error.source() {
            problem = problem.because(source);
        }
        for cause in &problem.causes {
            if !problem.message.contains(cause) {
                problem.message = format!("{}: {cause}", problem.message);
            }
        }
        problem
    }

    pub fn exit(&self) -> u8 {
        self.kind.policy().exit
    }

    pub fn remedy(mut self, remedy: &str) -> Self {
        if !self.remedy.is_empty() {
            self.remedy.push('\n');
        }
        self.remedy.push_str(remedy);
        self
    }

    pub fn with(mut self, findings: Vec<Finding>) -> Self {
        self.findings = findings;
        self
    }

    pub fn because(mut self, error: &(dyn Error + 'static)) -> Self {
        let chain = std::iter::successors(Some(error), |error| (*error).source());
        self.causes.extend(chain.map(ToString::to_string));
        self
    }
}

impl<E: Diagnostic> From<E> for Problem {
    fn from(error: E) -> Self {
        Problem::of(&error)
    }
}

/// What passes by itself is only doubtful.
impl From<Problem> for Finding {
    fn from(problem: Problem) -> Self {
        let Problem { kind, code, message, remedy, .. } = problem;
        match kind.policy().retry {
            Retry::ByItself => Finding::warning(code, message, remedy),
            Retry::AfterRemedy => Finding::error(code, message, remedy),
        }
    }
}

impl From<Finding> for Problem {
    fn from(finding: Finding) -> Self {
        Problem::new(finding.code, finding.message, finding.remedy)
    }
}
