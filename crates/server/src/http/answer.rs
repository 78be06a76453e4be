//! Answers and their bodies.

use std::borrow::Cow;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::response::IntoResponse;
use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use outhaul_protocol::{http_status, oip};
use outhaul_types::{Classify, ErrorKind};

/// What the listener sends back.
pub(crate) type Answer = Response<AnswerBody>;

pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A body that is one piece of memory, or one that axum made. The former is the path of every
/// prediction and is not boxed.
pub(crate) enum AnswerBody {
    Whole(Option<Bytes>),
    Axum(axum::body::Body),
}

impl From<Bytes> for AnswerBody {
    fn from(bytes: Bytes) -> Self {
        AnswerBody::Whole((!bytes.is_empty()).then_some(bytes))
    }
}

impl AnswerBody {
    /// Returns the body's length where it is known before it is sent.
    pub(crate) fn known_length(&self) -> usize {
        usize::try_from(self.size_hint().exact().unwrap_or(0)).unwrap_or(usize::MAX)
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match self.get_mut() {
            AnswerBody::Whole(bytes) => Poll::Ready(bytes.take().map(|all| Ok(Frame::data(all)))),
            AnswerBody::Axum(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            AnswerBody::Whole(bytes) => bytes.is_none(),
            AnswerBody::Axum(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            AnswerBody::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |all| all.len() as u64))
            }
            AnswerBody::Axum(body) => body.size_hint(),
        }
    }
}

/// Returns an answer of JSON.
pub(crate) fn json(status: StatusCode, body: Bytes) -> Answer {
    let mut answer = Response::new(body.into());
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, JSON);
    answer
}

/// Why there is no other answer, in words for the client.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: StatusCode,
    pub(crate) message: Cow<'static, str>,
    header: Option<(HeaderName, HeaderValue)>,
}

impl Failure {
    /// Makes the failure of a request that the caller can mend.
    pub(crate) fn new(status: StatusCode, message: impl Into<Cow<'static, str>>) -> Self {
        Failure { status, message: message.into(), header: None }
    }

    /// Makes the failure of a request that is malformed.
    pub(crate) fn bad_request(message: impl Into<Cow<'static, str>>) -> Self {
        Failure::new(StatusCode::BAD_REQUEST, message)
    }

    /// Makes the failure that an error tells of, without its causes.
    pub(crate) fn of(error: &impl Classify) -> Self {
        let kind = error.kind();
        let header = match kind {
            ErrorKind::Overloaded | ErrorKind::NotReady | ErrorKind::Unavailable => {
                // Whole seconds, so that nobody comes a moment too early.
                let wait = error.retry_after().map_or(1, |wait| wait.as_secs_f64().ceil() as u64);
                Some((RETRY_AFTER, HeaderValue::from(wait.max(1))))
            }
            ErrorKind::InvalidInput
            | ErrorKind::NotFound
            | ErrorKind::DeadlineExceeded
            | ErrorKind::Unauthenticated
            | ErrorKind::Forbidden
            | ErrorKind::Conflict
            | ErrorKind::Unsupported
            | ErrorKind::EngineFailed
            | ErrorKind::Internal => None,
        };
        let status = StatusCode::from_u16(http_status(kind))
            .expect("every kind has a status between 400 and 504");
        Failure { status, message: error.client_message().into(), header }
    }

    /// Says that the connection will be closed, since the rest of the request is not read.
    pub(crate) fn and_close(mut self) -> Self {
        self.header = Some((CONNECTION, HeaderValue::from_static("close")));
        self
    }

    /// Says which encodings of bodies would be read.
    pub(crate) fn naming_encodings(mut self) -> Self {
        self.header = Some((ACCEPT_ENCODING, HeaderValue::from_static("gzip, deflate, zstd")));
        self
    }

    /// Writes it in the contract's form.
    pub(crate) fn into_answer(self) -> Answer {
        let mut answer = json(self.status, oip::error_body(&self.message));
        self.put_header(&mut answer);
        answer
    }

    /// Puts the header that belongs to the failure, where there is one, into its answer.
    pub(crate) fn put_header(self, answer: &mut Answer) {
        if let Some((name, value)) = self.header {
            answer.headers_mut().insert(name, value);
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> axum::response::Response {
        self.into_answer().map(axum::body::Body::new)
    }
}

/// A mistake of ours that reached the listener.
#[derive(Debug, thiserror::Error)]
#[error("{what} was interrupted")]
pub(crate) struct Interrupted {
    pub(crate) what: &'static str,
    #[source]
    pub(crate) source: tokio::task::JoinError,
}

impl Classify for Interrupted {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Internal
    }
}

/// An answer always exists, also where it tells of a failure.
pub(crate) type Infallibly<T> = Result<T, Infallible>;
