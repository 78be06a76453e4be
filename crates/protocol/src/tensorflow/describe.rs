//! What is told of models, in bodies that serve TensorFlow Serving's, KServe's and OpenAI's clients
//! alike.

use outhaul_types::{DataType, ShapePattern, TensorSpec};
use serde_json::{Map, Value, json};

use crate::Schema;
use crate::tensorflow_grpc::pb::error::Code;
use crate::tensorflow_grpc::pb::serving::model_version_status::State;
use crate::tensorflow_grpc::{self, SIGNATURE, VersionFact};

/// The owner that OpenAI's form of a model names.
const OWNER: &str = "outhaul";

/// Writes an error as TensorFlow Serving does.
pub fn error_body(message: &str) -> Vec<u8> {
    json!({ "error": message }).to_string().into_bytes()
}

/// Writes that there is no such model, for the path that OpenAI's clients ask too: they read
/// `error.message`.
pub fn model_error_body(message: &str) -> Vec<u8> {
    let error = json!({
        "message": message,
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    });
    json!({ "error": error }).to_string().into_bytes()
}

/// Writes the models' names, in OpenAI's form and in KServe's.
pub fn model_list<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
    let names: Vec<&str> = names.into_iter().collect();
    let model =
        |name: &&str| json!({ "id": name, "object": "model", "created": 0, "owned_by": OWNER });
    let data: Vec<Value> = names.iter().map(model).collect();
    json!({ "object": "list", "data": data, "models": names }).to_string().into_bytes()
}

/// Writes how the versions of a model stand: TensorFlow Serving's `model_version_status`, KServe's
/// `ready`, OpenAI's `object` and `id`.
pub fn model_status<'a>(
    name: &str,
    ready: bool,
    versions: impl IntoIterator<Item = VersionFact<'a>>,
) -> Vec<u8> {
    let status = tensorflow_grpc::model_status(versions);
    let version = |status: &tensorflow_grpc::pb::serving::ModelVersionStatus| {
        let told = status.status.clone().unwrap_or_default();
        json!({
            "version": status.version.to_string(),
            "state": State::try_from(status.state).unwrap_or(State::Unknown).as_str_name(),
            "status": {
                "error_code": Code::try_from(told.error_code).unwrap_or(Code::Unknown).as_str_name(),
                "error_message": told.error_message,
            },
        })
    };
    let versions: Vec<Value> = status.model_version_status.iter().map(version).collect();
    let body = json!({
        "model_version_status": versions,
        "name": name,
        "ready": ready,
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": OWNER,
    });
    body.to_string().into_bytes()
}

/// Writes what a model takes and gives, as the one signature `serving_default`.
pub fn model_metadata(schema: &Schema<'_>) -> Vec<u8> {
    let definition = json!({
        "inputs": tensors(&schema.signature.inputs),
        "outputs": tensors(&schema.signature.outputs),
        "method_name": "tensorflow/serving/predict",
    });
    let body = json!({
        "model_spec": {
            "name": schema.name,
            "signature_name": "",
            "version": schema.version.to_string(),
        },
        "metadata": { "signature_def": { "signature_def": { SIGNATURE: definition } } },
    });
    body.to_string().into_bytes()
}

fn tensors(specs: &[TensorSpec]) -> Map<String, Value> {
    let tensor = |spec: &TensorSpec| {
        let unknown_rank = spec.shape == ShapePattern::AnyRank;
        let sizes = if unknown_rank { Vec::new() } else { spec.shape.protocol_dimensions() };
        let dim = |size: &i64| json!({ "size": size.to_string(), "name": "" });
        let dim: Vec<Value> = sizes.iter().map(dim).collect();
        let told = json!({
            "dtype": dtype(spec.data_type),
            "tensor_shape": { "dim": dim, "unknown_rank": unknown_rank },
            "name": format!("{}:0", spec.name),
        });
        (spec.name.to_string(), told)
    };
    specs.iter().map(tensor).collect()
}

/// Returns TensorFlow's name of a type.
const fn dtype(data_type: DataType) -> &'static str {
    match data_type {
        DataType::Bool => "DT_BOOL",
        DataType::Uint8 => "DT_UINT8",
        DataType::Uint16 => "DT_UINT16",
        DataType::Uint32 => "DT_UINT32",
        DataType::Uint64 => "DT_UINT64",
        DataType::Int8 => "DT_INT8",
        DataType::Int16 => "DT_INT16",
        DataType::Int32 => "DT_INT32",
        DataType::Int64 => "DT_INT64",
        DataType::Fp16 => "DT_HALF",
        DataType::Bf16 => "DT_BFLOAT16",
        DataType::Fp32 => "DT_FLOAT",
        DataType::Fp64 => "DT_DOUBLE",
        DataType::Bytes => "DT_STRING",
    }
}
