//! The behaviour suite: what every engine must do, run by the tests of every engine.
//!
//! Invariant: an engine answers as the reference does, within the tolerance that the reference
//! states, or it refuses; and what it refuses is exactly what its [`Expectations`] list. A model
//! that starts to work, or one that stops, fails the suite until the list says so.
//!
//! Reference answers lie in `testdata/reference/*.json`, written by `testdata/make_models.py`. All
//! failures are gathered and reported at once. Nothing here knows any particular engine.

mod behaviour;
mod damaged;
mod reference;

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use outhaul_onnx::OnnxModel;
use outhaul_types::{BoundInputs, ModelSignature, NamedTensor, Tensor, Tensors};

pub use reference::{Case, Reference, Tolerance, read_references};

use crate::{Engine, LoadError, LoadOptions, LoadedModel, RunError, Session};

/// What one engine does not do exactly, and therefore refuses.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expectations {
    /// Models that must be refused at load with [`LoadError::Unsupported`].
    pub refused_at_load: &'static [RefusedModel],
    /// Reference cases that must fail at run, where only a value tells that the engine would not
    /// be exact.
    pub refused_at_run: &'static [RefusedCase],
}

/// A model that an engine refuses at load.
#[derive(Clone, Copy, Debug)]
pub struct RefusedModel {
    /// The model's name: its reference file without the extension, such as `breast_cancer`.
    pub model: &'static str,
    /// Words that the refusal must hold: the node, the operator.
    pub names: &'static [&'static str],
}

/// A case that an engine refuses at run.
#[derive(Clone, Copy, Debug)]
pub struct RefusedCase {
    /// The model's name.
    pub model: &'static str,
    /// The case's name in the reference file.
    pub case: &'static str,
}

impl Expectations {
    fn refusal(&self, model: &str) -> Option<&'static RefusedModel> {
        self.refused_at_load.iter().find(|refused| refused.model == model)
    }

    fn refuses_case(&self, model: &str, case: &str) -> bool {
        self.refused_at_run.iter().any(|refused| refused.model == model && refused.case == case)
    }
}

/// Runs the whole suite. `testdata` is the repository's folder of that name.
///
/// # Panics
///
/// Panics with the list of everything that failed.
pub fn run(engine: &dyn Engine, testdata: &Path, expectations: &Expectations) {
    let mut suite = Suite {
        engine,
        testdata: testdata.to_owned(),
        expectations: *expectations,
        checks: 0,
        failures: Vec::new(),
    };
    suite.reference_answers();
    suite.refusals_exist();
    suite.behaviour();
    suite.damaged_files();
    assert!(suite.checks > 0, "the suite checked nothing under {}", testdata.display());
    assert!(
        suite.failures.is_empty(),
        "engine '{}' fails {} of {} checks:\n  {}",
        engine.name(),
        suite.failures.len(),
        suite.checks,
        suite.failures.join("\n  ")
    );
}

/// One run of the suite, and what went wrong so far.
struct Suite<'a> {
    engine: &'a dyn Engine,
    testdata: PathBuf,
    expectations: Expectations,
    checks: usize,
    failures: Vec<String>,
}

impl Suite<'_> {
    /// Counts one check, and notes its failure under `subject`.
    fn check<E: Display>(&mut self, subject: &str, outcome: Result<(), E>) {
        self.checks += 1;
        if let Err(reason) = outcome {
            self.failures.push(format!("{subject}: {reason}"));
        }
    }

    /// Returns the path of one of the models of `testdata/models`.
    fn model_path(&self, name: &str) -> PathBuf {
        self.testdata.join("models").join(format!("{name}.onnx"))
    }

    /// Opens a model that the engine must take; `None` where the expectations say that it refuses
    /// the model, or where loading failed, which is noted.
    fn open(&mut self, name: &str, path: &Path) -> Option<Opened> {
        if self.expectations.refusal(name).is_some() {
            return None;
        }
        match Opened::new(self.engine, path, &LoadOptions::default()) {
            Ok(opened) => Some(opened),
            Err(reason) => {
                self.check(name, Err(reason));
                None
            }
        }
    }

    /// Every reference case is answered within its tolerance, or the model is refused as expected.
    fn reference_answers(&mut self) {
        let references = match read_references(&self.testdata) {
            Ok(references) => references,
            Err(reason) => return self.check("reference files", Err(reason)),
        };
        for reference in &references {
            if let Some(refused) = self.expectations.refusal(&reference.name) {
                let outcome = refuses(self.engine, &reference.path, refused);
                self.check(&reference.name, outcome);
            } else if let Some(mut opened) = self.open(&reference.name, &reference.path) {
                for case in &reference.cases {
                    self.reference_case(reference, case, &mut opened);
                }
            }
        }
    }

    fn reference_case(&mut self, reference: &Reference, case: &Case, opened: &mut Opened) {
        let subject = format!("{} / {}", reference.name, case.name);
        let answered = opened.run(case.inputs.iter().cloned());
        let outcome = if self.expectations.refuses_case(&reference.name, &case.name) {
            match answered {
                Ok(_) => Err("answered, though the expectations say it is refused".to_owned()),
                Err(_) => Ok(()),
            }
        } else {
            answered.and_then(|outputs| {
                reference.tolerance.agree(&case.outputs, &named(&opened.model.signature, outputs))
            })
        };
        self.check(&subject, outcome);
    }

    /// A refusal of something that isn't there is a mistyped one.
    fn refusals_exist(&mut self) {
        let references = read_references(&self.testdata).unwrap_or_default();
        for refused in self.expectations.refused_at_load {
            let known = references.iter().any(|reference| reference.name == refused.model);
            let outcome = known.then_some(()).ok_or("no reference file of that name");
            self.check(&format!("expected refusal of {}", refused.model), outcome);
        }
        for refused in self.expectations.refused_at_run {
            let known = references.iter().any(|reference| {
                reference.name == refused.model
                    && reference.cases.iter().any(|case| case.name == refused.case)
            });
            let subject = format!("expected refusal of {} / {}", refused.model, refused.case);
            self.check(&subject, known.then_some(()).ok_or("no reference case of that name"));
        }
    }
}

/// A model in the engine, with one session.
struct Opened {
    model: OnnxModel,
    loaded: Arc<dyn LoadedModel>,
    session: Box<dyn Session>,
}

impl Opened {
    fn new(engine: &dyn Engine, path: &Path, options: &LoadOptions) -> Result<Self, String> {
        let model = outhaul_onnx::read(path).map_err(|error| format!("onnx: {error}"))?;
        let loaded =
            engine.load(&model, options).map_err(|error| format!("does not load: {error}"))?;
        if loaded.engine() != engine.name() {
            return Err(format!("says it was loaded by '{}'", loaded.engine()));
        }
        let session = loaded.session().map_err(|error| format!("opens no session: {error}"))?;
        Ok(Opened { model, loaded, session })
    }

    /// Binds and runs, and checks the answer against the signature.
    fn run(&mut self, inputs: impl IntoIterator<Item = NamedTensor>) -> Result<Tensors, String> {
        let bound = self.bind(inputs)?;
        let outputs = self.run_bound(&bound).map_err(|error| format!("does not run: {error}"))?;
        fits(&self.model.signature, &outputs)?;
        Ok(outputs)
    }

    fn bind(&self, inputs: impl IntoIterator<Item = NamedTensor>) -> Result<BoundInputs, String> {
        self.model.signature.bind(inputs).map_err(|error| format!("does not bind: {error}"))
    }

    fn run_bound(&mut self, inputs: &BoundInputs) -> Result<Tensors, RunError> {
        self.session.run(inputs)
    }
}

/// The engine refuses the model and says precisely why.
fn refuses(engine: &dyn Engine, path: &Path, refused: &RefusedModel) -> Result<(), String> {
    let model = outhaul_onnx::read(path).map_err(|error| format!("onnx: {error}"))?;
    match engine.load(&model, &LoadOptions::default()) {
        Ok(_) => Err("loads, though the expectations say it is refused".to_owned()),
        Err(LoadError::Unsupported { what, .. }) => {
            match refused.names.iter().find(|name| !what.contains(**name)) {
                None => Ok(()),
                Some(missing) => Err(format!("the refusal does not name '{missing}': {what}")),
            }
        }
        Err(other) => Err(format!("is refused, but not as unsupported: {other}")),
    }
}

/// Checks outputs against what the signature declares.
fn fits(signature: &ModelSignature, outputs: &[Tensor]) -> Result<(), String> {
    if outputs.len() != signature.outputs.len() {
        let (given, declared) = (outputs.len(), signature.outputs.len());
        return Err(format!("gives {given} outputs, the signature declares {declared}"));
    }
    for (spec, output) in signature.outputs.iter().zip(outputs) {
        if output.data_type() != spec.data_type || !spec.shape.accepts(output.shape()) {
            return Err(format!(
                "output '{}' is {} {}, the signature declares {} {}",
                spec.name,
                output.data_type(),
                output.shape(),
                spec.data_type,
                spec.shape
            ));
        }
    }
    Ok(())
}

/// Puts the signature's names to outputs.
fn named(signature: &ModelSignature, outputs: Tensors) -> Vec<NamedTensor> {
    let names = signature.outputs.iter().map(|spec| spec.name.clone());
    names.zip(outputs).map(|(name, tensor)| NamedTensor { name, tensor }).collect()
}
