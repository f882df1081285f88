//! The checker on whole plans: what it accepts, what it says about bad ones, and that nothing makes it fall over.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by falling over")]
#![allow(clippy::disallowed_methods, reason = "the plans are files, and checking them must be quick")]

use migrations::code::Code;
use migrations::crossing::Moment;
use migrations::finding::{self, Finding};
use migrations::names::{ServiceName, SliceName};
use migrations::pattern::Access;
use migrations::plan::{
    Consistency, Decimals, HoldBounds, LogChoice, Plan, Publish, Reuse, Skipped, Sticky, Times, check,
};
use migrations::stage::{Epoch, Hold};
use proptest::prelude::*;
use std::path::{Path, PathBuf};
use std::time::Duration;

const SECRET: &str = "never to be seen!";

fn env(name: &str) -> Option<String> {
    let value = match name {
        "MONOLITH_DATABASE_URL" => "postgres://strangler:pw@localhost/shop",
        "ORDERS_DATABASE_URL" => "postgres://strangler:pw@localhost:5433/orders",
        "PASSWORD" | "OVERRIDE" => "correct-horse",
        "SECRET_TEXT" => SECRET,
        _ => return None,
    };
    Some(value.to_owned())
}

fn plans(folder: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plans").join(folder);
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let named = |path: PathBuf| {
        (path.file_stem().unwrap().to_str().unwrap().to_owned(), std::fs::read_to_string(&path).unwrap())
    };
    files.into_iter().map(named).collect()
}

fn good(name: &str) -> (Plan, Vec<Finding>) {
    let (_, text) = plans("good").into_iter().find(|(file, _)| file == name).unwrap();
    check("strangler.yaml", &text, &env).unwrap_or_else(|findings| panic!("{}", finding::render(&findings)))
}

fn slice(name: &str) -> SliceName {
    name.parse().unwrap()
}

#[test]
fn every_bad_plan_gets_every_finding() {
    for (name, text) in plans("bad") {
        let findings = match check("strangler.yaml", &text, &env) {
            Err(findings) => findings,
            Ok((_, findings)) => findings,
        };
        assert!(!findings.is_empty(), "{name} is not bad");
        insta::assert_snapshot!(name.as_str(), finding::render(&findings));
    }
}

#[test]
fn no_finding_gives_a_secret_away() {
    for (name, text) in plans("bad") {
        let findings = check("strangler.yaml", &text, &env).map_or_else(|f| f, |(_, f)| f);
        let shown = format!("{findings:?}{}", finding::render(&findings));
        for secret in [SECRET, "geheim", "ge/heim", "sesam", "correct-horse"] {
            assert!(!shown.contains(secret), "{name} shows {secret}:\n{shown}");
        }
    }
}

#[test]
fn the_annotated_plan_means_what_it_says() {
    let (plan, warnings) = good("annotated");
    assert!(warnings.is_empty(), "{}", finding::render(&warnings));
    let orders = &plan.slices[&slice("orders")];
    assert_eq!(orders.routes.len(), 4);
    assert_eq!(orders.route(&"search".parse().unwrap()).unwrap().access, Access::Read);
    assert_eq!(orders.route(&"place".parse().unwrap()).unwrap().access, Access::Write);
    assert_eq!(orders.sticky, Sticky::Cookie("session".into()));
    let items = &orders.tables[1];
    assert_eq!(
        (items.from.to_string().as_str(), items.to.to_string().as_str()),
        ("public.order_items", "public.items")
    );
    assert_eq!(items.set["total_cents"].columns.iter().collect::<Vec<_>>(), ["total"]);
    assert_eq!(items.sink_column("qty"), Some("quantity"));
    assert_eq!(items.sink_column("id"), Some("id"));
    assert_eq!(items.sink_column("legacy_flags"), None);
    assert_eq!(items.sink_column("total"), None);
    assert_eq!(plan.limits.wal_kept_bytes_max, 16 << 30);
    assert!(
        matches!(&plan.log, LogChoice::Kafka { topic_prefix, partitions: 1, .. } if topic_prefix == "shop")
    );
    assert_eq!(plan.monolith.database.as_ref().unwrap().redacted(), "postgres://strangler@localhost/shop");
    assert!(!format!("{plan:?}").contains("pw"));
}

#[test]
fn a_minimal_plan_has_ten_lines_and_sound_defaults() {
    let (_, text) = plans("good").into_iter().find(|(file, _)| file == "minimal").unwrap();
    assert!(text.lines().count() <= 10);
    let (plan, warnings) = good("minimal");
    assert!(warnings.is_empty());
    assert_eq!(plan.log, LogChoice::Embedded { bytes_max: 8 << 30 });
    assert_eq!(plan.proxy.listen, "127.0.0.1:8080");
    assert_eq!(plan.proxy.admin, "127.0.0.1:8081");
    assert_eq!(plan.controller.listen, "127.0.0.1:7401");
    assert_eq!(plan.bridge.listen, "127.0.0.1:7402");
    assert_eq!((plan.proxy.connect_timeout_ms, plan.proxy.read_timeout_ms), (2_000, 30_000));
    let hold = plan.proxy.hold;
    assert_eq!((hold.writes_max, hold.bytes_max, hold.wait_ms_max), (10_000, 64 << 20, 10_000));
    assert!(plan.slices[&slice("orders")].is_stateless());
    let (plan, warnings) = good("two-tables");
    assert!(warnings.is_empty());
    assert_eq!(plan.slices[&slice("orders")].tables.len(), 2);
}

#[test]
fn a_write_waits_until_its_own_bound_or_the_end_of_its_hold() {
    let bounds = HoldBounds::default();
    let left = |waited_ms, until: Option<u64>| {
        let hold = until.map(|until| Hold { epoch: Epoch(1), until: Moment(until) });
        bounds.patience(Duration::from_millis(waited_ms), hold, Moment(1_000)).as_millis()
    };
    assert_eq!([left(0, None), left(4_000, None), left(10_001, None)], [10_000, 6_000, 0]);
    assert_eq!([left(0, Some(1_200)), left(9_900, Some(1_200)), left(0, Some(900))], [200, 100, 0]);
}

#[test]
fn every_key_is_read() {
    let (plan, warnings) = good("every-key");
    assert!(warnings.is_empty(), "{}", finding::render(&warnings));
    let orders: ServiceName = "orders".parse().unwrap();
    let service = &plan.services[&orders];
    assert_eq!(service.upstreams[0].to_string(), "https://orders.internal:443");
    assert_eq!(
        service.database.as_ref().unwrap().expose(),
        "postgresql://strangler:correct-horse@db.internal:5433/orders?sslmode=require"
    );
    assert_eq!(plan.monolith.upstreams.len(), 2);
    assert_eq!(plan.log, LogChoice::Embedded { bytes_max: 2_000_000_000 });
    assert_eq!((plan.proxy.connect_timeout_ms, plan.proxy.read_timeout_ms), (500, 60_000));
    assert_eq!(plan.proxy.body_bytes_max, Some(10 << 20));
    assert_eq!(plan.proxy.head_bytes_max, 32 << 10);
    assert_eq!((plan.proxy.connections_max, plan.proxy.reuse), (Some(2000), Reuse::Shared));
    let tls = plan.proxy.tls.as_ref().unwrap();
    assert_eq!((&*tls.listen, tls.redirect_port), ("0.0.0.0:8443", Some(443)));
    let files = tls.certificates.iter().map(|files| (files.certificate.to_str(), files.key.to_str()));
    assert_eq!(
        files.collect::<Vec<_>>(),
        [(Some("/etc/shop/shop.pem"), Some("/etc/shop/shop.key")), (Some("all.pem"), Some("all.pem"))]
    );
    let hold = plan.proxy.hold;
    assert_eq!((hold.writes_max, hold.bytes_max, hold.wait_ms_max), (500, 8 << 20, 2_000));
    assert_eq!(plan.proxy.consistency, Some(Consistency::Strong));
    assert_eq!(plan.proxy.health_host.as_deref(), Some("shop.example:8080"));
    assert!(plan.proxy.takes_ambiguous_paths);
    assert!(plan.proxy.trust_forwarded && plan.proxy.override_secret.is_some());
    let slice = &plan.slices[&slice("orders")];
    assert_eq!(slice.sticky, Sticky::Header("X-Session".into()));
    assert_eq!(slice.route(&"peek".parse().unwrap()).unwrap().access, Access::Write);
    assert!(!slice.is_stateless() && slice.tables.is_empty());
    assert_eq!(plan.accept.len(), 1);
    let route = |name: &str| slice.route(&name.parse().unwrap()).unwrap();
    assert!(slice.falls_back_on_5xx);
    assert!(route("add").is_pinned && !route("number").is_pinned);
}

#[test]
fn what_is_published_is_what_debezium_publishes_unless_the_plan_says_otherwise() {
    let published = |name: &str| match good(name).0.log {
        LogChoice::Kafka { publish, .. } => publish,
        _ => panic!("not in Kafka"),
    };
    assert_eq!(published("annotated"), Some(Publish::default()));
    let every_option = Publish {
        decimals: Decimals::String,
        times: Times::Connect,
        has_tombstones: false,
        skipped: Skipped::default(),
        has_schemas: true,
        replaces_null: false,
        is_unwrapped: true,
        outbox: ["public.outbox".parse().unwrap()].into(),
        heartbeat_ms: 5000,
    };
    assert_eq!(published("publish"), Some(every_option));
    let (_, text) = plans("good").into_iter().find(|(file, _)| file == "annotated").unwrap();
    let log = |word: &str| {
        let text = text.replace("topic_prefix: shop", &format!("topic_prefix: shop, publish: {word}"));
        match check("x", &text, &env).unwrap().0.log {
            LogChoice::Kafka { publish, .. } => publish,
            _ => panic!("not in Kafka"),
        }
    };
    assert_eq!((log("on"), log("off")), (Some(Publish::default()), None));
    let skipped = log("{ skipped.operations: 'c, d' }").unwrap().skipped;
    assert_eq!(skipped, Skipped { creates: true, deletes: true, ..Skipped::default() });
}

#[test]
fn the_hash_follows_the_meaning_and_not_the_secrets() {
    let (_, text) = plans("good").into_iter().find(|(file, _)| file == "annotated").unwrap();
    let hash = |text: &str, env: &dyn Fn(&str) -> Option<String>| check("x", text, env).unwrap().0.hash;
    let plain = hash(&text, &env);
    assert_eq!(plain.len(), 16);
    assert_eq!(plain, hash(&format!("# a comment\n{text}"), &env));
    let other_password = |name: &str| env(name).map(|value| value.replace(":pw@", ":other@"));
    assert_eq!(plain, hash(&text, &other_password));
    for (from, to) in [
        ("GET /orders\n", "GET /order\n"),
        ("* 100", "* 1000"),
        ("16MiB", "17MiB"),
        ("session", "sid"),
        ("audit_items: skip", "audit_items: fire"),
    ] {
        assert_ne!(plain, hash(&text.replacen(from, to, 1), &env), "{from}");
    }
}

#[test]
fn a_file_too_large_is_not_read() {
    let findings = check("big.yaml", &"#\n".repeat(600_000), &env).unwrap_err();
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].code, Code::PlanTooLarge);
}

#[test]
fn ten_thousand_routes_are_compared_in_time() {
    let (_, text) = plans("good").into_iter().find(|(file, _)| file == "minimal").unwrap();
    let head = text.split("    routes:").next().unwrap();
    let mut plan = format!("{head}    routes:\n");
    for n in 0..10_000 {
        plan.push_str(&format!("      r{n}: GET /api/v1/thing{n}/{{id}}\n"));
    }
    let started = std::time::Instant::now();
    assert!(check("x", &plan, &env).is_ok());
    assert!(started.elapsed().as_secs() < 20);
}

#[test]
fn crossings_that_are_not_shown_are_counted() {
    let (_, text) = plans("good").into_iter().find(|(file, _)| file == "minimal").unwrap();
    let head = text.split("    routes:").next().unwrap();
    let mut plan = format!("{head}    routes:\n");
    for n in 0..10 {
        plan.push_str(&format!("      a{n}: GET /a{n}/{{x}}/z\n      b{n}: \"GET /{{y}}/b{n}/z\"\n"));
    }
    let (_, warnings) = check("x", &plan, &env).unwrap();
    assert_eq!(warnings.len(), 51);
    let counted =
        warnings.iter().filter(|w| w.message == "50 more pairs of routes cross, which are not shown");
    assert_eq!(counted.count(), 1, "{}", finding::render(&warnings));
}

/// A plan for several machines opens ports that carry the token, as its page says.
#[test]
fn every_plan_in_the_documents_is_sound() {
    let house = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let given = |name: &str| if name == "STRANGLER_OVERRIDE" { env("OVERRIDE") } else { env(name) };
    let pages = ["docs", "docs/guides"].map(|folder| std::fs::read_dir(house.join(folder)).unwrap());
    let pages = pages.into_iter().flatten().map(|page| page.unwrap().path());
    let pages = pages.filter(|page| page.extension().is_some_and(|extension| extension == "md"));
    let mut plans = 0;
    for page in pages.chain([house.join("README.md")]) {
        let text = std::fs::read_to_string(&page).unwrap();
        let blocks = text.split("```yaml\n").skip(1).map(|block| block.split("```").next().unwrap());
        for block in blocks.filter(|block| block.starts_with("version:")) {
            plans += 1;
            match check(&page.to_string_lossy(), block, &given) {
                Ok((_, warnings)) => {
                    let others = warnings.iter().filter(|warning| warning.code != Code::PlanOpenListen);
                    assert_eq!(others.count(), 0, "{}", finding::render(&warnings));
                }
                Err(findings) => panic!("{}", finding::render(&findings)),
            }
        }
    }
    assert!(plans >= 7, "{plans}");
}

/// Whatever comes in: no panic, every error placed on a line of the file, and never a plan beside errors.
fn holds_up(text: &str) {
    let findings = match check("plan.yaml", text, &env) {
        Ok((_, warnings)) => {
            assert!(warnings.iter().all(|finding| !finding.is_error()));
            warnings
        }
        Err(findings) => {
            assert!(findings.iter().any(Finding::is_error));
            findings
        }
    };
    let lines = text.split(['\n', '\r']).count().max(1);
    for finding in &findings {
        let place = finding.place.as_ref().unwrap();
        assert!(place.line >= 1 && usize::try_from(place.line).unwrap() <= lines, "{finding:?}");
        assert!(place.column >= 1 && !finding.remedy.is_empty() && !finding.message.is_empty());
        assert!(!format!("{finding:?}").contains(SECRET));
    }
    finding::render(&findings);
}

fn seeds() -> Vec<String> {
    plans("good").into_iter().chain(plans("bad")).map(|(_, text)| text).collect()
}

proptest! {
    #[test]
    fn random_text_never_breaks_the_checker(text in "\\PC{0,200}") {
        holds_up(&text);
    }

    #[test]
    fn random_bytes_never_break_the_checker(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        holds_up(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn mutated_plans_never_break_the_checker(
        seed in proptest::sample::select(seeds()),
        cuts in proptest::collection::vec((any::<proptest::sample::Index>(), 0usize..12, "[ -~\\n]{0,6}|\\$\\{SECRET_TEXT\\}|: |- |\\{|\\[|&a |\\*a|\\|\\n|\"|'|\t|\r|é|\u{2028}"), 1..6),
    ) {
        let mut text: Vec<char> = seed.chars().collect();
        for (at, length, put) in cuts {
            let start = at.index(text.len() + 1);
            let end = (start + length).min(text.len());
            text.splice(start..end, put.chars());
        }
        holds_up(&text.into_iter().collect::<String>());
    }
}
