//! The protocol of a cutover, searched exhaustively: every order of what writers, proxies, lanes, people and coordinators
//! may do in a small world. The product's own transitions are searched, not a copy of them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by falling over")]

#[path = "cutover/world.rs"]
mod world;

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use world::{Bounds, Mutant, Names, World, beginning};

/// More states than any of the searches below has.
const STATES_MAX: usize = 6_000_000;

enum Found {
    /// So many states, all well.
    Nothing(usize),
    Violation(&'static str, Vec<String>),
    /// From here nothing leads to a settled world.
    Stuck(Vec<String>),
}

/// The usual hash resists enemies, and takes most of the time. (FxHash, as rustc has it.)
#[derive(Default)]
struct Fast(u64);

impl Hasher for Fast {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    fn write_u8(&mut self, word: u8) {
        self.write_u64(u64::from(word));
    }

    fn write_u16(&mut self, word: u16) {
        self.write_u64(u64::from(word));
    }

    fn write_isize(&mut self, word: isize) {
        self.write_u64(word as u64);
    }
}

fn search(bounds: Bounds) -> Found {
    let mut names = Names::default();
    let first = beginning(&mut names, bounds);
    let mut ids: HashMap<World, u32, BuildHasherDefault<Fast>> = HashMap::default();
    ids.insert(first, 0);
    // Whence each state was reached first.
    let mut from: Vec<u32> = vec![0];
    let mut edges: Vec<(u32, u32)> = Vec::new();
    let mut settled = Vec::new();
    let mut queue = VecDeque::from([first]);
    let mut id = 0;
    while let Some(world) = queue.pop_front() {
        if let Some(broken) = world.violation(&names, bounds) {
            return Found::Violation(broken, trace(&ids, &from, id, names, bounds));
        }
        if world.is_settled(&names) {
            settled.push(id);
        }
        for (_, next) in world.choices(&mut names, bounds).worlds {
            let known = u32::try_from(ids.len()).unwrap();
            let to = *ids.entry(next).or_insert(known);
            edges.push((to, id));
            if to == known {
                assert!(ids.len() <= STATES_MAX, "the search is larger than was meant");
                from.push(id);
                queue.push_back(next);
            }
        }
        // States are taken in the order in which they got their numbers.
        id += 1;
    }
    match stuck(ids.len(), edges, settled) {
        Some(id) => Found::Stuck(trace(&ids, &from, id, names, bounds)),
        None => Found::Nothing(ids.len()),
    }
}

/// A state from which no settled one can be reached, if there is one (I3).
fn stuck(states: usize, mut edges: Vec<(u32, u32)>, settled: Vec<u32>) -> Option<u32> {
    edges.sort_unstable();
    let mut is_good = vec![false; states];
    let mut todo = settled;
    while let Some(id) = todo.pop() {
        if std::mem::replace(&mut is_good[id as usize], true) {
            continue;
        }
        let begin = edges.partition_point(|(to, _)| *to < id);
        todo.extend(edges[begin..].iter().take_while(|(to, _)| *to == id).map(|(_, from)| *from));
    }
    is_good.iter().position(|good| !good).map(|id| u32::try_from(id).unwrap())
}

/// The way to a state, told step by step.
fn trace(
    ids: &HashMap<World, u32, BuildHasherDefault<Fast>>,
    from: &[u32],
    mut id: u32,
    mut names: Names,
    bounds: Bounds,
) -> Vec<String> {
    let worlds: HashMap<u32, &World> = ids.iter().map(|(world, id)| (*id, world)).collect();
    names.is_told = true;
    let mut steps = Vec::new();
    while id != 0 {
        let before = from[id as usize];
        let choices = worlds[&before].choices(&mut names, bounds).worlds;
        steps.extend(choices.into_iter().find(|(_, world)| world == worlds[&id]).map(|(name, _)| name));
        id = before;
    }
    steps.reverse();
    steps
}

const SMALL: Bounds =
    Bounds { writes: 2, coordinators: 1, cutovers: 1, rollbacks: 0, aborts: 0, crashes: 0, mutant: None };

fn holds(bounds: Bounds) {
    match search(bounds) {
        Found::Nothing(states) => assert!(states > 100_000, "only {states} states were met"),
        Found::Violation(what, steps) => panic!("{what} after:\n  {}", steps.join("\n  ")),
        Found::Stuck(steps) => panic!("nothing can end it after:\n  {}", steps.join("\n  ")),
    }
}

fn caught(mutant: Mutant, bounds: Bounds, invariant: &str) {
    match search(Bounds { mutant: Some(mutant), ..bounds }) {
        Found::Nothing(states) => panic!("{mutant:?} was not noticed in {states} states"),
        Found::Violation(what, steps) => {
            assert!(what.starts_with(invariant), "{mutant:?}: {what} after:\n  {}", steps.join("\n  "));
        }
        Found::Stuck(steps) => panic!("{mutant:?}: nothing can end it after:\n  {}", steps.join("\n  ")),
    }
}

#[test]
fn one_coordinator_moves_the_writes_of_a_job_and_of_two_clients() {
    holds(Bounds { writes: 3, ..SMALL });
}

#[test]
fn writes_go_over_and_back_and_over_again() {
    holds(Bounds { writes: 1, cutovers: 2, rollbacks: 1, ..SMALL });
}

#[test]
fn a_rollback_that_is_aborted_can_be_had_again() {
    holds(Bounds { writes: 1, rollbacks: 2, aborts: 1, ..SMALL });
}

#[test]
fn one_coordinator_stalls_and_another_takes_over() {
    holds(Bounds { coordinators: 2, ..SMALL });
}

#[test]
fn a_second_takeover_finds_the_first_ones_traces() {
    holds(Bounds { writes: 1, coordinators: 2, crashes: 1, ..SMALL });
}

#[test]
fn nothing_is_lost_without_memory_and_with_an_abort_by_hand() {
    holds(Bounds { crashes: 1, aborts: 1, ..SMALL });
}

#[test]
fn mutant_no_fence_is_caught() {
    caught(Mutant::NoFence, SMALL, "I1");
}

#[test]
fn mutant_fence_that_waits_for_no_writer_is_caught() {
    caught(Mutant::NoBarrier, SMALL, "I2");
}

#[test]
fn mutant_position_read_before_the_fence_is_caught() {
    caught(Mutant::PositionFirst, SMALL, "I2");
}

#[test]
fn mutant_gates_without_epoch_are_caught() {
    caught(Mutant::NoEpoch, Bounds { coordinators: 2, ..SMALL }, "I6");
}

#[test]
fn mutant_journal_without_compare_and_swap_is_caught() {
    caught(Mutant::NoCompareAndSwap, Bounds { coordinators: 2, ..SMALL }, "I1");
}

#[test]
fn mutant_service_that_opens_before_the_decision_is_caught() {
    caught(Mutant::OpenFirst, Bounds { aborts: 1, ..SMALL }, "I1");
}

#[test]
fn mutant_service_without_gate_is_caught() {
    caught(Mutant::NoServiceGate, Bounds { rollbacks: 1, ..SMALL }, "I2");
}

#[test]
fn mutant_rollback_that_does_not_wait_is_caught() {
    caught(Mutant::NoReverseWait, Bounds { rollbacks: 1, ..SMALL }, "I2");
}

#[test]
fn mutant_lane_that_ignores_direction_is_caught() {
    caught(Mutant::NoDirection, SMALL, "I7");
}

#[test]
fn mutant_abort_that_does_not_write_the_epoch_is_caught() {
    caught(
        Mutant::AbortKeepsEpoch,
        Bounds { writes: 0, coordinators: 2, rollbacks: 1, aborts: 1, ..SMALL },
        "I6",
    );
}
