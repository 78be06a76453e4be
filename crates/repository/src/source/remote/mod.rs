//! Models in an object store, or on a server that gives files over HTTP.
//!
//! Looking lists what there is and reads declarations; a version's files come when it is fetched,
//! into the cache. Invariant: what is fetched is what was listed when the artefact was found. The
//! size is compared, and the tag is pinned, so that a version that is written while it is read is an
//! error and never a mixture.
//!
//! Nothing is ever written to a store.

mod address;
mod download;
mod failure;
mod listing;
mod mirror;
mod objects;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::{StreamExt, TryStreamExt};
use object_store::ObjectStore;
use object_store::path::Path as Location;
use outhaul_types::Fill;
use tokio::runtime::Handle;

use super::cache::{Cache, CachedFile, Filling, disk, hexadecimal};
use super::{Source, SourceError};
use crate::scan::files_of;
use crate::{Identity, ModelFolder, Problem, Scan, VersionArtefact, scan};
use address::Address;
pub use address::is_url;
use download::{Broken, receive};
use failure::{failure, has_changed, is_refusal};
use mirror::Mirror;
use objects::{Members, Object, Objects};

/// Longer than this no look takes, whatever the store does.
const LOOK_LIMIT: Duration = Duration::from_secs(120);

/// Files of one version are brought here so many at a time.
const AT_A_TIME: usize = 4;

/// The largest file that a declaration may name: tokenizers have up to half of it.
const LARGEST_NAMED: u64 = 64 * 1024 * 1024;

/// Models in an object store or on an HTTP server.
///
/// Calls wait for the network, so they belong on a thread that may block and never into a task.
pub struct Remote {
    address: Address,
    /// What objects' names are relative to.
    folder: Location,
    /// What is scanned in place of the store.
    scanned: PathBuf,
    looking: Mutex<Looking>,
    /// What the last look found.
    found: Mutex<HashMap<Identity, Arc<Members>>>,
    cache: Arc<Cache>,
    runtime: Handle,
}

/// What only one look at a time works on.
struct Looking {
    mirror: Mirror,
    /// What was listed last and what that came to, where nothing was in the way.
    seen: Option<(Objects, Scan)>,
}

impl Remote {
    /// Names a place by its URL: `s3://`, `gs://`, `az://`, `abfs://`, `https://` or `http://`, then a folder of
    /// models, a model's folder or one `.onnx` file. Credentials come from the environment. Nothing
    /// is sent before the first look.
    ///
    /// `runtime` carries the network: one with several threads, or one that somebody else drives.
    ///
    /// # Errors
    ///
    /// Fails where the URL cannot be one of models or may hold credentials, where the environment
    /// contradicts itself, and where the cache cannot be written.
    pub fn open(url: &str, cache: Arc<Cache>, runtime: Handle) -> Result<Self, SourceError> {
        Remote::at(Address::parse(url)?, cache, runtime)
    }

    /// Names the folder `path` in a store that is open already; `place` is what it is called.
    ///
    /// # Errors
    ///
    /// Fails where `path` is not one, and where the cache cannot be written.
    pub fn over(
        store: Arc<dyn ObjectStore>,
        (place, path): (&str, &str),
        cache: Arc<Cache>,
        runtime: Handle,
    ) -> Result<Self, SourceError> {
        let path = Location::parse(path).map_err(|error| SourceError {
            place: place.to_owned(),
            reason: error.to_string(),
            passing: false,
        })?;
        let is_file = path.filename().is_some_and(|name| name.ends_with(".onnx"));
        let address = Address::over(store, "check the credentials");
        let address = Address { place: place.to_owned(), path, is_file, ..address };
        Remote::at(address, cache, runtime)
    }

    fn at(address: Address, cache: Arc<Cache>, runtime: Handle) -> Result<Self, SourceError> {
        let name = address.path.filename().map(str::to_owned);
        // The whole of a bucket is called as the bucket is.
        let name = name.or_else(|| address.place.rsplit('/').next().map(str::to_owned));
        let name = name.filter(|name| !name.is_empty()).unwrap_or_else(|| "models".to_owned());
        let work = cache.work_folder("mirror")?;
        let (mirror, folder) = match address.path.parent() {
            Some(parent) if address.is_file => (Mirror::new(work, "folder")?, parent),
            _ => (Mirror::new(work, &name)?, address.path.clone()),
        };
        let scanned = match address.is_file {
            true => mirror.folder().join(&name),
            false => mirror.folder().to_owned(),
        };
        let looking = Mutex::new(Looking { mirror, seen: None });
        Ok(Remote { address, folder, scanned, looking, found: Mutex::default(), cache, runtime })
    }

    async fn look_now(&self, looking: &mut Looking) -> Result<Scan, Failed> {
        let listing = listing::list(&self.address).await?;
        let place = &self.address.place;
        let objects = Objects::new(place, &self.folder, listing.objects, &listing.unnameable);
        if let Some((before, scan)) = &looking.seen
            && *before == objects
        {
            return Ok(copy(scan));
        }
        looking.seen = None;
        let mirror = &mut looking.mirror;
        let mut unread = mirror.sync(&*self.address.store, &objects).await?;
        let mut scan = scan(&[&self.scanned]);
        let named = named_files(&scan, mirror.folder(), &objects);
        let (named, large): (Vec<_>, Vec<_>) =
            named.into_iter().partition(|(_, object)| object.bytes <= LARGEST_NAMED);
        let wanted = named.into_iter().filter(|(name, _)| !mirror.has_content(name)).collect();
        unread.extend(mirror.fill(&*self.address.store, wanted).await);
        for (name, _) in large {
            let rule = format!("is larger than {} MiB", LARGEST_NAMED >> 20);
            let remedy = "declare a smaller file";
            let problem = Problem::of_place(self.url(name), rule, remedy);
            take_out(&mut scan, &mirror.folder().join(name), problem);
        }
        let is_whole = unread.is_empty();
        for (name, broken) in unread {
            self.refuse(&mut scan, mirror.folder(), &name, broken)?;
        }
        let mut found = HashMap::new();
        for model in &mut scan.models {
            model.beside = identity_beside(model, mirror.folder(), &objects);
            for artefact in &mut model.versions {
                let name = relative(mirror.folder(), &artefact.path);
                let members = objects.members(artefact.version, &name);
                artefact.identity = members.identity(place);
                artefact.bytes = members.bytes();
                artefact.changed = members.changed();
                found.insert(artefact.identity.clone(), Arc::new(members));
            }
        }
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = found;
        self.show_urls(&mut scan.problems);
        scan.problems.extend(untraceable(place, &objects));
        scan.problems.extend(objects.problems.iter().cloned());
        looking.seen = is_whole.then(|| (objects, copy(&scan)));
        Ok(scan)
    }

    /// Takes out the model whose declaration could not be read: without it, it would be served as
    /// nobody declared it.
    fn refuse(
        &self,
        scan: &mut Scan,
        folder: &Path,
        name: &str,
        broken: Broken,
    ) -> Result<(), Failed> {
        let is_this_object = match &broken {
            Broken::Store(error) if has_changed(error) => return Err(Failed::Moving),
            Broken::Changed => return Err(Failed::Moving),
            Broken::Store(error) => is_refusal(error),
            Broken::Short { .. } | Broken::Disk(_) => false,
        };
        let error = self.broken(&self.url(name), &broken);
        let path = folder.join(name);
        let above = path.parent().unwrap_or(folder);
        let concerns_none = !scan.models.iter().any(|model| above.starts_with(&model.path));
        // What declares for a whole folder of models says nothing of any one.
        if !is_this_object || concerns_none && above == folder {
            return Err(Failed::With(error));
        }
        // It was scanned as an empty file, which may be wrong in its own way.
        let shown = path.display().to_string();
        scan.problems.retain(|problem| problem.place != shown);
        let (rule, remedy) = error.reason.split_once("; ").unwrap_or((&error.reason, "mend it"));
        take_out(scan, &path, Problem::of_place(&error.place, rule, remedy));
        Ok(())
    }

    /// A user knows the place by its URL.
    fn show_urls(&self, problems: &mut [Problem]) {
        let scanned = self.scanned.display().to_string();
        let show = |text: &mut String| {
            if text.contains(&scanned) {
                *text = text.replace(&scanned, &self.address.place);
            }
        };
        for problem in problems {
            let texts = [&mut problem.place, &mut problem.rule, &mut problem.remedy];
            texts.into_iter().chain(&mut problem.value).for_each(show);
        }
    }

    async fn download(
        &self,
        members: &Members,
        filling: &Filling<'_>,
    ) -> Result<Vec<CachedFile>, SourceError> {
        let bring = |(name, object): (String, Object)| async move {
            let path = filling.folder.join(&name);
            let mut file = filling.create(&name).map_err(|error| disk(&path, &error))?;
            let received = receive(&*self.address.store, &object, &mut file).await;
            let digest = received.map_err(|broken| match broken {
                Broken::Disk(error) => disk(&path, &error),
                broken => self.broken(&self.url(self.name(&object)), &broken),
            })?;
            file.sync_all().map_err(|error| disk(&path, &error))?;
            Ok(CachedFile { path: name, bytes: object.bytes, sha256: hexadecimal(&digest) })
        };
        let files: Vec<_> = members.files.clone().into_iter().map(bring).collect();
        futures_util::stream::iter(files).buffered(AT_A_TIME).try_collect().await
    }

    /// Returns an object's name relative to the place.
    fn name<'o>(&self, object: &'o Object) -> &'o str {
        let name = object.location.as_ref();
        name.strip_prefix(self.folder.as_ref()).unwrap_or(name).trim_start_matches('/')
    }

    fn url(&self, name: &str) -> String {
        match self.address.is_file {
            true => self.address.place.clone(),
            false => format!("{}/{name}", self.address.place),
        }
    }

    fn broken(&self, place: &str, broken: &Broken) -> SourceError {
        let place = place.to_owned();
        let (reason, passing) = match broken {
            Broken::Store(error) => return failure(place, error, self.address.remedy),
            Broken::Disk(error) => return disk(self.cache.folder(), error),
            Broken::Changed => ("the object has changed since it was found".to_owned(), false),
            Broken::Short { arrived } => {
                (format!("the store sent {arrived} bytes and then no more"), true)
            }
        };
        SourceError { place, reason, passing }
    }
}

impl Source for Remote {
    fn place(&self) -> &str {
        &self.address.place
    }

    fn look(&self) -> Result<Scan, SourceError> {
        let mut looking = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        let twice = async {
            match self.look_now(&mut looking).await {
                // Somebody wrote while this was reading; the next listing tells of it.
                Err(Failed::Moving) => self.look_now(&mut looking).await,
                looked => looked,
            }
        };
        let limited = async { tokio::time::timeout(LOOK_LIMIT, twice).await };
        let fail = |reason: String| SourceError {
            place: self.address.place.clone(),
            reason,
            passing: true,
        };
        match self.runtime.block_on(limited) {
            Ok(Ok(scan)) => Ok(scan),
            Ok(Err(Failed::With(error))) => Err(error),
            Ok(Err(Failed::Moving)) => {
                Err(fail("what is there changed while it was looked at, twice".to_owned()))
            }
            Err(_) => Err(fail(format!("looking took longer than {} s", LOOK_LIMIT.as_secs()))),
        }
    }

    fn fetch(&self, artefact: &VersionArtefact) -> Result<PathBuf, SourceError> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let members = found.get(&artefact.identity).cloned();
        drop(found);
        let bytes = members.as_ref().map_or(0, |members| members.bytes());
        let files = self.cache.version(&artefact.identity, bytes, |filling| match &members {
            Some(members) => self.runtime.block_on(self.download(members, filling)),
            None => Err(SourceError {
                place: self.address.place.clone(),
                reason: format!("version {} is no longer what was found", artefact.version),
                passing: false,
            }),
        })?;
        Ok(files.join(artefact.path.file_name().unwrap_or_default()))
    }

    fn release(&self, identity: &Identity) {
        self.cache.release(identity);
    }

    fn folder(&self) -> Option<&Path> {
        None
    }
}

fn copy(scan: &Scan) -> Scan {
    let Scan { models, pipelines, refused, problems } = scan;
    let (models, pipelines) = (models.clone(), pipelines.clone());
    Scan { models, pipelines, refused: refused.clone(), problems: problems.clone() }
}

/// Why a look came to nothing.
enum Failed {
    /// The listing was out of date before it was read.
    Moving,
    With(SourceError),
}

impl From<SourceError> for Failed {
    fn from(error: SourceError) -> Self {
        Failed::With(error)
    }
}

/// Takes out the models whose folder holds a file that cannot be had.
fn take_out(scan: &mut Scan, path: &Path, problem: Problem) {
    let above = path.parent().unwrap_or(path);
    let (concerned, others): (Vec<_>, Vec<_>) =
        scan.models.drain(..).partition(|model| above.starts_with(&model.path));
    scan.models = others;
    for pipeline in scan.pipelines.iter_mut().filter(|pipeline| pipeline.path == path) {
        pipeline.outline = Err(problem.without_place().into());
    }
    let model = concerned.first().map(|model| &model.name);
    scan.problems.push(model.map_or(problem.clone(), |model| problem.of_model(model)));
    for ModelFolder { name, versions, .. } in concerned {
        let versions = versions.iter().map(|artefact| (name.clone(), artefact.version));
        scan.refused.extend(versions);
    }
}

/// Returns the files that declarations name, whose content is needed to load a version.
fn named_files<'o>(
    scan: &Scan,
    folder: &Path,
    objects: &'o Objects,
) -> BTreeMap<&'o str, &'o Object> {
    let mut named = BTreeMap::new();
    for model in &scan.models {
        let requests = model.manifest.warmup.iter().flatten();
        let warmup = requests.flat_map(|request| &request.inputs).filter_map(|input| {
            let Fill::File(path) = &input.fill else { return None };
            Some(path.clone())
        });
        for path in warmup.chain(files_of(&model.manifest)) {
            let name = relative(folder, &model.path.join(path));
            let listed = objects.by_name.get_key_value(&name);
            named.extend(listed.map(|(name, object)| (name.as_str(), object)));
        }
    }
    named
}

/// Returns what changes when a file does that a version answers by, beside its own.
fn identity_beside(model: &ModelFolder, folder: &Path, objects: &Objects) -> Identity {
    let files = files_of(&model.manifest);
    if files.is_empty() {
        return Identity::default();
    }
    let mut text = String::new();
    for file in files {
        let name = relative(folder, &file);
        let version = objects.by_name.get(&name).map(Object::version).unwrap_or_default();
        text.push_str(&format!("{name} {version}\n"));
    }
    Identity::new(&text)
}

/// Warns where a change can only be told by an object's size.
fn untraceable(place: &str, objects: &Objects) -> Option<Problem> {
    let mut without = objects
        .by_name
        .iter()
        .filter(|(_, object)| object.tag.is_none() && object.changed == SystemTime::UNIX_EPOCH);
    let (name, _) = without.next()?;
    let rule = format!("the server gives neither ETag nor Last-Modified for {name:?}");
    let remedy = "let it give one of them; a change that keeps the size is not seen";
    Some(Problem::of_place(place, rule, remedy).warning())
}

/// Returns a path below a folder as objects are named.
fn relative(folder: &Path, path: &Path) -> String {
    let path = path.strip_prefix(folder).unwrap_or(path);
    let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
    parts.join("/")
}

#[cfg(test)]
mod store_for_tests;
#[cfg(test)]
mod tests;
