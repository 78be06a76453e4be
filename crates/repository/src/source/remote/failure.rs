//! What went wrong at a store, in a user's words, and whether trying again may help.

use object_store::Error;

use super::SourceError;

/// Answers of stores can be whole pages; this much of one is shown.
const LONGEST_REASON: usize = 600;

/// Where machines in clouds ask for their role.
const MACHINES: [&str; 2] = ["169.254.169.254", "metadata.google.internal"];

/// Puts a store's failure in words. `remedy` is what to do where access is refused.
pub(super) fn failure(place: String, error: &Error, remedy: &str) -> SourceError {
    let text = with_causes(error);
    let said = said(&text);
    let (reason, passing) = match Kind::of(error, &text) {
        Kind::Absent => {
            let said = said.unwrap_or_else(|| "is not there".to_owned());
            (format!("{said}; check the URL"), false)
        }
        Kind::Refused => {
            let said = said.map(|said| format!(": {said}")).unwrap_or_default();
            (format!("access was refused{said}; {remedy}"), false)
        }
        Kind::Changed => ("the object has changed since it was found".to_owned(), false),
        Kind::WithoutCredentials => (format!("no credentials were found; {remedy}"), true),
        Kind::WithoutListing => {
            let reason =
                "the server does not list folders (WebDAV); give the URL of one .onnx file";
            (reason.to_owned(), false)
        }
        Kind::Other { passing } => (said.unwrap_or_else(|| shortened(&text)), passing),
    };
    SourceError { place, reason, passing }
}

/// What a failure is about.
enum Kind {
    Absent,
    Refused,
    Changed,
    WithoutCredentials,
    WithoutListing,
    Other { passing: bool },
}

impl Kind {
    /// Listings and some answers have no kind of their own, but tell the status in their text.
    fn of(error: &Error, text: &str) -> Self {
        match error {
            Error::NotFound { .. } => Kind::Absent,
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => Kind::Refused,
            Error::Precondition { .. } | Error::NotModified { .. } => Kind::Changed,
            // Stores ask the machine that they run on for a role where they have no credentials.
            _ if MACHINES.iter().any(|machine| text.contains(machine)) => Kind::WithoutCredentials,
            Error::Generic { .. } | Error::JoinError { .. } => match status(text) {
                Some(401 | 403) => Kind::Refused,
                Some(404) => Kind::Absent,
                // That is how folders are listed over HTTP.
                Some(405 | 501) if text.contains("PROPFIND") => Kind::WithoutListing,
                Some(408 | 429) => Kind::Other { passing: true },
                Some(400..=499) => Kind::Other { passing: false },
                _ => Kind::Other { passing: true },
            },
            _ => Kind::Other { passing: false },
        }
    }
}

/// Returns whether the object is no longer the one that was listed.
pub(super) fn has_changed(error: &Error) -> bool {
    matches!(error, Error::Precondition { .. } | Error::NotFound { .. })
}

/// Returns whether the store refuses this very object.
pub(super) fn is_refusal(error: &Error) -> bool {
    matches!(error, Error::PermissionDenied { .. } | Error::Unauthenticated { .. })
}

fn with_causes(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = inner.source();
    }
    text
}

/// Returns the HTTP status that a failure's text tells of.
fn status(text: &str) -> Option<u16> {
    let rest = text.split("status code: ").nth(1)?;
    rest.get(..3)?.parse().ok()
}

/// Returns code and message of an answer in XML, which is how S3, Azure and Google's XML API fail.
fn said(text: &str) -> Option<String> {
    let element = |name: &str| {
        let rest = text.split(&format!("<{name}>")).nth(1)?;
        rest.split(&format!("</{name}>")).next().map(|value| value.trim().to_owned())
    };
    let code = element("Code")?;
    Some(shortened(&match element("Message") {
        Some(message) => format!("{message} ({code})"),
        None => code,
    }))
}

fn shortened(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LONGEST_REASON) {
        Some((end, _)) => format!("{} ...", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(text: &str) -> Error {
        Error::Generic { store: "S3", source: text.to_owned().into() }
    }

    #[test]
    fn a_failure_says_what_the_store_said_and_whether_to_try_again() {
        struct Case {
            error: Error,
            says: &'static str,
            passing: bool,
        }
        let denied = "Server returned non-2xx status code: 403 Forbidden: <Error><Code>\
            InvalidAccessKeyId</Code><Message>No such key.</Message></Error>";
        let cases = [
            Case {
                error: Error::PermissionDenied { path: "x".into(), source: denied.into() },
                says: "access was refused: No such key. (InvalidAccessKeyId); REMEDY",
                passing: false,
            },
            Case {
                error: Error::NotFound { path: "x".into(), source: "gone".into() },
                says: "is not there; check the URL",
                passing: false,
            },
            Case {
                error: generic("Server returned non-2xx status code: 500 Internal: oh"),
                says: "Generic S3 error: Server returned non-2xx status code: 500 Internal: oh",
                passing: true,
            },
            Case {
                error: generic("status code: 400 Bad Request: <Code>A</Code><Message>b</Message>"),
                says: "b (A)",
                passing: false,
            },
            Case {
                error: generic("performing list request: status code: 403 Forbidden: "),
                says: "access was refused; REMEDY",
                passing: false,
            },
            Case { error: generic("status code: 429 Too Many"), says: "429", passing: true },
            Case { error: generic("connection reset"), says: "connection reset", passing: true },
            Case {
                error: generic("PUT http://169.254.169.254/latest/api/token timed out"),
                says: "no credentials were found; REMEDY",
                passing: true,
            },
            Case {
                error: generic("performing PROPFIND http://h/ - status code: 405 Not Allowed: "),
                says: "give the URL of one .onnx file",
                passing: false,
            },
        ];
        for case in cases {
            let found = failure("s3://b".to_owned(), &case.error, "REMEDY");
            assert!(found.reason.contains(case.says), "{}", found.reason);
            assert_eq!(found.passing, case.passing, "{}", found.reason);
        }
    }
}
