//! `outhaul import`: models that another tool wrote, as folders of our own.
//!
//! Whatever a scan opens is copied, with what was declared of it put down in a `model.toml`; what
//! needs conversion first goes to the Python package. One model that cannot be imported keeps no
//! other from it, and none is ever there by half.

mod copy;
mod pipeline;
mod place;
mod python;
mod source;

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use outhaul::Severity;
use outhaul::types::ModelName;
use outhaul_repository::Problem;
use serde::Serialize;

use self::python::Checked;
use self::source::Found;
use super::{Output, Problems, size_text, write_json};

/// Turns models of other servers and libraries into folders that Outhaul serves.
///
/// Repositories of Triton, TensorFlow Serving, MLflow, KServe and MLServer that hold ONNX models are
/// copied, with a model.toml that says what they declared. Of a Hugging Face folder the ONNX file is
/// copied, or a graph made of model.safetensors, and the result is loaded once. Files of scikit-learn, XGBoost and LightGBM
/// are converted by the Python package in python/, which checks that the result answers like the
/// original.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  outhaul import triton/repository --to models
  outhaul import mlruns/1/abc/artifacts/model --to models --name churn
  outhaul import models.config --to models --dry-run
  outhaul import all-MiniLM-L6-v2 --to models --name minilm
  outhaul import booster.json --to models --sample rows.csv
  outhaul import pipeline.pkl --to models --trust -- --allow-different 2

What follows -- goes to the converter: python -m outhaul convert --help tells what it takes.
A file of Python's pickle runs the code that it holds when it is loaded; --trust permits that.")]
pub(super) struct Import {
    /// A repository, a model's folder, or a model's file
    path: PathBuf,

    /// The folder of models that they go into
    #[arg(long, value_name = "MODELS")]
    to: PathBuf,

    /// The model's name, where there is one model [default: as its folder or file is called]
    #[arg(long, value_parser = name)]
    name: Option<ModelName>,

    /// Replace models that are there already, whole
    #[arg(long)]
    force: bool,

    /// Say what would be written, and write nothing
    #[arg(long)]
    dry_run: bool,

    /// Rows to check a converted model on: .csv, .npy or .json [default: generated]
    #[arg(long, value_name = "FILE")]
    sample: Option<PathBuf>,

    /// Load a pickle, which runs the code that it holds
    #[arg(long)]
    trust: bool,

    /// The form of what is printed
    #[arg(long, value_enum, default_value_t)]
    output: Output,

    /// Further arguments of the converter
    #[arg(last = true, value_name = "ARGUMENT")]
    converter: Vec<String>,
}

fn name(text: &str) -> Result<ModelName, String> {
    ModelName::new(text).map_err(|error| error.to_string())
}

/// One model, and what became of it.
#[derive(Debug, PartialEq, Serialize)]
struct Imported {
    name: String,
    status: Status,
    versions: Vec<u64>,
    /// Where it came from.
    from: String,
    /// What people call the format that it came in.
    format: String,
    /// Where it is now.
    folder: String,
    bytes: u64,
    /// What was declared; `None` of a model that is converted.
    manifest: Option<String>,
    /// How the converted model compares to the original.
    checked: Option<Checked>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    Imported,
    Converted,
    WouldImport,
    WouldConvert,
}

#[derive(Debug, Default, Serialize)]
struct Report {
    models: Vec<Imported>,
    /// What the converter said beside.
    notes: Vec<String>,
    problems: Vec<Problem>,
}

impl Import {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<()> {
        let mut report = Report::default();
        match source::find(&self.path, &self.to) {
            Ok(found) => self.import(found, &mut report),
            Err(problem) => report.problems.push(problem),
        }
        match self.output {
            Output::Json => write_json(out, &report)?,
            Output::Text => out.write_all(self.text(&report).as_bytes())?,
        }
        let is_error = |problem: &Problem| problem.severity == Severity::Error;
        let errors: Vec<Problem> = report.problems.into_iter().filter(is_error).collect();
        if errors.is_empty() { Ok(()) } else { Err(Problems(errors).into()) }
    }

    fn import(&self, found: Found, report: &mut Report) {
        let Found { models, pipelines, convertible, problems } = found;
        report.problems.extend(problems);
        let count = models.len() + pipelines.len() + convertible.len();
        if self.name.is_some() && count > 1 {
            let rule = format!("{count} models cannot have one name");
            let remedy = "leave --name out, or give the path of one of them";
            report.problems.push(Problem::of_place(self.path.display(), rule, remedy));
            return;
        }
        for model in models {
            match copy::import(self, model, &mut report.notes) {
                Ok(imported) => report.models.push(imported),
                Err(problem) => report.problems.push(problem),
            }
        }
        for found in pipelines {
            match pipeline::import(self, found) {
                Ok(imported) => report.models.extend(imported),
                Err(problem) => report.problems.push(problem),
            }
        }
        for source in convertible {
            match python::convert(self, &source, &mut report.notes) {
                Ok(imported) => report.models.push(imported),
                Err(problem) => report.problems.push(problem),
            }
        }
    }

    fn text(&self, report: &Report) -> String {
        let width = report.models.iter().map(|model| model.name.len()).max().unwrap_or(0);
        let mut text = String::new();
        for model in &report.models {
            text.push_str(&line(model, width));
            if let Some(manifest) = model.manifest.as_ref().filter(|_| self.dry_run) {
                let lines =
                    manifest.lines().map(|line| format!("    {line}").trim_end().to_owned());
                lines.for_each(|line| text.push_str(&format!("{line}\n")));
            }
        }
        report.notes.iter().for_each(|note| text.push_str(&format!("note: {note}\n")));
        let warnings =
            report.problems.iter().filter(|problem| problem.severity == Severity::Warning);
        warnings.for_each(|warning| text.push_str(&format!("{warning}\n")));
        text
    }
}

fn line(model: &Imported, width: usize) -> String {
    let Imported { name, versions, format, folder, .. } = model;
    let done = match model.status {
        Status::Imported => "imported",
        Status::Converted => "converted",
        Status::WouldImport => "would import",
        Status::WouldConvert => "would convert",
    };
    let numbers: Vec<String> = versions.iter().map(u64::to_string).collect();
    let what = match (numbers.as_slice(), &model.checked) {
        ([], _) => String::new(),
        (_, Some(checked)) => format!(
            "version {}, {} rows answered like the original, ",
            numbers.join(", "),
            checked.rows_checked - checked.rows_different
        ),
        ([one], None) => format!("version {one}, {}, ", size_text(model.bytes)),
        (_, None) => format!("versions {}, {}, ", numbers.join(", "), size_text(model.bytes)),
    };
    format!("{done}  {name:width$}  {what}from {format}, to {folder}\n")
}
