//! The last resort of a fallback: values that somebody declared, as an answer.
//!
//! Where the model is loaded, types and shapes are those of its signature; else they follow from the values:
//! texts are `BYTES`, whole numbers `INT64`, others `FP64`, and `true` and `false` are `BOOL`. Each row of the
//! request gets the same values.
//!
//! Invariant: what does not fit the signature is an error that names the output, never another value.

use std::collections::BTreeMap;

use half::{bf16, f16};
use outhaul_types::{
    DataType, DefaultValue, Dimension, Element, FallbackSpec, InferRequest, ModelSignature, Name,
    NamedTensor, Parameter, Shape, ShapePattern, Strings, Tensor, TensorError, TensorSpec,
};
use smallvec::SmallVec;

/// Why a declared default is no answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum DefaultError {
    #[error("fallback.default: the model gives no output '{output}'; it gives {expected}")]
    UnknownOutput { output: Name, expected: String },
    #[error("fallback.default.{output}: {value} is no {data_type}")]
    WrongType { output: Name, value: String, data_type: DataType },
    #[error("fallback.default.{output}: lists in a list must all have the same shape")]
    Ragged { output: Name },
    #[error("fallback.default.{output}: {shape} for each row does not fit the output's {expected}")]
    WrongShape { output: Name, shape: Shape, expected: ShapePattern },
    #[error("fallback.default.{output} has values of several types")]
    Mixed { output: Name },
    #[error("fallback.default says nothing of the output '{output}', which the request names")]
    Missing { output: Name },
    #[error("fallback.default.{output} cannot be given as classes")]
    Classes { output: Name },
    #[error("fallback.default.{output} for {rows} rows takes more than {most} bytes")]
    TooLarge { output: Name, rows: usize, most: usize },
    #[error("fallback.default.{output} makes no tensor for {rows} rows")]
    Tensor {
        output: Name,
        rows: usize,
        #[source]
        reason: TensorError,
    },
}

/// What every message of a [`DefaultError`] begins with.
const NAMED: &str = "fallback.default";

/// Whether a version did not load for this reason: its declared default does not fit it.
pub(crate) fn is_misfit(reason: &str) -> bool {
    reason.starts_with(NAMED)
}

/// The most bytes of one output: a request of few bytes may have very many empty rows.
const MOST_BYTES: usize = 64 << 20;

/// Checks that a default fits the model that it stands in for.
///
/// # Errors
///
/// Fails with the first output that does not.
pub fn check_default(spec: &FallbackSpec, signature: &ModelSignature) -> Result<(), DefaultError> {
    default_of(&spec.default, Some(signature), 1).map(drop)
}

/// Makes the answer to a request out of declared values.
pub(crate) fn default_answer(
    values: &BTreeMap<Name, DefaultValue>,
    signature: Option<&ModelSignature>,
    request: &InferRequest,
) -> Result<SmallVec<[NamedTensor; 2]>, DefaultError> {
    let rows = request.inputs.first().and_then(|input| input.tensor.shape().rows()).unwrap_or(1);
    let all = default_of(values, signature, rows)?;
    if request.outputs.is_empty() {
        return Ok(all);
    }
    let wanted = request.outputs.iter().map(|wanted| {
        let output = || wanted.name.clone();
        let found = all.iter().find(|named| named.name == wanted.name);
        let found = found.ok_or_else(|| DefaultError::Missing { output: output() })?;
        match wanted.classification {
            Some(_) => Err(DefaultError::Classes { output: output() }),
            None => Ok(found.clone()),
        }
    });
    wanted.collect()
}

/// Makes the tensors, in the signature's order where there is one.
fn default_of(
    values: &BTreeMap<Name, DefaultValue>,
    signature: Option<&ModelSignature>,
    rows: usize,
) -> Result<SmallVec<[NamedTensor; 2]>, DefaultError> {
    let Some(signature) = signature else {
        let tensors = values.iter().map(|(output, value)| {
            let row = Row::of(output, value)?;
            let data_type = row
                .inferred_type()
                .ok_or_else(|| DefaultError::Mixed { output: output.clone() })?;
            let shape = Shape::new([rows].into_iter().chain(row.shape.iter().copied()));
            row.tensor(data_type, shape, rows)
        });
        return tensors.collect();
    };
    for output in values.keys() {
        if signature.output_index(output).is_none() {
            let names: Vec<&str> =
                signature.outputs.iter().map(|spec| spec.name.as_str()).collect();
            let expected = names.join(", ");
            return Err(DefaultError::UnknownOutput { output: output.clone(), expected });
        }
    }
    let declared =
        signature.outputs.iter().filter_map(|spec| Some((spec, values.get(&spec.name)?)));
    let tensors = declared.map(|(spec, value)| {
        let row = Row::of(&spec.name, value)?;
        let (shape, rows) = row.fitted(spec, rows)?;
        row.tensor(spec.data_type, shape, rows)
    });
    tensors.collect()
}

/// The values of one row of one output.
struct Row<'a> {
    output: &'a Name,
    elements: Vec<&'a Parameter>,
    /// As the lists are nested; nothing where there is one value and no list.
    shape: SmallVec<[usize; 4]>,
}

impl<'a> Row<'a> {
    fn of(output: &'a Name, value: &'a DefaultValue) -> Result<Self, DefaultError> {
        let mut row = Row { output, elements: Vec::new(), shape: SmallVec::new() };
        let mut first = value;
        while let DefaultValue::Many(items) = first {
            row.shape.push(items.len());
            match items.first() {
                Some(item) => first = item,
                None => break,
            }
        }
        match row.collect(value, 0) {
            true => Ok(row),
            false => Err(DefaultError::Ragged { output: output.clone() }),
        }
    }

    /// Collects the elements, or returns whether lists at the same depth differ in length.
    fn collect(&mut self, value: &'a DefaultValue, depth: usize) -> bool {
        match (value, self.shape.get(depth)) {
            (DefaultValue::One(element), None) => {
                self.elements.push(element);
                true
            }
            (DefaultValue::Many(items), Some(&length)) if items.len() == length => {
                items.iter().all(|item| self.collect(item, depth + 1))
            }
            _ => false,
        }
    }

    fn inferred_type(&self) -> Option<DataType> {
        let of = |element: &Parameter| match element {
            Parameter::Bool(_) => DataType::Bool,
            Parameter::Int(_) => DataType::Int64,
            Parameter::Float(_) => DataType::Fp64,
            Parameter::String(_) => DataType::Bytes,
        };
        let mut types = self.elements.iter().map(|element| of(element));
        let first = types.next().unwrap_or(DataType::Fp64);
        types.all(|other| other == first).then_some(first)
    }

    /// Returns the tensor's shape by the signature, and how many rows it then has.
    fn fitted(&self, spec: &TensorSpec, rows: usize) -> Result<(Shape, usize), DefaultError> {
        let own = || Shape::new(self.shape.iter().copied());
        let error = || DefaultError::WrongShape {
            output: self.output.clone(),
            shape: own(),
            expected: spec.shape.clone(),
        };
        let ShapePattern::Ranked(dimensions) = &spec.shape else {
            return Ok((Shape::new([rows].into_iter().chain(self.shape.iter().copied())), rows));
        };
        let Some((first, inner)) = dimensions.split_first() else {
            // A scalar has no rows.
            return if self.elements.len() == 1 { Ok((Shape::default(), 1)) } else { Err(error()) };
        };
        let rows = first.size().unwrap_or(rows);
        let row = self.row_shape(inner).ok_or_else(error)?;
        Ok((Shape::new([rows].into_iter().chain(row)), rows))
    }

    /// Returns the shape of a row: as the lists are nested, or a flat list (or one value) in the only shape
    /// that it can have.
    fn row_shape(&self, inner: &[Dimension]) -> Option<SmallVec<[usize; 4]>> {
        let fits = |(dimension, &size): (&Dimension, &usize)| {
            dimension.size().is_none_or(|fixed| fixed == size)
        };
        if self.shape.len() == inner.len() && inner.iter().zip(&self.shape).all(fits) {
            return Some(self.shape.clone());
        }
        if self.shape.len() > 1 {
            return None;
        }
        let fixed = inner.iter().filter_map(Dimension::size).try_fold(1, usize::checked_mul)?;
        let open = inner.iter().filter(|dimension| dimension.size().is_none()).count();
        let count = self.elements.len();
        // What is open takes what is left, where that leaves no choice: one open size, or a single element.
        let rest =
            if fixed == 0 || !count.is_multiple_of(fixed) { return None } else { count / fixed };
        let size = match open {
            0 if rest == 1 => 1,
            1 => rest,
            _ if rest == 1 => 1,
            _ => return None,
        };
        Some(inner.iter().map(|dimension| dimension.size().unwrap_or(size)).collect())
    }

    fn tensor(
        &self,
        data_type: DataType,
        shape: Shape,
        rows: usize,
    ) -> Result<NamedTensor, DefaultError> {
        let size = |element: &&Parameter| match element {
            Parameter::String(text) => text.len() + size_of::<std::ops::Range<usize>>(),
            _ => size_of::<f64>(),
        };
        let row: usize = self.elements.iter().map(size).sum();
        if row.checked_mul(rows).is_none_or(|all| all > MOST_BYTES) {
            let output = self.output.clone();
            return Err(DefaultError::TooLarge { output, rows, most: MOST_BYTES });
        }
        let tensor = match data_type {
            DataType::Bytes => {
                let texts = self.converted(data_type, rows, |element| match element {
                    Parameter::String(text) => Some(text.as_str()),
                    _ => None,
                })?;
                Tensor::from_strings(shape, texts.into_iter().collect::<Strings>())
            }
            DataType::Bool => {
                let bools = self.converted(data_type, rows, |element| match element {
                    Parameter::Bool(value) => Some(*value),
                    _ => None,
                })?;
                Tensor::from_bools(shape, bools)
            }
            DataType::Uint8 => self.whole::<u8>(shape, rows)?,
            DataType::Uint16 => self.whole::<u16>(shape, rows)?,
            DataType::Uint32 => self.whole::<u32>(shape, rows)?,
            DataType::Uint64 => self.whole::<u64>(shape, rows)?,
            DataType::Int8 => self.whole::<i8>(shape, rows)?,
            DataType::Int16 => self.whole::<i16>(shape, rows)?,
            DataType::Int32 => self.whole::<i32>(shape, rows)?,
            DataType::Int64 => self.whole::<i64>(shape, rows)?,
            DataType::Fp16 => {
                self.float(shape, rows, |of| (f16::from_f64(of), |is| is.to_f64()))?
            }
            DataType::Bf16 => {
                self.float(shape, rows, |of| (bf16::from_f64(of), |is| is.to_f64()))?
            }
            DataType::Fp32 => self.float(shape, rows, |of| (of as f32, f64::from))?,
            DataType::Fp64 => self.float(shape, rows, |of| (of, |is| is))?,
        };
        let output = self.output.clone();
        match tensor {
            Ok(tensor) => Ok(NamedTensor { name: output, tensor }),
            Err(reason) => Err(DefaultError::Tensor { output, rows, reason }),
        }
    }

    fn whole<T: Element + Send + TryFrom<i64>>(
        &self,
        shape: Shape,
        rows: usize,
    ) -> Result<Result<Tensor, TensorError>, DefaultError> {
        let numbers = self.converted(T::DATA_TYPE, rows, |element| match element {
            Parameter::Int(number) => T::try_from(*number).ok(),
            _ => None,
        })?;
        Ok(Tensor::from_vec(shape, numbers))
    }

    /// Decimals are rounded to the type, as everywhere; whole numbers must be what they are, and nothing may
    /// become infinite.
    fn float<T: Element + Send>(
        &self,
        shape: Shape,
        rows: usize,
        convert: impl Fn(f64) -> (T, fn(T) -> f64),
    ) -> Result<Result<Tensor, TensorError>, DefaultError> {
        let numbers = self.converted(T::DATA_TYPE, rows, |element| match element {
            Parameter::Float(number) => {
                let (rounded, back) = convert(*number);
                (back(rounded).is_finite() == number.is_finite()).then_some(rounded)
            }
            Parameter::Int(number) => {
                let (rounded, back) = convert(*number as f64);
                // Compared as wider integers: the nearest FP64 of i64::MAX is one more.
                (back(rounded).is_finite() && back(rounded) as i128 == i128::from(*number))
                    .then_some(rounded)
            }
            Parameter::Bool(_) | Parameter::String(_) => None,
        })?;
        Ok(Tensor::from_vec(shape, numbers))
    }

    /// Converts the elements of a row and repeats them for each row.
    fn converted<T: Copy>(
        &self,
        data_type: DataType,
        rows: usize,
        convert: impl Fn(&'a Parameter) -> Option<T>,
    ) -> Result<Vec<T>, DefaultError> {
        let each = self.elements.iter().map(|element| {
            convert(element).ok_or_else(|| DefaultError::WrongType {
                output: self.output.clone(),
                value: shown(element),
                data_type,
            })
        });
        Ok(each.collect::<Result<Vec<T>, _>>()?.repeat(rows))
    }
}

fn shown(element: &Parameter) -> String {
    match element {
        Parameter::Bool(value) => value.to_string(),
        Parameter::Int(number) => number.to_string(),
        Parameter::Float(number) => format!("{number:?}"),
        Parameter::String(text) => format!("{:?}", text.chars().take(64).collect::<String>()),
    }
}

#[cfg(test)]
mod tests {
    use outhaul_types::{Classification, RequestedOutput};

    use super::*;

    fn values(json: &str) -> BTreeMap<Name, DefaultValue> {
        serde_json::from_str(json).unwrap()
    }

    fn spec(name: &str, data_type: DataType, shape: &[i64]) -> TensorSpec {
        let dimension = |&size: &i64| match usize::try_from(size) {
            Ok(size) => Dimension::Fixed(size),
            Err(_) => Dimension::Any,
        };
        let shape = ShapePattern::ranked(shape.iter().map(dimension));
        TensorSpec { name: name.into(), data_type, shape, optional: false }
    }

    fn signature(outputs: Vec<TensorSpec>) -> ModelSignature {
        ModelSignature { inputs: Vec::new(), outputs }
    }

    fn request(rows: usize, outputs: &[&str]) -> InferRequest {
        let tensor = Tensor::from_vec([rows, 1], vec![0_f32; rows]).unwrap();
        let input = NamedTensor { name: "x".into(), tensor };
        let wanted = |name: &&str| RequestedOutput { name: (*name).into(), classification: None };
        let outputs = outputs.iter().map(wanted).collect();
        InferRequest { outputs, ..InferRequest::new("m", [input]) }
    }

    fn one(json: &str, spec: TensorSpec, rows: usize) -> Result<Tensor, String> {
        let json = format!("{{\"y\": {json}}}");
        let signature = signature(vec![spec]);
        let answer = default_answer(&values(&json), Some(&signature), &request(rows, &[]));
        answer.map(|mut outputs| outputs.remove(0).tensor).map_err(|error| error.to_string())
    }

    #[test]
    fn the_signature_says_type_and_shape() {
        let floats = |shape: &[usize], of: &[f32]| Tensor::from_vec(shape, of.to_vec()).unwrap();
        let fp32 = |shape: &[i64]| spec("y", DataType::Fp32, shape);
        for (json, spec, rows, expected) in [
            ("0.5", fp32(&[-1]), 2, floats(&[2], &[0.5, 0.5])),
            ("[0.5]", fp32(&[-1, 1]), 2, floats(&[2, 1], &[0.5, 0.5])),
            ("7", fp32(&[-1, 1]), 1, floats(&[1, 1], &[7.0])),
            ("[1, 2]", fp32(&[-1, 2]), 2, floats(&[2, 2], &[1.0, 2.0, 1.0, 2.0])),
            ("[1, 2]", fp32(&[-1, -1]), 1, floats(&[1, 2], &[1.0, 2.0])),
            ("[[1], [2]]", fp32(&[-1, -1, -1]), 1, floats(&[1, 2, 1], &[1.0, 2.0])),
            ("[1, 2, 3, 4]", fp32(&[-1, 2, 2]), 1, floats(&[1, 2, 2], &[1.0, 2.0, 3.0, 4.0])),
            ("[1, 2, 3, 4]", fp32(&[-1, -1, 2]), 1, floats(&[1, 2, 2], &[1.0, 2.0, 3.0, 4.0])),
            ("3", fp32(&[-1, -1, -1]), 1, floats(&[1, 1, 1], &[3.0])),
            ("3", fp32(&[]), 5, floats(&[], &[3.0])),
            ("3", fp32(&[2]), 5, floats(&[2], &[3.0, 3.0])),
            ("3", fp32(&[-1]), 0, floats(&[0], &[])),
        ] {
            let expected = Ok(expected);
            assert_eq!(one(json, spec.clone(), rows), expected, "{json} for {}", spec.shape);
        }
        let texts = Tensor::from_strings([2], ["a", "a"].iter().collect::<Strings>()).unwrap();
        assert_eq!(one("\"a\"", spec("y", DataType::Bytes, &[-1]), 2), Ok(texts));
        let any = TensorSpec { shape: ShapePattern::AnyRank, ..fp32(&[]) };
        assert_eq!(one("[1, 2]", any, 1), Ok(floats(&[1, 2], &[1.0, 2.0])));
    }

    #[test]
    fn every_type_takes_what_it_can_hold_and_nothing_else() {
        use DataType::{Bf16, Bool, Bytes, Fp16, Fp32, Fp64, Int8, Int64, Uint8, Uint64};
        for (data_type, good, bad) in [
            (Bool, &["true"][..], &["1", "\"true\"", "0.0"][..]),
            (Bytes, &["\"\""], &["1", "true"]),
            (Int8, &["-128", "127"], &["128", "1.0", "true", "\"1\""]),
            (Uint8, &["255"], &["-1", "256"]),
            (Uint64, &["9223372036854775807"], &["-1"]),
            (Int64, &["-9223372036854775808"], &["0.5"]),
            (Fp16, &["0.1", "2048"], &["1e9", "2049", "true"]),
            (Bf16, &["0.1", "256"], &["257"]),
            (Fp32, &["0.1", "16777216", "1e38"], &["16777217", "1e39", "\"0\""]),
            (Fp64, &["0.1", "9007199254740992"], &["9007199254740993", "9223372036854775807"]),
        ] {
            for json in good {
                let tensor = one(json, spec("y", data_type, &[-1]), 3);
                assert_eq!(tensor.as_ref().map(Tensor::len), Ok(3), "{json} as {data_type}");
            }
            for json in bad {
                let error = one(json, spec("y", data_type, &[-1]), 3).expect_err(json);
                assert!(error.ends_with(&format!(" is no {data_type}")), "{json}: {error}");
            }
        }
    }

    #[test]
    fn without_a_model_types_follow_from_the_values() {
        let json = r#"{"b": true, "i": [1, 2], "f": [[0.5], [1.5]], "s": "a"}"#;
        let answer = default_answer(&values(json), None, &request(2, &[])).unwrap();
        let form = |named: &NamedTensor| {
            (named.name.to_string(), named.tensor.data_type(), named.tensor.shape().to_vec())
        };
        let forms: Vec<_> = answer.iter().map(form).collect();
        let expected = [
            ("b".to_owned(), DataType::Bool, vec![2]),
            ("f".to_owned(), DataType::Fp64, vec![2, 2, 1]),
            ("i".to_owned(), DataType::Int64, vec![2, 2]),
            ("s".to_owned(), DataType::Bytes, vec![2]),
        ];
        assert_eq!(forms, expected);
        let no_inputs = InferRequest::new("m", []);
        assert_eq!(default_answer(&values(json), None, &no_inputs).unwrap()[0].tensor.len(), 1);
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let outputs = || signature(vec![spec("y", DataType::Fp32, &[-1, 2])]);
        for (json, expected) in [
            ("{\"z\": 1}", "the model gives no output 'z'; it gives y"),
            ("{\"y\": 1}", "fallback.default.y: [] for each row does not fit the output's [-1,2]"),
            ("{\"y\": [1, 2, 3]}", "[3] for each row does not fit the output's [-1,2]"),
            ("{\"y\": [[1], [2]]}", "[2,1] for each row does not fit the output's [-1,2]"),
            ("{\"y\": [[1, 2], 3]}", "lists in a list must all have the same shape"),
            ("{\"y\": [[1, 2], [3]]}", "lists in a list must all have the same shape"),
            ("{\"y\": [1, \"a\"]}", "fallback.default.y: \"a\" is no FP32"),
        ] {
            let fallback = FallbackSpec { default: values(json), ..FallbackSpec::default() };
            let error = check_default(&fallback, &outputs()).expect_err(json).to_string();
            assert!(error.contains(expected), "{json}: {error}");
        }
        let many = NamedTensor {
            name: "x".into(),
            tensor: Tensor::from_vec([usize::MAX, 0], Vec::<f32>::new()).unwrap(),
        };
        let many = InferRequest::new("m", [many]);
        let error = default_answer(&values("{\"y\": 1}"), None, &many).unwrap_err();
        assert!(matches!(error, DefaultError::TooLarge { rows: usize::MAX, .. }), "{error}");
        let mixed = default_answer(&values("{\"y\": [1, 0.5]}"), None, &request(1, &[]));
        assert_eq!(mixed, Err(DefaultError::Mixed { output: "y".into() }));
    }

    #[test]
    fn what_the_request_names_is_given_or_refused() {
        let values = values(r#"{"y": [1, 2], "z": "a"}"#);
        let names = |answer: SmallVec<[NamedTensor; 2]>| {
            answer.iter().map(|named| named.name.to_string()).collect::<Vec<_>>()
        };
        let order = default_answer(&values, None, &request(1, &["z", "y"])).map(names);
        assert_eq!(order, Ok(vec!["z".to_owned(), "y".to_owned()]));
        let missing = default_answer(&values, None, &request(1, &["w"])).map(names);
        assert_eq!(missing, Err(DefaultError::Missing { output: "w".into() }));
        let mut classes = request(1, &["y"]);
        classes.outputs[0].classification = Some(Classification { count: 1 });
        let refused = default_answer(&values, None, &classes).map(names);
        assert_eq!(refused, Err(DefaultError::Classes { output: "y".into() }));
    }
}
