//! What one folder holds, read with as few calls as the operating system needs.
//!
//! Invariant: the order is that of names, and what is hidden is not listed. Nothing is followed that
//! is not a link; where links lead is not judged here.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};

/// One entry of a folder, before anybody asked where its link leads.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) name: OsString,
    pub(super) path: PathBuf,
    pub(super) kind: Kind,
    /// Of what a link leads to. `None` where it was not asked for, or could not be had.
    metadata: Option<Metadata>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Folder,
    Link,
    /// A file, or something that is neither.
    Other,
}

impl Listed {
    /// Returns size and times, of what a link leads to; `None` where it is gone.
    pub(super) fn metadata(&self) -> Option<Metadata> {
        self.metadata.clone().or_else(|| fs::metadata(&self.path).ok())
    }
}

/// What is asked of each entry beside its name and kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    NoMore,
    Metadata,
}

/// Lists a folder.
pub(super) fn list(folder: &Path, ask: Ask) -> io::Result<Vec<Listed>> {
    let mut listed = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let kind = match entry.file_type() {
            Ok(kind) if kind.is_symlink() => Kind::Link,
            Ok(kind) if kind.is_dir() => Kind::Folder,
            Ok(_) => Kind::Other,
            // It went away in the meantime.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let metadata = match (ask, kind) {
            // By the open folder, which is cheaper than by the path.
            (Ask::Metadata, Kind::Other) => entry.metadata().ok(),
            _ => None,
        };
        listed.push(Listed { name, path: entry.path(), kind, metadata });
    }
    listed.sort_by(|left, right| left.name.cmp(&right.name));
    Ok(listed)
}
