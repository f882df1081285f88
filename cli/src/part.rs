//! The three parts: runs each in this process, and calls their crates for `check`, `install`, `uninstall` and
//! `doctor`. Only this file names their crates.

pub(crate) use cdc_bridge::log::{out_of_reach, unknown_options};
pub(crate) use controller::{doctor, locked_out, readers, upstreams, writers};

use crate::signals::Signals;
use link::Link;
use migrations::finding::Finding;
use migrations::plan::{Plan, Secret};
use migrations::problem::Problem;
use migrations::sql::Database;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Controller,
    Bridge,
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
    controller::serve(plan, token, state_dir, asked).await.map_err(Problem::from)
}

pub(crate) async fn bridge(plan: Plan, link: Link) -> Result<(), Problem> {
    let mut signals = Signals::listen()?;
    let asked = async move { signals.received().await };
    cdc_bridge::serve(plan, link, asked).await.map_err(Problem::from)
}

/// Blocks, and starts its own runtimes.
pub(crate) fn proxy(plan: &Plan, link: Link) -> Result<(), Problem> {
    proxy::run(&plan.proxy, link, proxy::Shutdown::by_signal()).map_err(Problem::from)
}

/// Whether the proxy could start with the certificates of the plan.
pub(crate) fn check_certificates(plan: &Plan) -> Result<(), Problem> {
    plan.proxy.tls.as_ref().map_or(Ok(()), proxy::check_certificates).map_err(Problem::from)
}

/// What is wrong or doubtful about them.
pub(crate) fn certificates(plan: &Plan) -> Vec<Finding> {
    plan.proxy.tls.as_ref().map(proxy::certificate_findings).unwrap_or_default()
}

/// `report` gets a line for each step.
pub(crate) async fn install(
    plan: &Plan,
    urls: &AdminUrls,
    report: &mut (dyn FnMut(&str) + Send),
) -> Result<(), Problem> {
    controller::install(plan, &exposed(urls), report).await.map_err(Problem::from)
}

/// Uninstalling the monolith's database also removes the controller's marker that the journal is there. `report` gets a
/// line for each step.
pub(crate) async fn uninstall(
    plan: &Plan,
    urls: &AdminUrls,
    state_dir: &Path,
    report: &mut (dyn FnMut(&str) + Send),
) -> Result<(), Problem> {
    controller::uninstall(plan, &exposed(urls), report).await?;
    if urls.contains_key(&Database::Monolith) {
        controller::forget_elsewhere(state_dir);
    }
    Ok(())
}

pub(crate) type AdminUrls = BTreeMap<Database, Secret>;

fn exposed(urls: &AdminUrls) -> BTreeMap<String, String> {
    urls.iter().map(|(database, url)| (database.as_str().to_owned(), url.expose().to_owned())).collect()
}
