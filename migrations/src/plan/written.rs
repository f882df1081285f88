//! The plan's file as the user sees it: its lines with passwords masked, and the notes made while reading it.
//!
//! Knows which parts of a line are secret by their shape, so that even a file that is not YAML gives nothing away.

use super::tree::Spot;
use crate::code::Code;
use crate::finding::{Finding, Place, Severity};

/// More findings than this are not shown; a file like that is not a plan.
const FINDINGS_MAX: usize = 200;
/// A longer line is cut around nothing: the reader sees its beginning.
const LINE_CHARS_MAX: usize = 240;
/// The shortest secret that is looked for in every line.
const SECRET_BYTES_MIN: usize = 4;
const MASK: &str = "•••";

/// What was noted about the file so far.
pub(super) struct Notes<'a> {
    file: &'a str,
    lines: Vec<&'a str>,
    found: Vec<(Spot, Finding)>,
    /// How many there are besides.
    untold: usize,
    secrets: Vec<String>,
}

impl<'a> Notes<'a> {
    pub(super) fn new(file: &'a str, text: &'a str) -> Self {
        Self { file, lines: lines(text), found: Vec::new(), untold: 0, secrets: Vec::new() }
    }

    pub(super) fn error(
        &mut self,
        spot: Spot,
        code: Code,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.add(spot, Finding::error(code, message, hint));
    }

    pub(super) fn warning(
        &mut self,
        spot: Spot,
        code: Code,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.add(spot, Finding::warning(code, message, hint));
    }

    /// From here on this text is masked wherever a line of the file is shown.
    pub(super) fn keep_secret(&mut self, text: &str) {
        // Shorter ones would mask half of every line; where they stand, the line's shape masks them.
        if text.len() >= SECRET_BYTES_MIN {
            self.secrets.push(text.to_owned());
        }
    }

    pub(super) fn has_errors(&self) -> bool {
        self.found.iter().any(|(_, finding)| finding.is_error())
    }

    /// Every finding in the order of the file, each with its line.
    pub(super) fn into_findings(mut self) -> Vec<Finding> {
        // Errors first where the file has more than can be shown, the file's order otherwise.
        let more = self.untold + self.found.len().saturating_sub(FINDINGS_MAX);
        if self.found.len() > FINDINGS_MAX {
            self.found.sort_by_key(|(_, finding)| finding.severity != Severity::Error);
            self.found.truncate(FINDINGS_MAX);
        }
        self.found.sort_by_key(|(spot, _)| *spot);
        if let (1.., Some((spot, last))) = (more, self.found.last()) {
            let (spot, severity) = (*spot, last.severity);
            let message = format!("there are {more} more findings");
            let hint = "fix these first, then check again".to_owned();
            let more = Finding { severity, ..Finding::error(Code::PlanMoreFindings, message, hint) };
            self.found.push((spot, more));
        }
        let found = std::mem::take(&mut self.found);
        found.into_iter().map(|(spot, finding)| finding.at(self.place(spot))).collect()
    }

    fn add(&mut self, spot: Spot, finding: Finding) {
        let known = self.found.iter().any(|(at, other)| *at == spot && *other == finding);
        if known {
            return;
        }
        if self.found.len() < 2 * FINDINGS_MAX {
            return self.found.push((spot, finding));
        }
        // Nobody reads more, and a hostile plan must not fill the memory; but no crowd of warnings hides an error.
        self.untold += 1;
        let mut warnings = self.found.iter_mut().rev().filter(|(_, known)| !known.is_error());
        if let (true, Some(place)) = (finding.is_error(), warnings.next()) {
            *place = (spot, finding);
        }
    }

    pub(super) fn place(&self, spot: Spot) -> Place {
        let last = u32::try_from(self.lines.len()).unwrap_or(u32::MAX).max(1);
        let line = spot.line.clamp(1, last);
        let index = usize::try_from(line - 1).unwrap_or(0);
        let written = self.lines.get(index).copied().unwrap_or_default();
        let mut text = masked(written);
        for secret in &self.secrets {
            text = text.replace(secret.as_str(), MASK);
        }
        let text = text.chars().take(LINE_CHARS_MAX).collect();
        Place { file: self.file.to_owned(), line, column: spot.column.max(1), text }
    }
}

/// Lines as YAML counts them: ended by CR LF, LF or CR (YAML 1.2.2, 5.4).
fn lines(text: &str) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(end) = rest.find(['\n', '\r']) {
        lines.push(&rest[..end]);
        let ending = if rest[end..].starts_with("\r\n") { 2 } else { 1 };
        rest = &rest[end + ending..];
    }
    if !rest.is_empty() || lines.is_empty() {
        lines.push(rest);
    }
    lines
}

/// The line without what looks like a password: `user:THIS@`, `password=THIS`, `override_secret: THIS`.
fn masked(line: &str) -> String {
    let mut shown = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        shown.push_str(before);
        let (user_info, behind) = match user_info(after) {
            Some(end) => after.split_at(end),
            None => ("", after),
        };
        match user_info.split_once(':') {
            Some((user, password)) if !is_variable(password) => shown.extend([user, ":", MASK]),
            _ => shown.push_str(user_info),
        }
        rest = behind;
    }
    shown.push_str(rest);
    let shown = masked_after(&shown, "password=", &['&', ' ', '"', '\'']);
    masked_after(&shown, "override_secret:", &[',', '}'])
}

/// Where the `user:password` of a URL ends: before the last `@` of its authority. A password may hold any byte
/// by mistake, so slashes do not end it while an `@` follows before a blank.
fn user_info(after_scheme: &str) -> Option<usize> {
    let end = after_scheme.find([' ', '\t', '"', '\'']).unwrap_or(after_scheme.len());
    let until = after_scheme[..end].find("://").unwrap_or(end);
    after_scheme[..until].rfind('@')
}

fn masked_after(line: &str, key: &str, ends: &[char]) -> String {
    let mut shown = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find(key) {
        let (before, after) = rest.split_at(at + key.len());
        shown.push_str(before);
        let value = after.trim_start();
        shown.push_str(&after[..after.len() - value.len()]);
        let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''));
        let end = match quote {
            Some(quote) => value[1..].find(quote).map_or(value.len(), |end| end + 2),
            None if value.starts_with("${") => value.find('}').map_or(value.len(), |end| end + 1),
            None => value.find(|c| ends.contains(&c)).unwrap_or(value.len()),
        };
        let (secret, behind) = value.split_at(end);
        let bare = secret.trim().trim_matches(['"', '\'']);
        shown.push_str(if bare.is_empty() || is_variable(bare) { secret } else { MASK });
        rest = behind;
    }
    shown.push_str(rest);
    shown
}

/// The passwords that stand in a URL of the file as plain text.
pub(super) fn literal_passwords(text: &str) -> Vec<&str> {
    let mut passwords = Vec::new();
    for (at, separator) in text.match_indices("://") {
        let after = &text[at + separator.len()..];
        let password =
            user_info(after).and_then(|end| after[..end].split_once(':')).map(|(_, password)| password);
        passwords.extend(password);
    }
    for (at, key) in text.match_indices("password=") {
        passwords.extend(text[at + key.len()..].split(['&', '#', '}']).next());
    }
    passwords.retain(|password| !password.is_empty() && !is_variable(password));
    passwords
}

/// Whether the text is nothing but one `${NAME}`: then it gives nothing away.
pub(super) fn is_variable(text: &str) -> bool {
    text.strip_prefix("${")
        .and_then(|t| t.strip_suffix('}'))
        .is_some_and(|name| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_masked_and_variables_are_not() {
        for (line, shown) in [
            ("database: postgres://u:pw@h/db", "database: postgres://u:•••@h/db"),
            ("database: postgres://u:p@w/x@h/db", "database: postgres://u:•••@h/db"),
            ("a: postgres://u:${PW}@h/db", "a: postgres://u:${PW}@h/db"),
            ("a: postgres://u:${PW:-geheim}@h/db", "a: postgres://u:•••@h/db"),
            ("a: ${URL:-postgres://u:pw@h/db}", "a: ${URL:-postgres://u:•••@h/db}"),
            ("a: postgres://u@h/db?password=pw&x=1", "a: postgres://u@h/db?password=•••&x=1"),
            ("proxy: { override_secret: pw, listen: x }", "proxy: { override_secret: •••, listen: x }"),
            ("  override_secret: \"a, b\" # c", "  override_secret: ••• # c"),
            ("  override_secret: ${S}", "  override_secret: ${S}"),
            ("upstream: http://127.0.0.1:4000", "upstream: http://127.0.0.1:4000"),
        ] {
            assert_eq!(masked(line), shown);
        }
    }

    #[test]
    fn lines_end_as_yaml_says() {
        assert_eq!(lines("a\nb\r\nc\rd"), ["a", "b", "c", "d"]);
        assert_eq!(lines(""), [""]);
        assert_eq!(lines("a\n"), ["a"]);
    }
}
