//! Records on their way to the cluster, and their acknowledgements.

use super::listener;
use super::lock::locked;
use super::routes::{PROGRESS_SLOT, Slot};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, ProducerContext, ThreadedProducer};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// The producer gives every record up after its own deadline; this is only for the case that it does not.
const FLUSH_MAX: Duration = Duration::from_secs(60);
/// How long to let a full queue drain before the next try.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(1);

/// Hands a record to the producer; where its queue is full, waits for room.
pub(super) fn produce(
    producer: &ThreadedProducer<Deliveries>,
    tally: &Tally,
    mut record: BaseRecord<'_, [u8], [u8], Slot>,
) -> Result<(), KafkaError> {
    tally.expect_one();
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((error, back)) => {
                let full = error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull);
                if !full || tally.has_failed() {
                    return Err(error);
                }
                record = back;
                std::thread::sleep(QUEUE_FULL_PAUSE);
            }
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Tally {
    state: Mutex<Count>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Count {
    left: usize,
    failed: Option<KafkaError>,
    /// By slot.
    next: Vec<i64>,
    /// Where the progress topic's next record is due, and whether one came before that: into another topic of its name.
    promises: i64,
    went_back: bool,
}

impl Tally {
    pub(super) fn begin(&self) {
        let mut count = locked(&self.state);
        *count = Count { promises: count.promises, went_back: count.went_back, ..Count::default() };
    }

    fn expect_one(&self) {
        locked(&self.state).left += 1;
    }

    pub(super) fn has_failed(&self) -> bool {
        locked(&self.state).failed.is_some()
    }

    pub(super) fn went_back(&self) -> bool {
        locked(&self.state).went_back
    }

    fn arrived(&self, result: &DeliveryResult<'_>, slot: Slot) {
        let mut count = locked(&self.state);
        count.left = count.left.saturating_sub(1);
        match result {
            Ok(message) if slot != PROGRESS_SLOT => {
                if count.next.len() <= slot {
                    count.next.resize(slot + 1, 0);
                }
                count.next[slot] = count.next[slot].max(message.offset() + 1);
            }
            // A repeated record that the broker had already is acknowledged without its offset.
            Ok(message) if message.offset() >= 0 => {
                count.went_back |= message.offset() < count.promises;
                count.promises = message.offset() + 1;
            }
            Ok(_) => {}
            Err((error, _)) => count.failed = Some(error.clone()),
        }
        if count.left == 0 || count.failed.is_some() {
            self.changed.notify_all();
        }
    }

    /// Waits until all have been acknowledged, or one was not.
    pub(super) fn wait(&self) -> Result<(), KafkaError> {
        let count = locked(&self.state);
        let going = |count: &mut Count| count.left > 0 && count.failed.is_none();
        let (mut count, waited) =
            self.changed.wait_timeout_while(count, FLUSH_MAX, going).unwrap_or_else(PoisonError::into_inner);
        match count.failed.take() {
            Some(error) => Err(error),
            None if waited.timed_out() => {
                Err(KafkaError::MessageProduction(RDKafkaErrorCode::MessageTimedOut))
            }
            None => Ok(()),
        }
    }

    pub(super) fn next(&self) -> Vec<i64> {
        std::mem::take(&mut locked(&self.state).next)
    }
}

/// Gives the client library's delivery reports to the tally.
pub(crate) struct Deliveries(pub(super) Arc<Tally>);

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        listener::log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        listener::fail(&error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Slot;

    fn delivery(&self, result: &DeliveryResult<'_>, slot: Slot) {
        self.0.arrived(result, slot);
    }
}
