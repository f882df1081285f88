//! Finds a request's route by its method and the normal spelling of its path: one tree of path templates per method. Pure. [`decision`] says
//! who answers.

pub(crate) mod decision;
pub(crate) mod trie;

use migrations::pattern::{METHODS, Pattern};
use trie::Trie;

#[derive(Debug, Default)]
pub(crate) struct Routes {
    /// In the order of `METHODS`.
    tries: [Trie; METHODS.len()],
}

impl Routes {
    pub(crate) fn new<'a>(patterns: impl IntoIterator<Item = &'a Pattern>) -> Self {
        let mut routes = Self::default();
        for (number, pattern) in (0u32..).zip(patterns) {
            if let Some(method) = method_number(pattern.method()) {
                routes.tries[method].insert(pattern.segments(), number);
            }
        }
        routes
    }

    /// The number of a request's route. HEAD takes GET's route unless it has its own.
    pub(crate) fn find(&self, method: &str, path: &[u8]) -> Option<u32> {
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
