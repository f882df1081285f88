//! `strangler completions`: a shell script that completes verbs, options, slices and routes.
//!
//! The script asks this binary at each Tab.

use crate::invocation::{Invocation, plan_that_is_here};
use clap::Command;
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use clap_complete::env::{CompleteEnv, Shells};
use migrations::code::Code;
use migrations::problem::Problem;

/// What tells the binary that a shell asks.
const ASKED: &str = "COMPLETE";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The shell to write it for
    #[arg(value_parser = ["bash", "elvish", "fish", "powershell", "zsh"])]
    shell: String,
}

pub(crate) fn run(call: &Invocation<'_>, args: &Args) -> Result<(), Problem> {
    let mut script = Vec::new();
    let shells = Shells::builtins();
    let shell = shells.completer(&args.shell);
    let written = shell
        .map(|shell| shell.write_registration(ASKED, "strangler", "strangler", "strangler", &mut script));
    match written {
        Some(Ok(())) => call.ui.raw(&String::from_utf8_lossy(&script)),
        _ => {
            return Err(Problem::new(
                Code::CommandFailed,
                format!("could not write the script for {}", args.shell),
                "name another shell",
            ));
        }
    }
    Ok(())
}

/// Answers a shell that asks, and ends the process. Otherwise it does nothing.
pub(crate) fn answer(command: fn() -> Command) {
    CompleteEnv::with_factory(|| knowing(command())).var(ASKED).complete();
}

/// Completes slices and routes from the plan, and the global options that the help folds.
fn knowing(command: Command) -> Command {
    let command = command.mut_args(|arg| match arg.get_id().as_str() {
        "slice" => arg.add(ArgValueCandidates::new(slices)),
        "route" => arg.add(ArgValueCandidates::new(routes)),
        _ => {
            let is_global = arg.is_global_set();
            if is_global { arg.hide(false) } else { arg }
        }
    });
    command.mut_subcommands(knowing)
}

fn slices() -> Vec<CompletionCandidate> {
    let plan = plan_that_is_here();
    plan.iter()
        .flat_map(|plan| plan.slices.keys())
        .map(|slice| CompletionCandidate::new(slice.as_str()))
        .collect()
}

fn routes() -> Vec<CompletionCandidate> {
    let mut found = slices();
    for (name, slice) in plan_that_is_here().iter().flat_map(|plan| &plan.slices) {
        found.extend(
            slice.routes.iter().map(|route| CompletionCandidate::new(format!("{name}.{}", route.name))),
        );
    }
    found
}
