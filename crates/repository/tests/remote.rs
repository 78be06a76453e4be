//! One behaviour suite for `Source`, run over a local folder and over object stores.
//!
//! Which kinds there are stands in `KINDS`; each test runs over all of them. What only a network does
//! wrong is in the unit tests of `source::remote`.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path as Location;
use object_store::{ObjectStore, ObjectStoreExt};
use outhaul_repository::{
    Cache, Identity, LocalFolder, Remote, Scan, Source, SourceError, VersionArtefact,
};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

const KINDS: [Kind; 3] = [Kind::Folder, Kind::Memory, Kind::Disk];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// `LocalFolder`.
    Folder,
    /// `Remote` over a store in memory.
    Memory,
    /// `Remote` over a folder that speaks the interface of stores.
    Disk,
}

/// A place to put models, and a source that reads there.
struct Place {
    folder: TempDir,
    store: Option<Arc<dyn ObjectStore>>,
    runtime: Runtime,
    cache: Arc<Cache>,
    source: Arc<dyn Source>,
}

impl Place {
    fn new(kind: Kind) -> Self {
        Place::with_capacity(kind, None)
    }

    fn with_capacity(kind: Kind, capacity: Option<u64>) -> Self {
        let folder = TempDir::new().unwrap();
        let models = folder.path().join("store").join("models");
        fs::create_dir_all(&models).unwrap();
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let cache = Arc::new(Cache::open(folder.path().join("cache"), capacity).unwrap());
        let store: Option<Arc<dyn ObjectStore>> = match kind {
            Kind::Folder => None,
            Kind::Memory => Some(Arc::new(InMemory::new())),
            Kind::Disk => {
                let root = folder.path().join("store");
                Some(Arc::new(LocalFileSystem::new_with_prefix(root).unwrap()))
            }
        };
        let source: Arc<dyn Source> = match &store {
            None => Arc::new(LocalFolder::new(models)),
            Some(store) => Arc::new(remote(store, &cache, &runtime)),
        };
        Place { folder, store, runtime, cache, source }
    }

    fn put(&self, name: &str, content: &[u8]) {
        match &self.store {
            None => {
                let path = self.folder.path().join("store/models").join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, content).unwrap();
            }
            Some(store) => {
                let location = Location::parse(format!("models/{name}")).unwrap();
                self.runtime.block_on(store.put(&location, content.to_vec().into())).unwrap();
            }
        }
    }

    fn remove(&self, name: &str) {
        match &self.store {
            None => fs::remove_file(self.folder.path().join("store/models").join(name)).unwrap(),
            Some(store) => {
                let location = Location::parse(format!("models/{name}")).unwrap();
                self.runtime.block_on(store.delete(&location)).unwrap();
            }
        }
    }

    fn look(&self) -> Scan {
        self.source.look().unwrap()
    }

    fn artefact(&self, model: &str, version: u64) -> VersionArtefact {
        artefact(&self.look(), model, version)
    }

    fn cached_versions(&self) -> usize {
        self.cache.folder().join("versions").read_dir().unwrap().count()
    }
}

fn remote(store: &Arc<dyn ObjectStore>, cache: &Arc<Cache>, runtime: &Runtime) -> Remote {
    let (store, cache) = (Arc::clone(store), Arc::clone(cache));
    Remote::over(store, ("s3://bucket/models", "models"), cache, runtime.handle().clone()).unwrap()
}

fn artefact(scan: &Scan, model: &str, version: u64) -> VersionArtefact {
    let found = scan.models.iter().find(|found| found.name.as_str() == model);
    let found = found.unwrap_or_else(|| panic!("no {model} in {scan:?}"));
    let artefact = found.versions.iter().find(|artefact| artefact.version.0 == version);
    artefact.unwrap_or_else(|| panic!("no version {version} in {found:?}")).clone()
}

fn names(scan: &Scan) -> Vec<String> {
    let versions = scan.models.iter().flat_map(|model| {
        model.versions.iter().map(|artefact| format!("{} {}", model.name, artefact.version))
    });
    versions.collect()
}

fn problems(scan: &Scan) -> Vec<String> {
    scan.problems.iter().map(ToString::to_string).collect()
}

#[test]
fn what_is_there_is_found_and_fetched() {
    for kind in KINDS {
        let place = Place::new(kind);
        place.put("iris/1/model.onnx", b"first");
        place.put("iris/2/model.onnx", b"second");
        place.put("iris/2/model.onnx.data", b"weights");
        place.put("iris/model.toml", b"[batching]\nmax_rows = 7\n");
        place.put("digits/model.onnx", b"unnumbered");
        place.put("single.onnx", b"a file");
        place.put("README.md", b"not a model");

        let scan = place.look();
        assert_eq!(names(&scan), ["digits 1", "iris 1", "iris 2", "single 1"], "{kind:?}");
        assert_eq!(problems(&scan), [""; 0], "{kind:?}");
        let iris = &scan.models[1];
        assert_eq!(iris.manifest.batching.max_rows.get(), 7, "{kind:?}");

        struct Case {
            model: &'static str,
            version: u64,
            content: &'static [u8],
            bytes: u64,
        }
        let cases = [
            Case { model: "iris", version: 1, content: b"first", bytes: 5 },
            Case { model: "iris", version: 2, content: b"second", bytes: 13 },
            Case { model: "digits", version: 1, content: b"unnumbered", bytes: 10 },
            Case { model: "single", version: 1, content: b"a file", bytes: 6 },
        ];
        let mut identities = HashSet::new();
        for case in cases {
            let artefact = artefact(&scan, case.model, case.version);
            let what = format!("{kind:?}: {} {}", case.model, case.version);
            assert_eq!(artefact.bytes, case.bytes, "{what}");
            assert!(artefact.changed.is_some(), "{what}");
            assert!(identities.insert(artefact.identity.clone()), "{what}");
            let fetched = place.source.fetch(&artefact).unwrap();
            assert_eq!(fs::read(&fetched).unwrap(), case.content, "{what}");
            // Once more: now a remote one comes from the cache.
            assert_eq!(place.source.fetch(&artefact).unwrap(), fetched, "{what}");
        }
        // External weights lie where the model file names them: beside it.
        let fetched = place.source.fetch(&artefact(&scan, "iris", 2)).unwrap();
        let weights = fetched.with_file_name("model.onnx.data");
        assert_eq!(fs::read(weights).unwrap(), b"weights", "{kind:?}");

        assert_eq!(names(&place.look()), names(&scan), "{kind:?}: a second look sees the same");
        let again = place.artefact("iris", 2);
        assert_eq!(again, artefact(&scan, "iris", 2), "{kind:?}: what stayed keeps its identity");
    }
}

#[test]
fn an_empty_place_has_no_models_and_is_no_failure() {
    for kind in KINDS {
        let scan = Place::new(kind).look();
        assert_eq!(names(&scan), [""; 0], "{kind:?}");
        assert!(scan.refused.is_empty(), "{kind:?}");
    }
}

#[test]
fn a_change_is_a_new_identity_and_the_old_content_is_not_taken_for_the_new() {
    for kind in KINDS {
        for changed in ["iris/1/model.onnx", "iris/1/extra/weights"] {
            let place = Place::new(kind);
            place.put("iris/1/model.onnx", b"old");
            place.put("iris/1/extra/weights", b"old weights");
            place.put("digits/1/model.onnx", b"stays");
            let before = place.artefact("iris", 1);
            let other = place.artefact("digits", 1);
            place.put(changed, b"new content");

            // Found before and fetched after: an error, never the new content under the old name.
            let error = place.source.fetch(&before).unwrap_err();
            assert!(error.to_string().contains("changed since"), "{kind:?}: {error}");
            assert!(!error.passing, "{kind:?}: {error}");
            if kind != Kind::Folder {
                assert_eq!(place.cached_versions(), 0, "{kind:?}");
            }

            let after = place.artefact("iris", 1);
            assert_ne!(before.identity, after.identity, "{kind:?}: {changed}");
            let fetched = place.source.fetch(&after).unwrap();
            let changed_file =
                fetched.parent().unwrap().join(changed.trim_start_matches("iris/1/"));
            assert_eq!(fs::read(changed_file).unwrap(), b"new content", "{kind:?}");
            assert_eq!(place.artefact("digits", 1), other, "{kind:?}: others are untouched");
        }
    }
}

#[test]
fn what_vanishes_is_no_longer_found() {
    for kind in KINDS {
        let place = Place::new(kind);
        place.put("iris/1/model.onnx", b"one");
        place.put("iris/2/model.onnx", b"two");
        place.put("digits/1/model.onnx", b"digits");
        let one = place.artefact("iris", 1);
        place.remove("iris/1/model.onnx");
        place.remove("digits/1/model.onnx");
        let error = place.source.fetch(&one).unwrap_err();
        assert!(!error.passing, "{kind:?}: {error}");
        assert_eq!(names(&place.look()), ["iris 2"], "{kind:?}");
        let error = place.source.fetch(&one).unwrap_err();
        assert!(!error.passing, "{kind:?}: {error}");

        // A folder takes the place of a file and the other way round.
        place.remove("iris/2/model.onnx");
        if kind != Kind::Memory {
            fs::remove_dir_all(place.folder.path().join("store/models/iris")).unwrap();
        }
        place.put("iris", b"now a file");
        assert_eq!(names(&place.look()), [""; 0], "{kind:?}");
        place.remove("iris");
        place.put("iris/3/model.onnx", b"three");
        assert_eq!(names(&place.look()), ["iris 3"], "{kind:?}");
    }
}

#[test]
fn what_is_wrong_with_one_model_hides_no_other_and_names_the_place() {
    for kind in KINDS {
        let place = Place::new(kind);
        place.put("good/1/model.onnx", b"good");
        place.put("bad/1/model.onnx", b"bad");
        place.put("bad/model.toml", b"[batching]\nmax_rows = 0\n");
        place.put("versions/one/model.onnx", b"named wrongly");
        let scan = place.look();
        assert_eq!(names(&scan), ["good 1"], "{kind:?}");
        let refused: Vec<_> = scan.refused.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(refused, ["bad"], "{kind:?}");
        assert_eq!(scan.problems.len(), 2, "{kind:?}: {:?}", problems(&scan));
        for problem in &scan.problems {
            assert!(problem.place.starts_with(place.source.place()), "{kind:?}: {problem}");
            assert!(!problem.to_string().contains("cache"), "{kind:?}: {problem}");
        }

        place.put("bad/model.toml", b"[batching]\nmax_rows = 3\n");
        let scan = place.look();
        assert_eq!(names(&scan), ["bad 1", "good 1"], "{kind:?}: mended");
        assert_eq!(scan.models[0].manifest.batching.max_rows.get(), 3, "{kind:?}");
    }
}

#[test]
fn a_place_may_be_one_model_or_one_file() {
    struct Case {
        path: &'static str,
        found: &'static [&'static str],
    }
    let cases = [
        Case { path: "models", found: &["iris 1", "iris 4", "net 1"] },
        Case { path: "models/iris", found: &["iris 1", "iris 4"] },
        Case { path: "models/net.onnx", found: &["net 1"] },
    ];
    let place = Place::new(Kind::Memory);
    place.put("iris/1/model.onnx", b"one");
    place.put("iris/4/model.onnx", b"four");
    place.put("net.onnx", b"a net");
    for case in cases {
        let store = Arc::clone(place.store.as_ref().unwrap());
        let url = format!("s3://bucket/{}", case.path);
        let (cache, runtime) = (Arc::clone(&place.cache), place.runtime.handle().clone());
        let source = Remote::over(store, (&url, case.path), cache, runtime).unwrap();
        let scan = source.look().unwrap();
        assert_eq!(names(&scan), case.found, "{}", case.path);
        assert_eq!(problems(&scan), [""; 0], "{}", case.path);
        for model in &scan.models {
            for artefact in &model.versions {
                source.fetch(artefact).unwrap();
            }
        }
    }
    let (cache, runtime) = (Arc::clone(&place.cache), place.runtime.handle().clone());
    let store = Arc::clone(place.store.as_ref().unwrap());
    let at = ("s3://bucket/models/absent.onnx", "models/absent.onnx");
    let error = Remote::over(store, at, cache, runtime).unwrap().look().unwrap_err();
    assert!(error.to_string().starts_with("s3://bucket/models/absent.onnx: "), "{error}");
}

#[test]
fn a_folder_that_cannot_be_read_is_an_error_and_not_an_empty_place() {
    let folder = TempDir::new().unwrap();
    let source = LocalFolder::new(folder.path().join("absent"));
    let error: SourceError = source.look().unwrap_err();
    assert!(error.to_string().contains("absent: cannot be read: "), "{error}");
    assert!(error.passing, "it may be mounted late");
    assert_eq!(source.folder(), Some(folder.path().join("absent").as_path()));
}

#[test]
fn contents_are_kept_once_and_outlive_the_store() {
    let place = Place::new(Kind::Memory);
    for name in ["a/1/model.onnx", "a/2/model.onnx", "b/1/model.onnx"] {
        place.put(name, b"the same content everywhere");
    }
    let scan = place.look();
    let fetched: Vec<_> = [("a", 1), ("a", 2), ("b", 1)]
        .map(|(model, version)| place.source.fetch(&artefact(&scan, model, version)).unwrap())
        .into();
    assert_eq!(place.cached_versions(), 3);
    assert_eq!(files_below(&place.cache.folder().join("blobs")), 1);
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let inodes: HashSet<u64> =
            fetched.iter().map(|file| file.metadata().unwrap().ino()).collect();
        assert_eq!(inodes.len(), 1, "versions of equal content share a file");
    }
    // Fetched once, a version is there though the store's is gone, for whoever knows its identity.
    place.remove("b/1/model.onnx");
    place.look();
    assert_eq!(place.source.fetch(&artefact(&scan, "b", 1)).unwrap(), fetched[2]);
}

#[test]
fn a_damaged_version_is_fetched_anew() {
    struct Case {
        what: &'static str,
        damage: fn(&Path),
    }
    let cases = [
        Case { what: "other bytes", damage: |file| overwrite(file, b"oops!") },
        Case { what: "shorter", damage: |file| overwrite(file, b"") },
        Case { what: "gone", damage: |file| fs::remove_file(file).unwrap() },
        Case {
            what: "without its record",
            damage: |file| fs::remove_file(record_of(file)).unwrap(),
        },
        Case { what: "a record cut off", damage: |file| overwrite(&record_of(file), b"{\"ident") },
        Case {
            what: "a record that leads out",
            damage: |file| {
                let record = fs::read_to_string(record_of(file)).unwrap();
                let record = record.replace("model.onnx", "../../../lock");
                overwrite(&record_of(file), record.as_bytes());
            },
        },
    ];
    for case in cases {
        let place = Place::new(Kind::Memory);
        place.put("iris/1/model.onnx", b"right");
        place.put("copy/1/model.onnx", b"right");
        let scan = place.look();
        let (iris, copy) = (artefact(&scan, "iris", 1), artefact(&scan, "copy", 1));
        let file = place.source.fetch(&iris).unwrap();
        (case.damage)(&file);
        // In this process, and in one that has not seen the files before.
        let file = place.source.fetch(&iris).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"right", "{}", case.what);
        (case.damage)(&file);
        let cache = Arc::new(Cache::open(place.cache.folder(), None).unwrap());
        let source = remote(place.store.as_ref().unwrap(), &cache, &place.runtime);
        source.look().unwrap();
        let fetched = source.fetch(&iris).unwrap();
        assert_eq!(fs::read(&fetched).unwrap(), b"right", "{}", case.what);
        // What shares the content shares the damage, and is mended too.
        let copied = source.fetch(&copy).unwrap();
        assert_eq!(fs::read(copied).unwrap(), b"right", "{}", case.what);
    }
}

#[test]
fn leftovers_of_a_killed_process_go_and_those_of_the_living_stay() {
    let place = Place::new(Kind::Memory);
    place.put("iris/1/model.onnx", b"content");
    let artefact = place.artefact("iris", 1);
    let tmp = place.cache.folder().join("tmp");
    let own = tmp.read_dir().unwrap().next().unwrap().unwrap().path();
    // As a process leaves it that is killed while it downloads.
    let dead = tmp.join("1-dead");
    fs::create_dir_all(dead.join("version-0/files")).unwrap();
    fs::write(dead.join("version-0/files/model.onnx"), b"con").unwrap();
    fs::write(dead.join("alive"), b"").unwrap();
    // Or earlier still.
    fs::create_dir_all(tmp.join("2-dead")).unwrap();

    let other = Cache::open(place.cache.folder(), None).unwrap();
    assert!(!dead.exists() && !tmp.join("2-dead").exists());
    assert!(own.exists());
    assert_eq!(tmp.read_dir().unwrap().count(), 2);
    drop(other);
    assert_eq!(tmp.read_dir().unwrap().count(), 1);
    let fetched = place.source.fetch(&artefact).unwrap();
    assert_eq!(fs::read(fetched).unwrap(), b"content");
}

#[test]
fn what_was_used_longest_ago_goes_first_and_what_is_in_use_stays() {
    let place = Place::with_capacity(Kind::Memory, Some(250));
    for name in ["a", "b", "c", "d"] {
        // 100 bytes each, all different.
        place.put(&format!("{name}/1/model.onnx"), name.repeat(100).as_bytes());
    }
    let scan = place.look();
    let versions = ["a", "b", "c", "d"].map(|name| artefact(&scan, name, 1));
    let fetch = |index: usize| place.source.fetch(&versions[index]).unwrap();
    let release = |index: usize| place.cache.release(&versions[index].identity);
    let (a, b) = (fetch(0), fetch(1));
    // `a` is used once more, so `b` is the older one.
    release(0);
    release(1);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while modified(&fetch(0)) <= modified(&b) {
        assert!(std::time::Instant::now() < deadline, "time does not pass");
    }
    release(0);
    fetch(2);
    assert!(a.exists() && !b.exists(), "the one that was used longest ago goes");
    // Both that are left are in use: more is kept than the capacity.
    fetch(0);
    fetch(3);
    assert_eq!(place.cached_versions(), 3);
    // Another process's use counts as well.
    [0, 2, 3].into_iter().for_each(release);
    let other = Arc::new(Cache::open(place.cache.folder(), None).unwrap());
    let elsewhere = remote(place.store.as_ref().unwrap(), &other, &place.runtime);
    elsewhere.look().unwrap();
    elsewhere.fetch(&versions[0]).unwrap();
    fetch(1);
    assert!(a.exists());
    assert_eq!(place.cached_versions(), 2);
    assert_eq!(files_below(&place.cache.folder().join("blobs")), 2);
}

#[test]
fn pruning_leaves_what_is_to_be_kept() {
    let place = Place::new(Kind::Memory);
    place.put("a/1/model.onnx", b"a");
    place.put("b/1/model.onnx", b"b");
    let scan = place.look();
    let (a, b) = (artefact(&scan, "a", 1), artefact(&scan, "b", 1));
    let (kept, gone) = (place.source.fetch(&a).unwrap(), place.source.fetch(&b).unwrap());
    let keep: HashSet<Identity> = [a.identity.clone()].into();
    place.cache.prune(&keep).unwrap();
    assert!(kept.exists() && !gone.exists());
    assert_eq!(files_below(&place.cache.folder().join("blobs")), 1);
    assert_eq!(fs::read(place.source.fetch(&b).unwrap()).unwrap(), b"b");
}

fn modified(model_file: &Path) -> std::time::SystemTime {
    record_of(model_file).metadata().unwrap().modified().unwrap()
}

fn record_of(model_file: &Path) -> std::path::PathBuf {
    model_file.parent().unwrap().with_file_name("manifest.json")
}

fn overwrite(path: &Path, content: &[u8]) {
    use std::io::Write;
    let mut permissions = path.metadata().unwrap().permissions();
    #[expect(clippy::permissions_set_readonly_false, reason = "a temporary folder of this test")]
    permissions.set_readonly(false);
    fs::set_permissions(path, permissions).unwrap();
    let mut file = fs::File::options().write(true).truncate(true).open(path).unwrap();
    file.write_all(content).unwrap();
}

fn files_below(folder: &Path) -> usize {
    let entries = folder.read_dir().unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { files_below(&path) } else { 1 }).sum()
}
