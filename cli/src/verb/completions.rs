//! `strangler completions`: a shell script that completes verbs and options.

use crate::invocation::Invocation;
use clap::Command;
use clap_complete::Shell;
use migrations::problem::Problem;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The shell to write it for
    shell: Shell,
}

pub(crate) fn run(call: &Invocation<'_>, args: &Args, command: &mut Command) -> Result<(), Problem> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, command, "strangler", &mut script);
    call.ui.raw(&String::from_utf8_lossy(&script));
    Ok(())
}
