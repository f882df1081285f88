//! `strangler verify`: compares a slice's rows on both sides while both sides move.

use crate::invocation::{Invocation, typed};
use crate::outlook::bridge;
use crate::remote::Remote;
use crate::signals::Signals;
use crate::ui::figure;
use crate::ui::harmless::harmless;
use crate::ui::progress::Progress;
use crate::verb::no_slice;
use migrations::api::{SliceStatus, Status};
use migrations::code::Code;
use migrations::control::VERSION;
use migrations::names::SliceName;
use migrations::problem::Problem;
use migrations::verify::{Course, How, RowKey, Verification, VerifyRequest};
use owo_colors::OwoColorize;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const LOOK_EVERY: Duration = Duration::from_millis(300);
/// How long controller and bridge may be unreachable, for example during a restart, before watching ends.
const ABSENCE_MAX: Duration = Duration::from_secs(30);
/// Rows that a person is shown; `--output json` has more.
const SHOWN_MAX: usize = 20;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The slice's name
    #[arg(value_parser = typed::<SliceName>)]
    slice: SliceName,
    /// Compare all rows again, even if an earlier verification was stopped halfway
    #[arg(long)]
    restart: bool,
    /// Mend the rows that differ, by the stream; at most 1000 in one run
    #[arg(long)]
    repair: bool,
    /// Do not leave three quarters of the time to others
    #[arg(long)]
    full_speed: bool,
}

pub(crate) async fn run(call: &Invocation<'_>, args: &Args) -> Result<(), Problem> {
    let remote = call.remote()?;
    let status = remote.status().await?;
    let stands = find(&status, &args.slice)?;
    let address = address(&status)?;
    let request = VerifyRequest {
        version: VERSION,
        slice: args.slice.clone(),
        restart: args.restart,
        full_speed: args.full_speed,
        repair: args.repair,
    };
    let mut signals = Signals::listen()?;
    remote.verify(&address, &request).await?;
    let mut watch = Watch { remote: &remote, request, address, progress: call.ui.progress() };
    let report = tokio::select! {
        report = watch.until_ended() => report?,
        () = signals.received() => return Err(watch.stop().await),
    };
    drop(watch);
    conclude(call, stands, &report)
}

fn find<'a>(status: &'a Status, slice: &SliceName) -> Result<&'a SliceStatus, Problem> {
    let stands = status.slices.get(slice).ok_or_else(|| no_slice(slice, status.slices.keys()))?;
    if stands.has_tables {
        return Ok(stands);
    }
    Err(Problem::new(
        Code::SliceImpossible,
        format!("slice `{slice}` has no tables in the plan, so there is nothing to compare"),
        "to copy and compare rows, name the slice's tables under `tables:` in the plan",
    ))
}

fn address(status: &Status) -> Result<String, Problem> {
    let address = bridge(status).and_then(|(agent, _)| agent.address.clone());
    address.ok_or_else(|| {
        Problem::new(
            Code::ApiUnreachable,
            "no bridge is live, and only a bridge compares rows",
            "start one with `strangler up --detach`, or read .strangler/log/bridge.log",
        )
    })
}

/// A verification, as it is watched.
struct Watch<'a> {
    remote: &'a Remote,
    request: VerifyRequest,
    /// Of the bridge. A bridge that was started again may have another one.
    address: String,
    progress: Progress,
}

impl Watch<'_> {
    async fn until_ended(&mut self) -> Result<Verification, Problem> {
        let (mut heard, mut was_absent) = (Instant::now(), false);
        loop {
            match self.look(was_absent).await {
                Ok(report) => {
                    (heard, was_absent) = (Instant::now(), false);
                    if !report.course.is_under_way() {
                        self.progress.clear();
                        return Ok(report);
                    }
                    self.draw(&report);
                }
                Err(problem) if heard.elapsed() > ABSENCE_MAX => return Err(problem),
                Err(problem) => {
                    was_absent = true;
                    self.progress.state(&format!("{}: {}", self.request.slice, problem.message));
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// A bridge that was away goes on where it was, if it is asked.
    async fn look(&mut self, was_absent: bool) -> Result<Verification, Problem> {
        if !was_absent {
            return self.remote.verification(&self.address, &self.request.slice).await;
        }
        self.address = address(&self.remote.status().await?)?;
        let report = self.remote.verification(&self.address, &self.request.slice).await?;
        if report.course != Course::Stopped {
            return Ok(report);
        }
        let request = VerifyRequest { restart: false, ..self.request.clone() };
        self.remote.verify(&self.address, &request).await
    }

    fn draw(&mut self, report: &Verification) {
        let slice = &self.request.slice;
        if let Course::Waiting { why } = &report.course {
            return self.progress.state(&format!("{slice}: waiting: {why}"));
        }
        let Verification { rows, rows_estimated, differences, .. } = report;
        let mut text = format!(
            "{slice}: compared {} of about {} rows, {} differ",
            figure::count(*rows),
            figure::count(*rows_estimated),
            figure::count(differences.total)
        );
        if let Some(left) = left(report).filter(|_| !self.progress.is_live()) {
            text.push_str(&format!(", about {} left", figure::span(left)));
        }
        self.progress.part(&text, *rows, *rows_estimated);
    }

    async fn stop(&mut self) -> Problem {
        let slice = &self.request.slice;
        let stopped = self.remote.stop_verification(&self.address, slice).await;
        self.progress.clear();
        match stopped {
            Ok(report) => Problem::new(
                Code::CommandTimedOut,
                format!(
                    "{slice}: stopped after {} rows; {} differ so far",
                    figure::count(report.rows),
                    figure::count(report.differences.total)
                ),
                format!("go on with `strangler verify {slice}`"),
            ),
            Err(problem) => problem.remedy(&format!("see where it is with `strangler verify {slice}`")),
        }
    }
}

/// How long the rest takes at the speed so far, in ms; none before that can be said.
fn left(report: &Verification) -> Option<u64> {
    let Verification { rows, rows_estimated, elapsed_ms, .. } = report;
    let left = u128::from(*elapsed_ms) * u128::from(rows_estimated.saturating_sub(*rows));
    let left = left.checked_div(u128::from(*rows)).filter(|_| *elapsed_ms > 0)?;
    Some(u64::try_from(left).unwrap_or(u64::MAX))
}

fn conclude(call: &Invocation<'_>, stands: &SliceStatus, report: &Verification) -> Result<(), Problem> {
    let slice = &report.slice;
    match &report.course {
        Course::Failed { problem } => return Err((**problem).clone()),
        Course::Done => {}
        _ => return Err(given_up(slice)),
    }
    let next = next_steps(stands, report);
    call.ui.json(&document(stands, report, &next));
    for difference in report.differences.listed.iter().take(SHOWN_MAX) {
        let what = match &difference.how {
            How::Missing => "missing in the copy".to_owned(),
            How::Extra => "only in the copy".to_owned(),
            How::Values { columns } => format!("other {}", columns.join(", ")),
            How::Unfit { why } => why.clone(),
        };
        call.ui.line(format!(
            "{} {}",
            "✗".red().bold(),
            harmless(&format!("{}: {what}", named(&difference.row)))
        ));
    }
    let listed = |rows: &[RowKey], why: &str| {
        for row in rows.iter().take(SHOWN_MAX) {
            call.ui.line(format!("{} {}", "!".yellow().bold(), harmless(&format!("{}: {why}", named(row)))));
        }
    };
    listed(&report.undecided.listed, "looks different, beside an open transaction");
    listed(&report.changing.listed, "changed at each look, so not compared");
    for table in &report.unsearched {
        call.ui.warn(&format!(
            "{table}: an expression makes the key, so rows only in the copy are not looked for"
        ));
    }
    let verdict = format!(
        "{slice}: {} rows on both sides, {} differ",
        figure::count(report.rows),
        figure::count(report.differences.total)
    );
    if report.differences.total > 0 {
        return Err(Problem::new(Code::VerifyDifferences, verdict, next.join("\n")));
    }
    if report.undecided.total > 0 {
        return Err(undecided(slice, report.undecided.total));
    }
    let mended = match report.repaired {
        0 => String::new(),
        rows => format!(", {} mended", figure::count(rows)),
    };
    call.ui.tick(&format!("{verdict}{mended}"));
    call.ui.next_steps(&next);
    Ok(())
}

fn named(row: &RowKey) -> String {
    let key: Vec<String> = row.key.iter().map(|(column, value)| format!("{column}={value}")).collect();
    format!("{} {}", row.table, key.join(" "))
}

fn next_steps(stands: &SliceStatus, report: &Verification) -> Vec<String> {
    if report.differences.total > 0 {
        let slice = &report.slice;
        return vec![
            format!("mend them: `strangler verify {slice} --repair`"),
            format!(
                "or copy the slice again: `strangler sync drop {slice}`, then `strangler sync start {slice}`"
            ),
        ];
    }
    stands.next_steps.clone()
}

fn document(stands: &SliceStatus, report: &Verification, next: &[String]) -> Value {
    let mut document = json!({ "stage": stands.stage.name(), "epoch": stands.epoch });
    if let (Value::Object(document), Ok(Value::Object(report))) =
        (&mut document, serde_json::to_value(report))
    {
        document.extend(report);
        document.insert("next_steps".to_owned(), json!(next));
    }
    document
}

fn undecided(slice: &SliceName, rows: u64) -> Problem {
    Problem::new(
        Code::VerifyUndecided,
        format!(
            "{slice}: {} rows look different, but a transaction that is open for long may have changed them",
            figure::count(rows)
        ),
        format!(
            "end the oldest writing transaction of the owner's server, then `strangler verify {slice}` again"
        ),
    )
}

fn given_up(slice: &SliceName) -> Problem {
    Problem::new(
        Code::CommandTimedOut,
        format!("{slice}: someone else stopped the verification"),
        format!("go on with `strangler verify {slice}`"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use migrations::stage::Owner;

    #[test]
    fn the_rest_takes_as_long_for_each_row_as_the_rows_before() {
        let slice: SliceName = "orders".parse().unwrap();
        let report = |rows, rows_estimated, elapsed_ms| Verification {
            rows,
            rows_estimated,
            elapsed_ms,
            ..Verification::none(slice.clone(), Owner::Monolith)
        };
        assert_eq!(left(&report(100, 400, 1000)), Some(3000));
        assert_eq!(left(&report(0, 400, 1000)), None);
        assert_eq!(left(&report(500, 400, 1000)), Some(0));
        assert!(left(&report(u64::MAX / 2, u64::MAX, u64::MAX)).is_some());
    }
}
