//! Every code is documented, and every documented code exists.

use migrations::code::Code;
use std::collections::BTreeMap;

const OPERATIONS: &str = include_str!("../../docs/operations.md");

/// The codes that have a row of their own in the document, and how many rows each has.
fn documented() -> BTreeMap<&'static str, usize> {
    let section =
        OPERATIONS.split_once("\n## Findings and failures by code\n").map_or("", |(_, section)| section);
    let mut rows = BTreeMap::new();
    for line in section.lines() {
        if let Some((code, _)) = line.strip_prefix("| `").and_then(|row| row.split_once('`')) {
            *rows.entry(code).or_default() += 1;
        }
    }
    rows
}

#[test]
fn every_code_is_documented_once_and_every_documented_code_exists() {
    let codes: BTreeMap<&str, usize> = Code::ALL.iter().map(|code| (code.as_str(), 1)).collect();
    assert_eq!(documented(), codes);
}
