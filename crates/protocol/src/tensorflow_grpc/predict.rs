//! `Predict`: tensors in, tensors out. And the `ModelSpec` that every message begins with.

use outhaul_types::{
    InferRequest, InferResponse, Label, ModelVersion, Name, NamedTensor, Parameters,
    RequestedOutput, VersionChoice,
};

use super::pb::serving::model_spec::VersionChoice as Choice;
use super::pb::serving::{ModelSpec, PredictRequest, PredictResponse};
use super::tensor::{TensorReader, encode_tensor};
use super::{SIGNATURE, TensorFlowError};
use crate::oip::Target;
use crate::{DecodeLimits, FieldProblem, ProtocolError};

/// Reads which model a message asks.
///
/// # Errors
///
/// Fails where it names no model, a version that cannot be, or a signature other than [`SIGNATURE`].
pub fn read_spec(spec: Option<ModelSpec>) -> Result<Target, TensorFlowError> {
    let spec = spec.unwrap_or_default();
    if spec.name.is_empty() {
        return Err(TensorFlowError::NoModel);
    }
    if !spec.signature_name.is_empty() && spec.signature_name != SIGNATURE {
        let shown = crate::error::excerpt(&spec.signature_name);
        return Err(TensorFlowError::UnknownSignature(shown));
    }
    let version = match spec.version_choice {
        None | Some(Choice::Version(0)) => VersionChoice::Latest,
        Some(Choice::Version(number)) => {
            let version = u64::try_from(number);
            let version = version.map_err(|_| TensorFlowError::NegativeVersion(number))?;
            VersionChoice::Exact(ModelVersion(version))
        }
        Some(Choice::VersionLabel(label)) => {
            VersionChoice::Label(Label::new(&label).map_err(TensorFlowError::BadLabel)?)
        }
    };
    Ok(Target { model: spec.name.into(), version })
}

/// Says which version of which model answered.
pub fn model_spec(model: &str, version: ModelVersion) -> ModelSpec {
    ModelSpec {
        name: model.to_owned(),
        signature_name: SIGNATURE.to_owned(),
        version_choice: Some(Choice::Version(i64::try_from(version.0).unwrap_or(i64::MAX))),
    }
}

/// Makes a request from its message, sharing the bytes of `tensor_content`.
///
/// # Errors
///
/// Fails where the message names no model, where a tensor is not what its shape and type call for, and
/// where there are too many.
pub fn decode_predict(
    message: PredictRequest,
    limits: &DecodeLimits,
) -> Result<InferRequest, TensorFlowError> {
    let Target { model, version } = read_spec(message.model_spec)?;
    for (what, length) in
        [("inputs", message.inputs.len()), ("requested outputs", message.output_filter.len())]
    {
        if length > limits.max_tensors {
            return Err(ProtocolError::TooMany { what, limit: limits.max_tensors }.into());
        }
    }
    let mut tensors = TensorReader::new(limits);
    let input = |(name, tensor): (String, _)| {
        let name = named(name, "name of an input")?;
        tensors.read(&name, tensor).map(|tensor| NamedTensor { name, tensor })
    };
    let output = |name| {
        let name = named(name, "output_filter")?;
        Ok(RequestedOutput { name, classification: None })
    };
    Ok(InferRequest {
        id: None,
        model,
        version,
        inputs: message.inputs.into_iter().map(input).collect::<Result<_, TensorFlowError>>()?,
        outputs: message
            .output_filter
            .into_iter()
            .map(output)
            .collect::<Result<_, TensorFlowError>>()?,
        parameters: Parameters::new(),
    })
}

fn named(name: String, field: &'static str) -> Result<Name, ProtocolError> {
    if name.is_empty() {
        return Err(ProtocolError::field(field, FieldProblem::Empty));
    }
    Ok(name.into())
}

/// Makes the message of an answer.
pub fn encode_predict(response: &InferResponse) -> PredictResponse {
    let outputs = response.outputs.iter();
    PredictResponse {
        outputs: outputs
            .map(|NamedTensor { name, tensor }| (name.to_string(), encode_tensor(tensor)))
            .collect(),
        model_spec: Some(model_spec(response.model.as_str(), response.version)),
    }
}
