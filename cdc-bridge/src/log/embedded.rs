//! The log, embedded.

use super::{Batch, Cursor, Event, Flush, LogError, LogId, Progress};
use migrations::lsn::{Durable, EndLsn};
use migrations::names::{PlanName, TableName};
use std::collections::BTreeSet;
use std::path::Path;

/// The log.
#[derive(Debug, Clone)]
pub struct EmbeddedLog;
/// Its writer.
#[derive(Debug)]
pub struct EmbeddedWriter;
/// Its reader.
#[derive(Debug)]
pub struct EmbeddedReader;

fn missing(place: String) -> LogError {
    LogError::Unavailable { place, why: "not built yet".into(), hint: "wait".into() }
}

#[allow(missing_docs, clippy::unused_async)]
impl EmbeddedLog {
    pub async fn open(
        path: &Path,
        _plan: &PlanName,
        _database: &str,
        _bytes_max: u64,
    ) -> Result<Self, LogError> {
        Err(missing(path.display().to_string()))
    }
    pub fn id(&self) -> LogId {
        LogId(String::new())
    }
    pub fn describe(&self) -> String {
        String::new()
    }
    pub async fn end(&self) -> Result<Option<Progress>, LogError> {
        Ok(None)
    }
    pub async fn prepare(&self, _: &BTreeSet<TableName>, _: u64) -> Result<(), LogError> {
        Ok(())
    }
    pub async fn writer(&self) -> Result<EmbeddedWriter, LogError> {
        Err(missing(String::new()))
    }
    pub async fn end_cursor(&self) -> Result<Cursor, LogError> {
        Err(missing(String::new()))
    }
    pub async fn reader(&self, _: BTreeSet<TableName>, _: &Cursor) -> Result<EmbeddedReader, LogError> {
        Err(missing(String::new()))
    }
    pub async fn recent(&self, _: &BTreeSet<TableName>, _: usize) -> Result<Vec<Event>, LogError> {
        Err(missing(String::new()))
    }
    pub async fn trim(&self, _: &Cursor) -> Result<(), LogError> {
        Ok(())
    }
    pub async fn forget(&self, _: &BTreeSet<TableName>) -> Result<(), LogError> {
        Ok(())
    }
    pub async fn destroy(&self) -> Result<(), LogError> {
        Ok(())
    }
    pub async fn bytes(&self) -> Result<u64, LogError> {
        Ok(0)
    }
}

#[allow(missing_docs, clippy::unused_async)]
impl EmbeddedWriter {
    pub async fn append(&mut self, _: Flush) -> Result<Option<Durable<EndLsn>>, LogError> {
        Err(missing(String::new()))
    }
}

#[allow(missing_docs, clippy::unused_async)]
impl EmbeddedReader {
    pub async fn next(&mut self) -> Result<Batch, LogError> {
        Err(missing(String::new()))
    }
}
