//! A lane as the plan has it: which tables go which way, from where to where.

use migrations::control::LaneOrder;
use migrations::lane::{Direction, LaneId, Right};
use migrations::names::TableName;
use migrations::plan::{DatabaseUrl, Plan, Slice, Table};
use migrations::sql::Database;
use migrations::stage::Stage;
use std::collections::BTreeSet;

/// One slice in one direction.
#[derive(Debug, Clone)]
pub(crate) struct LanePlan {
    pub(crate) id: LaneId,
    pub(crate) slice: Slice,
    /// The slice's tables as this lane sees them: `from` is the feed's, `to` the sink's.
    pub(crate) tables: Vec<Table>,
    pub(crate) feed: Database,
    pub(crate) sink: DatabaseUrl,
    /// What the marks of the opposite lane begin with.
    echo: String,
}

impl LanePlan {
    /// The lanes of every slice with tables: forward, and back if all tables that move have a way back. Reference tables
    /// do not come back, as a service only reads them.
    pub(crate) fn all(plan: &Plan) -> Vec<LanePlan> {
        let mut lanes = Vec::new();
        for slice in plan.slices.values().filter(|slice| !slice.is_stateless()) {
            let service = Database::Service(slice.service.clone());
            let (Some(source), Some(sink)) = (Database::Monolith.url(plan), service.url(plan)) else {
                continue;
            };
            let lane = |id: LaneId, tables, feed, sink: &DatabaseUrl| {
                let echo = format!("{}@", id.opposite());
                LanePlan { id, slice: slice.clone(), tables, feed, sink: sink.clone(), echo }
            };
            let tables = slice.all_tables().cloned().collect();
            lanes.push(lane(LaneId::forward(slice.name.clone()), tables, Database::Monolith, sink));
            if slice.may_return() {
                let tables = slice.tables.iter().map(Table::reversed).collect();
                lanes.push(lane(LaneId::reverse(slice.name.clone()), tables, service, source));
            }
        }
        lanes
    }

    /// The same lane with only these of its feed's tables.
    pub(crate) fn part(&self, tables: &BTreeSet<TableName>) -> LanePlan {
        let is_meant = |table: &Table| tables.contains(&table.from);
        LanePlan {
            slice: self.slice.only(is_meant),
            tables: self.tables.iter().filter(|table| is_meant(table)).cloned().collect(),
            ..self.clone()
        }
    }

    /// Its tables in the feed's database.
    pub(crate) fn sources(&self) -> BTreeSet<TableName> {
        self.tables.iter().map(|table| table.from.clone()).collect()
    }

    /// The tables whose changes an order asks for, in the feed's database. When there is no way back any more, the tables
    /// that moved may be dropped there; copies of reference tables are still followed.
    pub(crate) fn wanted(&self, order: &LaneOrder) -> BTreeSet<TableName> {
        match (order.stage, order.right) {
            (Stage::Monolith, _) | (_, Right::Rest) => BTreeSet::new(),
            (Stage::Retired, _) => {
                self.sources().into_iter().filter(|table| self.is_reference(table)).collect()
            }
            _ => self.sources(),
        }
    }

    /// Whether a table of the feed's is one that the service only reads.
    pub(crate) fn is_reference(&self, table: &TableName) -> bool {
        self.id.direction == Direction::Forward && self.slice.reference.iter().any(|one| one.from == *table)
    }

    /// Whether a change with this mark was written by the lane that brings the same slice's rows the other way.
    pub(crate) fn is_echo(&self, mark: &str) -> bool {
        mark.starts_with(&self.echo)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: &str = "{ version: 1, name: shop, monolith: { upstream: 'http://a:1', database: 'postgres://s@h/a' }, \
        services: { orders: { upstream: 'http://b:1', database: 'postgres://s@h/b' } }, \
        slices: { orders: { service: orders, routes: { list: GET /orders }, \
        tables: [{ from: public.orders, to: public.sales, rename: { qty: quantity }, drop: [flags], \
        set: { cents: 'total * 100' }, reverse: { total: 'cents / 100' } }], reference: [public.customers] } } }";

    fn lanes() -> Vec<LanePlan> {
        let (plan, _) = migrations::plan::check("plan.yaml", PLAN, &|_| None).unwrap();
        LanePlan::all(&plan)
    }

    #[test]
    fn a_slice_has_a_lane_each_way_and_reference_tables_do_not_come_back() {
        let told: Vec<String> = lanes()
            .iter()
            .map(|lane| {
                let sources: Vec<String> = lane.sources().iter().map(ToString::to_string).collect();
                format!("{} from {}: {}", lane.id, lane.feed.as_str(), sources.join(" "))
            })
            .collect();
        assert_eq!(
            told,
            [
                "orders/forward from monolith: public.customers public.orders",
                "orders/reverse from orders: public.sales"
            ]
        );
    }

    #[test]
    fn a_slice_whose_expressions_have_no_way_back_has_no_lane_back() {
        let text = PLAN.replace("reverse: { total: 'cents / 100' }", "reverse: {}");
        let (plan, _) = migrations::plan::check("plan.yaml", &text, &|_| None).unwrap();
        let lanes: Vec<String> = LanePlan::all(&plan).iter().map(|lane| lane.id.to_string()).collect();
        assert_eq!(lanes, ["orders/forward"]);
    }

    #[test]
    fn the_way_back_exchanges_columns_and_expressions() {
        let back = &lanes()[1].tables[0];
        assert_eq!(back.sink_column("quantity"), Some("qty"));
        assert_eq!(back.sink_column("id"), Some("id"));
        assert_eq!((back.sink_column("cents"), back.sink_column("flags")), (None, None));
        assert_eq!(back.set["total"].text, "cents / 100");
    }

    #[test]
    fn only_the_opposite_lane_of_the_same_slice_is_an_echo() {
        let forward = &lanes()[0];
        assert!(forward.is_echo("orders/reverse@3"));
        for other in ["orders/forward@3", "items/reverse@3", "orders/reverse", "orders", ""] {
            assert!(!forward.is_echo(other), "{other}");
        }
    }
}
