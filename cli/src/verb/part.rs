//! `strangler controller|proxy|bridge`: one part in the foreground, until SIGINT or SIGTERM.

use crate::invocation::Invocation;
use crate::part::{self, Part};
use clap::ValueEnum;
use link::Link;
use migrations::code::Code;
use migrations::plan::Plan;
use migrations::problem::Problem;
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Format of the log on stderr [default: text on a terminal, JSON elsewhere]
    #[arg(long, value_enum, env = "STRANGLER_LOG_FORMAT")]
    log_format: Option<Format>,
    /// What to log, for example `debug` or `proxy=trace,info`
    #[arg(long, env = "STRANGLER_LOG", default_value = "info", value_name = "FILTER")]
    log: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Text for people
    Text,
    /// One JSON document per line
    Json,
}

pub(crate) async fn controller(call: &Invocation<'_>, args: &Args) -> Result<(), Problem> {
    open_log(args)?;
    let plan = call.plan()?;
    let state_dir = call.house().state_dir(Part::Controller)?;
    part::controller(plan, call.token_or_new()?, state_dir).await
}

/// Must not be called inside a runtime, because the proxy starts its own.
pub(crate) fn proxy(call: &Invocation<'_>, args: &Args) -> Result<(), Problem> {
    open_log(args)?;
    let plan = call.plan()?;
    part::proxy(&plan, link(call, &plan, Part::Proxy)?)
}

pub(crate) async fn bridge(call: &Invocation<'_>, args: &Args) -> Result<(), Problem> {
    open_log(args)?;
    let plan = call.plan()?;
    let link = link(call, &plan, Part::Bridge)?;
    part::bridge(plan, link).await
}

fn link(call: &Invocation<'_>, plan: &Plan, part: Part) -> Result<Link, Problem> {
    let token = call.token()?.ok_or_else(|| {
        Problem::new(
            Code::ApiToken,
            "there is no token for the controller",
            "set STRANGLER_TOKEN to the controller's token, or use the plan next to its .strangler/token",
        )
    })?;
    Ok(Link { controller: call.controller_of(plan), token, state_dir: call.house().state_dir(part)? })
}

fn open_log(args: &Args) -> Result<(), Problem> {
    let filter = EnvFilter::try_new(&args.log).map_err(|error| {
        Problem::new(
            Code::CommandUsage,
            format!("`{}` is not a log filter: {error}", args.log),
            "write a filter such as `info` or `proxy=debug,info`",
        )
    })?;
    let is_terminal = std::io::stderr().is_terminal();
    let format = args.log_format.unwrap_or(if is_terminal { Format::Text } else { Format::Json });
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let opened = match format {
        Format::Text => log.with_ansi(is_terminal && std::env::var_os("NO_COLOR").is_none()).try_init(),
        Format::Json => log.json().flatten_event(true).with_current_span(false).try_init(),
    };
    opened.map_err(|error| {
        Problem::new(
            Code::CommandFailed,
            format!("could not start the log: {error}"),
            "run the command again with `--log info --log-format text`",
        )
    })
}
