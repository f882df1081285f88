//! From the commit at the source, as its client sees it, until the row is visible in the sink.
//!
//! `pgbench` commits at a steady rate and notes when each commit was answered; meanwhile one session looks at the sink
//! several times a millisecond. Each of its clients writes rising numbers, so the highest one that is visible tells of
//! all before it. Both clocks are this machine's.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::arena::{Arena, Side};
use lab::process::Background;
use lab::{interrupt, postgres};

/// Commits per second, all clients together.
const RATE: u32 = 500;
const CLIENTS: usize = 4;
/// Numbers of one client; more than it can ever write in a run.
const ROOM: u64 = 1_000_000_000;
/// The pause between two looks; with the look itself about half a millisecond, which bounds the error from above.
const LOOK_EVERY: Duration = Duration::from_micros(300);
/// After the last commit, everything is visible within this.
const PATIENCE: Duration = Duration::from_secs(60);

/// Commits for `seconds` while a side's stream runs; gives each commit's latency in ms. `base` is above all numbers used.
pub fn measure(arena: &mut Arena, side: Side, seconds: u64, base: u64) -> Result<Vec<f64>> {
    let programs = postgres::programs().context("there is no Postgres here")?;
    let prefix = arena.file(&format!("commits-{base}"));
    let script = arena.file("latency.sql");
    let sql = format!(
        "\\set seq :seq + 1\n\\set id {base} + :client_id * {ROOM} + :seq\nINSERT INTO items VALUES (:id, :seq, 'open', \
         12.34, repeat(md5(:seq::text), 2), now());\n"
    );
    fs::write(&script, sql)?;
    let mut pgbench = Command::new(programs.join("pgbench"));
    pgbench.args(["-n", "-j", "1", "-c", &CLIENTS.to_string(), "-R", &RATE.to_string()]);
    pgbench.args(["-T", &seconds.to_string(), "-D", "seq=0", "-l", "--log-prefix"]).arg(&prefix);
    pgbench.arg("-f").arg(&script).arg(arena.urls().0).current_dir(std::env::temp_dir());
    let log = arena.file("pgbench.log");
    let mut pgbench = Background::start("pgbench", &mut pgbench, &log)?;
    let committed = format!("{}.{}", prefix.display(), pgbench.pid());
    let seen = watch(arena, side, base, &mut pgbench, Path::new(&committed), seconds)?;
    let commits = commits(&fs::read_to_string(&committed)?)?;
    Ok(latencies(&commits, &seen))
}

/// When each client's highest visible number was first seen: (seconds, number).
type Seen = [Vec<(f64, u64)>; CLIENTS];

fn watch(
    arena: &mut Arena,
    side: Side,
    base: u64,
    pgbench: &mut Background,
    committed: &Path,
    seconds: u64,
) -> Result<Seen> {
    let highest = (0..CLIENTS as u64).map(|client| {
        let (from, to) = (base + client * ROOM, base + (client + 1) * ROOM);
        format!("(SELECT coalesce(max(id) - {from}, 0) FROM items WHERE id > {from} AND id < {to})")
    });
    let highest = highest.collect::<Vec<_>>().join(", ");
    let sink = arena.sink(side);
    sink.ask(&format!("PREPARE look AS SELECT extract(epoch FROM clock_timestamp()), {highest}"))?;
    let mut seen = Seen::default();
    let mut wanted: Option<[u64; CLIENTS]> = None;
    let end = Instant::now() + Duration::from_secs(seconds) + PATIENCE;
    loop {
        let (time, numbers) = look(&sink.ask("EXECUTE look")?)?;
        for (seen, number) in seen.iter_mut().zip(numbers) {
            if seen.last().map_or(0, |(_, last)| *last) < number {
                seen.push((time, number));
            }
        }
        if wanted.is_none() && !pgbench.is_running()? {
            let status = pgbench.wait(PATIENCE)?;
            anyhow::ensure!(status.success(), "pgbench failed ({status}):\n{}", pgbench.log_end());
            let commits = commits(&fs::read_to_string(committed)?)?;
            wanted = Some(commits.map(|commits| commits.len() as u64));
        }
        if wanted == Some(numbers) {
            sink.ask("DEALLOCATE look")?;
            return Ok(seen);
        }
        if Instant::now() > end {
            bail!("{side:?}: of {wanted:?} commits only {numbers:?} became visible in the sink");
        }
        interrupt::check()?;
        std::thread::sleep(LOOK_EVERY);
    }
}

fn look(answer: &str) -> Result<(f64, [u64; CLIENTS])> {
    let mut fields = answer.trim().split('|');
    let time = fields.next().unwrap_or_default();
    let time = time.parse().with_context(|| format!("no time in {answer:?}"))?;
    let mut numbers = [0; CLIENTS];
    for number in &mut numbers {
        let field = fields.next().unwrap_or_default();
        *number = field.parse().with_context(|| format!("no number in {answer:?}"))?;
    }
    Ok((time, numbers))
}

/// When each client's commits were answered, in seconds, in order. A line of pgbench's log: client, its count, latency,
/// script, seconds, microseconds, and behind them the delay of the schedule.
fn commits(log: &str) -> Result<[Vec<f64>; CLIENTS]> {
    let mut commits: [Vec<f64>; CLIENTS] = Default::default();
    for line in log.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let read = || -> Option<(usize, f64)> {
            let number = |at: usize| fields.get(at)?.parse::<f64>().ok();
            Some((fields.first()?.parse().ok()?, number(4)? + number(5)? / 1e6))
        };
        let (client, time) = read().with_context(|| format!("pgbench logged {line:?}"))?;
        commits.get_mut(client).with_context(|| format!("pgbench logged {line:?}"))?.push(time);
    }
    Ok(commits)
}

/// A row may be visible before the client that wrote it has read its answer; that is no time at all, and none is owed.
fn latencies(commits: &[Vec<f64>; CLIENTS], seen: &Seen) -> Vec<f64> {
    let mut latencies = Vec::new();
    for (commits, seen) in commits.iter().zip(seen) {
        let mut seen = seen.iter().peekable();
        for (number, committed) in (1u64..).zip(commits) {
            while seen.peek().is_some_and(|(_, highest)| *highest < number) {
                seen.next();
            }
            if let Some((time, _)) = seen.peek() {
                latencies.push(((time - committed) * 1e3).max(0.0));
            }
        }
    }
    latencies
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pgbenchs_log_is_read_by_client() {
        let commits =
            commits("0 1 2034 0 100 500000 0\n1 1 900 0 100 750000 3\n0 2 800 0 101 0 0\n").unwrap();
        assert_eq!(commits[0], [100.5, 101.0]);
        assert_eq!(commits[1], [100.75]);
        assert!(super::commits("9 1 1 0 1 1 0").is_err());
    }

    #[test]
    fn the_highest_visible_number_tells_of_all_before_it() {
        let commits = [vec![1.0, 1.5, 2.0], vec![], vec![], vec![]];
        let seen = [vec![(1.25, 1), (2.5, 3)], vec![], vec![], vec![]];
        assert_eq!(latencies(&commits, &seen), [250.0, 1000.0, 500.0]);
        let early = [vec![(0.5, 3)], vec![], vec![], vec![]];
        assert_eq!(latencies(&commits, &early), [0.0, 0.0, 0.0]);
    }

    #[test]
    fn a_look_has_a_time_and_a_number_for_each_client() {
        assert_eq!(look("1700000000.25|1|2|3|4").unwrap(), (1_700_000_000.25, [1, 2, 3, 4]));
        assert!(look("1700000000.25|1|2").is_err());
    }
}
