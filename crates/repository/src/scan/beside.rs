//! What is declared beside a model: by `model.toml`, or by the file of a foreign format.
//!
//! Invariant: one of them is read, and every other that is there is named in a warning.

use std::path::{Component, Path};

use outhaul_types::{Fill, ModelManifest, ModelName};

use super::folder::Entry;
use crate::formats::{FORMATS, Foreign, Format};
use crate::{MANIFEST_FILE, Problem, read_manifest};

/// What is declared; all of it has a default.
pub(super) struct Beside {
    /// The folder's name where `None`.
    pub(super) name: Option<ModelName>,
    /// With complete paths of files. `None` where something is wrong that forbids to serve the model.
    pub(super) manifest: Option<ModelManifest>,
    /// Below the version's folder, or the model's; as usual where `None`.
    pub(super) model_file: Option<String>,
    /// Whether another format than ours says so.
    pub(super) is_foreign: bool,
    pub(super) problems: Vec<Problem>,
}

/// Returns the foreign format that a folder is in.
pub(super) fn format_in(entries: &[Entry]) -> Option<&'static Format> {
    FORMATS.iter().find(|format| entries.iter().any(|entry| entry.is_file(format.file)))
}

/// Reads what is declared in a model's folder.
pub(super) fn read_beside(folder: &Path, entries: &[Entry]) -> Beside {
    let is_there = |file: &str| entries.iter().any(|entry| entry.is_file(file));
    let formats = FORMATS.iter().filter(|format| is_there(format.file));
    let (mut beside, read, unread) = if is_there(MANIFEST_FILE) {
        (ours(folder), MANIFEST_FILE, formats.collect::<Vec<_>>())
    } else {
        let mut formats = formats;
        match formats.next() {
            None => return Beside::of_default(),
            Some(format) => (foreign(folder, format), format.file, formats.collect()),
        }
    };
    for format in unread {
        let rule = format!("is not read, since {read} is here too");
        let place = folder.join(format.file);
        let problem = Problem::of_place(place.display(), rule, "remove one of the two");
        beside.problems.push(problem.warning());
    }
    beside
}

impl Beside {
    fn of_default() -> Self {
        let manifest = Some(ModelManifest::default());
        Beside { name: None, manifest, model_file: None, is_foreign: false, problems: Vec::new() }
    }
}

fn ours(folder: &Path) -> Beside {
    let mut read = read_manifest(&folder.join(MANIFEST_FILE));
    if let Ok(manifest) = &mut read {
        let problems = complete(folder, manifest);
        if !problems.is_empty() {
            read = Err(problems);
        }
    }
    match read {
        Ok(manifest) => Beside { manifest: Some(manifest), ..Beside::of_default() },
        Err(problems) => Beside { manifest: None, problems, ..Beside::of_default() },
    }
}

/// Makes the paths of files complete, which are declared relative to the model's folder.
fn complete(folder: &Path, manifest: &mut ModelManifest) -> Vec<Problem> {
    let mut problems = Vec::new();
    let requests = manifest.warmup.iter_mut().flatten();
    for input in requests.flat_map(|request| &mut request.inputs) {
        let Fill::File(file) = &mut input.fill else { continue };
        *file = folder.join(&*file);
        let rule = match file.canonicalize().and_then(|file| Ok((file, folder.canonicalize()?))) {
            Ok((file, folder)) if file.starts_with(&folder) && file.is_file() => continue,
            Ok((file, _)) if !file.is_file() => "is not a file".to_owned(),
            Ok(_) => "the link leads out of the model's folder".to_owned(),
            Err(error) => format!("cannot be read: {error}"),
        };
        let remedy = format!("put the file that warm-up needs here, or mend {MANIFEST_FILE}");
        problems.push(Problem::of_place(file.display(), rule, remedy));
    }
    problems
}

fn foreign(folder: &Path, format: &Format) -> Beside {
    of_foreign((format.read)(folder), &folder.join(format.file))
}

/// Reads what is declared in a model's folder that a list names, in `file`. What lies in the folder
/// itself comes before the list, except for the name.
pub(super) fn read_beside_listed(
    folder: &Path,
    entries: &[Entry],
    file: &Path,
    foreign: Foreign,
) -> Beside {
    let is_declared = entries.iter().any(|entry| entry.is_file(MANIFEST_FILE));
    if !is_declared && format_in(entries).is_none() {
        return of_foreign(foreign, file);
    }
    let own = read_beside(folder, entries);
    let rule = "is read for the model's name and folder only, since it has declarations of its own";
    let problem = Problem::of_place(file.display(), rule, "remove one of the two").warning();
    Beside { name: foreign.name, problems: [vec![problem], own.problems].concat(), ..own }
}

fn of_foreign(foreign: Foreign, file: &Path) -> Beside {
    let Foreign { name, mut manifest, mut model_file, mut problems } = foreign;
    if let Some(path) = model_file.take_if(|path| !stays_inside(Path::new(path))) {
        let rule = format!("the model file '{path}' does not lie in the model's folder");
        problems.push(Problem::of_place(file.display(), rule, "put it there and name it here"));
        manifest = None;
    }
    Beside { name, manifest, model_file, is_foreign: true, problems }
}

fn stays_inside(path: &Path) -> bool {
    let mut components = path.components().peekable();
    components.peek().is_some() && components.all(|part| matches!(part, Component::Normal(_)))
}
