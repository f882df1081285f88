//! What a first copy reads next: a table cut into ranges of blocks.
//!
//! Pure. Ranges by `ctid` are valid only inside the one snapshot of a copy (PostgreSQL manual, 5.5).

use migrations::names::TableName;

/// Blocks of one chunk: 32 MiB of table, a second or so of copying.
const CHUNK_BLOCKS: u64 = 4096;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Blocks of its main fork; 0 where it has none, as a partitioned table.
    pub(crate) blocks: u64,
    /// Whether its rows must come in one statement.
    pub(crate) is_whole: bool,
}

/// A part of a table, as the condition of a SELECT; empty for all of it.
pub(crate) type Condition = String;

/// Cuts a table. The last chunk has no upper bound, so that rows in blocks added since are in it.
pub(crate) fn chunks(extent: &Extent) -> Vec<Condition> {
    if extent.is_whole || extent.blocks <= CHUNK_BLOCKS {
        return vec![String::new()];
    }
    let starts: Vec<u64> = (0..extent.blocks).step_by(CHUNK_BLOCKS as usize).collect();
    let condition = |(n, start): (usize, &u64)| match starts.get(n + 1) {
        Some(end) => format!(" WHERE ctid >= '({start},0)'::tid AND ctid < '({end},0)'::tid"),
        None => format!(" WHERE ctid >= '({start},0)'::tid"),
    };
    starts.iter().enumerate().map(condition).collect()
}

/// The statement that reads a chunk.
pub(crate) fn read(table: &TableName, columns: &str, condition: &str, is_binary: bool) -> String {
    let format = if is_binary { " (FORMAT binary)" } else { "" };
    format!("COPY (SELECT {columns} FROM {}{condition}) TO STDOUT{format}", table.quoted())
}

/// The statement that writes a chunk.
pub(crate) fn write(table: &str, columns: &str, is_binary: bool) -> String {
    let format = if is_binary { " (FORMAT binary)" } else { "" };
    format!("COPY {table} ({columns}) FROM STDIN{format}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_cover_every_block_once() {
        assert_eq!(chunks(&Extent { blocks: 10_000, is_whole: true }), [""]);
        assert_eq!(chunks(&Extent { blocks: 0, is_whole: false }), [""]);
        let conditions = chunks(&Extent { blocks: CHUNK_BLOCKS * 2 + 1, is_whole: false });
        assert_eq!(
            conditions,
            [
                " WHERE ctid >= '(0,0)'::tid AND ctid < '(4096,0)'::tid",
                " WHERE ctid >= '(4096,0)'::tid AND ctid < '(8192,0)'::tid",
                " WHERE ctid >= '(8192,0)'::tid",
            ]
        );
    }
}
