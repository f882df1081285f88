//! What `Connection` says: how the connection goes on, and which other fields are for this hop only (RFC 9110, 7.6.1).

use super::Malformed;
use super::fields::{Fields, Name};

/// More options than this are refused: nobody needs them, and each is compared with each field.
const OPTIONS_MAX: usize = 32;

/// The options of one head.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// The connection ends after this message.
    pub close: bool,
    /// An HTTP/1.0 peer would keep it.
    pub keep_alive: bool,
    /// The `Upgrade` field counts.
    pub upgrade: bool,
    /// There are names of other fields, which [`names`] tells.
    pub has_names: bool,
}

impl Options {
    /// Reads them. What is no token is refused, and so is naming a field that the next server relies on.
    pub fn read(fields: &Fields) -> Result<Options, Malformed> {
        let mut options = Options::default();
        for (count, token) in tokens(fields).enumerate() {
            if count >= OPTIONS_MAX || !token.iter().all(|b| is_token_byte(*b)) {
                return Err(Malformed("its `Connection` field names what is no field"));
            }
            if token.eq_ignore_ascii_case(b"close") {
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
}

/// Whether the field of that name is for this hop only because `Connection` says so.
pub fn names(fields: &Fields, spelled: &[u8]) -> bool {
    tokens(fields).any(|token| token.eq_ignore_ascii_case(spelled))
}

fn tokens(fields: &Fields) -> impl Iterator<Item = &[u8]> {
    let listed = fields.all(Name::Connection).flat_map(|value| value.split(|b| *b == b','));
    listed.map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

fn is_protected(name: Name) -> bool {
    matches!(name, Name::Host | Name::ForwardedFor | Name::ForwardedHost | Name::ForwardedProto)
}

/// RFC 9110, 5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
