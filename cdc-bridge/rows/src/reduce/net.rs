//! What is left to do for each row when changes are taken together whole, changed keys included.
//!
//! Every row is done once, so that one statement can do all of it: the database then checks its foreign keys once, after
//! the last row, as the source did after its statement.

use super::{key_of, same, unchanged, whole};
use crate::change::{Change, Operation, Relation, Tuple};
use migrations::names::TableName;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// What is left to do to one table's rows.
#[derive(Debug)]
pub struct NetRows {
    pub relation: Arc<Relation>,
    /// Rows to remove, by the keys under which they stand.
    pub deletes: Vec<Tuple>,
    /// Rows to update, by the columns whose values were not sent. Rows whose key changes keep the source's order, in which
    /// no two of them met.
    pub updates: BTreeMap<BTreeSet<usize>, Vec<Moved>>,
    pub inserts: Vec<Tuple>,
}

/// A row that is there: the key under which it stands, and what becomes of it.
#[derive(Debug, Clone)]
pub struct Moved {
    pub from: Tuple,
    pub to: Tuple,
}

/// Takes changes together, which must be in position order. None if they hold a truncate, or a table of two shapes.
pub fn net(changes: &[Change]) -> Option<Vec<NetRows>> {
    let mut tables: BTreeMap<&TableName, Pending> = BTreeMap::new();
    for change in changes {
        let pending = tables.entry(&change.relation.table).or_insert_with(|| Pending::new(&change.relation));
        pending.take(change)?;
    }
    Some(tables.into_values().map(Pending::rows).collect())
}

enum Net {
    Insert(Tuple),
    Update(Moved),
    Delete(Tuple),
    /// It came and went, or stands further on in the list.
    Nothing,
}

struct Pending {
    relation: Arc<Relation>,
    key: Vec<usize>,
    rows: Vec<Net>,
    /// Rows that are there in the end, by their key then.
    there: HashMap<Vec<u8>, usize>,
    /// Rows that are gone in the end, by the key under which they stood.
    gone: HashMap<Vec<u8>, usize>,
}

impl Pending {
    fn new(relation: &Arc<Relation>) -> Self {
        let key = relation.key().collect();
        let (there, gone) = (HashMap::new(), HashMap::new());
        Self { relation: relation.clone(), key, rows: Vec::new(), there, gone }
    }

    /// Takes a change in; none if it cannot follow the earlier ones.
    fn take(&mut self, change: &Change) -> Option<()> {
        if !same(&self.relation, &change.relation) {
            return None;
        }
        match &change.operation {
            Operation::Insert { new } => self.insert(new),
            Operation::Update { old, new } => {
                let new = whole(&self.relation, &self.key, old.as_ref(), new);
                self.update(old.as_ref().unwrap_or(&new), &new)
            }
            Operation::Delete { old } => self.delete(old),
            Operation::Truncate => None,
        }
    }

    fn insert(&mut self, new: &Tuple) -> Option<()> {
        let key = key_of(new, &self.key);
        // A row in the place of one that went is that one, changed.
        let net = match self.gone.remove(&key) {
            None => Net::Insert(new.clone()),
            Some(place) => match std::mem::replace(self.rows.get_mut(place)?, Net::Nothing) {
                Net::Delete(from) => Net::Update(Moved { from, to: new.clone() }),
                _ => return None,
            },
        };
        self.stand(key, net)
    }

    fn update(&mut self, old: &Tuple, new: &Tuple) -> Option<()> {
        let (before, after) = (key_of(old, &self.key), key_of(new, &self.key));
        let Some(place) = self.there.remove(&before) else {
            let net = Net::Update(Moved { from: old.clone(), to: new.clone() });
            return if self.gone.contains_key(&before) { None } else { self.stand(after, net) };
        };
        let net = match std::mem::replace(self.rows.get_mut(place)?, Net::Nothing) {
            Net::Insert(row) => Net::Insert(new.filled(&row)),
            Net::Update(Moved { from, to }) => Net::Update(Moved { from, to: new.filled(&to) }),
            Net::Delete(_) | Net::Nothing => return None,
        };
        if before == after {
            self.rows[place] = net;
            self.there.insert(after, place);
            return Some(());
        }
        self.stand(after, net)
    }

    fn delete(&mut self, old: &Tuple) -> Option<()> {
        let key = key_of(old, &self.key);
        let from = match self.there.remove(&key) {
            None => old.clone(),
            Some(place) => match std::mem::replace(self.rows.get_mut(place)?, Net::Nothing) {
                Net::Insert(_) => return Some(()),
                Net::Update(Moved { from, .. }) => from,
                Net::Delete(_) | Net::Nothing => return None,
            },
        };
        let stood = key_of(&from, &self.key);
        self.rows.push(Net::Delete(from));
        let doubled = self.gone.insert(stood, self.rows.len() - 1);
        doubled.is_none().then_some(())
    }

    /// Puts a row at the end of the list, and under its key.
    fn stand(&mut self, key: Vec<u8>, net: Net) -> Option<()> {
        self.rows.push(net);
        let doubled = self.there.insert(key, self.rows.len() - 1);
        doubled.is_none().then_some(())
    }

    fn rows(self) -> NetRows {
        let (deletes, updates, inserts) = (Vec::new(), BTreeMap::<_, Vec<_>>::new(), Vec::new());
        let mut rows = NetRows { relation: self.relation, deletes, updates, inserts };
        for net in self.rows {
            match net {
                Net::Insert(new) => rows.inserts.push(new),
                Net::Update(moved) => rows.updates.entry(unchanged(&moved.to)).or_default().push(moved),
                Net::Delete(old) => rows.deletes.push(old),
                Net::Nothing => {}
            }
        }
        rows
    }
}
