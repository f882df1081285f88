//! `strangler uninstall`: removes everything that `install` created: slots, publication, gates, schema and role.

use crate::invocation::Invocation;
use crate::part::{self, Part};
use crate::ui::harmless::harmless;
use crate::verb::install::{AdminUrl, addressed};
use migrations::code::Code;
use migrations::problem::Problem;
use serde_json::json;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A database URL with a role that may drop what `install` created; NAME as for `install`
    #[arg(long = "admin-url", value_name = "[NAME=]URL", required = true)]
    admin_urls: Vec<AdminUrl>,
    /// Do not ask for confirmation
    #[arg(short, long)]
    yes: bool,
}

pub(crate) async fn run(call: &Invocation<'_>, args: &Args) -> Result<(), Problem> {
    let plan = call.plan()?;
    let urls = addressed(&plan, &args.admin_urls)?;
    if let Some(watch) = call.house().up() {
        return Err(Problem::new(
            Code::UpRunning,
            format!("strangler is running here (pid {})", watch.process.pid),
            "stop it first with `strangler down`",
        ));
    }
    let names: Vec<String> = urls.keys().map(ToString::to_string).collect();
    let question = format!("Remove strangler from {}? The journal is removed too.", names.join(" and "));
    if !args.yes && !call.ui.confirm(&question) {
        return Err(Problem::new(Code::CommandUsage, "nothing was removed", "answer `y`, or add --yes"));
    }
    let mut steps = Vec::new();
    let mut report = |step: &str| {
        call.ui.line(format!("  {}", harmless(step)));
        steps.push(step.to_owned());
    };
    let controller = call.house().dir().join(Part::Controller.name());
    part::uninstall(&plan, &urls, &controller, &mut report).await?;
    call.ui.tick(left(&steps));
    call.ui.json(&json!({ "uninstalled": steps, "next_steps": ["strangler install"] }));
    call.ui.hint(&format!("{} still holds the logs and the token", call.house().dir().display()));
    Ok(())
}

/// The steps include the servers' warnings, each about something that could not be removed.
fn left(steps: &[String]) -> &'static str {
    if steps.iter().any(|step| step.contains(": warning: ")) {
        "strangler is removed, except for what the warnings name; a role is removed with the last database that uses it"
    } else {
        "nothing of strangler is left in these databases"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_something_that_is_left() {
        let role = "the monolith's database: role strangler".to_owned();
        assert!(left(std::slice::from_ref(&role)).starts_with("nothing"));
        let warning =
            "the monolith's database: warning: role strangler stays: it owns tables here".to_owned();
        assert!(left(&[role, warning]).contains("except for what the warnings name"));
    }
}
