use std::num::NonZeroUsize;

use outhaul_types::VersionPolicy;

use super::super::textproto::tests::undecided;
use super::*;

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/formats/tensorflow")
}

/// A list in a folder with models `onnx` (version `00001`), `saved` and `empty`.
struct Lists(tempfile::TempDir);

impl Lists {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for file in ["onnx/00001/model.onnx", "saved/1/saved_model.pb", "empty/readme"] {
            let file = folder.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "").unwrap();
        }
        Lists(folder)
    }

    fn read(&self, text: &str) -> (Vec<Listed>, Vec<Problem>) {
        let file = self.0.path().join("models.config");
        fs::write(&file, text).unwrap();
        read_config(&file)
    }

    /// All that is told, without the folder.
    fn told(&self, text: &str) -> Vec<String> {
        let (listed, problems) = self.read(text);
        let own = listed.iter().flat_map(|listed| &listed.foreign.problems);
        let folder = format!("{}/", self.0.path().display());
        own.chain(&problems).map(|problem| problem.to_string().replace(&folder, "")).collect()
    }
}

fn name(listed: &Listed) -> &str {
    listed.foreign.name.as_ref().unwrap().as_str()
}

#[test]
fn every_field_has_a_decision_and_every_decision_a_field() {
    let (fields, rows) = undecided(&schema(MESSAGE), DECISIONS);
    assert_eq!((fields, rows), (Vec::new(), Vec::new()), "without a decision, without a field");
}

#[test]
fn a_list_is_read() {
    let folder = example();
    let (listed, problems) = read_config(&folder.join("models.config"));
    assert_eq!(problems, []);
    let [reviews, fraud, saved] = <[Listed; 3]>::try_from(listed).unwrap();

    assert_eq!((name(&reviews), &reviews.folder), ("reviews", &folder.join("reviews/")));
    assert_eq!(reviews.foreign.problems, []);
    let manifest = reviews.foreign.manifest.unwrap();
    assert_eq!(manifest.versions, VersionPolicy::All);
    let labels: Vec<_> = manifest.labels.iter().map(|(l, v)| (l.as_str(), v.0)).collect();
    assert_eq!(labels, [("canary", 2), ("stable", 1)]);

    assert_eq!((name(&fraud), &fraud.folder), ("fraud", &folder.join("fraud")));
    let versions = [3, 4].map(ModelVersion);
    let manifest = fraud.foreign.manifest.unwrap();
    assert_eq!(manifest.versions, VersionPolicy::Specific(versions.into()));
    let told: Vec<_> = fraud.foreign.problems.iter().map(|p| (p.severity, p.line)).collect();
    assert_eq!(told, [(Severity::Warning, Some(13)), (Severity::Warning, Some(15))]);
    assert!(fraud.foreign.problems[0].rule.starts_with("there is no such folder; "));
    assert!(fraud.foreign.problems.iter().all(|p| p.model == fraud.foreign.name));

    assert_eq!((name(&saved), &saved.foreign.manifest), ("saved", &None));
    assert!(saved.foreign.problems[0].remedy.starts_with("convert each with tf2onnx"));
}

#[test]
fn one_model_is_wrong_and_the_others_are_served() {
    struct Case {
        model: &'static str,
        served: bool,
        told: &'static [&'static str],
    }
    let lists = Lists::new();
    let case = |model, served, told| Case { model, served, told };
    let cases = [
        case("name: 'a' base_path: 'onnx'", true, &[][..]),
        case("name: 'a' base_path: './onnx' model_platform: 'tensorflow'", true, &[]),
        case("name: 'a' base_path: 'onnx' model_type: TENSORFLOW", true, &[]),
        case("name: 'a' base_path: 'onnx' model_version_policy { }", true, &[]),
        case(
            "name: 'a' base_path: '/models/onnx'",
            true,
            &["warning: models.config:1: model_config_list.config[0].base_path = \
               \"/models/onnx\": there is no such folder; onnx is taken"],
        ),
        case(
            "name: 'a' base_path: 'onnx' model_platform: 'pytorch'",
            true,
            &["warning: models.config:1: model_config_list.config[0].model_platform = \
               \"pytorch\": only ONNX models are served"],
        ),
        case(
            "name: 'a' base_path: 'onnx' model_type: OTHER",
            true,
            &["warning: models.config:1: model_config_list.config[0].model_type = OTHER: only"],
        ),
        case(
            "name: 'a' base_path: 'onnx' model_type: TENSORFLOW model_platform: 'tensorflow'",
            false,
            &["models.config:1: model_config_list.config[0].model_type = TENSORFLOW: stands for"],
        ),
        case(
            "name: 'a' base_path: 'saved'",
            false,
            &["models.config:1: model_config_list.config[0].base_path = \"saved\": its versions \
               hold TensorFlow's format and no model.onnx; convert each with tf2onnx"],
        ),
        // A scan tells that there is no version in it.
        case("name: 'a' base_path: 'empty'", true, &[]),
        case(
            "name: 'a' base_path: '/models/none'",
            false,
            &["models.config:1: model_config_list.config[0].base_path = \"/models/none\": there \
               is no such folder"],
        ),
        case(
            "name: 'a' base_path: 'gs://bucket/a'",
            false,
            &["models.config:1: model_config_list.config[0].base_path = \"gs://bucket/a\": must \
               be a folder of this machine; give the address itself to the server"],
        ),
        case("name: 'a'", false, &["models.config:1: model_config_list.config[0].base_path: must"]),
        case(
            "base_path: 'onnx' model_version_policy { specific { versions: 0 } }",
            false,
            &[
                "models.config:1: model_config_list.config[0].model_version_policy.specific.\
                 versions = [0]: 0 is not a version",
                "models.config:1: model_config_list.config[0].name: '' is not a model name",
            ],
        ),
        case(
            "name: 'a' base_path: 'onnx' version_labels { key: '1a' value: 1 } \
             version_labels { key: 'new' value: -1 }",
            false,
            &[
                "models.config:1: model_config_list.config[0].version_labels: '1a' is no label",
                "models.config:1: model_config_list.config[0].version_labels: 'new' names version \
                 -1: versions count from 1",
            ],
        ),
        case(
            "name: 'b' base_path: 'onnx'",
            false,
            &["models.config:1: model_config_list.config[1].name = \"b\": is there twice"],
        ),
    ];
    for Case { model, served, told } in cases {
        let sound = "config { name: 'b' base_path: 'onnx' }";
        let text = format!("model_config_list {{ config {{ {model} }} {sound} }}");
        let (listed, _) = lists.read(&text);
        let sound: Vec<&str> =
            listed.iter().filter(|l| l.foreign.manifest.is_some()).map(name).collect();
        assert_eq!(sound.contains(&"a"), served, "{text}");
        assert!(sound.contains(&"b"), "{text}");
        let all = lists.told(&text);
        assert_eq!(all.len(), told.len(), "{text}: {all:?}");
        for (all, told) in all.iter().zip(told) {
            assert!(all.starts_with(told), "{text}: {all}");
        }
    }
}

#[test]
fn a_file_that_is_no_list_says_so() {
    struct Case(&'static str, &'static str);
    let cases = [
        Case("", "models.config: no model is listed; write model_config_list { "),
        Case("model_config_list { }", "models.config: no model is listed; "),
        Case(
            "custom_model_config { }",
            "models.config:1: custom_model_config: models that a plug-in finds are not supported",
        ),
        Case(
            "custom_model_config { [type.googleapis.com/a.B] { x: 1 } }",
            "models.config:1: custom_model_config.[type.googleapis.com/a.B]: messages of other",
        ),
        Case(
            "model_config_list { config { basepath: 'a' } }",
            "models.config:1: model_config_list.config[0].basepath: unknown field; did you mean",
        ),
        Case("model_config_list {", "models.config:1: not protobuf text at column 20: "),
    ];
    let lists = Lists::new();
    for Case(text, expected) in cases {
        let told = lists.told(text);
        assert_eq!(told.len(), 1, "{text}: {told:?}");
        assert!(told[0].starts_with(expected), "{text}: {told:?}");
    }
    let (listed, problems) = read_config(&lists.0.path().join("none.config"));
    assert_eq!((listed.len(), problems.len()), (0, 1));
}

#[test]
fn policies_are_those_of_the_newest_by_default() {
    struct Case(&'static str, VersionPolicy);
    let latest = |number| VersionPolicy::Latest(NonZeroUsize::new(number).unwrap());
    let cases = [
        Case("", latest(1)),
        Case("model_version_policy { latest { } }", latest(1)),
        Case("model_version_policy { latest { num_versions: 3 } }", latest(3)),
        Case("model_version_policy: { all: {} }", VersionPolicy::All),
    ];
    let lists = Lists::new();
    for Case(policy, expected) in cases {
        let text =
            format!("model_config_list {{ config {{ name: 'a' base_path: 'onnx' {policy} }} }}");
        let (listed, _) = lists.read(&text);
        assert_eq!(listed[0].foreign.manifest.as_ref().unwrap().versions, expected, "{policy}");
    }
}
