//! The text of a journal's file: what is a whole line, what is torn, what is damaged.

use crate::store::StoreError;
use migrations::journal::{Entry, Generation, JournalId};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lines {
    pub(super) journal: JournalId,
    pub(super) entries: Vec<Entry>,
}

impl Lines {
    pub(super) fn length(&self) -> Generation {
        self.entries.last().map_or(Generation(0), |entry| entry.generation)
    }
}

#[derive(Serialize, Deserialize)]
struct First {
    journal: JournalId,
}

pub(super) fn first_line(journal: JournalId) -> Result<String, serde_json::Error> {
    serde_json::to_string(&First { journal }).map(|line| line + "\n")
}

pub(super) fn line(entry: &Entry) -> Result<String, serde_json::Error> {
    serde_json::to_string(entry).map(|line| line + "\n")
}

/// Reads a file: how many bytes of it are whole lines, and what they say. None where not even the first is whole. What
/// stands behind the last line's end was never acknowledged.
pub(super) fn read(text: &[u8]) -> Result<Option<(u64, Lines)>, StoreError> {
    let Some(end) = text.iter().rposition(|byte| *byte == b'\n') else { return Ok(None) };
    let whole = &text[..=end];
    let mut journal = None;
    let mut entries = Vec::new();
    for (index, line) in whole.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).enumerate() {
        let damaged =
            |error: serde_json::Error| StoreError::Damaged { place: index as u64, why: error.to_string() };
        if index == 0 {
            journal = Some(serde_json::from_slice::<First>(line).map_err(damaged)?.journal);
        } else {
            entries.push(serde_json::from_slice(line).map_err(damaged)?);
        }
    }
    Ok(journal.map(|journal| (whole.len() as u64, Lines { journal, entries })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    const ENTRY: &str = r#"{"generation":1,"at":"2026-01-01T00:00:00Z","actor":"a","reason":"","slice":"orders","event":"sync-started"}"#;

    #[test]
    fn a_torn_last_line_is_passed_over_and_a_damaged_one_is_not() {
        let first = first_line(JournalId(Uuid::nil())).unwrap();
        let whole = format!("{first}{ENTRY}\n");
        let (kept, lines) = read(format!("{whole}{{\"gener").as_bytes()).unwrap().unwrap();
        assert_eq!((kept, lines.entries.len()), (whole.len() as u64, 1));
        assert_eq!(read(b"").unwrap(), None);
        assert_eq!(read(b"{\"journ").unwrap(), None);
        let damaged = read(format!("{first}{{\"gener\n{ENTRY}\n").as_bytes());
        assert!(matches!(damaged, Err(StoreError::Damaged { place: 1, .. })), "{damaged:?}");
    }
}
