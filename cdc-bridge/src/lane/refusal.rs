//! Why a copy does not go on before someone has looked. Pure.

use migrations::code::Code;
use migrations::finding::Finding;
use migrations::names::TableName;
use migrations::plan::Slice;

/// The plan's mapping lost or doubled rows.
pub fn other_count(from: &TableName, read: u64, inserted: u64) -> Finding {
    Finding::error(
        Code::CopyOtherCount,
        format!("of {read} rows of {} the plan's mapping made {inserted}", from),
        "a `set` must give one value for each row; correct the plan, restart the parts, then `strangler sync resume`",
    )
}

/// A database lacks what `install` makes.
pub fn not_installed(slice: &Slice, words: &str) -> Finding {
    Finding::error(
        Code::GateNotInstalled,
        format!("the gate of slice {} cannot be made: {words}", slice.name),
        "run `strangler install` with an admin URL for each database, then `strangler sync resume`",
    )
}

/// A table is not there on one side.
pub fn no_table(from: &TableName, to: &TableName) -> Finding {
    Finding::error(
        Code::CopyNoTable,
        format!(
            "there is no table {from} in the monolith's database or no {to} in the service's, or no right to see it"
        ),
        "`strangler doctor` says which, and the statement that mends it",
    )
}
