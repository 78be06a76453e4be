//! What a server tells of itself and its models, as JSON. None of this is on the path of a
//! prediction, so it is written through `serde`.

use bytes::Bytes;
use outhaul_types::{Content, DataType, Field, Label, ModelSignature, TensorSpec};
use serde::Serialize;
use serde_json::{Value, json};

use crate::describe::{ModelConfig, ModelMetadata, RepositoryEntry, ServerMetadata};

/// The protocol's extensions that this contract serves.
pub const EXTENSIONS: [&str; 6] = [
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "statistics",
];

/// Writes a value that is known to have only text as keys.
pub(super) fn to_bytes(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).expect("strings, numbers, lists and maps of text are JSON").into()
}

/// Returns `{"live": ...}`, which KServe's client reads and Triton's ignores.
pub fn live(live: bool) -> Bytes {
    to_bytes(&json!({ "live": live }))
}

/// Returns `{"ready": ...}`.
pub fn ready(ready: bool) -> Bytes {
    to_bytes(&json!({ "ready": ready }))
}

/// Returns `{"name": ..., "ready": ...}`.
pub fn model_ready(name: &str, ready: bool) -> Bytes {
    to_bytes(&json!({ "name": name, "ready": ready }))
}

/// Returns `{"error": ...}`, the body of every failure.
pub fn error_body(message: &str) -> Bytes {
    to_bytes(&json!({ "error": message }))
}

/// Returns the server's metadata.
pub fn server_metadata(server: &ServerMetadata<'_>) -> Bytes {
    to_bytes(&json!({
        "name": server.name,
        "version": server.version,
        "extensions": server.extensions,
    }))
}

/// Returns a model's metadata. Sizes that may vary are `-1`.
pub fn model_metadata(model: &ModelMetadata<'_>) -> Bytes {
    let interface = model.interface;
    let tensors = |specs: &[TensorSpec], fields: &[Field]| -> Vec<Value> {
        specs.iter().enumerate().map(|(index, spec)| tensor(spec, fields.get(index))).collect()
    };
    let versions: Vec<String> = model.versions.iter().map(ToString::to_string).collect();
    let properties: serde_json::Map<String, Value> =
        model.properties.iter().map(|&(key, value)| (key.to_owned(), value.into())).collect();
    let mut metadata = json!({
        "name": model.name,
        "versions": versions,
        "platform": model.platform,
        "inputs": tensors(&model.signature.inputs, &interface.inputs),
        "outputs": tensors(&model.signature.outputs, &interface.outputs),
        "properties": properties,
    });
    if let Some(inner) = &interface.inner {
        metadata["model"] = json!({
            "inputs": tensors(&inner.inputs, &[]),
            "outputs": tensors(&inner.outputs, &[]),
        });
    }
    to_bytes(&metadata)
}

/// Describes one input or output: what the protocol says, and beside it what the values mean, where
/// that is known.
fn tensor(spec: &TensorSpec, field: Option<&Field>) -> Value {
    let mut tensor = json!({
        "name": spec.name.as_str(),
        "datatype": spec.data_type.name(),
        "shape": spec.shape.protocol_dimensions(),
    });
    let Some(field) = field.filter(|field| field.content != Content::Tensor) else {
        return tensor;
    };
    tensor["content"] = field.content.as_str().into();
    if let Some(choices) = &field.choices {
        tensor["choices"] = choices.iter().map(String::as_str).collect();
    }
    if let Some(unit) = &field.unit {
        tensor["unit"] = unit.as_str().into();
    }
    tensor
}

/// Returns a model's configuration as Triton writes it, as far as clients read it: perf_analyzer
/// wants the batch size and the tensors.
pub fn model_config(model: &ModelConfig<'_>) -> Bytes {
    let ModelSignature { inputs, outputs } = model.signature;
    let with_batch = model.max_rows.is_some();
    let mut config = json!({
        "name": model.name,
        "platform": model.platform,
        "backend": model.backend,
        "max_batch_size": model.max_rows.unwrap_or(0),
        "input": inputs.iter().map(|spec| config_tensor(spec, with_batch)).collect::<Vec<_>>(),
        "output": outputs.iter().map(|spec| config_tensor(spec, with_batch)).collect::<Vec<_>>(),
        "instance_group": [{ "name": model.name, "kind": "KIND_CPU", "count": model.instances }],
    });
    if with_batch {
        let delay = u64::try_from(model.max_delay.as_micros()).unwrap_or(u64::MAX);
        config["dynamic_batching"] = json!({ "max_queue_delay_microseconds": delay });
    }
    to_bytes(&config)
}

fn config_tensor(spec: &TensorSpec, with_batch: bool) -> Value {
    let dimensions = spec.shape.protocol_dimensions();
    // Triton leaves the batch out of the dimensions where there is a batch size.
    let dimensions = if with_batch { dimensions.get(1..).unwrap_or(&[]) } else { &dimensions[..] };
    let data_type = match spec.data_type {
        DataType::Bytes => "TYPE_STRING".to_owned(),
        other => format!("TYPE_{other}"),
    };
    json!({
        "name": spec.name.as_str(),
        "data_type": data_type,
        "dims": dimensions,
        "optional": spec.optional,
    })
}

/// Returns the repository's index: the extension's four keys, and ours behind them.
pub fn repository_index<'a>(entries: impl IntoIterator<Item = RepositoryEntry<'a>>) -> Bytes {
    let entries: Vec<Value> = entries
        .into_iter()
        .map(|entry| {
            let details = &entry.details;
            let labels: Vec<&str> = details.labels.iter().map(Label::as_str).collect();
            json!({
                "name": entry.name,
                "version": entry.version,
                "state": entry.state.as_str(),
                "reason": entry.reason,
                "standing": details.standing,
                "labels": labels,
                "engine": details.engine,
                "memory_bytes": details.memory_bytes,
                "last_error": details.last_error,
                "source": details.source,
            })
        })
        .collect();
    to_bytes(&entries)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use outhaul_types::{Dimension, Interface, ModelVersion, ShapePattern};

    use super::*;
    use crate::describe::{EntryDetails, EntryState};

    fn signature() -> ModelSignature {
        let spec = |name: &str, data_type, shape: ShapePattern| TensorSpec {
            name: name.into(),
            data_type,
            shape,
            optional: false,
        };
        let batch = || Dimension::Named("batch".into());
        ModelSignature {
            inputs: vec![
                spec("x", DataType::Fp32, ShapePattern::ranked([batch(), Dimension::Fixed(4)])),
                spec("free", DataType::Int8, ShapePattern::AnyRank),
            ],
            outputs: vec![spec("y", DataType::Bytes, ShapePattern::ranked([batch()]))],
        }
    }

    #[track_caller]
    fn assert_json(bytes: &Bytes, expected: &Value) {
        assert_eq!(&serde_json::from_slice::<Value>(bytes).unwrap(), expected);
    }

    #[test]
    fn a_model_is_described_as_the_protocol_says() {
        let mut interface = Interface::of_tensors(&signature());
        interface.inputs[0] = Field::of(Content::Number);
        interface.inner = Some(ModelSignature { inputs: signature().outputs, outputs: Vec::new() });
        let metadata = ModelMetadata {
            name: "m",
            versions: &[ModelVersion(1), ModelVersion(3)],
            platform: "onnxruntime_onnx",
            signature: &signature(),
            interface: &interface,
            properties: &[("batching", "off: rows mix")],
        };
        let expected = json!({
            "name": "m", "versions": ["1", "3"], "platform": "onnxruntime_onnx",
            "inputs": [
                { "name": "x", "datatype": "FP32", "shape": [-1, 4], "content": "number" },
                { "name": "free", "datatype": "INT8", "shape": [-1] },
            ],
            "outputs": [{ "name": "y", "datatype": "BYTES", "shape": [-1] }],
            "properties": { "batching": "off: rows mix" },
            "model": {
                "inputs": [{ "name": "y", "datatype": "BYTES", "shape": [-1] }],
                "outputs": [],
            },
        });
        assert_json(&model_metadata(&metadata), &expected);
    }

    #[test]
    fn a_configuration_leaves_the_batch_out_of_the_dimensions() {
        let signature = signature();
        let mut config = ModelConfig {
            name: "m",
            platform: "onnxruntime_onnx",
            backend: "onnxruntime",
            max_rows: Some(32),
            max_delay: Duration::from_millis(2),
            instances: 2,
            signature: &signature,
        };
        let written: Value = serde_json::from_slice(&model_config(&config)).unwrap();
        assert_eq!(written["max_batch_size"], 32);
        assert_eq!(written["input"][0]["dims"], json!([4]));
        assert_eq!(written["output"][0]["data_type"], "TYPE_STRING");
        assert_eq!(written["dynamic_batching"]["max_queue_delay_microseconds"], 2000);
        config.max_rows = None;
        let written: Value = serde_json::from_slice(&model_config(&config)).unwrap();
        assert_eq!(written["max_batch_size"], 0);
        assert_eq!(written["input"][0]["dims"], json!([-1, 4]));
        assert_eq!(written.get("dynamic_batching"), None);
    }

    #[test]
    fn small_bodies_are_what_clients_read() {
        assert_json(&live(true), &json!({ "live": true }));
        assert_json(&ready(false), &json!({ "ready": false }));
        assert_json(&model_ready("m", true), &json!({ "name": "m", "ready": true }));
        assert_json(&error_body("a \"b\"\n"), &json!({ "error": "a \"b\"\n" }));
        let server = ServerMetadata { name: "outhaul", version: "1", extensions: &EXTENSIONS };
        let expected = json!({ "name": "outhaul", "version": "1", "extensions": EXTENSIONS });
        assert_json(&server_metadata(&server), &expected);
    }

    #[test]
    fn the_index_holds_the_extensions_keys_and_ours() {
        let labels = [Label::new("stable").unwrap()];
        let ready = RepositoryEntry {
            name: "m",
            version: "1",
            state: EntryState::Ready,
            reason: "",
            details: EntryDetails {
                standing: "ready",
                engine: Some("onnxruntime"),
                memory_bytes: Some(4096),
                labels: &labels,
                last_error: None,
                source: Some("models/m/1/model.onnx"),
            },
        };
        let damaged = RepositoryEntry {
            state: EntryState::Unavailable,
            reason: "damaged",
            details: EntryDetails {
                standing: "failed",
                last_error: Some("damaged"),
                ..EntryDetails::default()
            },
            ..ready
        };
        let expected = json!([
            {
                "name": "m", "version": "1", "state": "READY", "reason": "", "standing": "ready",
                "labels": ["stable"], "engine": "onnxruntime", "memory_bytes": 4096,
                "last_error": null, "source": "models/m/1/model.onnx",
            },
            {
                "name": "m", "version": "1", "state": "UNAVAILABLE", "reason": "damaged",
                "standing": "failed", "labels": [], "engine": null, "memory_bytes": null,
                "last_error": "damaged", "source": null,
            },
        ]);
        assert_json(&repository_index([ready, damaged]), &expected);
    }
}
