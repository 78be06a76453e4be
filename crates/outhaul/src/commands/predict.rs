//! `outhaul predict`: one prediction, no server.

mod given;
mod table;
mod values;

use std::fs;
use std::io::{Read, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{ArgGroup, Parser};
use outhaul::types::{
    InferRequest, InferResponse, Parameters, RequestContext, VersionChoice, error_chain,
};
use outhaul::{ModelDescription, Opened};
use serde_json::{Map, Value as Json, json};

use self::given::{Given, cannot_read, is_transformed};
use super::one_model::OneModel;
use super::{Output, write_json};

/// Answers one request with a model, without a server.
///
/// JSON is a row, an object of values by input name; or a list of rows; or the model's tensors, an
/// object of nested lists by name, where shapes follow from the nesting and datatypes from the model.
/// NaN and the infinities are written as the strings "NaN", "Infinity" and "-Infinity".
#[derive(Debug, Parser)]
#[command(
    group(ArgGroup::new("input").required(true)),
    after_help = "Examples:
  outhaul predict models/iris --json '{\"X\":[[5.1,3.5,1.4,0.2]]}'
  outhaul predict models/reviews --json '{\"text\":\"A good film.\"}'
  outhaul predict models/reviews --text 'A good film.' --text 'A long one.'
  outhaul predict models/animals --image cat.jpg --output json
  outhaul predict models/flowers --csv flowers.csv
  echo '{\"X\":[[5.1,3.5,1.4,0.2]]}' | outhaul predict models/iris --file -"
)]
pub(super) struct Predict {
    #[command(flatten)]
    model: OneModel,

    /// The input
    #[arg(long, value_name = "JSON", group = "input")]
    json: Option<String>,

    /// A file that holds the input as JSON; - is standard input
    #[arg(long, value_name = "FILE", group = "input")]
    file: Option<PathBuf>,

    /// A text, for a model that takes texts; may be given several times
    #[arg(long, value_name = "TEXT", group = "input")]
    text: Vec<String>,

    /// A picture's file, for a model that takes pictures; may be given several times
    #[arg(long, value_name = "FILE", group = "input")]
    image: Vec<PathBuf>,

    /// A file of rows as CSV, with or without a header; - is standard input
    #[arg(long, value_name = "FILE", group = "input")]
    csv: Option<PathBuf>,

    /// The form of the answer
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

impl Predict {
    pub(super) fn run(&self, stdin: &mut impl Read, out: &mut impl Write) -> Result<()> {
        let given = self.given(stdin)?;
        let (folder, artefact) = self.model.find()?;
        let Opened { router, problems } =
            outhaul::open(&self.model.open_options(artefact.version))?;
        let mut versions = router.models().into_iter().filter(|status| status.name == folder.name);
        // What kept the model from loading says more than that it is not loaded.
        let Some(description) = versions.find_map(|status| status.ready) else {
            return Err(super::Problems(problems).into());
        };
        let request = InferRequest {
            id: None,
            model: folder.name.as_str().into(),
            version: VersionChoice::Exact(artefact.version),
            inputs: given.inputs(&description)?.into(),
            outputs: Vec::new(),
            parameters: Parameters::new(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let context = RequestContext::default();
        let response = runtime.block_on(router.infer(request, &context));
        let response = response.map_err(|error| hinted(error, &given, &description))?;
        match self.output {
            Output::Text => out.write_all(text(&response, &description).as_bytes())?,
            Output::Json => write_json(out, &answer(&response, &description))?,
        }
        Ok(())
    }

    fn given(&self, stdin: &mut impl Read) -> Result<Given> {
        if let Some(json) = &self.json {
            return Ok(Given::Json(json.clone().into_bytes()));
        }
        if let Some(path) = &self.file {
            return Ok(Given::Json(read(path, stdin)?));
        }
        if let Some(path) = &self.csv {
            return Ok(Given::Csv(read(path, stdin)?));
        }
        match self.image.is_empty() {
            true => Ok(Given::Texts(self.text.clone())),
            false => Ok(Given::Pictures(self.image.clone())),
        }
    }
}

fn read(path: &PathBuf, stdin: &mut impl Read) -> Result<Vec<u8>> {
    if path.as_os_str() == "-" {
        let mut input = Vec::new();
        stdin.read_to_end(&mut input).context("cannot read standard input")?;
        return Ok(input);
    }
    fs::read(path).with_context(|| cannot_read(path))
}

/// The commonest slip is a single row where the model takes rows.
fn hinted(
    error: outhaul::RouterError,
    given: &Given,
    description: &ModelDescription,
) -> anyhow::Error {
    let wrapped = match given {
        Given::Json(json) if !is_transformed(description) => values::wrapped(json),
        _ => None,
    };
    let would_fit = wrapped
        .and_then(|wrapped| values::tensors(&wrapped, &description.signature).ok())
        .is_some_and(|tensors| description.signature.bind(tensors).is_ok());
    match would_fit {
        true => anyhow::anyhow!(
            "{}; the model takes rows: put each list into another pair of brackets",
            error_chain(&error)
        ),
        false => error.into(),
    }
}

fn text(response: &InferResponse, description: &ModelDescription) -> String {
    let rows = is_transformed(description).then(|| table::rows(response, description)).flatten();
    let mut text = rows.unwrap_or_else(|| tensors(response));
    text.push_str(&format!(
        "\n{} version {} on {}, {:.3} ms\n",
        response.model,
        response.version,
        description.engine,
        response.timings.compute.as_secs_f64() * 1e3,
    ));
    text
}

fn tensors(response: &InferResponse) -> String {
    let rows: Vec<(String, String, String)> = response
        .outputs
        .iter()
        .map(|output| {
            let tensor = &output.tensor;
            let kind = format!("{} {}", tensor.data_type(), tensor.shape());
            (output.name.to_string(), kind, values::json(tensor).to_string())
        })
        .collect();
    let names = rows.iter().map(|(name, ..)| name.chars().count()).max().unwrap_or(0);
    let kinds = rows.iter().map(|(_, kind, _)| kind.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, kind, elements) in rows {
        text.push_str(&format!("{name:names$}  {kind:kinds$}  {elements}\n"));
    }
    text
}

fn answer(response: &InferResponse, description: &ModelDescription) -> Json {
    let outputs = response.outputs.iter();
    let outputs: Map<String, Json> = outputs
        .map(|output| {
            let tensor = &output.tensor;
            let fields = json!({
                "datatype": tensor.data_type().name(),
                "shape": tensor.shape().to_vec(),
                "data": values::json(tensor),
            });
            (output.name.to_string(), fields)
        })
        .collect();
    json!({
        "model": response.model.as_str(),
        "version": response.version.0,
        "engine": description.engine,
        "outputs": outputs,
    })
}
