//! TensorFlow Serving: the file that `--model_config_file` names, for models that are ONNX.
//!
//! The file lists models and the folders of their versions. Served is what holds `model.onnx` in
//! them: teams keep the layout, the policies and the labels, and put another file into it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use outhaul_types::{Label, ModelManifest, ModelName, ModelVersion};

use super::Foreign;
use super::textproto::Decision::{Refuse, Taken, Warn};
use super::textproto::{Document, Row, Section, decided, in_order, schema};
use super::version_policy::version_policy;
use crate::{MODEL_FILE, Problem, Severity};

const MESSAGE: &str = "tensorflow.serving.ModelServerConfig";

/// What TensorFlow writes into a version's folder.
const SAVED_MODELS: [&str; 2] = ["saved_model.pb", "saved_model.pbtxt"];

/// Every field, by its path.
const DECISIONS: &[Row] = &[
    ("model_config_list.config.name", Taken),
    ("model_config_list.config.base_path", Taken),
    ("model_config_list.config.model_type", Taken),
    ("model_config_list.config.model_platform", Taken),
    ("model_config_list.config.model_version_policy.latest.num_versions", Taken),
    ("model_config_list.config.model_version_policy.all", Taken),
    ("model_config_list.config.model_version_policy.specific.versions", Taken),
    ("model_config_list.config.version_labels", Taken),
    (
        "model_config_list.config.logging_config",
        Warn("requests are not logged to files", "nothing needs doing"),
    ),
    (
        "custom_model_config",
        Refuse(
            "models that a plug-in finds are not supported",
            "list the models under model_config_list",
        ),
    ),
];

/// One model of a list.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The folder that holds the folders of its versions.
    pub folder: PathBuf,
    /// What is declared of it. It has a name always.
    pub foreign: Foreign,
}

/// Reads a list of models. Relative folders count from where the file is.
///
/// Problems of one model stand with that model, where it could be told which it is; all others,
/// such as a file that is no list, are returned beside.
pub fn read_config(file: &Path) -> (Vec<Listed>, Vec<Problem>) {
    let document = match Document::read(file, &schema(MESSAGE)) {
        Ok(document) => document,
        Err(problems) => return (Vec::new(), in_order(problems)),
    };
    let mut decided = decided(&document, DECISIONS);
    let mut problems = Vec::new();
    let (mut listed, mut names) = (Vec::new(), BTreeSet::new());
    let list = document.root().section("model_config_list");
    let models = list.map(|list| list.sections("config")).unwrap_or_default();
    if models.is_empty() && decided.is_empty() {
        let remedy = "write model_config_list { config { name: ... base_path: ... } }";
        problems.push(Problem::of_place(file.display(), "no model is listed", remedy));
    }
    for config in &models {
        let (own, others) =
            decided.into_iter().partition(|problem| config.contains(problem.key.as_deref()));
        decided = others;
        let (model, mut unnamed) = model(config, own, &mut names, file);
        listed.extend(model);
        problems.append(&mut unnamed);
    }
    problems.append(&mut decided);
    (listed, in_order(problems))
}

/// Reads one model: it, or what is wrong where it cannot be told which model it is.
fn model(
    config: &Section<'_>,
    mut problems: Vec<Problem>,
    names: &mut BTreeSet<ModelName>,
    file: &Path,
) -> (Option<Listed>, Vec<Problem>) {
    let mut manifest = ModelManifest::default();
    if let Some(policy) = config.section("model_version_policy")
        && let Some(policy) = version_policy(&policy, &mut problems)
    {
        manifest.versions = policy;
    }
    manifest.labels = labels(config, &mut problems);
    platform(config, &mut problems);
    let folder = folder(config, file, &mut problems);
    if let Some(folder) = &folder {
        saved_models(config, folder, &mut problems);
    }
    let name = match ModelName::new(config.text("name")) {
        Ok(name) => Some(name),
        Err(error) => {
            problems.push(config.problem("name", &error.to_string(), "give the model a name"));
            None
        }
    };
    let is_new = name.as_ref().is_none_or(|name| names.insert(name.clone()));
    if !is_new {
        problems.push(config.problem("name", "is there twice", "rename one of the two"));
    }
    match (name, folder) {
        (Some(name), Some(folder)) if is_new => {
            let sound = problems.iter().all(|problem| problem.severity == Severity::Warning);
            let problems = problems.into_iter().map(|problem| problem.of_model(&name)).collect();
            let manifest = sound.then_some(manifest);
            let problems = in_order(problems);
            let foreign = Foreign { name: Some(name), manifest, problems, ..Foreign::default() };
            (Some(Listed { folder, foreign }), Vec::new())
        }
        _ => (None, problems),
    }
}

fn labels(config: &Section<'_>, problems: &mut Vec<Problem>) -> BTreeMap<Label, ModelVersion> {
    let mut labels = BTreeMap::new();
    for (key, number) in config.numbers_by_key("version_labels") {
        let version = u64::try_from(number).ok().filter(|number| *number > 0);
        match (Label::new(&key), version) {
            (Ok(label), Some(version)) => drop(labels.insert(label, ModelVersion(version))),
            (Err(_), _) => {
                let rule = format!("'{}' is no label", key.chars().take(64).collect::<String>());
                let remedy = "write up to 64 letters, digits, '-', '_' or '.', a letter first";
                problems.push(config.problem("version_labels", &rule, remedy));
            }
            (Ok(label), None) => {
                let rule = format!("'{label}' names version {number}: versions count from 1");
                problems.push(config.problem("version_labels", &rule, "correct the number"));
            }
        }
    }
    labels
}

/// TensorFlow is what the layout is of; whether it holds ONNX is told by its files.
fn platform(config: &Section<'_>, problems: &mut Vec<Problem>) {
    const TENSORFLOW: i128 = 1;
    let rule = "only ONNX models are served; what counts is the file in the folders of versions";
    let remedy = "write \"tensorflow\", or leave it out";
    if !["", "tensorflow", "onnx"].contains(&config.text("model_platform")) {
        problems.push(config.problem("model_platform", rule, remedy).warning());
    }
    match config.number("model_type") {
        0 => {}
        _ if config.is_set("model_platform") => {
            let rule = "stands for the same as model_platform, which is set too";
            problems.push(config.problem("model_type", rule, "remove this one"));
        }
        TENSORFLOW => {}
        _ => problems.push(config.problem("model_type", rule, "remove it").warning()),
    }
}

/// Finds the folder. A path of the container that the file was written for is looked for beside the
/// file.
fn folder(config: &Section<'_>, file: &Path, problems: &mut Vec<Problem>) -> Option<PathBuf> {
    let field = "base_path";
    let text = config.text(field);
    if text.is_empty() {
        let remedy = "write the folder that holds the folders of versions";
        problems.push(config.problem(field, "must be set", remedy));
        return None;
    }
    if text.contains("://") {
        let remedy = "give the address itself to the server, or copy the folder here";
        problems.push(config.problem(field, "must be a folder of this machine", remedy));
        return None;
    }
    let beside = file.parent().unwrap_or(Path::new(""));
    // An absolute path stays as it is.
    let path = beside.join(text);
    if path.is_dir() {
        return Some(path);
    }
    let last = Path::new(text).file_name().map(|name| beside.join(name));
    match last.filter(|path| Path::new(text).is_absolute() && path.is_dir()) {
        Some(found) => {
            let rule = format!("there is no such folder; {} is taken", found.display());
            let remedy = "write the path from this file to the folder";
            problems.push(config.problem(field, &rule, remedy).warning());
            Some(found)
        }
        None => {
            let remedy =
                "write the path from this file to the folder that holds the folders of versions";
            problems.push(config.problem(field, "there is no such folder", remedy));
            Some(path)
        }
    }
}

/// A folder with no model but TensorFlow's is told what to do. All else that may be wrong with it,
/// a scan tells.
fn saved_models(config: &Section<'_>, folder: &Path, problems: &mut Vec<Problem>) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let versions: Vec<PathBuf> =
        entries.map(|entry| entry.path()).filter(|path| is_version(path)).collect();
    let holds = |file: &str| versions.iter().any(|version| version.join(file).is_file());
    if !holds(MODEL_FILE) && SAVED_MODELS.iter().any(|file| holds(file)) {
        let rule = format!("its versions hold TensorFlow's format and no {MODEL_FILE}");
        let remedy = format!(
            "convert each with tf2onnx, as in python -m tf2onnx.convert --saved-model 1 \
             --output 1/{MODEL_FILE}"
        );
        problems.push(config.problem("base_path", &rule, &remedy));
    }
}

fn is_version(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests;
