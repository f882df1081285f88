//! Which of a service's tables a copy filled (kept in `strangler.stream`), and which may therefore be emptied.

use crate::names::TableName;
use crate::plan::Slice;
use std::collections::BTreeSet;

/// The sink tables of the slice as the plan has them.
pub fn all(slice: &Slice) -> BTreeSet<TableName> {
    slice.all_tables().map(|table| table.to.clone()).collect()
}

/// Those of them whose rows are a copy's. A table that left the plan is not among them: the service may write it again.
pub fn ours(slice: &Slice, filled: &BTreeSet<TableName>) -> BTreeSet<TableName> {
    &all(slice) & filled
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: &str = "{ version: 1, name: shop, monolith: { upstream: 'http://a:1', database: 'postgres://s@h/a' }, services: \
        { orders: { upstream: 'http://b:1', database: 'postgres://s@h/b' } }, slices: { orders: { service: orders, routes: \
        { list: GET /orders }, tables: [{ from: public.orders, to: public.sales }, public.notes] } } }";

    #[test]
    fn a_table_that_left_the_plan_is_not_ours_to_empty() {
        let (plan, _) = crate::plan::check("plan.yaml", PLAN, &|_| None).unwrap();
        let slice = plan.slices.values().next().unwrap();
        let tables = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect::<BTreeSet<_>>();
        assert_eq!(all(slice), tables(&["public.notes", "public.sales"]));
        assert_eq!(ours(slice, &tables(&["public.sales", "public.left"])), tables(&["public.sales"]));
        assert_eq!(ours(slice, &tables(&[])), tables(&[]));
    }
}
