//! Findings about the hold: has a proxy room for the writes that come meanwhile, and do they wait long enough but not too long?

use super::sight::DatabaseSeen;
use crate::code::Code;
use crate::cutover::HOLD;
use crate::finding::Finding;
use crate::plan::{Plan, Slice};

/// Many clients and load balancers give up after so long.
const CLIENTS_WAIT_MS: u64 = 30_000;

pub(super) fn judge(
    plan: &Plan,
    slice: &Slice,
    monolith: &DatabaseSeen,
    _: &DatabaseSeen,
    found: &mut Vec<Finding>,
) {
    let hold = plan.proxy.hold;
    let hold_ms = u64::try_from(HOLD.as_millis()).unwrap_or(u64::MAX);
    if hold.wait_ms_max < hold_ms {
        found.push(Finding::warning(
            Code::HoldPatience,
            format!(
                "a write waits at most {} ms at a proxy, and a cutover may hold writes for {hold_ms} ms",
                hold.wait_ms_max
            ),
            format!(
                "write `proxy: {{ hold: {{ max_wait: {hold_ms}ms }} }}` in the plan, or hold for less: `strangler cutover {} \
                 --hold {}ms`",
                slice.name, hold.wait_ms_max
            ),
        ));
    }
    if hold.wait_ms_max > CLIENTS_WAIT_MS {
        found.push(Finding::warning(
            Code::HoldPatience,
            format!(
                "a write may wait {} s at a proxy; many clients and load balancers give up after {} s and do not know \
                 whether it was done",
                hold.wait_ms_max / 1000,
                CLIENTS_WAIT_MS / 1000
            ),
            "write less than your clients wait as `proxy: { hold: { max_wait: … } }` in the plan",
        ));
    }
    // Rows are more than requests, so this is the worst that can come.
    let rows = slice.tables.iter().filter_map(|table| monolith.rows_written.get(&table.from)).sum::<u64>();
    let waiting = rows.saturating_mul(hold_ms.min(hold.wait_ms_max)) / 1000;
    if waiting > hold.writes_max {
        found.push(Finding::warning(
            Code::HoldRoom,
            format!(
                "{rows} rows a second are written to the slice's tables: if each were a request, {waiting} would wait in a hold \
                 of {hold_ms} ms, and one proxy keeps {}",
                hold.writes_max
            ),
            format!(
                "write `proxy: {{ hold: {{ max_writes: {waiting} }} }}` in the plan, or hold for less: `strangler cutover {} \
                 --hold 1s`",
                slice.name
            ),
        ));
    }
}
