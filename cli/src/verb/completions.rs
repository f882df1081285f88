//! `strangler completions`: a script that teaches a shell our verbs and options.

use crate::invocation::Invocation;
use crate::problem::Problem;
use clap::Command;
use clap_complete::Shell;

/// Which script.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// For which shell
    shell: Shell,
}

/// Writes the script for `command`, which is the whole of ours.
pub fn run(call: &Invocation<'_>, args: &Args, command: &mut Command) -> Result<(), Problem> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, command, "strangler", &mut script);
    call.ui.raw(&String::from_utf8_lossy(&script));
    Ok(())
}
