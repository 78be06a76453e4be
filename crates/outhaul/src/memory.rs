//! What a loaded model holds in memory: measured, never guessed from the size of its file.
//!
//! Two ways to measure. **By thread**: the allocator counts for each thread what it has allocated and
//! freed, so the difference over a load, read on the thread that loads, is what that load left,
//! exactly and whatever other loads and requests do meanwhile. What an engine's own threads allocate
//! and what stays in mapped files it says itself (`LoadedModel::bytes_elsewhere`). **By process**, where
//! a program brings an allocator that does not count so: how much the process has grown, which is
//! coarse. Two loads at once count each other, memory that is used again counts as nothing, and what
//! loading freed and the allocator kept counts as held.
//!
//! Not counted: what a version's instance threads need (about 40 KiB each, most of it the allocator's
//! cache), and what later requests add beyond the warm-up, which is why warming up belongs between
//! [`MemoryMeter::begin`] and [`Mark::held`]. Measured in `docs/decisions/006-memory-measured-and-returned.md`.

use std::fs;

/// Reads what the calling thread has allocated and not freed.
type ThreadBytes = fn() -> i64;

/// Measures what loading a model leaves in memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryMeter {
    thread_bytes: Option<ThreadBytes>,
}

/// What a thread, or the process, held when a load began.
#[derive(Debug)]
pub(crate) struct Mark {
    meter: MemoryMeter,
    before: i64,
    elsewhere: i64,
}

impl MemoryMeter {
    /// Measures by thread. `thread_bytes` reads what the calling thread has allocated and not freed,
    /// by C and C++ too: ONNX Runtime allocates with them.
    pub fn by_thread(thread_bytes: ThreadBytes) -> Self {
        MemoryMeter { thread_bytes: Some(thread_bytes) }
    }

    /// Measures by how much the process grows: coarse, for programs whose allocator does not count by
    /// thread. Nothing is measured where there is no `/proc`.
    pub fn by_process() -> Self {
        MemoryMeter { thread_bytes: None }
    }

    /// Returns how engines are to read what a thread holds, for
    /// [`LoadOptions`](outhaul_engine::LoadOptions).
    pub(crate) fn thread_bytes(&self) -> Option<ThreadBytes> {
        self.thread_bytes
    }

    /// Begins to measure. The load must happen on this thread.
    pub(crate) fn begin(&self) -> Mark {
        Mark { meter: *self, before: self.read(), elsewhere: 0 }
    }

    fn read(&self) -> i64 {
        match self.thread_bytes {
            Some(read) => read(),
            None => resident_bytes().unwrap_or(0),
        }
    }
}

impl Mark {
    /// Adds what the engine says that loading left elsewhere, its model's `bytes_elsewhere`.
    pub(crate) fn add(&mut self, elsewhere: i64) {
        // What the process has grown by includes what other threads have allocated.
        if self.meter.thread_bytes.is_some() {
            self.elsewhere += elsewhere;
        }
    }

    /// Returns what has been kept since. Call it on the thread that began, when everything that the
    /// load needed only for itself is dropped.
    pub(crate) fn held(&self) -> u64 {
        let kept = self.meter.read().saturating_sub(self.before);
        u64::try_from(kept.saturating_add(self.elsewhere)).unwrap_or(0)
    }
}

/// Returns the memory of this process that is in RAM.
fn resident_bytes() -> Option<i64> {
    resident_in(&fs::read_to_string("/proc/self/status").ok()?)
}

fn resident_in(status: &str) -> Option<i64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        static HELD: Cell<i64> = const { Cell::new(0) };
    }

    fn allocate(bytes: i64) {
        HELD.set(HELD.get() + bytes);
    }

    #[test]
    fn a_load_counts_what_its_own_thread_and_its_engine_kept() {
        struct Case {
            allocated: i64,
            elsewhere: i64,
            held: u64,
        }
        let cases = [
            Case { allocated: 100, elsewhere: 0, held: 100 },
            Case { allocated: 100, elsewhere: 40, held: 140 },
            // The engine's thread allocated what this one freed.
            Case { allocated: -30, elsewhere: 40, held: 10 },
            Case { allocated: 100, elsewhere: -40, held: 60 },
            Case { allocated: -30, elsewhere: 0, held: 0 },
        ];
        let meter = MemoryMeter::by_thread(|| HELD.get());
        for Case { allocated, elsewhere, held } in cases {
            allocate(1_000);
            let mut mark = meter.begin();
            allocate(allocated);
            mark.add(elsewhere);
            std::thread::spawn(|| allocate(5_000)).join().unwrap();
            assert_eq!(mark.held(), held, "{allocated} and {elsewhere}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_process_is_seen_to_grow() {
        let mut mark = MemoryMeter::by_process().begin();
        mark.add(1 << 40);
        // Written to, so that it is in RAM; far more than other tests free meanwhile.
        let grown = vec![1_u8; 256 << 20];
        let held = mark.held();
        assert!((128 << 20..1 << 40).contains(&held), "{held}");
        assert_eq!(grown[grown.len() / 2], 1);
    }

    #[test]
    fn what_the_kernel_writes_is_read() {
        assert_eq!(resident_in("Name:\tx\nVmRSS:\t   12 kB\n"), Some(12 * 1024));
        assert_eq!(resident_in("Name:\tx\n"), None);
    }
}
