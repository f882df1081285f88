//! The fields of a head, as text and in their order.
//!
//! Names that the proxy knows are recognised once, when the head is read. Later code compares numbers. The text is
//! copied into memory that the next head uses again, so reading a head allocates nothing.

use crate::Malformed;
use Name::*;

pub(crate) const FIELDS_MAX: usize = 1024;
/// The memory of a larger head is freed.
const KEPT_BYTES_MAX: usize = 16 << 10;

/// A field's name, if it means something to the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    Connection,
    ContentLength,
    Cookie,
    Date,
    Forwarded,
    ForwardedFor,
    ForwardedHost,
    ForwardedPort,
    ForwardedProto,
    /// Another word of who stands in front about the client: `X-Forwarded-…`, or `X-Real-IP`.
    ForwardedOther,
    Host,
    /// A field for one hop only, whatever `Connection` says, without a use here.
    HopByHop,
    Location,
    MaxForwards,
    /// `x-strangler-secret`
    Secret,
    /// `x-strangler-side`
    Side,
    Traceparent,
    Tracestate,
    TransferEncoding,
    Upgrade,
    Other,
}

impl Name {
    /// Recognises a name in upper or lower case.
    pub fn of(name: &[u8]) -> Name {
        let candidates: &[(&str, Name)] = match name.len() {
            2 => &[("te", HopByHop)],
            4 => &[("host", Host), ("date", Date)],
            6 => &[("cookie", Cookie)],
            7 => &[("upgrade", Upgrade), ("trailer", HopByHop)],
            8 => &[("location", Location)],
            9 => &[("forwarded", Forwarded), ("x-real-ip", ForwardedOther)],
            10 => &[("connection", Connection), ("keep-alive", HopByHop), ("tracestate", Tracestate)],
            11 => &[("traceparent", Traceparent)],
            12 => &[("max-forwards", MaxForwards)],
            14 => &[("content-length", ContentLength), ("http2-settings", HopByHop)],
            15 => &[("x-forwarded-for", ForwardedFor)],
            16 => &[
                ("x-forwarded-host", ForwardedHost),
                ("x-forwarded-port", ForwardedPort),
                ("proxy-connection", HopByHop),
                ("x-strangler-side", Side),
            ],
            17 => &[("transfer-encoding", TransferEncoding), ("x-forwarded-proto", ForwardedProto)],
            18 => &[("proxy-authenticate", HopByHop), ("x-strangler-secret", Secret)],
            19 => &[("proxy-authorization", HopByHop)],
            _ => &[],
        };
        let is_it = |(text, _): &&(&str, Name)| name.eq_ignore_ascii_case(text.as_bytes());
        match candidates.iter().find(is_it) {
            Some((_, name)) => *name,
            None if is_forwarded(name) => ForwardedOther,
            None => Other,
        }
    }
}

fn is_forwarded(name: &[u8]) -> bool {
    const START: &[u8] = b"x-forwarded-";
    name.get(..START.len()).is_some_and(|start| start.eq_ignore_ascii_case(START))
}

#[derive(Debug, Clone, Copy)]
pub struct Field<'a> {
    pub name: Name,
    pub spelled: &'a [u8],
    /// The value without the space around it.
    pub value: &'a [u8],
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// `part` is a part of `text`.
    pub(crate) fn of(part: &[u8], text: &[u8]) -> Span {
        let start = (part.as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
        // A head is far shorter than 4 GiB.
        Span { start: start as u32, end: (start + part.len()) as u32 }
    }

    pub(crate) fn within(self, text: &[u8]) -> &[u8] {
        text.get(self.start as usize..self.end as usize).unwrap_or_default()
    }
}

/// While a connection rests, a larger head's memory is freed, too.
const RESTING_BYTES_MAX: usize = 1 << 10;

#[derive(Debug, Default)]
pub struct Fields {
    text: Vec<u8>,
    places: Vec<(Name, Span, Span)>,
}

impl Fields {
    pub(crate) fn replace(&mut self, text: &[u8], found: &[httparse::Header<'_>]) {
        if self.text.capacity() > KEPT_BYTES_MAX {
            self.text = Vec::new();
        }
        self.text.clear();
        self.text.extend_from_slice(text);
        self.places.clear();
        self.places.extend(found.iter().map(|header| {
            let spelled = header.name.as_bytes();
            (Name::of(spelled), Span::of(spelled, text), Span::of(header.value, text))
        }));
    }

    pub(crate) fn rest(&mut self) {
        if self.text.capacity() > RESTING_BYTES_MAX {
            *self = Self::default();
        }
    }

    pub(crate) fn text(&self) -> &[u8] {
        &self.text
    }

    /// Keeps a text that did not arrive.
    pub(crate) fn keep(&mut self, parts: [&[u8]; 2]) -> Span {
        let start = self.text.len() as u32;
        parts.iter().for_each(|part| self.text.extend_from_slice(part));
        Span { start, end: self.text.len() as u32 }
    }

    /// Says which host the request is for, whatever its `Host` said.
    pub(crate) fn set_host(&mut self, host: Span) {
        match self.places.iter_mut().find(|place| place.0 == Host) {
            Some(place) => place.2 = host,
            None => {
                let spelled = self.keep([b"Host", b""]);
                self.places.push((Host, spelled, host));
            }
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = Field<'_>> {
        self.places.iter().map(|(name, spelled, value)| Field {
            name: *name,
            spelled: spelled.within(&self.text),
            value: value.within(&self.text),
        })
    }

    pub fn all(&self, name: Name) -> impl Iterator<Item = &[u8]> {
        self.places.iter().filter(move |place| place.0 == name).map(|place| place.2.within(&self.text))
    }

    pub fn first(&self, name: Name) -> Option<&[u8]> {
        self.all(name).next()
    }

    pub fn has(&self, name: Name) -> bool {
        self.places.iter().any(|place| place.0 == name)
    }

    /// The value of the first field with this name, which the proxy need not know.
    pub fn called(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|field| field.spelled.eq_ignore_ascii_case(name.as_bytes())).map(|field| field.value)
    }

    /// What `Transfer-Encoding` names, in its order.
    pub(crate) fn codings(&self) -> impl Iterator<Item = &[u8]> {
        let listed = self.all(Name::TransferEncoding).flat_map(|value| value.split(|b| *b == b','));
        listed.map(<[u8]>::trim_ascii)
    }

    /// The value of `Content-Length`. Several equal ones count as one.
    pub(crate) fn content_length(&self) -> Result<Option<u64>, Malformed> {
        let mut length = None;
        for value in self.all(Name::ContentLength).flat_map(|value| value.split(|b| *b == b',')) {
            let told = digits(value.trim_ascii()).ok_or(Malformed("its `Content-Length` is not a number"))?;
            if length.is_some_and(|length| length != told) {
                return Err(Malformed("its `Content-Length` has two different values"));
            }
            length = Some(told);
        }
        Ok(length)
    }

    /// The value of `Max-Forwards`. A number that is too large counts as the largest.
    pub(crate) fn max_forwards(&self) -> Result<Option<u64>, Malformed> {
        let mut told = self.all(Name::MaxForwards);
        match (told.next(), told.next()) {
            (None, _) => Ok(None),
            (Some(value), None) if is_number(value) => Ok(Some(digits(value).unwrap_or(u64::MAX))),
            _ => Err(Malformed("its `Max-Forwards` is not a number")),
        }
    }
}

/// Digits only: no sign, no overflow.
fn digits(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok().filter(|_| is_number(text))?.parse().ok()
}

fn is_number(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_recognised_in_any_case() {
        assert_eq!(Name::of(b"transfer-Encoding"), TransferEncoding);
        assert_eq!(Name::of(b"X-FORWARDED-FOR"), ForwardedFor);
        assert_eq!(Name::of(b"Keep-Alive"), HopByHop);
        assert_eq!(Name::of(b"x-Forwarded-foo"), ForwardedOther);
        assert_eq!(Name::of(b"X-Real-IP"), ForwardedOther);
        assert_eq!(Name::of(b"x-forwarded"), Other);
        assert_eq!(Name::of(b""), Other);
    }
}
