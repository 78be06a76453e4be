//! Where the library lies.
//!
//! Invariant: what a user named, by flag or by environment, is used or is an error; only the places
//! that nobody named are tried one after the other. The search keeps every place it looked at and
//! what it found there, since "not found" without that list helps nobody. Nothing is run that
//! another user may have left in a folder above the current one, such as `/tmp`.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use outhaul_engine::LoadError;
use outhaul_types::error_chain;

use crate::api::{Api, LibraryError};
use crate::{ENGINE, OnnxRuntime};

/// The environment variable that names the library.
pub const LIBRARY_VARIABLE: &str = "OUTHAUL_ONNXRUNTIME";

/// Who named a place, or why it was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// `--onnxruntime`.
    Flag,
    /// `OUTHAUL_ONNXRUNTIME`.
    Environment,
    /// The folder of the running program, and `lib` beside that.
    Program,
    /// `.outhaul/onnxruntime` in the current folder or one above, where the make target puts it.
    Project,
    /// The user's data folder.
    UserData,
    /// The active Python environment.
    Python,
    /// The system's library folders.
    System,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Place::Flag => "--onnxruntime",
            Place::Environment => LIBRARY_VARIABLE,
            Place::Program => "beside the program",
            Place::Project => "the project folder",
            Place::UserData => "the user's data folder",
            Place::Python => "the Python environment",
            Place::System => "the system",
        })
    }
}

/// One file or folder that was looked at.
#[derive(Debug)]
pub struct Looked {
    /// Why it was looked at.
    pub place: Place,
    /// The file, or the folder in which no library was found.
    pub path: PathBuf,
    /// The library's version, or why there is none here.
    pub outcome: Result<String, LibraryError>,
}

/// A library that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundLibrary {
    /// Where it was found.
    pub place: Place,
    /// The file.
    pub path: PathBuf,
    /// Its version, such as `1.31.1`.
    pub version: String,
}

/// What a search for the library came to.
#[derive(Debug)]
pub struct LibrarySearch {
    /// Everything that was looked at, in order.
    pub looked: Vec<Looked>,
    /// The first library that can be used.
    pub found: Option<FoundLibrary>,
}

impl LibrarySearch {
    /// Opens the library that was found; `None` where there was none and nobody asked for one.
    ///
    /// # Errors
    ///
    /// Fails where the user named a library that cannot be used, and where the one found cannot be
    /// opened after all.
    pub fn open(&self) -> Result<Option<Arc<OnnxRuntime>>, LoadError> {
        if let Some(found) = &self.found {
            return OnnxRuntime::open(&found.path).map(Some);
        }
        let named = |looked: &&Looked| matches!(looked.place, Place::Flag | Place::Environment);
        match self.looked.iter().find(named) {
            None => Ok(None),
            Some(Looked { place, path, outcome }) => {
                let why = outcome.as_ref().err().map(|error| error_chain(error));
                Err(LoadError::Unavailable {
                    engine: ENGINE,
                    reason: format!(
                        "{place} names {}: {}",
                        path.display(),
                        why.unwrap_or_else(|| "it was not opened".to_owned())
                    ),
                })
            }
        }
    }
}

/// What a search depends on, so that tests can set it.
struct Surroundings {
    environment: fn(&str) -> Option<PathBuf>,
    program: Option<PathBuf>,
    current: Option<PathBuf>,
    /// Tells whether a file or folder can have been put there by root or by this user alone.
    is_ours: fn(&Path) -> bool,
}

/// Looks for the library: what `explicit` or `OUTHAUL_ONNXRUNTIME` names, and only that where one
/// of them is given; else beside the program, in the project, in the user's data folder, in the
/// active Python environment and in the system's folders.
///
/// The library that is found stays open for the rest of the process.
pub fn find_library(explicit: Option<&Path>) -> LibrarySearch {
    let surroundings = Surroundings {
        environment: |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from),
        program: env::current_exe().ok(),
        current: env::current_dir().ok(),
        is_ours,
    };
    surroundings.find(explicit)
}

impl Surroundings {
    fn find(&self, explicit: Option<&Path>) -> LibrarySearch {
        let mut search = LibrarySearch { looked: Vec::new(), found: None };
        let named = match explicit {
            Some(path) => Some((Place::Flag, path.to_owned())),
            None => (self.environment)(LIBRARY_VARIABLE).map(|path| (Place::Environment, path)),
        };
        if let Some((place, path)) = named {
            // A folder is a fair thing to name: it is the one that the make target filled.
            let in_folder = path.is_dir().then(|| libraries_in(&path).into_iter().next()).flatten();
            search.look_at(place, in_folder.unwrap_or(path));
            return search;
        }
        for (place, folder) in self.folders() {
            let libraries = libraries_in(&folder);
            if libraries.is_empty() {
                let outcome = Err(LibraryError::Missing);
                search.looked.push(Looked { place, path: folder, outcome });
                continue;
            }
            for library in libraries {
                if place == Place::Project && !self.is_trusted(&folder, &library) {
                    let outcome = Err(LibraryError::Foreign);
                    search.looked.push(Looked { place, path: library, outcome });
                    continue;
                }
                search.look_at(place, library);
                if search.found.is_some() {
                    return search;
                }
            }
        }
        search
    }

    /// Returns whether nobody but this user and root can have chosen what a project's library is:
    /// whoever owns a folder can put another file into it, and whoever owns a file can write to it.
    fn is_trusted(&self, folder: &Path, library: &Path) -> bool {
        // What a link leads to is what would be run.
        let Ok(target) = library.canonicalize() else { return false };
        let above = folder.ancestors().take(2).chain(target.parent());
        above.chain([library, &*target]).all(self.is_ours)
    }

    /// Returns the folders that nobody had to name, in order.
    fn folders(&self) -> Vec<(Place, PathBuf)> {
        let mut folders = Vec::new();
        if let Some(folder) = self.program.as_deref().and_then(Path::parent) {
            folders.push((Place::Program, folder.to_owned()));
            folders.push((Place::Program, folder.join("lib")));
        }
        let above = self.current.iter().flat_map(|folder| folder.ancestors());
        // Only those that exist: a list of every folder up to the root would hide the rest.
        let projects = above.map(|folder| folder.join(".outhaul/onnxruntime"));
        folders.extend(projects.filter(|path| path.is_dir()).map(|path| (Place::Project, path)));
        let data = (self.environment)("XDG_DATA_HOME")
            .or_else(|| (self.environment)("HOME").map(|home| home.join(".local/share")));
        folders.extend(data.map(|folder| (Place::UserData, folder.join("outhaul"))));
        for variable in ["VIRTUAL_ENV", "CONDA_PREFIX"] {
            if let Some(root) = (self.environment)(variable) {
                folders.extend(python_folders(&root).into_iter().map(|path| (Place::Python, path)));
            }
        }
        folders.extend(SYSTEM_FOLDERS.iter().map(|path| (Place::System, PathBuf::from(path))));
        folders
    }
}

impl LibrarySearch {
    fn look_at(&mut self, place: Place, path: PathBuf) {
        let outcome = Api::open(&path).map(|api| api.version.to_owned());
        if let Ok(version) = &outcome {
            let version = version.clone();
            self.found = Some(FoundLibrary { place, path: path.clone(), version });
        }
        self.looked.push(Looked { place, path, outcome });
    }
}

#[cfg(unix)]
fn is_ours(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;

    // SAFETY: it takes nothing, cannot fail, and changes nothing.
    let user = unsafe { libc::geteuid() };
    // Of a link its own owner counts: whoever made it chose where it leads.
    fs::symlink_metadata(path).is_ok_and(|metadata| [0, user].contains(&metadata.uid()))
}

/// Elsewhere the folders are not shared between users by default.
#[cfg(not(unix))]
fn is_ours(_path: &Path) -> bool {
    true
}

#[cfg(target_os = "macos")]
const SYSTEM_FOLDERS: &[&str] = &["/usr/local/lib", "/opt/homebrew/lib", "/usr/lib"];
#[cfg(not(target_os = "macos"))]
const SYSTEM_FOLDERS: &[&str] = &[
    "/usr/local/lib",
    "/usr/local/lib64",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/lib",
];

/// Returns the folders of a Python environment in which the `onnxruntime` package keeps its
/// library.
fn python_folders(root: &Path) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for lib in ["lib", "lib64"] {
        let Ok(entries) = fs::read_dir(root.join(lib)) else {
            continue;
        };
        let pythons = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
        folders.extend(
            pythons
                .map(|python| python.join("site-packages/onnxruntime/capi"))
                .filter(|capi| capi.is_dir()),
        );
    }
    folders.sort();
    folders
}

/// Returns the library files of a folder: the plain name first, then versioned ones, newest first.
fn libraries_in(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut libraries: Vec<(Vec<u32>, PathBuf)> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter_map(|path| Some((version_of(path.file_name()?)?, path)))
        .collect();
    libraries.sort_by(|(left, _), (right, _)| {
        left.is_empty().cmp(&right.is_empty()).reverse().then_with(|| right.cmp(left))
    });
    libraries.into_iter().map(|(_, path)| path).collect()
}

/// Reads the version out of `libonnxruntime.so.1.31.1` or `libonnxruntime.1.31.1.dylib`: no
/// numbers for the plain name, `None` for any other file.
fn version_of(name: &OsStr) -> Option<Vec<u32>> {
    let name = name.to_str()?;
    if name == "onnxruntime.dll" {
        return Some(Vec::new());
    }
    let rest = name.strip_prefix("libonnxruntime.")?;
    let version = match rest {
        "so" | "dylib" => return Some(Vec::new()),
        _ => rest.strip_prefix("so.").or_else(|| rest.strip_suffix(".dylib"))?,
    };
    version.split('.').map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nowhere() -> Surroundings {
        Surroundings { environment: |_| None, program: None, current: None, is_ours }
    }

    #[test]
    fn file_names_are_told_apart() {
        for (name, expected) in [
            ("libonnxruntime.so", Some(vec![])),
            ("libonnxruntime.so.1.31.1", Some(vec![1, 31, 1])),
            ("libonnxruntime.1.31.1.dylib", Some(vec![1, 31, 1])),
            ("libonnxruntime_providers_shared.so", None),
            ("libonnxruntime.so.debug", None),
            ("libonnxruntime4j_jni.so", None),
        ] {
            assert_eq!(version_of(OsStr::new(name)), expected, "{name}");
        }
    }

    #[test]
    fn the_plain_name_comes_first_and_newer_before_older() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["so.1.9.0", "so.1.31.1", "so"] {
            fs::write(folder.path().join(format!("libonnxruntime.{name}")), b"").unwrap();
        }
        let names: Vec<String> = libraries_in(folder.path())
            .iter()
            .map(|path| path.extension().unwrap().to_string_lossy().into_owned())
            .collect();
        assert_eq!(names, ["so", "1", "0"]);
    }

    #[test]
    fn what_the_user_named_is_used_or_is_an_error() {
        let search = nowhere().find(Some(Path::new("/nonexistent/lib.so")));
        assert_eq!(search.looked.len(), 1, "no other place may be tried");
        let error = search.open().err().unwrap();
        assert_eq!(
            error.to_string(),
            "engine 'onnxruntime' is not available: --onnxruntime names /nonexistent/lib.so: \
             there is no such file"
        );

        let surroundings = Surroundings {
            environment: |name| {
                (name == LIBRARY_VARIABLE)
                    .then(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")))
            },
            ..nowhere()
        };
        let error = surroundings.find(None).open().err().unwrap().to_string();
        assert!(error.contains(LIBRARY_VARIABLE), "{error}");
        assert!(error.contains("cannot be opened as a library"), "{error}");
    }

    #[test]
    fn a_useless_file_is_noted_and_the_search_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let project = folder.path().join(".outhaul/onnxruntime");
        fs::create_dir_all(&project).unwrap();
        fs::write(project.join("libonnxruntime.so"), b"no library").unwrap();
        let current = folder.path().join("some/where");
        fs::create_dir_all(&current).unwrap();
        let surroundings = Surroundings { current: Some(current), ..nowhere() };
        let search = surroundings.find(None);
        let (first, rest) = search.looked.split_first().unwrap();
        assert_eq!(first.place, Place::Project);
        assert!(matches!(first.outcome, Err(LibraryError::NotALibrary(_))));
        assert!(rest.iter().any(|looked| looked.place == Place::System));
    }

    /// A folder below which `.outhaul/onnxruntime` holds a file of the library's name.
    fn project() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let project = folder.path().join(".outhaul/onnxruntime");
        fs::create_dir_all(&project).unwrap();
        let library = project.join("libonnxruntime.so");
        fs::write(&library, b"no library").unwrap();
        (folder, library)
    }

    fn first_outcome(surroundings: &Surroundings) -> Result<String, LibraryError> {
        let search = surroundings.find(None);
        let first = search.looked.into_iter().find(|looked| looked.place == Place::Project);
        first.unwrap().outcome
    }

    #[test]
    fn what_another_user_may_have_planted_is_not_opened() {
        let (folder, _) = project();
        let theirs: [fn(&Path) -> bool; 4] = [
            |path| !path.ends_with("libonnxruntime.so"),
            |path| !path.ends_with("onnxruntime"),
            |path| !path.ends_with(".outhaul"),
            |_| false,
        ];
        for is_ours in theirs {
            let current = Some(folder.path().to_owned());
            let outcome = first_outcome(&Surroundings { current, is_ours, ..nowhere() });
            assert!(matches!(outcome, Err(LibraryError::Foreign)), "{outcome:?}");
        }
        // Where a place was chosen by whoever may choose it, its owner does not matter.
        let library = folder.path().join(".outhaul/onnxruntime");
        let surroundings = Surroundings { is_ours: |_| false, ..nowhere() };
        let search = surroundings.find(Some(&library));
        assert!(matches!(search.looked[0].outcome, Err(LibraryError::NotALibrary(_))));
    }

    #[cfg(unix)]
    #[test]
    fn owners_are_told_apart() {
        let (folder, library) = project();
        assert!(is_ours(&library) && is_ours(Path::new("/")));
        assert!(!is_ours(&folder.path().join("nothing")));
        // Only root can give a file away.
        if std::os::unix::fs::chown(&library, Some(65_534), None).is_ok() {
            // SAFETY: it takes nothing, cannot fail, and changes nothing.
            let user = unsafe { libc::geteuid() };
            assert_eq!(is_ours(&library), user == 65_534);
            let current = Some(folder.path().to_owned());
            let outcome = first_outcome(&Surroundings { current, ..nowhere() });
            assert_eq!(matches!(outcome, Err(LibraryError::Foreign)), user != 65_534);
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_as_good_as_what_it_leads_to() {
        let (folder, library) = project();
        let elsewhere = folder.path().join("planted.so");
        fs::rename(&library, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &library).unwrap();
        let is_ours: fn(&Path) -> bool = |path| !path.ends_with("planted.so");
        let current = Some(folder.path().to_owned());
        let outcome = first_outcome(&Surroundings { current, is_ours, ..nowhere() });
        assert!(matches!(outcome, Err(LibraryError::Foreign)), "{outcome:?}");
    }
}
