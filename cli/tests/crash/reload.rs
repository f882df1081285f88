//! Edits of the plan while a slice is followed and its rows are written.

use crate::goes_on;
use crate::house::{House, Log};
use std::fs;

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_goes_on_with_a_followed_slice_and_does_not_tear_it() {
    let house = House::following(&Log::Embedded);
    let plan = fs::read_to_string(house.plan()).unwrap();
    let pids = || ["controller", "bridge", "proxy"].map(|part| house.pid(part).unwrap());
    let before = pids();
    for (from, to, named) in [
        ("rename: { note: remark }", "drop: [note]", "strangler sync drop orders"),
        ("show: 'GET /orders/{id}'", "read: 'GET /orders/{id}'", ""),
        ("name: shop", "name: other", "the plan's name"),
    ] {
        fs::write(house.plan(), plan.replacen(from, to, 1)).unwrap();
        let (exit, said) = house.tried(&["reload"]);
        if named.is_empty() {
            // No request of the route goes to the service.
            assert_eq!(exit, 0, "{said}");
            continue;
        }
        assert_eq!(exit, 4, "{said}");
        assert!(said.contains("plan.in-use") && said.contains(named), "{said}");
    }
    let after = pids();
    assert_eq!(before[2], after[2], "the proxy has no new settings");
    assert_ne!(before[1], after[1]);

    let mut waits = 30;
    goes_on(&house, |house, _| {
        waits += 1;
        fs::write(house.plan(), format!("{plan}limits: {{ max_staleness: {waits}s }}\n")).unwrap();
        let old = house.pid("bridge");
        let said = house.ok(&["reload"]);
        assert!(said.contains("replaced: controller, bridge"), "{said}");
        assert_ne!(house.pid("bridge"), old);
        assert_eq!(house.status()["slices"]["orders"]["stage"], "following");
    })
    .await;
    let journal = house.ok(&["journal"]);
    assert!(!journal.contains("evicted"), "no slice is copied again: {journal}");
}
