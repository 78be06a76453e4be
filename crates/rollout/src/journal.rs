//! The journal: every change of a route or a roll-out, who made it and why, in the state store.
//!
//! Invariant: an entry is written in the same transaction as the world that it tells of, under a key made of
//! that world's generation. No two worlds of one store have the same generation, so that no entry is
//! written twice or over another.

use outhaul_state::Record;
use serde::{Deserialize, Serialize};

use crate::plan::Entry;

/// Where the journal is.
pub(crate) const SPACE: &str = "outhaul/traffic/journal";

/// Entries that are read at a time.
pub(crate) const PAGE: u32 = 200;

/// An entry as the store holds it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Written {
    /// The replica that wrote it: tells equal entries of two replicas apart.
    replica: String,
    entry: Entry,
}

/// Makes the records of the entries that tell of the world `generation`.
pub(crate) fn records(
    generation: u64,
    entries: &[Entry],
    replica: &str,
) -> Result<Vec<Record>, serde_json::Error> {
    let record = |(number, entry): (usize, &Entry)| {
        let written = Written { replica: replica.to_owned(), entry: entry.clone() };
        Ok(Record {
            space: SPACE.to_owned(),
            // Keys are ordered by their bytes.
            key: format!("{generation:016}-{number:04}"),
            value: serde_json::to_string(&written)?,
        })
    };
    entries.iter().enumerate().map(record).collect()
}

/// Reads an entry. `None`: a newer release wrote it, or somebody else.
pub(crate) fn read(value: &str) -> Option<Entry> {
    let written: Result<Written, _> = serde_json::from_str(value);
    written.ok().map(|written| written.entry)
}
