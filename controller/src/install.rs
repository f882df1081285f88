//! Runs the scripts of `migrations::sql` in every database of a plan, each in one transaction, by an administrator's
//! connection. `strangler install --print` shows the same text instead.

use migrations::code::Code;
use migrations::finding::Finding;
use migrations::journal::{Entry, Generation, JournalId, State};
use migrations::plan::{LogChoice, Plan};
use migrations::problem::{Diagnostic, Problem};
use migrations::sql::{self, Database, NoScript, Script};
use postgres::{ConnectError, Session, connect, connect_as_other, in_words};
use std::collections::BTreeMap;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use uuid::Uuid;

/// A busy table keeps a script waiting at most so long for its lock, so that the application behind it is not held up.
const LIMITS: &str = "SET lock_timeout = '10s'; SET statement_timeout = '60s'; BEGIN";

/// Whether there is a journal whose head can be asked.
const HAS_JOURNAL: &str = "SELECT to_regclass('strangler.slice') IS NOT NULL";
/// Each slice with its stage.
const HEADS: &str = "SELECT slice, coalesce(stage->>'stage', '') FROM strangler.slice ORDER BY slice";
/// Every entry of the journal, as far as it decides where requests go.
const ENTRIES: &str = "SELECT generation, slice, event FROM strangler.journal ORDER BY generation";

/// Why a database could not be prepared or left. What was begun in that one was undone. Those before it stay done, if it went
/// through the trial of an `install`.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    #[error("no administrator's URL is given for {database}")]
    NoAdmin {
        database: Database,
        /// Its word in `--admin-url`.
        part: String,
    },
    #[error("the plan has no database `{given}`")]
    UnknownPart { given: String, known: String },
    #[error(transparent)]
    NoScript(#[from] NoScript),
    #[error("{database} cannot be reached")]
    Connect {
        database: Database,
        #[source]
        source: ConnectError,
    },
    /// Slices are followed, or requests go to a service. Nothing was done.
    #[error("{}", in_use(.slices, .shared, .topic.as_deref()))]
    Followed {
        /// Those that are followed.
        slices: Vec<String>,
        /// Those with requests at a service.
        shared: Vec<String>,
        /// Those that are followed and that the plan no longer has with tables; a bridge knows them from the plan.
        unplanned: Vec<String>,
        /// The log's topic, if it is in Kafka. Only a bridge takes it away.
        topic: Option<String>,
    },
    /// The slice has left the monolith or is on its way. Nothing was done.
    #[error(
        "slice {slice} is {stage}: without its gate the monolith could write tables that it does not own"
    )]
    Left { slice: String, stage: String },
    /// The server refused a step. Nothing of the script stays in that database, but that `uninstall`'s last step may
    /// have dropped a slot before it failed at another.
    #[error("{database} refused `{step}`: {why}")]
    Refused { database: Database, step: String, why: String, remedy: String },
}

impl Diagnostic for InstallError {
    fn code(&self) -> Code {
        match self {
            InstallError::NoAdmin { .. } | InstallError::UnknownPart { .. } => Code::InstallNoUrl,
            InstallError::NoScript(error) => error.code(),
            InstallError::Connect { .. } => Code::DatabaseUnreachable,
            InstallError::Followed { .. } => Code::InstallFollowed,
            InstallError::Left { .. } => Code::SliceStage,
            InstallError::Refused { .. } => Code::InstallRefused,
        }
    }

    fn remedy(&self) -> String {
        match self {
            InstallError::NoAdmin { part, .. } => format!("give it with `--admin-url {part}=postgres://…`"),
            InstallError::UnknownPart { known, .. } => format!("it has: {known}"),
            InstallError::NoScript(error) => error.remedy(),
            InstallError::Connect { source, .. } => source.remedy(),
            InstallError::Followed { slices, shared, unplanned, .. } => drop_first(slices, shared, unplanned),
            InstallError::Left { slice, stage } => end_first(slice, stage),
            InstallError::Refused { remedy, .. } => remedy.clone(),
        }
    }
}

fn in_use(slices: &[String], shared: &[String], topic: Option<&str>) -> String {
    let topic = topic.map(|topic| format!(", and Kafka's topic {topic} would stay")).unwrap_or_default();
    match slices {
        [] => format!("requests of {} go to the service", shared.join(", ")),
        slices => format!("the copy of {} is not given up{topic}", slices.join(", ")),
    }
}

/// Requests come back and a copy is dropped by a command for each slice, and for that strangler must be up.
fn drop_first(slices: &[String], shared: &[String], unplanned: &[String]) -> String {
    let mut steps = Vec::new();
    if !unplanned.is_empty() {
        steps.push(format!("put {} back into the plan, with its tables", unplanned.join(", ")));
    }
    steps.push("start strangler again: `strangler up --detach`".to_owned());
    steps.extend(shared.iter().map(|slice| format!("then `strangler route set {slice} monolith`")));
    steps.extend(slices.iter().map(|slice| format!("then `strangler sync drop {slice}`")));
    steps.push("then `strangler down` and `strangler uninstall`".to_owned());
    steps.join("\n")
}

/// For each of these, strangler must be up.
fn end_first(slice: &str, stage: &str) -> String {
    let end = match stage {
        "split" => format!(
            "give the slice back: `strangler rollback {slice}`; or make its move final: `strangler complete {slice}`"
        ),
        _ => format!("wait until `strangler status` shows that it has ended, or `strangler abort {slice}`"),
    };
    let up = "start strangler again: `strangler up --detach`";
    [up, &end, "then `strangler down` and `strangler uninstall`"].join("\n")
}

/// Makes everything that the plan needs in its databases: role, schema, gates' functions, rights, publication. It may
/// be run again at any time. All of it is tried in every database and rolled back, before anything stays in one: two databases
/// of one server cannot be changed at once, because both make the same role. `admin_urls` by `monolith` or the service's name; `report` gets a line for each step and
/// each warning of a server.
pub async fn install(
    plan: &Plan,
    admin_urls: &BTreeMap<String, String>,
    report: &mut (dyn FnMut(&str) + Send),
) -> Result<(), InstallError> {
    for database in &known(plan, admin_urls)? {
        run(database, admin_urls, &sql::install(plan, database)?, "ROLLBACK", &mut |_| {}).await?;
    }
    run_all(plan, admin_urls, sql::install, report).await
}

/// Whether strangler's own role can enter each database by the plan's URL: a role that existed keeps its password.
pub async fn locked_out(plan: &Plan) -> Vec<Finding> {
    let mut found = Vec::new();
    for database in Database::all(plan) {
        let Some(url) = database.url(plan) else { continue };
        if let Err(error) = connect(url, "strangler install").await {
            let problem = Problem::from(error);
            let message = format!("strangler's role cannot enter {database}: {}", problem.message);
            found.push(Finding::error(problem.code, message, problem.remedy));
        }
    }
    found
}

/// Takes everything away again: slots, publication, gates, schema, rights, role. The monolith goes first, because it
/// says whether a service still owns a slice. No slice may be followed any more, and no request may go to a service.
pub async fn uninstall(
    plan: &Plan,
    admin_urls: &BTreeMap<String, String>,
    report: &mut (dyn FnMut(&str) + Send),
) -> Result<(), InstallError> {
    let databases = known(plan, admin_urls)?;
    if databases.contains(&Database::Monolith) {
        let (heads, shared) = stands(admin_urls).await?;
        may_leave(plan, &heads, shared)?;
    }
    run_all(plan, admin_urls, sql::uninstall, report).await
}

/// A slice and the name of its stage.
type Head = (String, String);

/// Whether no slice needs what would be taken away. The monolith's script asks the same about gates once more.
fn may_leave(plan: &Plan, heads: &[Head], shared: Vec<String>) -> Result<(), InstallError> {
    let is_left = |(_, stage): &&Head| matches!(&stage[..], "cutting" | "split" | "returning");
    if let Some((slice, stage)) = heads.iter().find(is_left) {
        return Err(InstallError::Left { slice: slice.clone(), stage: stage.clone() });
    }
    let topic = match &plan.log {
        LogChoice::Kafka { topic_prefix, .. } => Some(format!("strangler.{topic_prefix}.log")),
        _ => None,
    };
    let is_followed = |(_, stage): &&Head| matches!(&stage[..], "copying" | "following");
    let slices: Vec<String> = heads.iter().filter(is_followed).map(|(slice, _)| slice.clone()).collect();
    if slices.is_empty() && shared.is_empty() {
        return Ok(());
    }
    let is_planned = |name: &&String| {
        plan.slices.values().any(|slice| slice.name.as_str() == *name && !slice.is_stateless())
    };
    let unplanned = slices.iter().filter(|slice| !is_planned(slice)).cloned().collect();
    Err(InstallError::Followed { slices, shared, unplanned, topic })
}

/// The journal's heads, and the slices of which requests go to a service; none where the journal is gone already.
async fn stands(admin_urls: &BTreeMap<String, String>) -> Result<(Vec<Head>, Vec<String>), InstallError> {
    let (database, title) = (Database::Monolith, "look how the slices stand");
    let session = enter(&database, admin_urls).await?;
    // It is a transaction of its own, for the limits.
    execute(&database, &session, title, LIMITS).await?;
    let failed = |error: tokio_postgres::Error| refused(&database, title, &error);
    let has_journal = session.client.query_one(HAS_JOURNAL, &[]).await.map_err(failed)?;
    if !has_journal.get::<_, bool>(0) {
        return Ok((Vec::new(), Vec::new()));
    }
    let rows = session.client.query(HEADS, &[]).await.map_err(failed)?;
    let entries = session.client.query(ENTRIES, &[]).await.map_err(failed)?;
    // The journal's heads are let go before the script wants to drop them.
    execute(&database, &session, title, "COMMIT").await?;
    Ok((rows.iter().map(|row| (row.get(0), row.get(1))).collect(), shared(&entries)))
}

/// The slices of which requests go to a service by these entries. A journal that cannot be read shares nothing: it must not keep
/// anyone from leaving.
fn shared(entries: &[Row]) -> Vec<String> {
    let entry = |row: &Row| {
        Some(Entry {
            generation: Generation(u64::try_from(row.get::<_, i64>(0)).ok()?),
            at: String::new(),
            actor: String::new(),
            reason: String::new(),
            slice: row.get::<_, String>(1).parse().ok()?,
            event: serde_json::from_value(row.get(2)).ok()?,
        })
    };
    let entries: Option<Vec<Entry>> = entries.iter().map(entry).collect();
    let state = entries.and_then(|entries| State::replay(JournalId(Uuid::nil()), &entries).ok());
    let slices = state.into_iter().flat_map(|state| state.slices);
    slices.filter(|(_, slice)| !slice.shares.is_empty()).map(|(name, _)| name.to_string()).collect()
}

type Scripts = fn(&Plan, &Database) -> Result<Vec<Script>, NoScript>;

async fn run_all(
    plan: &Plan,
    admin_urls: &BTreeMap<String, String>,
    scripts: Scripts,
    report: &mut (dyn FnMut(&str) + Send),
) -> Result<(), InstallError> {
    for database in &known(plan, admin_urls)? {
        run(database, admin_urls, &scripts(plan, database)?, "COMMIT", report).await?;
    }
    Ok(())
}

fn known(plan: &Plan, admin_urls: &BTreeMap<String, String>) -> Result<Vec<Database>, InstallError> {
    let databases = Database::all(plan);
    if let Some(given) =
        admin_urls.keys().find(|part| databases.iter().all(|database| database.as_str() != *part))
    {
        let known: Vec<&str> = databases.iter().map(Database::as_str).collect();
        return Err(InstallError::UnknownPart { given: given.clone(), known: known.join(", ") });
    }
    match databases.iter().find(|database| !admin_urls.contains_key(database.as_str())) {
        Some(database) => {
            Err(InstallError::NoAdmin { database: database.clone(), part: database.as_str().to_owned() })
        }
        None => Ok(databases),
    }
}

async fn run(
    database: &Database,
    admin_urls: &BTreeMap<String, String>,
    scripts: &[Script],
    end: &str,
    report: &mut (dyn FnMut(&str) + Send),
) -> Result<(), InstallError> {
    let mut session = enter(database, admin_urls).await?;
    execute(database, &session, "begin", LIMITS).await?;
    for script in scripts {
        // An error ends the transaction; dropping the connection then rolls it back.
        execute(database, &session, &script.title, &script.sql).await?;
        report(&format!("{database}: {}", script.title));
        while let Ok(warning) = session.notices.try_recv() {
            report(&format!("{database}: warning: {warning}"));
        }
    }
    execute(database, &session, "commit", end).await
}

async fn enter(database: &Database, admin_urls: &BTreeMap<String, String>) -> Result<Session, InstallError> {
    let url = admin_urls.get(database.as_str()).map(String::as_str).unwrap_or_default();
    connect_as_other(url, "the administrator's URL", "strangler install")
        .await
        .map_err(|source| InstallError::Connect { database: database.clone(), source })
}

async fn execute(database: &Database, session: &Session, title: &str, sql: &str) -> Result<(), InstallError> {
    session.client.batch_execute(sql).await.map_err(|error| refused(database, title, &error))
}

fn refused(database: &Database, title: &str, error: &tokio_postgres::Error) -> InstallError {
    let server = error.as_db_error();
    let remedy = match server.and_then(|server| server.hint()) {
        Some(hint) => hint.to_owned(),
        None => remedy_of(server.map(|server| server.code())).to_owned(),
    };
    InstallError::Refused {
        database: database.clone(),
        step: title.to_owned(),
        // Neither the statement nor its context: both may hold the role's password.
        why: in_words(error),
        remedy,
    }
}

fn remedy_of(code: Option<&SqlState>) -> &'static str {
    match code {
        Some(code) if *code == SqlState::INSUFFICIENT_PRIVILEGE => {
            "use the URL of a superuser, or of a role that owns the tables and may create roles; or give the text of `strangler install --print` to a DBA"
        }
        Some(code) if *code == SqlState::LOCK_NOT_AVAILABLE => {
            "a table is busy; run it again in a quieter moment"
        }
        _ => "mend it, then run the command again; nothing was changed in this database",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_that_has_left_is_to_be_given_back_first() {
        for (stage, end) in [("split", "strangler rollback orders"), ("returning", "strangler abort orders")]
        {
            let left = InstallError::Left { slice: "orders".to_owned(), stage: stage.to_owned() };
            let problem = Problem::from(left);
            assert_eq!(problem.exit(), 4);
            assert!(problem.message.contains(stage) && problem.remedy.contains(end), "{problem:?}");
        }
    }

    #[test]
    fn a_slice_whose_log_would_stay_is_to_be_dropped_first() {
        let slices = vec!["carts".to_owned(), "orders".to_owned()];
        let followed = |unplanned| {
            let slices = slices.clone();
            Problem::from(InstallError::Followed {
                slices,
                shared: Vec::new(),
                unplanned,
                topic: Some("strangler.shop.log".to_owned()),
            })
        };
        let steps = |problem: &Problem| problem.remedy.lines().map(str::to_owned).collect::<Vec<_>>();
        let problem = followed(Vec::new());
        assert_eq!(problem.exit(), 4);
        assert!(
            problem.message.contains("carts, orders") && problem.message.contains("strangler.shop.log"),
            "{problem}"
        );
        let drops = ["then `strangler sync drop carts`", "then `strangler sync drop orders`"];
        assert_eq!(steps(&problem)[1..3], drops);
        assert!(steps(&problem)[0].contains("strangler up"), "{problem}");
        let problem = followed(vec!["carts".to_owned()]);
        assert_eq!(steps(&problem)[0], "put carts back into the plan, with its tables");
        assert_eq!(steps(&problem)[2..4], drops);
    }
}
