//! The inputs of warm-up requests: generated, or read from files.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use outhaul_types::{
    DataType, Dimension, Fill, ModelSignature, Name, NamedTensor, Shape, ShapePattern, Strings,
    Tensor, TensorError, TensorSpec, WarmupInput, WarmupRequest,
};

/// The most bytes of one input. A model's file may fix any size; nobody warms up with more.
const MOST_BYTES: usize = 1 << 30;

/// The bytes that an empty string is taken to cost.
const STRING_BYTES: usize = 32;

/// Random inputs are the same in every process, so that a failure can be repeated.
const SEED: u64 = 0x0075_6874_6175_6c21;

/// Why an input of a warm-up request could not be made.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum InputError {
    #[error("unknown input '{name}'; the model takes {expected}")]
    Unknown { name: Name, expected: String },
    #[error(
        "input '{name}' of shape {shape} is larger than the {MOST_BYTES} bytes that warm-up takes"
    )]
    TooLarge { name: Name, shape: Shape },
    #[error("the file {} of input '{name}' cannot be read", path.display())]
    Unreadable {
        name: Name,
        path: PathBuf,
        #[source]
        error: std::io::Error,
    },
    #[error("the file {} of input '{name}' is larger than the {expected} bytes of shape {shape}", path.display())]
    TooLong { name: Name, path: PathBuf, shape: Shape, expected: usize },
    #[error("the file {} of input '{name}' does not hold strings with their lengths before them: {reason}", path.display())]
    BadStrings { name: Name, path: PathBuf, reason: String },
    #[error("input '{name}' cannot be made")]
    BadTensor {
        name: Name,
        #[source]
        error: TensorError,
    },
}

/// Makes the inputs of a request: those it declares, and zeros for the others that the model needs.
pub(super) fn of_request(
    signature: &ModelSignature,
    request: &WarmupRequest,
) -> Result<Vec<NamedTensor>, InputError> {
    for input in &request.inputs {
        if signature.input_index(&input.name).is_none() {
            let names = signature.inputs.iter().map(|spec| format!("'{}'", spec.name));
            let expected = names.collect::<Vec<_>>().join(", ");
            return Err(InputError::Unknown { name: input.name.clone(), expected });
        }
    }
    let rows = request.rows.get();
    let mut tensors = Vec::new();
    for spec in &signature.inputs {
        // One that is declared twice comes out twice, and the signature refuses it.
        let declared = request.inputs.iter().filter(|input| input.name == spec.name);
        let before = tensors.len();
        for WarmupInput { shape, fill, .. } in declared {
            let shape = shape.clone().unwrap_or_else(|| generated(&spec.shape, rows));
            tensors.push(make(spec, shape, fill)?);
        }
        if tensors.len() == before && !spec.optional {
            tensors.push(make(spec, generated(&spec.shape, rows), &Fill::Zeros)?);
        }
    }
    Ok(tensors)
}

/// The shape of a generated input: the outermost size is `rows` where it may vary, others that may
/// vary are 1. Of a model that says nothing of its sizes, the rows are all there is.
fn generated(pattern: &ShapePattern, rows: usize) -> Shape {
    match pattern {
        ShapePattern::AnyRank => Shape::from([rows]),
        ShapePattern::Ranked(dimensions) => {
            let open = std::iter::once(rows).chain(std::iter::repeat(1));
            let sizes = dimensions.iter().map(Dimension::size).zip(open);
            Shape::new(sizes.map(|(size, open)| size.unwrap_or(open)))
        }
    }
}

fn make(spec: &TensorSpec, shape: Shape, fill: &Fill) -> Result<NamedTensor, InputError> {
    let name = &spec.name;
    let element_size = spec.data_type.size().unwrap_or(STRING_BYTES);
    let elements = shape.elements().filter(|elements| {
        elements.checked_mul(element_size).is_some_and(|bytes| bytes <= MOST_BYTES)
    });
    let Some(elements) = elements else {
        return Err(InputError::TooLarge { name: name.clone(), shape });
    };
    let bad = |error| InputError::BadTensor { name: name.clone(), error };
    let tensor = match (spec.data_type, fill) {
        (DataType::Bytes, Fill::Zeros) => {
            let strings: Strings = std::iter::repeat_n("", elements).collect();
            Tensor::from_strings(shape, strings).map_err(bad)?
        }
        (DataType::Bytes, Fill::Random) => {
            let mut numbers = Numbers(SEED);
            let strings = (0..elements).map(|_| numbers.small().to_string()).collect();
            Tensor::from_strings(shape, strings).map_err(bad)?
        }
        (DataType::Bytes, Fill::File(path)) => {
            let bytes = read(name, path, MOST_BYTES, &shape)?;
            let spans = spans(&bytes).ok_or("a length that leaves the file");
            let strings = spans
                .and_then(|spans| Strings::from_spans(bytes.into(), spans).ok_or("a bad span"));
            let strings = strings.map_err(|reason| {
                let (name, path, reason) = (name.clone(), path.clone(), reason.to_owned());
                InputError::BadStrings { name, path, reason }
            })?;
            Tensor::from_strings(shape, strings).map_err(bad)?
        }
        (data_type, fill) => {
            let size = elements * element_size;
            let bytes = match fill {
                Fill::Zeros => vec![0; size],
                Fill::Random => random(data_type, elements),
                Fill::File(path) => read(name, path, size, &shape)?,
            };
            Tensor::from_bytes(data_type, shape, bytes.into()).map_err(bad)?
        }
    };
    Ok(NamedTensor { name: name.clone(), tensor })
}

/// Reads a whole file, and not one byte beyond what is wanted of it.
fn read(name: &Name, path: &Path, most: usize, shape: &Shape) -> Result<Vec<u8>, InputError> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    let done = File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes));
    done.map_err(|error| InputError::Unreadable {
        name: name.clone(),
        path: path.to_owned(),
        error,
    })?;
    if bytes.len() > most {
        let (name, path, shape) = (name.clone(), path.to_owned(), shape.clone());
        return Err(InputError::TooLong { name, path, shape, expected: most });
    }
    Ok(bytes)
}

/// Where the strings lie, each behind its length in four little-endian bytes.
fn spans(bytes: &[u8]) -> Option<Vec<Range<usize>>> {
    let mut spans = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let length = bytes.get(at..at + 4)?.first_chunk().copied().map(u32::from_le_bytes)?;
        let start = at + 4;
        let end = start.checked_add(usize::try_from(length).ok()?)?;
        if end > bytes.len() {
            return None;
        }
        spans.push(start..end);
        at = end;
    }
    Some(spans)
}

/// Little-endian elements: from 0 to 1 for floats, 0 or 1 for `BOOL`, small whole numbers else.
fn random(data_type: DataType, elements: usize) -> Vec<u8> {
    let mut numbers = Numbers(SEED);
    let mut bytes = Vec::with_capacity(elements * data_type.size().unwrap_or(1));
    for _ in 0..elements {
        match data_type {
            DataType::Fp16 => bytes.extend(f16::from_f32(numbers.fraction()).to_le_bytes()),
            DataType::Bf16 => bytes.extend(bf16::from_f32(numbers.fraction()).to_le_bytes()),
            DataType::Fp32 => bytes.extend(numbers.fraction().to_le_bytes()),
            DataType::Fp64 => bytes.extend(f64::from(numbers.fraction()).to_le_bytes()),
            DataType::Bool => bytes.push(numbers.small() & 1),
            // A small positive number is its lowest byte, whatever the width and sign.
            DataType::Uint8 | DataType::Int8 => bytes.push(numbers.small()),
            DataType::Uint16 | DataType::Int16 => bytes.extend([numbers.small(), 0]),
            DataType::Uint32 | DataType::Int32 => bytes.extend([numbers.small(), 0, 0, 0]),
            DataType::Uint64 | DataType::Int64 => {
                bytes.extend([numbers.small(), 0, 0, 0, 0, 0, 0, 0]);
            }
            DataType::Bytes => {}
        }
    }
    bytes
}

/// Random numbers that nothing depends on: SplitMix64 (Steele, Lea and Flood, 2014).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to 9.
    fn small(&mut self) -> u8 {
        (self.next() % 10) as u8
    }

    /// A number from 0 to 1, below 1.
    fn fraction(&mut self) -> f32 {
        // As many bits as the significand holds.
        (self.next() >> 40) as f32 / (1_u32 << 24) as f32
    }
}
