//! The `Connection` field: whether the connection is kept, and which other fields are for this hop only (RFC 9110,
//! 7.6.1).

use crate::Malformed;
use crate::fields::{Field, Fields, Name};

/// More options are refused, empty ones included. Nobody needs them, and each is compared with each field.
const OPTIONS_MAX: usize = 32;
/// Fields that are meant for the last server, beside those that the proxy knows. Whoever named one here would take it from
/// the request that the last server gets.
const FOR_THE_LAST: [&str; 8] = [
    "access-control-request-method",
    "authorization",
    "cache-control",
    "content-encoding",
    "content-type",
    "expect",
    "origin",
    "range",
];

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) close: bool,
    /// An HTTP/1.0 peer keeps its connection.
    pub(crate) keep_alive: bool,
    pub(crate) upgrade: bool,
    /// Other fields are named.
    pub(crate) has_names: bool,
}

impl Options {
    /// Refuses an option that is not a token, or that names a field the next server relies on.
    pub(crate) fn read(fields: &Fields) -> Result<Options, Malformed> {
        let mut options = Options::default();
        for (count, token) in listed(fields).enumerate() {
            if count >= OPTIONS_MAX || !token.iter().all(|b| is_token_byte(*b)) {
                return Err(Malformed(
                    "its `Connection` field has too many options, or one that is not a token",
                ));
            }
            if token.is_empty() {
                // An empty option means nothing (RFC 9110, 5.6.1.2), but it counts.
            } else if token.eq_ignore_ascii_case(b"close") {
                options.close = true;
            } else if token.eq_ignore_ascii_case(b"keep-alive") {
                options.keep_alive = true;
            } else if token.eq_ignore_ascii_case(b"upgrade") {
                options.upgrade = true;
            } else {
                options.has_names = true;
                if is_relied_on(token) {
                    return Err(Malformed("its `Connection` field names a field that must be passed on"));
                }
            }
        }
        Ok(options)
    }

    /// Old servers write parameters (`keep-alive; timeout=5`) or no tokens. What cannot be understood closes the connection.
    pub(crate) fn read_of_answer(fields: &Fields) -> Options {
        let mut options = Options::default();
        for (count, option) in listed(fields).enumerate() {
            let token = option.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
            let is_understood = count < OPTIONS_MAX && token.iter().all(|b| is_token_byte(*b));
            options.close |= !is_understood || token.eq_ignore_ascii_case(b"close");
            options.keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
            options.has_names |= !token.is_empty();
        }
        options
    }

    /// The fields that are passed on (RFC 9110, 7.6.1). Those that frame the body are not: each hop writes its own.
    /// `Upgrade` is, although `Connection` names it: only the caller knows whether both sides agreed on it.
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

/// Whether the last server relies on the field of this name. The name may be in upper or lower case.
pub fn is_relied_on(name: &[u8]) -> bool {
    match Name::of(name) {
        Name::Connection | Name::HopByHop | Name::TransferEncoding | Name::Upgrade => false,
        Name::Other => FOR_THE_LAST.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes())),
        _ => true,
    }
}

/// RFC 9110, 5.6.2.
pub(crate) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use crate::head::{AnswerHead, RequestHead};
    use bytes::BytesMut;

    #[test]
    fn empty_options_mean_nothing_and_too_many_are_refused() {
        let read = |value: &str| {
            let text = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: {value}\r\n\r\n");
            let mut head = RequestHead::default();
            head.read(&mut BytesMut::from(&text[..])).map(|_| head.options)
        };
        assert!(read(", close,, X").is_ok_and(|options| options.close && options.has_names));
        assert!(read(&",".repeat(1000)).is_err());
    }

    #[test]
    fn only_fields_for_one_hop_may_be_named() {
        let reads = |name: &str| {
            let text = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close, {name}\r\n\r\n");
            RequestHead::default().read(&mut BytesMut::from(&text[..])).is_ok()
        };
        for name in
            ["X-Once", "TE", "Transfer-Encoding", "HTTP2-Settings", "Proxy-Authorization", "X_Forwarded_For"]
        {
            assert!(reads(name), "{name}");
        }
        for name in [
            "host",
            "Content-Length",
            "Cookie",
            "X-Forwarded-For",
            "x-forwarded-port",
            "Forwarded",
            "traceparent",
            "tracestate",
            "X-Strangler-Side",
            "X-Strangler-Secret",
            "Max-Forwards",
            "Authorization",
            "X-Real-IP",
            "Content-Type",
        ] {
            assert!(!reads(name), "{name}");
        }
    }

    #[test]
    fn an_answers_options_may_have_parameters_and_what_is_not_understood_closes() {
        let read = |value: &str| {
            let mut head = AnswerHead::default();
            let text = format!("HTTP/1.0 200 OK\r\nConnection: {value}\r\nContent-Length: 0\r\n\r\n");
            assert_eq!(head.read(&mut BytesMut::from(&text[..])), Ok(true));
            head.wants_more()
        };
        assert!(read("Keep-Alive; timeout=5, X-Once"));
        assert!(!read("keep-alive, a b") && !read("keep-alive, close") && !read("keep-alive, \"x\""));
        assert!(!read(&format!("keep-alive{}", ",".repeat(1000))));
    }
}
