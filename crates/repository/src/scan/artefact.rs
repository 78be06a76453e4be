//! Which files are a version, and what tells their content from another.
//!
//! The files are told by the model file's path alone, so that whoever holds an artefact can look
//! again and compare. An ONNX file names its external weights relative to its own folder and never
//! outside of it, so that folder is all that has to be looked at:
//! - in a version's folder, everything;
//! - in a model's own folder, everything but documents, other models and version folders;
//! - in a folder of Hugging Face, the same without other forms of the weights; with weights that a graph
//!   is made of, what says how;
//! - a file that is a whole model, among others: itself, and files whose names go on from its own.
//!
//! Invariant: no content is read. Equal identities mean equal content unless somebody turned back
//! the clock.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use outhaul_types::ModelVersion;
use sha2::{Digest, Sha256};

use super::listing::{Ask, Kind, Listed, list};
use super::{Identity, MODEL_FILE, VersionArtefact, is_onnx};
use crate::MANIFEST_FILE;
use crate::formats::{FORMATS, Format, huggingface};

/// Folders in folders are looked at so deep, which is enough for any exporter. Links to folders are
/// not followed: they may lead in circles.
const DEEPEST: usize = 4;

/// What lies beside a model in its folder and is no part of it.
const DOCUMENTS: [&str; 12] =
    ["config", "csv", "html", "ipynb", "json", "log", "md", "pbtxt", "py", "txt", "yaml", "yml"];

pub(super) const NOT_A_FILE: &str = "is not a file";

/// Looks at the files of a version.
///
/// # Errors
///
/// Fails where the model file or its folder cannot be read.
pub fn artefact(version: ModelVersion, model_file: &Path) -> io::Result<VersionArtefact> {
    let listed = list(folder_of(model_file), Ask::NoMore)?;
    of_listing(version, model_file, &listed)
}

/// Returns the paths of a version's files, relative to the folder of its model file, which comes
/// first.
///
/// # Errors
///
/// Fails where the model file or its folder cannot be read.
pub fn artefact_files(version: ModelVersion, model_file: &Path) -> io::Result<Vec<PathBuf>> {
    let listed = list(folder_of(model_file), Ask::NoMore)?;
    let mut paths = Vec::new();
    each_file(version, model_file, &listed, &mut |path, _| paths.push(path.to_owned()))?;
    Ok(paths)
}

fn folder_of(model_file: &Path) -> &Path {
    match model_file.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

/// As [`artefact`], where the model file's folder has been listed already.
pub(super) fn of_listing(
    version: ModelVersion,
    model_file: &Path,
    listed: &[Listed],
) -> io::Result<VersionArtefact> {
    let (mut hash, mut bytes, mut changed) = (Sha256::new(), 0_u64, None);
    each_file(version, model_file, listed, &mut |path, metadata| {
        let (state, inode_changed) = what_changes(metadata);
        let name = path.as_os_str().as_encoded_bytes();
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name);
        hash.update(state);
        bytes = bytes.saturating_add(metadata.len());
        changed = changed.max(inode_changed);
    })?;
    let (path, identity) = (model_file.to_owned(), of_digest(hash));
    Ok(VersionArtefact { version, path, identity, bytes, changed })
}

/// Returns what changes when one of these files does; nothing where there are none.
pub(super) fn of_files(files: &[PathBuf]) -> Identity {
    if files.is_empty() {
        return Identity::default();
    }
    let mut hash = Sha256::new();
    for file in files {
        let name = file.as_os_str().as_encoded_bytes();
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name);
        // What went away is told from what is there.
        if let Ok(metadata) = fs::metadata(file) {
            hash.update(what_changes(&metadata).0);
        }
    }
    of_digest(hash)
}

fn of_digest(hash: Sha256) -> Identity {
    let digest = hash.finalize();
    let text: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    Identity::new(&text)
}

/// Takes each file with its path below the model file's folder.
type Take<'t> = dyn FnMut(&Path, &Metadata) + 't;

fn each_file(
    version: ModelVersion,
    model_file: &Path,
    listed: &[Listed],
    take: &mut Take<'_>,
) -> io::Result<()> {
    let belongs = Belongs::of(version, model_file, listed);
    let name = model_file.file_name().unwrap_or_default();
    let metadata = match find(listed, name).and_then(Listed::metadata) {
        Some(metadata) => metadata,
        None => fs::metadata(model_file)?,
    };
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, NOT_A_FILE));
    }
    take(Path::new(name), &metadata);
    let others = belongs.candidates(listed).iter().filter(|entry| entry.name != name);
    each_of(Path::new(""), others.filter(|entry| belongs.holds(entry)), 0, take);
    Ok(())
}

fn is_told(format: &Format, listed: &[Listed]) -> bool {
    format.is_told_by(|name| find(listed, OsStr::new(name)).is_some())
}

fn each_of<'l>(
    prefix: &Path,
    entries: impl Iterator<Item = &'l Listed>,
    depth: usize,
    take: &mut Take<'_>,
) {
    for entry in entries {
        // What went away since it was listed is no longer part of the version.
        let Some(metadata) = entry.metadata() else { continue };
        let path = prefix.join(&entry.name);
        if metadata.is_file() {
            take(&path, &metadata);
        } else if entry.kind == Kind::Folder && depth < DEEPEST {
            let Ok(inner) = list(&entry.path, Ask::Metadata) else { continue };
            each_of(&path, inner.iter(), depth + 1, take);
        }
    }
}

/// Finds a name in a listing, which is in order of names.
fn find<'l>(listed: &'l [Listed], name: &OsStr) -> Option<&'l Listed> {
    let found = listed.binary_search_by(|entry| entry.name.as_os_str().cmp(name));
    listed.get(found.ok()?)
}

/// Which entries of the model file's folder belong to the version.
enum Belongs<'p> {
    /// The folder is the version's.
    All,
    /// The folder is the model's.
    AllButDocuments,
    /// The folder is the model's, and holds other forms of it too.
    OneForm {
        /// Whether a graph is made of weights, which may lie in several files.
        is_weights: bool,
    },
    /// The folder holds other models too.
    NamesThatGoOnFrom(&'p OsStr),
}

impl<'p> Belongs<'p> {
    fn of(version: ModelVersion, model_file: &'p Path, listed: &[Listed]) -> Self {
        let folder = model_file.parent().and_then(Path::file_name).unwrap_or_default();
        let is_versions = folder.to_str().is_some_and(|name| name.parse() == Ok(version.0));
        let is = |name: &str| model_file.file_name() == Some(OsStr::new(name));
        let is_usual = is(MODEL_FILE);
        let is_weights = huggingface::WEIGHTS.into_iter().any(is);
        let models = || listed.iter().filter(|entry| is_onnx(&entry.path)).count();
        let is_declared = || FORMATS.iter().any(|format| is_told(format, listed));
        let has_forms =
            || FORMATS.iter().any(|format| format.is_completed && is_told(format, listed));
        if is_versions && (is_usual || models() == 1) {
            Belongs::All
        } else if is_weights || has_forms() {
            Belongs::OneForm { is_weights }
        } else if is_usual || is_declared() {
            Belongs::AllButDocuments
        } else {
            Belongs::NamesThatGoOnFrom(model_file.file_stem().unwrap_or_default())
        }
    }

    /// Returns the part of a listing that has to be looked at: among a thousand models a search for
    /// each would be a million.
    fn candidates<'l>(&self, listed: &'l [Listed]) -> &'l [Listed] {
        let Belongs::NamesThatGoOnFrom(stem) = self else { return listed };
        let stem = stem.as_encoded_bytes();
        let from = listed.partition_point(|entry| entry.name.as_encoded_bytes() < stem);
        let rest = listed.get(from..).unwrap_or_default();
        let goes_on = |entry: &Listed| entry.name.as_encoded_bytes().starts_with(stem);
        rest.get(..rest.partition_point(goes_on)).unwrap_or_default()
    }

    fn holds(&self, entry: &Listed) -> bool {
        if entry.name == MANIFEST_FILE {
            return false;
        }
        match self {
            Belongs::All => true,
            Belongs::OneForm { is_weights: true } => {
                entry.path.extension() == Some(OsStr::new("safetensors"))
                    || entry.name == huggingface::FILE
            }
            Belongs::OneForm { is_weights: false } => {
                let is_form = huggingface::FORMS.iter().any(|form| entry.name == *form);
                entry.kind != Kind::Folder
                    && !(is_document(entry) || is_form || is_onnx(&entry.path))
            }
            Belongs::AllButDocuments => {
                let name = entry.name.as_encoded_bytes();
                let is_number = name.iter().all(u8::is_ascii_digit);
                let is_folder = entry.kind != Kind::Other;
                let declares = FORMATS.iter().any(|format| entry.name == format.file);
                !(is_document(entry) || declares || is_onnx(&entry.path) || is_folder && is_number)
            }
            Belongs::NamesThatGoOnFrom(stem) => {
                let name = entry.name.as_encoded_bytes();
                let rest = name.strip_prefix(stem.as_encoded_bytes());
                rest.and_then(<[u8]>::first).is_some_and(|next| matches!(next, b'.' | b'_'))
                    && entry.kind != Kind::Folder
                    && !is_onnx(&entry.path)
            }
        }
    }
}

fn is_document(entry: &Listed) -> bool {
    let extension = entry.path.extension();
    extension.is_some_and(|extension| DOCUMENTS.iter().any(|document| extension == *document))
}

/// The time is that of the inode: every write sets it, and unlike the time of the content nobody can
/// set it at will, as tools do that copy times along.
#[cfg(unix)]
fn what_changes(metadata: &Metadata) -> ([u8; 48], Option<SystemTime>) {
    use std::os::unix::fs::MetadataExt;
    use std::time::{Duration, UNIX_EPOCH};
    let numbers = [
        metadata.size().to_le_bytes(),
        metadata.ino().to_le_bytes(),
        metadata.mtime().to_le_bytes(),
        metadata.mtime_nsec().to_le_bytes(),
        metadata.ctime().to_le_bytes(),
        metadata.ctime_nsec().to_le_bytes(),
    ];
    let mut identity = [0; 48];
    identity.copy_from_slice(numbers.as_flattened());
    let seconds = u64::try_from(metadata.ctime()).unwrap_or(0);
    let nanoseconds = u32::try_from(metadata.ctime_nsec()).unwrap_or(0);
    (identity, UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds)))
}

#[cfg(not(unix))]
fn what_changes(metadata: &Metadata) -> ([u8; 48], Option<SystemTime>) {
    use std::time::UNIX_EPOCH;
    let changed = metadata.modified().ok();
    let since = changed.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    let mut identity = [0; 48];
    identity[..8].copy_from_slice(&metadata.len().to_le_bytes());
    identity[8..24].copy_from_slice(&since.as_nanos().to_le_bytes());
    (identity, changed)
}

#[cfg(test)]
mod tests;
