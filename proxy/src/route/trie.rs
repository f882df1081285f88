//! Many path templates in one tree of segments. The time to find one grows with the path, not with the number of
//! templates.
//!
//! A literal wins over `{name:kind}`, a narrower kind over a wider one, any kind over `{name}`, and `{name}` over `{*rest}`,
//! segment by segment from the left, with backtracking. Only where templates fork at one place after the other are more
//! nodes visited than the path has segments, and no node twice. A tree does not know methods, queries or what a template stands for.

use migrations::pattern::{Kind, Segment};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::num::NonZeroU32;

/// A tree of path templates, each with the number it was inserted with.
///
/// With ten thousand templates, the cost is fetching them from memory. So nodes are small and lie in the order of the
/// templates, and one table holds all literals with their text.
#[derive(Debug)]
pub(crate) struct Trie {
    nodes: Vec<Node>,
    literals: HashMap<Edge, NonZeroU32, BuildHasherDefault<Mix>>,
    /// The children by kind of the nodes that have some, a narrower kind before a wider one.
    kinds: HashMap<usize, Vec<(Kind, NonZeroU32)>, BuildHasherDefault<Mix>>,
}

#[derive(Debug, Default)]
struct Node {
    name: Option<NonZeroU32>,
    rest: Option<Number>,
    here: Option<Number>,
    has_literals: bool,
    has_kinds: bool,
}

const _: () = assert!(size_of::<Node>() == 16);

/// The number of a template. `None` takes no room.
#[derive(Debug, Clone, Copy)]
struct Number(NonZeroU32);

impl Number {
    fn of(number: u32) -> Self {
        Self(NonZeroU32::MIN.saturating_add(number))
    }

    fn get(self) -> u32 {
        self.0.get() - 1
    }
}

/// Bytes of a literal in one edge.
const PIECE_LEN: usize = 19;

/// From a node along a literal or a piece of a long one: node, length, whether more follows, text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Edge([u64; 3]);

impl Default for Trie {
    fn default() -> Self {
        Self { nodes: vec![Node::default()], literals: HashMap::default(), kinds: HashMap::default() }
    }
}

impl Trie {
    /// Adds a template. Of two that match the same paths, the first stays.
    pub(crate) fn insert(&mut self, segments: &[Segment], number: u32) {
        let mut at = 0;
        for segment in segments {
            at = match segment {
                Segment::Literal(text) => {
                    pieces(text.as_bytes()).fold(at, |at, (piece, is_last)| self.grow(at, piece, is_last))
                }
                Segment::Typed { kind, .. } => self.grow_kind(at, *kind),
                Segment::Name(_) => {
                    let next = self.next();
                    let child = *self.nodes[at].name.get_or_insert(next);
                    self.grown(child)
                }
                Segment::Rest(_) => {
                    self.nodes[at].rest.get_or_insert(Number::of(number));
                    return;
                }
            };
        }
        self.nodes[at].here.get_or_insert(Number::of(number));
    }

    /// The number of the best template for a path without its query.
    pub(crate) fn find(&self, path: &[u8]) -> Option<u32> {
        let path = path.strip_prefix(b"/")?;
        let found = if path.is_empty() { self.nodes[0].here } else { self.walk(0, path) };
        found.map(Number::get)
    }

    fn grow(&mut self, at: usize, piece: &[u8], is_last: bool) -> usize {
        let next = self.next();
        self.nodes[at].has_literals = true;
        let child = *self.literals.entry(Edge::new(at, piece, is_last)).or_insert(next);
        self.grown(child)
    }

    fn grow_kind(&mut self, at: usize, kind: Kind) -> usize {
        let next = self.next();
        self.nodes[at].has_kinds = true;
        let children = self.kinds.entry(at).or_default();
        let child = match children.binary_search_by_key(&kind, |(kind, _)| *kind) {
            Ok(known) => children[known].1,
            Err(place) => {
                children.insert(place, (kind, next));
                next
            }
        };
        self.grown(child)
    }

    /// The number of the next new node. It is never the root's.
    fn next(&self) -> NonZeroU32 {
        u32::try_from(self.nodes.len()).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MAX)
    }

    fn grown(&mut self, child: NonZeroU32) -> usize {
        let child = child.get() as usize;
        if child == self.nodes.len() {
            self.nodes.push(Node::default());
        }
        child
    }

    /// The recursion is at most as deep as the deepest template, which `PATTERN_LEN_MAX` bounds.
    fn walk(&self, at: usize, path: &[u8]) -> Option<Number> {
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
        if node.has_literals
            && let Some(child) = self.along(at, head)
            && let Some(found) = below(child)
        {
            return Some(found);
        }
        if node.has_kinds {
            let children = self.kinds.get(&at).into_iter().flatten();
            let mut fitting = children.filter(|(kind, _)| kind.takes(head));
            if let Some(found) = fitting.find_map(|(_, child)| below(child.get() as usize)) {
                return Some(found);
            }
        }
        if let (false, Some(child)) = (head.is_empty(), node.name)
            && let Some(found) = below(child.get() as usize)
        {
            return Some(found);
        }
        if path.is_empty() { None } else { node.rest }
    }

    fn along(&self, at: usize, literal: &[u8]) -> Option<usize> {
        pieces(literal).try_fold(at, |at, (piece, is_last)| {
            self.literals.get(&Edge::new(at, piece, is_last)).map(|child| child.get() as usize)
        })
    }
}

/// A literal cut into pieces, and whether a piece is the last. An empty literal is one empty piece.
fn pieces(literal: &[u8]) -> impl Iterator<Item = (&[u8], bool)> {
    let last = literal.len().saturating_sub(1) / PIECE_LEN;
    (0..=last).map(move |nth| {
        let from = nth * PIECE_LEN;
        (&literal[from..literal.len().min(from + PIECE_LEN)], nth == last)
    })
}

impl Edge {
    fn new(at: usize, piece: &[u8], is_last: bool) -> Self {
        let mut text = [0; 24];
        text[..4].copy_from_slice(&(at as u32).to_le_bytes());
        text[4] = (piece.len() as u8) << 1 | u8::from(is_last);
        text[5..5 + piece.len()].copy_from_slice(piece);
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|nth| text[at + nth]));
        Self([word(0), word(8), word(16)])
    }
}

impl Hash for Edge {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.iter().for_each(|word| state.write_u64(*word));
    }
}

/// A fast hash. The keys come from the plan, so no client can make them collide.
#[derive(Debug, Default)]
struct Mix(u64);

impl Hasher for Mix {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, word: u64) {
        let wide = u128::from(self.0 ^ word ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93;
        self.0 = (wide >> 64) as u64 ^ wide as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use migrations::pattern::Pattern;
    use proptest::prelude::*;

    /// As long as one edge can be, and longer.
    const LONG: &str = "a-literal-of-a-step";
    const LONGER: &str = "a-literal-of-a-step-and-of-another-step";

    fn trie_of(patterns: &[Pattern]) -> Trie {
        let mut trie = Trie::default();
        for (number, pattern) in patterns.iter().enumerate() {
            trie.insert(pattern.segments(), number as u32);
        }
        trie
    }

    /// Kinds from narrow to wide. Each takes all that any earlier one takes, but for `int` and `[a-c]+`, which take nothing in
    /// common.
    const KINDS: [&str; 5] = ["int", "[a-c]+", "[0-9a-f]+", "[0-9a-z]+", "slug"];

    /// The rule without a tree: of all that match, the one that is smallest segment by segment.
    fn best(patterns: &[Pattern], path: &str) -> Option<u32> {
        let rank = |pattern: &Pattern| -> Vec<usize> {
            let kind = |segment: &Segment| match segment {
                Segment::Literal(_) => 0,
                Segment::Typed { written, .. } => 1 + KINDS.iter().position(|kind| kind == written).unwrap(),
                Segment::Name(_) => 10,
                Segment::Rest(_) => 20,
            };
            pattern.segments().iter().map(kind).collect()
        };
        let matching = patterns.iter().enumerate().filter(|(_, p)| p.matches("GET", path));
        matching.min_by_key(|(number, p)| (rank(p), *number)).map(|(number, _)| number as u32)
    }

    const TEXTS: [&str; 9] = ["a", "b", "7", "f7", "z7", "A-z", "", LONG, LONGER];

    fn segment() -> impl Strategy<Value = String> {
        let words = ["a", "b", "", "{x}", LONG, LONGER].map(str::to_owned);
        let kinds = KINDS.map(|kind| format!("{{x:{kind}}}"));
        proptest::sample::select([words.to_vec(), kinds.to_vec()].concat())
    }

    fn pattern() -> impl Strategy<Value = Pattern> {
        (proptest::collection::vec(segment(), 0..5), any::<bool>()).prop_map(|(parts, rest)| {
            let mut names = 0;
            let mut path = String::new();
            for part in parts {
                if path.ends_with('/') {
                    // An empty segment names no route, but at the end.
                    path.pop();
                }
                names += 1;
                path.push('/');
                path.push_str(&part.replace("{x", &format!("{{x{names}")));
            }
            if rest {
                path.truncate(path.trim_end_matches('/').len());
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
            path in proptest::collection::vec(proptest::sample::select(TEXTS.to_vec()), 0..6),
        ) {
            let path = format!("/{}", path.join("/"));
            prop_assert_eq!(trie_of(&patterns).find(path.as_bytes()), best(&patterns, &path), "{}", path);
        }
    }

    #[test]
    fn what_fits_no_kind_goes_on_to_the_name() {
        let patterns = ["GET /p/{s}/r/{id:int}", "GET /p/{s}/r/add", "GET /p/{s:slug}/{*rest}"];
        let patterns: Vec<Pattern> = patterns.iter().map(|p| p.parse().unwrap()).collect();
        let trie = trie_of(&patterns);
        assert_eq!(trie.find(b"/p/x.y/r/7"), Some(0));
        assert_eq!(trie.find(b"/p/x.y/r/add"), Some(1));
        assert_eq!(trie.find(b"/p/x/r/7"), Some(2), "the first difference decides");
        assert_eq!(trie.find(b"/p/x.y/r/\xff"), None);
        assert_eq!(trie.find(b"/p//r/7"), None);
    }

    #[test]
    fn bytes_that_are_not_text_only_match_names() {
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
