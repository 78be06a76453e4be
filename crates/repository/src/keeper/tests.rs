//! The loop with its threads, over a source and a loader that do as the test says.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;
use std::sync::{Condvar, Mutex};

use outhaul_monitor::Monitor;
use outhaul_types::{ModelManifest, VersionChoice};

use super::*;
use crate::{
    AskError, Identity, LoadFailure, LoadOrder, Loaded, ModelFolder, Scan, SourceError, Unresolved,
    VersionArtefact, VersionState,
};

mod scenes;

const PATIENCE: Duration = Duration::from_secs(20);

fn name(text: &str) -> ModelName {
    ModelName::new(text).unwrap()
}

/// Numbers and contents.
type Versions = Vec<(u64, String)>;

/// A place whose contents the test sets.
#[derive(Default)]
struct Stage {
    models: Mutex<BTreeMap<&'static str, (ModelManifest, Versions)>>,
    refused: Mutex<Vec<(ModelName, ModelVersion)>>,
    /// The content of the files that each manifest names.
    beside: Mutex<String>,
    /// Set where nobody can look.
    outage: Mutex<Option<String>>,
    /// How often files are found changed after they were read.
    unsteady: AtomicUsize,
}

impl Stage {
    fn put(&self, model: &'static str, versions: &[(u64, &str)]) {
        self.declare(model, ModelManifest::default(), versions);
    }

    fn declare(&self, model: &'static str, manifest: ModelManifest, versions: &[(u64, &str)]) {
        let versions =
            versions.iter().map(|(number, what)| (*number, (*what).to_owned())).collect();
        self.models.lock().unwrap().insert(model, (manifest, versions));
    }
}

impl Source for Stage {
    fn place(&self) -> &str {
        "stage"
    }

    fn look(&self) -> Result<Scan, SourceError> {
        if let Some(reason) = self.outage.lock().unwrap().clone() {
            return Err(SourceError { place: "stage".to_owned(), reason, passing: true });
        }
        let models = self.models.lock().unwrap();
        let beside = Identity::new(&self.beside.lock().unwrap());
        let models = models.iter().map(|(model, (manifest, versions))| ModelFolder {
            name: name(model),
            path: model.into(),
            manifest: manifest.clone(),
            beside: beside.clone(),
            versions: versions
                .iter()
                .map(|(number, content)| VersionArtefact {
                    version: ModelVersion(*number),
                    path: content.into(),
                    identity: Identity::new(content),
                    bytes: 1000,
                    changed: None,
                })
                .collect(),
        });
        let refused = self.refused.lock().unwrap().clone();
        Ok(Scan { models: models.collect(), refused, ..Scan::default() })
    }

    fn fetch(&self, artefact: &VersionArtefact) -> Result<PathBuf, SourceError> {
        Ok(artefact.path.clone())
    }

    fn is_unchanged(&self, _: &VersionArtefact) -> bool {
        let one_less = |left: usize| left.checked_sub(1);
        self.unsteady.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_err()
    }

    fn folder(&self) -> Option<&Path> {
        None
    }
}

/// Loads any content, unless it is called `bad`, `breaking` or `panics`. What it makes is its text.
#[derive(Default)]
struct Script {
    loads: Mutex<Vec<String>>,
    forgotten: Mutex<Vec<String>>,
    /// While it is shut, no load ends.
    shut: Mutex<bool>,
    opened: Condvar,
}

impl Script {
    fn shut(&self, shut: bool) {
        *self.shut.lock().unwrap() = shut;
        self.opened.notify_all();
    }
}

impl Loader for Script {
    type Contract = String;
    type Prepared = String;
    type Served = String;

    fn load(&self, order: &LoadOrder<String>) -> Result<Loaded<String>, LoadFailure> {
        let content = order.path.display().to_string();
        self.loads.lock().unwrap().push(format!("{}/{} {content}", order.name, order.version));
        let shut = self.shut.lock().unwrap();
        drop(self.opened.wait_while(shut, |shut| *shut).unwrap());
        match content.as_str() {
            "bad" => Err(LoadFailure::Failed("no model".to_owned())),
            "panics" => panic!("scripted panic"),
            "breaking" if order.in_service.is_some() && !order.manifest.loading.allow_breaking => {
                Err(LoadFailure::Refused("output 'y' is gone".to_owned()))
            }
            _ => Ok(Loaded { prepared: content, memory: 1 << 20 }),
        }
    }

    fn start(&self, prepared: String) -> Result<String, LoadFailure> {
        Ok(prepared)
    }

    fn contract(&self, served: &String) -> String {
        served.clone()
    }

    fn forget(&self, model: &ModelName, version: ModelVersion) {
        self.forgotten.lock().unwrap().push(format!("{model}/{version}"));
    }
}

/// A running repository on a stage.
struct Running {
    stage: Arc<Stage>,
    script: Arc<Script>,
    catalog: Arc<Catalog<Resident<String>>>,
    handle: Handle,
}

fn config() -> RepositoryConfig {
    RepositoryConfig {
        mode: Mode::Poll,
        poll_interval: Duration::from_millis(5),
        settle: Duration::ZERO,
        // Nothing is tried again while a test lasts, unless it says so.
        backoff: (Duration::from_secs(3600), Duration::from_secs(3600)),
        ..RepositoryConfig::default()
    }
}

impl Running {
    fn start(stage: &Arc<Stage>, config: RepositoryConfig, journal: Journal) -> Self {
        let (script, catalog) = (Arc::new(Script::default()), Arc::new(Catalog::new()));
        let parts = Parts {
            sources: vec![Arc::clone(stage) as Arc<dyn Source>],
            loader: Arc::clone(&script),
            catalog: Arc::clone(&catalog),
            journal,
            metrics: Monitor::new().loading(),
            runtime: None,
        };
        let handle = start(config, parts).unwrap();
        Running { stage: Arc::clone(stage), script, catalog, handle }
    }

    fn on(stage: &Arc<Stage>) -> Self {
        let running = Self::start(stage, config(), Journal::forgetful());
        assert!(running.handle.settle(PATIENCE));
        running
    }

    fn answer(&self, model: &str) -> Result<String, Unresolved> {
        let resolved = self.catalog.resolve(model, &VersionChoice::Latest);
        resolved.map(|resident| String::clone(&resident))
    }

    /// Waits until `holds`; the catalog tells of changes, and this looks again and again.
    fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !holds(self) {
            assert!(began.elapsed() < PATIENCE, "never: {what}");
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    fn loads(&self) -> Vec<String> {
        self.script.loads.lock().unwrap().clone()
    }
}

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().unwrap()
}

fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn on_stage(models: &[(&'static str, &[(u64, &str)])]) -> Arc<Stage> {
    let stage = Arc::new(Stage::default());
    for (model, versions) in models {
        stage.put(model, versions);
    }
    stage
}

#[test]
fn a_new_version_takes_over_and_the_old_one_ends_with_its_last_user() {
    let running = Running::on(&on_stage(&[("a", &[(1, "one")])]));
    let in_flight = running.catalog.resolve("a", &VersionChoice::Latest).unwrap();
    running.script.shut(true);
    running.stage.put("a", &[(1, "one"), (2, "two")]);
    running.until("the second is being loaded", |running| running.loads().len() == 2);
    assert_eq!(running.answer("a"), Ok("one".to_owned()), "the old one answers meanwhile");
    running.script.shut(false);
    running.until("the second answers", |running| running.answer("a") == Ok("two".to_owned()));
    assert_eq!(running.catalog.snapshot().model("a").unwrap().versions().len(), 1, "as one");
    assert_eq!(**in_flight, *"one", "who was at it finishes");
}

#[test]
fn a_failed_load_keeps_the_old_one_and_is_seen() {
    let running = Running::on(&on_stage(&[("a", &[(1, "one")])]));
    running.stage.put("a", &[(1, "one"), (2, "bad")]);
    running.until("the failure is published", |running| {
        let snapshot = running.catalog.snapshot();
        let entry = snapshot.model("a").unwrap().version(ModelVersion(2));
        entry.is_some_and(|entry| matches!(entry.state, VersionState::Failed(_)))
    });
    assert_eq!(running.answer("a"), Ok("one".to_owned()));
    let problems: Vec<String> = running.handle.problems().iter().map(Problem::to_string).collect();
    let told = "stage/a, version 2: no model; mend or remove it; `outhaul inspect` tells more";
    assert_eq!(problems, [told]);
    // The same version, whose newest content does not load.
    running.stage.put("a", &[(1, "panics")]);
    running.until("the panic is noted", |running| {
        let snapshot = running.catalog.snapshot();
        let entry = snapshot.model("a").unwrap().version(ModelVersion(1)).cloned();
        entry.is_some_and(|entry| entry.last_error.is_some_and(|error| error.contains("panicked")))
    });
    assert_eq!(running.answer("a"), Ok("one".to_owned()));
}

#[test]
fn one_load_serves_however_many_wait() {
    let budget = RepositoryConfig { memory_budget: Some(10 << 20), ..config() };
    let running = Running::start(&on_stage(&[("a", &[(1, "one")])]), budget, Journal::forgetful());
    assert!(running.handle.settle(PATIENCE));
    assert_eq!(running.answer("a"), Err(Unresolved::Asleep(ModelVersion(1))));
    assert!(running.loads().is_empty(), "registered, not loaded");
    for _ in 0..100 {
        running.handle.wake(&name("a"), ModelVersion(1));
    }
    running.until("it answers", |running| running.answer("a").is_ok());
    assert!(running.handle.settle(PATIENCE));
    assert_eq!(running.loads(), ["a/1 one"]);
}

#[test]
fn the_budget_evicts_what_was_used_longest_ago() {
    let budget = RepositoryConfig {
        memory_budget: Some(2 << 20),
        min_residency: Duration::ZERO,
        ..config()
    };
    let stage = on_stage(&[("a", &[(1, "one")]), ("b", &[(1, "one")]), ("c", &[(1, "one")])]);
    let running = Running::start(&stage, budget, Journal::forgetful());
    assert!(running.handle.settle(PATIENCE));
    for model in ["a", "b", "c"] {
        running.handle.wake(&name(model), ModelVersion(1));
        running.until("it answers", |running| running.answer(model).is_ok());
    }
    assert!(running.handle.settle(PATIENCE));
    assert_eq!(running.answer("a"), Err(Unresolved::Asleep(ModelVersion(1))));
    assert!(running.answer("b").is_ok() && running.answer("c").is_ok());
}

#[test]
fn files_that_change_while_they_are_read_are_read_again() {
    let stage = on_stage(&[("a", &[(1, "one")])]);
    stage.unsteady.store(1, Ordering::SeqCst);
    let running = Running::on(&stage);
    assert_eq!(running.answer("a"), Ok("one".to_owned()));
    assert_eq!(running.loads().len(), 2);
    assert!(running.handle.problems().is_empty(), "it was no failure");
}

#[test]
fn an_outage_or_a_wrong_manifest_takes_nothing_away() {
    let running = Running::on(&on_stage(&[("a", &[(1, "one")])]));
    *running.stage.outage.lock().unwrap() = Some("status 500".to_owned());
    running.until("the outage is told", |running| !running.handle.problems().is_empty());
    assert_eq!(running.answer("a"), Ok("one".to_owned()));
    let asked = block(running.handle.load("unseen", None));
    assert_eq!(asked, Err(AskError::Unreadable("stage: status 500".to_owned())));
    running.stage.models.lock().unwrap().clear();
    running.stage.refused.lock().unwrap().push((name("a"), ModelVersion(1)));
    *running.stage.outage.lock().unwrap() = None;
    running.until("the manifest is told", |running| {
        let snapshot = running.catalog.snapshot();
        let entry = snapshot.model("a").unwrap().version(ModelVersion(1)).cloned();
        entry.is_some_and(|entry| entry.last_error.is_some())
    });
    assert_eq!(running.answer("a"), Ok("one".to_owned()));
}

#[test]
fn a_change_of_a_file_that_the_manifest_names_loads_anew() {
    let running = Running::on(&on_stage(&[("a", &[(1, "one")])]));
    assert_eq!(running.loads(), ["a/1 one"]);
    *running.stage.beside.lock().unwrap() = "another tokenizer".to_owned();
    running.until("it is loaded anew", |running| running.loads().len() == 2);
    assert_eq!(running.answer("a"), Ok("one".to_owned()));
}

#[test]
fn what_is_gone_is_forgotten() {
    let running = Running::on(&on_stage(&[("a", &[(1, "one")]), ("b", &[(1, "one")])]));
    running.stage.models.lock().unwrap().remove("a");
    running.until("it is gone", |running| running.answer("a") == Err(Unresolved::UnknownModel));
    running
        .until("it is forgotten", |running| *running.script.forgotten.lock().unwrap() == ["a/1"]);
    assert!(running.answer("b").is_ok());
}

#[test]
fn what_was_asked_for_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state.db");
    let keeping = runtime();
    let journal = || Journal::in_file(file.clone(), keeping.handle().clone()).unwrap();
    let explicit = || RepositoryConfig { mode: Mode::Explicit, ..config() };
    let stage = on_stage(&[("a", &[(1, "one"), (2, "two")]), ("b", &[(1, "one")])]);
    let running = Running::start(&stage, explicit(), journal());
    assert!(running.handle.settle(PATIENCE));
    assert!(!file.exists(), "nothing was asked, so nothing is kept");
    assert_eq!(running.answer("a"), Err(Unresolved::Unloaded));
    let ask = |model: &str, version: Option<u64>| {
        block(running.handle.load(model, version.map(ModelVersion)))
    };
    assert_eq!(ask("a", Some(1)), Ok(()));
    assert_eq!(ask("a", Some(1)), Ok(()), "what answers need not be loaded");
    assert_eq!(ask("b", None), Ok(()));
    assert_eq!(ask("c", None), Err(AskError::UnknownModel("c".to_owned())));
    let unknown = AskError::UnknownVersion { model: name("a"), version: ModelVersion(9) };
    assert_eq!(ask("a", Some(9)), Err(unknown));
    assert_eq!(block(running.handle.unload("b")), Ok(()));
    assert_eq!(running.answer("b"), Err(Unresolved::Unloaded));
    drop(running);
    let again = Running::start(&stage, explicit(), journal());
    assert!(again.handle.settle(PATIENCE));
    assert_eq!(again.answer("a"), Ok("one".to_owned()), "the version that was asked for");
    assert_eq!(again.answer("b"), Err(Unresolved::Unloaded));
    assert_eq!(again.loads(), ["a/1 one"]);
}

#[test]
fn a_version_that_was_refused_stays_so_over_a_restart_until_it_is_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state.db");
    let keeping = runtime();
    let journal = || Journal::in_file(file.clone(), keeping.handle().clone()).unwrap();
    let stage = on_stage(&[("a", &[(1, "one")])]);
    let running = Running::start(&stage, config(), journal());
    assert!(running.handle.settle(PATIENCE));
    stage.put("a", &[(1, "one"), (2, "breaking")]);
    running.until("it is refused", |running| !running.handle.problems().is_empty());
    assert_eq!(running.answer("a"), Ok("one".to_owned()));
    drop(running);
    let again = Running::start(&stage, config(), journal());
    assert!(again.handle.settle(PATIENCE));
    assert_eq!(again.answer("a"), Ok("one".to_owned()), "though nothing was there to be broken");
    let mut allowed = ModelManifest::default();
    allowed.loading.allow_breaking = true;
    stage.declare("a", allowed, &[(1, "one"), (2, "breaking")]);
    again.until("it is taken", |running| running.answer("a") == Ok("breaking".to_owned()));
}

#[test]
fn asking_waits_for_the_load_and_tells_its_failure() {
    let stage = on_stage(&[("a", &[(1, "bad")])]);
    let explicit = RepositoryConfig { mode: Mode::Explicit, ..config() };
    let running = Running::start(&stage, explicit, Journal::forgetful());
    let failed = AskError::Failed { model: name("a"), reason: "no model".into() };
    assert_eq!(block(running.handle.load("a", None)), Err(failed));
    stage.put("a", &[(1, "mended")]);
    assert_eq!(block(running.handle.load("a", None)), Ok(()));
    assert_eq!(running.answer("a"), Ok("mended".to_owned()));
}

#[test]
fn what_is_held_answers_beside_the_newest_until_it_is_let_go() {
    let running = Running::on(&on_stage(&[("a", &[(1, "one"), (2, "two"), (3, "three")])]));
    let exact = |running: &Running, version| {
        let choice = VersionChoice::Exact(ModelVersion(version));
        running.catalog.resolve("a", &choice).map(|resident| String::clone(&resident))
    };
    let hold = |versions: &[u64]| {
        let held = versions.iter().map(|version| (name("a"), ModelVersion(*version)));
        // A model that is not there yet is waited for.
        let later = (name("later"), ModelVersion(1));
        running.handle.hold(held.chain([later]).collect());
    };
    assert_eq!(running.loads(), ["a/3 three"]);
    hold(&[2]);
    running.until("the second answers", |running| exact(running, 2) == Ok("two".to_owned()));
    assert_eq!(running.answer("a"), Ok("three".to_owned()), "an open version is the newest");
    hold(&[1, 2]);
    running.until("the first answers", |running| exact(running, 1) == Ok("one".to_owned()));
    hold(&[1]);
    running.until("the second is let go", |running| exact(running, 2).is_err());
    assert_eq!(exact(&running, 1), Ok("one".to_owned()));
    assert_eq!(running.answer("a"), Ok("three".to_owned()));
    running.stage.put("later", &[(1, "one"), (2, "two")]);
    running.until("both answer", |running| {
        let snapshot = running.catalog.snapshot();
        let versions = snapshot.model("later").map(|model| model.versions().to_vec());
        let ready = versions.unwrap_or_default();
        ready.iter().filter(|entry| matches!(entry.state, VersionState::Ready(_))).count() == 2
    });
    hold(&[9]);
    running.until("it is told", |running| {
        let told = "a route leads to version 9, which is not there";
        running.handle.problems().iter().any(|problem| problem.rule == told)
    });
}

#[test]
fn an_ask_ends_where_its_model_goes_away() {
    let stage = on_stage(&[("a", &[(1, "one")])]);
    let explicit = RepositoryConfig { mode: Mode::Explicit, ..config() };
    let running = Running::start(&stage, explicit, Journal::forgetful());
    running.script.shut(true);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| block(running.handle.load("a", None)));
        running.until("it is being loaded", |running| !running.loads().is_empty());
        stage.models.lock().unwrap().remove("a");
        // Every ask looks anew.
        let unknown = |model: &str| Err(AskError::UnknownModel(model.to_owned()));
        assert_eq!(block(running.handle.load("other", None)), unknown("other"));
        assert_eq!(asking.join().unwrap(), unknown("a"));
        running.script.shut(false);
    });
}

#[test]
fn an_ask_waits_for_what_is_written_while_it_is_loaded() {
    let stage = on_stage(&[("a", &[(1, "one")])]);
    let settle = Duration::from_millis(50);
    let explicit = RepositoryConfig { mode: Mode::Explicit, settle, ..config() };
    let running = Running::start(&stage, explicit, Journal::forgetful());
    stage.unsteady.store(1, Ordering::SeqCst);
    assert_eq!(block(running.handle.load("a", None)), Ok(()));
    assert_eq!(running.answer("a"), Ok("one".to_owned()));
    assert_eq!(running.loads().len(), 2);
}
