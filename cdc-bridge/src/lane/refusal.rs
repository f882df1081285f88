//! What a sink refuses, and what is to be done about it: errors of rows, and findings.

use super::halt::Halt;
use super::plan::LanePlan;
use migrations::code::Code;
use migrations::finding::Finding;
use migrations::lane::{Direction, Right};
use migrations::lsn::Position;
use migrations::names::{TableName, quote_identifier};
use postgres::gate::Gate;
use postgres::{Refusal, function_of, in_words};
use rows::change::{Change, Column, Operation, Value};
use rows::mapping::Mapping;
use tokio_postgres::error::{DbError, SqlState};

/// How much of a row a finding shows, in characters.
const SHOWN_ROW_CHARS: usize = 400;

/// Why some rows did not go in.
pub(crate) enum RowError {
    /// The database refused; in its words, with its code's class.
    Db(tokio_postgres::Error),
    /// Fewer rows were there than the source changed.
    Missing { expected: u64, found: u64 },
    /// A value that is not text in UTF-8, as every value must be.
    NotText(std::str::Utf8Error),
    /// Something that is no row's fault.
    Halt(Halt),
}

impl From<tokio_postgres::Error> for RowError {
    fn from(error: tokio_postgres::Error) -> Self {
        RowError::Db(error)
    }
}

impl From<Halt> for RowError {
    fn from(error: Halt) -> Self {
        RowError::Halt(error)
    }
}

impl RowError {
    /// Whether a single row is at fault: data (22), integrity (23), triggers and the like.
    pub(crate) fn is_about_rows(&self) -> bool {
        match self {
            RowError::Db(error) => Refusal::of(error) == Refusal::Rows,
            RowError::Missing { .. } | RowError::NotText(_) => true,
            RowError::Halt(_) => false,
        }
    }

    /// Whether a foreign key refuses it, which may hold once other rows are there or gone.
    pub(crate) fn is_foreign_key(&self) -> bool {
        let codes = [SqlState::FOREIGN_KEY_VIOLATION, SqlState::RESTRICT_VIOLATION];
        matches!(self, RowError::Db(error) if error.code().is_some_and(|code| codes.contains(code)))
    }

    /// Whether the same may go through at another try: deadlocks, locks, resources.
    pub(crate) fn is_contended(&self) -> bool {
        matches!(self, RowError::Db(error) if Refusal::of(error) == Refusal::Contended)
    }

    pub(crate) fn into_halt(self) -> Halt {
        match self {
            RowError::Db(error) => Halt::of(error),
            RowError::Halt(error) => error,
            RowError::Missing { expected, found } => {
                Halt::away(format!("{found} of {expected} rows were there"))
            }
            RowError::NotText(why) => Halt::away(format!("a value is not UTF-8: {why}")),
        }
    }
}

pub(crate) fn expect(found: u64, expected: u64) -> Result<(), RowError> {
    if found == expected { Ok(()) } else { Err(RowError::Missing { expected, found }) }
}

pub(crate) fn refused(plan: &LanePlan, change: &Change, error: &RowError) -> Finding {
    let words = match error {
        RowError::Db(error) => in_words(error),
        RowError::NotText(why) => format!("a value is not UTF-8: {why}"),
        _ => "the row to change is not there".to_owned(),
    };
    Finding::error(
        Code::SinkRefusedRow,
        format!(
            "{} of {} cannot be applied: {words}; {}",
            deed(change),
            change.relation.table,
            shown(change)
        ),
        match (error, plan.id.direction) {
            (RowError::NotText(_), Direction::Forward) => correct(plan, change),
            _ => mend(&cure(error), plan, change),
        },
    )
}

/// What to do about a text that is no UTF-8: its change stays as it is.
fn correct(plan: &LanePlan, change: &Change) -> String {
    format!(
        "correct the text in the monolith's database, then copy the slice again: `strangler sync drop {0}`, `strangler sync start \
         {0}`; or skip this one change for good: `strangler sync resume {0} --skip {1}`",
        plan.id.slice, change.position
    )
}

/// What to do in the sink's database. A foreign key that can wait also takes rows that come before what they refer to.
fn cure(error: &RowError) -> String {
    let server = match error {
        RowError::Db(refused) => refused.as_db_error(),
        _ => None,
    };
    if let Some(how) = server.and_then(for_function) {
        return how;
    }
    let server = server.filter(|_| error.is_foreign_key());
    let key = server.and_then(|server| Some((server.schema()?, server.table()?, server.constraint()?)));
    let Some((schema, table, constraint)) = key else { return "fix the sink's database".to_owned() };
    let table = TableName { schema: schema.to_owned(), name: table.to_owned() };
    format!(
        "fix the sink's database, or let the key wait for the end of a transaction there (`ALTER TABLE {} ALTER CONSTRAINT {} \
         DEFERRABLE;`)",
        table.quoted(),
        quote_identifier(constraint)
    )
}

/// What to do about a trigger or a check of the tables' own that fails for strangler's role.
pub(crate) fn for_function(error: &DbError) -> Option<String> {
    let place = function_of(error)?;
    match error.code().code() {
        "42501" => Some(format!(
            "give strangler's role the right that is missing ({place}), or make the function SECURITY DEFINER; a trigger can also \
             be marked `skip` under `triggers:` of the plan"
        )),
        // What is not found was named without its schema.
        code if code.starts_with("42") || code == "3F000" => Some(format!(
            "let the function name its schemas, or give it its own path: `ALTER FUNCTION … SET search_path = …` ({place})"
        )),
        _ => None,
    }
}

pub(crate) fn row_exists(plan: &LanePlan, change: &Change) -> Finding {
    let (table, row) = (&change.relation.table, shown(change));
    Finding::error(
        Code::SinkRowExists,
        format!(
            "an insert of {table} cannot be applied: the sink has another row with the key {}; {row}",
            key(change)
        ),
        mend("compare the two rows, and remove or correct the one in the sink's database", plan, change),
    )
}

/// What to do about a change that cannot be applied. Only changes of the monolith can be skipped.
fn mend(how: &str, plan: &LanePlan, change: &Change) -> String {
    let slice = &plan.id.slice;
    match plan.id.direction {
        Direction::Forward => format!(
            "{how}, then `strangler sync resume {slice}`; or skip this one change for good: `strangler sync resume {slice} \
             --skip {}`",
            change.position
        ),
        Direction::Reverse => format!(
            "{how} as strangler's own role, which the gate lets pass, then `strangler sync resume {slice}`"
        ),
    }
}

pub(crate) fn no_table(table: &TableName) -> Finding {
    Finding::error(
        Code::SinkNoTable,
        format!("table {table} is missing in the sink's database or in the plan"),
        "create it there, or correct the plan, then `strangler sync resume`",
    )
}

pub(crate) fn not_ours(plan: &LanePlan, right: Right, found: Option<Gate>) -> Finding {
    let found = match found {
        None => "missing".to_owned(),
        Some(Gate { is_shut: true, epoch }) => format!("shut at epoch {epoch}"),
        Some(Gate { is_shut: false, epoch }) => format!("open at epoch {epoch}"),
    };
    let wanted = match right {
        Right::Apply(epoch) => format!("shut at epoch {epoch}"),
        Right::Watch => "there".to_owned(),
        Right::Rest => "asked for: the lane rests".to_owned(),
    };
    Finding::error(
        Code::SinkGate,
        format!("the gate of slice {} in the sink is {found}, not {wanted}", plan.id.slice),
        "another bridge or controller changed it: see `strangler status` and `strangler journal`",
    )
}

pub(crate) fn deferred(plan: &LanePlan, last: Position, words: &str) -> Finding {
    Finding::error(
        Code::SinkDeferredConstraint,
        format!("the changes up to {last} break a deferred constraint: {words}"),
        format!(
            "fix the data or the constraint in the sink's database, then `strangler sync resume {}`",
            plan.id.slice
        ),
    )
}

pub(crate) fn superseded(plan: &LanePlan) -> Finding {
    Finding::error(
        Code::SinkSuperseded,
        format!("another copy of slice {} has begun in the sink's database", plan.id.slice),
        "another bridge works on this slice: stop one of the two, then `strangler sync resume`",
    )
}

fn deed(change: &Change) -> &'static str {
    match change.operation {
        Operation::Insert { .. } => "an insert",
        Operation::Update { .. } => "an update",
        Operation::Delete { .. } => "a delete",
        Operation::Truncate => "a truncate",
    }
}

fn shown(change: &Change) -> String {
    match &change.operation {
        Operation::Truncate => "no row".to_owned(),
        _ => format!("row {}", texts(change, |_| true)),
    }
}

fn key(change: &Change) -> String {
    texts(change, |column| column.is_key)
}

/// Values of the change's row, as far as a finding shows them.
fn texts(change: &Change, of: impl Fn(&Column) -> bool) -> String {
    let row = match &change.operation {
        Operation::Insert { new } | Operation::Update { new, .. } => new,
        Operation::Delete { old } => old,
        Operation::Truncate => return String::new(),
    };
    let columns = change.relation.columns.iter().zip(row.values()).filter(|(column, _)| of(column));
    let columns = columns.filter_map(|(column, value)| match value {
        Value::Text(text) => Some(format!("{}={}", column.name, String::from_utf8_lossy(text))),
        _ => None,
    });
    let text: String = columns.collect::<Vec<_>>().join(" ");
    let short: String = text.chars().take(SHOWN_ROW_CHARS).collect();
    if short.len() < text.len() { format!("{short}…") } else { short }
}

pub(crate) fn unknown_value(mapping: &Mapping) -> Finding {
    Finding::error(
        Code::SourceIdentity,
        format!("a `set` of {} reads a large value that the source did not send", mapping.from),
        format!(
            "run `ALTER TABLE {} REPLICA IDENTITY FULL;` in the source's database, then copy the slice again: `strangler sync drop`, then \
             `strangler sync start`",
            mapping.from.quoted()
        ),
    )
}
