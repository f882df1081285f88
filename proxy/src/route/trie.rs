//! Many path templates in one tree of segments: a request is found in time that grows with its path, not with
//! the number of templates.
//!
//! A literal wins over `{name}`, `{name}` over `{*rest}`, decided segment by segment from the left, with
//! backtracking. Knows nothing of methods, queries or of what a template stands for.

use migrations::pattern::Segment;
use std::collections::HashMap;

/// A tree of path templates, each with the number it was inserted with.
#[derive(Debug)]
pub struct Trie {
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    literals: HashMap<Box<[u8]>, usize>,
    name: Option<usize>,
    rest: Option<u32>,
    here: Option<u32>,
}

impl Default for Trie {
    fn default() -> Self {
        Self { nodes: vec![Node::default()] }
    }
}

impl Trie {
    /// Adds a template. Of two that match the very same paths the first stays.
    pub fn insert(&mut self, segments: &[Segment], number: u32) {
        let mut at = 0;
        for segment in segments {
            at = match segment {
                Segment::Literal(text) => {
                    let next = self.nodes.len();
                    let child = *self.nodes[at].literals.entry(text.as_bytes().into()).or_insert(next);
                    self.grown(child)
                }
                Segment::Name(_) => {
                    let next = self.nodes.len();
                    let child = *self.nodes[at].name.get_or_insert(next);
                    self.grown(child)
                }
                Segment::Rest(_) => {
                    self.nodes[at].rest.get_or_insert(number);
                    return;
                }
            };
        }
        self.nodes[at].here.get_or_insert(number);
    }

    /// The number of the template that matches a raw path without its query, best first.
    pub fn find(&self, path: &[u8]) -> Option<u32> {
        let path = path.strip_prefix(b"/")?;
        if path.is_empty() { self.nodes[0].here } else { self.walk(0, path) }
    }

    fn grown(&mut self, child: usize) -> usize {
        if child == self.nodes.len() {
            self.nodes.push(Node::default());
        }
        child
    }

    /// Recursion is as deep as the deepest template at most, which `PATTERN_LEN_MAX` bounds.
    fn walk(&self, at: usize, path: &[u8]) -> Option<u32> {
        let node = &self.nodes[at];
        let slash = path.iter().position(|b| *b == b'/');
        let (head, tail) = match slash {
            Some(slash) => (&path[..slash], Some(&path[slash + 1..])),
            None => (path, None),
        };
        let below = |child: usize| match tail {
            Some(tail) => self.walk(child, tail),
            None => self.nodes[child].here,
        };
        let literal = if node.literals.is_empty() { None } else { node.literals.get(head) };
        if let Some(found) = literal.and_then(|child| below(*child)) {
            return Some(found);
        }
        if let (false, Some(child)) = (head.is_empty(), node.name)
            && let Some(found) = below(child)
        {
            return Some(found);
        }
        if path.is_empty() { None } else { node.rest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use migrations::pattern::Pattern;
    use proptest::prelude::*;

    fn trie_of(patterns: &[Pattern]) -> Trie {
        let mut trie = Trie::default();
        for (number, pattern) in patterns.iter().enumerate() {
            trie.insert(pattern.segments(), number as u32);
        }
        trie
    }

    /// The rule, written down without any tree: of all that match, the one that is smallest segment by segment.
    fn best(patterns: &[Pattern], path: &str) -> Option<u32> {
        let rank = |pattern: &Pattern| -> Vec<u8> {
            let kind = |segment: &Segment| match segment {
                Segment::Literal(_) => 0,
                Segment::Name(_) => 1,
                Segment::Rest(_) => 2,
            };
            pattern.segments().iter().map(kind).collect()
        };
        let matching = patterns.iter().enumerate().filter(|(_, p)| p.matches("GET", path));
        matching.min_by_key(|(number, p)| (rank(p), *number)).map(|(number, _)| number as u32)
    }

    fn segment() -> impl Strategy<Value = String> {
        prop_oneof![Just("a".to_owned()), Just("b".to_owned()), Just(String::new()), Just("{x}".to_owned())]
    }

    fn pattern() -> impl Strategy<Value = Pattern> {
        (proptest::collection::vec(segment(), 0..5), any::<bool>()).prop_map(|(parts, rest)| {
            let mut names = 0;
            let mut path = String::new();
            for part in parts {
                names += 1;
                path.push('/');
                path.push_str(&part.replace("{x}", &format!("{{x{names}}}")));
            }
            if rest {
                path.push_str("/{*rest}");
            }
            let path = if path.is_empty() { "/" } else { &path };
            format!("GET {path}").parse().unwrap()
        })
    }

    proptest! {
        #[test]
        fn the_tree_finds_what_the_rule_says(
            patterns in proptest::collection::vec(pattern(), 0..12),
            path in proptest::collection::vec(prop_oneof![Just("a"), Just("b"), Just("c"), Just("")], 0..6),
        ) {
            let path = format!("/{}", path.join("/"));
            prop_assert_eq!(trie_of(&patterns).find(path.as_bytes()), best(&patterns, &path), "{}", path);
        }
    }

    #[test]
    fn bytes_that_are_no_text_match_names_only() {
        let patterns: Vec<Pattern> = vec!["GET /a/{x}".parse().unwrap(), "GET /a/b".parse().unwrap()];
        let trie = trie_of(&patterns);
        assert_eq!(trie.find(b"/a/\xff"), Some(0));
        assert_eq!(trie.find(b"*"), None);
    }

    #[test]
    fn ten_thousand_templates_cost_what_ten_do() {
        let many: Vec<Pattern> =
            (0..10_000).map(|n| format!("GET /area{n}/orders/{{id}}").parse().unwrap()).collect();
        let trie = trie_of(&many);
        assert_eq!(trie.find(b"/area9999/orders/7"), Some(9999));
        assert_eq!(trie.find(b"/area9999/orders/7/"), None);
    }
}
