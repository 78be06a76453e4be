//! A copy of a model whose weights lie in files of their own, for the time of its load.
//!
//! ONNX Runtime does not read such files but maps them into memory. Whoever then writes over one, as
//! `cp` does, changes the weights of a model that is serving, and whoever cuts it off ends the process
//! at the next request. So the engine is given a copy that nobody else knows; it is deleted once it is
//! mapped, and its blocks live as long as the model does.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// Makes a folder that nobody else knows, for the time of a load.
pub(crate) fn folder() -> io::Result<TempDir> {
    let place = crate::cache_folder().map(|folder| folder.join("private"));
    let place = place.filter(|place| fs::create_dir_all(place).is_ok());
    // The cache is on a disk; the system's folder for such things may be in memory.
    let place = place.unwrap_or_else(std::env::temp_dir);
    tempfile::Builder::new().prefix("load-").tempdir_in(place)
}

/// A copy that is deleted when this is dropped.
pub(crate) struct PrivateCopy {
    model: PathBuf,
    _folder: TempDir,
}

impl PrivateCopy {
    /// Copies a model file and the files that it names, which lie beside or below it.
    pub(crate) fn of(model: &Path, external: &BTreeSet<PathBuf>) -> io::Result<Self> {
        let folder = folder()?;
        let beside = model.parent().unwrap_or(Path::new(""));
        let name = model.file_name().unwrap_or_default();
        let copy = folder.path().join(name);
        fs::copy(model, &copy)?;
        for file in external {
            let to = folder.path().join(file);
            if let Some(parent) = to.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::copy(beside.join(file), to)?;
        }
        Ok(PrivateCopy { model: copy, _folder: folder })
    }

    /// Returns the copied model file.
    pub(crate) fn model(&self) -> &Path {
        &self.model
    }
}
