//! The command line as typed. Each verb's options are in its own file in `verb/`.

use crate::crossing;
use crate::examples;
use crate::failed::Failed;
use crate::invocation::{Global, Invocation};
use crate::verb;
use clap::{Command, CommandFactory, FromArgMatches, Parser, Subcommand};

/// Moves a running system out of a monolith, one slice at a time, and back.
///
/// A slice is a set of HTTP endpoints and the tables behind them. Each step is one command, and each step can be
/// undone.
#[derive(Debug, Parser)]
#[command(name = "strangler", version, max_term_width = 100, arg_required_else_help = true)]
#[command(
    after_help = "Exit codes: 0 done, 1 error, 2 usage or plan, 3 preflight failed, 4 conflict or stale,\n\
                        5 aborted safely, 6 committed but unfinished, 7 verify found differences,\n\
                        8 timed out while watching."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// The command line, with the help that people see.
pub(crate) fn command() -> Command {
    examples::shown(Cli::command())
}

impl Cli {
    pub(crate) fn read() -> Result<Self, clap::Error> {
        let matches = command().try_get_matches()?;
        Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command()))
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Write a first plan, from a live database or for routing only
    Init(verb::init::Args),
    /// Check the plan and show everything that is wrong with it
    Check,
    /// Create strangler's schema, role and rights in the plan's databases
    Install(verb::install::Args),
    /// Remove everything that `install` created
    Uninstall(verb::uninstall::Args),
    /// Check that the live systems are ready, and show how to fix each problem
    Doctor(verb::doctor::Args),
    /// Start controller, proxy and bridge on this machine, and restart any that die
    Up(verb::up::Args),
    /// Take an edited plan into what runs, without losing a request
    Reload,
    /// Stop everything that `up` started
    Down,
    /// Run the controller in the foreground
    Controller(verb::part::Args),
    /// Run a proxy in the foreground
    Proxy(verb::part::Args),
    /// Run the bridge in the foreground
    Bridge(verb::part::Args),
    /// Show each slice's stage, owner, reads and lag, and which parts are alive
    Status(verb::status::Args),
    /// Copy a slice's tables and keep the copy up to date
    #[command(subcommand)]
    Sync(verb::sync::Verb),
    /// Show or set where requests go
    #[command(subcommand)]
    Route(verb::route::Verb),
    /// Compare both sides of a slice, row for row
    Verify(verb::verify::Args),
    /// Show who writes a slice's tables, and what the plan says of each writer
    Writers(verb::writers::Args),
    /// Show who reads a slice's tables in the monolith's database
    Readers(verb::readers::Args),
    /// Do everything of a cutover but the decision, and go back
    Rehearse(crossing::Crossing),
    /// Move a slice's writes to the service
    Cutover(verb::cutover::Args),
    /// Keep a slice at the service that would return by itself
    Confirm(crossing::Named),
    /// Give a slice back to the monolith, with everything that the service wrote
    Rollback(crossing::Crossing),
    /// Give up a cutover, rehearsal or rollback that is not decided yet
    Abort(verb::abort::Args),
    /// Make a slice's move final; there is no way back after it
    Complete(verb::complete::Args),
    /// Wait for what is under way, then make the gates match the journal
    Reconcile(verb::reconcile::Args),
    /// Show a slice's change events in Debezium's format
    Tail(verb::tail::Args),
    /// Show who decided what, when and why
    Journal(verb::journal::Args),
    /// Print a completion script for a shell
    Completions(verb::completions::Args),
}

impl Verb {
    pub(crate) async fn run(&self, call: &Invocation<'_>) -> Result<(), Failed> {
        match self {
            Self::Rehearse(args) => return verb::rehearse::run(call, args).await,
            Self::Cutover(args) => return verb::cutover::run(call, args).await,
            Self::Confirm(args) => return verb::confirm::run(call, args).await,
            Self::Rollback(args) => return verb::rollback::run(call, args).await,
            Self::Abort(args) => return verb::abort::run(call, args).await,
            Self::Complete(args) => return verb::complete::run(call, args).await,
            Self::Reconcile(args) => return verb::reconcile::run(call, args).await,
            Self::Init(args) => verb::init::run(call, args).await?,
            Self::Check => verb::check::run(call)?,
            Self::Install(args) => verb::install::run(call, args).await?,
            Self::Uninstall(args) => verb::uninstall::run(call, args).await?,
            Self::Doctor(args) => verb::doctor::run(call, args).await?,
            Self::Up(args) => verb::up::run(call, args).await?,
            Self::Reload => verb::reload::run(call).await?,
            Self::Down => verb::down::run(call).await?,
            Self::Controller(args) => verb::part::controller(call, args).await?,
            Self::Proxy(args) => verb::part::proxy(call, args)?,
            Self::Bridge(args) => verb::part::bridge(call, args).await?,
            Self::Status(args) => verb::status::run(call, args).await?,
            Self::Sync(verb) => verb::sync::run(call, verb).await?,
            Self::Route(verb) => verb::route::run(call, verb).await?,
            Self::Tail(args) => verb::tail::run(call, args).await?,
            Self::Verify(args) => verb::verify::run(call, args).await?,
            Self::Writers(args) => verb::writers::run(call, args).await?,
            Self::Readers(args) => verb::readers::run(call, args).await?,
            Self::Journal(args) => verb::journal::run(call, args).await?,
            Self::Completions(args) => verb::completions::run(call, args)?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
