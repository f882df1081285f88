//! Which clients must not read from the service yet: marks, barriers, and which barriers have passed. Pure.
//!
//! Each barrier of this proxy has a number from one [`Count`]. A mark is the number of the next barrier. It is taken
//! *after* the client's write has ended or its answer was read. So the barrier with that number is asked for after
//! the mark, and when it has passed, the service has everything the client knows.
//!
//! Marks are kept in a fixed number of slots, so memory is bounded. Clients that share a slot wait for each other's
//! barriers, which is always safe.

use crate::route::decision::Stale;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// With 1 000 marked clients, one in sixteen shares its slot with another.
const SLOTS: usize = 1 << 14;

#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    /// The number of the next barrier: a mark made now waits for it.
    pub(crate) fn mark(&self) -> u64 {
        self.0.load(SeqCst) + 1
    }

    /// Starts a barrier. The question may only be sent after this returns.
    pub(crate) fn start(&self) -> u64 {
        self.0.fetch_add(1, SeqCst) + 1
    }
}

#[derive(Debug)]
pub(crate) struct Marks {
    slots: Box<[Slot]>,
    wanted: AtomicU64,
    passed: AtomicU64,
}

#[derive(Debug, Default)]
struct Slot {
    wrote: AtomicU64,
    saw: AtomicU64,
}

impl Default for Marks {
    fn default() -> Self {
        let slots = (0..SLOTS).map(|_| Slot::default()).collect();
        Self { slots, wanted: AtomicU64::new(0), passed: AtomicU64::new(0) }
    }
}

impl Marks {
    pub(crate) fn wrote(&self, client: u64, mark: u64) {
        self.slot(client).wrote.fetch_max(mark, SeqCst);
    }

    /// A client has read data at the monolith that the service may not have.
    pub(crate) fn saw(&self, client: u64, mark: u64) {
        self.slot(client).saw.fetch_max(mark, SeqCst);
    }

    /// Why the client must not read from the service now. The numbers of its cookie count together with those kept
    /// here.
    pub(crate) fn stale(&self, client: u64, cookie_wrote: u64, cookie_saw: u64) -> Option<Stale> {
        let slot = self.slot(client);
        let wrote = slot.wrote.load(SeqCst).max(cookie_wrote);
        let saw = slot.saw.load(SeqCst).max(cookie_saw);
        let passed = self.passed.load(SeqCst);
        if wrote > passed {
            Some(Stale::Wrote(wrote))
        } else if saw > passed {
            Some(Stale::Saw(saw))
        } else {
            None
        }
    }

    pub(crate) fn has_passed(&self, mark: u64) -> bool {
        mark <= self.passed.load(SeqCst)
    }

    /// A client waits for `mark`. `true` if it is the first that asks, so that the asker must be woken.
    pub(crate) fn want(&self, mark: u64) -> bool {
        self.wanted.fetch_max(mark, SeqCst) < mark
    }

    pub(crate) fn wants_barrier(&self) -> bool {
        self.wanted.load(SeqCst) > self.passed.load(SeqCst)
    }

    pub(crate) fn pass(&self, number: u64) {
        self.passed.fetch_max(number, SeqCst);
    }

    fn slot(&self, client: u64) -> &Slot {
        // Buckets use the remainder by 10 000. The high bits do not depend on it.
        &self.slots[(client >> 40) as usize % SLOTS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[derive(Debug, Clone)]
    enum Deed {
        Write { client: u64 },
        Read { client: u64 },
        OtherWrite,
        Start,
        Pass,
    }

    fn deed() -> impl Strategy<Value = Deed> {
        let client = (0u64..4).prop_map(|c| c << 40);
        prop_oneof![
            client.clone().prop_map(|client| Deed::Write { client }),
            client.prop_map(|client| Deed::Read { client }),
            Just(Deed::OtherWrite),
            Just(Deed::Start),
            Just(Deed::Pass),
        ]
    }

    /// The monolith's data are a version that each write raises. The service has what the last passed barrier
    /// guarantees, which is the oldest it may have.
    #[derive(Default)]
    struct World {
        monolith: u64,
        service: u64,
        in_flight: Option<(u64, u64)>,
        known: HashMap<u64, u64>,
    }

    proptest! {
        #[test]
        fn no_client_reads_older_data_than_it_knows(deeds in proptest::collection::vec(deed(), 1..200)) {
            let (count, marks) = (Count::default(), Marks::default());
            let mut world = World::default();
            for deed in deeds {
                match deed {
                    Deed::Write { client } => {
                        world.monolith += 1;
                        world.known.insert(client, world.monolith);
                        marks.wrote(client, count.mark());
                    }
                    Deed::Read { client } => {
                        let version = if marks.stale(client, 0, 0).is_some() {
                            marks.saw(client, count.mark());
                            world.monolith
                        } else {
                            world.service
                        };
                        let known = world.known.entry(client).or_default();
                        prop_assert!(version >= *known, "{client} knew {known} and read {version}");
                        *known = version;
                    }
                    Deed::OtherWrite => world.monolith += 1,
                    Deed::Start if world.in_flight.is_none() => {
                        let number = count.start();
                        world.in_flight = Some((number, world.monolith));
                    }
                    Deed::Start => {}
                    Deed::Pass => if let Some((number, version)) = world.in_flight.take() {
                        world.service = version;
                        marks.pass(number);
                    },
                }
            }
        }

        #[test]
        fn a_mark_made_while_a_barrier_is_in_flight_waits_for_the_next(client: u64) {
            let (count, marks) = (Count::default(), Marks::default());
            let first = count.start();
            let mark = count.mark();
            marks.wrote(client, mark);
            prop_assert!(marks.want(mark) && !marks.want(mark));
            marks.pass(first);
            prop_assert_eq!(marks.stale(client, 0, 0), Some(Stale::Wrote(mark)));
            prop_assert!(marks.wants_barrier());
            marks.pass(count.start());
            prop_assert_eq!(marks.stale(client, 0, 0), None);
            prop_assert!(!marks.wants_barrier());
        }
    }
}
