//! From one path to the models below it and everything that is wrong with them.
//!
//! Invariant: nothing that a link leads to outside of the path is taken, and what is wrong with one
//! model keeps no other from being found. What is declared beside a model is read by `declared`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use outhaul_types::{ModelManifest, ModelName, ModelVersion};

use super::artefact::{NOT_A_FILE, artefact, of_files, of_listing};
use super::beside::{Beside, files_of, format_in, read_beside, read_beside_listed};
use super::listing::{Ask, Kind, Listed, list};
use super::{
    Identity, MODEL_FILE, ModelFolder, Named, PipelineFolder, Scan, VersionArtefact, is_onnx,
};
use crate::formats::pipeline::{PIPELINE_FILE, read_pipeline};
use crate::formats::tensorflow::{self, read_config};
use crate::{MANIFEST_FILE, Problem};

/// What people call TensorFlow Serving's list of models.
const CONFIG_FILE: &str = "models.config";

pub(super) fn scan_path(path: &Path) -> Scan {
    let unusable = |rule: String| Scan {
        problems: vec![Problem::of_place(
            path.display(),
            rule,
            "give a folder of models, a model's folder, an .onnx file or a models.config",
        )],
        ..Scan::default()
    };
    // A path that the user names may be a link; only what lies in it may not lead out of it.
    let root = match path.canonicalize() {
        Ok(root) => root,
        Err(error) => return unusable(format!("cannot be read: {error}")),
    };
    let name = path.file_name().or(root.file_name()).unwrap_or_default().to_os_string();
    let mut scanner = Scanner { root, ..Scanner::default() };
    if scanner.root.is_dir() {
        let Some(listed) = scanner.list(path, Ask::NoMore) else { return scanner.into_scan() };
        let entries = scanner.inside(&listed);
        if is_model_folder(&entries) || is_pipeline_folder(&entries) {
            scanner.model(&name, path, &entries);
        } else if entries.iter().any(|entry| entry.is_file(CONFIG_FILE)) {
            scanner.config(&path.join(CONFIG_FILE));
            scanner.unlisted(&entries);
        } else {
            scanner.folder_of_models(path, &entries, &listed);
        }
    } else if is_onnx(path) {
        scanner.model_file(path, || artefact(ModelVersion(1), path));
    } else if is_config(path) {
        scanner.config(path);
    } else {
        return unusable("is neither a folder nor an .onnx file".to_owned());
    }
    scanner.into_scan()
}

/// One entry of a folder that may be looked at: not hidden, not leading out.
pub(super) struct Entry {
    pub(super) name: OsString,
    pub(super) path: PathBuf,
    pub(super) is_folder: bool,
}

impl Entry {
    pub(super) fn is_file(&self, name: &str) -> bool {
        !self.is_folder && self.name == name
    }

    /// Whether this is a folder with a model file, whatever that is called.
    fn holds_onnx(&self) -> bool {
        let entries = || self.path.read_dir().into_iter().flatten().flatten();
        self.is_folder && entries().any(|entry| is_onnx(&entry.path()))
    }

    /// Whether this is meant to be a version's folder.
    fn is_version(&self) -> bool {
        let name = self.name.as_encoded_bytes();
        self.is_folder && !name.is_empty() && name.iter().all(u8::is_ascii_digit)
    }

    /// Returns the number of a version's folder.
    fn version(&self) -> Option<ModelVersion> {
        let number = self.name.to_str().filter(|_| self.is_version())?.parse().ok()?;
        (number > 0).then_some(ModelVersion(number))
    }

    /// Takes what was listed, unless it is a link.
    fn of_own(listed: &Listed) -> Option<Self> {
        let Listed { name, path, kind, .. } = listed;
        let is_folder = *kind == Kind::Folder;
        (*kind != Kind::Link).then(|| Entry { name: name.clone(), path: path.clone(), is_folder })
    }
}

fn is_model_folder(entries: &[Entry]) -> bool {
    let holds_model = |entry: &Entry| {
        entry.is_file(MODEL_FILE) || entry.is_version() && entry.path.join(MODEL_FILE).is_file()
    };
    entries.iter().any(holds_model) || format_in(entries).is_some()
}

fn is_pipeline_folder(entries: &[Entry]) -> bool {
    entries.iter().any(|entry| entry.is_file(PIPELINE_FILE))
}

/// Whether this may be what TensorFlow Serving takes as `--model_config_file`.
fn is_config(path: &Path) -> bool {
    let endings = ["conf", "config", "prototxt", "textproto"];
    path.extension().is_some_and(|extension| endings.iter().any(|ending| extension == *ending))
}

/// What a version's model file is called, and where in its folder it lies.
struct ModelFile<'b> {
    /// The entry of the folder that it is, or that it lies in.
    first: &'b OsStr,
    /// The whole path below the folder.
    path: &'b Path,
    /// Whether the format has said what is wrong, so that a missing file adds nothing.
    is_refused: bool,
}

impl<'b> ModelFile<'b> {
    fn of(beside: &'b Beside) -> Self {
        let path = Path::new(beside.model_file.as_deref().unwrap_or(MODEL_FILE));
        let is_refused = beside.is_foreign && beside.manifest.is_none();
        ModelFile { first: path.iter().next().unwrap_or_default(), path, is_refused }
    }
}

#[derive(Default)]
struct Scanner {
    /// Without links.
    root: PathBuf,
    found: Named,
    refused: Vec<(ModelName, ModelVersion)>,
    problems: Vec<Problem>,
    /// The folders that a list names, without links.
    listed: BTreeSet<PathBuf>,
}

impl Scanner {
    fn into_scan(self) -> Scan {
        self.found.into_scan(self.refused, self.problems)
    }

    fn problem(&mut self, place: &Path, rule: impl Into<String>, remedy: impl Into<String>) {
        self.problems.push(Problem::of_place(place.display(), rule, remedy));
    }

    fn problem_of(&mut self, model: &ModelName, place: &Path, rule: String, remedy: String) {
        self.problems.push(Problem::of_place(place.display(), rule, remedy).of_model(model));
    }

    fn list(&mut self, folder: &Path, ask: Ask) -> Option<Vec<Listed>> {
        match list(folder, ask) {
            Ok(listed) => Some(listed),
            Err(error) => {
                self.problem(folder, format!("cannot be read: {error}"), "check its permissions");
                None
            }
        }
    }

    /// Returns what of a folder does not lead out of the root. Only a link can lead out of a folder that lies inside the root.
    fn inside(&mut self, listed: &[Listed]) -> Vec<Entry> {
        let mut entries = Vec::with_capacity(listed.len());
        for entry in listed {
            let Listed { name, path, kind, .. } = entry;
            if *kind != Kind::Link {
                entries.extend(Entry::of_own(entry));
                continue;
            }
            let (name, path) = (name.clone(), path.clone());
            match path.canonicalize() {
                Ok(target) if !target.starts_with(&self.root) => self.leads_out(&path),
                Ok(target) => entries.push(Entry { is_folder: target.is_dir(), name, path }),
                Err(error) => {
                    self.problem(&path, format!("cannot be read: {error}"), "mend or remove it");
                }
            }
        }
        entries
    }

    fn leads_out(&mut self, path: &Path) {
        let rule = format!("the link leads out of {}", self.root.display());
        self.problem(path, rule, "put the file itself here, or give its own path to the server");
    }

    fn folder_of_models(&mut self, folder: &Path, entries: &[Entry], listed: &[Listed]) {
        let nothing_yet = self.problems.is_empty();
        for entry in entries {
            if entry.is_folder {
                if let Some(inner) = self.list(&entry.path, Ask::NoMore) {
                    let inner = self.inside(&inner);
                    self.model(&entry.name, &entry.path, &inner);
                }
            } else if entry.is_file(MANIFEST_FILE) {
                let rule = "there is no model beside this file";
                self.problem(&entry.path, rule, "move it into the folder of its model");
            } else if is_onnx(&entry.path) {
                let path = &entry.path;
                self.model_file(path, || of_listing(ModelVersion(1), path, listed));
            }
        }
        if nothing_yet && self.found.is_empty() && self.problems.is_empty() {
            let remedy = format!("add NAME/{MODEL_FILE} or NAME/VERSION/{MODEL_FILE}");
            self.problem(folder, "there are no models in this folder", remedy);
        }
    }

    /// One file that is a whole model.
    fn model_file(&mut self, path: &Path, artefact: impl FnOnce() -> io::Result<VersionArtefact>) {
        let Some(name) = self.name(path.file_stem().unwrap_or_default(), path) else { return };
        let Some(version) = self.readable(&name, path, artefact) else { return };
        let (manifest, beside) = (ModelManifest::default(), Identity::default());
        let (path, versions) = (path.to_owned(), vec![version]);
        self.add(ModelFolder { name, path, manifest, beside, versions });
    }

    /// Takes the models that a file of TensorFlow Serving lists, wherever their folders are.
    fn config(&mut self, file: &Path) {
        let (models, problems) = read_config(file);
        self.problems.extend(problems);
        for tensorflow::Listed { folder, foreign } in models {
            // That there is no such folder is one of its problems.
            let root = folder.canonicalize().unwrap_or_default();
            let mut inner = Scanner { root, ..Scanner::default() };
            let entries = match folder.is_dir() {
                true => inner.list(&folder, Ask::NoMore).map(|listed| inner.inside(&listed)),
                false => Some(Vec::new()),
            };
            if let (Some(entries), Some(name)) = (entries, foreign.name.clone()) {
                let beside = read_beside_listed(&folder, &entries, file, foreign);
                inner.declared_model(name, &folder, &entries, beside);
            }
            self.problems.append(&mut inner.problems);
            self.refused.append(&mut inner.refused);
            self.listed.insert(inner.root);
            inner.found.models.into_values().for_each(|model| self.add(model));
            inner.found.pipelines.into_values().for_each(|found| self.add_pipeline(found));
        }
    }

    /// Warns of models beside a list that does not name them.
    fn unlisted(&mut self, entries: &[Entry]) {
        for entry in entries.iter().filter(|entry| entry.is_folder) {
            let is_listed =
                || entry.path.canonicalize().is_ok_and(|path| self.listed.contains(&path));
            let Ok(inner) = list(&entry.path, Ask::NoMore) else { continue };
            let inner: Vec<Entry> = inner.iter().filter_map(Entry::of_own).collect();
            if is_model_folder(&inner) && !is_listed() {
                let rule = format!("is not served, since {CONFIG_FILE} does not list it");
                let problem = Problem::of_place(entry.path.display(), rule, "list it there");
                self.problems.push(problem.warning());
            }
        }
    }

    fn model(&mut self, name: &OsStr, folder: &Path, entries: &[Entry]) {
        if is_pipeline_folder(entries) {
            let path = folder.join(PIPELINE_FILE);
            if !is_model_folder(entries) {
                return self.pipeline(name, path, entries);
            }
            let rule = "a folder holds a model or a pipeline, and a model is here";
            self.problem(&path, rule, "move one of the two to a folder of its own");
        }
        let mut beside = read_beside(folder, entries);
        let name = match beside.name.take() {
            Some(name) => name,
            None => match self.name(name, folder) {
                Some(name) => name,
                None => return,
            },
        };
        self.declared_model(name, folder, entries, beside);
    }

    fn pipeline(&mut self, name: &OsStr, path: PathBuf, entries: &[Entry]) {
        let folder = path.parent().unwrap_or(&path);
        let Some(name) = self.name(name, folder) else { return };
        if entries.iter().any(|entry| entry.is_file(MANIFEST_FILE)) {
            let rule = "is not read: a pipeline's steps are models with manifests of their own";
            let problem =
                Problem::of_place(folder.join(MANIFEST_FILE).display(), rule, "remove it");
            self.problems.push(problem.warning().of_model(&name));
        }
        let outline = match read_pipeline(&path) {
            Ok(outline) => Ok(Arc::new(outline)),
            Err(problems) => {
                let first = problems.first().map(Problem::without_place).unwrap_or_default();
                self.problems.extend(problems.into_iter().map(|problem| problem.of_model(&name)));
                Err(first.into())
            }
        };
        self.add_pipeline(PipelineFolder { name, path, outline });
    }

    fn declared_model(
        &mut self,
        name: ModelName,
        folder: &Path,
        entries: &[Entry],
        mut beside: Beside,
    ) {
        let problems = std::mem::take(&mut beside.problems);
        self.problems.extend(problems.into_iter().map(|problem| problem.of_model(&name)));
        if let Some((outline, path)) = beside.pipeline.take() {
            return self.add_pipeline(PipelineFolder { name, path, outline: Ok(outline) });
        }
        let versions = self.versions(&name, folder, entries, &beside);
        match beside.manifest {
            None => {
                let there = || entries.iter().filter_map(Entry::version);
                let mut refused: BTreeSet<_> = versions.iter().map(|of| of.version).collect();
                // A foreign folder may hold no file that we know, and is to be seen all the same.
                refused.extend(there().filter(|_| beside.is_foreign));
                self.refused.extend(refused.into_iter().map(|version| (name.clone(), version)));
            }
            Some(_) if versions.is_empty() => {}
            Some(manifest) => {
                let beside = of_files(&files_of(&manifest));
                let path = folder.to_owned();
                self.add(ModelFolder { name, path, manifest, beside, versions });
            }
        }
    }

    fn versions(
        &mut self,
        name: &ModelName,
        folder: &Path,
        entries: &[Entry],
        beside: &Beside,
    ) -> Vec<VersionArtefact> {
        let file = ModelFile::of(beside);
        let mut artefacts: BTreeMap<ModelVersion, Vec<VersionArtefact>> = BTreeMap::new();
        let mut found_any = false;
        for entry in entries {
            let found = if entry.name == file.first && !entry.is_version() {
                let path = folder.join(file.path);
                self.readable(name, &path, || artefact(ModelVersion(1), &path))
            } else if entry.is_version() {
                self.version(name, entry, &file)
            } else if !beside.is_foreign && entry.holds_onnx() {
                let rule = "the name of a version's folder must be a whole number".to_owned();
                self.problem_of(name, &entry.path, rule, version_remedy(&entry.name));
                None
            } else {
                continue;
            };
            found_any = true;
            if let Some(found) = found {
                artefacts.entry(found.version).or_default().push(found);
            }
        }
        if !found_any && !file.is_refused {
            self.no_model_file(name, folder, entries, &file);
        }
        self.without_duplicates(name, folder, artefacts)
    }

    fn add(&mut self, model: ModelFolder) {
        let added = self.found.add(model);
        self.problems.extend(added.err());
    }

    fn add_pipeline(&mut self, pipeline: PipelineFolder) {
        let added = self.found.add_pipeline(pipeline);
        self.problems.extend(added.err());
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

    fn version(
        &mut self,
        name: &ModelName,
        entry: &Entry,
        file: &ModelFile<'_>,
    ) -> Option<VersionArtefact> {
        let listed = self.list(&entry.path, Ask::Metadata)?;
        let inner = self.inside(&listed);
        let Some(version) = entry.version() else {
            let rule = format!("version numbers go from 1 to {}", u64::MAX);
            self.problem_of(name, &entry.path, rule, "rename the folder".to_owned());
            return None;
        };
        for misplaced in inner.iter().filter(|inner| inner.is_file(MANIFEST_FILE)) {
            let rule = "a version has no manifest of its own".to_owned();
            let remedy = "move the file one folder up, where it holds for all versions".to_owned();
            self.problem_of(name, &misplaced.path, rule, remedy);
        }
        if let Some(format) = format_in(&inner) {
            let rule = "is not read: what is declared holds for all versions";
            let remedy = "move it one folder up";
            let place = entry.path.join(format.file);
            let problem = Problem::of_place(place.display(), rule, remedy);
            self.problems.push(problem.warning().of_model(name));
        }
        if !inner.iter().any(|inner| inner.name == file.first) {
            if !file.is_refused {
                self.no_model_file(name, &entry.path, &inner, file);
            }
            return None;
        }
        let path = entry.path.join(file.path);
        let lies_here = path.parent() == Some(&entry.path);
        self.readable(name, &path, || match lies_here {
            true => of_listing(version, &path, &listed),
            false => artefact(version, &path),
        })
    }

    fn no_model_file(
        &mut self,
        name: &ModelName,
        folder: &Path,
        entries: &[Entry],
        file: &ModelFile<'_>,
    ) {
        let expected = file.path.display();
        let other = entries.iter().find(|entry| !entry.is_folder && is_onnx(&entry.path));
        let remedy = match other {
            Some(other) => format!("rename {} to {expected}", other.name.to_string_lossy()),
            None => format!("put the model here as {expected}, or remove the folder"),
        };
        self.problem_of(name, folder, format!("there is no {expected} in this folder"), remedy);
    }

    /// Returns the artefact of a model file that can be opened.
    fn readable(
        &mut self,
        name: &ModelName,
        path: &Path,
        artefact: impl FnOnce() -> io::Result<VersionArtefact>,
    ) -> Option<VersionArtefact> {
        // Opening a pipe would wait for its writer, so what kind it is comes first.
        let found = artefact().and_then(|artefact| File::open(path).map(|_| artefact));
        found
            .inspect_err(|error| {
                let rule = match error.kind() {
                    io::ErrorKind::InvalidInput => NOT_A_FILE.to_owned(),
                    _ => format!("cannot be read: {error}"),
                };
                let remedy = "put a readable model file here".to_owned();
                self.problem_of(name, path, rule, remedy);
            })
            .ok()
    }

    /// Two files of one version number contradict each other: neither is served.
    fn without_duplicates(
        &mut self,
        name: &ModelName,
        folder: &Path,
        artefacts: BTreeMap<ModelVersion, Vec<VersionArtefact>>,
    ) -> Vec<VersionArtefact> {
        let mut versions = Vec::new();
        for (version, mut found) in artefacts {
            if let [_] = found.as_slice()
                && let Some(one) = found.pop()
            {
                versions.push(one);
                continue;
            }
            let within = |artefact: &VersionArtefact| {
                let path = artefact.path.strip_prefix(folder).unwrap_or(&artefact.path);
                path.display().to_string()
            };
            let paths: Vec<String> = found.iter().map(within).collect();
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
