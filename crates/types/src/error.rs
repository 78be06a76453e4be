//! The closed set of ways a request can fail, shared by every wire contract.

use std::error::Error;
use std::fmt;
use std::time::Duration;

/// Why something failed, in terms of who has to act. Each wire contract maps every kind to its own
/// status in one exhaustive `match`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The caller sent something that can never succeed: act on the request.
    InvalidInput,
    /// The named model, version or path does not exist.
    NotFound,
    /// It exists but cannot answer yet, or any more.
    NotReady,
    /// A queue or a limit is full; the same request may succeed later.
    Overloaded,
    /// The deadline passed before there was an answer.
    DeadlineExceeded,
    /// No valid key or token was presented.
    Unauthenticated,
    /// The caller is known and may not do this.
    Forbidden,
    /// The request contradicts the present state.
    Conflict,
    /// A valid request for something that Outhaul or the chosen engine does not do.
    Unsupported,
    /// The engine failed on a request that looked right.
    EngineFailed,
    /// Something that Outhaul depends on is away.
    Unavailable,
    /// A mistake in Outhaul.
    Internal,
}

impl ErrorKind {
    /// Every kind, for exhaustive tests.
    pub const ALL: [ErrorKind; 12] = [
        ErrorKind::InvalidInput,
        ErrorKind::NotFound,
        ErrorKind::NotReady,
        ErrorKind::Overloaded,
        ErrorKind::DeadlineExceeded,
        ErrorKind::Unauthenticated,
        ErrorKind::Forbidden,
        ErrorKind::Conflict,
        ErrorKind::Unsupported,
        ErrorKind::EngineFailed,
        ErrorKind::Unavailable,
        ErrorKind::Internal,
    ];

    /// Returns a stable lower-case word, used as a metric label and in logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            ErrorKind::InvalidInput => "invalid_input",
            ErrorKind::NotFound => "not_found",
            ErrorKind::NotReady => "not_ready",
            ErrorKind::Overloaded => "overloaded",
            ErrorKind::DeadlineExceeded => "deadline_exceeded",
            ErrorKind::Unauthenticated => "unauthenticated",
            ErrorKind::Forbidden => "forbidden",
            ErrorKind::Conflict => "conflict",
            ErrorKind::Unsupported => "unsupported",
            ErrorKind::EngineFailed => "engine_failed",
            ErrorKind::Unavailable => "unavailable",
            ErrorKind::Internal => "internal",
        }
    }

    /// Returns whether the fault lies with Outhaul or what it runs, not with the caller.
    pub const fn is_ours(self) -> bool {
        matches!(self, ErrorKind::EngineFailed | ErrorKind::Unavailable | ErrorKind::Internal)
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error that knows which [`ErrorKind`] it is and what a client may be told of it.
pub trait Classify: Error {
    /// Returns the kind.
    fn kind(&self) -> ErrorKind;

    /// Returns how long the caller ought to wait before it asks again, where that is known.
    fn retry_after(&self) -> Option<Duration> {
        None
    }

    /// Returns the text for the client. For kinds that are ours this must not hold internals, so
    /// the default is the error's own clause only for the caller's mistakes.
    fn client_message(&self) -> String {
        if self.kind() == ErrorKind::Internal {
            "internal error".to_owned()
        } else {
            self.to_string()
        }
    }
}

/// Returns an error with all its causes on one line, for logs and the command line.
pub fn error_chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line
}
