//! A folder of this machine, or one `.onnx` file.
//!
//! Nothing is copied: what is fetched is the file itself. Invariant: a file that has changed since
//! it was found is not handed out under its old identity. It may still change while an engine reads
//! it; who loads has to compare once more afterwards, or wait until files have settled, which is
//! decided elsewhere.

use std::io;
use std::path::{Path, PathBuf};

use super::{Source, SourceError};
use crate::{Scan, VersionArtefact, artefact_of, scan};

/// Models that lie in a folder of this machine.
#[derive(Debug)]
pub struct LocalFolder {
    path: PathBuf,
    place: String,
}

impl LocalFolder {
    /// Names a folder of models, a model's folder or an `.onnx` file. It need not be there yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let place = path
            .canonicalize()
            .or_else(|_| std::path::absolute(&path))
            .unwrap_or_else(|_| path.clone())
            .display()
            .to_string();
        LocalFolder { path, place }
    }
}

impl Source for LocalFolder {
    fn place(&self) -> &str {
        &self.place
    }

    fn look(&self) -> Result<Scan, SourceError> {
        can_be_read(&self.path).map_err(|error| SourceError {
            place: self.path.display().to_string(),
            reason: format!("cannot be read: {error}"),
            // A folder may be mounted late, and its permissions mended.
            passing: true,
        })?;
        Ok(scan(&[&self.path]))
    }

    fn fetch(&self, wanted: &VersionArtefact) -> Result<PathBuf, SourceError> {
        let fail = |reason: String, passing| SourceError {
            place: wanted.path.display().to_string(),
            reason,
            passing,
        };
        match artefact_of(wanted.version, &wanted.path) {
            Ok(found) if found.identity == wanted.identity => Ok(wanted.path.clone()),
            Ok(_) => Err(fail("the files have changed since they were found".to_owned(), false)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(fail("is no longer there".to_owned(), false))
            }
            Err(error) => Err(fail(format!("cannot be read: {error}"), true)),
        }
    }

    fn is_unchanged(&self, wanted: &VersionArtefact) -> bool {
        let now = artefact_of(wanted.version, &wanted.path);
        now.is_ok_and(|found| found.identity == wanted.identity)
    }

    fn folder(&self) -> Option<&Path> {
        Some(&self.path)
    }
}

fn can_be_read(path: &Path) -> io::Result<()> {
    if path.metadata()?.is_dir() {
        path.read_dir()?;
    }
    Ok(())
}
