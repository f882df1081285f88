//! One verification from its first row to its last: table by table, first every row of the source, then the keys that
//! only the sink may have.
//!
//! It may be dropped at any await: what it keeps is changed only when a look is complete. Bounded: the rows of one look,
//! [`SUSPECTS_MAX`] keys, and the lists of what was found.

use super::again::again;
use super::kept::{Kept, LISTED_MAX, Place, Progress, Shelf, Suspect};
use super::open::{APPLICATION, open};
use super::pace::{Stride, rest};
use super::proof::{Sides, Verdict};
use super::repair::repair;
use super::subject::Subject;
use super::table::{self, Key, SinkKeys, Table};
use super::watch::Known;
use crate::feed::source::SourceError;
use crate::lane::halt::Halt;
use migrations::code::Code;
use migrations::finding::Finding;
use migrations::names::TableName;
use migrations::plan;
use migrations::preflight::BlockerSeen;
use migrations::problem::Problem;
use migrations::verify::{Course, Difference, How, RowKey, Verification};
use postgres::{connect, locks};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_postgres::Row;

/// So often a refusal is tried again at one place. Each try has waited for locks (`open`).
const TRIES_MAX: u32 = 3;
const RETRY: Duration = Duration::from_secs(1);
/// What was compared since is compared again after a crash.
const KEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Rows that look different are looked at together.
const BATCH: usize = 500;
/// Suspects that wait for another look; beyond, they get their last looks at once.
const SUSPECTS_MAX: usize = 4096;
/// After so many looks at a row that never stands still, that is said of it.
const LOOKS_MAX: u32 = 6;
/// The pause before a second look; it doubles before each further one.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// What may be asked of a verification that runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Wishes {
    pub(crate) stop: bool,
    pub(crate) full_speed: bool,
    pub(crate) repair: bool,
}

/// One lane's share of a verification.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) subject: Arc<Subject>,
    /// As the lane sees them.
    pub(crate) tables: Vec<plan::Table>,
}

/// A verification under way.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) parts: Arc<Vec<Part>>,
    pub(crate) kept: Kept,
    pub(crate) shelf: Shelf,
    pub(crate) report: watch::Sender<Verification>,
    pub(crate) wishes: watch::Receiver<Wishes>,
    pub(crate) known: Known,
    /// Since when time is not yet in `kept`.
    pub(crate) since: Instant,
    pub(crate) kept_at: Instant,
}

impl Run {
    /// Runs until it is done, or cannot go on, or is asked to stop.
    pub(crate) async fn go(mut self) {
        let mut wishes = self.wishes.clone();
        let ended = tokio::select! {
            ended = self.pursue() => Some(ended),
            _ = wishes.wait_for(|wishes| wishes.stop) => None,
        };
        let slice = self.kept.slice.clone();
        let course = match ended {
            None => Course::Stopped,
            Some(Ok(())) => Course::Done,
            Some(Err(problem)) => {
                tracing::warn!(%slice, "the verification cannot go on: {problem}");
                Course::Failed { problem: Box::new(problem) }
            }
        };
        self.kept.is_done = course == Course::Done;
        self.keep();
        self.tell(course);
        tracing::info!(%slice, rows = self.report.borrow().rows, differ = self.kept.differences.total, "verified");
    }

    async fn pursue(&mut self) -> Result<(), Problem> {
        let mut stands = (self.place(), 0);
        loop {
            let finding = match self.once().await {
                Ok(()) => return Ok(()),
                Err(Halt::Away(finding)) => finding,
                Err(Halt::Contended(finding, _)) => {
                    let place = self.place();
                    stands = if stands.0 == place { (place, stands.1 + 1) } else { (place, 1) };
                    if stands.1 >= TRIES_MAX {
                        return Err(stuck(&self.kept, &self.parts, *finding).await);
                    }
                    finding
                }
                Err(Halt::Stopped(finding, _)) => return Err((*finding).into()),
                Err(Halt::Lost(why)) => return Err(lost(&self.kept, &why)),
            };
            tracing::info!(slice = %self.kept.slice, "the verification waits: {finding}");
            self.tell(Course::Waiting { why: finding.message });
            sleep(RETRY).await;
        }
    }

    /// How far it is.
    fn place(&self) -> (BTreeMap<TableName, Progress>, usize) {
        (self.kept.tables.clone(), self.kept.suspects())
    }

    async fn once(&mut self) -> Result<(), Halt> {
        let parts = self.parts.clone();
        for part in parts.iter() {
            self.part(part).await?;
        }
        Ok(())
    }

    async fn part(&mut self, part: &Part) -> Result<(), Halt> {
        self.begin_watch(part);
        let (mut sides, tables) = self.open(part).await?;
        // Otherwise everything that the sink does not have yet would look different.
        sides.barrier.pass(&sides.source.client).await?;
        for table in &tables {
            self.table(part, &mut sides, table).await?;
        }
        for looks in 1..LOOKS_MAX {
            if tables.iter().any(|table| self.has_suspects(table, looks)) {
                sleep(LOOK_PAUSE * 2u32.pow(looks - 1)).await;
            }
            for table in &tables {
                self.settle(&mut sides, table, looks).await?;
            }
        }
        if self.wishes.borrow().repair {
            repair(&mut self.kept, &mut sides, &part.subject, &tables).await?;
        }
        self.finish_watch(part, &mut sides, &tables).await
    }

    /// Rows that change from now on are noted; those of a verification that goes on were noted already, or are lost.
    fn begin_watch(&self, part: &Part) {
        let names = part.tables.iter().map(|table| table::name(&part.subject.plan, table));
        let is_fresh = names.map(|name| self.kept.tables.get(&name)).all(|progress| progress.is_none());
        if is_fresh {
            part.subject.changed.begin(self.kept.id);
        }
    }

    /// Looks once more at the rows that changed meanwhile: a row whose key changed may have been passed by. From then on
    /// every row is known to be the same, but for those that are noted.
    async fn finish_watch(&mut self, part: &Part, sides: &mut Sides, tables: &[Table]) -> Result<(), Halt> {
        let changed = &part.subject.changed;
        let kept = &mut self.kept;
        again(sides, tables, changed, |table, key, verdict| {
            let row = table.row(key);
            if let Verdict::Different(how) = verdict
                && !kept.differences.listed.iter().any(|listed| listed.row == row)
            {
                kept.differences.push(Difference { row, how }, LISTED_MAX);
            }
        })
        .await?;
        let rows = |listed: u64, total: u64| (listed == total).then_some(());
        let Kept { differences, changing, undecided, .. } = &self.kept;
        let are_all = rows(differences.listed.len() as u64, differences.total)
            .and(rows(changing.listed.len() as u64, changing.total))
            .and(rows(undecided.listed.len() as u64, undecided.total));
        let found = differences.listed.iter().map(|difference| &difference.row);
        for row in found.chain(&changing.listed).chain(&undecided.listed) {
            let Some(table) = tables.iter().find(|table| table.name == row.table) else { continue };
            match table.noted_row(row) {
                Some(key) => changed.note_row(&table.from, key),
                None => changed.lose(),
            }
        }
        if are_all.is_none() {
            changed.lose();
        }
        self.known.set(&part.subject.plan.id, self.kept.id);
        Ok(())
    }

    async fn open(&mut self, part: &Part) -> Result<(Sides, Vec<Table>), Halt> {
        let (sides, tables) = open(&part.subject, &part.tables, Some(self.report.clone())).await?;
        for table in &tables {
            let fresh = Progress { rows: 0, rows_estimated: table.rows_estimated, place: Place::Rows(None) };
            let progress = self.kept.tables.entry(table.name.clone()).or_insert(fresh);
            progress.rows_estimated = table.rows_estimated;
        }
        Ok((sides, tables))
    }

    async fn table(&mut self, part: &Part, sides: &mut Sides, table: &Table) -> Result<(), Halt> {
        let mut stride = Stride::new();
        loop {
            part.subject.must_stand(&self.kept).await?;
            let began = Instant::now();
            let place = self.kept.tables.get(&table.name).map(|progress| progress.place.clone());
            match (place, &table.sink) {
                (Some(Place::Rows(after)), _) => self.rows(sides, table, after, &mut stride).await?,
                (Some(Place::SinkKeys(after)), Some(keys)) => {
                    self.sink_keys(sides, table, keys, after, &mut stride).await?;
                }
                (Some(Place::SinkKeys(_)), None) => {
                    self.kept.unsearched.insert(table.name.clone());
                    self.move_to(table, 0, Place::End);
                }
                (Some(Place::End) | None, _) => return self.settle(sides, table, 0).await,
            }
            if self.kept.suspects.get(&table.name).is_some_and(|suspects| fresh(suspects) >= BATCH) {
                self.settle(sides, table, 0).await?;
            }
            if self.kept.suspects() >= SUSPECTS_MAX {
                for looks in 0..LOOKS_MAX {
                    self.settle(sides, table, looks).await?;
                }
            }
            self.tell(Course::Running);
            if self.kept_at.elapsed() >= KEEP_INTERVAL {
                self.keep();
            }
            let full_speed = self.wishes.borrow().full_speed;
            sleep(rest(began.elapsed(), full_speed)).await;
        }
    }

    /// The source's next rows against the sink's.
    async fn rows(
        &mut self,
        sides: &mut Sides,
        table: &Table,
        after: Option<Key>,
        stride: &mut Stride,
    ) -> Result<(), Halt> {
        let page = sides.source.page(&table.rows, after.as_ref(), stride.rows()).await;
        let page = page.map_err(SourceError::from)?;
        stride.learn(page.rows.len(), page.bytes);
        let rows: Vec<&Row> = page.rows.iter().collect();
        let others = sides.sink.differing(table, &rows, 0).await?;
        let key = |row: &Row| -> Key { table.key_at.iter().map(|at| row.get(*at)).collect() };
        self.suspect(table, others.keys().map(|place| key(rows[*place])));
        let last = rows.last().map(|row| key(row)).filter(|_| !page.is_end);
        let place = last.map_or(Place::SinkKeys(None), |last| Place::Rows(Some(last)));
        self.move_to(table, rows.len() as u64, place);
        Ok(())
    }

    /// The sink's next keys: the source must have them.
    async fn sink_keys(
        &mut self,
        sides: &mut Sides,
        table: &Table,
        keys: &SinkKeys,
        after: Option<Key>,
        stride: &mut Stride,
    ) -> Result<(), Halt> {
        let page = sides.sink.page(&keys.keys, after.as_ref(), stride.rows()).await.map_err(Halt::of)?;
        stride.learn(page.rows.len(), page.bytes);
        let all = |row: &Row| -> Key { (0..keys.names.len()).map(|column| row.get(column)).collect() };
        let there: Vec<Key> = page.rows.iter().map(all).collect();
        let asked: Vec<Key> =
            there.iter().map(|key| keys.from.iter().map(|n| key[*n].clone()).collect()).collect();
        let missing = sides.source.missing(&table.versions, &asked).await.map_err(SourceError::from)?;
        for (place, key) in missing {
            match key {
                Ok(key) => self.suspect(table, [key].into_iter()),
                // The source's type has no such value, so it never had that row.
                Err(_) => {
                    let key = keys.names.iter().cloned().zip(there[place].iter().cloned()).collect();
                    let row = RowKey { table: table.name.clone(), key };
                    self.kept.differences.push(Difference { row, how: How::Extra }, LISTED_MAX);
                }
            }
        }
        let place = match there.last().filter(|_| !page.is_end) {
            Some(last) => Place::SinkKeys(Some(last.clone())),
            None => Place::End,
        };
        self.move_to(table, 0, place);
        Ok(())
    }

    fn suspect(&mut self, table: &Table, keys: impl Iterator<Item = Key>) {
        let suspects = keys.map(|key| Suspect { key, looks: 0, is_undecided: false });
        self.kept.suspects.entry(table.name.clone()).or_default().extend(suspects);
    }

    fn has_suspects(&self, table: &Table, looks: u32) -> bool {
        let suspects = self.kept.suspects.get(&table.name);
        suspects.is_some_and(|suspects| suspects.iter().any(|suspect| suspect.looks == looks))
    }

    /// Looks once more at the rows that were looked at so often.
    async fn settle(&mut self, sides: &mut Sides, table: &Table, looks: u32) -> Result<(), Halt> {
        loop {
            let suspects = self.kept.suspects.get(&table.name).into_iter().flatten();
            let batch = suspects.filter(|suspect| suspect.looks == looks).take(BATCH);
            let batch: Vec<Key> = batch.map(|suspect| suspect.key.clone()).collect();
            if batch.is_empty() {
                return Ok(());
            }
            let verdicts = sides.prove(table, &batch.iter().collect::<Vec<_>>()).await?;
            for (key, verdict) in batch.iter().zip(verdicts) {
                self.note(table, key, verdict);
            }
            self.tell(Course::Running);
        }
    }

    fn note(&mut self, table: &Table, key: &Key, verdict: Verdict) {
        let Some(suspects) = self.kept.suspects.get_mut(&table.name) else { return };
        let Some(place) = suspects.iter().position(|suspect| suspect.key == *key) else { return };
        let looks = suspects[place].looks + 1;
        let is_undecided = verdict == Verdict::Undecided;
        if matches!(verdict, Verdict::Changing | Verdict::Undecided) && looks < LOOKS_MAX {
            suspects[place] = Suspect { looks, is_undecided, ..suspects[place].clone() };
            return;
        }
        suspects.swap_remove(place);
        let row = table.row(key);
        match verdict {
            Verdict::Same => {}
            Verdict::Different(how) => self.kept.differences.push(Difference { row, how }, LISTED_MAX),
            Verdict::Changing => self.kept.changing.push(row, LISTED_MAX),
            Verdict::Undecided => self.kept.undecided.push(row, LISTED_MAX),
        }
    }

    fn move_to(&mut self, table: &Table, rows: u64, place: Place) {
        if let Some(progress) = self.kept.tables.get_mut(&table.name) {
            progress.rows += rows;
            progress.place = place;
        }
    }

    fn keep(&mut self) {
        let now = Instant::now();
        self.kept.elapsed_ms += u64::try_from((now - self.since).as_millis()).unwrap_or_default();
        (self.since, self.kept_at) = (now, now);
        self.shelf.write(&self.kept);
    }

    fn tell(&self, course: Course) {
        self.report.send_replace(self.kept.report(course, false));
    }
}

fn fresh(suspects: &[Suspect]) -> usize {
    suspects.iter().filter(|suspect| suspect.looks == 0).count()
}

/// What is refused again and again, with those who have locked the tables.
async fn stuck(kept: &Kept, parts: &[Part], refused: Finding) -> Problem {
    let mut blockers = Vec::new();
    for part in parts {
        let of = |name: fn(&plan::Table) -> &TableName| part.tables.iter().map(name).cloned().collect();
        let (feed, lane) = (&part.subject.feed.source, &part.subject.plan);
        for (url, tables) in [(&feed.url, of(|table| &table.from)), (&lane.sink, of(|table| &table.to))] {
            let tables: BTreeSet<TableName> = tables;
            // Who cannot be asked now blocks nothing that anyone could end.
            let Ok(client) = connect(url, APPLICATION).await else { continue };
            blockers.extend(locks::closers(&client, &tables).await.unwrap_or_default());
        }
    }
    let told = |one: &BlockerSeen| format!("table {} is locked by {}", one.table, one.told());
    let told: Vec<String> = blockers.iter().map(told).collect();
    let message = if told.is_empty() { refused.message } else { told.join("; ") };
    let again = format!("then run `strangler verify {}` again: it goes on where it is", kept.slice);
    let ends: Vec<String> = blockers.iter().map(BlockerSeen::ending).collect();
    let remedy = match ends.is_empty() {
        true => format!("remove the cause, {again}"),
        false => format!("let it end, or end it by `{}`; {again}", ends.join(" ")),
    };
    Problem::new(
        Code::VerifyLocked,
        format!("the comparison of slice {} gets no further: {message}", kept.slice),
        remedy,
    )
}

fn lost(kept: &Kept, why: &str) -> Problem {
    Problem::new(
        Code::SliceStage,
        format!("slice {} must be copied again, so there is nothing to compare: {why}", kept.slice),
        format!("wait until `strangler sync status {}` says that it follows", kept.slice),
    )
}
