//! A source database: its slot, its stream.
