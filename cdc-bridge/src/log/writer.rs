//! Appends flushes to a store: what it has already is left out, the rest is made into values.

use super::contract::{Flush, LogError};
use super::floor::Floor;
use super::store::Store;
use super::values::{Addition, Shape};
use migrations::lsn::{Durable, EndLsn};
use rows::binary::{Encoder, relation_hash};
use rows::change::{Change, Relation};
use std::collections::HashMap;
use std::sync::Arc;

/// A value is ended before it grows beyond this. With what redb adds it fits a run of pages of 1 MiB.
const VALUE_BYTES_MAX: usize = (1 << 20) - (8 << 10);
/// Relations that a writer remembers as stored; beyond it forgets all and stores them again.
const RELATIONS_MAX: usize = 4096;

/// Appends to a log; there is one at a time.
#[derive(Debug)]
pub struct Writer {
    store: Store,
    /// Taken while an append runs, and not put back after an error: then the session is over.
    work: Option<Box<Work>>,
}

#[derive(Debug)]
struct Work {
    session: u64,
    floor: Floor,
    /// The hash of every relation that this session has stored, by the address of what it keeps alive.
    relations: HashMap<usize, (Arc<Relation>, u64)>,
    encoder: Encoder,
}

impl Writer {
    /// Begins to append after what is promised. It ends the session of an earlier writer.
    pub(super) async fn begin(store: Store) -> Result<Writer, LogError> {
        let (session, extent) = store.blocking(Store::begin_session).await?;
        let floor = Floor::new(extent.log, extent.last.as_ref());
        let work = Work { session, floor, relations: HashMap::new(), encoder: Encoder::default() };
        Ok(Writer { store, work: Some(Box::new(work)) })
    }

    /// Appends a flush and returns when all of it is durable: how far the source is in the log now, where the
    /// flush has a progress record. After an error the session is over; ask for a new writer, and repeat from
    /// the last durable progress record on. What the log has already is not written twice.
    pub async fn append(&mut self, flush: Flush) -> Result<Option<Durable<EndLsn>>, LogError> {
        let ended = || {
            let why = "the writer's session has ended with an error";
            self.store.unavailable(why, "the bridge begins a new one by itself")
        };
        let mut work = self.work.take().ok_or_else(ended)?;
        let append = move |store: &Store| {
            let end = work.append(store, flush)?;
            Ok((work, end))
        };
        let (work, end) = self.store.blocking(append).await?;
        self.work = Some(work);
        Ok(end.map(Durable::attest))
    }
}

impl Work {
    fn append(&mut self, store: &Store, flush: Flush) -> Result<Option<EndLsn>, LogError> {
        let admitted = self.floor.admit(flush)?;
        let Flush { changes, progress } = admitted.flush;
        if !changes.is_empty() || progress.is_some() {
            let mut addition = Addition::default();
            for change in &changes {
                if self.encoder.is_full()
                    || (!self.encoder.is_empty() && self.encoder.len() + tuples(change) > VALUE_BYTES_MAX)
                {
                    addition.values.push(self.encoder.finish(None));
                }
                let hash = self.hash(&change.relation, &mut addition)?;
                self.encoder.push(change, hash);
            }
            if !self.encoder.is_empty() || progress.is_some() {
                addition.values.push(self.encoder.finish(progress.as_ref()));
            }
            addition.progress = progress;
            store.append(self.session, &addition)?;
        }
        Ok(admitted.end)
    }

    fn hash(&mut self, relation: &Arc<Relation>, addition: &mut Addition) -> Result<u64, LogError> {
        let address = Arc::as_ptr(relation) as usize;
        if let Some((_, hash)) = self.relations.get(&address) {
            return Ok(*hash);
        }
        let json = serde_json::to_vec(relation.as_ref()).map_err(|error| LogError::Damaged {
            place: relation.table.to_string(),
            why: error.to_string(),
        })?;
        let hash = relation_hash(&json);
        addition.shapes.push(Shape { hash, relation: relation.clone(), json });
        if self.relations.len() >= RELATIONS_MAX {
            self.relations.clear();
        }
        self.relations.insert(address, (relation.clone(), hash));
        Ok(hash)
    }
}

/// Roughly what a change adds to a value.
fn tuples(change: &Change) -> usize {
    change.size().saturating_sub(std::mem::size_of::<Change>()) + 64
}
