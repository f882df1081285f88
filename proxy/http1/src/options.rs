//! What `Connection` says: how the connection goes on, and which other fields are for this hop only (RFC 9110, 7.6.1).

use crate::Malformed;
use crate::fields::{Field, Fields, Name};

/// More options than this, empty ones included, are refused: nobody needs them, and each is compared with each field.
const OPTIONS_MAX: usize = 32;

/// The options of one head.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// The connection ends after this message.
    pub(crate) close: bool,
    /// An HTTP/1.0 peer would keep it.
    pub(crate) keep_alive: bool,
    /// The `Upgrade` field counts.
    pub(crate) upgrade: bool,
    /// There are names of other fields.
    pub(crate) has_names: bool,
}

impl Options {
    /// Reads them. What is no token is refused, and so is naming a field that the next server relies on.
    pub(crate) fn read(fields: &Fields) -> Result<Options, Malformed> {
        let mut options = Options::default();
        for (count, token) in listed(fields).enumerate() {
            if count >= OPTIONS_MAX || !token.iter().all(|b| is_token_byte(*b)) {
                return Err(Malformed("its `Connection` field names what is no field"));
            }
            if token.is_empty() {
                // Nothing between two commas is nothing (RFC 9110, 5.6.1.2), but each of them is looked at.
            } else if token.eq_ignore_ascii_case(b"close") {
                options.close = true;
            } else if token.eq_ignore_ascii_case(b"keep-alive") {
                options.keep_alive = true;
            } else if token.eq_ignore_ascii_case(b"upgrade") {
                options.upgrade = true;
            } else {
                options.has_names = true;
                if is_protected(Name::of(token)) {
                    return Err(Malformed("its `Connection` field names a field that must go on"));
                }
            }
        }
        Ok(options)
    }

    /// The fields that go on past this hop (RFC 9110, 7.6.1), in their order. Those that say where the body ends are not
    /// among them: the next hop gets its own. `Upgrade` always is, though `Connection` names it: the caller knows whether
    /// both sides agreed on it.
    pub(crate) fn onward(self, fields: &Fields) -> impl Iterator<Item = Field<'_>> {
        fields.iter().filter(move |field| match field.name {
            Name::Connection | Name::ContentLength | Name::HopByHop | Name::TransferEncoding => false,
            Name::Upgrade => true,
            _ => !self.has_names || !listed(fields).any(|token| token.eq_ignore_ascii_case(field.spelled)),
        })
    }
}

fn listed(fields: &Fields) -> impl Iterator<Item = &[u8]> {
    let listed = fields.all(Name::Connection).flat_map(|value| value.split(|b| *b == b','));
    listed.map(<[u8]>::trim_ascii)
}

fn is_protected(name: Name) -> bool {
    matches!(name, Name::Host | Name::ForwardedFor | Name::ForwardedHost | Name::ForwardedProto)
}

/// RFC 9110, 5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use crate::head::RequestHead;
    use bytes::BytesMut;

    #[test]
    fn empty_options_are_nothing_and_too_many_are_refused() {
        let read = |value: &str| {
            let text = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: {value}\r\n\r\n");
            let mut head = RequestHead::default();
            head.read(&mut BytesMut::from(&text[..])).map(|_| head.options)
        };
        assert!(read(", close,, X").is_ok_and(|options| options.close && options.has_names));
        assert!(read(&",".repeat(1000)).is_err());
    }
}
