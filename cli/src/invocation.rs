//! One call of the binary: its global options, and the plan, state folder and controller that they name.

use crate::house::House;
use crate::remote::Remote;
use crate::ui::{Output, Ui};
use clap::ArgAction;
use migrations::code::Code;
use migrations::finding::Finding;
use migrations::plan::{Plan, Secret};
use migrations::problem::{Diagnostic, Problem};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The most that is read of a plan. A plan longer than half of this is refused as too large.
const READ_MAX: u64 = 2 << 20;

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// The plan; the state folder `.strangler/` is next to it
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        default_value = "strangler.yaml",
        env = "STRANGLER_PLAN"
    )]
    pub(crate) plan: PathBuf,
    /// The text of the plan that was accepted; findings still name --plan
    #[arg(long, global = true, hide = true, value_name = "FILE")]
    pub(crate) plan_copy: Option<PathBuf>,
    /// How to print results
    #[arg(long, global = true, value_enum, default_value_t = Output::Human)]
    pub(crate) output: Output,
    /// The controller's API [default: from the plan]; the token comes from STRANGLER_TOKEN or .strangler/token
    #[arg(long, global = true, value_name = "URL", env = "STRANGLER_CONTROLLER")]
    pub(crate) controller: Option<String>,
    /// Hide hints and progress
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Also show the causes of an error
    #[arg(short, long, global = true, action = ArgAction::Count, conflicts_with = "quiet")]
    pub(crate) verbose: u8,
}

/// What a plan was made of. Not `Debug`: what the variables hold may be secret.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Source {
    pub(crate) text: String,
    /// Each variable that the plan names.
    pub(crate) variables: BTreeMap<String, Option<String>>,
}

#[derive(Debug)]
pub(crate) struct Invocation<'a> {
    global: &'a Global,
    pub(crate) ui: &'a Ui,
}

impl<'a> Invocation<'a> {
    pub(crate) fn new(global: &'a Global, ui: &'a Ui) -> Self {
        Self { global, ui }
    }

    pub(crate) fn plan_file(&self) -> &Path {
        &self.global.plan
    }

    /// The plan's absolute path, for processes with another working directory.
    pub(crate) fn plan_file_absolute(&self) -> PathBuf {
        std::path::absolute(&self.global.plan).unwrap_or_else(|_| self.global.plan.clone())
    }

    pub(crate) fn house(&self) -> House {
        House::beside(&self.plan_file_absolute())
    }

    pub(crate) fn checked(&self) -> Result<(Plan, Vec<Finding>), Problem> {
        self.check(&self.plan_text()?, environment)
    }

    /// The checked plan, its warnings, and what it was made of.
    pub(crate) fn read(&self) -> Result<(Plan, Vec<Finding>, Source), Problem> {
        let text = self.plan_text()?;
        let variables = RefCell::default();
        let note = |name: &str| {
            let value = environment(name);
            let variables: &RefCell<BTreeMap<_, _>> = &variables;
            variables.borrow_mut().insert(name.to_owned(), value.clone());
            value
        };
        let (plan, findings) = checked_with(&self.plan_file().display().to_string(), &text, &note)?;
        Ok((plan, findings, Source { text, variables: variables.into_inner() }))
    }

    pub(crate) fn plan_text(&self) -> Result<String, Problem> {
        let read = self.global.plan_copy.as_deref().unwrap_or(self.plan_file());
        let mut text = String::new();
        let read = File::open(read).and_then(|file| file.take(READ_MAX).read_to_string(&mut text));
        read.map_err(|error| {
            let remedy = match error.kind() {
                std::io::ErrorKind::NotFound => {
                    "write a plan with `strangler init`, or name one with `--plan FILE`"
                }
                _ => "name a readable file with `--plan FILE`",
            };
            let file = self.plan_file().display();
            Problem::new(Code::PlanUnreadable, format!("could not read the plan {file}: {error}"), remedy)
        })?;
        Ok(text)
    }

    /// Checks a text in the place of the plan.
    pub(crate) fn check(
        &self,
        text: &str,
        environment: fn(&str) -> Option<String>,
    ) -> Result<(Plan, Vec<Finding>), Problem> {
        checked_with(&self.plan_file().display().to_string(), text, &environment)
    }

    pub(crate) fn plan(&self) -> Result<Plan, Problem> {
        self.checked().map(|(plan, _)| plan)
    }

    /// The controller given as an option, else the one that `up` started here, else the plan's.
    pub(crate) fn remote(&self) -> Result<Remote, Problem> {
        let house = self.house();
        let base = match (&self.global.controller, house.up()) {
            (Some(named), _) => named.clone(),
            (None, Some(up)) => up.controller,
            (None, None) => local(&self.plan()?.controller.listen),
        };
        Remote::new(&base, self.token()?)
    }

    /// The controller that a part on this machine follows.
    pub(crate) fn controller_of(&self, plan: &Plan) -> String {
        self.global.controller.clone().unwrap_or_else(|| local(&plan.controller.listen))
    }

    /// The token of the environment, else of the state folder.
    pub(crate) fn token(&self) -> Result<Option<Secret>, Problem> {
        match token_of_environment() {
            Some(token) => Ok(Some(token)),
            None => self.house().token(),
        }
    }

    /// The same, but creates the state folder's token if there is none.
    pub(crate) fn token_or_new(&self) -> Result<Secret, Problem> {
        match token_of_environment() {
            Some(token) => Ok(token),
            None => self.house().token_or_new(),
        }
    }

    /// The user, as the journal names them: `user@host`.
    pub(crate) fn actor(&self) -> String {
        let named = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let user = named("USER").or_else(|| named("LOGNAME"));
        let user =
            user.unwrap_or_else(|| match std::fs::metadata("/proc/self").map(|process| process.uid()) {
                Ok(0) => "root".to_owned(),
                Ok(uid) => format!("uid-{uid}"),
                Err(_) => "unknown".to_owned(),
            });
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").ok().or_else(|| named("HOSTNAME"));
        format!("{user}@{}", host.as_deref().map_or("localhost", str::trim))
    }
}

/// The plan of this folder or of the environment, if there is one; its variables need no values.
pub(crate) fn plan_that_is_here() -> Option<Plan> {
    let file = std::env::var_os("STRANGLER_PLAN").map_or_else(|| "strangler.yaml".into(), PathBuf::from);
    let mut text = String::new();
    File::open(&file).ok()?.take(READ_MAX).read_to_string(&mut text).ok()?;
    migrations::plan::check("strangler.yaml", &text, &environment_or_any).ok().map(|(plan, _)| plan)
}

/// As [`environment`], with a value that fits for a variable that is not set.
pub(crate) fn environment_or_any(name: &str) -> Option<String> {
    environment(name).or_else(|| {
        Some(match name {
            name if name.contains("DATABASE") => format!("postgres://{name}@localhost/{name}"),
            name if name.contains("LISTEN") => "127.0.0.1:8080".to_owned(),
            name => format!("http://{}.invalid", name.to_lowercase().replace('_', "-")),
        })
    })
}

/// Checks a plan again, with the variables that it was checked with.
pub(crate) fn checked(file: &str, source: &Source) -> Result<(Plan, Vec<Finding>), Problem> {
    let known = |name: &str| source.variables.get(name).cloned().unwrap_or_else(|| environment(name));
    checked_with(file, &source.text, &known)
}

fn checked_with(
    file: &str,
    text: &str,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<(Plan, Vec<Finding>), Problem> {
    let checked = migrations::plan::check(file, text, environment);
    let checked = checked.and_then(|(plan, mut findings)| {
        let unknown = crate::part::unknown_options(&plan.log);
        let is_sound = unknown.is_empty();
        findings.extend(unknown);
        if is_sound { Ok((plan, findings)) } else { Err(findings) }
    });
    checked.map_err(|findings| {
        let count = findings.iter().filter(|finding| finding.is_error()).count();
        let errors = if count == 1 { "error" } else { "errors" };
        Problem::new(
            Code::PlanUnsound,
            format!("the plan {file} has {count} {errors}"),
            "fix the plan, then run `strangler check`",
        )
        .with(findings)
    })
}

/// A variable that the plan names; a value that is not Unicode counts as unset.
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn token_of_environment() -> Option<Secret> {
    std::env::var("STRANGLER_TOKEN").ok().filter(|token| !token.is_empty()).map(Secret::new)
}

/// The URL, on this machine, of a part that listens at `listen`. A wildcard address becomes loopback.
pub(crate) fn local(listen: &str) -> String {
    let (host, port) = listen.rsplit_once(':').unwrap_or(("127.0.0.1", listen));
    let host = match host {
        "0.0.0.0" | "" | "*" => "127.0.0.1",
        "[::]" => "[::1]",
        named => named,
    };
    format!("http://{host}:{port}")
}

/// Reads an argument; clap shows what to write instead.
pub(crate) fn typed<T: FromStr<Err: Diagnostic>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| format!("{error}: {}", error.remedy()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_is_reached_by_loopback() {
        assert_eq!(local("0.0.0.0:7401"), "http://127.0.0.1:7401");
        assert_eq!(local("[::]:7401"), "http://[::1]:7401");
        assert_eq!(local("10.0.0.1:80"), "http://10.0.0.1:80");
    }
}
