//! What a model takes and gives, and the check of a request against it.

use smallvec::SmallVec;

use crate::{Classify, DataType, ErrorKind, Name, NamedTensor, Shape, ShapePattern, Tensor};

/// One input or output of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// The tensor's name, unique among the inputs or outputs.
    pub name: Name,
    /// The type of its elements.
    pub data_type: DataType,
    /// The shapes it may have.
    pub shape: ShapePattern,
    /// For an input: whether a request may leave it out, since the model holds a default.
    pub optional: bool,
}

/// The inputs and outputs of a model, in the file's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelSignature {
    /// What a request sends.
    pub inputs: Vec<TensorSpec>,
    /// What an answer holds.
    pub outputs: Vec<TensorSpec>,
}

/// The inputs of one call in the signature's order; `None` is an optional input left out.
pub type BoundInputs = SmallVec<[Option<Tensor>; 2]>;

/// Why a request does not fit a signature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum BindError {
    #[error("unknown input '{name}'; the model takes {expected}")]
    UnknownInput { name: Name, expected: String },
    #[error("input '{name}' is given twice")]
    DuplicateInput { name: Name },
    #[error("missing input '{name}' ({data_type} {shape})")]
    MissingInput { name: Name, data_type: DataType, shape: ShapePattern },
    #[error("input '{name}' has datatype {received}, expected {expected}")]
    WrongType { name: Name, expected: DataType, received: DataType },
    #[error("input '{name}' has shape {received}, expected {expected}")]
    WrongShape { name: Name, expected: ShapePattern, received: Shape },
    #[error("unknown output '{name}'; the model gives {expected}")]
    UnknownOutput { name: Name, expected: String },
    #[error("output '{name}' is requested twice")]
    DuplicateOutput { name: Name },
    #[error("input '{name}' has {received} rows where input '{first}' has {expected}")]
    RowsDiffer { name: Name, received: usize, first: Name, expected: usize },
}

impl Classify for BindError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidInput
    }
}

impl ModelSignature {
    /// Returns the position of an input.
    pub fn input_index(&self, name: &str) -> Option<usize> {
        self.inputs.iter().position(|spec| spec.name == name)
    }

    /// Returns the position of an output.
    pub fn output_index(&self, name: &str) -> Option<usize> {
        self.outputs.iter().position(|spec| spec.name == name)
    }

    /// Puts a request's tensors into the signature's order, checking every name, type and shape.
    ///
    /// # Errors
    ///
    /// Fails with the first tensor that does not fit, naming what was expected and what came.
    pub fn bind(
        &self,
        tensors: impl IntoIterator<Item = NamedTensor>,
    ) -> Result<BoundInputs, BindError> {
        let mut bound: BoundInputs = SmallVec::new();
        bound.resize(self.inputs.len(), None);
        for NamedTensor { name, tensor } in tensors {
            let Some(index) = self.input_index(&name) else {
                return Err(BindError::UnknownInput { name, expected: names(&self.inputs) });
            };
            let spec = &self.inputs[index];
            if bound[index].is_some() {
                return Err(BindError::DuplicateInput { name });
            }
            if tensor.data_type() != spec.data_type {
                let (expected, received) = (spec.data_type, tensor.data_type());
                return Err(BindError::WrongType { name, expected, received });
            }
            if !spec.shape.accepts(tensor.shape()) {
                let (expected, received) = (spec.shape.clone(), tensor.shape().clone());
                return Err(BindError::WrongShape { name, expected, received });
            }
            bound[index] = Some(tensor);
        }
        for (spec, tensor) in self.inputs.iter().zip(&bound) {
            if tensor.is_none() && !spec.optional {
                return Err(BindError::MissingInput {
                    name: spec.name.clone(),
                    data_type: spec.data_type,
                    shape: spec.shape.clone(),
                });
            }
        }
        Ok(bound)
    }

    /// Returns whether a request gives an optional input, in place of what the model holds.
    pub fn overrides_default(&self, inputs: &BoundInputs) -> bool {
        self.inputs.iter().zip(inputs).any(|(spec, tensor)| spec.optional && tensor.is_some())
    }

    /// Returns the number of rows that all required inputs agree on, for models whose first
    /// dimension is the batch; `None` where there is no such input with rows. Optional inputs stand
    /// in for constants, whose first dimension is any.
    ///
    /// # Errors
    ///
    /// Fails where two inputs have different numbers of rows.
    pub fn rows(&self, inputs: &BoundInputs) -> Result<Option<usize>, BindError> {
        let mut agreed: Option<(&TensorSpec, usize)> = None;
        for (spec, tensor) in self.inputs.iter().zip(inputs).filter(|(spec, _)| !spec.optional) {
            let Some(rows) = tensor.as_ref().and_then(|tensor| tensor.shape().rows()) else {
                continue;
            };
            match agreed {
                None => agreed = Some((spec, rows)),
                Some((_, expected)) if expected == rows => {}
                Some((first, expected)) => {
                    return Err(BindError::RowsDiffer {
                        name: spec.name.clone(),
                        received: rows,
                        first: first.name.clone(),
                        expected,
                    });
                }
            }
        }
        Ok(agreed.map(|(_, rows)| rows))
    }

    /// Returns the positions of the requested outputs, all of them where none are named.
    ///
    /// # Errors
    ///
    /// Fails where a name is unknown or given twice.
    pub fn select_outputs<'a>(
        &self,
        requested: impl IntoIterator<Item = &'a Name>,
    ) -> Result<SmallVec<[usize; 4]>, BindError> {
        let mut selected: SmallVec<[usize; 4]> = SmallVec::new();
        for name in requested {
            let Some(index) = self.output_index(name) else {
                let expected = names(&self.outputs);
                return Err(BindError::UnknownOutput { name: name.clone(), expected });
            };
            if selected.contains(&index) {
                return Err(BindError::DuplicateOutput { name: name.clone() });
            }
            selected.push(index);
        }
        if selected.is_empty() {
            selected.extend(0..self.outputs.len());
        }
        Ok(selected)
    }
}

impl ModelSignature {
    /// Returns everything in `newer` that could break a caller of this signature, one clause each:
    /// what its requests may hold no longer fits, or what its answers held is gone or of another
    /// kind. A wider input, a further output and a further optional input break nobody; nor does an
    /// output whose shapes are fewer than they were.
    pub fn breaks(&self, newer: &ModelSignature) -> Vec<String> {
        let mut clauses = Vec::new();
        for old in &self.inputs {
            let name = &old.name;
            let Some(new) = newer.inputs.iter().find(|new| new.name == *name) else {
                clauses.push(format!("input '{name}' is gone"));
                continue;
            };
            if new.data_type != old.data_type {
                let (new, old) = (new.data_type, old.data_type);
                clauses.push(format!("input '{name}' is now {new}, was {old}"));
            }
            if !new.shape.covers(&old.shape) {
                let (new, old) = (&new.shape, &old.shape);
                clauses.push(format!("input '{name}' takes {new}, took {old}"));
            }
            if old.optional && !new.optional {
                clauses.push(format!("input '{name}' is no longer optional"));
            }
        }
        let added = newer.inputs.iter().filter(|new| self.input_index(&new.name).is_none());
        for new in added.filter(|new| !new.optional) {
            clauses.push(format!("input '{}' is new and not optional", new.name));
        }
        for old in &self.outputs {
            let name = &old.name;
            let Some(new) = newer.outputs.iter().find(|new| new.name == *name) else {
                clauses.push(format!("output '{name}' is gone"));
                continue;
            };
            if new.data_type != old.data_type {
                let (new, old) = (new.data_type, old.data_type);
                clauses.push(format!("output '{name}' is now {new}, was {old}"));
            }
            if !old.shape.covers(&new.shape) {
                let (new, old) = (&new.shape, &old.shape);
                clauses.push(format!("output '{name}' has shape {new}, had {old}"));
            }
        }
        clauses
    }
}

fn names(specs: &[TensorSpec]) -> String {
    let quoted: Vec<String> = specs.iter().map(|spec| format!("'{}'", spec.name)).collect();
    if quoted.is_empty() { "none".to_owned() } else { quoted.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dimension;

    /// Two inputs, the second optional or not.
    fn signature_with(optional: bool) -> ModelSignature {
        let spec = |name: &str, optional| TensorSpec {
            name: name.into(),
            data_type: DataType::Fp32,
            shape: ShapePattern::ranked([Dimension::Any, Dimension::Fixed(2)]),
            optional,
        };
        ModelSignature {
            inputs: vec![spec("left", false), spec("right", optional)],
            outputs: vec![spec("sum", false), spec("difference", false)],
        }
    }

    fn signature() -> ModelSignature {
        signature_with(true)
    }

    fn tensor(name: &str, rows: usize, columns: usize) -> NamedTensor {
        let elements = vec![0_f32; rows * columns];
        NamedTensor {
            name: name.into(),
            tensor: Tensor::from_vec([rows, columns], elements).unwrap(),
        }
    }

    #[test]
    fn a_request_is_put_into_order() {
        let bound = signature().bind([tensor("right", 1, 2), tensor("left", 3, 2)]).unwrap();
        assert_eq!(bound[0].as_ref().unwrap().shape().rows(), Some(3));
        assert_eq!(
            signature_with(false).rows(&bound).unwrap_err().to_string(),
            "input 'right' has 1 rows where input 'left' has 3"
        );
        assert_eq!(signature().rows(&bound), Ok(Some(3)), "a default may have any shape");
        assert!(signature().overrides_default(&bound));
        let bound = signature().bind([tensor("left", 3, 2)]).unwrap();
        assert_eq!(signature().rows(&bound), Ok(Some(3)));
        assert!(!signature().overrides_default(&bound));
    }

    #[test]
    fn every_misfit_is_named() {
        let int = NamedTensor {
            name: "left".into(),
            tensor: Tensor::from_vec([1, 2], vec![1_i32, 2]).unwrap(),
        };
        struct Case(Vec<NamedTensor>, &'static str);
        let cases = [
            Case(vec![], "missing input 'left' (FP32 [-1,2])"),
            Case(vec![tensor("up", 1, 2)], "unknown input 'up'; the model takes 'left', 'right'"),
            Case(vec![tensor("left", 1, 3)], "input 'left' has shape [1,3], expected [-1,2]"),
            Case(vec![tensor("left", 1, 2), tensor("left", 1, 2)], "input 'left' is given twice"),
            Case(vec![int], "input 'left' has datatype INT32, expected FP32"),
        ];
        for Case(tensors, expected) in cases {
            assert_eq!(signature().bind(tensors).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn outputs_are_selected_by_name() {
        let select = |names: &[&str]| {
            let names: Vec<Name> = names.iter().map(|&name| name.into()).collect();
            signature().select_outputs(&names).map(|indices| indices.to_vec())
        };
        assert_eq!(select(&[]), Ok(vec![0, 1]));
        assert_eq!(select(&["difference"]), Ok(vec![1]));
        assert_eq!(
            select(&["product"]).unwrap_err().to_string(),
            "unknown output 'product'; the model gives 'sum', 'difference'"
        );
        assert!(select(&["sum", "sum"]).is_err());
    }

    #[test]
    fn what_breaks_callers_is_told() {
        struct Case {
            name: &'static str,
            change: fn(&mut ModelSignature),
            breaks: &'static [&'static str],
        }
        let fixed =
            |sizes: &[usize]| ShapePattern::ranked(sizes.iter().copied().map(Dimension::Fixed));
        let case = |name, change, breaks| Case { name, change, breaks };
        fn open(columns: usize) -> ShapePattern {
            ShapePattern::ranked([Dimension::Any, Dimension::Fixed(columns)])
        }
        fn new(name: &str, optional: bool) -> TensorSpec {
            let (name, data_type) = (name.into(), DataType::Fp32);
            TensorSpec { name, data_type, shape: ShapePattern::AnyRank, optional }
        }
        let cases = [
            case("the same", |_| {}, &[]),
            case("another order", |new| new.outputs.reverse(), &[]),
            case("an output less", |new| drop(new.outputs.remove(0)), &["output 'sum' is gone"]),
            case("an input less", |new| drop(new.inputs.remove(0)), &["input 'left' is gone"]),
            case(
                "other types",
                |new| {
                    new.inputs[0].data_type = DataType::Int64;
                    new.outputs[1].data_type = DataType::Fp16;
                },
                &[
                    "input 'left' is now INT64, was FP32",
                    "output 'difference' is now FP16, was FP32",
                ],
            ),
            case(
                "another width",
                |new| {
                    new.inputs[0].shape = open(3);
                    new.outputs[0].shape = open(3);
                },
                &[
                    "input 'left' takes [-1,3], took [-1,2]",
                    "output 'sum' has shape [-1,3], had [-1,2]",
                ],
            ),
            case(
                "a narrower input, a wider output",
                |new| {
                    new.inputs[0].shape =
                        ShapePattern::ranked([Dimension::Fixed(1), Dimension::Fixed(2)]);
                    new.outputs[0].shape = ShapePattern::AnyRank;
                },
                &[
                    "input 'left' takes [1,2], took [-1,2]",
                    "output 'sum' has shape [...], had [-1,2]",
                ],
            ),
            case(
                "a wider input, a narrower output, a named size",
                |new| {
                    new.inputs[0].shape = ShapePattern::AnyRank;
                    new.inputs[1].shape =
                        ShapePattern::ranked([Dimension::Named("n".into()), Dimension::Fixed(2)]);
                    new.outputs[0].shape =
                        ShapePattern::ranked([Dimension::Fixed(1), Dimension::Fixed(2)]);
                },
                &[],
            ),
            case(
                "a further input that is needed",
                |signature| signature.inputs.push(new("scale", false)),
                &["input 'scale' is new and not optional"],
            ),
            case(
                "further tensors that may be ignored",
                |signature| {
                    signature.inputs.insert(0, new("scale", true));
                    signature.outputs.insert(0, new("product", false));
                },
                &[],
            ),
            case(
                "a default less",
                |new| new.inputs[1].optional = false,
                &["input 'right' is no longer optional"],
            ),
            case("a default more", |new| new.inputs[0].optional = true, &[]),
        ];
        for Case { name, change, breaks } in cases {
            let mut newer = signature();
            change(&mut newer);
            assert_eq!(signature().breaks(&newer), breaks, "{name}");
        }
        let mut pinned = signature();
        pinned.inputs[0].shape = fixed(&[1, 2]);
        assert!(pinned.breaks(&signature()).is_empty(), "any number of rows is more than one");
    }
}
