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
//! A folder that holds `pipeline.toml` in place of a model is a pipeline.
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

use outhaul_pipeline::Outline;
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
    /// The pipelines, in order of their names.
    pub pipelines: Vec<PipelineFolder>,
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

/// One pipeline of models.
#[derive(Debug, Clone)]
pub struct PipelineFolder {
    /// Its name.
    pub name: ModelName,
    /// The file that declares it.
    pub path: PathBuf,
    /// What is declared, or what is wrong with that; the problems tell all of it.
    pub outline: Result<Arc<Outline>, Arc<str>>,
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
    let mut all = Named::default();
    let (mut refused, mut problems) = (Vec::new(), Vec::new());
    for path in paths {
        let mut found = folder::scan_path(path.as_ref());
        problems.append(&mut found.problems);
        refused.append(&mut found.refused);
        let models = found.models.into_iter().map(|model| all.add(model));
        problems.extend(models.filter_map(Result::err).collect::<Vec<_>>());
        let pipelines = found.pipelines.into_iter().map(|pipeline| all.add_pipeline(pipeline));
        problems.extend(pipelines.filter_map(Result::err).collect::<Vec<_>>());
    }
    // A sound model of the same name elsewhere is served.
    refused.retain(|(name, _)| all.place_of(name).is_none());
    all.into_scan(refused, problems)
}

/// Models and pipelines by their names, of which each is there once.
#[derive(Default)]
struct Named {
    models: BTreeMap<ModelName, ModelFolder>,
    pipelines: BTreeMap<ModelName, PipelineFolder>,
}

impl Named {
    fn add(&mut self, model: ModelFolder) -> Result<(), Problem> {
        self.is_free(&model.name, &model.path)?;
        self.models.insert(model.name.clone(), model);
        Ok(())
    }

    fn add_pipeline(&mut self, pipeline: PipelineFolder) -> Result<(), Problem> {
        self.is_free(&pipeline.name, &pipeline.path)?;
        self.pipelines.insert(pipeline.name.clone(), pipeline);
        Ok(())
    }

    fn place_of(&self, name: &ModelName) -> Option<&Path> {
        let model = self.models.get(name).map(|model| &model.path);
        let place = model.or_else(|| self.pipelines.get(name).map(|pipeline| &pipeline.path));
        place.map(PathBuf::as_path)
    }

    fn is_free(&self, name: &ModelName, path: &Path) -> Result<(), Problem> {
        let Some(first) = self.place_of(name) else { return Ok(()) };
        let rule = format!("the model '{name}' is taken from {} already", first.display());
        Err(Problem::of_place(path.display(), rule, "rename one of the two").of_model(name))
    }

    fn is_empty(&self) -> bool {
        self.models.is_empty() && self.pipelines.is_empty()
    }

    fn into_scan(self, refused: Vec<(ModelName, ModelVersion)>, problems: Vec<Problem>) -> Scan {
        let models = self.models.into_values().collect();
        let pipelines = self.pipelines.into_values().collect();
        Scan { models, pipelines, refused, problems }
    }
}

fn is_onnx(path: &Path) -> bool {
    path.extension() == Some(OsStr::new("onnx"))
}

#[cfg(test)]
mod tests;
