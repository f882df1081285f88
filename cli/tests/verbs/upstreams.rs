//! How requests fare, and upstreams that do not answer: what `status`, `doctor` and `up` say of them.

use super::controller::{self, status};
use super::{PLAN, folder, folder_at, strangler};
use serde_json::{Value, json};
use std::net::TcpListener;

#[test]
fn status_shows_how_each_route_fares_and_fails_while_an_upstream_is_down() {
    let finding = |severity: &str| json!({ "code": "upstream.unwell", "severity": severity, "message": "the monolith does not answer", "remedy": "start it" });
    for (severity, code) in [("warning", 0), ("error", 1)] {
        let mut stands = status(&[], &[finding(severity)]);
        let traffic = json!([{ "side": "service", "per_second": 3.5, "requests": 200, "errors": 20, "unanswered": 0, "p99_ms": 50 }]);
        stands["slices"]["orders"]["routes"] = json!([{ "name": "list", "match": "GET /orders", "access": "read", "share": "100%", "traffic": traffic }]);
        let (port, _asked) = controller::start(vec![("/v1/status", stands)]);
        let said = strangler(folder_at(PLAN, port).path(), &["status"]);
        assert_eq!(said.code, Some(code), "{}", said.all());
        let row = said.out.lines().find(|line| line.contains("orders.list")).unwrap_or_default();
        assert!(
            row.contains("service") && row.contains("10 %: 20 5xx") && row.contains("50 ms"),
            "{}",
            said.out
        );
        assert!(said.out.contains("the monolith does not answer"), "{}", said.out);
    }
}

#[test]
fn doctor_finds_an_upstream_without_an_address_that_answers() {
    let alive = TcpListener::bind("127.0.0.1:0").unwrap();
    let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let alive = alive.local_addr().unwrap();
    let doctor = |monolith: &str| {
        let plan = format!(
            "version: 1\nname: shop\nmonolith: {{ upstream: {monolith} }}\nservices: {{ orders: {{ upstream: \"http://{alive}\" }} }}\n\
             slices: {{ orders: {{ service: orders, routes: {{ list: GET /orders }} }} }}\n"
        );
        strangler(folder(&plan).path(), &["doctor", "--output", "json"])
    };
    let whole = doctor(&format!("\"http://{dead}\""));
    assert_eq!(whole.code, Some(3), "{}", whole.all());
    assert!(whole.all().contains("upstream.unreachable"), "{}", whole.all());
    let part = doctor(&format!("[\"http://{dead}\", \"http://{alive}\"]"));
    assert_eq!(part.code, Some(0), "{}", part.all());
    let document: Value = serde_json::from_str(&part.out).unwrap();
    assert_eq!(document["findings"][0]["severity"], "warning", "{document}");
}
