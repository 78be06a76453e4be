//! A transform as TOML. What is as by default is not written.

use std::path::Path;

use outhaul_types::{
    CategoryEncoding, ClassificationOutput, Column, ColumnKind, DateUnit, EmbeddingOutput,
    FillMaskOutput, ImageInput, InputTransform, Labels, Missing, OutputTransform, RegressionOutput,
    RerankOutput, Resize, RowsInput, TextInput, TokenClassificationOutput, TransformSpec,
    UnknownCategory,
};

use super::input::{CHANNELS, FILTERS, LAYOUTS, TOKENIZER, TRUNCATIONS, UNITS};
use super::output::{ACTIVATIONS, AGGREGATIONS, POOLINGS};
use crate::manifest::write::{Section, Toml, key, list, path, string, table};

pub(in crate::manifest) fn write_sample(section: &mut Section<'_>, sample: Option<&Path>) {
    if let Some(sample) = sample {
        section.entry("sample", string(&path(sample)));
    }
}

pub(in crate::manifest) fn write(text: &mut Toml, transform: &TransformSpec) {
    if let Some(input) = &transform.input {
        let section = &mut text.section("[transform.input]");
        match input {
            InputTransform::Text(input) => texts(section, input),
            InputTransform::Image(input) => images(section, input),
            InputTransform::Rows(input) => rows(section, input),
        }
    }
    if let Some(output) = &transform.output {
        let section = &mut text.section("[transform.output]");
        match output {
            OutputTransform::Embedding(output) => embedding(section, output),
            OutputTransform::Classification(output) => classification(section, output),
            OutputTransform::TokenClassification(output) => tokens(section, output),
            OutputTransform::Rerank(output) => rerank(section, output),
            OutputTransform::FillMask(output) => fill_mask(section, output),
            OutputTransform::Regression(output) => regression(section, output),
            OutputTransform::Tensors(output) => {
                section.entry("kind", "\"tensors\"");
                for (from, to) in &output.rename {
                    section.entry(&format!("rename.{}", key(from)), string(to));
                }
            }
        }
    }
}

fn texts(section: &mut Section<'_>, input: &TextInput) {
    section.entry("kind", "\"text\"");
    section.differing("tokenizer", string(&path(&input.tokenizer)), string(TOKENIZER));
    section.given("max_tokens", input.max_tokens);
    section.differing(
        "truncation",
        word(&TRUNCATIONS, input.truncation),
        word(&TRUNCATIONS, Default::default()),
    );
    section.differing("pairs", input.pairs, false);
    section.differing("prefix", string(&input.prefix), string(""));
}

fn images(section: &mut Section<'_>, input: &ImageInput) {
    let usual = ImageInput::default();
    section.entry("kind", "\"image\"");
    section.given("input", input.input.as_deref().map(string));
    section.given(
        "resize",
        input.resize.map(|resize| match resize {
            Resize::Shorter(pixels) => pixels.to_string(),
            Resize::Exact { height, width } => format!("[{height}, {width}]"),
        }),
    );
    section.given("crop", input.crop.map(|(height, width)| format!("[{height}, {width}]")));
    section.differing("filter", word(&FILTERS, input.filter), word(&FILTERS, usual.filter));
    section.differing("channels", word(&CHANNELS, input.channels), word(&CHANNELS, usual.channels));
    section.differing("scale", single(input.scale), single(usual.scale));
    for (key, numbers) in [("mean", &input.mean), ("std", &input.std)] {
        if !numbers.is_empty() {
            section.entry(key, list(numbers.iter().map(|&number| single(number))));
        }
    }
    section.given("layout", input.layout.map(|layout| word(&LAYOUTS, layout)));
    section.differing("max_pixels", input.max_pixels, usual.max_pixels);
}

fn rows(section: &mut Section<'_>, input: &RowsInput) {
    section.entry("kind", "\"rows\"");
    let columns: String = input.columns.iter().map(|of| format!("    {},\n", column(of))).collect();
    section.entry("columns", format!("[\n{columns}]"));
}

fn column(column: &Column) -> String {
    let Column { name, kind, missing, input } = column;
    if *kind == ColumnKind::Number && *missing == Missing::Refuse && input.is_none() {
        return string(name);
    }
    let mut entries = vec![Some(format!("name = {}", string(name)))];
    match kind {
        ColumnKind::Number => {}
        ColumnKind::Boolean => entries.push(Some("kind = \"boolean\"".to_owned())),
        ColumnKind::Text => entries.push(Some("kind = \"text\"".to_owned())),
        ColumnKind::Category { values, encoding, unknown } => {
            let values = list(values.iter().map(|value| string(value)));
            entries.push(Some(format!("kind = \"category\", values = {values}")));
            entries.push(match encoding {
                CategoryEncoding::Index => None,
                CategoryEncoding::OneHot => Some("encoding = \"one-hot\"".to_owned()),
            });
            entries.push(match unknown {
                UnknownCategory::Refuse => None,
                UnknownCategory::Code(code) => Some(format!("unknown = {}", double(*code))),
            });
        }
        ColumnKind::Date { format, unit } => {
            entries.push(Some("kind = \"date\"".to_owned()));
            entries.push(format.as_ref().map(|format| format!("format = {}", string(format))));
            let unit = Some(*unit).filter(|unit| *unit != DateUnit::default());
            entries.push(unit.map(|unit| format!("unit = {}", word(&UNITS, unit))));
        }
    }
    entries.push(match missing {
        Missing::Refuse => None,
        Missing::Nan => Some("missing = \"nan\"".to_owned()),
        Missing::Number(number) => Some(format!("missing = {}", double(*number))),
        // The word stands for a number that is none.
        Missing::Text(text) if text == "nan" => Some("missing = { text = \"nan\" }".to_owned()),
        Missing::Text(text) => Some(format!("missing = {}", string(text))),
    });
    entries.push(input.as_ref().map(|input| format!("input = {}", string(input))));
    table(entries)
}

fn embedding(section: &mut Section<'_>, output: &EmbeddingOutput) {
    section.entry("kind", "\"embedding\"");
    section.given("output", output.output.as_deref().map(string));
    section.differing(
        "pooling",
        word(&POOLINGS, output.pooling),
        word(&POOLINGS, Default::default()),
    );
    section.differing("normalize", output.normalize, false);
    section.given("dimensions", output.dimensions);
}

fn classification(section: &mut Section<'_>, output: &ClassificationOutput) {
    section.entry("kind", "\"classification\"");
    section.given("output", output.output.as_deref().map(string));
    section.given("labels", labels(&output.labels));
    let usual = word(&ACTIVATIONS, Default::default());
    section.differing("activation", word(&ACTIVATIONS, output.activation), usual);
    section.given("top_k", output.top_k);
    section.given("threshold", output.threshold.map(single));
    section.differing("below", string(&output.below), string(""));
}

fn tokens(section: &mut Section<'_>, output: &TokenClassificationOutput) {
    section.entry("kind", "\"token-classification\"");
    section.given("output", output.output.as_deref().map(string));
    section.given("labels", labels(&output.labels));
    let usual = word(&AGGREGATIONS, Default::default());
    section.differing("aggregation", word(&AGGREGATIONS, output.aggregation), usual);
}

fn rerank(section: &mut Section<'_>, output: &RerankOutput) {
    section.entry("kind", "\"rerank\"");
    section.given("output", output.output.as_deref().map(string));
    let usual = word(&ACTIVATIONS, RerankOutput::default().activation);
    section.differing("activation", word(&ACTIVATIONS, output.activation), usual);
}

fn fill_mask(section: &mut Section<'_>, output: &FillMaskOutput) {
    section.entry("kind", "\"fill-mask\"");
    section.given("output", output.output.as_deref().map(string));
    section.differing("top_k", output.top_k, FillMaskOutput::default().top_k);
}

fn regression(section: &mut Section<'_>, output: &RegressionOutput) {
    let usual = RegressionOutput::default();
    section.entry("kind", "\"regression\"");
    section.given("output", output.output.as_deref().map(string));
    section.differing("name", string(&output.name), string(&usual.name));
    section.given("unit", output.unit.as_deref().map(string));
    section.differing("scale", double(output.scale), double(usual.scale));
    section.differing("offset", double(output.offset), double(usual.offset));
}

fn labels(labels: &Labels) -> Option<String> {
    match labels {
        Labels::Numbers => None,
        Labels::List(labels) => Some(list(labels.iter().map(|label| string(label)))),
        Labels::File(file) => Some(string(&path(file))),
    }
}

fn word<T: Copy + PartialEq>(words: &[(&str, T)], choice: T) -> String {
    let word = words.iter().find(|(_, of)| *of == choice).map_or("", |(word, _)| word);
    string(word)
}

/// The shortest text that reads back as the same number.
fn single(number: f32) -> String {
    format!("{number:?}")
}

fn double(number: f64) -> String {
    format!("{number:?}")
}
