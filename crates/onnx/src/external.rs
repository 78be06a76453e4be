//! Weights in files beside the model.
//!
//! Invariant: no path that a model names is accepted unless it is a regular file inside the model's
//! own folder, symbolic links followed, and long enough.

use std::io;
use std::path::{Component, Path, PathBuf};

use crate::error::Problem;

/// Where a tensor's elements are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalData {
    /// The file, relative to the model's folder.
    pub location: String,
    /// The first byte.
    pub offset: u64,
    /// The number of bytes, where the model says it.
    pub length: Option<u64>,
}

impl ExternalData {
    /// Reads the entries of a tensor.
    pub(crate) fn from_entries(entries: &[(String, String)]) -> Result<Self, String> {
        let entry = |key: &str| {
            entries.iter().find(|(found, _)| found == key).map(|(_, value)| value.as_str())
        };
        let number = |key: &str| {
            entry(key)
                .map(|text| {
                    text.parse::<u64>().map_err(|_| format!("its {key} '{text}' is not a number"))
                })
                .transpose()
        };
        let location = entry("location").ok_or("it is external and names no location")?.to_owned();
        Ok(ExternalData {
            location,
            offset: number("offset")?.unwrap_or(0),
            length: number("length")?,
        })
    }

    /// Finds the file and checks that it holds the `bytes` of tensor `name`.
    pub(crate) fn check(&self, folder: &Path, name: &str, bytes: u64) -> Result<PathBuf, Problem> {
        let fault = |reason: String, source: Option<io::Error>| Problem::ExternalData {
            name: name.to_owned(),
            location: self.location.clone(),
            reason,
            source,
        };
        let relative = Path::new(&self.location);
        let stays = !self.location.is_empty()
            && relative
                .components()
                .all(|component| matches!(component, Component::Normal(_) | Component::CurDir));
        if !stays {
            return Err(fault("a path that leaves the model's folder".to_owned(), None));
        }
        let missing = |error| fault("which cannot be opened".to_owned(), Some(error));
        let path = folder.join(relative).canonicalize().map_err(missing)?;
        let home = folder.canonicalize().map_err(missing)?;
        if !path.starts_with(&home) {
            return Err(fault("a link that leads out of the model's folder".to_owned(), None));
        }
        let metadata = path.metadata().map_err(missing)?;
        if !metadata.is_file() {
            return Err(fault("which is not a file".to_owned(), None));
        }
        if let Some(length) = self.length
            && length != bytes
        {
            return Err(fault(
                format!("{length} bytes where its dimensions call for {bytes}"),
                None,
            ));
        }
        let available = metadata.len();
        if self.offset.checked_add(bytes).is_none_or(|end| end > available) {
            let offset = self.offset;
            let reason = format!("{bytes} bytes from {offset} on, and that file has {available}");
            return Err(fault(reason, None));
        }
        Ok(path)
    }
}
