//! A browser's question whether a script may send a request to another origin: a CORS preflight (Fetch Standard, 3.3.2).
//!
//! It is an OPTIONS request, but it asks the server that will get the real one.

use http1::RequestHead;

/// The method of the request that a preflight asks about.
pub(crate) fn asked_for(request: &RequestHead) -> Option<&str> {
    if request.method() != "OPTIONS" || request.fields.called("origin").is_none() {
        return None;
    }
    std::str::from_utf8(request.fields.called("access-control-request-method")?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::tests::request;

    #[test]
    fn a_preflight_has_an_origin_and_names_a_method() {
        let asked = |method: &str, lines: &str| {
            asked_for(&request(&format!("{method} /a HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n")))
                .map(str::to_owned)
        };
        let both = "Origin: http://b\r\nAccess-Control-Request-Method: PUT";
        assert_eq!(asked("OPTIONS", both).as_deref(), Some("PUT"));
        assert_eq!(asked("GET", both), None);
        assert_eq!(asked("OPTIONS", "Origin: http://b"), None);
        assert_eq!(asked("OPTIONS", "Access-Control-Request-Method: PUT"), None);
    }
}
