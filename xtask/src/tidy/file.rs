//! The rules for one source file.

use std::path::Path;

/// Notes that stand for work not done. Split, so that this file does not find itself.
const NOTES: [&str; 3] = [concat!("FIX", "ME"), concat!("XX", "X"), concat!("HA", "CK")];
/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 10] =
    ["utils", "util", "helpers", "helper", "common", "types", "manager", "handler", "misc", "shared"];
/// The one file of the CLI that names the other crates: its verbs depend on nothing that they export.
const DOOR: &str = "cli/src/part.rs";
/// What only [`DOOR`] may name.
const PARTS: [&str; 3] = ["controller::", "proxy::", "cdc_bridge::"];

/// Every broken rule of one file, as `file[:line]: what is wrong`.
pub fn broken(path: &Path, text: &str) -> Vec<String> {
    let place = path.display();
    let mut broken = Vec::new();
    let mut names = path.iter().filter_map(|part| part.to_str()).map(|part| part.trim_end_matches(".rs"));
    if let Some(name) = names.find(|name| EMPTY_NAMES.contains(name)) {
        broken.push(format!("{place}: `{name}` says nothing; name it by the noun it is about"));
    }
    let opening = text.lines().next().and_then(|line| line.strip_prefix("//! "));
    if opening.is_none_or(|sentence| sentence.len() < 2) {
        broken.push(format!("{place}:1: open the file with `//!` and a sentence on what it is"));
    }
    for (at, line) in text.lines().enumerate() {
        let at = at + 1;
        let mut words = line.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
        if let Some(note) = words.find(|word| NOTES.contains(word)) {
            broken.push(format!("{place}:{at}: `{note}`: do it now, or leave it out"));
        }
        if line.trim_start().starts_with("#[ignore") {
            broken.push(format!("{place}:{at}: a test that is switched off proves nothing"));
        }
        let mut paths = line.split(|letter: char| !letter.is_alphanumeric() && !"_:".contains(letter));
        if path.starts_with("cli/src")
            && path != Path::new(DOOR)
            && !line.trim_start().starts_with("//")
            && paths.any(|path| PARTS.iter().any(|part| path.starts_with(part)))
        {
            broken.push(format!("{place}:{at}: only {DOOR} may name the other crates"));
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "//! Decides what to do next.\n\nfn decide() {}\n";

    fn count(path: &str, text: &str) -> usize {
        broken(Path::new(path), text).len()
    }

    #[test]
    fn a_good_file_has_no_findings() {
        assert_eq!(count("proxy/src/route/pattern.rs", GOOD), 0);
        assert_eq!(count("cli/src/commonplace.rs", GOOD), 0);
    }

    #[test]
    fn empty_names_are_found_for_files_and_folders() {
        for path in
            ["cli/src/utils.rs", "cli/src/helpers/x.rs", "cli/tests/common/mod.rs", "proxy/src/types.rs"]
        {
            assert_eq!(count(path, GOOD), 1, "{path}");
        }
    }

    #[test]
    fn a_file_without_a_header_is_found() {
        for text in
            ["fn f() {}\n", "// Not a doc comment.\n", "//! .\nfn main() {}\n", "\n//! Too late.\n", ""]
        {
            assert_eq!(count("a/src/x.rs", text), 1, "{text:?}");
        }
    }

    #[test]
    fn notes_and_tests_switched_off_are_found_where_they_stand() {
        for word in NOTES {
            let found = broken(Path::new("a/src/x.rs"), &format!("{GOOD}// {word}: later\n"));
            assert!(found.len() == 1 && found[0].starts_with("a/src/x.rs:4: "), "{found:?}");
            assert_eq!(count("a/src/x.rs", &format!("{GOOD}// {word}X\n")), 0);
        }
        for attribute in ["#[ignore]", "#[ignore = \"slow\"]"] {
            assert_eq!(count("a/src/x.rs", &format!("{GOOD}{attribute}\nfn f() {{}}\n")), 1);
        }
    }

    #[test]
    fn only_one_file_of_the_cli_names_the_other_crates() {
        for word in PARTS {
            let text = format!("{GOOD}use {word}serve;\n");
            let found = broken(Path::new("cli/src/verb/up.rs"), &text);
            assert!(found.len() == 1 && found[0].starts_with("cli/src/verb/up.rs:4: "), "{found:?}");
            for path in [DOOR, "cli/tests/house.rs", "controller/src/serve.rs"] {
                assert_eq!(count(path, &text), 0, "{path}");
            }
            for other in [format!("// {word}\n"), format!("use crate::{word}x;\n")] {
                assert_eq!(count("cli/src/verb/up.rs", &format!("{GOOD}{other}")), 0, "{other}");
            }
        }
    }
}
