//! What the client library says of its connections: each kind at once, and then once a minute for as long as it goes on.
//!
//! While brokers are away, every client says the same many times a second. One memory serves all clients of the process.

use super::lock::locked;
use super::trouble;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// The library knows some dozens of kinds; beyond this all are forgotten.
const KINDS_MAX: usize = 256;

static HEARD: LazyLock<Mutex<Heard>> = LazyLock::new(Mutex::default);

/// Hears a client.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Listener;

impl ClientContext for Listener {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        fail(&error, reason);
    }
}

impl ConsumerContext for Listener {}

pub(super) fn log(level: RDKafkaLogLevel, facility: &str, text: &str) {
    trouble::hear(text);
    use RDKafkaLogLevel::{Debug, Info};
    if matches!(level, Info | Debug) {
        tracing::debug!("Kafka: {facility}: {text}");
    } else if let Some(untold) = locked(&HEARD).take(facility, Instant::now()) {
        tracing::warn!(untold, "Kafka: {facility}: {text}");
    }
}

pub(super) fn fail(error: &KafkaError, reason: &str) {
    trouble::hear(reason);
    let kind = error.rdkafka_error_code().map_or_else(|| error.to_string(), |code| format!("{code:?}"));
    if let Some(untold) = locked(&HEARD).take(&kind, Instant::now()) {
        tracing::warn!(untold, "Kafka: {error}: {reason}");
    }
}

/// When each kind was last said, and how often it came since.
#[derive(Debug, Default)]
struct Heard(HashMap<String, (Instant, u64)>);

impl Heard {
    /// Whether to say this kind now, with how often it was kept back.
    fn take(&mut self, kind: &str, now: Instant) -> Option<u64> {
        match self.0.get_mut(kind) {
            Some((said, untold)) if now.duration_since(*said) < AGAIN_AFTER => {
                *untold += 1;
                None
            }
            Some(last) => Some(std::mem::replace(last, (now, 0)).1),
            None => {
                if self.0.len() >= KINDS_MAX {
                    self.0.clear();
                }
                self.0.insert(kind.to_owned(), (now, 0));
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_178_times_a_second_is_said_once_a_minute_with_how_often_it_came() {
        let (mut heard, start) = (Heard::default(), Instant::now());
        let mut said = Vec::new();
        for n in 0..178 * 150 {
            let now = start + Duration::from_secs_f64(f64::from(n) / 178.0);
            said.extend(heard.take("AllBrokersDown", now));
        }
        assert_eq!(said.len(), 3, "{said:?}");
        assert!(said[0] == 0 && said[1..].iter().all(|untold| (10_000..11_000).contains(untold)), "{said:?}");
        assert_eq!(heard.take("FAIL", start), Some(0), "another kind at once");
        for kind in 0..2 * KINDS_MAX {
            heard.take(&kind.to_string(), start);
        }
        assert!(heard.0.len() <= KINDS_MAX);
    }
}
