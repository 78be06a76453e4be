//! What a machine gives to this process: cores, instruction sets, memory and limits.
//!
//! Everything is read from files below a root that tests can set; what cannot be read is left out,
//! never guessed. Both versions of Linux control groups are known. A limit set on a group above ours
//! counts as well, so the tightest one on the way up is told.

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use serde::Serialize;

#[derive(Debug, Default, Serialize)]
pub(super) struct Machine {
    pub(super) system: String,
    pub(super) architecture: &'static str,
    pub(super) processor: Option<String>,
    pub(super) instruction_sets: Vec<&'static str>,
    /// What `instances.count = "auto"` starts from: the least of the three below, at least one.
    pub(super) usable_cores: usize,
    pub(super) online_cores: Option<usize>,
    pub(super) allowed_cores: Option<usize>,
    pub(super) core_limit: Option<CoreLimit>,
    pub(super) memory_total: Option<u64>,
    pub(super) memory_available: Option<u64>,
    pub(super) memory_limit: Option<MemoryLimit>,
    pub(super) open_files: Option<OpenFiles>,
}

#[derive(Debug, PartialEq, Serialize)]
pub(super) struct CoreLimit {
    pub(super) cores: f64,
    pub(super) source: String,
}

#[derive(Debug, PartialEq, Serialize)]
pub(super) struct MemoryLimit {
    pub(super) bytes: u64,
    pub(super) source: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct OpenFiles {
    pub(super) soft: u64,
    pub(super) hard: u64,
}

impl Machine {
    pub(super) fn look(root: &Path) -> Self {
        let read = |path: &str| fs::read_to_string(root.join(path)).ok();
        let processors = read("proc/cpuinfo").unwrap_or_default();
        let memory = read("proc/meminfo").unwrap_or_default();
        let groups = Groups::of(root);
        let release = read("proc/sys/kernel/osrelease");
        let usable = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Machine {
            system: match release {
                Some(release) => format!("{} {}", std::env::consts::OS, release.trim()),
                None => std::env::consts::OS.to_owned(),
            },
            architecture: std::env::consts::ARCH,
            processor: field(&processors, "model name").map(str::to_owned),
            instruction_sets: instruction_sets(),
            usable_cores: usable.get(),
            online_cores: read("sys/devices/system/cpu/online").as_deref().and_then(list_length),
            allowed_cores: read("proc/self/status")
                .as_deref()
                .and_then(|status| field(status, "Cpus_allowed_list"))
                .and_then(list_length),
            core_limit: groups.core_limit(),
            memory_total: field(&memory, "MemTotal").and_then(kibibytes),
            memory_available: field(&memory, "MemAvailable").and_then(kibibytes),
            memory_limit: groups.memory_limit(),
            open_files: read("proc/self/limits").as_deref().and_then(open_files),
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn instruction_sets() -> Vec<&'static str> {
    macro_rules! detected {
        ($($name:tt),*) => {
            [$(($name, std::is_x86_feature_detected!($name))),*]
        };
    }
    let sets = detected!(
        "sse4.2",
        "avx",
        "avx2",
        "fma",
        "f16c",
        "avx512f",
        "avx512bw",
        "avx512vnni",
        "avx512bf16",
        "avxvnni"
    );
    sets.into_iter().filter(|(_, found)| *found).map(|(name, _)| name).collect()
}

#[cfg(target_arch = "aarch64")]
fn instruction_sets() -> Vec<&'static str> {
    macro_rules! detected {
        ($($name:tt),*) => {
            [$(($name, std::arch::is_aarch64_feature_detected!($name))),*]
        };
    }
    let sets = detected!("neon", "fp16", "dotprod", "i8mm", "bf16", "sve", "sve2");
    sets.into_iter().filter(|(_, found)| *found).map(|(name, _)| name).collect()
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn instruction_sets() -> Vec<&'static str> {
    Vec::new()
}

/// The control groups of this process.
#[derive(Debug, Default)]
struct Groups {
    /// Folders of version 2, from ours up.
    unified: Vec<PathBuf>,
    /// Folders of version 1's controllers, from ours up.
    memory: Vec<PathBuf>,
    cpu: Vec<PathBuf>,
}

impl Groups {
    fn of(root: &Path) -> Self {
        let mut groups = Groups::default();
        let lines = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
        for line in lines.lines() {
            let mut fields = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(path)) =
                (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            let mount = root.join("sys/fs/cgroup");
            for controller in controllers.split(',') {
                match controller {
                    "" => groups.unified = upwards(&mount, path),
                    "memory" => groups.memory = upwards(&mount.join("memory"), path),
                    "cpu" => groups.cpu = upwards(&mount.join("cpu"), path),
                    _ => {}
                }
            }
        }
        groups
    }

    fn memory_limit(&self) -> Option<MemoryLimit> {
        // Version 1 writes "no limit" as the largest multiple of a page.
        let real = |bytes: &u64| *bytes < 1 << 60;
        let limits = |folders: &[PathBuf], file: &str| -> Vec<MemoryLimit> {
            let read = |folder: &PathBuf| number(&folder.join(file)).filter(real);
            let limit = |bytes| MemoryLimit { bytes, source: format!("control group {file}") };
            folders.iter().filter_map(read).map(limit).collect()
        };
        let mut all = limits(&self.unified, "memory.max");
        all.extend(limits(&self.memory, "memory.limit_in_bytes"));
        all.into_iter().min_by_key(|limit| limit.bytes)
    }

    fn core_limit(&self) -> Option<CoreLimit> {
        let limit = |file: &str, quota: u64, period: u64| {
            let source = format!("control group {file}");
            (period > 0).then(|| CoreLimit { cores: quota as f64 / period as f64, source })
        };
        let unified = self.unified.iter().filter_map(|folder| {
            let text = fs::read_to_string(folder.join("cpu.max")).ok()?;
            let (quota, period) = text.trim().split_once(' ')?;
            limit("cpu.max", quota.parse().ok()?, period.parse().ok()?)
        });
        let old = self.cpu.iter().filter_map(|folder| {
            let quota = number(&folder.join("cpu.cfs_quota_us"))?;
            limit("cpu.cfs_quota_us", quota, number(&folder.join("cpu.cfs_period_us"))?)
        });
        unified.chain(old).min_by(|left, right| left.cores.total_cmp(&right.cores))
    }
}

/// Returns the folders of a group and of those above it. In a container the path may be the host's,
/// which does not exist here: then the mount itself is our group.
fn upwards(mount: &Path, path: &str) -> Vec<PathBuf> {
    let ours = mount.join(path.trim_start_matches('/'));
    let folders = ours.ancestors().take_while(|folder| folder.starts_with(mount));
    folders.map(Path::to_path_buf).filter(|folder| folder.is_dir()).collect()
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Returns the value of a line `name : value`.
fn field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        (found.trim() == name).then(|| value.trim())
    })
}

/// Reads `1024 kB`.
fn kibibytes(text: &str) -> Option<u64> {
    text.strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Counts the numbers of a list such as `0-3,8`.
fn list_length(text: &str) -> Option<usize> {
    let lengths = text.trim().split(',').map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        last.checked_sub(first)?.checked_add(1)
    });
    lengths.sum()
}

/// Reads the line `Max open files  SOFT  HARD  files`.
fn open_files(limits: &str) -> Option<OpenFiles> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let mut numbers = line.split_whitespace().map(|text| match text {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    });
    Some(OpenFiles { soft: numbers.next()??, hard: numbers.next()?? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> Machine {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Machine::look(root.path())
    }

    #[test]
    fn nothing_readable_is_nothing_known() {
        let machine = machine(&[]);
        assert_eq!(machine.memory_total, None);
        assert_eq!(machine.core_limit, None);
        assert!(machine.usable_cores >= 1);
    }

    #[test]
    fn the_system_files_are_read() {
        let machine = machine(&[
            ("proc/cpuinfo", "processor\t: 0\nmodel name\t: Some CPU @ 2GHz\n"),
            ("proc/meminfo", "MemTotal:       2048 kB\nMemAvailable:   1024 kB\n"),
            ("proc/self/status", "Name:\tx\nCpus_allowed_list:\t0-1,8\n"),
            ("sys/devices/system/cpu/online", "0-15\n"),
            (
                "proc/self/limits",
                "Limit     Soft Limit   Hard Limit   Units\nMax open files  1024  unlimited  files\n",
            ),
        ]);
        assert_eq!(machine.processor.as_deref(), Some("Some CPU @ 2GHz"));
        assert_eq!(machine.memory_total, Some(2 << 20));
        assert_eq!(machine.memory_available, Some(1 << 20));
        assert_eq!(machine.allowed_cores, Some(3));
        assert_eq!(machine.online_cores, Some(16));
        assert_eq!(machine.open_files, Some(OpenFiles { soft: 1024, hard: u64::MAX }));
    }

    #[test]
    fn the_tightest_limit_of_version_2_counts() {
        let machine = machine(&[
            ("proc/self/cgroup", "0::/outer/inner\n"),
            ("sys/fs/cgroup/outer/memory.max", "1073741824\n"),
            ("sys/fs/cgroup/outer/inner/memory.max", "max\n"),
            ("sys/fs/cgroup/outer/cpu.max", "max 100000\n"),
            ("sys/fs/cgroup/outer/inner/cpu.max", "150000 100000\n"),
        ]);
        let memory = machine.memory_limit.unwrap();
        assert_eq!((memory.bytes, memory.source.as_str()), (1 << 30, "control group memory.max"));
        assert_eq!(machine.core_limit.unwrap().cores, 1.5);
    }

    #[test]
    fn the_limits_of_version_1_are_read_in_a_container_too() {
        let machine = machine(&[
            ("proc/self/cgroup", "7:cpu,cpuacct:/docker/abc\n5:memory:/docker/abc\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "536870912\n"),
            ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000\n"),
            ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
        ]);
        assert_eq!(machine.memory_limit.unwrap().bytes, 512 << 20);
        assert_eq!(machine.core_limit.unwrap().cores, 0.5);
    }

    #[test]
    fn no_limit_is_none() {
        let machine = machine(&[
            ("proc/self/cgroup", "5:memory:/\n7:cpu:/\n0::/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n"),
            ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/memory.max", "max\n"),
        ]);
        assert_eq!(machine.memory_limit, None);
        assert_eq!(machine.core_limit, None);
    }
}
