//! The verbs, one a file: what each takes from the command line, and what it does.

pub mod check;
pub mod completions;
pub mod doctor;
pub mod down;
pub mod init;
pub mod install;
pub mod journal;
pub mod part;
pub mod route;
pub mod status;
pub mod sync;
pub mod tail;
pub mod uninstall;
pub mod up;

use crate::args::Verb;
use crate::invocation::Invocation;
use crate::problem::Problem;

/// Does one verb.
pub async fn run(call: &Invocation<'_>, verb: &Verb) -> Result<(), Problem> {
    match verb {
        Verb::Init(args) => init::run(call, args).await,
        Verb::Check => check::run(call),
        Verb::Install(args) => install::run(call, args).await,
        Verb::Uninstall(args) => uninstall::run(call, args).await,
        Verb::Doctor(args) => doctor::run(call, args).await,
        Verb::Up(args) => up::run(call, args).await,
        Verb::Down => down::run(call).await,
        Verb::Controller(args) => part::controller(call, args).await,
        Verb::Proxy(args) => part::proxy(call, args),
        Verb::Bridge(args) => part::bridge(call, args).await,
        Verb::Status(args) => status::run(call, args).await,
        Verb::Sync(verb) => sync::run(call, verb).await,
        Verb::Route(verb) => route::run(call, verb).await,
        Verb::Tail(args) => tail::run(call, args).await,
        Verb::Journal(args) => journal::run(call, args).await,
        Verb::Completions(args) => completions::run(call, args),
    }
}
