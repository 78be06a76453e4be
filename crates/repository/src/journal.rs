//! What was asked for and what was refused, kept over restarts in the state store.
//!
//! Invariant: what [`Journal`] has confirmed is durable. A journal that is not opened yet holds
//! nothing; the default one is made by the first thing worth keeping, so that a server that is never
//! asked anything leaves no file behind.

use std::collections::BTreeMap;
use std::path::PathBuf;

use outhaul_state::{StateError, Store};
use outhaul_types::{ModelName, ModelVersion, error_chain};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle as Runtime;

use crate::Identity;
use crate::plan::Id;
use crate::record::Asked;

/// Keeps what must survive a restart.
pub struct Journal {
    store: Option<Store>,
    /// A file that is made when there is something to keep.
    file: Option<PathBuf>,
    runtime: Option<Runtime>,
}

/// A version that was refused, by its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refusal {
    identity: String,
    pub(crate) reason: String,
}

impl Refusal {
    pub(crate) fn new(identity: &Identity, reason: &str) -> Self {
        Refusal { identity: identity.as_str().to_owned(), reason: reason.to_owned() }
    }

    pub(crate) fn is_of(&self, identity: &Identity) -> bool {
        self.identity == identity.as_str()
    }
}

/// Everything that is kept of one place.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) asked: BTreeMap<ModelName, Asked>,
    pub(crate) refused: BTreeMap<Id, Refusal>,
}

impl Journal {
    /// Makes a journal that keeps nothing beyond this process.
    pub fn forgetful() -> Self {
        Journal { store: None, file: None, runtime: None }
    }

    /// Opens the store at `url`, with I/O on `runtime`, which must not be the caller's own.
    ///
    /// # Errors
    ///
    /// Fails where the store cannot be used.
    pub fn open(url: &str, runtime: Runtime) -> Result<Self, StateError> {
        let store = runtime.block_on(Store::open(url))?;
        Ok(Journal { store: Some(store), file: None, runtime: Some(runtime) })
    }

    /// Makes a journal in a SQLite file that is made when there is something to keep.
    ///
    /// # Errors
    ///
    /// Fails where the file is there and cannot be used.
    pub fn in_file(file: PathBuf, runtime: Runtime) -> Result<Self, StateError> {
        let mut journal = Journal { store: None, file: Some(file), runtime: Some(runtime) };
        if journal.file.as_ref().is_some_and(|file| file.exists()) {
            journal.make_file()?;
        }
        Ok(journal)
    }

    fn make_file(&mut self) -> Result<(), StateError> {
        if let (None, Some(file), Some(runtime)) = (&self.store, &self.file, &self.runtime) {
            self.store = Some(runtime.block_on(Store::open_file(file))?);
        }
        Ok(())
    }

    /// Returns whether others may write to the same store, so that it is worth reading again.
    pub(crate) fn is_shared(&self) -> bool {
        self.store.as_ref().is_some_and(|store| store.url().starts_with("postgres"))
    }

    /// Reads what is kept of a place.
    pub(crate) fn read(&self, place: &str) -> Result<Kept, String> {
        match (&self.store, &self.runtime) {
            (Some(store), Some(runtime)) => runtime.block_on(read(store, place)),
            _ => Ok(Kept::default()),
        }
    }

    /// Reads what is kept of a place and hands it to `done`, on another thread: a database that is away
    /// must not hold up who asks.
    pub(crate) fn read_later(
        &self,
        place: String,
        done: impl FnOnce(Result<Kept, String>) + Send + 'static,
    ) {
        if let (Some(store), Some(runtime)) = (self.store.clone(), &self.runtime) {
            runtime.spawn(async move { done(read(&store, &place).await) });
        }
    }

    /// Keeps what was asked for.
    pub(crate) fn ask(
        &mut self,
        place: &str,
        name: &ModelName,
        asked: Asked,
    ) -> Result<(), String> {
        let value = serde_json::to_string(&asked).map_err(|error| error.to_string())?;
        self.put(&asked_space(place), name.as_str(), &value)
    }

    /// Forgets what was asked for.
    pub(crate) fn ask_nothing(&mut self, place: &str, name: &ModelName) -> Result<(), String> {
        self.delete(&asked_space(place), name.as_str())
    }

    /// Keeps that a version was refused.
    pub(crate) fn refuse(&mut self, place: &str, id: &Id, refusal: &Refusal) -> Result<(), String> {
        let value = serde_json::to_string(refusal).map_err(|error| error.to_string())?;
        self.put(&refused_space(place), &key(id), &value)
    }

    /// Forgets that a version was refused.
    pub(crate) fn accept(&mut self, place: &str, id: &Id) -> Result<(), String> {
        self.delete(&refused_space(place), &key(id))
    }

    fn delete(&self, space: &str, key: &str) -> Result<(), String> {
        let (Some(store), Some(runtime)) = (&self.store, &self.runtime) else { return Ok(()) };
        let deleted = runtime.block_on(store.delete(space, key));
        deleted.map(drop).map_err(|error| error_chain(&error))
    }

    fn put(&mut self, space: &str, key: &str, value: &str) -> Result<(), String> {
        self.make_file().map_err(|error| error_chain(&error))?;
        let (Some(store), Some(runtime)) = (&self.store, &self.runtime) else { return Ok(()) };
        runtime.block_on(store.put(space, key, value)).map_err(|error| error_chain(&error))
    }
}

/// Reads what is kept of a place. What cannot be understood (a newer version wrote it) is logged and left
/// alone.
async fn read(store: &Store, place: &str) -> Result<Kept, String> {
    let list = async |space: String| store.list(&space).await.map_err(|error| error_chain(&error));
    let mut kept = Kept::default();
    for (key, value) in list(asked_space(place)).await? {
        match (ModelName::new(&key), serde_json::from_str(&value)) {
            (Ok(name), Ok(asked)) => drop(kept.asked.insert(name, asked)),
            _ => tracing::warn!(key, value, "not understood in the state store; left alone"),
        }
    }
    for (key, value) in list(refused_space(place)).await? {
        match (id(&key), serde_json::from_str(&value)) {
            (Some(id), Ok(refusal)) => drop(kept.refused.insert(id, refusal)),
            _ => tracing::warn!(key, value, "not understood in the state store; left alone"),
        }
    }
    Ok(kept)
}

fn asked_space(place: &str) -> String {
    format!("asked:{place}")
}

fn refused_space(place: &str) -> String {
    format!("refused:{place}")
}

fn key((name, version): &Id) -> String {
    format!("{name}/{version}")
}

fn id(key: &str) -> Option<Id> {
    let (name, version) = key.split_once('/')?;
    Some((ModelName::new(name).ok()?, ModelVersion(version.parse().ok()?)))
}
