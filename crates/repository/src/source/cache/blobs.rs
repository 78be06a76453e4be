//! One content, one file: versions that hold the same bytes share them through hard links.
//!
//! Invariant: a version owns its files. A blob is one more link to them, which later versions of
//! equal content take up; where links cannot be made each version simply has its own file. A blob is
//! compared with its name before it is shared.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::record::{CachedFile, RECORD_FILE, Record, digest_of};
use super::{Cache, sync_folder};

impl Cache {
    pub(super) fn blobs(&self) -> PathBuf {
        self.folder.join("blobs").join("sha256")
    }

    pub(super) fn blob(&self, digest: &str) -> PathBuf {
        self.blobs().join(digest.get(..2).unwrap_or_default()).join(digest)
    }

    /// Makes a version's files and the blobs of equal content one, where links can be made.
    pub(super) fn share_blobs(&self, folder: &Path, files: &[CachedFile]) -> io::Result<()> {
        let links = self.process.folder("links")?;
        for (number, file) in files.iter().enumerate() {
            let (path, blob) = (folder.join(&file.path), self.blob(&file.sha256));
            protect(&path)?;
            let Some(parent) = blob.parent() else { continue };
            fs::create_dir_all(parent)?;
            let link = links.path.join(number.to_string());
            match fs::hard_link(&path, &blob) {
                Ok(()) => sync_folder(parent)?,
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    tracing::debug!(%error, blob = %blob.display(), "content is not shared");
                }
                Err(_) if digest_of(&blob).is_ok_and(|digest| digest == file.sha256) => {
                    // The blob may go at this moment; then the version keeps its own file.
                    if fs::hard_link(&blob, &link).is_ok() {
                        fs::rename(&link, &path)?;
                    }
                }
                Err(_) => {
                    tracing::warn!(blob = %blob.display(), "a damaged blob is replaced");
                    fs::hard_link(&path, &link)?;
                    fs::rename(&link, &blob)?;
                }
            }
        }
        Ok(())
    }
}

/// Nobody ought to write to a file that several versions share.
fn protect(path: &Path) -> io::Result<()> {
    let mut permissions = fs::metadata(path)?.permissions();
    permissions.set_readonly(true);
    fs::set_permissions(path, permissions)
}

/// Everything that a cache keeps.
pub(super) struct Kept {
    versions: BTreeMap<String, KeptVersion>,
    /// How many versions hold a content, and its size.
    contents: HashMap<String, (usize, u64)>,
}

struct KeptVersion {
    folder: PathBuf,
    used: SystemTime,
    files: Vec<CachedFile>,
}

impl Kept {
    pub(super) fn read(versions: &Path) -> io::Result<Self> {
        let mut kept = Kept { versions: BTreeMap::new(), contents: HashMap::new() };
        for entry in fs::read_dir(versions)? {
            let entry = entry?;
            let folder = entry.path();
            let used = fs::metadata(folder.join(RECORD_FILE)).and_then(|record| record.modified());
            // Without a record it is nobody's: it counts nothing and is the first to go.
            let files = Record::read(&folder).map(|record| record.files).unwrap_or_default();
            for file in &files {
                kept.contents.entry(file.sha256.clone()).or_insert((0, file.bytes)).0 += 1;
            }
            let used = used.unwrap_or(SystemTime::UNIX_EPOCH);
            let key = entry.file_name().to_string_lossy().into_owned();
            kept.versions.insert(key, KeptVersion { folder, used, files });
        }
        Ok(kept)
    }

    /// Returns the bytes of all contents, each counted once.
    pub(super) fn bytes(&self) -> u64 {
        self.contents.values().map(|(_, bytes)| bytes).sum()
    }

    pub(super) fn oldest_first(&self) -> Vec<(String, PathBuf)> {
        let mut all: Vec<_> = self.versions.iter().collect();
        all.sort_by_key(|(_, version)| version.used);
        all.into_iter().map(|(key, version)| (key.clone(), version.folder.clone())).collect()
    }

    /// Forgets a version and returns the digests of the contents that no other version holds.
    pub(super) fn remove(&mut self, key: &str) -> Vec<String> {
        let files = self.versions.remove(key).map(|version| version.files).unwrap_or_default();
        let mut orphans = Vec::new();
        for file in files {
            let Some(content) = self.contents.get_mut(&file.sha256) else { continue };
            content.0 -= 1;
            if content.0 == 0 {
                self.contents.remove(&file.sha256);
                orphans.push(file.sha256);
            }
        }
        orphans
    }
}

/// Removes a file that may be gone already.
pub(in crate::source) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
