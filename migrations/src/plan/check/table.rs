//! One table of a slice: where its rows go and how its columns are mapped there and back.

use super::reading::{self, Fields};
use crate::code::Code;
use crate::names::TableName;
use crate::plan::tree::{Node, Spot, Value};
use crate::plan::written::Notes;
use crate::plan::{SqlExpression, Table, sql};
use std::collections::{BTreeMap, BTreeSet};

const KEYS: [&str; 7] = ["from", "to", "rename", "drop", "set", "reverse", "where"];
/// Postgres cuts longer identifiers (`NAMEDATALEN`).
const COLUMN_BYTES_MAX: usize = 63;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Moved,
    /// The service only reads it.
    Reference,
}

/// A mapping of columns with the places of its keys.
type Placed<T> = BTreeMap<String, (Spot, T)>;

/// Reads a table; its place is where its source is named.
pub(super) fn table(node: &Node, kind: Kind, notes: &mut Notes<'_>) -> Option<(Spot, Table)> {
    if !matches!(node.value, Value::Map(_)) {
        if node.is_null() {
            let hint = "write `- public.orders`, or remove the dash";
            notes.error(node.spot, Code::PlanWrongKind, "a table is missing here", hint);
            return None;
        }
        let from: TableName = reading::parse(node, "a table's name", notes)?;
        return Some((node.spot, Table { to: from.clone(), from, ..empty() }));
    }
    let fields = Fields::open(node, "a table", &KEYS, notes)?;
    let from_node = fields.need("from", "write `from: public.orders`", notes);
    let from: Option<TableName> = from_node.and_then(|node| reading::parse(node, "a table's name", notes));
    let to = match fields.get("to") {
        Some(node) => reading::parse(node, "a table's name", notes),
        None => from.clone(),
    };
    if let Some(node) = fields.get("where") {
        let message = "filters are refused for now: on a moved table a filter loses the writes that it hides";
        notes.error(node.owner, Code::PlanFilter, message, "remove `where`: the whole table is copied");
    }
    let rename = renames(fields.get("rename"), notes);
    let drop = drops(fields.get("drop"), notes);
    let set = expressions(fields.get("set"), "set", notes);
    let reverse = expressions(fields.get("reverse"), "reverse", notes);
    Mapping { rename: &rename, drop: &drop, set: &set, reverse: &reverse }.check(notes);
    way_back(&fields, kind, &set, &reverse, notes);
    let table = Table {
        from: from?,
        to: to?,
        rename: rename.into_iter().map(|(column, (_, to))| (column, to)).collect(),
        drop: drop.into_keys().collect(),
        set: set.into_iter().map(|(column, (_, sql))| (column, sql)).collect(),
        reverse: reverse.into_iter().map(|(column, (_, sql))| (column, sql)).collect(),
    };
    Some((from_node.map_or(node.spot, |node| node.spot), table))
}

fn empty() -> Table {
    let name = || TableName { schema: String::new(), name: String::new() };
    Table {
        from: name(),
        to: name(),
        rename: BTreeMap::new(),
        drop: BTreeSet::new(),
        set: BTreeMap::new(),
        reverse: BTreeMap::new(),
    }
}

/// Whether a name can be a column's. `written` is how the file has it: what a variable holds is not shown.
fn column(spot: Spot, name: &str, written: &str, notes: &mut Notes<'_>) -> bool {
    let fits = (1..=COLUMN_BYTES_MAX).contains(&name.len()) && !name.contains('\0');
    if !fits {
        let message = format!("`{}` is not a column's name", reading::shown(written));
        let hint =
            format!("write the column as the catalog spells it, 1 to {COLUMN_BYTES_MAX} bytes, unquoted");
        notes.error(spot, Code::PlanBadName, message, hint);
    }
    fits
}

fn renames(node: Option<&Node>, notes: &mut Notes<'_>) -> Placed<String> {
    let mut read = Placed::new();
    for (key, node) in reading::entries(node, "rename", notes) {
        let to = reading::scalar(node, "the new name", notes);
        if let (true, Some(scalar)) = (column(key.spot, &key.text, &key.text, notes), to)
            && let Some(to) = scalar.meant.as_deref()
            && column(node.spot, to, &scalar.written, notes)
        {
            read.insert(key.text.clone(), (key.spot, to.to_owned()));
        }
    }
    read
}

fn drops(node: Option<&Node>, notes: &mut Notes<'_>) -> Placed<()> {
    let mut read = Placed::new();
    for node in reading::items(node, "drop", notes) {
        let Some(scalar) = reading::scalar(node, "a column to drop", notes) else { continue };
        let Some(name) = scalar.meant.as_deref() else { continue };
        if column(node.spot, name, &scalar.written, notes)
            && read.insert(name.to_owned(), (node.spot, ())).is_some()
        {
            let message = format!("column `{}` is dropped twice", reading::shown(&scalar.written));
            notes.error(node.spot, Code::PlanColumnTwice, message, "name it once");
        }
    }
    read
}

fn expressions(node: Option<&Node>, part: &str, notes: &mut Notes<'_>) -> Placed<SqlExpression> {
    let mut read = Placed::new();
    for (key, node) in reading::entries(node, part, notes) {
        let fits = column(key.spot, &key.text, &key.text, notes);
        let Some(scalar) = reading::scalar(node, "an SQL expression", notes) else { continue };
        let Some(text) = scalar.meant.as_deref() else { continue };
        match sql::expression(text) {
            Ok(expression) if fits => {
                read.insert(key.text.clone(), (key.spot, expression));
            }
            Ok(_) => {}
            Err(unfit) if scalar.is_as_written() => {
                notes.error(node.spot, unfit.code, unfit.message, unfit.hint);
            }
            // The parser's words would repeat what the environment holds.
            Err(unfit) => {
                let message =
                    format!("the value of `{}` cannot be used here", reading::shown(&scalar.written));
                notes.error(node.spot, unfit.code, message, unfit.hint);
            }
        }
    }
    read
}

/// What the plan alone can say about the way back. Whether `reverse(set(x)) = x` is for `doctor`, on live rows.
fn way_back(
    fields: &Fields<'_>,
    kind: Kind,
    set: &Placed<SqlExpression>,
    reverse: &Placed<SqlExpression>,
    notes: &mut Notes<'_>,
) {
    let Some(set_node) = fields.filled("set") else { return useless_reverse(fields, kind, notes) };
    if kind == Kind::Moved && !set.is_empty() && reverse.is_empty() && fields.filled("reverse").is_none() {
        let read: Vec<&str> = set.values().flat_map(|(_, sql)| &sql.columns).map(String::as_str).collect();
        let column = read.first().copied().unwrap_or("total");
        notes.warning(
            set_node.owner,
            Code::PlanNoWayBack,
            "this table has no way back, so its slice cannot be cut over",
            format!("write `reverse: {{ {column}: \"…\" }}`, SQL over the service's columns"),
        );
    }
    useless_reverse(fields, kind, notes);
}

fn useless_reverse(fields: &Fields<'_>, kind: Kind, notes: &mut Notes<'_>) {
    if let (Kind::Reference, Some(node)) = (kind, fields.filled("reverse")) {
        let message = "a reference table is never written at the service, so nothing goes back";
        notes.warning(node.owner, Code::PlanUselessReverse, message, "remove `reverse`");
    }
}

/// How the columns of one table are mapped.
struct Mapping<'a> {
    rename: &'a Placed<String>,
    drop: &'a Placed<()>,
    set: &'a Placed<SqlExpression>,
    reverse: &'a Placed<SqlExpression>,
}

impl Mapping<'_> {
    fn check(&self, notes: &mut Notes<'_>) {
        let mut taken: BTreeMap<&str, &str> = BTreeMap::new();
        for (from, (spot, to)) in self.rename {
            if self.drop.contains_key(from) {
                let message = format!("column `{from}` is both renamed and dropped");
                notes.error(*spot, Code::PlanColumnTwice, message, "keep one of the two");
            }
            if let Some(other) = taken.insert(to, from) {
                let message = format!("columns `{other}` and `{from}` are both renamed to `{to}`");
                notes.error(*spot, Code::PlanColumnTwice, message, "give each a name of its own");
            }
        }
        for (to, (spot, expression)) in self.set {
            if let Some(from) = taken.get(to.as_str()) {
                let message = format!("column `{to}` is set, and `{from}` is renamed to it");
                notes.error(*spot, Code::PlanColumnTwice, message, "keep one of the two");
            }
            self.sides(*spot, expression, true, notes);
        }
        for (column, (spot, expression)) in self.reverse {
            if let Some((_, to)) = self.rename.get(column) {
                let message = format!("column `{column}` comes back from `{to}` by itself");
                notes.error(*spot, Code::PlanColumnTwice, message, "take it out of `reverse`");
            }
            self.sides(*spot, expression, false, notes);
        }
    }

    /// `set` reads the monolith's columns and `reverse` the service's: a name of the other side is a slip.
    fn sides(&self, spot: Spot, expression: &SqlExpression, is_set: bool, notes: &mut Notes<'_>) {
        for (from, (_, to)) in self.rename {
            let (slip, right) = if is_set { (to, from) } else { (from, to) };
            let known = if is_set { self.rename.contains_key(slip) } else { self.set.contains_key(slip) };
            if known || !expression.columns.contains(slip) {
                continue;
            }
            let (part, side) = if is_set { ("set", "monolith") } else { ("reverse", "service") };
            let message =
                format!("`{part}` reads the {side}'s columns, and `{slip}` is the other side's name");
            notes.warning(spot, Code::PlanOtherSide, message, format!("write `{right}`"));
        }
    }
}
