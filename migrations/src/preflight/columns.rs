//! Findings about a table's columns under the plan's mapping: does every value find its place unchanged?

use super::run;
use super::sight::{ColumnSeen, DatabaseSeen, IdentitySeen, TableSeen};
use crate::code::Code;
use crate::column_type::{ColumnType, Fit, fit};
use crate::finding::Finding;
use crate::names::quote_identifier;
use crate::plan::Table;
use std::collections::{BTreeMap, BTreeSet};

struct Pair<'a> {
    table: &'a Table,
    source: &'a TableSeen,
    sink: &'a TableSeen,
    sources: &'a DatabaseSeen,
    sinks: &'a DatabaseSeen,
}

pub(super) fn judge(table: &Table, source: &DatabaseSeen, sink: &DatabaseSeen, found: &mut Vec<Finding>) {
    let (Some(from), Some(to)) = (source.tables.get(&table.from), sink.tables.get(&table.to)) else { return };
    let pair = Pair { table, source: from, sink: to, sources: source, sinks: sink };
    pair.named_columns(found);
    pair.meeting_columns(found);
    for column in from.columns.iter().filter(|column| !column.is_generated()) {
        pair.column(column, found);
    }
    pair.generated(found);
    pair.expressions(found);
    pair.identities(found);
    pair.unfilled(found);
    pair.key(found);
}

impl Pair<'_> {
    fn target<'b>(&'b self, column: &'b str) -> &'b str {
        self.table.rename.get(column).map_or(column, String::as_str)
    }

    /// Whether the column's value goes over as it is.
    fn goes_over(&self, column: &str) -> bool {
        self.table.sink_column(column).is_some()
    }

    fn read_by_set(&self) -> BTreeSet<&str> {
        self.table.set.values().flat_map(|set| set.columns.iter().map(String::as_str)).collect()
    }

    fn named_columns(&self, found: &mut Vec<Finding>) {
        let renamed = self.table.rename.keys();
        let read = self.read_by_set();
        let named: BTreeSet<&str> =
            renamed.chain(&self.table.drop).map(String::as_str).chain(read.iter().copied()).collect();
        for name in named.into_iter().filter(|name| self.source.column(name).is_none()) {
            found.push(Finding::error(
                Code::SourceNoColumn,
                format!(
                    "the plan names column {name}, but the monolith's table {} has no such column",
                    self.table.from
                ),
                "correct the column's name in the plan",
            ));
        }
        for name in read {
            if self.source.column(name).is_some_and(|column| column.is_generated()) {
                found.push(Finding::error(
                    Code::SourceGeneratedInSet,
                    format!(
                        "`set` reads column {name} of {}, which is generated and therefore not in the stream",
                        self.table.from
                    ),
                    "write the generating expression itself in `set`",
                ));
            }
        }
    }

    /// Two source columns whose values go to one sink column: the plan alone cannot know that both are there.
    fn meeting_columns(&self, found: &mut Vec<Finding>) {
        let mut places: BTreeMap<&str, &str> = BTreeMap::new();
        for column in self.source.columns.iter().filter(|column| !column.is_generated()) {
            let Some(target) = self.table.sink_column(&column.name) else { continue };
            let Some(other) = places.insert(target, &column.name) else { continue };
            // The one that the plan says nothing of is the one to be said something of.
            let unsaid = if self.table.rename.contains_key(&column.name) { other } else { &column.name };
            found.push(Finding::error(
                Code::PlanColumnTwice,
                format!("columns {other} and {} of {} both go to {target}", column.name, self.table.from),
                format!(
                    "write `drop: [{unsaid}]` at table {} of the plan, or rename it as well",
                    self.table.from
                ),
            ));
        }
    }

    fn column(&self, column: &ColumnSeen, found: &mut Vec<Finding>) {
        let goes_over = self.goes_over(&column.name);
        let is_read = self.read_by_set().contains(column.name.as_str());
        if !goes_over && !is_read {
            return;
        }
        let drop = format!("write `drop: [{}]` at table {} of the plan", column.name, self.table.from);
        if let Some((part, why)) = column.kind.refused() {
            let message = format!(
                "column {} of {} has type {}, which strangler does not carry: {part} {why}",
                column.name, self.table.from, column.declared
            );
            found.push(Finding::error(Code::SourceType, message, drop));
            return;
        }
        if self.source.large_objects.contains(&column.name) {
            let message = format!(
                "column {} of {} names large objects: their numbers are carried, what is in them is not",
                column.name, self.table.from
            );
            let hint = format!("move the contents into a column of type bytea, or {drop}");
            found.push(Finding::warning(Code::SourceLargeObject, message, hint));
        }
        if !goes_over {
            return;
        }
        let target = self.target(&column.name);
        let Some(sink) = self.sink.column(target) else {
            let add = format!(
                "ALTER TABLE {} ADD COLUMN {} {};",
                self.table.to.quoted(),
                quote_identifier(target),
                column.declared
            );
            found.push(Finding::error(
                Code::SinkNoColumn,
                format!(
                    "column {} of {} has no target: the service's table {} has no column {target}",
                    column.name, self.table.from, self.table.to
                ),
                format!("{drop}, or {}", run(&self.sinks.database, &add)),
            ));
            return;
        };
        if sink.is_generated() {
            let message = format!(
                "column {target} of the service's table {} is generated and cannot be written",
                self.table.to
            );
            found.push(Finding::error(Code::SinkGeneratedColumn, message, drop));
            return;
        }
        self.fits(column, sink, found);
        if column.is_nullable && !sink.is_nullable {
            let relax = format!(
                "ALTER TABLE {} ALTER COLUMN {} DROP NOT NULL;",
                self.table.to.quoted(),
                quote_identifier(target)
            );
            found.push(Finding::warning(
                Code::SinkNotNull,
                format!("column {} of {} may be null, column {target} of {} may not: the first null stops the slice", column.name, self.table.from, self.table.to),
                run(&self.sinks.database, &relax),
            ));
        }
    }

    fn fits(&self, column: &ColumnSeen, sink: &ColumnSeen, found: &mut Vec<Finding>) {
        let alter = format!(
            "ALTER TABLE {0} ALTER COLUMN {1} TYPE {2} USING {1}::{2};",
            self.table.to.quoted(),
            quote_identifier(&sink.name),
            column.declared
        );
        let what = format!(
            "column {} of {} is {}, column {} of the service's {} is {}",
            column.name, self.table.from, column.declared, sink.name, self.table.to, sink.declared
        );
        match fit(&column.kind, column.modifier, &sink.kind, sink.modifier) {
            Fit::Exact => {}
            Fit::Rewrites => found.push(Finding::warning(
                Code::SinkJsonRewritten,
                format!("{what}: order, blanks and repeated keys are lost, and \\u0000 stops the slice"),
                format!("leave it if only the meaning counts, or {}", run(&self.sinks.database, &alter)),
            )),
            Fit::MayRefuse => found.push(Finding::warning(
                Code::SinkNarrowerType,
                format!("{what}: a value that does not fit stops the slice"),
                run(&self.sinks.database, &alter),
            )),
            Fit::Changes => found.push(Finding::error(
                Code::SinkType,
                format!("{what}: values would not arrive unchanged"),
                format!(
                    "write a `set` for {} in the plan, or {}",
                    sink.name,
                    run(&self.sinks.database, &alter)
                ),
            )),
        }
    }

    fn expressions(&self, found: &mut Vec<Finding>) {
        for (target, set) in &self.table.set {
            match self.sink.column(target) {
                None => found.push(Finding::error(
                    Code::SinkNoColumn,
                    format!(
                        "the plan sets column {target}, but the service's table {} has no such column",
                        self.table.to
                    ),
                    "add the column there, or correct its name in the plan",
                )),
                Some(column) if column.is_generated() => found.push(Finding::error(
                    Code::SinkGeneratedColumn,
                    format!("the plan sets column {target} of {}, which is generated", self.table.to),
                    format!("take `{target}` out of `set`"),
                )),
                Some(_) => {}
            }
            self.collation(target, &set.columns, found);
            let toastable =
                set.columns.iter().find(|c| self.source.column(c).is_some_and(|c| c.is_toastable));
            if let Some(column) = toastable.filter(|_| self.source.identity != IdentitySeen::Full) {
                let statement = format!("ALTER TABLE {} REPLICA IDENTITY FULL;", self.table.from.quoted());
                found.push(Finding::error(
                    Code::SourceToastInSet,
                    format!("`set` of {target} reads column {column} of {}, whose large values the stream leaves out when they did not change", self.table.from),
                    self.before_full(run(&self.sources.database, &statement)),
                ));
            }
        }
    }

    /// What an expression makes of a text may depend on the database's locale: its order, its upper-case letters.
    fn collation(&self, target: &str, read: &BTreeSet<String>, found: &mut Vec<Finding>) {
        // `en_US.UTF-8` and `en_US.utf8` are one locale.
        let plain = |database: &DatabaseSeen| database.collation.to_lowercase().replace("utf-8", "utf8");
        if plain(self.sources) == plain(self.sinks) {
            return;
        }
        let is_text = |column: &&ColumnSeen| {
            let text = [ColumnType::Text, ColumnType::Array(Box::new(ColumnType::Text))];
            text.contains(&ColumnType::of(&column.kind, column.modifier))
                && !column.exact.contains(" COLLATE ")
        };
        let mut columns = read.iter().filter_map(|name| self.source.column(name));
        if let Some(column) = columns.find(is_text) {
            found.push(Finding::warning(
                Code::PlanOtherCollation,
                format!(
                    "`set` of {target} reads the text {} of {}: the monolith's database compares texts by {}, the service's by {}",
                    column.name, self.table.from, self.sources.collation, self.sinks.collation
                ),
                format!(
                    "ignore it if the expression neither compares texts nor changes the case of letters; else make the service's database with the monolith's locale, or name one in the expression: {} COLLATE \"C\"",
                    quote_identifier(&column.name)
                ),
            ));
        }
    }

    /// While only some columns are published, the application's updates would fail under REPLICA IDENTITY FULL.
    fn before_full(&self, hint: String) -> String {
        let published = self.sources.installed.as_ref().and_then(|installed| installed.published.as_ref());
        match published.and_then(|published| published.get(&self.table.from)) {
            Some(Some(_)) => {
                format!("run `strangler sync drop` for its slice and `strangler install` first, then {hint}")
            }
            _ => hint,
        }
    }

    /// Source columns that are computed and that the sink would have to be told, and their columns there.
    fn untold(&self) -> impl Iterator<Item = (&ColumnSeen, &ColumnSeen)> {
        self.source.columns.iter().filter(|column| column.is_generated()).filter_map(|column| {
            let sink = self.sink.column(self.table.sink_column(&column.name)?)?;
            (!sink.is_generated()).then_some((column, sink))
        })
    }

    fn generated(&self, found: &mut Vec<Finding>) {
        for (column, sink) in self.untold().filter(|(column, _)| !self.source.key.contains(&column.name)) {
            let expression = column.generated_as.as_deref().unwrap_or_default();
            found.push(Finding::error(
                Code::SourceGeneratedColumn,
                format!(
                    "column {} of {} is generated and therefore not in the stream: column {} of the service's {} would never get its values",
                    column.name, self.table.from, sink.name, self.table.to
                ),
                format!(
                    "write at table {} of the plan `set: {{ {}: {} }}`, make the service's column generated as well, or write `drop: [{}]`",
                    self.table.from,
                    sink.name,
                    quoted(expression),
                    column.name
                ),
            ));
        }
    }

    /// The sink's columns that get values from the source.
    fn filled(&self) -> BTreeSet<&str> {
        let own = self.source.columns.iter().filter(|column| !column.is_generated());
        let own = own.filter_map(|column| self.table.sink_column(&column.name));
        own.chain(self.table.set.keys().map(String::as_str)).collect()
    }

    /// Inserts override an identity that is always generated; an update of it is refused whatever it says.
    fn identities(&self, found: &mut Vec<Finding>) {
        let filled = self.filled();
        let always = self.sink.columns.iter().filter(|column| column.is_always_identity);
        for column in always.filter(|column| filled.contains(column.name.as_str())) {
            let statement = format!(
                "ALTER TABLE {} ALTER COLUMN {} SET GENERATED BY DEFAULT;",
                self.table.to.quoted(),
                quote_identifier(&column.name)
            );
            found.push(Finding::error(
                Code::SinkIdentityAlways,
                format!(
                    "column {} of the service's table {} is GENERATED ALWAYS AS IDENTITY: an update of it stops the slice",
                    column.name, self.table.to
                ),
                run(&self.sinks.database, &statement),
            ));
        }
    }

    fn unfilled(&self, found: &mut Vec<Finding>) {
        let mut known = self.filled();
        known.extend(self.untold().map(|(_, sink)| sink.name.as_str()));
        for column in &self.sink.columns {
            let fills_itself = column.is_nullable || column.has_default || column.is_generated();
            if fills_itself || known.contains(column.name.as_str()) {
                continue;
            }
            let relax = format!(
                "ALTER TABLE {} ALTER COLUMN {} DROP NOT NULL;",
                self.table.to.quoted(),
                quote_identifier(&column.name)
            );
            found.push(Finding::error(
                Code::SinkUnfilledColumn,
                format!(
                    "column {} of the service's table {} may not be null, and nothing fills it",
                    column.name, self.table.to
                ),
                format!("write a `set` for it in the plan, or {}", run(&self.sinks.database, &relax)),
            ));
        }
    }

    fn key(&self, found: &mut Vec<Finding>) {
        if self.source.key.is_empty() {
            return;
        }
        let is_computed = |name: &&String| self.source.column(name).is_some_and(ColumnSeen::is_generated);
        if let Some(column) = self.source.key.iter().find(is_computed) {
            let statement = format!(
                "ALTER TABLE {} ALTER COLUMN {} DROP EXPRESSION;",
                self.table.from.quoted(),
                quote_identifier(column)
            );
            found.push(Finding::error(
                Code::SourceGeneratedKey,
                format!(
                    "column {column} of {} is part of its primary key and generated: it is not in the stream, so no change can \
                     be told to a row",
                    self.table.from
                ),
                format!("let the application write it, and {}", run(&self.sources.database, &statement)),
            ));
            return;
        }
        let lost: Vec<&String> = self.source.key.iter().filter(|column| !self.goes_over(column)).collect();
        if let Some(column) = lost.first() {
            found.push(Finding::error(
                Code::PlanKeyLost,
                format!(
                    "column {column} of {} is part of its primary key and must go over as it is",
                    self.table.from
                ),
                format!("take `{column}` out of `drop` and `set`"),
            ));
            return;
        }
        let wanted: Vec<&str> = self.source.key.iter().map(|column| self.target(column)).collect();
        let has: BTreeSet<&str> = self.sink.key.iter().map(String::as_str).collect();
        if has == wanted.iter().copied().collect() {
            return;
        }
        let to = self.table.to.quoted();
        let list = wanted.iter().map(|column| quote_identifier(column)).collect::<Vec<_>>().join(", ");
        let hint = if self.sink.key.is_empty() {
            run(&self.sinks.database, &format!("ALTER TABLE {to} ADD PRIMARY KEY ({list});"))
        } else {
            format!("give {to} the primary key ({list}) instead of ({})", self.sink.key.join(", "))
        };
        found.push(Finding::error(
            Code::SinkOtherKey,
            format!(
                "the service's table {} does not have the primary key of {}",
                self.table.to, self.table.from
            ),
            hint,
        ));
    }
}

/// A text as the plan's YAML has it in double quotes (YAML 1.2, 7.3.1), where `$$` is one `$`.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '$' => quoted.push_str("$$"),
            _ => quoted.push(c),
        }
    }
    quoted + "\""
}
