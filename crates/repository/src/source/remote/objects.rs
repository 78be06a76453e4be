//! What a listing says: which objects may have a place in a folder, and which of them a version is.
//!
//! Everything here is a function of the listing alone. Invariant: a name that is kept leads to a
//! place below the folder that it is put into, and no two names exclude each other there.

use std::collections::BTreeMap;
use std::time::SystemTime;

use object_store::ObjectMeta;
use object_store::path::Path;
use outhaul_types::ModelVersion;
use sha2::{Digest, Sha256};

use super::super::cache::hexadecimal;
use crate::formats::FORMATS;
use crate::{Identity, MANIFEST_FILE, MODEL_FILE, PIPELINE_FILE, Problem};

/// The longest name of a file, and the longest of an object, that are taken: what file systems and
/// stores have in common.
const LONGEST_PART: usize = 255;
const LONGEST_NAME: usize = 1024;

/// Declarations beyond this size are not read.
pub(super) const LARGEST_DECLARATION: u64 = 1024 * 1024;

/// What lies beside a model in its own folder and is no part of it, as for local folders.
const DOCUMENTS: [&str; 12] =
    ["config", "csv", "html", "ipynb", "json", "log", "md", "pbtxt", "py", "txt", "yaml", "yml"];

/// What may declare something, beside the files that formats are told by.
const DECLARATIONS: [&str; 7] = ["config", "json", "pbtxt", "toml", "txt", "yaml", "yml"];

/// One object, as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) location: Path,
    pub(super) bytes: u64,
    pub(super) changed: SystemTime,
    pub(super) tag: Option<String>,
}

impl Object {
    /// Returns what differs where the content does, as far as the store tells.
    pub(super) fn version(&self) -> String {
        let since = self.changed.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        match &self.tag {
            Some(tag) => format!("{} {tag}", self.bytes),
            None => format!("{} {}", self.bytes, since.as_nanos()),
        }
    }
}

/// The objects below a place, by their names relative to it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Objects {
    pub(super) by_name: BTreeMap<String, Object>,
    pub(super) problems: Vec<Problem>,
}

/// The files that are one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Members {
    /// The model file's name; the others' are relative to its folder.
    pub(super) model_file: String,
    pub(super) files: Vec<(String, Object)>,
}

impl Objects {
    /// Keeps the objects whose names can be those of files below `folder`. `place` is its URL.
    pub(super) fn new(
        place: &str,
        folder: &Path,
        listed: Vec<ObjectMeta>,
        unnameable: &[String],
    ) -> Self {
        let mut objects = Objects::default();
        let rename = "rename or remove the object";
        let mut refuse = |name: &str, rule: &str| {
            let place = format!("{place}: the object {name:?}");
            objects.problems.push(Problem::of_place(place, rule, rename));
        };
        for name in unnameable {
            refuse(name, "its name has empty parts, '.', '..' or control characters");
        }
        for meta in listed {
            let location = meta.location.as_ref();
            let Some(name) = below(folder.as_ref(), location) else {
                refuse(location, "it does not lie below this place");
                continue;
            };
            // The folder's own mark, and what is hidden: nobody's business in local folders either.
            if name.is_empty() || name.split('/').any(is_hidden) {
                continue;
            }
            match rule_broken_by(name) {
                Some(rule) => refuse(name, rule),
                None => drop(objects.by_name.insert(name.to_owned(), Object::of(&meta))),
            }
        }
        objects.without_names_of_folders(place);
        objects
    }

    /// An object may be named like the folder of others. Empty ones are what consoles make to show
    /// a folder; anything else has no place in a file system.
    fn without_names_of_folders(&mut self, place: &str) {
        let mut folders: Vec<String> = Vec::new();
        for name in self.by_name.keys() {
            folders.extend(name.match_indices('/').map(|(end, _)| name[..end].to_owned()));
        }
        for folder in folders {
            if self.by_name.remove(&folder).is_some_and(|object| object.bytes > 0) {
                let rule = "its name is also that of a folder with other objects";
                let place = format!("{place}/{folder}");
                self.problems.push(Problem::of_place(place, rule, "rename the object"));
            }
        }
    }

    /// Returns the files of the version whose model file this is.
    pub(super) fn members(&self, version: ModelVersion, model_file: &str) -> Members {
        let (folder, file_name) = model_file.rsplit_once('/').unwrap_or(("", model_file));
        let inside = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        // Names that start with the folder's follow one another.
        let beside: Vec<(&str, &Object)> = self
            .by_name
            .range(inside.clone()..)
            .map_while(|(name, object)| Some((name.strip_prefix(&inside)?, object)))
            .collect();
        let belongs = Belongs::of(version, folder, file_name, &beside);
        let files = beside.into_iter().filter(|(name, _)| belongs.holds(name));
        let files = files.map(|(name, object)| (name.to_owned(), object.clone())).collect();
        Members { model_file: file_name.to_owned(), files }
    }
}

impl Object {
    fn of(meta: &ObjectMeta) -> Self {
        Object {
            location: meta.location.clone(),
            bytes: meta.size,
            changed: meta.last_modified.into(),
            tag: meta.e_tag.clone(),
        }
    }
}

impl Members {
    /// Returns what changes when one of the files does.
    pub(super) fn identity(&self, place: &str) -> Identity {
        let mut digest = Sha256::new();
        let mut add = |text: &str| {
            digest.update((text.len() as u64).to_le_bytes());
            digest.update(text);
        };
        add(place);
        for (name, object) in &self.files {
            for text in [name, object.location.as_ref(), &object.version()] {
                add(text);
            }
        }
        Identity::new(&hexadecimal(&digest.finalize()[..16]))
    }

    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|(_, object)| object.bytes).sum()
    }

    pub(super) fn changed(&self) -> Option<SystemTime> {
        self.files.iter().map(|(_, object)| object.changed).max()
    }
}

/// Which objects below the model file's folder belong to the version: the rules of local folders.
enum Belongs<'n> {
    /// The folder is the version's.
    All,
    /// The folder is the model's.
    AllButDocuments { model_file: &'n str },
    /// The folder holds other models too.
    NamesThatGoOnFrom { model_file: &'n str, stem: &'n str },
}

impl<'n> Belongs<'n> {
    fn of(
        version: ModelVersion,
        folder: &str,
        model_file: &'n str,
        beside: &[(&str, &Object)],
    ) -> Self {
        let folder = folder.rsplit('/').next().unwrap_or_default();
        let is_versions = folder.parse() == Ok(version.0);
        let is_usual = model_file == MODEL_FILE;
        let is_model = |name: &str| name.ends_with(".onnx") && !name.contains('/');
        let is_only = || beside.iter().filter(|(name, _)| is_model(name)).count() == 1;
        let is_declared = || beside.iter().any(|(name, _)| declares(name));
        if is_versions && (is_usual || is_only()) {
            Belongs::All
        } else if is_usual || is_declared() {
            Belongs::AllButDocuments { model_file }
        } else {
            let stem = model_file.strip_suffix(".onnx").unwrap_or(model_file);
            Belongs::NamesThatGoOnFrom { model_file, stem }
        }
    }

    fn holds(&self, name: &str) -> bool {
        let first = name.split('/').next().unwrap_or(name);
        let is_folder = first.len() < name.len();
        if first == MANIFEST_FILE && !is_folder {
            return false;
        }
        match self {
            Belongs::All => true,
            Belongs::AllButDocuments { model_file } => {
                let is_number = is_folder && first.bytes().all(|byte| byte.is_ascii_digit());
                let is_other = !is_folder
                    && (first.ends_with(".onnx") || declares(first) || has(&DOCUMENTS, first));
                name == *model_file || !(is_number || is_other)
            }
            Belongs::NamesThatGoOnFrom { model_file, stem } => {
                let rest = name.strip_prefix(stem).and_then(|rest| rest.bytes().next());
                let goes_on = matches!(rest, Some(b'.' | b'_'));
                name == *model_file || goes_on && !is_folder && !name.ends_with(".onnx")
            }
        }
    }
}

/// Returns whether an object is small and may declare something, so that its content is needed to
/// know what there is. What lies in versions' folders declares nothing, except under known names.
pub(super) fn is_declaration(name: &str, object: &Object) -> bool {
    let mut folders = name.split('/').rev();
    let file = folders.next().unwrap_or(name);
    let is_known = matches!(file, MANIFEST_FILE | PIPELINE_FILE) || declares(file);
    let is_in_version = folders.any(|folder| folder.bytes().all(|byte| byte.is_ascii_digit()));
    object.bytes <= LARGEST_DECLARATION && (is_known || has(&DECLARATIONS, file) && !is_in_version)
}

fn is_hidden(part: &str) -> bool {
    part.starts_with('.') && !matches!(part, "." | "..")
}

fn declares(file: &str) -> bool {
    FORMATS.iter().any(|format| format.file == file)
}

fn has(extensions: &[&str], name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, extension)| extensions.contains(&extension))
}

/// Returns the name of an object relative to a folder; empty for the folder's own.
fn below<'n>(folder: &str, location: &'n str) -> Option<&'n str> {
    match location.strip_prefix(folder)? {
        rest if folder.is_empty() || rest.is_empty() => Some(rest),
        rest => rest.strip_prefix('/'),
    }
}

/// Returns the rule that a name breaks, where it cannot be a file's below a folder.
fn rule_broken_by(name: &str) -> Option<&'static str> {
    if name.len() > LONGEST_NAME || name.split('/').any(|part| part.len() > LONGEST_PART) {
        return Some("a name has at most 255 bytes between two '/' and 1024 in all");
    }
    if name.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Some("a name with an empty part, '.' or '..' may lead out of the folder");
    }
    name.contains(|letter: char| letter == '\\' || letter.is_control())
        .then_some("a name has no '\\' and no control characters")
}

#[cfg(test)]
mod tests;
