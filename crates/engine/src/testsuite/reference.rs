//! Reference cases: inputs, the outputs that belong to them, and how closely to agree.
//!
//! Numbers are parsed from their text into the tensor's own type, never through a narrower or a
//! less exact one: a reference of FP64 or UINT64 means exactly what it says.

use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use half::{bf16, f16};
use outhaul_types::{DataType, Element, NamedTensor, Shape, Strings, Tensor};
use serde::Deserialize;
use serde_json::value::RawValue;

/// The cases of one model.
#[derive(Clone, Debug)]
pub struct Reference {
    /// The name of the reference file without its extension.
    pub name: String,
    /// The model's file.
    pub path: PathBuf,
    /// How closely an answer must agree.
    pub tolerance: Tolerance,
    /// The cases.
    pub cases: Vec<Case>,
}

/// One request and its answer.
#[derive(Clone, Debug)]
pub struct Case {
    /// A name, unique within the model.
    pub name: String,
    /// The inputs; optional ones may be missing.
    pub inputs: Vec<NamedTensor>,
    /// All outputs, in the signature's order.
    pub outputs: Vec<NamedTensor>,
}

/// How closely floats must agree: `|ours - reference| <= absolute + relative * |reference|`. Both
/// zero means the same bits. Everything that is no float must always be equal.
#[derive(Clone, Debug, Deserialize)]
pub struct Tolerance {
    /// The part that does not grow with the value.
    pub absolute: f64,
    /// The part that does.
    pub relative: f64,
    /// Why the answers may differ at all.
    pub reason: String,
}

#[derive(Deserialize)]
struct RawReference {
    model: String,
    tolerance: Tolerance,
    cases: Vec<RawCase>,
}

#[derive(Deserialize)]
struct RawCase {
    name: String,
    inputs: Vec<RawTensor>,
    outputs: Vec<RawTensor>,
}

#[derive(Deserialize)]
struct RawTensor {
    name: String,
    datatype: String,
    shape: Vec<usize>,
    data: Vec<Box<RawValue>>,
}

/// Reads all reference files of `testdata`, in the order of their names.
///
/// # Errors
///
/// Fails where a file cannot be read or is not of the form that `testdata/README.md` states.
pub fn read_references(testdata: &Path) -> Result<Vec<Reference>, String> {
    let folder = testdata.join("reference");
    let entries =
        fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    paths.sort();
    paths
        .iter()
        .map(|path| {
            read_reference(testdata, path).map_err(|reason| format!("{}: {reason}", path.display()))
        })
        .collect()
}

fn read_reference(testdata: &Path, path: &Path) -> Result<Reference, String> {
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    let raw: RawReference = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let cases = raw.cases.into_iter().map(|case| {
        let tensors = |tensors: Vec<RawTensor>| {
            let parsed = tensors.into_iter().map(RawTensor::parse);
            parsed
                .collect::<Result<Vec<_>, _>>()
                .map_err(|reason| format!("case '{}': {reason}", case.name))
        };
        let (inputs, outputs) = (tensors(case.inputs)?, tensors(case.outputs)?);
        Ok(Case { name: case.name, inputs, outputs })
    });
    Ok(Reference {
        name: name.unwrap_or_default(),
        path: testdata.join(raw.model),
        tolerance: raw.tolerance,
        cases: cases.collect::<Result<_, String>>()?,
    })
}

impl RawTensor {
    fn parse(self) -> Result<NamedTensor, String> {
        let data_type: DataType =
            self.datatype.parse().map_err(|error: outhaul_types::UnknownDataType| {
                format!("tensor '{}': {error}", self.name)
            })?;
        let tensor = parse_data(data_type, Shape::new(self.shape), &self.data)
            .map_err(|reason| format!("tensor '{}': {reason}", self.name))?;
        Ok(NamedTensor { name: self.name.into(), tensor })
    }
}

fn parse_data(data_type: DataType, shape: Shape, data: &[Box<RawValue>]) -> Result<Tensor, String> {
    match data_type {
        DataType::Bool => {
            let bools: Vec<bool> = parse_texts(data)?;
            Tensor::from_bools(shape, bools).map_err(|error| error.to_string())
        }
        DataType::Bytes => {
            let texts: Result<Vec<String>, _> =
                data.iter().map(|text| serde_json::from_str(text.get())).collect();
            let strings: Strings = texts.map_err(|error| error.to_string())?.iter().collect();
            Tensor::from_strings(shape, strings).map_err(|error| error.to_string())
        }
        DataType::Uint8 => numbers::<u8>(shape, data),
        DataType::Uint16 => numbers::<u16>(shape, data),
        DataType::Uint32 => numbers::<u32>(shape, data),
        DataType::Uint64 => numbers::<u64>(shape, data),
        DataType::Int8 => numbers::<i8>(shape, data),
        DataType::Int16 => numbers::<i16>(shape, data),
        DataType::Int32 => numbers::<i32>(shape, data),
        DataType::Int64 => numbers::<i64>(shape, data),
        DataType::Fp16 => numbers::<f16>(shape, data),
        DataType::Bf16 => numbers::<bf16>(shape, data),
        DataType::Fp32 => numbers::<f32>(shape, data),
        DataType::Fp64 => numbers::<f64>(shape, data),
    }
}

fn numbers<T>(shape: Shape, data: &[Box<RawValue>]) -> Result<Tensor, String>
where
    T: Element + FromStr + Send,
    T::Err: Display,
{
    Tensor::from_vec(shape, parse_texts::<T>(data)?).map_err(|error| error.to_string())
}

fn parse_texts<T: FromStr>(data: &[Box<RawValue>]) -> Result<Vec<T>, String>
where
    T::Err: Display,
{
    let texts = data.iter().map(|raw| raw.get());
    texts
        .map(|text| text.parse().map_err(|error: T::Err| format!("element {text}: {error}")))
        .collect()
}

impl Tolerance {
    /// Demands the same bits.
    pub fn exact(reason: &str) -> Self {
        Tolerance { absolute: 0.0, relative: 0.0, reason: reason.to_owned() }
    }

    /// Compares all outputs of an answer with the reference.
    ///
    /// # Errors
    ///
    /// Fails with the first element that differs too much.
    pub fn agree(&self, expected: &[NamedTensor], received: &[NamedTensor]) -> Result<(), String> {
        if expected.len() != received.len() {
            return Err(format!("{} outputs, expected {}", received.len(), expected.len()));
        }
        for (expected, received) in expected.iter().zip(received) {
            if expected.name != received.name {
                return Err(format!("output '{}' in place of '{}'", received.name, expected.name));
            }
            self.agree_tensor(&expected.tensor, &received.tensor)
                .map_err(|reason| format!("output '{}': {reason}", expected.name))?;
        }
        Ok(())
    }

    /// Compares one tensor with the reference.
    ///
    /// # Errors
    ///
    /// Fails with the first element that differs too much.
    pub fn agree_tensor(&self, expected: &Tensor, received: &Tensor) -> Result<(), String> {
        if (expected.data_type(), expected.shape()) != (received.data_type(), received.shape()) {
            return Err(format!(
                "{} {}, expected {} {}",
                received.data_type(),
                received.shape(),
                expected.data_type(),
                expected.shape()
            ));
        }
        if expected == received {
            return Ok(());
        }
        let exact = self.absolute == 0.0 && self.relative == 0.0;
        let (Some(expected_floats), Some(received_floats)) = (floats(expected), floats(received))
        else {
            return Err(format!("{received:?}, expected {expected:?}"));
        };
        let close = |expected: f64, received: f64| {
            let same = expected.to_bits() == received.to_bits()
                || expected.is_nan() && received.is_nan() && !exact;
            same || !exact
                && (expected - received).abs() <= self.absolute + self.relative * expected.abs()
        };
        let pairs = expected_floats.into_iter().zip(received_floats);
        match pairs.enumerate().find(|(_, (expected, received))| !close(*expected, *received)) {
            None if exact => Err("a NaN of other bits".to_owned()),
            None => Ok(()),
            Some((index, (expected, received))) => Err(format!(
                "element {index} is {received:e}, expected {expected:e} within {:e} + {:e} of it \
                 ({})",
                self.absolute, self.relative, self.reason
            )),
        }
    }
}

/// Returns the elements of a float tensor, widened without loss.
fn floats(tensor: &Tensor) -> Option<Vec<f64>> {
    fn widen<T: Element + Into<f64>>(tensor: &Tensor) -> Option<Vec<f64>> {
        Some(tensor.elements_of::<T>()?.iter().map(|&element| element.into()).collect())
    }
    match tensor.data_type() {
        DataType::Fp16 => widen::<f16>(tensor),
        DataType::Bf16 => widen::<bf16>(tensor),
        DataType::Fp32 => widen::<f32>(tensor),
        DataType::Fp64 => widen::<f64>(tensor),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(data_type: DataType, elements: &str) -> Tensor {
        let data: Vec<Box<RawValue>> = serde_json::from_str(elements).unwrap();
        parse_data(data_type, Shape::from([data.len()]), &data).unwrap()
    }

    #[test]
    fn numbers_keep_every_digit() {
        let big = tensor(DataType::Uint64, "[18446744073709551615]");
        assert_eq!(big.as_slice::<u64>(), Some(&[u64::MAX][..]));
        let tiny = tensor(DataType::Fp64, "[5e-324, -0.0]");
        assert_eq!(tiny.as_slice::<f64>().unwrap()[0].to_bits(), 1);
        assert!(tiny.as_slice::<f64>().unwrap()[1].is_sign_negative());
        let half = tensor(DataType::Fp16, "[65504.0]");
        assert_eq!(half.as_slice::<f16>(), Some(&[f16::MAX][..]));
    }

    #[test]
    fn agreement_is_what_the_tolerance_says() {
        let agree = |absolute, relative, expected, received| {
            let tolerance = Tolerance { absolute, relative, reason: "a test".to_owned() };
            tolerance
                .agree_tensor(&tensor(DataType::Fp32, expected), &tensor(DataType::Fp32, received))
        };
        assert!(agree(0.0, 0.0, "[1.5]", "[1.5]").is_ok());
        assert!(agree(0.0, 0.0, "[0.0]", "[-0.0]").is_err(), "exact means the same bits");
        assert!(agree(0.0, 1e-3, "[1000.0]", "[1000.5]").is_ok());
        assert!(agree(0.0, 1e-4, "[1000.0]", "[1000.5]").is_err());
        assert!(agree(1e-3, 0.0, "[0.0]", "[0.0005]").is_ok());
        assert!(agree(1.0, 1.0, "[1.0, 2.0]", "[1.0]").is_err(), "shapes must be equal");
        let exact = Tolerance::exact("a test");
        let (left, right) = (tensor(DataType::Int32, "[1]"), tensor(DataType::Int32, "[2]"));
        assert!(exact.agree_tensor(&left, &right).is_err());
    }
}
