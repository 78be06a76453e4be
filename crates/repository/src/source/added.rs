//! Models that callers name while the server runs, each by a folder of this machine: what SageMaker's
//! multi-model endpoints do.
//!
//! The source is a list that callers write and [`Source::look`] reads. It only says what there is: who
//! adds a model asks the repository for it afterwards, and the look that this makes finds it.
//!
//! Invariant: no folder outside of the declared base is ever looked at. It is checked, links resolved,
//! when a model is added and again at each look, since a folder can be replaced by a link.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use outhaul_types::{Classify, ErrorKind, ModelName};

use super::{LocalFolder, Source, SourceError};
use crate::{Identity, ModelFolder, PipelineFolder, Problem, Scan, VersionArtefact, scan};

/// A list of models that lie below one folder.
#[derive(Debug)]
pub struct Added {
    base: PathBuf,
    place: String,
    /// Fetches as any folder of this machine does.
    files: LocalFolder,
    models: Mutex<BTreeMap<ModelName, PathBuf>>,
}

/// Why a model was not added.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// The name is taken.
    #[error("model '{name}' is there already, from {}", folder.display())]
    Taken {
        /// The name.
        name: ModelName,
        /// Where the model of this name lies.
        folder: PathBuf,
    },
    /// The folder lies elsewhere.
    #[error("{} does not lie below {}", folder.display(), base.display())]
    Outside {
        /// As it was named.
        folder: PathBuf,
        /// Where models may lie.
        base: PathBuf,
    },
    /// There is no such folder, or it cannot be read.
    #[error("{} cannot be read", folder.display())]
    Unreadable {
        /// As it was named.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Classify for AddError {
    fn kind(&self) -> ErrorKind {
        match self {
            AddError::Taken { .. } => ErrorKind::Conflict,
            AddError::Outside { .. } => ErrorKind::Forbidden,
            AddError::Unreadable { .. } => ErrorKind::InvalidInput,
        }
    }
}

impl Added {
    /// Makes an empty list of models that may lie below `base`, which need not be there yet.
    pub fn below(base: impl Into<PathBuf>) -> Self {
        let base = base.into();
        Added {
            place: format!("models added below {}", base.display()),
            files: LocalFolder::new(&base),
            base,
            models: Mutex::default(),
        }
    }

    /// Puts a model on the list: the one that lies in `folder`, whatever it is called there.
    ///
    /// # Errors
    ///
    /// See [`AddError`]. Whether the folder holds a model is found out when it is looked at.
    pub fn add(&self, name: ModelName, folder: &Path) -> Result<(), AddError> {
        if !self.is_inside(folder).map_err(|source| unreadable(folder, source))? {
            let (folder, base) = (folder.to_owned(), self.base.clone());
            return Err(AddError::Outside { folder, base });
        }
        let mut models = self.models();
        if let Some(folder) = models.get(&name) {
            return Err(AddError::Taken { name, folder: folder.clone() });
        }
        models.insert(name, folder.to_owned());
        Ok(())
    }

    /// Takes a model off the list, and returns where it lies.
    pub fn remove(&self, name: &str) -> Option<PathBuf> {
        self.models().remove(name)
    }

    /// Returns where a model lies.
    pub fn folder_of(&self, name: &str) -> Option<PathBuf> {
        self.models().get(name).cloned()
    }

    /// Returns the models in order of their names, and where each lies.
    pub fn list(&self) -> Vec<(ModelName, PathBuf)> {
        self.models().iter().map(|(name, folder)| (name.clone(), folder.clone())).collect()
    }

    /// Returns whether a folder lies below the base once links are resolved.
    fn is_inside(&self, folder: &Path) -> io::Result<bool> {
        // What lies elsewhere is not even looked for: whether it exists is nobody's business.
        let climbs = folder.components().any(|part| part == Component::ParentDir);
        if climbs || !folder.starts_with(&self.base) || folder == self.base {
            return Ok(false);
        }
        let (base, folder) = (self.base.canonicalize()?, folder.canonicalize()?);
        Ok(folder != base && folder.starts_with(base))
    }

    /// Returns the one model of a folder, by its name on the list.
    fn find(&self, name: &ModelName, folder: &Path) -> Scan {
        let problem = |rule: String, remedy: &str| Scan {
            problems: vec![Problem::of_place(folder.display(), rule, remedy).of_model(name)],
            ..Scan::default()
        };
        match self.is_inside(folder) {
            Ok(true) => {}
            Ok(false) => {
                let rule = format!("does not lie below {} any more", self.base.display());
                return problem(rule, "delete the model and add it anew");
            }
            Err(error) => {
                return problem(format!("cannot be read: {error}"), "delete the model");
            }
        }
        let mut found = scan(&[folder]);
        for problem in &mut found.problems {
            // They may speak of the folder's own name.
            *problem = problem.clone().of_model(name);
        }
        match (found.models.len() + found.pipelines.len(), found.refused.len()) {
            (1, 0) | (0, 1) => {}
            (0, 0) => return Scan { problems: found.problems, ..Scan::default() },
            (models, refused) => {
                let rule = format!("holds {} models, and one was added", models + refused);
                return problem(rule, "give the folder of one model");
            }
        }
        let rename = |model: ModelFolder| ModelFolder { name: name.clone(), ..model };
        Scan {
            models: found.models.into_iter().map(rename).collect(),
            pipelines: found
                .pipelines
                .into_iter()
                .map(|pipeline| PipelineFolder { name: name.clone(), ..pipeline })
                .collect(),
            refused: found
                .refused
                .into_iter()
                .map(|(_, version)| (name.clone(), version))
                .collect(),
            problems: found.problems,
        }
    }

    fn models(&self) -> MutexGuard<'_, BTreeMap<ModelName, PathBuf>> {
        // Every change of the map is one call, so a panic leaves it whole.
        self.models.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unreadable(folder: &Path, source: io::Error) -> AddError {
    AddError::Unreadable { folder: folder.to_owned(), source }
}

impl Source for Added {
    fn place(&self) -> &str {
        &self.place
    }

    fn look(&self) -> Result<Scan, SourceError> {
        let mut all = Scan::default();
        for (name, folder) in self.list() {
            let Scan { models, pipelines, refused, problems } = self.find(&name, &folder);
            all.models.extend(models);
            all.pipelines.extend(pipelines);
            all.refused.extend(refused);
            all.problems.extend(problems);
        }
        Ok(all)
    }

    fn fetch(&self, artefact: &VersionArtefact) -> Result<PathBuf, SourceError> {
        self.files.fetch(artefact)
    }

    fn is_unchanged(&self, artefact: &VersionArtefact) -> bool {
        self.files.is_unchanged(artefact)
    }

    fn release(&self, identity: &Identity) {
        self.files.release(identity);
    }

    /// None to watch: whoever writes the list asks for what is on it. So that a model's files are
    /// still taken for what others may write to, this is the base all the same.
    fn folder(&self) -> Option<&Path> {
        Some(&self.base)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use outhaul_types::ModelVersion;

    use super::*;

    fn name(name: &str) -> ModelName {
        ModelName::new(name).unwrap()
    }

    /// A base with `abc/model/model.onnx` in it, and a folder beside it.
    fn folders() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().join("models");
        fs::create_dir_all(base.join("abc/model")).unwrap();
        fs::write(base.join("abc/model/model.onnx"), "a model").unwrap();
        fs::create_dir(folder.path().join("beside")).unwrap();
        (folder, base)
    }

    #[test]
    fn a_folder_is_a_model_under_the_name_that_it_is_given() {
        let (_folder, base) = folders();
        let added = Added::below(&base);
        assert!(added.look().unwrap().models.is_empty());
        let folder = base.join("abc/model");
        added.add(name("other"), &folder).unwrap();
        let scan = added.look().unwrap();
        assert_eq!(scan.problems, []);
        assert_eq!(scan.models[0].name, name("other"));
        assert_eq!(scan.models[0].versions[0].version, ModelVersion(1));
        let artefact = &scan.models[0].versions[0];
        assert_eq!(added.fetch(artefact).unwrap(), folder.join("model.onnx"));
        let taken = added.add(name("other"), &folder).unwrap_err();
        assert_eq!(taken.kind(), ErrorKind::Conflict);
        assert_eq!(added.list(), [(name("other"), folder.clone())]);
        assert_eq!(added.remove("other"), Some(folder));
        assert_eq!(added.remove("other"), None);
        assert!(added.look().unwrap().models.is_empty());
    }

    #[test]
    fn nothing_outside_of_the_base_is_taken() {
        let (folder, base) = folders();
        let added = Added::below(&base);
        let beside = folder.path().join("beside");
        #[cfg(unix)]
        std::os::unix::fs::symlink(&beside, base.join("link")).unwrap();
        for outside in [&beside, &base, &base.join("../beside"), Path::new("/"), Path::new("abc")] {
            let error = added.add(name("m"), outside).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Forbidden, "{}", outside.display());
        }
        #[cfg(unix)]
        assert_eq!(added.add(name("m"), &base.join("link")).unwrap_err().kind(), {
            ErrorKind::Forbidden
        });
        let missing = added.add(name("m"), &base.join("nothing")).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::InvalidInput);
        assert!(added.list().is_empty());
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_that_became_a_link_outside_is_a_problem() {
        let (folder, base) = folders();
        let added = Added::below(&base);
        added.add(name("m"), &base.join("abc/model")).unwrap();
        fs::rename(base.join("abc/model"), folder.path().join("beside/model")).unwrap();
        std::os::unix::fs::symlink(folder.path().join("beside/model"), base.join("abc/model"))
            .unwrap();
        let scan = added.look().unwrap();
        assert!(scan.models.is_empty());
        assert!(scan.problems[0].to_string().contains("does not lie below"), "{:?}", scan.problems);
    }

    #[test]
    fn a_folder_of_several_models_is_a_problem() {
        let (_folder, base) = folders();
        for model in ["a", "b"] {
            fs::create_dir_all(base.join("many").join(model)).unwrap();
            fs::write(base.join("many").join(model).join("model.onnx"), "a model").unwrap();
        }
        let added = Added::below(&base);
        added.add(name("m"), &base.join("many")).unwrap();
        let scan = added.look().unwrap();
        assert!(scan.models.is_empty());
        assert!(scan.problems[0].to_string().contains("holds 2 models"), "{:?}", scan.problems);
    }
}
