//! The plan's rules, one scene each, and a simulation that holds it to its promises over long random
//! histories.

use std::num::NonZeroUsize;

use outhaul_types::{Label, LoadingSpec, ModelManifest};
use proptest::prelude::*;

use super::*;
use crate::record::{Failure, Serving, VersionRecord};
use crate::{Identity, VersionArtefact};

mod held;

const MIB: u64 = 1 << 20;

fn name(text: &str) -> ModelName {
    ModelName::new(text).unwrap()
}

fn seconds(number: u64) -> Duration {
    Duration::from_secs(number)
}

/// A stage on which things are found, loaded and asked for, with the clock at `now`.
struct Scene {
    policy: Policy,
    records: Records,
    now: Instant,
}

impl Scene {
    fn new() -> Self {
        let policy = Policy {
            explicit: false,
            memory_budget: None,
            min_residency: Duration::ZERO,
            parallel_loads: 2,
        };
        // Far from the start of the clock, so that instants may lie before now.
        Scene { policy, records: Records::default(), now: Instant::now() + seconds(100_000) }
    }

    fn with_budget(models: u64) -> Self {
        let mut scene = Scene::new();
        scene.policy.memory_budget = Some(models * MIB);
        scene
    }

    fn found(&mut self, model: &str, manifest: ModelManifest, versions: &[(u64, &str)]) {
        let now = self.now;
        let version = |(number, content): &(u64, &str)| {
            let artefact = VersionArtefact {
                version: ModelVersion(*number),
                path: "model.onnx".into(),
                identity: Identity::new(content),
                // What is expected of it is then 1 MiB.
                bytes: (MIB - (256 << 10)) * 4 / 5,
                changed: None,
            };
            (ModelVersion(*number), FoundVersion { artefact, whole_at: now })
        };
        let record = self.records.models.entry(name(model)).or_default();
        record.found = Some(FoundModel {
            source: 0,
            manifest: Arc::new(manifest),
            beside: Identity::default(),
            versions: versions.iter().map(version).collect(),
            blocked: None,
        });
    }

    fn record(&mut self, model: &str, version: u64) -> &mut VersionRecord {
        let record = self.records.models.entry(name(model)).or_default();
        record.versions.entry(ModelVersion(version)).or_default()
    }

    fn edition(&self, model: &str, version: u64) -> Edition {
        let found = self.records.models[&name(model)].found.as_ref();
        found.unwrap().edition(ModelVersion(version)).unwrap()
    }

    /// The edition that was found now answers.
    fn serves(&mut self, model: &str, version: u64) {
        let (edition, now) = (self.edition(model, version), self.now);
        let known = self.record(model, version);
        known.serving = Some(Serving { edition, memory: MIB, since: now, last_used: now });
        (known.loading, known.failure, known.demanded) = (None, None, None);
    }

    fn fails(&mut self, model: &str, version: u64, retry_in: Option<Duration>) {
        let (edition, now) = (self.edition(model, version), self.now);
        let known = self.record(model, version);
        (known.loading, known.demanded) = (None, None);
        known.failure = Some(Failure {
            edition,
            attempts: 1,
            retry_at: retry_in.map(|after| now + after),
            reason: "bad".into(),
        });
    }

    fn holds(&mut self, model: &str, versions: &[u64]) {
        let record = self.records.models.entry(name(model)).or_default();
        record.held = versions.iter().copied().map(ModelVersion).collect();
    }

    fn decide(&self) -> Decision {
        let everything = self.records.models.keys().cloned().collect();
        decide(&self.policy, &self.records, &everything, self.now)
    }

    /// The decision as people would say it.
    fn says(&self) -> Vec<String> {
        let decision = self.decide();
        let each = |verb: &str, ids: &[Id]| -> Vec<String> {
            ids.iter().map(|(model, version)| format!("{verb} {model} {version}")).collect()
        };
        let loads: Vec<Id> = decision.load.iter().map(|(id, _)| id.clone()).collect();
        let refused: Vec<Id> = decision.refuse.iter().map(|(id, _)| id.clone()).collect();
        let mut says = each("evict", &decision.evict);
        says.extend(each("retire", &decision.retire));
        says.extend(each("load", &loads));
        says.extend(each("refuse", &refused));
        says
    }

    fn stands(&self, model: &str) -> Vec<String> {
        let standings = standings(&self.policy, &self.records.models[&name(model)], self.now);
        let one =
            |(version, standing): (&ModelVersion, &Standing)| format!("{version} {standing:?}");
        standings.iter().map(one).collect()
    }
}

fn policy(versions: VersionPolicy) -> ModelManifest {
    ModelManifest { versions, ..ModelManifest::default() }
}

fn pinned() -> ModelManifest {
    let loading = LoadingSpec { pin: true, ..LoadingSpec::default() };
    ModelManifest { loading, ..ModelManifest::default() }
}

#[test]
fn the_policy_chooses_versions_and_labels_add_to_them() {
    struct Case(&'static str, ModelManifest, &'static [&'static str]);
    let two = NonZeroUsize::new(2).unwrap();
    let labels = BTreeMap::from([(Label::new("stable").unwrap(), ModelVersion(1))]);
    let cases = [
        Case("newest", ModelManifest::default(), &["load a 3"]),
        Case("two", policy(VersionPolicy::Latest(two)), &["load a 2", "load a 3"]),
        Case("all", policy(VersionPolicy::All), &["load a 1", "load a 2", "load a 3"]),
        Case(
            "some, one of which is not there",
            policy(VersionPolicy::Specific([ModelVersion(2), ModelVersion(9)].into())),
            &["load a 2"],
        ),
        Case(
            "a label",
            ModelManifest { labels, ..ModelManifest::default() },
            &["load a 1", "load a 3"],
        ),
    ];
    for Case(what, manifest, expected) in cases {
        let mut scene = Scene::new();
        scene.found("a", manifest, &[(1, "x"), (2, "x"), (3, "x")]);
        assert_eq!(scene.says(), expected, "{what}");
    }
}

#[test]
fn a_new_version_takes_over_before_the_old_one_goes() {
    let mut scene = Scene::new();
    scene.found("a", ModelManifest::default(), &[(1, "x")]);
    scene.serves("a", 1);
    assert!(scene.says().is_empty());
    scene.found("a", ModelManifest::default(), &[(1, "x"), (2, "y")]);
    assert_eq!(scene.says(), ["load a 2"], "the old one stays meanwhile");
    assert_eq!(scene.stands("a"), ["1 Ready", "2 Loading"]);
    scene.record("a", 2).loading = Some((scene.edition("a", 2), MIB));
    assert!(scene.says().is_empty());
    scene.serves("a", 2);
    assert_eq!(scene.says(), ["retire a 1"]);
}

#[test]
fn a_failed_load_keeps_the_old_one_and_is_tried_again_later() {
    let mut scene = Scene::new();
    scene.found("a", ModelManifest::default(), &[(1, "x"), (2, "y")]);
    scene.serves("a", 1);
    scene.fails("a", 2, Some(seconds(5)));
    assert!(scene.says().is_empty());
    assert_eq!(scene.stands("a"), ["1 Ready", "2 Failed(\"bad\")"]);
    assert_eq!(scene.decide().wake_at, Some(scene.now + seconds(5)));
    scene.now += seconds(5);
    assert_eq!(scene.says(), ["load a 2"]);
    assert_eq!(scene.stands("a"), ["1 Ready", "2 Failed(\"bad\")"], "it does not flap");
    scene.found("a", ModelManifest::default(), &[(2, "y")]);
    assert_eq!(scene.says(), ["load a 2"], "its folder is gone, and still nothing else answers");
}

#[test]
fn after_a_restart_an_older_version_stands_in_for_a_broken_one() {
    let mut scene = Scene::new();
    scene.found("a", ModelManifest::default(), &[(1, "x"), (2, "y")]);
    scene.fails("a", 2, None);
    assert_eq!(scene.says(), ["load a 1"]);
    scene.serves("a", 1);
    scene.found("a", ModelManifest::default(), &[(1, "x"), (2, "z")]);
    assert_eq!(scene.says(), ["load a 2"], "new content is worth a try at once");
}

#[test]
fn files_that_are_being_written_are_left_alone() {
    let mut scene = Scene::new();
    scene.found("a", ModelManifest::default(), &[(1, "x"), (2, "y")]);
    let record = scene.records.models.get_mut(&name("a")).unwrap();
    let found = record.found.as_mut().unwrap();
    found.versions.get_mut(&ModelVersion(2)).unwrap().whole_at += seconds(1);
    assert_eq!(scene.says(), ["load a 1"]);
    assert_eq!(scene.decide().wake_at, Some(scene.now + seconds(1)));
    scene.serves("a", 1);
    scene.now += seconds(1);
    assert_eq!(scene.says(), ["load a 2"]);
    scene.serves("a", 2);
    scene.records.models.get_mut(&name("a")).unwrap().versions.remove(&ModelVersion(1));
    scene.found("a", ModelManifest::default(), &[(1, "x"), (2, "rewritten")]);
    let record = scene.records.models.get_mut(&name("a")).unwrap();
    let found = record.found.as_mut().unwrap();
    found.versions.get_mut(&ModelVersion(2)).unwrap().whole_at += seconds(1);
    assert!(scene.says().is_empty(), "no older version steps in for one that answers");
}

#[test]
fn a_model_that_is_gone_or_unloaded_goes() {
    let mut scene = Scene::new();
    scene.found("a", ModelManifest::default(), &[(1, "x")]);
    scene.serves("a", 1);
    scene.records.models.get_mut(&name("a")).unwrap().asked = Some(Asked::Unload);
    assert_eq!(scene.says(), ["retire a 1"]);
    let record = scene.records.models.get_mut(&name("a")).unwrap();
    (record.asked, record.found) = (None, None);
    assert_eq!(scene.says(), ["retire a 1"]);
}

#[test]
fn in_explicit_mode_only_what_was_asked_for_is_loaded() {
    let mut scene = Scene::new();
    scene.policy.explicit = true;
    scene.found("a", ModelManifest::default(), &[(1, "x"), (2, "x")]);
    assert!(scene.says().is_empty());
    assert_eq!(scene.stands("a"), ["2 Unloaded"]);
    let asked = |version| Some(Asked::Load { version });
    scene.records.models.get_mut(&name("a")).unwrap().asked = asked(None);
    assert_eq!(scene.says(), ["load a 2"]);
    scene.records.models.get_mut(&name("a")).unwrap().asked = asked(Some(1));
    assert_eq!(scene.says(), ["load a 1"]);
}

#[test]
fn a_label_that_is_moved_leads_to_the_old_version_until_the_new_one_answers() {
    let stable = |version| {
        let labels = BTreeMap::from([(Label::new("stable").unwrap(), ModelVersion(version))]);
        ModelManifest { labels, ..ModelManifest::default() }
    };
    let versions = [(1, "x"), (2, "x"), (3, "x")];
    let mut scene = Scene::new();
    scene.found("a", stable(1), &versions);
    let leads = |scene: &mut Scene| {
        let record = scene.records.models.get_mut(&name("a")).unwrap();
        record.labels = record.lead();
        record.labels.values().map(|version| version.0).collect::<Vec<_>>()
    };
    scene.serves("a", 1);
    scene.serves("a", 3);
    assert_eq!(leads(&mut scene), [1]);
    scene.found("a", stable(2), &versions);
    // The manifest is part of an edition: those that answer are loaded anew under it.
    assert_eq!(scene.says(), ["load a 1", "load a 2", "load a 3"]);
    scene.serves("a", 1);
    scene.serves("a", 3);
    assert_eq!((leads(&mut scene), scene.says()), (vec![1], vec!["load a 2".to_owned()]));
    scene.fails("a", 2, None);
    assert_eq!((leads(&mut scene), scene.says()), (vec![1], vec![]), "the old one stays");
    scene.serves("a", 2);
    assert_eq!((leads(&mut scene), scene.says()), (vec![2], vec!["retire a 1".to_owned()]));
}

#[test]
fn a_file_that_the_manifest_names_is_part_of_an_edition() {
    let mut scene = Scene::new();
    scene.found("a", ModelManifest::default(), &[(1, "x")]);
    scene.serves("a", 1);
    assert_eq!(scene.says(), Vec::<String>::new());
    let record = scene.records.models.get_mut(&name("a")).unwrap();
    record.found.as_mut().unwrap().beside = Identity::new("another tokenizer");
    assert_eq!(scene.says(), ["load a 1"]);
}

#[test]
fn with_a_budget_models_sleep_until_they_are_asked_for() {
    let mut scene = Scene::with_budget(2);
    for model in ["a", "b", "c"] {
        scene.found(model, ModelManifest::default(), &[(1, "x")]);
    }
    scene.found("p", pinned(), &[(1, "x")]);
    assert_eq!(scene.says(), ["load p 1"]);
    assert_eq!(scene.stands("a"), ["1 Dormant"]);
    scene.serves("p", 1);
    scene.record("a", 1).demanded = Some(scene.now);
    assert_eq!(scene.says(), ["load a 1"]);
    assert_eq!(scene.stands("a"), ["1 Waking"]);
    scene.serves("a", 1);
    scene.now += seconds(1);
    scene.record("b", 1).demanded = Some(scene.now);
    assert_eq!(scene.says(), ["evict a 1", "load b 1"], "a pinned one stays; one load goes ahead");
}

#[test]
fn the_one_used_longest_ago_goes_and_only_as_many_as_needed() {
    let mut scene = Scene::with_budget(3);
    for model in ["a", "b", "c"] {
        scene.found(model, ModelManifest::default(), &[(1, "x")]);
        scene.serves(model, 1);
        scene.now += seconds(1);
    }
    scene.record("a", 1).serving.as_mut().unwrap().last_used += seconds(10);
    for model in ["d", "e", "f"] {
        scene.found(model, ModelManifest::default(), &[(1, "x")]);
        scene.record(model, 1).demanded = Some(scene.now);
        scene.now += seconds(1);
    }
    let says = scene.says();
    assert_eq!(says, ["evict b 1", "evict c 1", "load d 1"], "two places to load, one ahead");
}

#[test]
fn a_load_waits_for_what_drains() {
    let mut scene = Scene::with_budget(2);
    scene.found("a", ModelManifest::default(), &[(1, "x")]);
    scene.serves("a", 1);
    scene.records.leaving = 2 * MIB;
    scene.found("b", ModelManifest::default(), &[(1, "x")]);
    scene.record("b", 1).demanded = Some(scene.now);
    assert!(scene.says().is_empty(), "budget and one model are in memory already");
    scene.records.leaving = MIB;
    assert_eq!(scene.says(), ["load b 1"]);
}

#[test]
fn nothing_is_evicted_before_its_minimum_and_the_plan_comes_back_for_it() {
    let mut scene = Scene::with_budget(1);
    scene.policy.min_residency = seconds(10);
    scene.found("a", ModelManifest::default(), &[(1, "x")]);
    scene.serves("a", 1);
    scene.found("b", ModelManifest::default(), &[(1, "x")]);
    scene.record("b", 1).demanded = Some(scene.now);
    assert!(scene.says().is_empty());
    assert_eq!(scene.decide().wake_at, Some(scene.now + seconds(10)));
    scene.now += seconds(10);
    assert_eq!(scene.says(), ["evict a 1", "load b 1"]);
}

#[test]
fn what_can_never_fit_is_refused_and_says_why() {
    let mut scene = Scene::with_budget(1);
    scene.found("p", pinned(), &[(1, "x")]);
    scene.serves("p", 1);
    scene.found("a", ModelManifest::default(), &[(1, "x")]);
    scene.record("a", 1).demanded = Some(scene.now);
    assert_eq!(scene.says(), ["refuse a 1"]);
    let reason = &scene.decide().refuse[0].1;
    assert_eq!(
        reason,
        "it needs about 1.0 MiB and there is no room for it: the memory budget is 1.0 MiB, of \
         which 1.0 MiB cannot be let go"
    );
}

#[test]
fn a_swap_may_exceed_the_budget_by_the_model_that_it_replaces() {
    let mut scene = Scene::with_budget(1);
    scene.found("a", ModelManifest::default(), &[(1, "x")]);
    scene.serves("a", 1);
    scene.found("a", ModelManifest::default(), &[(1, "x"), (2, "y")]);
    assert_eq!(scene.says(), ["load a 2"]);
}

#[test]
fn what_cannot_fit_evicts_nothing() {
    let mut scene = Scene::with_budget(2);
    for model in ["a", "b"] {
        scene.found(model, ModelManifest::default(), &[(1, "one")]);
        scene.serves(model, 1);
    }
    scene.found("large", ModelManifest::default(), &[(1, "one")]);
    let large = scene.records.models.get_mut(&name("large")).unwrap();
    large.found.as_mut().unwrap().versions.get_mut(&ModelVersion(1)).unwrap().artefact.bytes =
        100 * MIB;
    scene.record("large", 1).demanded = Some(scene.now);
    assert_eq!(scene.says(), ["refuse large 1"]);
}

#[test]
fn a_swap_within_the_budget_evicts_nobody() {
    let mut scene = Scene::with_budget(2);
    scene.found("b", ModelManifest::default(), &[(1, "one")]);
    scene.serves("b", 1);
    scene.found("a", ModelManifest::default(), &[(1, "one")]);
    scene.serves("a", 1);
    scene.found("a", ModelManifest::default(), &[(1, "one"), (2, "two")]);
    // keep the manifest as it was
    let manifest = scene.records.models[&name("a")].versions[&ModelVersion(1)]
        .serving
        .as_ref()
        .unwrap()
        .edition
        .manifest
        .clone();
    scene.records.models.get_mut(&name("a")).unwrap().found.as_mut().unwrap().manifest = manifest;
    assert_eq!(scene.says(), ["load a 2"]);
    scene.now += seconds(1);
    scene.serves("a", 2);
    assert_eq!(scene.says(), ["retire a 1"]);
}

#[test]
fn a_smaller_edition_of_what_is_too_large_is_loaded_or_refused() {
    let mut scene = Scene::with_budget(2);
    scene.found("a", ModelManifest::default(), &[(1, "one")]);
    scene.serves("a", 1);
    scene.record("a", 1).serving.as_mut().unwrap().memory = 5 * MIB;
    scene.found("a", ModelManifest::default(), &[(1, "smaller")]);
    let decision = scene.decide();
    assert!(
        !decision.load.is_empty() || !decision.refuse.is_empty() || decision.wake_at.is_some(),
        "{decision:?}"
    );
}

#[test]
fn over_budget_within_residency_wakes() {
    let mut scene = Scene::with_budget(2);
    scene.policy.min_residency = seconds(60);
    for model in ["a", "b"] {
        scene.found(model, ModelManifest::default(), &[(1, "one")]);
        scene.serves(model, 1);
    }
    scene.record("b", 1).serving.as_mut().unwrap().memory = 2 * MIB;
    let decision = scene.decide();
    assert!(!decision.evict.is_empty() || decision.wake_at.is_some(), "{decision:?}");
}

#[test]
fn a_version_makes_room_among_its_own() {
    let mut scene = Scene::with_budget(1);
    let manifest = policy(VersionPolicy::All);
    scene.found("a", manifest, &[(1, "one"), (2, "two")]);
    scene.serves("a", 1);
    scene.record("a", 2).demanded = Some(scene.now);
    assert_eq!(scene.says(), ["evict a 1", "load a 2"]);
}

/// One thing that may happen in a simulation.
#[derive(Clone, Debug)]
enum Happening {
    Wanted(u8),
    Ends { failed: bool },
    Drained,
    Republished(u8),
    Passes(u16),
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let one = prop_oneof![
        4 => (0..12_u8).prop_map(Happening::Wanted),
        4 => prop::bool::weighted(0.1).prop_map(|failed| Happening::Ends { failed }),
        3 => Just(Happening::Drained),
        1 => (0..12_u8).prop_map(Happening::Republished),
        2 => (1..2000_u16).prop_map(Happening::Passes),
    ];
    prop::collection::vec(one, 1..200)
}

/// Carries decisions out as the loop does, with loads and drains that end when the history says.
struct Simulation {
    scene: Scene,
    loading: Vec<Id>,
    draining: Vec<u64>,
    contents: u32,
}

impl Simulation {
    fn new() -> Self {
        let mut scene = Scene::with_budget(4);
        scene.policy.min_residency = Duration::from_millis(100);
        for model in 0..12 {
            let manifest = if model == 0 { pinned() } else { ModelManifest::default() };
            scene.found(&format!("m{model}"), manifest, &[(1, "0")]);
        }
        Simulation { scene, loading: Vec::new(), draining: Vec::new(), contents: 0 }
    }

    fn memory(&self) -> u64 {
        let versions = self.scene.records.models.values().flat_map(|model| model.versions.values());
        versions.filter(|known| known.serving.is_some()).count() as u64 * MIB
            + self.draining.iter().sum::<u64>()
            + self.loading.len() as u64 * MIB
    }

    fn happens(&mut self, happening: &Happening) {
        match happening {
            Happening::Wanted(model) => {
                let now = self.scene.now;
                let known = self.scene.record(&format!("m{model}"), 1);
                match &mut known.serving {
                    Some(serving) => serving.last_used = now,
                    None => drop(known.demanded.get_or_insert(now)),
                }
            }
            Happening::Ends { failed } if !self.loading.is_empty() => {
                let (model, version) = self.loading.remove(0);
                let replaced =
                    self.scene.record(model.as_str(), version.0).serving.take().is_some();
                if *failed && !replaced {
                    self.scene.fails(model.as_str(), version.0, Some(seconds(1)));
                } else {
                    self.draining.extend(replaced.then_some(MIB));
                    self.scene.serves(model.as_str(), version.0);
                }
            }
            Happening::Drained if !self.draining.is_empty() => drop(self.draining.remove(0)),
            Happening::Republished(model) => {
                self.contents += 1;
                let manifest = if *model == 0 { pinned() } else { ModelManifest::default() };
                let content = self.contents.to_string();
                self.scene.found(&format!("m{model}"), manifest, &[(1, &content)]);
            }
            Happening::Passes(millis) => {
                self.scene.now += Duration::from_millis(u64::from(*millis));
            }
            Happening::Ends { .. } | Happening::Drained => {}
        }
        self.scene.records.leaving = self.draining.iter().sum();
    }

    fn carry_out(&mut self, decision: &Decision) {
        for (model, version) in decision.evict.iter().chain(&decision.retire) {
            assert!(self.scene.record(model.as_str(), version.0).serving.take().is_some());
            self.draining.push(MIB);
        }
        for ((model, version), need) in &decision.load {
            let edition = self.scene.edition(model.as_str(), version.0);
            let known = self.scene.record(model.as_str(), version.0);
            assert!(known.loading.is_none(), "one load at a time of {model}");
            known.loading = Some((edition, *need));
            self.loading.push((model.clone(), *version));
        }
        for (id, _) in &decision.refuse {
            self.scene.fails(id.0.as_str(), id.1.0, Some(seconds(1)));
        }
        self.scene.records.leaving = self.draining.iter().sum();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Whatever happens, the budget is exceeded by one model at most, pinned models stay, and once
    /// the world is quiet whoever asked is served.
    #[test]
    fn the_budget_holds_and_nobody_waits_for_ever(history in happenings()) {
        let mut simulation = Simulation::new();
        for happening in &history {
            simulation.happens(happening);
            let decision = simulation.scene.decide();
            prop_assert_eq!(&decision, &simulation.scene.decide(), "it is a function");
            simulation.carry_out(&decision);
            let (memory, budget) = (simulation.memory(), 4 * MIB);
            prop_assert!(memory <= budget + MIB, "{} models", memory / MIB);
            let loads = simulation.loading.len();
            prop_assert!(loads <= simulation.scene.policy.parallel_loads);
        }
        for _ in 0..200 {
            simulation.happens(&Happening::Ends { failed: false });
            simulation.happens(&Happening::Drained);
            simulation.happens(&Happening::Passes(400));
            let decision = simulation.scene.decide();
            simulation.carry_out(&decision);
        }
        for (model, record) in &simulation.scene.records.models {
            let waits = record.versions.values().any(|known| known.demanded.is_some());
            prop_assert!(!waits, "{} still waits", model);
        }
        prop_assert!(simulation.scene.records.models[&name("m0")].serving().next().is_some());
    }
}
