//! Triton: `config.pbtxt` beside the folders of a model's versions.
//!
//! Every field that Triton has is known. What each leads to stands in one table, `decisions.rs`;
//! what is taken is read by the modules below, each for one part of the manifest.

use std::path::Path;

use outhaul_types::{CacheSpec, ModelManifest, ModelName};

use super::Foreign;
use super::keys::inside;
use super::textproto::{Document, Section, decided, in_order, schema};
use super::version_policy::version_policy;
use crate::{MODEL_FILE, Problem, Severity};

mod batching;
mod decisions;
mod ensemble;
mod instances;
mod tensors;
mod warmup;

/// The file that tells it.
pub(super) const FILE: &str = "config.pbtxt";

const MESSAGE: &str = "inference.ModelConfig";

/// Where a mapping writes: the manifest so far, and what is wrong.
struct Target {
    manifest: ModelManifest,
    problems: Vec<Problem>,
}

/// Reads a model's folder.
pub(super) fn read(folder: &Path) -> Foreign {
    match Document::read(&folder.join(FILE), &schema(MESSAGE)) {
        Ok(document) => map(&document, folder),
        Err(problems) => Foreign { problems: in_order(problems), ..Foreign::default() },
    }
}

fn map(document: &Document, folder: &Path) -> Foreign {
    let config = document.root();
    let problems = decided(document, decisions::DECISIONS);
    let mut target = Target { manifest: ModelManifest::default(), problems };
    let name = name(&config, folder, &mut target);
    backend(&config, &mut target);
    let model_file = model_file(&config, folder, &mut target);
    if let Some(policy) = config.section("version_policy")
        && let Some(policy) = version_policy(&policy, &mut target.problems)
    {
        target.manifest.versions = policy;
    }
    batching::map(&config, &mut target);
    instances::map(&config, &mut target);
    tensors::map(&config, &mut target);
    warmup::map(&config, folder, &mut target);
    if config.section("response_cache").is_some_and(|cache| cache.truth("enable")) {
        // Triton's caches are set up with its command line, which is not here.
        target.manifest.cache = Some(CacheSpec::default());
    }
    let pipeline = ensemble::map(&config, &mut target);

    let Target { manifest, problems } = target;
    let sound = problems.iter().all(|problem| problem.severity == Severity::Warning);
    let manifest = sound.then_some(manifest);
    let problems = in_order(problems);
    let pipeline = pipeline.filter(|_| sound);
    Foreign { name, manifest, model_file, pipeline, problems }
}

fn name(config: &Section<'_>, folder: &Path, target: &mut Target) -> Option<ModelName> {
    let text = config.text("name");
    if text.is_empty() {
        return None;
    }
    let name = match ModelName::new(text) {
        Ok(name) => name,
        Err(error) => {
            target.problems.push(config.problem("name", &error.to_string(), "rename it"));
            return None;
        }
    };
    if folder.file_name().is_some_and(|folder| folder != text) {
        let rule = "the folder has another name; the model goes by this one";
        let remedy = "name the folder like the model, as Triton asks";
        target.problems.push(config.problem("name", rule, remedy).warning());
    }
    Some(name)
}

/// Checks that an ONNX model is what the folder holds. A folder that says nothing is asked for
/// `model.onnx`.
fn backend(config: &Section<'_>, target: &mut Target) {
    // The field `ensemble_scheduling` tells all there is to tell of an ensemble.
    let is_ensemble = config.section("ensemble_scheduling").is_some();
    let sound = ["", "onnxruntime", "onnxruntime_onnx"];
    let told = ["backend", "platform"].into_iter().find(|field| {
        let text = config.text(field);
        !(sound.contains(&text) || is_ensemble && text == "ensemble")
    });
    if let Some(field) = told {
        let remedy = remedy_of_backend(config.text(field));
        target.problems.push(config.problem(field, "only ONNX models are served", remedy));
    }
}

fn remedy_of_backend(name: &str) -> &'static str {
    match name {
        "pytorch" | "pytorch_libtorch" | "torch_aoti" => {
            "export the module with outhaul.export of the Python package outhaul"
        }
        "tensorflow" | "tensorflow_savedmodel" | "tensorflow_graphdef" => {
            "convert the model with tf2onnx"
        }
        "tensorrt" | "tensorrt_plan" => "serve the ONNX file that the plan was built from",
        "openvino" => "serve the ONNX file that the model was converted from",
        "fil" => "convert the trees with the Python package outhaul",
        "python" => "export what the script computes to ONNX",
        _ => "convert the model to ONNX and set backend: \"onnxruntime\"",
    }
}

/// The model file below the folder of a version. ONNX Runtime's backend also takes a folder of that
/// name, with the file and its weights in it.
fn model_file(config: &Section<'_>, folder: &Path, target: &mut Target) -> Option<String> {
    let field = "default_model_filename";
    let text = config.text(field);
    let file = match inside(text) {
        Some(file) if text.is_empty() || !file.is_empty() => file,
        _ => {
            let rule = "must be a file in the folder of each version";
            target.problems.push(config.problem(field, rule, "write its name alone"));
            return None;
        }
    };
    let name = if file.is_empty() { MODEL_FILE } else { file.as_str() };
    let last = name.rsplit('/').next().unwrap_or(name);
    let nested = format!("{name}/{last}");
    let in_any_version = |file: &str| {
        let versions = folder.read_dir().into_iter().flatten().flatten();
        versions.map(|version| version.path().join(file)).any(|path| path.is_file())
    };
    if !in_any_version(name) && in_any_version(&nested) {
        return Some(nested);
    }
    (!file.is_empty()).then_some(file)
}

#[cfg(test)]
mod tests;
