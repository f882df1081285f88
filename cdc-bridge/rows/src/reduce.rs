//! Many changes become few: what is left to do for each row when a batch's changes of the row are taken together.
//!
//! Pure. A truncate or a changed key ends a group, because rows before and after it are not the same rows.

mod net;

pub use net::{Moved, NetRows, net};

use crate::change::{Change, Operation, Relation, ReplicaIdentity, Tuple, Value};
use migrations::names::TableName;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// A part of a batch that is applied before the next one.
#[derive(Debug)]
pub enum Group<'a> {
    /// What is left to do to rows, per table.
    Rows(Vec<TableRows>),
    Truncate(Vec<&'a Change>),
    /// One row whose key changed.
    Rekey(&'a Change),
}

/// What is left to do to one table's rows; no row is in two of the three.
#[derive(Debug)]
pub struct TableRows {
    pub relation: Arc<Relation>,
    pub inserts: Vec<Tuple>,
    /// Changed rows, by the columns whose values were not sent.
    pub updates: BTreeMap<BTreeSet<usize>, Vec<Tuple>>,
    /// Removed rows, by their key columns.
    pub deletes: Vec<Tuple>,
}

enum Net {
    Insert(Tuple),
    Update(Tuple),
    Delete(Tuple),
    Nothing,
}

struct Pending {
    relation: Arc<Relation>,
    key: Vec<usize>,
    rows: Vec<Net>,
    index: HashMap<Vec<u8>, usize>,
}

/// Groups a batch's changes, which must be in position order.
pub fn reduce(changes: &[Change]) -> Vec<Group<'_>> {
    if let Some(rows) = inserts_only(changes) {
        return vec![Group::Rows(vec![rows])];
    }
    let mut groups = Vec::new();
    let mut pending: BTreeMap<&TableName, Pending> = BTreeMap::new();
    for change in changes {
        match &change.operation {
            Operation::Truncate => {
                close(&mut pending, &mut groups);
                match groups.last_mut() {
                    Some(Group::Truncate(tables)) if tables[0].position.commit == change.position.commit => {
                        tables.push(change);
                    }
                    _ => groups.push(Group::Truncate(vec![change])),
                }
            }
            Operation::Update { old: Some(old), new } if is_rekey(&change.relation, old, new) => {
                close(&mut pending, &mut groups);
                groups.push(Group::Rekey(change));
            }
            _ => {
                let table = &change.relation.table;
                if pending.get(table).is_some_and(|p| !same(&p.relation, &change.relation)) {
                    close(&mut pending, &mut groups);
                }
                let fits =
                    pending.entry(table).or_insert_with(|| Pending::new(&change.relation)).take(change);
                if !fits {
                    close(&mut pending, &mut groups);
                    pending.entry(table).or_insert_with(|| Pending::new(&change.relation)).take(change);
                }
            }
        }
    }
    close(&mut pending, &mut groups);
    groups
}

/// Inserts into one table stay as they are: each row is another one, or the database refuses it.
fn inserts_only(changes: &[Change]) -> Option<TableRows> {
    let relation = &changes.first()?.relation;
    let mut inserts = Vec::with_capacity(changes.len());
    for change in changes {
        match &change.operation {
            Operation::Insert { new } if same(relation, &change.relation) => inserts.push(new.clone()),
            _ => return None,
        }
    }
    Some(TableRows { relation: relation.clone(), inserts, updates: BTreeMap::new(), deletes: Vec::new() })
}

pub fn is_rekey(relation: &Relation, old: &Tuple, new: &Tuple) -> bool {
    relation.key().any(|index| match (old.get(index), new.get(index)) {
        (Value::Text(old), Value::Text(new)) => old != new,
        _ => false,
    })
}

/// `newer` with its key's values taken from `older` where they were not sent: a large key that did not change is sent
/// as the old key only.
pub fn fill_key(newer: &Tuple, older: &Tuple, key: &[usize]) -> Tuple {
    if !newer.has_unchanged() {
        return newer.clone();
    }
    let values = newer.values().zip(older.values()).enumerate().map(|(index, pair)| match pair {
        (Value::Unchanged, older) if key.contains(&index) => older,
        (newer, _) => newer,
    });
    Tuple::of(values.collect::<Vec<_>>().into_iter())
}

/// This row with the key of another.
pub fn with_key(row: &Tuple, other: &Tuple, key: &[usize]) -> Tuple {
    let values = row.values().zip(other.values()).enumerate();
    let values = values.map(|(index, (own, other))| if key.contains(&index) { other } else { own });
    Tuple::of(values.collect::<Vec<_>>().into_iter())
}

fn same(a: &Arc<Relation>, b: &Arc<Relation>) -> bool {
    Arc::ptr_eq(a, b) || a == b
}

fn close<'a>(pending: &mut BTreeMap<&TableName, Pending>, groups: &mut Vec<Group<'a>>) {
    let tables: Vec<TableRows> =
        std::mem::take(pending).into_values().map(Pending::rows).filter(|rows| !rows.is_empty()).collect();
    if !tables.is_empty() {
        groups.push(Group::Rows(tables));
    }
}

impl Pending {
    fn new(relation: &Arc<Relation>) -> Self {
        let key = relation.key().collect();
        Self { relation: relation.clone(), key, rows: Vec::new(), index: HashMap::new() }
    }

    /// Takes a change in; false if it cannot follow the row's earlier changes.
    fn take(&mut self, change: &Change) -> bool {
        let updated;
        let (row, next) = match &change.operation {
            Operation::Insert { new } => (new, Net::Insert(new.clone())),
            Operation::Update { old, new } => {
                updated = whole(&self.relation, &self.key, old.as_ref(), new);
                (&updated, Net::Update(updated.clone()))
            }
            Operation::Delete { old } => (old, Net::Delete(old.clone())),
            Operation::Truncate => return true,
        };
        match self.index.entry(key_of(row, &self.key)) {
            Entry::Vacant(place) => {
                place.insert(self.rows.len());
                self.rows.push(next);
                true
            }
            Entry::Occupied(place) => match combine(&self.rows[*place.get()], next) {
                Some(net) => {
                    self.rows[*place.get()] = net;
                    true
                }
                None => false,
            },
        }
    }

    fn rows(self) -> TableRows {
        let mut rows = TableRows {
            relation: self.relation,
            inserts: Vec::new(),
            updates: BTreeMap::new(),
            deletes: Vec::new(),
        };
        for net in self.rows {
            match net {
                Net::Insert(new) => rows.inserts.push(new),
                Net::Update(new) => rows.updates.entry(unchanged(&new)).or_default().push(new),
                Net::Delete(old) => rows.deletes.push(old),
                Net::Nothing => {}
            }
        }
        rows
    }
}

/// An updated row with what the stream gives only with its old row.
fn whole(relation: &Relation, key: &[usize], old: Option<&Tuple>, new: &Tuple) -> Tuple {
    match old {
        Some(old) if relation.identity == ReplicaIdentity::Full => new.filled(old),
        Some(old) => fill_key(new, old, key),
        None => new.clone(),
    }
}

impl TableRows {
    fn is_empty(&self) -> bool {
        self.inserts.is_empty() && self.updates.is_empty() && self.deletes.is_empty()
    }
}

/// The columns of a row whose values were not sent.
pub fn unchanged(row: &Tuple) -> BTreeSet<usize> {
    row.values().enumerate().filter(|(_, value)| *value == Value::Unchanged).map(|(index, _)| index).collect()
}

fn combine(before: &Net, next: Net) -> Option<Net> {
    match (before, next) {
        (Net::Nothing, Net::Insert(new)) => Some(Net::Insert(new)),
        (Net::Insert(old), Net::Update(new)) => Some(Net::Insert(new.filled(old))),
        (Net::Insert(_), Net::Delete(_)) => Some(Net::Nothing),
        (Net::Update(old), Net::Update(new)) => Some(Net::Update(new.filled(old))),
        (Net::Update(_), Net::Delete(old)) => Some(Net::Delete(old)),
        (Net::Delete(_), Net::Insert(new)) => Some(Net::Update(new)),
        _ => None,
    }
}

/// A row's identity: its key's texts, each after its length.
fn key_of(row: &Tuple, key: &[usize]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(24);
    for (index, value) in row.values().enumerate() {
        if !key.contains(&index) {
            continue;
        }
        if let Value::Text(text) = value {
            bytes.extend_from_slice(&(text.len() as u32).to_be_bytes());
            bytes.extend_from_slice(text);
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{Column, Transaction};
    use migrations::column_type::ColumnType;
    use migrations::lsn::{CommitLsn, Position};
    use proptest::prelude::*;

    fn relation() -> Arc<Relation> {
        let column = |name: &str, is_key| Column {
            name: name.to_owned(),
            kind: ColumnType::Text,
            is_key,
            nullable: true,
            number: 0,
            stored: None,
            declared: None,
            key_position: 0,
            default: None,
        };
        Arc::new(Relation {
            table: "t".parse().unwrap(),
            identity: ReplicaIdentity::Default,
            columns: vec![column("id", true), column("a", false), column("b", false)],
        })
    }

    fn row(id: &str, a: &str, b: Option<&str>) -> Tuple {
        let b = b.map_or(Value::Unchanged, |b| Value::Text(b.as_bytes()));
        Tuple::of([Value::Text(id.as_bytes()), Value::Text(a.as_bytes()), b].into_iter())
    }

    fn change(ordinal: u64, operation: Operation) -> Change {
        Change {
            position: Position { commit: CommitLsn(1), ordinal },
            lsn: 0,
            transaction: Transaction { xid: 1, committed_us: 0 },
            relation: relation(),
            mark: None,
            operation,
        }
    }

    /// Applies changes one by one, or groups, to a table kept as a map.
    fn by_one(changes: &[Change], table: &mut BTreeMap<Vec<u8>, Tuple>) {
        for change in changes {
            match &change.operation {
                Operation::Insert { new } => {
                    table.insert(key_of(new, &[0]), new.clone());
                }
                Operation::Update { old, new } => {
                    let key = key_of(old.as_ref().unwrap_or(new), &[0]);
                    let before = table.remove(&key).unwrap();
                    table.insert(key_of(new, &[0]), new.filled(&before));
                }
                Operation::Delete { old } => {
                    table.remove(&key_of(old, &[0])).unwrap();
                }
                Operation::Truncate => table.clear(),
            }
        }
    }

    fn by_group(groups: &[Group<'_>], table: &mut BTreeMap<Vec<u8>, Tuple>) {
        for group in groups {
            match group {
                Group::Truncate(_) => table.clear(),
                Group::Rekey(change) => by_one(std::slice::from_ref(*change), table),
                Group::Rows(tables) => {
                    for rows in tables {
                        for new in &rows.inserts {
                            assert!(table.insert(key_of(new, &[0]), new.clone()).is_none());
                        }
                        for new in rows.updates.values().flatten() {
                            let before = table.get(&key_of(new, &[0])).unwrap().clone();
                            table.insert(key_of(new, &[0]), new.filled(&before));
                        }
                        for old in &rows.deletes {
                            table.remove(&key_of(old, &[0])).unwrap();
                        }
                    }
                }
            }
        }
    }

    /// Every row once, and all removed and moved rows leave before any of them arrives.
    fn by_net(tables: &[NetRows], table: &mut BTreeMap<Vec<u8>, Tuple>) {
        for rows in tables {
            let key = |row: &Tuple| key_of(row, &[0]);
            rows.deletes.iter().for_each(|old| drop(table.remove(&key(old)).unwrap()));
            let moves: Vec<&Moved> = rows.updates.values().flatten().collect();
            let before: Vec<Tuple> =
                moves.iter().map(|moved| table.remove(&key(&moved.from)).unwrap()).collect();
            for (moved, before) in moves.iter().zip(&before) {
                assert!(table.insert(key(&moved.to), moved.to.filled(before)).is_none());
            }
            for new in &rows.inserts {
                assert!(table.insert(key(new), new.clone()).is_none());
            }
        }
    }

    #[test]
    fn keys_that_move_up_move_in_the_sources_order() {
        let rekey = |ordinal, from: &str, to: &str| {
            let old = Some(row(from, "", Some("")));
            change(ordinal, Operation::Update { old, new: row(to, "x", None) })
        };
        let moves = |changes: &[Change]| -> Vec<String> {
            let id = |row: &Tuple| match row.get(0) {
                Value::Text(id) => String::from_utf8_lossy(id).into_owned(),
                _ => String::new(),
            };
            let tables = net(changes).unwrap();
            let updates = tables[0].updates.values().flatten();
            updates.map(|moved| format!("{}>{}", id(&moved.from), id(&moved.to))).collect()
        };
        assert_eq!(moves(&[rekey(1, "2", "3"), rekey(2, "1", "2")]), ["2>3", "1>2"]);
        // By way of a third key: the row that came last arrives last.
        assert_eq!(moves(&[rekey(1, "1", "9"), rekey(2, "2", "1"), rekey(3, "9", "2")]), ["2>1", "1>2"]);
        assert!(net(&[change(1, Operation::Truncate)]).is_none());
    }

    proptest! {
        #[test]
        fn groups_do_what_the_changes_did(cut: u8, script in prop::collection::vec((0u8..8, 0u8..5, 0u8..9, any::<bool>()), 1..120)) {
            let mut live: BTreeSet<u8> = BTreeSet::new();
            let mut changes = Vec::new();
            for (n, (deed, id, value, sent)) in script.into_iter().enumerate() {
                let (id_text, text) = (id.to_string(), value.to_string());
                let b = sent.then_some(text.as_str());
                let operation = match deed {
                    0 => { live.clear(); Operation::Truncate }
                    1 if live.contains(&id) => {
                        let to = (id + 1) % 5;
                        if live.contains(&to) { continue; }
                        live.remove(&id);
                        live.insert(to);
                        Operation::Update { old: Some(row(&id_text, "", Some(""))), new: row(&to.to_string(), &text, b) }
                    }
                    2 | 3 if live.remove(&id) => Operation::Delete { old: row(&id_text, "", Some("")) },
                    _ if live.insert(id) => Operation::Insert { new: row(&id_text, &text, Some(&text)) },
                    _ => Operation::Update { old: None, new: row(&id_text, &text, b) },
                };
                changes.push(change(n as u64 + 1, operation));
            }
            let (mut one, mut grouped, mut together) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
            by_one(&changes, &mut one);
            by_group(&reduce(&changes), &mut grouped);
            prop_assert_eq!(&one, &grouped);
            // From the last truncate on, or from somewhere in between.
            let start = changes.iter().rposition(|change| change.operation == Operation::Truncate).map_or(0, |at| at + 1);
            let from = start + usize::from(cut) % (changes.len() - start + 1);
            by_one(&changes[..from], &mut together);
            by_net(&net(&changes[from..]).unwrap(), &mut together);
            prop_assert_eq!(&one, &together);
        }
    }
}
