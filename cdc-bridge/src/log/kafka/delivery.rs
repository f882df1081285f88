//! Records on their way to the cluster, and where they came to lie.

use super::listener;
use super::lock::locked;
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
pub(crate) fn produce(
    producer: &ThreadedProducer<Deliveries>,
    tally: &Tally,
    mut record: BaseRecord<'_, [u8], [u8], usize>,
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

/// Counts acknowledgements.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    state: Mutex<Count>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Count {
    left: usize,
    failed: Option<KafkaError>,
    is_astray: bool,
}

impl Tally {
    pub(crate) fn begin(&self) {
        *locked(&self.state) = Count::default();
    }

    fn expect_one(&self) {
        locked(&self.state).left += 1;
    }

    pub(crate) fn has_failed(&self) -> bool {
        locked(&self.state).failed.is_some()
    }

    /// Whether a record lies elsewhere than it was to, or where is not known: a broker does not say it of a record that
    /// it had already.
    pub(crate) fn is_astray(&self) -> bool {
        locked(&self.state).is_astray
    }

    fn arrived(&self, result: &DeliveryResult<'_>, offset: usize) {
        let mut count = locked(&self.state);
        count.left = count.left.saturating_sub(1);
        match result {
            Ok(message) => count.is_astray |= usize::try_from(message.offset()) != Ok(offset),
            Err((error, _)) => count.failed = Some(error.clone()),
        }
        if count.left == 0 || count.failed.is_some() {
            self.changed.notify_all();
        }
    }

    /// Waits until all have been acknowledged, or one was not.
    pub(crate) fn wait(&self) -> Result<(), KafkaError> {
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
}

/// Gives the client library's delivery reports to the tally. A record's opaque number is the offset it is to have.
pub(crate) struct Deliveries(pub(crate) Arc<Tally>);

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        listener::log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        listener::fail(&error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, offset: usize) {
        self.0.arrived(result, offset);
    }
}
