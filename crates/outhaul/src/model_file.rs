//! The ONNX file of a version: the one that was found, or one that is made of weights.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use outhaul_onnx::huggingface::{Converted, HuggingFaceError, convert};
use tempfile::TempDir;

use crate::private;

/// An ONNX file. One that was made is deleted when this is dropped.
pub struct ModelFile {
    path: PathBuf,
    made: Option<Made>,
}

struct Made {
    converted: Converted,
    took: Duration,
    _folder: TempDir,
}

/// Why there is no ONNX file.
#[derive(Debug, thiserror::Error)]
pub enum NoModelFile {
    /// No graph can be made of the weights.
    #[error("no graph can be made of its weights")]
    Weights(#[from] HuggingFaceError),
    /// There is no place for the file.
    #[error("there is no place for the graph that is made of its weights")]
    Place(#[from] io::Error),
}

impl ModelFile {
    /// Takes the file that a scan has found. Of weights a graph is made first, which takes well below a second for
    /// 100 MB of them.
    ///
    /// # Errors
    ///
    /// See [`NoModelFile`].
    pub fn of(found: &Path) -> Result<Self, NoModelFile> {
        if !is_weights(found) {
            return Ok(ModelFile { path: found.to_owned(), made: None });
        }
        let start = Instant::now();
        let folder = private::folder()?;
        let path = folder.path().join("model.onnx");
        let converted = convert(found, &path)?;
        let made = Made { converted, took: start.elapsed(), _folder: folder };
        Ok(ModelFile { path, made: Some(made) })
    }

    /// Returns the ONNX file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether it was made, so that nobody else writes to it.
    pub fn is_made(&self) -> bool {
        self.made.is_some()
    }

    /// Tells how the file was made, where it was.
    pub fn how(&self) -> Option<String> {
        let Made { converted, took, .. } = self.made.as_ref()?;
        Some(describe_conversion(converted, *took))
    }
}

/// Returns whether a version's file is weights, of which a graph is made.
pub fn is_weights(found: &Path) -> bool {
    let name = found.file_name().unwrap_or_default().to_string_lossy();
    name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json")
}

/// Tells how a graph was made, in a line.
pub fn describe_conversion(converted: &Converted, took: Duration) -> String {
    let widened = match converted.widened.as_slice() {
        [] => String::new(),
        elements => format!(", {} widened to F32", elements.join(" and ")),
    };
    format!(
        "a {} graph made of its weights in {:.2} s{widened}",
        converted.family,
        took.as_secs_f64()
    )
}
