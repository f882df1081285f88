//! How requests fared lately, as a table: by route and side, what fails first.

use crate::ui::figure;
use crate::ui::grid::{Grid, bad, doubtful, good, plain, strong};
use comfy_table::Cell;
use migrations::api::{RouteTraffic, Status};
use migrations::fared::BOUNDS_MS;
use migrations::gate::Side;
use std::collections::BTreeMap;

const ROWS_MAX: usize = 20;
/// From one failure in so many requests on, a side is not well.
const FAILURE_IN: u64 = 20;

/// None if no proxy reported a request.
pub(super) fn table(status: &Status) -> Option<String> {
    let of_slices = status.slices.iter().flat_map(|(slice, stands)| {
        let of_route = move |traffic| (slice, traffic);
        stands
            .routes
            .iter()
            .flat_map(move |route| route.traffic.iter().map(move |one| (route, one)))
            .map(of_route)
    });
    let named = of_slices.map(|(slice, (route, one))| (format!("{slice}.{}", route.name), one));
    let unmatched = status.unmatched.iter().map(|one| ("(no route)".to_owned(), one));
    let mut rows: Vec<(String, &RouteTraffic)> = named.chain(unmatched).collect();
    sort(&mut rows);
    let mut grid = Grid::new(&["route", "answered by", "requests", "failed", "99 of 100 within"]);
    for (name, one) in rows.iter().take(ROWS_MAX) {
        let side = match one.side {
            Side::Monolith => "monolith",
            Side::Service => "service",
        };
        grid.row([strong(name), plain(side), plain(rate(one.per_second)), failures(one), plain(p99(one))]);
    }
    let more = rows.len().saturating_sub(ROWS_MAX);
    let more = if more > 0 {
        format!("\n… and {more} more: `strangler status --output json`")
    } else {
        String::new()
    };
    (!rows.is_empty()).then(|| grid.text() + &more)
}

/// The routes that fail most stand first, then the busiest. The sides of a route stand together.
fn sort(rows: &mut [(String, &RouteTraffic)]) {
    let mut routes: BTreeMap<String, (u64, f64)> = BTreeMap::new();
    for (name, one) in &*rows {
        let (failures, rate) = routes.entry(name.clone()).or_default();
        *failures = failures.saturating_add(failed(one));
        *rate += one.per_second;
    }
    rows.sort_by(|(a, one), (b, other)| {
        let ((a_failed, a_rate), (b_failed, b_rate)) = (routes[a], routes[b]);
        let by_route = b_failed.cmp(&a_failed).then(b_rate.total_cmp(&a_rate)).then_with(|| a.cmp(b));
        let by_side = failed(other).cmp(&failed(one)).then(other.per_second.total_cmp(&one.per_second));
        by_route.then(by_side)
    });
}

fn failed(one: &RouteTraffic) -> u64 {
    one.errors.saturating_add(one.unanswered)
}

fn rate(per_second: f64) -> String {
    if per_second < 10.0 { format!("{per_second:.1}/s") } else { format!("{per_second:.0}/s") }
}

fn failures(one: &RouteTraffic) -> Cell {
    let failed = failed(one);
    if failed == 0 {
        return good("0");
    }
    let kinds = [(one.errors, "5xx"), (one.unanswered, "unanswered")];
    let kinds = kinds.into_iter().filter(|(count, _)| *count > 0);
    let kinds: Vec<String> = kinds.map(|(count, kind)| format!("{} {kind}", figure::count(count))).collect();
    let text = format!("{} %: {}", figure::percent(failed, one.requests), kinds.join(", "));
    if failed.saturating_mul(FAILURE_IN) >= one.requests { bad(text) } else { doubtful(text) }
}

fn p99(one: &RouteTraffic) -> String {
    match (one.p99_ms, BOUNDS_MS.last()) {
        (Some(ms), _) => figure::span(ms),
        (None, Some(last)) => format!("more than {}", figure::span(*last)),
        (None, None) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(per_second: f64, requests: u64, errors: u64, unanswered: u64) -> RouteTraffic {
        RouteTraffic { side: Side::Service, per_second, requests, errors, unanswered, p99_ms: Some(20) }
    }

    fn status(unmatched: Vec<RouteTraffic>) -> Status {
        let text = serde_json::json!({
            "plan": "shop", "journal": "00000000-0000-0000-0000-000000000000", "generation": 0, "now": 0,
            "slices": {}, "agents": [], "findings": [], "unmatched": unmatched,
        });
        serde_json::from_value(text).unwrap()
    }

    #[test]
    fn what_fails_stands_first_and_says_how() {
        assert_eq!(table(&status(Vec::new())), None);
        let text = table(&status(vec![one(12.4, 700, 0, 0), one(0.5, 30, 2, 1)])).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].contains("0.5/s") && lines[1].contains("10 %: 2 5xx, 1 unanswered"), "{text}");
        assert!(lines[2].contains("12/s") && lines[2].contains("20 ms"), "{text}");
    }

    #[test]
    fn the_sides_of_a_route_stand_together() {
        let (many, few, failing) = (one(9.0, 60, 0, 0), one(1.0, 60, 0, 0), one(2.0, 60, 1, 0));
        let named = |name: &str, one| (name.to_owned(), one);
        let mut rows = vec![
            named("a", &few),
            named("b", &few),
            named("c", &failing),
            named("b", &many),
            named("c", &many),
        ];
        sort(&mut rows);
        let told: Vec<(&str, f64)> = rows.iter().map(|(name, one)| (name.as_str(), one.per_second)).collect();
        assert_eq!(told, [("c", 2.0), ("c", 9.0), ("b", 9.0), ("b", 1.0), ("a", 1.0)]);
    }

    #[test]
    fn a_long_table_is_cut() {
        let rows = (0..ROWS_MAX + 3).map(|_| one(1.0, 60, 0, 0)).collect();
        let text = table(&status(rows)).unwrap();
        assert!(text.ends_with("… and 3 more: `strangler status --output json`"), "{text}");
        let slow = RouteTraffic { p99_ms: None, ..one(1.0, 60, 0, 0) };
        assert_eq!(p99(&slow), "more than 30.0 s");
    }
}
