//! The `strangler` binary: reads the command line, runs one verb, and ends with its exit code.
//!
//! What a verb does is in `verb/`. All output goes through `ui`.

mod accesses;
mod args;
mod crossing;
mod draft;
mod edit;
mod examples;
mod failed;
mod house;
mod invocation;
mod misread;
mod outlook;
mod part;
mod process;
mod remote;
mod renewal;
mod signals;
mod span;
mod supervisor;
mod survey;
mod ui;
mod verb;
mod view;

use args::{Cli, Verb};
use failed::Failed;
use invocation::Invocation;
use migrations::code::Code;
use migrations::problem::Problem;
use misread::Misread;
use std::os::unix::process::CommandExt;
use std::process::ExitCode;
use ui::{Output, Ui};

/// Requests and changes need many small allocations, and the system's allocator is slower for these.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    verb::completions::answer(args::command);
    let cli = match Cli::read() {
        Ok(cli) => cli,
        Err(error) => return misread(&error),
    };
    let ui = Ui::new(cli.global.output, cli.global.quiet, cli.global.verbose);
    match run(&cli, &ui) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            ui.failed(&failed);
            ExitCode::from(failed.exit())
        }
    }
}

/// Prints help or version and exits, or shows what is wrong with the command line.
fn misread(error: &clap::Error) -> ExitCode {
    if error.exit_code() == 0 {
        error.exit();
    }
    let misread = Misread::of(error, std::env::args_os());
    let exit = ExitCode::from(misread.problem.exit());
    if misread.wants_json {
        Ui::new(Output::Json, false, 0).failed(&misread.problem.into());
    } else {
        Ui::new(Output::Human, false, 0).misread(&misread.styled);
    }
    exit
}

fn run(cli: &Cli, ui: &Ui) -> Result<(), Failed> {
    // One choice of cryptography for the whole process. It fails only if it was already made.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let call = Invocation::new(&cli.global, ui);
    if matches!(cli.verb, Verb::Bridge(_)) {
        give_memory_back();
    }
    // The proxy has its own runtimes and must not be started inside another one.
    if let Verb::Proxy(args) = &cli.verb {
        return Ok(verb::part::proxy(&call, args)?);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| {
        Problem::new(
            Code::CommandFailed,
            format!("could not start threads: {error}"),
            "raise the limit that `ulimit -u` shows",
        )
    })?;
    let done = runtime.block_on(cli.verb.run(&call));
    // A name look-up that hangs in a thread must not delay the end of a finished command.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    done
}

/// Restarts this program in the same process, with an allocator that returns memory at once. A bridge's buffers are
/// large and short-lived: keeping them for ten milliseconds doubles its resident memory. The allocator reads this
/// setting from the environment only, before anything else runs.
fn give_memory_back() {
    const DELAY: &str = "MIMALLOC_PURGE_DELAY";
    if std::env::var_os(DELAY).is_some() {
        return;
    }
    if let Ok(myself) = std::env::current_exe() {
        // `exec` returns only if it failed. The bridge then runs with more memory.
        let _ = std::process::Command::new(myself).args(std::env::args_os().skip(1)).env(DELAY, "0").exec();
    }
}
