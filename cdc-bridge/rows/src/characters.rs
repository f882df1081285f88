//! Texts of a database whose encoding is not UTF-8: what each of their characters is in UTF-8, as the server says.
//!
//! Pure. If the server converted its stream, it would end the stream at the first character without an equivalent in UTF-8, for
//! every slice. So the server sends its texts as they are, and the bridge asks it once for each character. A text with a
//! character without an equivalent becomes invalid UTF-8. It stops only the slices that need the text. (The tables of a library
//! differ from the server's: a wave dash of EUC_JP is another character there.)

use crate::change::{Tuple, Value};
use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

/// Characters that are remembered: more than any encoding of a server has.
const KNOWN_MAX: usize = 1 << 17;

/// A byte that no text in UTF-8 has. It stands before the bytes of a character without an equivalent.
const NO_TEXT: u8 = 0xff;

/// How many bytes a character has, by its first one. (PostgreSQL source, `src/common/wchar.c`.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Width {
    One,
    Two,
    /// EUC_JP and what is built like it.
    Euc,
    EucTw,
}

impl Width {
    fn of(self, first: u8) -> usize {
        match (self, first) {
            (_, 0..=0x7f) | (Width::One, _) => 1,
            (Width::EucTw, 0x8e) => 4,
            (Width::Euc | Width::EucTw, 0x8f) => 3,
            _ => 2,
        }
    }
}

/// The characters of one encoding that were met so far.
#[derive(Debug, Default)]
pub struct Characters {
    /// None if texts are UTF-8, or are taken as they are.
    width: Option<Width>,
    /// None for a character without an equivalent in UTF-8.
    known: HashMap<Box<[u8]>, Option<Box<str>>>,
}

impl Characters {
    /// Of a server's encoding, as `SHOW server_encoding` names it.
    pub fn of(encoding: &str) -> Characters {
        let width = match encoding {
            "UTF8" | "SQL_ASCII" => None,
            "EUC_CN" => Some(Width::Two),
            "EUC_JP" | "EUC_JIS_2004" | "EUC_KR" | "JOHAB" => Some(Width::Euc),
            "EUC_TW" => Some(Width::EucTw),
            _ => Some(Width::One),
        };
        Characters { width, known: HashMap::new() }
    }

    /// Notes what a character is in UTF-8, as the server says; none if it has no equivalent.
    pub fn learn(&mut self, character: &[u8], text: Option<&str>) {
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        self.known.insert(character.into(), text.map(Into::into));
    }

    /// A text in UTF-8. What is not known of it is put into `unknown`; then the text is not whole.
    pub fn text<'a>(&self, text: &'a [u8], unknown: &mut BTreeSet<Vec<u8>>) -> Cow<'a, [u8]> {
        let Some(width) = self.width.filter(|_| !text.is_ascii()) else { return Cow::Borrowed(text) };
        let mut out = Vec::with_capacity(text.len() + text.len() / 2);
        let mut rest = text;
        while let Some(first) = rest.first() {
            let (character, after) = rest.split_at(width.of(*first).min(rest.len()));
            rest = after;
            match self.known.get(character) {
                _ if first.is_ascii() => out.push(*first),
                Some(Some(known)) => out.extend_from_slice(known.as_bytes()),
                Some(None) => {
                    out.push(NO_TEXT);
                    out.extend_from_slice(character);
                }
                None => drop(unknown.insert(character.to_vec())),
            }
        }
        Cow::Owned(out)
    }

    /// The same for the values of a row.
    pub(crate) fn tuple(&self, tuple: Tuple, unknown: &mut BTreeSet<Vec<u8>>) -> Tuple {
        if self.width.is_none() || tuple.as_bytes().is_ascii() {
            return tuple;
        }
        let texts: Vec<Option<Cow<'_, [u8]>>> = tuple
            .values()
            .map(|value| match value {
                Value::Text(text) => Some(self.text(text, unknown)),
                Value::Null | Value::Unchanged => None,
            })
            .collect();
        let values = tuple.values().zip(&texts).map(|(value, text)| match text {
            Some(text) => Value::Text(text),
            None => value,
        });
        Tuple::of(values.collect::<Vec<_>>().into_iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ENCODINGS: [&str; 5] = ["WIN1252", "EUC_CN", "EUC_JP", "EUC_TW", "UTF8"];

    fn told(characters: &Characters, text: &[u8]) -> (Vec<u8>, BTreeSet<Vec<u8>>) {
        let mut unknown = BTreeSet::new();
        let text = characters.text(text, &mut unknown).into_owned();
        (text, unknown)
    }

    #[test]
    fn a_character_is_asked_for_once_and_one_that_utf_8_has_not_leaves_no_text() {
        let mut characters = Characters::of("EUC_JP");
        let text = b"a\xa4\xa2b\x8f\xb0\xa1\xa4\xa2\xf5\xa1";
        let (_, unknown) = told(&characters, text);
        assert_eq!(unknown, [&b"\xa4\xa2"[..], b"\x8f\xb0\xa1", b"\xf5\xa1"].map(<[u8]>::to_vec).into());
        characters.learn(b"\xa4\xa2", Some("\u{3042}"));
        characters.learn(b"\x8f\xb0\xa1", Some("\u{4e02}"));
        characters.learn(b"\xf5\xa1", None);
        let (known, unknown) = told(&characters, text);
        assert!(unknown.is_empty() && std::str::from_utf8(&known).is_err());
        assert_eq!(told(&characters, &text[..9]).0, "a\u{3042}b\u{4e02}\u{3042}".as_bytes());
    }

    #[test]
    fn a_text_that_lacks_a_character_is_no_utf_8_whatever_its_bytes_look_like() {
        let mut characters = Characters::of("WIN1252");
        characters.learn(b"\xc3", Some("\u{c3}"));
        characters.learn(b"\x81", None);
        // As they are, these bytes would be a letter.
        assert!(std::str::from_utf8(b"\xc3\x81").is_ok());
        assert!(std::str::from_utf8(&told(&characters, b"\xc3\x81").0).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_and_ascii_stays(
            name in prop::sample::select(ENCODINGS.to_vec()),
            text in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut characters = Characters::of(name);
            for _ in 0..2 {
                let (_, unknown) = told(&characters, &text);
                unknown.iter().for_each(|one| characters.learn(one, Some("x")));
            }
            let (done, unknown) = told(&characters, &text);
            prop_assert!(unknown.is_empty());
            prop_assert!(name == "UTF8" || std::str::from_utf8(&done).is_ok());
            prop_assert!(!text.is_ascii() || done == text);
        }
    }
}
