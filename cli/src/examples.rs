//! The help of each verb: its examples, and where the global options are explained.

use clap::Command;

/// What every verb takes, once: clap would repeat it in the help of each.
const GLOBAL: &str = "Global options, for every command:
      --plan <FILE>       The plan; `.strangler/` is next to it [env: STRANGLER_PLAN]
                          [default: strangler.yaml]
      --output <FORMAT>   human, or json: one document per result, on one line
      --controller <URL>  The controller's API [default: from the plan] [env: STRANGLER_CONTROLLER];
                          the token comes from STRANGLER_TOKEN or .strangler/token
  -q, --quiet             Hide hints and progress
  -v, --verbose           Also show the causes of an error";
const FOLDED: &str = "--plan, --output, --controller, -q and -v: see `strangler --help`.";

/// By the verb, as it is typed.
const EXAMPLES: &[(&str, &[&str])] = &[
    (
        "init",
        &[
            "strangler init postgres://user@host/shop",
            "strangler init postgres://user@host/shop --table 'order*' --service orders=http://10.0.0.5:4001",
            "strangler init postgres://user@host/shop --table 'review*' --service reviews --add",
            "strangler init --upstream http://127.0.0.1:4000 --service hello=http://127.0.0.1:4001",
        ],
    ),
    ("check", &["strangler check", "strangler check --plan staging.yaml"]),
    (
        "install",
        &[
            "strangler install --admin-url postgres://postgres@db1/shop --admin-url postgres://postgres@db2/orders",
            "strangler install --print",
        ],
    ),
    (
        "uninstall",
        &[
            "strangler uninstall --admin-url postgres://postgres@db1/shop --admin-url postgres://postgres@db2/orders",
        ],
    ),
    ("doctor", &["strangler doctor", "strangler doctor orders --cutover"]),
    ("up", &["strangler up --detach", "strangler up"]),
    ("reload", &["strangler reload"]),
    ("down", &["strangler down"]),
    ("controller", &["strangler controller --plan /etc/strangler/strangler.yaml"]),
    ("proxy", &["strangler proxy --controller http://10.0.0.5:7401"]),
    ("bridge", &["strangler bridge --controller http://10.0.0.5:7401"]),
    ("status", &["strangler status", "strangler status -w", "strangler status --output json"]),
    (
        "sync start",
        &["strangler sync start orders --reason 'first try'", "strangler sync start orders --detach"],
    ),
    ("sync pause", &["strangler sync pause orders"]),
    ("sync resume", &["strangler sync resume orders", "strangler sync resume orders --skip 0/1EECD20+1"]),
    ("sync drop", &["strangler sync drop orders --yes"]),
    ("sync status", &["strangler sync status orders"]),
    ("route list", &["strangler route list"]),
    (
        "route set",
        &[
            "strangler route set orders 10%",
            "strangler route set orders.list service --reason 'a week without errors'",
            "strangler route set orders monolith",
        ],
    ),
    ("verify", &["strangler verify orders", "strangler verify orders --repair"]),
    ("writers", &["strangler writers orders --observe 1h"]),
    ("readers", &["strangler readers orders"]),
    ("rehearse", &["strangler rehearse orders", "strangler rehearse orders --dry-run"]),
    (
        "cutover",
        &["strangler cutover orders --for 30m", "strangler cutover orders --hold 2s --reason 'planned'"],
    ),
    ("confirm", &["strangler confirm orders"]),
    ("rollback", &["strangler rollback orders --reason 'too many errors'"]),
    ("abort", &["strangler abort orders"]),
    ("complete", &["strangler complete orders", "strangler complete orders --yes orders"]),
    ("reconcile", &["strangler reconcile", "strangler reconcile orders"]),
    ("tail", &["strangler tail orders -n 1", "strangler tail orders -f"]),
    ("journal", &["strangler journal -n 20", "strangler journal -f"]),
    ("completions", &["strangler completions bash > /etc/bash_completion.d/strangler"]),
];

/// The command line with examples in each verb's help, and with the global options explained once.
pub(crate) fn shown(command: Command) -> Command {
    let exit_codes = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let command = command.mut_args(|arg| {
        let is_global = arg.is_global_set();
        arg.hide(is_global)
    });
    verbs(command, "").after_help(format!("{GLOBAL}\n\n{exit_codes}"))
}

fn verbs(command: Command, path: &str) -> Command {
    command.mut_subcommands(|verb| {
        let path = format!("{path} {}", verb.get_name()).trim_start().to_owned();
        let more = verb.get_after_help().map(|text| format!("{text}\n\n")).unwrap_or_default();
        let examples =
            of(&path).map(|lines| format!("Examples:\n  {}\n\n", lines.join("\n  "))).unwrap_or_default();
        verbs(verb, &path).after_help(format!("{more}{examples}{FOLDED}"))
    })
}

fn of(path: &str) -> Option<&'static [&'static str]> {
    EXAMPLES.iter().find(|(verb, _)| *verb == path).map(|(_, lines)| *lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Cli;
    use clap::{CommandFactory, Parser};

    /// As a shell parts it: quotes hold words together.
    fn words(line: &str) -> Vec<String> {
        let line = line.split(" > ").next().unwrap();
        let pieces = line.split('\'').enumerate();
        pieces
            .flat_map(|(number, piece)| match number % 2 {
                0 => piece.split_whitespace().map(str::to_owned).collect(),
                _ => vec![piece.to_owned()],
            })
            .collect()
    }

    fn paths(command: &Command, path: &str, found: &mut Vec<String>) {
        for verb in command.get_subcommands() {
            let path = format!("{path} {}", verb.get_name()).trim_start().to_owned();
            match verb.has_subcommands() {
                true => paths(verb, &path, found),
                false => found.push(path),
            }
        }
    }

    #[test]
    fn each_verb_has_examples_that_are_commands() {
        let mut found = Vec::new();
        paths(&Cli::command(), "", &mut found);
        for path in &found {
            let examples = of(path).unwrap_or_else(|| panic!("`{path}` has no example"));
            for line in examples {
                assert!(line.starts_with(&format!("strangler {path}")), "{line}");
                Cli::try_parse_from(words(line)).unwrap_or_else(|error| panic!("{line}: {error}"));
            }
        }
        assert_eq!(found.len(), EXAMPLES.len());
    }

    #[test]
    fn the_global_options_are_explained_once() {
        let shown = |argument: &&clap::Arg| argument.is_global_set() && !argument.is_hide_set();
        for argument in Cli::command().get_arguments().filter(shown) {
            let long = format!("--{}", argument.get_long().unwrap());
            assert!(GLOBAL.contains(&long), "{long}");
        }
    }
}
