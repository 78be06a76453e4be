//! Requests that a version answers before it gets traffic.
//!
//! The first runs of a model are slow (kernels are chosen, memory is taken) and some models cannot run
//! at all although they load. Both are better met before callers come. Inputs are generated or read
//! from files, in the shapes that callers would send, and take the way of a request: bound to the
//! signature, reshaped, run, reshaped back.
//!
//! A request that was declared must be answered, else the version is not fit for traffic. The one that
//! is made up where nothing is declared proves less: some models cannot take zeros, and engines do not
//! tell reliably whether it was the input. Where it fails this is only noted; where the engine cannot
//! open a session or panics, it is an error.
//!
//! Everything runs on the calling thread, with a session of its own that is let go afterwards.

mod inputs;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use outhaul_engine::{LoadError, LoadedModel, RunError, Session};
use outhaul_types::{BindError, BoundInputs, Classify, ErrorKind, Tensors, WarmupRequest};

use crate::declared::{Declared, ReshapeError};
use crate::default_answer::DefaultError;
pub use inputs::InputError;

/// What came of the requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WarmedUp {
    /// Runs that were answered.
    pub requests: usize,
    /// The time of the slowest of them.
    pub slowest: Duration,
    /// Why the request that was made up has no answer, if it has none.
    pub note: Option<String>,
}

/// Why a version is not fit for traffic.
#[derive(Debug, thiserror::Error)]
pub enum WarmupError {
    /// A declared request has no answer.
    #[error("warm-up request '{request}' has no answer")]
    Request {
        /// What the manifest calls it.
        request: String,
        /// Why.
        #[source]
        reason: Unanswered,
    },
    /// The answer that is declared for when the model gives none does not fit the model.
    #[error(transparent)]
    Default(#[from] DefaultError),
    /// The engine opens no session.
    #[error("no session could be opened for warm-up")]
    NoSession(#[source] LoadError),
    /// The engine panicked.
    #[error("the engine crashed in warm-up request '{request}': {message}")]
    Panicked {
        /// What the manifest calls it.
        request: String,
        /// The panic's message.
        message: String,
    },
}

impl Classify for WarmupError {
    fn kind(&self) -> ErrorKind {
        match self {
            WarmupError::Request { reason: Unanswered::Run(error), .. } => error.kind(),
            WarmupError::Request { .. } | WarmupError::Default(_) => ErrorKind::InvalidInput,
            WarmupError::NoSession(_) | WarmupError::Panicked { .. } => ErrorKind::EngineFailed,
        }
    }
}

/// Why one warm-up request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// An input could not be made.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The inputs do not fit the model's signature.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The inputs or outputs do not fit what is declared of them.
    #[error(transparent)]
    Reshape(#[from] ReshapeError),
    /// The model failed on them.
    #[error(transparent)]
    Run(#[from] RunError),
}

/// Runs the requests declared in a manifest, or one of one row where nothing is declared (`None`).
///
/// # Errors
///
/// Fails with the first declared request that has no answer, and where the engine opens no session or
/// panics.
pub fn warm_up(
    model: &dyn LoadedModel,
    declared: &Declared,
    requests: Option<&[WarmupRequest]>,
) -> Result<WarmedUp, WarmupError> {
    let mut done = WarmedUp::default();
    let made_up = [WarmupRequest::default()];
    let (requests, is_declared) = match requests {
        Some([]) => return Ok(done),
        Some(requests) => (requests, true),
        None => (&made_up[..], false),
    };
    let opened = guarded(|| model.session());
    let opened = opened.map_err(|message| panicked(&requests[0], message))?;
    let mut session = opened.map_err(WarmupError::NoSession)?;
    for request in requests {
        let answered = guarded(|| run(session.as_mut(), declared, request, &mut done));
        match answered.map_err(|message| panicked(request, message))? {
            Ok(()) => {}
            Err(reason) if is_declared => {
                return Err(WarmupError::Request { request: request.name.clone(), reason });
            }
            Err(reason) => done.note = Some(outhaul_types::error_chain(&reason)),
        }
    }
    Ok(done)
}

/// Runs one request as often as it says.
fn run(
    session: &mut dyn Session,
    declared: &Declared,
    request: &WarmupRequest,
    done: &mut WarmedUp,
) -> Result<(), Unanswered> {
    let outer = declared.outer.bind(inputs::of_request(&declared.outer, request)?)?;
    let inner: BoundInputs = declared.reshapes.inward(outer)?;
    for _ in 0..request.count.get() {
        let started = Instant::now();
        let outputs: Tensors = session.run(&inner)?;
        done.slowest = done.slowest.max(started.elapsed());
        declared.reshapes.outward(outputs)?;
        done.requests += 1;
    }
    Ok(())
}

/// Calls the engine; a panic becomes its message. What the call may leave half-changed is not used
/// again: a panic ends the warm-up.
fn guarded<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| {
        let text = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned());
        text.unwrap_or_else(|| "a panic without a message".to_owned())
    })
}

fn panicked(request: &WarmupRequest, message: String) -> WarmupError {
    WarmupError::Panicked { request: request.name.clone(), message }
}

#[cfg(test)]
mod tests;
