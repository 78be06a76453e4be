use outhaul_types::{BatchingSpec, InstancesSpec};

use super::*;

struct Case {
    folder: &'static str,
    name: Option<&'static str>,
    model_file: Option<&'static str>,
    served: bool,
    problems: &'static [&'static str],
}

const REFUSED: Case =
    Case { folder: "", name: None, model_file: None, served: false, problems: &[] };
const SERVED: Case = Case { served: true, ..REFUSED };

#[test]
fn folders_are_read_as_mlserver_means_them() {
    let cases = [
        Case { folder: "onnx", name: Some("iris"), model_file: Some("iris.onnx"), ..SERVED },
        Case { folder: "one_file", model_file: Some("net.onnx"), ..SERVED },
        Case { folder: "kserve", model_file: Some("deep/model.onnx"), ..SERVED },
        Case {
            folder: "no_effect",
            name: Some("iris"),
            model_file: Some("model.onnx"),
            problems: &[
                "warning: model-settings.json: implementation = \"company.Runtime\": this class is \
                 not run; the ONNX file itself is served; check that the file alone gives the answers \
                 that you want",
                "warning: model-settings.json: inputs[0].parameters.content_type = \"pd\": tensors \
                 reach the model as they are sent; send the tensors that outhaul inspect tells",
                "warning: model-settings.json: parameters.version = \"v3\": a model without version \
                 folders is version 1; put the model file into a folder 3 to give it this number",
                "warning: model-settings.json: parameters.content_type = \"pd\": tensors reach the \
                 model as they are sent; send the tensors that outhaul inspect tells",
                "warning: model-settings.json: parameters.extra.threshold = 0.5: this key has no \
                 effect here; nothing needs doing if the model answers as it should",
                "warning: model-settings.json: parameters.environment_tarball = \"env.tar.gz\": this \
                 key has no effect here; nothing needs doing if the model answers as it should",
                "warning: model-settings.json: cache_enabled = true: this key has no effect here; \
                 nothing needs doing if the model answers as it should",
            ],
            ..SERVED
        },
        Case {
            folder: "sklearn",
            name: Some("mushroom"),
            problems: &[
                "model-settings.json: implementation = \"mlserver_sklearn.SKLearnModel\": \
                 mlserver_sklearn models run only after conversion to ONNX; convert it with: outhaul \
                 import FOLDER --to models",
            ],
            ..REFUSED
        },
        Case {
            folder: "mlflow",
            name: Some("wine"),
            problems: &[
                "model-settings.json: implementation = \"mlserver_mlflow.MLflowRuntime\": the \
                 model is an MLflow folder; serve or import the folder that holds MLmodel itself: \
                 model",
            ],
            ..REFUSED
        },
        Case {
            folder: "custom",
            name: Some("sum"),
            problems: &[
                "model-settings.json: implementation = \"models.MyModel\": this version of \
                 Outhaul runs no Python classes; export the model to ONNX and name its file in \
                 parameters.uri",
            ],
            ..REFUSED
        },
        Case {
            folder: "leads_out",
            problems: &[
                "model-settings.json: parameters.uri = \"../../secret.onnx\": must lead to a \
                 file in this folder; put the model file beside model-settings.json and write its \
                 name",
            ],
            ..REFUSED
        },
        Case {
            folder: "wrong",
            model_file: Some("model.onnx"),
            problems: &[
                "model-settings.json: name = \"a/b\": 'a/b' is not a model name: use 1 to 128 \
                 letters, digits, '-', '_' or '.', not starting with a dot; rename the model",
                "model-settings.json: max_batch_size = -1: must be a whole number from 0 to 65536; \
                 correct it, or remove the key",
                "model-settings.json: max_batch_time = 60.0: must be a number of seconds from 0 to \
                 10; correct it, or remove the key",
                "model-settings.json: parallel_workers = \"two\": must be a whole number from 0 to \
                 1024; correct it, or remove the key",
                "model-settings.json: inputs[0].datatype = \"FLOAT\": must be one of BOOL, UINT8, \
                 UINT16, UINT32, UINT64, INT8, INT16, INT32, INT64, FP16, BF16, FP32, FP64, BYTES; \
                 correct it, or remove the key",
                "model-settings.json: inputs[0].shape = [-2,4]: must be a list of whole numbers, -1 \
                 for a size that may vary; correct it, or remove the key",
                "model-settings.json: inputs[1].name = \"x\": is declared twice; remove one of the \
                 two",
                "model-settings.json: outputs[0].name: a tensor must have a name; write the name in \
                 the model's file",
            ],
            ..REFUSED
        },
    ];
    for case in cases {
        let folder = Path::new("testdata/formats/mlserver").join(case.folder);
        let foreign = read(&folder);
        let place = format!("{}/", folder.display());
        let problems: Vec<String> = foreign
            .problems
            .iter()
            .map(|problem| problem.to_string().replace(&place, ""))
            .collect();
        assert_eq!(problems, case.problems, "{}", case.folder);
        assert_eq!(foreign.name.as_ref().map(ModelName::as_str), case.name, "{}", case.folder);
        assert_eq!(foreign.model_file.as_deref(), case.model_file, "{}", case.folder);
        assert_eq!(foreign.manifest.is_some(), case.served, "{}", case.folder);
    }
}

#[test]
fn limits_and_tensors_are_taken_over() {
    let foreign = read(Path::new("testdata/formats/mlserver/onnx"));
    let of = |name: &str, data_type, shape: &[Dimension]| TensorDeclaration {
        name: name.into(),
        data_type: Some(data_type),
        shape: Some(ShapePattern::ranked(shape.iter().cloned())),
        reshape: None,
    };
    let expected = ModelManifest {
        batching: BatchingSpec {
            max_rows: NonZeroUsize::new(8).unwrap(),
            max_delay: Duration::from_millis(5),
            ..BatchingSpec::default()
        },
        instances: InstancesSpec {
            count: InstanceCount::Fixed(NonZeroUsize::new(2).unwrap()),
            ..InstancesSpec::default()
        },
        inputs: vec![of("input", DataType::Fp32, &[Dimension::Any, Dimension::Fixed(4)])],
        outputs: vec![of("label", DataType::Int64, &[Dimension::Any])],
        ..ModelManifest::default()
    };
    assert_eq!(foreign.manifest, Some(expected));
}

#[test]
fn several_files_must_be_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    file(FILE, "{}");
    assert_eq!(read(folder.path()).model_file, None, "there may be version folders");
    file("b.onnx", "");
    assert_eq!(read(folder.path()).model_file.as_deref(), Some("b.onnx"));
    file("a.onnx", "");
    let foreign = read(folder.path());
    assert_eq!(foreign.manifest, None);
    assert_eq!(foreign.problems[0].rule, "there are several model files: a.onnx, b.onnx");
    file("model.onnx", "");
    assert_eq!(read(folder.path()).model_file.as_deref(), Some("model.onnx"));
    file(FILE, "{");
    assert!(read(folder.path()).problems[0].rule.starts_with("not JSON: "));
}

#[test]
fn trailing_digits_are_a_version_only_where_nothing_else_is() {
    struct Case(&'static str, Option<&'static str>);
    let cases = [
        Case("1", None),
        Case("v1", None),
        Case("version-1", None),
        Case("v12", Some("put the model file into a folder 12 to give it this number")),
        Case("v1.2", Some("put the model file into a folder whose name is its number")),
        Case("latest", Some("put the model file into a folder whose name is its number")),
    ];
    for Case(text, expected) in cases {
        let mut findings = Findings::of(Path::new(FILE));
        let value = serde_json::json!({ "version": text });
        let mut keys = Keys::of("parameters", value, &mut findings);
        version(&mut keys, &mut findings);
        let problems = findings.into_problems();
        assert_eq!(problems.first().map(|problem| problem.remedy.as_str()), expected, "{text}");
    }
}
