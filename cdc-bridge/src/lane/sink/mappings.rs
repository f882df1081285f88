//! How a source's tables become the sink's, as both are now.

use crate::lane::halt::Halt;
use crate::lane::kept::Shapes;
use crate::lane::plan::LanePlan;
use crate::lane::refusal::no_table;
use migrations::lane::Direction;
use migrations::names::TableName;
use migrations::preflight::ColumnSeen;
use rows::assemble;
use rows::change::Relation;
use rows::mapping::Mapping;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

pub(crate) struct Mappings {
    plan: LanePlan,
    /// The source's tables as they were copied.
    copied: Shapes,
    /// Of the sink's tables.
    columns: BTreeMap<TableName, Vec<ColumnSeen>>,
    known: HashMap<TableName, (Arc<Relation>, Arc<Mapping>)>,
}

impl Mappings {
    pub(crate) fn new(
        plan: LanePlan,
        copied: Shapes,
        columns: BTreeMap<TableName, Vec<ColumnSeen>>,
    ) -> Mappings {
        Mappings { plan, copied, columns, known: HashMap::new() }
    }

    pub(crate) fn copied(&self) -> &Shapes {
        &self.copied
    }

    pub(crate) fn columns(&self) -> &BTreeMap<TableName, Vec<ColumnSeen>> {
        &self.columns
    }

    /// Whether a source's table has still the shape that it was copied in, or one that goes on.
    pub(crate) fn check(&self, relation: &Relation) -> Result<(), Halt> {
        let table = self.plan.tables.iter().find(|table| table.from == relation.table);
        let copied = self.copied.get(&relation.table).filter(|copied| *copied != relation);
        let (Some(table), Some(copied)) = (table, copied) else { return Ok(()) };
        // A column that came later is left out, unless the sink has one for it: its older values would be missing.
        let has = |name: &str| {
            let sink = self.columns.get(&table.to).map(Vec::as_slice).unwrap_or_default();
            table.sink_column(name).is_some_and(|target| sink.iter().any(|c| c.name == target))
        };
        let used = |name: &str| self.knows(Some(copied), name) || has(name);
        let mut left_out = table.left_out();
        // One that has another name now is a column that the plan does not know.
        left_out.retain(|name| {
            let number = copied.index_of(name).map_or(0, |index| copied.columns[index].number);
            relation.columns.iter().all(|now| now.number != number || number == 0 || now.name == *name)
        });
        assemble::shape::compatible(&copied.without(&left_out), &relation.without(&left_out), used)
            .map_err(Halt::stop)
    }

    /// On the way back a column of the service's own has nowhere to go.
    fn knows(&self, copied: Option<&Relation>, name: &str) -> bool {
        self.plan.id.direction == Direction::Forward
            && copied.is_none_or(|copied| copied.index_of(name).is_some())
    }

    /// The mapping of a change's table as the table is now.
    pub(crate) fn of(&mut self, relation: &Arc<Relation>) -> Result<Arc<Mapping>, Halt> {
        if let Some((known, mapping)) = self.known.get(&relation.table)
            && Arc::ptr_eq(known, relation)
        {
            return Ok(mapping.clone());
        }
        let from = &relation.table;
        let table = self.plan.tables.iter().find(|table| table.from == *from).cloned();
        let Some(table) = table else { return Err(Halt::stop(no_table(from))) };
        let Some(sink) = self.columns.get(&table.to) else {
            return Err(Halt::stop(no_table(&table.to)));
        };
        let copied = self.copied.get(from);
        let known = |name: &str| self.knows(copied, name);
        self.check(relation)?;
        let mapping = Mapping::new(&table, relation, sink, known).map_err(Halt::stop)?;
        let is_new = |name: &&str| copied.is_some_and(|copied| copied.index_of(name).is_none());
        let left_out: Vec<&str> = relation
            .columns
            .iter()
            .map(|column| column.name.as_str())
            .filter(is_new)
            .filter(|name| table.sink_column(name).is_some())
            .collect();
        if !left_out.is_empty() {
            let (lane, columns) = (&self.plan.id, left_out.join(", "));
            tracing::warn!(%lane, table = %from, columns, "new columns that the sink does not have are left out");
        }
        let mapping = Arc::new(mapping);
        self.known.insert(from.clone(), (relation.clone(), mapping.clone()));
        Ok(mapping)
    }
}
