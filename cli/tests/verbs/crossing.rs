//! The verbs that move writes, against a controller that plays a crossing: each poll of the journal shows one entry more.

use super::controller::{Request, play, status};
use super::{PLAN, folder_at, strangler};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::process::{Command, Stdio};
use std::sync::mpsc::Receiver;
use std::time::Duration;

/// What the controller answers.
#[derive(Clone)]
struct Story {
    wish: (u16, Value),
    entries: Vec<Value>,
    report: Value,
    status: Value,
}

impl Story {
    /// The wish is taken, and the slice stands at this stage when it is asked for.
    fn taken(entries: Vec<Value>, stands: Value) -> Self {
        let outcome = json!({
            "slice": "orders", "stage": "following", "copied_at": "0/1", "epoch": 4, "owner": "monolith",
            "generation": 7, "proxies": { "live": 1, "have": 1 }, "next_steps": ["strangler status -w"],
        });
        Self { wish: (200, outcome), entries, report: Value::Null, status: with(stands) }
    }

    fn refused(code: u16, problem: Value) -> Self {
        let refused = Self::taken(Vec::new(), following());
        Self { wish: (code, problem), ..refused }
    }

    fn measured(self, verb: &str, phases: Value) -> Self {
        let report = json!({
            "slice": "orders", "verb": verb, "epoch": 5, "steps": ["wait until the proxies know"], "phases": phases,
            "hold_ms": 74, "held_ms_p99": 58, "held_ms_max": 61,
        });
        Self { report, ..self }
    }

    fn play(self) -> (u16, Receiver<Request>) {
        let mut shown = 0;
        play(move |request| {
            Some(match &request.path[..] {
                "/v1/status" => (200, self.status.clone()),
                "/v1/journal" => {
                    shown += 1;
                    let after: u64 = number(&request.query, "after=");
                    let is_new = |entry: &&Value| entry["generation"].as_u64() > Some(after);
                    let entries: Vec<&Value> = self.entries.iter().take(shown).filter(is_new).collect();
                    (200, json!(entries))
                }
                "/v1/slices/orders/crossing" if shown < 2 => (200, Value::Null),
                "/v1/slices/orders/crossing" => (200, self.report.clone()),
                path if path.starts_with("/v1/slices/orders/") => self.wish.clone(),
                _ => return None,
            })
        })
    }

    /// Exit code, the one document on stdout.
    fn told(self, arguments: &[&str]) -> (Option<i32>, Value) {
        let (port, _asked) = self.play();
        let said = strangler(folder_at(PLAN, port).path(), &[arguments, &["--output", "json"]].concat());
        assert_eq!((said.out.lines().count(), said.err.as_str()), (1, ""), "one document: {}", said.all());
        (said.code, serde_json::from_str(&said.out).unwrap())
    }

    fn shown(self, arguments: &[&str]) -> String {
        let (port, _asked) = self.play();
        strangler(folder_at(PLAN, port).path(), arguments).all()
    }
}

fn number(query: &str, key: &str) -> u64 {
    let value = query.split('&').find_map(|pair| pair.strip_prefix(key));
    value.and_then(|value| value.parse().ok()).unwrap_or_default()
}

/// The status of a slice that stands so.
fn with(stands: Value) -> Value {
    let mut status = status(&[], &[]);
    let slice = status["slices"]["orders"].as_object_mut().unwrap();
    slice.extend(stands.as_object().unwrap().clone());
    status
}

fn following() -> Value {
    json!({
        "stage": "following", "copied_at": "0/1", "epoch": 6, "owner": "monolith",
        "next_steps": ["strangler rehearse orders", "strangler cutover orders"],
    })
}

fn crossed(stage: &str, owner: &str, next_steps: &[&str]) -> Value {
    json!({
        "stage": stage, "copied_at": "0/1", "intent": "cutover", "plan": "0000000000000000",
        "schema": "0000000000000000", "reverse_from": "0/1", "epoch": 5, "owner": owner, "next_steps": next_steps,
    })
}

/// The journal's entries from 7 on, one every 40 ms.
fn entries(events: &[Value]) -> Vec<Value> {
    let entry = |(place, event): (usize, &Value)| {
        let mut entry = json!({
            "generation": 7 + place, "at": format!("2026-01-01T10:00:00.{:03}Z", 40 * place), "actor": "coordinator",
            "reason": "", "slice": "orders",
        });
        entry.as_object_mut().unwrap().extend(event.as_object().unwrap().clone());
        entry
    };
    events.iter().enumerate().map(entry).collect()
}

fn prepared(intent: &str) -> Value {
    json!({ "event": "cutover-prepared", "intent": intent, "plan": "0000000000000000", "hold_ms": 5000, "until": 1 })
}

fn started() -> Value {
    json!({
        "event": "cutover-started", "epoch": 5, "intent": "cutover", "plan": "0000000000000000",
        "schema": "0000000000000000", "reverse_from": "0/1", "until": 1,
    })
}

fn committed() -> Value {
    json!({ "event": "cutover-committed", "epoch": 5, "returns_at": 600_000 })
}

fn released() -> Value {
    json!({ "event": "released", "epoch": 5 })
}

fn aborted(why: &str) -> Value {
    json!({ "event": "cutover-aborted", "epoch": 6, "why": why })
}

fn phases() -> Value {
    json!({ "drained": 3, "fenced": 12, "arrived": 26, "compared": 32, "numbered": 34, "decided": 38, "released": 74 })
}

fn cut_over() -> Story {
    let mut split = crossed("split", "service", &["strangler confirm orders", "strangler rollback orders"]);
    split["returns_at"] = json!(600_000);
    let events = [prepared("cutover"), started(), committed(), released()];
    Story::taken(entries(&events), split).measured("cutover", phases())
}

#[test]
fn a_cutover_is_watched_to_its_end() {
    insta::assert_snapshot!("cutover", cut_over().shown(&["cutover", "orders", "--for", "10m"]));
    // A controller that does not drive it has measured nothing; the journal says enough.
    let elsewhere = Story { report: Value::Null, ..cut_over() };
    insta::assert_snapshot!("cutover_elsewhere", elsewhere.shown(&["cutover", "orders", "--for", "10m"]));
}

#[test]
fn a_cutover_is_one_document() {
    let (code, document) = cut_over().told(&["cutover", "orders"]);
    assert_eq!(code, Some(0));
    let expected = json!({
        "slice": "orders", "stage": "split", "copied_at": "0/1", "intent": "cutover", "plan": "0000000000000000",
        "schema": "0000000000000000", "reverse_from": "0/1", "returns_at": 600_000, "epoch": 5, "owner": "service",
        "ended": "committed", "phases": phases(), "hold_ms": 74, "held_ms_p99": 58, "held_ms_max": 61, "findings": [],
        "next_steps": ["strangler confirm orders", "strangler rollback orders"],
    });
    assert_eq!(document, expected);
}

#[test]
fn what_is_wished_is_sent_in_milliseconds() {
    let (port, asked) = cut_over().play();
    let arguments = ["cutover", "orders", "--for", "10m", "--hold", "500ms", "--reason", "monday"];
    assert_eq!(strangler(folder_at(PLAN, port).path(), &arguments).code, Some(0));
    // Before, it is asked whether the plan's file is what runs.
    let mut requests = std::iter::from_fn(|| asked.recv_timeout(Duration::from_secs(1)).ok());
    let request = requests.find(|request| request.method == "POST").unwrap();
    assert_eq!(
        (&request.method[..], &request.path[..], &request.query[..]),
        ("POST", "/v1/slices/orders/cutover", "")
    );
    assert_eq!(
        (&request.body["for_ms"], &request.body["hold_ms"], &request.body["reason"]),
        (&json!(600_000), &json!(500), &json!("monday"))
    );
    assert!(request.body["actor"].as_str().unwrap().starts_with("tester@"), "{}", request.body);
}

#[test]
fn systems_that_are_not_ready_end_with_3() {
    let finding = json!({ "code": "source.no-free-slot", "severity": "error", "message": "no slot", "remedy": "raise it" });
    let problem = json!({
        "kind": "not-ready", "code": "slice.not-ready", "message": "not ready, 1 error", "remedy": "fix it",
        "findings": [finding],
    });
    for verb in ["cutover", "rehearse", "rollback"] {
        let (code, document) = Story::refused(422, problem.clone()).told(&[verb, "orders"]);
        assert_eq!(
            (code, &document["exit"], &document["stage"]),
            (Some(3), &json!(3), &json!("following")),
            "{verb}"
        );
        assert_eq!(document["findings"], json!([finding]));
        assert_eq!(document["next_steps"], json!(["strangler rehearse orders", "strangler cutover orders"]));
    }
    let shown = Story::refused(422, problem).shown(&["cutover", "orders"]);
    assert!(shown.contains("✗ no slot [source.no-free-slot]") && shown.contains("hint: fix it"), "{shown}");
}

#[test]
fn a_stage_that_forbids_it_ends_with_4() {
    let problem = json!({ "kind": "conflict", "code": "slice.stage", "message": "slice orders is split", "remedy": "r" });
    for verb in [
        &["cutover"][..],
        &["rehearse"],
        &["rollback"],
        &["confirm"],
        &["abort"],
        &["complete", "--yes", "orders"],
    ] {
        let (code, document) = Story::refused(409, problem.clone()).told(&[verb, &["orders"]].concat());
        assert_eq!((code, &document["code"]), (Some(4), &json!("slice.stage")), "{verb:?}");
        assert_eq!((&document["epoch"], &document["owner"]), (&json!(6), &json!("monolith")));
        assert_eq!(document["next_steps"], json!(["strangler rehearse orders", "strangler cutover orders"]));
    }
}

#[test]
fn a_cutover_that_was_given_up_ends_with_5_and_says_why() {
    let events =
        [prepared("cutover"), started(), aborted("it took too long until the writes under way have ended")];
    let story = Story::taken(entries(&events), following());
    let (code, document) = story.clone().told(&["cutover", "orders"]);
    assert_eq!((code, &document["exit"], &document["code"]), (Some(5), &json!(5), &json!("slice.aborted")));
    assert_eq!((&document["ended"], &document["why"]), (&json!("aborted"), &events[2]["why"]));
    assert_eq!((&document["stage"], &document["owner"]), (&json!("following"), &json!("monolith")));
    assert_eq!(document["next_steps"], json!(["strangler rehearse orders", "strangler cutover orders"]));
    insta::assert_snapshot!("cutover_given_up", story.shown(&["cutover", "orders"]));
}

#[test]
fn a_rehearsal_goes_back_and_says_what_a_cutover_would_have_run_into() {
    let events = [prepared("rehearse"), started(), aborted("rehearsed")];
    let story = Story::taken(entries(&events), following());
    let measured =
        story.measured("rehearse", json!({ "drained": 3, "fenced": 12, "numbered": 34, "decided": 38 }));
    let (code, document) = measured.clone().told(&["rehearse", "orders"]);
    assert_eq!((code, &document["ended"], &document["hold_ms"]), (Some(0), &json!("rehearsed"), &json!(74)));
    insta::assert_snapshot!("rehearse", measured.shown(&["rehearse", "orders"]));

    let events = [prepared("rehearse"), aborted("the lane from the service stopped")];
    let (code, document) = Story::taken(entries(&events), following()).told(&["rehearse", "orders"]);
    assert_eq!((code, &document["hold_ms"]), (Some(5), &Value::Null));
    assert!(
        document["remedy"].as_str().unwrap().contains("a cutover would have been given up"),
        "{document}"
    );
}

#[test]
fn a_decision_whose_hold_is_still_on_ends_with_6() {
    let events = [prepared("cutover"), started(), committed()];
    let split = crossed("split", "service", &["strangler status -w"]);
    let (code, document) =
        Story::taken(entries(&events), split).told(&["cutover", "orders", "--timeout", "1s"]);
    assert_eq!(
        (code, &document["code"], &document["exit"]),
        (Some(6), &json!("slice.unfinished"), &json!(6))
    );
    assert_eq!((&document["ended"], &document["owner"]), (&Value::Null, &json!("service")));
    assert_eq!(document["next_steps"], json!(["strangler status -w"]));
    assert!(
        document["message"]
            .as_str()
            .unwrap()
            .contains("the service owns the slice, but writes are still held")
    );
}

#[test]
fn what_is_not_decided_in_time_ends_with_8_and_goes_on() {
    let cutting = crossed("cutting", "nobody", &["strangler status -w", "strangler abort orders"]);
    let story = Story::taken(entries(&[prepared("cutover"), started()]), cutting);
    let (code, document) = story.clone().told(&["cutover", "orders", "--timeout", "1s"]);
    assert_eq!((code, &document["code"]), (Some(8), &json!("command.timed-out")));
    assert_eq!((&document["stage"], &document["ended"]), (&json!("cutting"), &Value::Null));
    assert_eq!(document["next_steps"], json!(["strangler status -w", "strangler abort orders"]));
    insta::assert_snapshot!("cutover_timed_out", story.shown(&["cutover", "orders", "--timeout", "1s"]));
}

#[test]
fn ctrl_c_says_that_the_work_goes_on_and_how_to_give_it_up() {
    let cutting = crossed("cutting", "nobody", &["strangler status -w", "strangler abort orders"]);
    let (port, asked) = Story::taken(entries(&[prepared("cutover"), started()]), cutting).play();
    let folder = folder_at(PLAN, port);
    let child = Command::new(env!("CARGO_BIN_EXE_strangler"))
        .args(["cutover", "orders"])
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let is_watching = |request: Request| request.path == "/v1/slices/orders/crossing";
    while !is_watching(asked.recv_timeout(Duration::from_secs(30)).unwrap()) {}
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(8), "{said}");
    assert!(
        said.contains("watching was interrupted") && said.contains("goes on at the controller"),
        "{said}"
    );
    assert!(said.contains("`strangler abort orders`"), "{said}");
}

#[test]
fn a_rollback_is_over_when_the_owner_takes_writes_again() {
    let begun = json!({ "event": "rollback-started", "epoch": 5, "until": 1 });
    let back = json!({ "event": "rollback-committed", "epoch": 5 });
    let story = Story::taken(entries(&[begun.clone(), back, released()]), following());
    let story = Story { wish: (200, at_epoch(&story.wish.1, 5)), ..story }.measured("rollback", phases());
    insta::assert_snapshot!("rollback", story.shown(&["rollback", "orders"]));

    let given_up =
        json!({ "event": "rollback-aborted", "epoch": 6, "why": "the lane stopped", "returns_at": 9 });
    let split = crossed("split", "service", &["strangler confirm orders", "strangler rollback orders"]);
    let events = [begun, given_up, json!({ "event": "released", "epoch": 6 })];
    let held = Story::taken(entries(&events[..2]), split.clone());
    assert_eq!(held.told(&["rollback", "orders", "--timeout", "1s"]).0, Some(6), "its hold is still on");
    let (code, document) = Story::taken(entries(&events), split).told(&["rollback", "orders"]);
    assert_eq!(
        (code, &document["ended"], &document["owner"]),
        (Some(5), &json!("aborted"), &json!("service"))
    );
    assert_eq!(document["next_steps"], json!(["strangler confirm orders", "strangler rollback orders"]));
    assert!(document["remedy"].as_str().unwrap().contains("`strangler confirm orders`"), "{document}");
}

fn at_epoch(outcome: &Value, epoch: u64) -> Value {
    let mut outcome = outcome.clone();
    outcome["epoch"] = json!(epoch);
    outcome
}

#[test]
fn an_earlier_crossing_is_not_taken_for_this_one() {
    let story = cut_over().measured("cutover", phases());
    let earlier = Story { report: at_epoch(&story.report, 3), ..story };
    let (code, document) = earlier.told(&["cutover", "orders"]);
    assert_eq!((code, &document["phases"], &document["held_ms_max"]), (Some(0), &json!({}), &Value::Null));
    assert_eq!(document["hold_ms"], json!(80), "by the journal's clock");
}

#[test]
fn a_dry_run_is_printed_as_given() {
    let steps = json!(["journal cutover-prepared: keep the changes", "look whether public.orders is ready"]);
    let dry = || Story { wish: (200, steps.clone()), ..Story::taken(Vec::new(), following()) };
    let (port, asked) = dry().play();
    let folder = folder_at(PLAN, port);
    let said = strangler(folder.path(), &["cutover", "orders", "--for", "90m", "--dry-run"]);
    assert_eq!(
        (said.code, said.out.lines().collect::<Vec<_>>()),
        (Some(0), vec![steps[0].as_str().unwrap(), steps[1].as_str().unwrap()])
    );
    assert_eq!(said.err, "hint: next: `strangler cutover orders --for 1h30m`\n");
    assert_eq!(asked.recv().unwrap().query, "dry_run=true");
    for verb in ["rehearse", "rollback"] {
        let (code, document) = dry().told(&[verb, "orders", "--dry-run"]);
        assert_eq!((code, &document["steps"], &document["stage"]), (Some(0), &steps, &json!("following")));
        assert_eq!((&document["epoch"], &document["owner"]), (&json!(6), &json!("monolith")));
        assert_eq!(document["next_steps"], json!([format!("strangler {verb} orders")]));
    }
}

#[test]
fn an_abort_ends_with_0_when_writes_are_held_no_longer() {
    let mut outcome = following();
    outcome["slice"] = json!("orders");
    outcome["generation"] = json!(7);
    outcome["proxies"] = json!({ "live": 1, "have": 1 });
    let story = Story::taken(entries(&[aborted("aborted by tester")]), following());
    let (code, document) = Story { wish: (200, outcome), ..story }.told(&["abort", "orders"]);
    assert_eq!(
        (code, &document["ended"], &document["owner"]),
        (Some(0), &json!("aborted"), &json!("monolith"))
    );
    assert_eq!(document["next_steps"], json!(["strangler rehearse orders", "strangler cutover orders"]));
}

#[test]
fn a_move_is_made_final_only_by_the_slices_name() {
    for arguments in [&["complete", "orders"][..], &["complete", "orders", "--yes", "order"]] {
        let (code, document) = cut_over().told(arguments);
        assert_eq!((code, &document["message"]), (Some(2), &json!("nothing was completed")), "{arguments:?}");
    }
    let mut outcome = cut_over().wish.1;
    outcome["stage"] = json!("retired");
    outcome["next_steps"] = json!(["strangler journal"]);
    let done = Story { wish: (200, outcome), ..cut_over() };
    let (code, document) = done.clone().told(&["complete", "orders", "--yes", "orders"]);
    assert_eq!(
        (code, &document["stage"], &document["next_steps"]),
        (Some(0), &json!("retired"), &json!(["strangler journal"]))
    );
    assert!(done.shown(&["confirm", "orders"]).contains("✔ orders: confirmed"));
}

#[test]
fn reconcile_says_what_it_mended_and_what_it_could_not() {
    let one = |did: Value, findings: Value| json!([{ "slice": "orders", "did": did, "findings": findings }]);
    let story = |answer| Story { wish: (200, answer), ..Story::taken(Vec::new(), following()) };
    let mended = story(one(json!(["the monolith's gate is open again, at epoch 6"]), json!([])));
    let (code, document) = mended.clone().told(&["reconcile", "orders"]);
    assert_eq!(
        (code, &document["did"][0]),
        (Some(0), &json!("the monolith's gate is open again, at epoch 6"))
    );
    assert_eq!(
        (&document["stage"], &document["epoch"], &document["owner"]),
        (&json!("following"), &json!(6), &json!("monolith"))
    );
    assert!(mended.shown(&["reconcile", "orders"]).contains("✔ orders: the monolith's gate is open again"));

    let finding =
        json!({ "code": "gate.ahead", "severity": "error", "message": "the gate has seen 9", "remedy": "r" });
    let (code, document) = story(one(json!([]), json!([finding]))).told(&["reconcile", "orders"]);
    assert_eq!(
        (code, &document["code"], &document["findings"]),
        (Some(1), &json!("gate.ahead"), &json!([finding]))
    );

    let mut held = crossed("split", "service", &["strangler status -w"]);
    held["hold"] = json!({ "epoch": 5, "until": 9_000 });
    let waits = |stands| Story::taken(Vec::new(), stands).told(&["reconcile", "orders", "--timeout", "1s"]);
    assert_eq!(waits(held.clone()).0, Some(6));
    held["stage"] = json!("cutting");
    held["owner"] = json!("nobody");
    assert_eq!(waits(held).0, Some(8));
}

#[test]
fn status_shows_a_crossing_and_alarms_about_writes_past_a_gate() {
    let lane = |foreign| json!({ "condition": { "condition": "following" }, "lag_bytes": 0, "lag_ms": 4, "changes": 0, "foreign": foreign });
    let mut split = crossed("split", "service", &["strangler confirm orders"]);
    split["returns_at"] = json!(552_000);
    split["lanes"] = json!({ "forward": lane(2), "reverse": lane(0) });
    let shown = Story::taken(Vec::new(), split).shown(&["status"]);
    assert!(shown.contains("orders  split, returns in 9m 12s  service"), "{shown}");
    assert!(shown.contains("4 ms  0 B") && shown.contains("[slice.foreign-writes]"), "{shown}");
}

#[test]
fn times_need_a_unit() {
    let (port, _asked) = cut_over().play();
    let folder = folder_at(PLAN, port);
    for arguments in
        [["--for", "10"], ["--hold", "5"], ["--for", "0s"], ["--timeout", "0"], ["--timeout", "2d"]]
    {
        let said = strangler(folder.path(), &[&["cutover", "orders"][..], &arguments].concat());
        assert_eq!(said.code, Some(2), "{arguments:?} {}", said.all());
    }
}
