//! What the operating system says of this process. Linux only; elsewhere the series are absent.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

/// This process, since when.
pub(crate) struct Process {
    started: SystemTime,
}

impl Default for Process {
    fn default() -> Self {
        Process { started: SystemTime::now() }
    }
}

impl Process {
    /// Returns the seconds from the epoch to when this process began to monitor itself.
    pub(crate) fn start_seconds(&self) -> f64 {
        self.started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
    }

    /// Returns the memory of this process that is in RAM.
    pub(crate) fn resident_bytes(&self) -> Option<u64> {
        resident_bytes(&fs::read_to_string("/proc/self/status").ok()?)
    }

    /// Returns the processor time that all threads took so far.
    pub(crate) fn cpu_seconds(&self) -> Option<f64> {
        cpu_seconds(&fs::read_to_string("/proc/self/stat").ok()?)
    }

    /// Returns the number of open files and sockets.
    pub(crate) fn open_files(&self) -> Option<usize> {
        Some(fs::read_dir("/proc/self/fd").ok()?.count())
    }
}

fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    // The second field is the command in brackets and may hold spaces; count from its end.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    // Linux reports in units of USER_HZ, which is 100 on every architecture that Rust's tier 1 and 2
    // hold.
    Some((user + system) as f64 / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_writes_is_read() {
        assert_eq!(resident_bytes("Name:\tx\nVmRSS:\t   12 kB\n"), Some(12 * 1024));
        assert_eq!(resident_bytes("Name:\tx\n"), None);
        let stat = "7 (a ) b) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(cpu_seconds("nonsense"), None);
    }
}
