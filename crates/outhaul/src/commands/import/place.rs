//! Where a model goes: written beside, made durable, and put there in one step.
//!
//! Invariant: a folder of models that is being served never shows a model by half. What is being
//! written lies in a folder whose name starts with a dot, which a scan passes over, and which is
//! removed where anything fails.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use outhaul::types::ModelName;
use outhaul_repository::Problem;

/// The folder that a model is to have.
pub(super) struct Place {
    models: PathBuf,
    folder: PathBuf,
    name: ModelName,
}

impl Place {
    pub(super) fn new(models: &Path, name: &ModelName) -> Self {
        let folder = models.join(name.as_str());
        Place { models: models.to_owned(), folder, name: name.clone() }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Checks that nothing is there, or that it may be replaced.
    pub(super) fn check(&self, force: bool) -> Result<(), Problem> {
        let file = self.models.join(format!("{}.onnx", self.name));
        if file.symlink_metadata().is_ok() {
            let rule = format!("the model '{}' is there already", self.name);
            let remedy = "remove it, or give another name with --name";
            return Err(Problem::of_place(file.display(), rule, remedy));
        }
        if !force && self.folder.symlink_metadata().is_ok() {
            let rule = format!("the model '{}' is there already", self.name);
            let remedy = "replace it with --force, or give another name with --name";
            return Err(Problem::of_place(self.folder.display(), rule, remedy));
        }
        Ok(())
    }

    /// Makes the folder that the model is written into first.
    pub(super) fn stage(&self) -> Result<Staged<'_>, Problem> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let (process, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = self.models.join(format!(".import-{}-{process}-{count}", self.name));
        fs::create_dir_all(&self.models)
            .and_then(|()| fs::create_dir(&folder))
            .map_err(|error| unwritable(&folder, &error))?;
        Ok(Staged { place: self, folder })
    }
}

/// A model that is being written.
pub(super) struct Staged<'p> {
    place: &'p Place,
    folder: PathBuf,
}

impl Staged<'_> {
    /// Copies a file to a path below the model's folder.
    pub(super) fn copy(&self, source: &Path, below: &Path) -> Result<(), Problem> {
        let target = self.prepare(below)?;
        let copied = fs::copy(source, &target).and_then(|_| File::open(&target)?.sync_all());
        copied.map_err(|error| {
            let rule = format!("cannot be copied to {}: {error}", self.place.folder.display());
            Problem::of_place(source.display(), rule, "check permissions, and the room on the disk")
        })
    }

    /// Writes a file at a path below the model's folder, and returns where it is until then.
    pub(super) fn write(&self, below: &Path, text: &str) -> Result<PathBuf, Problem> {
        let target = self.prepare(below)?;
        let written = fs::write(&target, text).and_then(|()| File::open(&target)?.sync_all());
        written.map_err(|error| unwritable(&target, &error))?;
        Ok(target)
    }

    /// Returns where a path below the model's folder is until then.
    pub(super) fn path(&self, below: &Path) -> PathBuf {
        self.folder.join(below)
    }

    /// Makes durable what somebody else has written there.
    pub(super) fn make_durable(&self, written: &Path) -> Result<(), Problem> {
        let synced = File::open(written).and_then(|file| file.sync_all());
        synced.map_err(|error| unwritable(written, &error))
    }

    /// Makes the folder of a file that is to be written, and returns its path until then.
    pub(super) fn prepare(&self, below: &Path) -> Result<PathBuf, Problem> {
        let target = self.folder.join(below);
        if target.symlink_metadata().is_ok() {
            let rule = format!("two files would be called {}", below.display());
            let place = self.place.folder.display();
            return Err(Problem::of_place(place, rule, "rename one of them where they come from"));
        }
        let parent = target.parent().unwrap_or(&self.folder);
        fs::create_dir_all(parent).map_err(|error| unwritable(parent, &error))?;
        Ok(target)
    }

    /// Puts the model where it belongs. What was there is removed.
    pub(super) fn put(self) -> Result<(), Problem> {
        let Place { models, folder, .. } = self.place;
        let put = sync_folders(&self.folder)
            .and_then(|()| match folder.symlink_metadata() {
                Ok(_) => exchange(&self.folder, folder),
                Err(_) => fs::rename(&self.folder, folder),
            })
            .and_then(|()| sync(models));
        // Dropping removes what lies in the folder now: nothing, or what was there before.
        put.map_err(|error| unwritable(folder, &error))
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        // It may be gone, or a link. What is left over starts with a dot and is never served.
        let _ = fs::remove_dir_all(&self.folder).or_else(|_| fs::remove_file(&self.folder));
    }
}

/// Makes the names in a folder durable, as `sync_all` does its files.
fn sync_folders(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_folders(&entry.path())?;
        }
    }
    sync(folder)
}

#[cfg(unix)]
fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Elsewhere a folder cannot be opened as a file.
#[cfg(not(unix))]
fn sync(_folder: &Path) -> io::Result<()> {
    Ok(())
}

/// Gives each of two folders the other's name.
#[cfg(any(target_os = "linux", target_os = "macos"))]
fn exchange(new: &Path, old: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    renameat_with(CWD, new, CWD, old, RenameFlags::EXCHANGE)
        .or_else(|_| exchange_in_steps(new, old))
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn exchange(new: &Path, old: &Path) -> io::Result<()> {
    exchange_in_steps(new, old)
}

/// Where the file system has no exchange, the model is not there for an instant.
fn exchange_in_steps(new: &Path, old: &Path) -> io::Result<()> {
    let aside = new.with_extension("old");
    fs::rename(old, &aside)?;
    match fs::rename(new, old) {
        Ok(()) => fs::rename(&aside, new),
        Err(error) => fs::rename(&aside, old).and(Err(error)),
    }
}

fn unwritable(path: &Path, error: &io::Error) -> Problem {
    let remedy = "check its permissions, and the room on the disk";
    Problem::of_place(path.display(), format!("cannot be written: {error}"), remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_was_there_is_exchanged_whole() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::new(folder.path(), &ModelName::new("a").unwrap());
        for round in ["one", "two"] {
            let staged = place.stage().unwrap();
            staged.write(Path::new(round), "").unwrap();
            staged.put().unwrap();
            assert_eq!(files(folder.path()), ["a"]);
            assert_eq!(files(place.folder()), [round]);
        }
        let (new, old) = (folder.path().join(".new"), folder.path().join("a"));
        fs::create_dir(&new).unwrap();
        exchange_in_steps(&new, &old).unwrap();
        assert_eq!((files(&new), files(&old)), (vec!["two".to_owned()], vec![]));
    }

    #[test]
    fn what_fails_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::new(&folder.path().join("models"), &ModelName::new("a").unwrap());
        let staged = place.stage().unwrap();
        staged.write(Path::new("1/x"), "").unwrap();
        assert!(staged.copy(Path::new("nowhere"), Path::new("1/y")).is_err());
        assert!(staged.write(Path::new("1/x"), "").unwrap_err().rule.starts_with("two files"));
        drop(staged);
        assert_eq!(files(&folder.path().join("models")), [] as [&str; 0]);
    }
}
