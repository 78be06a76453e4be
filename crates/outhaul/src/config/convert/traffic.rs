//! Routes and callers: tables in the file, JSON in a variable or flag.

use std::collections::BTreeMap;

use outhaul_repository::{Rule, Value};
use outhaul_types::{CallerSpec, ModelName, Name, RouteSpec};
use serde::de::DeserializeOwned;
use serde_json::{Value as Json, json};

/// Where the requests for each name go.
pub(in crate::config) fn routes(value: &Value) -> Result<BTreeMap<ModelName, RouteSpec>, Rule> {
    let remedy = "write [routes.NAME] with targets = [{ to = \"NAME@VERSION\", weight = 1 }]";
    let routes: BTreeMap<ModelName, RouteSpec> = read(value, "routes", remedy)?;
    for (name, route) in &routes {
        route
            .check()
            .map_err(|error| Rule::new(format!("of '{name}' is wrong: {error}"), remedy))?;
    }
    Ok(routes)
}

/// What callers may do.
pub(in crate::config) fn callers(value: &Value) -> Result<BTreeMap<Name, CallerSpec>, Rule> {
    let remedy = "write [callers.NAME] with weight, rate, burst or priority; '*' means all others";
    let callers: BTreeMap<Name, CallerSpec> = read(value, "callers", remedy)?;
    for (name, caller) in &callers {
        let rate = caller.rate.is_none_or(|rate| rate.is_finite() && rate > 0.0);
        if caller.weight == 0 || !rate || caller.burst == Some(0) {
            let must = format!("of '{name}': weight, rate and burst must be above 0");
            return Err(Rule::new(must, remedy));
        }
    }
    Ok(callers)
}

/// The address of Redis.
pub(in crate::config) fn redis(value: &Value) -> Result<Option<String>, Rule> {
    let is_url = |text: &&str| text.starts_with("redis://") || text.starts_with("rediss://");
    match value.text().filter(is_url) {
        Some(url) => Ok(Some(url.to_owned())),
        None => Err(Rule::new("must be a URL of Redis", "write it as in redis://127.0.0.1:6379")),
    }
}

/// The name of a header.
pub(in crate::config) fn header(value: &Value) -> Result<String, Rule> {
    let is_name = |text: &&str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        !text.is_empty() && text.bytes().all(allowed)
    };
    match value.text().filter(is_name) {
        Some(name) => Ok(name.to_ascii_lowercase()),
        None => Err(Rule::new("must be the name of a header", "leave it out for x-outhaul-caller")),
    }
}

fn read<T: DeserializeOwned>(value: &Value, what: &str, remedy: &'static str) -> Result<T, Rule> {
    let json = match value {
        Value::Text(text) => serde_json::from_str(text)
            .map_err(|error| Rule::new(format!("is no JSON: {error}"), remedy))?,
        value => json_of(value),
    };
    serde_json::from_value(json)
        .map_err(|error| Rule::new(format!("does not describe {what}: {error}"), remedy))
}

fn json_of(value: &Value) -> Json {
    match value {
        Value::Text(text) | Value::Other(text) => json!(text),
        Value::Whole(number) => json!(number),
        Value::Fraction(number) => json!(number),
        Value::Boolean(truth) => json!(truth),
        Value::List(values) => values.iter().map(json_of).collect(),
        Value::Table(entries) => {
            entries.iter().map(|(name, value)| (name.clone(), json_of(value))).collect()
        }
    }
}
