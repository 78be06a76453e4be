//! The page of one model: a form made from its signature, the answer, and the same call as code.

use maud::{Markup, PreEscaped, html};
use outhaul_router::ModelDescription;
use outhaul_types::{
    Content, Dimension, Field, ModelSignature, ModelVersion, ShapePattern, TensorSpec,
};
use serde_json::{Value, json};

use super::layout::page as whole;
use super::widget::{Widget, widget};

/// The samples that get a button.
const MOST_SAMPLES: usize = 8;

/// Returns the page.
pub(super) fn page(model: &ModelDescription, versions: &[ModelVersion]) -> Markup {
    let has_rows = has_rows(&model.signature);
    let main = html! {
        h1 { (model.name) }
        (facts(model, versions))
        div class="columns" {
            section aria-labelledby="try" {
                h2 id="try" { "Try it" }
                (form(model, has_rows))
            }
            section aria-labelledby="answer-title" {
                h2 id="answer-title" { "Answer" }
                div id="answer" aria-live="polite" { p class="faint" { "Nothing sent yet." } }
                div id="times" hidden {
                    h3 { "Where the time went" }
                    div class="split" role="img" aria-label="time split" {}
                    div class="key" {}
                }
            }
        }
        h2 { "The same call as code" }
        div class="actions" role="group" aria-label="Language" {
            button type="button" data-code="curl" aria-pressed="true" { "curl" }
            button type="button" data-code="python" aria-pressed="false" { "Python" }
            button type="button" data-code="javascript" aria-pressed="false" { "JavaScript" }
            button type="button" id="copy" { "Copy" }
        }
        pre id="code" tabindex="0" {}
        h2 { "What it takes and gives" }
        (signature("", &model.signature, Some((&model.interface.inputs, &model.interface.outputs))))
        @if let Some(inner) = &model.interface.inner && *inner != model.signature {
            details {
                summary { "The model's own tensors, which may be sent and asked for too" }
                (signature("", inner, None))
            }
        }
        // The script's data. A `<` inside could end the element.
        script type="application/json" id="model" {
            (PreEscaped(data(model, has_rows).to_string().replace('<', "\\u003c")))
        }
    };
    whole(model.name.as_str(), Some("/assets/try.js"), &main)
}

fn facts(model: &ModelDescription, versions: &[ModelVersion]) -> Markup {
    let reason = model.batching.reason();
    html! {
        ul class="facts" {
            li { "version " (model.version) }
            li { (model.interface.task.as_str()) }
            li title=(model.engine_reason) { (model.engine) }
            li { (model.instances) @if model.instances == 1 { " instance" } @else { " instances" } }
            li title=[(!reason.is_empty()).then_some(reason)] {
                "batching " (model.batching.as_str())
                @if model.max_rows > 1 { ", at most " (model.max_rows) " rows" }
            }
            @for version in versions.iter().filter(|version| **version != model.version) {
                li { a href={ "/try/" (model.name) "/versions/" (version) } { "version " (version) } }
            }
        }
    }
}

fn form(model: &ModelDescription, has_rows: bool) -> Markup {
    let samples = samples(model);
    html! {
        form id="form" novalidate {
            @if !samples.is_empty() {
                div class="actions" role="group" aria-label="Examples" {
                    @for index in 0..samples.len() {
                        button type="button" data-sample=(index) { "Example " (index + 1) }
                    }
                }
            }
            div id="rows" {
                fieldset class="row" {
                    legend { "Row 1" }
                    div class="grid" {
                        @for (spec, field) in model.signature.inputs.iter().zip(&model.interface.inputs) {
                            (widget(spec, field, Widget::of(spec, field, has_rows)))
                        }
                    }
                }
            }
            div class="actions" {
                button class="main" type="submit" { "Send" }
                @if has_rows {
                    button type="button" id="add" { "Add a row" }
                    button type="button" id="remove" hidden { "Remove the last row" }
                }
                span class="faint" { kbd { "Ctrl" } "+" kbd { "Enter" } " sends" }
            }
        }
    }
}

fn samples(model: &ModelDescription) -> Vec<Value> {
    let text = model.interface.sample.as_deref().unwrap_or("[]");
    let rows: Vec<Value> = serde_json::from_str(text).unwrap_or_default();
    rows.into_iter().take(MOST_SAMPLES).collect()
}

/// Whether all inputs have rows as their first dimension, so that rows may be sent one by one.
fn has_rows(signature: &ModelSignature) -> bool {
    let open = |spec: &TensorSpec| match &spec.shape {
        ShapePattern::Ranked(dimensions) => {
            dimensions.first().is_some_and(|first| Dimension::size(first).is_none())
        }
        ShapePattern::AnyRank => false,
    };
    !signature.inputs.is_empty()
        && signature.inputs.iter().all(|spec| open(spec) || spec.optional)
        && signature.outputs.iter().all(open)
}

fn data(model: &ModelDescription, has_rows: bool) -> Value {
    let output = |(spec, field): (&TensorSpec, &Field)| {
        json!({
            "name": spec.name.as_str(),
            "type": spec.data_type.to_string(),
            "content": field.content.as_str(),
            "choices": field.choices.as_deref(),
            "unit": field.unit.as_deref(),
        })
    };
    let outputs = model.signature.outputs.iter().zip(&model.interface.outputs);
    json!({
        "path": format!("/v1/models/{}/versions/{}:predict", model.name, model.version),
        "rows": has_rows,
        "inputs": model.signature.inputs.iter().map(|spec| spec.name.as_str()).collect::<Vec<_>>(),
        "outputs": outputs.map(output).collect::<Vec<_>>(),
        "task": model.interface.task.as_str(),
        "samples": samples(model),
    })
}

fn signature(
    caption: &str,
    signature: &ModelSignature,
    fields: Option<(&[Field], &[Field])>,
) -> Markup {
    let (inputs, outputs) = fields.map_or((&[][..], &[][..]), |fields| fields);
    html! {
        div class="scroll" {
            table {
                @if !caption.is_empty() { caption { (caption) } }
                thead {
                    tr {
                        th scope="col" {} th scope="col" { "Name" } th scope="col" { "Type" }
                        th scope="col" { "Shape" } th scope="col" { "Meaning" }
                    }
                }
                tbody {
                    @for (index, spec) in signature.inputs.iter().enumerate() {
                        (line("input", spec, inputs.get(index)))
                    }
                    @for (index, spec) in signature.outputs.iter().enumerate() {
                        (line("output", spec, outputs.get(index)))
                    }
                }
            }
        }
    }
}

fn line(side: &str, spec: &TensorSpec, field: Option<&Field>) -> Markup {
    html! {
        tr {
            td class="faint" { (side) }
            td { code { (spec.name) } @if spec.optional { " " small class="faint" { "optional" } } }
            td { (spec.data_type) }
            td { code { (spec.shape) } }
            td { @if let Some(field) = field { (meaning(field)) } }
        }
    }
}

fn meaning(field: &Field) -> Markup {
    let choices = field.choices.as_deref().unwrap_or_default();
    html! {
        @if field.content != Content::Tensor { (field.content.as_str()) }
        @if let Some(unit) = &field.unit { " in " (unit) }
        @if !choices.is_empty() {
            ": " (choices.iter().take(12).map(String::as_str).collect::<Vec<_>>().join(", "))
            @if choices.len() > 12 { " and " (choices.len() - 12) " more" }
        }
    }
}
