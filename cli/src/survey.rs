//! What a live database holds, as far as a first plan needs it: tables, their keys, and who points to whom.
//!
//! Reads the catalog of Postgres and nothing else; no row is looked at.

use migrations::code::Code;
use migrations::preflight::looks_secret;
use migrations::problem::Problem;
use postgres::{catalog, connect_as_other, in_words};
use std::collections::BTreeSet;
use std::time::Duration;

/// Connecting and asking, together.
const PATIENCE: Duration = Duration::from_secs(15);
/// More tables than this are not listed.
const TABLES_MAX: i64 = 5_000;

/// A database as a first plan sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Survey {
    /// Every table, by name.
    pub(crate) tables: Vec<SurveyedTable>,
    /// Every materialized view, by name.
    pub(crate) views: Vec<SurveyedView>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SurveyedView {
    pub(crate) name: String,
    /// Tables and views.
    pub(crate) reads: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SurveyedTable {
    /// `schema.table`.
    pub(crate) name: String,
    /// The columns of its primary key; none where it has no key.
    pub(crate) key: Vec<String>,
    pub(crate) rows_estimated: u64,
    pub(crate) points_to: Vec<String>,
    /// Columns beside its key that look like secrets.
    pub(crate) secrets: Vec<String>,
}

impl Survey {
    /// The table of that name; one without a schema is looked for in `public`.
    pub(crate) fn table(&self, name: &str) -> Option<&SurveyedTable> {
        let full = in_full(name);
        self.tables.iter().find(|table| table.name == full)
    }

    /// The tables that a pattern matches: `*` stands for any characters.
    pub(crate) fn matching(&self, pattern: &str) -> Vec<SurveyedTable> {
        let pattern = in_full(pattern);
        self.tables.iter().filter(|table| matches(&pattern, &table.name)).cloned().collect()
    }

    pub(crate) fn view(&self, pattern: &str) -> Option<&SurveyedView> {
        let pattern = in_full(pattern);
        self.views.iter().find(|view| matches(&pattern, &view.name))
    }
}

fn in_full(name: &str) -> String {
    if name.contains('.') { name.to_owned() } else { format!("public.{name}") }
}

/// The first piece stands at the beginning, the last at the end, each other as early as it can.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut left) = name.strip_prefix(first) else { return false };
    let mut pieces: Vec<&str> = rest.split('*').collect();
    let last = pieces.pop().unwrap_or_default();
    for piece in pieces {
        match left.split_once(piece) {
            Some((_, after)) => left = after,
            None => return false,
        }
    }
    left.ends_with(last)
}

pub(crate) async fn survey(url: &str) -> Result<Survey, Problem> {
    let late = |_| {
        Problem::new(
            Code::DatabaseUnreachable,
            format!("the database does not answer within {} s", PATIENCE.as_secs()),
            "check the host, and that no firewall blocks the connection",
        )
    };
    tokio::time::timeout(PATIENCE, ask(url)).await.map_err(late)?
}

async fn ask(url: &str) -> Result<Survey, Problem> {
    let client = connect_as_other(url, "the database", "strangler init").await?.client;
    let refused = |error: tokio_postgres::Error| {
        Problem::new(
            Code::CommandFailed,
            format!("the catalog cannot be read: {}", in_words(&error)),
            "use a role that may connect to this database",
        )
        .because(&error)
    };
    let keys = catalog::foreign_keys(&client, None).await.map_err(refused)?;
    let tables = catalog::listed(&client, TABLES_MAX).await.map_err(refused)?.into_iter().map(|listed| {
        let points_to: BTreeSet<String> = keys
            .iter()
            .filter(|key| key.from == listed.table && key.to != listed.table)
            .map(|key| key.to.to_string())
            .collect();
        let is_secret = |column: &String| looks_secret(column) && !listed.key.contains(column);
        let secrets = listed.columns.iter().filter(|column| is_secret(column)).cloned().collect();
        SurveyedTable {
            name: listed.table.to_string(),
            secrets,
            key: listed.key,
            rows_estimated: listed.rows_estimated,
            points_to: points_to.into_iter().collect(),
        }
    });
    let tables = tables.collect();
    let views = catalog::materialized_views(&client, TABLES_MAX).await.map_err(refused)?;
    let views = views.into_iter().map(|(view, reads)| SurveyedView { name: view.to_string(), reads });
    Ok(Survey { tables, views: views.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, name) in [
            ("public.orders", "public.orders"),
            ("public.order*", "public.orders"),
            ("*.orders", "sales.orders"),
            ("*", "public.orders"),
            ("public.*_*s", "public.order_items"),
            ("public.a*a", "public.aa"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("public.order", "public.orders"),
            ("public.order*s_x", "public.orders"),
            ("order*", "public.orders"),
            ("public.a*a", "public.a"),
            ("public.*_*x", "public.order_items"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }
}
