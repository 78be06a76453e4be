//! The schema as GraphQL's own language writes it.

use std::fmt::Write;

use super::model::{FieldTypes, ModelTypes};

/// What is the same for all models.
const COMMON: &str = r#""""Any JSON value."""
scalar JSON

"""A whole number of up to 64 bits."""
scalar Long

"""This server."""
type Server {
  name: String!
  version: String!
  "Whether traffic may come."
  ready: Boolean!
}

"""One version of a model."""
type Model {
  name: String!
  version: Long!
  "One of ready, loading, dormant, failed and unloaded. A dormant version is loaded when a prediction asks for it."
  state: String!
  "Why it does not answer at once; null where it does."
  reason: String
  "The labels that lead to it."
  labels: [String!]!
  "The field of `predict` that asks this model; null where there is none."
  field: String
  "The engine that runs it; null until it was loaded once."
  engine: String
  "What it does; null until it was loaded once."
  task: String
  "The bytes of memory that it takes, while it is loaded."
  memoryBytes: Long
  "Whether its requests are run together: exact, inexact or off."
  batching: String
  "The most rows that are run together."
  maxRows: Long
  "What a request sends; null until it was loaded once."
  inputs: [Field!]
  "What an answer holds; null until it was loaded once."
  outputs: [Field!]
  "Rows to try it with."
  sample: JSON
  "What it did since it was loaded; null while it is not."
  statistics: Statistics
}

"""One input or output of a model."""
type Field {
  name: String!
  "Its field in the model's own types."
  field: String
  "The type of its elements, in the words of the Open Inference Protocol."
  dataType: String!
  "Its shape, -1 where a size may vary; null where the model says nothing of it."
  shape: [Long!]
  "What each element is: tensor, text, image, number, boolean, category, date, label, score, embedding or json."
  content: String!
  "The values that it may have, where they are a closed list."
  choices: [String!]
  "What numbers are counted in."
  unit: String
  "Whether a row may leave it out."
  optional: Boolean!
}

"""What a version did since it was loaded."""
type Statistics {
  "Rows that were answered."
  rows: Long!
  "Times that the model ran."
  runs: Long!
  "Requests that were answered."
  succeeded: Count!
  "Requests that failed."
  failed: Count!
  "Waiting for an instance."
  queue: Count!
  "In the engine."
  compute: Count!
}

"""How often something happened and how long it took in all."""
type Count {
  count: Long!
  seconds: Float!
}

"""How the time of a prediction was spent, in microseconds."""
type Time {
  "Waiting for the model to be loaded."
  load: Float!
  "Turning what came into the model's tensors, and the model's tensors into the answer."
  transform: Float!
  "Waiting for an instance."
  queue: Float!
  "Joining the requests of a batch."
  assemble: Float!
  "In the engine."
  compute: Float!
  "Parting the batch's outputs."
  split: Float!
}
"#;

/// Writes the schema of these models.
pub(crate) fn write(models: &[ModelTypes]) -> String {
    let mut sdl = String::with_capacity(COMMON.len() + 1024 * (models.len() + 1));
    sdl.push_str(
        "type Query {\n  server: Server!\n  \"Every version of every model.\"\n  \
         models: [Model!]!\n  \"The version that a prediction would reach, whatever its state; null \
         where there is none.\"\n  model(name: String!, version: Long, label: String): Model\n",
    );
    if !models.is_empty() {
        sdl.push_str("  \"Predictions, typed: one field for each model.\"\n  predict: Predict!\n");
    }
    sdl.push_str(
        "  \"A prediction of any model, by its own name: `{\\\"model\\\", \\\"version\\\", \
         \\\"predictions\\\"}`. A row is an object by input name.\"\n  \
         predict_json(model: String!, version: Long, label: String, rows: [JSON!]!): JSON\n}\n\n",
    );
    sdl.push_str(COMMON);
    if models.is_empty() {
        return sdl;
    }
    sdl.push_str("\n\"\"\"Predictions by model.\"\"\"\ntype Predict {\n");
    for model in models {
        let ModelTypes { field, base, description, .. } = model;
        let _ = writeln!(
            sdl,
            "  {}\n  {field}(rows: [{base}Row!]!, version: Long, label: String): {base}Prediction",
            quoted(description)
        );
    }
    sdl.push_str("}\n");
    for model in models {
        of_model(&mut sdl, model);
    }
    sdl
}

fn of_model(sdl: &mut String, model: &ModelTypes) {
    let ModelTypes { name, base, inputs, outputs, .. } = model;
    let _ = writeln!(sdl, "\n\"\"\"A row for {name}.\"\"\"\ninput {base}Row {{");
    for input in inputs {
        let mark = if input.optional { "" } else { "!" };
        let _ = writeln!(sdl, "  {}", line(input, mark));
    }
    let _ = writeln!(sdl, "}}\n\n\"\"\"What {name} says of a row.\"\"\"\ntype {base}Output {{");
    for output in outputs {
        let _ = writeln!(sdl, "  {}", line(output, ""));
    }
    let _ = writeln!(
        sdl,
        "}}\n\n\"\"\"An answer of {name}.\"\"\"\ntype {base}Prediction {{\n  model: String!\n  \
         \"The version that answered.\"\n  version: Long!\n  time: Time!\n  \
         \"One for each row sent, in their order.\"\n  rows: [{base}Output!]!\n}}"
    );
}

fn line(field: &FieldTypes, mark: &str) -> String {
    let name = match *field.name == *field.field {
        true => String::new(),
        false => format!("`{}`, ", field.name),
    };
    let description = quoted(&format!("{name}{}", field.description));
    format!("{description}\n  {}: {}{mark}", field.field, field.type_of())
}

/// Writes a description as a string of the language, on one line.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => {
                quoted.push('\\');
                quoted.push(character);
            }
            // Of no use in a description, and not allowed in the language.
            other if other.is_control() => quoted.push(' '),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}
