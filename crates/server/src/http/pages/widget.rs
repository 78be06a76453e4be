//! The widget that suits one input of a model.

use maud::{Markup, html};
use outhaul_types::{Content, DataType, Dimension, Field, ShapePattern, TensorSpec};

/// The most numbers of one row that get a field each; more are typed as JSON.
const MOST_FIELDS: usize = 64;

/// How an input is typed, and how the script reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Widget {
    /// Lines of text.
    Text,
    /// A file of a picture.
    Image,
    /// One number.
    Number,
    /// Yes or no.
    Boolean,
    /// One of a list.
    Choice,
    /// A date or time, as text.
    Date,
    /// So many numbers, a field each.
    Numbers(usize),
    /// Anything else, as JSON.
    Json,
}

impl Widget {
    /// Chooses by what the input means, else by its type and shape. `has_rows` tells whether the first
    /// dimension is the rows, of which the page types one.
    pub(super) fn of(spec: &TensorSpec, field: &Field, has_rows: bool) -> Self {
        match field.content {
            Content::Text => Widget::Text,
            Content::Image => Widget::Image,
            Content::Number => Widget::Number,
            Content::Boolean => Widget::Boolean,
            Content::Category if field.choices.is_some() => Widget::Choice,
            Content::Date => Widget::Date,
            Content::Category
            | Content::Tensor
            | Content::Label
            | Content::Score
            | Content::Embedding
            | Content::Json => Widget::of_tensor(spec, has_rows),
        }
    }

    fn of_tensor(spec: &TensorSpec, has_rows: bool) -> Self {
        let ShapePattern::Ranked(dimensions) = &spec.shape else { return Widget::Json };
        let skipped = usize::from(has_rows).min(dimensions.len());
        let rest: Vec<Option<usize>> = dimensions[skipped..].iter().map(Dimension::size).collect();
        let is_number = !matches!(spec.data_type, DataType::Bytes | DataType::Bool);
        match (&rest[..], spec.data_type) {
            ([], DataType::Bytes) => Widget::Text,
            ([], _) if is_number => Widget::Number,
            ([Some(count)], _) if is_number && (1..=MOST_FIELDS).contains(count) => {
                Widget::Numbers(*count)
            }
            _ => Widget::Json,
        }
    }

    /// Returns the word by which the script reads it.
    const fn kind(self) -> &'static str {
        match self {
            Widget::Text => "text",
            Widget::Image => "image",
            Widget::Number => "number",
            Widget::Boolean => "boolean",
            Widget::Choice => "choice",
            Widget::Date => "date",
            Widget::Numbers(_) => "numbers",
            Widget::Json => "json",
        }
    }
}

/// Writes one input's widget. Names of form fields are not unique on the page, since rows may be added:
/// the script finds them inside of their row.
pub(super) fn widget(spec: &TensorSpec, field: &Field, widget: Widget) -> Markup {
    let hint = hint(spec, field);
    let name = &spec.name;
    html! {
        div class=[matches!(widget, Widget::Text | Widget::Image | Widget::Json | Widget::Numbers(_)).then_some("wide")]
            data-input=(name) data-kind=(widget.kind()) data-optional=[spec.optional.then_some("")] {
            @match widget {
                Widget::Numbers(count) => (numbers(name, count, &hint)),
                _ => label {
                    (name) " " small { (hint) }
                    @match widget {
                        Widget::Text => textarea rows="3" placeholder="Type a text" {},
                        Widget::Image => input type="file" accept="image/jpeg,image/png,image/webp";,
                        Widget::Number => input type="number" step="any" inputmode="decimal"
                            required[!spec.optional];,
                        Widget::Boolean => select {
                            @if spec.optional { option value="" { "(missing)" } }
                            option value="true" { "yes" }
                            option value="false" { "no" }
                        },
                        Widget::Choice => select {
                            @if spec.optional { option value="" { "(missing)" } }
                            @for choice in field.choices.iter().flat_map(|all| all.iter()) {
                                option value=(choice) { (choice) }
                            }
                        },
                        Widget::Date => input type="text" placeholder="2026-01-31" autocomplete="off";,
                        Widget::Numbers(_) | Widget::Json => textarea class="code" rows="4"
                            spellcheck="false" placeholder=(placeholder(spec)) {},
                    }
                },
            }
            @if widget == Widget::Image { img class="preview" alt="the chosen picture" hidden; }
        }
    }
}

fn numbers(name: &str, count: usize, hint: &str) -> Markup {
    html! {
        fieldset {
            legend { (name) " " (hint) }
            div class="grid" {
                @for index in 0..count {
                    label {
                        (index)
                        input type="number" step="any" inputmode="decimal" required;
                    }
                }
            }
        }
    }
}

fn hint(spec: &TensorSpec, field: &Field) -> String {
    let mut parts = match field.content {
        Content::Tensor => vec![format!("{} {}", spec.data_type, spec.shape)],
        // A text that is called `text` needs no more words.
        content if content.as_str() == spec.name => Vec::new(),
        content => vec![content.as_str().to_owned()],
    };
    parts.extend(field.unit.as_ref().map(|unit| format!("in {unit}")));
    if spec.optional {
        parts.push("may be left out".to_owned());
    }
    parts.join(", ")
}

/// The shape of what is to be typed, as nested lists.
fn placeholder(spec: &TensorSpec) -> &'static str {
    match spec.data_type {
        DataType::Bytes => "[\"text\", ...] as JSON",
        DataType::Bool => "[true, false, ...] as JSON",
        _ => "[1, 2.5, ...] as JSON",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(data_type: DataType, dimensions: &[Option<usize>]) -> TensorSpec {
        let size = |size: &Option<usize>| size.map_or(Dimension::Any, Dimension::Fixed);
        let shape = ShapePattern::ranked(dimensions.iter().map(size));
        TensorSpec { name: "x".into(), data_type, shape, optional: false }
    }

    #[test]
    fn tensors_get_the_widget_of_their_row() {
        let (any, four) = (None, Some(4));
        for (data_type, shape, expected) in [
            (DataType::Fp32, vec![any, four], Widget::Numbers(4)),
            (DataType::Int64, vec![any], Widget::Number),
            (DataType::Bytes, vec![any], Widget::Text),
            (DataType::Bool, vec![any, four], Widget::Json),
            (DataType::Fp32, vec![any, Some(65)], Widget::Json),
            (DataType::Fp32, vec![any, any], Widget::Json),
            (DataType::Fp32, vec![any, four, four], Widget::Json),
        ] {
            let spec = spec(data_type, &shape);
            assert_eq!(Widget::of(&spec, &Field::default(), true), expected, "{spec:?}");
        }
    }

    #[test]
    fn what_a_user_named_is_escaped() {
        let mut spec = spec(DataType::Bytes, &[None]);
        spec.name = "<script>".into();
        let html = widget(&spec, &Field::of(Content::Text), Widget::Text).into_string();
        assert!(html.contains("&lt;script&gt;") && !html.contains("<script>"), "{html}");
    }
}
