//! `outhaul import`: foreign folders made into ours, and what keeps them from it.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::{Folder, Ran};

/// Returns every file below a folder, hidden ones too.
fn files(folder: &Path) -> Vec<String> {
    fn add(folder: &Path, prefix: &str, found: &mut Vec<String>) {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let entry = entry.unwrap();
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if entry.path().is_dir() {
                add(&entry.path(), &format!("{name}/"), found);
            } else {
                found.push(name);
            }
        }
    }
    let mut found = Vec::new();
    add(folder, "", &mut found);
    found.sort();
    found
}

fn read(folder: &Folder, path: &str) -> String {
    fs::read_to_string(folder.path(path)).unwrap()
}

/// A repository of Triton: one model that is sound, and one that is not ONNX.
fn triton(folder: &Folder) {
    folder.model("identity_fp32", "triton/flower/1/net.onnx");
    folder.model("identity_fp32", "triton/flower/3/net.onnx");
    folder.write("triton/flower/warmup/x.bin", "0123456789abcdef");
    folder.write(
        "triton/flower/config.pbtxt",
        "platform: \"onnxruntime_onnx\"\nmax_batch_size: 8\ndefault_model_filename: \"net.onnx\"\n\
         version_policy { all {} }\n\
         model_warmup { name: \"one\" batch_size: 1 inputs { key: \"x\" value { data_type: TYPE_FP32 \
         dims: [4] input_data_file: \"x.bin\" } } }\n",
    );
    folder.write("triton/script/config.pbtxt", "backend: \"python\"");
    folder.write("triton/script/1/model.py", "");
}

#[test]
fn a_triton_repository_becomes_ours_and_answers() {
    let folder = Folder::new();
    triton(&folder);
    let ran = folder.run(&["import", "triton", "--to", "models"]);
    assert_eq!(ran.code, Some(1), "one model is no ONNX: {ran:?}");
    assert!(ran.out.starts_with("imported  flower  versions 1, 3, "), "{ran:?}");
    assert!(ran.out.contains("from Triton (config.pbtxt), to models/flower\n"), "{ran:?}");
    assert!(ran.err.starts_with("error: triton/script/config.pbtxt:1: "), "{ran:?}");
    assert_eq!(
        files(&folder.path("models")),
        ["flower/1/model.onnx", "flower/3/model.onnx", "flower/model.toml", "flower/warmup/x.bin"]
    );
    let manifest = read(&folder, "models/flower/model.toml");
    assert!(
        manifest.starts_with(
            "# Imported from triton/flower, Triton (config.pbtxt).\n\nversions = \"all\"\n"
        ),
        "{manifest}"
    );
    assert!(manifest.contains("max_rows = 8\n"), "{manifest}");
    assert!(manifest.contains("fill = \"warmup/x.bin\""), "{manifest}");
    let model = "models/flower";
    let request = "{\"x\":[[5.1,3.5,1.4,0.2]]}";
    folder.run(&["predict", model, "--model-version", "1", "--json", request]).ok();
}

#[test]
fn an_ensemble_of_triton_becomes_a_pipeline() {
    let folder = Folder::new();
    folder.model("identity_fp32", "triton/flower/1/model.onnx");
    folder.write("triton/flower/config.pbtxt", "platform: \"onnxruntime_onnx\"");
    folder.write(
        "triton/both/config.pbtxt",
        "platform: \"ensemble\"\nmax_batch_size: 8\n\
         input { name: \"IN\" data_type: TYPE_FP32 dims: [4] }\n\
         output { name: \"OUT\" data_type: TYPE_FP32 dims: [4] }\n\
         ensemble_scheduling { step { model_name: \"flower\" model_version: -1 \
         input_map { key: \"x\" value: \"IN\" } output_map { key: \"y\" value: \"OUT\" } } }\n",
    );
    folder.write("triton/both/1/.keep", "");
    let ran = folder.run(&["import", "triton", "--to", "models"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(
        ran.out.contains("imported  both    from Triton (config.pbtxt), to models/both\n"),
        "{ran:?}"
    );
    assert_eq!(
        files(&folder.path("models")),
        ["both/pipeline.toml", "flower/1/model.onnx", "flower/model.toml"]
    );
    assert_eq!(
        read(&folder, "models/both/pipeline.toml"),
        "# Imported from triton/both, Triton (config.pbtxt).\n\n\
         [inputs]\nIN = { datatype = \"FP32\", shape = [-1, 4] }\n\n\
         [[steps]]\nname = \"flower\"\nmodel = \"flower\"\ninputs = { x = \"IN\" }\n\n\
         [outputs]\nOUT = \"flower.y\"\n"
    );
}

#[test]
fn what_is_there_is_replaced_only_by_force_and_whole() {
    let folder = Folder::new();
    folder.model("identity_fp32", "here/iris/2/model.onnx");
    folder.write("here/iris/model.toml", "# mine\nbatching.max_rows = 3\n");
    let import =
        |more: &[&str]| folder.run(&[&["import", "here/iris", "--to", "models"], more].concat());
    let planned = import(&["--dry-run"]).ok();
    assert!(planned.starts_with("would import  iris  version 2, "), "{planned}");
    assert!(planned.contains("\n    # mine\n    batching.max_rows = 3\n"), "{planned}");
    assert_eq!(files(&folder.path("models")), [] as [&str; 0]);
    import(&[]).ok();
    assert_eq!(read(&folder, "models/iris/model.toml"), "# mine\nbatching.max_rows = 3\n");

    folder.write("models/iris/1/old", "");
    let refused = import(&[]).failed();
    assert_eq!(
        refused,
        "error: models/iris: the model 'iris' is there already; replace it with --force, or give \
         another name with --name\n"
    );
    import(&["--name", "other"]).ok();
    import(&["--force"]).ok();
    assert_eq!(
        files(&folder.path("models")),
        ["iris/2/model.onnx", "iris/model.toml", "other/2/model.onnx", "other/model.toml"]
    );
    let itself = folder.run(&["import", "models/iris", "--to", "models", "--force"]).failed();
    assert!(itself.contains("is the folder that the model comes from"), "{itself}");
}

#[test]
fn every_format_is_taken_with_its_files() {
    let folder = Folder::new();
    folder.model("identity_fp32", "mlflow/model.onnx");
    folder.write("mlflow/model.onnx.data", "weights");
    folder.write("mlflow/MLmodel", "flavors:\n  onnx:\n    data: model.onnx\n");
    folder.model("identity_fp32", "served/near/1/model.onnx");
    folder.write(
        "served/models.config",
        "model_config_list { config { name: 'a' base_path: 'near' version_labels { key: 'stable' \
         value: 1 } } }",
    );
    folder.model("identity_fp32", "alone.onnx");
    let json = folder.run(&["import", "mlflow", "--to", "models", "--output", "json"]).json();
    let [model] = json["models"].as_array().unwrap().as_slice() else { panic!("{json}") };
    assert_eq!(model["name"], "mlflow");
    assert_eq!(model["status"], "imported");
    assert_eq!(model["versions"], Value::from(vec![1]));
    assert_eq!(json["problems"], Value::from(Vec::<Value>::new()));
    for path in ["served", "alone.onnx"] {
        folder.run(&["import", path, "--to", "models"]).ok();
    }
    assert_eq!(
        files(&folder.path("models")),
        [
            "a/1/model.onnx",
            "a/model.toml",
            "alone/1/model.onnx",
            "alone/model.toml",
            "mlflow/1/model.onnx",
            "mlflow/1/model.onnx.data",
            "mlflow/model.toml",
        ]
    );
    assert_eq!(
        read(&folder, "models/a/model.toml"),
        "# Imported from served/near, TensorFlow Serving (models.config).\n\n[labels]\nstable = 1\n"
    );
    assert_eq!(read(&folder, "models/alone/model.toml"), "# Imported from alone.onnx, ONNX.\n");
}

#[test]
fn what_cannot_be_imported_is_told() {
    let folder = Folder::new();
    folder.write("net.pt", "");
    folder.model("identity_fp32", "two/a.onnx");
    folder.model("identity_fp32", "two/b.onnx");
    struct Case(&'static [&'static str], &'static str);
    let cases = [
        Case(
            &["net.pt"],
            "net.pt: holds the weights of a PyTorch module, not the module; export it",
        ),
        Case(&["s3://bucket/a"], "s3://bucket/a: is not a path of this machine; copy it"),
        Case(&["two", "--name", "x"], "two: 2 models cannot have one name; leave --name out"),
        Case(&["nowhere"], "nowhere: cannot be read: "),
    ];
    for Case(arguments, expected) in cases {
        let error = folder.run(&[&["import", "--to", "models"], arguments].concat()).failed();
        assert!(error.starts_with(&format!("error: {expected}")), "{error}");
    }
    let same = folder.run(&["import", "two", "--to", "two"]).failed();
    assert!(same.contains("into the folder that they come from"), "{same}");
    let ran = folder.run(&["import", "two", "--to", "models", "--name", "a/b"]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
}

#[cfg(unix)]
mod converted {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Runs an import with a Python that is this shell script.
    fn import(folder: &Folder, python: &str, arguments: &[&str]) -> Ran {
        folder.write("python", &format!("#!/bin/sh\n{python}\n"));
        let script = folder.path("python");
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = folder.outhaul(&[&["import", "--to", "models"], arguments].concat());
        command.env("OUTHAUL_PYTHON", script);
        Ran::new(command.output().unwrap())
    }

    const DONE: &str = "echo \"$@\" > arguments; echo 'no sample was given' >&2; \
        echo '{\"name\": \"churn\", \"version\": 4, \"folder\": \"models/churn/4\", \"kind\": \
        \"xgboost\", \"rows_checked\": 256, \"largest_difference\": 1e-7, \"rows_different\": 1}'";

    #[test]
    fn the_converter_is_asked_and_its_answer_told() {
        let folder = Folder::new();
        folder.write("booster.json", "{}");
        let more =
            ["--name", "churn", "--trust", "--sample", "rows.csv", "--", "--allow-different", "1"];
        let ran = import(&folder, DONE, &[&["booster.json"], more.as_slice()].concat()).ok();
        assert_eq!(
            ran,
            "converted  churn  version 4, 255 rows answered like the original, from XGBoost, to \
             models/churn/4\nnote: no sample was given\n"
        );
        assert_eq!(
            read(&folder, "arguments"),
            "-m outhaul convert --to models --name churn --sample rows.csv --trust \
             --allow-different 1 -- booster.json\n"
        );
    }

    #[test]
    fn folders_that_name_a_library_are_converted_and_others_copied() {
        let folder = Folder::new();
        folder.model("identity_fp32", "all/onnx/model.onnx");
        let settings = "{\"name\": \"s\", \"implementation\": \"mlserver_sklearn.SKLearnModel\"}";
        folder.write("all/settings/model-settings.json", settings);
        folder.write("all/settings/model.joblib", "");
        folder.write("all/flow/MLmodel", "flavors:\n  sklearn:\n    pickled_model: model.pkl\n");
        let ran = import(&folder, "exit 1", &["all", "--dry-run"]).ok();
        let lines: Vec<&str> = ran.lines().filter(|line| !line.starts_with(' ')).collect();
        assert_eq!(
            lines[1..],
            [
                "would convert  flow      from a Python library, to models",
                "would convert  settings  from a Python library, to models",
            ]
        );
        assert!(lines[0].starts_with("would import  onnx "), "{lines:?}");
        let has = "[ \"$1\" = -c ] && exit 0; echo 'error: it is no model' >&2; exit 1";
        let error = import(&folder, has, &["all"]).err;
        assert!(error.starts_with("error: 2 problems:\n  all/flow: it is no model; "), "{error}");
    }

    #[test]
    fn a_python_that_cannot_convert_is_told_with_its_remedy() {
        let folder = Folder::new();
        folder.write("model.pkl", "");
        let failing = |python: &str| import(&folder, python, &["model.pkl"]).failed();
        let lacking = failing("exit 1");
        assert!(
            lacking.contains("does not have the converter; install it with: pip install ./python")
        );
        let has = "[ \"$1\" = -c ] && exit 0; ";
        let pickle = failing(&format!("{has} echo 'error: is a pickle\nGive --trust' >&2; exit 1"));
        assert!(pickle.starts_with("error: model.pkl: is a pickle; Give --trust; "), "{pickle}");
        let killed = failing(&format!("{has} echo gone >&2; exit 9"));
        assert!(killed.contains("the converter failed (exit status: 9): gone"), "{killed}");
        let strange = failing("echo hello");
        assert!(strange.contains("the converter's answer is not understood"), "{strange}");
        let mut command = folder.outhaul(&["import", "model.pkl", "--to", "models"]);
        let none = Ran::new(command.env("PATH", "").output().unwrap()).failed();
        assert!(none.contains("takes Python, and none was found; install Python, or"), "{none}");
    }
}
