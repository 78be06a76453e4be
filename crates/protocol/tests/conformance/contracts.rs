//! The codecs of OpenAI, of reranking and of SageMaker, as the server calls them.

use outhaul_protocol::sagemaker::{Accepted, ContentType, decode_invocation};
use outhaul_protocol::{DecodeLimits, ProtocolError, openai, rerank};
use outhaul_types::{InferRequest, Name};
use serde_json::Value;

use crate::models::{self, Model};

type Decoded = Option<Result<InferRequest, ProtocolError>>;

/// Finds the model that a body names.
fn named(body: &[u8]) -> Result<Option<Model>, ProtocolError> {
    let outline = openai::outline(body)?;
    Ok(models::find(outline.model.as_deref().unwrap_or(models::DEFAULT)))
}

pub fn decode_openai(case: &Value, parts: Vec<Vec<u8>>) -> Decoded {
    if case["path"] != "/v1/embeddings" {
        return None;
    }
    let body = parts.concat();
    match named(&body) {
        Err(error) => Some(Err(error)),
        Ok(model) => {
            let decoded = openai::decode_embeddings(&body, &model?.schema());
            Some(decoded.map(|decoded| decoded.requests[0].clone()))
        }
    }
}

pub fn decode_rerank(case: &Value, parts: Vec<Vec<u8>>) -> Decoded {
    if !case["path"].as_str().unwrap().ends_with("/rerank") {
        return None;
    }
    let body = parts.concat();
    match named(&body) {
        Err(error) => Some(Err(error)),
        Ok(model) => {
            let decoded = rerank::decode_rerank(&body, &model?.schema(), "id".into());
            Some(decoded.map(|decoded| decoded.request))
        }
    }
}

pub fn decode_sagemaker(case: &Value, parts: Vec<Vec<u8>>) -> Decoded {
    let header = |name: &str| case["headers"][name].as_str();
    let path = case["path"].as_str().unwrap();
    let in_path = path.strip_prefix("/models/").and_then(|path| path.strip_suffix("/invoke"));
    if in_path.is_none() && !path.ends_with("/invocations") {
        return None;
    }
    let target = header("X-Amzn-SageMaker-Target-Model").unwrap_or(models::DEFAULT);
    let model = models::find(in_path.unwrap_or(target.trim_end_matches(".tar.gz")))?;
    // Media that nothing reads or writes are told by the server, before there is a model.
    let forms =
        (ContentType::read(header("Content-Type")).ok()?, Accepted::read(header("Accept")).ok()?);
    let attributes = header("X-Amzn-SageMaker-Custom-Attributes").unwrap_or_default();
    let outputs = attributes.strip_prefix("output=").map(Name::from);
    let (body, limits) = (parts.concat().into(), DecodeLimits::default());
    let decoded = decode_invocation(&body, forms, outputs.as_slice(), &model.schema(), &limits);
    Some(decoded.map(|decoded| decoded.request))
}
