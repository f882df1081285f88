//! What every log must do, run on each kind: the embedded one, and Kafka on the broker of `STRANGLER_TEST_KAFKA`.
//!
//! Long because the contract is one, and is read in one piece.

// What is no test itself is only used by tests; they fail by panicking, and print their seeds.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "log_contract/embedded.rs"]
mod embedded_only;
#[path = "log_contract/gone.rs"]
mod gone;
#[path = "log_contract/guarded.rs"]
mod guarded;
#[path = "log_contract/history.rs"]
mod history;
#[path = "log_contract/kafka.rs"]
mod kafka_only;
#[path = "log_contract/place.rs"]
mod place;

use cdc_bridge::log::{Cursor, Flush, LogError, Writer};
use history::{
    Committed, History, changes_of, flush, flushes, key_row, message, messages_of, row, tables, timeline,
};
use lab::Dice;
use migrations::code::Code;
use migrations::lsn::EndLsn;
use place::{Place, Watcher};
use rows::change::Operation;
use rows::progress::{Membership, Progress, Seal, Seals};
use std::time::Duration;

macro_rules! contract {
    ($($test:ident),* $(,)?) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(super::Place::embedded()).await;
            })*
        }
        mod kafka {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(super::Place::kafka()).await;
            })*
        }
    };
}

contract!(
    what_is_appended_is_read_in_order,
    every_kind_of_change_arrives_as_it_was,
    nothing_is_delivered_before_its_progress_record,
    a_large_transaction_streams_in_bounded_batches,
    a_new_writer_repeats_and_nothing_comes_twice,
    a_second_writer_ends_the_first,
    any_cursor_gives_the_same_rest,
    two_readers_go_at_their_own_speed,
    a_cursor_at_the_end_sees_whole_transactions_only,
    messages_and_progress_alone_arrive,
    a_batch_speaks_of_one_set_of_tables,
    a_cursor_of_another_history_is_refused,
    a_tables_shape_may_change,
    another_timeline_is_refused,
    the_newest_changes_are_shown,
    a_destroyed_log_is_another_one,
    a_full_log_says_so_and_goes_on_after_a_trim,
);

async fn append(writer: &mut Writer, flush: Flush) -> Option<EndLsn> {
    writer.append(flush).await.unwrap().map(|end| *end.get())
}

async fn append_all(writer: &mut Writer, flushes: Vec<Flush>) {
    for flush in flushes {
        let end = flush.progress.as_ref().map(|progress| progress.end);
        assert_eq!(append(writer, flush).await, end);
    }
}

fn some(history: &mut History, count: usize) -> Vec<Committed> {
    (0..count).map(|_| history.random()).collect()
}

async fn what_is_appended_is_read_in_order(place: Place) {
    let log = place.ready().await;
    assert_eq!(log.end().await.unwrap(), None);
    let start = log.end_cursor().await.unwrap();
    let mut history = History::new(Dice::thrown("what_is_appended_is_read_in_order"));
    let transactions = some(&mut history, 40);
    let mut writer = log.writer().await.unwrap();
    append_all(&mut writer, flushes(&mut history.dice, &transactions)).await;
    let last = transactions.last().unwrap();
    let end = log.end().await.unwrap().unwrap();
    assert_eq!((end.end, &end.log), (last.end, &log.id()));
    for wanted in [tables(&[0, 1, 2]), tables(&[1])] {
        let watcher = Watcher::at_the_end_of(&transactions, &log, &wanted, &start).await;
        assert_eq!(watcher.messages, messages_of(&transactions));
    }
    place.clean(&log).await;
}

async fn every_kind_of_change_arrives_as_it_was(place: Place) {
    let (log, start, mut history) = place.begun(Dice::new(1)).await;
    let mut writer = log.writer().await.unwrap();
    let mut committed = history.commit(vec![
        (0, Operation::Insert { new: row(1, "") }),
        (1, Operation::Insert { new: key_row(1) }),
        (0, Operation::Update { old: Some(key_row(1)), new: row(2, "moved") }),
        (0, Operation::Update { old: None, new: row(2, "changed") }),
        (0, Operation::Delete { old: key_row(2) }),
        (1, Operation::Truncate),
        (1, Operation::Insert { new: row(2, &"large ".repeat(300_000)) }),
    ]);
    committed.changes[3].mark = Some("orders".into());
    append(&mut writer, flush(std::slice::from_ref(&committed))).await;
    Watcher::at_the_end_of(&[committed], &log, &tables(&[0, 1]), &start).await;
    place.clean(&log).await;
}

async fn nothing_is_delivered_before_its_progress_record(place: Place) {
    let log = place.ready().await;
    let mut watcher = Watcher::new(&log, &tables(&[0, 1, 2]), &log.end_cursor().await.unwrap()).await;
    let mut history = History::new(Dice::new(2));
    let inserts = (0..30).map(|id| (id % 3, Operation::Insert { new: row(id, "x") })).collect();
    let committed = history.commit(inserts);
    let mut writer = log.writer().await.unwrap();
    let mut whole = flush(std::slice::from_ref(&committed));
    let tail = whole.changes.split_off(10);
    assert_eq!(append(&mut writer, Flush { changes: whole.changes, progress: None }).await, None);
    assert!(watcher.is_silent(Duration::from_millis(300)).await);
    append(&mut writer, Flush { changes: tail, progress: whole.progress }).await;
    watcher.until(committed.end).await;
    assert_eq!(watcher.changes, committed.changes);
    place.clean(&log).await;
}

async fn a_large_transaction_streams_in_bounded_batches(place: Place) {
    let (log, start, mut history) = place.begun(Dice::new(3)).await;
    let note = "n".repeat(1000);
    let inserts = (0..5000).map(|id| (id % 3, Operation::Insert { new: row(id, &note) })).collect();
    let transactions = [history.commit(inserts), history.commit(vec![(0, Operation::Truncate)])];
    let mut writer = log.writer().await.unwrap();
    let parts: Vec<_> = transactions[0].changes.chunks(1500).map(<[_]>::to_vec).collect();
    let count = parts.len();
    for (index, changes) in parts.into_iter().enumerate() {
        let progress = (index + 1 == count).then(|| history::progress(&transactions[0]));
        append(&mut writer, Flush { changes, progress }).await;
    }
    append(&mut writer, flush(&transactions[1..])).await;
    let watcher = Watcher::at_the_end_of(&transactions, &log, &tables(&[0, 1, 2]), &start).await;
    assert!(watcher.batches >= 5, "{} batches", watcher.batches);
    place.clean(&log).await;
}

async fn a_new_writer_repeats_and_nothing_comes_twice(place: Place) {
    let mut log = place.ready().await;
    let start = log.end_cursor().await.unwrap();
    let mut history = History::new(Dice::thrown("a_new_writer_repeats_and_nothing_comes_twice"));
    let transactions = some(&mut history, 60);
    let all = tables(&[0, 1, 2]);
    let mut watcher = Watcher::new(&log, &all, &start).await;
    let mut confirmed = 0;
    for round in 0..8 {
        let last_round = round == 7;
        let upto = if last_round { 60 } else { (confirmed + 1 + history.dice.below(8) as usize).min(60) };
        // A source begins again where it was confirmed, or before.
        let from = confirmed.saturating_sub(history.dice.below(4) as usize);
        let mut writer = log.writer().await.unwrap();
        let mut plan = flushes(&mut history.dice, &transactions[from..upto]);
        if !last_round {
            // The writer dies somewhere in the middle, perhaps within a transaction.
            plan.truncate(1 + history.dice.below(plan.len() as u64) as usize);
        }
        for flush in plan {
            if let Some(end) = append(&mut writer, flush).await {
                confirmed = confirmed.max(transactions.partition_point(|committed| committed.end <= end));
            }
        }
        if history.dice.one_in(2) {
            drop(writer);
            watcher.until(transactions[..confirmed].last().map_or(EndLsn(0), |last| last.end)).await;
            if history.dice.one_in(2) {
                watcher.close();
                drop(log);
                log = place.reopen().await;
                watcher.restart(&log, &all).await;
            }
        }
    }
    watcher.until(transactions[59].end).await;
    assert_eq!(watcher.changes, changes_of(&transactions, &all));
    assert_eq!(watcher.messages, messages_of(&transactions));
    place.clean(&log).await;
}

async fn a_second_writer_ends_the_first(place: Place) {
    let (log, start, mut history) = place.begun(Dice::new(4)).await;
    let insert = |id| vec![(0, Operation::Insert { new: row(id, "x") })];
    let transactions = [history.commit(insert(1)), history.commit(insert(2)), history.commit(insert(3))];
    let mut first = log.writer().await.unwrap();
    append(&mut first, flush(&transactions[..1])).await;
    let mut second = log.writer().await.unwrap();
    let refused = first.append(flush(&transactions[1..2])).await;
    assert!(matches!(refused, Err(LogError::Unavailable { .. })), "{refused:?}");
    append(&mut second, flush(&transactions[..2])).await;
    append(&mut second, flush(&transactions[2..])).await;
    Watcher::at_the_end_of(&transactions, &log, &tables(&[0]), &start).await;
    place.clean(&log).await;
}

async fn any_cursor_gives_the_same_rest(place: Place) {
    let (log, start, mut history) = place.begun(Dice::thrown("any_cursor_gives_the_same_rest")).await;
    let transactions = some(&mut history, 50);
    let mut writer = log.writer().await.unwrap();
    append_all(&mut writer, flushes(&mut history.dice, &transactions)).await;
    for wanted in [tables(&[0, 1, 2]), tables(&[0, 2])] {
        let mut watcher = Watcher::new(&log, &wanted, &start).await;
        for _ in 0..12 {
            if watcher.step().await >= transactions[49].end {
                break;
            }
            if history.dice.one_in(2) {
                watcher.restart(&log, &wanted).await;
            }
        }
        watcher.until(transactions[49].end).await;
        assert_eq!(watcher.changes, changes_of(&transactions, &wanted));
        let end = watcher.cursor.clone();
        let mut behind = Watcher::new(&log, &wanted, &end).await;
        assert!(behind.is_silent(Duration::from_millis(200)).await);
    }
    place.clean(&log).await;
}

async fn two_readers_go_at_their_own_speed(place: Place) {
    let (log, start, mut history) = place.begun(Dice::thrown("two_readers_go_at_their_own_speed")).await;
    let transactions = some(&mut history, 40);
    let (fast, slow) = (tables(&[0, 1]), tables(&[1, 2]));
    let mut hare = Watcher::new(&log, &fast, &start).await;
    let mut tortoise = Watcher::new(&log, &slow, &start).await;
    let mut writer = log.writer().await.unwrap();
    for part in transactions.chunks(5) {
        append_all(&mut writer, flushes(&mut history.dice, part)).await;
        hare.until(part.last().unwrap().end).await;
    }
    tortoise.until(transactions[39].end).await;
    assert_eq!(hare.changes, changes_of(&transactions, &fast));
    assert_eq!(tortoise.changes, changes_of(&transactions, &slow));
    place.clean(&log).await;
}

async fn a_cursor_at_the_end_sees_whole_transactions_only(place: Place) {
    let log = place.ready().await;
    let mut history = History::new(Dice::new(5));
    let inserts = || (0..40).map(|id| (id % 3, Operation::Insert { new: row(id, "x") })).collect();
    let transactions = [history.commit(inserts()), history.commit(inserts())];
    let mut writer = log.writer().await.unwrap();
    append(&mut writer, flush(&transactions[..1])).await;
    let mut whole = flush(&transactions[1..]);
    let tail = whole.changes.split_off(20);
    append(&mut writer, Flush { changes: whole.changes, progress: None }).await;
    let mut watcher = Watcher::new(&log, &tables(&[0, 1, 2]), &log.end_cursor().await.unwrap()).await;
    append(&mut writer, Flush { changes: tail, progress: whole.progress }).await;
    watcher.until(transactions[1].end).await;
    assert_eq!(watcher.changes, transactions[1].changes);
    place.clean(&log).await;
}

async fn messages_and_progress_alone_arrive(place: Place) {
    let log = place.ready().await;
    let mut watcher = Watcher::new(&log, &tables(&[0]), &log.end_cursor().await.unwrap()).await;
    let mut history = History::new(Dice::new(6));
    let mut writer = log.writer().await.unwrap();
    let mut sent = Vec::new();
    for round in 0..5 {
        let mut committed = history.commit(Vec::new());
        if round % 2 == 0 {
            let commit = migrations::lsn::CommitLsn(committed.end.0 - 48);
            let position = migrations::lsn::Position { commit, ordinal: 1 };
            committed.messages.push(message(position, &format!("{round}")));
        }
        append(&mut writer, flush(std::slice::from_ref(&committed))).await;
        // A record that says nothing new is durable, too.
        let again = Flush { changes: Vec::new(), progress: Some(history::progress(&committed)) };
        assert_eq!(append(&mut writer, again).await, Some(committed.end));
        sent.push(committed);
        watcher.until(sent[round].end).await;
    }
    assert_eq!(watcher.messages, messages_of(&sent));
    assert!(watcher.changes.is_empty());
    assert_eq!(log.end().await.unwrap().unwrap().end, sent[4].end);
    place.clean(&log).await;
}

/// Places come again in a log that was set back. What was read up to them tells the histories apart.
async fn a_cursor_of_another_history_is_refused(place: Place) {
    let (log, start, mut history) = place.begun(Dice::new(15)).await;
    let seal = |name: &str| Seal(name.to_owned());
    let mut writer = log.writer().await.unwrap();
    for seals in [
        Seals { held: seal("first"), next: seal("second") },
        Seals { held: seal("second"), next: seal("third") },
    ] {
        let mut one = flush(&some(&mut history, 1));
        one.progress = one.progress.map(|progress| Progress { seals: Some(seals), ..progress });
        append(&mut writer, one).await;
    }
    assert_eq!(log.end().await.unwrap().unwrap().seals.unwrap().next, seal("third"));
    let mut reader = log.reader(tables(&[0]), &start).await.unwrap();
    let end = log.end().await.unwrap().unwrap().end;
    let cursor = loop {
        let batch = tokio::time::timeout(place::PATIENCE, reader.next()).await;
        let batch = batch.expect("the reader stands still").unwrap();
        if let Some((_, cursor)) = batch.progress.filter(|(progress, _)| progress.end == end) {
            break cursor;
        }
    };
    let other = Cursor(cursor.0.replace("second", "another"));
    assert_ne!(other, cursor);
    for _ in 0..2 {
        log.reader(tables(&[0]), &cursor).await.unwrap();
        let refused = log.reader(tables(&[0]), &other).await.unwrap_err();
        assert_eq!(refused.finding().code, Code::LogOtherHistory, "{refused}");
        // What lies before it may be gone by then.
        log.trim(&cursor).await.unwrap();
    }
    place.clean(&log).await;
}

async fn a_batch_speaks_of_one_set_of_tables(place: Place) {
    let (log, start, mut history) = place.begun(Dice::thrown("a_batch_speaks_of_one_set_of_tables")).await;
    let transactions = some(&mut history, 30);
    // A table leaves and comes back, now and then.
    let captured = |at: usize| [Membership(1), Membership(2 + (at / 7 % 2) as i64)].into();
    let mut writer = log.writer().await.unwrap();
    for (at, committed) in transactions.iter().enumerate() {
        let mut one = flush(std::slice::from_ref(committed));
        one.progress = one.progress.map(|progress| Progress { captured: captured(at), ..progress });
        append(&mut writer, one).await;
    }
    let mut reader = log.reader(tables(&[0, 1, 2]), &start).await.unwrap();
    let (mut seen, mut batches) = (0, 0);
    while seen < transactions.len() {
        let batch =
            tokio::time::timeout(place::PATIENCE, reader.next()).await.expect("the reader stands still");
        let Some((progress, _)) = batch.unwrap().progress else { continue };
        let until = transactions.iter().position(|committed| committed.end == progress.end).unwrap() + 1;
        for at in seen..until {
            assert_eq!(progress.captured, captured(at), "transaction {at} in a batch up to {until}");
        }
        (seen, batches) = (until, batches + 1);
    }
    assert!(batches >= 5, "{batches} batches");
    place.clean(&log).await;
}

async fn a_tables_shape_may_change(place: Place) {
    let (log, start, mut history) = place.begun(Dice::new(7)).await;
    let narrow = history.commit(vec![(0, Operation::Insert { new: row(1, "narrow") })]);
    let mut wide = history.commit(vec![(0, Operation::Insert { new: wide_row() })]);
    wide.changes[0].relation = history::relation_of(0, true);
    let back = history.commit(vec![(0, Operation::Insert { new: row(3, "narrow again") })]);
    let transactions = [narrow, wide, back];
    let mut writer = log.writer().await.unwrap();
    append(&mut writer, flush(&transactions[..1])).await;
    append(&mut writer, flush(&transactions[1..2])).await;
    drop(writer);
    let mut writer = log.writer().await.unwrap();
    append(&mut writer, flush(&transactions[2..])).await;
    let wanted = tables(&[0]);
    let mut watcher = Watcher::new(&log, &wanted, &start).await;
    watcher.step().await;
    watcher.restart(&log, &wanted).await;
    watcher.until(transactions[2].end).await;
    assert_eq!(watcher.changes, changes_of(&transactions, &wanted));
    place.clean(&log).await;
}

fn wide_row() -> rows::change::Tuple {
    use rows::change::{Tuple, Value};
    Tuple::of([Value::Text(b"2"), Value::Text(b"wide"), Value::Text(b"7")].into_iter())
}

async fn another_timeline_is_refused(place: Place) {
    let log = place.ready().await;
    let mut history = History::new(Dice::new(8));
    let committed = history.commit(Vec::new());
    let mut writer = log.writer().await.unwrap();
    append(&mut writer, flush(std::slice::from_ref(&committed))).await;
    let next = history.commit(vec![(0, Operation::Insert { new: row(1, "x") })]);
    let mut promoted = flush(std::slice::from_ref(&next));
    promoted.progress = promoted.progress.map(|mut progress: Progress| {
        progress.timeline.timeline = 2;
        progress
    });
    let refused = writer.append(promoted).await;
    assert!(matches!(&refused, Err(LogError::Refused(finding)) if finding.code == Code::LogOtherTimeline));
    assert_eq!(log.end().await.unwrap().unwrap().end, committed.end);
    place.clean(&log).await;
}

async fn the_newest_changes_are_shown(place: Place) {
    let log = place.ready().await;
    let mut history = History::new(Dice::new(9));
    let mut writer = log.writer().await.unwrap();
    assert!(log.recent(&tables(&[0, 1]), 5).await.unwrap().is_empty());
    for id in 0..20 {
        let operations = vec![
            (0, Operation::Insert { new: row(id, "zero") }),
            (1, Operation::Insert { new: row(id, "one") }),
            (2, Operation::Delete { old: key_row(id) }),
        ];
        let committed = history.commit(operations);
        append(&mut writer, flush(std::slice::from_ref(&committed))).await;
    }
    let newest = log.recent(&tables(&[0, 2]), 5).await.unwrap();
    let seen: Vec<_> = newest.iter().map(|change| change.relation.table.name.as_str()).collect();
    assert_eq!(seen, ["t2", "t0", "t2", "t0", "t2"]);
    assert_eq!(newest[3].operation, Operation::Insert { new: row(19, "zero") });
    assert_eq!(newest[4].operation, Operation::Delete { old: key_row(19) });
    assert!(newest.is_sorted_by_key(|change| change.position));
    // Another session's changes come after those, and what it repeats comes once.
    let mut writer = log.writer().await.unwrap();
    let last = history.commit(vec![(1, Operation::Insert { new: row(20, "one") })]);
    let cut = Flush { changes: last.changes.clone(), progress: None };
    append(&mut writer, cut).await;
    let mut writer = log.writer().await.unwrap();
    append(&mut writer, flush(std::slice::from_ref(&last))).await;
    let all = log.recent(&tables(&[1]), 1000).await.unwrap();
    assert_eq!((all.len(), all.last()), (21, last.changes.last()));
    place.clean(&log).await;
}

async fn a_destroyed_log_is_another_one(place: Place) {
    let log = place.ready().await;
    let before = log.id();
    let mut history = History::new(Dice::new(10));
    let mut writer = log.writer().await.unwrap();
    let committed = history.commit(vec![(0, Operation::Insert { new: row(1, "x") })]);
    append(&mut writer, flush(std::slice::from_ref(&committed))).await;
    let cursor = log.end_cursor().await.unwrap();
    place.clean(&log).await;
    assert_ne!(log.id(), before);
    let refused = log.reader(tables(&[0]), &cursor).await;
    assert!(matches!(refused, Err(LogError::Trimmed)), "{refused:?}");
    // The slot is where it was; the new log begins with what comes next.
    drop((log, writer));
    let log = place.reopen().await;
    log.prepare(4 << 20, &timeline()).await.unwrap();
    assert_eq!(log.end().await.unwrap(), None);
    let start = log.end_cursor().await.unwrap();
    let next = history.commit(vec![(0, Operation::Insert { new: row(2, "y") })]);
    let mut writer = log.writer().await.unwrap();
    append(&mut writer, flush(std::slice::from_ref(&next))).await;
    Watcher::at_the_end_of(&[next], &log, &tables(&[0]), &start).await;
    place.clean(&log).await;
}

async fn a_full_log_says_so_and_goes_on_after_a_trim(place: Place) {
    let bytes_max = 40 << 20;
    let place = place.of(bytes_max);
    let (log, start, mut history) = place.begun(Dice::new(12)).await;
    let note = "n".repeat(100_000);
    let mut writer = log.writer().await.unwrap();
    let mut kept = Vec::new();
    let (error, refused) = loop {
        let committed = history.commit(vec![(0, Operation::Insert { new: row(1, &note) })]);
        match writer.append(flush(std::slice::from_ref(&committed))).await {
            Ok(_) => kept.push(committed),
            Err(error) => break (error, committed),
        }
        assert!(kept.len() < 800, "it is never full");
    };
    assert!(matches!(error, LogError::Full { bytes } if bytes <= bytes_max), "{error}");
    assert!(kept.len() > 250, "full after {}", kept.len());
    // The session is over: what was refused would be missing before what comes next.
    assert!(writer.append(flush(std::slice::from_ref(&refused))).await.is_err());
    let mut watcher = Watcher::at_the_end_of(&kept, &log, &tables(&[0]), &start).await;
    log.trim(&watcher.cursor).await.unwrap();
    assert!(log.bytes() < bytes_max / 2, "{} bytes are left", log.bytes());
    let mut writer = log.writer().await.unwrap();
    append(&mut writer, flush(std::slice::from_ref(&refused))).await;
    watcher.until(refused.end).await;
    assert_eq!(watcher.changes.len(), kept.len() + 1);
    place.clean(&log).await;
}
