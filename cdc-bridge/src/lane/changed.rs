//! The keys of rows that a lane changed since a verification began: what must be compared again before the slice may
//! change its owner.
//!
//! Bounded: beyond [`KEYS_MAX`] keys or [`BYTES_MAX`] of their texts nothing is known any more, and that is said. A lane
//! notes its changes before it applies them, so that no row is changed without being noted.

use migrations::lsn::Position;
use migrations::names::TableName;
use rows::change::{Change, Operation, Tuple, Value};
use rows::reduce;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use uuid::Uuid;

const KEYS_MAX: usize = 50_000;
const BYTES_MAX: usize = 4 << 20;

/// A row's key: its texts in the order of the table's columns.
pub(crate) type ChangedKey = Vec<String>;

/// A row that was changed, and the number of its newest change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChangedRow {
    pub(crate) table: TableName,
    pub(crate) key: ChangedKey,
    pub(crate) number: u64,
}

/// The keys of one lane. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Changed(Arc<Mutex<Noted>>);

#[derive(Debug, Default)]
struct Noted {
    /// The newest change that was noted or passed over.
    last: Position,
    watch: Watch,
}

#[derive(Debug, Default)]
enum Watch {
    #[default]
    Off,
    On(Keys),
    /// What changed is not known.
    Lost {
        of: Uuid,
        why: String,
    },
}

#[derive(Debug)]
struct Keys {
    /// The verification that it began with.
    of: Uuid,
    tables: BTreeMap<TableName, HashMap<ChangedKey, u64>>,
    count: usize,
    bytes: usize,
    /// The number of the newest change.
    number: u64,
}

/// Why keys are not noted any more.
type Why = &'static str;

const TOO_MANY: Why = "too many rows changed since then";
const TRUNCATED: Why = "a table was truncated since then";
const UNKNOWN_KEY: Why = "a change without a readable key came since then";
const NOT_LISTED: Why = "not every row that differed is listed";
const ELSEWHERE: Why = "another bridge applied changes since then";

impl Changed {
    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets all keys, and notes those that change from now on.
    pub(crate) fn begin(&self, of: Uuid) {
        let keys = Keys { of, tables: BTreeMap::new(), count: 0, bytes: 0, number: 0 };
        self.noted().watch = Watch::On(keys);
    }

    /// Whether all keys are known that changed since this verification began; why not, if not.
    pub(crate) fn knows(&self, of: Uuid) -> Result<(), String> {
        match &self.noted().watch {
            Watch::On(keys) if keys.of == of => Ok(()),
            Watch::Lost { of: lost, why } if *lost == of => Err(why.clone()),
            _ => Err("the bridge was started again since then".to_owned()),
        }
    }

    /// The lane goes on after this place in the stream.
    pub(crate) fn resume(&self, at: Position) {
        let mut noted = self.noted();
        if at > noted.last {
            noted.watch.lose(ELSEWHERE);
        }
        noted.last = at;
    }

    /// The lane has passed this place by itself, and changed nothing that is not noted.
    pub(crate) fn reach(&self, at: Position) {
        self.noted().last = at;
    }

    /// Notes what is about to be applied.
    pub(crate) fn note(&self, changes: &[Change]) {
        let Some(last) = changes.last() else { return };
        let mut noted = self.noted();
        noted.last = last.position;
        if let Watch::On(keys) = &mut noted.watch
            && let Err(why) = changes.iter().try_for_each(|change| keys.note(change))
        {
            noted.watch.lose(why);
        }
    }

    /// Notes a row that was not the same on both sides.
    pub(crate) fn note_row(&self, table: &TableName, key: ChangedKey) {
        let mut noted = self.noted();
        if let Watch::On(keys) = &mut noted.watch
            && let Err(why) = keys.add(table, key)
        {
            noted.watch.lose(why);
        }
    }

    /// Rows differed that cannot be noted.
    pub(crate) fn lose(&self) {
        self.noted().watch.lose(NOT_LISTED);
    }

    /// How many keys are known.
    pub(crate) fn count(&self) -> usize {
        match &self.noted().watch {
            Watch::On(keys) => keys.count,
            Watch::Off | Watch::Lost { .. } => 0,
        }
    }

    /// The number of the newest change.
    pub(crate) fn newest(&self) -> u64 {
        match &self.noted().watch {
            Watch::On(keys) => keys.number,
            Watch::Off | Watch::Lost { .. } => 0,
        }
    }

    /// The first rows whose newest changes come after the first of these numbers, up to the second: so many of them.
    pub(crate) fn rows(&self, numbers: Range<u64>, rows_max: usize) -> Vec<ChangedRow> {
        let noted = self.noted();
        let Watch::On(keys) = &noted.watch else { return Vec::new() };
        let rows = keys.tables.iter().flat_map(|(table, rows)| rows.iter().map(move |row| (table, row)));
        let is_asked = |number: u64| number > numbers.start && number <= numbers.end;
        let mut rows: Vec<_> = rows.filter(|(_, (_, number))| is_asked(**number)).collect();
        rows.sort_unstable_by_key(|(_, (_, number))| **number);
        let rows = rows.into_iter().take(rows_max);
        rows.map(|(table, (key, number))| ChangedRow {
            table: table.clone(),
            key: key.clone(),
            number: *number,
        })
        .collect()
    }

    /// Whether a row was changed after that change, or may have been.
    pub(crate) fn is_touched(&self, table: &TableName, key: &ChangedKey, since: u64) -> bool {
        match &self.noted().watch {
            Watch::On(keys) => {
                keys.tables.get(table).and_then(|rows| rows.get(key)).is_some_and(|number| *number > since)
            }
            Watch::Off | Watch::Lost { .. } => true,
        }
    }

    /// Forgets a row that is the same on both sides, unless it changed since it was given out.
    pub(crate) fn forget(&self, row: &ChangedRow) {
        if let Watch::On(keys) = &mut self.noted().watch {
            keys.remove(row);
        }
    }
}

impl Watch {
    fn lose(&mut self, why: Why) {
        if let Watch::On(keys) = self {
            *self = Watch::Lost { of: keys.of, why: why.to_owned() };
        }
    }
}

impl Keys {
    fn note(&mut self, change: &Change) -> Result<(), Why> {
        let relation = &change.relation;
        let key: Vec<usize> = relation.key().collect();
        let mut add = |row: &Tuple| {
            let texts = key_of(row, &key).ok_or(UNKNOWN_KEY)?;
            self.add(&relation.table, texts)
        };
        match &change.operation {
            Operation::Insert { new } | Operation::Update { old: None, new } => add(new),
            Operation::Update { old: Some(old), new } => {
                if reduce::is_rekey(relation, old, new) {
                    add(old)?;
                }
                add(&reduce::fill_key(new, old, &key))
            }
            Operation::Delete { old } => add(old),
            Operation::Truncate => Err(TRUNCATED),
        }
    }

    fn add(&mut self, table: &TableName, key: ChangedKey) -> Result<(), Why> {
        self.number += 1;
        let number = self.number;
        if !self.tables.contains_key(table) {
            self.tables.insert(table.clone(), HashMap::new());
        }
        let Some(rows) = self.tables.get_mut(table) else { return Ok(()) };
        if let Some(held) = rows.get_mut(&key) {
            *held = number;
            return Ok(());
        }
        self.count += 1;
        self.bytes += bytes(&key);
        if self.count > KEYS_MAX || self.bytes > BYTES_MAX {
            return Err(TOO_MANY);
        }
        rows.insert(key, number);
        Ok(())
    }

    fn remove(&mut self, row: &ChangedRow) {
        let Some(rows) = self.tables.get_mut(&row.table) else { return };
        if rows.get(&row.key) == Some(&row.number) {
            rows.remove(&row.key);
            self.count -= 1;
            self.bytes -= bytes(&row.key);
        }
    }
}

fn bytes(key: &ChangedKey) -> usize {
    key.iter().map(String::len).sum()
}

fn key_of(row: &Tuple, key: &[usize]) -> Option<ChangedKey> {
    let text = |index: &usize| match row.get(*index) {
        Value::Text(text) => std::str::from_utf8(text).ok().map(str::to_owned),
        Value::Null | Value::Unchanged => None,
    };
    key.iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use migrations::column_type::ColumnType;
    use migrations::lsn::CommitLsn;
    use rows::change::{Column, Relation, ReplicaIdentity, Transaction};

    fn row(id: &str, note: Option<&str>) -> Tuple {
        let note = note.map_or(Value::Unchanged, |note| Value::Text(note.as_bytes()));
        Tuple::of([note, Value::Text(id.as_bytes())].into_iter())
    }

    fn change(commit: u64, operation: Operation) -> Change {
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
        let relation = Relation {
            table: "t".parse().unwrap(),
            identity: ReplicaIdentity::Default,
            columns: vec![column("note", false), column("id", true)],
        };
        Change {
            position: Position { commit: CommitLsn(commit), ordinal: 1 },
            lsn: 0,
            transaction: Transaction { xid: 1, committed_us: 0 },
            relation: Arc::new(relation),
            mark: None,
            operation,
        }
    }

    fn insert(commit: u64, id: &str) -> Change {
        change(commit, Operation::Insert { new: row(id, Some("new")) })
    }

    fn keys(changed: &Changed) -> Vec<String> {
        let mut keys: Vec<String> =
            changed.rows(0..u64::MAX, 100).into_iter().map(|row| row.key.join("|")).collect();
        keys.sort();
        keys
    }

    fn begun() -> (Changed, Uuid) {
        let (changed, of) = (Changed::default(), Uuid::new_v4());
        changed.note(&[insert(1, "before")]);
        changed.begin(of);
        (changed, of)
    }

    #[test]
    fn each_row_that_changed_is_known_once_and_a_new_key_beside_the_old() {
        let (changed, of) = begun();
        changed.note(&[
            insert(2, "1"),
            change(2, Operation::Update { old: None, new: row("1", None) }),
            change(3, Operation::Update { old: Some(row("2", Some(""))), new: row("3", Some("")) }),
            change(4, Operation::Delete { old: row("4", None) }),
        ]);
        assert_eq!(keys(&changed), ["1", "2", "3", "4"]);
        assert_eq!((changed.count(), changed.knows(of)), (4, Ok(())));
        assert!(changed.knows(Uuid::new_v4()).is_err(), "of another verification");
    }

    #[test]
    fn a_row_is_forgotten_unless_it_changed_since() {
        let (changed, _) = begun();
        changed.note(&[insert(2, "1"), insert(2, "2")]);
        let rows = changed.rows(0..u64::MAX, 100);
        changed.note(&[change(3, Operation::Update { old: None, new: row("1", None) })]);
        rows.iter().for_each(|row| changed.forget(row));
        assert_eq!((keys(&changed), changed.count()), (vec!["1".to_owned()], 1));
    }

    #[test]
    fn what_cannot_be_known_is_said_and_nothing_is_kept() {
        let lost = |changes: &[Change]| {
            let (changed, of) = begun();
            changed.note(&[insert(2, "1")]);
            changed.note(changes);
            assert_eq!(changed.count(), 0);
            changed.knows(of).unwrap_err()
        };
        assert_eq!(lost(&[change(3, Operation::Truncate)]), TRUNCATED);
        let unreadable = Tuple::of([Value::Null, Value::Text(b"\xff")].into_iter());
        assert_eq!(lost(&[change(3, Operation::Delete { old: unreadable })]), UNKNOWN_KEY);
        let many: Vec<Change> = (0..=KEYS_MAX).map(|n| insert(3, &n.to_string())).collect();
        assert_eq!(lost(&many), TOO_MANY);
        let large = "k".repeat(BYTES_MAX);
        assert_eq!(lost(&[insert(3, &large)]), TOO_MANY);
    }

    #[test]
    fn a_lane_that_begins_again_knows_on_only_if_nobody_went_on_meanwhile() {
        let at = |commit| Position { commit: CommitLsn(commit), ordinal: 1 };
        let (changed, of) = begun();
        changed.note(&[insert(5, "1")]);
        // What was noted may have been rolled back.
        changed.resume(at(3));
        changed.note(&[insert(5, "1")]);
        changed.resume(at(5));
        assert_eq!(changed.knows(of), Ok(()));
        changed.resume(at(6));
        assert_eq!(changed.knows(of), Err(ELSEWHERE.to_owned()));
    }
}
