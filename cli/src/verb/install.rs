//! `strangler install`: creates schema, role, gates, rights and publication in every database of the plan.

use crate::invocation::Invocation;
use crate::part::{self, AdminUrls};
use crate::ui::harmless::harmless;
use migrations::code::Code;
use migrations::finding::Finding;
use migrations::plan::{Plan, Secret};
use migrations::problem::Problem;
use migrations::sql::{self, Database};
use serde_json::json;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::str::FromStr;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A database URL with a role that may create roles and owns the tables
    ///
    /// NAME is `monolith` or a service's name. Without NAME, the URL is for the plan's database with the same host,
    /// port and database name.
    #[arg(long = "admin-url", value_name = "[NAME=]URL", required_unless_present = "print")]
    admin_urls: Vec<AdminUrl>,
    /// Print the SQL for a DBA instead of running it
    #[arg(long, conflicts_with = "admin_urls")]
    print: bool,
}

/// One `[NAME=]URL`. Parsing accepts any text, because clap repeats what it rejects, and this may hold a password.
/// [`addressed`] checks it.
#[derive(Debug, Clone)]
pub(crate) struct AdminUrl {
    name: Option<String>,
    url: Secret,
}

impl FromStr for AdminUrl {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        // A name may be printed, so part of a URL must not pass for one.
        let named = text.split_once('=').filter(|(name, _)| !name.contains([':', '/', '@']));
        let (name, url) = named.map_or((None, text), |(name, url)| (Some(name.to_owned()), url));
        Ok(Self { name, url: Secret::new(url.to_owned()) })
    }
}

impl AdminUrl {
    fn is_url(&self) -> bool {
        ["postgres://", "postgresql://"].iter().any(|scheme| self.url.expose().starts_with(scheme))
    }
}

pub(crate) async fn run(call: &Invocation<'_>, args: &Args) -> Result<(), Problem> {
    let plan = call.plan()?;
    if args.print {
        return print(call, &plan);
    }
    let urls = addressed(&plan, &args.admin_urls)?;
    let mut steps = Vec::new();
    let mut report = |step: &str| {
        call.ui.line(format!("  {}", harmless(step)));
        steps.push(step.to_owned());
    };
    part::install(&plan, &urls, &mut report).await?;
    let locked_out = part::locked_out(&plan).await;
    if !locked_out.is_empty() {
        return Err(shut_out(call, locked_out));
    }
    let next = next(&plan);
    call.ui.tick("installed; run `strangler install` again whenever the plan's tables change");
    call.ui.json(&json!({ "installed": steps, "next_steps": next }));
    call.ui.next_steps(&next);
    Ok(())
}

/// A role that existed before keeps its password, and `pg_hba.conf` may not know the role.
fn shut_out(call: &Invocation<'_>, findings: Vec<Finding>) -> Problem {
    let problem = Problem::new(
        Code::InstallLockedOut,
        "everything is installed, but strangler's own role cannot enter by the plan's URL",
        "set what is wrong, then run `strangler install` again",
    );
    if call.ui.is_json() {
        return problem.with(findings);
    }
    findings.iter().for_each(|finding| call.ui.finding(finding));
    problem
}

fn print(call: &Invocation<'_>, plan: &Plan) -> Result<(), Problem> {
    let databases = databases(plan)?;
    let mut scripts = BTreeMap::new();
    for database in &databases {
        let script = sql::install(plan, database).and_then(|steps| sql::printed(plan, database, &steps));
        scripts.insert(database.as_str().to_owned(), script?);
    }
    call.ui.json(&json!({ "sql": scripts, "next_steps": next(plan) }));
    for script in scripts.values() {
        call.ui.line(script.trim_end());
    }
    call.ui.next_steps(&next(plan));
    Ok(())
}

fn next(plan: &Plan) -> Vec<String> {
    let slice = plan.slices.values().find(|slice| !slice.is_stateless());
    vec![
        slice.map_or_else(
            || "strangler doctor".to_owned(),
            |slice| format!("strangler doctor {}", slice.name),
        ),
    ]
}

/// The plan's databases; an error if there is none.
pub(crate) fn databases(plan: &Plan) -> Result<Vec<Database>, Problem> {
    let databases = Database::all(plan);
    if databases.is_empty() {
        return Err(Problem::new(
            Code::CommandUsage,
            "the plan names no database, so there is nothing to install or remove",
            "a plan for routing only is ready to start: `strangler up --detach`",
        ));
    }
    Ok(databases)
}

/// Assigns the URLs to databases. Each database of the plan needs one.
pub(crate) fn addressed(plan: &Plan, urls: &[AdminUrl]) -> Result<AdminUrls, Problem> {
    let databases = databases(plan)?;
    let names: Vec<&str> = databases.iter().map(Database::as_str).collect();
    let mut addressed = BTreeMap::new();
    for admin in urls {
        if !admin.is_url() {
            return Err(Problem::new(
                Code::CommandUsage,
                "an --admin-url is not a database URL",
                "write [NAME=]postgres://user:password@host:5432/database",
            ));
        }
        let found = match &admin.name {
            Some(name) => databases.iter().find(|database| database.as_str() == name),
            None => databases.iter().find(|database| {
                let known = database.url(plan).map(|url| place(url.expose()));
                known.flatten().is_some_and(|known| Some(known) == place(admin.url.expose()))
            }),
        };
        let Some(database) = found else {
            let whom = admin.name.as_ref().map_or_else(
                || "an --admin-url matches no database of the plan".to_owned(),
                |name| format!("`{name}` is not a database of the plan"),
            );
            return Err(Problem::new(
                Code::CommandUsage,
                whom,
                format!("write --admin-url NAME=URL, where NAME is one of: {}", names.join(", ")),
            ));
        };
        if addressed.insert(database.clone(), admin.url.clone()).is_some() {
            return Err(Problem::new(
                Code::CommandUsage,
                format!("{database} has two --admin-url options"),
                "remove one of them",
            ));
        }
    }
    if let Some(missing) = databases.iter().find(|database| !addressed.contains_key(*database)) {
        return Err(Problem::new(
            Code::CommandUsage,
            format!("{missing} has no --admin-url"),
            format!(
                "add --admin-url {}=postgres://…, or give a DBA the SQL that `strangler install --print` prints",
                missing.as_str()
            ),
        ));
    }
    Ok(addressed)
}

/// Host, port and database of a URL. They are equal for two roles of the same database.
fn place(url: &str) -> Option<(String, String)> {
    let bare = url.split_once("://")?.1.split(['?', '#']).next()?;
    let place = bare.rsplit_once('@').map_or(bare, |(_, place)| place);
    let (host, database) = place.split_once('/')?;
    let host = if host.contains(':') { host.to_owned() } else { format!("{host}:5432") };
    Some((host, database.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: &str = "
version: 1
name: shop
monolith: { upstream: http://127.0.0.1:4000, database: postgres://s:p@db/shop }
services:
  orders: { upstream: http://127.0.0.1:4001, database: postgres://s:p@db:5433/orders }
slices:
  orders:
    service: orders
    routes: { list: GET /orders }
    tables: [public.orders]
";

    fn told(urls: &[&str]) -> Result<Vec<String>, String> {
        let plan = migrations::plan::check("p", PLAN, &|_| None).unwrap().0;
        let urls: Vec<AdminUrl> = urls.iter().map(|url| url.parse().unwrap()).collect();
        let told = addressed(&plan, &urls).map_err(|problem| problem.message)?;
        Ok(told.iter().map(|(database, url)| format!("{}={}", database.as_str(), url.expose())).collect())
    }

    #[test]
    fn each_database_gets_its_url_by_name_or_by_place() {
        let named = ["orders=postgres://root@x/y", "monolith=postgres://root@db/shop"];
        assert_eq!(told(&named).unwrap(), ["monolith=postgres://root@db/shop", "orders=postgres://root@x/y"]);
        let placed = ["postgres://root@db:5433/orders", "postgres://root:a=b@db:5432/shop"];
        assert_eq!(told(&placed).unwrap().len(), 2);
    }

    #[test]
    fn a_missing_doubled_or_wrong_url_is_refused() {
        assert!(
            told(&["monolith=postgres://root@db/shop"]).unwrap_err().contains("service orders's database")
        );
        assert!(told(&["billing=postgres://root@db/shop"]).unwrap_err().contains("`billing`"));
        assert!(told(&["postgres://root@elsewhere/shop"]).unwrap_err().contains("no database of the plan"));
        let twice = ["monolith=postgres://a@db/shop", "monolith=postgres://b@db/shop"];
        assert!(told(&twice).unwrap_err().contains("two --admin-url"));
        for typo in ["secret", "monolith=postgre://root:secret@db/shop", "postgre://root:secret@db/shop?a=b"]
        {
            assert_eq!(told(&[typo]).unwrap_err(), "an --admin-url is not a database URL");
        }
    }
}
