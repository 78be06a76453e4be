//! `transform.input`: texts, pictures or rows.

use std::collections::HashSet;
use std::num::NonZeroU32;
use std::path::PathBuf;

use outhaul_types::{
    CategoryEncoding, Channels, Column, ColumnKind, DateUnit, ImageInput, ImageLayout,
    InputTransform, Missing, Resize, ResizeFilter, RowsInput, TextInput, Truncation,
    UnknownCategory,
};

use super::{kind, name, number, one_of, single, text};
use crate::declared::{Faults, Fields};
use crate::manifest::rules::{below, boolean, within};
use crate::{Rule, Value};

/// The file of a tokenizer, where none is declared.
pub(super) const TOKENIZER: &str = "tokenizer.json";

/// No model takes so many.
const MOST_TOKENS: usize = 1 << 20;

const MOST_PIXELS: usize = 1_000_000_000;

/// A side of a picture beyond this is a slip of the keyboard.
const LONGEST_SIDE: usize = 65_536;

pub(super) const TRUNCATIONS: [(&str, Truncation); 3] = [
    ("end", Truncation::End),
    ("beginning", Truncation::Beginning),
    ("refuse", Truncation::Refuse),
];

pub(super) const FILTERS: [(&str, ResizeFilter); 6] = [
    ("nearest", ResizeFilter::Nearest),
    ("box", ResizeFilter::Box),
    ("bilinear", ResizeFilter::Bilinear),
    ("hamming", ResizeFilter::Hamming),
    ("bicubic", ResizeFilter::Bicubic),
    ("lanczos", ResizeFilter::Lanczos),
];

pub(super) const CHANNELS: [(&str, Channels); 3] =
    [("rgb", Channels::Rgb), ("bgr", Channels::Bgr), ("gray", Channels::Gray)];

pub(super) const LAYOUTS: [(&str, ImageLayout); 2] =
    [("nchw", ImageLayout::Nchw), ("nhwc", ImageLayout::Nhwc)];

pub(super) const UNITS: [(&str, DateUnit); 7] = [
    ("seconds", DateUnit::Seconds),
    ("days", DateUnit::Days),
    ("year", DateUnit::Year),
    ("month", DateUnit::Month),
    ("day", DateUnit::Day),
    ("weekday", DateUnit::Weekday),
    ("hour", DateUnit::Hour),
];

pub(super) fn take(value: &Value, faults: &mut Faults) -> Option<InputTransform> {
    match kind(value, &["text", "image", "rows"], faults)? {
        "text" => texts(value, faults).map(InputTransform::Text),
        "image" => images(value, faults).map(InputTransform::Image),
        _ => rows(value, faults).map(InputTransform::Rows),
    }
}

fn texts(value: &Value, faults: &mut Faults) -> Option<TextInput> {
    let keys = ["kind", "tokenizer", "max_tokens", "truncation", "pairs", "prefix"];
    let fields = Fields::open(value, &keys, faults)?;
    let tokenizer = fields.take("tokenizer", faults, |value| {
        let rule = "must be the path of a tokenizer.json";
        below(value, rule, "leave it out for the tokenizer.json beside the model")
    });
    Some(TextInput {
        tokenizer: tokenizer.unwrap_or_else(|| PathBuf::from(TOKENIZER)),
        max_tokens: fields.take("max_tokens", faults, |value| {
            within(value, 1..=MOST_TOKENS, "leave it out for what the tokenizer says")
        }),
        truncation: fields
            .take("truncation", faults, |value| one_of(value, &TRUNCATIONS))
            .unwrap_or_default(),
        pairs: fields.take("pairs", faults, boolean).unwrap_or_default(),
        prefix: fields.take("prefix", faults, text).unwrap_or_default(),
    })
}

fn images(value: &Value, faults: &mut Faults) -> Option<ImageInput> {
    let keys = [
        "kind",
        "input",
        "resize",
        "crop",
        "filter",
        "channels",
        "scale",
        "mean",
        "std",
        "layout",
        "max_pixels",
    ];
    let fields = Fields::open(value, &keys, faults)?;
    let usual = ImageInput::default();
    let channels = fields.take("channels", faults, |value| one_of(value, &CHANNELS));
    let channels = channels.unwrap_or_default();
    let mut each = |name: &str, of: fn(&Value) -> Result<f32, Rule>| {
        let taken = fields.nested(name, faults, |value, faults| {
            let rule = || {
                let must = format!("must be a list of {} numbers", channels.count());
                Rule::new(must, "write one number for each channel")
            };
            let numbers = faults.items(value, rule(), |_, item, faults| faults.check(item, of))?;
            match value {
                Value::List(items) if items.len() == channels.count() => Some(numbers),
                _ => {
                    faults.add(value, rule());
                    None
                }
            }
        });
        taken.unwrap_or_default()
    };
    let mean = each("mean", single);
    let std = each("std", |value| match single(value)? {
        0.0 => Err(Rule::new("must not be 0", "pixels are divided by it")),
        number => Ok(number),
    });
    let max_pixels = fields.take("max_pixels", faults, |value| {
        within(value, 1..=MOST_PIXELS, "leave it out for 50 million")
    });
    Some(ImageInput {
        input: fields.take("input", faults, name),
        resize: fields.take("resize", faults, resize),
        crop: fields.take("crop", faults, |value| {
            let rule = || Rule::new("must be height and width", "write as in [224, 224]");
            height_and_width(value).ok_or_else(rule)
        }),
        filter: fields
            .take("filter", faults, |value| one_of(value, &FILTERS))
            .unwrap_or(usual.filter),
        channels,
        scale: fields.take("scale", faults, single).unwrap_or(usual.scale),
        mean,
        std,
        layout: fields.take("layout", faults, |value| one_of(value, &LAYOUTS)),
        max_pixels: max_pixels.map_or(usual.max_pixels, |most| most.get() as u64),
    })
}

fn resize(value: &Value) -> Result<Resize, Rule> {
    if let Some((height, width)) = height_and_width(value) {
        return Ok(Resize::Exact { height, width });
    }
    side(value).map(Resize::Shorter).ok_or_else(|| {
        let remedy = "write as in 256, or as in [224, 224]";
        Rule::new("must be the pixels of the shorter side, or height and width", remedy)
    })
}

fn height_and_width(value: &Value) -> Option<(NonZeroU32, NonZeroU32)> {
    match value {
        Value::List(sides) => match sides.as_slice() {
            [height, width] => Some((side(height)?, side(width)?)),
            _ => None,
        },
        _ => None,
    }
}

fn side(value: &Value) -> Option<NonZeroU32> {
    let pixels = value.whole().filter(|pixels| *pixels <= LONGEST_SIDE)?;
    u32::try_from(pixels).ok().and_then(NonZeroU32::new)
}

fn rows(value: &Value, faults: &mut Faults) -> Option<RowsInput> {
    let fields = Fields::open(value, &["kind", "columns"], faults)?;
    let rule = || {
        let remedy = "write as in [\"age\", { name = \"city\", kind = \"text\" }]";
        Rule::new("must be a list of columns", remedy)
    };
    let before = faults.count();
    let mut names = HashSet::new();
    let columns = fields.nested("columns", faults, |value, faults| {
        faults.items(value, rule(), |_, item, faults| {
            let column = column(item, faults)?;
            if !names.insert(column.name.clone()) {
                let remedy = "give each column a name of its own";
                faults.add(item, Rule::new("has the name of an earlier column", remedy));
            }
            Some(column)
        })
    });
    let columns = columns.unwrap_or_default();
    if columns.is_empty() && faults.count() == before {
        faults
            .add(value, Rule::new("needs columns", "write as in columns = [\"age\", \"height\"]"));
    }
    Some(RowsInput { columns })
}

fn column(value: &Value, faults: &mut Faults) -> Option<Column> {
    if let Value::Text(_) = value {
        let name = faults.check(value, name)?;
        let (kind, missing) = (ColumnKind::Number, Missing::Refuse);
        return Some(Column { name, kind, missing, input: None });
    }
    let kinds = ["number", "boolean", "text", "category", "date"];
    let usual = Value::Text("number".to_owned());
    let declared = match value {
        Value::Table(entries) => entries.iter().find(|(name, _)| name == "kind"),
        _ => {
            let rule = Rule::new("must be a name or a table", "write as in { name = \"age\" }");
            faults.add(value, rule);
            return None;
        }
    };
    let declared = declared.map_or(&usual, |(_, kind)| kind);
    let names = kinds.map(|kind| (kind, kind));
    let kind =
        faults.within(".kind", |faults| faults.check(declared, |value| one_of(value, &names)))?;
    let further: &[&str] = match kind {
        "category" => &["values", "encoding", "unknown"],
        "date" => &["format", "unit"],
        _ => &[],
    };
    let keys = [&["name", "kind", "missing", "input"], further].concat();
    let fields = Fields::open(value, &keys, faults)?;
    let missing = fields.take("missing", faults, missing).unwrap_or_default();
    let input = fields.take("input", faults, name);
    let kind = match kind {
        "category" => category(&fields, value, faults)?,
        "date" => ColumnKind::Date {
            format: fields.take("format", faults, format),
            unit: fields.take("unit", faults, |value| one_of(value, &UNITS)).unwrap_or_default(),
        },
        "boolean" => ColumnKind::Boolean,
        "text" => ColumnKind::Text,
        _ => ColumnKind::Number,
    };
    let before = faults.count();
    let name = fields.take("name", faults, name);
    if name.is_none() && faults.count() == before {
        faults.add(value, Rule::new("needs a name", "set name to what callers write"));
    }
    Some(Column { name: name?, kind, missing, input })
}

fn format(value: &Value) -> Result<String, Rule> {
    let text = value.text().filter(|text| text.contains('%')).map(str::to_owned);
    text.ok_or_else(|| {
        let remedy = "write as in \"%d.%m.%Y\", or leave it out for 2026-03-31";
        Rule::new("must be a format of strftime", remedy)
    })
}

fn category(fields: &Fields<'_>, value: &Value, faults: &mut Faults) -> Option<ColumnKind> {
    let before = faults.count();
    let values = fields.nested("values", faults, |value, faults| {
        let rule = Rule::new("must be a list of texts", "write as in [\"small\", \"large\"]");
        let mut seen = HashSet::new();
        faults.items(value, rule, |_, item, faults| {
            let text = faults.check(item, text)?;
            if text.is_empty() {
                let remedy = "an empty text stands for a missing value; see missing";
                faults.add(item, Rule::new("must not be empty", remedy));
            } else if !seen.insert(text.clone()) {
                faults.add(item, Rule::new("is there twice", "write each value once"));
            }
            Some(text)
        })
    });
    if values.as_ref().is_none_or(Vec::is_empty) && faults.count() == before {
        let remedy = "write as in values = [\"small\", \"large\"], in the model's order";
        faults.add(value, Rule::new("needs values", remedy));
    }
    let encodings = [("index", CategoryEncoding::Index), ("one-hot", CategoryEncoding::OneHot)];
    let encoding =
        fields.take("encoding", faults, |value| one_of(value, &encodings)).unwrap_or_default();
    let unknown = fields.take("unknown", faults, |value| match (number(value)?, encoding) {
        (code, CategoryEncoding::OneHot) if code != 0.0 => {
            Err(Rule::new("must be 0 where the encoding is one-hot", "leave it out to refuse them"))
        }
        (code, _) => Ok(UnknownCategory::Code(code)),
    });
    let (values, unknown) = (values.unwrap_or_default(), unknown.unwrap_or_default());
    Some(ColumnKind::Category { values, encoding, unknown })
}

fn missing(value: &Value) -> Result<Missing, Rule> {
    match value {
        Value::Text(text) if text == "nan" => Ok(Missing::Nan),
        Value::Fraction(number) if number.is_nan() => Ok(Missing::Nan),
        Value::Text(text) => Ok(Missing::Text(text.clone())),
        Value::Table(entries) => match entries.as_slice() {
            [(name, Value::Text(text))] if name == "text" => Ok(Missing::Text(text.clone())),
            _ => Err(missing_rule()),
        },
        _ => number(value).map(Missing::Number).map_err(|_| missing_rule()),
    }
}

fn missing_rule() -> Rule {
    Rule::new("must be \"nan\", a number or a text", "leave it out to refuse what is missing")
}
