//! Files that were brought here from elsewhere, kept by what they hold.
//!
//! ```text
//! lock                          held for a moment by who puts in or takes out
//! blobs/sha256/ab/abcd...       one link to every distinct content, for versions to share
//! versions/KEY/files/...        one version's files, each a link to a blob where links can be made
//! versions/KEY/manifest.json    their names, sizes and digests; its time is when they were used last
//! tmp/PROCESS/                  what one process works on and what it uses, see `process`
//! ```
//!
//! `KEY` is made of a version's identity. Invariant: a folder in `versions` is whole. It is made
//! under `tmp`, written through to the disk and then renamed, so a process that is killed at any
//! moment leaves the version or leftovers in `tmp`, which the next start removes. What is handed out
//! has been compared with its digests by this process, and a version whose files are damaged is
//! brought here anew.
//!
//! Several processes may share the folder. What is fetched from where is not known here.

mod blobs;
mod process;
mod record;

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use super::SourceError;
use crate::Identity;
pub(super) use blobs::remove_if_there;
use process::ProcessFolder;
pub(super) use process::Work;
pub(super) use record::CachedFile;
use record::{RECORD_FILE, Record, Stamp};

/// Where a version's own files lie in its folder.
const FILES: &str = "files";

/// A folder where fetched versions are kept; see the module.
///
/// What this process fetched is in use, and is not taken out, until it is released.
#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
    capacity: Option<u64>,
    /// About how many bytes are kept. Other processes' doings are seen when they are counted anew.
    kept: AtomicU64,
    process: ProcessFolder,
    /// One lock for each version that is being fetched.
    fetching: Mutex<HashMap<String, Arc<Mutex<()>>>>,
    /// How files looked when they were last compared with their digests.
    verified: Mutex<HashMap<String, Vec<Stamp>>>,
    /// How files are made that content is written to; tests put a full disk here.
    pub(super) create: fn(&Path) -> io::Result<File>,
}

/// A version that is being brought here.
pub(super) struct Filling<'c> {
    /// Where its files belong.
    pub(super) folder: PathBuf,
    cache: &'c Cache,
}

impl Filling<'_> {
    /// Makes the file that a version's file is written to, with the folders above it.
    pub(super) fn create(&self, name: &str) -> io::Result<File> {
        let path = self.folder.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        (self.cache.create)(&path)
    }
}

impl Cache {
    /// Opens a cache, which is made where it is not there, and removes what processes that are gone
    /// left unfinished. With a `capacity` in bytes, versions that nobody uses are taken out, those
    /// that were used longest ago first, before a new one comes in; versions in use stay, even where
    /// they alone are more.
    ///
    /// # Errors
    ///
    /// Fails where the folder cannot be made, written or locked.
    pub fn open(folder: impl AsRef<Path>, capacity: Option<u64>) -> Result<Self, SourceError> {
        let folder = folder.as_ref();
        let process = ProcessFolder::open(folder).map_err(|error| disk(folder, &error))?;
        // Paths in the cache are compared and replaced as text later on.
        let folder = folder.canonicalize().map_err(|error| disk(folder, &error))?;
        let cache = Cache {
            folder,
            capacity,
            kept: AtomicU64::new(0),
            process,
            fetching: Mutex::default(),
            verified: Mutex::default(),
            create: |path| File::options().write(true).create_new(true).open(path),
        };
        for inner in [cache.versions(), cache.blobs()] {
            fs::create_dir_all(&inner).map_err(|error| disk(&inner, &error))?;
        }
        cache.make_room(0)?;
        Ok(cache)
    }

    /// Returns the folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Says that this process no longer uses a version, so that it may be taken out. Files that are
    /// open stay readable.
    pub fn release(&self, identity: &Identity) {
        self.process.release(&key(identity));
    }

    /// Takes out every version but those to keep and those that other processes use.
    ///
    /// # Errors
    ///
    /// Fails where the folder cannot be read or changed.
    pub fn prune(&self, keep: &HashSet<Identity>) -> Result<(), SourceError> {
        let keep: HashSet<String> = keep.iter().map(key).collect();
        for own in self.process.in_use() {
            let is_being_fetched = lock(&self.fetching).contains_key(&own);
            if !keep.contains(&own) && !is_being_fetched {
                self.process.release(&own);
            }
        }
        self.take_out(|_, key| !keep.contains(key))
    }

    /// Returns the folder with a version's files, brought here by `fill` if they are not there or
    /// are damaged. `fill` returns what it wrote. Of several threads that ask for one version at the
    /// same time, one brings it and the others wait.
    pub(super) fn version(
        &self,
        identity: &Identity,
        bytes: u64,
        fill: impl FnOnce(&Filling<'_>) -> Result<Vec<CachedFile>, SourceError>,
    ) -> Result<PathBuf, SourceError> {
        let key = key(identity);
        let turn = Arc::clone(lock(&self.fetching).entry(key.clone()).or_default());
        let result = {
            let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
            self.version_in_turn(&key, identity, bytes, fill)
        };
        if result.is_err() {
            self.process.release(&key);
        }
        let mut fetching = lock(&self.fetching);
        // Those who wait hold it too; the last one removes it.
        if fetching.get(&key).is_some_and(|turn| Arc::strong_count(turn) <= 2) {
            fetching.remove(&key);
        }
        result
    }

    fn version_in_turn(
        &self,
        key: &str,
        identity: &Identity,
        bytes: u64,
        fill: impl FnOnce(&Filling<'_>) -> Result<Vec<CachedFile>, SourceError>,
    ) -> Result<PathBuf, SourceError> {
        let at = self.versions().join(key);
        let failed = |error: io::Error| disk(&at, &error);
        // From here on nobody takes it out.
        self.shared(|| self.process.take(key)).map_err(failed)?;
        if let Some(files) = self.sound(key) {
            return Ok(files);
        }
        self.make_room(bytes)?;
        let work = self.process.folder("version").map_err(failed)?;
        let filling = Filling { folder: work.path.join(FILES), cache: self };
        fs::create_dir_all(&filling.folder).map_err(failed)?;
        let files = fill(&filling)?;
        self.share_blobs(&filling.folder, &files).map_err(failed)?;
        let record = Record { identity: identity.as_str().to_owned(), files };
        record.write(&work.path).map_err(failed)?;
        self.put_in_place(key, &work.path).map_err(failed)?;
        let new = self.kept.fetch_add(record.bytes(), Ordering::Relaxed) + record.bytes();
        tracing::debug!(key, bytes = record.bytes(), kept = new, "version put into the cache");
        self.sound(key).ok_or_else(|| SourceError {
            place: at.display().to_string(),
            reason: "was damaged as soon as it was written".to_owned(),
            passing: true,
        })
    }

    /// Returns the files' folder of a version that is here and whole, and notes that it was used.
    /// What is damaged is moved away.
    fn sound(&self, key: &str) -> Option<PathBuf> {
        let folder = self.versions().join(key);
        let stamps = match self.verify(key, &folder) {
            Ok(stamps) => stamps,
            Err(error) => {
                lock(&self.verified).remove(key);
                if error.kind() != io::ErrorKind::NotFound || folder.exists() {
                    tracing::warn!(%error, "a cached version is damaged and is fetched anew");
                    self.discard(key);
                }
                return None;
            }
        };
        lock(&self.verified).insert(key.to_owned(), stamps);
        // Only the order of eviction depends on it.
        let record = File::options().append(true).open(folder.join(RECORD_FILE));
        let _ = record.and_then(|record| record.set_modified(SystemTime::now()));
        Some(folder.join(FILES))
    }

    /// Compares a version with its record: contents where this process has not done so since the
    /// files changed, else sizes and times.
    fn verify(&self, key: &str, folder: &Path) -> io::Result<Vec<Stamp>> {
        let record = Record::read(folder)?;
        let files = folder.join(FILES);
        let stamps = record.stamps(&files)?;
        let before = lock(&self.verified).get(key).cloned();
        if before.as_ref() != Some(&stamps) {
            record.compare_contents(&files)?;
        }
        Ok(stamps)
    }

    /// Renames a finished version into place. Where another process was first, its version stays.
    fn put_in_place(&self, key: &str, work: &Path) -> io::Result<()> {
        let target = self.versions().join(key);
        self.shared(|| match fs::rename(work, &target) {
            Err(_) if target.join(RECORD_FILE).exists() => Ok(()),
            renamed => renamed,
        })?;
        sync_folder(&self.versions())
    }

    /// Moves a damaged version away, and the blobs that it shares its files with.
    fn discard(&self, key: &str) {
        let folder = self.versions().join(key);
        let digests = Record::read(&folder).map(|record| record.files).unwrap_or_default();
        let removed = self.exclusive(|| {
            let work = self.process.folder("damaged")?;
            fs::rename(&folder, work.path.join(key))?;
            for file in &digests {
                let blob = self.blob(&file.sha256);
                if record::digest_of(&blob).is_ok_and(|digest| digest != file.sha256) {
                    fs::remove_file(&blob)?;
                }
            }
            Ok(())
        });
        if let Err(error) = removed {
            tracing::warn!(folder = %folder.display(), %error, "cannot remove a damaged version");
        }
    }

    /// Takes out what was used longest ago until `coming` more bytes fit.
    fn make_room(&self, coming: u64) -> Result<(), SourceError> {
        let Some(capacity) = self.capacity else { return Ok(()) };
        let fits = |kept: u64| kept.saturating_add(coming) <= capacity;
        if coming > 0 && fits(self.kept.load(Ordering::Relaxed)) {
            return Ok(());
        }
        self.take_out(|kept, _| !fits(kept))
    }

    /// Takes out versions that nobody uses, in the order in which they were used last, where `goes`
    /// says so of the bytes that are kept and the version's key.
    fn take_out(&self, mut goes: impl FnMut(u64, &str) -> bool) -> Result<(), SourceError> {
        let versions = self.versions();
        let taken_out = self.exclusive(|| {
            let used = self.process.used_by_anyone()?;
            let mut kept = blobs::Kept::read(&versions)?;
            let work = self.process.folder("old")?;
            for (key, folder) in kept.oldest_first() {
                if used.contains(&key) || !goes(kept.bytes(), &key) {
                    continue;
                }
                fs::rename(&folder, work.path.join(&key))?;
                lock(&self.verified).remove(&key);
                for digest in kept.remove(&key) {
                    remove_if_there(&self.blob(&digest))?;
                }
            }
            self.kept.store(kept.bytes(), Ordering::Relaxed);
            Ok(work)
        });
        // The lock is free again while the files are deleted.
        taken_out.map(drop).map_err(|error| disk(&versions, &error))
    }

    fn shared<T>(&self, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let file = process::lock_file(&self.folder)?;
        file.lock_shared()?;
        act()
    }

    fn exclusive<T>(&self, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let file = process::lock_file(&self.folder)?;
        file.lock()?;
        act()
    }

    fn versions(&self) -> PathBuf {
        self.folder.join("versions")
    }

    /// Makes a folder for what only this process needs, and only while it runs.
    pub(super) fn work_folder(&self, purpose: &str) -> Result<Work, SourceError> {
        self.process.folder(purpose).map_err(|error| disk(&self.folder, &error))
    }
}

/// Returns the name of a version's folder.
fn key(identity: &Identity) -> String {
    hexadecimal(&Sha256::digest(identity.as_str()))
}

/// Returns bytes as lower-case digits.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Puts a failure of the disk in words. All of them may pass: disks are emptied, permissions mended.
pub(super) fn disk(place: &Path, error: &io::Error) -> SourceError {
    let reason = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            format!("there is no room on the disk: {error}")
        }
        _ => error.to_string(),
    };
    SourceError { place: place.display().to_string(), reason, passing: true }
}

/// Makes a rename in a folder outlast a power failure, where the system can.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// What a thread that panicked left is whole: every change is one call.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
