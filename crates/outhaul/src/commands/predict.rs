//! `outhaul predict`: one prediction, no server.

mod values;

use std::fs;
use std::io::{Read, Write};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Parser;
use outhaul::types::{
    InferRequest, InferResponse, Parameters, RequestContext, VersionChoice, error_chain,
};
use outhaul::{ModelDescription, Opened};
use serde_json::{Map, Value as Json, json};

use super::one_model::OneModel;
use super::{Output, write_json};

/// Answers one request with a model, without a server.
///
/// The input is a JSON object: the name of each of the model's inputs, and its elements as nested
/// lists. Shapes follow from the nesting, datatypes from the model. NaN and the infinities are
/// written as the strings "NaN", "Infinity" and "-Infinity".
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  outhaul predict models/iris --json '{\"X\":[[5.1,3.5,1.4,0.2]]}'
  outhaul predict models/iris --file rows.json --output json
  echo '{\"X\":[[5.1,3.5,1.4,0.2]]}' | outhaul predict models/iris --file -")]
pub(super) struct Predict {
    #[command(flatten)]
    model: OneModel,

    /// The input
    #[arg(long, value_name = "JSON", required_unless_present = "file")]
    json: Option<String>,

    /// A file that holds the input; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    file: Option<PathBuf>,

    /// The form of the answer
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

impl Predict {
    pub(super) fn run(&self, stdin: &mut impl Read, out: &mut impl Write) -> Result<()> {
        let input = self.input(stdin)?;
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
            inputs: values::tensors(&input, &description.signature)?.into(),
            outputs: Vec::new(),
            parameters: Parameters::new(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let context = RequestContext::default();
        let response = runtime.block_on(router.infer(request, &context));
        let response = response.map_err(|error| hinted(error, &input, &description))?;
        match self.output {
            Output::Text => out.write_all(text(&response, &description).as_bytes())?,
            Output::Json => write_json(out, &answer(&response, &description))?,
        }
        Ok(())
    }

    fn input(&self, stdin: &mut impl Read) -> Result<Vec<u8>> {
        match (&self.json, &self.file) {
            (Some(json), _) => Ok(json.clone().into_bytes()),
            (None, Some(path)) if path.as_os_str() == "-" => {
                let mut input = Vec::new();
                stdin.read_to_end(&mut input).context("cannot read standard input")?;
                Ok(input)
            }
            (None, Some(path)) => {
                fs::read(path).with_context(|| format!("cannot read {}", path.display()))
            }
            (None, None) => bail!("give the input with --json or --file"),
        }
    }
}

/// The commonest slip is a single row where the model takes rows.
fn hinted(
    error: outhaul::RouterError,
    input: &[u8],
    description: &ModelDescription,
) -> anyhow::Error {
    let wrapped = values::wrapped(input);
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
    text.push_str(&format!(
        "\n{} version {} on {}, {:.3} ms\n",
        response.model,
        response.version,
        description.engine,
        response.timings.compute.as_secs_f64() * 1e3,
    ));
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
