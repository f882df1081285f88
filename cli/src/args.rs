//! The command line as typed: global options and the verbs. What a verb takes stands beside what it does, in `verb/`.

use crate::verb;
use clap::{ArgAction, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Moves a running system out of a monolith, one slice at a time, and back.
///
/// A slice is a set of HTTP endpoints together with the tables behind them. Each step is one command, and each
/// step can be undone.
#[derive(Debug, Parser)]
#[command(name = "strangler", version, max_term_width = 100, arg_required_else_help = true)]
#[command(
    after_help = "Exit codes: 0 done, 1 error, 2 usage or plan, 3 preflight failed, 4 conflict or stale,\n\
                        5 aborted safely, 6 committed but unfinished, 7 differences, 8 timed out watching."
)]
pub struct Cli {
    /// Options of every verb.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Options of every verb.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// The plan; `.strangler/` with its state lies beside it
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        default_value = "strangler.yaml",
        env = "STRANGLER_PLAN"
    )]
    pub plan: PathBuf,
    /// How results are written
    #[arg(long, global = true, value_enum, default_value_t = Output::Human)]
    pub output: Output,
    /// The controller's API [default: as the plan says]; its token is read from STRANGLER_TOKEN or .strangler/token
    #[arg(long, global = true, value_name = "URL", env = "STRANGLER_CONTROLLER")]
    pub controller: Option<String>,
    /// No hints and no progress
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Also show what lies behind an error
    #[arg(short, long, global = true, action = ArgAction::Count, conflicts_with = "quiet")]
    pub verbose: u8,
}

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For reading.
    Human,
    /// One JSON document a result, on one line.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Write a first plan, from a live database or for routing only
    Init(verb::init::Args),
    /// Say everything that is wrong with the plan
    Check,
    /// Make strangler's schema, role and rights in the plan's databases
    Install(verb::install::Args),
    /// Take away everything that `install` made
    Uninstall(verb::uninstall::Args),
    /// Look whether the live systems are ready, with a fix for what is not
    Doctor(verb::doctor::Args),
    /// Start controller, proxy and bridge on this machine, and restart what dies
    Up(verb::up::Args),
    /// Stop what `up` started
    Down,
    /// Run the controller in the foreground
    Controller(verb::part::Args),
    /// Run a proxy in the foreground
    Proxy(verb::part::Args),
    /// Run the bridge in the foreground
    Bridge(verb::part::Args),
    /// Show slices, their stage, owner, reads and lag, and who is alive
    Status(verb::status::Args),
    /// Copy a slice's tables and keep them in step
    #[command(subcommand)]
    Sync(verb::sync::Verb),
    /// Say where requests go
    #[command(subcommand)]
    Route(verb::route::Verb),
    /// Show a slice's change events as Debezium would write them
    Tail(verb::tail::Args),
    /// Show who decided what, when and why
    Journal(verb::journal::Args),
    /// Write a completion script for a shell
    Completions(verb::completions::Args),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
