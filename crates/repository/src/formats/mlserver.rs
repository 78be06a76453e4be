//! Folders of MLServer, which KServe mounts for it: `model-settings.json`.
//!
//! The file names a Python class that runs the model. Where that class runs an ONNX file, the file is
//! served and its limits and tensors are taken over; any other class is an error. MLServer counts the
//! requests of a batch and we count rows: the same for requests of one row.

use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use outhaul_types::{
    DataType, Dimension, InstanceCount, ModelManifest, ModelName, ShapePattern, TensorDeclaration,
};
use serde_json::Value;

use super::Foreign;
use super::keys::{Findings, Keys, inside, read_bounded};

/// The file that tells a folder of MLServer.
pub(super) const FILE: &str = "model-settings.json";

/// Where KServe mounts the model's folder in the container that reads the file.
const KSERVE_MOUNT: &str = "/mnt/models/";

const MOST_ROWS: u64 = 65_536;
const MOST_WORKERS: u64 = 1024;
const LONGEST_DELAY: Duration = Duration::from_secs(10);

/// Reads the folder's `model-settings.json`.
pub(super) fn read(folder: &Path) -> Foreign {
    let path = folder.join(FILE);
    let mut findings = Findings::of(&path);
    let mut foreign = Foreign::default();
    match read_bounded(&path) {
        Ok(text) => match serde_json::from_str::<Value>(&text) {
            Ok(value) => foreign = model(folder, value, &mut findings),
            Err(error) => {
                let remedy = "correct the JSON at this place";
                findings.error("", None, format!("not JSON: {error}"), remedy);
            }
        },
        Err(rule) => findings.error("", None, rule, "put MLServer's file here"),
    }
    if findings.has_errors() {
        foreign.manifest = None;
    }
    foreign.problems = findings.into_problems();
    foreign
}

fn model(folder: &Path, value: Value, findings: &mut Findings) -> Foreign {
    let mut keys = Keys::of("", value, findings);
    let mut parameters =
        Keys::of("parameters", keys.take("parameters").unwrap_or_default(), findings);
    let mut manifest = ModelManifest::default();
    let name = name(&mut keys, findings);
    let model_file = model_file(folder, &mut keys, &mut parameters, findings);
    limits(&mut keys, &mut manifest, findings);
    manifest.inputs = tensors(&mut keys, "inputs", findings);
    manifest.outputs = tensors(&mut keys, "outputs", findings);
    version(&mut parameters, findings);
    content_type(&mut parameters, findings);
    let format = parameters.take_text("format", findings);
    if let Some(format) = format.filter(|format| !format.to_lowercase().contains("onnx")) {
        let rule = "the only format is ONNX".to_owned();
        let remedy = "check that the model file is the one that you mean";
        findings.warning("parameters.format", Some(&Value::from(format)), rule, remedy);
    }
    let extra = parameters.take("extra").unwrap_or_default();
    Keys::of("parameters.extra", extra, findings).close(findings);
    parameters.close(findings);
    // A version is always warmed up, and what the model was trained with does not matter.
    keys.pass_over(&["platform", "versions", "warm_workers"]);
    keys.close(findings);
    Foreign { name, manifest: Some(manifest), model_file, ..Foreign::default() }
}

fn name(keys: &mut Keys, findings: &mut Findings) -> Option<ModelName> {
    let text = keys.take_text("name", findings)?;
    let name = ModelName::new(&text);
    if let Err(error) = &name {
        findings.error("name", Some(&Value::from(text)), error.to_string(), "rename the model");
    }
    name.ok()
}

/// Decides whether this is a model that can be served, and which file it is.
fn model_file(
    folder: &Path,
    keys: &mut Keys,
    parameters: &mut Keys,
    findings: &mut Findings,
) -> Option<String> {
    let class = keys.take_text("implementation", findings);
    let uri = parameters.take_text("uri", findings);
    let file = match &uri {
        Some(uri) => match relative(uri) {
            Some(file) => file,
            None => {
                let rule = "must lead to a file in this folder".to_owned();
                let remedy = "put the model file beside model-settings.json and write its name";
                let value = Value::from(uri.as_str());
                findings.error("parameters.uri", Some(&value), rule, remedy);
                return None;
            }
        },
        None => String::new(),
    };
    let names_onnx = Path::new(&file).extension().is_some_and(|ending| ending == "onnx");
    if let Some(class) = &class {
        let runs_onnx = class.to_lowercase().contains("onnx");
        if !runs_onnx && !names_onnx || class.starts_with("mlserver_mlflow") {
            refuse(class, &file, findings);
            return None;
        }
        if !runs_onnx {
            let rule = "this class is not run; the ONNX file itself is served".to_owned();
            let remedy = "check that the file alone gives the answers that you want";
            findings.warning("implementation", Some(&Value::from(class.as_str())), rule, remedy);
        }
    }
    if names_onnx {
        return Some(file);
    }
    let place = folder.join(&file);
    if uri.is_some() && !place.is_dir() {
        if class.is_none() {
            let rule = "no class runs the model and the file is not ONNX".to_owned();
            findings.error("parameters.uri", uri.map(Value::from).as_ref(), rule, CONVERT);
        }
        return Some(file);
    }
    only_onnx_in(&place, &file, findings)
}

/// A `uri` that is a folder, or missing, means the one model that lies there.
fn only_onnx_in(place: &Path, prefix: &str, findings: &mut Findings) -> Option<String> {
    let mut found: Vec<String> = Vec::new();
    for entry in place.read_dir().into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".onnx") && !name.starts_with('.') {
            found.push(name);
        }
    }
    found.sort();
    let within = |name: &str| match prefix {
        "" => name.to_owned(),
        _ => format!("{prefix}/{name}"),
    };
    match found.as_slice() {
        // There may be version folders; where there are none, the scan tells that there is no file.
        [] => (!prefix.is_empty()).then(|| within("model.onnx")),
        [one] => Some(within(one)),
        several if several.iter().any(|name| name == "model.onnx") => Some(within("model.onnx")),
        several => {
            let rule = format!("there are several model files: {}", several.join(", "));
            findings.error("parameters.uri", None, rule, "name the one that is to be served");
            None
        }
    }
}

const CONVERT: &str = "convert it with: outhaul import FOLDER --to models";

fn refuse(class: &str, file: &str, findings: &mut Findings) {
    let module = class.split('.').next().unwrap_or(class);
    let converted = ["mlserver_sklearn", "mlserver_xgboost", "mlserver_lightgbm"];
    let (rule, remedy) = if converted.contains(&module) {
        (format!("{module} models run only after conversion to ONNX"), CONVERT.to_owned())
    } else if module == "mlserver_mlflow" {
        let inner = if file.is_empty() { "." } else { file };
        let rule = "the model is an MLflow folder".to_owned();
        (rule, format!("serve or import the folder that holds MLmodel itself: {inner}"))
    } else {
        let rule = "this version of Outhaul runs no Python classes".to_owned();
        (rule, "export the model to ONNX and name its file in parameters.uri".to_owned())
    };
    findings.error("implementation", Some(&Value::from(class)), rule, &remedy);
}

/// Returns a `uri` as a path inside the folder.
fn relative(uri: &str) -> Option<String> {
    let uri = uri.strip_prefix("file://").unwrap_or(uri);
    if uri == KSERVE_MOUNT.trim_end_matches('/') {
        return Some(String::new());
    }
    inside(uri.strip_prefix(KSERVE_MOUNT).unwrap_or(uri))
}

fn limits(keys: &mut Keys, manifest: &mut ModelManifest, findings: &mut Findings) {
    let up_to = |most: u64| {
        move |value: &Value| {
            let number = value.as_u64().filter(|number| *number <= most)?;
            usize::try_from(number).ok()
        }
    };
    // 0 turns batching off there and 1 does here.
    let rule = format!("must be a whole number from 0 to {MOST_ROWS}");
    if let Some(rows) = keys.take_as("max_batch_size", findings, &rule, up_to(MOST_ROWS)) {
        manifest.batching.max_rows = NonZeroUsize::new(rows).unwrap_or(NonZeroUsize::MIN);
    }
    let rule = "must be a number of seconds from 0 to 10";
    if let Some(delay) = keys.take_as("max_batch_time", findings, rule, |value| {
        let delay = Duration::try_from_secs_f64(value.as_f64()?).ok()?;
        (delay <= LONGEST_DELAY).then_some(delay)
    }) {
        manifest.batching.max_delay = delay;
    }
    // 0 runs the model in the server's own process, one request at a time.
    let rule = format!("must be a whole number from 0 to {MOST_WORKERS}");
    if let Some(workers) = keys.take_as("parallel_workers", findings, &rule, up_to(MOST_WORKERS)) {
        let count = NonZeroUsize::new(workers).unwrap_or(NonZeroUsize::MIN);
        manifest.instances.count = InstanceCount::Fixed(count);
    }
}

fn tensors(keys: &mut Keys, key: &str, findings: &mut Findings) -> Vec<TensorDeclaration> {
    let list = |value: &Value| value.as_array().cloned();
    let list = keys.take_as(key, findings, "must be a list of tensors", list).unwrap_or_default();
    let mut declarations: Vec<TensorDeclaration> = Vec::new();
    for (index, value) in list.into_iter().enumerate() {
        let mut keys = Keys::of(&format!("{key}[{index}]"), value, findings);
        let Some(name) = keys.take_text("name", findings) else {
            let rule = "a tensor must have a name".to_owned();
            findings.error(&keys.path("name"), None, rule, "write the name in the model's file");
            continue;
        };
        if declarations.iter().any(|other| other.name == name.as_str()) {
            let rule = "is declared twice".to_owned();
            let value = Value::from(name);
            findings.error(&keys.path("name"), Some(&value), rule, "remove one of the two");
            continue;
        }
        let data_type = keys.take_as("datatype", findings, &known_types(), |value| {
            value.as_str()?.parse::<DataType>().ok()
        });
        let rule = "must be a list of whole numbers, -1 for a size that may vary";
        let shape = keys.take_as("shape", findings, rule, shape);
        let inner = keys.take("parameters").unwrap_or_default();
        let mut inner = Keys::of(&keys.path("parameters"), inner, findings);
        content_type(&mut inner, findings);
        inner.close(findings);
        keys.close(findings);
        let name = name.as_str().into();
        declarations.push(TensorDeclaration { name, data_type, shape, reshape: None });
    }
    declarations
}

fn known_types() -> String {
    let names: Vec<&str> = DataType::ALL.into_iter().map(DataType::name).collect();
    format!("must be one of {}", names.join(", "))
}

fn shape(value: &Value) -> Option<ShapePattern> {
    let dimension = |size: &Value| match size.as_i64()? {
        -1 => Some(Dimension::Any),
        size => usize::try_from(size).ok().map(Dimension::Fixed),
    };
    let dimensions: Option<Vec<Dimension>> = value.as_array()?.iter().map(dimension).collect();
    dimensions.map(ShapePattern::ranked)
}

/// A folder without version folders is version 1, whatever it is called in this file.
fn version(parameters: &mut Keys, findings: &mut Findings) {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let rule = "must be a text or a number";
    let Some(version) = parameters.take_as("version", findings, rule, text) else { return };
    let before = version.trim_end_matches(|c: char| c.is_ascii_digit());
    let number: Option<u64> = version[before.len()..].parse().ok();
    // `v1.2` ends in a digit and is no version 2.
    let plain = before.chars().all(|c| c.is_ascii_alphabetic() || matches!(c, '-' | '_'));
    let number = number.filter(|number| plain && *number > 0);
    if number == Some(1) {
        return;
    }
    let rule = "a model without version folders is version 1".to_owned();
    let remedy = match number {
        Some(number) => format!("put the model file into a folder {number} to give it this number"),
        None => "put the model file into a folder whose name is its number".to_owned(),
    };
    findings.warning("parameters.version", Some(&Value::from(version)), rule, &remedy);
}

/// How MLServer turns a tensor into a Python value. The plain ones are what happens anyway.
fn content_type(keys: &mut Keys, findings: &mut Findings) {
    let Some(content_type) = keys.take_text("content_type", findings) else { return };
    if !matches!(content_type.as_str(), "np" | "str") {
        let rule = "tensors reach the model as they are sent".to_owned();
        let remedy = "send the tensors that outhaul inspect tells";
        let key = keys.path("content_type");
        findings.warning(&key, Some(&Value::from(content_type)), rule, remedy);
    }
}

#[cfg(test)]
mod tests;
