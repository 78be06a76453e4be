//! MLflow's model folders: the `onnx` flavour of an `MLmodel` file.
//!
//! The flavour says which file is the model, and options of ONNX Runtime. The rest of the file tells
//! where the model comes from. MLflow's signature describes MLflow's own interface, which turns tables
//! into tensors; here callers send the tensors of the model file, so the signature is not held
//! against it.
//!
//! A folder without the flavour is an error that names the flavours that are there.

use std::num::NonZeroUsize;
use std::path::Path;

use outhaul_types::ModelManifest;
use serde_json::Value;

use super::Foreign;
use super::keys::{Findings, Keys, inside, read_bounded};

/// The file that tells an MLflow folder.
pub(super) const FILE: &str = "MLmodel";

/// Keys that tell where the model comes from.
const ORIGIN: &[&str] = &[
    "artifact_path",
    "databricks_runtime",
    "is_signature_from_type_hint",
    "metadata",
    "mlflow_version",
    "model_id",
    "model_size_bytes",
    "model_uuid",
    "prompts",
    "run_id",
    "saved_input_example_info",
    "time_created",
    "type_hint_from_example",
    "utc_time_created",
];

/// What MLflow writes where nobody has said anything, so that it says nothing.
const DEFAULT_PROVIDERS: [&str; 2] = ["CUDAExecutionProvider", "CPUExecutionProvider"];

/// Reads the folder's `MLmodel`.
pub(super) fn read(folder: &Path) -> Foreign {
    let path = folder.join(FILE);
    let mut findings = Findings::of(&path);
    let mut foreign = Foreign::default();
    match read_bounded(&path) {
        Ok(text) => match serde_saphyr::from_str::<Value>(&text) {
            Ok(value) => foreign = model(value, &mut findings),
            Err(error) => {
                let message = error.without_snippet().to_string().replace('\n', ", ");
                let remedy = "log the model again with mlflow, or correct the file";
                findings.error("", None, format!("not YAML: {message}"), remedy);
            }
        },
        Err(rule) => findings.error("", None, rule, "put MLflow's file here"),
    }
    if findings.has_errors() {
        foreign.manifest = None;
    }
    foreign.problems = findings.into_problems();
    foreign
}

fn model(value: Value, findings: &mut Findings) -> Foreign {
    let mut foreign = Foreign::default();
    let mut keys = Keys::of("", value, findings);
    let mut flavors = Keys::of("flavors", keys.take("flavors").unwrap_or_default(), findings);
    match flavors.take("onnx") {
        Some(onnx) => {
            let mut manifest = ModelManifest::default();
            let onnx = Keys::of("flavors.onnx", onnx, findings);
            foreign.model_file = flavour(onnx, &mut manifest, findings);
            foreign.manifest = Some(manifest);
            python_function(flavors.take("python_function"), findings);
        }
        None => no_onnx(&flavors, findings),
    }
    signature(keys.take("signature"), findings);
    keys.pass_over(ORIGIN);
    keys.close(findings);
    foreign
}

/// Reads the `onnx` flavour and returns its model file.
fn flavour(
    mut keys: Keys,
    manifest: &mut ModelManifest,
    findings: &mut Findings,
) -> Option<String> {
    let file = keys.take_text("data", findings);
    let model_file = match &file {
        None => {
            let rule = "the onnx flavour must name its model file".to_owned();
            findings.error("flavors.onnx.data", None, rule, "write data: model.onnx");
            None
        }
        Some(file) => {
            let inner = inside(file).filter(|inner| !inner.is_empty());
            if inner.is_none() {
                let rule = "must be the path of a file in this folder".to_owned();
                let remedy = "put the model file beside MLmodel and name it here";
                findings.error(
                    "flavors.onnx.data",
                    Some(&Value::from(file.as_str())),
                    rule,
                    remedy,
                );
            }
            inner
        }
    };
    if let Some(providers) = keys.take("providers") {
        check_providers(&providers, findings);
    }
    if let Some(options) = keys.take("onnx_session_options") {
        session_options(
            Keys::of("flavors.onnx.onnx_session_options", options, findings),
            manifest,
            findings,
        );
    }
    if let Some(code) = keys.take("code") {
        let rule = "Python code beside the model is not run".to_owned();
        let remedy = "nothing needs doing where the model file alone gives the answers";
        findings.warning("flavors.onnx.code", Some(&code), rule, remedy);
    }
    // External weights lie beside the model file, which names them itself.
    keys.pass_over(&["onnx_version", "extra_files", "save_as_external_data"]);
    keys.close(findings);
    model_file
}

fn check_providers(providers: &Value, findings: &mut Findings) {
    let empty = Vec::new();
    let entries = providers.as_array().unwrap_or(&empty);
    let names: Vec<&str> = entries.iter().filter_map(provider_name).collect();
    let cpu_only = names.as_slice() == ["CPUExecutionProvider"];
    if names.is_empty() || cpu_only || names.as_slice() == DEFAULT_PROVIDERS {
        return;
    }
    let rule =
        "execution providers are not chosen by the model; it runs on the processor".to_owned();
    let remedy = "nothing needs doing: answers are the same, only speed may differ";
    findings.warning("flavors.onnx.providers", Some(providers), rule, remedy);
}

/// A provider is a name, or a name and its options.
fn provider_name(entry: &Value) -> Option<&str> {
    entry.as_str().or_else(|| entry.as_array()?.first()?.as_str())
}

fn session_options(mut keys: Keys, manifest: &mut ModelManifest, findings: &mut Findings) {
    let threads = keys.take_as(
        "intra_op_num_threads",
        findings,
        "must be a whole number from 0 to 1024",
        |value| value.as_u64().filter(|threads| *threads <= 1024),
    );
    // 0 leaves it to the engine, as leaving the key out does.
    if let Some(threads) =
        threads.and_then(|threads| NonZeroUsize::new(usize::try_from(threads).ok()?))
    {
        manifest.instances.threads = threads;
    }
    keys.close(findings);
}

/// What MLflow's own server would run. Where that is not the ONNX file itself, answers may differ.
fn python_function(value: Option<Value>, findings: &mut Findings) {
    let loader = value.as_ref().and_then(|value| value.get("loader_module"));
    if let Some(loader) = loader.filter(|loader| loader.as_str() != Some("mlflow.onnx")) {
        let rule = "the python_function flavour is code of its own, which is not run; the onnx flavour \
                    is served";
        let remedy = "check that its model file alone gives the answers that you want";
        let key = "flavors.python_function.loader_module";
        findings.warning(key, Some(loader), rule.to_owned(), remedy);
    }
}

fn no_onnx(flavors: &Keys, findings: &mut Findings) {
    let names: Vec<&str> = flavors.names().filter(|name| *name != "python_function").collect();
    let all: Vec<&str> = flavors.names().collect();
    let rule = match all.as_slice() {
        [] => "there are no flavours in this file".to_owned(),
        _ => format!("there is no onnx flavour, only {}", all.join(", ")),
    };
    let converts = |name: &&&str| matches!(**name, "sklearn" | "xgboost" | "lightgbm");
    let remedy = if names.iter().any(|name| converts(&name)) {
        "convert it with: outhaul import FOLDER --to models"
    } else if names.contains(&"pytorch") {
        "export the module with outhaul.export of the Python package, or log it with \
         mlflow.onnx.log_model"
    } else {
        "export the model to ONNX and log it with mlflow.onnx.log_model"
    };
    findings.error("flavors", None, rule, remedy);
}

fn signature(value: Option<Value>, findings: &mut Findings) {
    let Some(value) = value else { return };
    let mut keys = Keys::of("signature", value, findings);
    let params = keys.take_text("params", findings);
    if params.is_some_and(|params| params.trim() != "[]") {
        let rule = "parameters of a request do not reach the model".to_owned();
        let remedy = "give the model an input for each";
        findings.warning("signature.params", None, rule, remedy);
    }
    if let Some(inputs) = keys.take_text("inputs", findings)
        && !describes_tensors(&inputs)
    {
        let rule = "describes the columns of a table; callers send the tensors of the model file";
        let remedy = "outhaul inspect tells their names, types and shapes";
        findings.warning("signature.inputs", None, rule.to_owned(), remedy);
    }
    keys.pass_over(&["outputs"]);
    keys.close(findings);
}

/// The signature is JSON inside the YAML: a list of tensors, or of columns.
fn describes_tensors(inputs: &str) -> bool {
    let parsed: Value = serde_json::from_str(inputs).unwrap_or_default();
    let is_tensor = |input: &Value| input.get("type").and_then(Value::as_str) == Some("tensor");
    parsed.as_array().is_some_and(|inputs| inputs.iter().all(is_tensor))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Case {
        folder: &'static str,
        model_file: Option<&'static str>,
        threads: Option<usize>,
        problems: &'static [&'static str],
    }

    #[test]
    fn folders_are_read_as_mlflow_writes_them() {
        let cases = [
            Case {
                folder: "tensors",
                model_file: Some("model.onnx"),
                threads: Some(1),
                problems: &[],
            },
            Case {
                folder: "options",
                model_file: Some("data/net.onnx"),
                threads: Some(4),
                problems: &[
                    "warning: MLmodel: flavors.onnx.providers = [[\"CUDAExecutionProvider\",\
                     {\"device_id\":\"1\"}]]: execution providers are not chosen by the model; it runs \
                     on the processor; nothing needs doing: answers are the same, only speed may differ",
                    "warning: MLmodel: flavors.onnx.onnx_session_options.execution_mode = \
                     \"parallel\": this key has no effect here; nothing needs doing if the model \
                     answers as it should",
                    "warning: MLmodel: flavors.onnx.code = \"code\": Python code beside the model is \
                     not run; nothing needs doing where the model file alone gives the answers",
                    "warning: MLmodel: flavors.python_function.loader_module = \"my_loader\": the \
                     python_function flavour is code of its own, which is not run; the onnx flavour is \
                     served; check that its model file alone gives the answers that you want",
                    "warning: MLmodel: signature.params: parameters of a request do not reach the \
                     model; give the model an input for each",
                    "warning: MLmodel: signature.inputs: describes the columns of a table; callers \
                     send the tensors of the model file; outhaul inspect tells their names, types and \
                     shapes",
                    "warning: MLmodel: env_vars = [\"TOKEN\"]: this key has no effect here; nothing \
                     needs doing if the model answers as it should",
                ],
            },
            Case {
                folder: "sklearn",
                model_file: None,
                threads: None,
                problems: &[
                    "MLmodel: flavors: there is no onnx flavour, only python_function, sklearn; \
                     convert it with: outhaul import FOLDER --to models",
                ],
            },
            Case {
                folder: "pytorch",
                model_file: None,
                threads: None,
                problems: &[
                    "MLmodel: flavors: there is no onnx flavour, only python_function, pytorch; \
                     export the module with outhaul.export of the Python package, or log it with \
                     mlflow.onnx.log_model",
                ],
            },
            Case {
                folder: "python_only",
                model_file: None,
                threads: None,
                problems: &[
                    "MLmodel: flavors: there is no onnx flavour, only python_function; export \
                     the model to ONNX and log it with mlflow.onnx.log_model",
                ],
            },
            Case {
                folder: "leads_out",
                model_file: None,
                threads: None,
                problems: &[
                    "MLmodel: flavors.onnx.data = \"../other/model.onnx\": must be the path of \
                     a file in this folder; put the model file beside MLmodel and name it here",
                ],
            },
            Case {
                folder: "no_file",
                model_file: None,
                threads: None,
                problems: &[
                    "MLmodel: flavors.onnx.data: the onnx flavour must name its model file; \
                     write data: model.onnx",
                ],
            },
        ];
        for case in cases {
            let folder = Path::new("testdata/formats/mlflow").join(case.folder);
            let foreign = read(&folder);
            let place = format!("{}/", folder.display());
            let problems: Vec<String> = foreign
                .problems
                .iter()
                .map(|problem| problem.to_string().replace(&place, ""))
                .collect();
            assert_eq!(problems, case.problems, "{}", case.folder);
            assert_eq!(foreign.model_file.as_deref(), case.model_file, "{}", case.folder);
            let threads = foreign.manifest.map(|manifest| manifest.instances.threads.get());
            assert_eq!(threads, case.threads, "{}", case.folder);
            assert_eq!(foreign.name, None, "MLflow has no name for a model's folder");
        }
    }

    #[test]
    fn what_is_not_yaml_says_where() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), "flavors:\n  onnx: [\n").unwrap();
        let foreign = read(folder.path());
        assert_eq!(foreign.manifest, None);
        assert!(foreign.problems[0].rule.starts_with("not YAML: "), "{:?}", foreign.problems);
        assert!(!foreign.problems[0].rule.contains('\n'));
    }
}
