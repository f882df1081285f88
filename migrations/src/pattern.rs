//! Route patterns: a method and a path template such as `GET /orders/{id}` or `GET /files/{*rest}`.
//!
//! Matching many patterns fast is the proxy's; here a pattern is parsed, shown, matched alone, and compared with another.

mod foreign;
mod kind;

pub use kind::Kind;

use crate::path;
use crate::text::{BadText, travels_as_text};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The longest pattern, in bytes.
pub const PATTERN_LEN_MAX: usize = 1024;

const SEGMENTS: &str = "write a path of text, `{name}` for one segment, `{name:int}` for one of a kind, or `{*rest}` for the rest, each name once";

pub const METHODS: [&str; 9] =
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"];

/// Whether a method only reads (RFC 9110, 9.2.1). GET also stands for HEAD in a pattern.
pub fn is_safe_method(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// It changes nothing: its requests may be shared by percent.
    Read,
    /// It may change rows: with tables it moves by cutover only.
    Write,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Segment {
    /// Itself, byte for byte, in the [normal spelling](crate::path::normal) of a path.
    Literal(String),
    /// `{name:kind}`: one segment of a kind.
    Typed { name: String, written: String, kind: Kind },
    /// `{name}`: any one segment that is not empty.
    Name(String),
    /// `{*rest}`: all that follows, at least one byte; only at the end.
    Rest(String),
}

/// A method and a path template.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern {
    method: String,
    segments: Vec<Segment>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meeting {
    Apart,
    /// Every request that matches one matches the other: one of them is never reached.
    Same,
    /// All that matches the first also matches the second, which is wider; the first wins there, as meant.
    Within,
    /// The reverse of `Within`.
    Around,
    /// Some requests match both, and each also has its own: which one wins surprises the reader.
    Crossing,
}

impl Pattern {
    pub fn method(&self) -> &str {
        &self.method
    }

    /// The path's segments; empty for `/`. A trailing slash is an empty last literal.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    pub fn path(&self) -> String {
        let mut path = String::new();
        for segment in &self.segments {
            path.push('/');
            match segment {
                Segment::Literal(text) => path.push_str(text),
                Segment::Typed { name, written, .. } => path.extend(["{", name, ":", written, "}"]),
                Segment::Name(name) => path.extend(["{", name, "}"]),
                Segment::Rest(name) => path.extend(["{*", name, "}"]),
            }
        }
        if path.is_empty() { "/".to_owned() } else { path }
    }

    /// Reads by default where the method is safe.
    pub fn default_access(&self) -> Access {
        if is_safe_method(&self.method) { Access::Read } else { Access::Write }
    }

    /// Whether one request matches, by its method and the normal spelling of its path. A HEAD request matches a GET pattern.
    pub fn matches(&self, method: &str, path: &str) -> bool {
        let method_fits = self.method == method || (self.method == "GET" && method == "HEAD");
        let Some(path) = path.strip_prefix('/') else { return false };
        method_fits && matches_from(&self.segments, path)
    }

    /// Whether it gets the requests that both match. At the first difference text wins over `{name:kind}`, a narrower kind over
    /// a wider one, any kind over `{name}`, and `{name}` over `{*rest}`. None if two kinds differ there of which neither is
    /// narrower.
    pub fn wins(&self, other: &Pattern) -> Option<bool> {
        let rank = |segment: &Segment| match segment {
            Segment::Literal(_) => 0,
            Segment::Typed { .. } => 1,
            Segment::Name(_) => 2,
            Segment::Rest(_) => 3,
        };
        for pair in self.segments.iter().zip(&other.segments) {
            match pair {
                (Segment::Typed { kind: a, .. }, Segment::Typed { kind: b, .. }) if a != b => {
                    return if b.covers(*a) {
                        Some(true)
                    } else if a.covers(*b) {
                        Some(false)
                    } else {
                        None
                    };
                }
                (a, b) if rank(a) != rank(b) => return Some(rank(a) < rank(b)),
                _ => {}
            }
        }
        Some(true)
    }

    /// How the sets of requests of two patterns meet.
    pub fn meeting(&self, other: &Pattern) -> Meeting {
        if self.method != other.method {
            return Meeting::Apart;
        }
        if !overlap(&self.segments, &other.segments) {
            return Meeting::Apart;
        }
        match (covers(&other.segments, &self.segments), covers(&self.segments, &other.segments)) {
            (true, true) => Meeting::Same,
            (true, false) => Meeting::Within,
            (false, true) => Meeting::Around,
            (false, false) => Meeting::Crossing,
        }
    }
}

fn matches_from(segments: &[Segment], path: &str) -> bool {
    let Some((first, later)) = segments.split_first() else { return path.is_empty() };
    let (head, tail) = match path.split_once('/') {
        Some((head, tail)) => (head, Some(tail)),
        None => (path, None),
    };
    let fits = match first {
        Segment::Literal(text) => text == head,
        Segment::Typed { kind, .. } => kind.takes(head.as_bytes()),
        Segment::Name(_) => !head.is_empty(),
        Segment::Rest(_) => return !path.is_empty(),
    };
    match (fits, tail) {
        (false, _) => false,
        (true, None) => later.is_empty(),
        (true, Some(tail)) => !later.is_empty() && matches_from(later, tail),
    }
}

/// Whether some path matches both.
fn overlap(a: &[Segment], b: &[Segment]) -> bool {
    match (a.split_first(), b.split_first()) {
        (None, None) => true,
        (Some((Segment::Rest(_), _)), Some(_)) | (Some(_), Some((Segment::Rest(_), _))) => {
            !is_only_empty(a) && !is_only_empty(b)
        }
        (Some((x, a)), Some((y, b))) => {
            let meet = match (x, y) {
                (Segment::Literal(x), Segment::Literal(y)) => x == y,
                (Segment::Literal(x), Segment::Typed { kind, .. })
                | (Segment::Typed { kind, .. }, Segment::Literal(x)) => kind.takes(x.as_bytes()),
                (Segment::Literal(x), _) | (_, Segment::Literal(x)) => !x.is_empty(),
                (Segment::Typed { kind: x, .. }, Segment::Typed { kind: y, .. }) => x.meets(*y),
                _ => true,
            };
            meet && overlap(a, b)
        }
        _ => false,
    }
}

fn is_only_empty(segments: &[Segment]) -> bool {
    matches!(segments, [Segment::Literal(text)] if text.is_empty())
}

/// Whether every path that matches `narrow` matches `wide`.
fn covers(wide: &[Segment], narrow: &[Segment]) -> bool {
    match (wide.split_first(), narrow.split_first()) {
        (None, None) => true,
        (Some((Segment::Rest(_), _)), Some(_)) => !is_only_empty(narrow),
        (Some((x, wide)), Some((y, narrow))) => {
            let inside = match (x, y) {
                (Segment::Literal(x), Segment::Literal(y)) => x == y,
                (Segment::Name(_), Segment::Literal(y)) => !y.is_empty(),
                (Segment::Name(_), Segment::Name(_) | Segment::Typed { .. }) => true,
                (Segment::Typed { kind, .. }, Segment::Literal(y)) => kind.takes(y.as_bytes()),
                (Segment::Typed { kind: x, .. }, Segment::Typed { kind: y, .. }) => x.covers(*y),
                _ => false,
            };
            inside && covers(wide, narrow)
        }
        _ => false,
    }
}

impl FromStr for Pattern {
    type Err = BadText;
    fn from_str(text: &str) -> Result<Self, BadText> {
        let text = text.trim();
        let bad_method = || {
            let remedy = format!("write one of {} and a path, e.g. `GET /orders/{{id}}`", METHODS.join(", "));
            BadText::new(text, "does not begin with a method", remedy)
        };
        let (method, path) = text.split_once(' ').ok_or_else(bad_method)?;
        if !METHODS.contains(&method) {
            return Err(bad_method());
        }
        let path = path.trim_start();
        let bad_path = || {
            let remedy = "write for example `/orders/{id}`, without query or blanks";
            BadText::new(path, "is not a path", remedy)
        };
        if text.len() <= PATTERN_LEN_MAX
            && let Some(foreign) = foreign::recognise(path)
        {
            return Err(respell(method, path, foreign.respelled));
        }
        let odd = |b: u8| b <= b' ' || b == 0x7f || b == b'?' || b == b'#' || !b.is_ascii();
        if text.len() > PATTERN_LEN_MAX || !path.starts_with('/') || path.bytes().any(odd) {
            return Err(bad_path());
        }
        let path = plainly(path)?;
        let rest = path.strip_prefix('/').unwrap_or_default();
        let mut segments: Vec<Segment> = Vec::new();
        if !rest.is_empty() {
            for part in rest.split('/') {
                if let Some(Segment::Rest(name)) = segments.last() {
                    let (rest, remedy) = (format!("{{*{name}}}"), "it can only be the last segment");
                    return Err(BadText::new(&rest, "takes all that follows", remedy));
                }
                let segment = parse_segment(part)?;
                let repeated =
                    name_of(&segment).is_some_and(|n| segments.iter().any(|s| name_of(s) == Some(n)));
                if repeated {
                    return Err(bad_segment(part));
                }
                segments.push(segment);
            }
        }
        Ok(Self { method: method.to_owned(), segments })
    }
}

/// The normal spelling of a template. What servers read in different ways names no route.
fn plainly(path: &str) -> Result<String, BadText> {
    let bytes = path::normal(path.as_bytes()).unwrap_or_else(|| path.into());
    // The signs of a template are none of a path.
    let text = |part: &[u8]| if part.starts_with(b"{") { b"x".to_vec() } else { part.to_vec() };
    let bare = bytes.split(|b| *b == b'/').map(text).collect::<Vec<_>>().join(&b'/');
    match String::from_utf8(bytes) {
        Ok(plain) if path::readings(&bare).is_empty() => Ok(plain),
        _ => {
            let remedy = "spell it without encoded signs, backslashes, `;` and empty segments";
            Err(BadText::new(path, "is read by servers in different ways", remedy))
        }
    }
}

fn name_of(segment: &Segment) -> Option<&str> {
    match segment {
        Segment::Literal(_) => None,
        Segment::Typed { name, .. } | Segment::Name(name) | Segment::Rest(name) => Some(name),
    }
}

/// A brace that does not enclose a whole segment, or an empty or repeated name.
fn bad_segment(part: &str) -> BadText {
    BadText::new(part, "is not a segment", SEGMENTS)
}

/// Text, it would match nothing.
fn respell(method: &str, path: &str, respelled: Option<String>) -> BadText {
    let here =
        respelled.map(|path| format!("{method} {path}")).filter(|here| here.parse::<Pattern>().is_ok());
    let remedy = here.map_or_else(|| SEGMENTS.to_owned(), |here| format!("write `{here}`"));
    BadText::new(path, "is not how a path is written here", remedy)
}

fn parse_segment(part: &str) -> Result<Segment, BadText> {
    let bad = || bad_segment(part);
    let Some(inner) = part.strip_prefix('{').and_then(|p| p.strip_suffix('}')) else {
        let plain = !part.contains(['{', '}']);
        return if plain { Ok(Segment::Literal(part.to_owned())) } else { Err(bad()) };
    };
    let (is_rest, name) = match inner.strip_prefix('*') {
        Some(name) => (true, name),
        None => (false, inner),
    };
    let (name, kind) = match name.split_once(':') {
        Some((name, written)) if !is_rest => (name, Some((written, written.parse::<Kind>()?))),
        _ => (name, None),
    };
    let fits = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if !fits {
        return Err(bad());
    }
    let name = name.to_owned();
    Ok(match kind {
        Some((written, kind)) => Segment::Typed { name, written: written.to_owned(), kind },
        None if is_rest => Segment::Rest(name),
        None => Segment::Name(name),
    })
}

travels_as_text!(Pattern);

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{} {}", self.method, self.path()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        text.parse().unwrap()
    }

    #[test]
    fn patterns_match_the_normal_path() {
        assert_eq!(pattern("GET /%7euser/./{id}/caf%c3%a9").path(), "/~user/{id}/caf%C3%A9");
        let show = pattern("GET /orders/{id}");
        assert!(show.matches("GET", "/orders/7"));
        assert!(show.matches("HEAD", "/orders/7"));
        assert!(!show.matches("GET", "/orders/"));
        assert!(!show.matches("GET", "/orders/7/"));
        assert!(!show.matches("POST", "/orders/7"));
        let files = pattern("GET /files/{*rest}");
        assert!(files.matches("GET", "/files/a/b//c"));
        assert!(!files.matches("GET", "/files/"));
        assert!(!files.matches("GET", "/files"));
        assert!(pattern("GET /").matches("GET", "/"));
        let typed = pattern("GET /orders/{id:int}/{code:[A-Z]{3}}");
        assert_eq!(typed.path(), "/orders/{id:int}/{code:[A-Z]{3}}");
        assert!(typed.matches("GET", "/orders/7/ABC"));
        assert!(!typed.matches("GET", "/orders/x/ABC"));
        assert!(!typed.matches("GET", "/orders/7/ABCD"));
        assert!(pattern(r"GET /y/{n:\d{4}}").matches("GET", "/y/2026"));
    }

    #[test]
    fn malformed_patterns_are_refused() {
        for bad in [
            "/orders",
            "get /orders",
            "GET orders",
            "GET /a b",
            "GET /a?x=1",
            "GET /{a}/{a}",
            "GET /a{b}",
            "GET /{*r}/x",
            "GET /{}",
            "GET /ä",
            "GET /a%2Fb",
            "GET /a/%5C",
            "GET /a;v=1",
            "GET /a//b",
            "GET /a%00",
            "GET /{a:int}/{a}",
            "GET /{a:}",
            "GET /{:int}",
            "GET /{*a:int}",
            "GET /{a:[/]+}",
            "GET /{a:int}//b",
            "GET /orders/*",
            "GET /orders/:id",
            "GET /orders/<int:id>",
            r"GET ^orders/(\d+)$",
        ] {
            assert!(bad.parse::<Pattern>().is_err(), "{bad}");
        }
    }

    #[test]
    fn meetings_tell_shadowed_from_nested_from_crossing() {
        let meet = |a: &str, b: &str| pattern(a).meeting(&pattern(b));
        assert_eq!(meet("GET /a/{x}", "GET /a/{y}"), Meeting::Same);
        assert_eq!(meet("GET /a/b", "GET /a/{y}"), Meeting::Within);
        assert_eq!(meet("GET /a/{*r}", "GET /a/{y}"), Meeting::Around);
        assert_eq!(meet("GET /a/{x}/c", "GET /a/b/{y}"), Meeting::Crossing);
        assert_eq!(meet("GET /a", "POST /a"), Meeting::Apart);
        assert_eq!(meet("GET /a/", "GET /a/{*r}"), Meeting::Apart);
        assert_eq!(meet("GET /a", "GET /b"), Meeting::Apart);
        assert_eq!(meet("GET /a/{x:int}", "GET /a/{y}"), Meeting::Within);
        assert_eq!(meet("GET /a/{*r}", "GET /a/{y:int}"), Meeting::Around);
        assert_eq!(meet("GET /a/7", "GET /a/{y:int}"), Meeting::Within);
        assert_eq!(meet("GET /a/b", "GET /a/{y:int}"), Meeting::Apart);
        assert_eq!(meet("GET /a/{x:int}", "GET /a/{y:[0-9]+}"), Meeting::Same);
        assert_eq!(meet("GET /a/{x:int}", "GET /a/{y:slug}"), Meeting::Within);
        assert_eq!(meet("GET /a/{x:[a-c]+}", "GET /a/{y:[c-e]+}"), Meeting::Crossing);
        assert_eq!(meet("GET /a/{x:[a-c]+}/p", "GET /a/{y:[c-e]+}/q"), Meeting::Apart);
        assert_eq!(pattern("GET /a/{x:int}").wins(&pattern("GET /a/{y:slug}")), Some(true));
        assert_eq!(pattern("GET /a/{x:[a-c]+}").wins(&pattern("GET /a/{y:[c-e]+}")), None);
    }
}
