//! The partitions that the writers of this process send to, and what was sent and acknowledged. Pure.

use super::record::Sent;
use migrations::lsn::Position;
use std::collections::BTreeMap;

/// The number of a partition here; it is never given to another one.
pub(crate) type Slot = usize;

/// The records of the progress topic are acknowledged under this number.
pub(crate) const PROGRESS_SLOT: Slot = Slot::MAX;

/// A topic's partitions: consecutive slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route {
    first: Slot,
    pub(crate) count: i32,
}

impl Route {
    pub(crate) fn slot(&self, partition: i32) -> Slot {
        self.first + partition as usize
    }
}

#[derive(Debug, Default)]
pub(crate) struct Routes {
    topics: BTreeMap<String, Route>,
    /// Every topic that was met. A topic that is read again keeps its slots.
    known: BTreeMap<String, Route>,
    parts: Vec<Part>,
    /// Rises whenever routes that were handed out no longer hold.
    pub(crate) generation: u64,
}

#[derive(Debug, Clone, Copy)]
struct Part {
    sent: Sent,
    /// The next offset after what was acknowledged.
    next: i64,
}

impl Routes {
    pub(crate) fn get(&self, topic: &str) -> Option<Route> {
        self.topics.get(topic).copied()
    }

    /// Adds a topic: for each partition the last position sent by anyone, and where it ends now.
    pub(crate) fn add(&mut self, topic: &str, partitions: &[(Position, i64)]) -> Route {
        let count = partitions.len() as i32;
        let known = self.known.get(topic).copied().filter(|route| route.count == count);
        let route = known.unwrap_or(Route { first: self.parts.len(), count });
        let part =
            |(last, next): &(Position, i64)| Part { sent: Sent { last: *last, offset: *next }, next: *next };
        let end = (route.first + partitions.len()).min(self.parts.len());
        self.parts.splice(route.first..end, partitions.iter().map(part));
        self.topics.insert(topic.to_owned(), route);
        self.known.insert(topic.to_owned(), route);
        route
    }

    pub(crate) fn remove(&mut self, topics: &[String]) {
        self.topics.retain(|topic, _| !topics.contains(topic));
        self.known.retain(|topic, _| !topics.contains(topic));
        self.generation += 1;
    }

    /// All topics are gone, or must be read again.
    pub(crate) fn clear(&mut self) {
        self.topics.clear();
        self.generation += 1;
    }

    pub(crate) fn note_sent(&mut self, slot: Slot, position: Position) {
        if let Some(part) = self.parts.get_mut(slot) {
            part.sent.last = position;
        }
    }

    /// A flush was acknowledged: the next offset by slot. After a progress record, readers may begin after it.
    pub(crate) fn acknowledge(&mut self, next: &[i64], behind_record: bool) {
        for (part, next) in self.parts.iter_mut().zip(next) {
            part.next = part.next.max(*next);
        }
        if behind_record {
            self.parts.iter_mut().for_each(|part| part.sent.offset = part.next);
        }
    }

    /// What a progress record says: the partitions that changes were ever sent to.
    pub(crate) fn sent(&self) -> BTreeMap<String, BTreeMap<i32, Sent>> {
        let partitions = |route: &Route| -> BTreeMap<i32, Sent> {
            let all = (0..route.count).map(|partition| (partition, self.parts[route.slot(partition)].sent));
            all.filter(|(_, sent)| sent.last != Position::default()).collect()
        };
        let topics = self.topics.iter().map(|(topic, route)| (topic.clone(), partitions(route)));
        topics.filter(|(_, partitions)| !partitions.is_empty()).collect()
    }
}
