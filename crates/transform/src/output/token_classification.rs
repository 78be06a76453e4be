//! Classes of parts of a text: `entities`, BYTES `[batch]`, each a JSON list of `{"entity", "score",
//! "start", "end", "word"}`, places in characters.
//!
//! The rules are those of transformers' `TokenClassificationPipeline` with the aggregation strategies
//! `none` and `simple` (`pipelines/token_classification.py`): special tokens are skipped, each token has
//! its likeliest class, and with `simple` neighbours of one class become one entity unless the second
//! begins with `B-`. `O` is no entity, but it parts two others.

use std::sync::Arc;

use outhaul_types::{
    Aggregation, Content, DataType, Dimension, Field, Name, ShapePattern, Strings, Tensor,
    TensorSpec, Tensors, TokenClassificationOutput,
};
use smallvec::smallvec;
use tokenizers::{Decoder as _, Encoding, Tokenizer};

use super::Context;
use super::labels;
use super::pick::{dimensions, fixed_size, floats, output_at, pick_ranked};
use super::scores::{Softmax, largest_one, push_json_number, push_json_string};
use crate::build::Built;
use crate::{BuildError, OutputSide, Part, TransformError};

/// The class of what is no entity.
const OUTSIDE: &str = "O";

struct TokenClassification {
    /// The model's output.
    index: usize,
    output: Name,
    labels: Option<Arc<[String]>>,
    aggregation: Aggregation,
    tokenizer: Arc<Tokenizer>,
}

/// A token, or several that became one.
struct Entity<'t> {
    label: &'t str,
    score: f32,
    /// In characters.
    start: usize,
    end: usize,
    word: String,
}

pub(super) fn build(
    spec: &TokenClassificationOutput,
    context: &Context<'_>,
) -> Result<Built<dyn OutputSide>, BuildError> {
    let Some(tokenizer) = context.tokenizer else {
        let problem = "is token-classification, which needs an input of kind text".to_owned();
        return Err(BuildError::Declared { key: "output.kind", problem });
    };
    let key = "output.output";
    let index = pick_ranked(context, spec.output.as_ref(), &["logits"], &[3], key)?;
    let inner = &context.inner.outputs[index];
    let labels = labels::read(&spec.labels)?;
    if let (Some(labels), Some(classes)) = (&labels, fixed_size(inner, 0))
        && labels.len() != classes
    {
        let (named, name) = (labels.len(), &inner.name);
        let problem = format!("names {named} classes, where '{name}' tells {classes} apart");
        return Err(BuildError::Declared { key: "output.labels", problem });
    }
    let side = TokenClassification {
        index,
        output: inner.name.clone(),
        labels,
        aggregation: spec.aggregation,
        tokenizer: Arc::clone(tokenizer),
    };
    let outer = TensorSpec {
        name: Name::const_new("entities"),
        data_type: DataType::Bytes,
        shape: ShapePattern::ranked([Dimension::Any]),
        optional: false,
    };
    Ok(Built { side: Box::new(side), specs: vec![outer], fields: vec![Field::of(Content::Json)] })
}

impl OutputSide for TokenClassification {
    fn needs_encodings(&self) -> bool {
        true
    }

    fn finish(&self, part: &Part, outputs: &[Tensor]) -> Result<Tensors, TransformError> {
        let rows = part.rows.len();
        if part.encodings.len() != rows {
            let problem = "must be sent for 'entities': the model's own inputs do not tell what \
                           stands where in a text";
            let field = Name::const_new("text");
            return Err(TransformError::Input { field, problem: problem.to_owned() });
        }
        let tensor = output_at(outputs, self.index, &self.output)?;
        let numbers = floats(tensor, &self.output)?;
        let [_, tokens, classes] = dimensions(tensor, &self.output, rows)?;
        let names = self.names(classes)?;
        let mut entities = Vec::with_capacity(rows);
        for (index, encoding) in part.encodings.iter().enumerate() {
            if encoding.len() > tokens {
                let problem = format!("has {tokens} tokens, where {} were given", encoding.len());
                return Err(TransformError::Output { output: self.output.clone(), problem });
            }
            let row = &numbers[index * tokens * classes..(index + 1) * tokens * classes];
            let mut row_entities = tokens_of(encoding, row, &names);
            if self.aggregation == Aggregation::Simple {
                row_entities = self.grouped(row_entities);
            }
            row_entities.retain(|entity| entity.label != OUTSIDE);
            entities.push(json(&row_entities));
        }
        let strings: Strings = entities.iter().collect();
        let entities = Tensor::from_strings([rows], strings);
        Ok(smallvec![entities.expect("every row has one text")])
    }
}

impl TokenClassification {
    /// The names of the classes; their numbers where none are declared.
    fn names(&self, classes: usize) -> Result<Arc<[String]>, TransformError> {
        match &self.labels {
            Some(labels) if labels.len() == classes && classes > 0 => Ok(Arc::clone(labels)),
            None if classes > 0 => Ok((0..classes).map(|class| class.to_string()).collect()),
            labels => {
                let named = labels.as_ref().map_or(1, |labels| labels.len());
                let problem = format!("tells {classes} classes apart, expected {named}");
                Err(TransformError::Output { output: self.output.clone(), problem })
            }
        }
    }

    /// Joins neighbours of one class.
    fn grouped<'t>(&self, tokens: Vec<Entity<'t>>) -> Vec<Entity<'t>> {
        tokens
            .chunk_by(|last, next| {
                let ((_, last_class), (begins, class)) = (tag(last.label), tag(next.label));
                class == last_class && !begins
            })
            .map(|group| self.joined(group))
            .collect()
    }

    fn joined<'t>(&self, group: &[Entity<'t>]) -> Entity<'t> {
        let first = &group[0];
        let numbers = group.iter().map(|token| token.score).filter(|score| !score.is_nan());
        let count = numbers.clone().count();
        let sum: f64 = numbers.map(f64::from).sum();
        let words: Vec<String> = group.iter().map(|token| token.word.clone()).collect();
        let decoder = self.tokenizer.get_decoder();
        let word = match decoder.map(|decoder| decoder.decode(words.clone())) {
            Some(Ok(word)) => word,
            Some(Err(_)) | None => words.join(" "),
        };
        Entity {
            label: first.label.split_once('-').map_or(first.label, |(_, class)| class),
            // Not a number where no token has one.
            score: (sum / count as f64) as f32,
            start: first.start,
            end: group[group.len() - 1].end,
            word,
        }
    }
}

/// Each token of a text with its likeliest class, special tokens left out.
fn tokens_of<'t>(encoding: &Encoding, numbers: &[f32], names: &'t [String]) -> Vec<Entity<'t>> {
    let special = encoding.get_special_tokens_mask();
    let each_token = numbers.chunks_exact(names.len()).take(encoding.len()).enumerate();
    let entity = |(index, numbers): (usize, &[f32])| {
        let class = largest_one(numbers);
        let (start, end) = encoding.get_offsets()[index];
        Entity {
            label: &names[class],
            score: Softmax::of(numbers).share(numbers[class]),
            start,
            end,
            word: encoding.get_tokens()[index].clone(),
        }
    };
    each_token.filter(|&(index, _)| special[index] == 0).map(entity).collect()
}

/// Parts a label into whether it begins an entity and the entity's class.
fn tag(label: &str) -> (bool, &str) {
    match label.strip_prefix("B-") {
        Some(class) => (true, class),
        None => (false, label.strip_prefix("I-").unwrap_or(label)),
    }
}

fn json(entities: &[Entity<'_>]) -> String {
    let mut json = String::from("[");
    for (index, entity) in entities.iter().enumerate() {
        json.push_str(if index > 0 { ",{\"entity\":" } else { "{\"entity\":" });
        push_json_string(&mut json, entity.label);
        json.push_str(",\"score\":");
        push_json_number(&mut json, entity.score);
        json.push_str(&format!(",\"start\":{},\"end\":{}", entity.start, entity.end));
        json.push_str(",\"word\":");
        push_json_string(&mut json, &entity.word);
        json.push('}');
    }
    json.push(']');
    json
}
