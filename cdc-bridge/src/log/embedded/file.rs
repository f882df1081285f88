//! The file of the embedded log: opened or made, and its troubles in words.

use crate::log::contract::LogError;
use crate::log::extent::Extent;
use migrations::code::Code;
use migrations::finding::Finding;
use redb::{Database, ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

const VERSION: u32 = 1;
/// What redb may cache. The log is read once and in order, so a larger cache gains nothing.
const CACHE_BYTES: usize = 16 << 20;

pub(super) const FLUSHES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("flushes");
pub(super) const RELATIONS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("relations");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const STATE: &str = "state";
const FIRST_KEY: u64 = 1;

/// What the log says about itself, kept beside the values in the same transactions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) version: u32,
    /// The plan and the source database that it was made for, for people who find the file.
    pub(crate) plan: String,
    pub(crate) database: String,
    #[serde(flatten)]
    pub(crate) extent: Extent,
}

#[derive(Debug)]
pub(super) struct Open {
    pub(crate) database: Database,
    pub(crate) inode: u64,
}

/// Why an operation on the store did not succeed.
pub(super) enum Failure {
    Redb(redb::Error),
    Said(LogError),
}

impl<E: Into<redb::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure::Redb(error.into())
    }
}

pub(super) const HINT_DISK: &str =
    "free disk space or repair the disk; nothing was confirmed, and the bridge goes on by itself";

/// Opens or makes the file; how far the log in it is.
pub(super) fn open(path: &Path, names: &(String, String)) -> Result<(Open, Extent), LogError> {
    let io = |error: std::io::Error| unavailable(path, &error.to_string(), HINT_DISK);
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(io)?;
    let database = redb::Builder::new()
        .set_cache_size(CACHE_BYTES)
        .create(path)
        .map_err(|error| said(path, &error.into()))?;
    // A new file is only found again after a crash when its folder is on disk, too.
    std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)?;
    let state = first_state(&database, names).map_err(|failure| match failure {
        Failure::Redb(error) => said(path, &error),
        Failure::Said(error) => error,
    })?;
    if state.version != VERSION {
        let why = format!("it is of version {}, this strangler reads version {VERSION}", state.version);
        return Err(LogError::Damaged { place: path.display().to_string(), why });
    }
    let inode = std::fs::metadata(path).map_err(io)?.ino();
    Ok((Open { database, inode }, state.extent))
}

/// The state that a file has, or a new log's where it has none.
fn first_state(database: &Database, names: &(String, String)) -> Result<State, Failure> {
    let transaction = database.begin_write()?;
    let found = {
        let meta = transaction.open_table(META)?;
        let found = meta.get(STATE)?;
        found.map(|json| serde_json::from_slice::<State>(json.value()))
    };
    match found {
        Some(Ok(state)) => Ok(state),
        Some(Err(error)) => Err(Failure::Redb(redb::Error::Corrupted(error.to_string()))),
        None => {
            let extent = Extent::new(FIRST_KEY);
            transaction.open_table(FLUSHES)?;
            transaction.open_table(RELATIONS)?;
            let state = put_state(&transaction, names, extent)?;
            transaction.commit()?;
            Ok(state)
        }
    }
}

/// An error of redb's, and what to do about it.
pub(super) fn said(path: &Path, error: &redb::Error) -> LogError {
    match error {
        redb::Error::DatabaseAlreadyOpen => {
            let hint = "one bridge writes a log: stop the other one with `strangler down`, or give this one its own folder";
            unavailable(path, "another bridge uses it", hint)
        }
        redb::Error::Corrupted(_)
        | redb::Error::UpgradeRequired(_)
        | redb::Error::TableTypeMismatch { .. } => {
            LogError::Damaged { place: path.display().to_string(), why: error.to_string() }
        }
        redb::Error::Io(io) if io.kind() == std::io::ErrorKind::InvalidData => {
            LogError::Damaged { place: path.display().to_string(), why: error.to_string() }
        }
        redb::Error::Io(io) if is_full(io) => {
            let message = format!("the log {} cannot grow: {io}", path.display());
            let hint =
                "free disk space; capture then goes on by itself, and until then the source keeps its WAL";
            LogError::Refused(Finding::error(Code::LogDiskFull, message, hint))
        }
        _ => unavailable(path, &error.to_string(), HINT_DISK),
    }
}

fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

pub(super) fn unavailable(path: &Path, why: &str, hint: &str) -> LogError {
    LogError::Unavailable { place: path.display().to_string(), why: why.to_owned(), hint: hint.to_owned() }
}

pub(super) fn put_state(
    transaction: &WriteTransaction,
    (plan, database): &(String, String),
    extent: Extent,
) -> Result<State, Failure> {
    let state = State { version: VERSION, plan: plan.clone(), database: database.clone(), extent };
    let json = serde_json::to_vec(&state)
        .map_err(|error| Failure::Redb(redb::Error::Corrupted(error.to_string())))?;
    transaction.open_table(META)?.insert(STATE, json.as_slice())?;
    Ok(state)
}
