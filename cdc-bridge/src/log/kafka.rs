//! A log's store in a Kafka cluster, and the client library.

mod client;
mod delivery;
mod listener;
mod lock;
mod look;
mod options;
mod record;
mod store;
mod tap;
mod topics;
mod trouble;

pub(crate) use client::Cluster;
pub(crate) use delivery::{Deliveries, Tally, produce};
pub(crate) use listener::Listener;
pub use options::{out_of_reach, unknown_options};
pub(crate) use store::Store;
pub(crate) use tap::Tap;
pub(crate) use topics::{Shape, Topics};

use super::contract::LogError;
use migrations::names::PlanName;
use migrations::plan::LogChoice;
use record::MadeFor;

/// The largest row, before `prepare` says otherwise.
const ROW_BYTES_MAX: u64 = 16 << 20;

/// The topic of the log of tables whose topics begin with this prefix. It is no topic of a table: their prefixes are not
/// `strangler`.
fn topic(prefix: &str) -> String {
    format!("strangler.{prefix}.log")
}

impl Store {
    /// Finds the log, or gives a new one its name; [`Store::prepare`] makes it. None if the plan's log is of another kind.
    pub(crate) fn open(
        choice: &LogChoice,
        plan: &PlanName,
        (prefix, database): (&str, &str),
    ) -> Result<Option<Store>, LogError> {
        let LogChoice::Kafka { brokers, replication, bytes_max, options, .. } = choice else {
            return Ok(None);
        };
        let made_for = MadeFor { plan: plan.to_string(), database: database.to_owned() };
        let limits = (i32::from(*replication).max(1), *bytes_max, ROW_BYTES_MAX);
        let store = Store::new(Cluster::new(brokers, options), topic(prefix), made_for, limits);
        match store.look() {
            Ok(_) | Err(LogError::Missing) => Ok(Some(store)),
            Err(error) => Err(error),
        }
    }
}
