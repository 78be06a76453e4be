//! The numbers of the Open Inference Protocol's statistics extension.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::histogram::nanoseconds;

/// One duration counter of the statistics extension.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct DurationCount {
    /// How many.
    pub count: u64,
    /// Their sum in nanoseconds.
    pub ns: u64,
}

/// The numbers of the OIP statistics extension for one model version.
#[derive(Clone, Debug, Default)]
pub struct ModelStatistics {
    /// Milliseconds since the epoch of the last finished request, 0 for none.
    pub last_inference_ms: u64,
    /// Rows answered.
    pub inference_count: u64,
    /// Engine runs.
    pub execution_count: u64,
    /// Requests answered.
    pub success: DurationCount,
    /// Requests failed.
    pub fail: DurationCount,
    /// Time in the queue.
    pub queue: DurationCount,
    /// Time assembling.
    pub compute_input: DurationCount,
    /// Time computing.
    pub compute_infer: DurationCount,
    /// Time splitting.
    pub compute_output: DurationCount,
    /// Engine runs by number of rows, ascending. Above 256 rows, runs are counted under
    /// the next power of two.
    pub batches: Vec<(u64, DurationCount)>,
}

/// Batches of up to this many rows are counted each under its own size.
pub(crate) const EXACT_SIZES: usize = 256;

/// The powers of two above [`EXACT_SIZES`] that a `usize` can name, and one for what exceeds them.
const POWERS: usize = (usize::BITS - EXACT_SIZES.ilog2()) as usize;

/// Engine runs by number of rows. Its size is fixed: a caller's batch size cannot make it grow.
pub(crate) struct BatchTable(Box<[Cell]>);

#[derive(Default)]
struct Cell {
    count: AtomicU64,
    ns: AtomicU64,
}

impl Default for BatchTable {
    fn default() -> Self {
        BatchTable((0..EXACT_SIZES + POWERS).map(|_| Cell::default()).collect())
    }
}

impl BatchTable {
    /// Counts one engine run of `rows`. A run without rows counts as one of one row, since models
    /// without a batch dimension report so too.
    pub(crate) fn record(&self, rows: usize, compute: Duration) {
        let cell = &self.0[slot(rows.max(1))];
        cell.count.fetch_add(1, Ordering::Relaxed);
        cell.ns.fetch_add(nanoseconds(compute), Ordering::Relaxed);
    }

    /// Returns the sizes that occurred, ascending.
    pub(crate) fn read(&self) -> Vec<(u64, DurationCount)> {
        let read = |(slot, cell): (usize, &Cell)| {
            let count = cell.count.load(Ordering::Relaxed);
            let ns = cell.ns.load(Ordering::Relaxed);
            (count > 0).then(|| (size(slot), DurationCount { count, ns }))
        };
        self.0.iter().enumerate().filter_map(read).collect()
    }
}

/// Returns where a batch of `rows >= 1` is counted.
fn slot(rows: usize) -> usize {
    if rows <= EXACT_SIZES {
        rows - 1
    } else {
        // 257..=512 is the first power, 513..=1024 the second.
        EXACT_SIZES + ((rows - 1).ilog2() - EXACT_SIZES.ilog2()) as usize
    }
}

/// Returns the number of rows that a slot stands for.
fn size(slot: usize) -> u64 {
    if slot < EXACT_SIZES {
        slot as u64 + 1
    } else {
        let power = (slot - EXACT_SIZES) as u32;
        1_u64.checked_shl(EXACT_SIZES.ilog2() + power + 1).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_rows_has_a_place() {
        for (rows, counted_as) in
            [(0, 1), (1, 1), (256, 256), (257, 512), (512, 512), (513, 1024), (4096, 4096)]
        {
            let table = BatchTable::default();
            table.record(rows, Duration::from_nanos(5));
            let expected = DurationCount { count: 1, ns: 5 };
            assert_eq!(table.read(), [(counted_as, expected)], "{rows} rows");
        }
        let table = BatchTable::default();
        table.record(usize::MAX, Duration::ZERO);
        assert_eq!(table.read()[0].0, u64::MAX);
    }
}
