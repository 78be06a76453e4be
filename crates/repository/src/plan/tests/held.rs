//! Versions that routes and roll-outs lead to.

use super::*;

#[test]
fn what_routes_lead_to_is_loaded_and_stays_whatever_the_policy_says() {
    let versions = [(1, "x"), (2, "x"), (3, "x")];
    let mut scene = Scene::new();
    scene.found("a", ModelManifest::default(), &versions);
    scene.holds("a", &[2, 9]);
    assert_eq!(scene.says(), ["load a 2", "load a 3"], "what is not there is no matter");
    scene.serves("a", 2);
    scene.serves("a", 3);
    assert_eq!(scene.says(), Vec::<String>::new());
    scene.holds("a", &[1]);
    assert_eq!(scene.says(), ["load a 1"], "the one before stays until the next answers");
    scene.serves("a", 1);
    assert_eq!(scene.says(), ["retire a 2"]);
    scene.records.models.get_mut(&name("a")).unwrap().asked =
        Some(Asked::Load { version: Some(3) });
    assert_eq!(scene.says(), ["retire a 2"], "one version was asked for; the other is held");
    scene.records.models.get_mut(&name("a")).unwrap().asked = Some(Asked::Unload);
    assert_eq!(scene.says(), ["retire a 1", "retire a 2", "retire a 3"], "who unloads means it");
}

#[test]
fn in_explicit_mode_what_is_held_counts_as_asked_for_and_nothing_else_does() {
    let mut scene = Scene::new();
    scene.policy.explicit = true;
    scene.found("a", ModelManifest::default(), &[(1, "x"), (2, "x")]);
    scene.holds("a", &[1]);
    assert_eq!(scene.says(), ["load a 1"]);
    assert_eq!(scene.stands("a"), ["1 Loading", "2 Unloaded"]);
    scene.serves("a", 1);
    scene.holds("a", &[2]);
    assert_eq!(scene.says(), ["load a 2"]);
    scene.fails("a", 2, None);
    assert_eq!(scene.says(), Vec::<String>::new(), "the last one that answers stays");
    scene.holds("a", &[]);
    assert_eq!(scene.says(), ["retire a 1"], "nobody asked for it");
}

#[test]
fn with_a_budget_what_is_held_is_loaded_at_once_and_never_evicted() {
    let mut scene = Scene::with_budget(2);
    for model in ["a", "b", "c"] {
        scene.found(model, ModelManifest::default(), &[(1, "x")]);
    }
    scene.holds("a", &[1]);
    assert_eq!(scene.stands("a"), ["1 Loading"]);
    assert_eq!(scene.says(), ["load a 1"]);
    scene.serves("a", 1);
    scene.now += seconds(1);
    scene.serves("b", 1);
    scene.record("c", 1).demanded = Some(scene.now);
    assert_eq!(scene.says(), ["evict b 1", "load c 1"], "though the other was used longer ago");
    scene.holds("a", &[]);
    assert_eq!(scene.says(), ["evict a 1", "load c 1"]);
}

#[test]
fn what_is_held_and_in_memory_outlives_its_files_until_it_is_let_go() {
    let versions = [(1, "x"), (2, "x")];
    let gone = |change: fn(&mut Scene)| {
        let mut scene = Scene::new();
        scene.found("a", ModelManifest::default(), &versions);
        scene.holds("a", &[1]);
        scene.serves("a", 1);
        scene.serves("a", 2);
        change(&mut scene);
        (scene.says(), scene.stands("a"))
    };
    fn record(scene: &mut Scene) -> &mut ModelRecord {
        scene.records.models.get_mut(&name("a")).unwrap()
    }
    fn its_files(scene: &mut Scene) {
        scene.found("a", ModelManifest::default(), &[(2, "x")]);
    }
    fn the_model(scene: &mut Scene) {
        record(scene).lose();
    }
    struct Case(&'static str, fn(&mut Scene), &'static [&'static str]);
    let cases = [
        Case("its files are gone", its_files, &[]),
        Case(
            "all of its versions are gone",
            |scene| scene.found("a", ModelManifest::default(), &[]),
            &["retire a 2"],
        ),
        Case("the model is gone", the_model, &["retire a 2"]),
        Case(
            "in explicit mode",
            |scene| {
                its_files(scene);
                scene.policy.explicit = true
            },
            &["retire a 2"],
        ),
        Case(
            "another version was asked for",
            |scene| {
                its_files(scene);
                record(scene).asked = Some(Asked::Load { version: Some(2) })
            },
            &[],
        ),
        Case(
            "no longer held",
            |scene| {
                its_files(scene);
                scene.holds("a", &[])
            },
            &["retire a 1"],
        ),
        Case(
            "no longer held, and the model is gone",
            |scene| {
                the_model(scene);
                scene.holds("a", &[])
            },
            &["retire a 1", "retire a 2"],
        ),
        Case(
            "unloaded",
            |scene| {
                its_files(scene);
                record(scene).asked = Some(Asked::Unload)
            },
            &["retire a 1", "retire a 2"],
        ),
        Case(
            "unloaded, and the model is gone",
            |scene| {
                the_model(scene);
                record(scene).asked = Some(Asked::Unload)
            },
            &["retire a 1", "retire a 2"],
        ),
        Case(
            "a pipeline has the name",
            |scene| record(scene).give_way(),
            &["retire a 1", "retire a 2"],
        ),
        Case(
            "its files are back",
            |scene| {
                the_model(scene);
                scene.found("a", ModelManifest::default(), &[(1, "x"), (2, "x")])
            },
            &[],
        ),
    ];
    for Case(what, change, expected) in cases {
        let (says, stands) = gone(change);
        assert_eq!(says, expected, "{what}");
        assert_eq!(stands[0], "1 Ready", "{what}: until that is done");
    }
}

#[test]
fn what_has_outlived_its_files_is_not_evicted_and_never_loaded() {
    let mut scene = Scene::with_budget(1);
    scene.found("a", ModelManifest::default(), &[(1, "x")]);
    scene.found("b", ModelManifest::default(), &[(1, "x")]);
    scene.holds("a", &[1]);
    scene.serves("a", 1);
    scene.records.models.get_mut(&name("a")).unwrap().lose();
    scene.record("b", 1).demanded = Some(scene.now);
    assert_eq!(scene.says(), ["refuse b 1"]);
    scene.record("a", 1).serving = None;
    assert_eq!(scene.says(), ["load b 1"], "it cannot come back");
}
