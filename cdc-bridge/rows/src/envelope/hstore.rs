//! `hstore`: its text as JSON in a string.

use super::json;

/// `"key"=>"value", "other"=>NULL`. The members stand as Java's `HashMap` has them, which Debezium reads them into.
pub(super) fn write(text: &str, out: &mut Vec<u8>) -> Option<()> {
    let (mut members, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        if !members.is_empty() {
            rest = rest.strip_prefix(", ")?;
        }
        let (key, after) = quoted(rest)?;
        let after = after.strip_prefix("=>")?;
        let value;
        (value, rest) = match after.strip_prefix("NULL") {
            Some(rest) => (None, rest),
            None => quoted(after).map(|(value, rest)| (Some(value), rest))?,
        };
        members.push((key, value));
    }
    let places = places(members.len());
    members.sort_by_key(|(key, _)| hash(key) & (places - 1));
    let mut object = vec![b'{'];
    for (n, (key, value)) in members.iter().enumerate() {
        if n > 0 {
            object.push(b',');
        }
        json::string_in_text(key.as_bytes(), &mut object);
        object.push(b':');
        match value {
            Some(value) => json::string_in_text(value.as_bytes(), &mut object),
            None => object.extend_from_slice(b"null"),
        }
    }
    object.push(b'}');
    json::string(&object, out);
    Some(())
}

/// How many places a `HashMap` has for so many members: it doubles when it is filled by more than three quarters.
fn places(members: usize) -> u32 {
    let mut places = 16;
    while members > places as usize / 4 * 3 {
        places *= 2;
    }
    places
}

/// `HashMap.hash` of `String.hashCode`.
fn hash(text: &str) -> u32 {
    let hash =
        text.encode_utf16().fold(0u32, |hash, unit| hash.wrapping_mul(31).wrapping_add(u32::from(unit)));
    hash ^ (hash >> 16)
}

/// Takes a quoted text from the front.
fn quoted(text: &str) -> Option<(String, &str)> {
    let text = text.strip_prefix('"')?;
    let (mut read, mut chars) = (String::new(), text.char_indices());
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Some((read, &text[at + 1..])),
            '\\' => read.push(chars.next()?.1),
            char => read.push(char),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The orders that Java printed.
    #[test]
    fn members_stand_as_in_javas_hash_map() {
        let keys: Vec<String> = (0..14).map(|n| format!("key{n}")).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        for (keys, expected) in [
            (keys, "key1 key2 key0 key5 key6 key3 key4 key9 key7 key8 key11 key10 key13 key12"),
            (vec!["name", "colour", "size", "žluť", "🐘"], "🐘 žluť colour size name"),
        ] {
            let members: Vec<String> = keys.iter().map(|key| format!("\"{key}\"=>\"1\"")).collect();
            let mut out = Vec::new();
            write(&members.join(", "), &mut out).unwrap();
            let json: String = serde_json::from_slice(&out).unwrap();
            let members =
                json.trim_matches(['{', '}']).split(',').map(|member| member.split('"').nth(1).unwrap());
            assert_eq!(members.collect::<Vec<_>>().join(" "), expected);
        }
    }
}
