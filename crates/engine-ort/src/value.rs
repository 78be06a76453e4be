//! Tensors on their way into the library and out of it.
//!
//! Invariant: an [`InputValue`] borrows the bytes that the library reads, so they outlive it; an
//! output that is not copied owns the library's value until its last reader is gone. Nothing here
//! interprets elements: a tensor's bytes are the library's bytes, in both directions.

use std::marker::PhantomData;
use std::ops::Range;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;

use bytes::Bytes;
use ort_sys::{ONNXTensorElementDataType as ElementType, OrtTensorTypeAndShapeInfo, OrtValue};
use outhaul_types::{DataType, Shape, Strings, Tensor, TensorData};
use smallvec::SmallVec;

use crate::Process;
use crate::api::{Api, non_null};
use crate::failure::{Code, Failure};
use crate::session::SharedModel;

/// Outputs up to this many bytes are copied, so that the library's value is released at once, by
/// the thread that ran the model. Measured: see `docs/decisions/003-one-ort-session-per-model.md`.
const COPY_UP_TO: usize = 512;

/// Returns the library's name for a data type.
pub(crate) fn element_type(data_type: DataType) -> ElementType {
    match data_type {
        DataType::Bool => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL,
        DataType::Uint8 => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8,
        DataType::Uint16 => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16,
        DataType::Uint32 => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32,
        DataType::Uint64 => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64,
        DataType::Int8 => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8,
        DataType::Int16 => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16,
        DataType::Int32 => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32,
        DataType::Int64 => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64,
        DataType::Fp16 => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
        DataType::Bf16 => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16,
        DataType::Fp32 => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
        DataType::Fp64 => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE,
        DataType::Bytes => ElementType::ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING,
    }
}

/// Reads the element type out of a description of the library. As a number: a newer library may
/// have types that the declared enum lacks.
pub(crate) fn element_code(
    api: &Api,
    info: NonNull<OrtTensorTypeAndShapeInfo>,
) -> Result<i32, Failure> {
    let mut code = 0_i32;
    // SAFETY: the description is valid, and the enum that the library writes is `repr(i32)`.
    api.check(unsafe {
        (api.table.GetTensorElementType)(info.as_ptr(), ptr::from_mut(&mut code).cast())
    })?;
    Ok(code)
}

/// A value of the library, released when dropped.
pub(crate) struct Value {
    api: Api,
    pointer: NonNull<OrtValue>,
}

// SAFETY: a value is plain data that the library lets any thread read and release.
unsafe impl Send for Value {}
// SAFETY: as above; it is not written to once it is made.
unsafe impl Sync for Value {}

impl Drop for Value {
    fn drop(&mut self) {
        // SAFETY: the pointer is this value's own and is not used again.
        unsafe { (self.api.table.ReleaseValue)(self.pointer.as_ptr()) }
    }
}

impl Value {
    /// Takes over a value that the library made.
    ///
    /// # Safety
    ///
    /// `pointer` must be null, or a value that nobody else releases.
    pub(crate) unsafe fn from_raw(api: Api, pointer: *mut OrtValue) -> Result<Self, Failure> {
        Ok(Value { api, pointer: non_null(pointer, "value")? })
    }

    fn data(&self) -> Result<*mut u8, Failure> {
        let mut data = ptr::null_mut();
        // SAFETY: the value is valid and `data` a place for one pointer.
        self.api.check(unsafe {
            (self.api.table.GetTensorMutableData)(self.pointer.as_ptr(), &mut data)
        })?;
        Ok(data.cast())
    }
}

/// One input of a run.
pub(crate) struct InputValue<'a> {
    value: Value,
    /// The addresses of the elements that the library reads in place: the caller's, or the aligned
    /// copy's. Empty where it has its own.
    read: Range<usize>,
    /// The elements, where the caller's were not aligned. The value points into the heap buffer,
    /// which stays where it is when this struct moves.
    _aligned: Vec<u64>,
    _borrowed: PhantomData<&'a Tensor>,
}

impl<'a> InputValue<'a> {
    pub(crate) fn new(process: &Process, tensor: &'a Tensor) -> Result<Self, Failure> {
        // A dimension beyond i64 belongs to an empty tensor; the library cannot take its shape.
        let shape: SmallVec<[i64; 6]> = tensor
            .shape()
            .iter()
            .map(|&dimension| i64::try_from(dimension))
            .collect::<Result<_, _>>()
            .map_err(|_| Failure {
                code: Code::InvalidArgument,
                message: format!("shape {} has a dimension beyond 2^63", tensor.shape()),
            })?;
        match tensor.data() {
            TensorData::Fixed(bytes) => {
                InputValue::fixed(process, tensor.data_type(), &shape, bytes)
            }
            TensorData::Strings(strings) => InputValue::strings(process, &shape, strings),
        }
    }

    pub(crate) fn as_ptr(&self) -> *const OrtValue {
        self.value.pointer.as_ptr()
    }

    /// Returns the addresses of memory that is not the library's, and is gone with this value.
    pub(crate) fn read(&self) -> Range<usize> {
        self.read.clone()
    }

    fn fixed(
        process: &Process,
        data_type: DataType,
        shape: &[i64],
        bytes: &'a Bytes,
    ) -> Result<Self, Failure> {
        let alignment = data_type.size().unwrap_or(1);
        let mut aligned: Vec<u64> = Vec::new();
        let data: *const u8 = if bytes.as_ptr().addr().is_multiple_of(alignment) {
            bytes.as_ptr()
        } else {
            aligned.resize(bytes.len().div_ceil(size_of::<u64>()), 0);
            bytemuck::cast_slice_mut(&mut aligned)[..bytes.len()].copy_from_slice(bytes);
            aligned.as_ptr().cast()
        };
        let (api, mut value) = (&process.api, ptr::null_mut());
        // SAFETY: `data` is aligned for the type and holds `bytes.len()` bytes that outlive the
        // value: either the tensor's, borrowed for `'a`, or the copy's, kept beside the value. The
        // library checks their number against the shape. It takes a mutable pointer for outputs
        // written in place and only reads inputs of a run.
        api.check(unsafe {
            (api.table.CreateTensorWithDataAsOrtValue)(
                process.memory.as_ptr(),
                data.cast_mut().cast(),
                bytes.len(),
                shape.as_ptr(),
                shape.len(),
                element_type(data_type),
                &mut value,
            )
        })?;
        // SAFETY: the value was just made and is ours.
        let value = unsafe { Value::from_raw(*api, value)? };
        let read = data.addr()..data.addr() + bytes.len();
        Ok(InputValue { value, read, _aligned: aligned, _borrowed: PhantomData })
    }

    fn strings(process: &Process, shape: &[i64], strings: &Strings) -> Result<Self, Failure> {
        let (api, mut value) = (&process.api, ptr::null_mut());
        // SAFETY: the allocator is valid, the shape is read during the call only.
        api.check(unsafe {
            (api.table.CreateTensorAsOrtValue)(
                process.allocator.as_ptr(),
                shape.as_ptr(),
                shape.len(),
                element_type(DataType::Bytes),
                &mut value,
            )
        })?;
        // SAFETY: the value was just made and is ours.
        let value = unsafe { Value::from_raw(*api, value)? };
        for (index, string) in strings.iter().enumerate() {
            let mut buffer = ptr::null_mut();
            // SAFETY: the tensor has as many elements as there are strings, since the shape is
            // the strings' own.
            api.check(unsafe {
                (api.table.GetResizedStringTensorElementBuffer)(
                    value.pointer.as_ptr(),
                    index,
                    string.len(),
                    &mut buffer,
                )
            })?;
            let buffer = non_null(buffer, "string buffer")?;
            // SAFETY: the library made room for exactly this many bytes, in memory of its own.
            unsafe {
                ptr::copy_nonoverlapping(string.as_ptr(), buffer.as_ptr().cast(), string.len());
            }
        }
        Ok(InputValue { value, read: 0..0, _aligned: Vec::new(), _borrowed: PhantomData })
    }
}

/// An output's elements in the library's own memory.
struct OutputBuffer {
    data: NonNull<u8>,
    size: usize,
    /// Released before the model, whose allocator made it.
    _value: Value,
    _model: Arc<SharedModel>,
}

// SAFETY: the buffer belongs to the value, which it keeps, and nobody writes to it.
unsafe impl Send for OutputBuffer {}
// SAFETY: as above.
unsafe impl Sync for OutputBuffer {}

impl AsRef<[u8]> for OutputBuffer {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `data` points to `size` initialised bytes that live as long as the value.
        unsafe { slice::from_raw_parts(self.data.as_ptr(), self.size) }
    }
}

impl Value {
    /// Makes a tensor of an output. `borrowed` are the addresses that the inputs' elements lie at.
    pub(crate) fn into_tensor(
        self,
        model: &Arc<SharedModel>,
        data_type: DataType,
        borrowed: &[Range<usize>],
    ) -> Result<Tensor, Failure> {
        let (shape, elements) = self.shape(data_type)?;
        let not_a_tensor = |error| wrong(format!("an output is not a tensor: {error}"));
        let Some(element_size) = data_type.size() else {
            let strings = self.read_strings(elements)?;
            return Tensor::from_strings(shape, strings).map_err(not_a_tensor);
        };
        let size = elements * element_size;
        let data = self.data()?;
        let bytes = match NonNull::new(data) {
            _ if size == 0 => Bytes::new(),
            None => return Err(wrong("an output has no data".to_owned())),
            Some(data) => {
                // A graph may hand an input through as an output; such memory is not the value's.
                let address = data.addr().get();
                let aliases = borrowed
                    .iter()
                    .any(|input| address < input.end && input.start < address + size);
                if size <= COPY_UP_TO || aliases {
                    // SAFETY: the value holds this many initialised elements, and lives until the
                    // end of this function.
                    Bytes::copy_from_slice(unsafe { slice::from_raw_parts(data.as_ptr(), size) })
                } else {
                    let _model = Arc::clone(model);
                    Bytes::from_owner(OutputBuffer { data, size, _value: self, _model })
                }
            }
        };
        Tensor::from_bytes(data_type, shape, bytes).map_err(not_a_tensor)
    }

    /// Returns the shape and the number of elements, after checking the type.
    fn shape(&self, data_type: DataType) -> Result<(Shape, usize), Failure> {
        let api = &self.api;
        let mut info = ptr::null_mut();
        // SAFETY: the value is valid; one that is no tensor is an error of the call.
        api.check(unsafe { (api.table.GetTensorTypeAndShape)(self.pointer.as_ptr(), &mut info) })?;
        let info = non_null(info, "shape")?;
        let read = read_shape(api, info, data_type);
        // SAFETY: the description was made above and is not used again.
        unsafe { (api.table.ReleaseTensorTypeAndShapeInfo)(info.as_ptr()) };
        read
    }

    fn read_strings(&self, count: usize) -> Result<Strings, Failure> {
        let (api, value) = (&self.api, self.pointer.as_ptr());
        let mut size = 0;
        // SAFETY: the value is a valid tensor of strings.
        api.check(unsafe { (api.table.GetStringTensorDataLength)(value, &mut size) })?;
        let mut buffer = vec![0_u8; size];
        let mut starts = vec![0_usize; count];
        if count > 0 {
            // SAFETY: both buffers have the sizes that are passed, and the library fails where
            // they are too small.
            api.check(unsafe {
                (api.table.GetStringTensorContent)(
                    value,
                    buffer.as_mut_ptr().cast(),
                    size,
                    starts.as_mut_ptr(),
                    count,
                )
            })?;
        }
        let ends = starts.iter().skip(1).copied().chain([size]);
        let spans = starts.iter().zip(ends).map(|(&start, end)| start..end).collect();
        Strings::from_spans(buffer.into(), spans)
            .ok_or_else(|| wrong("an output's strings overlap".to_owned()))
    }
}

fn read_shape(
    api: &Api,
    info: NonNull<OrtTensorTypeAndShapeInfo>,
    data_type: DataType,
) -> Result<(Shape, usize), Failure> {
    if element_code(api, info)? != element_type(data_type) as i32 {
        return Err(wrong(format!("an output is not of the declared type {data_type}")));
    }
    let mut rank = 0;
    // SAFETY: the description is valid.
    api.check(unsafe { (api.table.GetDimensionsCount)(info.as_ptr(), &mut rank) })?;
    let mut dimensions: SmallVec<[i64; 6]> = SmallVec::from_elem(0, rank);
    // SAFETY: there is room for `rank` dimensions.
    api.check(unsafe {
        (api.table.GetDimensions)(info.as_ptr(), dimensions.as_mut_ptr(), dimensions.len())
    })?;
    let dimensions: Result<SmallVec<[usize; 6]>, _> =
        dimensions.iter().map(|&dimension| usize::try_from(dimension)).collect();
    let dimensions =
        dimensions.map_err(|_| wrong("an output has a negative dimension".to_owned()))?;
    let shape = Shape::from(&dimensions[..]);
    // The library allocated this tensor, so its bytes can be counted; a type's size is at most 8.
    let elements = shape.elements().filter(|&elements| elements <= isize::MAX as usize / 8);
    let elements = elements.ok_or_else(|| wrong(format!("an output has shape {shape}")))?;
    Ok((shape, elements))
}

fn wrong(message: String) -> Failure {
    Failure { code: Code::Other, message }
}
