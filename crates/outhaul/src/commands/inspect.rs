//! `outhaul inspect`: everything that can be said of a model before it is served.

use std::io::Write;

use anyhow::{Context, Result};
use clap::Parser;
use outhaul::types::{Field, ModelSignature, TensorSpec, error_chain};
use outhaul::{Engines, ModelFile};
use outhaul_engine::LoadOptions;
use outhaul_onnx::OnnxModel;
use outhaul_repository::{ModelFolder, VersionArtefact};
use outhaul_router::{BatchMode, Declared};
use outhaul_transform::Transform;
use serde::Serialize;

use super::one_model::OneModel;
use super::{Output, size_text, write_json};
use crate::config::engine_name;

/// Tells what a model takes, gives and needs, and which engines run it.
///
/// Each engine is asked to load the model; one that would not run it exactly says which node and
/// operator keep it from doing so.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  outhaul inspect models/iris
  outhaul inspect models/reviews --model-version 2 --output json
  outhaul inspect downloads/model.onnx")]
pub(super) struct Inspect {
    #[command(flatten)]
    model: OneModel,

    /// The form of what is printed
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, PartialEq, Serialize)]
struct Inspection {
    model: String,
    version: u64,
    path: String,
    file_bytes: u64,
    external_files: Vec<String>,
    ir_version: i64,
    producer: String,
    opsets: Vec<OpsetRow>,
    /// What callers send and get, where it is not the model's own tensors.
    outer: Option<OuterRow>,
    inputs: Vec<TensorRow>,
    outputs: Vec<TensorRow>,
    operators: Vec<OperatorRow>,
    parameters: u64,
    weight_bytes: u64,
    batching: BatchingRow,
    engine: &'static str,
    engines: Vec<EngineRow>,
    metadata: Vec<(String, String)>,
}

#[derive(Debug, PartialEq, Serialize)]
struct OpsetRow {
    domain: String,
    version: i64,
}

#[derive(Debug, PartialEq, Serialize)]
struct TensorRow {
    name: String,
    datatype: &'static str,
    shape: String,
    optional: bool,
}

/// What callers see of a model with a transform.
#[derive(Debug, Default, PartialEq, Serialize)]
struct OuterRow {
    task: &'static str,
    inputs: Vec<FieldRow>,
    outputs: Vec<FieldRow>,
    /// Why the model would not be served so; empty where it would.
    problem: String,
}

#[derive(Debug, PartialEq, Serialize)]
struct FieldRow {
    #[serde(flatten)]
    tensor: TensorRow,
    content: &'static str,
    choices: Vec<String>,
    unit: Option<String>,
}

#[derive(Debug, PartialEq, Serialize)]
struct OperatorRow {
    domain: String,
    operator: String,
    count: usize,
}

#[derive(Debug, PartialEq, Serialize)]
struct BatchingRow {
    mode: &'static str,
    max_rows: usize,
    reason: String,
}

#[derive(Debug, PartialEq, Serialize)]
struct EngineRow {
    name: &'static str,
    version: Option<String>,
    runs: bool,
    reason: String,
}

impl Inspect {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<()> {
        let (folder, artefact) = self.model.find()?;
        let file = ModelFile::of(&artefact.path)
            .with_context(|| format!("cannot read {}", artefact.path.display()))?;
        let onnx = outhaul_onnx::read(file.path())
            .with_context(|| format!("cannot read {}", artefact.path.display()))?;
        let engines = Engines::find(self.model.engines.onnxruntime.as_deref())?;
        let inspection = inspection(&folder, &artefact, &onnx, &engines);
        match self.output {
            Output::Text => out.write_all(text(&inspection).as_bytes())?,
            Output::Json => write_json(out, &inspection)?,
        }
        Ok(())
    }
}

fn inspection(
    folder: &ModelFolder,
    artefact: &VersionArtefact,
    onnx: &OnnxModel,
    engines: &Engines,
) -> Inspection {
    let ModelSignature { inputs, outputs } = &onnx.signature;
    let spec = &folder.manifest.batching;
    let mode = BatchMode::decide(&onnx.row_independence(), spec);
    let domain = |domain: &str| match domain {
        "" => "ai.onnx".to_owned(),
        domain => domain.to_owned(),
    };
    let mut operators: Vec<OperatorRow> = onnx
        .operators()
        .into_iter()
        .map(|((of, operator), count)| OperatorRow { domain: domain(&of), operator, count })
        .collect();
    operators.sort_by(|left, right| {
        right.count.cmp(&left.count).then_with(|| left.operator.cmp(&right.operator))
    });
    Inspection {
        model: folder.name.to_string(),
        version: artefact.version.0,
        path: artefact.path.display().to_string(),
        file_bytes: onnx.file_bytes,
        external_files: onnx.external_files().iter().map(|p| p.display().to_string()).collect(),
        ir_version: onnx.ir_version,
        producer: onnx.producer.clone(),
        opsets: onnx
            .opsets
            .iter()
            .map(|opset| OpsetRow { domain: domain(&opset.domain), version: opset.version })
            .collect(),
        outer: outer(folder, onnx),
        inputs: inputs.iter().map(tensor_row).collect(),
        outputs: outputs.iter().map(tensor_row).collect(),
        operators,
        parameters: onnx.parameters(),
        weight_bytes: onnx.weight_bytes(),
        batching: BatchingRow {
            mode: mode.as_str(),
            max_rows: if matches!(mode, BatchMode::Off(_)) { 1 } else { spec.max_rows.get() },
            reason: mode.reason().to_owned(),
        },
        engine: engine_name(folder.manifest.engine),
        engines: engine_rows(onnx, engines, folder),
        metadata: onnx.metadata.clone(),
    }
}

/// Returns what callers see of the model, where something is declared between.
fn outer(folder: &ModelFolder, onnx: &OnnxModel) -> Option<OuterRow> {
    let spec = &folder.manifest.transform;
    let built = Declared::apply(&onnx.signature, &folder.manifest).map_err(anyhow::Error::from);
    let built = built.and_then(|declared| Ok(Transform::build(spec, &declared.outer)?));
    let transform = match built {
        Ok(transform) => transform?,
        Err(problem) => {
            return Some(OuterRow { problem: format!("{problem:#}"), ..OuterRow::default() });
        }
    };
    let interface = transform.interface();
    let rows = |specs: &[TensorSpec], fields: &[Field]| {
        let row = |(spec, field): (&TensorSpec, &Field)| FieldRow {
            tensor: tensor_row(spec),
            content: field.content.as_str(),
            choices: field.choices.as_deref().unwrap_or_default().to_vec(),
            unit: field.unit.as_ref().map(ToString::to_string),
        };
        specs.iter().zip(fields).map(row).collect()
    };
    Some(OuterRow {
        task: interface.task.as_str(),
        inputs: rows(&transform.outer().inputs, &interface.inputs),
        outputs: rows(&transform.outer().outputs, &interface.outputs),
        problem: String::new(),
    })
}

fn tensor_row(spec: &TensorSpec) -> TensorRow {
    TensorRow {
        name: spec.name.to_string(),
        datatype: spec.data_type.name(),
        shape: spec.shape.to_string(),
        optional: spec.optional,
    }
}

fn engine_rows(onnx: &OnnxModel, engines: &Engines, folder: &ModelFolder) -> Vec<EngineRow> {
    let threads = folder.manifest.instances.threads;
    let options = LoadOptions { threads, ..LoadOptions::default() };
    let rows = engines.all().into_iter();
    rows.map(|(name, engine)| match engine {
        Err(reason) => EngineRow { name, version: None, runs: false, reason: reason.to_owned() },
        Ok(engine) => {
            // Some limits show only when a session is made.
            let loaded = engine.load(onnx, &options).and_then(|model| model.session().map(drop));
            let reason = loaded.as_ref().err().map(|error| error_chain(error));
            EngineRow {
                name,
                version: Some(engine.version()),
                runs: loaded.is_ok(),
                reason: reason.unwrap_or_default(),
            }
        }
    })
    .collect()
}

fn text(of: &Inspection) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let value = value.replace('\n', "\n            ");
        text.push_str(format!("{name:<12}{value}").trim_end());
        text.push('\n');
    };
    line("model", &format!("{} version {}", of.model, of.version));
    let mut file = format!("{} ({})", of.path, size_text(of.file_bytes));
    if !of.external_files.is_empty() {
        file.push_str(&format!(", with {}", of.external_files.join(", ")));
    }
    line("file", &file);
    let opsets = of.opsets.iter().map(|opset| format!("{} {}", opset.domain, opset.version));
    let opsets = opsets.collect::<Vec<_>>().join(", ");
    line("format", &format!("IR version {}, opsets {opsets}", of.ir_version));
    if !of.producer.is_empty() {
        line("made by", &of.producer);
    }
    match &of.outer {
        None => {}
        Some(outer) if !outer.problem.is_empty() => line("transform", &outer.problem),
        Some(outer) => {
            line("task", outer.task);
            line("takes", &field_lines(&outer.inputs));
            line("gives", &field_lines(&outer.outputs));
        }
    }
    line("inputs", &tensor_lines(&of.inputs));
    line("outputs", &tensor_lines(&of.outputs));
    let operators: Vec<String> = of
        .operators
        .iter()
        .map(|row| match row.domain.as_str() {
            "ai.onnx" => format!("{} {}", row.count, row.operator),
            domain => format!("{} {domain}:{}", row.count, row.operator),
        })
        .collect();
    line("operators", &wrapped(&operators, 84));
    line("parameters", &format!("{} ({})", of.parameters, size_text(of.weight_bytes)));
    let batching = match of.batching.reason.as_str() {
        "" => format!("{}, up to {} rows", of.batching.mode, of.batching.max_rows),
        reason => format!("{}: {reason}", of.batching.mode),
    };
    line("batching", &batching);
    line("engine", of.engine);
    for engine in &of.engines {
        let version = engine.version.as_deref().map(|version| format!(" {version}"));
        let name = format!("{}{}", engine.name, version.unwrap_or_default());
        match engine.runs {
            true => line("", &format!("{name}: runs it")),
            false => line("", &format!("{name}: {}", engine.reason)),
        }
    }
    for (key, value) in &of.metadata {
        let short: String = value.chars().take(200).collect();
        let dots = if short.len() < value.len() { "..." } else { "" };
        line("metadata", &format!("{key} = {short}{dots}"));
    }
    text
}

fn tensor_lines(rows: &[TensorRow]) -> String {
    let width = rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
    let lines: Vec<String> = rows
        .iter()
        .map(|row| {
            let optional = if row.optional { " (optional)" } else { "" };
            format!("{:width$}  {} {}{optional}", row.name, row.datatype, row.shape)
        })
        .collect();
    if lines.is_empty() { "none".to_owned() } else { lines.join("\n") }
}

/// Classes and categories that are shown.
const CHOICES: usize = 10;

fn field_lines(rows: &[FieldRow]) -> String {
    let width = |text: fn(&FieldRow) -> &str| {
        rows.iter().map(|row| text(row).chars().count()).max().unwrap_or(0)
    };
    let (names, contents) = (width(|row| &row.tensor.name), width(|row| row.content));
    let line = |row: &FieldRow| {
        let FieldRow { tensor: TensorRow { name, datatype, shape, optional }, content, .. } = row;
        let mut line = format!("{name:names$}  {content:contents$}  {datatype} {shape}");
        if *optional {
            line.push_str(" (optional)");
        }
        if let Some(unit) = &row.unit {
            line.push_str(&format!(" in {unit}"));
        }
        if !row.choices.is_empty() {
            let shown = row.choices.iter().take(CHOICES).map(String::as_str);
            let dots = if row.choices.len() > CHOICES { ", ..." } else { "" };
            line.push_str(&format!(": {}{dots}", shown.collect::<Vec<_>>().join(", ")));
        }
        line
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Joins words with commas, with a line break before the one that would be too far right.
fn wrapped(words: &[String], width: usize) -> String {
    let mut text = String::new();
    let mut column = 0;
    for (index, word) in words.iter().enumerate() {
        if index > 0 {
            let fits = column + word.len() + 2 <= width;
            text.push_str(if fits { ", " } else { ",\n" });
            column = if fits { column + 2 } else { 0 };
        }
        text.push_str(word);
        column += word.len();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inspection_reads_well() {
        let tensor = |name: &str, shape: &str, optional| TensorRow {
            name: name.to_owned(),
            datatype: "FP32",
            shape: shape.to_owned(),
            optional,
        };
        let field = |name: &str, content, choices: &[&str], unit: Option<&str>| FieldRow {
            tensor: tensor(name, "[-1]", false),
            content,
            choices: choices.iter().map(|&choice| choice.to_owned()).collect(),
            unit: unit.map(str::to_owned),
        };
        let engine = |name, version: Option<&str>, reason: &str| EngineRow {
            name,
            version: version.map(str::to_owned),
            runs: reason.is_empty(),
            reason: reason.to_owned(),
        };
        let inspection = Inspection {
            model: "iris".to_owned(),
            version: 2,
            path: "models/iris/2/model.onnx".to_owned(),
            file_bytes: 1536,
            external_files: vec!["weights.bin".to_owned()],
            ir_version: 8,
            producer: "skl2onnx 1.20".to_owned(),
            opsets: vec![
                OpsetRow { domain: "ai.onnx".to_owned(), version: 17 },
                OpsetRow { domain: "ai.onnx.ml".to_owned(), version: 1 },
            ],
            outer: Some(OuterRow {
                task: "classification",
                inputs: vec![field("width", "number", &[], Some("cm"))],
                outputs: vec![field("label", "label", &["no", "yes"], None)],
                problem: String::new(),
            }),
            inputs: vec![tensor("X", "[batch,4]", false), tensor("scale", "[]", true)],
            outputs: vec![],
            operators: vec![
                OperatorRow { domain: "ai.onnx".to_owned(), operator: "Add".to_owned(), count: 2 },
                OperatorRow {
                    domain: "ai.onnx.ml".to_owned(),
                    operator: "Normalizer".to_owned(),
                    count: 1,
                },
            ],
            parameters: 15,
            weight_bytes: 60,
            batching: BatchingRow { mode: "exact", max_rows: 32, reason: String::new() },
            engine: "auto",
            engines: vec![
                engine("onnxruntime", Some("1.23.0"), ""),
                engine(
                    "embedded",
                    Some("0.27.0"),
                    "engine 'embedded' does not run operator 'Normalizer'",
                ),
            ],
            metadata: vec![("classes".to_owned(), "a,b".to_owned())],
        };
        let expected = "\
model       iris version 2
file        models/iris/2/model.onnx (1.5 KiB), with weights.bin
format      IR version 8, opsets ai.onnx 17, ai.onnx.ml 1
made by     skl2onnx 1.20
task        classification
takes       width  number  FP32 [-1] in cm
gives       label  label  FP32 [-1]: no, yes
inputs      X      FP32 [batch,4]
            scale  FP32 [] (optional)
outputs     none
operators   2 Add, 1 ai.onnx.ml:Normalizer
parameters  15 (60 B)
batching    exact, up to 32 rows
engine      auto
            onnxruntime 1.23.0: runs it
            embedded 0.27.0: engine 'embedded' does not run operator 'Normalizer'
metadata    classes = a,b
";
        assert_eq!(text(&inspection), expected);
    }

    #[test]
    fn long_lists_are_wrapped() {
        let words = ["one", "two", "three"].map(str::to_owned);
        assert_eq!(wrapped(&words, 8), "one, two,\nthree");
    }
}
