//! The bridge beside PostgreSQL's own logical replication and its COPY: throughput from a backlog, first copy, latency,
//! memory; on both logs where Java and Maven are here.
//!
//! A backlog is written while both streams stand still. Then each stream drains it alone, and must end with exactly the
//! rows of the source. Which stream goes first changes from round to round.

mod amount;
mod arena;
mod latency;

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::Course;
use super::figure::{Better, Figure, quantiles};
use crate::prerequisites::{self, Need};
use crate::terminal;
use amount::Amount;
use arena::{Arena, Side};
use lab::{postgres, process};

const SIDES: [Side; 2] = [Side::Ours, Side::Native];
const NATIVE: &str = "logical replication";
const DEBEZIUM: &str = "Debezium and its JDBC sink";
/// Rows of one transaction of a bulk backlog.
const BATCH: u64 = 10_000;
/// What one case may take; ten million rows on a slow machine included.
const LONG: Duration = Duration::from_secs(1800);
/// What the bridge may have resident, in MiB.
const MEMORY_LIMIT: f64 = 128.0;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Backlog {
    Insert,
    Update,
    Singles,
}

impl Backlog {
    const ALL: [Backlog; 3] = [Backlog::Insert, Backlog::Update, Backlog::Singles];

    fn name(self) -> &'static str {
        match self {
            Backlog::Insert => "bulk insert",
            Backlog::Update => "bulk update",
            Backlog::Singles => "1-row transactions",
        }
    }
}

pub fn measure(course: &mut Course) -> Result<()> {
    one_log(course, "embedded", false)?;
    if prerequisites::missing(&Need::kafka()).is_empty() {
        return one_log(course, "kafka", true);
    }
    terminal::note("Java or Maven is missing: nothing is measured through Kafka");
    Ok(())
}

fn one_log(course: &mut Course, log: &str, kafka: bool) -> Result<()> {
    let titles = Titles::on(log);
    let wanted: Vec<Backlog> =
        Backlog::ALL.into_iter().filter(|way| course.wants(&titles.stream(*way))).collect();
    let latency = course.wants(&titles.latency());
    let (copy, weighed_copy) =
        (!kafka && course.wants(Titles::COPY), !kafka && course.wants(Titles::COPY_MEMORY));
    let weighed = course.wants(&titles.memory());
    if wanted.is_empty() && !latency && !copy && !weighed_copy && !weighed {
        return Ok(());
    }
    terminal::heading(&format!("two clusters, the log {log}"));
    let mut run = Run {
        arena: Arena::build(&course.program, kafka)?,
        amount: Amount::of(course.extent),
        rounds: course.extent.rounds(),
        next: 1,
        mark: 0,
        debezium: Vec::new(),
    };
    if copy {
        run.copy(course)?;
    }
    if kafka && course.debezium && !wanted.is_empty() {
        run.measure_debezium(course, &titles, &wanted)?;
    }
    if !wanted.is_empty() || latency {
        run.begin()?;
        for way in wanted {
            run.stream(course, &titles, way)?;
        }
        if latency {
            run.latency(course, &titles)?;
        }
        run.arena.unsubscribe()?;
        run.arena.start(Side::Ours)?;
        run.arena.drop_copy()?;
        run.arena.stop(Side::Ours)?;
    }
    if weighed_copy || weighed {
        run.memory(course, weighed_copy, weighed.then(|| titles.memory()))?;
    }
    Ok(())
}

/// The names of the cases on one log.
struct Titles<'a> {
    log: &'a str,
}

impl Titles<'_> {
    const COPY: &'static str = "first copy";
    const COPY_MEMORY: &'static str = "bridge memory: first copy";

    fn on(log: &str) -> Titles<'_> {
        Titles { log }
    }

    fn stream(&self, way: Backlog) -> String {
        format!("{}, {} log", way.name(), self.log)
    }

    fn latency(&self) -> String {
        format!("commit to visible at 500 tx/s, {} log", self.log)
    }

    fn memory(&self) -> String {
        format!("bridge memory: one large transaction, {} log", self.log)
    }
}

struct Run {
    arena: Arena,
    amount: Amount,
    rounds: usize,
    /// The first id that no row has.
    next: u64,
    /// Tells one round's updates from another's.
    mark: u64,
    /// Debezium's rates, by backlog.
    debezium: Vec<(Backlog, Vec<f64>)>,
}

impl Run {
    /// Rows `next..next + count`, in transactions of `batch`.
    fn insert(&mut self, count: u64, batch: u64) -> Result<()> {
        let (from, to) = (self.next, self.next + count);
        let sql = format!(
            "DO $$ BEGIN FOR at IN 0..{} LOOP INSERT INTO items SELECT g, g % 9973, 'open', (g % 100000) / 100.0, \
             md5(g::text) || md5(g::text) || md5(g::text), now() FROM generate_series({from} + at * {batch}, \
             least({from} + (at + 1) * {batch}, {to}) - 1) g; COMMIT; END LOOP; END $$",
            count.div_ceil(batch) - 1
        );
        self.arena.source.ask(&sql)?;
        self.next = to;
        Ok(())
    }

    /// Empties all three tables and fills the source.
    fn refill(&mut self, count: u64) -> Result<()> {
        self.arena.source.ask("TRUNCATE items")?;
        self.next = 1;
        self.insert(count, BATCH * 10)?;
        self.arena.rest()
    }

    fn copy(&mut self, course: &mut Course) -> Result<()> {
        let rows = self.amount.copied;
        self.refill(rows)?;
        let (mut ours, mut pipe) = (Vec::new(), Vec::new());
        self.arena.start(Side::Ours)?;
        for round in 0..self.rounds {
            let order = if round % 2 == 0 { SIDES } else { [Side::Native, Side::Ours] };
            for side in order {
                self.arena.sink(side).ask("CHECKPOINT")?;
                match side {
                    Side::Ours => {
                        ours.push(rows as f64 / self.arena.copy()?);
                        self.arena.must_be_equal(side)?;
                        self.arena.drop_copy()?;
                    }
                    Side::Native | Side::Debezium => pipe.push(rows as f64 / self.pipe()?),
                }
            }
        }
        self.arena.stop(Side::Ours)?;
        let peers = [("psql to psql", pipe.as_slice())];
        course.take(Figure::of(Titles::COPY, "rows/s", Better::More, &ours, &peers));
        Ok(())
    }

    /// `psql` to `psql`, as people do it by hand; gives the seconds.
    fn pipe(&mut self) -> Result<f64> {
        self.arena.sink(Side::Native).ask("TRUNCATE items")?;
        let psql = postgres::programs().context("there is no Postgres here")?.join("psql");
        let (from, to) = self.arena.urls();
        let mut shell = Command::new("bash");
        let line = "set -o pipefail; \"$PSQL\" -X -q -d \"$FROM\" -c 'COPY items TO STDOUT (FORMAT binary)' | \
                    \"$PSQL\" -X -q -d \"$TO\" -c 'COPY items FROM STDIN (FORMAT binary)'";
        shell.args(["-c", line]).env("PSQL", psql).env("FROM", from).env("TO", to);
        let start = Instant::now();
        process::output(&mut shell, LONG)?;
        let seconds = start.elapsed().as_secs_f64();
        self.arena.must_be_equal(Side::Native)?;
        Ok(seconds)
    }

    /// Both sides hold the same rows and follow, and stand still.
    fn begin(&mut self) -> Result<()> {
        // Updates need rows to change.
        self.refill(self.amount.updated)?;
        self.arena.start(Side::Ours)?;
        self.arena.copy()?;
        self.pipe()?;
        self.arena.await_stream(Side::Ours)?;
        self.arena.stop(Side::Ours)?;
        self.arena.subscribe()
    }

    /// Lets Debezium drain backlogs of its own, before the other sides' turn. What it drains first warms Java up.
    fn measure_debezium(&mut self, course: &Course, titles: &Titles<'_>, wanted: &[Backlog]) -> Result<()> {
        let others = std::mem::replace(&mut self.amount, Amount::of_debezium(course.extent));
        self.arena.source.ask("TRUNCATE items")?;
        self.next = 1;
        self.arena.connect_debezium()?;
        let (_, done) = self.backlog(Backlog::Insert)?;
        self.arena.drain(Side::Debezium, &done)?;
        for way in wanted {
            let mut rates = Vec::new();
            for round in 0..self.rounds {
                let (count, done) = self.backlog(*way)?;
                self.arena.rest()?;
                rates.push(count as f64 / self.arena.drain(Side::Debezium, &done)?);
                let title = titles.stream(*way);
                terminal::note(&format!("{title}: Debezium's round {} of {}", round + 1, self.rounds));
            }
            self.debezium.push((*way, rates));
        }
        self.amount = others;
        self.arena.disconnect_debezium()
    }

    fn stream(&mut self, course: &mut Course, titles: &Titles<'_>, way: Backlog) -> Result<()> {
        let (mut ours, mut native) = (Vec::new(), Vec::new());
        for round in 0..self.rounds {
            let (count, done) = self.backlog(way)?;
            self.arena.rest()?;
            for side in if round % 2 == 0 { SIDES } else { [Side::Native, Side::Ours] } {
                let rate = count as f64 / self.arena.drain(side, &done)?;
                if side == Side::Ours { ours.push(rate) } else { native.push(rate) }
            }
            terminal::note(&format!("{}: round {} of {}", titles.stream(way), round + 1, self.rounds));
        }
        let unit = if way == Backlog::Singles { "tx/s" } else { "rows/s" };
        let mut peers = vec![(NATIVE, native.as_slice())];
        let debezium = self.debezium.iter().filter(|(of, _)| *of == way);
        peers.extend(debezium.map(|(_, rates)| (DEBEZIUM, rates.as_slice())));
        course.take(Figure::of(&titles.stream(way), unit, Better::More, &ours, &peers));
        Ok(())
    }

    /// Writes a backlog; gives how many rows it changes, and how a sink that has them all is known.
    fn backlog(&mut self, way: Backlog) -> Result<(u64, String)> {
        match way {
            Backlog::Insert => {
                self.insert(self.amount.inserted, BATCH)?;
                Ok((self.amount.inserted, format!("SELECT max(id) = {} FROM items", self.next - 1)))
            }
            Backlog::Update => {
                self.mark += 1;
                let (count, mark) = (self.amount.updated, self.mark);
                let sql = format!(
                    "DO $$ BEGIN FOR at IN 0..{} LOOP UPDATE items SET status = 'mark {mark}', amount = amount + 1, \
                     changed = now() WHERE id > at * {BATCH} AND id <= least((at + 1) * {BATCH}, {count}); COMMIT; \
                     END LOOP; END $$",
                    count.div_ceil(BATCH) - 1
                );
                self.arena.source.ask(&sql)?;
                Ok((count, format!("SELECT status = 'mark {mark}' FROM items WHERE id = {count}")))
            }
            Backlog::Singles => self.singles(),
        }
    }

    fn singles(&mut self) -> Result<(u64, String)> {
        const CLIENTS: u64 = 8;
        let each = self.amount.singles / CLIENTS;
        let pgbench = postgres::programs().context("there is no Postgres here")?.join("pgbench");
        let script = self.arena.file("singles.sql");
        let sql = format!(
            "\\set seq :seq + 1\nINSERT INTO items VALUES ({} + :seq * {CLIENTS} + :client_id, :seq, 'open', 12.34, \
             repeat(md5(:seq::text), 3), now());\n",
            self.next
        );
        std::fs::write(&script, sql)?;
        let mut command = Command::new(pgbench);
        command.args(["-n", "-j", "1", "-c", &CLIENTS.to_string(), "-t", &each.to_string(), "-D", "seq=-1"]);
        command.arg("-f").arg(&script).arg(self.arena.urls().0).current_dir(std::env::temp_dir());
        // Only the backlog is wanted here, not the time that writing it takes.
        command.env("PGOPTIONS", "-c synchronous_commit=off");
        process::output(&mut command, LONG)?;
        let count = each * CLIENTS;
        let from = self.next;
        self.next += count;
        Ok((
            count,
            format!(
                "SELECT max(id) = {} AND count(*) = {count} FROM items WHERE id >= {from}",
                self.next - 1
            ),
        ))
    }

    fn latency(&mut self, course: &mut Course, titles: &Titles<'_>) -> Result<()> {
        let mut found: [(Vec<f64>, Vec<f64>); 2] = Default::default();
        for round in 0..self.rounds {
            self.arena.rest()?;
            for side in if round % 2 == 0 { SIDES } else { [Side::Native, Side::Ours] } {
                let base = self.base();
                self.arena.start(side)?;
                self.arena.await_stream(side)?;
                self.warm_up(side, base)?;
                let latencies = latency::measure(&mut self.arena, side, self.amount.latency_seconds, base)?;
                self.arena.stop(side)?;
                self.arena.must_be_equal(side)?;
                let (_, quantiles) = quantiles(&latencies, &[0.5, 0.99]).context("there were no commits")?;
                let [half, most] = quantiles[..] else { continue };
                let (p50, p99) = &mut found[usize::from(side == Side::Native)];
                p50.push(half);
                p99.push(most);
            }
        }
        let [(ours50, ours99), (native50, native99)] = &found;
        let limit = if titles.log == "kafka" { 25.0 } else { 10.0 };
        let title = titles.latency();
        let peers = [(NATIVE, native50.as_slice()), ("limit", &[limit])];
        course.take(Figure::of(&format!("{title}: p50"), "ms", Better::Less, ours50, &peers));
        let peers = [(NATIVE, native99.as_slice())];
        course.take(Figure::of(&format!("{title}: p99"), "ms", Better::Less, ours99, &peers));
        Ok(())
    }

    /// Sends one row through the stream, after what the other side's turn left. Then the stream is running.
    fn warm_up(&mut self, side: Side, id: u64) -> Result<()> {
        let row = format!("INSERT INTO items VALUES ({id}, 0, 'open', 0, '', now())");
        self.arena.source.ask(&row)?;
        let rows = self.arena.source.ask("SELECT count(*) FROM items")?;
        let caught_up = format!("SELECT count(*) = {rows} FROM items");
        self.arena.sink(side).await_holding(&caught_up, LONG, Duration::from_millis(50)).map(drop)
    }

    /// A number above all ids so far, with room for a run's clients.
    fn base(&mut self) -> u64 {
        self.mark += 1;
        self.mark * 1_000_000_000_000
    }

    fn memory(&mut self, course: &mut Course, copy: bool, transaction: Option<String>) -> Result<()> {
        let rows = if copy { self.amount.weighed_copy } else { BATCH };
        self.refill(rows)?;
        self.arena.start(Side::Ours)?;
        self.arena.copy()?;
        let limit: [(&str, &[f64]); 1] = [("limit", &[MEMORY_LIMIT])];
        if copy {
            let peak = self.arena.bridge_peak_mib()?;
            let title = format!("{} of {rows} rows", Titles::COPY_MEMORY);
            course.take(Figure::of(&title, "MiB", Better::Less, &[peak], &limit));
        }
        self.arena.must_be_equal(Side::Ours)?;
        let Some(title) = transaction else { return self.arena.stop(Side::Ours) };
        // A new process, so that the memory of the copy is not counted here.
        self.arena.stop(Side::Ours)?;
        self.arena.start(Side::Ours)?;
        self.arena.await_stream(Side::Ours)?;
        let rows = self.amount.weighed_transaction;
        self.insert(rows, rows)?;
        let done = format!("SELECT max(id) = {} FROM items", self.next - 1);
        self.arena.sink(Side::Ours).await_holding(&done, LONG, Duration::from_millis(50))?;
        let peak = self.arena.bridge_peak_mib()?;
        course.take(Figure::of(&format!("{title} ({rows} rows)"), "MiB", Better::Less, &[peak], &limit));
        self.arena.must_be_equal(Side::Ours)?;
        self.arena.stop(Side::Ours)
    }
}
