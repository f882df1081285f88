//! The records of one change as bytes in one buffer.

use std::ops::Range;

/// One record to produce, or produced.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// The key's JSON; none where the table has no key, and for a truncate.
    pub key: Option<&'a [u8]>,
    /// The envelope's JSON; none for a tombstone.
    pub value: Option<&'a [u8]>,
    encoded: &'a Encoded,
    headers: &'a [(&'static str, Span)],
}

impl<'a> Record<'a> {
    pub fn headers(&self) -> impl ExactSizeIterator<Item = (&'static str, &'a [u8])> + use<'a> {
        let encoded = self.encoded;
        self.headers.iter().map(|(name, span)| (*name, encoded.slice(*span)))
    }

    /// What it takes in a topic, but for a few bytes.
    pub fn bytes(&self) -> usize {
        let headers: usize = self.headers().map(|(name, value)| name.len() + value.len()).sum();
        self.key.map_or(0, <[u8]>::len) + self.value.map_or(0, <[u8]>::len) + headers
    }
}

/// Where bytes lie in the buffer.
pub(super) type Span = (usize, usize);

/// The records of one change, in a buffer that is used again for the next.
#[derive(Debug, Clone, Default)]
pub struct Encoded {
    pub(super) bytes: Vec<u8>,
    pub(super) headers: Vec<(&'static str, Span)>,
    pub(super) records: Vec<Spans>,
}

/// A buffer that one large row made larger than this is not kept for the next.
pub(super) const KEPT_BYTES_MAX: usize = 1 << 20;

#[derive(Debug, Clone)]
pub(super) struct Spans {
    pub(super) key: Option<Span>,
    pub(super) value: Option<Span>,
    pub(super) headers: Range<usize>,
}

impl Encoded {
    pub fn new() -> Self {
        Self::default()
    }

    /// The records in the order in which they must be produced.
    pub fn records(&self) -> impl ExactSizeIterator<Item = Record<'_>> {
        self.records.iter().map(|spans| Record {
            key: spans.key.map(|span| self.slice(span)),
            value: spans.value.map(|span| self.slice(span)),
            encoded: self,
            headers: &self.headers[spans.headers.clone()],
        })
    }

    pub(super) fn slice(&self, (start, end): Span) -> &[u8] {
        &self.bytes[start..end]
    }

    pub(super) fn clear(&mut self) {
        if self.bytes.capacity() > KEPT_BYTES_MAX {
            self.bytes = Vec::new();
        }
        self.bytes.clear();
        self.headers.clear();
        self.records.clear();
    }

    /// Appends what `write` writes and says where it is.
    pub(super) fn span(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Span {
        let start = self.bytes.len();
        write(&mut self.bytes);
        (start, self.bytes.len())
    }
}
