//! A model in the library: one session, run from many threads.
//!
//! Invariant: the names and types of a [`SharedModel`] are the library's own and equal the
//! signature's, in the signature's order; so a run needs no look-up and an output has the type that
//! its tensor says. Runs share nothing but the session, which the library documents as safe to run
//! concurrently; `docs/decisions/003-one-ort-session-per-model.md` holds what we measured.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char};
use std::ops::Range;
use std::path::Path;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use ort_sys::{
    ExecutionMode, ONNXType, OrtAllocator, OrtSession, OrtSessionOptions, OrtStatusPtr,
    OrtTypeInfo, OrtValue,
};
use outhaul_engine::{LoadError, LoadOptions, LoadedModel, RunError, Session};
use outhaul_onnx::OnnxModel;
use outhaul_types::{
    BoundInputs, DataType, Dimension, ModelSignature, ShapePattern, TensorSpec, Tensors,
};
use smallvec::SmallVec;

use crate::api::{Api, c_name, non_null};
use crate::failure::{Code, Failure};
use crate::mapped::Mapped;
use crate::value::{InputValue, Value, element_code, element_type};
use crate::{ENGINE, Process};

/// Models with at most this many bytes of weights run without the library's memory arena. All runs
/// of a session share one arena and its lock, which keeps two threads of a model of microseconds
/// from being faster than one; beside a larger model's kernels the lock is nothing, and the arena
/// holds much less memory than the system's allocator would. Measured: see
/// `docs/decisions/003-one-ort-session-per-model.md`.
const NO_ARENA_UP_TO: u64 = 4 << 20;

/// A loaded model, as the engine hands it out.
pub(crate) struct OrtModel {
    shared: Arc<SharedModel>,
    /// The bytes of weights that stay in mapped files.
    mapped: i64,
}

/// A loaded model, as its sessions and its outputs share it.
pub(crate) struct SharedModel {
    session: OwnedSession,
    process: Process,
    inputs: Vec<CString>,
    outputs: Vec<Output>,
    /// Whether any input leaves a dimension to the caller.
    shapes_vary: bool,
}

struct Output {
    name: CString,
    data_type: DataType,
}

/// A session of the library, released when dropped.
struct OwnedSession {
    api: Api,
    pointer: NonNull<OrtSession>,
}

// SAFETY: the library allows a session to be used and released from any thread.
unsafe impl Send for OwnedSession {}
// SAFETY: and `Run` to be called on one session from many threads at once; no other call of ours
// changes it.
unsafe impl Sync for OwnedSession {}

impl Drop for OwnedSession {
    fn drop(&mut self) {
        // SAFETY: the pointer is this session's own, and every run that used it has returned.
        unsafe { (self.api.table.ReleaseSession)(self.pointer.as_ptr()) }
    }
}

impl OrtModel {
    pub(crate) fn load(
        process: Process,
        model: &OnnxModel,
        options: &LoadOptions,
    ) -> Result<Self, LoadError> {
        // Before the library sees it: it divides constants while it loads.
        model.divides_safely().map_err(unsupported)?;
        let api = process.api;
        let mapped = options.thread_bytes.map(|_| Mapped::before_loading(model));
        let options = SessionOptions::new(api, model, options)
            .map_err(|failure| failed(failure.to_string()))?;
        let session = create_session(&process, &model.path, &options)
            .map_err(|failure| failure.into_load_error(model))?;
        let session = OwnedSession { api, pointer: session };
        same_signature(&process, &session, &model.signature)?;
        let c_names = |specs: &[TensorSpec]| -> Result<Vec<CString>, LoadError> {
            let names = specs.iter().map(|spec| c_name(&spec.name));
            names.collect::<Result<_, _>>().map_err(|failure| failure.into_load_error(model))
        };
        let types = model.signature.outputs.iter().map(|spec| spec.data_type);
        let outputs = c_names(&model.signature.outputs)?.into_iter().zip(types);
        let shared = SharedModel {
            session,
            process,
            inputs: c_names(&model.signature.inputs)?,
            outputs: outputs.map(|(name, data_type)| Output { name, data_type }).collect(),
            shapes_vary: model.signature.inputs.iter().any(|spec| varies(&spec.shape)),
        };
        let mapped = mapped.map_or(0, |mapped| mapped.grown_by());
        Ok(OrtModel { shared: Arc::new(shared), mapped })
    }
}

impl SharedModel {
    fn run(self: &Arc<Self>, inputs: &BoundInputs) -> Result<Tensors, Failure> {
        let mut values: SmallVec<[InputValue<'_>; 4]> = SmallVec::new();
        let mut names: SmallVec<[*const c_char; 4]> = SmallVec::new();
        let mut borrowed: SmallVec<[Range<usize>; 4]> = SmallVec::new();
        for (name, tensor) in self.inputs.iter().zip(inputs) {
            // An input left out is not named, which leaves it at the model's default.
            if let Some(tensor) = tensor {
                let value = InputValue::new(&self.process, tensor)?;
                borrowed.push(value.read());
                values.push(value);
                names.push(name.as_ptr());
            }
        }
        let pointers: SmallVec<[*const OrtValue; 4]> =
            values.iter().map(InputValue::as_ptr).collect();
        let output_names: SmallVec<[*const c_char; 4]> =
            self.outputs.iter().map(|output| output.name.as_ptr()).collect();
        let mut outputs: SmallVec<[*mut OrtValue; 4]> =
            SmallVec::from_elem(ptr::null_mut(), self.outputs.len());
        let api = &self.process.api;
        // SAFETY: the session, the names and the values are valid and outlive the call, each array
        // is as long as said, and null run options mean the defaults. Nulls in `outputs` tell the
        // library to make the values.
        let status = unsafe {
            (api.table.Run)(
                self.session.pointer.as_ptr(),
                ptr::null(),
                names.as_ptr(),
                pointers.as_ptr(),
                pointers.len(),
                output_names.as_ptr(),
                output_names.len(),
                outputs.as_mut_ptr(),
            )
        };
        // Taken over before anything can fail, so that each is released.
        // SAFETY: the library made these values for us, or left them null.
        let outputs: SmallVec<[Result<Value, Failure>; 4]> =
            outputs.into_iter().map(|output| unsafe { Value::from_raw(*api, output) }).collect();
        api.check(status)?;
        let pairs = self.outputs.iter().zip(outputs);
        pairs
            .map(|(declared, value)| value?.into_tensor(self, declared.data_type, &borrowed))
            .collect()
    }
}

impl LoadedModel for OrtModel {
    fn engine(&self) -> &'static str {
        ENGINE
    }

    fn session(&self) -> Result<Box<dyn Session>, LoadError> {
        Ok(Box::new(Runner { model: Arc::clone(&self.shared) }))
    }

    fn bytes_elsewhere(&self) -> i64 {
        self.mapped
    }
}

/// One thread's way to run the model: nothing but a share in it.
struct Runner {
    model: Arc<SharedModel>,
}

impl Session for Runner {
    fn run(&mut self, inputs: &BoundInputs) -> Result<Tensors, RunError> {
        let shapes_vary = self.model.shapes_vary;
        self.model.run(inputs).map_err(|failure| failure.into_run_error(shapes_vary))
    }
}

fn unsupported(what: String) -> LoadError {
    LoadError::Unsupported { engine: ENGINE, what, instead: None }
}

fn failed(reason: String) -> LoadError {
    LoadError::Failed { engine: ENGINE, reason }
}

fn varies(shape: &ShapePattern) -> bool {
    match shape {
        ShapePattern::AnyRank => true,
        ShapePattern::Ranked(dimensions) => {
            dimensions.iter().any(|dimension| !matches!(dimension, Dimension::Fixed(_)))
        }
    }
}

/// How the library is to make a session.
struct SessionOptions {
    api: Api,
    pointer: NonNull<OrtSessionOptions>,
}

impl Drop for SessionOptions {
    fn drop(&mut self) {
        // SAFETY: the pointer is this value's own; sessions made with it hold copies.
        unsafe { (self.api.table.ReleaseSessionOptions)(self.pointer.as_ptr()) }
    }
}

impl SessionOptions {
    fn new(api: Api, model: &OnnxModel, options: &LoadOptions) -> Result<Self, Failure> {
        let mut pointer = ptr::null_mut();
        // SAFETY: `pointer` is a place for one pointer.
        api.check(unsafe { (api.table.CreateSessionOptions)(&mut pointer) })?;
        let made = SessionOptions { api, pointer: non_null(pointer, "session options")? };
        // A pool of one is no pool: the library then makes no thread and computes in the caller's.
        let threads = i32::try_from(options.threads.get()).unwrap_or(i32::MAX);
        let pointer = made.pointer.as_ptr();
        // SAFETY: the options were just made and are not used elsewhere.
        api.check(unsafe { (api.table.SetIntraOpNumThreads)(pointer, threads) })?;
        // SAFETY: as above.
        api.check(unsafe { (api.table.SetInterOpNumThreads)(pointer, 1) })?;
        let sequential = ExecutionMode::ORT_SEQUENTIAL;
        // SAFETY: as above.
        api.check(unsafe { (api.table.SetSessionExecutionMode)(pointer, sequential) })?;
        if model.weight_bytes() <= NO_ARENA_UP_TO {
            // SAFETY: as above.
            api.check(unsafe { (api.table.DisableCpuMemArena)(pointer) })?;
        }
        // A spinning pool takes the cores that other instances and the server need.
        for key in [c"session.intra_op.allow_spinning", c"session.inter_op.allow_spinning"] {
            // SAFETY: as above; both strings are NUL-terminated and copied.
            api.check(unsafe {
                (api.table.AddSessionConfigEntry)(pointer, key.as_ptr(), c"0".as_ptr())
            })?;
        }
        Ok(made)
    }
}

/// Makes a session from the model's file: by path, so that weights beside it are found.
fn create_session(
    process: &Process,
    path: &Path,
    options: &SessionOptions,
) -> Result<NonNull<OrtSession>, Failure> {
    let path = library_path(path)?;
    let mut session = ptr::null_mut();
    // SAFETY: the environment and the options are valid, the path is NUL-terminated, and `session`
    // is a place for one pointer.
    process.api.check(unsafe {
        (process.api.table.CreateSession)(
            process.environment.as_ptr(),
            path.as_ptr(),
            options.pointer.as_ptr(),
            &mut session,
        )
    })?;
    non_null(session, "session")
}

#[cfg(not(windows))]
fn library_path(path: &Path) -> Result<CString, Failure> {
    use std::os::unix::ffi::OsStrExt;

    CString::new(path.as_os_str().as_bytes()).map_err(|_| Failure {
        code: Code::InvalidArgument,
        message: "the model's path holds a NUL byte".to_owned(),
    })
}

#[cfg(windows)]
fn library_path(path: &Path) -> Result<Vec<u16>, Failure> {
    use std::os::windows::ffi::OsStrExt;

    Ok(path.as_os_str().encode_wide().chain([0]).collect())
}

/// Fails where the library reads another signature out of the file than we did: then one of the
/// two parsers is wrong, and answers would be too.
fn same_signature(
    process: &Process,
    session: &OwnedSession,
    signature: &ModelSignature,
) -> Result<(), LoadError> {
    let table = process.api.table;
    let lists = [
        (
            "input",
            Listing {
                count: table.SessionGetInputCount,
                name: table.SessionGetInputName,
                type_info: table.SessionGetInputTypeInfo,
            },
            described(signature.inputs.iter().filter(|spec| !spec.optional)),
        ),
        (
            "optional input",
            Listing {
                count: table.SessionGetOverridableInitializerCount,
                name: table.SessionGetOverridableInitializerName,
                type_info: table.SessionGetOverridableInitializerTypeInfo,
            },
            described(signature.inputs.iter().filter(|spec| spec.optional)),
        ),
        (
            "output",
            Listing {
                count: table.SessionGetOutputCount,
                name: table.SessionGetOutputName,
                type_info: table.SessionGetOutputTypeInfo,
            },
            described(signature.outputs.iter()),
        ),
    ];
    for (role, listing, expected) in lists {
        let found = listing
            .read(process, session)
            .map_err(|failure| failed(format!("cannot list its {role}s: {failure}")))?;
        for name in expected.keys().chain(found.keys()) {
            if expected.get(name) != found.get(name) {
                let (ours, its) = (type_name(expected.get(name)), type_name(found.get(name)));
                return Err(failed(format!(
                    "{role} '{name}' is {its} to the library and {ours} in the file's signature"
                )));
            }
        }
    }
    Ok(())
}

/// Element types by name, as the library's codes; `None` is not a tensor.
type Described = BTreeMap<String, Option<i32>>;

fn described<'a>(specs: impl Iterator<Item = &'a TensorSpec>) -> Described {
    specs.map(|spec| (spec.name.to_string(), Some(element_type(spec.data_type) as i32))).collect()
}

fn type_name(found: Option<&Option<i32>>) -> String {
    match found {
        None => "absent".to_owned(),
        Some(None) => "not a tensor".to_owned(),
        Some(Some(code)) => DataType::ALL
            .iter()
            .find(|&&data_type| element_type(data_type) as i32 == *code)
            .map_or_else(|| format!("of element type {code}"), |data_type| data_type.to_string()),
    }
}

/// The three calls that list one kind of a session's tensors.
struct Listing {
    count: unsafe extern "system" fn(*const OrtSession, *mut usize) -> OrtStatusPtr,
    name: unsafe extern "system" fn(
        *const OrtSession,
        usize,
        *mut OrtAllocator,
        *mut *mut c_char,
    ) -> OrtStatusPtr,
    type_info:
        unsafe extern "system" fn(*const OrtSession, usize, *mut *mut OrtTypeInfo) -> OrtStatusPtr,
}

impl Listing {
    fn read(&self, process: &Process, session: &OwnedSession) -> Result<Described, Failure> {
        let (api, session) = (&process.api, session.pointer.as_ptr());
        let mut count = 0;
        // SAFETY: the session is valid.
        api.check(unsafe { (self.count)(session, &mut count) })?;
        let mut described = Described::new();
        for index in 0..count {
            let mut name = ptr::null_mut();
            let allocator = process.allocator.as_ptr();
            // SAFETY: the session and the allocator are valid, the index is below the count.
            api.check(unsafe { (self.name)(session, index, allocator, &mut name) })?;
            let name = non_null(name, "name")?;
            // SAFETY: the library made a NUL-terminated string, which is copied and then freed by
            // the allocator that made it.
            let text = unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned();
            // SAFETY: as above.
            api.check(unsafe { (api.table.AllocatorFree)(allocator, name.as_ptr().cast()) })?;
            let mut info = ptr::null_mut();
            // SAFETY: the session is valid, the index is below the count.
            api.check(unsafe { (self.type_info)(session, index, &mut info) })?;
            let info = non_null(info, "type")?;
            let code = tensor_element_code(api, info);
            // SAFETY: the description was made above and is not used again.
            unsafe { (api.table.ReleaseTypeInfo)(info.as_ptr()) };
            described.insert(text, code?);
        }
        Ok(described)
    }
}

/// Returns the element type of a described tensor, or `None` for anything that is no tensor.
fn tensor_element_code(api: &Api, info: NonNull<OrtTypeInfo>) -> Result<Option<i32>, Failure> {
    let mut kind = 0_i32;
    // SAFETY: the description is valid, and the enum that the library writes is `repr(i32)`.
    api.check(unsafe {
        (api.table.GetOnnxTypeFromTypeInfo)(info.as_ptr(), ptr::from_mut(&mut kind).cast())
    })?;
    if kind != ONNXType::ONNX_TYPE_TENSOR as i32 {
        return Ok(None);
    }
    let mut tensor = ptr::null();
    // SAFETY: the description is valid; the part that is returned belongs to it.
    api.check(unsafe { (api.table.CastTypeInfoToTensorInfo)(info.as_ptr(), &mut tensor) })?;
    element_code(api, non_null(tensor.cast_mut(), "tensor type")?).map(Some)
}
