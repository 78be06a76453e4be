//! From a field of a query to its value.
//!
//! The same executor walks a query twice: [`Collector`] finds the predictions that it asks for, with
//! their arguments; [`Resolver`] writes the answer. So fragments, `@skip`, merged fields and variables
//! mean the same both times.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

use apollo_compiler::resolvers::{FieldError, ObjectValue, ResolveInfo, ResolvedValue};
use apollo_compiler::response::JsonMap;
use apollo_compiler::response::serde_json_bytes::{Map, Value as JsonValue};
use outhaul_types::{
    ErrorKind, Field, Label, ModelVersion, NamedTensor, ShapePattern, TensorSpec, Timings,
    VersionChoice,
};

use super::failure::FieldFailure;
use super::model::ModelTypes;
use super::values::{Form, content, row_value, whole_row, write_rows};
use super::{Api, Asked, Place, Predicted};
use crate::Schema;
use crate::describe::{DurationStatistic, ModelStatistics, ServerMetadata};

/// What an answer may tell beside predictions.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// What the server is.
    pub server: ServerMetadata<'a>,
    /// Whether traffic may come.
    pub ready: bool,
    /// Every version, in the order of name and number; left empty where the query does not ask.
    pub models: Vec<ModelFacts<'a>>,
}

/// What is known of one version.
#[derive(Clone, Debug)]
pub struct ModelFacts<'a> {
    /// The model's name.
    pub name: &'a str,
    /// The version's number.
    pub version: ModelVersion,
    /// Its state as one word.
    pub state: &'a str,
    /// Whether a request for the model's newest version may lead here.
    pub in_service: bool,
    /// Why it does not answer at once; empty where it does.
    pub reason: &'a str,
    /// The labels that lead to it.
    pub labels: Vec<&'a str>,
    /// The bytes of memory that it takes.
    pub memory: Option<u64>,
    /// What is known once it was loaded.
    pub loaded: Option<LoadedFacts<'a>>,
    /// What it did since it was loaded.
    pub statistics: Option<ModelStatistics>,
}

/// What is known of a version once it was loaded.
#[derive(Clone, Copy, Debug)]
pub struct LoadedFacts<'a> {
    /// What it takes and gives.
    pub schema: Schema<'a>,
    /// The engine that runs it.
    pub engine: &'a str,
    /// Whether its requests are run together, as one word.
    pub batching: &'a str,
    /// The most rows that are run together.
    pub max_rows: usize,
}

type Resolved<'a> = Result<ResolvedValue<'a>, FieldError>;

fn leaf<'a>(value: impl Into<JsonValue>) -> Resolved<'a> {
    Ok(ResolvedValue::leaf(value))
}

/// Returns a list of the schema; a list within a value of the scalar `JSON` is a leaf.
fn list<'a>(values: impl IntoIterator<Item = JsonValue, IntoIter: 'a>) -> Resolved<'a> {
    Ok(ResolvedValue::list(values.into_iter().map(ResolvedValue::leaf)))
}

fn failed<'a>(failure: &FieldFailure) -> Resolved<'a> {
    Err(FieldError { message: failure.packed() })
}

/// Finds the predictions that a query asks for.
pub(super) struct Collector<'a> {
    api: &'a Api,
    collected: RefCell<Collected>,
}

#[derive(Default)]
pub(super) struct Collected {
    pub(super) asked: Vec<Asked>,
    /// Predictions whose arguments lead nowhere.
    pub(super) refused: HashMap<Place, FieldFailure>,
    pub(super) about_models: bool,
}

impl<'a> Collector<'a> {
    pub(super) fn new(api: &'a Api) -> Self {
        Collector { api, collected: RefCell::default() }
    }

    pub(super) fn collected(self) -> Collected {
        self.collected.into_inner()
    }

    fn collect(&self, place: Place, arguments: &JsonMap, types: Option<&ModelTypes>) {
        let mut collected = self.collected.borrow_mut();
        match asked(place.clone(), arguments, types) {
            Ok(asked) => collected.asked.push(asked),
            Err(failure) => drop(collected.refused.insert(place, failure)),
        }
    }
}

fn asked(
    place: Place,
    arguments: &JsonMap,
    types: Option<&ModelTypes>,
) -> Result<Asked, FieldFailure> {
    let named = || arguments.get("model").and_then(|model| model.as_str()).unwrap_or_default();
    let rows = match arguments.get("rows") {
        Some(JsonValue::Array(rows)) => &rows[..],
        _ => &[],
    };
    if rows.is_empty() {
        return Err(FieldFailure::new(ErrorKind::InvalidInput, "'rows' is empty"));
    }
    Ok(Asked {
        model: types.map_or_else(|| named().to_owned(), |types| types.name.clone()),
        version: choice(arguments)?,
        rows: write_rows(rows, types.map_or(&[], |types| &types.inputs)),
        count: rows.len(),
        place,
    })
}

/// Reads `version` and `label`, of which one may be given.
fn choice(arguments: &JsonMap) -> Result<VersionChoice, FieldFailure> {
    let given = |name| arguments.get(name).filter(|value| !value.is_null());
    let invalid = |message: String| Err(FieldFailure::new(ErrorKind::InvalidInput, message));
    match (given("version"), given("label")) {
        (Some(_), Some(_)) => invalid("'version' and 'label' are both given".to_owned()),
        (None, None) => Ok(VersionChoice::Latest),
        (Some(version), None) => match version.as_u64() {
            Some(0) => Ok(VersionChoice::Latest),
            Some(version) => Ok(VersionChoice::Exact(ModelVersion(version))),
            None => invalid("'version' must be a whole number".to_owned()),
        },
        (None, Some(label)) => match Label::new(label.as_str().unwrap_or_default()) {
            Ok(label) => Ok(VersionChoice::Label(label)),
            Err(error) => invalid(error.to_string()),
        },
    }
}

fn key(info: &ResolveInfo<'_>) -> String {
    let field = info.field_selections().first();
    field.map_or_else(String::new, |field| field.response_key().to_string())
}

impl ObjectValue for Collector<'_> {
    fn type_name(&self) -> &str {
        "Query"
    }

    fn resolve_field<'a>(&'a self, info: &'a ResolveInfo<'a>) -> Resolved<'a> {
        match info.field_name() {
            "predict" => Ok(ResolvedValue::object(CollectPredict { all: self, key: key(info) })),
            "predict_json" => {
                self.collect((key(info), String::new()), info.arguments(), None);
                Ok(ResolvedValue::SkipForPartialExecution)
            }
            "models" | "model" => {
                self.collected.borrow_mut().about_models = true;
                Ok(ResolvedValue::SkipForPartialExecution)
            }
            _ => Ok(ResolvedValue::SkipForPartialExecution),
        }
    }
}

struct CollectPredict<'a> {
    all: &'a Collector<'a>,
    key: String,
}

impl ObjectValue for CollectPredict<'_> {
    fn type_name(&self) -> &str {
        "Predict"
    }

    fn resolve_field<'a>(&'a self, info: &'a ResolveInfo<'a>) -> Resolved<'a> {
        let model = self.all.api.models.iter().find(|model| model.field == info.field_name());
        self.all.collect((self.key.clone(), key(info)), info.arguments(), model);
        Ok(ResolvedValue::SkipForPartialExecution)
    }
}

/// Writes the answer.
pub(super) struct Resolver<'a> {
    pub(super) api: &'a Api,
    pub(super) facts: &'a Facts<'a>,
    pub(super) predicted: HashMap<&'a Place, (&'a Asked, &'a Result<Predicted<'a>, FieldFailure>)>,
    pub(super) refused: &'a HashMap<Place, FieldFailure>,
}

impl Resolver<'_> {
    /// Returns what came of the prediction at a place.
    fn predicted(&self, place: &Place) -> Result<(&Asked, &Predicted<'_>), FieldFailure> {
        if let Some(failure) = self.refused.get(place) {
            return Err(failure.clone());
        }
        match self.predicted.get(place) {
            Some((asked, Ok(predicted))) => Ok((asked, predicted)),
            Some((_, Err(failure))) => Err(failure.clone()),
            None => Err(FieldFailure::new(ErrorKind::Internal, "internal error")),
        }
    }

    fn model(&self, arguments: &JsonMap) -> Result<Option<&ModelFacts<'_>>, FieldFailure> {
        let name = arguments.get("model").or_else(|| arguments.get("name"));
        let name = name.and_then(|name| name.as_str()).unwrap_or_default();
        let versions = || self.facts.models.iter().filter(|facts| facts.name == name);
        Ok(match choice(arguments)? {
            VersionChoice::Exact(version) => versions().find(|facts| facts.version == version),
            VersionChoice::Label(label) => {
                versions().find(|facts| facts.labels.contains(&label.as_str()))
            }
            VersionChoice::Latest => {
                let newest = versions().rfind(|facts| facts.in_service);
                newest.or_else(|| versions().next_back())
            }
        })
    }

    fn generic(&self, place: &Place) -> Result<JsonValue, FieldFailure> {
        let (asked, Predicted { response, schema }) = self.predicted(place)?;
        let rows = (0..asked.count)
            .map(|row| whole_row(&response.outputs, schema, row, asked.count))
            .collect::<Result<Vec<_>, _>>()?;
        let mut answer = Map::with_capacity(3);
        answer.insert("model", JsonValue::from(response.model.as_str()));
        answer.insert("version", JsonValue::from(response.version.0));
        answer.insert("predictions", JsonValue::Array(rows));
        Ok(JsonValue::Object(answer))
    }
}

impl ObjectValue for Resolver<'_> {
    fn type_name(&self) -> &str {
        "Query"
    }

    fn resolve_field<'a>(&'a self, info: &'a ResolveInfo<'a>) -> Resolved<'a> {
        match info.field_name() {
            "server" => Ok(ResolvedValue::object(OfServer(self.facts))),
            "models" => {
                let all = self.facts.models.iter().map(|facts| OfModel { all: self, facts });
                Ok(ResolvedValue::list(all.map(ResolvedValue::object)))
            }
            "model" => match self.model(info.arguments()) {
                Ok(facts) => Ok(ResolvedValue::nullable_object(
                    facts.map(|facts| OfModel { all: self, facts }),
                )),
                Err(failure) => failed(&failure),
            },
            "predict" => Ok(ResolvedValue::object(OfPredict { all: self, key: key(info) })),
            "predict_json" => match self.generic(&(key(info), String::new())) {
                Ok(answer) => leaf(answer),
                Err(failure) => failed(&failure),
            },
            _ => Err(self.unknown_field_error(info)),
        }
    }
}

struct OfServer<'a>(&'a Facts<'a>);

impl ObjectValue for OfServer<'_> {
    fn type_name(&self) -> &str {
        "Server"
    }

    fn resolve_field<'a>(&'a self, info: &'a ResolveInfo<'a>) -> Resolved<'a> {
        match info.field_name() {
            "name" => leaf(self.0.server.name),
            "version" => leaf(self.0.server.version),
            "ready" => leaf(self.0.ready),
            _ => Err(self.unknown_field_error(info)),
        }
    }
}

struct OfModel<'a> {
    all: &'a Resolver<'a>,
    facts: &'a ModelFacts<'a>,
}

impl OfModel<'_> {
    /// Returns the inputs or outputs; null where they are not known.
    fn fields<'a>(&'a self, inputs: bool) -> Resolved<'a> {
        let Some(LoadedFacts { schema, .. }) = &self.facts.loaded else {
            return Ok(ResolvedValue::null());
        };
        let (specs, meanings) = match inputs {
            true => (&schema.signature.inputs, &schema.interface.inputs),
            false => (&schema.signature.outputs, &schema.interface.outputs),
        };
        let types = self.all.api.models.iter().find(|types| types.name == self.facts.name);
        let fields = specs.iter().zip(meanings).map(move |(spec, meaning)| {
            let types = types.map(|types| if inputs { &types.inputs } else { &types.outputs });
            let field = types.and_then(|types| types.iter().find(|field| field.name == spec.name));
            OfField { spec, meaning, field: field.map(|field| field.field.as_str()) }
        });
        Ok(ResolvedValue::list(fields.map(ResolvedValue::object)))
    }
}

impl ObjectValue for OfModel<'_> {
    fn type_name(&self) -> &str {
        "Model"
    }

    fn resolve_field<'a>(&'a self, info: &'a ResolveInfo<'a>) -> Resolved<'a> {
        let OfModel { all, facts } = self;
        let loaded = facts.loaded.as_ref();
        match info.field_name() {
            "name" => leaf(facts.name),
            "version" => leaf(facts.version.0),
            "state" => leaf(facts.state),
            "reason" => leaf((!facts.reason.is_empty()).then_some(facts.reason)),
            "labels" => list(facts.labels.iter().map(|&label| label.into())),
            "field" => {
                let types = all.api.models.iter().find(|types| types.name == facts.name);
                leaf(types.map(|types| types.field.as_str()))
            }
            "engine" => leaf(loaded.map(|loaded| loaded.engine)),
            "task" => leaf(loaded.map(|loaded| loaded.schema.interface.task.as_str())),
            "memoryBytes" => leaf(facts.memory),
            "batching" => leaf(loaded.map(|loaded| loaded.batching)),
            "maxRows" => leaf(loaded.map(|loaded| loaded.max_rows as u64)),
            "inputs" => self.fields(true),
            "outputs" => self.fields(false),
            "sample" => {
                let sample = loaded.and_then(|loaded| loaded.schema.interface.sample.as_deref());
                let sample = sample.and_then(|text| serde_json::from_str::<JsonValue>(text).ok());
                leaf(sample.unwrap_or(JsonValue::Null))
            }
            "statistics" => {
                let statistics = facts.statistics.as_ref();
                Ok(ResolvedValue::nullable_object(statistics.map(OfStatistics)))
            }
            _ => Err(self.unknown_field_error(info)),
        }
    }
}

struct OfField<'a> {
    spec: &'a TensorSpec,
    meaning: &'a Field,
    field: Option<&'a str>,
}

impl ObjectValue for OfField<'_> {
    fn type_name(&self) -> &str {
        "Field"
    }

    fn resolve_field<'a>(&'a self, info: &'a ResolveInfo<'a>) -> Resolved<'a> {
        let OfField { spec, meaning, field } = self;
        match info.field_name() {
            "name" => leaf(spec.name.as_str()),
            "field" => leaf(*field),
            "dataType" => leaf(spec.data_type.name()),
            "shape" => match &spec.shape {
                ShapePattern::AnyRank => Ok(ResolvedValue::null()),
                ranked => list(ranked.protocol_dimensions().into_iter().map(JsonValue::from)),
            },
            "content" => leaf(meaning.content.as_str()),
            "choices" => match &meaning.choices {
                None => Ok(ResolvedValue::null()),
                Some(choices) => list(choices.iter().map(|choice| choice.as_str().into())),
            },
            "unit" => leaf(meaning.unit.as_ref().map(|unit| unit.as_str())),
            "optional" => leaf(spec.optional),
            _ => Err(self.unknown_field_error(info)),
        }
    }
}

struct OfStatistics<'a>(&'a ModelStatistics);

impl ObjectValue for OfStatistics<'_> {
    fn type_name(&self) -> &str {
        "Statistics"
    }

    fn resolve_field<'a>(&'a self, info: &'a ResolveInfo<'a>) -> Resolved<'a> {
        let statistics = self.0;
        let count = |count: DurationStatistic| Ok(ResolvedValue::object(OfCount(count)));
        match info.field_name() {
            "rows" => leaf(statistics.inference_count),
            "runs" => leaf(statistics.execution_count),
            "succeeded" => count(statistics.success),
            "failed" => count(statistics.fail),
            "queue" => count(statistics.queue),
            "compute" => count(statistics.compute_infer),
            _ => Err(self.unknown_field_error(info)),
        }
    }
}

struct OfCount(DurationStatistic);

impl ObjectValue for OfCount {
    fn type_name(&self) -> &str {
        "Count"
    }

    fn resolve_field<'a>(&'a self, info: &'a ResolveInfo<'a>) -> Resolved<'a> {
        match info.field_name() {
            "count" => leaf(self.0.count),
            "seconds" => leaf(Duration::from_nanos(self.0.ns).as_secs_f64()),
            _ => Err(self.unknown_field_error(info)),
        }
    }
}

struct OfPredict<'a> {
    all: &'a Resolver<'a>,
    key: String,
}

impl ObjectValue for OfPredict<'_> {
    fn type_name(&self) -> &str {
        "Predict"
    }

    fn resolve_field<'a>(&'a self, info: &'a ResolveInfo<'a>) -> Resolved<'a> {
        let models = &self.all.api.models;
        let Some(types) = models.iter().find(|model| model.field == info.field_name()) else {
            return Err(self.unknown_field_error(info));
        };
        match self.all.predicted(&(self.key.clone(), key(info))) {
            Ok((asked, predicted)) => {
                let name = format!("{}Prediction", types.base);
                let rows = asked.count;
                Ok(ResolvedValue::object(OfPrediction { types, predicted, rows, name }))
            }
            Err(failure) => failed(&failure),
        }
    }
}

struct OfPrediction<'a> {
    types: &'a ModelTypes,
    predicted: &'a Predicted<'a>,
    rows: usize,
    name: String,
}

impl ObjectValue for OfPrediction<'_> {
    fn type_name(&self) -> &str {
        &self.name
    }

    fn resolve_field<'a>(&'a self, info: &'a ResolveInfo<'a>) -> Resolved<'a> {
        let response = &self.predicted.response;
        match info.field_name() {
            "model" => leaf(response.model.as_str()),
            "version" => leaf(response.version.0),
            "time" => Ok(ResolvedValue::object(OfTime(&response.timings))),
            "rows" => {
                let name = format!("{}Output", self.types.base);
                let rows = (0..self.rows).map(move |row| {
                    let name = name.clone();
                    ResolvedValue::object(OfRow { prediction: self, row, name })
                });
                Ok(ResolvedValue::list(rows))
            }
            _ => Err(self.unknown_field_error(info)),
        }
    }
}

struct OfTime<'a>(&'a Timings);

impl ObjectValue for OfTime<'_> {
    fn type_name(&self) -> &str {
        "Time"
    }

    fn resolve_field<'a>(&'a self, info: &'a ResolveInfo<'a>) -> Resolved<'a> {
        let Timings { load, transform, queue, assemble, compute, split, .. } = self.0;
        let time = match info.field_name() {
            "load" => load,
            "transform" => transform,
            "queue" => queue,
            "assemble" => assemble,
            "compute" => compute,
            "split" => split,
            _ => return Err(self.unknown_field_error(info)),
        };
        leaf(time.as_nanos() as f64 / 1e3)
    }
}

struct OfRow<'a> {
    prediction: &'a OfPrediction<'a>,
    row: usize,
    name: String,
}

impl OfRow<'_> {
    fn value(&self, name: &str) -> Result<JsonValue, FieldFailure> {
        let OfPrediction { predicted, rows, .. } = self.prediction;
        let Predicted { response, schema } = predicted;
        let Some(output) = response.outputs.iter().find(|output| output.name == name) else {
            let version = response.version;
            let message = format!("version {version} of the model has no output '{name}'");
            return Err(FieldFailure::new(ErrorKind::NotFound, message));
        };
        let NamedTensor { name, .. } = output;
        row_value(output, content(name, schema), Form::Typed, (self.row, *rows))
    }
}

impl ObjectValue for OfRow<'_> {
    fn type_name(&self) -> &str {
        &self.name
    }

    fn resolve_field<'a>(&'a self, info: &'a ResolveInfo<'a>) -> Resolved<'a> {
        let mut types = self.prediction.types.outputs.iter();
        let Some(types) = types.find(|output| output.field == info.field_name()) else {
            return Err(self.unknown_field_error(info));
        };
        match self.value(&types.name) {
            Ok(JsonValue::Array(items)) if types.list => list(items),
            Ok(value) => leaf(value),
            Err(failure) => failed(&failure),
        }
    }
}
