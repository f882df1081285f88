//! Rows in the text format of COPY (PostgreSQL manual, COPY, File Formats).

use crate::change::{Tuple, Value};
use bytes::{BufMut, BytesMut};

/// Appends one row: the columns at `indexes`, which must rise.
pub fn row(tuple: &Tuple, indexes: &[usize], out: &mut BytesMut) {
    let mut wanted = indexes.iter().peekable();
    for (index, value) in tuple.values().enumerate() {
        if wanted.next_if(|next| **next == index).is_none() {
            continue;
        }
        match value {
            Value::Text(text) => escape(text, out),
            Value::Null | Value::Unchanged => out.put_slice(b"\\N"),
        }
        out.put_u8(if wanted.peek().is_some() { b'\t' } else { b'\n' });
    }
}

fn escape(text: &[u8], out: &mut BytesMut) {
    let mut plain = 0;
    for (at, byte) in text.iter().enumerate() {
        let escaped = match byte {
            b'\\' => b'\\',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            _ => continue,
        };
        out.put_slice(&text[plain..at]);
        out.put_slice(&[b'\\', escaped]);
        plain = at + 1;
    }
    out.put_slice(&text[plain..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_escaped_and_only_wanted_columns_are_written() {
        let values = [Value::Text(b"a\tb\\c\n"), Value::Text(b"left out"), Value::Null, Value::Text(b"")];
        let mut out = BytesMut::new();
        row(&Tuple::of(values.into_iter()), &[0, 2, 3], &mut out);
        assert_eq!(&out[..], b"a\\tb\\\\c\\n\t\\N\t\n");
    }
}
