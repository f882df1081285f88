//! `strangler journal`: who decided what, when and why.

use crate::invocation::Invocation;
use crate::outlook::destination;
use crate::remote::Remote;
use crate::signals::Signals;
use crate::ui::Ui;
use crate::ui::harmless::harmless;
use migrations::journal::{Entry, Generation};
use migrations::problem::Problem;
use migrations::stage::Event;
use owo_colors::OwoColorize;
use std::time::Duration;

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
    match event {
        Event::Shared { routes } => {
            let routes = routes.iter().map(|(route, share)| format!("{route} to {}", destination(*share)));
            format!("{name}: {}", routes.collect::<Vec<_>>().join(", "))
        }
        Event::CopyCompleted { copied_at } => format!("{name} at {copied_at}"),
        Event::Evicted { why } => format!("{name}: {why}"),
        Event::Resumed { skip: Some(skip) } => format!("{name}, skipping {skip}"),
        other => match other.epoch() {
            Some(epoch) => format!("{name} (epoch {epoch})"),
            None => name.to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
