//! The library itself: opened, checked, and its table of functions.
//!
//! Invariant: an [`Api`] exists only for a library that names itself ONNX Runtime 1.17 or later and
//! hands out the table of that version. A library that was once opened is never closed: its code
//! must outlive every pointer into it, and the process uses one for its whole life.
//!
//! Deliberately not here: where libraries lie (`search`), and what models do (`session`).

use std::env;
use std::ffi::{CStr, CString, c_char, c_void};
use std::mem;
use std::panic::catch_unwind;
use std::path::Path;
use std::ptr::{self, NonNull};

use libloading::{Library, Symbol};
use ort_sys::{
    ORT_API_VERSION, OrtAllocator, OrtAllocatorType, OrtApi, OrtApiBase, OrtEnv, OrtErrorCode,
    OrtLoggingFunction, OrtMemType, OrtMemoryInfo, OrtStatus, OrtStatusPtr,
};

use crate::failure::{Code, Failure};

/// Why a file is no usable ONNX Runtime.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// There is no such file.
    #[error("there is no such file")]
    Missing,
    /// Another user put it where only the user's own or the system's is trusted.
    #[error("it belongs to another user, who could have put anything there; name it to use it")]
    Foreign,
    /// The system's loader refused it.
    #[error("it cannot be opened as a library")]
    NotALibrary(#[source] libloading::Error),
    /// It is a library of something else.
    #[error("it is not ONNX Runtime: it does not export OrtGetApiBase")]
    NotOnnxRuntime,
    /// It is ONNX Runtime, too old or of an unknown kind.
    #[error("it is ONNX Runtime '{version}', at least 1.{ORT_API_VERSION} is needed")]
    WrongVersion {
        /// The version that it names.
        version: String,
    },
}

/// The functions of an opened library.
#[derive(Clone, Copy)]
pub(crate) struct Api {
    pub(crate) table: &'static OrtApi,
    pub(crate) version: &'static str,
}

impl Api {
    /// Opens a library and checks that it is one we can use.
    pub(crate) fn open(path: &Path) -> Result<Api, LibraryError> {
        if !path.is_file() {
            return Err(LibraryError::Missing);
        }
        forbid_telemetry();
        // SAFETY: loading runs the library's initialisers. The file is one that the user named or
        // installed to be run, which is the same trust that linking against it would take.
        let library = unsafe { Library::new(path) }.map_err(LibraryError::NotALibrary)?;
        // Leaked on purpose: a library that was initialised, even a wrong one, may have left
        // pointers to its code behind, and the right one is used until the process ends.
        let library: &'static Library = Box::leak(Box::new(library));
        // SAFETY: a library that exports this name is ONNX Runtime or claims to be, and the
        // function's type has not changed since version 1.0.
        let get_base: Symbol<'static, unsafe extern "system" fn() -> *const OrtApiBase> =
            unsafe { library.get(b"OrtGetApiBase\0") }.map_err(|_| LibraryError::NotOnnxRuntime)?;
        // SAFETY: the function takes nothing and returns a pointer to a static, or null.
        let base = unsafe { get_base().as_ref() }.ok_or(LibraryError::NotOnnxRuntime)?;
        // SAFETY: returns a NUL-terminated static string.
        let version = unsafe { static_text((base.GetVersionString)()) };
        let wrong = || LibraryError::WrongVersion { version: version.to_owned() };
        if !is_recent_enough(version) {
            return Err(wrong());
        }
        // SAFETY: for a version that the library knows this returns a pointer to a static table,
        // else null. The table of a newer library is this one with more functions at its end.
        let table = unsafe { (base.GetApi)(ORT_API_VERSION).as_ref() }.ok_or_else(wrong)?;
        Ok(Api { table, version })
    }

    /// Turns the library's status into a result, and releases it.
    #[inline]
    pub(crate) fn check(&self, status: OrtStatusPtr) -> Result<(), Failure> {
        match NonNull::new(status.0) {
            None => Ok(()),
            Some(status) => Err(self.take_failure(status)),
        }
    }

    #[cold]
    fn take_failure(&self, status: NonNull<OrtStatus>) -> Failure {
        type Declared = unsafe extern "system" fn(*const OrtStatus) -> OrtErrorCode;
        type Numeric = unsafe extern "system" fn(*const OrtStatus) -> i32;
        // SAFETY: the enum that the declaration returns is `repr(i32)`, so the two types of
        // function differ in name only. A newer library may return a code that the enum lacks,
        // which is harmless in an `i32` and undefined in the enum.
        let get_code = unsafe { mem::transmute::<Declared, Numeric>(self.table.GetErrorCode) };
        // SAFETY: the status is valid until it is released, below; the text is copied before.
        let (code, message) = unsafe {
            let code = get_code(status.as_ptr());
            let message = (self.table.GetErrorMessage)(status.as_ptr());
            let message = CStr::from_ptr(message).to_string_lossy().into_owned();
            (self.table.ReleaseStatus)(status.as_ptr());
            (code, message)
        };
        Failure { code: Code::from_raw(code), message }
    }

    /// Makes the environment that all sessions of the process live in. It is never released.
    pub(crate) fn create_environment(&self) -> Result<NonNull<OrtEnv>, Failure> {
        // SAFETY: differs from the declared type in one parameter, an `i32` in place of an enum
        // that is `repr(i32)`, for the reason given at `take_failure`.
        let log = unsafe { mem::transmute::<LogFunction, OrtLoggingFunction>(log) };
        let verbose = tracing::enabled!(target: "onnxruntime", tracing::Level::DEBUG);
        let severity = if verbose {
            ort_sys::OrtLoggingLevel::ORT_LOGGING_LEVEL_INFO
        } else {
            ort_sys::OrtLoggingLevel::ORT_LOGGING_LEVEL_WARNING
        };
        let mut environment = ptr::null_mut();
        // SAFETY: the name is NUL-terminated, the function lives as long as the process and takes
        // no parameter of ours, and `environment` is a place for one pointer.
        self.check(unsafe {
            (self.table.CreateEnvWithCustomLogger)(
                log,
                ptr::null_mut(),
                severity,
                c"outhaul".as_ptr(),
                &mut environment,
            )
        })?;
        let environment = non_null(environment, "environment")?;
        // SAFETY: the environment was just made.
        self.check(unsafe { (self.table.DisableTelemetryEvents)(environment.as_ptr()) })?;
        Ok(environment)
    }

    /// Makes the words for "ordinary memory". Never released.
    pub(crate) fn describe_memory(&self) -> Result<NonNull<OrtMemoryInfo>, Failure> {
        let mut memory = ptr::null_mut();
        // SAFETY: `memory` is a place for one pointer.
        self.check(unsafe {
            (self.table.CreateCpuMemoryInfo)(
                OrtAllocatorType::OrtDeviceAllocator,
                OrtMemType::OrtMemTypeDefault,
                &mut memory,
            )
        })?;
        non_null(memory, "memory description")
    }

    /// Returns the library's default allocator, which is a static of its own.
    pub(crate) fn default_allocator(&self) -> Result<NonNull<OrtAllocator>, Failure> {
        let mut allocator = ptr::null_mut();
        // SAFETY: `allocator` is a place for one pointer.
        self.check(unsafe { (self.table.GetAllocatorWithDefaultOptions)(&mut allocator) })?;
        non_null(allocator, "allocator")
    }
}

/// Keeps the library from reporting to its maker. From 1.29 on, the official builds for Linux and
/// macOS start a thread, write a device id and a database into the user's cache folder and upload
/// what they saw of models, unless this variable is set before the environment is made; the call
/// for it, `DisableTelemetryEvents`, comes too late for all three. A variable that the user has set
/// is left as it is.
fn forbid_telemetry() {
    const VARIABLE: &str = "ORT_DISABLE_TELEMETRY";
    if env::var_os(VARIABLE).is_none() {
        // SAFETY: the hazard is C code that reads the environment in another thread at this very
        // moment; Rust's own readers are locked out. It happens once, when the process chooses its
        // engine and before it serves anything, and nothing that we start earlier reads the
        // environment from C.
        unsafe { env::set_var(VARIABLE, "1") }
    }
}

/// Refuses a null pointer that the library returned with a success.
pub(crate) fn non_null<T>(pointer: *mut T, what: &str) -> Result<NonNull<T>, Failure> {
    NonNull::new(pointer).ok_or_else(|| Failure {
        code: Code::Fail,
        message: format!("the library returned no {what}"),
    })
}

/// Makes a NUL-terminated copy of a name.
pub(crate) fn c_name(name: &str) -> Result<CString, Failure> {
    CString::new(name).map_err(|_| Failure {
        code: Code::InvalidArgument,
        message: format!("the name '{}' holds a NUL byte", name.escape_debug()),
    })
}

/// Reads a static string of the library; one that is no UTF-8 reads as empty.
///
/// # Safety
///
/// `text` must be null or point to a NUL-terminated string that is never freed.
unsafe fn static_text(text: *const c_char) -> &'static str {
    if text.is_null() {
        return "";
    }
    // SAFETY: as the caller promises.
    unsafe { CStr::from_ptr(text) }.to_str().unwrap_or_default()
}

fn is_recent_enough(version: &str) -> bool {
    let mut parts = version.split('.').map(str::parse::<u32>);
    match (parts.next(), parts.next()) {
        (Some(Ok(1)), Some(Ok(minor))) => minor >= ORT_API_VERSION,
        _ => false,
    }
}

type LogFunction = unsafe extern "system" fn(
    *mut c_void,
    i32,
    *const c_char,
    *const c_char,
    *const c_char,
    *const c_char,
);

/// Hands the library's log on. Its errors are also returned as errors and reported where they are
/// handled, so here they are details; a failing request must not write two lines.
unsafe extern "system" fn log(
    _parameter: *mut c_void,
    severity: i32,
    _category: *const c_char,
    _log_id: *const c_char,
    location: *const c_char,
    message: *const c_char,
) {
    if message.is_null() || location.is_null() {
        return;
    }
    // SAFETY: the library passes NUL-terminated strings that live for the call.
    let (location, message) = unsafe { (CStr::from_ptr(location), CStr::from_ptr(message)) };
    let (location, message) = (location.to_string_lossy(), message.to_string_lossy());
    // A panic in a subscriber must not unwind into the library.
    let logged = catch_unwind(|| match severity {
        0 => tracing::trace!(target: "onnxruntime", %location, "{message}"),
        1 | 3 => tracing::debug!(target: "onnxruntime", %location, "{message}"),
        2 => tracing::warn!(target: "onnxruntime", %location, "{message}"),
        _ => tracing::error!(target: "onnxruntime", %location, "{message}"),
    });
    drop(logged);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_from_1_17_are_accepted() {
        for (version, expected) in [
            ("1.31.1", true),
            ("1.17.0", true),
            ("1.17", true),
            ("1.18.0-dev", true),
            ("1.16.3", false),
            ("2.0.0", false),
            ("1", false),
            ("", false),
            ("one.two", false),
        ] {
            assert_eq!(is_recent_enough(version), expected, "{version}");
        }
    }

    #[test]
    fn what_is_no_library_is_refused() {
        let missing = Api::open(Path::new("/nonexistent/libonnxruntime.so"));
        assert!(matches!(missing, Err(LibraryError::Missing)));
        let text = Api::open(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")));
        assert!(matches!(text, Err(LibraryError::NotALibrary(_))));
    }
}
