//! Heads of requests and answers, read from the front of what arrived.
//!
//! What two servers could read in two ways is refused here or in [`crate::framing`], before any decision uses it.

use crate::Malformed;
use crate::fields::{FIELDS_MAX, Field, Fields, Name, Span};
use crate::options::Options;
use bytes::{Buf, BytesMut};
use httparse::{ParserConfig, Status};
use std::mem::MaybeUninit;

const HEAD_BYTES_MAX: usize = 1 << 20;
const BAD_STATUS: Malformed = Malformed("its status is not between 100 and 999");
const BARE_LINE_FEED: Malformed = Malformed("its lines end without a carriage return");
const TOO_LARGE: Malformed = Malformed("its head is larger than 1 MiB or has more than 1024 fields");

#[derive(Debug, Default)]
pub struct RequestHead {
    pub fields: Fields,
    /// Whether it is HTTP/1.0.
    pub is_old: bool,
    pub(crate) options: Options,
    method: Span,
    target: Span,
    searched: usize,
}

impl RequestHead {
    /// Takes a head from the front of what arrived. `false` if it is not complete.
    pub fn read(&mut self, inbox: &mut BytesMut) -> Result<bool, Malformed> {
        self.method = Span::default();
        // Empty lines before a request do not belong to it (RFC 9112, 2.2).
        while inbox.starts_with(b"\r\n") {
            inbox.advance(2);
            self.searched = 0;
        }
        if inbox.first() == Some(&b'\n') {
            return Err(BARE_LINE_FEED);
        }
        if !may_be_whole(inbox, &mut self.searched)? {
            return Ok(false);
        }
        let mut found = [MaybeUninit::uninit(); FIELDS_MAX];
        let mut parsed = httparse::Request::new(&mut []);
        let status =
            ParserConfig::default().parse_request_with_uninit_headers(&mut parsed, inbox, &mut found);
        let Status::Complete(end) = status.map_err(why)? else { return not_whole(inbox) };
        let text = &inbox[..end];
        let method = parsed.method.unwrap_or_default().as_bytes();
        let target = parsed.path.unwrap_or_default().as_bytes();
        (self.method, self.target) = (Span::of(method, text), Span::of(target, text));
        self.is_old = parsed.version == Some(0);
        self.fields.replace(text, parsed.headers);
        self.searched = 0;
        inbox.advance(end);
        self.check()?;
        Ok(true)
    }

    pub fn method(&self) -> &str {
        std::str::from_utf8(self.method.within(self.fields.text())).unwrap_or_default()
    }

    /// How much memory its text takes.
    pub fn bytes(&self) -> usize {
        self.fields.text().len()
    }

    /// The path and query: the target without the scheme and host of an absolute one.
    pub fn target(&self) -> &[u8] {
        let target = self.target.within(self.fields.text());
        authority(target).map_or(target, |(_, rest)| rest)
    }

    /// Puts another spelling of the path in the place of the one that arrived. The query stays.
    pub fn respell(&mut self, path: &[u8]) {
        let query = self.target().splitn(2, |b| *b == b'?').nth(1).map(<[u8]>::to_vec);
        let query = query.map(|query| [&b"?"[..], &query].concat()).unwrap_or_default();
        self.target = self.fields.keep([path, &query]);
    }

    /// The path without the query.
    pub fn path(&self) -> &[u8] {
        let target = self.target();
        target.split(|b| *b == b'?').next().unwrap_or(target)
    }

    /// Whether the client keeps its connection.
    pub fn wants_more(&self) -> bool {
        !self.options.close && (!self.is_old || self.options.keep_alive)
    }

    /// Whether it asks for a WebSocket. Other upgrades are not offered to upstreams. Nor is a request with a body: an
    /// upstream could read the body as the other protocol.
    pub fn is_upgrade(&self) -> bool {
        let is_websocket = |value: &[u8]| value.eq_ignore_ascii_case(b"websocket");
        self.options.upgrade
            && !self.is_old
            && self.fields.first(Name::Upgrade).is_some_and(is_websocket)
            && !self.fields.has(Name::ContentLength)
            && !self.fields.has(Name::TransferEncoding)
    }

    /// The fields that are passed on to the next hop, in their order.
    pub fn onward(&self) -> impl Iterator<Item = Field<'_>> {
        self.options.onward(&self.fields)
    }

    #[cfg(test)]
    pub(crate) fn from_text(text: &str) -> Self {
        let mut head = Self::default();
        assert_eq!(head.read(&mut text.into()), Ok(true), "{text}");
        head
    }

    fn check(&mut self) -> Result<(), Malformed> {
        let text = self.fields.text();
        if text.iter().zip(text.iter().skip(1)).any(|(before, b)| *b == b'\n' && *before != b'\r') {
            return Err(BARE_LINE_FEED);
        }
        if self.method() == "CONNECT" {
            return Err(Malformed("it uses CONNECT, which is not supported"));
        }
        let mut hosts = self.fields.all(Name::Host);
        let (host, another) = (hosts.next(), hosts.next());
        if another.is_some()
            || host.is_none() && !self.is_old
            || host.is_some_and(|host| host.contains(&b'@'))
        {
            return Err(Malformed("it must have exactly one `Host` field"));
        }
        let target = self.target.within(text);
        let is_rooted = target.first() == Some(&b'/') || target == b"*" && self.method() == "OPTIONS";
        if !is_rooted {
            // If the target's host differed from `Host`, one server would route by it and another refuse it.
            match authority(target) {
                Some((authority, rest)) if Some(authority) == host && rest.first() == Some(&b'/') => {}
                _ => return Err(Malformed("its target is not a path, or its host differs from `Host`")),
            }
        }
        self.options = Options::read(&self.fields)?;
        Ok(())
    }
}

#[derive(Debug, Default)]
pub struct AnswerHead {
    pub fields: Fields,
    /// Whether it is HTTP/1.0.
    pub is_old: bool,
    pub status: u16,
    options: Options,
    reason: Span,
    searched: usize,
}

impl AnswerHead {
    /// Starts with the answer of another connection.
    pub fn begin(&mut self) {
        self.searched = 0;
    }

    /// Takes a head from the front of what arrived. `false` if it is not complete.
    pub fn read(&mut self, inbox: &mut BytesMut) -> Result<bool, Malformed> {
        if matches!(inbox.first(), Some(b'\r' | b'\n')) {
            return Err(Malformed("it begins with an empty line"));
        }
        if !may_be_whole(inbox, &mut self.searched)? {
            return Ok(false);
        }
        let mut found = [MaybeUninit::uninit(); FIELDS_MAX];
        let mut parsed = httparse::Response::new(&mut []);
        let mut config = ParserConfig::default();
        // Old servers send both. We pass on neither.
        config.allow_spaces_after_header_name_in_responses(true);
        config.allow_obsolete_multiline_headers_in_responses(true);
        let status = config.parse_response_with_uninit_headers(&mut parsed, inbox, &mut found);
        let Status::Complete(end) = status.map_err(why)? else { return not_whole(inbox) };
        let text = &inbox[..end];
        self.reason = Span::of(parsed.reason.unwrap_or_default().as_bytes(), text);
        self.status = parsed.code.unwrap_or_default();
        self.is_old = parsed.version == Some(0);
        self.fields.replace(text, parsed.headers);
        self.searched = 0;
        inbox.advance(end);
        self.options = Options::read_of_answer(&self.fields);
        // RFC 9110, 15: a client takes an unknown class for 5xx. Old servers use them.
        if self.status < 100 { Err(BAD_STATUS) } else { Ok(true) }
    }

    /// The fields that are passed on to the next hop, in their order.
    pub fn onward(&self) -> impl Iterator<Item = Field<'_>> {
        self.options.onward(&self.fields)
    }

    /// The `Content-Length` of a body that is not sent: in the answer to a HEAD request, or in a 304.
    pub fn length_of_unsent(&self, request: &RequestHead) -> Option<u64> {
        let is_unsent = request.method() == "HEAD" || self.status == 304;
        if !is_unsent || self.fields.has(Name::TransferEncoding) {
            return None;
        }
        self.fields.content_length().ok().flatten()
    }

    pub fn reason(&self) -> &[u8] {
        self.reason.within(self.fields.text())
    }

    /// Whether another head follows.
    pub fn is_interim(&self) -> bool {
        self.status < 200 && self.status != 101
    }

    /// Whether the upstream keeps its connection. An upstream that is not clear about the end of its answer is not
    /// trusted.
    pub fn wants_more(&self) -> bool {
        let codings = self.fields.codings().count();
        let is_doubtful = codings > 1 || codings > 0 && (self.is_old || self.fields.has(Name::ContentLength));
        !is_doubtful && !self.options.close && (!self.is_old || self.options.keep_alive)
    }
}

/// Whether a head may be complete. A head that arrives byte by byte is parsed once, not once per byte.
fn may_be_whole(inbox: &[u8], searched: &mut usize) -> Result<bool, Malformed> {
    let is_first_look = *searched == 0;
    let rest = &inbox[searched.saturating_sub(3).min(inbox.len())..];
    let ends = |at: usize| matches!(rest.get(at + 1..), Some([b'\n', ..] | [b'\r', b'\n', ..]));
    let is_whole = is_first_look || rest.iter().enumerate().any(|(at, b)| *b == b'\n' && ends(at));
    if inbox.len() > HEAD_BYTES_MAX && !is_whole {
        return Err(TOO_LARGE);
    }
    *searched = inbox.len();
    Ok(is_whole && !inbox.is_empty())
}

fn not_whole(inbox: &[u8]) -> Result<bool, Malformed> {
    if inbox.len() > HEAD_BYTES_MAX { Err(TOO_LARGE) } else { Ok(false) }
}

/// The authority of an absolute target, and what follows it.
fn authority(target: &[u8]) -> Option<(&[u8], &[u8])> {
    let scheme = target.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case(b"http://"));
    let scheme = scheme.or(target.get(..8).filter(|scheme| scheme.eq_ignore_ascii_case(b"https://")))?;
    let rest = &target[scheme.len()..];
    let end = rest.iter().position(|b| matches!(b, b'/' | b'?' | b'#' | b'\\')).unwrap_or(rest.len());
    Some(rest.split_at(end))
}

fn why(error: httparse::Error) -> Malformed {
    match error {
        httparse::Error::TooManyHeaders => TOO_LARGE,
        httparse::Error::Version => Malformed("it is not HTTP/1.1 or HTTP/1.0"),
        httparse::Error::Status => BAD_STATUS,
        _ => Malformed("its head is not HTTP"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_absolute_target_is_a_path_of_its_host() {
        let head = RequestHead::from_text("GET HTTP://a:80/b/c?d HTTP/1.1\r\nHost: a:80\r\n\r\n");
        assert_eq!((head.target(), head.path(), head.method()), (&b"/b/c?d"[..], &b"/b/c"[..], "GET"));
        let head = RequestHead::from_text("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(head.path(), b"*");
    }

    #[test]
    fn another_spelling_of_the_path_keeps_the_query_and_the_fields() {
        for (target, respelled) in [("/%61", "/a"), ("/%61?", "/a?"), ("http://a/%61?b?c", "/a?b?c")] {
            let mut head = RequestHead::from_text(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
            head.respell(b"/a");
            assert_eq!((head.target(), head.path()), (respelled.as_bytes(), &b"/a"[..]));
            assert_eq!(head.fields.first(Name::Host), Some(&b"a"[..]));
        }
    }

    #[test]
    fn only_a_websocket_named_by_connection_is_an_upgrade() {
        let asks = |version: &str, fields: &str| {
            RequestHead::from_text(&format!("GET / HTTP/{version}\r\nHost: a\r\n{fields}\r\n\r\n"))
                .is_upgrade()
        };
        assert!(asks("1.1", "Upgrade: WebSocket\r\nConnection: keep-alive, upgrade"));
        assert!(!asks("1.1", "Upgrade: websocket"));
        assert!(!asks("1.1", "Upgrade: h2c\r\nConnection: upgrade"));
        assert!(!asks("1.0", "Upgrade: websocket\r\nConnection: upgrade"));
        assert!(!asks("1.1", "Upgrade: websocket\r\nConnection: upgrade\r\nContent-Length: 5"));
    }

    #[test]
    fn a_head_without_an_end_is_refused_when_it_is_too_long() {
        let (mut head, mut inbox) = (RequestHead::default(), BytesMut::from("GET / HTTP/1.1\r\n"));
        let line = format!("X: {}\r\n", "x".repeat(30_000));
        let refused = (0..40).find_map(|_| {
            inbox.extend_from_slice(line.as_bytes());
            head.read(&mut inbox).err()
        });
        assert_eq!(refused, Some(TOO_LARGE));
    }

    #[test]
    fn endless_empty_lines_are_not_a_head() {
        let lone = RequestHead::default().read(&mut BytesMut::from("\n\n"));
        assert_eq!(lone, Err(BARE_LINE_FEED));
        let mut after = BytesMut::from("\r\n\r\n");
        assert_eq!((RequestHead::default().read(&mut after), after.len()), (Ok(false), 0));
        assert!(AnswerHead::default().read(&mut BytesMut::from("\r\n")).is_err());
        let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\n", "x".repeat(HEAD_BYTES_MAX));
        assert!(RequestHead::default().read(&mut BytesMut::from(&long[..])).is_err());
    }

    #[test]
    fn the_answer_of_another_connection_is_read_from_its_beginning() {
        let mut head = AnswerHead::default();
        let half = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(300));
        assert_eq!(head.read(&mut BytesMut::from(&half[..])), Ok(false));
        head.begin();
        assert_eq!(head.read(&mut "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".into()), Ok(true));
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_a_head_is_cut(cut in 1usize..60, answers: bool) {
            let text = if answers { "HTTP/1.1 200 OK\r\nA: b\r\nC: d\r\n\r\nrest" } else { "GET /a HTTP/1.1\r\nHost: a\r\nC: d\r\n\r\nrest" };
            let (mut request, mut answer, mut inbox) = (RequestHead::default(), AnswerHead::default(), BytesMut::new());
            let mut is_whole = false;
            for piece in text.as_bytes().chunks(cut) {
                inbox.extend_from_slice(piece);
                is_whole = is_whole || if answers { answer.read(&mut inbox) } else { request.read(&mut inbox) }.unwrap();
            }
            prop_assert!(is_whole);
            prop_assert_eq!(&inbox[..], b"rest");
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let _ = RequestHead::default().read(&mut BytesMut::from(&bytes[..]));
            let _ = AnswerHead::default().read(&mut BytesMut::from(&bytes[..]));
        }
    }
}
