//! Random transforms, for the round trip of whole manifests.

use std::num::{NonZeroU32, NonZeroUsize};

use outhaul_types::{
    CategoryEncoding, ClassificationOutput, Column, ColumnKind, EmbeddingOutput, FillMaskOutput,
    ImageInput, InputTransform, Labels, Missing, Name, OutputTransform, RegressionOutput,
    RerankOutput, Resize, RowsInput, TensorsOutput, TextInput, TokenClassificationOutput,
    TransformSpec, UnknownCategory,
};
use proptest::collection::{btree_map, vec};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

use super::super::tests::tensor_name;
use super::{input, output};

fn names() -> impl Strategy<Value = Name> {
    tensor_name().prop_filter_map("empty", |name| (!name.is_empty()).then(|| name.into()))
}

fn texts() -> impl Strategy<Value = String> {
    prop_oneof![Just("nan".to_owned()), "[ -~\\n\u{7f}\u{1}äß]{0,4}"]
}

fn files() -> impl Strategy<Value = std::path::PathBuf> {
    prop_oneof!["[a-z ]{1,3}/[a-z\"]{1,3}", Just("tokenizer.json".to_owned())]
        .prop_map(std::path::PathBuf::from)
}

fn finite() -> impl Strategy<Value = f64> {
    prop_oneof![Just(0.0), Just(1.0), any::<i32>().prop_map(f64::from), prop::num::f64::NORMAL]
}

fn singles() -> impl Strategy<Value = f32> {
    prop_oneof![Just(1.0 / 255.0), prop::num::f32::NORMAL]
}

fn words<T: Copy + std::fmt::Debug + 'static>(words: &[(&str, T)]) -> impl Strategy<Value = T> {
    select(words.iter().map(|(_, choice)| *choice).collect::<Vec<T>>())
}

fn sizes() -> impl Strategy<Value = NonZeroUsize> {
    (1..=1024_usize).prop_map(|size| NonZeroUsize::new(size).unwrap())
}

fn sides() -> impl Strategy<Value = NonZeroU32> {
    (1..=65_536_u32).prop_map(|side| NonZeroU32::new(side).unwrap())
}

fn columns() -> impl Strategy<Value = Vec<Column>> {
    let unknown =
        prop_oneof![Just(UnknownCategory::Refuse), finite().prop_map(UnknownCategory::Code),];
    let values = prop::collection::btree_set("[ -~ä]{1,3}", 1..4);
    let category = (values, any::<bool>(), unknown).prop_map(|(values, one_hot, unknown)| {
        let (encoding, unknown) = match (one_hot, unknown) {
            (true, UnknownCategory::Refuse) => (CategoryEncoding::OneHot, unknown),
            (true, _) => (CategoryEncoding::OneHot, UnknownCategory::Code(0.0)),
            (false, _) => (CategoryEncoding::Index, unknown),
        };
        let values = values.into_iter().rev().collect();
        ColumnKind::Category { values, encoding, unknown }
    });
    let date = (of("%[a-zA-Z\"]{1,3}"), words(&input::UNITS))
        .prop_map(|(format, unit)| ColumnKind::Date { format, unit });
    let kind = prop_oneof![
        Just(ColumnKind::Number),
        Just(ColumnKind::Boolean),
        Just(ColumnKind::Text),
        category,
        date,
    ];
    let missing = prop_oneof![
        Just(Missing::Refuse),
        Just(Missing::Nan),
        finite().prop_map(Missing::Number),
        texts().prop_map(Missing::Text),
    ];
    btree_map(names(), (kind, missing, of(names())), 1..4).prop_map(|columns| {
        let column = |(name, (kind, missing, input))| Column { name, kind, missing, input };
        columns.into_iter().rev().map(column).collect()
    })
}

fn inputs() -> impl Strategy<Value = InputTransform> {
    let text = (files(), of(sizes()), words(&input::TRUNCATIONS), any::<bool>(), texts()).prop_map(
        |(tokenizer, max_tokens, truncation, pairs, prefix)| {
            InputTransform::Text(TextInput { tokenizer, max_tokens, truncation, pairs, prefix })
        },
    );
    let resize = prop_oneof![
        sides().prop_map(Resize::Shorter),
        (sides(), sides()).prop_map(|(height, width)| Resize::Exact { height, width }),
    ];
    let numbers = prop_oneof![Just(Vec::new()), vec(singles(), 3)];
    let shape = (of(resize), of((sides(), sides())), words(&input::FILTERS));
    let pixels = (words(&input::CHANNELS), singles(), numbers.clone(), numbers);
    let rest = (of(names()), of(words(&input::LAYOUTS)), 1..=1_000_000_000_u64);
    let image = (shape, pixels, rest).prop_map(
        |((resize, crop, filter), (channels, scale, mut mean, mut std), rest)| {
            let (input, layout, max_pixels) = rest;
            mean.truncate(channels.count());
            std.truncate(channels.count());
            InputTransform::Image(ImageInput {
                input,
                resize,
                crop,
                filter,
                channels,
                scale,
                mean,
                std,
                layout,
                max_pixels,
            })
        },
    );
    let rows = columns().prop_map(|columns| InputTransform::Rows(RowsInput { columns }));
    prop_oneof![text, image, rows]
}

fn outputs() -> impl Strategy<Value = OutputTransform> {
    let output = || of(names());
    let labels = || {
        prop_oneof![
            Just(Labels::Numbers),
            vec(texts(), 1..3).prop_map(Labels::List),
            files().prop_map(Labels::File),
        ]
    };
    let activation = || words(&output::ACTIVATIONS);
    let embedding = (output(), words(&output::POOLINGS), any::<bool>(), of(sizes())).prop_map(
        |(output, pooling, normalize, dimensions)| {
            let spec = EmbeddingOutput { output, pooling, normalize, dimensions };
            OutputTransform::Embedding(spec)
        },
    );
    let scores = (of(sizes()), of(singles()), texts());
    let classification = (output(), labels(), activation(), scores).prop_map(
        |(output, labels, activation, (top_k, threshold, below))| {
            let spec = ClassificationOutput { output, labels, activation, top_k, threshold, below };
            OutputTransform::Classification(spec)
        },
    );
    let tokens = (output(), labels(), words(&output::AGGREGATIONS)).prop_map(
        |(output, labels, aggregation)| {
            let spec = TokenClassificationOutput { output, labels, aggregation };
            OutputTransform::TokenClassification(spec)
        },
    );
    let rerank = (output(), activation()).prop_map(|(output, activation)| {
        OutputTransform::Rerank(RerankOutput { output, activation })
    });
    let fill = (output(), sizes())
        .prop_map(|(output, top_k)| OutputTransform::FillMask(FillMaskOutput { output, top_k }));
    let regression = (output(), names(), of(texts()), finite(), finite()).prop_map(
        |(output, name, unit, scale, offset)| {
            let spec = RegressionOutput { output, name, unit, scale, offset };
            OutputTransform::Regression(spec)
        },
    );
    let tensors = btree_map(names(), names(), 0..3).prop_map(|rename| {
        let mut seen = std::collections::HashSet::new();
        let rename = rename.into_iter().rev().filter(|(_, to)| seen.insert(to.clone())).collect();
        OutputTransform::Tensors(TensorsOutput { rename })
    });
    prop_oneof![embedding, classification, tokens, rerank, fill, regression, tensors]
}

pub(in crate::manifest) fn transforms()
-> impl Strategy<Value = (TransformSpec, Option<std::path::PathBuf>)> {
    (of(inputs()), of(outputs()), of(files()))
        .prop_map(|(input, output, sample)| (TransformSpec { input, output }, sample))
}
