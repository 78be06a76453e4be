//! From an answer to its message.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use outhaul_types::{InferResponse, Tensor, TensorData, Timings};

use super::pb::infer_parameter::ParameterChoice;
use super::pb::model_infer_response::InferOutputTensor;
use super::pb::{InferParameter, ModelInferResponse, ModelStreamInferResponse};
use crate::raw;

/// Makes the message of an answer. Fixed-size elements share the tensor's buffer.
pub fn encode_infer(response: InferResponse) -> ModelInferResponse {
    let mut outputs = Vec::with_capacity(response.outputs.len());
    let mut raw_output_contents = Vec::with_capacity(response.outputs.len());
    for output in response.outputs {
        outputs.push(InferOutputTensor {
            name: output.name.into(),
            datatype: output.tensor.data_type().name().to_owned(),
            shape: output.tensor.shape().iter().map(|&size| size as i64).collect(),
            parameters: BTreeMap::new(),
            contents: None,
        });
        raw_output_contents.push(raw_contents(&output.tensor));
    }
    ModelInferResponse {
        model_name: response.model.as_str().to_owned(),
        model_version: response.version.to_string(),
        id: response.id.map(String::from).unwrap_or_default(),
        parameters: time_split(&response.timings),
        outputs,
        raw_output_contents,
    }
}

/// Makes the message that stands in a stream for an answer that failed. It names the request, since
/// a client of a stream has no other way to tell which one it was.
pub fn encode_error(model: String, id: String, message: String) -> ModelStreamInferResponse {
    let request = ModelInferResponse { model_name: model, id, ..Default::default() };
    ModelStreamInferResponse { error_message: message, infer_response: Some(request) }
}

fn raw_contents(tensor: &Tensor) -> Bytes {
    match tensor.data() {
        TensorData::Fixed(bytes) => bytes.clone(),
        TensorData::Strings(_) => {
            let mut buffer = Vec::with_capacity(raw::encoded_size(tensor));
            raw::encode(tensor, &mut buffer);
            buffer.into()
        }
    }
}

fn time_split(timings: &Timings) -> BTreeMap<String, InferParameter> {
    let micros = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    let rows = i64::try_from(timings.batch_rows).unwrap_or(i64::MAX);
    // Only where it was waited for: most models are in memory.
    let load = (!timings.load.is_zero()).then(|| ("load_us", micros(timings.load)));
    let transform = timings.transform;
    let transform = (!transform.is_zero()).then(|| ("transform_us", micros(transform)));
    [
        ("assemble_us", micros(timings.assemble)),
        ("batch_rows", rows),
        ("compute_us", micros(timings.compute)),
        ("queue_us", micros(timings.queue)),
        ("split_us", micros(timings.split)),
    ]
    .into_iter()
    .chain(load)
    .chain(transform)
    .map(|(name, value)| {
        let parameter_choice = Some(ParameterChoice::Int64Param(value));
        (name.to_owned(), InferParameter { parameter_choice })
    })
    .collect()
}
