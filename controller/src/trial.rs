//! Tries the plan's SQL on live rows: a few of the newest are read at the source, and the sink's database computes
//! each `set` and its `reverse` for them. Nothing is written.

mod statement;

use migrations::code::Code;
use migrations::finding::Finding;
use migrations::plan::{Plan, Slice, Table};
use migrations::preflight::{Sight, TableSeen};
use migrations::sql::Database;
use postgres::{connect, in_words};
use statement::Trial;
use std::time::Duration;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Row};

/// Rows tried per table. More would find more, and take longer than anyone waits for `doctor`.
const ROWS: i64 = 20;
/// All tables of a slice together.
const TRY_MAX: Duration = Duration::from_secs(15);
/// What is tried writes nothing and holds nobody up.
const SETTINGS: &str =
    "SET statement_timeout = '5s'; SET lock_timeout = '2s'; SET default_transaction_read_only = on";

/// What fails or does not come back as it went. Needs both databases and tables without other errors.
pub(crate) async fn run(plan: &Plan, slice: &Slice, seen: &Sight) -> Vec<Finding> {
    let mut trials: Vec<(&Table, Trial, &TableSeen)> = Vec::new();
    for table in slice.all_tables() {
        let source = seen.source.as_ref().and_then(|source| source.tables.get(&table.from));
        let sink = seen.sink.as_ref().and_then(|sink| sink.tables.get(&table.to));
        if let (Some(source), Some(sink)) = (source, sink) {
            trials.extend(Trial::of(table, source, sink).map(|trial| (table, trial, source)));
        }
    }
    if trials.is_empty() {
        return Vec::new();
    }
    let tried = tokio::time::timeout(TRY_MAX, try_all(plan, slice, &trials)).await;
    tried.unwrap_or_else(|_| vec![untried(slice, "it took too long")])
}

async fn try_all(plan: &Plan, slice: &Slice, trials: &[(&Table, Trial, &TableSeen)]) -> Vec<Finding> {
    let service = Database::Service(slice.service.clone());
    let (source, sink) = match (open(plan, &Database::Monolith).await, open(plan, &service).await) {
        (Ok(source), Ok(sink)) => (source, sink),
        (Err(why), _) | (_, Err(why)) => return vec![untried(slice, &why)],
    };
    let mut found = Vec::new();
    for (table, trial, seen) in trials {
        let rows = match source.query(&trial.sample(table, &seen.key), &[&ROWS]).await {
            Ok(rows) => rows,
            Err(error) => {
                found.push(untried(slice, &in_words(&error)));
                continue;
            }
        };
        // One row that shows the mistake is enough.
        for row in &rows {
            if let Some(finding) = try_row(&sink, slice, table, trial, row).await {
                found.push(finding);
                break;
            }
        }
    }
    found
}

async fn try_row(sink: &Client, slice: &Slice, table: &Table, trial: &Trial, row: &Row) -> Option<Finding> {
    let values: Vec<Option<String>> = (0..trial.columns()).map(|index| row.get(index)).collect();
    let key: String = row.get(trial.columns());
    let parameters: Vec<&(dyn tokio_postgres::types::ToSql + Sync)> =
        values.iter().map(|value| value as &(dyn tokio_postgres::types::ToSql + Sync)).collect();
    let computed = match sink.query_one(trial.question(), &parameters).await {
        Ok(computed) => computed,
        Err(error) if error.code() == Some(&SqlState::QUERY_CANCELED) => {
            return Some(Finding::warning(
                Code::PlanNotTried,
                format!(
                    "the expressions of table {} had no time to compute row {key}: {}",
                    table.from,
                    in_words(&error)
                ),
                format!(
                    "run `strangler doctor {}` again; if it comes again, simplify `set` or `reverse`",
                    slice.name
                ),
            ));
        }
        Err(error) if error.as_db_error().is_none_or(|server| is_outside(server.code())) => {
            return Some(untried(slice, &in_words(&error)));
        }
        Err(error) => {
            let from = &table.from;
            let remedy = match error.code() {
                Some(code) if *code == SqlState::UNDEFINED_OBJECT => format!(
                    "an expression computes on the types and collations that {from} has: create the missing one in the service's database, under the same name"
                ),
                _ => format!("correct `set` or `reverse` of table {from} in the plan"),
            };
            let message = format!("the expressions of table {from} fail for row {key}: {}", in_words(&error));
            return Some(Finding::error(Code::PlanSetFails, message, remedy));
        }
    };
    if !computed.get::<_, bool>(0) {
        return Some(Finding::error(
            Code::PlanSetFails,
            format!(
                "the expressions of table {} do not give one row for row {key}, but none or several",
                table.from
            ),
            format!(
                "correct `set` of table {} in the plan: it calls a function that returns a set",
                table.from
            ),
        ));
    }
    let differs =
        trial.reversed().iter().enumerate().find(|(index, _)| !computed.get::<_, bool>(*index + 1))?;
    Some(Finding::warning(
        Code::PlanReverseDiffers,
        format!("`reverse` of {} does not bring back what row {key} of {} holds", differs.1, table.from),
        format!("following works; correct `reverse: {{ {}: … }}` before the cutover", differs.1),
    ))
}

/// Whether an error says nothing of the expressions: a server that ends or breaks a question off (class 57), and a lock
/// that another one holds.
fn is_outside(code: &SqlState) -> bool {
    code.code().starts_with("57") || *code == SqlState::LOCK_NOT_AVAILABLE
}

async fn open(plan: &Plan, database: &Database) -> Result<Client, String> {
    let url = database.url(plan).ok_or_else(|| format!("{database} has no URL"))?;
    let client = connect(url, "strangler doctor").await.map_err(|error| error.to_string())?;
    client.batch_execute(SETTINGS).await.map_err(|error| in_words(&error))?;
    Ok(client)
}

fn untried(slice: &Slice, why: &str) -> Finding {
    Finding::warning(
        Code::PlanNotTried,
        format!("the expressions of slice {} could not be tried on live rows: {why}", slice.name),
        format!("run `strangler doctor {}` again", slice.name),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_expressions_do_is_held_against_them() {
        for code in ["57014", "57P01", "57P03", "55P03"] {
            assert!(is_outside(&SqlState::from_code(code)), "{code}");
        }
        for code in ["22012", "42883", "22P02", "55000"] {
            assert!(!is_outside(&SqlState::from_code(code)), "{code}");
        }
    }
}
