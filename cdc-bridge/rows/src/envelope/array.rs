//! Arrays: Postgres' text (PostgreSQL manual, 8.15.6) taken apart.
//!
//! Knows nothing of the elements' type but how its text is quoted.

use migrations::column_type::{ColumnType, Form};

/// Postgres' own bound on an array's dimensions (`MAXDIM`).
pub(super) const DEPTH_MAX: usize = 6;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// `{`.
    Open,
    /// `}`.
    Close,
    Null,
    Element(&'a [u8]),
}

/// Whether a null may stand among the elements. Debezium forgets to say so of types that it finds by their name.
pub(super) fn takes_nulls(element: &ColumnType) -> bool {
    !matches!(element, ColumnType::Enum { .. } | ColumnType::Printed { form: Form::Tsvector, .. })
}

/// Walks over an array's text; false if it is none. Bounds before it (`[0:1]={…}`) are passed over, as pgjdbc does.
pub(super) fn walk(text: &[u8], mut meet: impl FnMut(Token<'_>) -> bool) -> bool {
    let text = match text.first() {
        Some(b'[') => text.iter().position(|byte| *byte == b'=').map_or(text, |at| &text[at + 1..]),
        _ => text,
    };
    let mut scratch = Vec::new();
    let mut depth = 0;
    let mut at = 0;
    // Whether an element or a `{` may stand here, and whether an empty array may end here.
    let (mut wants_item, mut may_close) = (true, false);
    while let Some(byte) = text.get(at) {
        match byte {
            b'{' if wants_item && depth < DEPTH_MAX && (depth > 0 || at == 0) => {
                depth += 1;
                may_close = true;
                at += 1;
                if !meet(Token::Open) {
                    return false;
                }
                continue;
            }
            b'}' if depth > 0 && (!wants_item || may_close) => {
                depth -= 1;
                wants_item = false;
                at += 1;
                if !meet(Token::Close) {
                    return false;
                }
            }
            b',' if depth > 0 && !wants_item => {
                wants_item = true;
                at += 1;
            }
            _ if depth > 0 && wants_item => {
                let Some(end) = element(&text[at..], &mut scratch) else { return false };
                let is_null = &text[at..at + end] == b"NULL";
                if !meet(if is_null { Token::Null } else { Token::Element(&scratch) }) {
                    return false;
                }
                wants_item = false;
                at += end;
            }
            _ => return false,
        }
        may_close = false;
    }
    depth == 0 && !wants_item
}

/// Reads one element, quoted or not, into `element`; its length in the array's text.
fn element(text: &[u8], element: &mut Vec<u8>) -> Option<usize> {
    element.clear();
    if text.first() != Some(&b'"') {
        let len = text.iter().position(|byte| matches!(byte, b',' | b'{' | b'}' | b'"' | b'\\'))?;
        element.extend_from_slice(&text[..len]);
        return (len > 0).then_some(len);
    }
    let mut at = 1;
    loop {
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => {
                element.push(*text.get(at + 1)?);
                at += 2;
            }
            byte => {
                element.push(*byte);
                at += 1;
            }
        }
    }
}
