//! Arrays: Postgres' text (PostgreSQL manual, 8.15.6) taken apart and put together.
//!
//! Knows nothing of the elements' type but how its text is quoted.

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

/// Walks over an array's text; false if it is none, or has bounds other than from 1 (`[0:1]={…}`).
pub(super) fn walk(text: &[u8], mut meet: impl FnMut(Token<'_>) -> bool) -> bool {
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

/// Writes an element as Postgres does (`array_out`): quoted if it is empty, looks like NULL, or holds what an
/// array's text is made of.
pub(super) fn write_element(text: &[u8], out: &mut Vec<u8>) {
    let is_special = |byte: &u8| matches!(byte, b'"' | b'\\' | b'{' | b'}' | b',' | b' ' | b'\t'..=b'\r');
    if !text.is_empty() && !text.eq_ignore_ascii_case(b"NULL") && !text.iter().any(is_special) {
        out.extend_from_slice(text);
        return;
    }
    out.push(b'"');
    for byte in text {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    out.push(b'"');
}
