//! Fields that some servers take for another field.
//!
//! CGI, WSGI and their kin put a field into a variable and write `_` for each `-` (RFC 3875, 4.1.18); some do so for every
//! sign. There `X_Forwarded_For` and `X.Forwarded.For` are `X-Forwarded-For`, and a client could put its own value in the
//! place of ours. So such a field is dropped if it could stand for a field that is there, or for one that servers rely on.

use http1::{Name, RequestHead, is_relied_on};
use std::collections::HashSet;

/// The names in a head by which such a field is recognised. Nearly every head needs none.
pub(crate) struct Twins(HashSet<Vec<u8>>);

impl Twins {
    pub(crate) fn of(request: &RequestHead) -> Self {
        let names = || request.fields.iter().map(|field| field.spelled);
        match names().any(has_signs) {
            true => Self(names().filter(|name| !has_signs(name)).map(<[u8]>::to_ascii_lowercase).collect()),
            false => Self(HashSet::new()),
        }
    }

    /// Whether the field of this name would be taken for another one.
    pub(crate) fn has(&self, spelled: &[u8]) -> bool {
        has_signs(spelled) && {
            let plain = plain(spelled);
            Name::of(&plain) != Name::Other || is_relied_on(&plain) || self.0.contains(&plain)
        }
    }
}

fn has_signs(name: &[u8]) -> bool {
    name.iter().any(|b| !b.is_ascii_alphanumeric() && *b != b'-')
}

fn plain(name: &[u8]) -> Vec<u8> {
    let fold = |b: &u8| if b.is_ascii_alphanumeric() { b.to_ascii_lowercase() } else { b'-' };
    name.iter().map(fold).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::tests::request;

    #[test]
    fn a_field_that_imitates_another_is_recognised() {
        let head = request(
            "GET / HTTP/1.1\r\nHost: a\r\nX-Client-Cert: ours\r\nX_Client_CERT: theirs\r\nX_Key: k\r\n\r\n",
        );
        let twins = Twins::of(&head);
        for name in [
            "X_Forwarded_For",
            "x-forwarded_proto",
            "X.Forwarded.Host",
            "X_Forwarded_Port",
            "FORWARDED_",
            "X_Client_CERT",
            "x.client-cert",
            "content_length",
            "Transfer_Encoding",
            "Content_Type",
            "HTTP2_Settings",
            "X_Strangler_Secret",
            "X_Real_IP",
            "authorization_",
        ] {
            let is_twin = name != "FORWARDED_" && name != "authorization_";
            assert_eq!(twins.has(name.as_bytes()), is_twin, "{name}");
        }
        for name in ["X_Key", "X-Client-Cert", "Host", "A_B", "X_Forwarded"] {
            assert!(!twins.has(name.as_bytes()), "{name}");
        }
    }
}
