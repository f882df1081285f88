//! Whether a shared cache may keep an answer (RFC 9111, 3). A cookie on such an answer would go to every client that the cache
//! serves, or keep the cache from serving any.
//!
//! Only what the answer says counts. A cache that keeps answers which say nothing takes care of cookies itself.

use http1::{AnswerHead, RequestHead};

/// Fields of an answer for caches that stand before servers: RFC 9213, and the Edge Architecture Specification.
const FOR_SHARED_CACHES: [&str; 2] = ["cdn-cache-control", "surrogate-control"];

pub(crate) fn may_be_shared(request: &RequestHead, answer: &AnswerHead) -> bool {
    let (asked, told) = (&request.fields, &answer.fields);
    // A cookie of the upstream's own makes the answer one client's, too.
    if !matches!(request.method(), "GET" | "HEAD") || told.called("set-cookie").is_some() {
        return false;
    }
    let lists = told.iter().filter(|field| field.spelled.eq_ignore_ascii_case(b"cache-control"));
    let directives = lists.flat_map(|field| field.value.split(|b| *b == b',')).map(Directive::read);
    let (mut is_public, mut is_fresh) = (false, false);
    for directive in directives {
        match directive {
            Directive::Never => return false,
            Directive::Shared => is_public = true,
            Directive::Fresh => is_fresh = true,
            Directive::Other => {}
        }
    }
    let is_for_caches = FOR_SHARED_CACHES.iter().any(|name| told.called(name).is_some());
    // `Expires: 0` and the like mean that it is old already.
    let expires =
        told.called("expires").is_some_and(|date| date.first().is_some_and(u8::is_ascii_alphabetic));
    // What was asked with credentials is kept only if the answer says so (RFC 9111, 3.5). A 304 renews a kept answer.
    let may_be_kept =
        asked.called("authorization").is_none() && (is_fresh || expires || answer.status == 304);
    is_public || is_for_caches || may_be_kept
}

enum Directive {
    /// No shared cache keeps it.
    Never,
    Shared,
    Fresh,
    Other,
}

impl Directive {
    fn read(text: &[u8]) -> Directive {
        let text = text.trim_ascii();
        let name = text.split(|b| *b == b'=').next().unwrap_or_default().trim_ascii();
        let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
        // `private="X-Field"` holds back a field, not the answer.
        if is(b"no-store") || is(b"private") && name.len() == text.len() {
            Directive::Never
        } else if is(b"public") || is(b"s-maxage") {
            Directive::Shared
        } else if is(b"max-age") {
            Directive::Fresh
        } else {
            Directive::Other
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::tests::{answer, request};

    fn shared(method: &str, asked: &str, told: &str) -> bool {
        let request = request(&format!("{method} / HTTP/1.1\r\nHost: a\r\n{asked}\r\n"));
        may_be_shared(&request, &answer(&format!("HTTP/1.1 200 OK\r\n{told}\r\nContent-Length: 0\r\n\r\n")))
    }

    #[test]
    fn only_what_a_shared_cache_may_keep_is_shared() {
        for told in [
            "Cache-Control: public",
            "cache-control: Max-Age=60",
            "Cache-Control: max-age=0, must-revalidate",
            "Cache-Control: no-cache\r\nCache-Control: s-maxage=5",
            "Cache-Control: private=\"X-A\", max-age=60",
            "Expires: Thu, 01 Dec 2050 16:00:00 GMT",
            "CDN-Cache-Control: max-age=60",
        ] {
            assert!(shared("GET", "", told) && shared("HEAD", "", told), "{told}");
            assert!(!shared("POST", "", told), "{told}");
            assert!(!shared("GET", "", &format!("{told}\r\nSet-Cookie: a=b")), "{told}");
        }
        for told in [
            "X: y",
            "Cache-Control: private, max-age=60",
            "Cache-Control: public, no-store",
            "Cache-Control: no-cache",
            "Expires: 0",
            "Expires: -1",
            "Last-Modified: Thu, 01 Dec 2020 16:00:00 GMT",
        ] {
            assert!(!shared("GET", "", told), "{told}");
        }
        let asked = "Authorization: Basic eDp5\r\n";
        assert!(
            !shared("GET", asked, "Cache-Control: max-age=60")
                && shared("GET", asked, "Cache-Control: public")
        );
    }
}
