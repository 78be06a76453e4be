//! The way to talk to a running repository: ask it to load and unload, wake what sleeps.
//!
//! A [`Handle`] knows no contents, so that whoever holds one need not know what is served. The
//! repository runs as long as one of its handles lives.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use arc_swap::ArcSwap;
use outhaul_types::{Classify, ErrorKind, ModelName, ModelVersion};
use tokio::sync::oneshot;

use crate::Problem;
use crate::plan::NO_ROOM;

/// Why a repository did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// None of the sources holds the model.
    #[error("Request for unknown model: '{0}' is not found in the repository")]
    UnknownModel(String),
    /// The model has no such version.
    #[error(
        "Request for unknown model: '{model}' version {version} is not found in the repository"
    )]
    UnknownVersion {
        /// The model.
        model: ModelName,
        /// The version.
        version: ModelVersion,
    },
    /// It could not be loaded.
    #[error("failed to load '{model}': {reason}")]
    Failed {
        /// The model.
        model: ModelName,
        /// Why.
        reason: Arc<str>,
    },
    /// A source could not be read, so that nobody knows what there is.
    #[error("{0}")]
    Unreadable(String),
    /// What was asked for could not be kept, and was not done.
    #[error("what was asked for could not be kept in the state store, so it was not done")]
    NotKept {
        /// What the store said.
        reason: String,
    },
    /// The repository has stopped.
    #[error("the repository has stopped")]
    Stopped,
}

impl AskError {
    /// Returns whether the memory budget is what keeps the model from being loaded.
    pub fn is_for_room(&self) -> bool {
        matches!(self, AskError::Failed { reason, .. } if reason.contains(NO_ROOM))
    }
}

impl Classify for AskError {
    fn kind(&self) -> ErrorKind {
        match self {
            AskError::UnknownModel(_) | AskError::UnknownVersion { .. } => ErrorKind::NotFound,
            AskError::Failed { .. } => ErrorKind::Conflict,
            AskError::Unreadable(_) | AskError::NotKept { .. } | AskError::Stopped => {
                ErrorKind::Unavailable
            }
        }
    }

    fn client_message(&self) -> String {
        self.to_string()
    }
}

/// What is asked of the loop.
#[derive(Debug)]
pub(crate) enum Request {
    /// A request waits for this version.
    Wake(ModelName, ModelVersion),
    Load {
        model: String,
        version: Option<ModelVersion>,
        reply: Reply,
    },
    Unload {
        model: String,
        reply: Reply,
    },
    /// Routes and roll-outs lead to these versions, and to no others.
    Hold(BTreeSet<(ModelName, ModelVersion)>),
    /// Tell when nothing is on its way any more.
    Settle(mpsc::Sender<()>),
    Stop,
}

pub(crate) type Reply = oneshot::Sender<Result<(), AskError>>;

type Send = Box<dyn Fn(Request) + std::marker::Send + Sync>;

/// The way to talk to a running repository.
#[derive(Clone)]
pub struct Handle(Arc<Inner>);

struct Inner {
    send: Send,
    problems: Arc<ArcSwap<Vec<Problem>>>,
    has_looked: Arc<AtomicBool>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        (self.send)(Request::Stop);
    }
}

impl Handle {
    pub(crate) fn new(
        send: Send,
        problems: Arc<ArcSwap<Vec<Problem>>>,
        has_looked: Arc<AtomicBool>,
    ) -> Self {
        Handle(Arc::new(Inner { send, problems, has_looked }))
    }

    /// Returns whether every source has been looked at: before that nobody knows what there is.
    pub fn has_looked(&self) -> bool {
        self.0.has_looked.load(Ordering::Acquire)
    }

    /// Asks for a model: looks at the sources anew, loads what its version policy chooses (or the one
    /// version), and returns when that answers. What was asked for holds over restarts. Giving up the
    /// future does not stop the load.
    ///
    /// # Errors
    ///
    /// See [`AskError`]. Where the new version fails to load, an older one may go on answering.
    pub async fn load(&self, model: &str, version: Option<ModelVersion>) -> Result<(), AskError> {
        let (reply, answer) = oneshot::channel();
        (self.0.send)(Request::Load { model: model.to_owned(), version, reply });
        answer.await.unwrap_or(Err(AskError::Stopped))
    }

    /// Asks for a model to be unloaded: new requests are refused when this returns, old ones are
    /// finished. It stays unloaded over restarts, until it is asked for.
    ///
    /// # Errors
    ///
    /// See [`AskError`].
    pub async fn unload(&self, model: &str) -> Result<(), AskError> {
        let (reply, answer) = oneshot::channel();
        (self.0.send)(Request::Unload { model: model.to_owned(), reply });
        answer.await.unwrap_or(Err(AskError::Stopped))
    }

    /// Says that a request waits for a version that sleeps. Never waits.
    pub fn wake(&self, model: &ModelName, version: ModelVersion) {
        (self.0.send)(Request::Wake(model.clone(), version));
    }

    /// Holds versions, in place of all that were held before: routes and roll-outs lead to them. Whatever
    /// the version policy says they are loaded as soon as they are there, and stay in memory; in `explicit` mode
    /// they count as asked for. One that is in memory goes on answering though its files are gone, which is told
    /// as a problem. A model that somebody unloaded stays unloaded. Never waits.
    pub fn hold(&self, versions: BTreeSet<(ModelName, ModelVersion)>) {
        (self.0.send)(Request::Hold(versions));
    }

    /// Waits until nothing is on its way any more, at most for `limit`, and returns whether that is
    /// so. May be called from any thread that no event loop runs on.
    pub fn settle(&self, limit: Duration) -> bool {
        let (send, settled) = mpsc::channel();
        (self.0.send)(Request::Settle(send));
        settled.recv_timeout(limit).is_ok()
    }

    /// Returns everything that an operator should mend now: what is wrong with the sources, and the
    /// versions that failed to load.
    pub fn problems(&self) -> Arc<Vec<Problem>> {
        self.0.problems.load_full()
    }
}
