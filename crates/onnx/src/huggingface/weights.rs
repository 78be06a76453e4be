//! `model.safetensors`, in one file or in shards: tensors by name, and their elements as FP32.
//!
//! Invariant: no more is read than a header says, and no header is believed before it has been held
//! against the file's length. Elements are read when they are written on, one tensor at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Component, Path, PathBuf};

use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::Metadata;

use super::HuggingFaceError;
use super::family::{Family, PASSED_OVER};

/// The format's own limit.
const LARGEST_HEADER: u64 = 100_000_000;

/// A list of shards names each tensor once.
const LARGEST_INDEX: u64 = 64 * 1024 * 1024;

/// So many bytes are converted at a time.
const CHUNK: usize = 1 << 18;

/// Where a tensor's elements are.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Weight {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    element: Element,
    file: usize,
    offset: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Element {
    F32,
    F16,
    Bf16,
}

impl Element {
    fn of(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F32 => Some(Element::F32),
            Dtype::F16 => Some(Element::F16),
            Dtype::BF16 => Some(Element::Bf16),
            _ => None,
        }
    }

    fn bytes(self) -> usize {
        if self == Element::F32 { 4 } else { 2 }
    }
}

/// A tensor that was found, before anybody asked for it.
struct Found {
    dtype: Dtype,
    shape: Vec<usize>,
    file: usize,
    offset: u64,
}

/// All tensors of a model.
pub(super) struct Weights {
    /// The file that was asked for, for errors.
    path: PathBuf,
    files: Vec<(PathBuf, File)>,
    found: BTreeMap<String, Found>,
    taken: BTreeSet<String>,
    prefix: &'static str,
    /// Whether the encoder's tensors carry the prefix.
    is_prefixed: bool,
    narrow: BTreeSet<Element>,
}

impl Weights {
    /// Opens `model.safetensors`, or its shards by `model.safetensors.index.json`.
    pub(super) fn open(path: &Path, family: &Family) -> Result<Self, HuggingFaceError> {
        let mut weights = Weights {
            path: path.to_owned(),
            files: Vec::new(),
            found: BTreeMap::new(),
            taken: BTreeSet::new(),
            prefix: family.prefix,
            is_prefixed: false,
            narrow: BTreeSet::new(),
        };
        if path.extension().is_some_and(|extension| extension == "json") {
            for shard in shards(path)? {
                weights.add(&shard)?;
            }
        } else {
            weights.add(path)?;
        }
        weights.is_prefixed = weights.found.keys().any(|name| name.starts_with(family.prefix));
        Ok(weights)
    }

    fn add(&mut self, path: &Path) -> Result<(), HuggingFaceError> {
        let read = |source| HuggingFaceError::Read { path: path.to_owned(), source };
        let damaged = |reason: String| HuggingFaceError::Damaged { path: path.to_owned(), reason };
        // Opening a pipe would wait for its writer, so what kind it is comes first.
        if !path.metadata().map_err(read)?.is_file() {
            return Err(damaged("it is not a file".to_owned()));
        }
        let mut file = File::open(path).map_err(read)?;
        let length = file.metadata().map_err(read)?.len();
        let mut size = [0; 8];
        file.read_exact(&mut size).map_err(|_| {
            damaged(format!("it has {length} bytes, and a header takes at least 8"))
        })?;
        let size = u64::from_le_bytes(size);
        if size > LARGEST_HEADER || size > length - 8 {
            let rest = length - 8;
            return Err(damaged(format!("its header would have {size} bytes of {rest}")));
        }
        let mut header = vec![0; size as usize];
        file.read_exact(&mut header).map_err(read)?;
        let header: Metadata = serde_json::from_slice(&header)
            .map_err(|error| damaged(format!("its header is none: {error}")))?;
        let (data, expected) = (length - 8 - size, header.data_len() as u64);
        if data != expected {
            let reason = format!("its tensors take {expected} bytes, and {data} follow its header");
            return Err(damaged(reason));
        }
        let index = self.files.len();
        for (name, info) in header.tensors() {
            let found = Found {
                dtype: info.dtype,
                shape: info.shape.clone(),
                file: index,
                offset: 8 + size + info.data_offsets.0 as u64,
            };
            let name = modern(&name);
            if self.found.contains_key(&name) {
                return Err(damaged(format!("it holds tensor '{name}' for a second time")));
            }
            self.found.insert(name, found);
        }
        self.files.push((path.to_owned(), file));
        Ok(())
    }

    /// Takes a tensor of the encoder, whose name may begin with the family's prefix.
    pub(super) fn encoder(
        &mut self,
        name: &str,
        shape: &[usize],
    ) -> Result<Weight, HuggingFaceError> {
        let name =
            if self.is_prefixed { format!("{}{name}", self.prefix) } else { name.to_owned() };
        self.take(&name, shape)
    }

    /// Takes a tensor by its whole name.
    pub(super) fn take(&mut self, name: &str, shape: &[usize]) -> Result<Weight, HuggingFaceError> {
        let path = || self.path.clone();
        let Some(found) = self.found.get(name) else {
            return Err(HuggingFaceError::MissingTensor { path: path(), name: name.to_owned() });
        };
        if found.shape != shape {
            return Err(HuggingFaceError::WrongShape {
                path: path(),
                name: name.to_owned(),
                found: found.shape.clone(),
                expected: shape.to_vec(),
            });
        }
        let Some(element) = Element::of(found.dtype) else {
            let (name, element) = (name.to_owned(), found.dtype.to_string());
            return Err(HuggingFaceError::WrongElement { path: path(), name, element });
        };
        let (file, offset) = (found.file, found.offset);
        if element != Element::F32 {
            self.narrow.insert(element);
        }
        self.taken.insert(name.to_owned());
        Ok(Weight { name: name.to_owned(), shape: shape.to_vec(), element, file, offset })
    }

    /// Returns whether there is a tensor of this whole name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.found.contains_key(name)
    }

    /// Ends taking.
    ///
    /// # Errors
    ///
    /// Fails where tensors are left that belong to no model of the family.
    pub(super) fn all_taken(&self) -> Result<(), HuggingFaceError> {
        let is_left = |name: &&String| {
            let inner = name.strip_prefix(self.prefix).unwrap_or(name);
            !self.taken.contains(*name)
                && !PASSED_OVER.iter().any(|passed| inner.starts_with(passed))
        };
        let left: Vec<&str> = self.found.keys().filter(is_left).map(String::as_str).collect();
        if left.is_empty() {
            return Ok(());
        }
        let mut names = left.iter().take(5).copied().collect::<Vec<_>>().join(", ");
        if left.len() > 5 {
            names.push_str(", ...");
        }
        let (path, count) = (self.path.clone(), left.len());
        Err(HuggingFaceError::UnexpectedTensors { path, count, names })
    }

    /// Returns what the tensors hold that were taken, where that is not FP32.
    pub(super) fn narrow_elements(&self) -> Vec<&'static str> {
        let name = |element: &Element| if *element == Element::F16 { "F16" } else { "BF16" };
        self.narrow.iter().map(name).collect()
    }

    /// Writes a tensor's elements as little-endian FP32, `[columns, rows]` in place of `[rows, columns]` where it is to
    /// be transposed.
    pub(super) fn write(
        &self,
        weight: &Weight,
        transpose: bool,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let Some((_, file)) = self.files.get(weight.file) else {
            return Err(io::Error::other("a tensor of a file that is not open"));
        };
        let mut file: &File = file;
        file.seek(SeekFrom::Start(weight.offset))?;
        let elements: usize = weight.shape.iter().product();
        let bytes = elements * weight.element.bytes();
        let mut source = file.take(bytes as u64);
        match weight.shape.as_slice() {
            [rows, columns] if transpose => {
                let mut values = vec![0; bytes];
                source.read_exact(&mut values)?;
                let values = widened(&values, weight.element);
                out.write_all(&transposed(&values, *rows, *columns))
            }
            _ => {
                let mut chunk = vec![0; CHUNK.min(bytes)];
                let mut left = bytes;
                while left > 0 {
                    let part = chunk.get_mut(..left.min(CHUNK)).unwrap_or_default();
                    source.read_exact(part)?;
                    left -= part.len();
                    match weight.element {
                        Element::F32 => out.write_all(part)?,
                        element => out.write_all(&widened(part, element))?,
                    }
                }
                Ok(())
            }
        }
    }
}

/// Names a normalisation's tensors as they are named today: weights converted from TensorFlow are
/// called `gamma` and `beta`.
fn modern(name: &str) -> String {
    if let Some(stem) = name.strip_suffix("LayerNorm.gamma") {
        format!("{stem}LayerNorm.weight")
    } else if let Some(stem) = name.strip_suffix("LayerNorm.beta") {
        format!("{stem}LayerNorm.bias")
    } else {
        name.to_owned()
    }
}

/// Reads which files a list of shards names.
fn shards(path: &Path) -> Result<Vec<PathBuf>, HuggingFaceError> {
    let damaged = |reason: String| HuggingFaceError::Damaged { path: path.to_owned(), reason };
    let read = |source| HuggingFaceError::Read { path: path.to_owned(), source };
    let mut text = Vec::new();
    let file = File::open(path).map_err(read)?;
    file.take(LARGEST_INDEX + 1).read_to_end(&mut text).map_err(read)?;
    let index: serde_json::Value = match text.len() as u64 {
        ..=LARGEST_INDEX => serde_json::from_slice(&text)
            .map_err(|error| damaged(format!("it is no JSON: {error}")))?,
        _ => return Err(damaged("it is larger than 64 MiB".to_owned())),
    };
    let map = index.get("weight_map").and_then(serde_json::Value::as_object);
    let map = map.ok_or_else(|| damaged("it has no weight_map".to_owned()))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut names = BTreeSet::new();
    for (tensor, shard) in map {
        let name = shard.as_str().filter(|name| {
            let mut parts = Path::new(name).components();
            matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None))
        });
        let Some(name) = name else {
            let reason = format!("it says that tensor '{tensor}' lies in {shard}, no file here");
            return Err(damaged(reason));
        };
        names.insert(name);
    }
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

/// Returns elements as little-endian FP32.
fn widened(bytes: &[u8], element: Element) -> Vec<u8> {
    let halves = || bytes.as_chunks::<2>().0.iter().map(|pair| u16::from_le_bytes(*pair));
    let mut wide = Vec::with_capacity(bytes.len() * 4 / element.bytes());
    match element {
        Element::F32 => wide.extend_from_slice(bytes),
        Element::F16 => {
            halves().for_each(|bits| wide.extend(f16::from_bits(bits).to_f32().to_le_bytes()));
        }
        Element::Bf16 => {
            halves().for_each(|bits| wide.extend(bf16::from_bits(bits).to_f32().to_le_bytes()));
        }
    }
    wide
}

/// Transposes `[rows, columns]` elements of four bytes, in squares that fit a cache.
fn transposed(bytes: &[u8], rows: usize, columns: usize) -> Vec<u8> {
    const SQUARE: usize = 32;
    let (from, _) = bytes.as_chunks::<4>();
    let mut out = vec![0; bytes.len()];
    let (to, _) = out.as_chunks_mut::<4>();
    for top in (0..rows).step_by(SQUARE) {
        for left in (0..columns).step_by(SQUARE) {
            for row in top..rows.min(top + SQUARE) {
                for column in left..columns.min(left + SQUARE) {
                    to[column * rows + row] = from[row * columns + column];
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_transposed_and_widened() {
        let (rows, columns) = (33, 70);
        let bytes: Vec<u8> = (0..rows * columns).flat_map(|i| (i as f32).to_le_bytes()).collect();
        let out = transposed(&bytes, rows, columns);
        for (place, chunk) in out.as_chunks::<4>().0.iter().enumerate() {
            let (column, row) = (place / rows, place % rows);
            assert_eq!(f32::from_le_bytes(*chunk), (row * columns + column) as f32);
        }
        let half = f16::from_f32(-1.5).to_le_bytes();
        assert_eq!(widened(&half, Element::F16), (-1.5_f32).to_le_bytes());
        let brain = bf16::from_f32(3.0).to_le_bytes();
        assert_eq!(widened(&brain, Element::Bf16), 3.0_f32.to_le_bytes());
    }
}
