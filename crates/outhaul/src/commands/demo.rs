//! `outhaul demo`: a server, one real request over HTTP, and its answer.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use outhaul::load::{HttpRequest, HttpTarget, SampleInput, SampleSizes, Target, ask, json_body};
use outhaul::types::ModelSignature;
use outhaul::{Engines, ModelDescription};

use super::serve::{Running, Signals, runtime, start_logging};
use super::server_flags::ServerFlags;
use crate::config::{Config, Origin};

/// The flower that every example shows.
const IRIS: &str =
    r#"{"inputs":[{"name":"X","shape":[1,4],"datatype":"FP32","data":[5.1,3.5,1.4,0.2]}]}"#;

/// Starts a server on example models, sends one request, and goes on serving until Ctrl-C.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  outhaul demo                     the models in ./examples/models, or else in ./models
  outhaul demo models/reviews      a model of your own
  outhaul demo --http 9000         on another port")]
pub(super) struct Demo {
    #[command(flatten)]
    flags: ServerFlags,
}

impl Demo {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<()> {
        let (mut config, notes) = self.flags.resolve()?;
        choose_models(&mut config);
        start_logging(&config, &notes)?;
        let engines = Engines::find(config.onnxruntime.value.as_deref())?;
        runtime()?.block_on(async {
            let mut signals = Signals::new()?;
            let mut running = Running::start(&config, engines).await?;
            running.report_addresses(out)?;
            tokio::select! {
                loaded = running.load() => loaded?,
                // Nobody but us knows of this server, so nothing is in flight.
                _ = signals.next() => return Ok(()),
            }
            show_request(&running, out).await?;
            running.report_models(out)?;
            running.until_stopped(&mut signals).await
        })
    }
}

/// The examples are where the demo is mostly run: in a checkout.
fn choose_models(config: &mut Config) {
    let examples = Path::new("examples/models");
    if config.models.origin == Origin::Default && examples.is_dir() {
        config.models.value = vec![PathBuf::from(examples)];
    }
}

async fn show_request(running: &Running, out: &mut impl Write) -> Result<()> {
    let Some(address) = running.http else { bail!("the demo needs HTTP: leave --http on") };
    let models = running.router.models();
    let ready: Vec<_> = models.iter().filter_map(|model| model.ready.as_deref()).collect();
    let iris = ready.iter().find(|model| model.name.as_str() == "iris");
    let Some(model) = iris.or(ready.first()) else { bail!("there is no model") };
    let body = String::from_utf8(body(model)?).context("JSON is UTF-8")?;
    let path = format!("/v2/models/{}/infer", model.name);
    writeln!(out, "\n$ curl http://{address}{path} -d '{}'", body.replace('\'', "'\\''"))?;
    let requests = vec![HttpRequest::post_json(path, body)];
    let target = Target::Http(HttpTarget { address: address.to_string(), requests });
    let answer = ask(&target).await?;
    writeln!(out, "{}", answer.body)?;
    ensure!(answer.is_ok, "the server answered with status {}", answer.status);
    Ok(())
}

/// The flower that every example shows where the model is that of the irises, else small numbers.
fn body(model: &ModelDescription) -> Result<Vec<u8>> {
    let ModelSignature { inputs, .. } = &model.signature;
    if model.name.as_str() == "iris" && inputs.len() == 1 && inputs[0].name == "X" {
        return Ok(IRIS.as_bytes().to_vec());
    }
    let declared = inputs.iter().filter(|spec| !spec.optional).map(|spec| {
        let data_type = spec.data_type.name().to_owned();
        (spec.name.to_string(), data_type, spec.shape.protocol_dimensions())
    });
    let sizes = SampleSizes::default();
    let inputs = SampleInput::from_metadata(model.name.as_str(), declared, &sizes)?;
    Ok(json_body(&inputs))
}
