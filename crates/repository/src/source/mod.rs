//! Where versions come from: a folder of this machine, folders that callers name, or an object store.
//!
//! A [`Source`] says what there is ([`Source::look`]) and makes one version's files readable here
//! ([`Source::fetch`]). Invariant: what `fetch` returns is whole and is the content that the
//! artefact's identity stands for, or it is an error; an artefact that nobody fetches costs nothing
//! but its listing.
//!
//! When to look, and what ought to be loaded, is not decided here.

mod added;
mod cache;
mod local;
mod remote;

use std::path::{Path, PathBuf};

pub use added::{AddError, Added};
pub use cache::Cache;
pub use local::LocalFolder;
pub use remote::{Remote, is_url};

use crate::{Identity, Scan, VersionArtefact};

/// A place that holds models. Calls may block; several threads may fetch at once.
pub trait Source: Send + Sync {
    /// Returns the place, as the user wrote it or in a form that means the same from everywhere: a
    /// path without links, a URL without credentials. What was asked for is kept under it.
    fn place(&self) -> &str;

    /// Looks what is there now.
    ///
    /// # Errors
    ///
    /// Fails where the place as a whole cannot be read. That says nothing of what is there: whoever
    /// looked keeps what was known. What is wrong with single models are problems of the scan.
    fn look(&self) -> Result<Scan, SourceError>;

    /// Makes a version's files readable on this machine and returns its model file.
    ///
    /// # Errors
    ///
    /// Fails where the files cannot be brought here whole, or are no longer those that were found.
    fn fetch(&self, artefact: &VersionArtefact) -> Result<PathBuf, SourceError>;

    /// Returns whether a version's files are still those that were found. It is asked again after they
    /// were read: a file that is written while it is read may read as something else. Sources that
    /// hand out copies of their own need not look.
    fn is_unchanged(&self, artefact: &VersionArtefact) -> bool {
        let _ = artefact;
        true
    }

    /// Tells that this content is not needed here any more: it is neither in memory nor found. A source
    /// that keeps copies may let go of them.
    fn release(&self, identity: &Identity) {
        let _ = identity;
    }

    /// Returns the folder whose changes the operating system can tell of; `None` where there is
    /// none and only looking again shows what has changed.
    fn folder(&self) -> Option<&Path>;
}

/// Why a place could not be read, or a version not be fetched.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {reason}")]
pub struct SourceError {
    /// The place, folder, object or file.
    pub place: String,
    /// What is the matter, causes included.
    pub reason: String,
    /// Whether trying again may help: a network that failed, a disk that was full.
    pub passing: bool,
}
