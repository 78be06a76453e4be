//! From a request on a connection to its answer: predictions take the short way.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, Request};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tower::ServiceExt;

use super::Shared;
use super::answer::{Answer, AnswerBody, Infallibly};
use super::infer::infer;
use super::routes::infer_target;
use super::watch::Activity;

/// What a connection answers with.
pub(super) struct Answers {
    pub(super) shared: Arc<Shared>,
    pub(super) routes: axum::Router,
}

/// Answers one request. Dropping the future gives the request up.
pub(super) async fn answer(
    answers: Arc<Answers>,
    activity: Arc<Activity>,
    request: Request<Incoming>,
) -> Infallibly<Answer> {
    let _in_flight = activity.begin(request.version());
    let activity = Arc::clone(&activity);
    let request = request.map(|body| Received { body, ended: false, activity });
    if request.method() == Method::POST
        && let Some(target) = infer_target(request.uri().path())
    {
        return Ok(infer(&answers.shared, Ok(target), request).await);
    }
    // Cloning an axum router is cloning an `Arc`.
    let answer = answers.routes.clone().oneshot(request.map(axum::body::Body::new)).await?;
    Ok(answer.map(AnswerBody::Axum))
}

/// A request's body that tells its connection when it is not read to the end: then the client may
/// still be sending, and closing must not cut off the answer.
struct Received {
    body: Incoming,
    ended: bool,
    activity: Arc<Activity>,
}

impl Body for Received {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        self.ended |= matches!(polled, Poll::Ready(None));
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        if !self.ended && !self.body.is_end_stream() {
            self.activity.left_unread();
        }
    }
}
