//! What a connection's bytes are: as this crate reads them, and as the [`model`] does, in the notation of the corpus.

#![allow(dead_code, clippy::unwrap_used, clippy::panic)]

pub mod cases;
pub mod model;

use bytes::BytesMut;
use http1::{AnswerHead, Body, Framing, Malformed, RequestHead};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversation {
    pub messages: Vec<Vec<u8>>,
    pub end: End,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Nothing is left to read, or nothing more is read.
    Over,
    Refused(String),
    /// The rest of a head must come first.
    Head,
    Body,
}

/// The request that an answer belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    Get,
    Head,
    Upgrade,
}

impl To {
    fn head(self) -> RequestHead {
        let text = match self {
            To::Get => "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            To::Head => "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
            To::Upgrade => "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        };
        let mut head = RequestHead::default();
        assert_eq!(head.read(&mut text.into()), Ok(true));
        head
    }
}

impl Conversation {
    /// Its notation, with the raw bytes of targets and bodies.
    pub fn text(&self) -> Vec<u8> {
        let end = match &self.end {
            End::Over => None,
            End::Refused(why) => Some(format!("! {why}").into_bytes()),
            End::Head => Some(b"~head".to_vec()),
            End::Body => Some(b"~body".to_vec()),
        };
        let parts: Vec<_> = self.messages.iter().cloned().chain(end).collect();
        parts.join(&b" ; "[..])
    }
}

impl Conversation {
    fn is_refused(&self) -> bool {
        matches!(self.end, End::Refused(_))
    }

    fn is_as(&self, other: &Conversation) -> bool {
        self.messages == other.messages && (self.end == other.end || self.is_refused() && other.is_refused())
    }
}

/// Two readers take the same messages from these bytes. One may refuse what the other still waits for, if that one refuses
/// it, too, as soon as the line and the head have ended.
pub fn must_agree(bytes: &[u8], one: impl Fn(&[u8]) -> Conversation, other: impl Fn(&[u8]) -> Conversation) {
    let (ones, others) = (one(bytes), other(bytes));
    let is_waiting = |reading: &Conversation| matches!(reading.end, End::Head | End::Body);
    if ones.is_as(&others) {
        return;
    }
    let has_one_decided =
        ones.is_refused() && is_waiting(&others) || is_waiting(&ones) && others.is_refused();
    let ended = [bytes, b"\r\n\r\n"].concat();
    let agree_later = || {
        let (ones, others) = (one(&ended), other(&ended));
        ones.is_refused() && ones.is_as(&others)
    };
    let shown = |reading: &Conversation| reading.text().escape_ascii().to_string();
    assert!(
        has_one_decided && ones.messages == others.messages && agree_later(),
        "{}\n   one: {}\n other: {}",
        bytes.escape_ascii(),
        shown(&ones),
        shown(&others)
    );
}

/// Everything that must hold for any bytes: the crate reads them as the model does, however they are cut.
pub fn check(kind: Kind, bytes: &[u8], cut: usize) {
    let cut = bytes.split_at(cut.min(bytes.len()));
    let ours = |pieces: &[&[u8]]| match kind {
        Kind::Requests => requests(pieces.iter().copied()),
        Kind::Answers(to) => answers(to, pieces.iter().copied()),
    };
    let models = |bytes: &[u8]| match kind {
        Kind::Requests => model::requests(bytes),
        Kind::Answers(to) => model::answers(to, bytes),
    };
    must_agree(bytes, |bytes| ours(&[bytes]), models);
    must_agree(bytes, |bytes| ours(&[bytes]), |bytes| ours(&[cut.0, &bytes[cut.0.len()..]]));
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Requests,
    Answers(To),
}

impl Kind {
    pub const ALL: [Kind; 4] =
        [Kind::Requests, Kind::Answers(To::Get), Kind::Answers(To::Head), Kind::Answers(To::Upgrade)];
}

/// A message as it is noted: words, then quoted parts.
pub struct Note(Vec<u8>);

impl Note {
    pub fn new(word: &[u8]) -> Self {
        Self(word.to_vec())
    }

    pub fn word(mut self, word: &[u8]) -> Self {
        self.0.extend_from_slice(b" ");
        self.0.extend_from_slice(word);
        self
    }

    pub fn word_if(self, is_so: bool, word: &[u8]) -> Self {
        if is_so { self.word(word) } else { self }
    }

    pub fn quoted(self, name: &str, text: &[u8]) -> Self {
        let quoted = [name.as_bytes(), b"\"", text, b"\""].concat();
        self.word_if(!text.is_empty(), &quoted)
    }

    pub fn end(self) -> Vec<u8> {
        self.0
    }
}

fn framing_word(framing: Framing) -> Vec<u8> {
    match framing {
        Framing::Empty => b"empty".to_vec(),
        Framing::Length(length) => format!("length:{length}").into_bytes(),
        Framing::Chunked => b"chunked".to_vec(),
        Framing::UntilClose => b"until-close".to_vec(),
    }
}

fn is_kept(keeps: bool) -> &'static [u8] {
    if keeps { b"keep" } else { b"close" }
}

/// A body of which some has arrived.
struct Open {
    note: Note,
    keeps: bool,
    body: Body,
    content: Vec<u8>,
}

impl Open {
    /// Takes what has arrived. Returns whether the body is whole.
    fn take(&mut self, inbox: &mut BytesMut) -> Result<bool, Malformed> {
        loop {
            match self.body.next(inbox)? {
                0 => return Ok(self.body.is_whole()),
                count => self.content.extend_from_slice(&inbox.split_to(count)),
            }
        }
    }

    fn note(self) -> Vec<u8> {
        self.note.quoted("", &self.content).end()
    }
}

fn refused(messages: Vec<Vec<u8>>, open: Option<Open>, why: Malformed) -> Conversation {
    let begun = open.map(|open| open.note.end());
    let messages = messages.into_iter().chain(begun).collect();
    Conversation { messages, end: End::Refused(why.0.to_owned()) }
}

/// The requests of a client that sends these pieces.
pub fn requests<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Conversation {
    let (mut messages, mut inbox, mut head) = (Vec::new(), BytesMut::new(), RequestHead::default());
    let mut open: Option<Open> = None;
    for piece in pieces {
        inbox.extend_from_slice(piece);
        loop {
            if let Some(reading) = &mut open {
                match reading.take(&mut inbox) {
                    Ok(false) => break,
                    Err(why) => return refused(messages, open, why),
                    Ok(true) => {
                        let keeps = reading.keeps;
                        messages.extend(open.take().map(Open::note));
                        if !keeps {
                            return Conversation { messages, end: End::Over };
                        }
                    }
                }
            }
            match head.read(&mut inbox) {
                Ok(false) => break,
                Err(why) => return refused(messages, None, why),
                Ok(true) => match Framing::of_request(&head) {
                    Err(why) => return refused(messages, None, why),
                    Ok(framing) => open = Some(opened(&head, framing)),
                },
            }
        }
    }
    let end = match (&open, inbox.is_empty()) {
        (Some(_), _) => End::Body,
        (None, true) => End::Over,
        (None, false) => End::Head,
    };
    messages.extend(open.map(|open| open.note.end()));
    Conversation { messages, end }
}

fn opened(head: &RequestHead, framing: Framing) -> Open {
    let host = head.fields.first(http1::Name::Host).unwrap_or_default();
    let forwards = head.forwards_left().map(|left| format!("forwards={left}"));
    let note = Note::new(head.method().as_bytes())
        .word(head.target())
        .word(&framing_word(framing))
        .word(is_kept(head.wants_more()))
        .word_if(host != b"a", &[b"host=", host].concat())
        .word_if(head.is_upgrade(), b"upgrade")
        .word_if(forwards.is_some(), forwards.unwrap_or_default().as_bytes());
    Open { note, keeps: head.wants_more(), body: Body::of(framing), content: Vec::new() }
}

/// The answers of an upstream that sends these pieces and ends the connection.
pub fn answers<'a>(to: To, pieces: impl IntoIterator<Item = &'a [u8]>) -> Conversation {
    let (request, mut head) = (to.head(), AnswerHead::default());
    let (mut messages, mut inbox) = (Vec::new(), BytesMut::new());
    let (mut open, mut is_over): (Option<Open>, bool) = (None, false);
    for piece in pieces {
        inbox.extend_from_slice(piece);
        while !is_over {
            if let Some(reading) = &mut open {
                match reading.take(&mut inbox) {
                    Ok(false) => break,
                    Err(why) => return refused(messages, open, why),
                    Ok(true) => is_over = true,
                }
                continue;
            }
            match head.read(&mut inbox) {
                Ok(false) => break,
                Err(why) => return refused(messages, None, why),
                Ok(true) => {}
            }
            let framing = match Framing::of_answer(&head, &request) {
                Err(why) => return refused(messages, None, why),
                Ok(framing) => framing,
            };
            let keeps = head.wants_more() && framing != Framing::UntilClose;
            let note = Note::new(head.status.to_string().as_bytes())
                .word(&framing_word(framing))
                .word(is_kept(keeps));
            if head.is_interim() {
                messages.push(note.end());
            } else {
                open = Some(Open { note, keeps, body: Body::of(framing), content: Vec::new() });
            }
        }
    }
    let Some(mut open) = open else { return Conversation { messages, end: End::Head } };
    let is_whole = is_over || open.body.close();
    let note = match is_whole {
        true => open.note.quoted("", &open.content).quoted("rest=", &inbox),
        false => open.note,
    };
    messages.push(note.end());
    Conversation { messages, end: if is_whole { End::Over } else { End::Body } }
}
