//! The page that a browser gets: a query to try, and the schema to read.

use axum::response::Response;
use http::StatusCode;
use maud::html;
use outhaul_protocol::graphql::Api;

use crate::http::openapi::script_file;
use crate::http::pages;

const QUERY: &str =
    "{\n  server { name version ready }\n  models { name version state task field }\n}";

/// Returns the page.
pub(super) fn page(api: &Api) -> Response {
    let main = html! {
        h1 { "GraphQL" }
        p {
            "Queries go to " code { "POST /graphql" } " as "
            code { "{\"query\", \"variables\", \"operationName\"}" } ". "
            a href="/graphql/schema.graphql" { "The schema as a file" }
        }
        form id="try" {
            label for="query" { "Query" }
            textarea class="code" id="query" rows="12" spellcheck="false" { (QUERY) }
            label for="variables" { "Variables" small { " as a JSON object" } }
            textarea class="code" id="variables" rows="4" spellcheck="false" { "{}" }
            p class="actions" {
                button class="main" type="submit" { "Send" }
                span class="faint" { "Ctrl+Enter sends too." }
            }
        }
        section aria-live="polite" {
            h2 { "Answer" }
            pre id="answer" { "Nothing was sent yet." }
        }
        @if !api.models().is_empty() {
            h2 { "Models" }
            table {
                thead { tr { th scope="col" { "Model" } th scope="col" { "Its field of predict" } } }
                tbody {
                    @for model in api.models() {
                        tr { td { (model.name) } td { code { (model.field) } } }
                    }
                }
            }
        }
        h2 { "Schema" }
        pre { (api.sdl()) }
    };
    pages::answer(StatusCode::OK, pages::page("GraphQL", Some("/assets/graphql.js"), &main))
}

/// Returns the page's script.
pub(super) async fn script() -> Response {
    script_file(include_str!("../assets/graphql.js"))
}
