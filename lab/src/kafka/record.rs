//! The records of a topic, read from the broker's own files.
//!
//! A consumer would do as well, but this needs no client library: a partition is a folder of segments, and a segment is
//! a row of record batches as they travel (Kafka documentation, "Message Format", record batch of magic 2).

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// Up to the first record of a batch.
const BATCH_HEAD: usize = 61;
/// Where the batch's length stands; it counts what follows it.
const LENGTH_AT: usize = 8;
/// Bits of a batch's attributes: the compression, and whether it holds a transaction's end and no records.
const COMPRESSION: i16 = 0b111;
const CONTROL: i16 = 1 << 5;

/// One record of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub partition: u32,
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// The records of all partitions that `data` has of `topic`.
pub(super) fn records(data: &Path, topic: &str) -> Result<Vec<Record>> {
    let mut partitions = Vec::new();
    for entry in fs::read_dir(data)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.rsplit_once('-'));
        if let Some((its, number)) = number
            && its == topic
            && let Ok(partition) = number.parse::<u32>()
        {
            partitions.push((partition, entry.path()));
        }
    }
    partitions.sort();
    let mut records = Vec::new();
    for (partition, folder) in partitions {
        let mut segments = fs::read_dir(&folder)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<Vec<_>, _>>()?;
        segments.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
        // A segment is called by its first offset, in twenty digits.
        segments.sort();
        for segment in segments {
            let bytes = fs::read(&segment)?;
            read(&bytes, partition, &mut records)
                .with_context(|| format!("{} cannot be read", segment.display()))?;
        }
    }
    Ok(records)
}

/// Reads a segment. A batch that is still being written, at the end, is left out.
fn read(mut bytes: &[u8], partition: u32, records: &mut Vec<Record>) -> Result<()> {
    while bytes.len() >= BATCH_HEAD {
        let mut head = Reader(bytes);
        let base = head.int::<8>()?;
        let length = usize::try_from(head.int::<4>()?).context("a batch has a negative length")?;
        let Some(batch) = bytes.get(..LENGTH_AT + 4 + length) else { break };
        // The leader's epoch, the version of the format, the checksum.
        head.skip(4)?;
        let magic = head.int::<1>()?;
        ensure!(magic == 2, "a batch has version {magic} of the format, not 2");
        head.skip(4)?;
        let attributes = i16::try_from(head.int::<2>()?)?;
        bytes = &bytes[batch.len()..];
        if attributes & CONTROL != 0 {
            continue;
        }
        ensure!(
            attributes & COMPRESSION == 0,
            "its records are compressed: let the producer send them without compression"
        );
        let mut rest = Reader(batch.get(BATCH_HEAD - 4..).context("a batch is too short")?);
        for _ in 0..rest.int::<4>()? {
            records.push(record(&mut rest, partition, base)?);
        }
    }
    Ok(())
}

fn record(bytes: &mut Reader<'_>, partition: u32, base: i64) -> Result<Record> {
    bytes.varint()?;
    // Attributes, which have no use yet, and the time.
    bytes.skip(1)?;
    bytes.varint()?;
    let offset = base + bytes.varint()?;
    let (key, value) = (bytes.bytes()?, bytes.bytes()?);
    let mut headers = Vec::new();
    for _ in 0..bytes.varint()? {
        let name = bytes.bytes()?.context("a header has no name")?;
        headers.push((String::from_utf8(name)?, bytes.bytes()?));
    }
    Ok(Record { partition, offset, key, value, headers })
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn skip(&mut self, count: usize) -> Result<&[u8]> {
        let (taken, rest) = self.0.split_at_checked(count).context("it ends too early")?;
        self.0 = rest;
        Ok(taken)
    }

    /// A signed big-endian number of `BYTES` bytes.
    fn int<const BYTES: usize>(&mut self) -> Result<i64> {
        let taken = self.skip(BYTES)?;
        let sign = if taken[0] & 0x80 == 0 { 0 } else { -1 };
        Ok(taken.iter().fold(sign, |number, byte| number << 8 | i64::from(*byte)))
    }

    /// A zigzag number of seven bits a byte.
    fn varint(&mut self) -> Result<i64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.skip(1)?[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed());
            }
        }
        anyhow::bail!("a number has more than ten bytes")
    }

    /// Bytes after their length; none for a length of -1.
    fn bytes(&mut self) -> Result<Option<Vec<u8>>> {
        match self.varint()? {
            -1 => Ok(None),
            length => Ok(Some(self.skip(usize::try_from(length)?)?.to_vec())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A batch of one record at offset 7: key `k`, no value, the headers `h` and `n`, of which `n` is null.
    fn batch(attributes: u8) -> Vec<u8> {
        let record = [0, 0, 0, 2, b'k', 1, 4, 2, b'h', 2, b'v', 2, b'n', 1];
        let mut bytes = vec![0, 0, 0, 0, 0, 0, 0, 7];
        let length = BATCH_HEAD - LENGTH_AT - 4 + 1 + record.len();
        bytes.extend(u32::try_from(length).unwrap().to_be_bytes());
        bytes.extend([0, 0, 0, 0, 2, 0, 0, 0, 0, 0, attributes]);
        bytes.resize(BATCH_HEAD - 4, 0);
        bytes.extend([0, 0, 0, 1, 28]);
        bytes.extend(record);
        bytes
    }

    fn all(bytes: &[u8]) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        read(bytes, 3, &mut records).map(|()| records)
    }

    #[test]
    fn records_are_read_with_their_headers_and_nulls() {
        let record = Record {
            partition: 3,
            offset: 7,
            key: Some(b"k".to_vec()),
            value: None,
            headers: vec![("h".to_owned(), Some(b"v".to_vec())), ("n".to_owned(), None)],
        };
        assert_eq!(all(&[batch(0), batch(0)].concat()).unwrap(), [record.clone(), record]);
    }

    #[test]
    fn an_unfinished_batch_is_left_out_and_what_cannot_be_read_is_an_error() {
        let whole = batch(0);
        for end in 0..whole.len() {
            assert_eq!(all(&whole[..end]).unwrap(), [], "{end}");
        }
        assert_eq!(all(&batch(1 << 5)).unwrap(), []);
        assert!(all(&batch(3)).unwrap_err().to_string().contains("compressed"));
        for (at, byte) in [(16, 1), (BATCH_HEAD - 1, 2), (BATCH_HEAD + 4, 100), (BATCH_HEAD + 6, 99)] {
            let mut broken = batch(0);
            broken[at] = byte;
            assert!(all(&broken).is_err(), "{at}");
        }
    }
}
