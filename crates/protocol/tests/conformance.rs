//! The codecs against the conformance cases and the reference answers of `testdata`. The server's
//! tests send the same cases over a socket.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]
#![allow(unreachable_pub, reason = "modules of one test share what is public")]

#[path = "conformance/contracts.rs"]
mod contracts;
#[path = "conformance/models.rs"]
mod models;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use outhaul_protocol::oip::{OutputFormat, Target, decode_infer, encode_infer};
use outhaul_protocol::{
    DecodeLimits, ProtocolError, azure, http_status, tensorflow as rest, vertex,
};
use outhaul_types::{
    Classify, InferRequest, InferResponse, ModelName, ModelVersion, NamedTensor, Timings,
    VersionChoice,
};
use serde_json::Value;

const HEADER_LENGTH: &str = "Inference-Header-Content-Length";

fn testdata(folder: &str) -> Vec<(PathBuf, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(folder);
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    files.sort();
    let read = |path: PathBuf| {
        let value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        (path, value)
    };
    files.into_iter().map(read).collect()
}

fn part(part: &Value) -> Vec<u8> {
    if let Some(text) = part.as_str() {
        return text.as_bytes().to_vec();
    }
    if let Some(hex) = part["hex"].as_str() {
        let digit = |digit: u8| char::from(digit).to_digit(16).unwrap() as u8;
        return hex.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect();
    }
    let times = usize::try_from(part["times"].as_u64().unwrap()).unwrap();
    part["repeat"].as_str().unwrap().repeat(times).into_bytes()
}

/// Decodes a case's body, or returns `None` where it is no prediction, or where its header or its model
/// is for the server to read.
type Decode = fn(&Value, Vec<Vec<u8>>) -> Option<Result<InferRequest, ProtocolError>>;

/// The contracts whose bodies are decided here, and how many cases there are at least.
const CODECS: [(&str, Decode, usize); 7] = [
    ("oip_rest", decode_oip, 100),
    ("tensorflow_rest", decode_tensorflow, 55),
    ("vertex", decode_vertex, 15),
    ("azure", decode_azure, 20),
    ("openai", contracts::decode_openai, 40),
    ("rerank", contracts::decode_rerank, 30),
    ("sagemaker", contracts::decode_sagemaker, 55),
];

/// Folders whose cases are only sent over a socket, here and by tests of their own.
const ONLY_SERVER: [&str; 1] = ["tensorflow_grpc"];

fn decode_oip(case: &Value, parts: Vec<Vec<u8>>) -> Option<Result<InferRequest, ProtocolError>> {
    if !case["path"].as_str().unwrap().ends_with("/infer") {
        return None;
    }
    let json_length = match case["headers"][HEADER_LENGTH].as_str() {
        None => None,
        Some("auto") => Some(parts[0].len()),
        Some(length) => Some(length.parse().ok()?),
    };
    let target = Target { model: "m".into(), version: VersionChoice::Latest };
    let decoded =
        decode_infer(parts.concat().into(), json_length, target, &DecodeLimits::default());
    Some(decoded.map(|decoded| decoded.request))
}

fn decode_tensorflow(
    case: &Value,
    parts: Vec<Vec<u8>>,
) -> Option<Result<InferRequest, ProtocolError>> {
    let rest = case["path"].as_str().unwrap().strip_prefix("/v1/models/")?;
    let path = rest::Path::of_prediction(rest).ok()?;
    let model = models::find(&path.target.model)?;
    let limits = DecodeLimits::default();
    let decoded = rest::decode(path.asked, &parts.concat(), &model.schema(), &limits);
    Some(decoded.map(|decoded| decoded.request))
}

fn decode_vertex(case: &Value, parts: Vec<Vec<u8>>) -> Option<Result<InferRequest, ProtocolError>> {
    let model = models::find(models::DEFAULT)?;
    let decode = || vertex::decode(&parts.concat(), &model.schema(), &DecodeLimits::default());
    (case["path"] == "/vertex/predict").then(|| decode().map(|(request, _)| request))
}

fn decode_azure(case: &Value, parts: Vec<Vec<u8>>) -> Option<Result<InferRequest, ProtocolError>> {
    let model = models::find(models::DEFAULT)?;
    let decode = || azure::decode(&parts.concat(), &model.schema(), &DecodeLimits::default());
    (case["path"] == "/score").then(decode)
}

/// Returns whether the codec sees the case's body, or what it gets wrong.
fn check(case: &Value, decode: Decode) -> Result<bool, String> {
    let by_codec = match case["decided_by"].as_str() {
        Some("codec") => true,
        Some("server") => false,
        other => return Err(format!("'decided_by' is {other:?}")),
    };
    let parts = match &case["body"] {
        Value::Null => None,
        Value::Array(parts) => Some(parts.iter().map(part).collect()),
        whole => Some(vec![part(whole)]),
    };
    let Some(decoded) = parts.and_then(|parts| decode(case, parts)) else {
        return if by_codec { Err("the codec never sees this".to_owned()) } else { Ok(false) };
    };
    let status = case["expect"]["status"].as_u64().unwrap();
    let error = match decoded {
        Ok(_) if by_codec && status != 200 => return Err("was decoded".to_owned()),
        Ok(_) => return Ok(true),
        Err(error) if !by_codec => return Err(format!("was refused: {error}")),
        Err(error) => error,
    };
    let message = error.to_string();
    if status != u64::from(http_status(error.kind())) {
        return Err(format!("has another status: {message}"));
    }
    for text in case["expect"]["contains"].as_array().unwrap() {
        // Written as in the body, where quotes are escaped.
        let text = text.as_str().unwrap().replace("\\\"", "\"");
        if !message.contains(&text) {
            return Err(format!("'{message}' without '{text}'"));
        }
    }
    Ok(true)
}

#[test]
fn the_codecs_decide_what_the_cases_say() {
    let mut problems = Vec::new();
    for (contract, decode, least) in CODECS {
        let mut count = 0;
        for (path, cases) in testdata(&format!("conformance/{contract}")) {
            for case in cases.as_array().unwrap() {
                match check(case, decode) {
                    Ok(seen) => count += usize::from(seen),
                    Err(problem) => {
                        let file = path.file_name().unwrap_or_default().display();
                        problems.push(format!("{contract}/{file}: {}: {problem}", case["name"]));
                    }
                }
            }
        }
        if count < least {
            problems.push(format!("{contract}: only {count} cases were seen by the codec"));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn every_case_is_whole_and_has_a_name_of_its_own() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/conformance");
    for entry in fs::read_dir(root).unwrap().map(Result::unwrap) {
        let contract = entry.file_name().into_string().unwrap();
        if !entry.path().is_dir() || ONLY_SERVER.contains(&&*contract) {
            continue;
        }
        for (path, cases) in testdata(&format!("conformance/{contract}")) {
            let mut names = BTreeSet::new();
            for case in cases.as_array().unwrap() {
                let (name, path) = (case["name"].as_str().unwrap(), path.display());
                let known = ["name", "method", "path", "headers", "body", "decided_by", "expect"];
                let unknown =
                    case.as_object().unwrap().keys().find(|key| !known.contains(&&***key));
                assert_eq!(unknown, None, "{path}: {name}");
                assert!(case["path"].as_str().unwrap().starts_with('/'), "{path}: {name}");
                assert!(case["expect"]["status"].is_u64(), "{path}: {name}");
                assert!(names.insert(name), "{path}: {name} comes twice");
            }
        }
    }
}

/// Writes tensors as an answer and reads its outputs back as inputs.
fn there_and_back(outputs: &[NamedTensor], binary_by_default: bool) -> Vec<NamedTensor> {
    let response = InferResponse {
        id: None,
        model: ModelName::new("m").unwrap(),
        version: ModelVersion(1),
        outputs: outputs.iter().cloned().collect(),
        tokens: None,
        cache: outhaul_types::CacheStatus::Off,
        via: None,
        timings: Timings::default(),
    };
    let format = OutputFormat { binary_by_default, ..OutputFormat::default() };
    let encoded = encode_infer(&response, &format).unwrap();
    let json_length = encoded.json_length.unwrap_or(encoded.body.len());
    let (json, binary) = encoded.body.split_at(json_length);
    let (_, list) = std::str::from_utf8(json).unwrap().split_once("\"outputs\":").unwrap();
    let json = format!("{{\"inputs\":{list}");
    let target = Target { model: "m".into(), version: VersionChoice::Latest };
    let body = Bytes::from([json.as_bytes(), binary].concat());
    let decoded = decode_infer(body, Some(json.len()), target, &DecodeLimits::default());
    decoded.unwrap().request.inputs.into_vec()
}

#[test]
fn reference_tensors_survive_both_forms() {
    let mut count = 0;
    for (path, reference) in testdata("reference") {
        for case in reference["cases"].as_array().unwrap() {
            for side in ["inputs", "outputs"] {
                let body = serde_json::json!({ "inputs": case[side] }).to_string();
                let target = Target { model: "m".into(), version: VersionChoice::Latest };
                let decoded = decode_infer(body.into(), None, target, &DecodeLimits::default());
                let tensors = decoded
                    .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
                    .request
                    .inputs
                    .into_vec();
                count += tensors.len();
                for binary in [false, true] {
                    let back = there_and_back(&tensors, binary);
                    assert_eq!(back, tensors, "{} {side} binary={binary}", path.display());
                }
            }
        }
    }
    assert!(count > 50, "only {count} tensors were found");
}
