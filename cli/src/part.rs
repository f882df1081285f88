//! The three parts: runs each in this process, and calls the controller's crate for `install`, `uninstall` and
//! `doctor`. Only this file names their crates.

use crate::problem::{Kind, Problem};
use crate::signals::Signals;
use link::Link;
use migrations::finding::Finding;
use migrations::names::SliceName;
use migrations::plan::{Plan, Secret};
use migrations::sql::Database;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Journal and API.
    Controller,
    /// Data plane for rows.
    Bridge,
    /// Data plane for requests.
    Proxy,
}

impl Part {
    /// In the order in which they start. The proxy is stopped last.
    pub(crate) const ALL: [Part; 3] = [Part::Controller, Part::Bridge, Part::Proxy];

    /// Its verb, and the name of its record, log and folder.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Part::Controller => "controller",
            Part::Bridge => "bridge",
            Part::Proxy => "proxy",
        }
    }

    /// The parts that a plan needs. Without a database there are no rows to move, so no bridge.
    pub(crate) fn of(plan: &Plan) -> Vec<Part> {
        let has_rows = plan.monolith.database.is_some();
        Part::ALL.into_iter().filter(|part| *part != Part::Bridge || has_rows).collect()
    }
}

pub(crate) async fn controller(plan: Plan, token: Secret, state_dir: PathBuf) -> Result<(), Problem> {
    let mut signals = Signals::listen()?;
    let asked = async move { signals.received().await };
    controller::serve(plan, token, state_dir, asked).await.map_err(|error| failed(&error))
}

pub(crate) async fn bridge(plan: Plan, link: Link) -> Result<(), Problem> {
    let mut signals = Signals::listen()?;
    let asked = async move { signals.received().await };
    cdc_bridge::serve(plan, link, asked).await.map_err(|error| failed(&error))
}

/// Blocks, and starts its own runtimes.
pub(crate) fn proxy(plan: &Plan, link: Link) -> Result<(), Problem> {
    proxy::run(&plan.proxy, link, proxy::Shutdown::by_signal()).map_err(|error| failed(&error))
}

pub(crate) async fn doctor(plan: &Plan, slice: Option<&SliceName>) -> Vec<Finding> {
    controller::doctor(plan, slice).await
}

/// `report` gets a line for each step.
pub(crate) async fn install(
    plan: &Plan,
    urls: &AdminUrls,
    report: &mut (dyn FnMut(&str) + Send),
) -> Result<(), Problem> {
    controller::install(plan, &exposed(urls), report).await.map_err(|error| failed(&error))
}

/// Uninstalling the monolith's database also removes the controller's marker that the journal is there. `report` gets a
/// line for each step.
pub(crate) async fn uninstall(
    plan: &Plan,
    urls: &AdminUrls,
    state_dir: &Path,
    report: &mut (dyn FnMut(&str) + Send),
) -> Result<(), Problem> {
    let gone = controller::uninstall(plan, &exposed(urls), report).await;
    gone.map_err(|error| not_taken_away(&error))?;
    if urls.contains_key(&Database::Monolith) {
        controller::forget_elsewhere(state_dir);
    }
    Ok(())
}

/// If copies must be dropped first, the hints are one command per slice, and strangler must be up for them.
fn not_taken_away(error: &controller::InstallError) -> Problem {
    let problem = failed(error);
    let controller::InstallError::Followed { slices, unplanned, .. } = error else { return problem };
    let mut problem = Problem { kind: Kind::Conflict, hints: Vec::new(), ..problem };
    if !unplanned.is_empty() {
        problem = problem.hint(format!("put {} back into the plan, with its tables", unplanned.join(", ")));
    }
    let problem = problem.hint("start strangler again: `strangler up --detach`");
    let drop = |problem: Problem, slice: &String| problem.hint(format!("then `strangler sync drop {slice}`"));
    slices.iter().fold(problem, drop).hint("then `strangler down` and `strangler uninstall`")
}

pub(crate) type AdminUrls = BTreeMap<Database, Secret>;

fn exposed(urls: &AdminUrls) -> BTreeMap<String, String> {
    urls.iter().map(|(database, url)| (database.as_str().to_owned(), url.expose().to_owned())).collect()
}

/// A crate's error as a problem. Their messages end with what to do, after a semicolon; what the system said stands in
/// the source.
fn failed(error: &(dyn std::error::Error + 'static)) -> Problem {
    let text = error.to_string();
    let (what, to_do) =
        text.split_once("; ").map_or((text.as_str(), None), |(what, to_do)| (what, Some(to_do)));
    let root = std::iter::successors(error.source(), |error| error.source()).last().map(ToString::to_string);
    let message = match root {
        Some(root) if !what.contains(&root) => format!("{what}: {root}"),
        _ => what.to_owned(),
    };
    let mut problem = Problem::error(message).because(error);
    problem.hints.extend(to_do.map(str::to_owned));
    problem
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the proxy cannot listen at 0.0.0.0:80; change `proxy.listen`")]
    struct Refused(#[source] std::io::Error);

    #[test]
    fn a_slice_whose_topics_would_stay_is_to_be_dropped_first() {
        let slices = vec!["carts".to_owned(), "orders".to_owned()];
        let followed = |unplanned| {
            let (slices, topics) = (slices.clone(), "shop.*".to_owned());
            not_taken_away(&controller::InstallError::Followed { slices, unplanned, topics })
        };
        let problem = followed(Vec::new());
        assert_eq!(problem.exit(), 4);
        assert!(problem.message.contains("carts, orders") && problem.message.contains("shop.*"), "{problem}");
        let drops = ["then `strangler sync drop carts`", "then `strangler sync drop orders`"];
        assert_eq!(problem.hints[1..3], drops);
        assert!(problem.hints[0].contains("strangler up"), "{problem}");
        let problem = followed(vec!["carts".to_owned()]);
        assert_eq!(problem.hints[0], "put carts back into the plan, with its tables");
        assert_eq!(problem.hints[2..4], drops);
    }

    #[test]
    fn a_crates_error_becomes_a_problem_with_a_hint() {
        let problem = failed(&Refused(std::io::Error::other("permission denied")));
        assert_eq!(problem.message, "the proxy cannot listen at 0.0.0.0:80: permission denied");
        assert_eq!(problem.hints, ["change `proxy.listen`"]);
    }
}
