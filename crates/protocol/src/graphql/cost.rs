//! What a query may ask for, and what it does ask for.
//!
//! Fragments are weighed once, however often they are spread, and numbers stop at their largest, so
//! a query whose fragments double at every step is weighed as fast as any other of its length.

use std::collections::HashMap;

use apollo_compiler::ast::Value;
use apollo_compiler::executable::{Field, Selection, SelectionSet};
use apollo_compiler::response::JsonMap;
use apollo_compiler::response::serde_json_bytes::Value as JsonValue;
use apollo_compiler::{ExecutableDocument, Name};

use super::failure::Refusal;

/// What one request may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the query's text; rows sent as variables do not count. Default: 64 KiB.
    pub query_bytes: usize,
    /// Words and signs of the query's text. Default: 16,384.
    pub tokens: usize,
    /// Braces and lists inside of each other. Default: 64.
    pub nesting: usize,
    /// Fields inside of each other; questions about the schema do not count. Default: 12.
    pub depth: usize,
    /// Each field counts 1, what is selected of a list of models once for each version that there is,
    /// what is selected of a prediction once for each row sent, and each row 1. Default: 10,000.
    pub cost: u64,
    /// Fields under another name. Default: 200.
    pub aliases: u64,
    /// Predictions. Default: 32.
    pub predictions: u64,
    /// Questions about the schema. Default: 4.
    pub schema_reads: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            query_bytes: 64 << 10,
            tokens: 16_384,
            nesting: 64,
            depth: 12,
            cost: 10_000,
            aliases: 200,
            predictions: 32,
            schema_reads: 4,
        }
    }
}

/// What a selection asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Weight {
    depth: usize,
    cost: u64,
    aliases: u64,
    predictions: u64,
    schema_reads: u64,
}

/// Weighs a selection of one operation.
struct Scales<'a> {
    document: &'a ExecutableDocument,
    variables: &'a JsonMap,
    /// Versions that there are.
    versions: usize,
    fragments: HashMap<&'a Name, Weight>,
}

/// Checks a valid operation against the limits.
pub(crate) fn check(
    document: &ExecutableDocument,
    selection: &SelectionSet,
    variables: &JsonMap,
    (versions, limits): (usize, &Limits),
) -> Result<(), Refusal> {
    let mut scales = Scales { document, variables, versions, fragments: HashMap::new() };
    let weight = scales.selection(selection);
    let too_many = |what: &str, asked: u64, limit: u64| {
        Err(Refusal::limit(format!("the query has {asked} {what}, and one may have {limit}")))
    };
    if weight.depth > limits.depth {
        return Err(Refusal::limit(format!(
            "the query is {} fields deep, and one may be {} deep",
            weight.depth, limits.depth
        )));
    }
    if weight.cost > limits.cost {
        return Err(Refusal::limit(format!(
            "the query costs {}, and one may cost {}: each field counts, what is selected of a \
             prediction once for each row; ask for fewer rows or fields at once",
            weight.cost, limits.cost
        )));
    }
    if weight.aliases > limits.aliases {
        return too_many("aliases", weight.aliases, limits.aliases);
    }
    if weight.predictions > limits.predictions {
        return too_many("predictions", weight.predictions, limits.predictions);
    }
    if weight.schema_reads > limits.schema_reads {
        return too_many("questions about the schema", weight.schema_reads, limits.schema_reads);
    }
    Ok(())
}

impl<'a> Scales<'a> {
    fn selection(&mut self, set: &'a SelectionSet) -> Weight {
        let mut whole = Weight::default();
        for selection in &set.selections {
            let part = match selection {
                Selection::Field(field) => self.field(&set.ty, field),
                Selection::InlineFragment(inline) => self.selection(&inline.selection_set),
                Selection::FragmentSpread(spread) => self.fragment(&spread.fragment_name),
            };
            whole.depth = whole.depth.max(part.depth);
            whole.cost = whole.cost.saturating_add(part.cost);
            whole.aliases = whole.aliases.saturating_add(part.aliases);
            whole.predictions = whole.predictions.saturating_add(part.predictions);
            whole.schema_reads = whole.schema_reads.saturating_add(part.schema_reads);
        }
        whole
    }

    fn fragment(&mut self, name: &'a Name) -> Weight {
        if let Some(weight) = self.fragments.get(name) {
            return *weight;
        }
        let fragment = self.document.fragments.get(name);
        // A valid document has it, and no fragment leads to itself.
        let weight = fragment.map(|fragment| self.selection(&fragment.selection_set));
        let weight = weight.unwrap_or_default();
        self.fragments.insert(name, weight);
        weight
    }

    fn field(&mut self, of: &Name, field: &'a Field) -> Weight {
        let aliases = u64::from(field.alias.is_some());
        if field.name.starts_with("__") {
            let schema_reads = u64::from(field.name != "__typename");
            return Weight { depth: 1, cost: 1, aliases, predictions: 0, schema_reads };
        }
        let inner = self.selection(&field.selection_set);
        let prediction = of == "Predict" || (of == "Query" && field.name == "predict_json");
        let (times, rows) = match prediction {
            true => {
                let rows = self.rows(field);
                (rows.max(1), rows)
            }
            false if of == "Query" && field.name == "models" => (self.versions.max(1) as u64, 0),
            false => (1, 0),
        };
        Weight {
            depth: inner.depth + 1,
            cost: inner.cost.saturating_mul(times).saturating_add(rows).saturating_add(1),
            aliases: inner.aliases.saturating_add(aliases),
            predictions: inner.predictions.saturating_add(u64::from(prediction)),
            schema_reads: inner.schema_reads,
        }
    }

    /// Returns how many rows a prediction sends.
    fn rows(&self, field: &Field) -> u64 {
        let rows = match field.specified_argument_by_name("rows").map(|value| &**value) {
            Some(Value::List(rows)) => rows.len(),
            Some(Value::Variable(name)) => match self.variables.get(name.as_str()) {
                Some(JsonValue::Array(rows)) => rows.len(),
                _ => 1,
            },
            _ => 1,
        };
        rows as u64
    }
}
