//! `strangler uninstall`: removes everything that `install` created: slots, publication, gates, schema and role.

use crate::invocation::Invocation;
use crate::part::{self, Part};
use crate::ui::harmless::harmless;
use crate::verb::install::{AdminUrl, addressed};
use migrations::code::Code;
use migrations::problem::Problem;
use serde_json::json;
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::Path;

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
    for log in remove_logs(&call.house().dir().join(Part::Bridge.name()))? {
        report(&format!("embedded log {log}"));
    }
    call.ui.tick(left(&steps));
    call.ui.json(&json!({ "uninstalled": steps, "next_steps": ["strangler install"] }));
    call.ui
        .hint(&format!("{} still holds the logs of the parts and the token", call.house().dir().display()));
    Ok(())
}

/// Deletes the files of embedded logs, which hold rows; their names.
fn remove_logs(folder: &Path) -> Result<Vec<String>, Problem> {
    let failed = |path: &Path, error: std::io::Error| {
        let message = format!("the embedded log {} cannot be deleted: {error}", path.display());
        Problem::new(Code::CommandFailed, message, "delete the file: it holds rows of the tables")
    };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(folder, error)),
    };
    let mut removed = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| failed(folder, error))?.path();
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        if name.starts_with("log") && name.ends_with(".redb") {
            std::fs::remove_file(&path).map_err(|error| failed(&path, error))?;
            removed.push(path.display().to_string());
        }
    }
    Ok(removed)
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
    fn no_embedded_log_is_left() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(remove_logs(&folder.path().join("none")).unwrap(), [""; 0]);
        for name in ["log.redb", "log-orders.redb", "desired.json", "bridge.log"] {
            std::fs::write(folder.path().join(name), "rows").unwrap();
        }
        assert_eq!(remove_logs(folder.path()).unwrap().len(), 2);
        let left = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut left: Vec<_> = left.collect();
        left.sort();
        assert_eq!(left, ["bridge.log", "desired.json"]);
    }

    #[test]
    fn a_warning_is_something_that_is_left() {
        let role = "the monolith's database: role strangler".to_owned();
        assert!(left(std::slice::from_ref(&role)).starts_with("nothing"));
        let warning =
            "the monolith's database: warning: role strangler stays: it owns tables here".to_owned();
        assert!(left(&[role, warning]).contains("except for what the warnings name"));
    }
}
