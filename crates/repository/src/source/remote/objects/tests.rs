use std::time::Duration;

use super::*;

fn meta(location: &str, size: u64) -> ObjectMeta {
    ObjectMeta {
        location: Path::parse(location).unwrap(),
        last_modified: SystemTime::UNIX_EPOCH.into(),
        size,
        e_tag: Some("\"tag\"".to_owned()),
        version: None,
    }
}

fn objects(names: &[&str]) -> Objects {
    let listed = names.iter().map(|name| meta(&format!("models/{name}"), 5)).collect();
    Objects::new("s3://b/models", &Path::from("models"), listed, &[])
}

#[test]
fn names_that_have_no_place_in_a_folder_are_problems() {
    let long = "x".repeat(256);
    let listed = vec![
        meta("models/iris/1/model.onnx", 5),
        meta("models/back\\slash/model.onnx", 5),
        meta(&format!("models/{long}/model.onnx"), 5),
        meta("modelsx/other/model.onnx", 5),
        meta("etc/passwd", 5),
        // Neither of these two is anybody's business.
        meta("models", 0),
        meta("models/.hidden/model.onnx", 5),
    ];
    let unnameable = ["models/a/../../b".to_owned(), "models//c".to_owned()];
    let objects = Objects::new("s3://b/models", &Path::from("models"), listed, &unnameable);
    assert_eq!(objects.by_name.keys().collect::<Vec<_>>(), ["iris/1/model.onnx"]);
    let problems: Vec<String> = objects.problems.iter().map(Problem::to_string).collect();
    let says = [
        "models/a/../../b",
        "models//c",
        "'\\'",
        "255 bytes",
        "modelsx/other/model.onnx\": it does not lie below",
        "etc/passwd\": it does not lie below",
    ];
    assert_eq!(problems.len(), says.len(), "{problems:#?}");
    for (problem, says) in problems.iter().zip(says) {
        assert!(problem.starts_with("s3://b/models: the object "), "{problem}");
        assert!(problem.contains(says), "{problem}");
    }
}

#[test]
fn every_name_that_leads_out_is_refused() {
    for name in ["..", "../x", "a/../b", "a/..", "./a", "a//b", "a\\..\\b", "a\0b", "a\nb", ""] {
        assert!(rule_broken_by(name).is_some(), "{name:?}");
    }
    for name in ["a", "a..b/..c", "a b/ü.onnx", "C:/x"] {
        assert_eq!(rule_broken_by(name), None, "{name:?}");
    }
}

#[test]
fn an_object_named_like_a_folder_gives_way() {
    let listed =
        vec![meta("iris", 0), meta("iris/1", 7), meta("iris/1/model.onnx", 5), meta("lonely", 0)];
    let objects = Objects::new("s3://b", &Path::ROOT, listed, &[]);
    assert_eq!(objects.by_name.keys().collect::<Vec<_>>(), ["iris/1/model.onnx", "lonely"]);
    // The empty one is a console's mark for a folder.
    let problems: Vec<String> = objects.problems.iter().map(Problem::to_string).collect();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].starts_with("s3://b/iris/1: its name is also that of a folder"));
}

#[test]
fn a_version_is_what_it_would_be_in_a_local_folder() {
    struct Case {
        what: &'static str,
        version: u64,
        model_file: &'static str,
        listed: &'static [&'static str],
        members: &'static [&'static str],
    }
    let cases = [
        Case {
            what: "everything in a version's folder",
            version: 2,
            model_file: "iris/2/model.onnx",
            listed: &[
                "iris/1/model.onnx",
                "iris/2/model.onnx",
                "iris/2/weights/a.bin",
                "iris/2/vocabulary.txt",
                "iris/20/model.onnx",
                "iris/model.toml",
            ],
            members: &["model.onnx", "vocabulary.txt", "weights/a.bin"],
        },
        Case {
            what: "a model's own folder without versions, documents and declarations",
            version: 1,
            model_file: "iris/model.onnx",
            listed: &[
                "iris/model.onnx",
                "iris/model.toml",
                "iris/model.onnx.data",
                "iris/external/part-0",
                "iris/README.md",
                "iris/other.onnx",
                "iris/2/model.onnx",
                "irises/model.onnx",
            ],
            members: &["external/part-0", "model.onnx", "model.onnx.data"],
        },
        Case {
            what: "a file among others",
            version: 1,
            model_file: "iris.onnx",
            listed: &[
                "iris.onnx",
                "iris.onnx.data",
                "iris_weights",
                "iris-2.onnx",
                "iris.b.onnx",
                "other.onnx",
                "iris.d/x",
            ],
            members: &["iris.onnx", "iris.onnx.data", "iris_weights"],
        },
        Case {
            what: "a model's folder that was named itself",
            version: 1,
            model_file: "1/model.onnx",
            listed: &["1/model.onnx", "2/model.onnx", "model.toml"],
            members: &["model.onnx"],
        },
    ];
    for case in cases {
        let members = objects(case.listed).members(ModelVersion(case.version), case.model_file);
        let names: Vec<&str> = members.files.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, case.members, "{}", case.what);
        assert!(case.model_file.ends_with(&members.model_file), "{}", case.what);
        assert_eq!(members.bytes(), 5 * names.len() as u64, "{}", case.what);
    }
}

#[test]
fn an_identity_changes_with_names_sizes_tags_and_place_alone() {
    let base = vec![meta("iris/1/model.onnx", 5), meta("iris/1/data", 5), meta("other", 5)];
    let identity = |place: &str, listed: &[ObjectMeta]| {
        let objects = Objects::new(place, &Path::ROOT, listed.to_vec(), &[]);
        objects.members(ModelVersion(1), "iris/1/model.onnx").identity(place)
    };
    let before = identity("s3://b", &base);
    assert_ne!(before, identity("s3://c", &base));

    let mut resized = base.clone();
    resized[1].size = 6;
    assert_ne!(before, identity("s3://b", &resized));

    let mut renamed = base.clone();
    renamed[1].location = Path::from("iris/1/datb");
    assert_ne!(before, identity("s3://b", &renamed));

    let mut written_again = base.clone();
    written_again[0].e_tag = Some("\"new\"".to_owned());
    assert_ne!(before, identity("s3://b", &written_again));

    // Where there is a tag, a time says nothing: copying an object onto itself changes it.
    let later = SystemTime::UNIX_EPOCH + Duration::from_secs(9);
    let mut touched = base.clone();
    touched[0].last_modified = later.into();
    assert_eq!(before, identity("s3://b", &touched));

    let mut without_tag = base.clone();
    without_tag[0].e_tag = None;
    let mut touched = without_tag.clone();
    touched[0].last_modified = later.into();
    assert_ne!(identity("s3://b", &without_tag), identity("s3://b", &touched));

    let mut elsewhere = base.clone();
    elsewhere[2].size = 99;
    assert_eq!(before, identity("s3://b", &elsewhere));
}

#[test]
fn only_small_files_that_may_declare_something_are_read() {
    struct Case {
        name: &'static str,
        bytes: u64,
        is_read: bool,
    }
    let cases = [
        Case { name: "iris/model.toml", bytes: 100, is_read: true },
        Case { name: "iris/model.toml", bytes: LARGEST_DECLARATION + 1, is_read: false },
        Case { name: "iris/labels.txt", bytes: 100, is_read: true },
        Case { name: "models.config", bytes: 100, is_read: true },
        Case { name: "iris/1/vocabulary.txt", bytes: 100, is_read: false },
        Case { name: "iris/1/model.onnx", bytes: 100, is_read: false },
    ];
    for case in cases {
        let mut object = Object::of(&meta("x", 0));
        object.bytes = case.bytes;
        assert_eq!(is_declaration(case.name, &object), case.is_read, "{}", case.name);
    }
}
