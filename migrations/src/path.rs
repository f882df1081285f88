//! Spellings of a path: which one stands for all that mean the same, and what less careful servers take it for.

/// The spelling that stands for all equivalent ones (RFC 3986, 6.2.2): needless percent-encodings are undone, the others
/// have capital digits, and dot segments are resolved. `None` if the path is spelled so already.
///
/// If a `%` encodes nothing, encodings stay: what is undone beside it could become another one.
pub fn normal(path: &[u8]) -> Option<Vec<u8>> {
    if !path.contains(&b'%') && !has_dot_segment(path) {
        return None;
    }
    let plain = match decoded(path, |_| false) {
        (_, true) => without_dot_segments(path),
        (_, false) => without_dot_segments(&decoded(path, is_unreserved).0),
    };
    (plain != path).then_some(plain)
}

type Quirk = fn(&[u8]) -> Vec<u8>;

/// What servers are known to do with a path beyond RFC 3986, in the order in which they do it.
const QUIRKS: [Quirk; 6] = [
    // Decode what is reserved, too: `%2F`, `%5C`, `%3B`, `%23`, `%00`.
    |path| decoded(path, is_sign).0,
    // Decode once more: `%252F`.
    |path| decoded(path, is_sign).0,
    |path| path.split(|b| matches!(b, b'#' | b'?' | 0)).next().unwrap_or_default().to_vec(),
    |path| path.iter().map(|b| if *b == b'\\' { b'/' } else { *b }).collect(),
    |path| join(path.split(|b| *b == b'/').map(|part| part.split(|b| *b == b';').next().unwrap_or_default())),
    without_empty_segments,
];

/// The other paths that some server may read in a normal path: each choice of the quirks that change it. Most paths have
/// none.
pub fn readings(path: &[u8]) -> Vec<Vec<u8>> {
    let is_plain = |b: &u8| is_unreserved(*b) || matches!(*b, b'/' | b':' | b'@' | b',' | b'=' | b'+');
    if path.iter().all(is_plain) && !path.windows(2).any(|pair| pair == b"//") {
        return Vec::new();
    }
    let mut found = vec![path.to_vec()];
    for quirk in QUIRKS {
        for at in 0..found.len() {
            let read = quirk(&found[at]);
            if !found.contains(&read) {
                found.push(read);
            }
        }
    }
    for at in 0..found.len() {
        let read = without_dot_segments(&found[at]);
        if !found.contains(&read) {
            found.push(read);
        }
    }
    found.swap_remove(0);
    found
}

/// What may stand for itself, too, and NUL, which ends a text in C.
fn is_sign(b: u8) -> bool {
    b.is_ascii_graphic() || b == 0
}

/// RFC 3986, 2.3.
fn is_unreserved(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~')
}

/// Undoes the percent-encodings of the bytes that `is_undone` names. A `%` without two digits stays; tells whether there is
/// one.
fn decoded(path: &[u8], is_undone: impl Fn(u8) -> bool) -> (Vec<u8>, bool) {
    let mut has_stray = false;
    let mut plain = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        let digits = match after {
            [high, low, ..] if *first == b'%' => hex(*high).zip(hex(*low)),
            _ => None,
        };
        let Some((high, low)) = digits else {
            has_stray |= *first == b'%';
            plain.push(*first);
            continue;
        };
        rest = &after[2..];
        let byte = high << 4 | low;
        if is_undone(byte) {
            plain.push(byte);
        } else {
            plain.extend([b'%', after[0].to_ascii_uppercase(), after[1].to_ascii_uppercase()]);
        }
    }
    (plain, has_stray)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

fn is_dots(segment: &[u8]) -> bool {
    matches!(segment, b"." | b"..")
}

fn has_dot_segment(path: &[u8]) -> bool {
    path.split(|b| *b == b'/').any(is_dots)
}

/// RFC 3986, 5.2.4. A path cannot leave its root.
fn without_dot_segments(path: &[u8]) -> Vec<u8> {
    if !has_dot_segment(path) {
        return path.to_vec();
    }
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut ends_in_dots = false;
    for segment in path.split(|b| *b == b'/').skip(1) {
        ends_in_dots = is_dots(segment);
        match segment {
            b"." => {}
            b".." => drop(kept.pop()),
            other => kept.push(other),
        }
    }
    // What dots end is a folder.
    kept.extend(ends_in_dots.then_some(&b""[..]));
    join(std::iter::once(&b""[..]).chain(kept))
}

fn without_empty_segments(path: &[u8]) -> Vec<u8> {
    let mut plain = path.to_vec();
    plain.dedup_by(|b, before| (*b, *before) == (b'/', b'/'));
    plain
}

fn join<'p>(segments: impl Iterator<Item = &'p [u8]>) -> Vec<u8> {
    segments.collect::<Vec<_>>().join(&b'/')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn normal_of(path: &str) -> String {
        String::from_utf8(normal(path.as_bytes()).unwrap_or(path.into())).unwrap()
    }

    #[test]
    fn equivalent_spellings_become_one() {
        for (spelled, plain) in [
            ("/orders", "/orders"),
            ("/%6frders", "/orders"),
            ("/%6Frders/%7e", "/orders/~"),
            ("/./orders", "/orders"),
            ("/a/../orders", "/orders"),
            ("/a/%2e%2E/orders", "/orders"),
            ("/a/.%2e/orders/.", "/orders/"),
            ("/../../orders/..", "/"),
            ("/a//../b", "/a/b"),
            ("/a%2fb", "/a%2Fb"),
            ("/a%2", "/a%2"),
            ("/a%zz%", "/a%zz%"),
            ("/%%30a/./b", "/%%30a/b"),
            ("/%2561", "/%2561"),
            ("/...", "/..."),
            ("/", "/"),
        ] {
            assert_eq!(normal_of(spelled), plain, "{spelled}");
        }
    }

    #[test]
    fn a_careless_server_may_read_another_path() {
        for spelled in [
            "//orders",
            "/orders;v=1",
            "/;/orders",
            "/orders#x",
            "/orders%23x",
            "/orders%3Fx",
            "/orders%00",
            "/%2Forders",
            "/x%2F..%2Forders",
            "/x/..;/orders",
            "\\orders",
            "/x%5C..%5Corders",
            "/%5corders",
            "/%252Forders",
            "/orders;/",
            "/%3B/orders",
            "/orders%3Bv=1",
        ] {
            let read = readings(normal_of(spelled).as_bytes());
            let is_it = |path: &Vec<u8>| path == b"/orders" || path == b"/orders/";
            assert!(read.iter().any(is_it), "{spelled}: {read:?}");
        }
        for plain in ["/", "/orders", "/orders/7", "/a.b/~c/d:e@f", "/a=b,c+d"] {
            assert_eq!(readings(plain.as_bytes()), Vec::<Vec<u8>>::new(), "{plain}");
        }
    }

    proptest! {
        #[test]
        fn a_normal_path_stays_and_has_no_way_up(path in "(/(\\.|%2[eEfF]|%[0-9a-fA-F]{2}|[a-c;]|%)*)+") {
            let once = normal_of_bytes(path.as_bytes());
            prop_assert!(once.starts_with(b"/"));
            prop_assert!(!has_dot_segment(&once));
            prop_assert_eq!(normal(&once), None);
        }

        #[test]
        fn readings_are_bounded(path: Vec<u8>) {
            prop_assert!(readings(&path).len() < 1 << (QUIRKS.len() + 1));
        }
    }

    fn normal_of_bytes(path: &[u8]) -> Vec<u8> {
        normal(path).unwrap_or_else(|| path.to_vec())
    }
}
