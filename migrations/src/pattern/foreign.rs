//! How other routers spell a path template, and how it is spelled here: `/orders/:id`, `/orders/<int:id>`, `/orders/*`,
//! `^orders/(?P<id>\d+)/$`. Taken as text, such a template would match nothing.

use super::kind::Kind;

/// A template as another router spells it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Foreign {
    /// What it is here, if that can be said.
    pub(super) respelled: Option<String>,
}

/// Kinds of segments that others write within braces, too, and that are written in another way here.
const ELSEWHERE: [&str; 15] = [
    "path", ".*", ".+", "integer", "long", "number", "bigint", "\\d*", "guid", "str", "string", "any",
    "[^/]+", "[^/.]+", "[^/]*",
];

/// One segment in the spelling of here.
enum Spelled {
    /// It was in it already.
    As(String),
    From(String),
    /// It is another router's, and cannot be told in it.
    Unknown,
}

/// Whether a path template is another router's. Bounded by the length of its text.
pub(super) fn recognise(path: &str) -> Option<Foreign> {
    let bare = without_anchors(path);
    let mut is_foreign = bare.len() != path.len() || !bare.starts_with('/');
    let parts = parts(bare.strip_prefix('/').unwrap_or(bare));
    let last = parts.len() - 1;
    let mut names = Names::default();
    let mut respelled = Some(String::new());
    for (at, part) in parts.into_iter().enumerate() {
        let text = match spelled(part, at == last, &mut names) {
            Spelled::As(text) => Some(text),
            Spelled::From(text) => {
                is_foreign = true;
                Some(text)
            }
            Spelled::Unknown => {
                is_foreign = true;
                None
            }
        };
        respelled = respelled.zip(text).map(|(before, text)| before + "/" + &text);
    }
    is_foreign.then_some(Foreign { respelled })
}

/// Without what regular expressions and Rails put around a path.
fn without_anchors(path: &str) -> &str {
    let start = |path: &'_ str| path.strip_prefix('^').or(path.strip_prefix("\\A")).map(str::len);
    let path = start(path).map_or(path, |len| &path[path.len() - len..]);
    let mut path = path;
    for end in ["(.:format)", "$", "\\Z", "\\z", "/?"] {
        path = path.strip_suffix(end).unwrap_or(path);
    }
    path
}

/// The segments. A slash within brackets parts none.
fn parts(path: &str) -> Vec<&str> {
    let (mut parts, mut from, mut depth, mut is_escaped) = (Vec::new(), 0, 0u32, false);
    for (at, b) in path.bytes().enumerate() {
        match b {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'[' | b'(' | b'{' | b'<' => depth += 1,
            b']' | b')' | b'}' | b'>' => depth = depth.saturating_sub(1),
            b'/' if depth == 0 => {
                parts.push(&path[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&path[from..]);
    parts
}

/// The names that are taken, so that what has none gets one of its own.
#[derive(Default)]
struct Names(Vec<String>);

impl Names {
    fn take(&mut self, name: &str) -> String {
        let fits = |b: char| b.is_ascii_alphanumeric() || b == '_' || b == '-';
        let name: String = name.chars().filter(|b| fits(*b)).collect();
        let name = if name.is_empty() { "part".to_owned() } else { name };
        let count = self.0.iter().filter(|taken| **taken == name).count();
        self.0.push(name.clone());
        if count == 0 { name } else { format!("{name}{}", count + 1) }
    }
}

fn spelled(part: &str, is_last: bool, names: &mut Names) -> Spelled {
    let found = template(part, is_last, names)
        .or_else(|| marked(part, is_last, names))
        .or_else(|| converter(part, is_last, names))
        .or_else(|| folder(part, is_last, names))
        .or_else(|| group(part, is_last, names));
    if let Some(found) = found {
        return found;
    }
    if part.contains('\\') {
        let plain = part.replace('\\', "");
        let escapes = part.split('\\').skip(1);
        let is_text = escapes.clone().all(|after| after.starts_with(|c: char| c.is_ascii_punctuation()));
        return if is_text && !has_signs(&plain) { Spelled::From(plain) } else { Spelled::Unknown };
    }
    if has_signs(part) { Spelled::Unknown } else { Spelled::As(part.to_owned()) }
}

/// Signs that stand for themselves in no path, or hardly ever.
fn has_signs(part: &str) -> bool {
    let looks_optional =
        part.contains("(/") || part.contains("(.") || part.contains("(?") || part.contains("(:");
    part.contains(['<', '>', '*', '^', '|', '[', ']']) || looks_optional || part.ends_with('$')
}

/// `{name}` in spellings of others: `{id?}`, `{id:guid}`, `{file:path}`, `{**rest}`, `{id:.+}`.
fn template(part: &str, is_last: bool, names: &mut Names) -> Option<Spelled> {
    let inner = part.strip_prefix('{')?.strip_suffix('}')?;
    let rest = |name: &str, names: &mut Names| is_last.then(|| format!("{{*{}}}", names.take(name)));
    let found = if let Some(name) = inner.strip_prefix("**") {
        rest(name, names)
    } else if let Some(name) = inner.strip_suffix('?').filter(|name| !name.contains(':')) {
        Some(format!("{{{}}}", names.take(name)))
    } else {
        let (name, kind) = match inner.split_once(':') {
            Some((name, kind)) if ELSEWHERE.contains(&kind) => (name, kind),
            // It is spelled so here, or a mistake.
            _ => {
                let name = inner.trim_start_matches('*').split(':').next().unwrap_or_default();
                names.take(name);
                return Some(Spelled::As(part.to_owned()));
            }
        };
        typed(name, kind, is_last, names)
    };
    Some(found.map_or(Spelled::Unknown, Spelled::From))
}

/// `:id`, `:id(\d+)`, `:rest*`, `*`, `**`, `*rest`.
fn marked(part: &str, is_last: bool, names: &mut Names) -> Option<Spelled> {
    let is_name = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    if matches!(part, "*" | "**") {
        let text = if is_last {
            format!("{{*{}}}", names.take("rest"))
        } else {
            format!("{{{}}}", names.take("part"))
        };
        return Some(Spelled::From(text));
    }
    if let Some(name) = part.strip_prefix('*').filter(|name| is_name(name) && is_last) {
        return Some(Spelled::From(format!("{{*{}}}", names.take(name))));
    }
    let named = part
        .strip_prefix(':')
        .filter(|named| named.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_'))?;
    let (named, repeats) = match named.strip_suffix(['*', '+']).filter(|name| is_name(name)) {
        Some(name) => (name, true),
        None => (named.strip_suffix('?').unwrap_or(named), false),
    };
    let found = match named.split_once('(') {
        None if repeats => is_last.then(|| format!("{{*{}}}", names.take(named))),
        None => is_name(named).then(|| format!("{{{}}}", names.take(named))),
        Some((name, expression)) => {
            expression.strip_suffix(')').and_then(|it| typed(name, it, is_last, names))
        }
    };
    Some(found.map_or(Spelled::Unknown, Spelled::From))
}

/// `<id>`, `<int:id>`, `<string(length=2):code>`.
fn converter(part: &str, is_last: bool, names: &mut Names) -> Option<Spelled> {
    let inner = part.strip_prefix('<')?.strip_suffix('>')?;
    if inner.contains(['<', '>']) {
        return Some(Spelled::Unknown);
    }
    let (kind, name) = inner.rsplit_once(':').unwrap_or(("", inner));
    let kind = kind.split('(').next().unwrap_or_default();
    Some(typed(name, kind, is_last, names).map_or(Spelled::Unknown, Spelled::From))
}

/// `[id]` and `[...rest]`, as folders are named by routers of files.
fn folder(part: &str, is_last: bool, names: &mut Names) -> Option<Spelled> {
    let inner = part.strip_prefix('[')?.strip_suffix(']')?;
    let inner = inner.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(inner);
    let (name, is_rest) = inner.strip_prefix("...").map_or((inner, false), |name| (name, true));
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return None;
    }
    let star = if is_rest && is_last { "*" } else { "" };
    Some(Spelled::From(format!("{{{star}{}}}", names.take(name))))
}

/// `(\d+)`, `(?P<id>\d+)`, and a bare `\d+` or `[^/]+`.
fn group(part: &str, is_last: bool, names: &mut Names) -> Option<Spelled> {
    let grouped = part.strip_prefix('(').and_then(|part| part.strip_suffix(')'));
    let Some(inner) = grouped else {
        let is_expression = part.starts_with(['[', '.', '\\']) && part.ends_with(['+', '*', '}']);
        return is_expression
            .then(|| typed("", part, is_last, names).map_or(Spelled::Unknown, Spelled::From));
    };
    if inner.find(')') < inner.find('(') {
        return Some(Spelled::Unknown);
    }
    let named =
        inner.strip_prefix("?P<").or(inner.strip_prefix("?<")).and_then(|inner| inner.split_once('>'));
    let (name, expression) = named.unwrap_or(("", inner.strip_prefix("?:").unwrap_or(inner)));
    let is_expression = named.is_some() || expression.contains(['\\', '[', '.', '+', '*', '|', '?']);
    is_expression.then(|| typed(name, expression, is_last, names).map_or(Spelled::Unknown, Spelled::From))
}

/// A segment with a name and what others say of its kind. None if a kind of several segments does not stand at the end.
fn typed(name: &str, kind: &str, is_last: bool, names: &mut Names) -> Option<String> {
    let kind = kind.trim_end_matches('?');
    let (default, kind) = match kind {
        "path" | ".*" | ".+" | "(.*)" => {
            let name = names.take(if name.is_empty() { "rest" } else { name });
            return is_last.then(|| format!("{{*{name}}}"));
        }
        "int" | "integer" | "long" | "number" | "bigint" | "\\d*" => ("id", Some("int".to_owned())),
        "uuid" | "guid" => ("id", Some("uuid".to_owned())),
        "" | "str" | "string" | "any" | "[^/]+" | "[^/.]+" | "[^/]*" | "[^\\/]+" => ("part", None),
        _ if kind.starts_with("[0-9a-f") && kind.contains("{8}-") => ("id", Some("uuid".to_owned())),
        _ => match kind.parse::<Kind>() {
            Ok(known) => match known.name() {
                Some("int") => ("id", Some("int".to_owned())),
                named => ("part", Some(named.map_or_else(|| kind.to_owned(), str::to_owned))),
            },
            Err(_) => ("part", None),
        },
    };
    let name = names.take(if name.is_empty() { default } else { name });
    Some(match kind {
        Some(kind) => format!("{{{name}:{kind}}}"),
        None => format!("{{{name}}}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern::Pattern;

    #[test]
    fn templates_of_other_routers_are_respelled() {
        for (foreign, here) in [
            ("/orders/*", "/orders/{*rest}"),
            ("/orders/*/items", "/orders/{part}/items"),
            ("/orders/**", "/orders/{*rest}"),
            ("/files/*path", "/files/{*path}"),
            ("/orders/:id", "/orders/{id}"),
            ("/orders/:id/items/:item_id", "/orders/{id}/items/{item_id}"),
            ("/orders/:id(\\d+)", "/orders/{id:int}"),
            ("/orders/:id(.:format)", "/orders/{id}"),
            ("/files/:path*", "/files/{*path}"),
            ("/orders/:id?", "/orders/{id}"),
            ("/orders/<id>", "/orders/{id}"),
            ("orders/<int:id>/", "/orders/{id:int}/"),
            ("/orders/<uuid:id>", "/orders/{id:uuid}"),
            ("/p/<slug:slug>/<path:rest>", "/p/{slug:slug}/{*rest}"),
            ("/c/<string(length=2):code>", "/c/{code}"),
            ("^orders/(\\d+)$", "/orders/{id:int}"),
            ("^/orders/(?P<id>[0-9]+)/$", "/orders/{id:int}/"),
            ("^orders/(?P<slug>[-\\w]+)/?$", "/orders/{slug:slug}"),
            ("/orders/([^/]+)/items/([^/]+)", "/orders/{part}/items/{part2}"),
            ("/years/([0-9]{4})", "/years/{part:[0-9]{4}}"),
            ("/orders/\\d+", "/orders/{id:int}"),
            ("/feed\\.xml$", "/feed.xml"),
            ("/files/(.*)", "/files/{*rest}"),
            ("/orders/[id]", "/orders/{id}"),
            ("/docs/[...slug]", "/docs/{*slug}"),
            ("/orders/{id?}", "/orders/{id}"),
            ("/orders/{id:guid}/x", "/orders/{id:uuid}/x"),
            ("/orders/{id:long}", "/orders/{id:int}"),
            ("/files/{name:path}", "/files/{*name}"),
            ("/files/{name:.+}", "/files/{*name}"),
            ("/files/{**name}", "/files/{*name}"),
            ("/o/{a:[^/]+}/{b:[0-9]+}", "/o/{a}/{b:[0-9]+}"),
            ("orders", "/orders"),
        ] {
            let found = recognise(foreign).unwrap_or_else(|| panic!("{foreign} passes"));
            assert_eq!(found.respelled.as_deref(), Some(here), "{foreign}");
            let pattern: Pattern = format!("GET {here}").parse().unwrap();
            assert_eq!(pattern.path(), here);
        }
    }

    #[test]
    fn what_cannot_be_said_here_is_recognised_all_the_same() {
        for foreign in [
            "/orders*",
            "/orders(/:id)",
            "/a/<x>-<y>",
            "/a/(\\d+)-(\\d+)",
            "/files/(.*)/raw",
            "/files/*rest/raw",
            "/a|b",
            "/o/:id.json",
            "/(?:a|b",
            "/[",
            "/\\",
        ] {
            let found = recognise(foreign);
            let sound = |path: &str| format!("GET {path}").parse::<Pattern>().is_ok();
            let respelled = found.unwrap_or_else(|| panic!("{foreign} passes")).respelled;
            assert!(respelled.as_deref().is_none_or(|path| !sound(path)), "{foreign}: {respelled:?}");
        }
    }

    #[test]
    fn templates_of_here_and_rare_texts_pass() {
        for plain in [
            "/",
            "/orders/",
            "/orders/{id}/{n:int}/{c:[A-Z]{3}}/{*rest}",
            "/v1/things:batch",
            "/Orders(7)/$value",
            "/a,b;c=1/@me/~x/c++/it's!",
        ] {
            assert_eq!(recognise(plain), None, "{plain}");
        }
    }
}
