//! What paths hold: models, their versions and manifests, and everything that is wrong with them.
//!
//! A path is one of
//! - a folder of models: `NAME/VERSION/model.onnx`, `NAME/model.onnx` (which is version 1), or a file
//!   `NAME.onnx` (likewise);
//! - one model's folder, which holds `model.onnx` or `VERSION/model.onnx`; the folder's name is the
//!   model's;
//! - one `.onnx` file; its name without the ending is the model's.
//!
//! All versions that are found are served. Entries whose name starts with a dot are nobody's
//! business, nor are other files beside a model (labels, tokenizers, external weights).
//!
//! Invariant: one broken model never hides another, and the result has one order whatever order the
//! file system lists. Nothing that a link leads to outside of the given path is taken. Model files
//! are opened to see that they can be, and not read: that is `onnx`'s business.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use outhaul_types::{ModelManifest, ModelName, ModelVersion};

use crate::{MANIFEST_FILE, Problem, read_manifest};

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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFolder {
    /// Its name.
    pub name: ModelName,
    /// Its folder, or the file that is all of it.
    pub path: PathBuf,
    /// What the user declares.
    pub manifest: ModelManifest,
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
}

/// Looks at every path and returns the models that can be loaded and all problems of the others.
///
/// Where two paths hold models of one name, the first path's is taken and the other is a problem.
pub fn scan<P: AsRef<Path>>(paths: &[P]) -> Scan {
    let mut models: BTreeMap<ModelName, ModelFolder> = BTreeMap::new();
    let (mut refused, mut problems) = (Vec::new(), Vec::new());
    for path in paths {
        let mut found = scan_path(path.as_ref());
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

fn scan_path(path: &Path) -> Scan {
    let unusable = |rule: String| Scan {
        problems: vec![Problem::of_place(
            path.display(),
            rule,
            "give a folder of models, a model's folder or an .onnx file",
        )],
        ..Scan::default()
    };
    // A path that the user names may be a link; only what lies in it may not lead out of it.
    let root = match path.canonicalize() {
        Ok(root) => root,
        Err(error) => return unusable(format!("cannot be read: {error}")),
    };
    let name = path.file_name().or(root.file_name()).unwrap_or_default().to_os_string();
    let mut scanner = Scanner { root, scan: Scan::default() };
    if scanner.root.is_dir() {
        let Some(entries) = scanner.entries(path) else { return scanner.scan };
        if is_model_folder(&entries) {
            scanner.model(&name, path, &entries);
        } else {
            scanner.folder_of_models(path, &entries);
        }
    } else if is_onnx(path) {
        scanner.model_file(path);
    } else {
        return unusable("is neither a folder nor an .onnx file".to_owned());
    }
    scanner.scan.models.sort_by(|left, right| left.name.cmp(&right.name));
    scanner.scan
}

/// One entry of a folder that may be looked at: not hidden, not leading out.
struct Entry {
    name: std::ffi::OsString,
    path: PathBuf,
    is_folder: bool,
}

impl Entry {
    fn is_file(&self, name: &str) -> bool {
        !self.is_folder && self.name == name
    }

    /// Whether this is a folder with a model file, whatever that is called.
    fn holds_onnx(&self) -> bool {
        let mut entries = self.path.read_dir().into_iter().flatten().flatten();
        self.is_folder && entries.any(|entry| is_onnx(&entry.path()))
    }

    fn is_version(&self) -> bool {
        let name = self.name.as_encoded_bytes();
        self.is_folder && !name.is_empty() && name.iter().all(u8::is_ascii_digit)
    }
}

fn is_onnx(path: &Path) -> bool {
    path.extension() == Some(OsStr::new("onnx"))
}

fn is_model_folder(entries: &[Entry]) -> bool {
    entries.iter().any(|entry| {
        entry.is_file(MODEL_FILE) || entry.is_version() && entry.path.join(MODEL_FILE).is_file()
    })
}

struct Scanner {
    /// Without links.
    root: PathBuf,
    scan: Scan,
}

impl Scanner {
    fn problem(&mut self, place: &Path, rule: impl Into<String>, remedy: impl Into<String>) {
        self.scan.problems.push(Problem::of_place(place.display(), rule, remedy));
    }

    fn problem_of(&mut self, model: &ModelName, place: &Path, rule: String, remedy: String) {
        self.scan.problems.push(Problem::of_place(place.display(), rule, remedy).of_model(model));
    }

    /// Lists a folder in order of names, without what is hidden and what leads out of the root.
    fn entries(&mut self, folder: &Path) -> Option<Vec<Entry>> {
        let listed = fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let mut listed = match listed {
            Ok(listed) => listed,
            Err(error) => {
                self.problem(folder, format!("cannot be read: {error}"), "check its permissions");
                return None;
            }
        };
        listed.sort_by_key(fs::DirEntry::file_name);
        let mut entries = Vec::new();
        for entry in listed {
            let (name, path) = (entry.file_name(), entry.path());
            if name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let is_link = entry.file_type().is_ok_and(|file_type| file_type.is_symlink());
            match path.canonicalize() {
                Ok(target) if is_link && !target.starts_with(&self.root) => {
                    let rule = format!("the link leads out of {}", self.root.display());
                    let remedy = "put the file itself here, or give its own path to the server";
                    self.problem(&path, rule, remedy);
                }
                Ok(target) => entries.push(Entry { is_folder: target.is_dir(), name, path }),
                Err(error) => {
                    self.problem(&path, format!("cannot be read: {error}"), "mend or remove it");
                }
            }
        }
        Some(entries)
    }

    fn folder_of_models(&mut self, folder: &Path, entries: &[Entry]) {
        let nothing_yet = self.scan.problems.is_empty();
        for entry in entries {
            if entry.is_folder {
                if let Some(inner) = self.entries(&entry.path) {
                    self.model(&entry.name, &entry.path, &inner);
                }
            } else if entry.is_file(MANIFEST_FILE) {
                let rule = "there is no model beside this file";
                self.problem(&entry.path, rule, "move it into the folder of its model");
            } else if is_onnx(&entry.path) {
                self.model_file(&entry.path);
            }
        }
        if nothing_yet && self.scan.models.is_empty() && self.scan.problems.is_empty() {
            let remedy = format!("add NAME/{MODEL_FILE} or NAME/VERSION/{MODEL_FILE}");
            self.problem(folder, "there are no models in this folder", remedy);
        }
    }

    /// One file that is a whole model.
    fn model_file(&mut self, path: &Path) {
        let Some(name) = self.name(path.file_stem().unwrap_or_default(), path) else { return };
        if !self.can_open(&name, path) {
            return;
        }
        let manifest = ModelManifest::default();
        let version = VersionArtefact { version: ModelVersion(1), path: path.to_owned() };
        let model = ModelFolder { name, path: path.to_owned(), manifest, versions: vec![version] };
        self.add(model);
    }

    fn model(&mut self, name: &OsStr, folder: &Path, entries: &[Entry]) {
        let Some(name) = self.name(name, folder) else { return };
        let mut manifest = ModelManifest::default();
        let mut manifest_is_sound = true;
        let mut artefacts: BTreeMap<ModelVersion, Vec<PathBuf>> = BTreeMap::new();
        let mut found_any = false;
        for entry in entries {
            if entry.is_file(MANIFEST_FILE) {
                match read_manifest(&entry.path) {
                    Ok(read) => manifest = read,
                    Err(problems) => {
                        manifest_is_sound = false;
                        let problems = problems.into_iter().map(|problem| problem.of_model(&name));
                        self.scan.problems.extend(problems);
                    }
                }
            } else if entry.name == MODEL_FILE {
                found_any = true;
                if self.can_open(&name, &entry.path) {
                    artefacts.entry(ModelVersion(1)).or_default().push(entry.path.clone());
                }
            } else if entry.is_version() {
                found_any = true;
                if let Some((version, path)) = self.version(&name, entry) {
                    artefacts.entry(version).or_default().push(path);
                }
            } else if entry.holds_onnx() {
                found_any = true;
                let rule = "the name of a version's folder must be a whole number".to_owned();
                self.problem_of(&name, &entry.path, rule, version_remedy(&entry.name));
            }
        }
        if !found_any {
            self.no_model_file(&name, folder, entries);
        }
        let versions = self.without_duplicates(&name, folder, artefacts);
        if !manifest_is_sound {
            let versions = versions.iter().map(|artefact| (name.clone(), artefact.version));
            self.scan.refused.extend(versions);
        } else if !versions.is_empty() {
            self.add(ModelFolder { name, path: folder.to_owned(), manifest, versions });
        }
    }

    fn add(&mut self, model: ModelFolder) {
        match self.scan.models.iter().find(|other| other.name == model.name) {
            Some(first) => self.scan.problems.push(twice(&model, first)),
            None => self.scan.models.push(model),
        }
    }

    fn name(&mut self, name: &OsStr, place: &Path) -> Option<ModelName> {
        match ModelName::new(&name.to_string_lossy()) {
            Ok(name) => Some(name),
            Err(error) => {
                self.problem(place, error.to_string(), "rename it");
                None
            }
        }
    }

    fn version(&mut self, name: &ModelName, entry: &Entry) -> Option<(ModelVersion, PathBuf)> {
        let inner = self.entries(&entry.path)?;
        let number = entry.name.to_str().and_then(|text| text.parse::<u64>().ok());
        let Some(number) = number.filter(|number| *number > 0) else {
            let rule = format!("version numbers go from 1 to {}", u64::MAX);
            self.problem_of(name, &entry.path, rule, "rename the folder".to_owned());
            return None;
        };
        for misplaced in inner.iter().filter(|inner| inner.is_file(MANIFEST_FILE)) {
            let rule = "a version has no manifest of its own".to_owned();
            let remedy = "move the file one folder up, where it holds for all versions".to_owned();
            self.problem_of(name, &misplaced.path, rule, remedy);
        }
        let Some(file) = inner.iter().find(|inner| inner.name == MODEL_FILE) else {
            self.no_model_file(name, &entry.path, &inner);
            return None;
        };
        let can_open = self.can_open(name, &file.path);
        can_open.then(|| (ModelVersion(number), file.path.clone()))
    }

    fn no_model_file(&mut self, name: &ModelName, folder: &Path, entries: &[Entry]) {
        let other = entries.iter().find(|entry| !entry.is_folder && is_onnx(&entry.path));
        let remedy = match other {
            Some(other) => format!("rename {} to {MODEL_FILE}", other.name.to_string_lossy()),
            None => format!("put the model here as {MODEL_FILE}, or remove the folder"),
        };
        self.problem_of(name, folder, format!("there is no {MODEL_FILE} in this folder"), remedy);
    }

    fn can_open(&mut self, name: &ModelName, path: &Path) -> bool {
        let rule = match path.metadata() {
            // Opening a pipe would wait for its writer, so what kind it is comes first.
            Ok(metadata) if !metadata.is_file() => "is not a file".to_owned(),
            Ok(_) => match File::open(path) {
                Ok(_) => return true,
                Err(error) => format!("cannot be read: {error}"),
            },
            Err(error) => format!("cannot be read: {error}"),
        };
        self.problem_of(name, path, rule, "put a readable model file here".to_owned());
        false
    }

    /// Two files of one version number contradict each other: neither is served.
    fn without_duplicates(
        &mut self,
        name: &ModelName,
        folder: &Path,
        artefacts: BTreeMap<ModelVersion, Vec<PathBuf>>,
    ) -> Vec<VersionArtefact> {
        let mut versions = Vec::new();
        for (version, mut paths) in artefacts {
            if let [_] = paths.as_slice()
                && let Some(path) = paths.pop()
            {
                versions.push(VersionArtefact { version, path });
                continue;
            }
            let within = |path: &PathBuf| {
                path.strip_prefix(folder).unwrap_or(path.as_path()).display().to_string()
            };
            let paths: Vec<String> = paths.iter().map(within).collect();
            let rule = format!("version {version} is there twice: {}", paths.join(" and "));
            let remedy = "remove or renumber all but one".to_owned();
            self.problem_of(name, folder, rule, remedy);
        }
        versions
    }
}

fn version_remedy(name: &OsStr) -> String {
    let name = name.to_string_lossy();
    let digits: String = name.chars().filter(char::is_ascii_digit).collect();
    match digits.parse::<u64>() {
        Ok(number) if number > 0 => format!("rename it to {number}"),
        _ => "rename it to a number; the highest is the newest".to_owned(),
    }
}

#[cfg(test)]
mod tests;
