//! Which form a body has, and which one the answer gets, by `Content-Type` and `Accept`.

use std::fmt;

use crate::error::excerpt;

/// The names of JSON Lines. AWS writes the first.
const LINES: [&str; 4] = [
    "application/jsonlines",
    "application/x-jsonlines",
    "application/jsonl",
    "application/x-ndjson",
];
const JSON: &str = "application/json";
const CSV: &str = "text/csv";
const NPY: &str = "application/x-npy";
/// JSON of the Open Inference Protocol with binary data behind it, as Triton's container has it.
const TRITON: &str = "application/vnd.sagemaker-triton.binary+json";

/// What a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentType {
    /// JSON in one of its forms.
    Json,
    /// A row a line; its name as it came.
    JsonLines(&'static str),
    /// A row a line.
    Csv,
    /// An array of NumPy.
    Npy,
    /// One text.
    Text,
    /// One picture.
    Image,
    /// One value of bytes.
    Bytes,
    /// The Open Inference Protocol with binary data, and the length of the JSON in front.
    Triton(usize),
}

/// Why there is no form: 415 or 406.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MediaError {
    /// Nothing reads this.
    Unsupported(String),
    /// Nothing writes any of these.
    NotAcceptable(String),
}

impl fmt::Display for MediaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MediaError::Unsupported(given) => write!(
                f,
                "content type '{}' is not read here: send {JSON}, {}, {CSV}, {NPY}, text/plain, \
                 image/jpeg, image/png, image/webp or application/octet-stream",
                excerpt(given),
                LINES[0]
            ),
            MediaError::NotAcceptable(given) => write!(
                f,
                "answers cannot be written as '{}': accept {JSON}, {}, {CSV} or {NPY}",
                excerpt(given),
                LINES[0]
            ),
        }
    }
}

impl std::error::Error for MediaError {}

impl ContentType {
    /// Reads the header. Without one, as boto3 sends it where nobody says otherwise, a body is JSON.
    ///
    /// # Errors
    ///
    /// Fails where nothing reads such a body.
    pub fn read(header: Option<&str>) -> Result<Self, MediaError> {
        let header = header.unwrap_or(JSON);
        let (media, parameters) = part(header);
        let unsupported = || MediaError::Unsupported(header.to_owned());
        Ok(match &*media {
            // The last is what curl says where nobody says otherwise.
            JSON | "" | "application/x-www-form-urlencoded" => ContentType::Json,
            CSV => ContentType::Csv,
            NPY => ContentType::Npy,
            "text/plain" => ContentType::Text,
            "image/jpeg" | "image/png" | "image/webp" | "application/x-image" => ContentType::Image,
            "application/octet-stream" => ContentType::Bytes,
            TRITON => {
                let length = parameters.filter_map(|parameter| {
                    parameter.strip_prefix("json-header-size=")?.parse().ok()
                });
                ContentType::Triton(length.last().ok_or_else(unsupported)?)
            }
            other => match LINES.iter().find(|name| **name == other) {
                Some(name) => ContentType::JsonLines(name),
                None => return Err(unsupported()),
            },
        })
    }
}

/// What an answer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// Whatever suits the request.
    Any,
    /// JSON.
    Json,
    /// A prediction a line; its name as the caller has it.
    JsonLines(&'static str),
    /// A prediction a line, and whether a header stands before them.
    Csv {
        /// Whether the first line names the columns.
        header: bool,
    },
    /// An array of NumPy.
    Npy,
}

impl Accepted {
    /// Reads the header: the first of the ranges that are wanted most and can be had.
    ///
    /// # Errors
    ///
    /// Fails where none can be had.
    pub fn read(header: Option<&str>) -> Result<Self, MediaError> {
        let Some(header) = header.filter(|header| !header.trim().is_empty()) else {
            return Ok(Accepted::Any);
        };
        let mut best: Option<(f32, Accepted)> = None;
        for range in header.split(',') {
            let Some((quality, accepted)) = Accepted::of_range(range) else { continue };
            if quality > 0.0 && best.is_none_or(|(wanted, _)| quality > wanted) {
                best = Some((quality, accepted));
            }
        }
        let best = best.map(|(_, accepted)| accepted);
        best.ok_or_else(|| MediaError::NotAcceptable(header.to_owned()))
    }

    fn of_range(range: &str) -> Option<(f32, Accepted)> {
        let (media, parameters) = part(range);
        let (mut quality, mut header) = (1.0, false);
        for parameter in parameters {
            if let Some(weight) = parameter.strip_prefix("q=") {
                quality = weight.parse().unwrap_or(1.0);
            }
            header |= parameter == "header=present";
        }
        let accepted = match &*media {
            "*/*" | "application/*" | TRITON => Accepted::Any,
            JSON => Accepted::Json,
            CSV | "text/*" => Accepted::Csv { header },
            NPY => Accepted::Npy,
            other => Accepted::JsonLines(LINES.iter().find(|name| **name == other)?),
        };
        Some((quality, accepted))
    }

    /// Returns the media type of the answer.
    pub(super) const fn media(self) -> &'static str {
        match self {
            Accepted::Any | Accepted::Json => JSON,
            Accepted::JsonLines(name) => name,
            Accepted::Csv { .. } => CSV,
            Accepted::Npy => NPY,
        }
    }
}

/// Returns a media type in lower case, and its parameters without blanks.
fn part(header: &str) -> (String, impl Iterator<Item = String>) {
    let mut parts = header.split(';').map(|part| part.trim().to_ascii_lowercase());
    (parts.next().unwrap_or_default(), parts)
}

/// Returns the media type of JSON with binary data behind it.
pub(super) fn triton(json_length: usize) -> String {
    format!("{TRITON};json-header-size={json_length}")
}
