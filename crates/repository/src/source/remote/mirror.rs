//! A folder that looks like what is in a store, so that both are scanned by the same rules.
//!
//! Declarations are there with their content; every other object is a file of its size that takes
//! no room. Invariant: after [`Mirror::sync`] the folder holds the names of the last listing and no
//! others. It belongs to one process and goes with it; nothing in it is ever loaded.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use futures_util::StreamExt;
use object_store::ObjectStore;

use super::super::cache::{Work, disk, remove_if_there};
use super::SourceError;
use super::download::{Broken, receive};
use super::objects::{Object, Objects, is_declaration};

/// Declarations are asked for so many at a time.
const AT_A_TIME: usize = 8;

/// The folder and what is in it.
#[derive(Debug)]
pub(super) struct Mirror {
    work: Work,
    /// What names are relative to.
    folder: PathBuf,
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    /// See [`Object::version`].
    version: String,
    has_content: bool,
}

impl Mirror {
    /// Makes the folder. A model's name may come from its folder, so that is called as it is in
    /// the store.
    pub(super) fn new(work: Work, name: &str) -> Result<Self, SourceError> {
        let folder = work.path.join(name);
        fs::create_dir_all(&folder).map_err(|error| disk(&folder, &error))?;
        Ok(Mirror { work, folder, entries: BTreeMap::new() })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes the folder like a listing. Returns the declarations whose content could not be had,
    /// each with what was in the way; they are in the folder without it.
    pub(super) async fn sync(
        &mut self,
        store: &dyn ObjectStore,
        objects: &Objects,
    ) -> Result<Vec<(String, Broken)>, SourceError> {
        let folder = self.folder.clone();
        self.change_names(objects).map_err(|error| disk(&folder, &error))?;
        let wanted = objects.by_name.iter().filter(|(name, object)| {
            let has_content = self.entries.get(*name).is_some_and(|entry| entry.has_content);
            !has_content && is_declaration(name, object)
        });
        let wanted: Vec<_> = wanted.map(|(name, object)| (name.as_str(), object)).collect();
        Ok(self.fill(store, wanted).await)
    }

    /// Gives files their content, and returns those whose content could not be had.
    pub(super) async fn fill(
        &mut self,
        store: &dyn ObjectStore,
        wanted: Vec<(&str, &Object)>,
    ) -> Vec<(String, Broken)> {
        let bring = |(name, object): (&str, &Object)| {
            let (name, object) = (name.to_owned(), object.clone());
            async move {
                let mut content = Vec::new();
                let received = receive(store, &object, &mut content).await;
                (name, received.map(|_| content))
            }
        };
        let requests: Vec<_> = wanted.into_iter().map(bring).collect();
        let mut arriving = futures_util::stream::iter(requests).buffer_unordered(AT_A_TIME);
        let mut missing = Vec::new();
        while let Some((name, content)) = arriving.next().await {
            let written =
                content.and_then(|content| self.replace(&name, &content).map_err(Broken::Disk));
            match written {
                Ok(()) => {
                    if let Some(entry) = self.entries.get_mut(&name) {
                        entry.has_content = true;
                    }
                }
                Err(broken) => missing.push((name, broken)),
            }
        }
        missing
    }

    /// Returns whether a file here has the content that the store has under this name.
    pub(super) fn has_content(&self, name: &str) -> bool {
        self.entries.get(name).is_some_and(|entry| entry.has_content)
    }

    /// Removes and adds files. What is done is noted at once, so that a failure leaves no untruth.
    fn change_names(&mut self, objects: &Objects) -> io::Result<()> {
        let is_as_listed = |name: &str, entry: &Entry| {
            objects.by_name.get(name).is_some_and(|object| object.version() == entry.version)
        };
        let stale = self.entries.iter().filter(|(name, entry)| !is_as_listed(name, entry));
        let stale: Vec<String> = stale.map(|(name, _)| name.clone()).collect();
        for name in stale {
            // A folder may take the place of a file and the other way round, so all goes first.
            let path = self.folder.join(&name);
            remove_if_there(&path)?;
            self.entries.remove(&name);
            self.remove_empty_folders(&path);
        }
        for (name, object) in &objects.by_name {
            if self.entries.contains_key(name) {
                continue;
            }
            let path = self.folder.join(name);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            let file = File::create_new(&path)?;
            let entry = Entry { version: object.version(), has_content: false };
            self.entries.insert(name.clone(), entry);
            // A declaration without its content must not be read as one of zeros, and a size that
            // the file system refuses is still the listing's.
            if !is_declaration(name, object) {
                let _ = file.set_len(object.bytes);
            }
        }
        Ok(())
    }

    fn remove_empty_folders(&self, path: &Path) {
        let above = path.ancestors().skip(1);
        for folder in above.take_while(|folder| *folder != self.folder) {
            if fs::remove_dir(folder).is_err() {
                return;
            }
        }
    }

    /// Whoever reads the file meanwhile sees the old content or the new.
    fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let new = self.work.path.join("arriving");
        fs::write(&new, content)?;
        fs::rename(&new, self.folder.join(name))
    }
}
