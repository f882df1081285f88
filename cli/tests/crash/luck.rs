//! Mistakes and bad luck around a followed slice: a second bridge, a deleted state folder, a house that is given up.

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use serde_json::Value;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::house::{House, Log};

const SLOTS: &str = "SELECT coalesce(string_agg(slot_name, ' '), '') FROM pg_replication_slots";
/// Everything of strangler's that a database may hold.
const REMAINS: &str = "
    SELECT 'slot ' || slot_name FROM pg_replication_slots
    UNION ALL SELECT 'publication ' || pubname FROM pg_publication
    UNION ALL SELECT 'role ' || rolname FROM pg_roles WHERE rolname LIKE '%strangler%'
    UNION ALL SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname LIKE '%strangler%'
    UNION ALL SELECT 'trigger ' || tgname FROM pg_trigger WHERE tgname LIKE '%strangler%'
    UNION ALL SELECT 'function ' || proname FROM pg_proc WHERE proname LIKE '%strangler%'";

/// Another bridge, which ends with the test.
struct Second(Child);

impl Second {
    /// In another folder, with the same plan but for its port, and the token of the first.
    fn start(house: &House) -> Self {
        let port = lab::free_port().unwrap();
        let edit = |plan: &str| {
            let lines = plan.lines().map(|line| match line.starts_with("bridge:") {
                true => format!("bridge: {{ listen: '127.0.0.1:{port}' }}\n"),
                false => format!("{line}\n"),
            });
            lines.collect()
        };
        let mut command = house.command_elsewhere(&["bridge"], edit);
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

fn bridges(status: &Value) -> usize {
    let agents = status["agents"].as_array().into_iter().flatten();
    agents.filter(|agent| agent["agent"]["kind"] == "bridge" && agent["live"] == true).count()
}

fn a_second_bridge_is_fenced_out(log: &Log) {
    let house = House::following(log);
    let second = Second::start(&house);
    house.eventually("two bridges", || bridges(&house.status()) == 2);
    house.eventually("a word about the second, and from where the first is connected", || {
        let (_, said) = house.tried(&["status"]);
        assert!(!said.contains("pg_drop_replication_slot"), "{said}");
        said.contains("another bridge of this plan runs")
            && said.contains("(strangler capture) from 127.0.0.1 reads")
    });
    let update = "UPDATE orders SET hits = hits + 1 WHERE id <= 5000";
    house.at_source(update);
    house.eventually("the first to go on", || {
        house.at_sink("SELECT sum(hits) FROM orders") == house.at_source("SELECT sum(hits) FROM orders")
    });
    drop(second);
    house.at_source(update);
    house.eventually("the first to follow alone", || {
        let status = house.status();
        bridges(&status) == 1
            && status["slices"]["orders"]["lanes"]["forward"]["condition"]["condition"] == "following"
            && house.at_sink("SELECT sum(hits) FROM orders")
                == house.at_source("SELECT sum(hits) FROM orders")
    });
    house.assert_equal();
    house.ok(&["sync", "drop", "orders", "--yes"]);
}

#[test]
fn a_second_bridge_is_fenced_out_and_status_says_so() {
    a_second_bridge_is_fenced_out(&Log::Embedded);
}

#[test]
fn a_second_bridge_on_the_same_topics_is_fenced_out_and_status_says_so() {
    a_second_bridge_is_fenced_out(&Log::shared_kafka());
}

#[test]
fn a_table_that_cannot_be_captured_is_said_of_its_slice() {
    let house = House::following(&Log::Embedded);
    house.at_source("ALTER TABLE orders RENAME TO orders_of_old");
    house.eventually("the finding", || {
        let (exit, said) = house.tried(&["sync", "status", "orders"]);
        exit == 1 && said.contains("capture.other-table")
    });
    house.at_source("ALTER TABLE orders_of_old RENAME TO orders");
    // Changes under the other name may be missing, so the copy is made anew.
    house.eventually("another copy", || {
        house.status()["slices"]["orders"]["lanes"]["forward"]["condition"]["condition"] == "following"
            && house.tried(&["sync", "status", "orders"]).0 == 0
    });
    house.assert_equal();
    house.ok(&["sync", "drop", "orders", "--yes"]);
}

#[test]
fn a_deleted_state_folder_with_a_live_slot_is_found_at_start_and_down_names_the_slot() {
    let house = House::following(&Log::Embedded);
    let slot = house.at_source(SLOTS);
    assert!(!slot.is_empty() && !slot.contains(' '), "{slot:?}");
    let said = house.ok(&["down"]);
    assert!(said.contains(&slot) && said.contains("pg_drop_replication_slot"), "{said}");
    assert_eq!(house.at_source(SLOTS), slot, "a slot that is kept is what goes on later");

    house.at_source("UPDATE orders SET note = 'missed' WHERE id <= 10");
    std::fs::remove_dir_all(house.state()).unwrap();
    house.ok(&["up", "--detach"]);
    house.eventually("the finding", || house.tried(&["status"]).1.contains("capture.foreign-slot"));
    house.eventually("a stream that stands", || house.tried(&["sync", "status", "orders"]).0 == 1);
    let (_, said) = house.tried(&["status"]);
    assert!(said.contains(&slot), "{said}");
    let seen = house.at_sink("SELECT count(*) FROM orders WHERE remark = 'missed'");
    assert_eq!(seen, "0", "what follows the gap was applied");
    let (exit, said) = house.tried(&["sync", "start", "orders"]);
    assert_eq!(exit, 4, "{said}");

    house.ok(&["sync", "drop", "orders", "--yes"]);
    house.ok(&["sync", "start", "orders", "--timeout", "60"]);
    house.assert_equal();
    let slots = house.at_source(SLOTS);
    assert!(!slots.contains(' '), "the lost slot still keeps WAL: {slots}");
}

/// What a process may write, as `ulimit` and `prlimit` count it.
fn file_size(house: &House, bytes: &str) {
    let limit = format!("--fsize={bytes}:unlimited");
    let bridge = house.pid("bridge").unwrap().to_string();
    assert!(Command::new("prlimit").args([&limit, "--pid", &bridge]).status().unwrap().success());
}

#[test]
fn a_full_disk_stops_capture_says_so_and_confirms_nothing() {
    let house = House::new(&Log::Embedded);
    // A process that ignores this signal is told of a file that may not grow by an error, as of a full disk.
    let mut up = Command::new("sh");
    up.args(["-c", "trap '' XFSZ; exec \"$0\" up --detach"]).arg(house.command(&[]).get_program());
    assert!(up.current_dir(house.path()).status().unwrap().success(), "{}", house.logs());
    house.ok(&["sync", "start", "orders", "--timeout", "60"]);
    file_size(&house, "4000000");

    let rewrite = "UPDATE orders SET note = repeat(md5(id::text), 50) || 'new' WHERE id <= 8000";
    house.at_source(rewrite);
    let committed = house.at_source("SELECT pg_current_wal_insert_lsn()");
    house.eventually("a word about the disk", || {
        let (exit, said) = house.tried(&["sync", "status", "orders"]);
        exit == 1 && said.contains("log.disk-full") && said.contains("free disk space")
    });
    std::thread::sleep(Duration::from_secs(3));
    let confirms = format!("SELECT confirmed_flush_lsn >= '{committed}' FROM pg_replication_slots");
    assert_eq!(house.at_source(&confirms), "f", "what is not kept was confirmed");
    let seen = "SELECT count(*) FROM orders WHERE remark LIKE '%new'";
    assert_eq!(house.at_sink(seen), "0", "half a transaction was applied");

    file_size(&house, "unlimited");
    house.eventually("what was kept back", || house.at_sink(seen) == "8000");
    house.assert_equal();
    house.eventually("a confirmation", || house.at_source(&confirms) == "t");
}

fn giving_up_leaves_nothing(log: &Log) {
    let house = House::following(log);
    house.at_source("UPDATE orders SET hits = hits + 1 WHERE id <= 100");
    if let Log::Kafka { brokers, prefix } = log {
        assert!(topics(brokers).contains(&log_topic(prefix)), "{:?}", topics(brokers));
        uninstall_waits_for_a_drop(&house);
    }
    let said = house.ok(&["sync", "drop", "orders", "--yes"]);
    let left = house.at_source(SLOTS);
    assert_eq!(left, "", "a slot is gone when `sync drop` returns\n{said}\n{}", house.logs());
    if let Log::Kafka { brokers, prefix } = log {
        house.eventually("no log", || !topics(brokers).contains(&log_topic(prefix)));
        // Nothing that the idle bridge looks at makes one again.
        std::thread::sleep(Duration::from_secs(6));
        let left = topics(brokers);
        assert!(!left.contains(&log_topic(prefix)), "{left:?}");
        assert!(left.contains(&format!("{prefix}.public.orders")), "other programs may read it: {left:?}");
    }
    let (exit, said) =
        house.tried(&["uninstall", "--yes", "--admin-url", "monolith=postgres://nobody@127.0.0.1:1/x"]);
    assert!(exit != 0, "{said}");
    house.ok(&["down"]);
    house.uninstall();
    assert_eq!(house.at_source(REMAINS), "");
    assert_eq!(house.at_sink(REMAINS), "");
    // The application's own tables work as before.
    house.at_source("SET ROLE app; DELETE FROM orders WHERE id = 1");
    house.at_sink("SET ROLE app; INSERT INTO orders VALUES (1, 0, 0, 'mine again')");
}

/// While the slice is followed its log would stay, whether the plan still has it or not.
fn uninstall_waits_for_a_drop(house: &House) {
    house.ok(&["down"]);
    let (exit, said) = house.tried_uninstall(str::to_owned);
    assert!(exit == 4 && said.contains("strangler sync drop orders"), "{exit} {said}");
    let (exit, said) = house.tried_uninstall(|plan| plan.replace("  orders:\n", "  others:\n"));
    assert!(exit == 4 && said.contains("put orders back into the plan"), "{exit} {said}");
    house.ok(&["up", "--detach"]);
}

#[test]
fn giving_up_leaves_nothing_behind() {
    giving_up_leaves_nothing(&Log::Embedded);
}

#[test]
fn giving_up_leaves_no_log_behind() {
    giving_up_leaves_nothing(&Log::shared_kafka());
}

#[test]
fn giving_up_early_in_a_first_copy_leaves_no_log_behind() {
    let log = Log::shared_kafka();
    let house = House::new(&log);
    house.ok(&["up", "--detach"]);
    let Log::Kafka { brokers, prefix } = &log else { panic!("not in Kafka") };
    for pause in [0, 150, 300, 600] {
        let mut start = house.command(&["sync", "start", "orders", "--timeout", "60"]);
        let mut start = start.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(pause));
        // It is refused until the start is decided.
        house.eventually("a drop", || house.tried(&["sync", "drop", "orders", "--yes"]).0 == 0);
        let _ = start.kill();
        start.wait().unwrap();
        house.eventually("no log", || !topics(brokers).contains(&log_topic(prefix)));
        assert_eq!(house.at_source(SLOTS), "");
        house.at_sink("SET ROLE app; INSERT INTO orders VALUES (-1, 0, 0, 'mine'); DELETE FROM orders");
    }
    std::thread::sleep(Duration::from_secs(3));
    assert!(!topics(brokers).contains(&log_topic(prefix)), "a late capture made one again");
}

#[test]
fn uninstall_of_a_house_that_still_follows_says_what_comes_first() {
    let house = House::following(&Log::Embedded);
    let (exit, said) = house.tried(&["uninstall", "--yes", "--admin-url", "x=postgres://x@y/z"]);
    assert_eq!(exit, 2, "{said}");
    house.ok(&["route", "set", "orders", "10%"]);
    house.ok(&["down"]);
    let (exit, said) = house.tried_uninstall(str::to_owned);
    assert!(exit == 4 && said.contains("the copy of orders is not given up"), "{exit} {said}");
    let verbs: Vec<&str> = said.split('`').skip(1).step_by(2).collect();
    for verb in &verbs[..verbs.len() - 1] {
        let arguments: Vec<&str> = verb.split(' ').skip(1).collect();
        let yes: &[&str] = if arguments.starts_with(&["sync", "drop"]) { &["--yes"] } else { &[] };
        house.ok(&[&arguments[..], yes].concat());
    }
    assert_eq!(*verbs.last().unwrap(), "strangler uninstall");
    house.uninstall();
    assert_eq!(house.at_source(REMAINS), "");
    assert_eq!(house.at_sink(REMAINS), "");
}

fn log_topic(prefix: &str) -> String {
    format!("strangler.{prefix}.log")
}

fn topics(brokers: &str) -> Vec<String> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("log_level", "0");
    let consumer: BaseConsumer = config.create().unwrap();
    let metadata = consumer.fetch_metadata(None, Duration::from_secs(5)).expect("the broker answers");
    metadata.topics().iter().map(|topic| topic.name().to_owned()).collect()
}
