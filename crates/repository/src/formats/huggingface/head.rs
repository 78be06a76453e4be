//! What stands behind the encoder, told by `architectures` in `config.json`, and what its classes are
//! called.

use outhaul_types::{
    Activation, Aggregation, ClassificationOutput, FillMaskOutput, Labels, OutputTransform,
    RegressionOutput, RerankOutput, TokenClassificationOutput,
};
use serde_json::Value;

use super::keys::{At, Document, Reading};
use super::{FILE, sentence};

/// Returns what becomes of the answer to a text; `None` where tensors go through.
pub(super) fn of_texts(config: &Document, reading: &mut Reading) -> Option<OutputTransform> {
    let class = class(config);
    if reading.has("modules.json") || class.is_empty() || is_plain(class) {
        return sentence::embedding(reading).map(OutputTransform::Embedding);
    }
    if class.ends_with("ForSequenceClassification") {
        return sequence(config, reading);
    }
    if class.ends_with("ForTokenClassification") {
        let labels = labels(config, reading)?;
        let aggregation = Aggregation::default();
        let output = TokenClassificationOutput { output: None, labels, aggregation };
        return Some(OutputTransform::TokenClassification(output));
    }
    if class.ends_with("ForMaskedLM") {
        return Some(OutputTransform::FillMask(FillMaskOutput::default()));
    }
    tensors_only(config, reading);
    None
}

/// Returns what becomes of the answer to a picture.
pub(super) fn of_pictures(config: &Document, reading: &mut Reading) -> Option<OutputTransform> {
    if !class(config).ends_with("ForImageClassification") {
        tensors_only(config, reading);
        return None;
    }
    let activation = match config.text("problem_type") {
        Some("multi_label_classification") => Activation::Sigmoid,
        _ => Activation::Softmax,
    };
    let labels = labels(config, reading)?;
    let output = ClassificationOutput { labels, activation, ..ClassificationOutput::default() };
    Some(OutputTransform::Classification(output))
}

/// Whether a second text may stand beside the first: for models that were trained on pairs.
pub(super) fn takes_pairs(config: &Document, output: &OutputTransform) -> bool {
    let OutputTransform::Classification(output) = output else { return false };
    let entails = |label: &String| label.to_ascii_lowercase().contains("entail");
    let of_labels = matches!(&output.labels, Labels::List(labels) if labels.iter().any(entails));
    of_labels || cross_encoder_function(config).is_some()
}

/// Returns the class that the model was saved by.
fn class(config: &Document) -> &str {
    let classes = config.get("architectures").and_then(Value::as_array);
    classes.and_then(|classes| classes.first()).and_then(Value::as_str).unwrap_or_default()
}

/// Whether a class is an encoder alone, such as `BertModel`.
fn is_plain(class: &str) -> bool {
    class.ends_with("Model") && !class.contains("For")
}

fn tensors_only(config: &Document, reading: &mut Reading) {
    let rule = "what this class answers has no form here but its tensors, and takes tensors";
    let remedy = "declare transform.input and transform.output in a model.toml if one fits";
    reading.warning(At(FILE, "architectures", config.get("architectures")), rule, remedy);
}

fn sequence(config: &Document, reading: &mut Reading) -> Option<OutputTransform> {
    let count = label_count(config);
    let problem = config.text("problem_type");
    if problem == Some("regression") && count == 1 {
        return Some(OutputTransform::Regression(RegressionOutput::default()));
    }
    if problem == Some("regression") {
        let rule = format!("several numbers ({count}) are not told apart");
        let remedy = "declare transform.output as tensors in a model.toml";
        reading.error(At(FILE, "problem_type", config.get("problem_type")), rule, remedy);
        return None;
    }
    // One number that is no regression says how well the second text answers the first.
    if count == 1 {
        let activation = rerank_activation(config, reading)?;
        return Some(OutputTransform::Rerank(RerankOutput { output: None, activation }));
    }
    let activation = match problem {
        Some("multi_label_classification") => Activation::Sigmoid,
        None | Some("single_label_classification") => Activation::Softmax,
        Some(_) => {
            let rule =
                "must be single_label_classification, multi_label_classification or regression";
            let remedy = "correct it, or remove the key";
            reading.error(At(FILE, "problem_type", config.get("problem_type")), rule, remedy);
            return None;
        }
    };
    let labels = labels(config, reading)?;
    let output = ClassificationOutput { labels, activation, ..ClassificationOutput::default() };
    Some(OutputTransform::Classification(output))
}

/// Returns the function that sentence-transformers' cross encoders note, by its name in PyTorch.
fn cross_encoder_function(config: &Document) -> Option<&Value> {
    let newer = config.get("sentence_transformers").and_then(|part| part.get("activation_fn"));
    newer.or_else(|| config.get("sbert_ce_default_activation_function"))
}

fn rerank_activation(config: &Document, reading: &mut Reading) -> Option<Activation> {
    let Some(function) = cross_encoder_function(config) else { return Some(Activation::Sigmoid) };
    let name = function.as_str().unwrap_or_default();
    match name.rsplit('.').next().unwrap_or_default() {
        "Identity" => Some(Activation::None),
        "Sigmoid" => Some(Activation::Sigmoid),
        _ => {
            let rule = "Identity and Sigmoid are carried out";
            let remedy = "declare transform.output as tensors in a model.toml";
            reading.error(At(FILE, "activation_fn", Some(function)), rule, remedy);
            None
        }
    }
}

/// Returns how many classes there are: transformers assumes two where nothing says it.
fn label_count(config: &Document) -> u64 {
    match config.get("id2label").and_then(Value::as_object) {
        Some(labels) if !labels.is_empty() => labels.len() as u64,
        _ => config.whole("num_labels").unwrap_or(2),
    }
}

/// Reads `id2label`: each class's number as text, and its name.
fn labels(config: &Document, reading: &mut Reading) -> Option<Labels> {
    let Some(value) = config.get("id2label") else { return Some(Labels::Numbers) };
    let entries = value.as_object().cloned().unwrap_or_default();
    let names: Option<Vec<String>> = (0..entries.len())
        .map(|number| entries.get(&number.to_string())?.as_str().map(str::to_owned))
        .collect();
    match names {
        Some(names) if !names.is_empty() => Some(Labels::List(names)),
        Some(_) if value.is_object() => Some(Labels::Numbers),
        _ => {
            let rule = "must name each class by its number, from \"0\" on";
            reading.error(At(FILE, "id2label", Some(value)), rule, "correct it, or remove the key");
            None
        }
    }
}
