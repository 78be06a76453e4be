//! What a cached version consists of, and whether it still does.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Component, Path};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::hexadecimal;

/// The name of a version's record, beside its files.
pub(super) const RECORD_FILE: &str = "manifest.json";

/// One file of a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::source) struct CachedFile {
    /// Its path below the version's files, with slashes.
    pub(in crate::source) path: String,
    /// Its size.
    pub(in crate::source) bytes: u64,
    /// The digest of its content, in hexadecimal.
    pub(in crate::source) sha256: String,
}

impl CachedFile {
    fn is_plain(&self) -> bool {
        let is_digest = self.sha256.len() == 64
            && self.sha256.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let mut parts = Path::new(&self.path).components();
        is_digest && parts.all(|part| matches!(part, Component::Normal(_)))
    }
}

/// A version's `manifest.json`.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) identity: String,
    pub(super) files: Vec<CachedFile>,
}

/// How a file looked from outside. A change of its content shows in it, short of a failing disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    bytes: u64,
    changed: Option<SystemTime>,
    inode: u64,
}

impl Record {
    pub(super) fn read(folder: &Path) -> io::Result<Self> {
        let text = fs::read(folder.join(RECORD_FILE))?;
        let record: Record = serde_json::from_slice(&text).map_err(io::Error::from)?;
        // It names files that are read and removed; what nobody here wrote is not followed.
        match record.files.iter().all(CachedFile::is_plain) {
            true => Ok(record),
            false => Err(damaged(&folder.join(RECORD_FILE))),
        }
    }

    /// Writes the record through to the disk, and the folders' entries with it.
    pub(super) fn write(&self, folder: &Path) -> io::Result<()> {
        let mut file = File::create(folder.join(RECORD_FILE))?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.sync_all()?;
        sync_folders(folder)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Looks at every file and compares its size.
    pub(super) fn stamps(&self, files: &Path) -> io::Result<Vec<Stamp>> {
        let stamp = |file: &CachedFile| {
            let path = files.join(&file.path);
            let metadata = fs::symlink_metadata(&path)?;
            if !metadata.is_file() || metadata.len() != file.bytes {
                return Err(damaged(&path));
            }
            let inode = inode(&metadata);
            Ok(Stamp { bytes: file.bytes, changed: metadata.modified().ok(), inode })
        };
        self.files.iter().map(stamp).collect()
    }

    /// Reads every file and compares its digest.
    pub(super) fn compare_contents(&self, files: &Path) -> io::Result<()> {
        for file in &self.files {
            let path = files.join(&file.path);
            if digest_of(&path)? != file.sha256 {
                return Err(damaged(&path));
            }
        }
        Ok(())
    }
}

/// Reads a file and returns its digest.
pub(super) fn digest_of(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hexadecimal(&digest.finalize())),
            length => digest.update(&buffer[..length]),
        }
    }
}

fn damaged(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{} is damaged", path.display()))
}

fn sync_folders(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_folders(&entry.path())?;
        }
    }
    super::sync_folder(folder)
}

#[cfg(unix)]
fn inode(metadata: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
fn inode(_: &fs::Metadata) -> u64 {
    0
}
