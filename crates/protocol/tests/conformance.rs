//! The codec against the conformance cases and the reference answers of `testdata`. The server's
//! tests send the same cases over a socket.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use outhaul_protocol::oip::{DecodedInfer, OutputFormat, Target, decode_infer, encode_infer};
use outhaul_protocol::{DecodeLimits, ProtocolError, http_status};
use outhaul_types::{
    Classify, InferResponse, ModelName, ModelVersion, NamedTensor, Timings, VersionChoice,
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

/// Decodes a case's body, or returns `None` where it is no inference request or its header is for
/// the server to read.
fn decode(case: &Value) -> Option<Result<DecodedInfer, ProtocolError>> {
    let path = case["path"].as_str().unwrap();
    if !path.ends_with("/infer") || case["body"].is_null() {
        return None;
    }
    let parts = match &case["body"] {
        Value::Array(parts) => parts.iter().map(part).collect(),
        whole => vec![part(whole)],
    };
    let json_length = match case["headers"][HEADER_LENGTH].as_str() {
        None => None,
        Some("auto") => Some(parts[0].len()),
        Some(length) => Some(length.parse().ok()?),
    };
    let target = Target { model: "m".into(), version: VersionChoice::Latest };
    let body = Bytes::from(parts.concat());
    Some(decode_infer(body, json_length, target, &DecodeLimits::default()))
}

/// Returns whether the codec sees the case's body, or what it gets wrong.
fn check(case: &Value) -> Result<bool, String> {
    let by_codec = match case["decided_by"].as_str() {
        Some("codec") => true,
        Some("server") => false,
        other => return Err(format!("'decided_by' is {other:?}")),
    };
    let Some(decoded) = decode(case) else {
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
fn the_codec_decides_what_the_cases_say() {
    let mut count = 0;
    let mut problems = Vec::new();
    for (path, cases) in testdata("conformance/oip_rest") {
        for case in cases.as_array().unwrap() {
            match check(case) {
                Ok(seen) => count += usize::from(seen),
                Err(problem) => {
                    let file = path.file_name().unwrap_or_default().display();
                    problems.push(format!("{file}: {}: {problem}", case["name"]));
                }
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(count > 100, "only {count} cases were found");
}

/// Writes tensors as an answer and reads its outputs back as inputs.
fn there_and_back(outputs: &[NamedTensor], binary_by_default: bool) -> Vec<NamedTensor> {
    let response = InferResponse {
        id: None,
        model: ModelName::new("m").unwrap(),
        version: ModelVersion(1),
        outputs: outputs.iter().cloned().collect(),
        tokens: None,
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
