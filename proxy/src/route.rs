//! Finding a request's route: one tree of path templates per method, on the raw path.
//!
//! Pure. What a route means and where its requests go is [`decision`]'s.

pub mod decision;
pub mod trie;

use migrations::pattern::{METHODS, Pattern};
use trie::Trie;

/// All routes of a table, found by method and raw path.
#[derive(Debug, Default)]
pub struct Routes {
    /// One tree for each of `METHODS`, in that order.
    tries: [Trie; METHODS.len()],
}

impl Routes {
    /// Numbers the patterns in their order.
    pub fn new<'a>(patterns: impl IntoIterator<Item = &'a Pattern>) -> Self {
        let mut routes = Self::default();
        for (number, pattern) in (0u32..).zip(patterns) {
            if let Some(method) = method_number(pattern.method()) {
                routes.tries[method].insert(pattern.segments(), number);
            }
        }
        routes
    }

    /// The number of the route that a request belongs to. A HEAD request without a route of its own takes GET's.
    pub fn find(&self, method: &str, path: &[u8]) -> Option<u32> {
        let own = self.tries[method_number(method)?].find(path);
        if own.is_none() && method == "HEAD" { self.find("GET", path) } else { own }
    }
}

fn method_number(method: &str) -> Option<usize> {
    METHODS.iter().position(|m| *m == method)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_kept_apart_and_head_reads_as_get() {
        let patterns: Vec<Pattern> =
            ["GET /a", "POST /a", "HEAD /b", "GET /b"].iter().map(|p| p.parse().unwrap()).collect();
        let routes = Routes::new(&patterns);
        assert_eq!(routes.find("GET", b"/a"), Some(0));
        assert_eq!(routes.find("POST", b"/a"), Some(1));
        assert_eq!(routes.find("HEAD", b"/a"), Some(0));
        assert_eq!(routes.find("HEAD", b"/b"), Some(2));
        assert_eq!(routes.find("DELETE", b"/a"), None);
        assert_eq!(routes.find("PURGE", b"/a"), None);
    }
}
