//! Rust source reduced to what the rules look at: comments and the insides of strings blanked out, test modules too.
//!
//! It is no parser. It knows comments, strings, characters and braces, and keeps every line where it was.

/// The code of a file: comments, strings and characters are blanks, lines stay lines.
pub fn code(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match &bytes[at..] {
            [b'/', b'/', ..] => line_end(bytes, at),
            [b'/', b'*', ..] => block_comment_end(bytes, at),
            [b'"', ..] => string_end(bytes, at),
            [b'r', b'"' | b'#', ..] if !in_word(bytes, at) => raw_string_end(bytes, at).unwrap_or(at),
            [b'\'', ..] => character_end(bytes, at).unwrap_or(at),
            _ => at,
        };
        if end == at {
            at += 1;
            continue;
        }
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    // Only whole tokens were replaced, so this stays valid; a half character would show as a mark and harm nothing.
    String::from_utf8_lossy(&out).into_owned()
}

/// The code outside of `#[cfg(test)]` modules.
pub fn product_code(text: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let code = code(text);
    let mut kept = String::with_capacity(code.len());
    let mut rest = code.as_str();
    while let Some(at) = rest.find(MARK) {
        kept.push_str(&rest[..at]);
        let item = &rest[at..];
        let end = item_end(item);
        kept.extend(item[..end].chars().filter(|character| *character == '\n'));
        rest = &item[end..];
    }
    kept.push_str(rest);
    kept
}

/// The end of the item that begins here: its closing brace, or a semicolon before any brace.
fn item_end(item: &str) -> usize {
    let mut depth = 0usize;
    for (at, byte) in item.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' if depth <= 1 => return at + 1,
            b'}' => depth -= 1,
            b';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    item.len()
}

/// The places (counted in lines from 1) where `word` stands as a whole word.
pub fn lines_with<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let has = move |line: &str| {
        line.match_indices(word).any(|(at, _)| {
            let after = line[at + word.len()..].chars().next();
            // A word that ends in punctuation (`tokio::`) may be followed by anything.
            let open_end = !word.ends_with(|last: char| last.is_alphanumeric() || last == '_');
            !in_word(line.as_bytes(), at)
                && (open_end || !after.is_some_and(|next| next.is_alphanumeric() || next == '_'))
        })
    };
    text.lines().enumerate().filter(move |(_, line)| has(line)).map(|(number, _)| number + 1)
}

/// Whether the byte before `at` continues a word.
fn in_word(bytes: &[u8], at: usize) -> bool {
    at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_')
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    bytes[at..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |length| at + length)
}

/// Block comments nest.
fn block_comment_end(bytes: &[u8], at: usize) -> usize {
    let mut depth = 0;
    let mut here = at;
    while here < bytes.len() {
        match &bytes[here..] {
            [b'/', b'*', ..] => {
                depth += 1;
                here += 2;
            }
            [b'*', b'/', ..] => {
                depth -= 1;
                here += 2;
                if depth == 0 {
                    return here;
                }
            }
            _ => here += 1,
        }
    }
    bytes.len()
}

fn string_end(bytes: &[u8], at: usize) -> usize {
    let mut here = at + 1;
    while here < bytes.len() {
        match bytes[here] {
            b'\\' => here += 2,
            b'"' => return here + 1,
            _ => here += 1,
        }
    }
    bytes.len()
}

/// `r"…"`, `r#"…"#` and so on; `None` for a raw identifier.
fn raw_string_end(bytes: &[u8], at: usize) -> Option<usize> {
    let hashes = bytes[at + 1..].iter().take_while(|byte| **byte == b'#').count();
    let open = at + 1 + hashes;
    if bytes.get(open) != Some(&b'"') {
        return None;
    }
    let close: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    let length = bytes[open + 1..].windows(close.len()).position(|window| window == close);
    Some(length.map_or(bytes.len(), |length| open + 1 + length + close.len()))
}

/// A character like `'x'`, `'\''` or `'ä'`; `None` for a lifetime.
fn character_end(bytes: &[u8], at: usize) -> Option<usize> {
    const LONGEST: usize = 12; // '\u{10ffff}'
    let from = if bytes.get(at + 1) == Some(&b'\\') { at + 3 } else { at + 2 };
    let window = bytes.get(from..bytes.len().min(at + LONGEST + 1))?;
    let close = from + window.iter().position(|byte| *byte == b'\'')?;
    let inside = std::str::from_utf8(&bytes[at + 1..close]).ok()?;
    (inside.starts_with('\\') || inside.chars().count() == 1).then_some(close + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_strings_and_characters_are_blank() {
        let text = "let a = \"tokio::\"; // tokio::\nlet b = 'x'; /* tokio:: /* */ tokio:: */ let c = r#\"tokio:: \" \"#;";
        let code = code(text);
        assert!(!code.contains("tokio"), "{code}");
        assert_eq!(code.lines().count(), 2);
        assert!(code.contains("let c ="));
    }

    #[test]
    fn lifetimes_and_quotes_in_characters_confuse_nothing() {
        let text = "fn f<'a>(x: &'a str) -> char { '\"' } // \"\nfn g() { let q = '\\''; here() } const E: char = 'ä'; end()";
        let code = code(text);
        assert!(
            code.contains("here()") && code.contains("end()") && code.contains("fn f<'a>(x: &'a str)"),
            "{code}"
        );
    }

    #[test]
    fn test_modules_are_left_out_and_lines_stay() {
        let text = "a();\n#[cfg(test)]\nmod tests {\n    fn f() { tokio::x(); }\n}\nb();\n#[cfg(test)]\nmod more;\nc();";
        let code = product_code(text);
        assert!(!code.contains("tokio") && !code.contains("more"));
        assert_eq!(lines_with(&code, "c").next(), Some(9));
        assert_eq!(lines_with(&code, "b").next(), Some(6));
    }

    #[test]
    fn words_are_whole() {
        assert_eq!(lines_with("mytokio::x\ntokio::y\ntokio", "tokio::").collect::<Vec<_>>(), [2]);
        assert_eq!(lines_with("InstantX\nInstant", "Instant").collect::<Vec<_>>(), [2]);
    }
}
