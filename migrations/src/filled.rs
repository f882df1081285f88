//! Which of a service's tables a copy filled, by what its database keeps (`strangler.stream`), and which may therefore be
//! emptied.

use crate::names::TableName;
use crate::plan::Slice;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Sink tables that were filled by a copy; none where an older strangler did not keep which.
pub type Filled = Option<BTreeSet<TableName>>;

/// The sink tables of the slice as the plan has them.
pub fn all(slice: &Slice) -> BTreeSet<TableName> {
    slice.all_tables().map(|table| table.to.clone()).collect()
}

/// Those of them whose rows are a copy's. A table that left the plan is not among them: the service may write it again.
pub fn ours(slice: &Slice, filled: &Filled) -> BTreeSet<TableName> {
    let all = all(slice);
    match filled {
        Some(filled) => &all & filled,
        None => all,
    }
}

/// What is kept about them. An older strangler kept only the shapes of the source tables that it had copied; where even
/// those cannot be read, nothing is known.
pub fn read(slice: &Slice, filled: Option<Value>, shapes: Option<Value>) -> Filled {
    let told = filled.and_then(|filled| serde_json::from_value(filled).ok()).flatten();
    told.or_else(|| {
        let shapes: BTreeMap<TableName, Value> = serde_json::from_value(shapes?).ok()?;
        let copied = slice.all_tables().filter(|table| shapes.contains_key(&table.from));
        (!shapes.is_empty()).then(|| copied.map(|table| table.to.clone()).collect())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const PLAN: &str = "{ version: 1, name: shop, monolith: { upstream: 'http://a:1', database: 'postgres://s@h/a' }, services: \
        { orders: { upstream: 'http://b:1', database: 'postgres://s@h/b' } }, slices: { orders: { service: orders, routes: \
        { list: GET /orders }, tables: [{ from: public.orders, to: public.sales }, public.notes] } } }";

    #[test]
    fn what_an_older_release_filled_is_told_by_the_shapes_it_kept() {
        let (plan, _) = crate::plan::check("plan.yaml", PLAN, &|_| None).unwrap();
        let slice = plan.slices.values().next().unwrap();
        let sales: BTreeSet<TableName> = ["public.sales".parse().unwrap()].into();
        let shapes = || Some(json!({ "public.orders": {}, "public.gone": {} }));
        assert_eq!(read(slice, None, shapes()), Some(sales.clone()));
        assert_eq!(read(slice, Some(Value::Null), shapes()), Some(sales.clone()));
        assert_eq!(read(slice, Some(json!([])), shapes()), Some([].into()));
        let unknown = [None, Some(json!({})), Some(json!(7))].map(|shapes| read(slice, None, shapes));
        assert_eq!(unknown, [None, None, None]);
        assert_eq!(ours(slice, &None), all(slice));
        let left = Some(["public.sales", "public.left"].map(|name| name.parse().unwrap()).into());
        assert_eq!(ours(slice, &left), sales, "a table that left the plan is not ours to empty");
    }
}
