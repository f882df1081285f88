//! The rules for one source file.

use std::path::Path;

use super::text::{code, lines_with, product_code};

/// From here on a file needs a reason for its length.
const MAX_LINES: usize = 400;
/// What the header of a longer file says before its reason.
const REASON: &str = "Long because";
/// What a pure file may not mention, and where it belongs.
const IMPURE: [(&str, &str); 13] = [
    ("tokio", "a runtime"),
    ("std::env", "the process's surroundings; take them as an argument"),
    ("std::process", "processes"),
    ("std::thread", "threads"),
    ("std::net", "sockets (addresses alone are in core::net)"),
    ("std::fs", "files"),
    ("Instant", "a clock; take a Duration as an argument"),
    ("SystemTime", "a clock; take the time as an argument"),
    ("reqwest", "an HTTP client"),
    ("rdkafka", "a broker"),
    ("redb", "a store"),
    ("tokio_postgres", "a database"),
    ("pingora", "a proxy server"),
];
/// The one file of the CLI that names the other crates.
const DOOR: &str = "cli/src/part.rs";
/// What only [`DOOR`] may name.
const PARTS: [&str; 3] = ["controller::", "proxy::", "cdc_bridge::"];
/// Macros that stand for work not done.
const UNDONE: [&str; 3] = ["todo!", "unimplemented!", "dbg!"];
/// Notes that stand for work not done. Split, so that this file does not find itself.
const NOTES: [&str; 3] = [concat!("FIX", "ME"), concat!("XX", "X"), concat!("HA", "CK")];
/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 10] =
    ["utils", "util", "helpers", "helper", "common", "types", "manager", "handler", "misc", "shared"];

/// Every broken rule of one file, with its line (0: the whole file). `pure` says that the station law applies.
pub fn broken(path: &Path, text: &str, pure: bool) -> Vec<(usize, String)> {
    let mut broken = Vec::new();
    broken.extend(name(path));
    broken.extend(header(text));
    broken.extend(length(text));
    broken.extend(undone(text));
    broken.extend(past_the_door(path, text));
    if pure {
        broken.extend(impure(text));
    }
    broken
}

/// A file or folder is named by what it is about.
fn name(path: &Path) -> Option<(usize, String)> {
    let parts = path.iter().map(|part| part.to_string_lossy().trim_end_matches(".rs").to_owned());
    let empty = parts.into_iter().find(|part| EMPTY_NAMES.contains(&part.as_str()))?;
    Some((0, format!("`{empty}` says nothing; name it by the noun it is about")))
}

/// Every file opens by saying what it is.
fn header(text: &str) -> Option<(usize, String)> {
    let said =
        text.strip_prefix("//! ").is_some_and(|line| line.lines().next().unwrap_or_default().len() > 3);
    (!said).then(|| (1, "the file does not open with `//!` and a sentence on what it is".to_owned()))
}

/// Long files need a reason.
fn length(text: &str) -> Option<(usize, String)> {
    let lines = text.lines().count();
    let mut header = text.lines().take_while(|line| line.starts_with("//!"));
    (lines > MAX_LINES && !header.any(|line| line.contains(REASON)))
        .then(|| (0, format!("{lines} lines; cut it, or say in its `//!` header: \"{REASON} …\"")))
}

/// Nothing is left undone, and no test is switched off.
fn undone(text: &str) -> Vec<(usize, String)> {
    let code = code(text);
    let mut broken = Vec::new();
    for word in UNDONE {
        broken.extend(lines_with(&code, word).map(|line| (line, format!("`{word}` is work not done"))));
    }
    for word in NOTES {
        broken.extend(
            lines_with(text, word).map(|line| (line, format!("`{word}`: do it now, or leave it out"))),
        );
    }
    let ignored = code.lines().enumerate().filter(|(_, line)| line.contains("#[ignore"));
    broken.extend(ignored.map(|(at, _)| (at + 1, "a test that is switched off proves nothing".to_owned())));
    broken
}

/// The CLI starts the other crates in one place, so that its verbs depend on nothing that they export.
fn past_the_door(path: &Path, text: &str) -> Vec<(usize, String)> {
    if !path.starts_with("cli/src") || path == Path::new(DOOR) {
        return Vec::new();
    }
    let code = code(text);
    let mut broken = Vec::new();
    for word in PARTS {
        let message = |line| (line, format!("`{word}` belongs into {DOOR}, the only file that names it"));
        broken.extend(lines_with(&code, word).map(message));
    }
    broken
}

/// The station law: a file inside a station decides, the station's own file does.
fn impure(text: &str) -> Vec<(usize, String)> {
    let code = product_code(text);
    let mut broken = Vec::new();
    for (word, what) in IMPURE {
        let message = |line| {
            (line, format!("`{word}` in a pure file: {what}. IO belongs into the file beside the folder"))
        };
        broken.extend(lines_with(&code, word).map(message));
        // `use std::{fs, net}` says the same.
        let grouped = word.strip_prefix("std::").filter(|_| code.contains("std::{"));
        let lines = grouped.into_iter().flat_map(|part| {
            let names = code.lines().enumerate().filter(|(_, line)| line.contains("std::{"));
            names.filter(move |(_, line)| lines_with(line, part).next().is_some()).map(|(at, _)| at + 1)
        });
        broken.extend(lines.map(message));
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "//! Decides what to do next.\n\nfn decide() {}\n";

    fn messages(path: &str, text: &str, pure: bool) -> Vec<(usize, String)> {
        broken(Path::new(path), text, pure)
    }

    #[test]
    fn a_good_file_has_no_findings() {
        assert_eq!(messages("proxy/src/route/pattern.rs", GOOD, true), []);
    }

    #[test]
    fn empty_names_are_found_for_files_and_folders() {
        for path in
            ["cli/src/utils.rs", "cli/src/helpers/x.rs", "cli/tests/common/mod.rs", "proxy/src/types.rs"]
        {
            assert_eq!(messages(path, GOOD, false).len(), 1, "{path}");
        }
        assert_eq!(messages("cli/src/commonplace.rs", GOOD, false), []);
    }

    #[test]
    fn a_file_without_a_header_is_found() {
        for text in
            ["fn f() {}\n", "// Not a doc comment.\n", "//! .\nfn main() {}\n", "\n//! Too late.\n", ""]
        {
            assert_eq!(messages("a/src/x.rs", text, false).len(), 1, "{text:?}");
        }
    }

    #[test]
    fn a_long_file_needs_a_reason() {
        let long = "fn f() {}\n".repeat(MAX_LINES);
        assert_eq!(messages("a/src/x.rs", &format!("//! A thing.\n{long}"), false).len(), 1);
        let reasoned = format!("//! A thing.\n//!\n//! {REASON} it is one table.\n{long}");
        assert_eq!(messages("a/src/x.rs", &reasoned, false), []);
    }

    #[test]
    fn work_not_done_is_found_where_it_stands() {
        for word in UNDONE {
            let found = messages("a/src/x.rs", &format!("{GOOD}fn f() {{ {word}() }}\n"), false);
            assert_eq!(found.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [4], "{word}");
            assert_eq!(messages("a/src/x.rs", &format!("{GOOD}// not {word}\n"), false), []);
        }
        for word in NOTES {
            assert_eq!(
                messages("a/src/x.rs", &format!("{GOOD}// {word}: later\n"), false).len(),
                1,
                "{word}"
            );
            assert_eq!(messages("a/src/x.rs", &format!("{GOOD}// {word}X\n"), false), []);
        }
    }

    #[test]
    fn a_test_switched_off_is_found() {
        for attribute in ["#[ignore]", "#[ignore = \"slow\"]"] {
            assert_eq!(messages("a/src/x.rs", &format!("{GOOD}{attribute}\nfn f() {{}}\n"), false).len(), 1);
        }
    }

    #[test]
    fn only_one_file_of_the_cli_names_the_other_crates() {
        for word in PARTS {
            let text = format!("{GOOD}use {word}serve;\n");
            let found = messages("cli/src/verb/up.rs", &text, false);
            assert_eq!(found.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [4], "{word}");
            for path in [DOOR, "cli/tests/house.rs", "controller/src/serve.rs"] {
                assert_eq!(messages(path, &text, false), [], "{path}");
            }
            assert_eq!(messages("cli/src/verb/up.rs", &format!("{GOOD}// {word}\n"), false), []);
        }
    }

    #[test]
    fn a_pure_file_mentions_no_io() {
        for line in [
            "use tokio::sync::mpsc;",
            "use std::net::TcpStream;",
            "let x = std::fs::read(p);",
            "use std::{fs, net};",
            "let home = std::env::var(name);",
            "use std::process::Command;",
            "use std::{fmt, thread};",
            "use std::time::{Duration, Instant};",
            "let t = SystemTime::now();",
            "use reqwest::Client;",
            "use rdkafka::producer;",
            "use redb::Database;",
            "use tokio_postgres::Client;",
            "use pingora::prelude::*;",
        ] {
            let text = format!("{GOOD}{line}\n");
            let found = messages("proxy/src/route/x.rs", &text, true);
            assert!(found.iter().any(|(at, _)| *at == 4), "{line}");
            assert_eq!(messages("proxy/src/route.rs", &text, false), [], "{line}");
            let in_test = format!("{GOOD}#[cfg(test)]\nmod tests {{\n    {line}\n}}\n");
            assert_eq!(messages("proxy/src/route/x.rs", &in_test, true), [], "{line}");
        }
        assert_eq!(messages("proxy/src/route/x.rs", &format!("{GOOD}// tokio:: is not here\n"), true), []);
    }
}
