//! The log of the visitors: how long their writes took, in quiet time and while a slice crossed over, and which promises
//! were kept. Pure.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Read,
    /// One more like for the page with this id.
    Like(u64),
    /// A new entry with this mark.
    Entry(u64),
}

/// One request. Times are microseconds since 1970, by this machine's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visit {
    pub due_us: u64,
    pub took_us: u64,
    status: u16,
    what: What,
}

/// From the command that starts a crossing until it has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub from_us: u64,
    pub to_us: u64,
}

/// How long requests of one kind took, in ms: in quiet time, and in each crossing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Times {
    pub quiet: Vec<f64>,
    pub crossings: Vec<Vec<f64>>,
}

/// What the database must hold by the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Promises {
    /// By mark: whether the entry was acknowledged. Otherwise it may be there, or not.
    entries: BTreeMap<u64, bool>,
    /// By page: likes that were acknowledged, and likes that may be there.
    likes: BTreeMap<u64, (u64, u64)>,
}

/// What a database has: how many entries by mark, and how many likes by page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub entries: BTreeMap<u64, u64>,
    pub likes: BTreeMap<u64, u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Broken {
    pub lost: u64,
    pub doubled: u64,
}

impl Visit {
    /// Reads a line: when it was due, how long it took, the status, what it was, and of what.
    pub fn read(line: &str) -> Result<Visit> {
        let fields: Vec<&str> = line.split(' ').collect();
        let [due, took, status, what, of] = fields[..] else { bail!("no visit: {line:?}") };
        let number = |text: &str| text.parse::<u64>().with_context(|| format!("no visit: {line:?}"));
        let what = match what {
            "read" => What::Read,
            "like" => What::Like(number(of)?),
            "entry" => What::Entry(number(of)?),
            _ => bail!("no visit: {line:?}"),
        };
        let status = u16::try_from(number(status)?)?;
        Ok(Visit { due_us: number(due)?, took_us: number(took)?, status, what })
    }

    pub fn is_write(&self) -> bool {
        self.what != What::Read
    }

    pub fn is_done(&self) -> bool {
        (200..300).contains(&self.status)
    }

    fn falls_into(&self, span: &Span) -> bool {
        self.due_us <= span.to_us && self.due_us + self.took_us >= span.from_us
    }
}

impl Times {
    /// What failed has no time, and counts as failed.
    pub fn of<'v>(visits: impl Iterator<Item = &'v Visit>, spans: &[Span]) -> Times {
        let mut times = Times { quiet: Vec::new(), crossings: vec![Vec::new(); spans.len()] };
        for visit in visits.filter(|visit| visit.is_done()) {
            let ms = visit.took_us as f64 / 1e3;
            match spans.iter().position(|span| visit.falls_into(span)) {
                Some(at) => times.crossings[at].push(ms),
                None => times.quiet.push(ms),
            }
        }
        times
    }

    /// The longest time of each crossing.
    pub fn longest(&self) -> Vec<f64> {
        let crossings = self.crossings.iter().filter(|crossing| !crossing.is_empty());
        crossings.map(|crossing| crossing.iter().copied().fold(0.0, f64::max)).collect()
    }
}

impl Promises {
    pub fn of(visits: &[Visit]) -> Promises {
        let mut promises = Promises::default();
        for visit in visits {
            match visit.what {
                What::Read => {}
                What::Entry(mark) => {
                    promises.entries.insert(mark, visit.is_done());
                }
                What::Like(page) => {
                    let (kept, open) = promises.likes.entry(page).or_default();
                    *if visit.is_done() { kept } else { open } += 1;
                }
            }
        }
        promises
    }

    /// Compares with what a database has. A row that nobody asked for counts as doubled.
    pub fn against(&self, found: &Found) -> Broken {
        let mut broken = Broken::default();
        for (mark, is_promised) in &self.entries {
            let is_there = found.entries.contains_key(mark);
            broken.lost += u64::from(*is_promised && !is_there);
        }
        for (mark, count) in &found.entries {
            broken.doubled += count - u64::from(self.entries.contains_key(mark));
        }
        for (page, (kept, _)) in &self.likes {
            broken.lost += kept.saturating_sub(found.likes.get(page).copied().unwrap_or_default());
        }
        for (page, count) in &found.likes {
            let (kept, open) = self.likes.get(page).copied().unwrap_or_default();
            broken.doubled += count.saturating_sub(kept + open);
        }
        broken
    }
}

impl Found {
    /// How many marks and pages do not have the same count on the other side.
    pub fn differences(&self, other: &Found) -> u64 {
        differing(&self.entries, &other.entries) + differing(&self.likes, &other.likes)
    }
}

fn differing(one: &BTreeMap<u64, u64>, other: &BTreeMap<u64, u64>) -> u64 {
    let changed = one.iter().filter(|(key, count)| other.get(key) != Some(count)).count();
    let missing = other.keys().filter(|key| !one.contains_key(key)).count();
    (changed + missing) as u64
}

/// Rows of `number|count`, as psql gives them.
pub fn counts(rows: &str) -> Result<BTreeMap<u64, u64>> {
    let read = |row: &str| {
        let (number, count) = row.split_once('|')?;
        Some((number.parse().ok()?, count.parse().ok()?))
    };
    rows.lines().map(|row| read(row).with_context(|| format!("no numbers but {row:?}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visits(lines: &[&str]) -> Vec<Visit> {
        lines.iter().map(|line| Visit::read(line).unwrap()).collect()
    }

    #[test]
    fn a_write_that_waits_for_a_crossing_counts_there_and_from_when_it_was_due() {
        let visits = visits(&[
            "0 2000 201 entry 1",
            "5000 300000 201 entry 2",
            "900000 4000 200 like 1",
            "7 1 0 like 1",
        ]);
        let times = Times::of(visits.iter(), &[Span { from_us: 10_000, to_us: 200_000 }]);
        assert_eq!(times, Times { quiet: vec![2.0, 4.0], crossings: vec![vec![300.0]] });
        assert_eq!(times.longest(), [300.0]);
        assert!(Visit::read("1 2 3 dance 4").is_err() && Visit::read("1 2 3 like").is_err());
    }

    #[test]
    fn what_was_promised_is_there_once_and_what_failed_may_be_there_once() {
        let visits = visits(&[
            "0 1 201 entry 1",
            "0 1 0 entry 2",
            "0 1 503 entry 3",
            "0 1 200 like 7",
            "0 1 200 like 7",
            "0 1 0 like 7",
            "0 1 200 read 7",
        ]);
        let promises = Promises::of(&visits);
        let found = |entries: &str, likes: &str| Found {
            entries: counts(entries).unwrap(),
            likes: counts(likes).unwrap(),
        };
        assert_eq!(promises.against(&found("1|1", "7|2\n8|0")), Broken::default());
        assert_eq!(promises.against(&found("1|1\n2|1", "7|3")), Broken::default());
        assert_eq!(promises.against(&found("2|1", "7|1")), Broken { lost: 2, doubled: 0 });
        assert_eq!(promises.against(&found("1|2\n2|2\n9|1", "7|4\n8|1")), Broken { lost: 0, doubled: 5 });
    }

    #[test]
    fn two_sides_are_equal_only_if_every_count_is() {
        let one = Found { entries: [(1, 1), (2, 1)].into(), likes: [(7, 3)].into() };
        assert_eq!(one.differences(&one), 0);
        let other = Found { entries: [(1, 1), (3, 1)].into(), likes: [(7, 4)].into() };
        assert_eq!(one.differences(&other), 3);
        assert!(counts("1|x").is_err());
    }
}
