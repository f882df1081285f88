//! The log, kafka.

use super::{Batch, Cursor, Event, Flush, LogError, LogId, Progress};
use migrations::lsn::{Durable, EndLsn};
use migrations::names::{PlanName, TableName};
use migrations::plan::LogChoice;
use std::collections::BTreeSet;

/// The log.
#[derive(Debug, Clone)]
pub struct KafkaLog;
/// Its writer.
#[derive(Debug)]
pub struct KafkaWriter;
/// Its reader.
#[derive(Debug)]
pub struct KafkaReader;

fn missing(place: String) -> LogError {
    LogError::Unavailable { place, why: "not built yet".into(), hint: "wait".into() }
}

#[allow(missing_docs, clippy::unused_async)]
impl KafkaLog {
    pub async fn open(_choice: &LogChoice, _plan: &PlanName, _database: &str) -> Result<Self, LogError> {
        Err(missing("Kafka".to_owned()))
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
    pub async fn writer(&self) -> Result<KafkaWriter, LogError> {
        Err(missing(String::new()))
    }
    pub async fn end_cursor(&self) -> Result<Cursor, LogError> {
        Err(missing(String::new()))
    }
    pub async fn reader(&self, _: BTreeSet<TableName>, _: &Cursor) -> Result<KafkaReader, LogError> {
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
impl KafkaWriter {
    pub async fn append(&mut self, _: Flush) -> Result<Option<Durable<EndLsn>>, LogError> {
        Err(missing(String::new()))
    }
}

#[allow(missing_docs, clippy::unused_async)]
impl KafkaReader {
    pub async fn next(&mut self) -> Result<Batch, LogError> {
        Err(missing(String::new()))
    }
}
