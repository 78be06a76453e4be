//! The model's tensors under other names. Nothing is computed and nothing is copied.

use std::collections::HashSet;

use outhaul_types::{Field, Tensor, Tensors, TensorsOutput};

use super::Context;
use crate::build::Built;
use crate::{BuildError, OutputSide, Part, TransformError};

const KEY: &str = "output.rename";

struct Renamed;

pub(super) fn build(
    spec: &TensorsOutput,
    context: &Context<'_>,
) -> Result<Built<dyn OutputSide>, BuildError> {
    let mut specs = context.inner.outputs.clone();
    let mut renamed = HashSet::new();
    for (from, to) in &spec.rename {
        let Some(index) = context.inner.output_index(from) else {
            let names = context.inner.outputs.iter().map(|output| format!("'{}'", output.name));
            let expected = names.collect::<Vec<_>>().join(", ");
            return Err(BuildError::Unknown { key: KEY, name: from.clone(), expected });
        };
        if !renamed.insert(index) {
            return Err(declared(format!("renames '{from}' twice")));
        }
        specs[index].name = to.clone();
    }
    let mut names = HashSet::new();
    if let Some(output) = specs.iter().find(|output| !names.insert(&output.name)) {
        return Err(declared(format!("gives two outputs the name '{}'", output.name)));
    }
    let fields = vec![Field::default(); specs.len()];
    Ok(Built { side: Box::new(Renamed), specs, fields })
}

fn declared(problem: String) -> BuildError {
    BuildError::Declared { key: KEY, problem }
}

impl OutputSide for Renamed {
    fn finish(&self, _part: &Part, outputs: &[Tensor]) -> Result<Tensors, TransformError> {
        Ok(Tensors::from(outputs))
    }
}

#[cfg(test)]
mod tests {
    use outhaul_types::{DataType, Dimension, ModelSignature, ShapePattern, TensorSpec};

    use super::*;

    fn names(rename: &[(&str, &str)]) -> Result<Vec<String>, String> {
        let output = |name: &str| TensorSpec {
            name: name.into(),
            data_type: DataType::Fp32,
            shape: ShapePattern::ranked([Dimension::Any]),
            optional: false,
        };
        let inner = ModelSignature { inputs: Vec::new(), outputs: ["a", "b"].map(output).into() };
        let rename = rename.iter().map(|&(from, to)| (from.into(), to.into())).collect();
        let context = Context { inner: &inner, tokenizer: None };
        let built =
            build(&TensorsOutput { rename }, &context).map_err(|error| error.to_string())?;
        let tensors = ["a", "b"].map(|_| Tensor::from_vec([1], vec![0.0_f32]).unwrap());
        let part = Part { inputs: Default::default(), rows: vec![0], encodings: Vec::new() };
        assert_eq!(built.side.finish(&part, &tensors).unwrap()[..], tensors);
        Ok(built.specs.iter().map(|spec| spec.name.to_string()).collect())
    }

    #[test]
    fn outputs_get_other_names_or_the_error_says_which_cannot() {
        assert_eq!(names(&[]).unwrap(), ["a", "b"]);
        assert_eq!(names(&[("b", "score")]).unwrap(), ["a", "score"]);
        assert_eq!(names(&[("a", "b"), ("b", "a")]).unwrap(), ["b", "a"]);
        let wrong = [
            (&[("c", "d")][..], "transform.output.rename names 'c', but the model has 'a', 'b'"),
            (&[("a", "b")], "transform.output.rename gives two outputs the name 'b'"),
            (&[("a", "c"), ("a", "d")], "transform.output.rename renames 'a' twice"),
        ];
        for (rename, expected) in wrong {
            assert_eq!(names(rename).unwrap_err(), expected);
        }
    }
}
