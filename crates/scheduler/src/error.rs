//! Why a request that reached the queue has no answer.

use std::time::Duration;

use outhaul_engine::RunError;
use outhaul_types::{Classify, ErrorKind};

use crate::Level;

/// Why a request that reached the queue has no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum QueueError {
    /// As many requests wait as may wait.
    #[error("the queue is full: {capacity} requests are waiting")]
    Full {
        /// The limit.
        capacity: usize,
    },
    /// As many requests of one level wait as may wait.
    #[error("the queue of priority {level} is full: {capacity} requests are waiting")]
    LevelFull {
        /// The level.
        level: Level,
        /// Its limit.
        capacity: usize,
    },
    /// It waited longer than requests of its level may.
    #[error("the request waited longer than the {limit:?} that requests of priority {level} may")]
    WaitedTooLong {
        /// The level.
        level: Level,
        /// Its limit.
        limit: Duration,
    },
    /// The deadline passed, in the queue or during compute.
    #[error("the deadline passed before there was an answer")]
    DeadlineExceeded,
    /// The instance that had the request ended without an answer.
    #[error("the instance that had the request ended")]
    Lost,
    /// The model failed on this request.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The engine panicked; its session has been replaced.
    #[error("the engine crashed while running the model: {message}")]
    Panicked {
        /// The panic's message, for the log.
        message: String,
    },
    /// The session could not be rebuilt after a crash.
    #[error("no session could be opened: {reason}")]
    NoSession {
        /// What the engine said.
        reason: String,
    },
    /// The model gave other outputs than its signature promises.
    #[error("the model answered with {reason}")]
    BadAnswer {
        /// What was wrong with the answer.
        reason: String,
    },
}

impl Classify for QueueError {
    fn kind(&self) -> ErrorKind {
        match self {
            QueueError::Full { .. } | QueueError::LevelFull { .. } => ErrorKind::Overloaded,
            QueueError::DeadlineExceeded | QueueError::WaitedTooLong { .. } => {
                ErrorKind::DeadlineExceeded
            }
            QueueError::Run(error) => error.kind(),
            QueueError::Lost
            | QueueError::Panicked { .. }
            | QueueError::NoSession { .. }
            | QueueError::BadAnswer { .. } => ErrorKind::EngineFailed,
        }
    }

    fn client_message(&self) -> String {
        match self {
            QueueError::Panicked { .. } => "the engine crashed while running the model".to_owned(),
            QueueError::NoSession { .. } => "the model cannot run at the moment".to_owned(),
            _ => self.to_string(),
        }
    }
}
