//! The way back while the monolith's database is down, and with it the journal.

use crate::house::{House, Log};
use std::fs;

/// The database dies, then the controller, and a new one starts without a journal to read.
#[tokio::test(flavor = "multi_thread")]
async fn a_route_comes_back_without_the_database_and_the_journal_learns_of_it() {
    let house = House::following(&Log::Embedded);
    house.ok(&["route", "set", "orders", "100%"]);
    let generation = house.status()["generation"].clone();
    let remembered = house.state().join("controller/remembered.json");
    house.eventually("a remembered journal", || {
        fs::read_to_string(&remembered)
            .is_ok_and(|text| text.contains(&format!("\"generation\":{generation}")))
    });
    house.source.kill();
    house.kill("controller");
    let taken = ["route", "set", "orders.show", "monolith", "--emergency", "--reason", "it burns"];
    house.eventually("a controller that takes the route back", || {
        let output = house.command(&taken).output().unwrap();
        output.status.success() && String::from_utf8_lossy(&output.stdout).contains("on 1 of 1 live proxies")
    });
    house.kill("proxy");
    // The new proxy hears of it too, though no controller can confirm anything.
    house.eventually("a proxy that obeys again", || house.command(&taken).output().unwrap().status.success());
    house.source.restart();
    house.eventually("a journal that has it", || {
        let output = house.command(&["journal", "--output", "json"]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).contains("in an emergency: it burns")
    });
    house.eventually("a route that is the monolith's", || {
        let routes = house.command(&["route", "list", "--output", "json"]).output().unwrap();
        let routes = String::from_utf8_lossy(&routes.stdout).into_owned();
        routes.contains("\"share\":\"monolith\"") && !routes.contains("\"recalled\":true")
    });
}
