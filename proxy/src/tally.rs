//! How requests fared lately: counted for each route and side, and reported to the controller.
//!
//! There are two terms. What is counted belongs to the present one. When it has lasted long enough, the one before is
//! emptied and becomes the present. So a report covers between one and two terms, and nothing but counters is kept.

use migrations::fared::{CLASSES, Fared, RouteFared, class};
use migrations::gate::Side;
use migrations::names::{RouteName, SliceName};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

const TERM: Duration = Duration::from_secs(30);
/// A report names no more than this many routes and sides: those with the most failures, then with the most requests.
const ROWS_MAX: usize = 200;

/// How one request ended at a side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Answered(u16),
    Unanswered,
    /// The client left before.
    Left,
}

/// The counters of one route. They take room from its first request on.
#[derive(Default)]
pub(crate) struct Tally(OnceLock<Box<[[Counts; 2]; 2]>>);

#[derive(Default)]
struct Counts {
    requests: AtomicU32,
    errors: AtomicU32,
    unanswered: AtomicU32,
    took: [AtomicU32; CLASSES],
}

/// Which term is the present one. All tallies of a proxy share it.
pub(crate) struct Terms {
    present: AtomicUsize,
    began: Mutex<[Instant; 2]>,
}

impl Terms {
    pub(crate) fn new(now: Instant) -> Self {
        Self { present: AtomicUsize::new(0), began: Mutex::new([now, now]) }
    }

    /// Begins a new term if the present one has lasted long enough. Returns how long a report of both reaches back.
    pub(crate) fn turn(&self, now: Instant, tallies: &[Arc<Tally>]) -> Duration {
        let mut began = self.began.lock().unwrap_or_else(PoisonError::into_inner);
        let present = self.present.load(Relaxed) % 2;
        if now.duration_since(began[present]) < TERM {
            return now.duration_since(began[1 - present].min(began[present]));
        }
        let next = 1 - present;
        tallies
            .iter()
            .filter_map(|tally| tally.0.get())
            .flat_map(|terms| &terms[next])
            .for_each(Counts::clear);
        began[next] = now;
        self.present.store(next, Relaxed);
        now.duration_since(began[present])
    }
}

impl Tally {
    pub(crate) fn count(&self, terms: &Terms, side: Side, end: End, took: Duration) {
        let counts = &self.0.get_or_init(Box::default)[terms.present.load(Relaxed) % 2][side as usize];
        counts.requests.fetch_add(1, Relaxed);
        match end {
            End::Answered(500..) => drop(counts.errors.fetch_add(1, Relaxed)),
            End::Unanswered => drop(counts.unanswered.fetch_add(1, Relaxed)),
            End::Answered(_) | End::Left => {}
        }
        // What switched protocols took as long as someone stayed.
        if end != End::Answered(101) {
            counts.took[class(took)].fetch_add(1, Relaxed);
        }
    }

    fn seen(&self, side: Side) -> Option<Fared> {
        let mut sum = Fared::default();
        self.0.get()?.iter().for_each(|term| sum.add(&term[side as usize].read()));
        (sum.requests > 0).then_some(sum)
    }
}

impl Counts {
    fn read(&self) -> Fared {
        let of = |count: &AtomicU32| u64::from(count.load(Relaxed));
        let mut took: Vec<u64> = self.took.iter().map(of).collect();
        took.truncate(took.iter().rposition(|count| *count > 0).map_or(0, |last| last + 1));
        Fared {
            requests: of(&self.requests),
            errors: of(&self.errors),
            unanswered: of(&self.unanswered),
            took,
        }
    }

    fn clear(&self) {
        let all = [&self.requests, &self.errors, &self.unanswered].into_iter().chain(&self.took);
        all.for_each(|count| count.store(0, Relaxed));
    }
}

/// The rows of a report: for each route, which is none for what matches none, how both sides fared.
pub(crate) fn rows<'t>(
    tallies: impl Iterator<Item = (Option<(&'t SliceName, &'t RouteName)>, &'t Arc<Tally>)>,
) -> Vec<RouteFared> {
    let sides = [Side::Monolith, Side::Service];
    let of_route = |(route, tally): (Option<(&SliceName, &RouteName)>, &'t Arc<Tally>)| {
        let route = route.map(|(slice, route)| (slice.clone(), route.clone()));
        sides.map(|side| Some(RouteFared { route: route.clone(), side, fared: tally.seen(side)? }))
    };
    let mut rows: Vec<RouteFared> =
        tallies.filter(|(_, tally)| tally.0.get().is_some()).flat_map(of_route).flatten().collect();
    rows.sort_by_key(|row| std::cmp::Reverse((row.fared.failed(), row.fared.requests)));
    rows.truncate(ROWS_MAX);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_report_reaches_back_one_to_two_terms() {
        let begin = Instant::now();
        let (terms, tallies) = (Terms::new(begin), [Arc::new(Tally::default())]);
        let requests = || tallies[0].seen(Side::Service).map_or(0, |fared| fared.requests);
        let count = |end| tallies[0].count(&terms, Side::Service, end, MS);
        assert_eq!(requests(), 0);
        count(End::Answered(200));
        assert_eq!(terms.turn(begin + MS, &tallies), MS);
        assert_eq!(terms.turn(begin + TERM, &tallies), TERM);
        count(End::Answered(503));
        assert_eq!(requests(), 2);
        assert_eq!(terms.turn(begin + TERM + MS, &tallies), TERM + MS);
        assert_eq!(terms.turn(begin + 2 * TERM, &tallies), TERM);
        assert_eq!(requests(), 1, "the first term is over");
        assert_eq!(terms.turn(begin + 9 * TERM, &tallies), 7 * TERM, "nobody turned it meanwhile");
        assert_eq!(requests(), 0);
    }

    #[test]
    fn ends_are_told_apart() {
        let (terms, tally) = (Terms::new(Instant::now()), Arc::new(Tally::default()));
        for end in [End::Answered(200), End::Answered(404), End::Answered(500), End::Unanswered, End::Left] {
            tally.count(&terms, Side::Monolith, end, 3 * MS);
        }
        tally.count(&terms, Side::Monolith, End::Answered(101), 1000 * TERM);
        let [row] = &rows([(None, &tally)].into_iter())[..] else { panic!("one side was asked") };
        assert_eq!(
            (row.side, row.fared.requests, row.fared.errors, row.fared.unanswered),
            (Side::Monolith, 6, 1, 1)
        );
        assert_eq!(row.fared.took, [0, 0, 5]);
    }

    #[test]
    fn a_report_is_bounded_and_what_fails_comes_first() {
        let terms = Terms::new(Instant::now());
        let tallies: Vec<Arc<Tally>> = (0..ROWS_MAX + 50).map(|_| Arc::default()).collect();
        tallies.iter().for_each(|tally| tally.count(&terms, Side::Monolith, End::Answered(200), MS));
        tallies[ROWS_MAX + 49].count(&terms, Side::Service, End::Unanswered, MS);
        let rows = rows(tallies.iter().map(|tally| (None, tally)));
        assert_eq!((rows.len(), rows[0].side), (ROWS_MAX, Side::Service));
    }
}
