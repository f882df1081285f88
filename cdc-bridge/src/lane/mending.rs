//! Rows of a lane's sink that are to be mended, handed to the lane: it mends them between two batches, at its own place in
//! the stream.

use super::changed::ChangedKey;
use rows::change::{Relation, Tuple};
use std::sync::Arc;
use tokio::sync::{Mutex, MutexGuard, mpsc, oneshot};

/// One part of a verification asks at a time.
const WAITING_MAX: usize = 1;

#[derive(Debug)]
pub(crate) enum Deed {
    Insert(Tuple),
    Update(Tuple),
    Delete(Tuple),
}

/// One row, with its key as the lane notes it.
#[derive(Debug)]
pub(crate) struct MendRow {
    pub(crate) key: ChangedKey,
    pub(crate) deed: Deed,
}

/// Rows of one table that were proven to differ.
#[derive(Debug)]
pub(crate) struct Mend {
    pub(crate) relation: Arc<Relation>,
    pub(crate) rows: Vec<MendRow>,
    /// The number of the newest change that was noted before the rows were proven to differ. A row with a later one is
    /// left alone.
    pub(crate) since: u64,
    /// For each row why it was not mended, if it was not.
    pub(crate) answer: oneshot::Sender<Vec<Option<String>>>,
}

/// The way to a lane. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Mending {
    pub(crate) sender: mpsc::Sender<Mend>,
    receiver: Arc<Mutex<mpsc::Receiver<Mend>>>,
}

impl Mending {
    pub(crate) fn new() -> Mending {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        Mending { sender, receiver: Arc::new(Mutex::new(receiver)) }
    }

    /// Only the lane asks for it.
    pub(crate) async fn receive(&self) -> MutexGuard<'_, mpsc::Receiver<Mend>> {
        self.receiver.lock().await
    }
}
