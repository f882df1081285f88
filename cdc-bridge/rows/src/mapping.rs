//! How a source table's rows become a sink table's: which column comes from where, as SQL.
//!
//! Pure: it builds statements from the plan's mapping, the source's shape and the sink's columns.

mod changed;
pub mod compare;

pub use changed::Changed;

use crate::change::Relation;
use migrations::code::Code;
use migrations::column_type::{ColumnType, TypeSeen};
use migrations::finding::Finding;
use migrations::names::{TableName, quote_identifier};
use migrations::plan::Table;
use migrations::preflight::ColumnSeen;
use std::collections::{BTreeMap, BTreeSet};

/// A source column that a statement takes as a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Input {
    index: usize,
    name: String,
    kind: ColumnType,
    sql_type: String,
    cast_type: String,
    /// SQL over the sink's columns for the value that it had when the sink's row was written, if the plan says how.
    before: Option<String>,
}

/// A sink column and what fills it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Output {
    column: String,
    cast_type: String,
    is_key: bool,
    /// SQL over the inputs' source names.
    expression: String,
    /// The indexes of the source columns it reads.
    reads: BTreeSet<usize>,
    /// The source column that fills it as it is; none if an expression does.
    source: Option<usize>,
    kind: TypeSeen,
    modifier: i32,
    /// How the key compares it.
    equals: String,
}

impl Output {
    fn new(sink: &ColumnSeen, expression: String, reads: BTreeSet<usize>, source: Option<usize>) -> Output {
        Output {
            column: sink.name.clone(),
            cast_type: sink.cast.clone(),
            is_key: sink.is_key,
            expression,
            reads,
            source,
            kind: sink.kind.clone(),
            modifier: sink.modifier,
            equals: sink.operator("="),
        }
    }

    /// Whether the row `t` has this value there, as the key compares it.
    fn is(&self, value: &str) -> String {
        format!("t.{} {} {value}", quote_identifier(&self.column), self.equals)
    }
}

#[derive(Debug, Clone)]
pub struct Mapping {
    pub from: TableName,
    pub to: TableName,
    /// The source's key columns, by index: a row's identity in the stream.
    pub key: Vec<usize>,
    inputs: Vec<Input>,
    outputs: Vec<Output>,
    has_expressions: bool,
}

/// A statement and the source columns whose texts are its parameters, each one `text[]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    pub sql: String,
    /// Parameter `$n` is the array of the texts of source column `columns[n-1]`.
    pub columns: Vec<usize>,
}

impl Mapping {
    /// Joins plan, source and sink, or says what does not fit. A source column that is not `known` and that the sink does
    /// not have is left out: it came after the slice was copied, or it never goes this way.
    pub fn new(
        table: &Table,
        source: &Relation,
        sink: &[ColumnSeen],
        known: impl Fn(&str) -> bool,
    ) -> Result<Mapping, Box<Finding>> {
        let used: BTreeSet<&str> =
            table.set.values().flat_map(|expression| expression.columns.iter().map(String::as_str)).collect();
        let mut inputs = Vec::new();
        let mut outputs = Vec::new();
        for (index, column) in source.columns.iter().enumerate() {
            let target = table.sink_column(&column.name);
            let by_name = used.contains(column.name.as_str());
            if target.is_none() && !by_name {
                continue;
            }
            let direct =
                target.and_then(|target| sink.iter().find(|c| c.name == target && !c.is_generated()));
            let is_known = known(&column.name);
            // An expression of the way back may read what only the service has.
            if direct.is_none() && !is_known && !by_name {
                continue;
            }
            if let ColumnType::Unsupported(name) = &column.kind {
                return Err(unsupported(table, &column.name, name));
            }
            if let (Some(target), None, true) = (target, direct, is_known) {
                return Err(no_column(table, &column.name, target));
            }
            let (sql_type, cast_type) = match direct {
                Some(sink_column) if !by_name => (sink_column.declared.clone(), sink_column.cast.clone()),
                // An expression computes on the very type that the source has.
                _ => {
                    let exact = column.declared.clone().unwrap_or_else(|| column.kind.cast());
                    (exact.clone(), exact)
                }
            };
            let before = table.reverse.get(&column.name).map(|made| format!("({})", made.text));
            let before = before.or_else(|| direct.map(|sink_column| quote_identifier(&sink_column.name)));
            let (name, kind) = (column.name.clone(), column.kind.clone());
            inputs.push(Input { index, name, kind, sql_type, cast_type, before });
            if let Some(sink_column) = direct {
                let mut expression = quote_identifier(&column.name);
                if by_name {
                    expression = format!("{expression}::{}", sink_column.cast);
                }
                outputs.push(Output::new(sink_column, expression, BTreeSet::from([index]), Some(index)));
            }
        }
        for (target, expression) in &table.set {
            let Some(sink_column) = sink.iter().find(|c| c.name == *target) else {
                return Err(no_set_column(table, target));
            };
            let reads = expression.columns.iter().filter_map(|name| source.index_of(name)).collect();
            outputs.push(Output::new(sink_column, format!("({})", expression.text), reads, None));
        }
        let key: Vec<usize> = source.key().collect();
        let keyed = !key.is_empty()
            && key.iter().all(|index| outputs.iter().any(|o| o.is_key && o.reads.contains(index)))
            && outputs.iter().filter(|o| o.is_key).count() == key.len()
            && outputs.iter().filter(|o| o.is_key).all(|o| o.reads.iter().all(|read| key.contains(read)));
        if !keyed {
            return Err(no_key(table));
        }
        let has_expressions = !table.set.is_empty();
        Ok(Mapping { from: table.from.clone(), to: table.to.clone(), key, inputs, outputs, has_expressions })
    }

    /// Whether rows can be streamed into the sink by COPY as they are.
    pub fn is_direct(&self) -> bool {
        !self.has_expressions
    }

    /// The source columns that are carried, in the order of [`Mapping::sink_columns`]; only for a direct mapping.
    pub fn source_indexes(&self) -> Vec<usize> {
        self.inputs.iter().map(|input| input.index).collect()
    }

    /// The source columns that are read.
    pub fn reads(&self) -> impl Iterator<Item = &str> {
        self.inputs.iter().map(|input| input.name.as_str())
    }

    /// The source columns' quoted names, in the same order.
    pub fn source_columns(&self) -> String {
        list(self.inputs.iter().map(|input| quote_identifier(&input.name)))
    }

    /// The sink columns' quoted names.
    pub fn sink_columns(&self) -> String {
        list(self.outputs.iter().map(|output| quote_identifier(&output.column)))
    }

    /// Whether the binary format of COPY means the same on both sides; `declared` are the source columns' types.
    pub fn is_binary(&self, source: &Relation, declared: &BTreeMap<String, String>) -> bool {
        self.inputs.iter().all(|input| {
            let kind = &source.columns[input.index].kind;
            kind.is_binary_alike(declared.get(&input.name).map(String::as_str), &input.sql_type)
        })
    }

    pub fn insert(&self) -> Statement {
        self.insert_after(0)
    }

    /// [`Mapping::insert`] with so many parameters before its own.
    pub fn insert_after(&self, before: usize) -> Statement {
        let sql = format!(
            "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {}",
            self.to.quoted(),
            self.sink_columns(),
            list(self.outputs.iter().map(|output| output.expression.clone())),
            rows_from(&self.inputs, before),
        );
        Statement { sql, columns: self.source_indexes() }
    }

    /// Inserts the rows of a staging table whose columns are the inputs, see [`Mapping::staging`].
    pub fn insert_staged(&self, staging: &str) -> String {
        format!(
            "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {staging}",
            self.to.quoted(),
            self.sink_columns(),
            list(self.outputs.iter().map(|output| output.expression.clone())),
        )
    }

    /// The column definitions of a staging table that takes the source's columns as they are.
    pub fn staging(&self) -> String {
        list(self.inputs.iter().map(|input| format!("{} {}", quote_identifier(&input.name), input.sql_type)))
    }

    /// The sink's columns that can be set when the values of these source columns were not sent, by their numbers.
    pub fn settable(&self, unsent: &BTreeSet<usize>) -> BTreeSet<usize> {
        self.numbers(|output| !output.is_key && output.reads.is_disjoint(unsent))
    }

    /// Sets these columns of rows, found by their key.
    pub fn update(&self, columns: &BTreeSet<usize>) -> Statement {
        self.update_after(0, columns)
    }

    /// [`Mapping::update`] with so many parameters before its own.
    pub fn update_after(&self, before: usize, columns: &BTreeSet<usize>) -> Statement {
        let set: Vec<&Output> = columns.iter().filter_map(|number| self.outputs.get(*number)).collect();
        let keys = self.key_outputs();
        let inputs = self.inputs_of(set.iter().chain(&keys));
        let sql = format!(
            "UPDATE {} AS t SET {} FROM (SELECT {} FROM {}) AS s WHERE {}",
            self.to.quoted(),
            list(set.iter().map(|o| format!("{0} = s.{0}", quote_identifier(&o.column)))),
            list(set.iter().chain(&keys).map(|o| self.named(o))),
            rows_from(&inputs, before),
            matching(&keys, "s"),
        );
        Statement { sql, columns: inputs.iter().map(|input| input.index).collect() }
    }

    /// Finds rows by their key.
    pub fn find(&self) -> Statement {
        self.by_key("SELECT 1", ",", 0)
    }

    pub fn delete(&self) -> Statement {
        self.delete_after(0)
    }

    /// [`Mapping::delete`] with so many parameters before its own.
    pub fn delete_after(&self, before: usize) -> Statement {
        self.by_key("DELETE", " USING", before)
    }

    fn by_key(&self, deed: &str, joined: &str, before: usize) -> Statement {
        let (keys, inputs) = (self.key_outputs(), self.key_inputs());
        let sql = format!(
            "{deed} FROM {} AS t{joined} (SELECT {} FROM {}) AS s WHERE {}",
            self.to.quoted(),
            list(keys.iter().map(|o| self.named(o))),
            rows_from(&inputs, before),
            matching(&keys, "s"),
        );
        Statement { sql, columns: inputs.iter().map(|input| input.index).collect() }
    }

    /// Changes rows' keys and these columns: the first parameters are the new rows', then the old keys'.
    pub fn rekey(&self, columns: &BTreeSet<usize>) -> (Statement, Vec<usize>) {
        self.rekey_after(0, columns)
    }

    /// [`Mapping::rekey`] with so many parameters before its own.
    pub fn rekey_after(&self, before: usize, columns: &BTreeSet<usize>) -> (Statement, Vec<usize>) {
        let keys = self.key_outputs();
        let set = columns.iter().filter_map(|number| self.outputs.get(*number));
        let set: Vec<&Output> = keys.iter().copied().chain(set).collect();
        let (inputs, old) = (self.inputs_of(&set), self.key_inputs());
        let row = |of: &str, inputs: &[Input]| {
            let cast = |(n, i): (usize, &Input)| {
                format!("u.{of}{n}::{} AS {}", i.cast_type, quote_identifier(&i.name))
            };
            list(inputs.iter().enumerate().map(cast))
        };
        let names = |of: &str, inputs: &[Input]| list((0..inputs.len()).map(|n| format!("{of}{n}")));
        let arrays = (1..=inputs.len() + old.len()).map(|n| format!("${}::text[]", n + before));
        let sql = format!(
            "UPDATE {} AS t SET {} FROM unnest({}) AS u({}, {}), LATERAL (SELECT {} FROM (SELECT {}) AS r) AS s, \
             LATERAL (SELECT {} FROM (SELECT {}) AS r) AS o WHERE {}",
            self.to.quoted(),
            list(set.iter().map(|o| format!("{0} = s.{0}", quote_identifier(&o.column)))),
            list(arrays),
            names("v", &inputs),
            names("o", &old),
            list(set.iter().map(|o| self.named(o))),
            row("v", &inputs),
            list(keys.iter().map(|o| self.named(o))),
            row("o", &old),
            matching(&keys, "o"),
        );
        let statement = Statement { sql, columns: inputs.iter().map(|input| input.index).collect() };
        (statement, old.iter().map(|input| input.index).collect())
    }

    /// Whether an expression of a sink column reads a value that was sent and one that was not: then nobody knows its value.
    pub fn misses(&self, unchanged: &BTreeSet<usize>) -> bool {
        self.outputs.iter().any(|o| {
            let touched = o.reads.intersection(unchanged).count();
            touched > 0 && touched < o.reads.len()
        })
    }

    fn key_outputs(&self) -> Vec<&Output> {
        self.outputs.iter().filter(|output| output.is_key).collect()
    }

    fn numbers(&self, of: impl Fn(&Output) -> bool) -> BTreeSet<usize> {
        self.outputs.iter().enumerate().filter(|(_, output)| of(output)).map(|(number, _)| number).collect()
    }

    /// What these columns read.
    fn inputs_of<'o>(&self, outputs: impl IntoIterator<Item = &'o &'o Output>) -> Vec<Input> {
        let reads: BTreeSet<usize> = outputs.into_iter().flat_map(|output| output.reads.clone()).collect();
        self.inputs.iter().filter(|input| reads.contains(&input.index)).cloned().collect()
    }

    fn key_inputs(&self) -> Vec<Input> {
        self.inputs.iter().filter(|input| self.key.contains(&input.index)).cloned().collect()
    }

    fn named(&self, output: &Output) -> String {
        format!("({})::{} AS {}", output.expression, output.cast_type, quote_identifier(&output.column))
    }
}

/// `unnest` of text arrays, each column cast to its type under its source name.
fn rows_from(inputs: &[Input], parameters_before: usize) -> String {
    let casts = list(
        inputs
            .iter()
            .enumerate()
            .map(|(n, input)| format!("u.v{n}::{} AS {}", input.cast_type, quote_identifier(&input.name))),
    );
    let arrays = list((1..=inputs.len()).map(|n| format!("${}::text[]", n + parameters_before)));
    let names = list((0..inputs.len()).map(|n| format!("v{n}")));
    format!("(SELECT {casts} FROM unnest({arrays}) AS u({names})) AS r")
}

fn matching(keys: &[&Output], other: &str) -> String {
    let parts = keys.iter().map(|o| o.is(&format!("{other}.{}", quote_identifier(&o.column))));
    parts.collect::<Vec<_>>().join(" AND ")
}

fn list(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}

fn unsupported(table: &Table, column: &str, kind: &str) -> Box<Finding> {
    Box::new(Finding::error(
        Code::SourceUnsupportedType,
        format!(
            "column {column} of {} has type {kind}, whose text another database does not read back as the same value",
            table.from
        ),
        format!("leave it out with `drop: [{column}]` in the plan"),
    ))
}

fn no_column(table: &Table, column: &str, target: &str) -> Box<Finding> {
    Box::new(Finding::error(
        Code::SinkNoColumn,
        format!("column {column} of {} has no column {target} in {} to go to", table.from, table.to),
        format!(
            "add it to the service's table, or write `rename: {{ {column}: … }}` or `drop: [{column}]` in the plan; if {} has lost \
             the column meanwhile, copy the slice again with `strangler sync drop` and `strangler sync start`",
            table.from
        ),
    ))
}

fn no_set_column(table: &Table, target: &str) -> Box<Finding> {
    Box::new(Finding::error(
        Code::SinkNoColumn,
        format!("the plan sets column {target}, but {} has no such column", table.to),
        format!("add it to the service's table, or take `{target}` out of `set` in the plan"),
    ))
}

fn no_key(table: &Table) -> Box<Finding> {
    Box::new(Finding::error(
        Code::SinkOtherKey,
        format!("the primary keys of {} and {} do not match through the mapping", table.from, table.to),
        format!("give {} a primary key of the columns that the key of {} becomes", table.to, table.from),
    ))
}
