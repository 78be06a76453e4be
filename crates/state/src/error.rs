//! What can go wrong with a store, told without the password, and whether it may pass by itself.

use std::error::Error;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use outhaul_types::{Classify, ErrorKind};

/// Why a store could not be opened, read or written. URLs in it have no password.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The URL begins with none of the known schemes.
    #[error(
        "'{url}' names no state store: use 'sqlite:PATH', a path that ends in '.db', \
         'sqlite::memory:' or 'postgres://USER@HOST/DATABASE'"
    )]
    UnknownScheme {
        /// The URL.
        url: String,
    },
    /// The scheme is known, the rest of the URL is not right.
    #[error("'{url}' is not a usable state store: {rule}")]
    InvalidUrl {
        /// The URL.
        url: String,
        /// What is wrong and what would be right.
        rule: String,
    },
    /// A space, a key or a value cannot be kept.
    #[error("the {what} of a state record {rule}")]
    Refused {
        /// `space`, `key`, `value` or `prefix`.
        what: &'static str,
        /// What is wrong with it.
        rule: String,
    },
    /// The folder of a SQLite file is missing and cannot be made.
    #[error("could not make the folder {} of the state store '{url}'", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// The URL.
        url: String,
        /// Why not.
        source: io::Error,
    },
    /// The tables are of a release that this one does not know.
    #[error(
        "the state store '{url}' has schema {found}, this release knows schemas up to {known}: use the \
         release that wrote it or a newer one"
    )]
    NewerSchema {
        /// The URL.
        url: String,
        /// The schema that is there.
        found: i64,
        /// The newest that this release knows.
        known: i64,
    },
    /// The database refused or could not be reached.
    #[error("could not {attempt} in the state store '{url}'")]
    Database {
        /// What was tried.
        attempt: String,
        /// The URL.
        url: String,
        /// Whether the same call may succeed later, with nothing mended.
        passing: bool,
        /// What the database or its driver says.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The database did not answer in time. What was to be written may be there or not.
    #[error("could not {attempt} in the state store '{url}' within {} seconds", limit.as_secs())]
    TimedOut {
        /// What was tried.
        attempt: String,
        /// The URL.
        url: String,
        /// How long was waited.
        limit: Duration,
    },
}

impl StateError {
    /// Returns whether the same call may succeed later with nothing mended: a lock that another process
    /// holds, a server that starts up, a connection that broke, a full disk.
    pub fn is_passing(&self) -> bool {
        match self {
            StateError::Database { passing, .. } => *passing,
            StateError::TimedOut { .. } => true,
            StateError::UnknownScheme { .. }
            | StateError::InvalidUrl { .. }
            | StateError::Refused { .. }
            | StateError::Folder { .. }
            | StateError::NewerSchema { .. } => false,
        }
    }

    pub(crate) fn database(attempt: String, url: &str, error: sqlx::Error) -> Self {
        let passing = passes(&error);
        StateError::Database { attempt, url: url.to_owned(), passing, source: error.into() }
    }
}

impl Classify for StateError {
    fn kind(&self) -> ErrorKind {
        match self {
            StateError::UnknownScheme { .. }
            | StateError::InvalidUrl { .. }
            | StateError::Refused { .. } => ErrorKind::InvalidInput,
            StateError::NewerSchema { .. } => ErrorKind::Conflict,
            StateError::Folder { .. }
            | StateError::Database { .. }
            | StateError::TimedOut { .. } => ErrorKind::Unavailable,
        }
    }

    fn client_message(&self) -> String {
        match self {
            StateError::Refused { .. } => self.to_string(),
            _ => "the state store is not available".to_owned(),
        }
    }
}

/// Awaits one call to a database, for `limit` at most.
pub(crate) async fn within<T>(
    limit: Duration,
    url: &str,
    attempt: impl Fn() -> String,
    call: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, StateError> {
    match tokio::time::timeout(limit, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(StateError::database(attempt(), url, error)),
        Err(_) => Err(StateError::TimedOut { attempt: attempt(), url: url.to_owned(), limit }),
    }
}

/// Returns whether an error may go away by itself.
fn passes(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => error.code().is_some_and(|code| code_passes(&code)),
        sqlx::Error::Io(error) => io_passes(error.kind()),
        sqlx::Error::PoolTimedOut | sqlx::Error::WorkerCrashed => true,
        _ => false,
    }
}

/// Returns whether a database's own error code is one that may go away by itself.
///
/// Postgres has five characters (Appendix A of its manual). SQLite has a number whose low byte is the
/// primary code (<https://www.sqlite.org/rescode.html>).
fn code_passes(code: &str) -> bool {
    if code.len() == 5 {
        // 08: connection; 53: insufficient resources; 57P01..57P03: shutting down or starting up;
        // 40001, 40P01, 55P03: somebody else was first; 57014: the server's own time limit.
        return code.starts_with("08")
            || code.starts_with("53")
            || matches!(code, "57P01" | "57P02" | "57P03" | "57014" | "40001" | "40P01" | "55P03");
    }
    // SQLITE_BUSY, SQLITE_LOCKED, SQLITE_NOMEM, SQLITE_IOERR, SQLITE_FULL, SQLITE_PROTOCOL.
    code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 5 | 6 | 7 | 10 | 13 | 15))
}

fn io_passes(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable,
        Interrupted, NetworkDown, NetworkUnreachable, NotConnected, TimedOut, UnexpectedEof,
    };
    matches!(
        kind,
        BrokenPipe
            | ConnectionAborted
            | ConnectionRefused
            | ConnectionReset
            | HostUnreachable
            | Interrupted
            | NetworkDown
            | NetworkUnreachable
            | NotConnected
            | TimedOut
            | UnexpectedEof
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_pass_are_told_from_those_that_stay() {
        struct Case {
            code: &'static str,
            passes: bool,
        }
        let cases = [
            Case { code: "5", passes: true },
            Case { code: "517", passes: true },
            Case { code: "13", passes: true },
            Case { code: "8", passes: false },
            Case { code: "11", passes: false },
            Case { code: "14", passes: false },
            Case { code: "26", passes: false },
            Case { code: "08006", passes: true },
            Case { code: "53300", passes: true },
            Case { code: "57P03", passes: true },
            Case { code: "28P01", passes: false },
            Case { code: "3D000", passes: false },
            Case { code: "42501", passes: false },
            Case { code: "", passes: false },
        ];
        for Case { code, passes } in cases {
            assert_eq!(code_passes(code), passes, "{code}");
        }
    }

    #[test]
    fn a_client_learns_nothing_of_where_the_store_is() {
        let error = StateError::database(
            "write 'a' of 'b'".to_owned(),
            "postgres://ann:***@db/test",
            sqlx::Error::PoolTimedOut,
        );
        assert!(error.is_passing());
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(error.client_message(), "the state store is not available");
        assert!(error.source().is_some());
    }
}
