//! What a model takes and gives, and how its versions stand.

use outhaul_types::{ModelVersion, ShapePattern, TensorSpec};
use prost::Message;
use prost_types::Any;

use super::pb::serving::model_version_status::State;
use super::pb::serving::{
    GetModelMetadataResponse, GetModelStatusResponse, ModelVersionStatus, SignatureDefMap,
    StatusProto,
};
use super::pb::tensor_shape_proto::Dim;
use super::pb::{SignatureDef, TensorInfo, TensorShapeProto, error, tensor_info};
use super::predict::model_spec;
use super::tensor::dtype;
use super::{SIGNATURE, TensorFlowError};
use crate::Schema;
use crate::describe::EntryState;

/// The one field of metadata that there is.
const SIGNATURE_DEF: &str = "signature_def";

/// How one version of a model stands.
#[derive(Clone, Copy, Debug)]
pub struct VersionFact<'a> {
    /// Its number.
    pub version: ModelVersion,
    /// How it stands.
    pub state: EntryState,
    /// Why it could not be loaded, where it could not.
    pub failure: Option<&'a str>,
}

/// Describes a model as a `SignatureDef` of its outer signature.
///
/// # Errors
///
/// Fails where other metadata is asked for.
pub fn model_metadata(
    fields: &[String],
    model: &Schema<'_>,
) -> Result<GetModelMetadataResponse, TensorFlowError> {
    match fields.iter().find(|field| *field != SIGNATURE_DEF) {
        None if fields.is_empty() => {
            return Err(TensorFlowError::UnknownMetadata("none".to_owned()));
        }
        None => {}
        Some(other) => {
            let other = format!("'{}'", crate::error::excerpt(other));
            return Err(TensorFlowError::UnknownMetadata(other));
        }
    }
    let tensors = |specs: &[TensorSpec]| {
        specs.iter().map(|spec| (spec.name.to_string(), tensor_info(spec))).collect()
    };
    let definition = SignatureDef {
        inputs: tensors(&model.signature.inputs),
        outputs: tensors(&model.signature.outputs),
        method_name: "tensorflow/serving/predict".to_owned(),
    };
    let definitions =
        SignatureDefMap { signature_def: [(SIGNATURE.to_owned(), definition)].into() };
    let any = Any {
        type_url: "type.googleapis.com/tensorflow.serving.SignatureDefMap".to_owned(),
        value: definitions.encode_to_vec(),
    };
    Ok(GetModelMetadataResponse {
        model_spec: Some(model_spec(model.name, model.version)),
        metadata: [(SIGNATURE_DEF.to_owned(), any)].into(),
    })
}

fn tensor_info(spec: &TensorSpec) -> TensorInfo {
    let unknown_rank = spec.shape == ShapePattern::AnyRank;
    let dim = match unknown_rank {
        true => Vec::new(),
        false => {
            let sizes = spec.shape.protocol_dimensions().into_iter();
            sizes.map(|size| Dim { size, name: String::new() }).collect()
        }
    };
    TensorInfo {
        encoding: Some(tensor_info::Encoding::Name(format!("{}:0", spec.name))),
        dtype: dtype(spec.data_type).into(),
        tensor_shape: Some(TensorShapeProto { dim, unknown_rank }),
    }
}

/// Writes how the versions of a model stand.
pub fn model_status<'a>(
    versions: impl IntoIterator<Item = VersionFact<'a>>,
) -> GetModelStatusResponse {
    let status = |fact: VersionFact<'_>| {
        let state = match fact.state {
            EntryState::Ready => State::Available,
            EntryState::Loading => State::Loading,
            EntryState::Unavailable => State::End,
        };
        let code = if fact.failure.is_some() { error::Code::Unknown } else { error::Code::Ok };
        ModelVersionStatus {
            version: i64::try_from(fact.version.0).unwrap_or(i64::MAX),
            state: state.into(),
            status: Some(StatusProto {
                error_code: code.into(),
                error_message: fact.failure.unwrap_or_default().to_owned(),
            }),
        }
    };
    GetModelStatusResponse { model_version_status: versions.into_iter().map(status).collect() }
}
