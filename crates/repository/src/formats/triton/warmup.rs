//! `model_warmup`: requests that are run before the model gets traffic.

use std::num::NonZeroUsize;
use std::path::Path;

use outhaul_types::{DataType, Fill, Shape, TensorDeclaration, WarmupInput, WarmupRequest};

use super::super::keys::inside;
use super::super::textproto::Section;
use super::Target;
use super::tensors::data_type;

/// The folder that the files of inputs lie in.
const FOLDER: &str = "warmup";

const MOST_RUNS: usize = 10_000;

pub(super) fn map(config: &Section<'_>, folder: &Path, target: &mut Target) {
    let has_rows = config.number("max_batch_size") > 0;
    let samples = config.sections("model_warmup");
    if samples.is_empty() {
        return;
    }
    let mut requests = Vec::new();
    for (index, sample) in samples.iter().enumerate() {
        requests.push(request(sample, index, has_rows, folder, target));
    }
    target.manifest.warmup = Some(requests);
}

fn request(
    sample: &Section<'_>,
    index: usize,
    has_rows: bool,
    folder: &Path,
    target: &mut Target,
) -> WarmupRequest {
    let mut rows = count(sample, "batch_size", target);
    if !has_rows && rows.get() > 1 {
        let rule = "a model without a batch dimension has requests of one row";
        target.problems.push(sample.problem("batch_size", rule, "write 1, or set max_batch_size"));
    }
    let inputs = sample.sections_by_key("inputs");
    let from_file = inputs.iter().any(|(_, input)| !input.text("input_data_file").is_empty());
    if from_file && rows.get() > 1 {
        // The file holds one row, which Triton repeats.
        let rule = "a warm-up from a file runs with the one row that the file holds";
        let problem = sample.problem("batch_size", rule, "nothing needs doing");
        target.problems.push(problem.warning());
        rows = NonZeroUsize::MIN;
    }
    let rows_of_shape = has_rows.then_some(rows.get());
    let inputs = inputs
        .iter()
        .filter_map(|(name, declared)| {
            let shape = shape(declared, rows_of_shape, target);
            let fill = fill(declared, folder, target)?;
            expect_type(name, declared, target);
            Some(WarmupInput { name: name.as_str().into(), shape, fill })
        })
        .collect();
    let name = match sample.text("name") {
        "" => format!("warmup {}", index + 1),
        name => name.to_owned(),
    };
    WarmupRequest { name, rows, count: count(sample, "count", target), inputs }
}

/// Reads a number that is 1 where it is left out.
fn count(sample: &Section<'_>, field: &str, target: &mut Target) -> NonZeroUsize {
    let number = usize::try_from(sample.number(field)).unwrap_or(usize::MAX);
    if number > MOST_RUNS {
        let rule = format!("must be a whole number from 1 to {MOST_RUNS}");
        target.problems.push(sample.problem(field, &rule, "write a smaller number"));
    }
    NonZeroUsize::new(number.min(MOST_RUNS)).unwrap_or(NonZeroUsize::MIN)
}

fn shape(input: &Section<'_>, rows: Option<usize>, target: &mut Target) -> Option<Shape> {
    let numbers = input.numbers("dims");
    let sizes = numbers.iter().map(|number| usize::try_from(*number).ok());
    let shape = rows.map(Some).into_iter().chain(sizes).collect::<Option<Vec<usize>>>();
    match shape.map(Shape::new) {
        // A scalar and a shape that is left out are written alike.
        Some(shape) if shape.elements().is_some() => (!numbers.is_empty()).then_some(shape),
        _ => {
            let rule = "a warm-up needs sizes that are whole numbers";
            target.problems.push(input.problem("dims", rule, "write a size in place of each -1"));
            None
        }
    }
}

fn fill(input: &Section<'_>, folder: &Path, target: &mut Target) -> Option<Fill> {
    let field = "input_data_file";
    // The two others count by being written, whatever their value.
    if input.is_set("random_data") {
        let is_text = data_type(input.number("data_type")) == Some(DataType::Bytes);
        return Some(if is_text { Fill::Zeros } else { Fill::Random });
    }
    if input.is_set("zero_data") {
        return Some(Fill::Zeros);
    }
    if !input.is_set(field) {
        let rule = "must say what the input holds";
        let remedy = "write zero_data, random_data or input_data_file";
        target.problems.push(input.problem("", rule, remedy));
        return None;
    }
    let warmup = folder.join(FOLDER);
    let file = inside(input.text(field)).filter(|file| !file.is_empty());
    let Some(file) = file.map(|file| warmup.join(file)) else {
        let rule = "must be a file in the folder warmup";
        target.problems.push(input.problem(field, rule, "write its name alone"));
        return None;
    };
    let within = |file: &Path| {
        let (file, folder) = (file.canonicalize().ok()?, folder.canonicalize().ok()?);
        (file.is_file() && file.starts_with(folder)).then_some(())
    };
    if within(&file).is_none() {
        let rule = format!("there is no such file in {}", warmup.display());
        target.problems.push(input.problem(field, &rule, "put it there, or write zero_data: true"));
        return None;
    }
    Some(Fill::File(file))
}

/// The type of a warm-up's input is that of the model's: what is declared already is compared, what
/// is not is declared by it and compared with the model's file when that is loaded.
fn expect_type(name: &str, input: &Section<'_>, target: &mut Target) {
    let Some(own) = data_type(input.number("data_type")) else { return };
    let inputs = &mut target.manifest.inputs;
    match inputs.iter_mut().find(|declared| declared.name == name) {
        None => inputs.push(TensorDeclaration {
            name: name.into(),
            data_type: Some(own),
            shape: None,
            reshape: None,
        }),
        Some(declared) => {
            let other = *declared.data_type.get_or_insert(own);
            if other != own {
                let rule = format!("the input '{name}' is declared as {other}");
                target.problems.push(input.problem("data_type", &rule, "write one type for both"));
            }
        }
    }
}
