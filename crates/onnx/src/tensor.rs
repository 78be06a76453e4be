//! A stored tensor: its description is read, its elements are counted and, where few, kept.
//!
//! Invariant: an [`Initializer`] has exactly the bytes or elements that its type and dimensions
//! call for.

use std::io::{BufRead, Seek};

use crate::element::ElementType;
use crate::external::ExternalData;
use crate::graph::{Initializer, List, Values};
use crate::wire::{Field, Result, WireReader};

/// Larger raw payloads are not read at all.
const KEPT_RAW_BYTES: u64 = 8 * List::<i64>::LIMIT as u64;

/// A `TensorProto` as written, before anything is checked.
#[derive(Default)]
pub(crate) struct RawTensor {
    name: String,
    dims: List<i64>,
    data_type: i32,
    has_segment: bool,
    floats: List<f32>,
    int32s: List<i64>,
    int64s: List<i64>,
    uint64s: List<i64>,
    doubles: u64,
    strings: u64,
    raw_bytes: u64,
    raw: Vec<u8>,
    external_entries: Vec<(String, String)>,
    is_external: bool,
}

impl RawTensor {
    pub(crate) fn read<R: BufRead + Seek>(
        wire: &mut WireReader<R>,
        field: Field,
    ) -> Result<RawTensor> {
        let mut tensor = RawTensor::default();
        wire.message(field, "TensorProto", |wire, field| {
            match field.number {
                1 => wire.ints(field, &mut tensor.dims)?,
                2 => tensor.data_type = wire.int32(field)?,
                3 => tensor.has_segment = true,
                4 => wire.floats(field, &mut tensor.floats)?,
                5 => wire.ints(field, &mut tensor.int32s)?,
                6 => tensor.strings += 1,
                7 => wire.ints(field, &mut tensor.int64s)?,
                8 => tensor.name = wire.text(field)?,
                9 => {
                    tensor.raw_bytes = wire.byte_length(field)?;
                    tensor.raw = if tensor.raw_bytes <= KEPT_RAW_BYTES {
                        wire.bytes(field)?
                    } else {
                        Vec::new()
                    };
                }
                10 => tensor.doubles += wire.count_doubles(field)?,
                11 => wire.ints(field, &mut tensor.uint64s)?,
                13 => tensor.external_entries.push(string_entry(wire, field)?),
                14 => tensor.is_external = wire.int32(field)? == 1,
                _ => {}
            }
            Ok(())
        })?;
        Ok(tensor)
    }

    /// Checks the tensor and drops what is not needed any more. The error is the reason alone; the
    /// caller knows the name.
    pub(crate) fn check(self) -> std::result::Result<Initializer, (String, String)> {
        let name = self.name.clone();
        self.checked().map_err(|reason| (name, reason))
    }

    pub(crate) fn set_name_if_empty(&mut self, name: &str) {
        if self.name.is_empty() {
            name.clone_into(&mut self.name);
        }
    }

    fn checked(self) -> std::result::Result<Initializer, String> {
        let data_type = ElementType::from_number(self.data_type);
        if !data_type.is_known() {
            return Err(format!("its elements are of {data_type}, which ONNX does not define"));
        }
        if self.has_segment {
            return Err("it is stored in segments, which no runtime reads".to_owned());
        }
        let dims = dimensions(&self.dims)?;
        let elements = product(&dims)?;
        let bytes = self.stored_bytes(data_type, &dims, elements)?;
        let external = if self.is_external {
            Some(ExternalData::from_entries(&self.external_entries)?)
        } else {
            None
        };
        let values = if external.is_some() { None } else { self.values(data_type, elements) };
        let name = self.name;
        Ok(Initializer { name, data_type, dims, elements, bytes, values, external, sparse: false })
    }

    /// Compares what is stored with what should be, and returns its size.
    fn stored_bytes(
        &self,
        data_type: ElementType,
        dims: &[u64],
        elements: u64,
    ) -> std::result::Result<u64, String> {
        let shape = || format!("{data_type} {dims:?}");
        if data_type == ElementType::STRING {
            if self.is_external || self.raw_bytes > 0 {
                return Err("strings are stored as raw bytes, which ONNX does not allow".to_owned());
            }
            if self.strings != elements {
                let count = self.strings;
                return Err(format!("{} needs {elements} strings, it has {count}", shape()));
            }
            return Ok(0);
        }
        let bytes = data_type
            .packed_bytes(elements)
            .ok_or_else(|| format!("{} is larger than any memory", shape()))?;
        if self.is_external {
            return Ok(bytes);
        }
        let typed = self.typed_elements(data_type);
        // An empty `raw_data` beside typed elements is how some writers say that there is none.
        if self.raw_bytes > 0 || typed == 0 {
            if self.raw_bytes != bytes {
                let received = self.raw_bytes;
                return Err(format!("{} needs {bytes} bytes, it has {received}", shape()));
            }
            if typed > 0 {
                return Err("it stores its elements twice".to_owned());
            }
            return Ok(bytes);
        }
        let expected = match data_type {
            ElementType::COMPLEX64 | ElementType::COMPLEX128 => elements.saturating_mul(2),
            _ => match data_type.bits() {
                // Smaller than a byte: each stored integer carries a byte's worth.
                Some(bits) if bits < 8 => bytes,
                _ => elements,
            },
        };
        if typed == expected {
            Ok(bytes)
        } else {
            Err(format!("{} needs {expected} elements, it has {typed}", shape()))
        }
    }

    /// Returns how many elements the field for this type holds.
    fn typed_elements(&self, data_type: ElementType) -> u64 {
        match data_type {
            ElementType::FLOAT | ElementType::COMPLEX64 => self.floats.count(),
            ElementType::DOUBLE | ElementType::COMPLEX128 => self.doubles,
            ElementType::INT64 => self.int64s.count(),
            ElementType::UINT32 | ElementType::UINT64 => self.uint64s.count(),
            _ => self.int32s.count(),
        }
    }

    fn values(&self, data_type: ElementType, elements: u64) -> Option<Values> {
        if elements > List::<i64>::LIMIT as u64 {
            return None;
        }
        let raw = (self.raw_bytes > 0).then_some(&*self.raw);
        match data_type {
            ElementType::INT64 => match raw {
                Some(raw) => Some(Values::Ints(decode(raw, i64::from_le_bytes))),
                None => self.int64s.complete().map(|values| Values::Ints(values.to_vec())),
            },
            ElementType::INT32 => match raw {
                Some(raw) => {
                    Some(Values::Ints(decode(raw, |bytes| i64::from(i32::from_le_bytes(bytes)))))
                }
                #[allow(clippy::cast_possible_truncation, reason = "as protobuf says")]
                None => self.int32s.complete().map(|values| {
                    Values::Ints(values.iter().map(|&v| i64::from(v as i32)).collect())
                }),
            },
            ElementType::BOOL => match raw {
                Some(raw) => {
                    Some(Values::Ints(raw.iter().map(|&byte| i64::from(byte != 0)).collect()))
                }
                None => self.int32s.complete().map(|values| {
                    Values::Ints(values.iter().map(|&value| i64::from(value != 0)).collect())
                }),
            },
            ElementType::FLOAT => match raw {
                Some(raw) => Some(Values::Floats(decode(raw, f32::from_le_bytes))),
                None => self.floats.complete().map(|values| Values::Floats(values.to_vec())),
            },
            _ => None,
        }
    }
}

/// Reads a `StringStringEntryProto`.
pub(crate) fn string_entry<R: BufRead + Seek>(
    wire: &mut WireReader<R>,
    field: Field,
) -> Result<(String, String)> {
    let mut entry = (String::new(), String::new());
    wire.message(field, "StringStringEntryProto", |wire, field| {
        match field.number {
            1 => entry.0 = wire.lossy_text(field)?,
            2 => entry.1 = wire.lossy_text(field)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(entry)
}

/// Checks the dimensions of a tensor.
pub(crate) fn dimensions(dims: &List<i64>) -> std::result::Result<Vec<u64>, String> {
    let dims = dims.complete().ok_or_else(|| format!("it has {} dimensions", dims.count()))?;
    dims.iter()
        .map(|&dim| u64::try_from(dim).map_err(|_| format!("its dimensions {dims:?} are negative")))
        .collect()
}

/// Multiplies dimensions.
pub(crate) fn product(dims: &[u64]) -> std::result::Result<u64, String> {
    if dims.contains(&0) {
        return Ok(0);
    }
    dims.iter()
        .try_fold(1_u64, |product, &dim| product.checked_mul(dim))
        .ok_or_else(|| format!("its dimensions {dims:?} multiply to more than 64 bits"))
}

fn decode<const N: usize, T>(raw: &[u8], from: impl Fn([u8; N]) -> T) -> Vec<T> {
    raw.as_chunks::<N>().0.iter().map(|&chunk| from(chunk)).collect()
}
