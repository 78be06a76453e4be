//! `transform.output`: what a model's tensors mean.

use std::collections::HashSet;

use outhaul_types::{
    Activation, Aggregation, ClassificationOutput, EmbeddingOutput, FillMaskOutput, Labels,
    OutputTransform, Pooling, RegressionOutput, RerankOutput, TensorsOutput,
    TokenClassificationOutput,
};

use super::{kind, name, number, one_of, single, text};
use crate::declared::{Faults, Fields};
use crate::manifest::rules::{below, boolean, within};
use crate::{Rule, Value};

/// Nobody reads further, and an answer holds so many for each row.
const MOST_CANDIDATES: usize = 10_000;

const MOST_DIMENSIONS: usize = 65_536;

pub(super) const POOLINGS: [(&str, Pooling); 3] =
    [("mean", Pooling::Mean), ("cls", Pooling::Cls), ("max", Pooling::Max)];

pub(super) const ACTIVATIONS: [(&str, Activation); 3] = [
    ("none", Activation::None),
    ("softmax", Activation::Softmax),
    ("sigmoid", Activation::Sigmoid),
];

pub(super) const AGGREGATIONS: [(&str, Aggregation); 2] =
    [("none", Aggregation::None), ("simple", Aggregation::Simple)];

const KINDS: [&str; 7] = [
    "embedding",
    "classification",
    "token-classification",
    "rerank",
    "fill-mask",
    "regression",
    "tensors",
];

pub(super) fn take(value: &Value, faults: &mut Faults) -> Option<OutputTransform> {
    match kind(value, &KINDS, faults)? {
        "embedding" => embedding(value, faults).map(OutputTransform::Embedding),
        "classification" => classification(value, faults).map(OutputTransform::Classification),
        "token-classification" => tokens(value, faults).map(OutputTransform::TokenClassification),
        "rerank" => rerank(value, faults).map(OutputTransform::Rerank),
        "fill-mask" => fill_mask(value, faults).map(OutputTransform::FillMask),
        "regression" => regression(value, faults).map(OutputTransform::Regression),
        _ => tensors(value, faults).map(OutputTransform::Tensors),
    }
}

fn embedding(value: &Value, faults: &mut Faults) -> Option<EmbeddingOutput> {
    let keys = ["kind", "output", "pooling", "normalize", "dimensions"];
    let fields = Fields::open(value, &keys, faults)?;
    Some(EmbeddingOutput {
        output: fields.take("output", faults, name),
        pooling: fields
            .take("pooling", faults, |value| one_of(value, &POOLINGS))
            .unwrap_or_default(),
        normalize: fields.take("normalize", faults, boolean).unwrap_or_default(),
        dimensions: fields.take("dimensions", faults, |value| {
            within(value, 1..=MOST_DIMENSIONS, "leave it out for all")
        }),
    })
}

fn classification(value: &Value, faults: &mut Faults) -> Option<ClassificationOutput> {
    let keys = ["kind", "output", "labels", "activation", "top_k", "threshold", "below"];
    let fields = Fields::open(value, &keys, faults)?;
    Some(ClassificationOutput {
        output: fields.take("output", faults, name),
        labels: fields.nested("labels", faults, labels).unwrap_or_default(),
        activation: fields
            .take("activation", faults, |value| one_of(value, &ACTIVATIONS))
            .unwrap_or_default(),
        top_k: fields.take("top_k", faults, |value| {
            within(value, 1..=MOST_CANDIDATES, "leave it out for the best one")
        }),
        threshold: fields.take("threshold", faults, single),
        below: fields.take("below", faults, text).unwrap_or_default(),
    })
}

fn tokens(value: &Value, faults: &mut Faults) -> Option<TokenClassificationOutput> {
    let fields = Fields::open(value, &["kind", "output", "labels", "aggregation"], faults)?;
    Some(TokenClassificationOutput {
        output: fields.take("output", faults, name),
        labels: fields.nested("labels", faults, labels).unwrap_or_default(),
        aggregation: fields
            .take("aggregation", faults, |value| one_of(value, &AGGREGATIONS))
            .unwrap_or_default(),
    })
}

fn rerank(value: &Value, faults: &mut Faults) -> Option<RerankOutput> {
    let fields = Fields::open(value, &["kind", "output", "activation"], faults)?;
    let activation = fields.take("activation", faults, |value| one_of(value, &ACTIVATIONS));
    Some(RerankOutput {
        output: fields.take("output", faults, name),
        activation: activation.unwrap_or(RerankOutput::default().activation),
    })
}

fn fill_mask(value: &Value, faults: &mut Faults) -> Option<FillMaskOutput> {
    let fields = Fields::open(value, &["kind", "output", "top_k"], faults)?;
    let top_k = fields
        .take("top_k", faults, |value| within(value, 1..=MOST_CANDIDATES, "leave it out for 5"));
    Some(FillMaskOutput {
        output: fields.take("output", faults, name),
        top_k: top_k.unwrap_or(FillMaskOutput::default().top_k),
    })
}

fn regression(value: &Value, faults: &mut Faults) -> Option<RegressionOutput> {
    let fields =
        Fields::open(value, &["kind", "output", "name", "unit", "scale", "offset"], faults)?;
    let usual = RegressionOutput::default();
    Some(RegressionOutput {
        output: fields.take("output", faults, name),
        name: fields.take("name", faults, name).unwrap_or(usual.name),
        unit: fields.take("unit", faults, text),
        scale: fields.take("scale", faults, number).unwrap_or(usual.scale),
        offset: fields.take("offset", faults, number).unwrap_or(usual.offset),
    })
}

fn tensors(value: &Value, faults: &mut Faults) -> Option<TensorsOutput> {
    let fields = Fields::open(value, &["kind", "rename"], faults)?;
    let mut names = HashSet::new();
    let rename = fields.nested("rename", faults, |value, faults| {
        let rule = Rule::new("must be a table", "write as in { logits = \"scores\" }");
        faults.named(value, rule, |from, to, faults| {
            let new = faults.check(to, name)?;
            if !names.insert(new.clone()) {
                let remedy = "give each output a name of its own";
                faults.add(to, Rule::new("is the new name of another output", remedy));
            }
            Some((from.into(), new))
        })
    });
    Some(TensorsOutput { rename: rename.unwrap_or_default() })
}

fn labels(value: &Value, faults: &mut Faults) -> Option<Labels> {
    let rule = "must be a list of labels, or the path of a file with one in each line";
    let remedy = "leave it out to number the classes";
    match value {
        Value::List(items) if !items.is_empty() => {
            let broken = Rule::new(rule, remedy);
            let labels = faults.items(value, broken, |_, item, faults| faults.check(item, text));
            labels.map(Labels::List)
        }
        _ => faults.check(value, |value| below(value, rule, remedy)).map(Labels::File),
    }
}
