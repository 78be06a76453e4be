//! A GraphQL request as HTTP carries it.

use apollo_compiler::response::JsonMap;
use apollo_compiler::response::serde_json_bytes::Value as JsonValue;
use serde::Deserialize;

use super::failure::Refusal;

/// A request, before anything is known of its query.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GraphqlRequest {
    pub(crate) query: String,
    pub(crate) variables: JsonMap,
    pub(crate) operation: Option<String>,
}

/// The members of a body. Others are ignored: `extensions` is free for clients to use.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    query: Option<String>,
    #[serde(default)]
    variables: Option<JsonValue>,
    #[serde(default)]
    operation_name: Option<String>,
}

impl GraphqlRequest {
    /// Reads a body of JSON.
    ///
    /// # Errors
    ///
    /// Fails where it is no JSON, or no object with a `query`.
    pub fn of_body(body: &[u8]) -> Result<Self, Refusal> {
        let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
        if first == Some(&b'[') {
            let message = "the body is a list: several requests in one are not taken, one query may \
                           hold several predictions";
            return Err(Refusal::malformed(message));
        }
        let body: Body = serde_json::from_slice(body).map_err(|error| {
            Refusal::malformed(format!(
                "the body must be a JSON object {{\"query\", \"variables\", \"operationName\"}}: {error}"
            ))
        })?;
        let missing = || Refusal::malformed("'query' is missing");
        GraphqlRequest::of(body.query.ok_or_else(missing)?, body.variables, body.operation_name)
    }

    /// Reads the parameters of a URL, percent-decoded.
    ///
    /// # Errors
    ///
    /// Fails where there is no `query`, or `variables` is no JSON object.
    pub fn of_parameters<'a>(
        parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, Refusal> {
        let (mut query, mut variables, mut operation) = (None, None, None);
        for (name, value) in parameters {
            match name {
                "query" => query = Some(value.to_owned()),
                "variables" if !value.is_empty() => {
                    let parsed: JsonValue = serde_json::from_str(value).map_err(|error| {
                        Refusal::malformed(format!("'variables' is no JSON: {error}"))
                    })?;
                    variables = Some(parsed);
                }
                "operationName" if !value.is_empty() => operation = Some(value.to_owned()),
                _ => {}
            }
        }
        let missing = || Refusal::malformed("the parameter 'query' is missing");
        GraphqlRequest::of(query.ok_or_else(missing)?, variables, operation)
    }

    fn of(
        query: String,
        variables: Option<JsonValue>,
        operation: Option<String>,
    ) -> Result<Self, Refusal> {
        let variables = match variables {
            None | Some(JsonValue::Null) => JsonMap::new(),
            Some(JsonValue::Object(variables)) => variables,
            Some(_) => return Err(Refusal::malformed("'variables' must be an object")),
        };
        Ok(GraphqlRequest { query, variables, operation })
    }
}
