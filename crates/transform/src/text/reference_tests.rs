//! Answers of the original libraries, recorded by `testdata/make_text_answers.py`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use outhaul_types::{
    Aggregation, BoundInputs, DataType, Dimension, FillMaskOutput, InputTransform, Labels,
    ModelSignature, Name, NamedTensor, OutputTransform, ShapePattern, Strings, Tensor, TensorSpec,
    TextInput, TokenClassificationOutput, TransformSpec, Truncation,
};
use serde_json::Value;

use super::encode::{EncodeError, Encoder};
use super::plain::BertRules;
use super::read;
use crate::{Grouping, Transform, TransformError};

pub(super) const FAMILIES: [&str; 3] = ["wordpiece", "bpe", "unigram"];

pub(super) fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata/transform/text")
}

pub(super) fn tokenizer_of(family: &str) -> PathBuf {
    folder().join(format!("{family}_tokenizer.json"))
}

fn answers(family: &str) -> Value {
    let path = folder().join(format!("{family}_answers.json"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn numbers(list: &Value) -> Vec<u32> {
    list.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn rows(list: &Value) -> &[Value] {
    list.as_array().unwrap()
}

/// The formula of the script for logits that would be long to write down.
fn logit(position: usize, index: usize) -> f32 {
    ((position * 131 + index * 7919) % 1009) as f32 / 100.0
}

pub(super) fn encoder(family: &str) -> Encoder {
    let tokenizer = read::read(&tokenizer_of(family)).unwrap().tokenizer;
    Encoder {
        max_tokens: usize::MAX,
        truncation: Truncation::End,
        keeps_places: false,
        bert: BertRules::of(&tokenizer),
        tokenizer: tokenizer.into(),
    }
}

#[test]
fn ids_are_those_of_the_library() {
    for family in FAMILIES {
        let answers = answers(family);
        let mut encoder = encoder(family);
        let mut compared = 0;
        for case in rows(&answers["encodings"]) {
            let texts = &answers["texts"][case["name"].as_str().unwrap()];
            let (text, pair) = (texts[0].as_str().unwrap(), texts[1].as_str());
            encoder.max_tokens =
                case["max_tokens"].as_u64().map_or(usize::MAX, |most| most as usize);
            encoder.truncation = match case["direction"].as_str() {
                Some("right") => Truncation::End,
                _ => Truncation::Beginning,
            };
            for keeps_places in [false, true] {
                encoder.keeps_places = keeps_places;
                let encoding = encoder.encode(text, pair).unwrap();
                let place = format!("{family}: {case}");
                assert_eq!(encoding.get_ids(), numbers(&case["ids"]), "{place}");
                assert_eq!(encoding.get_type_ids(), numbers(&case["type_ids"]), "{place}");
                assert!(encoding.get_overflowing().is_empty(), "{place}");
                compared += 1;
            }
        }
        assert!(compared > 200, "{compared}");
    }
}

#[test]
fn longer_texts_are_refused_exactly_where_they_would_be_cut() {
    for family in FAMILIES {
        let answers = answers(family);
        let mut encoder = encoder(family);
        encoder.truncation = Truncation::Refuse;
        let whole = |case: &&Value| case["max_tokens"].is_null();
        for case in rows(&answers["encodings"]).iter().filter(whole) {
            let texts = &answers["texts"][case["name"].as_str().unwrap()];
            let (text, pair) = (texts[0].as_str().unwrap(), texts[1].as_str());
            let tokens = rows(&case["ids"]).len();
            encoder.max_tokens = tokens;
            assert_eq!(encoder.encode(text, pair).unwrap().len(), tokens);
            encoder.max_tokens = tokens - 1;
            let error = encoder.encode(text, pair).unwrap_err();
            assert_eq!(error, EncodeError::TooMany { tokens, allowed: tokens - 1 });
        }
    }
}

/// A model of token ids with logits `[batch, tokens, width]`.
fn signature(width: usize) -> ModelSignature {
    let spec = |name: &str, data_type, dimensions: &[Dimension]| TensorSpec {
        name: name.into(),
        data_type,
        shape: ShapePattern::ranked(dimensions.iter().cloned()),
        optional: false,
    };
    let open = [Dimension::Any, Dimension::Any];
    let wide = [Dimension::Any, Dimension::Any, Dimension::Fixed(width)];
    ModelSignature {
        inputs: vec![
            spec("input_ids", DataType::Int64, &open),
            spec("attention_mask", DataType::Int64, &open),
        ],
        outputs: vec![spec("logits", DataType::Fp32, &wide)],
    }
}

fn transform(family: &str, output: OutputTransform, width: usize) -> Transform {
    let input = TextInput {
        tokenizer: tokenizer_of(family),
        max_tokens: None,
        truncation: Truncation::End,
        pairs: false,
        prefix: String::new(),
    };
    let spec = TransformSpec { input: Some(InputTransform::Text(input)), output: Some(output) };
    Transform::build(&spec, &signature(width)).unwrap().unwrap()
}

fn bind(transform: &Transform, texts: &[&str]) -> BoundInputs {
    let tensor = Tensor::from_strings([texts.len()], texts.iter().collect::<Strings>()).unwrap();
    transform.outer().bind([NamedTensor { name: "text".into(), tensor }]).unwrap()
}

fn json_of(tensor: &Tensor, row: usize) -> Value {
    serde_json::from_slice(tensor.as_strings().unwrap().get(row).unwrap()).unwrap()
}

/// Equal but for scores, which may differ in the seventh digit: the reference adds up in another order.
fn assert_alike(own: &Value, expected: &Value, place: &str) {
    match (own, expected) {
        (Value::Number(own), Value::Number(expected)) if expected.is_f64() => {
            let (own, expected) = (own.as_f64().unwrap(), expected.as_f64().unwrap());
            assert!((own - expected).abs() <= 1e-6, "{place}: {own} and {expected}");
        }
        (Value::Array(own), Value::Array(expected)) => {
            assert_eq!(own.len(), expected.len(), "{place}: {own:?} and {expected:?}");
            own.iter().zip(expected).for_each(|(own, expected)| assert_alike(own, expected, place));
        }
        (Value::Object(own), Value::Object(expected)) => {
            assert!(own.keys().eq(expected.keys()), "{place}: {own:?} and {expected:?}");
            for (key, expected) in expected {
                assert_alike(&own[key], expected, &format!("{place}: {key}"));
            }
        }
        _ => assert_eq!(own, expected, "{place}"),
    }
}

#[test]
fn entities_are_those_of_the_pipeline() {
    for family in FAMILIES {
        let answers = answers(family);
        let labels: Vec<String> = rows(&answers["labels"])
            .iter()
            .map(|label| label.as_str().unwrap().to_owned())
            .collect();
        let cases = rows(&answers["entities"]);
        let texts: Vec<&str> = cases.iter().map(|case| case["text"].as_str().unwrap()).collect();
        for (aggregation, key) in [(Aggregation::None, "none"), (Aggregation::Simple, "simple")] {
            let output = TokenClassificationOutput {
                output: None,
                labels: Labels::List(labels.clone()),
                aggregation,
            };
            let output = OutputTransform::TokenClassification(output);
            let transform = transform(family, output, labels.len());
            let bound = bind(&transform, &texts);
            // Together, so that padding must be told from text.
            for grouping in [Grouping::Alone, Grouping::Together] {
                let prepared = transform.prepare(&bound, grouping).unwrap();
                for part in &prepared.parts {
                    let tokens = part.inputs[0].as_ref().unwrap().shape()[1];
                    let mut logits = Vec::new();
                    for &row in &part.rows {
                        let given = rows(&cases[row]["logits"]);
                        // Padding gets numbers that would make an entity.
                        let none = vec![9.0; labels.len()];
                        for token in 0..tokens {
                            logits.extend(given.get(token).map_or(none.clone(), |numbers| {
                                let number = |number: &Value| number.as_f64().unwrap() as f32;
                                rows(numbers).iter().map(number).collect()
                            }));
                        }
                    }
                    let shape = [part.rows.len(), tokens, labels.len()];
                    let logits = Tensor::from_vec(shape, logits).unwrap();
                    let answer = transform.finish(part, &[logits]).unwrap();
                    for (index, &row) in part.rows.iter().enumerate() {
                        let place = format!("{family} {key} {:?}", texts[row]);
                        assert_alike(&json_of(&answer[0], index), &cases[row][key], &place);
                    }
                }
            }
        }
    }
}

#[test]
fn predictions_are_those_of_the_pipeline() {
    for family in FAMILIES {
        let answers = answers(family);
        for case in rows(&answers["predictions"]) {
            let vocabulary = case["vocabulary"].as_u64().unwrap() as usize;
            let top_k = NonZeroUsize::new(case["top_k"].as_u64().unwrap() as usize).unwrap();
            let output = OutputTransform::FillMask(FillMaskOutput { output: None, top_k });
            let transform = transform(family, output, vocabulary);
            let text = case["text"].as_str().unwrap();
            let prepared =
                transform.prepare(&bind(&transform, &[text]), Grouping::Together).unwrap();
            let tokens = prepared.tokens.unwrap();
            let logits = (0..tokens)
                .flat_map(|position| (0..vocabulary).map(move |id| logit(position, id)))
                .collect();
            let logits = Tensor::from_vec([1, tokens, vocabulary], logits).unwrap();
            let answer = transform.finish(&prepared.parts[0], &[logits]).unwrap();
            let place = format!("{family} {text:?}");
            assert_alike(&json_of(&answer[0], 0), &case["masks"], &place);
        }
    }
}

#[test]
fn a_text_without_a_mask_is_refused_before_the_model_runs() {
    for family in FAMILIES {
        let output = OutputTransform::FillMask(FillMaskOutput::default());
        let transform = transform(family, output, 10);
        let mask = if family == "wordpiece" { "[MASK]" } else { "<mask>" };
        let bound = bind(&transform, &[&format!("Paris is {mask}."), "Paris is old."]);
        let error = transform.prepare(&bound, Grouping::Alone).unwrap_err();
        assert_eq!(error.to_string(), format!("row 1: 'text' has no mask token {mask}"));
        // A caller's own ids are looked at afterwards.
        let ids = Tensor::from_vec([1, 2], vec![7_i64, 8]).unwrap();
        let inner = transform.adopt([Some(ids), None].into_iter().collect()).unwrap();
        let part = crate::Part { inputs: inner, rows: vec![5], encodings: Vec::new() };
        let logits = Tensor::from_vec([1, 2, 10], vec![0.0_f32; 20]).unwrap();
        let error = transform.finish(&part, &[logits]).unwrap_err();
        let TransformError::Row { row, field, .. } = &error else { panic!("{error}") };
        assert_eq!((*row, field), (5, &Name::from("input_ids")));
    }
}
