//! The document as a page: operations by group, schemas, examples, and calls to copy.
//!
//! It is made of the document's JSON, so it tells exactly what clients are told. Its script only filters
//! and copies; without it everything is there to read.

use maud::{Markup, PreEscaped, html};
use outhaul_protocol::openapi::Document;
use serde_json::{Map, Value};

use crate::http::pages;

/// Where the calls of the page go; its script puts the server's own address in place of it.
const HERE: &str = "http://localhost:8080";

/// Returns the page.
pub(super) fn page(document: &Document) -> Markup {
    let api: Value = serde_json::from_slice(&document.json).unwrap_or_default();
    let empty = Map::new();
    let paths = api["paths"].as_object().unwrap_or(&empty);
    let schemas = api["components"]["schemas"].as_object().unwrap_or(&empty);
    let tags = api["tags"].as_array().map(Vec::as_slice).unwrap_or_default();
    let main = html! {
        h1 { "API" }
        p { (text(&api["info"]["description"])) }
        p {
            a href="/openapi.json" { "openapi.json" } " is this page for programs: OpenAPI 3.1. "
            a href="/graphql" { "GraphQL" } " has a page of its own."
        }
        label for="search" { "Search" small { " in paths, names and descriptions" } }
        input id="search" type="search" autocomplete="off" placeholder="infer, iris, health";
        p class="faint" id="found" aria-live="polite" {}
        @for tag in tags { (group(tag, paths)) }
        section data-group="" {
            h2 id="schemas" { "Schemas" }
            @for (name, shape) in schemas { (schema(name, shape)) }
        }
    };
    pages::page("API", Some("/assets/docs.js"), &main)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn group(tag: &Value, paths: &Map<String, Value>) -> Markup {
    let name = text(&tag["name"]);
    let operations: Vec<(&str, &str, &Value)> = paths
        .iter()
        .filter_map(|(path, item)| Some((path, item.as_object()?)))
        .flat_map(|(path, item)| item.iter().map(move |(method, told)| (path, method, told)))
        .filter(|(_, _, operation)| list(&operation["tags"]).iter().any(|tag| tag == name))
        .map(|(path, method, operation)| (path.as_str(), method.as_str(), operation))
        .collect();
    if operations.is_empty() {
        return PreEscaped(String::new());
    }
    html! {
        section data-group="" {
            h2 { (name) }
            p class="faint" { (text(&tag["description"])) }
            @for (path, method, operation) in operations { (self::operation(path, method, operation)) }
        }
    }
}

fn operation(path: &str, method: &str, operation: &Value) -> Markup {
    let summary = text(&operation["summary"]);
    let content = operation["requestBody"]["content"].as_object();
    let example = content.and_then(|content| content.values().find_map(|of| of.get("example")));
    let parameters = list(&operation["parameters"]);
    html! {
        details data-entry="" id=(text(&operation["operationId"])) {
            summary {
                strong { (method.to_uppercase()) } " "
                code { (path) } " "
                span class="faint" { (summary) }
            }
            @if !parameters.is_empty() {
                h3 { "Parameters" }
                div class="scroll" { (parameter_table(parameters)) }
            }
            @if let Some(content) = content {
                h3 { "Body" }
                @for (media_type, of) in content {
                    p { code { (media_type) } ": " (shape(&of["schema"])) }
                }
            }
            @if let Some(example) = example {
                h3 { "Example" }
                pre { (serde_json::to_string_pretty(example).unwrap_or_default()) }
            }
            h3 { "Call" }
            pre data-call="" { (curl(path, method, operation, example)) }
            p class="actions" { button type="button" data-copy="" hidden { "Copy" } }
            h3 { "Answers" }
            div class="scroll" { (answers(&operation["responses"])) }
        }
    }
}

fn parameter_table(parameters: &[Value]) -> Markup {
    html! {
        table {
            thead { tr { th scope="col" { "Name" } th scope="col" { "What" } } }
            tbody {
                @for parameter in parameters {
                    tr {
                        td { code { (text(&parameter["name"])) } }
                        td {
                            (text(&parameter["description"]))
                            span class="faint" { " In the " (text(&parameter["in"])) "." }
                        }
                    }
                }
            }
        }
    }
}

fn answers(responses: &Value) -> Markup {
    let empty = Map::new();
    html! {
        table {
            thead { tr { th scope="col" { "Status" } th scope="col" { "When" } th scope="col" { "Body" } } }
            tbody {
                @for (status, response) in responses.as_object().unwrap_or(&empty) {
                    tr {
                        td { (status) }
                        td { (text(&response["description"])) }
                        td {
                            @for (media_type, of) in response["content"].as_object().unwrap_or(&empty) {
                                div { code { (media_type) } " " (shape(&of["schema"])) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Returns a call as a shell takes it.
fn curl(path: &str, method: &str, operation: &Value, example: Option<&Value>) -> String {
    let mut path = path.to_owned();
    let mut query = String::new();
    for parameter in list(&operation["parameters"]) {
        let (name, example) = (text(&parameter["name"]), text(&parameter["example"]));
        match (text(&parameter["in"]), example) {
            (_, "") => {}
            ("path", example) => path = path.replace(&format!("{{{name}}}"), example),
            ("query", example) => {
                query = format!(" -G --data-urlencode {}", quoted(&format!("{name}={example}")))
            }
            _ => {}
        }
    }
    let url = quoted(&format!("{HERE}{path}"));
    let method = match method {
        "get" => String::new(),
        "post" if example.is_some() => String::new(),
        other => format!(" -X {}", other.to_uppercase()),
    };
    let body = example.map(|example| {
        format!(" -H 'content-type: application/json' \\\n  -d {}", quoted(&example.to_string()))
    });
    format!("curl -s{method}{query} {url}{}", body.unwrap_or_default())
}

/// Quotes a text for a POSIX shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn schema(name: &str, of: &Value) -> Markup {
    html! {
        details data-entry="" id=(format!("schema-{name}")) {
            summary { code { (name) } " " span class="faint" { (text(&of["description"])) } }
            (members(of))
        }
    }
}

/// Returns an object's members as a table, anything else as a line.
fn members(of: &Value) -> Markup {
    let Some(properties) = of["properties"].as_object() else {
        return html! { p { (shape(of)) } };
    };
    let required = list(&of["required"]);
    html! {
        div class="scroll" {
            table {
                thead { tr { th scope="col" { "Member" } th scope="col" { "Holds" } th scope="col" { "What" } } }
                tbody {
                    @for (name, of) in properties {
                        tr {
                            td {
                                code { (name) }
                                @if required.iter().any(|each| each == name) { " (required)" }
                            }
                            td { (shape(of)) }
                            td { (text(&of["description"])) }
                        }
                    }
                }
            }
        }
    }
}

/// The choices that are spelled out.
const SHOWN: usize = 30;

/// Says in a line what a schema allows.
fn shape(of: &Value) -> Markup {
    if let Some(reference) = of["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap_or(reference);
        return html! { a href=(format!("#schema-{name}")) { (name) } };
    }
    if let Some(any) = of["anyOf"].as_array() {
        return html! {
            @for (index, each) in any.iter().enumerate() {
                @if index > 0 { " or " }
                (shape(each))
            }
        };
    }
    if let Some(choices) = of["enum"].as_array() {
        return html! {
            @for (index, choice) in choices.iter().take(SHOWN).enumerate() {
                @if index > 0 { ", " }
                code { (choice) }
            }
            @if choices.len() > SHOWN { " and " (choices.len() - SHOWN) " more" }
        };
    }
    match text(&of["type"]) {
        "array" => {
            let (least, most) = (of["minItems"].as_u64(), of["maxItems"].as_u64());
            html! {
                "list of "
                @if let Some(size) = most.filter(|_| most == least) { (size) " " }
                (shape(&of["items"]))
            }
        }
        "object" => match of["properties"].as_object() {
            None => html! { "object" },
            Some(properties) => html! {
                "object with "
                @for (index, (name, of)) in properties.iter().enumerate() {
                    @if index > 0 { ", " }
                    code { (name) } " (" (shape(of)) ")"
                }
            },
        },
        "" => html! { "any value" },
        kind => html! {
            (kind)
            @if let Some(least) = of["minimum"].as_i64() { ", at least " (least) }
            @if let Some(most) = of["maximum"].as_i64() { ", at most " (most) }
            @if let Some(encoding) = of["contentEncoding"].as_str() { " in " (encoding) }
            @if let Some(unit) = of["x-unit"].as_str() { " in " (unit) }
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_call_survives_the_shell() {
        let operation = json!({"parameters": [
            {"name": "model", "in": "path", "example": "iris"},
            {"name": "x-request-timeout-ms", "in": "header"},
        ]});
        let example = json!({"text": "it's"});
        assert_eq!(
            curl("/v2/models/{model}/infer", "post", &operation, Some(&example)),
            "curl -s 'http://localhost:8080/v2/models/iris/infer' -H 'content-type: application/json' \\\n  \
             -d '{\"text\":\"it'\\''s\"}'"
        );
        assert_eq!(
            curl("/x", "delete", &json!({}), None),
            "curl -s -X DELETE 'http://localhost:8080/x'"
        );
    }

    #[test]
    fn a_schema_is_told_in_a_line() {
        let told = |of: Value| shape(&of).into_string();
        assert_eq!(
            told(
                json!({"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4})
            ),
            "list of 4 number"
        );
        assert_eq!(
            told(json!({"$ref": "#/components/schemas/a_Row"})),
            "<a href=\"#schema-a_Row\">a_Row</a>"
        );
        assert_eq!(told(json!({"enum": ["<a>"]})), "<code>&quot;&lt;a&gt;&quot;</code>");
        assert_eq!(told(json!({})), "any value");
    }
}
