//! Operations of the document.

use serde_json::{Value, json};
use utoipa::openapi::path::{
    HttpMethod, OperationBuilder, Parameter, ParameterBuilder, ParameterIn, PathItem,
};
use utoipa::openapi::request_body::{RequestBody, RequestBodyBuilder};
use utoipa::openapi::{Content, ContentBuilder, Required, ResponseBuilder, ResponsesBuilder};

use super::example::{infer_request, sample_rows};
use super::model::{has_rows, name_of};
use super::routes::{Gives, MODELS, ROUTES, Route, Takes, vertex};
use super::shape::{Shape, any_of, base64, list, named, string};
use crate::Schema;

const JSON: &str = "application/json";

/// Models that the paths of all models name; a document of thousands would be of use to nobody.
const NAMED: usize = 64;

/// Returns an operation that stands for all models.
pub(super) fn item(route: &Route, models: &[Schema<'_>]) -> PathItem {
    of_route(route, route.path, &Of::All(models))
}

/// Returns the paths of one model: of the Open Inference Protocol, and of rows where it has them.
pub(super) fn of_model(model: &Schema<'_>) -> Vec<(String, PathItem)> {
    let wanted = ["/v2/models/{model}/infer", "/v1/models/{model}:predict"];
    let wanted = wanted.into_iter().take(if has_rows(model) { 2 } else { 1 });
    let routes = wanted.filter_map(|path| ROUTES.iter().find(|route| route.path == path));
    let item = |route: &Route| {
        let path = route.path.replace("{model}", model.name);
        let item = of_route(route, &path, &Of::One(model));
        (path, item)
    };
    routes.map(item).collect()
}

/// Returns the operations at the paths that Vertex AI has configured.
pub(super) fn of_vertex<'a>(
    paths: Option<(&'a str, &'a str)>,
    models: &[Schema<'_>],
) -> Vec<(&'a str, PathItem)> {
    let Some((predict, health)) = paths else { return Vec::new() };
    let [of_predict, of_health] = vertex();
    vec![
        (predict, of_route(&of_predict, predict, &Of::All(models))),
        (health, of_route(&of_health, health, &Of::All(models))),
    ]
}

/// Whose operation it is.
enum Of<'a> {
    All(&'a [Schema<'a>]),
    One(&'a Schema<'a>),
}

impl Of<'_> {
    /// Returns the schemas of a kind of all models that have it.
    fn shapes(&self, kind: &str) -> Option<Shape> {
        let models: &[Schema<'_>] = match self {
            Of::One(model) => return Some(named(&name_of(model, kind))),
            Of::All(models) => models,
        };
        let names = models.iter().filter(|model| has_rows(model)).take(NAMED);
        let mut shapes: Vec<Shape> = names.map(|model| named(&name_of(model, kind))).collect();
        match shapes.len() {
            0 => None,
            1 => Some(shapes.remove(0)),
            _ => Some(any_of(shapes)),
        }
    }

    fn one(&self) -> Option<&Schema<'_>> {
        match self {
            Of::One(model) => Some(model),
            Of::All(_) => None,
        }
    }
}

fn of_route(route: &Route, path: &str, of: &Of<'_>) -> PathItem {
    let Route { method, tag, id, summary, .. } = route;
    let operation = OperationBuilder::new();
    let mut operation = match of.one() {
        None => operation.tag(*tag).operation_id(Some(*id)).summary(Some(*summary)),
        Some(model) => operation
            .tag(MODELS)
            .operation_id(Some(format!("{id}_{}", model.name)))
            .summary(Some(format!("Predict with {}", model.name))),
    };
    operation = operation.request_body(body(route, of)).responses(responses(route, of));
    for parameter in parameters(route, path, of) {
        operation = operation.parameter(parameter);
    }
    PathItem::new(method.clone(), operation.build())
}

fn parameters(route: &Route, path: &str, of: &Of<'_>) -> Vec<Parameter> {
    let mut parameters = Vec::new();
    for part in path.split('{').skip(1) {
        let name = part.split('}').next().unwrap_or(part);
        let (description, example) = match name {
            "model" => {
                let example = match of {
                    Of::All([model, ..]) => Some(json!(model.name)),
                    Of::All([]) | Of::One(_) => None,
                };
                ("The model's name.", example)
            }
            "version" => ("The version's number; 0 means the newest.", Some(json!("1"))),
            "label" => ("A label of the model's versions.", None),
            "route" => ("The route's name.", None),
            "action" => ("promote, pause, resume, abort or rollback.", Some(json!("rollback"))),
            _ => ("Any name: there is one endpoint.", None),
        };
        parameters.push(parameter(name, ParameterIn::Path, description, example));
    }
    if route.takes == Takes::QueryParameters {
        let query = "The query; without it a browser gets a page.";
        let example = Some(json!("{ server { name version } }"));
        parameters.push(parameter("query", ParameterIn::Query, query, example));
        for (name, text) in [
            ("variables", "Variables as a JSON object."),
            ("operationName", "The operation that is meant, where the query has several."),
        ] {
            parameters.push(parameter(name, ParameterIn::Query, text, None));
        }
    }
    if path == "/v1/journal" {
        for (name, text) in [("route", "One route's only."), ("limit", "How many; 20 at first.")] {
            parameters.push(parameter(name, ParameterIn::Query, text, None));
        }
    }
    if route.predicts() {
        let text = "The time that the request has, in whole milliseconds.";
        parameters.push(parameter("x-request-timeout-ms", ParameterIn::Header, text, None));
    }
    parameters
}

fn parameter(name: &str, place: ParameterIn, text: &str, example: Option<Value>) -> Parameter {
    let required = match place {
        ParameterIn::Path => Required::True,
        _ => Required::False,
    };
    let shape = match name {
        "x-request-timeout-ms" => super::shape::within(json!(1), None),
        _ => string(),
    };
    ParameterBuilder::new()
        .name(name)
        .parameter_in(place)
        .required(required)
        .description(Some(text))
        .schema(Some(shape))
        .example(example)
        .build()
}

fn content(shape: Shape, example: Option<Value>) -> Content {
    ContentBuilder::new().schema(Some(shape)).example(example).build()
}

fn body(route: &Route, of: &Of<'_>) -> Option<RequestBody> {
    let required = match route.takes {
        Takes::Nothing | Takes::QueryParameters => return None,
        Takes::Maybe(_) => Required::False,
        Takes::Json(_) | Takes::Instances | Takes::Invocation => Required::True,
    };
    let builder = RequestBodyBuilder::new().required(Some(required));
    let instances = || of.shapes("Instances").unwrap_or_else(|| named("PredictRequest"));
    Some(match route.takes {
        Takes::Json("PredictRequest") if of.one().is_some() => {
            let rows = of.one().and_then(sample_rows);
            let example = rows.map(|rows| json!({ "instances": rows }));
            builder.content(JSON, content(instances(), example)).build()
        }
        Takes::Json("InferRequest") => match of.one() {
            Some(model) => {
                let shape = named(&name_of(model, "InferRequest"));
                builder.content(JSON, content(shape, infer_request(model))).build()
            }
            None => builder.content(JSON, content(named("InferRequest"), None)).build(),
        },
        Takes::Json(schema) | Takes::Maybe(schema) => {
            builder.content(JSON, content(named(schema), example_of(schema))).build()
        }
        Takes::Instances => builder.content(JSON, content(instances(), None)).build(),
        Takes::Invocation => {
            let rows = of.shapes("Row").unwrap_or_else(|| named("Anything"));
            let json = any_of([instances(), list(rows.clone()), named("PredictRequest")]);
            builder
                .content(JSON, content(json, None))
                .content("application/jsonlines", content(rows, None))
                .content("text/csv", content(string(), None))
                .content("application/x-npy", content(base64("application/x-npy"), None))
                .content("image/*", content(base64("image/*"), None))
                .content("text/plain", content(string(), None))
                .build()
        }
        Takes::Nothing | Takes::QueryParameters => return None,
    })
}

/// Examples of bodies that are the same whatever the models are.
fn example_of(schema: &str) -> Option<Value> {
    match schema {
        "GraphqlRequest" => Some(json!({ "query": "{ models { name version state task } }" })),
        "EmbeddingsRequest" => Some(json!({ "input": ["a first text", "and a second"] })),
        "RerankRequest" => Some(json!({ "query": "red fruit", "documents": ["apples", "cars"] })),
        "TextsRequest" => Some(json!({ "query": "red fruit", "texts": ["apples", "cars"] })),
        "IndexRequest" => Some(json!({ "ready": true })),
        _ => None,
    }
}

fn responses(route: &Route, of: &Of<'_>) -> utoipa::openapi::Responses {
    let ok = ResponseBuilder::new().description("Answered.");
    let predictions = || of.shapes("Predictions").unwrap_or_else(|| named("PredictResponse"));
    let ok = match route.gives {
        Gives::Nothing => ok,
        Gives::Json("InferResponse") => {
            let shape = of.one().map(|model| named(&name_of(model, "InferResponse")));
            let shape = shape.unwrap_or_else(|| named("InferResponse"));
            ok.content(JSON, content(shape, None))
        }
        Gives::Json("PredictResponse") if of.one().is_some() => {
            ok.content(JSON, content(predictions(), None))
        }
        Gives::Json(schema) => ok.content(JSON, content(named(schema), None)),
        Gives::Predictions => ok.content(JSON, content(predictions(), None)),
        Gives::Text(media_type) => ok.content(media_type, content(string(), None)),
        Gives::Invocation => ok
            .content(JSON, content(any_of([predictions(), named("PredictResponse")]), None))
            .content("application/jsonlines", content(named("Anything"), None))
            .content("text/csv", content(string(), None))
            .content("application/x-npy", content(base64("application/x-npy"), None)),
    };
    let mut responses = ResponsesBuilder::new().response("200", ok.build());
    for (status, text) in failures(route) {
        let failed = ResponseBuilder::new().description(*text);
        let failed = match route.gives {
            // `/ping` says all by its status.
            Gives::Nothing if route.method == HttpMethod::Get => failed,
            _ => failed.content(JSON, content(named(route.fails()), None)),
        };
        responses = responses.response(*status, failed.build());
    }
    responses.build()
}

const BAD: (&str, &str) =
    ("400", "The request can never succeed as it is; the text names what is wrong.");
const NONE: (&str, &str) = ("404", "There is no such model or version.");
const LARGE: (&str, &str) = ("413", "The body is too long.");
const MEDIA: (&str, &str) = ("415", "The body's media type or encoding is not taken.");
const FULL: (&str, &str) = ("429", "Too many requests wait; the same one may succeed later.");
const AWAY: (&str, &str) = ("503", "The model is not ready, or the server is leaving.");
const LATE: (&str, &str) = ("504", "The deadline passed before there was an answer.");
const FAILED: (&str, &str) = ("500", "The engine failed.");

fn failures(route: &Route) -> &'static [(&'static str, &'static str)] {
    match route.path {
        _ if route.predicts() => &[BAD, NONE, LARGE, MEDIA, FULL, FAILED, AWAY, LATE],
        "/ping" | "/v2/health/ready" => &[("503", "Traffic must not come yet.")],
        path if path.contains("{model}") => &[BAD, NONE, AWAY, LATE],
        _ if route.takes != Takes::Nothing => &[BAD, LARGE],
        path if path.ends_with("health") || route.tag == super::routes::VERTEX => {
            &[("503", "Traffic must not come yet.")]
        }
        _ => &[],
    }
}
