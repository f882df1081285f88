//! Controller and bridge in one. It publishes the tables of a test and keeps what the proxy reports. Its barriers
//! wait where the test says.

use super::PATIENCE;
use super::origin::{Origin, Reply, text};
use migrations::control::{Confirmed, Desired, Observed, VERSION};
use migrations::names::SliceName;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// A gate that barriers wait at.
#[derive(Default)]
pub struct Gate {
    open: Mutex<bool>,
    bell: Condvar,
    pub asked: AtomicUsize,
}

impl Gate {
    pub fn open(&self, open: bool) {
        *self.open.lock().unwrap() = open;
        self.bell.notify_all();
    }

    fn pass(&self) -> bool {
        self.asked.fetch_add(1, SeqCst);
        let open = self.open.lock().unwrap();
        *self.bell.wait_timeout_while(open, PATIENCE, |open| !*open).unwrap().0
    }
}

pub struct Controller {
    pub origin: Origin,
    pub gate: Arc<Gate>,
    pub observed: Arc<Mutex<Vec<Observed>>>,
    /// It tells who reports that something newer is desired.
    pub knows_more: Arc<AtomicBool>,
    /// The slices whose copies are too old.
    pub withheld: Arc<Mutex<BTreeSet<SliceName>>>,
    /// The generations that it has sent.
    pub given: Arc<Mutex<Vec<u64>>>,
    desired: Arc<(Mutex<Option<Desired>>, Condvar)>,
}

impl Controller {
    /// Its barriers wait at the gate.
    pub fn new() -> Self {
        let gate = Arc::new(Gate { open: Mutex::new(true), ..Gate::default() });
        let barrier = gate.clone();
        Self { gate, ..Self::with_barrier(move || barrier.pass()) }
    }

    /// Its barriers are answered when this returns true.
    pub fn with_barrier(barrier: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        let desired: Arc<(Mutex<Option<Desired>>, Condvar)> = Arc::default();
        let observed: Arc<Mutex<Vec<Observed>>> = Arc::default();
        let given: Arc<Mutex<Vec<u64>>> = Arc::default();
        let (wanted, seen, noted) = (desired.clone(), observed.clone(), given.clone());
        let knows_more = Arc::<AtomicBool>::default();
        let withheld: Arc<Mutex<BTreeSet<SliceName>>> = Arc::default();
        let (is_behind, old) = (knows_more.clone(), withheld.clone());
        let origin = Origin::new(move |asked| {
            if asked.header("authorization") != Some("Bearer token") {
                return text(401, "");
            }
            match asked.target.split('?').next() {
                Some("/v1/desired") => answer_desired(&wanted, &noted, &asked.target),
                Some("/v1/observed") => {
                    seen.lock().unwrap().push(serde_json::from_slice(&asked.body).unwrap());
                    answer_observed(is_behind.load(SeqCst), old.lock().unwrap().clone())
                }
                Some("/v1/barrier") if barrier() => text(200, &format!("{{\"version\":{VERSION}}}")),
                _ => text(500, ""),
            }
        });
        Self { origin, gate: Arc::default(), observed, knows_more, withheld, given, desired }
    }

    pub fn publish(&self, desired: Desired) {
        *self.desired.0.lock().unwrap() = Some(desired);
        self.desired.1.notify_all();
    }
}

fn answer_observed(is_behind: bool, withheld: BTreeSet<SliceName>) -> Reply {
    if is_behind || withheld.is_empty() {
        return text(if is_behind { 202 } else { 204 }, "");
    }
    let confirmed = Confirmed { withheld, ..Confirmed::nothing() };
    Reply::Answer(200, vec![], serde_json::to_vec(&confirmed).unwrap())
}

fn answer_desired(
    wanted: &(Mutex<Option<Desired>>, Condvar),
    given: &Mutex<Vec<u64>>,
    target: &str,
) -> Reply {
    let is_held = |d: &Option<Desired>| match d {
        None => true,
        Some(d) => {
            let (journal, generation) =
                (format!("journal={}", d.journal.0), format!("generation={}", d.generation));
            target.contains(&journal) && target.split('&').any(|part| part == generation)
        }
    };
    let desired = wanted.0.lock().unwrap();
    let patience = if target.contains("wait_ms=0") { Duration::ZERO } else { Duration::from_millis(500) };
    let desired = wanted.1.wait_timeout_while(desired, patience, |d| is_held(d)).unwrap().0;
    match &*desired {
        Some(d) if !is_held(&desired) => {
            given.lock().unwrap().push(d.generation.0);
            Reply::Answer(200, vec![], serde_json::to_vec(d).unwrap())
        }
        _ => text(204, ""),
    }
}
