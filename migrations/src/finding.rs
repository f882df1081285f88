//! One thing wrong or doubtful, said so that the reader can mend it: a stable code, where, what, and what to do.

use crate::code::Code;
use serde::{Deserialize, Serialize};
use std::fmt;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// It must be mended first.
    Error,
    /// It is shown, and work goes on.
    Warning,
}

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

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Stable and searchable, e.g. `plan.unknown-key` or `source.no-primary-key`.
    pub code: Code,
    pub severity: Severity,
    /// Where in the plan, for findings of `check`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub place: Option<Place>,
    /// What is wrong, one sentence.
    pub message: String,
    /// What to do: what to write instead, or the exact statement or command that mends it.
    pub remedy: String,
}

impl Finding {
    pub fn error(code: Code, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { code, severity: Severity::Error, place: None, message: message.into(), remedy: remedy.into() }
    }

    pub fn warning(code: Code, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, message, remedy) }
    }

    pub fn at(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// Findings as plain text for a terminal, each with its line and a mark below it, as a compiler shows them; then a
/// line that counts them. Empty for no findings.
pub fn render(findings: &[Finding]) -> String {
    let mut text: String = findings.iter().map(|finding| render_one(finding) + "\n").collect();
    let errors = findings.iter().filter(|finding| finding.is_error()).count();
    let counted = |count: usize, what: &str| match count {
        0 => None,
        1 => Some(format!("1 {what}")),
        _ => Some(format!("{count} {what}s")),
    };
    let counts: Vec<String> = [counted(errors, "error"), counted(findings.len() - errors, "warning")]
        .into_iter()
        .flatten()
        .collect();
    if !counts.is_empty() {
        text.push_str(&counts.join(", "));
        text.push('\n');
    }
    text
}

fn render_one(finding: &Finding) -> String {
    let severity = match finding.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let mut text = format!("{severity}: {} [{}]\n", finding.message, finding.code);
    let mut margin = 1;
    if let Some(place) = &finding.place {
        let number = place.line.to_string();
        margin = number.len();
        let shown: String = place.text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let column = usize::try_from(place.column).unwrap_or(1).min(shown.chars().count() + 1).max(1);
        let gap = " ".repeat(margin);
        text.push_str(&format!("{gap}--> {}:{}:{}\n", place.file, place.line, place.column));
        text.push_str(&format!("{gap} |\n{number} | {shown}\n{gap} | {}^\n", " ".repeat(column - 1)));
    }
    text.push_str(&format!("{} = {}\n", " ".repeat(margin), finding.remedy));
    text
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{}:{}:{}: ", place.file, place.line, place.column)?;
        }
        write!(f, "{} [{}]; {}", self.message, self.code, self.remedy)
    }
}
