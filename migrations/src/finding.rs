//! One thing wrong or doubtful, said so that the reader can mend it: a stable code, where, what, and what to do.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Whether work can go on in spite of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// It must be mended first.
    Error,
    /// It is shown, and work goes on.
    Warning,
}

/// A place in the plan's file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The file as the user named it.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// The line itself, without its end; secrets are never part of it, as they come from the environment.
    pub text: String,
}

/// One thing wrong or doubtful.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Stable and searchable, e.g. `plan.unknown-key` or `source.no-primary-key`.
    pub code: String,
    /// Must it be mended first?
    pub severity: Severity,
    /// Where in the plan, for findings of `check`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub place: Option<Place>,
    /// What is wrong, one sentence.
    pub message: String,
    /// What to do: what to write instead, or the exact statement or command that mends it.
    pub hint: String,
}

impl Finding {
    /// A finding that stops the work.
    pub fn error(code: &str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            severity: Severity::Error,
            place: None,
            message: message.into(),
            hint: hint.into(),
        }
    }

    /// A finding that is only shown.
    pub fn warning(code: &str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, message, hint) }
    }

    /// The same finding at a place in the plan.
    pub fn at(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    /// Does it stop the work?
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{}:{}:{}: ", place.file, place.line, place.column)?;
        }
        write!(f, "{} [{}]; {}", self.message, self.code, self.hint)
    }
}
