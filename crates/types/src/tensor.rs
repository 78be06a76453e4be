//! A tensor: an element type, a shape, and exactly the bytes that the two call for.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::{DataType, Element, Shape};

/// A dense tensor in row-major order.
///
/// Fixed-size elements are little-endian in one shared buffer, so a clone and a slice of rows copy
/// nothing. The buffer of a tensor that came over the wire may be unaligned: [`Tensor::as_slice`]
/// says so by returning `None`, and [`Tensor::elements_of`] copies in that case.
#[derive(Clone, Debug)]
pub struct Tensor {
    data_type: DataType,
    shape: Shape,
    data: TensorData,
}

/// The elements of a [`Tensor`].
#[derive(Clone, Debug)]
pub enum TensorData {
    /// Fixed-size elements, little-endian, row-major.
    Fixed(Bytes),
    /// Byte strings.
    Strings(Strings),
}

/// Why bytes do not make a tensor of the given type and shape.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum TensorError {
    #[error("shape {0} has more elements than can be addressed")]
    TooLarge(Shape),
    #[error("shape {shape} of {data_type} needs {expected} bytes, got {received}")]
    WrongSize { data_type: DataType, shape: Shape, expected: usize, received: usize },
    #[error("shape {shape} needs {expected} elements, got {received}")]
    WrongCount { shape: Shape, expected: usize, received: usize },
    #[error("BOOL element {index} is {value}, expected 0 or 1")]
    NotBool { index: usize, value: u8 },
    #[error("elements of {data_type} cannot be given as {given}")]
    WrongType { data_type: DataType, given: &'static str },
    #[error("tensors of {left} {left_shape} and {right} {right_shape} cannot be one batch")]
    CannotConcatenate { left: DataType, left_shape: Shape, right: DataType, right_shape: Shape },
}

/// Owns a typed vector while its bytes are shared.
struct TypedBuffer<T: Element>(Vec<T>);

impl<T: Element> AsRef<[u8]> for TypedBuffer<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

impl Tensor {
    /// Makes a tensor of a numeric type from its elements, without copying them.
    ///
    /// # Errors
    ///
    /// Fails where the shape calls for another number of elements.
    pub fn from_vec<T: Element + Send>(
        shape: impl Into<Shape>,
        elements: Vec<T>,
    ) -> Result<Self, TensorError> {
        let shape = shape.into();
        check_count(&shape, elements.len())?;
        let bytes = Bytes::from_owner(TypedBuffer(elements));
        Ok(Tensor { data_type: T::DATA_TYPE, shape, data: TensorData::Fixed(bytes) })
    }

    /// Makes a `BOOL` tensor.
    ///
    /// # Errors
    ///
    /// Fails where the shape calls for another number of elements.
    pub fn from_bools(
        shape: impl Into<Shape>,
        elements: impl IntoIterator<Item = bool>,
    ) -> Result<Self, TensorError> {
        let bytes: Vec<u8> = elements.into_iter().map(u8::from).collect();
        let shape = shape.into();
        check_count(&shape, bytes.len())?;
        Ok(Tensor { data_type: DataType::Bool, shape, data: TensorData::Fixed(bytes.into()) })
    }

    /// Makes a tensor of fixed-size elements from their little-endian bytes, without copying.
    ///
    /// # Errors
    ///
    /// Fails where the size is not what type and shape call for, where a `BOOL` is neither 0 nor 1,
    /// and for `BYTES`, whose elements are given by [`Tensor::from_strings`].
    pub fn from_bytes(
        data_type: DataType,
        shape: impl Into<Shape>,
        bytes: Bytes,
    ) -> Result<Self, TensorError> {
        let shape = shape.into();
        let Some(element_size) = data_type.size() else {
            return Err(TensorError::WrongType { data_type, given: "one run of bytes" });
        };
        let expected = shape
            .elements()
            .and_then(|elements| elements.checked_mul(element_size))
            .ok_or_else(|| TensorError::TooLarge(shape.clone()))?;
        if bytes.len() != expected {
            let received = bytes.len();
            return Err(TensorError::WrongSize { data_type, shape, expected, received });
        }
        if data_type == DataType::Bool
            && let Some(index) = bytes.iter().position(|&byte| byte > 1)
        {
            return Err(TensorError::NotBool { index, value: bytes[index] });
        }
        Ok(Tensor { data_type, shape, data: TensorData::Fixed(bytes) })
    }

    /// Makes a `BYTES` tensor.
    ///
    /// # Errors
    ///
    /// Fails where the shape calls for another number of elements.
    pub fn from_strings(shape: impl Into<Shape>, strings: Strings) -> Result<Self, TensorError> {
        let shape = shape.into();
        check_count(&shape, strings.len())?;
        Ok(Tensor { data_type: DataType::Bytes, shape, data: TensorData::Strings(strings) })
    }

    /// Returns the element type.
    pub fn data_type(&self) -> DataType {
        self.data_type
    }

    /// Returns the shape.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Returns the elements.
    pub fn data(&self) -> &TensorData {
        &self.data
    }

    /// Returns the number of elements.
    pub fn len(&self) -> usize {
        // Checked at construction.
        self.shape.elements().unwrap_or(0)
    }

    /// Returns whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the memory that the elements take, in bytes.
    pub fn byte_size(&self) -> usize {
        match &self.data {
            TensorData::Fixed(bytes) => bytes.len(),
            TensorData::Strings(strings) => strings.byte_size(),
        }
    }

    /// Returns the little-endian bytes of fixed-size elements, or `None` for `BYTES`.
    pub fn as_bytes(&self) -> Option<&Bytes> {
        match &self.data {
            TensorData::Fixed(bytes) => Some(bytes),
            TensorData::Strings(_) => None,
        }
    }

    /// Returns the strings of a `BYTES` tensor.
    pub fn as_strings(&self) -> Option<&Strings> {
        match &self.data {
            TensorData::Fixed(_) => None,
            TensorData::Strings(strings) => Some(strings),
        }
    }

    /// Returns the elements in place, or `None` where the type differs or the buffer is unaligned.
    pub fn as_slice<T: Element>(&self) -> Option<&[T]> {
        match &self.data {
            TensorData::Fixed(bytes) if self.data_type == T::DATA_TYPE => {
                bytemuck::try_cast_slice(bytes).ok()
            }
            _ => None,
        }
    }

    /// Returns the elements, copied only where the buffer is unaligned; `None` where the type
    /// differs.
    pub fn elements_of<T: Element>(&self) -> Option<Cow<'_, [T]>> {
        match &self.data {
            TensorData::Fixed(bytes) if self.data_type == T::DATA_TYPE => {
                Some(match bytemuck::try_cast_slice(bytes) {
                    Ok(elements) => Cow::Borrowed(elements),
                    Err(_) => Cow::Owned(bytemuck::pod_collect_to_vec(bytes)),
                })
            }
            _ => None,
        }
    }

    /// Returns the same elements, in the same order, under another shape. Nothing is copied.
    ///
    /// # Errors
    ///
    /// Fails where the shape calls for another number of elements.
    pub fn reshaped(self, shape: impl Into<Shape>) -> Result<Tensor, TensorError> {
        let shape = shape.into();
        check_count(&shape, self.len())?;
        Ok(Tensor { shape, ..self })
    }

    /// Returns some rows (indices of the outermost dimension), sharing the elements.
    ///
    /// # Panics
    ///
    /// Panics where the range leaves the tensor or the tensor is a scalar: callers split by counts
    /// that they added up themselves.
    pub fn slice_rows(&self, rows: Range<usize>) -> Tensor {
        let total = self.shape.rows().expect("a scalar has no rows");
        assert!(rows.start <= rows.end && rows.end <= total, "rows {rows:?} of {total}");
        // Saturating, since an empty tensor may declare dimensions of any size.
        let row_elements = self.shape.row_shape().iter().copied().fold(1, usize::saturating_mul);
        let shape = self.shape.with_rows(rows.len());
        let elements = rows.start * row_elements..rows.end * row_elements;
        let data = match &self.data {
            TensorData::Fixed(bytes) => {
                let size = self.data_type.size().unwrap_or(1);
                TensorData::Fixed(bytes.slice(elements.start * size..elements.end * size))
            }
            TensorData::Strings(strings) => TensorData::Strings(strings.slice(elements)),
        };
        Tensor { data_type: self.data_type, shape, data }
    }

    /// Returns the rows of all `parts`, one after the other. One part is shared, several are copied.
    ///
    /// # Errors
    ///
    /// Fails where the parts differ in type or in any dimension but the outermost, or are scalars.
    ///
    /// # Panics
    ///
    /// Panics where there are no parts.
    pub fn concatenate_rows(parts: &[&Tensor]) -> Result<Tensor, TensorError> {
        let first = parts[0];
        if let [only] = parts {
            return Ok((*only).clone());
        }
        let mut rows = 0_usize;
        for part in parts {
            let fits = part.data_type == first.data_type
                && !part.shape.is_empty()
                && part.shape.row_shape() == first.shape.row_shape();
            if !fits {
                return Err(TensorError::CannotConcatenate {
                    left: first.data_type,
                    left_shape: first.shape.clone(),
                    right: part.data_type,
                    right_shape: part.shape.clone(),
                });
            }
            // No tensor with elements has so many rows; empty ones may say anything.
            rows = part
                .shape
                .rows()
                .and_then(|own| own.checked_add(rows))
                .ok_or_else(|| TensorError::TooLarge(part.shape.clone()))?;
        }
        let data = match first.data {
            TensorData::Fixed(_) => {
                let size = parts.iter().map(|part| part.byte_size()).sum();
                let mut buffer = Vec::with_capacity(size);
                parts.iter().filter_map(|part| part.as_bytes()).for_each(|bytes| {
                    buffer.extend_from_slice(bytes);
                });
                TensorData::Fixed(buffer.into())
            }
            TensorData::Strings(_) => TensorData::Strings(
                parts.iter().filter_map(|part| part.as_strings()).flat_map(Strings::iter).collect(),
            ),
        };
        Ok(Tensor { data_type: first.data_type, shape: first.shape.with_rows(rows), data })
    }
}

/// Equality of type, shape and bytes. A NaN therefore equals a NaN of the same bits, and `0.0`
/// differs from `-0.0`.
impl PartialEq for Tensor {
    fn eq(&self, other: &Self) -> bool {
        self.data_type == other.data_type
            && self.shape == other.shape
            && match (&self.data, &other.data) {
                (TensorData::Fixed(left), TensorData::Fixed(right)) => left == right,
                (TensorData::Strings(left), TensorData::Strings(right)) => {
                    left.iter().eq(right.iter())
                }
                _ => false,
            }
    }
}

fn check_count(shape: &Shape, received: usize) -> Result<(), TensorError> {
    let expected = shape.elements().ok_or_else(|| TensorError::TooLarge(shape.clone()))?;
    if expected == received {
        Ok(())
    } else {
        Err(TensorError::WrongCount { shape: shape.clone(), expected, received })
    }
}

/// Byte strings in one shared buffer. A clone and a slice copy no text.
#[derive(Clone, Debug)]
pub struct Strings {
    bytes: Bytes,
    spans: Arc<[Range<usize>]>,
    /// The spans that belong to this value.
    part: Range<usize>,
}

impl Strings {
    /// Makes strings from a buffer and where in it each one lies, or `None` where a span leaves the
    /// buffer.
    pub fn from_spans(bytes: Bytes, spans: Vec<Range<usize>>) -> Option<Self> {
        let inside = |span: &Range<usize>| span.start <= span.end && span.end <= bytes.len();
        let part = 0..spans.len();
        spans.iter().all(inside).then(|| Strings { bytes, spans: spans.into(), part })
    }

    /// Returns the number of strings.
    pub fn len(&self) -> usize {
        self.part.len()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.part.is_empty()
    }

    /// Returns the sum of the strings' lengths in bytes.
    pub fn byte_size(&self) -> usize {
        self.spans[self.part.clone()].iter().map(Range::len).sum()
    }

    /// Returns one string, or `None` past the end.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        self.spans[self.part.clone()].get(index).map(|span| &self.bytes[span.clone()])
    }

    /// Returns the strings in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.spans[self.part.clone()].iter().map(|span| &self.bytes[span.clone()])
    }

    fn slice(&self, elements: Range<usize>) -> Strings {
        let part = self.part.start + elements.start..self.part.start + elements.end;
        assert!(part.end <= self.part.end, "a slice of strings leaves its tensor");
        Strings { bytes: self.bytes.clone(), spans: Arc::clone(&self.spans), part }
    }
}

impl<S: AsRef<[u8]>> FromIterator<S> for Strings {
    fn from_iter<I: IntoIterator<Item = S>>(strings: I) -> Self {
        let mut buffer = Vec::new();
        let mut spans = Vec::new();
        for string in strings {
            let start = buffer.len();
            buffer.extend_from_slice(string.as_ref());
            spans.push(start..buffer.len());
        }
        let part = 0..spans.len();
        Strings { bytes: buffer.into(), spans: spans.into(), part }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_must_be_what_type_and_shape_call_for() {
        let bytes = Bytes::from_static(&[0; 8]);
        assert!(Tensor::from_bytes(DataType::Fp32, [2], bytes.clone()).is_ok());
        assert_eq!(
            Tensor::from_bytes(DataType::Fp32, [3], bytes.clone()).unwrap_err().to_string(),
            "shape [3] of FP32 needs 12 bytes, got 8"
        );
        let huge = Tensor::from_bytes(DataType::Fp32, [usize::MAX], bytes.clone());
        assert!(matches!(huge, Err(TensorError::TooLarge(_))));
        let text = Tensor::from_bytes(DataType::Bytes, [8], bytes);
        assert!(matches!(text, Err(TensorError::WrongType { .. })));
        let bools = Tensor::from_bytes(DataType::Bool, [3], Bytes::from_static(&[0, 1, 2]));
        assert_eq!(bools, Err(TensorError::NotBool { index: 2, value: 2 }));
    }

    #[test]
    fn an_unaligned_buffer_is_copied_and_read_right() {
        let mut padded = vec![0_u8; 9];
        padded[1..5].copy_from_slice(&1.5_f32.to_le_bytes());
        padded[5..9].copy_from_slice(&(-2.0_f32).to_le_bytes());
        let bytes = Bytes::from(padded).slice(1..9);
        let tensor = Tensor::from_bytes(DataType::Fp32, [2], bytes).unwrap();
        assert_eq!(tensor.elements_of::<f32>().as_deref(), Some(&[1.5, -2.0][..]));
        assert_eq!(tensor.elements_of::<f64>(), None);
    }

    #[test]
    fn rows_join_and_part_again() {
        let left = Tensor::from_vec([1, 2], vec![1_i64, 2]).unwrap();
        let right = Tensor::from_vec([2, 2], vec![3_i64, 4, 5, 6]).unwrap();
        let both = Tensor::concatenate_rows(&[&left, &right]).unwrap();
        assert_eq!(both.shape(), &Shape::from([3, 2]));
        assert_eq!(both.slice_rows(0..1), left);
        assert_eq!(both.slice_rows(1..3), right);
        let other = Tensor::from_vec([1, 3], vec![0_i64; 3]).unwrap();
        assert!(Tensor::concatenate_rows(&[&left, &other]).is_err());
    }

    #[test]
    fn a_tensor_takes_another_shape_of_the_same_elements() {
        let tensor = Tensor::from_vec([2, 3], vec![0_i32, 1, 2, 3, 4, 5]).unwrap();
        let flat = tensor.clone().reshaped([6]).unwrap();
        assert_eq!(flat.as_bytes().unwrap().as_ptr(), tensor.as_bytes().unwrap().as_ptr());
        assert_eq!(flat.slice_rows(4..6).as_slice::<i32>(), Some(&[4, 5][..]));
        assert_eq!(
            tensor.reshaped([4]).unwrap_err().to_string(),
            "shape [4] needs 4 elements, got 6"
        );
    }

    #[test]
    fn strings_join_and_part_again() {
        let strings = |texts: &[&str]| texts.iter().collect::<Strings>();
        let left = Tensor::from_strings([2, 1], strings(&["a", ""])).unwrap();
        let right = Tensor::from_strings([1, 1], strings(&["\u{e9}\0x"])).unwrap();
        let both = Tensor::concatenate_rows(&[&left, &right]).unwrap();
        assert_eq!(both.slice_rows(0..2), left);
        assert_eq!(both.slice_rows(2..3), right);
        assert_eq!(both.byte_size(), 5);
        assert!(Strings::from_spans(Bytes::from_static(b"ab"), vec![1..3, 0..1]).is_none());
    }

    #[test]
    fn a_tensor_may_be_empty_or_a_scalar() {
        let empty = Tensor::from_vec([0, 4], Vec::<f32>::new()).unwrap();
        assert!(empty.is_empty());
        assert_eq!(empty.as_slice::<f32>(), Some(&[][..]));
        let endless = Tensor::from_vec([1, 0, usize::MAX, 2], Vec::<f32>::new()).unwrap();
        assert_eq!(endless.slice_rows(0..1), endless);
        let wide = Tensor::from_vec([0, usize::MAX, 2], Vec::<f32>::new()).unwrap();
        assert_eq!(wide.slice_rows(0..0), wide);
        let long = Tensor::from_vec([usize::MAX, 0], Vec::<f32>::new()).unwrap();
        assert!(Tensor::concatenate_rows(&[&long, &long]).is_err(), "twice as many rows");
        let scalar = Tensor::from_vec(Shape::new([]), vec![2.5_f64]).unwrap();
        assert_eq!((scalar.len(), scalar.shape().rows()), (1, None));
    }
}
