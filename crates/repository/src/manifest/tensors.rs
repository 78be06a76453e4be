//! Keys that describe tensors: `inputs`, `outputs`, `warmup`.

use std::num::NonZeroUsize;

use outhaul_types::{
    DataType, Dimension, Fill, ModelManifest, Shape, ShapePattern, TensorDeclaration, WarmupInput,
    WarmupRequest,
};

use super::MOST_ROWS;
use super::rules::{below, within};
use crate::declared::{Faults, Fields};
use crate::{Declarations, Rule, Value};

/// A warm-up input of more elements is a slip of the keyboard, and would be made at every load.
const MOST_ELEMENTS: usize = 1 << 28;

const MOST_RUNS: usize = 10_000;

pub(super) fn take(declared: &mut Declarations, manifest: &mut ModelManifest) {
    if let Some(inputs) = declared.take_nested("inputs", declarations) {
        manifest.inputs = inputs;
    }
    if let Some(outputs) = declared.take_nested("outputs", declarations) {
        manifest.outputs = outputs;
    }
    manifest.warmup = declared.take_nested("warmup", |value, faults| {
        let rule = Rule::new(
            "must be a list of requests",
            "write [[warmup]] and its keys below, or warmup = [] for none",
        );
        faults.items(value, rule, warmup)
    });
}

/// Returns the name of a warm-up request that declares none.
pub(super) fn default_name(index: usize) -> String {
    format!("warmup-{}", index + 1)
}

fn declarations(value: &Value, faults: &mut Faults) -> Option<Vec<TensorDeclaration>> {
    let rule = Rule::new("must be a table", "write as in { NAME = { datatype = \"FP32\" } }");
    faults.named(value, rule, |name, declared, faults| {
        let fields = Fields::open(declared, &["datatype", "shape", "reshape"], faults)?;
        let declaration = TensorDeclaration {
            name: name.into(),
            data_type: fields.take("datatype", faults, data_type),
            shape: fields.take("shape", faults, pattern),
            reshape: fields.take("reshape", faults, pattern),
        };
        if let Some(rule) = contradiction(&declaration) {
            faults.add(declared, rule);
        }
        Some(declaration)
    })
}

pub(crate) fn data_type(value: &Value) -> Result<DataType, Rule> {
    let text = value.text().unwrap_or_default();
    text.parse().map_err(|_| {
        let names = DataType::ALL.map(DataType::name);
        let remedy = match crate::nearest(&text.to_uppercase(), names) {
            Some(nearest) => format!("did you mean \"{nearest}\"?"),
            None => format!("write one of {}", names.join(", ")),
        };
        Rule::new("is not an element type", remedy)
    })
}

pub(crate) fn pattern(value: &Value) -> Result<ShapePattern, Rule> {
    let rule = || {
        Rule::new(
            "must be a list of sizes, -1 where the size is open",
            "write rows included, as in [-1, 4]",
        )
    };
    let Value::List(items) = value else { return Err(rule()) };
    let dimension = |item: &Value| match item {
        Value::Whole(-1) => Some(Dimension::Any),
        Value::Whole(_) => item.whole().map(Dimension::Fixed),
        Value::Text(name) if !name.is_empty() => Some(Dimension::Named(name.as_str().into())),
        _ => None,
    };
    let dimensions: Option<Vec<Dimension>> = items.iter().map(dimension).collect();
    dimensions.map(ShapePattern::ranked).ok_or_else(rule)
}

/// What is wrong with a reshape whatever the request.
fn contradiction(declared: &TensorDeclaration) -> Option<Rule> {
    let Some(ShapePattern::Ranked(reshape)) = &declared.reshape else { return None };
    let Some(ShapePattern::Ranked(shape)) = &declared.shape else {
        let remedy = "declare the shape that callers see, rows included";
        return Some(Rule::new("a reshape needs a shape", remedy));
    };
    let is_open = |dimension: Option<&Dimension>| {
        dimension.is_some_and(|dimension| !matches!(dimension, Dimension::Fixed(_)))
    };
    // Open rows on both sides are the same rows.
    let rows = usize::from(is_open(shape.first()) && is_open(reshape.first()));
    let (seen, given) = (shape.get(rows..)?, reshape.get(rows..)?);
    let open = |part: &[Dimension]| part.iter().filter(|part| is_open(Some(part))).count();
    let product = |part: &[Dimension]| {
        let fixed = part.iter().filter_map(|dimension| match dimension {
            Dimension::Fixed(size) => Some(*size),
            Dimension::Named(_) | Dimension::Any => None,
        });
        fixed.fold(1_usize, usize::saturating_mul)
    };
    match (open(seen), open(given)) {
        (_, 2..) => Some(Rule::new(
            "a reshape may have one open size beside the rows",
            "write the other sizes as numbers",
        )),
        (0, 0) if product(seen) != product(given) => Some(Rule::new(
            format!("the shape holds {} elements, the reshape {}", product(seen), product(given)),
            "make them equal",
        )),
        _ => None,
    }
}

fn warmup(index: usize, value: &Value, faults: &mut Faults) -> Option<WarmupRequest> {
    let fields = Fields::open(value, &["name", "rows", "count", "inputs"], faults)?;
    let name = fields.take("name", faults, |value| {
        let text = value.text().filter(|text| !text.is_empty());
        text.map(str::to_owned)
            .ok_or_else(|| Rule::new("must be a text", "leave it out, or write what logs call it"))
    });
    let rows = fields
        .take("rows", faults, |value| within(value, 1..=MOST_ROWS, "leave it out for one row"));
    let count = fields
        .take("count", faults, |value| within(value, 1..=MOST_RUNS, "leave it out to run it once"));
    let inputs = fields.nested("inputs", faults, |value, faults| {
        let rule = Rule::new("must be a table", "write as in { NAME = { fill = \"random\" } }");
        faults.named(value, rule, warmup_input)
    });
    Some(WarmupRequest {
        name: name.unwrap_or_else(|| default_name(index)),
        rows: rows.unwrap_or(NonZeroUsize::MIN),
        count: count.unwrap_or(NonZeroUsize::MIN),
        inputs: inputs.unwrap_or_default(),
    })
}

fn warmup_input(name: &str, value: &Value, faults: &mut Faults) -> Option<WarmupInput> {
    let fields = Fields::open(value, &["shape", "fill"], faults)?;
    let shape = fields.take("shape", faults, shape);
    let fill = fields.take("fill", faults, fill);
    Some(WarmupInput { name: name.into(), shape, fill: fill.unwrap_or_default() })
}

fn shape(value: &Value) -> Result<Shape, Rule> {
    let Value::List(items) = value else {
        return Err(Rule::new("must be a list of sizes", "write rows included, as in [1, 4]"));
    };
    let sizes: Option<Vec<usize>> = items.iter().map(Value::whole).collect();
    let shape = sizes.map(Shape::new).ok_or_else(|| {
        let remedy = "a warm-up input has one shape; write rows included, as in [1, 4]";
        Rule::new("sizes must be whole numbers from 0", remedy)
    })?;
    match shape.elements() {
        Some(elements) if elements <= MOST_ELEMENTS => Ok(shape),
        _ => {
            let rule = format!("must have at most {MOST_ELEMENTS} elements");
            Err(Rule::new(rule, "write a smaller shape"))
        }
    }
}

fn fill(value: &Value) -> Result<Fill, Rule> {
    match value.text() {
        Some("zeros") => Ok(Fill::Zeros),
        Some("random") => Ok(Fill::Random),
        Some(path) if !path.is_empty() => {
            below(value, "must be the path of a file", "leave it out for zeros").map(Fill::File)
        }
        _ => Err(Rule::new(
            "must be \"zeros\", \"random\" or the path of a file",
            "leave it out for zeros",
        )),
    }
}
