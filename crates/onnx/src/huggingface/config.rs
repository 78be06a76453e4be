//! `config.json`: what the weights beside it are for.
//!
//! Invariant: whatever in it would change the numbers that come out is either in [`Config`] or an
//! error that names the field. What only matters to training, generation or where the model comes from is
//! passed over.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::HuggingFaceError;
use super::family::{BERT, DISTILBERT, Family, ROBERTA};

/// Beside the weights.
pub(super) const FILE: &str = "config.json";

/// The largest that there are hold some thousand labels.
const LARGEST_FILE: u64 = 4 * 1024 * 1024;

/// No encoder has more of anything; what is larger is a slip or an attack.
const MOST: u64 = 1 << 24;

/// What a graph is built from.
#[derive(Clone, Debug)]
pub(super) struct Config {
    pub(super) family: &'static Family,
    pub(super) head: Head,
    pub(super) hidden: usize,
    pub(super) intermediate: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) vocabulary: usize,
    pub(super) positions: usize,
    /// 0 where the family knows no types of tokens.
    pub(super) types: usize,
    pub(super) padding: i64,
    pub(super) epsilon: f32,
    pub(super) activation: Activation,
    /// Whether the decoder of a masked language model may be the table of words.
    pub(super) is_tied: bool,
}

/// What stands behind the encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// Nothing: the last layer's vectors, `[batch, sequence, hidden]`.
    None,
    /// `[batch, labels]`
    Sequence { labels: usize },
    /// `[batch, sequence, labels]`
    Token { labels: usize },
    /// `[batch, sequence, vocabulary]`
    MaskedLanguage,
}

/// The function between the two halves of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activation {
    /// By the error function.
    Gelu,
    /// By the hyperbolic tangent.
    GeluTanh,
    Relu,
}

/// The keys of the file.
struct Keys {
    path: PathBuf,
    entries: Map<String, Value>,
}

/// Reads the file.
pub(super) fn read(path: &Path) -> Result<Config, HuggingFaceError> {
    let keys = Keys { path: path.to_owned(), entries: entries(path)? };
    keys.refuse_what_is_not_built()?;
    let family = keys.family()?;
    let hidden = keys.count(family.keys.hidden)?;
    let heads = keys.count(family.keys.heads)?;
    if hidden % heads != 0 {
        let rule = format!("must divide {} = {hidden}", family.keys.hidden);
        return Err(keys.fault(family.keys.heads, rule));
    }
    let types = match family.has_types {
        true => keys.count_or("type_vocab_size", family.usual_types)?,
        false => 0,
    };
    Ok(Config {
        family,
        head: keys.head(family)?,
        hidden,
        intermediate: keys.count(family.keys.intermediate)?,
        layers: keys.count(family.keys.layers)?,
        heads,
        vocabulary: keys.count("vocab_size")?,
        positions: keys.count("max_position_embeddings")?,
        types,
        padding: keys.padding(family)?,
        epsilon: keys.epsilon(family)?,
        activation: keys.activation(family)?,
        is_tied: keys.is_true("tie_word_embeddings", true)?,
    })
}

fn entries(path: &Path) -> Result<Map<String, Value>, HuggingFaceError> {
    let read = |source| HuggingFaceError::Read { path: path.to_owned(), source };
    let refuse = |reason: String| HuggingFaceError::NotAConfig { path: path.to_owned(), reason };
    let mut text = Vec::new();
    let file = File::open(path).map_err(read)?;
    file.take(LARGEST_FILE + 1).read_to_end(&mut text).map_err(read)?;
    if text.len() as u64 > LARGEST_FILE {
        return Err(refuse("it is larger than 4 MiB".to_owned()));
    }
    match serde_json::from_slice(&text) {
        Ok(Value::Object(entries)) => Ok(entries),
        Ok(_) => Err(refuse("it is no object".to_owned())),
        Err(error) => Err(refuse(error.to_string())),
    }
}

impl Keys {
    /// Returns a key's value; `None` where it is missing or `null`.
    fn get(&self, key: &str) -> Option<&Value> {
        self.entries.get(key).filter(|value| !value.is_null())
    }

    fn fault(&self, field: &'static str, rule: impl Into<String>) -> HuggingFaceError {
        let value = self.get(field).map_or_else(|| "null".to_owned(), Value::to_string);
        let value = match value.char_indices().nth(80) {
            Some((end, _)) => format!("{}...", &value[..end]),
            None => value,
        };
        HuggingFaceError::Field { path: self.path.clone(), field, value, rule: rule.into() }
    }

    fn text(&self, key: &'static str) -> Result<Option<&str>, HuggingFaceError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.fault(key, "must be a text")),
        }
    }

    fn is_true(&self, key: &'static str, usual: bool) -> Result<bool, HuggingFaceError> {
        match self.get(key) {
            None => Ok(usual),
            Some(Value::Bool(value)) => Ok(*value),
            Some(_) => Err(self.fault(key, "must be true or false")),
        }
    }

    fn count(&self, key: &'static str) -> Result<usize, HuggingFaceError> {
        let Some(value) = self.get(key) else {
            return Err(HuggingFaceError::MissingField { path: self.path.clone(), field: key });
        };
        let count = value.as_u64().filter(|count| (1..=MOST).contains(count));
        let count = count.and_then(|count| usize::try_from(count).ok());
        count.ok_or_else(|| self.fault(key, format!("must be a whole number from 1 to {MOST}")))
    }

    fn count_or(&self, key: &'static str, usual: usize) -> Result<usize, HuggingFaceError> {
        if self.get(key).is_some() { self.count(key) } else { Ok(usual) }
    }

    /// What a configuration may ask for and no graph of ours does.
    fn refuse_what_is_not_built(&self) -> Result<(), HuggingFaceError> {
        if self.text("position_embedding_type")?.is_some_and(|kind| kind != "absolute") {
            let rule = "only absolute positions are built; export this model to ONNX";
            return Err(self.fault("position_embedding_type", rule));
        }
        for (field, what) in [
            ("is_decoder", "decoders are not built; export this model to ONNX"),
            ("add_cross_attention", "cross attention is not built; export this model to ONNX"),
            ("is_encoder_decoder", "decoders are not built; export this model to ONNX"),
        ] {
            if self.is_true(field, false)? {
                return Err(self.fault(field, what));
            }
        }
        let is_empty = |value: &Value| match value {
            Value::Object(entries) => entries.is_empty(),
            Value::Array(items) => items.is_empty(),
            _ => false,
        };
        for (field, what) in [
            ("pruned_heads", "pruned heads are not built; export this model to ONNX"),
            ("quantization_config", "quantised weights are not read; export this model to ONNX"),
        ] {
            if self.get(field).is_some_and(|value| !is_empty(value)) {
                return Err(self.fault(field, what));
            }
        }
        Ok(())
    }

    fn family(&self) -> Result<&'static Family, HuggingFaceError> {
        match self.text("model_type")? {
            Some("bert") => Ok(&BERT),
            Some("roberta" | "xlm-roberta" | "camembert") => Ok(&ROBERTA),
            Some("distilbert") => Ok(&DISTILBERT),
            Some(_) => Err(self.fault(
                "model_type",
                "weights of bert, distilbert, roberta, xlm-roberta and camembert can be used; export \
                 this model to ONNX",
            )),
            None => {
                Err(HuggingFaceError::MissingField { path: self.path.clone(), field: "model_type" })
            }
        }
    }

    /// Reads the class that the weights were saved by.
    fn head(&self, family: &Family) -> Result<Head, HuggingFaceError> {
        let class = match self.get("architectures") {
            None => return Ok(Head::None),
            Some(Value::Array(names)) => match names.as_slice() {
                [] => return Ok(Head::None),
                [Value::String(name)] => name.as_str(),
                _ => return Err(self.fault("architectures", "must name one class")),
            },
            Some(_) => return Err(self.fault("architectures", "must be a list of one class")),
        };
        let kind = family.classes.iter().find_map(|prefix| class.strip_prefix(prefix));
        match kind {
            Some("Model") => Ok(Head::None),
            Some("ForSequenceClassification") => Ok(Head::Sequence { labels: self.labels()? }),
            Some("ForTokenClassification") => Ok(Head::Token { labels: self.labels()? }),
            Some("ForMaskedLM") => Ok(Head::MaskedLanguage),
            _ => Err(self.fault(
                "architectures",
                "of this family the plain model, ForSequenceClassification, ForTokenClassification \
                 and ForMaskedLM can be built; export this model to ONNX",
            )),
        }
    }

    /// Returns the number of classes: transformers assumes two where nothing says it.
    fn labels(&self) -> Result<usize, HuggingFaceError> {
        match self.get("id2label") {
            Some(Value::Object(labels)) if !labels.is_empty() => Ok(labels.len()),
            Some(Value::Object(_)) | None => self.count_or("num_labels", 2),
            Some(_) => Err(self.fault("id2label", "must be an object of labels by number")),
        }
    }

    fn padding(&self, family: &Family) -> Result<i64, HuggingFaceError> {
        match self.get("pad_token_id") {
            None => Ok(family.usual_padding),
            Some(value) => {
                let id = value.as_i64().filter(|id| (0..1 << 31).contains(id));
                id.ok_or_else(|| self.fault("pad_token_id", "must be the number of a token"))
            }
        }
    }

    fn epsilon(&self, family: &Family) -> Result<f32, HuggingFaceError> {
        let Some(key) = family.keys.epsilon else { return Ok(family.usual_epsilon) };
        match self.get(key) {
            None => Ok(family.usual_epsilon),
            Some(value) => {
                let number = value.as_f64().filter(|number| *number > 0.0 && *number < 1.0);
                let number = number.ok_or_else(|| self.fault(key, "must be between 0 and 1"));
                number.map(|number| number as f32)
            }
        }
    }

    fn activation(&self, family: &Family) -> Result<Activation, HuggingFaceError> {
        match self.text(family.keys.activation)? {
            None | Some("gelu" | "gelu_python") => Ok(Activation::Gelu),
            Some("gelu_new" | "gelu_pytorch_tanh" | "gelu_fast") => Ok(Activation::GeluTanh),
            Some("relu") => Ok(Activation::Relu),
            Some(_) => Err(self.fault(
                family.keys.activation,
                "gelu, gelu_new, gelu_pytorch_tanh, gelu_fast and relu can be built; export this \
                 model to ONNX",
            )),
        }
    }
}
