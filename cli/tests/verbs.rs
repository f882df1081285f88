//! Runs the real binary, verb by verb, with no controller or with one that returns canned answers. Checks both output
//! streams and exit codes.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the finding")]

#[path = "verbs/controller.rs"]
mod controller;
#[path = "verbs/crossing.rs"]
mod crossing;
#[path = "verbs/doubt.rs"]
mod doubt;
#[path = "verbs/upstreams.rs"]
mod upstreams;

use controller::{bridge, outcome, status};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const PLAN: &str = "version: 1
name: shop
monolith: { upstream: \"http://127.0.0.1:4000\" }
services: { orders: { upstream: \"http://127.0.0.1:4001\" } }
controller: { listen: \"127.0.0.1:PORT\" }
slices:
  orders:
    service: orders
    routes: { list: GET /orders, show: \"GET /orders/{id}\", place: POST /orders }
";

/// Exit code and both streams of one call, with a placeholder for the folder.
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Said {
    fn all(&self) -> String {
        format!("exit {:?}\n--- stdout\n{}--- stderr\n{}", self.code.unwrap_or(-1), self.out, self.err)
    }
}

fn strangler(folder: &Path, arguments: &[&str]) -> Said {
    strangler_with(folder, arguments, &[])
}

fn strangler_with(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strangler"));
    command
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("USER", "tester");
    let output = command.envs(environment.iter().copied()).output().unwrap();
    let real = folder.canonicalize().unwrap().display().to_string();
    let text = |bytes: Vec<u8>| {
        let text = String::from_utf8(bytes).unwrap().replace(&real, "FOLDER");
        text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
    };
    Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// A folder with a plan whose controller does not run.
fn folder(plan: &str) -> TempDir {
    folder_at(plan, TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port())
}

/// A folder with a plan whose controller listens on this port.
fn folder_at(plan: &str, port: u16) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("strangler.yaml"), plan.replace("PORT", &port.to_string())).unwrap();
    folder
}

fn without_port(text: &str) -> String {
    let mut parts = text.split("127.0.0.1:");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push_str("127.0.0.1:PORT");
        out.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    out
}

#[test]
fn help_lists_every_verb() {
    let folder = tempfile::tempdir().unwrap();
    insta::assert_snapshot!("help", strangler(folder.path(), &["--help"]).all());
    insta::assert_snapshot!("help_sync", strangler(folder.path(), &["sync", "start", "--help"]).all());
    insta::assert_snapshot!("help_init", strangler(folder.path(), &["init", "--help"]).all());
    insta::assert_snapshot!("no_verb", strangler(folder.path(), &[]).all());
}

#[test]
fn an_unknown_verb_is_a_usage_error() {
    let folder = tempfile::tempdir().unwrap();
    let said = strangler(folder.path(), &["stauts"]);
    assert_eq!(said.code, Some(2));
    insta::assert_snapshot!("unknown_verb", said.all());
}

#[test]
fn check_counts_slices_routes_and_tables() {
    let folder = folder(PLAN);
    insta::assert_snapshot!("check_good", strangler(folder.path(), &["check"]).all());
    let said = strangler(folder.path(), &["check", "--output", "json"]);
    let document: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((document["plan"].as_str(), document["routes"].as_u64()), (Some("shop"), Some(3)));
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
}

#[test]
fn every_finding_of_a_wrong_plan_is_shown() {
    let folder = folder(
        "version: 1\nname: shop\nmonolit: { upstream: \"http://127.0.0.1:4000\" }\nservices:\n  orders: { upstream: nowhere }\n",
    );
    let said = strangler(folder.path(), &["check"]);
    assert_eq!(said.code, Some(2));
    insta::assert_snapshot!("check_bad", said.all());
    let said = strangler(folder.path(), &["--output", "json", "check"]);
    let document: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert!(document["findings"].as_array().is_some_and(|findings| findings.len() >= 2), "{document}");
    assert!(document["message"].is_string() && document["remedy"].is_string());
    assert_eq!(said.code, Some(2));
}

#[test]
fn every_verb_that_needs_a_plan_says_so() {
    let folder = tempfile::tempdir().unwrap();
    insta::assert_snapshot!("no_plan", strangler(folder.path(), &["check"]).all());
    for verb in [&["up"][..], &["doctor"], &["status"], &["proxy"], &["install", "--print"]] {
        let said = strangler(folder.path(), verb);
        assert_eq!(said.code, Some(2), "{verb:?} {}", said.all());
        assert!(said.err.contains("strangler init"), "{verb:?} {}", said.err);
    }
}

#[test]
fn without_a_controller_the_hint_says_how_to_start_one() {
    let folder = folder(PLAN);
    let said = strangler(folder.path(), &["status"]);
    assert_eq!(said.code, Some(1));
    insta::assert_snapshot!("status_without_controller", without_port(&said.all()));
    for verb in [
        &["route", "set", "orders", "25%"][..],
        &["route", "list"],
        &["sync", "start", "orders"],
        &["sync", "drop", "orders", "--yes"],
        &["tail", "orders"],
        &["journal"],
    ] {
        let said = strangler(folder.path(), verb);
        assert_eq!(said.code, Some(1), "{verb:?} {}", said.all());
        assert!(said.err.contains("strangler up --detach"), "{verb:?} {}", said.err);
    }
    let said = strangler(folder.path(), &["status", "--output", "json"]);
    let document: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert!(document["remedy"].as_str().is_some_and(|remedy| remedy.contains("strangler up --detach")));
    assert_eq!((said.code, said.err.as_str()), (Some(1), ""));
}

#[test]
fn a_bad_share_or_name_is_a_usage_error() {
    let folder = folder(PLAN);
    for verb in
        [&["route", "set", "orders", "25"][..], &["route", "set", "Orders", "25%"], &["sync", "pause", "a.b"]]
    {
        assert_eq!(strangler(folder.path(), verb).code, Some(2), "{verb:?}");
    }
    insta::assert_snapshot!("bad_share", strangler(folder.path(), &["route", "set", "orders", "25"]).all());
}

#[test]
fn drop_needs_a_yes() {
    let folder = folder(PLAN);
    let said = strangler(folder.path(), &["sync", "drop", "orders"]);
    assert_eq!(said.code, Some(2));
    insta::assert_snapshot!("drop_without_yes", said.all());
}

#[test]
fn down_succeeds_when_nothing_runs() {
    let folder = folder(PLAN);
    insta::assert_snapshot!("down_nothing", strangler(folder.path(), &["down"]).all());
}

#[test]
fn a_second_up_is_refused_while_the_first_is_not_ready() {
    let folder = folder(PLAN);
    fs::create_dir_all(folder.path().join(".strangler/run")).unwrap();
    let lock = fs::File::create(folder.path().join(".strangler/run/lock")).unwrap();
    lock.try_lock().unwrap();
    let said = strangler(folder.path(), &["up", "--detach"]);
    assert_eq!(said.code, Some(4), "{}", said.all());
    insta::assert_snapshot!("up_twice", without_port(&said.all()));
}

#[test]
fn completions_are_written_for_each_shell() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let said = strangler(folder.path(), &["completions", shell]);
        assert_eq!(said.code, Some(0));
        assert!(said.out.contains("strangler") && said.out.contains("COMPLETE"), "{shell}: {}", said.out);
    }
}

/// As bash asks, by the script that `completions` prints. The plan's variables are not set.
#[test]
fn slices_routes_and_folded_options_are_completed() {
    let folder = folder(&PLAN.replace("http://127.0.0.1:4000", "${SHOP_URL}"));
    let script = strangler(folder.path(), &["completions", "bash"]).out;
    fs::write(folder.path().join("complete.sh"), script).unwrap();
    let completed = |words: &[&str]| {
        let ask = format!(
            "source ./complete.sh; COMP_WORDS=({} ''); COMP_CWORD={}; COMP_TYPE=9; $(complete -p strangler | \
             sed 's/.*-F \\([^ ]*\\).*/\\1/') strangler '' ''; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            words.join(" "),
            words.len()
        );
        let mut bash = Command::new("bash");
        bash.args(["-c", &ask]).current_dir(folder.path());
        let here = Path::new(env!("CARGO_BIN_EXE_strangler")).parent().unwrap();
        let path = std::env::join_paths(
            std::iter::once(here.to_owned()).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
        );
        let answered = bash.env("PATH", path.unwrap()).output().unwrap();
        String::from_utf8(answered.stdout).unwrap() + &String::from_utf8_lossy(&answered.stderr)
    };
    assert!(
        completed(&["strangler", "cutover"]).contains("orders"),
        "{}",
        completed(&["strangler", "cutover"])
    );
    let routes = completed(&["strangler", "route", "set"]);
    assert!(routes.contains("orders.list"), "{routes}");
}

#[test]
fn init_writes_a_plan_that_check_accepts_and_overwrites_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let init = [
        "init",
        "--upstream",
        "http://127.0.0.1:4000",
        "--service",
        "orders=http://127.0.0.1:4001",
        "--name",
        "shop",
    ];
    insta::assert_snapshot!("init", strangler(folder.path(), &init).all());
    insta::assert_snapshot!("init_plan", fs::read_to_string(folder.path().join("strangler.yaml")).unwrap());
    let said = strangler(folder.path(), &["check"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    let again = strangler(folder.path(), &init);
    assert_eq!(again.code, Some(2));
    insta::assert_snapshot!("init_again", again.all());
    assert_eq!(strangler(folder.path(), &[&init[..], &["--force"]].concat()).code, Some(0));
    assert_eq!(strangler(tempfile::tempdir().unwrap().path(), &["init"]).code, Some(2));
}

#[test]
fn install_prints_its_sql_without_the_password() {
    let plan = PLAN
        .replace("4000\" }", "4000\", database: \"${MONOLITH_DATABASE_URL}\" }")
        .replace("4001\" }", "4001\", database: \"${ORDERS_DATABASE_URL}\" }")
        + "    tables: [public.orders]\n";
    let folder = folder(&plan);
    let environment = [
        ("MONOLITH_DATABASE_URL", "postgres://strangler:verysecret@127.0.0.1:1/shop"),
        ("ORDERS_DATABASE_URL", "postgres://strangler:verysecret@127.0.0.1:1/orders"),
    ];
    let said = strangler_with(folder.path(), &["install", "--print"], &environment);
    assert_eq!(said.code, Some(0), "{}", said.all());
    assert!(said.out.contains("CREATE SCHEMA") && !said.all().contains("verysecret"));
    // The error of an unreachable database has a hint, and shows no password either.
    let urls = ["install", "--admin-url", "monolith=postgres://root:verysecret@127.0.0.1:1/shop"];
    let said = strangler_with(folder.path(), &urls, &environment);
    assert_eq!(said.code, Some(2), "one database has no URL: {}", said.all());
    let urls = [&urls[..], &["--admin-url", "orders=postgres://root:verysecret@127.0.0.1:1/orders"]].concat();
    let said = strangler_with(folder.path(), &urls, &environment);
    assert!(matches!(said.code, Some(1 | 3)) && said.err.contains("hint:"), "{}", said.all());
    assert!(!said.all().contains("verysecret"), "{}", said.all());
}

#[test]
fn no_verb_repeats_a_mistyped_password() {
    let plan =
        PLAN.replace("4000\" }", "4000\", database: \"postgres://strangler:other@127.0.0.1:1/shop\" }");
    let folder = folder(&plan);
    let typo = "monolith=postgre://root:verysecret@127.0.0.1:1/shop?a=b";
    for verb in [
        &["install", "--admin-url", typo][..],
        &["install", typo],
        &["uninstall", "--yes", "--admin-url", typo],
        &["-v", "init", "postgre://root:verysecret@127.0.0.1:1/shop?a=b"],
    ] {
        for output in ["human", "json"] {
            let said = strangler(folder.path(), &[verb, &["--output", output]].concat());
            assert_eq!(said.code, Some(2), "{verb:?} {}", said.all());
            assert!(!said.all().contains("verysecret"), "{verb:?} {}", said.all());
        }
    }
    let said = strangler(folder.path(), &["install", "--admin-url", typo]);
    insta::assert_snapshot!("admin_url_mistyped", said.all());
}

#[test]
fn with_output_json_a_usage_error_is_one_document() {
    let folder = folder(PLAN);
    for verb in [&["stauts"][..], &["sync"], &["tail"], &["route", "set", "orders", "25"]] {
        let said = strangler(folder.path(), &[verb, &["--output", "json"]].concat());
        let document: Value = serde_json::from_str(&said.out).unwrap();
        assert_eq!((said.code, said.err.as_str()), (Some(2), ""), "{verb:?} {}", said.all());
        assert_eq!((&document["kind"], &document["exit"]), (&json!("usage"), &json!(2)), "{document}");
        assert!(document["message"].as_str().is_some_and(|message| !message.is_empty()), "{document}");
        assert!(document["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty()), "{document}");
        assert_eq!(document["findings"], json!([]));
    }
    assert_eq!(strangler(folder.path(), &["--help", "--output", "json"]).code, Some(0));
    assert_eq!(strangler(folder.path(), &["--version", "--output", "json"]).code, Some(0));
}

#[test]
fn an_endless_plan_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let said = strangler(folder.path(), &["--plan", "/dev/zero", "check"]);
    assert_eq!(said.code, Some(2), "{}", said.all());
    assert!(said.out.contains("plan.too-large"), "{}", said.all());
}

#[test]
fn a_timeout_is_between_a_second_and_a_day() {
    let folder = folder(PLAN);
    for seconds in ["0", "86401", "18446744073709551615"] {
        for verb in [&["up", "--detach"][..], &["sync", "start", "orders"]] {
            let said = strangler(folder.path(), &[verb, &["--timeout", seconds]].concat());
            assert_eq!(said.code, Some(2), "{verb:?} {seconds} {}", said.all());
        }
    }
}

#[test]
fn text_from_a_row_cannot_steer_the_terminal() {
    let finding = json!({
        "code": "sink.refused-row", "severity": "error",
        "message": "row id=1 name=\u{1b}]0;mine\u{7}Bob\n✔ all is well", "remedy": "mend it\nor\u{9b}2J not",
    });
    let (port, _asked) = controller::start(vec![("/v1/status", status(&[], std::slice::from_ref(&finding)))]);
    let folder = folder_at(PLAN, port);
    let said = strangler(folder.path(), &["status"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    assert!(said.out.contains("name=·]0;mine·Bob·✔ all is well"), "{}", said.out);
    assert!(said.out.contains("\n  mend it\n  or·2J not\n"), "{}", said.out);
    let forged = |c: char| c.is_control() && c != '\n';
    assert!(!said.out.contains(forged) && !said.err.contains(forged), "{}", said.all());
    // Programs get the text unchanged.
    let said = strangler(folder.path(), &["status", "--output", "json"]);
    let document: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(document["findings"][0]["message"], finding["message"]);
}

#[test]
fn status_fails_while_a_slice_is_stopped_and_says_who_answers_its_reads() {
    let finding = json!({
        "code": "sink.refused-row", "severity": "error", "message": "row id=1 does not fit", "remedy": "mend it",
    });
    let mut stands = status(&[], &[]);
    let slice = &mut stands["slices"]["orders"];
    slice["withheld"] = json!(true);
    (slice["stage"], slice["copied_at"]) = (json!("following"), json!("0/1"));
    slice["routes"] = json!([{ "name": "list", "match": "GET /orders", "access": "read", "share": "100%" }]);
    slice["lanes"] = json!({ "forward": {
        "condition": { "condition": "stopped", "finding": finding }, "lag_bytes": 0, "lag_ms": 0, "changes": 0, "foreign": 0,
    } });
    let (port, _asked) = controller::start(vec![("/v1/status", stands)]);
    let folder = folder_at(PLAN, port);
    let said = strangler(folder.path(), &["status"]);
    assert_eq!(said.code, Some(1), "{}", said.all());
    assert!(said.out.contains("monolith for now") && said.out.contains("row id=1"), "{}", said.out);
    assert!(said.err.contains("strangler sync status orders") && !said.err.contains("next:"), "{}", said.err);
    // What to do is said once, and only by the finding.
    let said = strangler(folder.path(), &["sync", "status", "orders"]);
    assert_eq!((said.code, said.all().matches("mend it").count()), (Some(1), 1), "{}", said.all());
    assert!(!said.all().contains("sync resume"), "{}", said.all());
}

#[test]
fn a_decision_that_no_bridge_has_done_times_out() {
    let (port, _asked) = controller::start(vec![
        ("/v1/status", status(&[], &[])),
        ("/v1/slices/orders/sync/drop", outcome(0)),
    ]);
    let said = strangler(folder_at(PLAN, port).path(), &["sync", "drop", "orders", "--yes"]);
    assert_eq!(said.code, Some(8), "{}", said.all());
    assert!(!said.out.contains('✔') && said.err.contains("has not done it yet"), "{}", said.all());
}

#[test]
fn a_decision_succeeds_even_if_the_controller_then_fails() {
    // The answer to the next request is nonsense.
    let (port, _asked) = controller::start(vec![("/v1/shares", outcome(1)), ("/v1/status", json!(null))]);
    let said = strangler(folder_at(PLAN, port).path(), &["route", "set", "orders", "25%"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    assert_eq!(said.out, "orders: requests go to the service for 25 % of clients, on 1 of 1 live proxies\n");
}

#[test]
fn a_slice_without_tables_has_no_changes_to_show() {
    let mut without = status(&[], &[]);
    without["slices"]["orders"]["has_tables"] = json!(false);
    let (port, _asked) = controller::start(vec![("/v1/status", without)]);
    let said = strangler(folder_at(PLAN, port).path(), &["tail", "orders"]);
    assert_eq!(said.code, Some(2), "{}", said.all());
    assert!(said.err.contains("has no tables") && !said.err.contains("strangler up"), "{}", said.err);
}

#[test]
fn ctrl_c_ends_a_tail_that_gets_no_answer() {
    // The bridge is a second one of these, which never answers `tail`.
    let (silent, asked) = controller::start(Vec::new());
    let (port, _asked) = controller::start(vec![("/v1/status", status(&[bridge(silent)], &[]))]);
    let folder = folder_at(PLAN, port);
    let mut tail = Command::new(env!("CARGO_BIN_EXE_strangler"))
        .args(["tail", "orders", "-f"])
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    assert_eq!(asked.recv_timeout(Duration::from_secs(30)).unwrap().path, "/v1/tail");
    kill(Pid::from_raw(i32::try_from(tail.id()).unwrap()), Signal::SIGINT).unwrap();
    let until = Instant::now() + Duration::from_secs(10);
    let mut ended = None;
    while ended.is_none() && Instant::now() < until {
        thread::sleep(Duration::from_millis(20));
        ended = tail.try_wait().unwrap();
    }
    // It has ended, or it hangs.
    let _ = tail.kill().and_then(|()| tail.wait().map(drop));
    assert!(ended.is_some_and(|status| status.success()), "{ended:?}");
}

/// A verification that is done, as the bridge reports it.
fn verification(differences: &[Value], undecided: &[Value]) -> Value {
    let listed = |rows: &[Value]| json!({ "total": rows.len(), "listed": rows });
    json!({
        "version": migrations::control::VERSION, "slice": "orders", "course": "done", "owner": "monolith", "rows": 1_204_331,
        "rows_estimated": 1_204_331, "differences": listed(differences), "changing": listed(&[]),
        "undecided": listed(undecided), "repaired": 0, "unsearched": [], "is_watched": false, "elapsed_ms": 5000,
    })
}

fn verify(report: Value, arguments: &[&str]) -> Said {
    let (port, _asked) = controller::start(vec![("/v1/verify", report)]);
    let (port, _asked) = controller::start(vec![("/v1/status", status(&[bridge(port)], &[]))]);
    let arguments: Vec<&str> = ["verify", "orders"].iter().chain(arguments).copied().collect();
    strangler(folder_at(PLAN, port).path(), &arguments)
}

#[test]
fn verify_says_that_both_sides_are_the_same() {
    let said = verify(verification(&[], &[]), &[]);
    assert_eq!(
        (said.code, said.out.as_str()),
        (Some(0), "✔ orders: 1 204 331 rows on both sides, 0 differ\n"),
        "{}",
        said.all()
    );
}

#[test]
fn verify_lists_what_differs_and_exits_with_7() {
    let row = |key: Value, more: Value| {
        let mut row = json!({ "table": "public.orders", "key": key });
        row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        row
    };
    let differences = [
        row(json!({ "id": "5" }), json!({ "difference": "values", "columns": ["note", "total_cents"] })),
        row(json!({ "line": "1", "id": "6" }), json!({ "difference": "missing" })),
    ];
    let said = verify(verification(&differences, &[]), &[]);
    assert_eq!(said.code, Some(7), "{}", said.all());
    insta::assert_snapshot!("verify_differences", said.all());
    let said = verify(verification(&differences, &[]), &["--output", "json"]);
    let documents: Vec<Value> = said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [report, failure] = &documents[..] else { panic!("{}", said.all()) };
    assert_eq!(report["differences"]["listed"], json!(differences));
    assert_eq!((&report["stage"], &report["owner"]), (&json!("monolith"), &json!("monolith")));
    assert_eq!((&failure["code"], &failure["exit"]), (&json!("verify.differences"), &json!(7)));
}

#[test]
fn verify_says_what_it_could_not_prove() {
    let said = verify(verification(&[], &[json!({ "table": "public.orders", "key": { "id": "7" } })]), &[]);
    assert_eq!(said.code, Some(8), "{}", said.all());
    assert!(said.out.contains("public.orders id=7") && said.err.contains("open"), "{}", said.all());
}

#[test]
fn ctrl_c_stops_a_verification_and_says_how_to_go_on() {
    let mut running = verification(&[], &[]);
    running["course"] = json!("running");
    let mut stopped = running.clone();
    stopped["course"] = json!("stopped");
    let (port, asked) = controller::start(vec![("/v1/verify", running), ("/v1/verify/stop", stopped)]);
    let (port, _asked) = controller::start(vec![("/v1/status", status(&[bridge(port)], &[]))]);
    let folder = folder_at(PLAN, port);
    let verify = Command::new(env!("CARGO_BIN_EXE_strangler"))
        .args(["verify", "orders"])
        .current_dir(folder.path())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It has begun, and is watched.
    for _ in 0..2 {
        assert_eq!(asked.recv_timeout(Duration::from_secs(30)).unwrap().path, "/v1/verify");
    }
    kill(Pid::from_raw(i32::try_from(verify.id()).unwrap()), Signal::SIGINT).unwrap();
    let said = verify.wait_with_output().unwrap();
    let err = String::from_utf8(said.stderr).unwrap();
    assert_eq!(said.status.code(), Some(8), "{err}");
    assert!(err.contains("stopped after 1 204 331 rows") && err.contains("strangler verify orders"), "{err}");
    assert!(asked.try_iter().any(|request| request.path == "/v1/verify/stop"));
}
