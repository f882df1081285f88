//! What only the embedded log does: it is capped and trimmed, belongs to one process, and survives its own death.

use crate::history::{Committed, History, flush, row, table, tables};
use crate::place::{Place, Watcher};
use cdc_bridge::log::{Log, LogError, Writer};
use lab::Dice;
use migrations::code::Code;
use migrations::lsn::EndLsn;
use migrations::sql::Database;
use rows::change::Operation;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Set for the child processes that these tests start of themselves: the folder of their log.
const CHILD: &str = "STRANGLER_TEST_LOG_CHILD";

fn insert(history: &mut History, id: u64, note: &str) -> Committed {
    history.commit(vec![(0, Operation::Insert { new: row(id, note) })])
}

async fn append(writer: &mut Writer, committed: &Committed) -> Result<(), LogError> {
    writer.append(flush(std::slice::from_ref(committed))).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_trimmed_is_not_read_and_its_space_is_used_again() {
    let place = Place::embedded().of(64 << 20);
    let log = place.open().await;
    let start = log.end_cursor().await.unwrap();
    let mut history = History::new(Dice::new(11));
    let note = "n".repeat(100_000);
    let mut writer = log.writer().await.unwrap();
    let mut largest = 0;
    for id in 0..2000 {
        append(&mut writer, &insert(&mut history, id, &note)).await.unwrap();
        if id % 50 == 49 {
            log.trim(&log.end_cursor().await.unwrap()).await.unwrap();
            assert_eq!(log.bytes(), 0);
        }
        largest = largest.max(file_len(&place));
    }
    // 200 MB went through; what 50 of them take stays, with redb's copies.
    assert!(largest < 40 << 20, "the file grew to {largest} bytes");
    assert!(matches!(log.reader(tables(&[0]), &start).await, Err(LogError::Trimmed)));
    log.trim(&start).await.unwrap();
    let mut watcher = Watcher::new(&log, &tables(&[0]), &log.end_cursor().await.unwrap()).await;
    let last = insert(&mut history, 2000, "last");
    append(&mut writer, &last).await.unwrap();
    watcher.until(last.end).await;
    assert_eq!(watcher.changes, last.changes);
}

fn file_len(place: &Place) -> u64 {
    std::fs::metadata(place.folder.path().join("log.redb")).unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bridge_uses_a_log() {
    let place = Place::embedded();
    let log = place.open().await;
    let second = place.try_open().await.unwrap_err().to_string();
    assert!(second.contains("another bridge uses it"), "{second}");
    drop(log);
    place.reopen().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_file_is_another_log() {
    let place = Place::embedded();
    let log = place.open().await;
    let mut history = History::new(Dice::new(13));
    let mut writer = log.writer().await.unwrap();
    append(&mut writer, &insert(&mut history, 1, "x")).await.unwrap();
    let (id, cursor) = (log.id(), log.end_cursor().await.unwrap());
    std::fs::remove_file(place.folder.path().join("log.redb")).unwrap();
    // What would be written into a deleted file is never confirmed.
    let refused = append(&mut writer, &insert(&mut history, 2, "y")).await.unwrap_err().to_string();
    assert!(refused.contains("was deleted"), "{refused}");
    drop((log, writer));
    let log = place.reopen().await;
    assert_ne!(log.id(), id);
    assert_eq!(log.end().await.unwrap(), None);
    assert!(matches!(log.reader(tables(&[0]), &cursor).await, Err(LogError::Trimmed)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_log_is_refused() {
    let place = Place::embedded();
    std::fs::write(place.folder.path().join("log.redb"), vec![7; 10_000]).unwrap();
    let refused = place.try_open().await.unwrap_err();
    assert!(matches!(refused, LogError::Damaged { .. }), "{refused}");
}

/// One test of this binary in a process of its own, with a log in `folder`.
fn child(test: &str, folder: &Path, shell: &str) -> Child {
    let myself = std::env::current_exe().unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{shell} exec \"$0\" \"$@\"")]).arg(myself);
    command.args(["--exact", &format!("embedded_only::{test}"), "--nocapture"]);
    command.env(CHILD, folder).stdout(Stdio::piped()).process_group(0).spawn().unwrap()
}

/// The log that a child is to write, in a child; elsewhere there is nothing to do.
async fn log_of_child() -> Option<Log> {
    let folder = std::env::var_os(CHILD)?;
    let Place { choice, plan, .. } = Place::embedded();
    Some(Log::open(&choice, &plan, &Database::Monolith, "shopdb", Path::new(&folder)).await.unwrap())
}

/// The history that every child writes.
fn history_of_child(count: usize) -> Vec<Committed> {
    let mut history = History::new(Dice::new(99));
    (0..count).map(|_| history.random()).collect()
}

/// Not a test by itself: the process that `killed_at_any_moment…` kills. It says what was made durable.
#[tokio::test(flavor = "multi_thread")]
async fn child_that_appends() {
    let Some(log) = log_of_child().await else { return };
    let transactions = history_of_child(4000);
    let end = log.end().await.unwrap().map_or(EndLsn(0), |progress| progress.end);
    let done = transactions.partition_point(|committed| committed.end <= end);
    let mut writer = log.writer().await.unwrap();
    let mut dice = Dice::new(done as u64);
    let from = done.saturating_sub(3);
    for part in transactions[from..].chunks(7) {
        for flush in crate::history::flushes(&mut dice, part) {
            if let Some(end) = writer.append(flush).await.unwrap() {
                println!("durable {}", end.get());
            }
        }
    }
    println!("done");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_it_has_what_it_promised() {
    let place = Place::embedded();
    let start = place.open().await.end_cursor().await.unwrap();
    let all = tables(&[0, 1, 2]);
    let mut dice = Dice::thrown("killed_at_any_moment_it_has_what_it_promised");
    let transactions = history_of_child(4000);
    let mut promised = EndLsn(0);
    for _ in 0..6 {
        let mut process = child("child_that_appends", place.folder.path(), "");
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut left = 5 + dice.below(150);
        let mut delay = None;
        for line in lines {
            if let Some(end) = line.unwrap().strip_prefix("durable ") {
                promised = promised.max(end.parse().unwrap());
                left = left.saturating_sub(1);
            }
            if left == 0 && delay.is_none() {
                // Somewhere within the next append.
                std::thread::sleep(Duration::from_micros(dice.below(3000)));
                process.kill().unwrap();
                delay = Some(());
            }
        }
        process.wait().unwrap();
        let log = place.reopen().await;
        let end = log.end().await.unwrap().unwrap().end;
        assert!(end >= promised, "{end} is kept of {promised}");
        let count = transactions.partition_point(|committed| committed.end <= end);
        Watcher::at_the_end_of(&transactions[..count], &log, &all, &start).await;
    }
}

/// Not a test by itself: it writes until its disk is full, waits until there is room, and goes on.
#[tokio::test(flavor = "multi_thread")]
async fn child_on_a_small_disk() {
    let Some(log) = log_of_child().await else { return };
    let mut history = History::new(Dice::new(14));
    let note = "n".repeat(100_000);
    let mut writer = log.writer().await.unwrap();
    let mut count = 0;
    let (error, refused) = loop {
        let committed = insert(&mut history, count, &note);
        match append(&mut writer, &committed).await {
            Ok(()) => count += 1,
            Err(error) => break (error, committed),
        }
        assert!(count < 1000, "the disk is never full");
    };
    let LogError::Refused(finding) = &error else { panic!("{error}") };
    assert!(finding.code == Code::LogDiskFull && finding.remedy.contains("free disk space"), "{finding:?}");
    println!("full {count} {error}");
    for _ in 0..600 {
        let again = match log.writer().await {
            Ok(mut writer) => append(&mut writer, &refused).await,
            Err(error) => Err(error),
        };
        if again.is_ok() {
            let mut watcher = Watcher::new(&log, &[table(0)].into(), &log.end_cursor().await.unwrap()).await;
            let last = insert(&mut history, count, "last");
            append(&mut log.writer().await.unwrap(), &last).await.unwrap();
            watcher.until(last.end).await;
            println!("room");
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it does not go on");
}

/// A limit on the size of files stands for a full disk: writes fail, and later they do not.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_said_and_overcome() {
    let place = Place::embedded();
    let start = place.open().await.end_cursor().await.unwrap();
    let mut process =
        child("child_on_a_small_disk", place.folder.path(), "trap '' XFSZ; ulimit -S -f 20000;");
    let mut count = None;
    let mut room = false;
    for line in BufReader::new(process.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if let Some(full) = line.strip_prefix("full ") {
            count = full.split(' ').next().and_then(|count| count.parse::<usize>().ok());
            let limit = ["--fsize=unlimited", "--pid"];
            let pid = process.id().to_string();
            assert!(Command::new("prlimit").args(limit).arg(pid).status().unwrap().success());
        }
        room |= line == "room";
    }
    assert!(process.wait().unwrap().success());
    assert!(room);
    let log = place.reopen().await;
    let mut watcher = Watcher::new(&log, &tables(&[0]), &start).await;
    watcher.until(log.end().await.unwrap().unwrap().end).await;
    assert_eq!(watcher.changes.len(), count.unwrap() + 2);
}
