//! What paths hold: models, their versions and manifests, and everything that is wrong with them.
//!
//! A path is one of
//! - a folder of models: `NAME/VERSION/model.onnx`, `NAME/model.onnx` (which is version 1), or a file
//!   `NAME.onnx` (likewise);
//! - one model's folder, which holds `model.onnx` or `VERSION/model.onnx`; the folder's name is the
//!   model's;
//! - one `.onnx` file; its name without the ending is the model's;
//! - TensorFlow Serving's list of models, `models.config`, or the folder that holds it.
//!
//! What is declared beside a model is read from its `model.toml`, else from the file of a foreign
//! format ([`crate::formats`]). Which of the versions are served is not decided here.
//!
//! Entries whose name starts with a dot are nobody's business, nor are other files beside a model
//! (labels, tokenizers), except that they belong to its version ([`artefact()`]).
//!
//! Invariant: one broken model never hides another, and the result has one order whatever order the
//! file system lists. Nothing that a link leads to outside of the given path is taken. Model files
//! are opened to see that they can be, and not read: that is `onnx`'s business.

mod artefact;
mod beside;
mod folder;
mod listing;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use outhaul_types::{ModelManifest, ModelName, ModelVersion};

use crate::Problem;
pub use artefact::{artefact, artefact_files};
pub(crate) use beside::files_of;

/// The name of a version's model file.
pub const MODEL_FILE: &str = "model.onnx";

/// What was found.
#[derive(Debug, Default)]
pub struct Scan {
    /// The models, in order of their names; each has at least one version.
    pub models: Vec<ModelFolder>,
    /// Versions that were found and cannot be served, since their model's manifest is wrong.
    pub refused: Vec<(ModelName, ModelVersion)>,
    /// Everything that is wrong.
    pub problems: Vec<Problem>,
}

/// One model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelFolder {
    /// Its name.
    pub name: ModelName,
    /// Its folder, or the file that is all of it.
    pub path: PathBuf,
    /// What the user declares. Files that it names are named by complete paths.
    pub manifest: ModelManifest,
    /// What changes when one of those files does, warm-up's aside: a version answers by them.
    pub beside: Identity,
    /// Its versions, ascending.
    pub versions: Vec<VersionArtefact>,
}

/// One version of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionArtefact {
    /// Its number.
    pub version: ModelVersion,
    /// Its model file.
    pub path: PathBuf,
    /// What changes when its content does.
    pub identity: Identity,
    /// The size of its files.
    pub bytes: u64,
    /// When one of its files was changed last, by the clock of where it lies; `None` where that is
    /// not known.
    pub changed: Option<SystemTime>,
}

/// Tells the contents of a version apart: two artefacts of equal identity are the same content. For
/// local files it is made of names, sizes, inodes and times; for objects of names, sizes and tags.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity(Arc<str>);

impl Identity {
    /// Keeps an identity.
    pub fn new(text: &str) -> Self {
        Identity(text.into())
    }

    /// Returns it as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Looks at every path and returns the models that can be loaded and all problems of the others.
///
/// Where two paths hold models of one name, the first path's is taken and the other is a problem.
pub fn scan<P: AsRef<Path>>(paths: &[P]) -> Scan {
    let mut models: BTreeMap<ModelName, ModelFolder> = BTreeMap::new();
    let (mut refused, mut problems) = (Vec::new(), Vec::new());
    for path in paths {
        let mut found = folder::scan_path(path.as_ref());
        problems.append(&mut found.problems);
        refused.append(&mut found.refused);
        for model in found.models {
            match models.get(&model.name) {
                Some(first) => problems.push(twice(&model, first)),
                None => drop(models.insert(model.name.clone(), model)),
            }
        }
    }
    // A sound model of the same name elsewhere is served.
    refused.retain(|(name, _)| !models.contains_key(name));
    Scan { models: models.into_values().collect(), refused, problems }
}

fn twice(model: &ModelFolder, first: &ModelFolder) -> Problem {
    let rule = format!("the model '{}' is taken from {} already", model.name, first.path.display());
    Problem::of_place(model.path.display(), rule, "rename one of the two").of_model(&model.name)
}

fn is_onnx(path: &Path) -> bool {
    path.extension() == Some(OsStr::new("onnx"))
}

#[cfg(test)]
mod tests;
