//! The rows in a service's tables: which tables strangler filled, and so may empty, before a copy and after a drop.
//!
//! A table that strangler did not fill may hold the service's own rows, which exist nowhere else. They are deleted only if
//! the operator asked for it with this very copy.

use super::halt::Halt;
use super::kept;
use migrations::code::Code;
use migrations::filled::{all, ours};
use migrations::finding::Finding;
use migrations::lane::{LaneId, Mark};
use migrations::names::{TableName, quote_literal};
use migrations::plan::Slice;
use migrations::stage::Epoch;
use postgres::{gate, in_words};
use std::collections::BTreeSet;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

/// Refuses a copy into a table that holds rows of others.
pub(crate) async fn must_be_ours(
    client: &Client,
    slice: &Slice,
    filled: &BTreeSet<TableName>,
) -> Result<(), Halt> {
    for table in all(slice).difference(filled) {
        let sql = format!("SELECT EXISTS (SELECT FROM {})", table.quoted());
        match client.query_one(&sql, &[]).await {
            Ok(found) if found.get(0) => return Err(Halt::stop(of_others(slice, table))),
            // The copy says more of a table that is not there.
            Err(error) if error.code() != Some(&SqlState::UNDEFINED_TABLE) => {
                return Err(Halt::of(error));
            }
            Ok(_) | Err(_) => {}
        }
    }
    Ok(())
}

/// Empties tables together, in one transaction with the mark. A table to which others refer cannot be truncated. Its rows are
/// deleted then, unless that would write the others.
pub(crate) async fn empty(client: &Client, mark: &Mark, tables: &BTreeSet<TableName>) -> Result<(), Halt> {
    let slice = &mark.lane.slice;
    if tables.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = tables.iter().map(TableName::quoted).collect();
    let emptied = client.batch_execute(&format!("{}; {}", kept::leave(mark), emptying(&names))).await;
    emptied.map_err(|error| match error.code().map(|code| code.code()) {
        Some("0A000" | "23503") => Halt::stop(Finding::error(
            Code::SinkReferenced,
            format!("the tables of slice {slice} cannot be emptied: {}", in_words(&error)),
            "another table refers to them: drop that foreign key in the service's database, or add that table to the slice; \
             if it holds the service's own rows, move them away first",
        )),
        _ => Halt::of(error),
    })
}

/// One statement deletes from all tables, so that keys between them are checked when all are empty. Tables without rows
/// are referred to by none.
fn emptying(names: &[String]) -> String {
    let ours: Vec<String> = names.iter().map(|name| format!("{}::regclass", quote_literal(name))).collect();
    let ours = ours.join(", ");
    let with_rows: Vec<String> = names.iter().map(|name| format!("EXISTS (SELECT FROM {name})")).collect();
    let with_rows = with_rows.join(" OR ");
    let deletes: Vec<String> = names.iter().map(|name| format!("DELETE FROM {name}")).collect();
    let deletes = match deletes.split_last() {
        Some((last, others)) if !others.is_empty() => {
            let others = others.iter().enumerate().map(|(number, delete)| format!("d{number} AS ({delete})"));
            format!("WITH {} {last}", others.collect::<Vec<_>>().join(", "))
        }
        _ => deletes.concat(),
    };
    let body = format!(
        "BEGIN TRUNCATE {}; EXCEPTION WHEN feature_not_supported THEN \
         IF EXISTS (SELECT FROM pg_constraint WHERE contype = 'f' AND confdeltype NOT IN ('a', 'r') \
         AND confrelid IN ({ours}) AND conrelid NOT IN ({ours})) AND ({with_rows}) THEN RAISE; END IF; \
         {deletes}; SET CONSTRAINTS ALL IMMEDIATE; END",
        names.join(", "),
    );
    format!("DO {}", quote_literal(&body))
}

/// Empties the tables that a copy filled, to give it up; not where the gate says that they are the service's own, or
/// that someone decided after us. Without a gate no row was ever copied, or all this was done before.
pub(crate) async fn give_up(
    client: &Client,
    slice: &Slice,
    epoch: Epoch,
    filled: &BTreeSet<TableName>,
) -> Result<(), Halt> {
    client.batch_execute("BEGIN").await.map_err(Halt::of)?;
    let done = async {
        match gate::lock(client, &slice.name).await.map_err(Halt::of)? {
            None => Ok(()),
            Some(gate) if !gate.is_shut || gate.epoch > epoch => Err(Halt::stop(not_ours(slice))),
            Some(_) => {
                let mut tables = ours(slice, filled);
                tables.extend(empty_ones(client, all(slice).difference(&tables)).await?);
                let mark = Mark { lane: LaneId::forward(slice.name.clone()), epoch };
                empty(client, &mark, &tables).await
            }
        }
    };
    match done.await {
        Ok(()) => client.batch_execute("COMMIT").await.map_err(Halt::of),
        Err(error) => {
            let _ = client.batch_execute("ROLLBACK").await;
            Err(error)
        }
    }
}

/// Those that have no rows, and get none before the transaction ends: a table that another one refers to can only be
/// emptied together with that one, empty as it may be.
async fn empty_ones<'a>(
    client: &Client,
    tables: impl Iterator<Item = &'a TableName>,
) -> Result<Vec<TableName>, Halt> {
    let mut found = Vec::new();
    for table in tables {
        let name = table.quoted();
        let there =
            client.query_one("SELECT to_regclass($1) IS NOT NULL", &[&name]).await.map_err(Halt::of)?;
        if !there.get::<_, bool>(0) {
            continue;
        }
        let lock = format!("LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE");
        client.batch_execute(&lock).await.map_err(Halt::of)?;
        let sql = format!("SELECT EXISTS (SELECT FROM {name})");
        if !client.query_one(&sql, &[]).await.map_err(Halt::of)?.get::<_, bool>(0) {
            found.push(table.clone());
        }
    }
    Ok(found)
}

fn of_others(slice: &Slice, table: &TableName) -> Finding {
    Finding::error(
        Code::SinkNotEmpty,
        format!(
            "the service's table {table} holds rows that are not strangler's copy; a copy would delete them"
        ),
        format!(
            "move them away and run `strangler sync resume {0}`; or let the copy delete them: `strangler sync drop {0}`, then \
             `strangler sync start {0} --replace`",
            slice.name
        ),
    )
}

fn not_ours(slice: &Slice) -> Finding {
    Finding::error(
        Code::SinkNotOurs,
        format!(
            "the service's gate of slice {} is open, or its epoch is newer than the journal's: its rows may not be removed",
            slice.name
        ),
        "the journal may come from an old backup: compare it with `strangler journal`, and repair it first",
    )
}
