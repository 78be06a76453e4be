//! GraphQL over the models: a schema made of their signatures, and queries for what they are and what
//! they predict.
//!
//! A query is carried out in three steps, of which only the second needs a server: [`Api::read`] checks
//! it, weighs it and returns the predictions that it asks for; somebody makes them, all at once if he
//! likes; [`Query::answer`] writes the whole answer from them and from [`Facts`].
//!
//! Invariants: a query is checked against [`Limits`] before any prediction is made; a failed prediction
//! is `null` with an error of its own, and the others are answered.
//!
//! The rule of names is in [`unique_names`]; the schema's text in [`Api::sdl`].

mod cost;
mod failure;
mod model;
mod names;
mod request;
mod resolve;
mod sdl;
#[cfg(test)]
mod tests;
mod values;

use std::collections::HashMap;
use std::sync::Arc;

use apollo_compiler::ast::Definition;
use apollo_compiler::parser::Parser;
use apollo_compiler::request::{RequestError, coerce_variable_values};
use apollo_compiler::resolvers::Execution;
use apollo_compiler::response::{ExecutionResponse, JsonMap};
use apollo_compiler::schema::Implementers;
use apollo_compiler::validation::{DiagnosticList, Valid};
use apollo_compiler::{ExecutableDocument, Name, introspection};
use outhaul_types::{InferResponse, VersionChoice};

pub use cost::Limits;
pub use failure::{FieldFailure, QUERY_LIMIT, Refusal, code, error_body};
pub use model::ModelTypes;
pub(crate) use model::describe_field;
pub use names::unique_names;
pub use request::GraphqlRequest;
pub use resolve::{Facts, LoadedFacts, ModelFacts};

use self::resolve::{Collected, Collector, Resolver};
use crate::Schema;

/// The schema of some models, ready for queries.
#[derive(Debug)]
pub struct Api {
    schema: Valid<apollo_compiler::Schema>,
    implementers: apollo_compiler::collections::HashMap<Name, Implementers>,
    models: Vec<ModelTypes>,
    sdl: String,
}

/// A prediction that a query asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// The model's own name.
    pub model: String,
    /// The version asked for.
    pub version: VersionChoice,
    /// A JSON list of rows by the names of the signature, for [`crate::rows::decode_instances`].
    pub rows: Vec<u8>,
    /// How many rows that are.
    pub count: usize,
    place: Place,
}

/// Where an answer holds a prediction: the keys of its field and of the field around it.
type Place = (String, String);

/// What came of one prediction.
#[derive(Clone, Debug)]
pub struct Predicted<'a> {
    /// The router's answer.
    pub response: InferResponse,
    /// What is known of the version that gave it.
    pub schema: Schema<'a>,
}

/// A query that may be carried out.
#[derive(Debug)]
pub struct Query {
    api: Arc<Api>,
    document: Valid<ExecutableDocument>,
    operation: Option<String>,
    variables: Valid<JsonMap>,
    asked: Vec<Asked>,
    refused: HashMap<Place, FieldFailure>,
    about_models: bool,
}

impl Api {
    /// Makes the schema of these models: one version each, whose types its field of `predict` has.
    pub fn of(models: &[Schema<'_>]) -> Self {
        let models = model::types_of(models);
        let sdl = sdl::write(&models);
        let parsed = apollo_compiler::Schema::parse_and_validate(sdl.as_str(), "schema.graphql");
        let schema = parsed.unwrap_or_else(|invalid| {
            // Names are unique and descriptions quoted, so this is a mistake of ours: other models
            // must not go without a schema for it.
            debug_assert!(false, "{}", invalid.errors);
            let sdl = sdl::write(&[]);
            let common = apollo_compiler::Schema::parse_and_validate(sdl, "schema.graphql");
            common.expect("the part of the schema that never varies is valid")
        });
        let implementers = schema.implementers_map();
        Api { schema, implementers, models, sdl }
    }

    /// Returns the schema as GraphQL's own language writes it.
    pub fn sdl(&self) -> &str {
        &self.sdl
    }

    /// Returns the models that have a field of `predict`, in the order of their names.
    pub fn models(&self) -> &[ModelTypes] {
        &self.models
    }

    /// Checks a query and returns what it asks for. `versions` is how many versions of models there
    /// are.
    ///
    /// # Errors
    ///
    /// Fails where the query is not valid, asks for more than the limits allow, or its variables do
    /// not fit.
    pub fn read(
        self: &Arc<Self>,
        request: GraphqlRequest,
        versions: usize,
        limits: &Limits,
    ) -> Result<Query, Refusal> {
        let GraphqlRequest { query, variables, operation } = request;
        if query.len() > limits.query_bytes {
            return Err(Refusal::limit(format!(
                "the query has {} bytes, and one may have {}: send rows as variables",
                query.len(),
                limits.query_bytes
            )));
        }
        let mut parser = Parser::new().token_limit(limits.tokens).recursion_limit(limits.nesting);
        let ast =
            parser.parse_ast(query, "query").map_err(|invalid| parse_refusal(&invalid.errors))?;
        if ast.definitions.iter().any(is_mutation) {
            return Err(Refusal::mutation());
        }
        let document = ast
            .to_executable_validate(&self.schema)
            .map_err(|errors| Refusal::validation(told(&errors.errors)))?;
        let refused = |error: RequestError| {
            Refusal::validation(vec![error.to_graphql_error(&document.sources)])
        };
        let chosen = document.operations.get(operation.as_deref()).map_err(refused)?;
        let variables =
            coerce_variable_values(&self.schema, chosen, &variables).map_err(refused)?;
        cost::check(&document, &chosen.selection_set, &variables, (versions, limits))?;
        introspection::check_max_depth(&document, chosen)
            .map_err(|error| Refusal::limit(error.message().to_string()))?;
        let collector = Collector::new(self);
        let execution = Execution::new(&self.schema, &document)
            .implementers_map(&self.implementers)
            .operation(chosen)
            .coerced_variable_values(&variables);
        execution.execute_sync(&collector).map_err(refused)?;
        let Collected { asked, refused, about_models } = collector.collected();
        let api = Arc::clone(self);
        Ok(Query { api, document, operation, variables, asked, refused, about_models })
    }
}

impl Query {
    /// Returns the predictions to make.
    pub fn asked(&self) -> &[Asked] {
        &self.asked
    }

    /// Returns whether the query asks what models there are.
    pub fn is_about_models(&self) -> bool {
        self.about_models
    }

    /// Writes the answer from what came of the predictions, in their order.
    pub fn answer(
        &self,
        predicted: &[Result<Predicted<'_>, FieldFailure>],
        facts: &Facts<'_>,
    ) -> Vec<u8> {
        let Query { api, document, asked, .. } = self;
        let places = asked.iter().zip(predicted);
        let places = places.map(|(asked, predicted)| (&asked.place, (asked, predicted)));
        let resolver = Resolver { api, facts, predicted: places.collect(), refused: &self.refused };
        let execution = Execution::new(&api.schema, document)
            .implementers_map(&api.implementers)
            .coerced_variable_values(&self.variables)
            .enable_schema_introspection(true)
            .operation_name(self.operation.as_deref());
        let executed = execution.and_then(|execution| execution.execute_sync(&resolver));
        let mut response = executed.unwrap_or_else(|error| ExecutionResponse {
            errors: vec![error.to_graphql_error(&document.sources)],
            data: None,
        });
        failure::unpack(&mut response.errors);
        serde_json::to_vec(&response).expect("an answer can be written to memory")
    }
}

fn is_mutation(definition: &Definition) -> bool {
    match definition {
        Definition::OperationDefinition(operation) => operation.operation_type.is_mutation(),
        _ => false,
    }
}

fn told(errors: &DiagnosticList) -> Vec<apollo_compiler::response::GraphQLError> {
    errors.iter().map(|error| error.to_json()).collect()
}

/// A text that is too long or too deep is a matter of limits, anything else of spelling.
fn parse_refusal(errors: &DiagnosticList) -> Refusal {
    let errors = told(errors);
    let limit = errors.iter().find(|error| error.message.contains("limit reached"));
    match limit {
        Some(error) => {
            Refusal::limit(format!("the query is too long or too deep: {}", error.message))
        }
        None => Refusal::parse(errors),
    }
}
