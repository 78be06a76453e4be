//! Requests made up from what a model says it takes.
//!
//! The values are small and vary from row to row, and the same on every run. They make sense to the
//! wire and to most graphs; to a model that demands more (ids within a vocabulary, pixels) they are
//! numbers from 0 to 1, so give such a model requests of your own.

use bytes::Bytes;
use outhaul_protocol::grpc::pb::ModelInferRequest;
use outhaul_protocol::grpc::pb::model_infer_request::InferInputTensor;
use outhaul_types::DataType;
use serde_json::{Value as Json, json};

use super::{Answer, HttpRequest, HttpTarget, LoadError, Target, ask, grpc};

/// What the dimensions that may vary are to be.
#[derive(Clone, Debug, Default)]
pub struct SampleSizes {
    /// Rows of each request: the size of each input's first dimension where it may vary. Default
    /// (zero): 1.
    pub rows: usize,
    /// Whole shapes by input, which must fit what the model takes.
    pub shapes: Vec<(String, Vec<usize>)>,
}

/// Why no request can be made up.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    /// The server's description of the model is not one.
    #[error("the metadata of '{model}' cannot be understood: {reason}")]
    BadMetadata {
        /// The model.
        model: String,
        /// What is wrong.
        reason: String,
    },
    /// A shape was given for an input that the model does not have.
    #[error("the model has no input '{input}'; it takes {expected}")]
    UnknownInput {
        /// As given.
        input: String,
        /// The inputs there are.
        expected: String,
    },
    /// A shape was given that the model does not take.
    #[error("input '{input}' cannot have the shape {given:?}, expected {expected:?}")]
    WrongShape {
        /// The input.
        input: String,
        /// As given.
        given: Vec<usize>,
        /// As declared, -1 where it may vary.
        expected: Vec<i64>,
    },
    /// The request would be larger than any server takes.
    #[error("input '{0}' would have more than 2^28 elements")]
    TooLarge(String),
}

/// One input of a request that is made up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampleInput {
    /// Its name.
    pub name: String,
    /// The type of its elements.
    pub data_type: DataType,
    /// Its shape.
    pub shape: Vec<usize>,
}

impl SampleInput {
    /// Makes the inputs of one request from a model's metadata: name, datatype and shape of each.
    ///
    /// # Errors
    ///
    /// Fails where the metadata is not right, or the sizes do not fit it.
    pub fn from_metadata(
        model: &str,
        inputs: impl IntoIterator<Item = (String, String, Vec<i64>)>,
        sizes: &SampleSizes,
    ) -> Result<Vec<SampleInput>, SampleError> {
        let inputs: Vec<_> = inputs.into_iter().collect();
        let names: Vec<&str> = inputs.iter().map(|(name, ..)| name.as_str()).collect();
        for (input, _) in &sizes.shapes {
            if !names.contains(&input.as_str()) {
                let expected = names.join(", ");
                return Err(SampleError::UnknownInput { input: input.clone(), expected });
            }
        }
        inputs
            .into_iter()
            .map(|(name, data_type, declared)| {
                let data_type = data_type.parse().map_err(|error| SampleError::BadMetadata {
                    model: model.to_owned(),
                    reason: format!("input '{name}': {error}"),
                })?;
                let shape = shape(&name, &declared, sizes)?;
                let product = shape.iter().try_fold(1_usize, |all, &size| all.checked_mul(size));
                if product.is_none_or(|elements| elements > 1 << 28) {
                    return Err(SampleError::TooLarge(name));
                }
                Ok(SampleInput { name, data_type, shape })
            })
            .collect()
    }

    fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// A number from 0 to 1 in steps of 1/64, which every floating-point type holds exactly.
    fn fraction(index: usize) -> f32 {
        (index.wrapping_mul(29) % 65) as f32 / 64.0
    }

    fn json_element(&self, index: usize) -> Json {
        match self.data_type {
            DataType::Bool => json!(index % 2 == 1),
            DataType::Bytes => json!(format!("text {}", index % 10)),
            data_type if data_type.is_float() => json!(Self::fraction(index)),
            _ => json!(index % 2),
        }
    }

    fn raw_element(&self, index: usize, buffer: &mut Vec<u8>) {
        let float = Self::fraction(index);
        let whole = (index % 2) as u8;
        match self.data_type {
            DataType::Fp64 => buffer.extend_from_slice(&f64::from(float).to_le_bytes()),
            DataType::Fp32 => buffer.extend_from_slice(&float.to_le_bytes()),
            // The upper half of the FP32, exact for these numbers.
            DataType::Bf16 => buffer.extend_from_slice(&float.to_le_bytes()[2..]),
            DataType::Fp16 => buffer.extend_from_slice(&half::f16::from_f32(float).to_le_bytes()),
            DataType::Bytes => {
                let text = format!("text {}", index % 10);
                buffer.extend_from_slice(&(text.len() as u32).to_le_bytes());
                buffer.extend_from_slice(text.as_bytes());
            }
            data_type => {
                let padding = data_type.size().unwrap_or(1) - 1;
                buffer.push(whole);
                buffer.extend(std::iter::repeat_n(0, padding));
            }
        }
    }
}

fn shape(name: &str, declared: &[i64], sizes: &SampleSizes) -> Result<Vec<usize>, SampleError> {
    if let Some((_, given)) = sizes.shapes.iter().find(|(input, _)| input == name) {
        // A rank that the model does not tell is written as [-1].
        let any_rank = declared == [-1];
        let fits = given.len() == declared.len()
            && given
                .iter()
                .zip(declared)
                .all(|(&given, &declared)| declared < 0 || usize::try_from(declared) == Ok(given));
        if !fits && !any_rank {
            let (input, given, expected) = (name.to_owned(), given.clone(), declared.to_vec());
            return Err(SampleError::WrongShape { input, given, expected });
        }
        return Ok(given.clone());
    }
    let size = |(index, &declared): (usize, &i64)| match usize::try_from(declared) {
        Ok(fixed) => fixed,
        Err(_) if index == 0 => sizes.rows.max(1),
        Err(_) => 1,
    };
    Ok(declared.iter().enumerate().map(size).collect())
}

/// One input as the protocol writes it. The order of the fields is the one that people expect.
#[derive(serde::Serialize)]
struct JsonInput<'a> {
    name: &'a str,
    shape: &'a [usize],
    datatype: &'static str,
    data: Vec<Json>,
}

/// Makes the JSON body of a request, elements flat.
pub fn json_body(inputs: &[SampleInput]) -> Vec<u8> {
    let input = |input: &SampleInput| {
        let data = (0..input.len()).map(|index| input.json_element(index)).collect();
        let (name, shape) = (&input.name, &input.shape);
        let input = JsonInput { name, shape, datatype: input.data_type.name(), data };
        serde_json::to_string(&input).expect("names and numbers are JSON")
    };
    let inputs: Vec<String> = inputs.iter().map(input).collect();
    format!("{{\"inputs\":[{}]}}", inputs.join(",")).into_bytes()
}

/// Makes the message of a request, elements as raw bytes.
pub fn grpc_message(model: &str, inputs: &[SampleInput]) -> ModelInferRequest {
    let mut message = ModelInferRequest { model_name: model.to_owned(), ..Default::default() };
    for input in inputs {
        message.inputs.push(InferInputTensor {
            name: input.name.clone(),
            datatype: input.data_type.name().to_owned(),
            shape: input.shape.iter().map(|&size| size as i64).collect(),
            ..Default::default()
        });
        let mut raw = Vec::new();
        (0..input.len()).for_each(|index| input.raw_element(index, &mut raw));
        message.raw_input_contents.push(Bytes::from(raw));
    }
    message
}

/// Asks a server for a model's metadata over HTTP and returns name, datatype and shape of its inputs.
///
/// # Errors
///
/// Fails where there is no answer, no such model, or the answer is not metadata.
pub async fn inputs_over_http(
    address: &str,
    prefix: &str,
    model: &str,
) -> Result<Vec<(String, String, Vec<i64>)>, LoadError> {
    let path = format!("{prefix}/v2/models/{model}");
    let target = HttpTarget { address: address.to_owned(), requests: vec![HttpRequest::get(path)] };
    let Answer { status, is_ok, body } = ask(&Target::Http(target)).await?;
    if !is_ok {
        let what = format!("the metadata of '{model}'");
        return Err(LoadError::Refused { what, status, message: body });
    }
    let bad = |reason: String| SampleError::BadMetadata { model: model.to_owned(), reason };
    let metadata: Metadata = serde_json::from_str(&body).map_err(|error| bad(error.to_string()))?;
    Ok(metadata.inputs.into_iter().map(|input| (input.name, input.datatype, input.shape)).collect())
}

/// Asks a server for a model's metadata over gRPC and returns name, datatype and shape of its inputs.
///
/// # Errors
///
/// Fails where there is no answer, or no such model.
pub async fn inputs_over_grpc(
    address: &str,
    model: &str,
) -> Result<Vec<(String, String, Vec<i64>)>, LoadError> {
    let metadata = grpc::metadata(address, model).await?;
    let input = |input: outhaul_protocol::grpc::pb::model_metadata_response::TensorMetadata| {
        (input.name, input.datatype, input.shape)
    };
    Ok(metadata.inputs.into_iter().map(input).collect())
}

#[derive(serde::Deserialize)]
struct Metadata {
    inputs: Vec<MetadataInput>,
}

#[derive(serde::Deserialize)]
struct MetadataInput {
    name: String,
    datatype: String,
    shape: Vec<i64>,
}
