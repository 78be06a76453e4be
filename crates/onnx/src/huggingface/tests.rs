//! Tests of the way from a folder to a graph. That the graph gives the right numbers is held against
//! answers on every engine, in `outhaul`'s tests.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::*;
use crate::{OnnxModel, RowIndependence, read};

fn given(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/huggingface").join(name)
}

fn weights_of(folder: &Path) -> PathBuf {
    let index = folder.join("model.safetensors.index.json");
    if index.is_file() { index } else { folder.join("model.safetensors") }
}

/// A copy of one of the given folders, to be spoiled.
fn copy_of(name: &str) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(given(name)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}

fn converted(folder: &Path) -> Result<(Converted, OnnxModel), HuggingFaceError> {
    let target = tempfile::tempdir().unwrap();
    let file = target.path().join("model.onnx");
    let converted = convert(&weights_of(folder), &file)?;
    Ok((converted, read(&file).unwrap()))
}

fn failure(folder: &Path) -> String {
    let error = converted(folder).unwrap_err().to_string();
    error.replace(&format!("{}/", folder.display()), "")
}

#[test]
fn every_form_becomes_a_graph_whose_rows_are_independent() {
    struct Case {
        folder: &'static str,
        family: &'static str,
        inputs: &'static [&'static str],
        output: &'static str,
        widened: &'static [&'static str],
    }
    const TYPES: &str = "token_type_ids INT64 [batch,sequence]";
    let two = &["input_ids INT64 [batch,sequence]", "attention_mask INT64 [batch,sequence]"][..];
    let three: &'static [&str] =
        &["input_ids INT64 [batch,sequence]", "attention_mask INT64 [batch,sequence]", TYPES];
    let case =
        |folder, family, inputs, output, widened| Case { folder, family, inputs, output, widened };
    let hidden = "last_hidden_state FP32 [batch,sequence,16]";
    let (one_of, each) = ("logits FP32 [batch,3]", "logits FP32 [batch,sequence,3]");
    let words = "logits FP32 [batch,sequence,40]";
    let cases = [
        case("bert", "BERT", three, hidden, &[]),
        case("bert-sharded", "BERT", three, hidden, &[]),
        case("bert-sequence", "BERT", three, one_of, &[]),
        case("bert-token", "BERT", three, each, &["F16"]),
        case("bert-masked", "BERT", three, words, &[]),
        case("roberta", "RoBERTa", two, hidden, &["BF16"]),
        case("xlm-roberta-sequence", "RoBERTa", two, one_of, &["F16"]),
        case("roberta-masked", "RoBERTa", two, words, &["F16"]),
        case("distilbert", "DistilBERT", two, hidden, &["F16"]),
        case("distilbert-sequence", "DistilBERT", two, one_of, &["F16"]),
        case("distilbert-token", "DistilBERT", two, each, &["BF16"]),
        case("distilbert-masked", "DistilBERT", two, words, &["F16"]),
    ];
    for Case { folder, family, inputs, output, widened } in cases {
        let (converted, model) = converted(&given(folder)).unwrap();
        assert_eq!((converted.family, &*converted.widened), (family, widened), "{folder}");
        let text = |spec: &outhaul_types::TensorSpec| {
            format!("{} {} {}", spec.name, spec.data_type, spec.shape)
        };
        let signature = &model.signature;
        assert_eq!(signature.inputs.iter().map(text).collect::<Vec<_>>(), inputs, "{folder}");
        assert_eq!(signature.outputs.iter().map(text).collect::<Vec<_>>(), [output], "{folder}");
        assert_eq!(model.row_independence(), RowIndependence::Exact, "{folder}");
        assert!(model.cost_follows_size(), "{folder}");
        assert_eq!(model.divides_safely(), Ok(()), "{folder}");
    }
}

#[test]
fn weights_that_do_not_fit_go_into_a_file_of_their_own() {
    let target = tempfile::tempdir().unwrap();
    let file = target.path().join("model.onnx");
    let weights = weights_of(&given("bert"));
    let inline = convert(&weights, &file).unwrap();
    assert_eq!(inline.files, [file.as_path()]);
    let whole = read(&file).unwrap();
    let external = convert_within(&weights, &file, Some(1000)).unwrap();
    assert_eq!(external.files, [file.clone(), target.path().join("model.onnx.data")]);
    let parted = read(&file).unwrap();
    assert_eq!(parted.external_files(), [PathBuf::from("model.onnx.data")].into());
    assert_eq!(parted.weight_bytes(), whole.weight_bytes());
    assert!(parted.file_bytes + 10_000 < whole.file_bytes);
}

#[test]
fn what_a_configuration_asks_for_and_nobody_builds_is_named() {
    struct Case(&'static str, &'static str, serde_json::Value, &'static str);
    let export = "export this model to ONNX";
    let cases = [
        Case("bert", "position_embedding_type", "relative_key".into(), "only absolute positions"),
        Case("bert", "is_decoder", true.into(), "decoders are not built"),
        Case("bert", "add_cross_attention", true.into(), "cross attention"),
        Case("bert", "pruned_heads", serde_json::json!({"0": [1]}), "pruned heads"),
        Case("bert", "quantization_config", serde_json::json!({"bits": 8}), "quantised weights"),
        Case("bert", "hidden_act", "silu".into(), "gelu, gelu_new"),
        Case("distilbert", "activation", "mish".into(), "gelu, gelu_new"),
        Case("bert", "model_type", "deberta".into(), "weights of bert, distilbert"),
        Case("bert", "architectures", serde_json::json!(["BertForQuestionAnswering"]), export),
        Case("roberta", "architectures", serde_json::json!(["BertModel"]), export),
        Case("bert", "num_attention_heads", 3.into(), "must divide hidden_size = 16"),
        Case("bert", "hidden_size", 0.into(), "must be a whole number from 1 to"),
        Case("bert", "layer_norm_eps", "x".into(), "must be between 0 and 1"),
        Case("bert", "pad_token_id", (-1).into(), "must be the number of a token"),
    ];
    for Case(folder, field, value, rule) in cases {
        let copy = copy_of(folder);
        let path = copy.path().join("config.json");
        let mut config: serde_json::Value =
            serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        config[field] = value.clone();
        fs::write(&path, config.to_string()).unwrap();
        let text = failure(copy.path());
        assert!(text.starts_with(&format!("'config.json': {field} = {value}: ")), "{text}");
        assert!(text.contains(rule), "{text}");
    }
    let copy = copy_of("bert");
    for (text, expected) in [
        ("{}", "'config.json' does not say model_type"),
        (r#"{"model_type": "bert"}"#, "'config.json' does not say hidden_size"),
        ("[]", "'config.json' is no JSON object of a model's configuration: it is no object"),
    ] {
        fs::write(copy.path().join("config.json"), text).unwrap();
        assert_eq!(failure(copy.path()), expected);
    }
}

/// Gives a tensor another name or another shape in the header of a file, without moving anything.
fn respell(file: &Path, from: &str, to: &str) {
    let bytes = fs::read(file).unwrap();
    let size = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = std::str::from_utf8(&bytes[8..8 + size]).unwrap();
    assert!(header.contains(from), "{header}");
    let header = header.replacen(from, to, 1);
    let spoilt =
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &bytes[8 + size..]].concat();
    fs::write(file, spoilt).unwrap();
}

#[test]
fn tensors_that_are_missing_left_over_or_of_another_shape_are_named() {
    let query = "encoder.layer.0.attention.self.query.weight";
    let element = r#"encoder.layer.1.output.dense.bias":{"dtype":"F32","shape":[16]"#;
    struct Case<'c>(&'c str, &'c str, &'c str);
    let cases = [
        Case(
            query,
            "other",
            "'model.safetensors' has no tensor 'encoder.layer.0.attention.self.query.weight', which the configuration calls for",
        ),
        Case(
            "pooler.dense.weight",
            "other.weight",
            "'model.safetensors' holds 1 tensors that no part of the model takes: other.weight",
        ),
        Case(
            "\"shape\":[40,16]",
            "\"shape\":[20,32]",
            "'model.safetensors': tensor 'embeddings.word_embeddings.weight' has shape [20, 32], and the configuration calls for [40, 16]",
        ),
        Case(
            element,
            r#"encoder.layer.1.output.dense.bias":{"dtype":"I32","shape":[16]"#,
            "'model.safetensors': tensor 'encoder.layer.1.output.dense.bias' holds I32; weights of F32, F16 and BF16 can be used",
        ),
    ];
    for Case(from, to, expected) in cases {
        let copy = copy_of("bert");
        respell(&copy.path().join("model.safetensors"), from, to);
        assert_eq!(failure(copy.path()), expected);
    }
}

#[test]
fn damaged_files_are_refused() {
    let copy = copy_of("bert");
    let file = copy.path().join("model.safetensors");
    let whole = fs::read(&file).unwrap();
    let refuse = |bytes: &[u8], expected: &str| {
        fs::write(&file, bytes).unwrap();
        let text = failure(copy.path());
        assert!(text.starts_with("'model.safetensors' is damaged: "), "{text}");
        assert!(text.contains(expected), "{text}");
    };
    refuse(&[], "it has 0 bytes");
    refuse(&whole[..8], "its header would have");
    refuse(&whole[..whole.len() - 1], "bytes, and");
    refuse(&[&whole[..], &[0]].concat(), "bytes, and");
    refuse(&[&u64::MAX.to_le_bytes(), &whole[8..]].concat(), "its header would have");
    refuse(&[&2_u64.to_le_bytes()[..], b"[]"].concat(), "its header is none");
    let lies = r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]}}"#;
    let header = (lies.len() as u64).to_le_bytes();
    refuse(&[&header[..], lies.as_bytes(), &[0; 8]].concat(), "its header is none");
    fs::remove_file(&file).unwrap();
    assert_eq!(failure(copy.path()), "'model.safetensors' cannot be read");
}

#[test]
fn a_list_of_shards_leads_nowhere_else() {
    let copy = copy_of("bert-sharded");
    let index = copy.path().join("model.safetensors.index.json");
    for name in ["../a.safetensors", "/a.safetensors", "a/b.safetensors", ""] {
        fs::write(&index, serde_json::json!({"weight_map": {"a": name}}).to_string()).unwrap();
        let text = failure(copy.path());
        assert!(text.contains("no file here"), "{text}");
    }
    fs::write(&index, "{}").unwrap();
    assert!(failure(copy.path()).contains("has no weight_map"));
}
