//! A command line that clap rejects: clap's message as a problem, with passwords removed. Pure.

use clap::error::ErrorKind;
use migrations::code::Code;
use migrations::problem::Problem;
use std::ffi::OsString;

#[derive(Debug)]
pub(crate) struct Misread {
    /// Clap's own text, with colours.
    pub(crate) styled: String,
    pub(crate) problem: Problem,
    pub(crate) wants_json: bool,
}

impl Misread {
    pub(crate) fn of(error: &clap::Error, arguments: impl Iterator<Item = OsString>) -> Self {
        let arguments: Vec<String> =
            arguments.map(|argument| argument.to_string_lossy().into_owned()).collect();
        let wants_json = arguments.iter().any(|argument| argument == "--output=json")
            || arguments.windows(2).any(|pair| pair == ["--output", "json"]);
        let plain = without_passwords(error.render().to_string(), &arguments);
        let problem = match error.kind() {
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                Problem::new(Code::CommandUsage, "the verb is missing", "`strangler --help` lists the verbs")
            }
            _ => problem(&plain),
        };
        Self { styled: without_passwords(error.render().ansi().to_string(), &arguments), problem, wants_json }
    }
}

/// Clap writes paragraphs: the error, tips, and the usage.
fn problem(text: &str) -> Problem {
    let one_line = |paragraph: &str| paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut paragraphs = text.trim().split("\n\n").map(one_line);
    let message = paragraphs.next().unwrap_or_default();
    let problem =
        Problem::new(Code::CommandUsage, message.strip_prefix("error: ").unwrap_or(&message), String::new());
    paragraphs.fold(problem, |problem, hint| match hint.strip_prefix("tip: ") {
        Some(tip) => problem.remedy(tip),
        None => problem.remedy(hint.trim_end_matches('.')),
    })
}

/// Clap repeats an argument that it rejects, and an argument with `@` may be a URL with a password.
fn without_passwords(text: String, arguments: &[String]) -> String {
    let parts = arguments
        .iter()
        .flat_map(|whole| [Some(whole.as_str()), whole.split_once('=').map(|(_, value)| value)]);
    let secret = parts.flatten().filter(|part| part.contains('@'));
    secret.fold(text, |text, part| text.replace(part, "…"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Cli;
    use clap::Parser;

    fn misread(line: &str) -> Misread {
        let words: Vec<&str> = line.split(' ').collect();
        let error = Cli::try_parse_from(&words).unwrap_err();
        Misread::of(&error, words.iter().map(OsString::from))
    }

    #[test]
    fn more_events_than_a_bridge_gives_are_refused() {
        let said = misread("strangler tail orders -n 1001").problem.message;
        assert!(said.contains("1001") && said.contains("1000"), "{said}");
        for fits in ["0", "1000"] {
            assert!(Cli::try_parse_from(["strangler", "tail", "orders", "-f", "-n", fits]).is_ok(), "{fits}");
        }
    }

    #[test]
    fn the_parsers_words_become_a_problem() {
        let said = misread("strangler stauts --output json");
        assert!(said.wants_json);
        assert_eq!(said.problem.message, "unrecognized subcommand 'stauts'");
        assert!(said.problem.remedy.contains("'status'"), "{:?}", said.problem.remedy);
        assert_eq!(misread("strangler sync").problem.message, "the verb is missing");
        let said = misread("strangler --output=json tail");
        assert!(said.wants_json && said.problem.message.ends_with("<SLICE>"), "{:?}", said.problem);
        assert!(!misread("strangler tail").wants_json);
    }

    #[test]
    fn a_password_that_was_put_in_the_wrong_place_is_not_repeated() {
        for line in [
            "strangler install postgres://root:verysecret@h/db",
            "strangler install --admin-url x --output=postgres://root:verysecret@h/db",
            "strangler check monolith=postgres://root:verysecret@h/db",
        ] {
            let said = misread(line);
            assert!(said.styled.contains('…'), "{}", said.styled);
            assert!(!format!("{said:?}").contains("verysecret"), "{said:?}");
        }
    }
}
