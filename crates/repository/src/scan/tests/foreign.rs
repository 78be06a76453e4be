//! Folders that other servers and tools wrote.

use super::*;
use crate::Severity;

fn write(folder: &Path, file: &str, text: &str) {
    fs::write(folder.join(file), text).unwrap();
}

#[test]
fn formats_mix_in_one_folder() {
    let folder = tree(&[
        "m/ours/1/model.onnx",
        "m/triton/1/net.onnx",
        "m/triton/3/net.onnx",
        "m/triton/warmup/x.onnx",
        "m/nested/1/model.onnx/model.onnx",
        "m/nested/1/model.onnx/weights.bin",
        "m/mlflow/data/net.onnx",
        "m/mlserver/iris.onnx",
    ]);
    let folder = folder.path();
    write(
        folder,
        "m/triton/config.pbtxt",
        "default_model_filename: \"net.onnx\" max_batch_size: 7",
    );
    write(folder, "m/nested/config.pbtxt", "name: \"nested\"");
    write(folder, "m/mlflow/MLmodel", "flavors: { onnx: { data: data/net.onnx } }");
    let settings = "{\"name\": \"flower\", \"parameters\": {\"uri\": \"./iris.onnx\"}}";
    write(folder, "m/mlserver/model-settings.json", settings);
    let scan = scan(&[folder.join("m")]);
    assert_eq!(
        found(folder, &scan),
        [
            "flower:1=m/mlserver/iris.onnx",
            "mlflow:1=m/mlflow/data/net.onnx",
            "nested:1=m/nested/1/model.onnx/model.onnx",
            "ours:1=m/ours/1/model.onnx",
            "triton:1=m/triton/1/net.onnx",
            "triton:3=m/triton/3/net.onnx",
        ],
        "{:?}",
        scan.problems
    );
    assert_eq!(problems(folder, &scan), [] as [&str; 0]);
    let triton = scan.models.last().unwrap();
    assert_eq!(triton.manifest.batching.max_rows.get(), 7);
    for model in &scan.models {
        for found in &model.versions {
            assert_eq!(artefact(found.version, &found.path).unwrap(), *found);
        }
        let alone = super::scan(&[&model.path]);
        let versions = alone.models.first().map(|model| &model.versions);
        assert_eq!(versions, Some(&model.versions), "given itself: {}", model.name);
    }
}

#[test]
fn our_manifest_comes_first_and_says_so() {
    let folder = tree(&["m/a/1/model.onnx", "m/a/1/MLmodel"]);
    let folder = folder.path();
    write(folder, "m/a/model.toml", "batching.max_rows = 3");
    write(folder, "m/a/config.pbtxt", "max_batch_size: 7");
    let scan = scan(&[folder.join("m")]);
    assert_eq!(scan.models[0].manifest.batching.max_rows.get(), 3);
    assert_eq!(
        problems(folder, &scan),
        [
            "warning: m/a/config.pbtxt: is not read, since model.toml is here too; remove one of the \
             two",
            "warning: m/a/1/MLmodel: is not read: what is declared holds for all versions; move it \
             one folder up",
        ]
    );
}

#[test]
fn what_a_foreign_file_forbids_is_refused_and_told_once() {
    let folder =
        tree(&["m/python/1/model.py", "m/bad/2/model.onnx", "m/good/1/model.onnx", "m/out/x"]);
    let folder = folder.path();
    write(folder, "m/python/config.pbtxt", "backend: \"python\"");
    write(folder, "m/bad/config.pbtxt", "max_batch_size: [");
    let scan = scan(&[folder.join("m")]);
    assert_eq!(found(folder, &scan), ["good:1=m/good/1/model.onnx"]);
    let refused: Vec<_> = scan.refused.iter().map(|(name, at)| format!("{name}:{at}")).collect();
    assert_eq!(refused, ["bad:2", "python:1"]);
    let of = |name: &str| {
        let of = |problem: &&Problem| problem.model.as_ref().is_some_and(|of| of.as_str() == name);
        scan.problems.iter().filter(of).collect::<Vec<_>>()
    };
    assert_eq!(of("python").len(), 1, "{:?}", of("python"));
    assert_eq!(of("bad").len(), 1, "{:?}", of("bad"));
}

#[test]
fn a_list_of_tensorflow_serving_is_taken_wherever_its_folders_are() {
    let folder = tree(&[
        "lists/other/1/model.onnx",
        "lists/near/1/model.onnx",
        "lists/notes/",
        "far/a/5/model.onnx",
        "far/b/1/model.onnx",
    ]);
    let folder = folder.path();
    let far = folder.join("far/a");
    let config = format!(
        "model_config_list {{
           config {{ name: 'near' base_path: 'near' }}
           config {{ name: 'far' base_path: '{}' version_labels {{ key: 'stable' value: 5 }} }}
           config {{ name: 'gone' base_path: 'gone' }}
           config {{ name: 'own' base_path: '../far/b' }}
         }}",
        far.display()
    );
    write(folder, "lists/models.config", &config);
    write(folder, "far/b/model.toml", "batching.max_rows = 3");
    let expected = ["far:5=far/a/5/model.onnx", "near:1=lists/near/1/model.onnx"];
    let by_folder = scan(&[folder.join("lists")]);
    let by_file = scan(&[folder.join("lists/models.config")]);
    for scan in [&by_folder, &by_file] {
        assert_eq!(found(folder, scan)[..2], expected);
        assert_eq!(scan.models[0].manifest.labels.len(), 1);
        let own = &scan.models[2];
        assert_eq!((own.name.as_str(), own.manifest.batching.max_rows.get()), ("own", 3));
        let errors: Vec<_> =
            scan.problems.iter().filter(|problem| problem.severity == Severity::Error).collect();
        let [gone] = errors.as_slice() else { panic!("{errors:?}") };
        assert_eq!(gone.model.as_ref().unwrap().as_str(), "gone");
    }
    let warnings = problems(folder, &by_folder);
    let is_told = |warning: &str| warnings.iter().any(|problem| problem == warning);
    assert!(
        is_told(
            "warning: lists/other: is not served, since models.config does not list it; list it there"
        ),
        "{warnings:?}"
    );
    assert!(
        is_told(
            "warning: lists/models.config: is read for the model's name and folder only, since it has \
             declarations of its own; remove one of the two"
        ),
        "{warnings:?}"
    );
    assert_eq!(by_file.problems.len(), 2, "{:?}", by_file.problems);
}
