//! `strangler journal`: who decided what, when and why.

use crate::invocation::Invocation;
use crate::outlook::destination;
use crate::remote::Remote;
use crate::signals::Signals;
use crate::span::written;
use crate::ui::Ui;
use crate::ui::harmless::harmless;
use migrations::crossing::{Intent, Moment};
use migrations::journal::{Entry, Generation};
use migrations::problem::Problem;
use migrations::stage::Event;
use owo_colors::OwoColorize;
use std::time::Duration;
use time::OffsetDateTime;

/// How long one request of `-f` may wait for a new entry.
const WAIT: Duration = Duration::from_secs(25);
/// The pause of `-f` after a failed request.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Keep printing new entries until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// Print only the last N entries
    #[arg(short = 'n', long = "lines", value_name = "N")]
    count: Option<usize>,
}

pub(crate) async fn run(call: &Invocation<'_>, args: &Args) -> Result<(), Problem> {
    let remote = call.remote()?;
    let entries = all(&remote).await?;
    let skipped = args.count.map_or(0, |count| entries.len().saturating_sub(count));
    for entry in &entries[skipped..] {
        show(call.ui, entry);
    }
    if entries.is_empty() {
        call.ui.note("the journal has no entries yet");
        call.ui.hint("`strangler sync start SLICE` or `strangler route set SLICE 10%` makes the first entry");
    }
    let mut last = entries.last().map_or(Generation(0), |entry| entry.generation);
    let mut signals = args.follow.then(Signals::listen).transpose()?;
    while let Some(signals) = signals.as_mut().filter(|_| !call.ui.is_gone()) {
        let answer = tokio::select! {
            answer = remote.journal(last, WAIT) => answer,
            () = signals.received() => break,
        };
        match answer {
            Ok(entries) => {
                for entry in entries.iter().filter(|entry| entry.generation > last) {
                    show(call.ui, entry);
                }
                last = entries.last().map_or(last, |entry| entry.generation.max(last));
            }
            Err(problem) => {
                call.ui.warn(&problem.message);
                tokio::time::sleep(AGAIN_AFTER).await;
            }
        }
    }
    Ok(())
}

async fn all(remote: &Remote) -> Result<Vec<Entry>, Problem> {
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        let last = entries.last().map_or(Generation(0), |entry| entry.generation);
        let more = remote.journal(last, Duration::ZERO).await?;
        let before = entries.len();
        // Each round must bring a newer entry, so that this ends.
        entries.extend(more.into_iter().filter(|entry| entry.generation > last));
        if entries.len() == before {
            return Ok(entries);
        }
    }
}

fn show(ui: &Ui, entry: &Entry) {
    ui.json(entry);
    ui.line(line(entry));
}

/// Always a single line, whatever text the entry holds.
fn line(entry: &Entry) -> String {
    let reason = harmless(&entry.reason);
    let reason = if reason.is_empty() { reason } else { format!("  “{reason}”") };
    // People get whole seconds; JSON has the exact time.
    let at = entry.at.split('.').next().unwrap_or_default().trim_end_matches('Z').replace('T', " ");
    format!(
        "{:>5}  {}  {}  {}{reason}  {}",
        entry.generation.to_string().dimmed(),
        harmless(&at).dimmed(),
        entry.slice.as_str().bold(),
        harmless(&words(&entry.event)),
        harmless(&entry.actor).dimmed(),
    )
}

fn words(event: &Event) -> String {
    let name = event.name();
    let said = match event {
        Event::SyncStarted { .. } | Event::SyncDropped | Event::Paused | Event::Resumed { skip: None } => {
            return name.to_owned();
        }
        Event::Shared { routes } => {
            let routes = routes.iter().map(|(route, share)| format!("{route} to {}", destination(*share)));
            routes.collect::<Vec<_>>().join(", ")
        }
        Event::CopyCompleted { copied_at } => return format!("{name} at {copied_at}"),
        Event::Evicted { why } => why.clone(),
        Event::Resumed { skip: Some(skip) } => return format!("{name}, skipping {skip}"),
        Event::CutoverPrepared { preparing } => match preparing.intent {
            Intent::Rehearse => "a rehearsal; the way back is kept from now on".to_owned(),
            Intent::Cutover { for_ms: None } => "the way back is kept from now on".to_owned(),
            Intent::Cutover { for_ms: Some(ms) } => {
                format!("for {}; the way back is kept from now on", written(Duration::from_millis(ms)))
            }
        },
        Event::CutoverStarted { .. } => "writes are held on the way to the service".to_owned(),
        Event::CutoverCommitted { returns_at: None, .. } => "the service owns the tables".to_owned(),
        Event::CutoverCommitted { returns_at: Some(at), .. } => {
            format!("the service owns the tables, and returns them {} unless it is confirmed", moment(*at))
        }
        Event::CutoverAborted { why, .. } => format!("the monolith owns the tables: {why}"),
        Event::Released { .. } => "what was held is let go".to_owned(),
        Event::RollbackStarted { .. } => "writes are held on the way back".to_owned(),
        Event::RollbackCommitted { .. } => {
            "the monolith owns the tables, with what the service wrote".to_owned()
        }
        Event::RollbackAborted { why, returns_at: None, .. } => format!("the service owns the tables: {why}"),
        Event::RollbackAborted { why, returns_at: Some(at), .. } => {
            format!("the service owns the tables: {why}; tried again {}", moment(*at))
        }
        Event::Confirmed => "the tables stay at the service".to_owned(),
        Event::Completed => "the way back is given up".to_owned(),
    };
    match event.epoch() {
        Some(epoch) => format!("{name} (epoch {epoch}): {said}"),
        None => format!("{name}: {said}"),
    }
}

/// `at 10:20:30`, UTC as the entries are.
fn moment(moment: Moment) -> String {
    let seconds = i64::try_from(moment.0 / 1000).unwrap_or(i64::MAX);
    let Ok(at) = OffsetDateTime::from_unix_timestamp(seconds) else { return "later".to_owned() };
    let (hour, minute, second) = at.to_hms();
    format!("at {} {hour:02}:{minute:02}:{second:02}", at.date())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_entry_is_one_line_whatever_the_row_held() {
        let entry = Entry {
            generation: Generation(7),
            at: "2025-01-01T10:00:00.123Z".to_owned(),
            actor: "eve\x1b[8m".to_owned(),
            reason: "ok\n    8  forged".to_owned(),
            slice: "orders".parse().unwrap(),
            event: Event::Evicted { why: "the row \x1b]0;mine\x07".to_owned() },
        };
        let shown = anstream::adapter::strip_str(&line(&entry)).to_string();
        assert_eq!(
            shown,
            "    7  2025-01-01 10:00:00  orders  evicted: the row ·]0;mine·  “ok·    8  forged”  eve·[8m"
        );
        assert!(!line(&entry).contains("\x1b]") && !line(&entry).contains("\x1b[8m"));
    }

    #[test]
    fn what_moves_writes_is_said_in_plain_words() {
        let said = |event: serde_json::Value| words(&serde_json::from_value(event).unwrap());
        let prepared = json!({
            "event": "cutover-prepared", "intent": "cutover", "for_ms": 600_000, "plan": "0000000000000000",
            "hold_ms": 5000, "until": 1,
        });
        assert_eq!(said(prepared), "cutover-prepared: for 10m; the way back is kept from now on");
        let committed =
            json!({ "event": "cutover-committed", "epoch": 5, "returns_at": 1_767_261_630_500_u64 });
        assert_eq!(
            said(committed),
            "cutover-committed (epoch 5): the service owns the tables, and returns them at 2026-01-01 10:00:30 unless it is confirmed"
        );
        let aborted = json!({ "event": "cutover-aborted", "epoch": 6, "why": "it took too long" });
        assert_eq!(
            said(aborted),
            "cutover-aborted (epoch 6): the monolith owns the tables: it took too long"
        );
        assert_eq!(
            said(json!({ "event": "released", "epoch": 6 })),
            "released (epoch 6): what was held is let go"
        );
        assert_eq!(said(json!({ "event": "completed" })), "completed: the way back is given up");
        // No clock holds such a moment.
        assert_eq!(moment(Moment(u64::MAX)), "later");
    }
}
