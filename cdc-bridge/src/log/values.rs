//! What goes into a store, and what comes out of it.

use super::contract::LogError;
use bytes::Bytes;
use rows::change::Relation;
use rows::progress::Progress;
use std::ops::ControlFlow;
use std::sync::Arc;

/// What an append adds, made beforehand.
#[derive(Debug, Default)]
pub(crate) struct Addition {
    /// In order; the last one ends with the progress record, where there is one.
    pub(crate) values: Vec<Bytes>,
    /// Shapes of tables that the store may not have yet.
    pub(crate) shapes: Vec<Shape>,
    pub(crate) progress: Option<Progress>,
}

#[derive(Debug)]
pub(crate) struct Shape {
    pub(crate) hash: u64,
    pub(crate) relation: Arc<Relation>,
    /// The relation's, of which the hash is.
    pub(crate) json: Vec<u8>,
}

/// A value that is read, with a way to look its relations up.
pub(crate) struct Found<'a> {
    pub(crate) key: u64,
    /// What a reader behind it needs is kept from this key on.
    pub(crate) base: u64,
    /// A writer began with it: what is behind the last promise before it does not count.
    pub(crate) is_first: bool,
    pub(crate) bytes: Bytes,
    pub(crate) relation: &'a dyn Fn(u64) -> Result<Relation, LogError>,
}

/// Takes values until it has enough. A value that breaks is read again if the next read begins at it.
pub(crate) type Visit<'a> = &'a mut dyn FnMut(Found<'_>) -> Result<ControlFlow<()>, LogError>;
