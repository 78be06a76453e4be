//! Commands that work on one model: the flags they share, and finding it.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use outhaul::OpenOptions;
use outhaul::types::{EngineChoice, ModelVersion};
use outhaul_repository::{ModelFolder, VersionArtefact, scan};

use super::Problems;
use crate::config::engine_name;

#[derive(Debug, Args)]
pub(super) struct OneModel {
    /// The model: its folder, or its .onnx file
    #[arg(value_name = "MODEL")]
    pub(super) path: PathBuf,

    /// The version [default: the newest]
    #[arg(long = "model-version", value_name = "NUMBER")]
    version: Option<u64>,

    #[command(flatten)]
    pub(super) engines: EngineFlags,
}

#[derive(Debug, Default, Args)]
pub(super) struct EngineFlags {
    /// The engine, where model.toml declares none: auto, onnxruntime or embedded
    #[arg(long, value_name = "ENGINE", default_value = "auto", value_parser = engine)]
    pub(super) engine: EngineChoice,

    /// ONNX Runtime's library, or its folder [default: searched for] [variable:
    /// OUTHAUL_ONNXRUNTIME]
    #[arg(long, value_name = "PATH")]
    pub(super) onnxruntime: Option<PathBuf>,
}

fn engine(text: &str) -> Result<EngineChoice, String> {
    [EngineChoice::Auto, EngineChoice::OnnxRuntime, EngineChoice::Embedded]
        .into_iter()
        .find(|choice| engine_name(*choice) == text)
        .ok_or_else(|| "use auto, onnxruntime or embedded".to_owned())
}

impl OneModel {
    /// Finds the model and the version asked for.
    pub(super) fn find(&self) -> Result<(ModelFolder, VersionArtefact)> {
        let found = scan(&[&self.path]);
        let model = match <[ModelFolder; 1]>::try_from(found.models) {
            Ok([model]) => model,
            Err(none) if none.is_empty() => return Err(Problems(found.problems).into()),
            Err(several) => {
                let names: Vec<&str> = several.iter().map(|model| model.name.as_str()).collect();
                bail!(
                    "{} holds {} models ({}); name one of them, as in {}",
                    self.path.display(),
                    several.len(),
                    names.join(", "),
                    several[0].path.display(),
                );
            }
        };
        let versions = &model.versions;
        let artefact = match self.version {
            None => versions.last(),
            Some(number) => versions.iter().find(|found| found.version == ModelVersion(number)),
        };
        match artefact {
            Some(artefact) => {
                let artefact = artefact.clone();
                Ok((model, artefact))
            }
            None => {
                let numbers: Vec<String> =
                    versions.iter().map(|artefact| artefact.version.to_string()).collect();
                bail!("'{}' has no such version; it has {}", model.name, numbers.join(", "))
            }
        }
    }

    /// Returns how to open one version of what was found: the others cost time and memory, and may
    /// be broken.
    pub(super) fn open_options(&self, version: ModelVersion) -> OpenOptions {
        OpenOptions {
            onnxruntime: self.engines.onnxruntime.clone(),
            engine: self.engines.engine,
            version: Some(version),
            keeps_answers: false,
            ..OpenOptions::path(&self.path)
        }
    }
}
