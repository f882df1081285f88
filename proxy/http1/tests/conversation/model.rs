//! A second reading of RFC 9112: slow, plain, over all bytes at once, and without a line of the crate or of its parser.
//!
//! It has no bounds and gives no reasons. A message that it cannot read is refused.

use super::{Conversation, End, Note, To};

/// What stops a reading.
enum Stop {
    Refused,
    Head,
    Body,
}

type Read<T> = Result<T, Stop>;

struct Line<'a> {
    name: String,
    value: &'a [u8],
}

struct Head<'a> {
    first: &'a [u8],
    lines: Vec<Line<'a>>,
    after: &'a [u8],
}

pub fn requests(mut rest: &[u8]) -> Conversation {
    let mut messages = Vec::new();
    loop {
        // RFC 9112, 2.2: empty lines before a request.
        while let Some(after) = rest.strip_prefix(b"\r\n") {
            rest = after;
        }
        if rest.is_empty() {
            return Conversation { messages, end: End::Over };
        }
        match request(rest) {
            Err(stop) => return stopped(messages, stop),
            Ok((note, keeps, framing, after)) => match body(framing, after) {
                Err(stop) => {
                    messages.push(note.end());
                    return stopped(messages, stop);
                }
                Ok((content, after)) => {
                    messages.push(note.quoted("", &content).end());
                    rest = after;
                    if !keeps {
                        return Conversation { messages, end: End::Over };
                    }
                }
            },
        }
    }
}

pub fn answers(to: To, mut rest: &[u8]) -> Conversation {
    let mut messages = Vec::new();
    loop {
        let (status, note, framing, after) = match answer(to, rest) {
            Err(stop) => return stopped(messages, stop),
            Ok(answer) => answer,
        };
        if status < 200 && status != 101 {
            messages.push(note.end());
            rest = after;
            continue;
        }
        let (note, end) = match body(framing, after) {
            Ok((content, after)) => (note.quoted("", &content).quoted("rest=", after), None),
            Err(stop) => (note, Some(stop)),
        };
        messages.push(note.end());
        return match end {
            Some(stop) => stopped(messages, stop),
            None => Conversation { messages, end: End::Over },
        };
    }
}

fn stopped(messages: Vec<Vec<u8>>, stop: Stop) -> Conversation {
    let end = match stop {
        Stop::Refused => End::Refused(String::new()),
        Stop::Head => End::Head,
        Stop::Body => End::Body,
    };
    Conversation { messages, end }
}

#[derive(Clone, Copy)]
enum Framing {
    Empty,
    Length(u64),
    Chunked,
    UntilClose,
}

impl Framing {
    fn word(self) -> String {
        match self {
            Framing::Empty => "empty".to_owned(),
            Framing::Length(length) => format!("length:{length}"),
            Framing::Chunked => "chunked".to_owned(),
            Framing::UntilClose => "until-close".to_owned(),
        }
    }
}

fn request(bytes: &[u8]) -> Read<(Note, bool, Framing, &[u8])> {
    let head = head(bytes, false)?;
    let words: Vec<&[u8]> = head.first.split(|b| *b == b' ').collect();
    let &[method, target, version] = &words[..] else { return Err(Stop::Refused) };
    let is_old = match version {
        b"HTTP/1.1" => false,
        b"HTTP/1.0" => true,
        _ => return Err(Stop::Refused),
    };
    must(is_token(method) && method != b"CONNECT")?;
    must(
        !target.is_empty()
            && std::str::from_utf8(target).is_ok()
            && target.iter().all(|b| *b > b' ' && *b != 0x7f),
    )?;
    let (target, host) = place(method, target, is_old, &head)?;
    let options = options(&head)?;
    let has = |option: &str| options.iter().any(|o| o == option);
    let forwards = match method {
        b"OPTIONS" | b"TRACE" => forwards(&head)?,
        _ => None,
    };
    let framing = request_framing(&head, is_old)?;
    let keeps = !has("close") && (!is_old || has("keep-alive"));
    let protocols = list(&head, "upgrade");
    let is_upgrade = has("upgrade")
        && !is_old
        && protocols.iter().any(|p| p == "websocket")
        && matches!(framing, Framing::Empty | Framing::Length(0));
    let note = Note::new(method)
        .word(&target)
        .word(framing.word().as_bytes())
        .word(if keeps { b"keep" } else { b"close" })
        .word_if(host != b"a", &[b"host=", &host[..]].concat())
        .word_if(is_upgrade, b"upgrade")
        .word_if(forwards.is_some(), format!("forwards={}", forwards.unwrap_or_default()).as_bytes());
    Ok((note, keeps, framing, head.after))
}

/// The path, and the host: RFC 9112, 3.2.
fn place(method: &[u8], target: &[u8], is_old: bool, head: &Head<'_>) -> Read<(Vec<u8>, Vec<u8>)> {
    let hosts: Vec<&[u8]> = values(head, "host");
    must(hosts.len() == 1 || hosts.is_empty() && is_old)?;
    let host = hosts.first().copied();
    must(host.is_none_or(|host| port_of(host, 0).is_some()))?;
    if target.starts_with(b"/") || method == b"OPTIONS" && target == b"*" {
        return Ok((target.to_vec(), host.unwrap_or_default().to_vec()));
    }
    let text = std::str::from_utf8(target).map_err(|_| Stop::Refused)?;
    let (scheme, rest) = text.split_once("://").ok_or(Stop::Refused)?;
    let default_port = match &*scheme.to_ascii_lowercase() {
        "http" => 80,
        "https" => 443,
        _ => return Err(Stop::Refused),
    };
    let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let named = port_of(authority.as_bytes(), default_port).ok_or(Stop::Refused)?;
    must(host.is_none_or(|host| port_of(host, default_port).as_ref() == Some(&named)))?;
    let path = match path.chars().next() {
        None if method == b"OPTIONS" => "*".to_owned(),
        None => "/".to_owned(),
        Some('?') => format!("/{path}"),
        Some('/') => path.to_owned(),
        Some(_) => return Err(Stop::Refused),
    };
    Ok((path.into_bytes(), authority.as_bytes().to_vec()))
}

/// Host in lower case, and port. `None` if it is no host.
fn port_of(authority: &[u8], default_port: u16) -> Option<(String, u16)> {
    let text = std::str::from_utf8(authority).ok()?.to_ascii_lowercase();
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (inside, after) = rest.split_once(']')?;
            inside.parse::<std::net::Ipv6Addr>().ok()?;
            (format!("[{inside}]"), after.to_owned())
        }
        None => {
            let end = text.find(':').unwrap_or(text.len());
            let (name, port) = text.split_at(end);
            // A registered name of RFC 3986, without the comma.
            let mut signs = name.chars();
            while let Some(sign) = signs.next() {
                let is_good = match sign {
                    '%' => (0..2).all(|_| signs.next().is_some_and(|digit| digit.is_ascii_hexdigit())),
                    _ => sign.is_ascii_alphanumeric() || "-._~!$&'()*+;=".contains(sign),
                };
                if !is_good {
                    return None;
                }
            }
            (name.to_owned(), port.to_owned())
        }
    };
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => default_port,
        None => return None,
        Some("") => default_port,
        Some(digits) if digits.chars().all(|c| c.is_ascii_digit()) => digits.parse().ok()?,
        Some(_) => return None,
    };
    (!host.is_empty()).then_some((host, port))
}

const NOT_TO_BE_NAMED: [&str; 20] = [
    "access-control-request-method",
    "authorization",
    "cache-control",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "date",
    "expect",
    "forwarded",
    "host",
    "location",
    "max-forwards",
    "origin",
    "range",
    "traceparent",
    "tracestate",
    "x-real-ip",
    "x-strangler-secret",
    "x-strangler-side",
];

fn options(head: &Head<'_>) -> Read<Vec<String>> {
    let options = list(head, "connection");
    must(options.len() <= 32)?;
    must(options.iter().all(|option| option.is_empty() || is_token(option.as_bytes())))?;
    let is_bad = |option: &String| NOT_TO_BE_NAMED.contains(&&**option) || option.starts_with("x-forwarded-");
    must(!options.iter().any(is_bad))?;
    Ok(options)
}

fn forwards(head: &Head<'_>) -> Read<Option<u64>> {
    match &values(head, "max-forwards")[..] {
        [] => Ok(None),
        [value] if !value.is_empty() && value.iter().all(u8::is_ascii_digit) => {
            let text = String::from_utf8_lossy(value);
            Ok(Some(text.parse().unwrap_or(u64::MAX)))
        }
        _ => Err(Stop::Refused),
    }
}

/// RFC 9112, 6.3, where what could be read in two ways is refused.
fn request_framing(head: &Head<'_>, is_old: bool) -> Read<Framing> {
    let (codings, length) = (values(head, "transfer-encoding"), length(head)?);
    match (&codings[..], length) {
        ([], None) => Ok(Framing::Empty),
        ([], Some(length)) => Ok(Framing::Length(length)),
        ([coding], None) if coding.eq_ignore_ascii_case(b"chunked") && !is_old => Ok(Framing::Chunked),
        _ => Err(Stop::Refused),
    }
}

fn length(head: &Head<'_>) -> Read<Option<u64>> {
    let mut told = None;
    for value in list(head, "content-length") {
        must(!value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()))?;
        let number: u64 = value.parse().map_err(|_| Stop::Refused)?;
        must(told.is_none_or(|told| told == number))?;
        told = Some(number);
    }
    Ok(told)
}

fn answer(to: To, bytes: &[u8]) -> Read<(u16, Note, Framing, &[u8])> {
    if bytes.is_empty() {
        return Err(Stop::Head);
    }
    must(!matches!(bytes[0], b'\r' | b'\n'))?;
    let head = head(bytes, true)?;
    let is_old = head.first.starts_with(b"HTTP/1.0 ");
    must(is_old || head.first.starts_with(b"HTTP/1.1 "))?;
    let (digits, reason) = (head.first.get(9..12).ok_or(Stop::Refused)?, &head.first[12..]);
    must(digits.iter().all(u8::is_ascii_digit) && digits[0] != b'0')?;
    must(reason.is_empty() || reason[0] == b' ' && reason.iter().all(|b| is_text(*b)))?;
    let status: u16 = String::from_utf8_lossy(digits).parse().map_err(|_| Stop::Refused)?;
    let codings = list(&head, "transfer-encoding");
    let framing = answer_framing(to, &head, status, is_old, &codings)?;
    let options: Vec<String> = list(&head, "connection");
    let plain = |option: &str| {
        option.split(';').next().unwrap_or_default().trim_matches([' ', '\t', '\r', '\n']).to_owned()
    };
    let options: Vec<String> = options.iter().map(|option| plain(option)).collect();
    let is_clear =
        options.len() <= 32 && options.iter().all(|option| option.is_empty() || is_token(option.as_bytes()));
    let has = |name: &str| options.iter().any(|option| option == name);
    let has_length = !values(&head, "content-length").is_empty();
    let is_doubtful = codings.len() > 1 || codings.len() == 1 && (is_old || has_length);
    let is_kept = is_clear
        && !is_doubtful
        && !has("close")
        && (!is_old || has("keep-alive"))
        && !matches!(framing, Framing::UntilClose);
    let note =
        Note::new(digits).word(framing.word().as_bytes()).word(if is_kept { b"keep" } else { b"close" });
    Ok((status, note, framing, head.after))
}

fn answer_framing(to: To, head: &Head<'_>, status: u16, is_old: bool, codings: &[String]) -> Read<Framing> {
    must(status != 101 || to == To::Upgrade && !is_old)?;
    if status < 200 || status == 204 || status == 304 {
        return Ok(Framing::Empty);
    }
    must(codings.iter().all(|coding| coding == "chunked"))?;
    let length = if codings.is_empty() { length(head)? } else { None };
    Ok(match length {
        _ if to == To::Head => Framing::Empty,
        Some(length) => Framing::Length(length),
        None if codings.is_empty() => Framing::UntilClose,
        None => Framing::Chunked,
    })
}

/// The head at the front. An answer's may have bare line feeds, folded lines, and blanks before a colon.
fn head(bytes: &[u8], is_lax: bool) -> Read<Head<'_>> {
    let mut lines: Vec<&[u8]> = Vec::new();
    let mut rest = bytes;
    loop {
        let end = rest.iter().position(|b| *b == b'\n').ok_or(Stop::Head)?;
        let line = &rest[..end];
        rest = &rest[end + 1..];
        let line = match line.strip_suffix(b"\r") {
            Some(line) => line,
            None if is_lax => line,
            None => return Err(Stop::Refused),
        };
        if line.is_empty() && !lines.is_empty() {
            break;
        }
        lines.push(line);
    }
    let mut read: Vec<(String, usize, usize)> = Vec::new();
    for line in &lines[1..] {
        let offset = line.as_ptr() as usize - bytes.as_ptr() as usize;
        must(line.iter().all(|b| is_text(*b)))?;
        if matches!(line[0], b' ' | b'\t') {
            must(is_lax)?;
            let last = read.last_mut().ok_or(Stop::Refused)?;
            last.2 = offset + line.len();
            continue;
        }
        let colon = line.iter().position(|b| *b == b':').ok_or(Stop::Refused)?;
        let mut name = &line[..colon];
        while is_lax && matches!(name.last(), Some(b' ' | b'\t')) {
            name = &name[..name.len() - 1];
        }
        must(is_token(name))?;
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        read.push((name, offset + colon + 1, offset + line.len()));
    }
    let blank = |b: &u8| matches!(b, b' ' | b'\t' | b'\r' | b'\n');
    let lines_read = read.into_iter().map(|(name, from, to)| {
        let value = &bytes[from..to];
        let start = value.iter().position(|b| !blank(b)).unwrap_or(value.len());
        let end = value.iter().rposition(|b| !blank(b)).map_or(start, |last| last + 1);
        Line { name, value: &value[start..end] }
    });
    Ok(Head { first: lines[0], lines: lines_read.collect(), after: rest })
}

fn values<'a>(head: &Head<'a>, name: &str) -> Vec<&'a [u8]> {
    head.lines.iter().filter(|line| line.name == name).map(|line| line.value).collect()
}

/// The elements of a list, in lower case.
fn list(head: &Head<'_>, name: &str) -> Vec<String> {
    let text = |element: &[u8]| {
        let text: String = element.iter().map(|b| char::from(*b)).collect();
        text.trim_matches([' ', '\t', '\r', '\n']).to_ascii_lowercase()
    };
    values(head, name).iter().flat_map(|value| value.split(|b| *b == b',')).map(text).collect()
}

fn body(framing: Framing, bytes: &[u8]) -> Read<(Vec<u8>, &[u8])> {
    match framing {
        Framing::Empty => Ok((Vec::new(), bytes)),
        Framing::UntilClose => Ok((bytes.to_vec(), &[])),
        Framing::Length(length) => {
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            if bytes.len() < length {
                Err(Stop::Body)
            } else {
                Ok((bytes[..length].to_vec(), &bytes[length..]))
            }
        }
        Framing::Chunked => chunks(bytes),
    }
}

/// RFC 9112, 7.1.
fn chunks(mut rest: &[u8]) -> Read<(Vec<u8>, &[u8])> {
    let mut content = Vec::new();
    loop {
        let (head, after) = line(rest)?;
        let digits = head.iter().take_while(|b| b.is_ascii_hexdigit()).count();
        must((1..=16).contains(&digits))?;
        let extension = head[digits..].iter().skip_while(|b| matches!(b, b' ' | b'\t'));
        must(extension.clone().next().is_none_or(|b| *b == b';') && head.iter().all(|b| is_text(*b)))?;
        let size = String::from_utf8_lossy(&head[..digits]);
        let size = u64::from_str_radix(&size, 16).map_err(|_| Stop::Refused)?;
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        rest = after;
        if size == 0 {
            break;
        }
        if rest.len() < size {
            return Err(Stop::Body);
        }
        content.extend_from_slice(&rest[..size]);
        let (end, after) = line(&rest[size..])?;
        must(end.is_empty())?;
        rest = after;
    }
    loop {
        let (trailer, after) = line(rest)?;
        rest = after;
        if trailer.is_empty() {
            return Ok((content, rest));
        }
        let colon = trailer.iter().position(|b| *b == b':').ok_or(Stop::Refused)?;
        must(is_token(&trailer[..colon]) && trailer.iter().all(|b| is_text(*b)))?;
    }
}

/// A line that ends with CR LF, and nothing else.
fn line(bytes: &[u8]) -> Read<(&[u8], &[u8])> {
    let end = bytes.iter().position(|b| matches!(b, b'\r' | b'\n')).ok_or(Stop::Body)?;
    match bytes[end..] {
        [b'\r'] => Err(Stop::Body),
        [b'\r', b'\n', ..] => Ok((&bytes[..end], &bytes[end + 2..])),
        _ => Err(Stop::Refused),
    }
}

fn must(is_so: bool) -> Read<()> {
    if is_so { Ok(()) } else { Err(Stop::Refused) }
}

fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b))
}

/// Visible signs, blanks, and what is not ASCII.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || byte >= b' ' && byte != 0x7f
}
