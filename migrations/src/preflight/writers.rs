//! Findings about who else writes the slice's tables.

use crate::access::{AccessSeen, Accesses, Evidence};
use crate::code::Code;
use crate::finding::Finding;
use crate::plan::Slice;

pub(super) fn judge(slice: &Slice, writers: &Accesses, found: &mut Vec<Finding>) {
    found.extend(unmarked(slice, writers));
    if !writers.was_watched && !writers.has_statements {
        found.push(Finding::warning(
            Code::WriterUnwatched,
            format!("nobody has looked who writes the tables of slice {}", slice.name),
            format!(
                "run `strangler writers {} --observe 1h`, for as long as the rarest job takes to come",
                slice.name
            ),
        ));
    }
}

/// Each writer that the plan does not mark, with the line that marks it.
pub fn unmarked(slice: &Slice, writers: &Accesses) -> Vec<Finding> {
    let found = writers.unmarked(slice).into_iter().map(|writer| {
        let name = writer.name();
        Finding::error(
            Code::WriterUnmarked,
            format!(
                "{name} (role {}) writes table {} of slice {}, and the plan does not say what becomes of it: {}",
                writer.role, writer.table, slice.name, writer.query
            ),
            remedy(slice, writer),
        )
    });
    found.collect()
}

fn remedy(slice: &Slice, writer: &AccessSeen) -> String {
    let (slice, name) = (&slice.name, key(writer.name()));
    let mark = format!(
        "write under slice {slice} of the plan `writers: {{ {name}: moved }}` if it will write at the service, `disabled` if it is \
         switched off, or `accepted` if it may fail; then `strangler reload`"
    );
    match writer.by {
        Evidence::Statements => format!(
            "{mark}\npg_stat_statements knows only the role; to tell its applications apart, run `strangler writers {slice} \
             --observe 10m`"
        ),
        Evidence::Trigger | Evidence::Session => mark,
    }
}

/// A name as a key of YAML.
fn key(name: &str) -> String {
    let is_plain = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
    if is_plain { name.to_owned() } else { serde_json::Value::from(name).to_string() }
}
