//! Heads of requests and answers, read from the front of what arrived.
//!
//! What two servers could read in two ways is refused here or in [`crate::framing`], before any decision uses it.

use crate::Malformed;
use crate::fields::{FIELDS_MAX, Field, Fields, Name, Span};
use crate::host;
use crate::options::{Options, is_token_byte};
use bytes::{Buf, BytesMut};
use httparse::{ParserConfig, Status};
use std::mem::MaybeUninit;

/// A head is at most this long unless [`RequestHead::at_most`] or [`AnswerHead::at_most`] says otherwise.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Of a head that is refused, so much of the first line is kept for the log.
const LINE_BYTES_MAX: usize = 2 << 10;
const BAD_STATUS: Malformed = Malformed("its status is not between 100 and 999");
const BARE_LINE_FEED: Malformed = Malformed("its lines end without a carriage return");
/// The head is longer than it may be.
pub const HEAD_TOO_LARGE: Malformed =
    Malformed("its head is larger than `proxy.max_head` in the plan allows");
pub const TOO_MANY_FIELDS: Malformed = Malformed("its head has more than 1024 fields");

#[derive(Debug, Clone, Copy)]
struct BytesMax(usize);

impl BytesMax {
    fn check(self, bytes: usize) -> Result<(), Malformed> {
        if bytes > self.0 { Err(HEAD_TOO_LARGE) } else { Ok(()) }
    }
}

impl Default for BytesMax {
    fn default() -> Self {
        Self(HEAD_BYTES_MAX)
    }
}

#[derive(Debug, Default)]
pub struct RequestHead {
    pub fields: Fields,
    /// Whether it is HTTP/1.0.
    pub is_old: bool,
    pub(crate) options: Options,
    method: Span,
    /// The path and query.
    target: Span,
    forwards_left: Option<u64>,
    searched: usize,
    bytes_max: BytesMax,
}

impl RequestHead {
    /// Reads heads of at most `bytes_max` bytes.
    pub fn at_most(bytes_max: usize) -> Self {
        Self { bytes_max: BytesMax(bytes_max), ..Self::default() }
    }

    /// Takes a head from the front of what arrived. `false` if it is not complete. Of a head that is refused, the method
    /// and the target are kept if they can be recognised.
    pub fn read(&mut self, inbox: &mut BytesMut) -> Result<bool, Malformed> {
        self.method = Span::default();
        let read = self.take(inbox);
        if read.is_err() && self.method == Span::default() {
            self.glimpse(inbox);
        }
        read
    }

    /// Keeps the method and the target of a head that will not be read.
    pub fn glimpse(&mut self, inbox: &[u8]) {
        let line = &inbox[..inbox.len().min(LINE_BYTES_MAX)];
        let line = line.split(|b| matches!(b, b'\r' | b'\n')).next().unwrap_or_default();
        self.fields.replace(line, &[]);
        let text = self.fields.text();
        let mut words = text.split(|b| *b == b' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (is_method, is_first) = (method.iter().all(|b| is_token_byte(*b)), words.next().is_some());
        let target = absolute(target).map_or(target, |absolute| absolute.rest);
        // The end of the line may be missing; its beginning is not guessed.
        (self.method, self.target) = match is_method && (is_first || target.first() == Some(&b'/')) {
            true => (Span::of(method, text), Span::of(target, text)),
            false => (Span::default(), Span::default()),
        };
    }

    fn take(&mut self, inbox: &mut BytesMut) -> Result<bool, Malformed> {
        // Empty lines before a request do not belong to it (RFC 9112, 2.2).
        while inbox.starts_with(b"\r\n") {
            inbox.advance(2);
            self.searched = 0;
        }
        if inbox.first() == Some(&b'\n') {
            return Err(BARE_LINE_FEED);
        }
        if !may_be_whole(inbox, &mut self.searched, self.bytes_max)? {
            return Ok(false);
        }
        let mut found = [MaybeUninit::uninit(); FIELDS_MAX];
        let mut parsed = httparse::Request::new(&mut []);
        let status =
            ParserConfig::default().parse_request_with_uninit_headers(&mut parsed, inbox, &mut found);
        let Status::Complete(end) = status.map_err(why)? else { return not_whole(inbox, self.bytes_max) };
        self.bytes_max.check(end)?;
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

    /// Frees the memory of a head that is not needed any more, unless it is little.
    pub fn rest(&mut self) {
        self.fields.rest();
    }

    pub fn method(&self) -> &str {
        std::str::from_utf8(self.method.within(self.fields.text())).unwrap_or_default()
    }

    /// How much memory its text takes.
    pub fn bytes(&self) -> usize {
        self.fields.text().len()
    }

    /// The path and query. An absolute target has lost its scheme and host.
    pub fn target(&self) -> &[u8] {
        self.target.within(self.fields.text())
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

    /// The host that it is for, and the port if it names one. An IPv6 address has its brackets.
    pub fn host(&self) -> Option<(&[u8], Option<&[u8]>)> {
        let (host, port) = host::split(self.fields.first(Name::Host)?);
        Some((host, port.filter(|port| !port.is_empty())))
    }

    /// Whether the client keeps its connection.
    pub fn wants_more(&self) -> bool {
        !self.options.close && (!self.is_old || self.options.keep_alive)
    }

    /// Whether it asks for a WebSocket. Other upgrades are not offered to upstreams. Nor is a request with a body: an
    /// upstream could read the body as the other protocol.
    pub fn is_upgrade(&self) -> bool {
        let is_websocket = |value: &[u8]| value.trim_ascii().eq_ignore_ascii_case(b"websocket");
        self.options.upgrade
            && !self.is_old
            && self.fields.all(Name::Upgrade).flat_map(|value| value.split(|b| *b == b',')).any(is_websocket)
            && matches!(self.fields.content_length(), Ok(None | Some(0)))
            && !self.fields.has(Name::TransferEncoding)
    }

    /// How often an OPTIONS or TRACE request may still be forwarded (RFC 9110, 7.6.2). For other methods the field means
    /// nothing.
    pub fn forwards_left(&self) -> Option<u64> {
        self.forwards_left
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
        self.place()?;
        self.forwards_left = match self.method() {
            "OPTIONS" | "TRACE" => self.fields.max_forwards()?,
            _ => None,
        };
        self.options = Options::read(&self.fields)?;
        Ok(())
    }

    fn only_host(&self) -> Result<Option<&[u8]>, Malformed> {
        let mut hosts = self.fields.all(Name::Host);
        match (hosts.next(), hosts.next()) {
            (Some(host), None) if !host::is_valid(host) => {
                Err(Malformed("its `Host` is not a host with or without a port"))
            }
            (None, None) if !self.is_old => Err(Malformed("it must have exactly one `Host` field")),
            (host, None) => Ok(host),
            (_, Some(_)) => Err(Malformed("it must have exactly one `Host` field")),
        }
    }

    /// Finds out which path of which host it is for. The host of an absolute target wins over `Host` (RFC 9112, 3.2.2).
    /// But if the two were different hosts, one server would follow the first, another the second.
    fn place(&mut self) -> Result<(), Malformed> {
        let (text, host) = (self.fields.text(), self.only_host()?);
        let (target, for_all) = (self.target.within(text), self.method() == "OPTIONS");
        if target.first() == Some(&b'/') || target == b"*" && for_all {
            return Ok(());
        }
        let absolute = absolute(target).filter(|target| host::is_valid(target.authority));
        let absolute = absolute.filter(|target| {
            host.is_none_or(|host| host::is_same(host, target.authority, target.default_port))
        });
        let Some(Absolute { authority, rest, .. }) = absolute else {
            return Err(Malformed("its target is not a path, or its host differs from `Host`"));
        };
        let (authority, path) = (Span::of(authority, text), Span::of(rest, text));
        self.target = match rest.first() {
            Some(b'/') => path,
            None if for_all => self.fields.keep([b"*", b""]),
            None => self.fields.keep([b"/", b""]),
            Some(b'?') => {
                let query = rest.to_vec();
                self.fields.keep([b"/", &query])
            }
            Some(_) => return Err(Malformed("its target is not a path, or its host differs from `Host`")),
        };
        self.fields.set_host(authority);
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
    bytes_max: BytesMax,
}

impl AnswerHead {
    /// Reads heads of at most `bytes_max` bytes.
    pub fn at_most(bytes_max: usize) -> Self {
        Self { bytes_max: BytesMax(bytes_max), ..Self::default() }
    }

    /// Frees the memory of a head that is not needed any more, unless it is little.
    pub fn rest(&mut self) {
        self.fields.rest();
    }

    /// Starts with the answer of another connection.
    pub fn begin(&mut self) {
        self.searched = 0;
    }

    /// Takes a head from the front of what arrived. `false` if it is not complete.
    pub fn read(&mut self, inbox: &mut BytesMut) -> Result<bool, Malformed> {
        if matches!(inbox.first(), Some(b'\r' | b'\n')) {
            return Err(Malformed("it begins with an empty line"));
        }
        if !may_be_whole(inbox, &mut self.searched, self.bytes_max)? {
            return Ok(false);
        }
        let mut found = [MaybeUninit::uninit(); FIELDS_MAX];
        let mut parsed = httparse::Response::new(&mut []);
        let mut config = ParserConfig::default();
        // Old servers send both. We pass on neither.
        config.allow_spaces_after_header_name_in_responses(true);
        config.allow_obsolete_multiline_headers_in_responses(true);
        let status = config.parse_response_with_uninit_headers(&mut parsed, inbox, &mut found);
        let Status::Complete(end) = status.map_err(why)? else { return not_whole(inbox, self.bytes_max) };
        self.bytes_max.check(end)?;
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
fn may_be_whole(inbox: &[u8], searched: &mut usize, bytes_max: BytesMax) -> Result<bool, Malformed> {
    let is_first_look = *searched == 0;
    let rest = &inbox[searched.saturating_sub(3).min(inbox.len())..];
    let ends = |at: usize| matches!(rest.get(at + 1..), Some([b'\n', ..] | [b'\r', b'\n', ..]));
    let is_whole = is_first_look || rest.iter().enumerate().any(|(at, b)| *b == b'\n' && ends(at));
    if !is_whole {
        bytes_max.check(inbox.len())?;
    }
    *searched = inbox.len();
    Ok(is_whole && !inbox.is_empty())
}

fn not_whole(inbox: &[u8], bytes_max: BytesMax) -> Result<bool, Malformed> {
    bytes_max.check(inbox.len()).map(|()| false)
}

/// An absolute target (RFC 9112, 3.2.2), cut up.
struct Absolute<'a> {
    default_port: u16,
    authority: &'a [u8],
    /// Path and query.
    rest: &'a [u8],
}

fn absolute(target: &[u8]) -> Option<Absolute<'_>> {
    let scheme =
        |scheme: &[u8]| target.get(..scheme.len()).filter(|start| start.eq_ignore_ascii_case(scheme));
    let (scheme, default_port) = match scheme(b"http://") {
        Some(scheme) => (scheme, 80),
        None => (scheme(b"https://")?, 443),
    };
    let rest = &target[scheme.len()..];
    let end = rest.iter().position(|b| matches!(b, b'/' | b'?' | b'#' | b'\\')).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    Some(Absolute { default_port, authority, rest })
}

fn why(error: httparse::Error) -> Malformed {
    match error {
        httparse::Error::TooManyHeaders => TOO_MANY_FIELDS,
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
    fn an_absolute_targets_host_wins_and_may_be_spelled_in_another_way() {
        for (target, host, path, sent) in [
            ("http://Shop.example/a", "shop.example", "/a", "Shop.example"),
            ("http://a:80/", "a", "/", "a:80"),
            ("https://a/", "A:443", "/", "a"),
            ("http://a", "a", "/", "a"),
            ("http://a?b=/c", "a", "/?b=/c", "a"),
            ("http://[::1]:80/x", "[::1]", "/x", "[::1]:80"),
        ] {
            let head = RequestHead::from_text(&format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
            assert_eq!(head.target(), path.as_bytes(), "{target}");
            assert_eq!(head.fields.first(Name::Host), Some(sent.as_bytes()), "{target}");
        }
        let head = RequestHead::from_text("GET http://a/b HTTP/1.0\r\nX: y\r\n\r\n");
        assert_eq!((head.target(), head.fields.first(Name::Host)), (&b"/b"[..], Some(&b"a"[..])));
        let head = RequestHead::from_text("OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(head.target(), b"*");
        for (target, host) in [
            ("http://b/", "a"),
            ("http://a:81/", "a"),
            ("https://a/", "a:80"),
            ("http://u@a/", "a"),
            ("http:///x", "a"),
        ] {
            let text = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
            assert!(RequestHead::default().read(&mut text.as_str().into()).is_err(), "{target} {host}");
        }
    }

    #[test]
    fn of_a_refused_head_the_log_gets_what_can_be_recognised() {
        let seen = |text: &str| {
            let mut head = RequestHead::from_text("PUT /before HTTP/1.1\r\nHost: a\r\n\r\n");
            assert!(head.read(&mut text.into()).is_err(), "{text}");
            (head.method().to_owned(), String::from_utf8_lossy(head.path()).into_owned())
        };
        let is = |method: &str, path: &str| (method.to_owned(), path.to_owned());
        assert_eq!(seen("GET /a?secret HTTP/1.1\r\nno colon\r\n\r\n"), is("GET", "/a"));
        assert_eq!(seen("GET /a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"), is("GET", "/a"));
        assert_eq!(seen("GET http://u:p@a/b HTTP/3.1\r\n\r\n"), is("GET", "/b"));
        assert_eq!(seen("\n\n"), is("", ""));
        assert_eq!(seen("\u{16}\u{3}\u{1} / HTTP/1.1\r\n\r\n"), is("", ""));
    }

    #[test]
    fn only_options_and_trace_count_their_forwards() {
        let left = |method: &str, value: &str| {
            let text = format!("{method} /a HTTP/1.1\r\nHost: a\r\nMax-Forwards: {value}\r\n\r\n");
            let mut head = RequestHead::default();
            head.read(&mut text.as_str().into()).map(|_| head.forwards_left())
        };
        assert_eq!(left("OPTIONS", "7"), Ok(Some(7)));
        assert_eq!(left("TRACE", "0"), Ok(Some(0)));
        assert_eq!(left("TRACE", "99999999999999999999999"), Ok(Some(u64::MAX)));
        assert_eq!(left("GET", "-1"), Ok(None));
        for bad in ["", "-1", "+1", "1.0", "1, 2", "1\r\nMax-Forwards: 1"] {
            assert!(left("OPTIONS", bad).is_err(), "{bad}");
        }
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
        assert!(asks("1.1", "Upgrade: h2c, websocket\r\nConnection: upgrade"));
        assert!(asks("1.1", "Upgrade: websocket\r\nConnection: upgrade\r\nContent-Length: 0"));
        assert!(!asks("1.1", "Upgrade: websocket\r\nConnection: upgrade\r\nContent-Length: 5"));
    }

    #[test]
    fn a_head_is_refused_as_soon_as_it_is_too_long() {
        for (first, is_request) in [("GET / HTTP/1.1\r\nHost: a\r\n", true), ("HTTP/1.1 200 OK\r\n", false)] {
            let read = |text: &str| match is_request {
                true => RequestHead::at_most(9000).read(&mut BytesMut::from(text)),
                false => AnswerHead::at_most(9000).read(&mut BytesMut::from(text)),
            };
            let of = |bytes: usize, end: &str| {
                format!("{first}X: {}{end}", "x".repeat(bytes - first.len() - "X: ".len() - end.len()))
            };
            assert_eq!(read(&of(9000, "\r\n\r\n")), Ok(true));
            assert_eq!(read(&of(9001, "\r\n\r\n")), Err(HEAD_TOO_LARGE), "it arrived whole");
            assert_eq!(read(&of(9000, "")), Ok(false));
            assert_eq!(read(&of(9001, "")), Err(HEAD_TOO_LARGE), "its end is not awaited");
        }
    }

    #[test]
    fn what_follows_a_head_does_not_count() {
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n\r\n{}", "x".repeat(HEAD_BYTES_MAX + 1));
        let mut inbox = BytesMut::from(&text[..]);
        assert_eq!((RequestHead::default().read(&mut inbox), inbox.len()), (Ok(true), HEAD_BYTES_MAX + 1));
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
