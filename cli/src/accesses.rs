//! Readers and writers of a slice's tables, as `readers` and `writers` show them.

use crate::ui::Ui;
use crate::ui::figure;
use crate::ui::grid::{Grid, doubtful, plain, strong};
use migrations::access::{AccessSeen, Accesses, Evidence};
use migrations::plan::WriterFate;
use serde_json::{Value, json};

const NO_STATEMENTS: &str = "pg_stat_statements cannot be read, so only what was noted and the sessions of this moment are known; \
                             to switch it on, run as a superuser in the monolith's database: CREATE EXTENSION \
                             pg_stat_statements; after adding it to shared_preload_libraries and restarting the server";

/// What stands in the plan's `writers` for each, or nothing of the kind for readers.
pub(crate) fn show(ui: &Ui, accesses: &Accesses, marks: Option<&[Option<WriterFate>]>) {
    let mut columns = vec!["application", "role"];
    columns.extend(marks.map(|_| "plan"));
    columns.extend(["table", "seen", "last", "statement"]);
    let mut grid = Grid::new(&columns);
    for (index, one) in accesses.seen.iter().enumerate() {
        let mut cells = vec![strong(one.application.as_deref().unwrap_or("–")), plain(&one.role)];
        if let Some(marks) = marks {
            cells.push(match marks.get(index).copied().flatten() {
                Some(fate) => plain(fate.as_str()),
                None => doubtful("not marked"),
            });
        }
        cells.extend([plain(&one.table), plain(seen(one)), plain(last(one)), plain(&one.query)]);
        grid.row(cells);
    }
    if accesses.seen.is_empty() {
        ui.line("nobody was seen");
    } else {
        ui.line(grid.text());
    }
    if !accesses.has_statements {
        ui.hint(NO_STATEMENTS);
    }
}

/// Each with its mark.
pub(crate) fn document(accesses: &Accesses, marks: &[Option<WriterFate>]) -> Value {
    let each = accesses.seen.iter().zip(marks).map(|(one, fate)| {
        let mut document = json!(one);
        if let Value::Object(fields) = &mut document {
            fields.insert("plan".to_owned(), json!(fate));
        }
        document
    });
    each.collect()
}

fn seen(one: &AccessSeen) -> String {
    let times = figure::count(one.times);
    match one.by {
        Evidence::Trigger => format!("in {times} s"),
        Evidence::Statements => format!("{times} calls"),
        Evidence::Session => "session".to_owned(),
    }
}

fn last(one: &AccessSeen) -> String {
    match one.seconds_ago {
        None => "–".to_owned(),
        Some(0) => "now".to_owned(),
        Some(seconds) => format!("{} ago", figure::span(seconds.saturating_mul(1000))),
    }
}
