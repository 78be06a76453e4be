//! What managed platforms tell a container in variables of their own: Vertex AI (`AIP_*`), SageMaker
//! (`SAGEMAKER_*`) and Azure ML (`AZUREML_*`).
//!
//! They are weaker than our own variables, so that a deployment can still say otherwise, and stronger
//! than a file that was baked into an image. A port that a platform names is served to other machines:
//! the platform's proxy is one.

use std::collections::BTreeMap;
use std::ffi::OsString;

use outhaul_repository::Value;

use super::settings;

/// Where SageMaker puts the models of a multi-model endpoint.
const SAGEMAKER_MODELS: &str = "/opt/ml/models";

/// A variable and the setting that it stands for.
struct Told {
    variable: &'static str,
    key: &'static str,
    read: fn(&str) -> Option<Value>,
}

const fn told(variable: &'static str, key: &'static str, read: fn(&str) -> Option<Value>) -> Told {
    Told { variable, key, read }
}

/// Of two that stand for one setting, the first that is set holds.
const TOLD: [Told; 8] = [
    told("AIP_HTTP_PORT", settings::HTTP.key, port),
    told("SAGEMAKER_BIND_TO_PORT", settings::HTTP.key, port),
    told("AIP_STORAGE_URI", settings::MODELS.key, place),
    told("AZUREML_MODEL_DIR", settings::MODELS.key, place),
    told("AIP_PREDICT_ROUTE", settings::VERTEX_PREDICT_ROUTE.key, text),
    told("AIP_HEALTH_ROUTE", settings::VERTEX_HEALTH_ROUTE.key, text),
    told("SAGEMAKER_MULTI_MODEL", settings::SAGEMAKER_MODELS_DIR.key, multi_model),
    told("SAGEMAKER_DEFAULT_MODEL", settings::DEFAULT_MODEL.key, text),
];

/// Returns what a platform tells: by setting, the variable and its value.
pub(super) fn read(
    environment: &BTreeMap<String, OsString>,
) -> BTreeMap<&'static str, (&'static str, Value)> {
    let mut read = BTreeMap::new();
    for told in &TOLD {
        let text = environment.get(told.variable).and_then(|value| value.to_str());
        if let Some(value) = text.filter(|text| !text.is_empty()).and_then(told.read) {
            read.entry(told.key).or_insert((told.variable, value));
        }
    }
    read
}

/// Returns whether a variable is one that is read here.
pub(super) fn is_told(variable: &str) -> bool {
    TOLD.iter().any(|told| told.variable == variable)
}

fn port(text: &str) -> Option<Value> {
    Some(Value::Text(format!("0.0.0.0:{text}")))
}

fn place(text: &str) -> Option<Value> {
    Some(Value::List(vec![Value::Text(text.to_owned())]))
}

fn text(text: &str) -> Option<Value> {
    Some(Value::Text(text.to_owned()))
}

fn multi_model(text: &str) -> Option<Value> {
    text.eq_ignore_ascii_case("true").then(|| Value::Text(SAGEMAKER_MODELS.to_owned()))
}
