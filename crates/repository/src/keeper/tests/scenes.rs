//! Scenes in which something was once lost, stuck or told wrongly.

use super::*;

#[test]
fn no_spin_while_waiters_wait() {
    // A waiter as the router does it: look, wake, wait for a change, again.
    let budget = RepositoryConfig { memory_budget: Some(10 << 20), mode: Mode::Once, ..config() };
    let running = Running::start(&on_stage(&[("a", &[(1, "one")])]), budget, Journal::forgetful());
    assert!(running.handle.settle(PATIENCE));
    running.script.shut(true);
    let wakes = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let (running, wakes) = (&running, &wakes);
        scope.spawn(move || {
            block(async {
                loop {
                    let changed =
                        Arc::clone(running.catalog.snapshot().model("a").unwrap().changed());
                    let mut change = std::pin::pin!(changed.notified());
                    change.as_mut().enable();
                    if running.answer("a").is_ok() {
                        return;
                    }
                    wakes.fetch_add(1, Ordering::SeqCst);
                    running.handle.wake(&name("a"), ModelVersion(1));
                    change.await;
                }
            });
        });
        running.until("it loads", |running| !running.loads().is_empty());
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(300) {
            std::thread::park_timeout(Duration::from_millis(10));
        }
        println!("wakes in 300 ms of one waiting request: {}", wakes.load(Ordering::SeqCst));
        running.script.shut(false);
    });
    println!("wakes in all: {}", wakes.load(Ordering::SeqCst));
    assert!(wakes.load(Ordering::SeqCst) < 10, "{}", wakes.load(Ordering::SeqCst));
}

#[test]
fn late_wake_does_not_hang_an_ask() {
    let budget = RepositoryConfig { memory_budget: Some(10 << 20), mode: Mode::Once, ..config() };
    let running = Running::start(&on_stage(&[("a", &[(1, "one")])]), budget, Journal::forgetful());
    assert!(running.handle.settle(PATIENCE));
    running.handle.wake(&name("a"), ModelVersion(1));
    running.until("it answers", |running| running.answer("a").is_ok());
    // A request that saw it asleep, and tells so late.
    running.handle.wake(&name("a"), ModelVersion(1));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let asked = runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(3), running.handle.load("a", None)).await
    });
    assert_eq!(asked.expect("the ask is answered"), Ok(()));
}

#[test]
fn late_wake_does_not_bring_back_what_was_evicted() {
    let budget = RepositoryConfig {
        memory_budget: Some(1 << 20),
        min_residency: Duration::ZERO,
        mode: Mode::Once,
        ..config()
    };
    let running = Running::start(
        &on_stage(&[("a", &[(1, "one")]), ("b", &[(1, "one")])]),
        budget,
        Journal::forgetful(),
    );
    assert!(running.handle.settle(PATIENCE));
    running.handle.wake(&name("a"), ModelVersion(1));
    running.until("it answers", |running| running.answer("a").is_ok());
    running.handle.wake(&name("a"), ModelVersion(1));
    running.handle.wake(&name("b"), ModelVersion(1));
    running.until("b loaded", |running| running.loads().iter().any(|load| load.starts_with("b/1")));
    let settled = running.handle.settle(Duration::from_secs(2));
    println!(
        "settled {settled} loads {} {:?} a {:?} b {:?}",
        running.loads().len(),
        running.loads().iter().take(8).collect::<Vec<_>>(),
        running.catalog.snapshot().model("a").unwrap().versions(),
        running.catalog.snapshot().model("b").unwrap().versions()
    );
    assert_eq!(running.loads(), ["a/1 one", "b/1 one"]);
    assert!(running.answer("b").is_ok());
}

#[test]
fn swap_on_demand_has_no_gap() {
    let budget = RepositoryConfig { memory_budget: Some(10 << 20), ..config() };
    let running = Running::start(&on_stage(&[("a", &[(1, "one")])]), budget, Journal::forgetful());
    assert!(running.handle.settle(PATIENCE));
    running.handle.wake(&name("a"), ModelVersion(1));
    running.until("it answers", |running| running.answer("a").is_ok());
    running.script.shut(true);
    running.stage.put("a", &[(1, "one"), (2, "two")]);
    running.until("the second is being loaded", |running| running.loads().len() == 2);
    // Any publication of the model shows it.
    running.handle.wake(&name("a"), ModelVersion(2));
    std::thread::park_timeout(Duration::from_millis(100));
    let meanwhile = running.answer("a");
    running.script.shut(false);
    assert_eq!(meanwhile, Ok("one".to_owned()), "the old one answers meanwhile");
}

#[test]
fn failed_version_on_demand_does_not_stall_the_old_one() {
    let budget = RepositoryConfig {
        memory_budget: Some(10 << 20),
        backoff: (Duration::from_millis(50), Duration::from_millis(50)),
        ..config()
    };
    let running = Running::start(&on_stage(&[("a", &[(1, "one")])]), budget, Journal::forgetful());
    assert!(running.handle.settle(PATIENCE));
    running.handle.wake(&name("a"), ModelVersion(1));
    running.until("it answers", |running| running.answer("a").is_ok());
    running.stage.put("a", &[(1, "one"), (2, "bad")]);
    running.until("it failed", |running| !running.handle.problems().is_empty());
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(300) {
        assert_eq!(running.answer("a"), Ok("one".to_owned()), "{:?}", began.elapsed());
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

#[test]
fn label_moves_on_demand() {
    use outhaul_types::Label;
    let budget = RepositoryConfig { memory_budget: Some(10 << 20), ..config() };
    let stable = |version| {
        let labels = [(Label::new("stable").unwrap(), ModelVersion(version))].into();
        ModelManifest { labels, ..ModelManifest::default() }
    };
    let stage = on_stage(&[]);
    // 3 is the newest; stable is 1.
    stage.declare("a", stable(1), &[(1, "one"), (2, "two"), (3, "three")]);
    let running = Running::start(&stage, budget, Journal::forgetful());
    assert!(running.handle.settle(PATIENCE));
    let labelled = |running: &Running| {
        let choice = VersionChoice::Label(Label::new("stable").unwrap());
        running.catalog.resolve("a", &choice).map(|resident| String::clone(&resident))
    };
    running.handle.wake(&name("a"), ModelVersion(1));
    running.until("it answers", |running| labelled(running) == Ok("one".to_owned()));
    stage.declare("a", stable(2), &[(1, "one"), (2, "two"), (3, "three")]);
    let began = Instant::now();
    while labelled(&running) == Ok("one".to_owned()) && began.elapsed() < Duration::from_secs(3) {
        std::thread::park_timeout(Duration::from_millis(5));
    }
    assert_ne!(labelled(&running), Ok("one".to_owned()), "loads: {:?}", running.loads());
}

#[test]
fn unload_of_a_blocked_model_unloads() {
    let running = Running::on(&on_stage(&[("a", &[(1, "one")])]));
    running.stage.models.lock().unwrap().clear();
    running.stage.refused.lock().unwrap().push((name("a"), ModelVersion(1)));
    running.until("the manifest is told", |running| {
        let snapshot = running.catalog.snapshot();
        let entry = snapshot.model("a").unwrap().version(ModelVersion(1)).cloned();
        entry.is_some_and(|entry| entry.last_error.is_some())
    });
    assert_eq!(block(running.handle.unload("a")), Ok(()));
    assert!(running.answer("a").is_err(), "{:?}", running.answer("a"));
}

#[test]
fn load_of_nothing_is_no_success() {
    let stage = on_stage(&[]);
    let versions = outhaul_types::VersionPolicy::Specific([ModelVersion(5)].into());
    stage.declare("a", ModelManifest { versions, ..ModelManifest::default() }, &[(1, "one")]);
    let running = Running::start(&stage, config(), Journal::forgetful());
    assert!(running.handle.settle(PATIENCE));
    println!("problems {:?}", running.handle.problems());
    println!("answer {:?}", running.answer("a"));
    assert!(block(running.handle.load("a", None)).is_err());
}

#[test]
fn asked_version_that_is_gone_is_told_after_restart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state.db");
    let keeping = runtime();
    let journal = || Journal::in_file(file.clone(), keeping.handle().clone()).unwrap();
    let stage = on_stage(&[("a", &[(1, "one"), (2, "two")])]);
    let running = Running::start(&stage, config(), journal());
    assert!(running.handle.settle(PATIENCE));
    assert_eq!(block(running.handle.load("a", Some(ModelVersion(1)))), Ok(()));
    stage.put("a", &[(2, "two")]);
    drop(running);
    let again = Running::start(&stage, config(), journal());
    assert!(again.handle.settle(PATIENCE));
    println!("{:?} problems {:?}", again.answer("a"), again.handle.problems());
    assert!(again.answer("a").is_ok() || !again.handle.problems().is_empty());
}

#[test]
fn panic_while_looking_is_survived() {
    struct Panics(Arc<Stage>);
    impl Source for Panics {
        fn place(&self) -> &str {
            "panics"
        }
        fn look(&self) -> Result<Scan, SourceError> {
            if self.0.unsteady.fetch_add(1, Ordering::SeqCst) == 0 {
                panic!("scripted")
            }
            self.0.look()
        }
        fn fetch(&self, artefact: &VersionArtefact) -> Result<PathBuf, SourceError> {
            Ok(artefact.path.clone())
        }
        fn folder(&self) -> Option<&Path> {
            None
        }
    }
    let stage = on_stage(&[("a", &[(1, "one")])]);
    let parts = Parts {
        sources: vec![Arc::new(Panics(stage)) as Arc<dyn Source>],
        loader: Arc::new(Script::default()),
        catalog: Arc::new(Catalog::new()),
        journal: Journal::forgetful(),
        metrics: Monitor::new().loading(),
        runtime: None,
    };
    let handle = start(config(), parts).unwrap();
    assert!(handle.settle(Duration::from_secs(3)), "never settles");
}

struct Named(&'static str, Arc<Stage>);
impl Source for Named {
    fn place(&self) -> &str {
        self.0
    }
    fn look(&self) -> Result<Scan, SourceError> {
        self.1.look()
    }
    fn fetch(&self, artefact: &VersionArtefact) -> Result<PathBuf, SourceError> {
        Ok(artefact.path.clone())
    }
    fn folder(&self) -> Option<&Path> {
        None
    }
}

fn two(
    first: &Arc<Stage>,
    second: &Arc<Stage>,
    config: RepositoryConfig,
    journal: Journal,
) -> (Handle, Arc<Catalog<Resident<String>>>) {
    let catalog = Arc::new(Catalog::new());
    let parts = Parts {
        sources: vec![
            Arc::new(Named("first", Arc::clone(first))) as Arc<dyn Source>,
            Arc::new(Named("second", Arc::clone(second))),
        ],
        loader: Arc::new(Script::default()),
        catalog: Arc::clone(&catalog),
        journal,
        metrics: Monitor::new().loading(),
        runtime: None,
    };
    (start(config, parts).unwrap(), catalog)
}

#[test]
fn a_name_in_two_sources_moves_without_a_gap() {
    let (first, second) =
        (on_stage(&[("a", &[(1, "first")])]), on_stage(&[("a", &[(1, "second")])]));
    let explicit = RepositoryConfig { poll_interval: Duration::from_millis(200), ..config() };
    let (handle, catalog) = two(&first, &second, explicit, Journal::forgetful());
    assert!(handle.settle(PATIENCE));
    first.models.lock().unwrap().clear();
    let began = Instant::now();
    let mut failures = 0;
    while began.elapsed() < Duration::from_secs(2) {
        if catalog.resolve("a", &VersionChoice::Latest).is_err() {
            failures += 1;
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
    assert_eq!(failures, 0);
}

#[test]
fn asked_of_another_place_does_not_hold() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state.db");
    let keeping = runtime();
    let journal = || Journal::in_file(file.clone(), keeping.handle().clone()).unwrap();
    let (first, second) = (on_stage(&[("a", &[(1, "first")])]), on_stage(&[]));
    let (handle, _) = two(&first, &second, config(), journal());
    assert!(handle.settle(PATIENCE));
    assert_eq!(block(handle.unload("a")), Ok(()));
    first.models.lock().unwrap().clear();
    second.put("a", &[(1, "second")]);
    assert_eq!(block(handle.load("a", None)), Ok(()));
    drop(handle);
    let (handle, catalog) = two(&first, &second, config(), journal());
    assert!(handle.settle(PATIENCE));
    assert!(catalog.resolve("a", &VersionChoice::Latest).is_ok(), "it was asked for last");
}

#[test]
fn outages_do_not_pile_up() {
    let running = Running::on(&on_stage(&[("a", &[(1, "one")])]));
    for number in 0..50 {
        *running.stage.outage.lock().unwrap() = Some(format!("status 500, request {number}"));
        running.until("told", |running| {
            running
                .handle
                .problems()
                .iter()
                .any(|problem| problem.rule.contains(&format!("request {number}")))
        });
    }
    assert_eq!(running.handle.problems().len(), 1);
}

#[test]
fn a_refused_version_that_is_asked_for_again_is_tried_or_answered() {
    let stage = on_stage(&[("a", &[(1, "one")]), ("b", &[(1, "one")])]);
    let budget = RepositoryConfig {
        memory_budget: Some(10 << 20),
        parallel_loads: NonZeroUsize::MIN,
        ..config()
    };
    let running = Running::start(&stage, budget, Journal::forgetful());
    assert!(running.handle.settle(PATIENCE));
    running.handle.wake(&name("a"), ModelVersion(1));
    running.until("it answers", |running| running.answer("a").is_ok());
    stage.put("a", &[(1, "one"), (2, "breaking")]);
    running.until("it is refused", |running| !running.handle.problems().is_empty());
    running.script.shut(true);
    running.handle.wake(&name("b"), ModelVersion(1));
    running.until("b loads", |running| running.loads().iter().any(|load| load.starts_with("b/")));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let asked = runtime.block_on(async {
        let ask = running.handle.load("a", None);
        tokio::pin!(ask);
        let first = tokio::time::timeout(Duration::from_millis(300), &mut ask).await;
        println!("{first:?}");
        running.script.shut(false);
        tokio::time::timeout(Duration::from_secs(3), ask).await
    });
    println!("{asked:?} {:?}", running.loads());
    assert!(asked.is_ok(), "never answered");
}

#[test]
fn concurrent_asks_for_versions() {
    // A: version 2, fails; B: policy's choice, asked while A loads. B's ask must survive A's failure.
    let stage = on_stage(&[("a", &[(1, "one"), (2, "bad")])]);
    let explicit = RepositoryConfig { mode: Mode::Explicit, ..config() };
    let running = Running::start(&stage, explicit, Journal::forgetful());
    assert!(running.handle.settle(PATIENCE));
    running.script.shut(true);
    let (first, second) = std::thread::scope(|scope| {
        let first = scope.spawn(|| block(running.handle.load("a", Some(ModelVersion(2)))));
        running.until("a/2 loads", |running| !running.loads().is_empty());
        let second = scope.spawn(|| block(running.handle.load("a", Some(ModelVersion(1)))));
        running.until("a/1 loads", |running| running.loads().len() > 1);
        running.script.shut(false);
        (first.join().unwrap(), second.join().unwrap())
    });
    println!("{first:?} {second:?} {:?}", running.answer("a"));
    assert!(first.is_err(), "version 2 does not load");
    assert!(running.answer("a").is_ok());
}

#[test]
fn what_routes_lead_to_outlives_its_files_and_is_told() {
    let running = Running::on(&on_stage(&[("a", &[(1, "one"), (2, "two")])]));
    let first = |running: &Running| {
        let choice = VersionChoice::Exact(ModelVersion(1));
        running.catalog.resolve("a", &choice).map(|resident| String::clone(&resident))
    };
    let told = |running: &Running, what: &str| {
        running.handle.problems().iter().any(|problem| problem.to_string() == what)
    };
    const GONE: &str = "warning: stage: a: version 1 is held by a route, and its files are gone; \
                        put them back before it has to be loaded again, or change the route";
    const LOST: &str = "stage: a: a route leads to version 1, which is not there; add it, or \
                        change the route";
    running.handle.hold([(name("a"), ModelVersion(1))].into());
    running.until("the first answers", |running| first(running).is_ok());
    running.stage.put("a", &[(2, "two")]);
    running.until("its loss is told", |running| told(running, GONE));
    assert_eq!(first(&running), Ok("one".to_owned()));
    // The whole model.
    running.stage.models.lock().unwrap().clear();
    running.until("only the first is left", |running| {
        running.catalog.snapshot().model("a").is_some_and(|model| model.versions().len() == 1)
    });
    assert_eq!((first(&running), told(&running, GONE)), (Ok("one".to_owned()), true));
    // It is the same when its files are back: nothing is loaded anew.
    running.stage.put("a", &[(1, "one")]);
    running.until("nothing is wrong", |running| running.handle.problems().is_empty());
    assert_eq!((first(&running), running.loads().len()), (Ok("one".to_owned()), 2));
    running.stage.models.lock().unwrap().clear();
    running.until("its loss is told again", |running| told(running, GONE));
    // Who unloads means it, and it cannot come back.
    assert_eq!(block(running.handle.unload("a")), Ok(()));
    assert!(first(&running).is_err(), "{:?}", first(&running));
    assert!(told(&running, LOST), "{:?}", running.handle.problems());
    assert_eq!(block(running.handle.load("a", None)), Err(AskError::UnknownModel("a".to_owned())));
}

#[test]
fn what_has_outlived_its_files_goes_when_no_route_leads_to_it_and_does_not_outlive_the_process() {
    let stage = on_stage(&[("a", &[(1, "one")])]);
    let running = Running::on(&stage);
    let held = || [(name("a"), ModelVersion(1))].into();
    running.handle.hold(held());
    // The loop takes one thing after the other: it is held when this returns.
    assert!(running.handle.settle(PATIENCE));
    stage.models.lock().unwrap().clear();
    running.until("its loss is told", |running| !running.handle.problems().is_empty());
    assert_eq!(running.answer("a"), Ok("one".to_owned()));
    running.handle.hold(BTreeSet::new());
    running.until("it is gone", |running| running.answer("a") == Err(Unresolved::UnknownModel));
    running
        .until("it is forgotten", |running| *running.script.forgotten.lock().unwrap() == ["a/1"]);
    running.until("nothing is wrong", |running| running.handle.problems().is_empty());
    drop(running);
    let again = Running::on(&stage);
    again.handle.hold(held());
    again.until("it is told", |running| {
        let told = "a: a route leads to version 1, which is not there; add it, or change the route";
        running.handle.problems().iter().any(|problem| problem.to_string() == told)
    });
    assert_eq!(again.answer("a"), Err(Unresolved::UnknownModel));
}
