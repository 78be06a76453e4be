//! The OpenAPI 3.1 document: every path that the server has, and what each model takes and gives.
//!
//! Paths and operations are in [`ROUTES`], the one list that a test of the server holds against its
//! router. What depends on a model has its name in front: `iris_Row`, `iris_Prediction`,
//! `iris_InferRequest`, `iris_InferResponse`. The paths of one model, `/v2/models/iris/infer` and
//! `/v1/models/iris:predict`, are those of the templates with its own schemas.
//!
//! Invariant: the document is made of `utoipa`'s types, so it is an OpenAPI document whatever the
//! models are called; a model's sample is an example only where it is rows that the model takes.

mod common;
mod example;
mod model;
mod operation;
mod routes;
mod shape;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, OpenApi, OpenApiBuilder, PathsBuilder};

pub use example::sample_rows;
pub use routes::{ROUTES, Route, TAGS};

use crate::Schema;

/// The document, as types and as text.
pub struct Document {
    /// The document.
    pub api: OpenApi,
    /// The document as JSON.
    pub json: Bytes,
}

/// What the document is made of.
#[derive(Clone, Copy, Debug)]
pub struct Described<'a> {
    /// The server's version.
    pub version: &'a str,
    /// One version of each model.
    pub models: &'a [Schema<'a>],
    /// The paths of Vertex AI for a prediction and for health, where they are configured.
    pub vertex: Option<(&'a str, &'a str)>,
}

/// Makes the document.
pub fn document(described: &Described<'_>) -> Document {
    let Described { version, models, vertex } = *described;
    let description = "Predictions by models, in the words of several contracts: whichever a client \
        speaks, the models and their answers are the same. A row is an object by input name; a picture \
        is Base64; a missing value is null. Floats that are no numbers are written NaN, Infinity and \
        -Infinity, as Python's json reads them.";
    let info =
        InfoBuilder::new().title("Outhaul").version(version).description(Some(description)).build();
    let mut components = ComponentsBuilder::new();
    for (name, schema) in common::schemas() {
        components = components.schema(name, schema);
    }
    for model in models {
        for (name, schema) in model::schemas(model) {
            components = components.schema(name, schema);
        }
    }
    let mut paths = PathsBuilder::new();
    for route in ROUTES {
        paths = paths.path(route.path, operation::item(route, models));
    }
    for model in models {
        for (path, item) in operation::of_model(model) {
            paths = paths.path(path, item);
        }
    }
    for (path, item) in operation::of_vertex(vertex, models) {
        // The platform may have chosen one of our own paths, which then has its meaning.
        if !ROUTES.iter().any(|route| route.path == path) {
            paths = paths.path(path, item);
        }
    }
    let tags = TAGS.iter().map(|&(name, description)| {
        TagBuilder::new().name(name).description(Some(description)).build()
    });
    let api = OpenApiBuilder::new()
        .info(info)
        .paths(paths.build())
        .components(Some(components.build()))
        .tags(Some(tags))
        .build();
    let json = serde_json::to_vec(&api).expect("keys are text and numbers finite").into();
    Document { api, json }
}
