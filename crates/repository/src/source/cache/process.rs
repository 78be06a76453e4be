//! What one process has in a cache: its unfinished work, and which versions it uses.
//!
//! Each process has a folder of its own in `tmp`, and holds a lock on the file `alive` in it. The
//! lock goes with the process however that ends; a folder whose file is not locked is nobody's and
//! is removed by whoever opens the cache next. For each version in use there is an empty file in
//! `uses`. Invariant: folders appear and are removed, and other processes' uses are read, only under
//! the lock of the whole cache.

use std::collections::HashSet;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

const ALIVE: &str = "alive";
const USES: &str = "uses";

/// This process's folder; removed with it.
#[derive(Debug)]
pub(super) struct ProcessFolder {
    path: PathBuf,
    next: AtomicU64,
    /// Open as long as the process uses the cache, for its lock.
    _alive: File,
}

impl ProcessFolder {
    /// Makes the folder, and the cache's where it is not there, and removes those of the dead.
    pub(super) fn open(cache: &Path) -> io::Result<Self> {
        make_private_folder(cache)?;
        let all = cache.join("tmp");
        fs::create_dir_all(&all)?;
        let everybody = lock_file(cache)?;
        everybody.lock()?;
        remove_the_dead(&all)?;
        let path = unique_folder(&all.canonicalize()?)?;
        fs::create_dir(path.join(USES))?;
        let alive = File::create(path.join(ALIVE))?;
        alive.try_lock().map_err(io::Error::from)?;
        Ok(ProcessFolder { path, next: AtomicU64::new(0), _alive: alive })
    }

    /// Makes a folder for unfinished work.
    pub(super) fn folder(&self, purpose: &str) -> io::Result<Work> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.path.join(format!("{purpose}-{number}"));
        fs::create_dir(&path)?;
        Ok(Work { path })
    }

    /// Notes that this process uses a version.
    pub(super) fn take(&self, key: &str) -> io::Result<()> {
        File::create(self.path.join(USES).join(key)).map(drop)
    }

    /// Notes that this process uses a version no longer.
    pub(super) fn release(&self, key: &str) {
        // Not noted, it stays in the cache until the process ends.
        let _ = fs::remove_file(self.path.join(USES).join(key));
    }

    /// Returns the keys of what this process uses.
    pub(super) fn in_use(&self) -> HashSet<String> {
        uses(&self.path)
    }

    /// Returns the keys of what any process uses.
    pub(super) fn used_by_anyone(&self) -> io::Result<HashSet<String>> {
        let all = self.path.parent().unwrap_or(&self.path);
        let mut used = HashSet::new();
        for folder in fs::read_dir(all)? {
            used.extend(uses(&folder?.path()));
        }
        Ok(used)
    }
}

impl Drop for ProcessFolder {
    fn drop(&mut self) {
        // What stays is removed at the next start.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// A folder that goes when this is dropped, unless it was renamed by then.
#[derive(Debug)]
pub(in crate::source) struct Work {
    pub(in crate::source) path: PathBuf,
}

impl Drop for Work {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Opens the file whose lock is the cache's.
pub(super) fn lock_file(cache: &Path) -> io::Result<File> {
    File::options().create(true).truncate(false).write(true).open(cache.join("lock"))
}

fn uses(folder: &Path) -> HashSet<String> {
    let entries = fs::read_dir(folder.join(USES)).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn remove_the_dead(all: &Path) -> io::Result<()> {
    for folder in fs::read_dir(all)? {
        let folder = folder?.path();
        let is_alive = match File::options().write(true).open(folder.join(ALIVE)) {
            Ok(file) => match file.try_lock() {
                Ok(()) => false,
                Err(TryLockError::WouldBlock) => true,
                Err(TryLockError::Error(error)) => return Err(error),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        if !is_alive {
            tracing::debug!(folder = %folder.display(), "removing what a process left");
            fs::remove_dir_all(&folder)?;
        }
    }
    Ok(())
}

/// Process numbers alone recur, above all where each container counts its own.
fn unique_folder(all: &Path) -> io::Result<PathBuf> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut number = now.as_nanos();
    loop {
        let path = all.join(format!("{}-{number:x}", process::id()));
        match fs::create_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            made => return made.map(|()| path),
        }
    }
}

/// Models may be private: nobody else is let in where the folder is made here.
fn make_private_folder(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    builder.create(path)
}
