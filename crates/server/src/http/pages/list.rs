//! The list of all models, how they are, and what they do right now.

use maud::{Markup, html};
use outhaul_router::{Standing, VersionStatus};
use outhaul_types::Label;

use super::layout::page;
use crate::App;

/// Returns the page.
pub(in crate::http) fn list(app: &App) -> Markup {
    let models = app.router().models();
    let (class, state) = match (app.is_draining(), app.is_ready()) {
        (true, _) => ("bad", "Leaving: requests in flight are being finished."),
        (false, true) => ("good", "Ready."),
        (false, false) => ("faint", "Not ready yet."),
    };
    let main = html! {
        h1 { "Models" }
        p class=(class) { (state) }
        @if models.is_empty() {
            p {
                "There are no models. Put one into the folder that is served, as "
                code { "NAME/1/model.onnx" } ", and it appears here."
            }
        } @else {
            div class="scroll" { (table(&models)) }
            p class="faint" {
                "Requests and times are those of the last seconds, counted by this server. "
                a href="/v2/models/stats" { "All statistics" }
            }
        }
    };
    page("Models", Some("/assets/list.js"), &main)
}

fn table(models: &[VersionStatus]) -> Markup {
    html! {
        table {
            thead {
                tr {
                    th scope="col" { "Model" }
                    th scope="col" { "Version" }
                    th scope="col" { "State" }
                    th scope="col" { "Does" }
                    th scope="col" { "Engine" }
                    th scope="col" class="number" { "Memory" }
                    th scope="col" class="number" { "Requests/s" }
                    th scope="col" class="number" { "Mean time" }
                    th scope="col" class="number" { "Answered" }
                }
            }
            tbody { @for status in models { (row(status)) } }
        }
    }
}

fn row(status: &VersionStatus) -> Markup {
    let VersionStatus { name, version, standing, .. } = status;
    let labels: Vec<&str> = status.labels.iter().map(Label::as_str).collect();
    let class = match standing {
        Standing::Ready => "good",
        Standing::Failed => "bad",
        Standing::Loading | Standing::Dormant | Standing::Unloaded => "faint",
    };
    let tried = matches!(standing, Standing::Ready | Standing::Dormant);
    html! {
        tr data-model=(name) data-version=(version) {
            td {
                @if tried { a href={ "/try/" (name) "/versions/" (version) } { (name) } }
                @else { (name) }
            }
            td { (version) @if !labels.is_empty() { " " span class="faint" { (labels.join(", ")) } } }
            td {
                span class=(class) data-state { (standing.as_str()) }
                @if status.ready.is_none() && *standing != Standing::Loading {
                    br; small class=(class) { (status.reason) }
                }
                @if let Some(error) = &status.last_error && status.ready.is_some() {
                    br; small class="bad" { "the last load failed: " (error) }
                }
            }
            @if let Some(model) = &status.ready {
                td { (model.interface.task.as_str()) }
                td { (model.engine) }
            } @else {
                td {} td {}
            }
            td class="number" { (status.memory.map(mebibytes).unwrap_or_default()) }
            td class="number" data-rate {}
            td class="number" data-mean {}
            td class="number" data-count {}
        }
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
